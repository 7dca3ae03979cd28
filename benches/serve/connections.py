"""What a new connection costs: the first call's time, and the private memory of its process."""

import psycopg

from latency import bare, ours, timed
from report import heading, median, result

FRESH = 20
CALLS = 1000


def first_calls(conninfo, users):
    """The first statement of a new connection; making the connection is not counted."""
    heading(f"First statement of a new connection, median of {FRESH}")
    cases = {"bare": bare, "ours": ours}
    times = {name: [] for name in cases}
    for user in users[:FRESH]:
        for name, case in cases.items():
            with psycopg.connect(conninfo, autocommit=True) as connection:
                times[name] += timed(case(connection), [user])
    for name, values in times.items():
        result(f"first_call.{name}", median(values), "ms")


def memory(conninfo, users):
    """Private memory of the server process of one connection, before and after calls."""
    heading("Private memory of a server process")
    with psycopg.connect(conninfo, autocommit=True) as connection:
        call = ours(connection)
        bare(connection)(None)
        pid = connection.info.backend_pid
        for moment, calls in (("before", 0), ("after_1", 1), (f"after_{CALLS}", CALLS)):
            for number in range(calls):
                call(users[number % len(users)])
            private, rollup = private_memory(pid)
            result(f"memory.{moment}_private", private, "MiB")
            result(f"memory.{moment}_rollup", rollup, "MiB")


def private_memory(pid):
    """MiB of this process alone, and MiB of all pages that no other process has mapped just now.

    The second is what smaps_rollup adds up. It counts pages of the mapped weights, of libraries and of shared_buffers
    too, for as long as this is the only process that has touched them.
    """
    private = rollup = 0
    shared_mapping = False
    with open(f"/proc/{pid}/smaps", encoding="utf-8") as lines:
        for line in lines:
            key, *rest = line.split()
            if not key.endswith(":"):
                shared_mapping = rest[0].endswith("s")
            elif key in ("Private_Clean:", "Private_Dirty:"):
                rollup += int(rest[0])
                if key == "Private_Dirty:" and not shared_mapping:
                    private += int(rest[0])
    return private / 1024, rollup / 1024
