"""SASRec (Kang & McAuley 2018) as its PyTorch port writes it, of the size the engine trains."""

import math

import torch
import torch.nn.functional as F
from torch import nn

DIM = 64
BLOCKS = 2
WINDOW = 200
DROPOUT = 0.2
NORM_EPS = 1e-8


class Modules(nn.Module):
    """Attention as the port has it. Its module brings a projection of the result, which the authors' code has not."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(DIM, 1, DROPOUT, batch_first=True)

    def forward(self, n, x, hidden):
        return self.attention(n, x, x, attn_mask=hidden)[0]


class ByHand(nn.Module):
    """The same steps without the projection of the result: what the engine computes."""

    def __init__(self):
        super().__init__()
        self.query = nn.Linear(DIM, DIM)
        self.key_value = nn.Linear(DIM, 2 * DIM)

    def forward(self, n, x, hidden):
        k, v = self.key_value(x).chunk(2, dim=-1)
        return self.attend(self.query(n), k, v, hidden)

    def attend(self, q, k, v, hidden):
        scores = torch.bmm(q * DIM**-0.5, k.transpose(1, 2)).masked_fill(hidden, -math.inf)
        return torch.bmm(F.dropout(scores.softmax(-1), DROPOUT), v)


class Fused(ByHand):
    """With PyTorch's own operator for attention."""

    def attend(self, q, k, v, hidden):
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=DROPOUT)


class FeedForward(nn.Module):
    """A convolution of width one is a linear layer, and not faster."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(DIM, DIM)
        self.outer = nn.Linear(DIM, DIM)

    def forward(self, x):
        return x + F.dropout(self.outer(F.relu(F.dropout(self.inner(x), DROPOUT))), DROPOUT)


class SasRec(nn.Module):
    """Item 0 is padding, on the left of histories shorter than the window; `attention` is one of the classes above."""

    def __init__(self, items, attention):
        super().__init__()
        self.items = nn.Embedding(items + 1, DIM, padding_idx=0)
        self.positions = nn.Embedding(WINDOW + 1, DIM, padding_idx=0)
        self.attention_norms = nn.ModuleList(nn.LayerNorm(DIM, NORM_EPS) for _ in range(BLOCKS))
        self.attention = nn.ModuleList(attention() for _ in range(BLOCKS))
        self.forward_norms = nn.ModuleList(nn.LayerNorm(DIM, NORM_EPS) for _ in range(BLOCKS))
        self.feed_forward = nn.ModuleList(FeedForward() for _ in range(BLOCKS))
        self.last_norm = nn.LayerNorm(DIM, NORM_EPS)
        self.register_buffer("hidden", torch.ones(WINDOW, WINDOW, dtype=torch.bool).triu(1))
        for weight in self.parameters():
            if weight.dim() > 1:
                nn.init.xavier_normal_(weight)

    def forward(self, histories):
        """A vector for every event: `[histories, WINDOW]` to `[histories, WINDOW, DIM]`."""
        real = histories != 0
        x = self.items(histories) * math.sqrt(DIM) + self.positions(torch.arange(1, WINDOW + 1) * real)
        x = F.dropout(x, DROPOUT) * real.unsqueeze(-1)
        for block in range(BLOCKS):
            n = self.attention_norms[block](x)
            a = self.attention[block](n, x, self.hidden)
            x = self.feed_forward[block](self.forward_norms[block](n + a)) * real.unsqueeze(-1)
        return self.last_norm(x)
