"""Writes the golden files of SASRec: small random checkpoints and what they answer, in float64.

Independent of the engine: histories are left-padded to the window and padding is masked, as the authors do,
where the engine has no padding at all. Needs NumPy only. From this folder:

    python3 sasrec.py
"""

import json
import math
import struct

import numpy as np

DIM, HEADS, FFN, WINDOW, BLOCKS, ITEMS = 8, 2, 12, 6, 2, 13
# Row j + 1 of the item table is item IDS[j]; None: the row is nobody's. Not ascending on purpose.
IDS = [907, -3, 12, None, 5_000_000_000, 44, 8, 300, 301, 302, 1, 2, 77]
HISTORIES = [[5], [2, 2, 9], [1, 3, 5, 7, 9, 11], [13, 12, 11, 10, 9, 8, 7, 6, 5], [6, 1, 6, 1, 6, 1, 6]]

erf = np.vectorize(math.erf)


def write(path, tensors, metadata=None):
    """A safetensors file of float32 tensors; `metadata` maps names to text."""
    header, data = {"__metadata__": metadata} if metadata else {}, b""
    for name in sorted(tensors):
        raw = tensors[name].astype("<f4").tobytes()
        header[name] = {"dtype": "F32", "shape": list(tensors[name].shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(head)) + head + data)


def norm(x, weights, name, eps):
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps)
    return scaled * weights[name + ".weight"] + weights[name + ".bias"]


def attention(q, k, v, heads, real):
    """Causal, over a window of which only the `real` places hold events."""
    n, dim = q.shape
    width = dim // heads
    allowed = np.tril(np.ones((n, n), bool)) & real[None, :]
    out = np.zeros_like(q)
    for head in range(heads):
        columns = slice(head * width, (head + 1) * width)
        scores = q[:, columns] @ k[:, columns].T / math.sqrt(width)
        scores = np.where(allowed, scores, -1e30)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        out[:, columns] = weights / weights.sum(-1, keepdims=True) @ v[:, columns]
    return out


def padded(history):
    rows = history[-WINDOW:]
    ids = np.array([0] * (WINDOW - len(rows)) + rows)
    return ids, ids != 0


def port(weights, history, heads, form):
    """The original block and its two variants, in the names of the PyTorch port."""
    ids, real = padded(history)
    x = weights["item_emb.weight"][ids] * math.sqrt(DIM) + weights["pos_emb.weight"][1 + np.arange(WINDOW)]
    for block in range(BLOCKS):
        x = x * real[:, None]
        a = f"attention_layers.{block}."
        f = f"forward_layers.{block}."
        n = norm(x, weights, f"attention_layernorms.{block}", 1e-8)
        q_in, kv_in, residual = {"original": (n, x, n), "pre_ln": (n, n, x), "post_ln": (x, x, x)}[form]
        projected = []
        for part, source in enumerate([q_in, kv_in, kv_in]):
            rows = slice(part * DIM, (part + 1) * DIM)
            projected.append(source @ weights[a + "in_proj_weight"][rows].T + weights[a + "in_proj_bias"][rows])
        y = attention(*projected, heads, real) @ weights[a + "out_proj.weight"].T + weights[a + "out_proj.bias"]
        y = residual + y
        if form == "post_ln":
            y = norm(y, weights, f"attention_layernorms.{block}", 1e-8)
        m = y if form == "post_ln" else norm(y, weights, f"forward_layernorms.{block}", 1e-8)
        hidden = np.maximum(m @ weights[f + "conv1.weight"][:, :, 0].T + weights[f + "conv1.bias"], 0)
        z = hidden @ weights[f + "conv2.weight"][:, :, 0].T + weights[f + "conv2.bias"]
        x = z + (m if form == "original" else y)
        if form == "post_ln":
            x = norm(x, weights, f"forward_layernorms.{block}", 1e-8)
    return norm(x, weights, "last_layernorm", 1e-8)[-1]


def bert(weights, history, heads):
    """Post-norm blocks with GELU."""
    ids, real = padded(history)
    x = weights["item_embeddings.weight"][ids] + weights["position_embeddings.weight"]
    x = norm(x, weights, "LayerNorm", 1e-12)
    for block in range(BLOCKS):
        at = f"item_encoder.layer.{block}."

        def linear(y, name):
            return y @ weights[at + name + ".weight"].T + weights[at + name + ".bias"]

        q, k, v = (linear(x, "attention." + name) for name in ("query", "key", "value"))
        y = linear(attention(q, k, v, heads, real), "attention.dense")
        x = norm(x + y, weights, at + "attention.LayerNorm", 1e-12)
        hidden = linear(x, "intermediate.dense_1")
        hidden = hidden * 0.5 * (1 + erf(hidden / math.sqrt(2)))
        x = norm(x + linear(hidden, "intermediate.dense_2"), weights, at + "intermediate.LayerNorm", 1e-12)
    return x[-1]


def draw(shapes, seed):
    """Weights that float32 holds exactly; gains of norms around one."""
    random = np.random.default_rng(seed)
    weights = {}
    for name, shape in shapes.items():
        values = random.normal(0, 0.4, shape)
        if "norm" in name.lower() and name.endswith("weight"):
            values = 1 + 0.2 * values
        weights[name] = values.astype(np.float32).astype(np.float64)
    return weights


def port_shapes():
    shapes = {"item_emb.weight": (ITEMS + 1, DIM), "pos_emb.weight": (WINDOW + 1, DIM)}
    for part in ("weight", "bias"):
        shapes["last_layernorm." + part] = (DIM,)
    for block in range(BLOCKS):
        for part in ("weight", "bias"):
            shapes[f"attention_layernorms.{block}.{part}"] = (DIM,)
            shapes[f"forward_layernorms.{block}.{part}"] = (DIM,)
        a, f = f"attention_layers.{block}.", f"forward_layers.{block}."
        shapes |= {a + "in_proj_weight": (3 * DIM, DIM), a + "in_proj_bias": (3 * DIM,)}
        shapes |= {a + "out_proj.weight": (DIM, DIM), a + "out_proj.bias": (DIM,)}
        shapes |= {f + "conv1.weight": (FFN, DIM, 1), f + "conv1.bias": (FFN,)}
        shapes |= {f + "conv2.weight": (DIM, FFN, 1), f + "conv2.bias": (DIM,)}
    return shapes


def bert_shapes():
    shapes = {"item_embeddings.weight": (ITEMS + 2, DIM), "position_embeddings.weight": (WINDOW, DIM)}
    for part in ("weight", "bias"):
        shapes["LayerNorm." + part] = (DIM,)
    for block in range(BLOCKS):
        at = f"item_encoder.layer.{block}."
        for part in ("weight", "bias"):
            shapes[f"{at}attention.LayerNorm.{part}"] = (DIM,)
            shapes[f"{at}intermediate.LayerNorm.{part}"] = (DIM,)
        for name in ("query", "key", "value", "dense"):
            shapes |= {f"{at}attention.{name}.weight": (DIM, DIM), f"{at}attention.{name}.bias": (DIM,)}
        shapes |= {at + "intermediate.dense_1.weight": (FFN, DIM), at + "intermediate.dense_1.bias": (FFN,)}
        shapes |= {at + "intermediate.dense_2.weight": (DIM, FFN), at + "intermediate.dense_2.bias": (DIM,)}
    return shapes


def case(name, file, table, params, encode):
    answers = []
    for history in HISTORIES:
        vector = encode(history)
        scores = table[1 : ITEMS + 1] @ vector
        answers.append({"rows": history, "vector": vector.round(9).tolist(), "scores": scores.round(9).tolist()})
    return {"name": name, "file": file, "params": params, "answers": answers}


def main():
    ported = draw(port_shapes(), 1)
    ported["item_emb.weight"][0] = ported["pos_emb.weight"][0] = 0
    write("sasrec_port.safetensors", ported)
    cases = []
    for form in ("original", "pre_ln", "post_ln"):
        params = {"heads": HEADS} | ({} if form == "original" else {"block": form})
        encode = lambda history, form=form: port(ported, history, HEADS, form)
        cases.append(case("port " + form, "sasrec_port.safetensors", ported["item_emb.weight"], params, encode))
    encode = lambda history: port(ported, history, 1, "original")
    cases.append(case("port one head", "sasrec_port.safetensors", ported["item_emb.weight"], {}, encode))

    berts = draw(bert_shapes(), 2)
    write("sasrec_bert.safetensors", berts)
    encode = lambda history: bert(berts, history, HEADS)
    cases.append(case("bert", "sasrec_bert.safetensors", berts["item_embeddings.weight"], {}, encode))

    with open("sasrec.json", "w") as file:
        json.dump({"ids": IDS, "window": WINDOW, "cases": cases}, file, separators=(",", ":"))
        file.write("\n")


if __name__ == "__main__":
    main()
