"""The claim on trial: each form is fitted to small runs and asked for the largest.

x, loss = axes(grid)["compute"]
errors = held_out(x, loss, share=0.1)           # {"line in the log": -0.02, ...}: forecast minus run, nats per token
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scaling
from scaling_grid import LEAST, Grid

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
