"""What repairs a table and a rotation beyond the trained length, and which pair does the harm: python repairs_sweep.py

Writes results/repairs.json; about 15 minutes on one core. Seed 9 tries each arm's learning rates; seeds 3 to 5, which
`length_sweep` has not seen, judge at the best of them.
"""

import sys
from functools import partial

import rope
import torch
from length_sweep import (
    HEAD_WIDTH,
    LENGTHS,
    PAIRS,
    RATE,
    STEPS,
    TRAINED,
    Capped,
    changed,
    last_bytes,
    text,
    train_arm,
)
from length_sweep import with_values as having

from shared.sweeps import Sweep, main

RATE_SEED, JUDGES, RATES = 9, (3, 4, 5), (3e-3, 1e-2, 3e-2)
LONG = 4 * TRAINED  # where each pair is tried
PIECES = 32
TOLD = (
    3  # the pair that makes a part of a turn in training, long enough to tell distances by, and the rest of it beyond
)
SETS = {f"only pair {i} capped": (i,) for i in PAIRS}
SETS |= {f"all but pair {i} capped": tuple(set(PAIRS) - {i}) for i in PAIRS}
BY_PAIR = {name: partial(Capped.like, pairs=pairs) for name, pairs in SETS.items()}
CHANGES = {
    "all pairs capped": Capped.like,
    **{f"window of {window}": partial(having, window=window) for window in (32, 64, 96, 128)},
    "interpolation x 4": partial(having, scaling=rope.interpolated(HEAD_WIDTH, 4)),
    "NTK-aware x 8": partial(having, scaling=rope.ntk_aware(HEAD_WIDTH, 8)),
    "YaRN x 4": partial(having, scaling=rope.yarn(HEAD_WIDTH, 4, TRAINED)),
    "Llama 3.1's x 4": partial(having, scaling=rope.llama3(HEAD_WIDTH, 4, TRAINED, rope.THETA)),
}
TABLES = {  # which row each of T tokens gets, of a table of n rows
    "last row again": lambda T, n: torch.arange(T).clamp(max=n - 1),
    "from the first row again": lambda T, n: torch.arange(T) % n,
    "rows aligned at the end": lambda T, n: (torch.arange(T) + n - T).clamp(min=0),
    "rows interpolated": lambda T, n: torch.arange(T).double() * (n - 1) / (T - 1),
}


def run(job):
    """{arm, steps, rate, seed} -> {losses}: nats a byte at each length for the arm and, if a judge, for each repair."""
    corpus, windows = text(job.get("pieces", PIECES))
    model = train_arm(job["arm"], job["seed"], job["steps"], corpus, job["rate"])
    losses = {}
    if job["seed"] == RATE_SEED:
        _, rating = text(256)
        losses["plain"] = last_bytes(model, *rating, (TRAINED,))
    else:
        losses["plain"] = last_bytes(model, *windows)
        if job["arm"] == "RoPE":
            losses |= {name: last_bytes(changed(model, change), *windows) for name, change in CHANGES.items()}
            by_pair = {name: changed(model, change) for name, change in BY_PAIR.items()}
            losses |= {name: last_bytes(each, *windows, (LONG,)) for name, each in by_pair.items()}
        if job["arm"] == "learned":
            for name, rows in TABLES.items():
                model.positions.rows = rows
                losses[name] = last_bytes(model, *windows)
    return {"losses": {name: values.round(4).tolist() for name, values in losses.items()}}


def jobs():
    """Seeds that judge at the best rate, and the trials of rates."""
    found = [(arm, steps, RATE, seed) for steps in STEPS[:2] for arm in ("RoPE", "learned") for seed in JUDGES]
    found += [(arm, steps, rate, RATE_SEED) for steps in STEPS[:2] for arm in ("RoPE", "learned") for rate in RATES]
    return [dict(zip(("arm", "steps", "rate", "seed"), job, strict=True)) for job in found]


SWEEP = Sweep(
    __file__,
    "repairs",
    run,
    jobs=jobs(),
    quick=[{"arm": arm, "steps": 2, "rate": RATE, "seed": 0, "pieces": 2} for arm in ("RoPE", "learned")],
    cost=lambda job: job["steps"],
    comparable=lambda job: job["steps"] == STEPS[0],
    tolerance={"losses": 0.02},
    settings={"trained": TRAINED, "lengths": LENGTHS},
)

if __name__ == "__main__":
    sys.exit(main(SWEEP))
