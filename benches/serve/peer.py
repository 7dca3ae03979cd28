"""The usual stack: a process that fetches the history with psycopg and computes with PyTorch."""

import math

import numpy
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import nn

from sasrec import BLOCKS, DIM, NORM_EPS, WINDOW

# The whole history, because what was seen may not be recommended. Aggregated on the server: psycopg makes a
# Python object of every row, which takes longer than the query.
ORDER = "ORDER BY at DESC NULLS LAST, position DESC NULLS LAST"
HISTORY = f"SELECT array_agg(item_id) FROM (SELECT item_id FROM shop.interaction WHERE user_id = %s {ORDER}) h"
HISTORIES = f"SELECT user_id, array_agg(item_id {ORDER}) FROM shop.interaction WHERE user_id = ANY (%s) GROUP BY 1"

BATCH = 128


class FeedForward(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv1d(DIM, DIM, 1)
        self.conv2 = nn.Conv1d(DIM, DIM, 1)

    def forward(self, x):
        return x + self.conv2(F.relu(self.conv1(x.transpose(1, 2)))).transpose(1, 2)


class SasRec(nn.Module):
    """The model as its PyTorch port writes it: the modules that it was trained with."""

    def __init__(self, checkpoint):
        super().__init__()
        tensors = safetensors.torch.load(checkpoint)
        self.item_emb = nn.Embedding(*tensors["item_emb.weight"].shape)
        self.pos_emb = nn.Embedding(WINDOW, DIM)
        layers = range(BLOCKS)
        self.attention_layernorms = nn.ModuleList(nn.LayerNorm(DIM, NORM_EPS) for _ in layers)
        self.attention_layers = nn.ModuleList(nn.MultiheadAttention(DIM, 1, batch_first=True) for _ in layers)
        self.forward_layernorms = nn.ModuleList(nn.LayerNorm(DIM, NORM_EPS) for _ in layers)
        self.forward_layers = nn.ModuleList(FeedForward() for _ in layers)
        self.last_layernorm = nn.LayerNorm(DIM, NORM_EPS)
        self.load_state_dict(tensors)
        self.eval()

    def forward(self, items):
        """One vector a history; `items` is `[histories, events]`, 0 on the left where a history is shorter."""
        length = items.shape[1]
        x = self.item_emb(items) * math.sqrt(DIM) + self.pos_emb(torch.arange(WINDOW - length, WINDOW))
        hidden = ~visible(items)
        for block in range(BLOCKS):
            n = self.attention_layernorms[block](x)
            a, _ = self.attention_layers[block](n, x, x, attn_mask=hidden, need_weights=False)
            x = self.forward_layers[block](self.forward_layernorms[block](n + a))
        return self.last_layernorm(x[:, -1])


class Tuned:
    """The same by hand, as somebody writes it who has to: no modules, no padding, no mask, fused operators."""

    def __init__(self, checkpoint):
        self.weights = safetensors.torch.load(checkpoint)
        for name, tensor in self.weights.items():
            # A convolution of width one is a linear layer, and faster as one.
            self.weights[name] = tensor.squeeze(-1).contiguous()

    def __call__(self, items):
        length = items.shape[1]
        x = F.embedding(items, self.weights["item_emb.weight"]) * math.sqrt(DIM)
        x = x + self.weights["pos_emb.weight"][WINDOW - length :]
        for block in range(BLOCKS):
            x = self.block(x, block)
        return self.norm(x[:, -1], "last_layernorm")

    def block(self, x, block):
        attention, forward = f"attention_layers.{block}", f"forward_layers.{block}"
        weight, bias = self.weights[f"{attention}.in_proj_weight"], self.weights[f"{attention}.in_proj_bias"]
        n = self.norm(x, f"attention_layernorms.{block}")
        q = F.linear(n, weight[:DIM], bias[:DIM])
        k, v = F.linear(x, weight[DIM:], bias[DIM:]).chunk(2, dim=-1)
        a = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        m = self.norm(n + self.linear(a, f"{attention}.out_proj"), f"forward_layernorms.{block}")
        return m + self.linear(F.relu(self.linear(m, f"{forward}.conv1")), f"{forward}.conv2")

    def norm(self, x, name):
        return F.layer_norm(x, (DIM,), self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], NORM_EPS)

    def linear(self, x, name):
        return F.linear(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])


class Peer:
    """A model over one connection. `model` makes vectors; row n of the item table stands for `item_ids[n - 1]`."""

    def __init__(self, connection, model, table, item_ids, padded, threads):
        self.connection = connection
        self.model = model
        self.items = torch.from_numpy(table)
        self.item_ids = numpy.concatenate([[0], item_ids])
        self.row_of = numpy.zeros(max(item_ids) + 1, dtype=numpy.int64)
        self.row_of[item_ids] = numpy.arange(1, len(item_ids) + 1)
        self.padded = padded
        self.threads = threads

    def __str__(self):
        return f"{'padded' if self.padded else 'unpadded'} on {self.threads} thread{'s' if self.threads > 1 else ''}"

    def next(self, user, k=10):
        """The best `k` items of one user as `(item_id, score)`."""
        (items,) = self.connection.execute(HISTORY, (user,), prepare=True, binary=True).fetchone()
        return self.recommend([self.rows(items)], k, self.padded)[0]

    def next_many(self, users, k=10):
        """The same for many users, in padded batches, as a dictionary."""
        rows = self.connection.execute(HISTORIES, (users,), prepare=True, binary=True).fetchall()
        lists = {}
        for start in range(0, len(rows), BATCH):
            part = rows[start : start + BATCH]
            answers = self.recommend([self.rows(items) for _, items in part], k, padded=True)
            lists.update(zip((user for user, _ in part), answers))
        return lists

    def rows(self, items):
        """Item ids, latest first, as rows of the item table, oldest first."""
        return self.row_of[numpy.array(items[::-1], dtype=numpy.int64)]

    @torch.inference_mode()
    def recommend(self, histories, k, padded):
        if torch.get_num_threads() != self.threads:
            torch.set_num_threads(self.threads)
        if padded:
            batch = numpy.zeros((len(histories), WINDOW), dtype=numpy.int64)
            for place, history in enumerate(histories):
                window = history[-WINDOW:]
                batch[place, WINDOW - len(window) :] = window
        else:
            batch = histories[0][None, -WINDOW:]
        scores = self.model(torch.from_numpy(batch)) @ self.items.T
        scores[:, 0] = -math.inf
        for place, history in enumerate(histories):
            scores[place, torch.from_numpy(history)] = -math.inf
        best = scores.topk(k)
        ids = self.item_ids[best.indices.numpy()]
        return [list(zip(*both)) for both in zip(ids.tolist(), best.values.tolist())]


def visible(items):
    """Which event sees which: those before it, but no padding, which sees itself so that no softmax is empty."""
    length = items.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    if items.all():
        return causal
    return causal & ((items != 0)[:, None, :] | torch.eye(length, dtype=torch.bool))
