"""A program around scaling.py: a small study of scaling.

Models of a ladder are run for some budgets, with several seeds each. A law is fitted to their losses, and foretells
what a larger run will give. A row is kept of every run, so that a sweep goes on where it ended. What a run measures
comes from `scaling_source`: a law that is known, and chance. `train` really trains, a model of pairs of tokens.
"""

import itertools
import math

import numpy as np
import scaling
import scaling_source as source
import torch
from torch.nn import functional as F

CONTEXT, BATCH = 96, 20  # tokens in a row; rows in a step
WIDTHS, SEEDS = (32, 64, 112, 192, 320), (0, 1, 2)
STEPS = (200, 400, 800, 1600, 3200, 6400)
LARGE = (640, 0, 51200)  # width, seed and steps of the run that is foretold

RATE, LEAST, PAIRS, PARTS = 32.0, 0.0, 64, 2  # of `train`: peak, last share of it; pairs in a step; parts of a step
LENGTHS = (50, 100, 200)  # steps


def shape(width):
    """A model of the ladder."""
    heads = width // source.KEYS
    return scaling.Shape(source.VOCABULARY, width, source.LAYERS, heads, 1, 3 * width)


def size(width):
    """Its parameters without the embedding (N)."""
    counted = scaling.count_parameters(shape(width))
    return counted.total - counted.embedding


def tokens(steps):
    """What so many steps read (D)."""
    return steps * BATCH * CONTEXT


def flops(width, steps):
    """What a run costs (C)."""
    return scaling.train_flops(shape(width), CONTEXT, tokens(steps))


def run(width, seed, steps):
    """A run's row."""
    loss = source.measured(width, seed, steps, (BATCH, CONTEXT))
    return {"width": width, "seed": seed, "steps": steps, "loss": loss}


def sweep(rows=()):
    """The rows of all runs of the ladder. Those that are there are kept, and not run again."""
    rows = list(rows)
    done = {(row["width"], row["seed"], row["steps"]) for row in rows}
    for job in itertools.product(WIDTHS, SEEDS, STEPS):
        if job not in done:
            rows.append(run(*job))
    return sorted(rows, key=lambda row: (row["width"], row["seed"], row["steps"]))


def columns(rows):
    """Losses, sizes and tokens of rows."""
    loss = np.array([row["loss"] for row in rows])
    n = np.array([float(size(row["width"])) for row in rows])
    d = np.array([float(tokens(row["steps"])) for row in rows])
    return loss, n, d


def law_of(rows):
    """The law of sizes and tokens."""
    return scaling.fit(*columns(rows))


def spread(rows, draws=40):
    """The law's exponents, (draws, 2), of samples of what was drawn by one chance: a width and a seed."""
    law, groups = law_of(rows), {}
    for row in rows:
        groups.setdefault((row["width"], row["seed"]), []).append(row)

    def exponents(sample):
        return scaling.fit(*columns(list(itertools.chain(*sample))), near=law).exponents

    return scaling.bootstrap(list(groups.values()), exponents, draws, seed=0)


def foretold(rows, job=LARGE):
    """What the law of the smaller runs says of a large one."""
    width, _, steps = job
    return law_of(rows)(size(width), tokens(steps))


def means(rows):
    """Mean losses over the seeds, (widths, steps)."""
    loss = np.array([row["loss"] for row in rows])
    return loss.reshape(len(WIDTHS), len(SEEDS), len(STEPS)).mean(axis=1)


def frontier(rows, points=24):
    """Budgets in FLOPs, the least mean loss at each, and which width has it."""
    costs = np.array([[flops(width, steps) for steps in STEPS] for width in WIDTHS])
    budgets = np.geomspace(costs.min(), costs.max(), points)
    return budgets, *scaling.frontier(budgets, list(zip(costs, means(rows), strict=True)))


def law_of_compute(rows):
    """Loss by FLOPs, along the frontier."""
    budgets, losses, _ = frontier(rows)
    return scaling.fit(losses, budgets)


def valley(budget):
    """The best size for a budget in FLOPs, and its loss, from runs of every width that cost as much."""
    jobs = [(width, seed, round(budget / flops(width, 1))) for width in WIDTHS for seed in SEEDS]
    loss, n, _ = columns([run(*job) for job in jobs])
    return scaling.valley(n, loss)


def share(step, steps):
    """The share of the peak rate at a step: a cosine from 1 to LEAST."""
    return LEAST + (1 - LEAST) * 0.5 * (1 + math.cos(math.pi * step / steps))


def train(steps, seed=0):
    """A model of pairs. Returns nats above the floor after every 50th step, by step, and each step's rate."""
    table = torch.zeros(source.TOKENS, source.TOKENS, requires_grad=True)
    optimizer = torch.optim.SGD([table], RATE)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: share(step, steps))
    generator, above, rates = torch.Generator().manual_seed(seed), {}, []
    for step in range(1, steps + 1):
        optimizer.zero_grad()
        for _ in range(PARTS):
            x, y = source.pairs(PAIRS // PARTS, generator)
            (F.cross_entropy(table[x], y) / PARTS).backward()
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
        if step % 50 == 0:
            above[step] = source.above_floor(table)
    return above, rates


def curve():
    """Mean nats above the floor after trainings of each length, (lengths,)."""
    return np.array([np.mean([train(steps, seed)[0][steps] for seed in SEEDS]) for steps in LENGTHS])


def exponent():
    """By which power of its tokens a training's loss falls towards the floor."""
    return scaling.fit(curve(), np.array(LENGTHS) * float(PAIRS), floor=0.0).exponents[0]


if __name__ == "__main__":
    rows = sweep()
    law, large = law_of(rows), run(*LARGE)
    print(f"L = {law.floor:.3f} + {law.scales[0]:.3g} / N^{law.exponents[0]:.3f}", end="")
    print(f" + {law.scales[1]:.3g} / D^{law.exponents[1]:.3f}, deviations {spread(rows).std(axis=0).round(3)}")
    print(f"a larger run: foretold {foretold(rows):.3f}, found {large['loss']:.3f}")
    print(f"loss by compute: {law_of_compute(rows)}")
    print(f"valley of 1e15 FLOPs: {valley(1e15)}; optimum by the law: {scaling.optimum(law, 1e15)[0]:.3g}")
    print(f"nats above the floor after {LENGTHS} steps: {curve().round(4)}, exponent {exponent():.2f}")
