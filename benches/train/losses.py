"""The losses of the vectors of events, `[rows, dim]`, against a table of items, whose row 0 is padding."""

import math

import torch
import torch.nn.functional as F

NEGATIVES = 128
TEMPERATURE = 0.05


def bce(hidden, items, answers):
    """Binary cross-entropy of the answer and of one uniform negative."""
    negatives = torch.randint(1, len(items), answers.shape)
    positive, negative = ((hidden * F.embedding(rows, items)).sum(-1) for rows in (answers, negatives))
    ones, zeros = torch.ones_like(positive), torch.zeros_like(negative)
    loss = F.binary_cross_entropy_with_logits
    return loss(positive, ones) + loss(negative, zeros)


def softmax(hidden, items, answers):
    """Cross-entropy over the whole catalogue."""
    return F.cross_entropy(hidden @ items[1:].T, answers - 1)


def sampled_gathered(hidden, items, answers):
    """Cosines with the answer and with uniform negatives, whose vectors are gathered: the usual way."""
    hidden, items = F.normalize(hidden, dim=-1), F.normalize(items, dim=-1)
    negatives = torch.randint(1, len(items), (len(answers), NEGATIVES))
    positive = (hidden * F.embedding(answers, items)).sum(-1, keepdim=True)
    negative = torch.bmm(F.embedding(negatives, items), hidden.unsqueeze(-1)).squeeze(-1)
    return among(positive, negative, negatives, answers)


def sampled_scored(hidden, items, answers):
    """The same from the scores of all items, which pays where the catalogue is small."""
    hidden, items = F.normalize(hidden, dim=-1), F.normalize(items, dim=-1)
    negatives = torch.randint(1, len(items), (len(answers), NEGATIVES))
    scores = hidden @ items.T
    return among(scores.gather(1, answers.unsqueeze(1)), scores.gather(1, negatives), negatives, answers)


def among(positive, negative, negatives, answers):
    negative = negative.masked_fill(negatives == answers.unsqueeze(1), -math.inf)
    scores = torch.cat([positive, negative], 1) / TEMPERATURE
    return F.cross_entropy(scores, torch.zeros_like(answers))


# Every form a loss can take; they are tried, and the fastest is the peer.
FORMS = {"bce": [bce], "softmax": [softmax], "sampled_softmax": [sampled_gathered, sampled_scored]}
