"""Scores with and without a factor, by learning rate, training length and task: python scale_sweep.py

Writes results/scale.json, which the notebook shows; about 75 minutes on one core. Two tasks: copying twelve
random letters, whose best loss is 0, and reading the documentation inside Python byte by byte. Training is
`shared.training.fit`: AdamW with betas 0.9 and 0.95, weight decay 0.1 on matrices, gradients clipped at 1, a tenth of
the steps to warm up and a cosine down to a tenth.

Seeds 0 to 2 try every rate. Seeds from 100 up are trained at chosen rates alone, so that what is said of a rate is not
said by the seeds that chose it.
"""

import functools
import math
import sys

import attention
import torch
from torch import nn
from torch.nn import functional as F

from shared.corpus import Corpus, python_docs
from shared.sweeps import Sweep, main
from shared.tiny_lm import TinyLM
from shared.training import evaluate, fit

LETTERS, HALF = 32, 12
D_HEAD = {"copy": 128, "copy, narrow": 16, "docs": 64}  # the width of queries and keys in each task
LENGTHS = {"copy": [100, 400], "copy, narrow": [100, 400], "docs": [200, 800]}
RATES = [3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1]
SATURATED = 0.9  # a row is saturated if one key has more than this share of it


def arm_settings(arm, d_head):
    """What `MultiHeadAttention` is given for an arm. QK-norm keeps the factor.

    "small W_Q" starts as the factor does and has no factor; "large W_Q" has the factor and starts as "none" does.
    """
    if arm == "QK-norm":
        return {"qk_norm": True}
    scales = {"none": 1.0, "small W_Q": 1.0, "1/d": 1 / d_head}
    return {"scale": scales.get(arm, d_head**-0.5)}


def with_unit_scores(model):
    """Start queries and keys with variance 1, as the argument for the factor supposes. Returns the model."""
    for block in model.blocks:
        for matrix in (block.attention.query, block.attention.key):
            nn.init.normal_(matrix.weight, std=matrix.in_features**-0.5)
    return model


def new_model(task, arm, start, seed, module=attention):
    """A model ready to train. start: "unit" for queries and keys of variance 1, "0.02" for GPT-2's small matrices."""
    torch.manual_seed(seed)
    d_head = D_HEAD[task]

    def layer(d_model, n_heads):
        return module.MultiHeadAttention(d_model, n_heads, d_head=d_head, **arm_settings(arm, d_head))

    if task == "docs":
        model = TinyLM(256, 48, d_model=64, n_layers=2, n_heads=2, attention=layer)
    else:
        model = TinyLM(LETTERS, 2 * HALF, d_model=32, n_layers=1, n_heads=1, attention=layer)
    if start == "unit":
        with_unit_scores(model)
    times = {"small W_Q": d_head**-0.5, "large W_Q": d_head**0.5}.get(arm, 1.0)
    for block in model.blocks:
        block.attention.query.weight.data *= times
    return model


def copy_batch(size, generator):
    """Random letters, twice: x and y, each (size, 2 * HALF - 1)."""
    letters = torch.randint(LETTERS, (size, HALF), generator=generator)
    twice = torch.cat([letters, letters], dim=1)
    return twice[:, :-1], twice[:, 1:]


def copy_loss(model, x, y):
    """Loss on the second half only, the part that can be known: nats per letter."""
    return F.cross_entropy(model(x)[:, HALF - 1 :].flatten(0, 1), y[:, HALF - 1 :].flatten())


@functools.cache
def held_out(task):
    """Text to judge by: x and y."""
    if task == "docs":
        return corpus().held_out_windows(48, most=128)
    return copy_batch(256, torch.Generator().manual_seed(12345))


@functools.cache
def corpus():
    """The documentation inside Python, as bytes."""
    return Corpus(python_docs(), unit="bytes")


def train(model, task, rate, steps, seed, **options):
    """Train in place on the task; returns the history and the held-out loss in nats, NaN if it diverged."""
    generator = torch.Generator().manual_seed(seed)
    x, y = held_out(task)
    if task == "docs":
        history = fit(model, lambda: corpus().batch(8, 48, generator), steps, rate, label=None, **options)
        return history, math.nan if history.stopped else evaluate(model, x, y).nats
    history = fit(model, lambda: copy_batch(16, generator), steps, rate, loss=copy_loss, label=None, **options)
    with torch.no_grad():
        return history, math.nan if history.stopped else copy_loss(model, x, y).item()


@torch.no_grad()
def maps(model, x):
    """Every attention map of a model that reads x: (layers, B, H, T, T)."""
    found, hooks = [], []
    for block in model.blocks:
        hook = block.attention.register_forward_pre_hook(lambda layer, given: found.append(layer.weights(given[0])))
        hooks.append(hook)
    model(x)
    for hook in hooks:
        hook.remove()
    return torch.stack(found)


def saturated(rows):
    """The share of rows with one weight above SATURATED. rows: (..., keys)."""
    return (rows.amax(dim=-1) > SATURATED).float().mean().item()


def looking_rows(model, task):
    """The attention rows that have something to look for: (..., keys). Copying: the second half. Docs: all but the
    first, which has no choice."""
    first = 1 if task == "docs" else HALF - 1
    return maps(model, held_out(task)[0][:64])[..., first:, :]


def run(job):
    """Train one model. job: task, arm, start, rate, steps, seed. Returns the held-out loss in nats, and the share of
    saturated rows before and after."""
    model = new_model(job["task"], job["arm"], job["start"], job["seed"])
    before = saturated(looking_rows(model, job["task"]))
    _, loss = train(model, job["task"], job["rate"], job["steps"], job["seed"])
    after = saturated(looking_rows(model, job["task"])) if math.isfinite(loss) else None
    loss = round(loss, 4) if math.isfinite(loss) else None
    return {"loss": loss, "before": round(before, 4), "after": None if after is None else round(after, 4)}


def tried(task, arms, start="unit"):
    """Each arm at each rate and length, seeds 0 to 2."""
    return [
        {"task": task, "arm": arm, "start": start, "rate": rate, "steps": steps, "seed": seed}
        for steps in LENGTHS[task]
        for arm in arms
        for rate in RATES
        for seed in range(3)
    ]


JUDGES = [100, 101, 102]
JUDGED = {  # task, start, steps: the rate of each arm. By seeds 0 to 2 the best, but for 0.02 and 200 steps
    ("copy", "unit", 100): {"1/√d": 3e-2, "none": 1e-2},
    ("copy", "unit", 400): {"1/√d": 1e-2, "none": 1e-2},
    ("docs", "unit", 200): {"1/√d": 1e-3, "none": 1e-3},
    ("docs", "unit", 800): {"1/√d": 3e-3, "none": 3e-3},
    ("docs", "0.02", 200): {"1/√d": 3e-3, "none": 3e-3},
    ("docs", "0.02", 800): {"1/√d": 3e-3, "none": 3e-3},
}
AT_BEST = [
    {"task": task, "arm": arm, "start": start, "rate": rate, "steps": steps, "seed": seed}
    for (task, start, steps), rates in JUDGED.items()
    for arm, rate in rates.items()
    for seed in JUDGES
]


def reading(seeds):
    """Both arms of reading at their best rate, 800 steps."""
    return [
        {"task": "docs", "arm": arm, "start": "unit", "rate": 3e-3, "steps": 800, "seed": seed}
        for arm in ("1/√d", "none")
        for seed in seeds
    ]


MORE = range(103, 112)  # the first three judges of reading differed: how often does it go wrong?
JURY = [200, 201, 202]  # what was learnt from all of these is held against three seeds more
LONG = [  # reading four times as long again
    {"task": "docs", "arm": arm, "start": "unit", "rate": rate, "steps": 3200, "seed": seed}
    for arm in ("1/√d", "none")
    for rate in (1e-3, 3e-3)
    for seed in JUDGES
]
HALVES = [  # the smaller start and the shorter steps apart
    {"task": "docs", "arm": arm, "start": "unit", "rate": rate, "steps": 800, "seed": seed}
    for arm in ("small W_Q", "large W_Q")
    for rate in (3e-4, 1e-3, 3e-3, 1e-2)
    for seed in JUDGES
]
TOO_FAST = [  # ten times the best rate
    {"task": "docs", "arm": "1/√d", "start": "unit", "rate": 3e-2, "steps": 800, "seed": seed} for seed in JUDGES
]

SWEEP = Sweep(
    __file__,
    "scale",
    run,
    jobs=[
        *tried("copy", ["1/√d", "none", "1/d", "QK-norm", "small W_Q"]),
        *tried("copy", ["1/√d", "none"], start="0.02"),
        *tried("copy, narrow", ["1/√d", "none"]),
        *tried("docs", ["1/√d", "none"]),
        *tried("docs", ["1/√d", "none"], start="0.02"),
        *AT_BEST,
        *TOO_FAST,
        *reading(MORE),
        *reading(JURY),
        *LONG,
        *HALVES,
    ],
    quick=[
        {"task": task, "arm": "1/√d", "start": "unit", "rate": 1e-2, "steps": 3, "seed": 0} for task in ("copy", "docs")
    ],
    cost=lambda job: job["steps"] * (10 if job["task"] == "docs" else 1),
    # Another kind of processor rounds in another way; at higher rates that grows to 0.06 within 800 steps.
    comparable=lambda job: job["rate"] <= 3e-3,
    tolerance={"loss": 0.05, "before": 0.01, "after": 0.05},
)

if __name__ == "__main__":
    sys.exit(main(SWEEP))
