"""Run by `cargo xtask bench score` against its private server, which has the data loaded."""

import argparse
import json
import statistics
import time

import psycopg

SOMEBODY = -1
TASK = {"name": "heads", "weight_from": 0.5}
DIM = 64
SCORE = "SELECT item_id, score FROM rec_score(%s, %s::bigint[], at => '2040-01-01') ORDER BY item_id"


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("conninfo")
    arguments.add_argument("--events", type=int, default=8192)
    arguments.add_argument("--candidates", type=int, default=1000)
    given = arguments.parse_args()
    with psycopg.connect(given.conninfo, autocommit=True) as connection:
        items = [item for (item,) in connection.execute("SELECT DISTINCT item_id FROM shop.interaction ORDER BY 1")]
        prepare(connection, items, given.events)
        measure(connection, items[: given.candidates], given.events)


def prepare(connection, items, events):
    """A model with a window of so many events, and somebody with as many. What it has learnt is no matter."""
    connection.execute("UPDATE shop.interaction SET weight = random()")
    params = {"window": events, "dim": DIM, "epochs": 1, "tasks": [TASK]}
    call = "CALL rec_train('hstu_rank', %s, recommender => 'shop', deploy => 'always')"
    connection.execute(call, (json.dumps(params),))
    insert = """
        INSERT INTO shop.interaction (user_id, item_id, at, weight)
        SELECT %s, item_id, timestamptz '2030-01-01' + n * interval '1 minute', random()
        FROM unnest(%s::bigint[]) WITH ORDINALITY i (item_id, n)
    """
    connection.execute(insert, (SOMEBODY, [items[(n * n) % len(items)] for n in range(events)]))
    connection.execute("VACUUM ANALYZE shop.interaction")


def measure(connection, candidates, events):
    print(f"\n{len(candidates):,} candidates after {events:,} events, each followed by what came of it", flush=True)

    def timed(items, memory):
        connection.execute(f"SET rec.history_memory = {memory}")
        began = time.perf_counter()
        rows = connection.execute(SCORE, (SOMEBODY, items), prepare=True, binary=True).fetchall()
        return (time.perf_counter() - began) * 1e3, dict(rows)

    timed(candidates, "DEFAULT")
    kept, anew, single, apart = [], [], [], 0.0
    for turn in range(5):
        milliseconds, scores = timed(candidates, "DEFAULT")
        kept.append(milliseconds)
        anew.append(timed(candidates, "0")[0])
        one = candidates[turn * len(candidates) // 5]
        milliseconds, alone = timed([one], "0")
        single.append(milliseconds)
        apart = max(apart, abs(alone[one] - scores[one]))
    kept, anew, single = map(statistics.median, (kept, anew, single))
    result("one_at_a_time", single * len(candidates), "ms", "one at a time: the whole history for each, from 5 of them")
    result("recomputed", anew, "ms", "together, the history computed anew")
    result("kept", kept, "ms", "together, keys and values of the history kept")
    result("one_at_a_time_ratio", single * len(candidates) / kept, "x")
    result("recomputed_ratio", anew / kept, "x")
    result("apart", apart, "", "the largest difference of a score together and alone")


def result(name, value, unit, what=""):
    print(f"RESULT score.{name} {value:.4g} {unit}  {what}", flush=True)


if __name__ == "__main__":
    main()
