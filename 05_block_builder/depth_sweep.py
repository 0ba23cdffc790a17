"""Five arms with and without skips, four depths, seven learning rates, three seeds: python depth_sweep.py

Writes results/depth.json, which the notebook shows; about half an hour on one core. The notebook itself trains two of
the depths again, each arm at its best rate. --workers 2 uses two cores, --quick tries the whole path in seconds and
writes nothing.
"""

import sys
from functools import cache, partial

import block
import torch
from torch import nn

from shared.corpus import Corpus, python_docs
from shared.ensemble import batches, fit_many
from shared.rotary import no_positions
from shared.sweeps import Sweep, main
from shared.training import evaluate, fit, initialise_by_fan_in

DEPTHS, RATES, N_SEEDS, STEPS = [2, 6, 12, 24], [5e-4, 1e-3, 2e-3, 4e-3, 8e-3, 16e-3, 32e-3], 3, 200
WIDTH, HEADS, CONTEXT, BATCH = 32, 4, 32, 8
SKIPS = {"skip": 1.0, "half a skip": 0.5, "no skip": 0.0, "no skip, signal kept": 0.0, "skip, no feed-forward": 1.0}


class Staying(block.Attention):
    """Attention that begins by looking mostly at the token itself: a number, learned, on the scores' diagonal."""

    def __init__(self, d_model, n_heads, **settings):
        super().__init__(d_model, n_heads, **settings)
        self.stay = nn.Parameter(torch.full((n_heads, 1, 1), 6.0))  # e^6 = 403 against at most 31 others

    def weights(self, scores):
        return super().weights(scores + self.stay * torch.eye(scores.shape[-1], device=scores.device))


class Silent(nn.Module):
    """Fills the slot `feed_forward` with nothing."""

    def __init__(self, d_model):
        super().__init__()

    def forward(self, x):
        return 0 * x


@torch.no_grad()
def keep_signal(model):
    """Weights with which each sub-layer hands on what it was given, so that no skip is needed to begin with.

    Attention: values by an orthogonal matrix, and back by its transpose. Feed-forward: the matrix [W, -W] up and
    [W, -W]' down, for gelu(z) - gelu(-z) = z exactly (Balduzzi et al. 2017, 1702.08591, call it "looks linear").
    """
    for part in model.blocks:
        turn = nn.init.orthogonal_(torch.empty(WIDTH, WIDTH))
        part.attention.qkv.weight[-WIDTH:] = turn  # the values' rows
        part.attention.proj.weight.copy_(turn.T)
        wide = nn.init.orthogonal_(torch.empty(2 * WIDTH, WIDTH))
        part.feed_forward.up.weight.copy_(torch.cat([wide, -wide]))
        part.feed_forward.proj.weight.copy_(torch.cat([wide.T, -wide.T], dim=1))


def new_model(arm, n_layers, seed):
    """A model of bytes, ready to train."""
    torch.manual_seed(seed)
    attention = Staying if arm == "no skip, signal kept" else block.Attention
    model = block.Decoder(
        256,
        CONTEXT,
        WIDTH,
        n_layers,
        HEADS,
        attention=partial(attention, rotary_base=1000.0),
        feed_forward=Silent if arm == "skip, no feed-forward" else block.FeedForward,
        positions=no_positions,
        skip=SKIPS[arm],
    )
    initialise_by_fan_in(model)
    if arm == "no skip, signal kept":
        keep_signal(model)
    return model


def train(runs, n_layers, corpus, steps=STEPS):
    """Models for runs, (arm, rate, seed) each and of equal shapes, trained side by side; runs of a seed see the same
    text. Returns the models."""
    models = [new_model(arm, n_layers, seed) for arm, _, seed in runs]
    batch = batches(lambda generator: corpus.batch(BATCH, CONTEXT, generator), [seed for _, _, seed in runs])
    fit_many(models, batch, steps, [rate for _, rate, _ in runs], label=f"{n_layers} layers")
    return models


SHAPES = [["skip", "half a skip", "no skip"], ["no skip, signal kept"], ["skip, no feed-forward"]]  # stacked together


@cache
def text():
    """The corpus, and held-out windows to judge by."""
    corpus = Corpus(python_docs())
    return corpus, corpus.held_out_windows(CONTEXT, most=128)


def run(job):
    """{layers, arm, rate, seed, steps} -> {loss}: held-out nats a byte, None where it diverged."""
    corpus, windows = text()
    model, generator = new_model(job["arm"], job["layers"], job["seed"]), torch.Generator().manual_seed(job["seed"])
    history = fit(model, lambda: corpus.batch(BATCH, CONTEXT, generator), job["steps"], job["rate"], label=None)
    return {"loss": None if history.stopped else round(evaluate(model, *windows).nats, 4)}


SWEEP = Sweep(
    __file__,
    "depth",
    run,
    jobs=[
        {"layers": n_layers, "arm": arm, "rate": rate, "seed": seed, "steps": STEPS}
        for n_layers in DEPTHS
        for arm in SKIPS
        for rate in RATES
        for seed in range(N_SEEDS)
    ],
    quick=[{"layers": n, "arm": arm, "rate": RATES[0], "seed": 0, "steps": 3} for n in (2, 3) for arm in SKIPS],
    cost=lambda job: job["layers"] * job["steps"],
    # at higher rates another processor's rounding moves losses by 0.04
    comparable=lambda job: job["layers"] <= 12 and job["rate"] <= 2e-3,
    tolerance={"loss": 0.005},
)

if __name__ == "__main__":
    sys.exit(main(SWEEP))
