"""Where the norm stands, how large the branches start, depth, warm-up, learning rate, seeds: python norm_sweep.py

Writes results/places.json, which the notebook shows; about twenty minutes on one core. The notebook itself trains two
of the deepest arms again. --workers 2 uses two cores, --quick tries the whole path in seconds and writes nothing.
"""

import math
import sys
from functools import cache

import norms
import torch

from shared.corpus import Corpus, python_docs
from shared.ensemble import batches, fit_many
from shared.rotary import RotaryAttention, no_positions
from shared.sweeps import Sweep, main
from shared.tiny_lm import TinyLM
from shared.training import evaluate, fit, initialise_by_fan_in

DEPTHS, RATES, WARMUPS, N_SEEDS, STEPS = [2, 6, 12], [1e-3, 2e-3, 4e-3, 8e-3, 16e-3], [1, 50], 3, 200
WIDTH, HEADS, CONTEXT, BATCH = 32, 4, 32, 8
TARGET = 2.8  # nats a byte: "steps to a target loss" counts up to here, over a mean of ten steps
ARMS = {  # place of the norms, and whether what writes to the stream starts smaller by sqrt(2 n_layers)
    "pre": ("pre", False),
    "pre, small branches": ("pre", True),
    "post": ("post", False),
    "post, small branches": ("post", True),
    "sandwich": ("sandwich", False),  # its second norm undoes any scale
}


def new_model(arm, n_layers, seed, **slots):
    """A model of bytes, ready to train. slots: as `TinyLM` takes them."""
    torch.manual_seed(seed)
    place, small = ARMS[arm]
    rotary = {"attention": RotaryAttention, "positions": no_positions}
    slots = rotary | {"norm": norms.LayerNorm, "block": norms.PLACES[place]} | slots
    model = TinyLM(256, CONTEXT, WIDTH, n_layers, HEADS, **slots)
    initialise_by_fan_in(model, small)
    return model


def train(models, which_seed, rates, warmups, corpus, steps=STEPS, batch_size=BATCH):
    """Train models of equal shapes side by side; one seed, one text. Returns the losses, (models, steps)."""
    batch = batches(lambda generator: corpus.batch(batch_size, CONTEXT, generator), which_seed)
    return fit_many(models, batch, steps, rates, warmups=warmups, label=f"{len(models[0].blocks)} layers")


def steps_to(losses, target=TARGET, window=10):
    """The first step at which a run's mean loss over the last `window` steps is under the target; NaN if never.

    losses: (models, steps), at least `window` of them.
    """
    means = losses.unfold(1, window, 1).mean(dim=2)  # (models, steps - window + 1)
    reached = means < target
    first = reached.float().argmax(dim=1) + window
    return torch.where(reached.any(dim=1), first, torch.nan).tolist()


@cache
def text():
    """The corpus, and held-out windows to judge by."""
    corpus = Corpus(python_docs())
    return corpus, corpus.held_out_windows(CONTEXT, most=128)


def run(job):
    """{arm, layers, warmup, rate, seed, steps} -> {loss, steps_to}: held-out nats a byte, None where it diverged; the
    steps to TARGET, None where it was not reached."""
    corpus, windows = text()
    model, generator = new_model(job["arm"], job["layers"], job["seed"]), torch.Generator().manual_seed(job["seed"])
    history = fit(
        model,
        lambda: corpus.batch(BATCH, CONTEXT, generator),
        job["steps"],
        job["rate"],
        warmup=job["warmup"],
        label=None,
    )
    (needed,) = steps_to(torch.tensor([history.loss]), window=min(10, len(history.loss)))
    return {
        "loss": None if history.stopped else round(evaluate(model, *windows).nats, 4),
        "steps_to": None if math.isnan(needed) else int(needed),
    }


SWEEP = Sweep(
    __file__,
    "places",
    run,
    jobs=[
        {"arm": arm, "layers": n_layers, "warmup": warmup, "rate": rate, "seed": seed, "steps": STEPS}
        for n_layers in DEPTHS
        for arm in ARMS
        for rate in RATES
        for warmup in WARMUPS
        for seed in range(N_SEEDS)
    ],
    quick=[
        {"arm": arm, "layers": 2, "warmup": warmup, "rate": RATES[0], "seed": 0, "steps": 3}
        for arm in ARMS
        for warmup in WARMUPS
    ],
    cost=lambda job: job["layers"] * job["steps"],
    tolerance={"loss": 0.005, "steps_to": 2},
    settings={"target": TARGET},
)

if __name__ == "__main__":
    sys.exit(main(SWEEP))
