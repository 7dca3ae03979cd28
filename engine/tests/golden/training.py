"""Writes the golden file of SASRec's gradients: random weights, and what PyTorch's autograd says of them in float64.

Every form with every loss, without dropout. Independent of the engine: each history is computed on its own, with
matrices of all pairs of events. Only the draw of negatives follows the engine's (`Objective::draw`). Needs NumPy and
PyTorch. From this folder:

    python3 training.py
"""

import json
import math

import numpy as np
import torch
import torch.nn.functional as F

from sasrec import write

DIM, HEADS, FFN, WINDOW, BLOCKS, ITEMS = 6, 2, 8, 5, 2, 12
# Longest first, the order in which the engine lays them out; items 4 and 11 are nobody's, 2 repeats.
HISTORIES = [[3, 0, 7, 2, 2, 9], [10, 1, 5, 8, 0], [2, 6, 3, 2], [9, 7, 10], [5, 1]]
STEP_KEY = 11
FORMS = {
    # Where norms and residuals are, and which weights that not every form has.
    "original": ("original", F.relu, {"norms", "final_norm"}),
    "pre_ln": ("pre_ln", F.gelu, {"norms", "final_norm", "output"}),
    "post_ln": ("post_ln", F.gelu, {"norms", "input_norm", "output"}),
    "hstu_baseline": ("original", F.relu, {"output"}),
}
COSINES = {"normalized": True, "temperature": 0.05}
PRODUCTS = {"normalized": False}
IN_BATCH = {"negative_source": "in_batch", "shared_negatives": True, "correction": True}
# Whatever has a default is said, so that the file outlives a change of defaults.
LOSSES = [
    {"loss": "softmax"} | COSINES,
    {"loss": "softmax"} | PRODUCTS,
    {"loss": "sampled_softmax", "negatives": 4, "shared_negatives": False, "correction": False} | COSINES,
    {"loss": "sampled_softmax", "negatives": 5} | IN_BATCH | COSINES,
    {"loss": "bce", "negatives": 1, "shared_negatives": False} | PRODUCTS,
    {"loss": "gbce", "negatives": 3, "shared_negatives": True, "calibration": 0.75} | PRODUCTS,
]
SIZES = {"dim": DIM, "blocks": BLOCKS, "heads": HEADS, "ffn": FFN, "window": WINDOW}


def shapes(has):
    all_shapes = {"items": (ITEMS, DIM), "positions": (WINDOW, DIM)}

    def norm(name):
        all_shapes.update({f"{name}.weight": (DIM,), f"{name}.bias": (DIM,)})

    for name in ("input_norm", "final_norm"):
        if name in has:
            norm(name)
    for block in range(BLOCKS):
        if "norms" in has:
            norm(f"blocks.{block}.attention_norm")
            norm(f"blocks.{block}.ffn_norm")
        layers = {layer: (DIM, DIM) for layer in ("query", "key", "value")}
        layers |= {"output": (DIM, DIM)} if "output" in has else {}
        layers |= {"ffn_in": (DIM, FFN), "ffn_out": (FFN, DIM)}
        for layer, shape in layers.items():
            all_shapes[f"blocks.{block}.{layer}.weight"] = shape
            all_shapes[f"blocks.{block}.{layer}.bias"] = shape[1:]
    return all_shapes


def draw():
    """Weights that float32 holds exactly; gains of norms around one."""
    random = np.random.default_rng(3)
    weights = {}
    for name, shape in shapes({"norms", "input_norm", "final_norm", "output"}).items():
        values = random.normal(0, 0.4, shape)
        if "norm" in name and name.endswith("weight"):
            values = 1 + 0.2 * values
        weights[name] = values.astype(np.float32).astype(np.float64)
    return weights


def norm(x, weights, name):
    return F.layer_norm(x, (DIM,), weights.get(f"{name}.weight"), weights.get(f"{name}.bias"), 1e-8)


def linear(x, weights, name):
    return x @ weights[f"{name}.weight"] + weights[f"{name}.bias"]


def attention(q, k, v):
    """Causal, over one history."""
    future = torch.ones(len(q), len(q), dtype=torch.bool).triu(1)
    parts = []
    for qh, kh, vh in zip(*(x.chunk(HEADS, dim=1) for x in (q, k, v))):
        scores = (qh @ kh.T / math.sqrt(DIM // HEADS)).masked_fill(future, -math.inf)
        parts.append(scores.softmax(1) @ vh)
    return torch.cat(parts, 1)


def encode(weights, form, cosines, inputs):
    """One row an event."""
    block_form, activation, has = FORMS[form]
    x = weights["items"][inputs] * math.sqrt(DIM) + weights["positions"][WINDOW - len(inputs) :]
    if "input_norm" in has:
        x = norm(x, weights, "input_norm")
    for block in range(BLOCKS):
        at = f"blocks.{block}."

        def attend(queries, memory):
            q = linear(queries, weights, at + "query")
            k, v = (linear(memory, weights, at + name) for name in ("key", "value"))
            y = attention(q, k, v)
            return linear(y, weights, at + "output") if "output" in has else y

        def feed(y):
            return linear(activation(linear(y, weights, at + "ffn_in")), weights, at + "ffn_out")

        first, second = at + "attention_norm", at + "ffn_norm"
        if block_form == "original":
            n = norm(x, weights, first)
            m = norm(n + attend(n, x), weights, second)
            x = m + feed(m)
        elif block_form == "pre_ln":
            n = norm(x, weights, first)
            y = x + attend(n, n)
            x = y + feed(norm(y, weights, second))
        else:
            y = norm(x + attend(x, x), weights, first)
            x = norm(y + feed(y), weights, second)
    if "final_norm" in has:
        x = norm(x, weights, "final_norm")
    return F.normalize(x, dim=1) if cosines else x


class SplitMix:
    """Steele, Lea & Flood 2014."""

    def __init__(self, seed):
        self.state = seed

    def next(self):
        mask = (1 << 64) - 1
        self.state = (self.state + 0x9E3779B97F4A7C15) & mask
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        return z ^ (z >> 31)

    def below(self, n):
        return (self.next() * n) >> 64


def negatives(params, answers):
    """`[rows, negatives]` items, and what is subtracted from their scores."""
    count = params["negatives"]
    random = SplitMix(SplitMix(STEP_KEY).next())
    if not params["shared_negatives"]:
        drawn = [[random.below(ITEMS) for _ in range(count)] for _ in answers]
        return torch.tensor(drawn), torch.zeros(count)
    drawn = [random.below(ITEMS) for _ in range(count)]
    correction = [0.0] * count
    if params.get("negative_source") == "in_batch":
        events = [item for history in HISTORIES for item in history]
        share = [max(events.count(item), 1) / len(events) for item in range(ITEMS)]
        drawn += answers.tolist()
        correction = [math.log(count / ITEMS)] * count
        correction += [math.log(len(answers) * share[answer]) for answer in answers]
    return torch.tensor(drawn).expand(len(answers), -1), torch.tensor(correction)


def loss(params, hidden, items, answers):
    """The mean over the events."""
    if params["normalized"]:
        items = F.normalize(items, dim=1)
    scale = 1 / params.get("temperature", 1.0)
    if params["loss"] == "softmax":
        return F.cross_entropy(scale * hidden @ items.T, answers)
    others, correction = negatives(params, answers)
    positive = (hidden * items[answers]).sum(1)
    negative = torch.einsum("rd,rnd->rn", hidden, items[others])
    hits = others == answers.unsqueeze(1)
    if params["loss"] == "sampled_softmax":
        negative = (scale * negative - correction).masked_fill(hits, -math.inf)
        scores = torch.cat([scale * positive.unsqueeze(1), negative], 1)
        return F.cross_entropy(scores, torch.zeros_like(answers))
    beta = 1.0
    if params["loss"] == "gbce":
        alpha = params["negatives"] / (ITEMS - 1)
        beta = alpha * (params["calibration"] * (1 - 1 / alpha) + 1 / alpha)
    return (beta * F.softplus(-positive) + F.softplus(negative).masked_fill(hits, 0).sum(1)).mean()


def case(drawn, form, params):
    weights = {name: torch.tensor(drawn[name], requires_grad=True) for name in shapes(FORMS[form][2])}
    hidden = torch.cat([encode(weights, form, params["normalized"], history[:-1]) for history in HISTORIES])
    answers = torch.tensor([item for history in HISTORIES for item in history[1:]])
    value = loss(params, hidden, weights["items"], answers)
    value.backward()
    gradient = np.concatenate([weight.grad.numpy().ravel() for weight in weights.values()])
    return value.item(), list(weights), gradient


def main():
    torch.set_default_dtype(torch.float64)
    drawn = draw()
    tensors = {f"weights.{name}": values for name, values in drawn.items()}
    cases = []
    for form in FORMS:
        for params in LOSSES:
            value, names, gradient = case(drawn, form, params)
            tensors[f"gradient.{len(cases)}"] = gradient
            params = SIZES | {"form": form, "activation": FORMS[form][1].__name__} | params
            cases.append({"params": params, "loss": value, "weights": names})
    golden = {"items": ITEMS, "histories": HISTORIES, "step_key": STEP_KEY, "cases": cases}
    write("training.safetensors", tensors, {"golden": json.dumps(golden, separators=(",", ":"))})


if __name__ == "__main__":
    main()
