"""The claim on trial: each form is fitted to small runs and asked for the largest.

x, loss = axes(grid)["compute"]
errors = held_out(x, loss, share=0.1)           # {"line in the log": -0.02, ...}: forecast minus run, nats per token
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import scaling
from scaling_grid import LEAST, Grid
from scaling_rate_sweep import budgets
from scaling_rates import best_rates

LINE, POWER, FLOORED = "line in the log", "power law", "floor and power law"
FORMS: dict[str, Callable] = {
    LINE: scaling.line,
    POWER: lambda x, loss: scaling.fit(loss, x, floor=0.0),
    FLOORED: lambda x, loss: scaling.fit(loss, x),
}
SHARE = 0.1  # a form is fitted to runs of at most this share of the largest


class Axis(NamedTuple):
    """What a loss is plotted over: x, rising, and loss, (points,) each."""

    x: np.ndarray
    loss: np.ndarray

    def below(self, most: float) -> "Axis":
        """The points up to an x."""
        return Axis(self.x[self.x <= most], self.loss[self.x <= most])

    def above(self, least: float) -> "Axis":
        """The points from an x on."""
        return Axis(self.x[self.x >= least], self.loss[self.x >= least])


def axes(grid: Grid) -> dict[str, Axis]:
    """Loss over parameters at the longest budget that all widths have, over tokens of the widest model, over compute
    along the frontier. Budgets that are hardly trained are left out."""
    grid = grid.cut(least=LEAST)
    whole = np.isfinite(grid.loss).all(axis=0).nonzero()[0][-1]  # the last budget of all widths
    wide = np.isfinite(grid.loss[-1])
    flops, loss, _ = grid.frontier()
    return {
        "parameters": Axis(grid.n, grid.loss[:, whole]),
        "tokens": Axis(np.array(grid.budgets, dtype=float)[wide], grid.loss[-1][wide]),
        "compute": Axis(flops, loss),
    }


def held_out(axis: Axis, share: float = SHARE) -> dict[str, float]:
    """For each form: fitted to points up to a share of the largest x, its forecast for the largest minus the loss that
    was found there, nats per token."""
    known = axis.below(share * axis.x[-1])
    return {name: float(fit(*known)(axis.x[-1]) - axis.loss[-1]) for name, fit in FORMS.items()}


# ---- Chinchilla's three ways, and the surface


def groups(grids: list[Grid], embeddings: bool = False) -> list[np.ndarray]:
    """Loss, parameters and tokens of the runs, (3, runs), one array for each seed and width: they share a training, so
    they are drawn together. embeddings: count them."""
    result = []
    for grid in grids:
        counts = [count.total if embeddings else count.blocks for count in grid.counts]
        for n, loss in zip(counts, grid.loss, strict=True):
            run = np.isfinite(loss)
            result.append(np.stack([loss[run], np.full(run.sum(), n), np.array(grid.budgets)[run]]))
    return result


def surface(chosen: list[np.ndarray], near: scaling.Law | None = None) -> scaling.Law:
    """L = E + A / N^alpha + B / D^beta through groups of runs."""
    loss, n, d = np.concatenate(chosen, axis=1)
    return scaling.fit(loss, n, d, near=near)


def constants(law: scaling.Law) -> np.ndarray:
    """E, A, B, alpha, beta."""
    return np.array([law.floor, *law.scales, *law.exponents])


def slope(x: np.ndarray, y: np.ndarray) -> float:
    """The exponent of y as a power of x, by least squares of the logarithms."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def valleys(grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Budgets of compute along the frontier that show a valley, and the size at the bottom of each."""
    found = []
    for flops in grid.frontier()[0]:
        n, loss = grid.iso_flop(flops)
        near = np.abs(np.log(n / n[loss.argmin()])) <= np.log(8)
        try:
            found.append((flops, scaling.valley(n[near], loss[near])[0]))
        except ValueError:  # fewer than three sizes, or no valley
            continue
    return np.array(found).T


def best_sizes(law: scaling.Law, grid: Grid, flops: np.ndarray) -> np.ndarray:
    """By the law the best size for each budget of compute, counted exactly; between widths logarithms are lines."""
    widths = np.log(np.geomspace(grid.widths[0], grid.widths[-1], 2000))
    n, per_token = (
        np.exp(np.interp(widths, np.log(grid.widths), np.log(each)))
        for each in (grid.n, grid.flops[:, 0] / grid.budgets[0])
    )
    return n[law(n, flops[:, None] / per_token).argmin(axis=1)]


def three_ways(grid: Grid) -> dict[str, float]:
    """The exponent a of the best size, N* ~ C^a, by each of Chinchilla's ways, C counted exactly; and by the surface
    with C = 6 N D, where it is beta / (alpha + beta)."""
    flops, _, which = grid.frontier()
    law = surface(groups([grid]))
    alpha, beta = law.exponents
    return {
        "the frontier": slope(flops, grid.n[which]),
        "the valleys": slope(*valleys(grid)),
        "the surface": slope(flops, best_sizes(law, grid, flops)),
        "the surface, 6 N D": beta / (alpha + beta),
    }


# ---- controls


def repeated(rows: Iterable[dict], unique: int) -> Axis:
    """Runs on text that repeats after `unique` tokens: budgets, and for seeds 1 to 3 (0 chose the rates) nats per
    token above the floor, (seeds, budgets)."""
    rows = [row | {"budgets": budgets(row["most"])} for row in rows if row["unique"] == unique]
    best = best_rates(row for row in rows if row["seed"] == 0)
    found = {
        (row["seed"], budget): np.mean(parts)
        for row in rows
        for budget, parts in zip(row["budgets"], row["above"], strict=True)
        if row["rate"] == best[row["width"], budget]
    }
    x = budgets(rows[0]["most"])
    return Axis(np.array(x), np.array([[found[seed, budget] for budget in x] for seed in (1, 2, 3)]))


def at_one_rate(rows: Iterable[dict], budget: int) -> np.ndarray:
    """Runs of all widths at one rate: nats per token above the floor at a budget, (seeds, widths)."""
    rows = [row for row in rows if row["unique"] is None]
    found = {(row["seed"], row["width"]): np.mean(row["above"][budgets(row["most"]).index(budget)]) for row in rows}
    seeds, widths = (sorted({key[i] for key in found}) for i in (0, 1))
    return np.array([[found[seed, width] for width in widths] for seed in seeds])
