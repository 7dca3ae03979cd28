"""Searches that nobody made, derived from what people watched: a stand-in where a data set has no log of searches.

    python3 searches.py FOLDER [--share 0.2] [--seed 1] > searches.tsv

FOLDER holds interactions.tsv.gz (user_id, item_id, position) and items.tsv.gz (item_id, title, genres separated by |). Of
the events a share is taken to have followed a search, whose query is one of the item's genres or, one time in three, a
word of its title. Prints user_id, position, query and item_id; the search came just before the event of that position.
Whatever is measured with it says that its searches are derived.
"""

import argparse
import csv
import gzip
import random
import re
import sys
from pathlib import Path


def rows(path):
    with gzip.open(path, "rt", encoding="utf-8", newline="") as lines:
        yield from csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--share", type=float, default=0.2)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    titles, genres = {}, {}
    for item in rows(arguments.folder / "items.tsv.gz"):
        # The year, and what stands in front of most titles, look for nothing.
        title = re.sub(r"\(\d{4}\)$", "", item["title"])
        titles[item["item_id"]] = [word for word in re.findall(r"\w+", title) if len(word) > 3]
        genres[item["item_id"]] = [genre for genre in item["genres"].split("|") if genre]
    draw = random.Random(arguments.seed)
    out = csv.writer(sys.stdout, delimiter="\t", lineterminator="\n")
    out.writerow(["user_id", "position", "query", "item_id"])
    for event in rows(arguments.folder / "interactions.tsv.gz"):
        item = event["item_id"]
        words = titles.get(item, []) if draw.random() < 1 / 3 else genres.get(item, [])
        if words and draw.random() < arguments.share:
            out.writerow([event["user_id"], event["position"], draw.choice(words), item])


if __name__ == "__main__":
    main()
