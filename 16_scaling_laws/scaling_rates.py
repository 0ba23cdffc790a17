"""Which learning rate is best for each size and budget, among runs of one seed that judges nothing else."""

from collections.abc import Iterable

import numpy as np


def best_rates(rows: Iterable[dict]) -> dict[tuple[int, int], float]:
    """For each width and budget the rate at which the loss is least. A row has a width, a rate, budgets, and `above`,
    in parts for each budget; empty where the run diverged."""
    least: dict[tuple[int, int], tuple[float, float]] = {}
    for row in rows:
        for budget, parts in zip(row["budgets"], row["above"], strict=False):
            found = (float(np.mean(parts)), row["rate"])
            cell = row["width"], budget
            least[cell] = min(least.get(cell, found), found)
    return {cell: rate for cell, (_, rate) in least.items()}


def by_rate(best: dict[tuple[int, int], float]) -> dict[tuple[int, float], list[int]]:
    """For each width and rate the budgets, rising, at which that rate is the width's best: one run serves them all."""
    result: dict[tuple[int, float], list[int]] = {}
    for (width, budget), rate in sorted(best.items()):
        result.setdefault((width, rate), []).append(budget)
    return result
