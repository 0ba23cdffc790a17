"""The two curves that Gao, Schulman and Hilton (2022, arXiv 2210.10760) fit to over-optimisation.

    fit = gao_fit(d, gain, "rl")            # Fit(alpha=0.2, beta=0.07, r2=0.9)
    fit.peak                                # the distance at which the fitted gain is largest

d: the square root of the divergence from the base, in nats. gain: the gold reward less the base's. "best of n":
d (alpha - beta d). "rl": d (alpha - beta ln d). Both are linear in alpha and beta: least squares has one solution.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Fit(NamedTuple):
    """form: "rl" or "best of n". r2: the share of the gain's variance that the curve explains."""

    alpha: float
    beta: float
    r2: float
    form: str

    @property
    def peak(self) -> float:
        """The d of the largest gain: infinite where the curve does not fall, 0 where it never rises."""
        if self.beta <= 0:
            return math.inf
        if self.form == "best of n" and self.alpha <= 0:
            return 0.0
        return self.alpha / 2 / self.beta if self.form == "best of n" else math.exp(self.alpha / self.beta - 1)

    def at(self, d: Sequence[float]) -> np.ndarray:
        """The fitted gain at distances above 0."""
        return _terms(np.asarray(d, dtype=float), self.form) @ [self.alpha, self.beta]


def gao_fit(d: Sequence[float], gain: Sequence[float], form: str) -> Fit:
    """Fit a form to points. Raises ValueError for a form that there is not, and for a distance of 0 or less."""
    d, gain = np.asarray(d, dtype=float), np.asarray(gain, dtype=float)
    if form not in ("rl", "best of n"):
        raise ValueError(f"form is {form!r}: expected 'rl' or 'best of n'")
    if d.shape != gain.shape or d.ndim != 1 or not (d > 0).all():
        raise ValueError(f"distances {d.tolist()} for {gain.shape} gains: expected as many, all above 0")
    terms = _terms(d, form)
    (alpha, beta), *_ = np.linalg.lstsq(terms, gain, rcond=None)
    left = gain - terms @ [alpha, beta]
    return Fit(float(alpha), float(beta), float(1 - left.var() / gain.var()), form)


def _terms(d: np.ndarray, form: str) -> np.ndarray:
    return np.stack([d, -d * (d if form == "best of n" else np.log(d))], axis=1)
