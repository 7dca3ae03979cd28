"""What the bench prints: lines for people as it goes, and at its end the RESULT lines for scripts."""

import numpy

_results = []


def heading(text):
    print(f"\n{text}", flush=True)


def result(name, value, unit, what=""):
    """Keeps a figure for the end, and prints it now with what it is."""
    # Four digits that matter, never as 1e+04.
    text = numpy.format_float_positional(value, precision=4, unique=False, fractional=False, trim="-")
    _results.append(f"RESULT serve.{name} {text} {unit}")
    print(f"  {text:>9} {unit:8} {what or name.replace('.', ' ')}", flush=True)


def print_results():
    heading("Results")
    print("\n".join(_results), flush=True)


def percentile(times, percent):
    return float(numpy.percentile(times, percent))


def median(times):
    return percentile(times, 50)
