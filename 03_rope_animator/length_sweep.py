"""Loss beyond the trained length, by kind of positions and length of training: python length_sweep.py

Writes results/lengths.json, which the notebook shows; about half an hour on one core. The notebook itself trains the
shortest of the runs again, with the functions here. --workers 2 uses two cores, --quick tries the whole path in seconds
and writes nothing.
"""

import copy
import math
import sys
from collections.abc import Callable
from functools import cache, partial

import numpy as np
import rope
import torch
from torch import nn
from torch.nn import functional as F

from shared.corpus import Corpus, python_docs
from shared.layers import CausalAttention, LearnedPositions
from shared.rotary import no_positions
from shared.sweeps import Sweep, main
from shared.tiny_lm import TinyLM
from shared.training import fit

STEPS, N_SEEDS = [400, 2000, 8000], 3
TRAINED, LENGTHS, JUDGED = 64, [64, 128, 256, 512, 1024], 32
WIDTH, LAYERS, HEADS, BATCH, RATE = 48, 2, 3, 8, 1e-2
HEAD_WIDTH = WIDTH // HEADS
PAIRS = range(HEAD_WIDTH // 2)


class Sinusoidal(nn.Module):
    """Fills the slot `positions`: the sinusoids, from -0.1 to 0.1, as the embeddings' spread is 0.1 at the start."""

    def __init__(self, context, d_model):
        super().__init__()
        self.register_buffer("table", 0.1 * rope.sinusoids(torch.arange(LENGTHS[-1]), d_model).float())

    def forward(self, x, positions=None):
        return x + self.table[: x.shape[1]]


class Table(LearnedPositions):
    """Learned positions, and a way to read a table of n rows in a text of T > n tokens: `rows`, (T, n) -> (T,)."""

    rows: Callable[[int, int], torch.Tensor] = staticmethod(lambda T, n: torch.arange(T).clamp(max=n - 1))

    def forward(self, x, positions=None):
        T, n = x.shape[1], len(self.table.weight)
        at = self.rows(T, n).double() if n < T else torch.arange(T).double()
        low, share = at.long(), (at % 1).to(x)[:, None]
        row, next_row = (self.table(each.clamp(max=n - 1)) for each in (low, low + 1))  # (T, d_model)
        return x + (1 - share) * row + share * next_row


class Capped(rope.Rotary):
    """RoPE that sees all keys, and whose `pairs` meet no new angle: where a key is `limit` positions back or more, they
    turn as if it were `limit` back. (All pairs so is known as ReRoPE.)"""

    limit = TRAINED - 1
    pairs = tuple(PAIRS)

    @classmethod
    def like(cls, layer, pairs=tuple(PAIRS)):
        """A layer with the weights of a Rotary one, and the frequencies and the window that it was trained with."""
        capped = cls(layer.proj.in_features, layer.n_heads)
        capped.load_state_dict(layer.state_dict())
        capped.pairs = tuple(pairs)
        return capped

    def place(self, x, positions=None):
        return x

    def attend(self, q, k, v, mask):
        T, inv_freq, pairs = q.shape[-2], self.scaling.inv_freq, list(self.pairs)
        angles = rope.angles(torch.arange(T), inv_freq)
        scores = rope.rotate_halves(q, angles) @ rope.rotate_halves(k, angles).mT
        distance = torch.arange(T)[:, None] - torch.arange(T)
        if self.limit < T:
            of_q, of_k = angles.clone(), angles.clone()
            of_q[:, pairs], of_k[:, pairs] = self.limit * inv_freq[pairs], 0.0  # always `limit` apart
            far = rope.rotate_halves(q, of_q) @ rope.rotate_halves(k, of_k).mT
            scores = torch.where(distance < self.limit, scores, far)
        scores = (scores / math.sqrt(q.shape[-1])).masked_fill(distance < 0, -math.inf)
        return scores.softmax(-1) @ v


ARMS = {
    "none": {"attention": CausalAttention, "positions": no_positions},
    "learned": {"attention": CausalAttention, "positions": Table},
    "sinusoidal": {"attention": CausalAttention, "positions": Sinusoidal},
    "RoPE": {"attention": rope.Rotary, "positions": no_positions},
    "ALiBi": {"attention": rope.Alibi, "positions": no_positions},
}


def with_values(module, **values):
    """The module, with other values for some of its attributes."""
    for name, value in values.items():
        setattr(module, name, value)
    return module


CHANGES = {  # to each attention layer of a model that was trained with RoPE; nothing is trained again
    "interpolation x 4": partial(with_values, scaling=rope.interpolated(HEAD_WIDTH, 4)),
    "NTK-aware x 8": partial(with_values, scaling=rope.ntk_aware(HEAD_WIDTH, 8)),
    "YaRN x 4": partial(with_values, scaling=rope.yarn(HEAD_WIDTH, 4, TRAINED)),
    "distances up to 63": Capped.like,
    "window of 64": partial(with_values, window=TRAINED),
}


def train_arm(arm, seed, steps, corpus, rate=RATE, trained=TRAINED):
    """A model that has learnt from pieces of `trained` bytes; afterwards it may read longer ones."""
    torch.manual_seed(seed)
    model, generator = TinyLM(256, trained, WIDTH, LAYERS, HEADS, **ARMS[arm]), torch.Generator().manual_seed(seed)
    nn.init.normal_(model.embedding.weight, std=0.1)  # five times the usual: a short training gets farther
    pieces = BATCH * TRAINED // trained  # the same number of bytes a step
    fit(model, lambda: corpus.batch(pieces, trained, generator), steps, lr=rate, label=None)
    model.context = LENGTHS[-1]
    return model


def changed(model, change):
    """A copy of a model with each attention layer changed."""
    model = copy.deepcopy(model)
    for block in model.blocks:
        block.attention = change(block.attention)
    return model


@torch.no_grad()
def last_bytes(model, x, y, lengths=tuple(LENGTHS)):
    """Nats a byte for the last JUDGED bytes of each piece, read with each of `lengths` bytes, themselves among them:
    x, y (pieces, longest), y one byte later -> (lengths,)."""
    losses = []
    for length in lengths:
        logits = torch.cat([model(part[:, -length:], last=JUDGED) for part in x.split(16)])
        losses.append(F.cross_entropy(logits.flatten(0, 1), y[:, -JUDGED:].flatten()).item())
    return np.array(losses)


@cache
def text(pieces):
    """The corpus, and pieces of its held-out part to judge by."""
    corpus = Corpus(python_docs())
    return corpus, corpus.held_out_windows(LENGTHS[-1], most=pieces)


def run(job):
    """{arm, steps, seed} -> {losses}: nats a byte at each length, for the arm and for each change to RoPE."""
    corpus, windows = text(job.get("pieces", 64))
    model = train_arm(job["arm"], job["seed"], job["steps"], corpus)
    models = {job["arm"]: model}
    if job["arm"] == "RoPE":
        models |= {name: changed(model, change) for name, change in CHANGES.items()}
    return {"losses": {name: last_bytes(model, *windows).round(4).tolist() for name, model in models.items()}}


SWEEP = Sweep(
    __file__,
    "lengths",
    run,
    jobs=[{"arm": arm, "steps": steps, "seed": seed} for steps in STEPS for arm in ARMS for seed in range(N_SEEDS)],
    quick=[{"arm": arm, "steps": 2, "seed": 0, "pieces": 2} for arm in ARMS],
    cost=lambda job: job["steps"],
    comparable=lambda job: job["steps"] == STEPS[0],  # in longer runs another processor's rounding moves losses by 0.09
    tolerance={"losses": 0.02},
    settings={"trained": TRAINED, "lengths": LENGTHS},
)

if __name__ == "__main__":
    sys.exit(main(SWEEP))
