"""Collaborative metric learning in PyTorch, the same update as family `cml`: reads one history a line, prints events a second.

Rows are stepped by a sparse or by a dense AdaGrad, whichever is faster here; gradients come from autograd.
"""

import argparse
import time

import torch

MARGIN, NEGATIVES, COVARIANCE, RATE, ACCUMULATED = 1.0, 20, 10.0, 0.1, 0.1
TRIAL = 20


class Space(torch.nn.Module):
    def __init__(self, items, dim, window, sparse):
        super().__init__()
        self.points = torch.nn.Embedding(items, dim, sparse=sparse)
        self.attention = torch.nn.Embedding(items, 1, sparse=sparse)
        self.recency = torch.nn.Parameter(torch.zeros(window))
        torch.nn.init.normal_(self.points.weight, std=dim**-0.5)
        torch.nn.init.zeros_(self.attention.weight)

    def loss(self, context, known, own, others):
        """Of events on items `own`, `[events]`, after `context`, `[events, window]`, the latest first."""
        logits = (self.attention(context)[..., 0] + self.recency).masked_fill(~known, -torch.inf)
        user = torch.einsum("ew,ewd->ed", logits.softmax(-1), self.points(context))
        item = self.points(own)
        near = (user - item).square().sum(-1)
        far = (user[:, None] - self.points(others)).square().sum(-1)
        lacking = MARGIN + near[:, None] - far
        impostors = (lacking > 0).float().mean(1)
        weight = (self.points.num_embeddings * impostors).log1p()
        centred = item - item.mean(0)
        covariance = centred.T @ centred / len(own)
        off = covariance.square().sum() - covariance.diagonal().square().sum()
        return (weight * lacking.max(1).values.clamp(min=0)).sum() + COVARIANCE * len(own) * off


class Training:
    def __init__(self, flat, places, starts, items, given, sparse):
        self.flat, self.places, self.starts, self.items, self.batch = flat, places, starts, items, given.batch
        self.space = Space(items, given.dim, given.window, sparse)
        self.optimizer = torch.optim.Adagrad(
            self.space.parameters(), lr=RATE, initial_accumulator_value=ACCUMULATED, eps=0
        )
        self.ago = torch.arange(given.window)

    def step(self, events):
        place = self.places[events]
        before = place[:, None] - 1 - self.ago
        known = before >= self.starts[events][:, None]
        context = self.flat[before.clamp(min=0)]
        own = self.flat[place]
        others = torch.randint(self.items, (len(events), NEGATIVES))
        self.optimizer.zero_grad()
        self.space.loss(context, known, own, others).backward()
        self.optimizer.step()
        with torch.no_grad():
            points = self.space.points.weight
            points.mul_((1 / points.norm(dim=1, keepdim=True)).clamp(max=1))

    def steps(self, most=None):
        """Seconds and events of an epoch, or of its first steps."""
        order = torch.randperm(len(self.places))
        batches = order.split(self.batch)[:most]
        begin = time.perf_counter()
        for events in batches:
            self.step(events)
        return time.perf_counter() - begin, sum(map(len, batches))


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("histories")
    for name in ("items", "dim", "window", "batch", "threads"):
        arguments.add_argument(f"--{name}", type=int, required=True)
    given = arguments.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(1)
    histories = [list(map(int, line.split())) for line in open(given.histories)]
    flat, places, starts = [], [], []
    for history in histories:
        first = len(flat)
        flat += history
        places += range(first + 1, len(flat))
        starts += [first] * max(len(history) - 1, 0)
    data = [torch.tensor(numbers) for numbers in (flat, places, starts)]
    forms = {sparse: Training(*data, given.items, given, sparse) for sparse in (True, False)}
    for training in forms.values():
        training.steps(3)
    trial = {sparse: training.steps(TRIAL)[0] for sparse, training in forms.items()}
    fastest = min(trial, key=trial.get)
    seconds, events = forms[fastest].steps()
    print("sparse" if fastest else "dense", events / seconds)


if __name__ == "__main__":
    main()
