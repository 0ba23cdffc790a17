"""AWQ: before weights are rounded, make those larger whose inputs are large, and divide the inputs by as much.

    means = mean_inputs(model, texts)
    small = convert(model, lambda name, linear: Rounded(linear, weight=lambda w: awq(w, means[name], moments[name])))

All numbers of a group share a step, so a weight that is multiplied by s before rounding and divided after it has an
error s times as small, as long as the group's range stays what it is. Which weights deserve it, the inputs tell: errors
are multiplied by them. s = (mean |x| of the input)^alpha, and alpha is tried from 0, which is plain rounding, to 1; the
one with the least error of the outputs is taken. Dividing by s costs nothing where it goes into the norm before
(`int8.move_scale`); here the matrix that is left is divided, which computes the same.

Source: Lin et al. 2023 (arXiv 2306.00978).
"""

from collections.abc import Iterable, Sequence

import torch
from int8_gptq import output_error
from int8_groups import round_groups
from int8_model import watch
from torch import nn

ALPHAS = tuple(i / 10 for i in range(11))


@torch.no_grad()
def mean_inputs(model: nn.Module, batches: Iterable[torch.Tensor], first: int = 0) -> dict[str, torch.Tensor]:
    """The mean |x| of each input of each linear layer over the tokens from `first` on, by name: (in,)."""
    sums, counts = {}, {}

    def see(name, x):
        sums[name] = sums.get(name, 0) + x.abs().sum(dim=(0, 1))
        counts[name] = counts.get(name, 0) + x.shape[0] * x.shape[1]

    watch(model, batches, see, first)
    return {name: total / counts[name] for name, total in sums.items()}


@torch.no_grad()
def scaled_rounding(weight: torch.Tensor, factors: torch.Tensor, bits: int = 4, size: int = 32) -> torch.Tensor:
    """A matrix (out, in) whose inputs are multiplied by factors, rounded in groups, and divided by them again."""
    return round_groups(weight * factors, bits, size) / factors


@torch.no_grad()
def awq(
    weight: torch.Tensor,
    mean: torch.Tensor,
    moment: torch.Tensor,
    bits: int = 4,
    size: int = 32,
    alphas: Sequence[float] = ALPHAS,
) -> torch.Tensor:
    """The matrix rounded with the best alpha of those, (out, in).

    mean: (in,), from `mean_inputs`. moment: (in, in), from `int8_gptq.input_moments`, which tells the outputs' error.
    """
    mean = mean.clamp(min=1e-4 * mean.max())  # an input that hardly occurs gets a small factor, not none
    tried = []
    for alpha in alphas:
        factors = mean**alpha
        factors = factors / (factors.max() * factors.min()).sqrt()  # about 1 in the middle
        tried.append(scaled_rounding(weight.detach(), factors, bits, size))
    return min(tried, key=lambda rounded: output_error(weight, rounded, moment))
