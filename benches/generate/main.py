"""Run by `cargo xtask bench generate` against its private server, which has the data and a generative model."""

import argparse
import statistics
import time

import psycopg
import torch

from peer import Peer

TOOK = """
    CREATE FUNCTION pg_temp.took(who bigint, beam integer) RETURNS double precision LANGUAGE plpgsql AS $$
    DECLARE began timestamptz := clock_timestamp();
    BEGIN
        PERFORM item_id, score FROM rec_generate(who, 10, beam, exclude_seen => false);
        RETURN 1000 * extract(epoch FROM clock_timestamp() - began);
    END$$"""
GENERATE = "SELECT item_id, score FROM rec_generate(%s, 10, %s, exclude_seen => false)"


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("conninfo")
    arguments.add_argument("--turns", type=int, default=30)
    arguments.add_argument("--users", type=int, default=512)
    given = arguments.parse_args()
    with psycopg.connect(given.conninfo, autocommit=True) as connection:
        artifact = "SELECT data FROM rec.artifact JOIN rec.model USING (model_id) WHERE name = 'writer' ORDER BY chunk"
        peer = Peer(b"".join(bytes(chunk) for (chunk,) in connection.execute(artifact)))
        items = [item for (item,) in connection.execute("SELECT item_id FROM rec_semantic_ids('codes') ORDER BY 1")]
        print(f"{len(items):,} items, {torch.get_num_threads()} threads of PyTorch {torch.__version__}", flush=True)
        connection.execute(TOOK)
        for length in (5, 50):
            prepare(connection, items, length, given.users)
            for beam in (10, 20, 50, 256):
                latency(connection, peer, items, length, beam, given.turns)
            throughput(connection, peer, items, length, given.users)
        connection.execute("DELETE FROM shop.interaction WHERE user_id < 0")
        validity(connection)


def history(items, user, length):
    return [(user * 7919 + place * place * 31 + place) % len(items) for place in range(length)]


def prepare(connection, items, length, users):
    """Somebodies with histories of so many events."""
    connection.execute("DELETE FROM shop.interaction WHERE user_id < 0")
    with connection.cursor().copy("COPY shop.interaction (user_id, item_id, at) FROM STDIN") as copy:
        for user in range(users):
            for place, item in enumerate(history(items, user, length)):
                copy.write_row((-1 - user, items[item], f"2030-01-01 00:{place:02}"))
    connection.execute("VACUUM ANALYZE shop.interaction")


def latency(connection, peer, items, length, beam, turns):
    """One user after the other. Ours is the statement as the server sees it, which reads the history and looks whether the
    items still exist, and the same with the client's round trip; theirs begins with a history in memory."""
    ours, asked, theirs, alike, better = [], [], [], 0, 0.0
    for user in range(-3, turns):
        user = max(user, 0)
        began = time.perf_counter()
        rows = connection.execute(GENERATE, (-1 - user, beam), prepare=True, binary=True).fetchall()
        asked.append((time.perf_counter() - began) * 1e3)
        ours.append(connection.execute("SELECT pg_temp.took(%s, %s)", (-1 - user, beam), prepare=True).fetchone()[0])
        began = time.perf_counter()
        found, scores = peer.generate([history(items, user, length)], beam, 10)
        theirs.append((time.perf_counter() - began) * 1e3)
        alike += [items[item] for item in found[0].tolist()] == [item for item, _ in rows]
        better += statistics.mean(score for _, score in rows) - scores[0].mean().item()
    ours, asked, theirs = (statistics.median(times[3:]) for times in (ours, asked, theirs))
    line = f"{length:>3} events, beam {beam:>3}: {ours:6.2f} ms in the server, {asked:6.2f} with the client, {theirs:6.2f} in PyTorch"
    # A finished beam takes no place among ours, so that narrow searches differ a little.
    print(f"{line}; {alike} of {turns + 3} lists alike, mean log p {better / (turns + 3):+.4f}", flush=True)
    assert beam < 256 or alike > 0.9 * turns, "the searches differ"
    print(f"RESULT generate.{length}.{beam}.ratio {theirs / ours:.2f} x", flush=True)


def throughput(connection, peer, items, length, users):
    """All users at once, with the model's own beam of 50."""
    everybody = [-1 - user for user in range(users)]
    call = "SELECT count(*) FROM rec_next_many(%s::bigint[], 10)"
    histories = [history(items, user, length) for user in range(users)]
    ours, theirs = [], []
    for _ in range(3):
        began = time.perf_counter()
        connection.execute(call, (everybody,))
        between = time.perf_counter()
        for start in range(0, users, 64):
            peer.generate(histories[start : start + 64], 50, 10)
        ours.append(users / (between - began))
        theirs.append(users / (time.perf_counter() - between))
    ours, theirs = max(ours), max(theirs)
    print(f"{length:>3} events, beam  50, {users} users: {ours:,.0f} users/s in SQL, {theirs:,.0f} in PyTorch", flush=True)
    print(f"RESULT generate.{length}.many.ratio {ours / theirs:.2f} x", flush=True)


def validity(connection):
    """50 items for each user: whether each exists, is none of the user's own, and is listed once."""
    listed, there, own, twice = connection.execute("""
        WITH listed AS MATERIALIZED (
            SELECT * FROM rec_next_many(ARRAY(SELECT DISTINCT user_id FROM shop.interaction), 50))
        SELECT count(*), count(i.item_id), count(*) FILTER (WHERE EXISTS (
                SELECT FROM shop.interaction own WHERE own.user_id = l.user_id AND own.item_id = l.item_id)),
            count(*) - count(DISTINCT (l.user_id, l.item_id))
        FROM listed l LEFT JOIN shop.item i USING (item_id)""").fetchone()
    print(f"{listed:,} generated items: {listed - there} do not exist, {own} were touched before, {twice} twice", flush=True)


if __name__ == "__main__":
    main()
