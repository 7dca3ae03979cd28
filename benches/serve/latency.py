"""One connection, one user at a time: ours, the peers and a bare round trip, in turns so that noise hits all."""

import gc
import time

from report import heading, median, percentile, result

NEXT = "SELECT * FROM rec_next(%s, 10)"
# What the protocol and the client need for a parameter and ten rows of these types, whoever makes them.
ROWS = "SELECT i, i::bigint, i::real FROM generate_series(1, 10) i WHERE i <> -%s"
BLOCK = 50
WARM_UP = 20
TRIAL = 60
AGREEMENT = 100


def ours(connection):
    """A function from a user to the rows of `rec_next`."""
    return lambda user: connection.execute(NEXT, (user,), prepare=True, binary=True).fetchall()


def rows(connection):
    """A function from a user to rows like those of `rec_next` that mean nothing."""
    return lambda user: connection.execute(ROWS, (user,), prepare=True, binary=True).fetchall()


def bare(connection):
    """A function that asks for nothing: what the round trip costs."""
    return lambda _: connection.execute("SELECT 1", prepare=True, binary=True).fetchall()


def timed(call, users):
    """Milliseconds of every call."""
    times = []
    for user in users:
        began = time.perf_counter()
        call(user)
        times.append((time.perf_counter() - began) * 1e3)
    return times


def in_turns(cases, users):
    """Times of every case over the same users, a block of them at a time, in an order that changes."""
    for call in cases.values():
        timed(call, users[:WARM_UP])
    times = {name: [] for name in cases}
    names = list(cases)
    # What is alive now stays alive, and a full collection of it would count against whoever has the turn.
    gc.collect()
    gc.freeze()
    for block, start in enumerate(range(0, len(users), BLOCK)):
        turn = block % len(names)
        for name in names[turn:] + names[:turn]:
            times[name] += timed(cases[name], users[start : start + BLOCK])
    return times


def fastest(forms, users):
    """The form of a peer with the lowest median, and what they all took, as text."""
    medians = {}
    for form in forms:
        timed(form.next, users[:WARM_UP])
        medians[form] = median(timed(form.next, users[:TRIAL]))
    tried = ", ".join(f"{form} {value:.2f} ms" for form, value in medians.items())
    return min(medians, key=medians.get), tried


def agreement(ours, peer, users):
    """The share of users whose two lists hold the same items in the same order."""
    users = users[:AGREEMENT]
    same = sum([row[1] for row in ours(user)] == [item for item, _ in peer.next(user)] for user in users)
    return same / len(users)


def run(connection, peers, users):
    """`peers` maps a name to the forms of one peer, of which the fastest counts. Returns the times of every case."""
    heading(f"One connection, {len(users):,} random users")
    cases = {"bare": bare(connection), "rows": rows(connection), "ours": ours(connection)}
    for name, forms in peers.items():
        best, tried = fastest(forms, users)
        print(f"  {name}: {best} (tried: {tried})", flush=True)
        result(f"one_connection.{name}_agreement", 100 * agreement(cases["ours"], best, users), "%")
        cases[name] = best.next
    times = in_turns(cases, users)
    for name, values in times.items():
        for percent in (50, 99):
            result(f"one_connection.{name}_p{percent}", percentile(values, percent), "ms", f"{name} p{percent}")
    for name in peers:
        ratios(name, times)
    return times


def ratios(name, times):
    """The peer's time over ours. The usual stack is the measure; another peer's ratios carry its name."""
    suffix = "" if name == "peer" else f"_{name}"
    p50, p99 = ({case: percentile(values, percent) for case, values in times.items()} for percent in (50, 99))
    result(f"one_connection.p50_ratio{suffix}", p50[name] / p50["ours"], "x")
    result(f"one_connection.p99_ratio{suffix}", p99[name] / p99["ours"], "x")
    net = (p50[name] - p50["bare"]) / (p50["ours"] - p50["bare"])
    result(f"one_connection.p50_net_ratio{suffix}", net, "x")
