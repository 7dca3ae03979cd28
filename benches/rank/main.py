"""Run by `cargo xtask bench rank` against its private server, which has the data loaded."""

import argparse
import json

import numpy
import psycopg

from factors import Factors, best

TASK = {"name": "like", "weight_from": 4}
EPOCHS = 40


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("conninfo")
    arguments.add_argument("--seeds", type=int, default=3)
    arguments.add_argument("--params", default="{}", help="more parameters of hstu_rank, as a JSON object")
    given = arguments.parse_args()
    with psycopg.connect(given.conninfo, autocommit=True) as connection:
        connection.execute("UPDATE shop.interaction SET weight = rating")
        (rated,) = connection.execute("SELECT count(weight) FROM shop.interaction").fetchone()
        if not rated:
            raise SystemExit("no rating is in the data: give a folder with ratings, such as ml-100k, by --data")
        connection.execute("VACUUM ANALYZE shop.interaction")
        hstu = [ours(connection, json.loads(given.params), seed) for seed in range(1, given.seeds + 1)]
        train, validation, test, sizes = events(connection)
    report("hstu_rank", hstu)
    area, (dim, l2, epochs) = best(train, validation, sizes, EPOCHS, 1, auc)
    print(f"  matrix factorisation: dim {dim}, L2 {l2}, {epochs} epochs: {area:.4f} on the validation events", flush=True)
    # What a history holds when the last event happens, a factorisation may have learnt from.
    known = [numpy.concatenate(parts) for parts in zip(train, validation)]
    report("matrix_factorisation", [factors(known, test, sizes, (dim, l2, epochs), s) for s in range(1, given.seeds + 1)])
    report("item_share", [item_share(known, test, sizes)])


def ours(connection, more, seed):
    """AUC and normalised entropy of one training, measured by rec_evaluate."""
    model = f"rank_{seed}"
    params = {"leave_last": 2, "seed": seed, "tasks": [TASK], **more}
    call = "CALL rec_train('hstu_rank', %s, recommender => 'shop', model => %s)"
    connection.execute(call, (json.dumps(params), model))
    query = "SELECT metric, value, low, high FROM rec_evaluate(%s, recommender => 'shop') WHERE grp = 'all'"
    figures = {metric: (value, low, high) for metric, value, low, high in connection.execute(query, (model,))}
    query = "SELECT seconds, (metrics #>> '{validation,auc}')::float8 FROM rec.models WHERE name = %s"
    seconds, validated = connection.execute(query, (model,)).fetchone()
    value, low, high = figures["auc"]
    spread = f"({low:.4f} … {high:.4f}), {validated:.4f} on the validation events"
    print(f"  hstu_rank, seed {seed}: AUC {value:.4f} {spread}, {seconds:.0f} s", flush=True)
    return value, figures["normalized_entropy"][0]


def events(connection):
    """Users, items and answers of all but the last two events, of the second-last and of the last, by user."""
    query = """
        SELECT dense_rank() OVER (ORDER BY user_id) - 1, dense_rank() OVER (ORDER BY item_id) - 1, weight >= 4,
            least(2, row_number() OVER (PARTITION BY user_id ORDER BY at DESC NULLS LAST, position DESC NULLS LAST) - 1)
        FROM shop.interaction
    """
    rows = numpy.array(connection.execute(query).fetchall(), dtype=numpy.int64)
    sizes = rows[:, 0].max() + 1, rows[:, 1].max() + 1
    train, validation, test = ([*rows[rows[:, 3] == back, :3].T] for back in (2, 1, 0))
    return train, validation, test, sizes


def factors(known, test, sizes, choice, seed):
    dim, l2, epochs = choice
    model = Factors(*sizes, dim, l2, known[2].mean(), seed)
    for _ in range(epochs):
        model.epoch(*known)
    probabilities = model.probabilities(*test[:2])
    return auc(probabilities, test[2]), normalised_entropy(probabilities, test[2])


def item_share(known, test, sizes):
    """How often an item's answer is yes, drawn to the mean by five events: what needs no model."""
    _, items, answers = known
    yes, all_of = (numpy.bincount(items, weights, sizes[1]) for weights in (answers, None))
    probabilities = ((yes + 5 * answers.mean()) / (all_of + 5))[test[1]]
    return auc(probabilities, test[2]), normalised_entropy(probabilities, test[2])


def auc(scores, answers):
    """The area under the curve by midranks (Mann & Whitney)."""
    _, places, counts = numpy.unique(scores, return_inverse=True, return_counts=True)
    ranks = (counts.cumsum() - (counts - 1) / 2)[places]
    yes = answers.sum()
    return (ranks[answers == 1].sum() - yes * (yes + 1) / 2) / (yes * (len(answers) - yes))


def normalised_entropy(probabilities, answers):
    def loss(p):
        return -numpy.mean(answers * numpy.log(p) + (1 - answers) * numpy.log(1 - p))

    return loss(probabilities) / loss(numpy.full(len(answers), answers.mean()))


def report(name, figures):
    areas, entropies = zip(*figures)
    spread = f" ({min(areas):.4f} … {max(areas):.4f})" if len(areas) > 1 else ""
    print(
        f"RESULT rank.{name} auc {numpy.mean(areas):.4f}{spread} normalized_entropy {numpy.mean(entropies):.4f}, "
        f"{len(areas)} seeds",
        flush=True,
    )


if __name__ == "__main__":
    main()
