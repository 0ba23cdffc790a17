"""A measured number, and the rule for it that was written down before it was measured."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MARGIN = 1.5  # how many spreads the mean of several runs must keep from its bound


@dataclass(frozen=True)
class Finding:
    """A measured number and the bound, written down before it was measured, that it must keep.

    what: the quantity with its unit. measured: one number, or one for each run (seed, input): then it is the mean that
    must keep the bound, by at least 1.5 times the spread (largest minus smallest), so that every single run keeps it
    too. at_least, at_most: one or both bounds. when: of a limit, its clause of HOLDS WHEN's condition. because: of a
    support or of what speaks against the claim, why the claim fails by it (else `what` is said). possible: the lowest
    and the highest value that the quantity can have at all.

    Raises ValueError for a finding that cannot fail or cannot be met: without a bound, or with bounds that every
    possible value keeps, or none; and for a list of fewer than two numbers.
    """

    what: str
    measured: float | Sequence[float]
    at_least: float | None = None
    at_most: float | None = None
    when: str = ""
    because: str = ""
    possible: tuple[float, float] = (-math.inf, math.inf)

    def __post_init__(self):
        values = np.asarray(self.measured, dtype=float)
        if values.ndim > 1 or (values.ndim == 1 and len(values) < 2):
            raise ValueError(f"{self.what!r} measured {values.shape} numbers: give one number, or one for each run")
        object.__setattr__(self, "measured", tuple(values.tolist()) if values.ndim else values.item())
        if self.at_least is None and self.at_most is None:
            raise ValueError(f"{self.what!r} has no bound: give at_least or at_most")
        low, high = self.possible
        least, most = self._bounds
        if least <= low and most >= high:
            raise ValueError(f"{self.what!r}, {self.rule}, cannot fail: it is never outside {low:g} to {high:g}")
        if least > min(most, high) or most < low:
            raise ValueError(f"{self.what!r}, {self.rule}, cannot be met: it is never outside {low:g} to {high:g}")

    @property
    def _bounds(self) -> tuple[float, float]:
        least = -math.inf if self.at_least is None else self.at_least
        return least, math.inf if self.at_most is None else self.at_most

    @property
    def runs(self) -> int:
        """How many numbers were measured."""
        return len(self.measured) if isinstance(self.measured, tuple) else 1

    @property
    def mean(self) -> float:
        """The number, or the mean over the runs."""
        return float(np.mean(self.measured))

    @property
    def spread(self) -> float:
        """The largest number minus the smallest; 0 for a single one."""
        return float(np.ptp(self.measured)) if self.runs > 1 else 0.0

    @property
    def met(self) -> bool:
        """True if the number keeps its bounds; of several runs, the mean, by 1.5 spreads. NaN keeps none."""
        least, most = self._bounds
        room = MARGIN * self.spread
        return self.mean - room >= least and self.mean + room <= most

    @property
    def rule(self) -> str:
        """The bounds in words."""
        words = []
        if self.at_least is not None:
            words.append(f"at least {self.at_least:g}")
        if self.at_most is not None:
            words.append(f"at most {self.at_most:g}")
        return " and ".join(words) + (f", by {MARGIN} spreads" if self.runs > 1 else "")

    @property
    def number(self) -> str:
        """The number in the box; of several runs, the mean and the spread."""
        several = f", mean of {self.runs}, spread ≈ {self.spread:.2g}" if self.runs > 1 else ""
        return f"≈ {self.mean:.2g}{several}"
