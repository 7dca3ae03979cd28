"""Many users: pgbench with several clients, and everybody at once."""

import os
import re
import subprocess
import tempfile
import time

from report import heading, result

CLIENTS = (1, 2, 4)


def pgbench(program, conninfo, users, seconds):
    """Transactions per second and latency of random users. The ids of a shop's users are nearly without gaps."""
    heading(f"pgbench -M prepared, {seconds} s each")
    script = f"\\set user random({min(users)}, {max(users)})\nSELECT * FROM rec_next(:user, 10);\n"
    for clients in CLIENTS:
        tps, latency = transactions(program, conninfo, script, clients, seconds)
        result(f"pgbench_{clients}.tps", tps, "1/s")
        result(f"pgbench_{clients}.latency", latency, "ms")
    tps, latency = transactions(program, conninfo, "SELECT 1;\n", 1, seconds)
    result("pgbench_bare_1.tps", tps, "1/s")
    result("pgbench_bare_1.latency", latency, "ms")


def transactions(program, conninfo, script, clients, seconds):
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as file:
        file.write(script)
        file.flush()
        jobs = min(clients, os.cpu_count() or 1)
        options = ["-n", "-M", "prepared", "-c", str(clients), "-j", str(jobs), "-T", str(seconds), "-f", file.name]
        done = subprocess.run([program, *options, conninfo], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"pgbench failed:\n{done.stderr}")
    tps = re.search(r"^tps = ([0-9.]+)", done.stdout, re.MULTILINE)
    latency = re.search(r"^latency average = ([0-9.]+) ms", done.stdout, re.MULTILINE)
    return float(tps[1]), float(latency[1])


def everybody(connection, peers, users, rounds):
    """Ten items for every user, from the statement to the rows in the client; the best of some rounds."""
    heading(f"rec_next_many for {len(users):,} users, best of {rounds}")

    def ours(users):
        query = "SELECT * FROM rec_next_many(%s, 10)"
        return connection.execute(query, (users,), prepare=True, binary=True).fetchall()

    cases = {"ours": ours}
    if "peer" in peers:
        cases["peer"] = peers["peer"][-1].next_many
    best = dict.fromkeys(cases, float("inf"))
    for _ in range(rounds):
        for name, call in cases.items():
            began = time.perf_counter()
            call(users)
            best[name] = min(best[name], time.perf_counter() - began)
    for name, seconds in best.items():
        result(f"next_many.{name}", seconds, "s")
        result(f"next_many.{name}_rate", len(users) / seconds, "users/s")
    if "peer" in best:
        result("next_many.ratio", best["peer"] / best["ours"], "x")
