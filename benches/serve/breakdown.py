"""Where the time of one call goes: medians of loops inside the server, so that neither the client nor the protocol
is in them."""

from report import heading, median, result

# Each case is the rest of a PERFORM. `one` is a user and `session` the latest items of this user, oldest first.
ORDER = "ORDER BY at DESC NULLS LAST, position DESC NULLS LAST"
CASES = {
    "loop": ("FROM generate_series(1, 10)", "ten rows of a built-in function: what the loop itself costs"),
    "history_sql": (
        f"item_id::bigint FROM shop.interaction WHERE user_id = one {ORDER} LIMIT 10000",
        "the statement that reads the history, alone",
    ),
    "alive_sql": (
        "item_id::bigint FROM shop.item WHERE item_id = ANY (session[1:10])",
        "the statement that asks which items still exist, alone",
    ),
    "open": ("FROM rec_next_session(NULL, 0)", "recommender, rights, deployment, open model; nothing computed"),
    "history": ("FROM rec_next(one, 0)", "open + history read and translated"),
    "popularity": ("FROM rec_next(one, 10, model => 'popular')", "history + a list without a forward pass + alive"),
    "encode": ("rec_encode(one)", "open + history within the window + forward"),
    "session": ("FROM rec_next_session(session, 10)", "open + forward + scoring + alive: no history is read"),
    "window": ("FROM rec_next(one, 10, exclude_seen => false)", "all, the history only within the window"),
    "full": ("FROM rec_next(one, 10)", "all"),
}

FUNCTION = """
CREATE FUNCTION pg_temp.microseconds(users bigint[]) RETURNS real[] LANGUAGE plpgsql {settings} AS $$
DECLARE
    times real[] := array_fill(0::real, ARRAY[cardinality(users)]);
    session bigint[];
    one bigint;
    began timestamptz;
BEGIN
    FOR i IN 1 .. cardinality(users) LOOP
        one := users[i];
        session := (SELECT array_agg(item_id ORDER BY at NULLS FIRST, position NULLS FIRST)
                    FROM (SELECT item_id, at, position FROM shop.interaction WHERE user_id = one {order} LIMIT 200) h);
        began := clock_timestamp();
        PERFORM {call};
        times[i] := extract(epoch FROM clock_timestamp() - began) * 1e6;
    END LOOP;
    RETURN times;
END $$
"""


def run(connection, users, times):
    """`times` are the client's milliseconds of every case."""
    heading(f"Where the time goes: medians of {len(users):,} calls inside the server")
    took = {name: per_call(connection, call, users) for name, (call, _) in CASES.items()}
    # Without the recommender's schema on the search path, it has to be found among all.
    took["unnamed"] = per_call(connection, CASES["full"][0], users, "SET search_path = public, pg_temp")
    for name, (_, what) in (CASES | {"unnamed": ("", "all, with no shop on the search path")}).items():
        result(f"inside.{name}", took[name], "µs", f"{name}: {what}")
    parts(took, {name: 1e3 * median(values) for name, values in times.items()})


def per_call(connection, call, users, settings=""):
    connection.execute("DROP FUNCTION IF EXISTS pg_temp.microseconds")
    connection.execute(FUNCTION.format(settings=settings, order=ORDER, call=call))
    (times,) = connection.execute("SELECT pg_temp.microseconds(%s)", (users,)).fetchone()
    return median(times)


def parts(took, client):
    """The client's median call in parts, from differences of the above."""
    history = took["history"] - took["open"]
    alive = took["alive_sql"] - took["loop"]
    compute = took["full"] - took["history"] - alive
    # A forward pass reads the history too, but only within the window.
    forward = took["encode"] - took["open"] - min(history, history - took["full"] + took["window"])
    split = {
        "round trip": client["bare"],
        "a parameter in, ten rows out": client["rows"] - client["bare"],
        "recommender, rights, deployment": took["open"] - took["loop"],
        "history read and translated": history,
        "forward pass": forward,
        "scoring of every item": compute - forward,
        "which items still exist": alive,
    }
    split["the rest: cold caches, page faults, scheduling"] = client["ours"] - sum(split.values())
    heading(f"The client's median of {client['ours']:.0f} µs in parts")
    for what, value in split.items():
        print(f"  {value:9.0f} µs  {100 * value / client['ours']:4.0f} %  {what}")
    floor = client["rows"] + took["history_sql"] - took["loop"] + compute
    result("inside.floor", floor, "µs", "the floor: round trip with rows, history's statement, forward, scoring")
