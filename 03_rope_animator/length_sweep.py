"""Loss beyond the trained length, by kind of positions and length of training: python length_sweep.py

Writes results/lengths.json, which the notebook shows; about half an hour on one core. The notebook itself trains the
shortest of the runs again, with the functions here. --workers 2 uses two cores, --quick tries the whole path in seconds
and writes nothing.
"""

import copy
import math
import sys
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


class Sinusoidal(nn.Module):
    """Fills the slot `positions`: the sinusoids, from -0.1 to 0.1, as the embeddings' spread is 0.1 at the start."""

    def __init__(self, context, d_model):
        super().__init__()
        self.register_buffer("table", 0.1 * rope.sinusoids(torch.arange(LENGTHS[-1]), d_model).float())

    def forward(self, x):
        return x + self.table[: x.shape[1]]


class LastRowAgain(LearnedPositions):
    """Learned positions in which places beyond the table get its last row, since they have none of their own."""

    def forward(self, x):
        return x + self.table(torch.arange(x.shape[1]).clamp(max=len(self.table.weight) - 1))


class Capped(rope.Rotary):
    """RoPE that sees all keys and meets no new angle: a key that is `TRAINED` places back or more is scored as if it
    were TRAINED - 1 back. (Known as ReRoPE.)"""

    @classmethod
    def like(cls, layer):
        """A layer with the weights of a Rotary one, and the speeds and the window that it was trained with."""
        capped = cls(WIDTH, HEADS)
        capped.load_state_dict(layer.state_dict())
        return capped

    def forward(self, x):
        B, T, C = x.shape
        q, k, v = self.qkv(x).view(B, T, 3, self.n_heads, C // self.n_heads).permute(2, 0, 3, 1, 4)
        near = self.place(q) @ self.place(k).mT
        edge = rope.angles(torch.full((T,), TRAINED - 1), self.scaling.speeds)
        far = rope.rotate_halves(q, edge) @ k.mT  # every query at TRAINED - 1, every key at 0
        distance = torch.arange(T)[:, None] - torch.arange(T)
        scores = torch.where(distance < TRAINED, near, far) / math.sqrt(q.shape[-1]) + self.bias(T, T)
        return self.proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(B, T, C))


ARMS = {
    "none": {"attention": CausalAttention, "positions": no_positions},
    "learned": {"attention": CausalAttention, "positions": LastRowAgain},
    "sinusoidal": {"attention": CausalAttention, "positions": Sinusoidal},
    "RoPE": {"attention": rope.Rotary, "positions": no_positions},
    "ALiBi": {"attention": rope.Alibi, "positions": no_positions},
}


def with_values(layer, **values):
    """The layer, with other values for some of its attributes."""
    for name, value in values.items():
        setattr(layer, name, value)
    return layer


CHANGES = {  # to each attention layer of a model that was trained with RoPE; nothing is trained again
    "interpolation x 4": partial(with_values, scaling=rope.interpolated(HEAD_WIDTH, 4)),
    "NTK-aware x 8": partial(with_values, scaling=rope.ntk_aware(HEAD_WIDTH, 8)),
    "YaRN x 4": partial(with_values, scaling=rope.yarn(HEAD_WIDTH, 4, TRAINED)),
    "distances up to 63": Capped.like,
    "window of 64": partial(with_values, window=TRAINED),
}


def train_arm(arm, seed, steps, corpus):
    """A model that has learnt from pieces of TRAINED bytes; afterwards it may read longer ones."""
    torch.manual_seed(seed)
    model, generator = TinyLM(256, TRAINED, WIDTH, LAYERS, HEADS, **ARMS[arm]), torch.Generator().manual_seed(seed)
    nn.init.normal_(model.embedding.weight, std=0.1)  # five times the usual: a short training gets farther
    fit(model, lambda: corpus.batch(BATCH, TRAINED, generator), steps, lr=RATE, label=None)
    model.context = LENGTHS[-1]
    return model


def changed(model, change):
    """A copy of a model with each attention layer changed."""
    model = copy.deepcopy(model)
    for block in model.blocks:
        block.attention = change(block.attention)
    return model


@torch.no_grad()
def last_bytes(model, x, y):
    """Nats a byte for the last JUDGED bytes of each piece, read with each of LENGTHS bytes, themselves among them:
    x, y (pieces, longest), y one byte later -> (lengths,)."""
    losses = []
    for length in LENGTHS:
        logits = torch.cat([model(part[:, -length:])[:, -JUDGED:] for part in x.split(16)])
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
