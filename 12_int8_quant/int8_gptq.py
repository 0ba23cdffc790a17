"""GPTQ: round a matrix one input after the other, and let the inputs that are left make up for each error.

    moments = input_moments(model, texts, sink=0.1)                    # {"blocks.0.attention.qkv": (in, in), ...}
    small = convert(model, lambda name, linear: Rounded(linear, weight=lambda w: gptq(w, moments[name])))

Rounding to nearest makes the smallest error in the weights, not in what the layer puts out: that is the mean of
(e . x)^2 over inputs x, for e the error of one output's weights, so e^T H e with H the mean of x x^T. Once input i is
rounded, the best that the inputs after it can do is in closed form: with U the upper Cholesky factor of H^-1,

    w_j  <-  w_j - (w_i - rounded_i) / U_ii * U_ij            for j > i

Groups of inputs share a scale and a minimum, found when the first of them is reached; what lies behind a group is made
up for once for all of it, which is faster.

Source: Frantar et al. 2022 (arXiv 2210.17323), after Hassibi and Stork 1992.
"""

from collections.abc import Iterable

import torch
from int8 import TINY, extremes, top
from int8_model import watch
from torch import nn


@torch.no_grad()
def input_moments(
    model: nn.Module, batches: Iterable[torch.Tensor], sink: float | None = None
) -> dict[str, torch.Tensor]:
    """The mean of x x^T over all tokens of some texts (B, T), for each linear layer by name: (in, in), float32.

    sink: what the texts' first tokens count beside all others together; None lets every token count alike, 1 / (T - 1).
    A token that is one of hundreds may be ruined for the sake of the others, and a model with an attention sink needs
    its first one.
    """
    firsts, others = {}, {}

    def see(name, x):
        for sums, rows in ((firsts, x[:, 0].float()), (others, x[:, 1:].flatten(0, 1).float())):
            total, count = sums.get(name, (0, 0))
            sums[name] = total + rows.T @ rows, count + len(rows)

    watch(model, batches, see)
    moments = {}
    for name, (first, n) in firsts.items():
        other, m = others[name]
        moments[name] = (first + other) / (n + m) if sink is None else sink * first / n + other / max(m, 1)
    return moments


@torch.no_grad()
def gptq(weight: torch.Tensor, moment: torch.Tensor, bits: int = 4, size: int = 32, damp: float = 0.01) -> torch.Tensor:
    """The matrix rounded, (out, in), to groups of `size` inputs as `int8.to_groups` has them.

    moment: (in, in), from `input_moments`. damp: the share of its mean diagonal that is added to it, so that inputs
    that hardly occur have an inverse. Raises ValueError for groups that do not divide a row, and a moment of another
    size.
    """
    n = weight.shape[-1]
    if n % size or moment.shape != (n, n):
        raise ValueError(
            f"rows of {n}, groups of {size}, a moment {tuple(moment.shape)}: expected a divisor, {n} x {n}"
        )
    upper, left = _upper(moment, damp), weight.detach().double().clone()
    last, rounded = 2 * top(bits) + 1, torch.empty_like(left)
    for start in range(0, n, size):
        stop = start + size
        low, high = (it[:, 0] for it in extremes(left[:, start:stop], "row"))  # (out,)
        scale, errors = ((high - low) / last).clamp(min=TINY), torch.empty_like(left[:, start:stop])
        for i in range(start, stop):
            codes = ((left[:, i] - low) / scale).round().clamp(0, last)
            rounded[:, i] = codes * scale + low
            errors[:, i - start] = error = (left[:, i] - rounded[:, i]) / upper[i, i]
            left[:, i + 1 : stop] -= error[:, None] * upper[i, i + 1 : stop]
        left[:, stop:] -= errors @ upper[start:stop, stop:]  # what lies behind the group, for all of it at once
    return rounded.to(weight.dtype)


def _upper(moment: torch.Tensor, damp: float) -> torch.Tensor:
    """The upper Cholesky factor of the inverse, in float64."""
    moment = moment.double().clone()
    moment.diagonal().add_(damp * moment.diagonal().mean().clamp(min=TINY))
    return torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(moment)), upper=True)


def output_error(weight: torch.Tensor, rounded: torch.Tensor, moment: torch.Tensor) -> float:
    """The mean square of what changes in a layer's outputs, over that of the outputs: e^T H e / w^T H w."""
    error, weight, moment = (weight - rounded).double(), weight.double(), moment.double()
    return float(((error @ moment) * error).sum() / ((weight @ moment) * weight).sum())
