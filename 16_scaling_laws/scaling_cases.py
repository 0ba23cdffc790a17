"""Sizes, laws and runs for the checks of `scaling.py`, and functions that are computed in another way.

No two sizes are equal where one could stand for the other. Laws have unequal exponents, and runs whose losses differ
by up to a factor of ten.
"""

import numpy as np
import torch
from torch.nn import functional as F

SIZES = [
    {"vocab_size": 53, "d_model": 60, "n_layers": 3, "n_heads": 6, "n_kv_heads": 2, "d_ff": 77},
    {"vocab_size": 101, "d_model": 24, "n_layers": 5, "n_heads": 4, "n_kv_heads": 4, "d_ff": 31},
    {"vocab_size": 31, "d_model": 90, "n_layers": 2, "n_heads": 15, "n_kv_heads": 3, "d_ff": 40},
]
ONE = [(1.7, (30.0,), (0.3,)), (0.5, (3.0,), (0.08,)), (2.0, (1e4,), (1.1,))]  # floor, scales, exponents
TWO = [(1.69, (406.4, 410.7), (0.34, 0.28)), (0.8, (20.0, 5000.0), (0.2, 0.6))]
X = np.geomspace(1e3, 1e9, 13)
N, D = (axis.ravel() for axis in np.meshgrid(np.geomspace(1e5, 3e9, 7), np.geomspace(2e6, 1e11, 9)))


def by_hand(law, *x):
    """The loss of a law (floor, scales, exponents)."""
    floor, scales, exponents = law
    return floor + sum(
        a / np.asarray(at, dtype=float) ** alpha for a, at, alpha in zip(scales, x, exponents, strict=True)
    )


def theta_of(law):
    """A law's constants, (e, a_1, .., alpha_1, ..)."""
    floor, scales, exponents = law
    return np.array([np.log(floor), *np.log(scales), *exponents])


def noisy(law, size, *x, seed=0):
    """Losses that are off by chance, `size` in log-loss, normally distributed."""
    return by_hand(law, *x) * np.exp(size * np.random.default_rng(seed).normal(size=len(x[0])))


def objective_by_torch(theta, log_x, log_loss, delta):
    """The objective and its gradient by theta: PyTorch's Huber loss and autograd."""
    theta = torch.tensor(theta, requires_grad=True)
    k, log_x, log_loss = len(log_x), torch.tensor(log_x), torch.tensor(log_loss)
    terms = [theta[0].expand(log_x.shape[1]), *(theta[1 + i] - theta[1 + k + i] * log_x[i] for i in range(k))]
    value = F.huber_loss(torch.stack(terms).logsumexp(0), log_loss, reduction="sum", delta=delta)
    (by_theta,) = torch.autograd.grad(value, theta)
    return value.item(), by_theta.numpy()


def apart(found, wanted, of="", tolerance=1e-9, least=0.0):
    """None if numbers are equal, else where they differ most, in words. NaN differs from all but NaN.

    of: what an index counts, such as "run". tolerance: a share of the number that is wanted, or of `least` if that is
    larger; the default is for float64, which rounds at 1e-16, and sums of under a thousand terms.
    """
    found, wanted = np.asarray(found, dtype=float), np.asarray(wanted, dtype=float)
    if found.shape != wanted.shape:
        return f"shape {found.shape}, expected {wanted.shape}"
    with np.errstate(invalid="ignore"):  # inf - inf
        gaps = np.abs(found - wanted) / np.maximum(np.abs(wanted), max(least, 1e-300))
    gaps = np.where((found == wanted) | (np.isnan(found) & np.isnan(wanted)), 0.0, np.nan_to_num(gaps, nan=np.inf))
    if gaps.size and gaps.max() > tolerance:
        at = np.unravel_index(gaps.argmax(), gaps.shape)
        place = f"{of} {', '.join(str(int(i)) for i in at)}: " if at else ""
        digits = 6 if f"{found[at]:.6g}" != f"{wanted[at]:.6g}" else 12
        return f"{place.lstrip()}found {found[at]:.{digits}g}, expected {wanted[at]:.{digits}g}"


def laws_apart(found, law, tolerance=1e-5):
    """None if a law found is the one planted (floor, scales, exponents), else in words.

    tolerance: of a constant's size. L-BFGS ends where a step gains less than 2e-9 DELTA squared: residuals are then at
    most some 4e-8, and constants that can hardly be told apart are off by some hundred times as much.
    """
    floor, scales, exponents = law
    for name, one, other in (
        ("floor", [found.floor], [floor]),
        ("scale", found.scales, scales),
        ("exponent", found.exponents, exponents),
    ):
        if told := apart(one, other, "term" if name != "floor" else "", tolerance, least=1e-3):
            return f"{name} {told.removeprefix('0: ')}"
