"""The runs of a world as tables: the losses of a seed, and what all forms are fitted to.

grid = grids(rows, "steep")[1]                  # of seed 1
grid.loss                                       # (widths, budgets), nats per token
grid.n, grid.flops                              # parameters of the blocks, and operations of each run
C, L, which = grid.frontier()                   # the least loss for each budget of compute
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import scaling
from scaling_training import ladder
from scaling_world import world

LEAST = 2**17  # budgets below are hardly trained: a third of them is warm-up and fall


@dataclass(frozen=True)
class Grid:
    """The runs of one seed in one world. widths: of the models. budgets: in tokens. above: nats per token above the
    floor, (widths, budgets); NaN where none was run."""

    world: str
    widths: tuple[int, ...]
    budgets: tuple[int, ...]
    above: np.ndarray

    @property
    def floor(self) -> float:
        """Nats per token that no model can cross."""
        return world(self.world).floor

    @property
    def loss(self) -> np.ndarray:
        """Nats per token, (widths, budgets)."""
        return self.floor + self.above

    def shape(self, width: int) -> scaling.Shape:
        """A model's sizes."""
        return scaling.Shape(**ladder(width, world(self.world).vocab_size))

    @property
    def counts(self) -> list[scaling.Parameters]:
        """The parameters of each width, by part."""
        return [scaling.count_parameters(self.shape(width)) for width in self.widths]

    @property
    def n(self) -> np.ndarray:
        """The parameters of the blocks, (widths,): all but the embedding, which is the head as well."""
        return np.array([count.blocks for count in self.counts], dtype=float)

    @property
    def flops(self) -> np.ndarray:
        """Operations of each training, (widths, budgets), counted exactly."""
        context = world(self.world).context
        each = [scaling.train_flops(self.shape(width), context, 1) for width in self.widths]
        return np.outer(each, self.budgets)

    def cut(self, least: int = 0, most: float = np.inf) -> "Grid":
        """The runs of budgets from `least` to `most` tokens."""
        kept = [i for i, budget in enumerate(self.budgets) if least <= budget <= most]
        return Grid(self.world, self.widths, tuple(self.budgets[i] for i in kept), self.above[:, kept])

    def wider(self, least: int) -> "Grid":
        """The runs of widths from `least` on."""
        kept = [i for i, width in enumerate(self.widths) if width >= least]
        return Grid(self.world, tuple(self.widths[i] for i in kept), self.budgets, self.above[kept])

    @property
    def curves(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Of each width its budgets in operations, rising, and its losses."""
        runs = np.isfinite(self.above)
        return [(c[run], loss[run]) for c, loss, run in zip(self.flops, self.loss, runs, strict=True)]

    def iso_flop(self, flops: float) -> tuple[np.ndarray, np.ndarray]:
        """Parameters and loss at one budget of compute, for the widths whose runs span it: between two of a width's
        budgets the loss is a line in ln C."""
        spanning = [i for i, (c, _) in enumerate(self.curves) if len(c) and c[0] <= flops <= c[-1]]
        loss = [np.interp(np.log(flops), np.log(self.curves[i][0]), self.curves[i][1]) for i in spanning]
        return self.n[spanning], np.array(loss)

    def frontier(self, points_a_decade: int = 8) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Budgets of compute, the least loss for each, and which width: where a larger and a smaller width were run
        as well, so that the best one is not merely the last one."""
        curves = self.curves
        low, high = np.log10(np.nanmin(self.flops)), np.log10(np.nanmax(self.flops))
        flops = np.logspace(low, high, round((high - low) * points_a_decade) + 1)
        loss, which = scaling.frontier(flops, curves)
        spans = [(c[0], c[-1]) for c, _ in curves]
        inner = np.array([
            w >= 0 and any(a <= c <= b for a, b in spans[:w]) and any(a <= c <= b for a, b in spans[w + 1 :])
            for c, w in zip(flops, which, strict=True)
        ])  # fmt: skip
        return flops[inner], loss[inner], which[inner]


def grids(rows: Iterable[dict], name: str, field: str = "above") -> dict[int, Grid]:
    """The grid of each seed of a world. A row has a world, a width, a seed, budgets, and for each budget `above`, in
    parts. field: "unfinished" for what was read off at the constant rate."""
    rows = [row for row in rows if row["world"] == name]
    widths = tuple(sorted({row["width"] for row in rows}))
    budgets = tuple(sorted({budget for row in rows for budget in row["budgets"]}))
    result = {}
    for seed in sorted({row["seed"] for row in rows}):
        above = np.full((len(widths), len(budgets)), np.nan)
        for row in rows:
            if row["seed"] == seed:
                for budget, parts in zip(row["budgets"], row[field], strict=True):
                    above[widths.index(row["width"]), budgets.index(budget)] = np.mean(parts)
        result[seed] = Grid(name, widths, budgets, above)
    return result
