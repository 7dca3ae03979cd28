"""Run by `cargo xtask bench serve` against its private server, which has the data loaded."""

import argparse
import time

import numpy
import psycopg

import breakdown
import connections
import histories
import latency
import sasrec
import throughput
from report import heading, print_results

SEED = 7
THREADS = (1, 2)


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("conninfo")
    arguments.add_argument("--pgbench", required=True, help="the program")
    arguments.add_argument("--quick", action="store_true", help="300 users instead of 2,000")
    arguments.add_argument("--no-peer", action="store_true", help="only our own figures")
    given = arguments.parse_args()
    count, seconds, rounds = (300, 3, 1) if given.quick else (2000, 10, 2)
    with psycopg.connect(given.conninfo, autocommit=True) as connection:
        items = column(connection, "SELECT DISTINCT item_id FROM shop.interaction ORDER BY 1")
        everybody = column(connection, "SELECT DISTINCT user_id FROM shop.interaction ORDER BY 1")
        checkpoint = sasrec.checkpoint(len(items))
        deploy(connection, checkpoint, items)
        peers = {} if given.no_peer else usual_stack(connection, checkpoint, items)
        users = [int(user) for user in numpy.random.default_rng(SEED).choice(everybody, count)]
        times = latency.run(connection, peers, users)
        throughput.everybody(connection, peers, everybody, rounds)
        breakdown.run(connection, users, times)
        histories.run(connection, items, users)
    throughput.pgbench(given.pgbench, given.conninfo, everybody, seconds)
    connections.memory(given.conninfo, users)
    connections.first_calls(given.conninfo, users)
    print_results()


def column(connection, query):
    return [value for (value,) in connection.execute(query)]


def deploy(connection, checkpoint, items):
    """Makes the checkpoint the model that serves; popularity is there for comparison."""
    connection.execute("CALL rec_train('popularity', recommender => 'shop', model => 'popular')")
    began = time.perf_counter()
    query = "SELECT rec_import('random', %s, %s::bigint[], '{\"block\": \"original\"}', recommender => 'shop')"
    connection.execute(query, (checkpoint, items))
    connection.execute("SELECT rec_deploy('random', recommender => 'shop')")
    print(f"  imported {len(checkpoint):,} bytes of weights in {time.perf_counter() - began:.2f} s", flush=True)


def usual_stack(connection, checkpoint, items):
    """The peers, each in the forms it can take; none without PyTorch.

    `peer` pads every history to the window, as the published PyTorch port of SASRec does when it serves. `unpadded`
    is the same model without padding, `tuned` one written by hand without modules or mask.
    """
    try:
        import torch

        import peer
    except ImportError as error:
        heading(f"no peer: PyTorch is missing ({error})")
        return {}
    print(f"  peer: psycopg {psycopg.__version__} ({psycopg.pq.__impl__}), PyTorch {torch.__version__}", flush=True)
    table = sasrec.item_table(checkpoint)

    def forms(model, padding):
        return [peer.Peer(connection, model, table, items, padded, t) for padded in padding for t in THREADS]

    return {
        "peer": forms(peer.SasRec(checkpoint), (True,)),
        "unpadded": forms(peer.SasRec(checkpoint), (False,)),
        "tuned": forms(peer.Tuned(checkpoint), (False,)),
    }


if __name__ == "__main__":
    main()
