"""HSTU beside SASRec, and a history of 8,192 events that grows: what is kept of it against all computed anew."""

import functools

import hstu
import latency
from report import heading, percentile, result

NEXT = "SELECT * FROM rec_next(%s, 10, model => {})"
WINDOW = 200
LONG = 8192
# A user of whom nobody else knows.
SOMEBODY = -1
QUESTIONS = 30
APPEND = """
INSERT INTO shop.interaction (user_id, item_id, at)
SELECT u, item_id, latest + n * interval '1 minute'
FROM (VALUES (%s::bigint)) q (u), unnest(%s::bigint[]) WITH ORDINALITY i (item_id, n),
    LATERAL (SELECT coalesce(max(at), '2026-01-01') AS latest FROM shop.interaction WHERE user_id = u) l
"""


def run(connection, items, users):
    deploy(connection, items, "hstu_random", WINDOW)
    deploy(connection, items, "hstu_long", LONG)
    heading(f"HSTU of the same size, {len(users):,} random users")
    times = latency.in_turns({name: asking(connection, name) for name in ("random", "hstu_random")}, users)
    for name, what in (("random", "sasrec"), ("hstu_random", "hstu")):
        for percent in (50, 99):
            result(f"families.{what}_p{percent}", percentile(times[name], percent), "ms")
    growing(connection, items)


def deploy(connection, items, name, window):
    query = "SELECT rec_import(%s, %s, %s::bigint[], recommender => 'shop')"
    connection.execute(query, (name, hstu.checkpoint(len(items), window), items))


def asking(connection, model):
    """A function from a user to the rows of `rec_next` by a model."""
    query = NEXT.format(f"'{model}'")
    return lambda user: connection.execute(query, (user,), prepare=True, binary=True).fetchall()


def growing(connection, items):
    """One event more before every question, which is asked of what is kept and of all of the history, in turns."""
    append = functools.partial(connection.execute, APPEND)
    append((SOMEBODY, [items[(n * n) % len(items)] for n in range(LONG - QUESTIONS - 1)]))
    ask = asking(connection, "hstu_long")
    times = {"kept": [], "anew": []}
    apart = 0.0
    heading(f"A history of {LONG:,} events, one more before every question")
    for question in range(QUESTIONS):
        append((SOMEBODY, [items[question]]))
        answers = {}
        for name, memory in (("anew", "0"), ("kept", "DEFAULT")) if question % 2 else (("kept", "DEFAULT"), ("anew", "0")):
            connection.execute(f"SET rec.history_memory = {memory}")
            times[name] += latency.timed(lambda user: answers.update({name: ask(user)}), [SOMEBODY])
        apart = max(apart, *(abs(a[2] - b[2]) for a, b in zip(answers["kept"], answers["anew"])))
    connection.execute("RESET rec.history_memory")
    # The first question finds nothing kept.
    medians = {name: percentile(values[1:], 50) for name, values in times.items()}
    for name, what in (("anew", "all of it computed"), ("kept", "what is settled kept")):
        result(f"long.{name}", medians[name], "ms", what)
    result("long.ratio", medians["anew"] / medians["kept"], "x")
    result("long.apart", apart, "", "the largest difference of two scores")
