"""The same model and the same search in PyTorch: everything that can be is one tensor operation for all beams."""

import json
import math

import numpy
import torch
from safetensors.numpy import load


class Peer:
    """Reads the tensors of a generative model's artifact."""

    def __init__(self, artifact):
        tensors = load(artifact)
        # The configuration is the one JSON object in the header.
        header = tensors["header"].tobytes().decode("latin-1")
        config, _ = json.JSONDecoder().raw_decode(header, header.index("{"))
        body = config["body"]
        assert config["order"] == "levels" and body["normalized"] and config["fusion"] == 0, config
        self.heads, self.window, self.blocks, self.depth = body["heads"], body["window"], body["blocks"], config["depth"]
        self.scale, self.eps, self.sizes = body["item_scale"], body["norm_eps"], config["codes"]["sizes"]
        self.levels = len(self.sizes)
        self.weights = {
            name: torch.from_numpy(numpy.array(values)) for name, values in tensors.items() if values.dtype == numpy.float32
        }
        self.codes = torch.from_numpy(tensors["codes"].astype(numpy.int64)).reshape(-1, self.levels)
        self.starts = torch.tensor([sum(self.sizes[:level]) for level in range(self.levels)])
        words = torch.nn.functional.normalize(self.weights["code_vectors"], dim=-1) / config["temperature"]
        self.words = [part.T.contiguous() for part in words.split(self.sizes)]
        self.trie()

    def trie(self):
        """For every node of a level, the node that each code leads to, or -1; on the last level the item."""
        codes = self.codes.tolist()
        self.follow = []
        nodes = {(): 0}
        for level in range(self.levels):
            following, table = {}, torch.full((len(nodes), self.sizes[level]), -1, dtype=torch.int64)
            for item, code in enumerate(codes):
                prefix = tuple(code[: level + 1])
                place = item if level + 1 == self.levels else following.setdefault(prefix, len(following))
                table[nodes[prefix[:-1]], code[level]] = place
            self.follow.append(table)
            nodes = following

    def norm(self, x, name):
        weight, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        return torch.nn.functional.layer_norm(x, weight.shape, weight, bias, self.eps)

    def linear(self, x, name):
        return torch.addmm(self.weights[f"{name}.bias"], x, self.weights[f"{name}.weight"])

    def encode(self, histories):
        """One vector a history; histories of one length."""
        events = torch.tensor(histories)[:, -self.window :]
        users, length = events.shape
        rows = self.codes[events] + self.starts
        x = self.scale * self.weights["code_vectors"][rows].sum(2) + self.weights["positions"][self.window - length :]
        x = x + self.weights["code_levels"][1:].sum(0)
        dim = x.shape[-1]
        for block in range(self.blocks):
            at = f"blocks.{block}"
            last = block + 1 == self.blocks
            n = self.norm(x, f"{at}.attention_norm").reshape(-1, dim)
            asked = n.view(users, length, dim)[:, -1] if last else n
            split = lambda y, count: y.view(users, count, self.heads, -1).transpose(1, 2)
            q = split(self.linear(asked, f"{at}.query"), 1 if last else length)
            k = split(self.linear(n, f"{at}.key"), length)
            v = split(self.linear(n, f"{at}.value"), length)
            y = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=not last)
            x = (x[:, -1:] if last else x) + self.linear(y.transpose(1, 2).reshape(-1, dim), f"{at}.output").view(
                users, -1, dim
            )
            x = self.feed_forward(x.reshape(-1, dim), f"{at}.ffn_norm", at).view(users, -1, dim)
        return self.norm(x[:, -1], "final_norm")

    def feed_forward(self, x, norm, at):
        hidden = torch.nn.functional.gelu(self.linear(self.norm(x, norm), f"{at}.ffn_in"))
        return x + self.linear(hidden, f"{at}.ffn_out")

    def logits(self, x, level):
        for block in range(self.depth):
            x = self.feed_forward(x, f"depth.{block}.norm", f"depth.{block}")
        x = self.norm(x, f"depth.{self.depth}.norm")
        return torch.nn.functional.normalize(x, dim=-1) @ self.words[level]

    @torch.inference_mode()
    def generate(self, histories, beam, k):
        """Items and log p, `[users, k]`, best first."""
        users = len(histories)
        states = self.encode(histories)
        dim = states.shape[-1]
        nodes = torch.zeros(users, 1, dtype=torch.int64)
        scores = torch.zeros(users, 1)
        for level in range(self.levels):
            logits = self.logits(states, level).view(users, -1, self.sizes[level])
            following = self.follow[level][nodes]
            # Shares are of the codes that some item has after a beam's.
            total = scores.unsqueeze(-1) + torch.log_softmax(logits.masked_fill(following < 0, -math.inf), -1)
            width = min(beam, total[0].numel())
            scores, places = total.flatten(1).topk(width)
            nodes = following.flatten(1).gather(1, places)
            if level + 1 < self.levels:
                parents, code = places // self.sizes[level], places % self.sizes[level]
                states = states.view(users, -1, dim).gather(1, parents.unsqueeze(-1).expand(-1, -1, dim))
                states = states + self.scale * self.weights["chosen_vectors"][code + self.starts[level]]
                states = (states + self.weights["chosen_levels"][level]).reshape(-1, dim)
                # Where there are fewer codes than beams, what is left over leads nowhere: its score stays -inf.
                nodes = nodes.clamp(min=0)
        return nodes[:, :k], scores[:, :k]
