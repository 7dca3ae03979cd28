"""BPR of the package `implicit` on the CPU: reads `user item` lines, writes a line of recommended items a user."""

import argparse
import time

import numpy
import scipy.sparse
from implicit.bpr import BayesianPersonalizedRanking


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("events")
    arguments.add_argument("lists")
    arguments.add_argument("--items", type=int, required=True)
    arguments.add_argument("--users", type=int, required=True)
    arguments.add_argument("--k", type=int, required=True)
    arguments.add_argument("--threads", type=int, required=True)
    arguments.add_argument("--seed", type=int, required=True)
    arguments.add_argument("--rate", type=float, required=True)
    arguments.add_argument("--l2", type=float, required=True)
    arguments.add_argument("--epochs", type=int, required=True)
    given = arguments.parse_args()
    events = numpy.loadtxt(given.events, dtype=numpy.int64, ndmin=2)
    touched = numpy.ones(len(events), dtype=numpy.float32)
    matrix = scipy.sparse.csr_matrix((touched, events.T), shape=(given.users, given.items))
    model = BayesianPersonalizedRanking(
        factors=64,
        learning_rate=given.rate,
        regularization=given.l2,
        iterations=given.epochs,
        num_threads=given.threads,
        use_gpu=False,
        random_state=given.seed,
    )
    begin = time.perf_counter()
    model.fit(matrix, show_progress=False)
    print(time.perf_counter() - begin)
    lists, _ = model.recommend(numpy.arange(given.users), matrix, N=given.k, filter_already_liked_items=True)
    numpy.savetxt(given.lists, lists, fmt="%d")


if __name__ == "__main__":
    main()
