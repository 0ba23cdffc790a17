"""Where the norm stands, how large the branches start, depth, warm-up, learning rate, seeds: python norm_sweep.py

Writes results/places.json, which the notebook shows; about a quarter of an hour on one core. The notebook itself
trains two of the deepest arms again. --quick tries the whole path in seconds and writes nothing.
"""

import math
from pathlib import Path

import norms
import torch

from shared.corpus import Corpus, python_docs
from shared.ensemble import batches, fit_many
from shared.results import sweep_command
from shared.rotary import RotaryAttention, no_positions
from shared.tiny_lm import TinyLM
from shared.training import evaluate, initialise_by_fan_in, seeds

RESULTS = Path(__file__).parent / "results" / "places.json"
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
    slots = {"attention": RotaryAttention, "positions": no_positions, "norm": norms.LayerNorm} | slots
    model = TinyLM(256, CONTEXT, WIDTH, n_layers, HEADS, **slots)
    initialise_by_fan_in(model, small)
    return norms.rewire(model, place, slots["norm"])


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


def sweep(depths, rates, warmups, n_seeds, steps):
    """[{arm, layers, warmup, rate, seed, loss, steps_to}, ...]: held-out nats a byte, None where it diverged."""
    corpus = Corpus(python_docs())
    windows = corpus.held_out_windows(CONTEXT, most=128)
    rows = []
    for n_layers in depths:
        for arm in ARMS:
            grid = [(rate, warmup, seed) for rate in rates for warmup in warmups for seed in seeds(n_seeds)]
            models = [new_model(arm, n_layers, seed) for _, _, seed in grid]
            losses = train(models, [g[2] for g in grid], [g[0] for g in grid], [g[1] for g in grid], corpus, steps)
            needed = steps_to(losses, window=min(10, steps))
            for (rate, warmup, seed), model, steps_needed in zip(grid, models, needed, strict=True):
                loss = evaluate(model, *windows).nats
                rows.append(
                    {"arm": arm, "layers": n_layers, "warmup": warmup, "rate": rate, "seed": seed}
                    | {"loss": round(loss, 4) if math.isfinite(loss) else None}
                    | {"steps_to": int(steps_needed) if math.isfinite(steps_needed) else None}
                )
    return rows


def main():
    sweep_command(
        __doc__,
        RESULTS,
        whole=lambda: sweep(DEPTHS, RATES, WARMUPS, N_SEEDS, STEPS),
        quick=lambda: sweep([2], RATES[:1], WARMUPS, 2, 3),
        steps=STEPS,
        target=TARGET,
    )


if __name__ == "__main__":
    main()
