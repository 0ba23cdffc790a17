"""Which learning rate was best for an arm, and whether a better one may lie outside of what was tried."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch


class BestRate(NamedTuple):
    """An arm's best learning rate, its mean loss over the seeds, and whether it is at the edge of what was tried."""

    rate: float
    loss: float
    at_edge: bool


def best_rate(losses: torch.Tensor, rates: Sequence[float]) -> BestRate:
    """The rate with the lowest mean loss. losses: (seeds, rates).

    A rate at which any seed diverged (not a finite number) is never the best. at_edge: the best is the lowest or the
    highest rate, so a better one may lie outside: try more rates before the arm is judged. Raises ValueError if no
    rate is left, or for shapes that do not fit.
    """
    losses = torch.as_tensor(losses, dtype=torch.float64)
    if losses.ndim != 2 or losses.shape[1] != len(rates):
        raise ValueError(f"losses of shape {tuple(losses.shape)} for {len(rates)} rates: expected (seeds, rates)")
    means = losses.mean(dim=0)  # (rates,)
    means = means.where(means.isfinite(), math.inf)
    best = int(means.argmin())
    if means[best] == math.inf:
        raise ValueError(f"at each of the rates {list(rates)} a seed diverged: try lower ones")
    return BestRate(rates[best], means[best].item(), rates[best] in (min(rates), max(rates)))
