"""Writes the golden files of HSTU: small random checkpoints and what they answer, in float64.

Independent of the engine: histories are right-padded to the constant length and everything is computed as matrices of
all pairs of places, as the authors do, where the engine has no padding, and buckets of time come from the logarithm.
Needs NumPy only. From this folder:

    python3 hstu.py
"""

import json

import numpy as np

from sasrec import write

DIM, WINDOW, PADDED, BLOCKS, ITEMS = 10, 6, 17, 2, 13
# Row j + 1 of the item table is item IDS[j]; None: the row is nobody's. Not ascending on purpose.
IDS = [907, -3, 12, None, 5_000_000_000, 44, 8, 300, 301, 302, 1, 2, 77]
# Rows of items, the times of the events, and when the question is asked: of an hour, of years, of one moment, and
# before the latest events.
HISTORIES = [
    ([5], [1000.0], [1000.0, 4600.0]),
    ([2, 2, 9], [978300760.0, 978302109.0, 978302268.0], [978302268.0, 978302269.5, 1046454590.0]),
    ([1, 3, 5, 7, 9, 11], [10.0, 20.0, 20.0, 20.0, 500.0, 86400.0], [86401.0, 100.0]),
    ([13, 12, 11, 10, 9, 8, 7, 6, 5], [7.0] * 9, [7.0, 1e9]),
    ([6, 1, 6, 1, 6, 1, 6], [0.25, 1.5, 2.75, 60.0, 3600.0, 86400.0, 31536000.0], [63072000.0]),
]
# Heads, width of queries and keys, width of values, whether there are times.
FORMS = {"one_head": (1, 10, 10, True), "two_heads": (2, 5, 7, True), "positions_only": (2, 4, 5, False)}


def silu(x):
    return x / (1 + np.exp(-x))


def norm(x):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)


def bucket(seconds):
    return np.clip(np.log(np.maximum(np.abs(seconds), 1)) / 0.301, 0, 128).astype(int)


def encode(weights, form, history, times, at):
    heads, query_dim, value_dim, timed = FORMS[form]
    rows, stamps = history[-WINDOW:], times[-WINDOW:]
    length = len(rows)
    ids = np.array(rows + [0] * (PADDED - length))
    real = (ids != 0)[:, None]
    positions = weights["_input_features_preproc._pos_emb.weight"]
    x = (weights["_embedding_module._item_emb.weight"][ids] * np.sqrt(DIM) + positions) * real
    stamps = np.array(stamps + [at] + [0.0] * (PADDED - length))
    causal = np.tril(np.ones((PADDED, PADDED)))
    place = np.arange(PADDED)
    for block in range(BLOCKS):
        name = f"_hstu._attention_layers.{block}."
        projected = silu(norm(x) @ weights[name + "_uvqk"])
        ends = np.cumsum([heads * value_dim] * 2 + [heads * query_dim] * 2)[:-1]
        u, v, q, k = np.split(projected, ends, axis=1)
        bias = weights[name + "_rel_attn_bias._pos_w"][PADDED - 1 + place[None, :] - place[:, None]]
        if timed:
            apart = stamps[1:, None] - stamps[None, :-1]
            bias = bias + weights[name + "_rel_attn_bias._ts_w"][bucket(apart)]
        parts = []
        for head in range(heads):
            of = lambda y, width: y[:, head * width : (head + 1) * width]
            attention = silu(of(q, query_dim) @ of(k, query_dim).T + bias) / PADDED * causal
            parts.append(attention @ of(v, value_dim))
        gated = u * norm(np.concatenate(parts, axis=1))
        x = (gated @ weights[name + "_o.weight"].T + weights[name + "_o.bias"] + x) * real
    last = x[length - 1]
    return last / max(np.linalg.norm(last), 1e-6)


def draw(form, seed):
    """Weights that float32 holds exactly."""
    heads, query_dim, value_dim, timed = FORMS[form]
    shapes = {
        "_embedding_module._item_emb.weight": (ITEMS + 1, DIM),
        "_input_features_preproc._pos_emb.weight": (PADDED, DIM),
    }
    for block in range(BLOCKS):
        name = f"_hstu._attention_layers.{block}."
        shapes[name + "_uvqk"] = (DIM, 2 * heads * (value_dim + query_dim))
        shapes[name + "_o.weight"] = (DIM, heads * value_dim)
        shapes[name + "_o.bias"] = (DIM,)
        shapes[name + "_rel_attn_bias._pos_w"] = (2 * PADDED - 1,)
        if timed:
            shapes[name + "_rel_attn_bias._ts_w"] = (129,)
    random = np.random.default_rng(seed)
    return {name: random.normal(0, 0.5, shape).astype(np.float32).astype(np.float64) for name, shape in shapes.items()}


def main():
    cases = []
    for seed, form in enumerate(FORMS):
        weights = draw(form, seed)
        file = f"hstu_{form}.safetensors"
        # As trained on several devices.
        prefix = "module." if form == "two_heads" else ""
        write(file, {prefix + name: values for name, values in weights.items()})
        table = weights["_embedding_module._item_emb.weight"][1:]
        table = table / np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-6)
        answers = []
        for history, times, questions in HISTORIES:
            for at in questions:
                vector = encode(weights, form, history, times, at)
                answers.append(
                    {
                        "rows": history,
                        "times": times,
                        "at": at,
                        "vector": vector.round(9).tolist(),
                        "scores": (table @ vector).round(9).tolist(),
                    }
                )
        cases.append({"file": file, "params": {"heads": FORMS[form][0]}, "answers": answers})
    with open("hstu.json", "w") as file:
        json.dump({"ids": IDS, "window": WINDOW, "cases": cases}, file, separators=(",", ":"))
        file.write("\n")


if __name__ == "__main__":
    main()
