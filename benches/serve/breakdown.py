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
    """`times` are those of the client, if they have been measured: milliseconds of every case."""
    heading(f"Where the time goes: medians of {len(users):,} calls inside the server")
    took = {name: per_call(connection, call, users) for name, (call, _) in CASES.items()}
    # Without the recommender's schema on the search path, it has to be found among all.
    took["unnamed"] = per_call(connection, CASES["full"][0], users, "SET search_path = public, pg_temp")
    for name, (_, what) in (CASES | {"unnamed": ("", "all, with no shop on the search path")}).items():
        print(f"  {name:12} {took[name]:7.0f} µs  {what}")
        result(f"inside.{name}", took[name], "µs")
    parts(took, 1e3 * median(times["ours"]), 1e3 * median(times["bare"]))


def per_call(connection, call, users, settings=""):
    connection.execute("DROP FUNCTION IF EXISTS pg_temp.microseconds")
    connection.execute(FUNCTION.format(settings=settings, order=ORDER, call=call))
    (times,) = connection.execute("SELECT pg_temp.microseconds(%s)", (users,)).fetchone()
    return median(times)


def parts(took, ours, bare):
    """The median call of the client in parts, from differences of the above."""
    loop = took["loop"]
    alive = took["alive_sql"] - loop
    compute = took["full"] - took["history"] - alive
    forward = took["encode"] - took["open"] - (took["history"] - took["open"]) * window_share(took)
    split = {
        "round trip": bare,
        "open: names, rights, deployment": took["open"] - loop,
        "history: read and translated": took["history"] - took["open"],
        "forward pass": forward,
        "scoring every item": compute - forward,
        "alive: items that still exist": alive,
        "rows to the client, the rest": ours - bare - (took["full"] - loop),
    }
    heading(f"The client's median of {ours:.0f} µs in parts")
    for what, value in split.items():
        print(f"  {value:7.0f} µs  {100 * value / ours:4.0f} %  {what}")
    floor = bare + took["history_sql"] - loop + compute
    print(f"  {floor:7.0f} µs  the floor: round trip, the history's statement, forward and scoring")
    result("inside.floor", floor, "µs")


def window_share(took):
    """How much of the history's time is left when only the window is read."""
    whole = took["history"] - took["open"]
    return 1 - min(max(took["full"] - took["window"], 0) / whole, 1) if whole > 0 else 1
