"""What the bench prints: tables for people, RESULT lines for scripts."""

import numpy


def heading(text):
    print(f"\n{text}", flush=True)


def result(name, value, unit):
    print(f"RESULT serve.{name} {value:.4g} {unit}", flush=True)


def percentile(times, percent):
    return float(numpy.percentile(times, percent))


def median(times):
    return percentile(times, 50)
