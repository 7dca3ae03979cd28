"""Matrix factorisation of yes-or-no answers: P(yes) = σ(μ + b_u + b_i + p_u·q_i), by Adam on the logarithmic loss with
L2, as in Koren, Bell & Volinsky 2009 with a logistic link."""

import numpy

BATCH = 1024
RATE = 0.01


class Factors:
    def __init__(self, users, items, dim, l2, share, seed):
        self.random = numpy.random.default_rng(seed)
        self.l2 = l2
        self.mean = numpy.log(share / (1 - share))
        self.weights = [
            numpy.zeros((users, 1)),
            numpy.zeros((items, 1)),
            self.random.normal(0, 0.1, (users, dim)),
            self.random.normal(0, 0.1, (items, dim)),
        ]
        self.moments = [(numpy.zeros_like(w), numpy.zeros_like(w)) for w in self.weights]
        self.steps = 0

    def logits(self, users, items):
        user_bias, item_bias, p, q = self.weights
        return self.mean + user_bias[users, 0] + item_bias[items, 0] + (p[users] * q[items]).sum(1)

    def probabilities(self, users, items):
        return 1 / (1 + numpy.exp(-self.logits(users, items)))

    def epoch(self, users, items, answers):
        order = self.random.permutation(len(users))
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            self.step(users[batch], items[batch], answers[batch])

    def step(self, users, items, answers):
        off = (self.probabilities(users, items) - answers)[:, None]
        rows = (users, items, users, items)
        _, _, p, q = self.weights
        derivatives = (off, off, off * q[items], off * p[users])
        self.steps += 1
        for weight, moments, where, derivative in zip(self.weights, self.moments, rows, derivatives):
            gradient = numpy.zeros_like(weight)
            numpy.add.at(gradient, where, derivative + self.l2 * weight[where])
            self.adam(weight, moments, gradient / len(users))

    def adam(self, weight, moments, gradient):
        first, second = moments
        first += 0.1 * (gradient - first)
        second += 0.001 * (gradient**2 - second)
        scale = RATE * numpy.sqrt(1 - 0.999**self.steps) / (1 - 0.9**self.steps)
        weight -= scale * first / (numpy.sqrt(second) + 1e-8)


def best(train, validation, sizes, epochs, seed, auc):
    """Dimension, L2 and number of epochs with the largest area on the validation events."""
    found = (0.0, None)
    for dim in (4, 16, 64):
        for l2 in (0.01, 0.03, 0.1, 0.3):
            model = Factors(*sizes, dim, l2, train[2].mean(), seed)
            for epoch in range(1, epochs + 1):
                model.epoch(*train)
                area = auc(model.probabilities(*validation[:2]), validation[2])
                found = max(found, (area, (dim, l2, epoch)))
    return found
