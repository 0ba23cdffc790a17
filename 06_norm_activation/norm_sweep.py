"""Where the norm stands, how large the branches start, depth, warm-up, learning rate, seeds: python norm_sweep.py

Writes results/places.json, which the notebook shows; about a quarter of an hour on two cores. The notebook itself
trains the deepest of the arms again. --quick tries the whole path in seconds and writes nothing.
"""

import argparse
import json
import math
import platform
import time
from datetime import date
from pathlib import Path

import norms
import torch
from torch import nn

from shared.corpus import Corpus, python_docs
from shared.ensemble import fit_many
from shared.rotary import RotaryAttention, no_positions
from shared.tiny_lm import TinyLM
from shared.training import evaluate, seeds

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
    """A model of bytes, its matrices from N(0, 1 / fan-in)."""
    torch.manual_seed(seed)
    place, small = ARMS[arm]
    slots = {"attention": RotaryAttention, "positions": no_positions, "norm": norms.LayerNorm} | slots
    model = TinyLM(256, CONTEXT, WIDTH, n_layers, HEADS, **slots)
    nn.init.normal_(model.embedding.weight, std=0.2)
    for name, matrix in model.blocks.named_parameters():
        if matrix.ndim == 2:
            scale = math.sqrt(2 * n_layers) if small and name.endswith("proj.weight") else 1
            nn.init.normal_(matrix, std=1 / scale / math.sqrt(matrix.shape[1]))
    return norms.rewire(model, place, slots["norm"])


def train(models, which_seed, rates, warmups, corpus, steps=STEPS, batch_size=BATCH):
    """Train models of equal shapes side by side; one seed, one text. Returns the losses, (models, steps)."""
    generators = {seed: torch.Generator().manual_seed(seed) for seed in which_seed}

    def batch():
        drawn = {seed: corpus.batch(batch_size, CONTEXT, generator) for seed, generator in generators.items()}
        x, y = zip(*(drawn[seed] for seed in which_seed), strict=True)
        return torch.stack(x), torch.stack(y)

    return fit_many(models, batch, steps, rates, warmups=warmups, label=f"{len(models[0].blocks)} layers")


def steps_to(losses, target=TARGET, window=10):
    """The first step at which a run's mean loss over the last `window` steps is under the target; NaN if never."""
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
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one depth, one rate, three steps; writes nothing")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    start = time.monotonic()
    rows = sweep([2], RATES[:1], WARMUPS, 2, 3) if quick else sweep(DEPTHS, RATES, WARMUPS, N_SEEDS, STEPS)
    if quick:
        print(json.dumps(rows))
        return
    record = {
        "command": "python norm_sweep.py",
        "steps": STEPS,
        "target": TARGET,
        "seconds": round(time.monotonic() - start),
        "date": date.today().isoformat(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "threads": torch.get_num_threads(),
    }
    text = json.dumps(record)[:-1] + ', "rows": [\n' + ",\n".join(json.dumps(row) for row in rows) + "\n]}\n"
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(text, encoding="utf-8")
    print(f"wrote {RESULTS.name}: {record['seconds']} s")


if __name__ == "__main__":
    main()
