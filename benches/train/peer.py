"""Trains SASRec with PyTorch for an epoch and prints one line of JSON: the seconds it took, and its memory.

Run by `cargo xtask bench train` on a file with one history a line, item indices oldest first.
"""

import argparse
import json
import statistics
import time

import torch

import losses
import model

BATCH = 128
LEARNING_RATE = 1e-3
BETAS = (0.9, 0.98)
# The last events of a history are for validation and test.
LEFT_OUT = 2
WARM_UP = 2
TRIAL = 3


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("histories", help="a file")
    arguments.add_argument("--items", type=int, required=True, help="size of the catalogue")
    arguments.add_argument("--loss", choices=losses.FORMS, required=True)
    arguments.add_argument("--threads", type=int, required=True)
    arguments.add_argument("--form", help="one of those that --try names; without, as the port has it")
    arguments.add_argument("--try", action="store_true", dest="trial", help="say how long a step takes in every form")
    given = arguments.parse_args()
    torch.set_num_threads(given.threads)
    data = padded(given.histories)
    forms = {name(*form): form for form in all_forms(given.loss)}
    if given.trial:
        answer = {label: tried(Trainer(given.items, *form), data) for label, form in forms.items()}
    else:
        answer = measured(Trainer(given.items, *forms[given.form or next(iter(forms))]), data)
    print(json.dumps(answer))


def all_forms(loss):
    """What the peer could be, each as attention, loss, and whether `torch.compile` makes one program of them."""
    for of in losses.FORMS[loss]:
        for attention in (model.Modules, model.ByHand, model.Fused):
            yield attention, of, False
        yield model.ByHand, of, True


def name(attention, loss, compiled):
    return f"{attention.__name__}+{loss.__name__}{'+compiled' if compiled else ''}"


def padded(path):
    """Inputs and answers, `[histories, window]`: item 0 is padding, on the left, so items are counted from 1."""
    inputs, answers = [], []
    with open(path) as lines:
        for line in lines:
            events = [int(item) + 1 for item in line.split()][: -LEFT_OUT or None]
            for rows, part in ((inputs, events[:-1]), (answers, events[1:])):
                latest = part[-model.WINDOW :]
                rows.append([0] * (model.WINDOW - len(latest)) + latest)
    return torch.tensor(inputs), torch.tensor(answers)


class Trainer:
    """A model with its optimiser."""

    def __init__(self, items, attention, loss, compiled):
        torch.manual_seed(1)
        self.model = model.SasRec(items, attention)
        self.encode = torch.compile(self.model) if compiled else self.model
        # How many events are real changes from step to step.
        self.loss = torch.compile(loss, dynamic=True) if compiled else loss
        self.optimizer = torch.optim.Adam(self.model.parameters(), LEARNING_RATE, BETAS)

    def step(self, inputs, answers):
        """One step; how many seconds it took."""
        began = time.perf_counter()
        real = answers != 0
        self.optimizer.zero_grad()
        hidden = self.encode(inputs)
        # Padding is not scored.
        loss = self.loss(hidden[real], self.model.items.weight, answers[real])
        loss.backward()
        self.optimizer.step()
        if not torch.isfinite(loss):
            raise SystemExit(f"the loss is {loss.item()}")
        return time.perf_counter() - began


def batches(data, order):
    for rows in order.split(BATCH):
        yield data[0][rows], data[1][rows]


def tried(trainer, data):
    """The median step, or why there is none."""
    few = list(batches(data, torch.arange(min(len(data[0]), BATCH))))[0]
    try:
        return statistics.median([trainer.step(*few) for _ in range(WARM_UP + TRIAL)][WARM_UP:])
    except Exception as error:  # torch.compile needs a C++ compiler, and says so in many ways
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"


def measured(trainer, data):
    """An epoch after some steps that do not count."""
    before = memory("VmRSS")
    for inputs, answers in list(batches(data, torch.arange(min(len(data[0]), WARM_UP * BATCH)))):
        trainer.step(inputs, answers)
    began = time.perf_counter()
    steps = [trainer.step(*batch) for batch in batches(data, torch.randperm(len(data[0])))]
    return {
        "steps": steps,
        "epochs": [time.perf_counter() - began],
        "inputs": int((data[1] != 0).sum()),
        "memory_before": before,
        "memory_peak": memory("VmHWM"),
    }


def memory(field):
    """Bytes of this process. Not ru_maxrss: that remembers the process this one was started from."""
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith(f"{field}:"))
    except OSError:
        return None


if __name__ == "__main__":
    main()
