"""Numbers in 8 bits: scales, codes, a product of whole numbers, and layers that take the place of `nn.Linear`.

    x           (..., n)        activations, a row for each token; or a matrix (out, in), a row for each output
    codes       as x            whole numbers from -127 to 127 (int8), or from -128 to 127 with a zero point
    scale       broadcasts      the size of a step, so that x is about codes * scale
    zero        as the scale    the code that stands for 0 (int32)

Which numbers share a scale (`by`), and so the scale's shape:

    "tensor"    all of them                             (1, ..., 1)
    "row"       a token; an output of a matrix          (..., 1)
    "column"    a channel; an input of a matrix         (1, ..., n)
    32          32 neighbours of a row, a group         (..., n / 32)

Read it from the top: scale and codes, the zero point, the integer product and what becomes of its scales, the split of
LLM.int8(), groups of 4 bits, and a whole model.

Sources: Dettmers et al. 2022 (LLM.int8(), arXiv 2208.07339); Jacob et al. 2017 (1712.05877) for the product with zero
points; Xiao et al. 2022 (SmoothQuant, 2211.10438) for scales that move from one layer into the next; the file format
GGUF, whose Q4_1 has groups with a minimum.
"""

import math

import torch
from torch import nn

TINY = torch.finfo(torch.float32).tiny  # the least scale: 0 / TINY is 0, where 0 / 0 is NaN
MOST_INPUTS = (2**31 - 1) // 128**2  # of so many products of two codes the sum fits into 32 bits

By = str | int


def extremes(x: torch.Tensor, by: By = "tensor") -> tuple[torch.Tensor, torch.Tensor]:
    """The lowest and the highest of the numbers that share a scale, in float32 or better; shapes as above.

    extremes([[1, -4], [3, 2]], "row") = [[-4], [2]], [[1], [3]]
    Raises ValueError for a `by` that there is not and for groups that do not divide a row.
    """
    x = x.to(torch.promote_types(x.dtype, torch.float32))  # float16 has no scales below 6e-8, bfloat16 8 bits a number
    if isinstance(by, int):
        if by < 1 or x.shape[-1] % by:
            raise ValueError(f"a row of {x.shape[-1]} numbers in groups of {by}: expected a divisor of it")
        groups = x.unflatten(-1, (-1, by))
        return groups.amin(-1), groups.amax(-1)
    shared = {"tensor": range(x.ndim), "row": [x.ndim - 1], "column": range(x.ndim - 1)}
    if by not in shared or not len(shared[by]):
        raise ValueError(f"by is {by!r} for {x.ndim} dimensions: expected 'tensor', 'row', 'column' (2 or more), or 32")
    dims = tuple(shared[by])
    return x.amin(dims, keepdim=True), x.amax(dims, keepdim=True)  # `aminmax` takes many times as long


def top(bits: int = 8) -> int:
    """The largest code: 127 of 8 bits, 7 of 4. As many are below zero, so one of the 2 ** bits is never used."""
    if not 2 <= bits <= 8:
        raise ValueError(f"bits is {bits}: expected 2 to 8")
    return 2 ** (bits - 1) - 1


def absmax_scale(x: torch.Tensor, by: By = "tensor", bits: int = 8) -> torch.Tensor:
    """The step with which the largest |x| gets the largest code. Numbers that are all 0 have a tiny one.

    absmax_scale([[1, -2.54, 0.5]]) = [[0.02]]
    """
    low, high = extremes(x, by)
    return (torch.maximum(-low, high) / top(bits)).clamp(min=TINY)


def steps(x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """How many steps each number is, not rounded: (..., n), float32 or better.

    Raises ValueError for NaN and infinity, which have no code; for a scale that does not fit; and for numbers that want
    a gradient, which rounding cuts.
    """
    if x.requires_grad:
        raise ValueError("the numbers want a gradient, which rounding cuts: run under torch.no_grad()")
    found = x / spread(scale, x.shape[-1])
    if found.shape != x.shape:
        raise ValueError(f"scale has shape {tuple(scale.shape)}, the numbers {tuple(x.shape)}: along which axis is it?")
    if not found.sum().isfinite():  # one pass: NaN and infinity stay what they are in a sum
        raise ValueError("NaN or infinity among the numbers, or a scale of 0: expected finite numbers, scales above 0")
    return found


def spread(scale: torch.Tensor, n: int) -> torch.Tensor:
    """A scale that broadcasts against rows of n numbers: that of a group stands once for each of its numbers."""
    if not 1 < (groups := scale.shape[-1]) < n:
        return scale
    if n % groups:
        raise ValueError(f"scales of {groups} groups for rows of {n} numbers: expected a divisor of it")
    return scale.repeat_interleave(n // groups, dim=-1)


def quantize(x: torch.Tensor, scale: torch.Tensor, bits: int = 8) -> torch.Tensor:
    """The nearest code: divided, then rounded, int8. What is farther out than a scale allows gets the last code.

    quantize([[1, -2.54, 0.5]], [[0.02]]) = [[50, -127, 25]]
    """
    return steps(x, scale).round_().clamp_(-top(bits), top(bits)).to(torch.int8)


def zero_point(x: torch.Tensor, by: By = "tensor", bits: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale and zero with which the lowest number gets the lowest code and the highest the highest: 256 levels.

    The range always holds 0, so that 0 has a code of its own.
    zero_point([[0, 1, 2.55]]) = [[0.01]], [[-128]]
    """
    low, high = extremes(x, by)
    low, high, n_steps = low.clamp(max=0), high.clamp(min=0), 2 * top(bits) + 1
    scale = (high / n_steps - low / n_steps).clamp(min=TINY)
    return scale, (-top(bits) - 1 - low / scale).round().int()


def quantize_affine(x: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, bits: int = 8) -> torch.Tensor:
    """The nearest code where `zero` stands for 0: int8, from -128.

    quantize_affine([[0, 1, 2.55]], [[0.01]], [[-128]]) = [[-128, -28, 127]]
    """
    codes = steps(x, scale).round() + spread(zero, x.shape[-1])
    return codes.clamp(-top(bits) - 1, top(bits)).to(torch.int8)


def dequantize(codes: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor | None = None) -> torch.Tensor:
    """The numbers that codes stand for, in the scale's type.

    dequantize([[50, -127, 25]], [[0.02]]) = [[1, -2.54, 0.5]]
    """
    n = codes.shape[-1]
    codes = codes.to(scale.dtype)  # before the zero is taken off: 127 - -128 is no int8
    return (codes if zero is None else codes - spread(zero, n)) * spread(scale, n)


def round_trip(x: torch.Tensor, by: By = "tensor", bits: int = 8, zero: bool = False) -> torch.Tensor:
    """Numbers to codes and back, in x's own type: what quantization makes of them."""
    if zero:
        scale, zero_code = zero_point(x, by, bits)
        return dequantize(quantize_affine(x, scale, zero_code, bits), scale, zero_code).to(x.dtype)
    scale = absmax_scale(x, by, bits)
    return dequantize(quantize(x, scale, bits), scale).to(x.dtype)


def sqnr(x: torch.Tensor, rounded: torch.Tensor) -> float:
    """Signal to quantization noise, in dB: 10 log10 of the sum of x^2 over that of the errors' squares; without
    errors infinity."""
    x = x.double()
    return 10 * math.log10(x.square().sum() / (x - rounded).square().sum())


def expected_sqnr(rms: float, largest: float, bits: int = 8) -> float:
    """The same, of numbers with this root mean square under the scale of the `largest`: errors are even within a step,
    so their mean square is step^2 / 12. A largest A times as large costs 20 log10 A dB.

    expected_sqnr(1, 4) = 40.8, expected_sqnr(1, 40) = 20.8
    """
    return 20 * math.log10(rms * math.sqrt(12) * top(bits) / largest)


def int_product(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """Codes (..., in) times codes (out, in) transposed, int8 both: (..., out), int32, exact.

    int_product([[100, 100]], [[100, 27], [1, -1]]) = [[12700, 0]]
    Raises ValueError for other types, other widths, and rows so long that a sum may not fit into 32 bits.
    """
    n = w.shape[-1]
    if x.dtype != torch.int8 or w.dtype != torch.int8 or x.shape[-1] != n or not 1 <= n <= MOST_INPUTS:
        found = f"{x.dtype} {tuple(x.shape)} and {w.dtype} {tuple(w.shape)}"
        raise ValueError(f"{found}: expected int8 and rows of the same length, 1 to {MOST_INPUTS:,}")
    # PyTorch 2.13's `_int_mm` is wrong on the CPU for one input, and for one row whose stride is 1, as a transposed
    # column's is; that counts as contiguous, so only a new view gives it the stride of a row.
    rows = x.reshape(-1).view(-1, n)
    try:
        sums = torch._int_mm(rows, w.t()) if n > 1 else _exact_product(rows, w)
    except RuntimeError:  # no such kernel here, or none for these sizes (CUDA's takes no fewer than 17 rows)
        sums = _exact_product(rows, w)
    return sums.view(*x.shape[:-1], len(w))


def _exact_product(rows: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """The same by float64, which holds all whole numbers up to 2^53."""
    return (rows.double() @ w.double().t()).int()


def scaled_product(
    x: torch.Tensor, x_scale: torch.Tensor, w: torch.Tensor, w_scale: torch.Tensor, zero: torch.Tensor | None = None
) -> torch.Tensor:
    """What x times the matrix is, from the codes of both: (..., in), (out, in) -> (..., out), float32.

    A scale for each row of x and for each output of w can be taken out of the sum over inputs:

        sum_i (x[t, i] - zero[t]) x_scale[t] w[o, i] w_scale[o]
            = (sum_i x[t, i] w[o, i]  -  zero[t] sum_i w[o, i]) x_scale[t] w_scale[o]

    x = [[50, -127]], x_scale = [[0.02]], w = [[127, 0], [1, 1]], w_scale = [[0.01], [0.5]]
    scaled_product(x, x_scale, w, w_scale) = [[1.27, -0.77]]
    Raises ValueError for a scale for each column or group: it stands inside the sum.
    """
    if x_scale.shape[-1] != 1 or w_scale.shape[-1] != 1:
        found = f"{tuple(x_scale.shape)} and {tuple(w_scale.shape)}"
        raise ValueError(f"scales of shape {found}: only one for each row, or for all, can be taken out of the sum")
    sums = int_product(x, w)
    if zero is not None:
        sums = sums - zero * w.sum(dim=-1)  # (..., 1) * (out,), int64
    return (sums * x_scale).mul_(w_scale.mT)  # in place: a large result is written once less


def outlier_columns(x: torch.Tensor, threshold: float) -> torch.Tensor:
    """Which columns hold a number above the threshold, of either sign: (..., n) -> (n,) bool.

    outlier_columns([[1, -7, 2], [3, 0, 6]], threshold=6) = [False, True, False]
    """
    return (x.abs() > threshold).flatten(0, -2).any(dim=0)


def split_product(x: torch.Tensor, w: torch.Tensor, w_scale: torch.Tensor, threshold: float = 6.0) -> torch.Tensor:
    """LLM.int8(): columns with outliers times the matrix in float, the others in int8, and the sum of both.

    x: (..., in), float. w, w_scale: the matrix's codes and scales, a row for each output. A threshold of 0 is the float
    product with the matrix that is stored, infinity the int8 product.

    x = [[2, 100]], w = [[127, 1], [0, 2]], w_scale = [[0.01], [1]]
    split_product(x, w, w_scale) = [[2.54 + 1, 0 + 200]]
    """
    outliers = outlier_columns(x, threshold)
    rest = x.masked_fill(outliers, 0)  # as columns of zeros they add nothing, and no row's scale knows them
    scale = absmax_scale(rest, "row")
    kept = x[..., outliers].to(w_scale.dtype) @ dequantize(w[:, outliers], w_scale).mT  # (..., out)
    return scaled_product(quantize(rest, scale), scale, w, w_scale) + kept


def to_groups(w: torch.Tensor, size: int = 32, bits: int = 4) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Codes from 0 up, (..., groups, size) uint8, and each group's scale and lowest number, (..., groups, 1).

    w = [[1, 2.5, 16, 1]]
    to_groups(w, size=4) = [[[0, 2, 15, 0]]], [[[1]]], [[[1]]]
    A group's lowest number gets 0 and its highest the last code.
    """
    low, high = (it.unsqueeze(-1) for it in extremes(w, size))
    last = 2 * top(bits) + 1
    scale = (high / last - low / last).clamp(min=TINY)
    codes = steps(w.unflatten(-1, (-1, size)) - low, scale).round()
    return codes.clamp(0, last).to(torch.uint8), scale, low


def from_groups(codes: torch.Tensor, scale: torch.Tensor, low: torch.Tensor) -> torch.Tensor:
    """The way back: (..., groups, size) -> (..., groups * size). A product, then a sum, as GGUF's readers round."""
    return (codes * scale + low).flatten(-2)


def move_scale(before: nn.Module, after: nn.Linear, factors: torch.Tensor, rows: slice = slice(None)) -> None:
    """Multiply what `before` puts out by factors, divide what `after` reads by them: together they compute the same.

    In place. before: a norm, or a linear layer whose `rows` are the inputs of `after`; what stands between them must
    not mind (a product with a gate does not, a GELU does). factors: one for each input of `after`. Factors of 100 on a
    few channels plant outliers; SmoothQuant's take them away. Raises ValueError for factors that are not finite and
    above 0 or are not as many, and for a norm without weights.
    """
    if factors.shape != (after.in_features,) or not (factors > 0).all() or not factors.isfinite().all():
        least = f"{tuple(factors.shape)}, from {factors.min():.3g} to {factors.max():.3g}"
        raise ValueError(f"factors are {least}: expected {after.in_features}, finite and above 0")
    scale_outputs(before, factors, rows)
    after.weight = nn.Parameter(after.weight.detach() / factors, after.weight.requires_grad)


def scale_outputs(module: nn.Module, factors: torch.Tensor, rows: slice = slice(None)) -> None:
    """Multiply what comes out of these rows of a norm or a linear layer, in place: its weights, and its bias if any."""
    if module.weight is None:
        raise ValueError(f"{module} has no weights to multiply")
    for name in ("weight", "bias"):
        old = getattr(module, name, None)
        if old is not None:
            new = old.detach().clone()
            new[rows] *= factors.view(-1, *[1] * (new.ndim - 1))  # one for each row
            setattr(module, name, nn.Parameter(new, old.requires_grad))


class Int8Linear(nn.Module):
    """Weight only: codes are stored, and multiplied out again for a product in float. `by`: as above.

    It takes the place of an `nn.Linear`, as all below do: (..., in_features) -> (..., out_features).
    """

    def __init__(self, linear: nn.Linear, by: By = "row"):
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight = linear.weight.detach()
        scale = absmax_scale(weight, by)
        self.register_buffer("codes", quantize(weight, scale))
        self.register_buffer("scale", scale)
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach())

    def product(self, x: torch.Tensor) -> torch.Tensor:
        """x times the matrix, without the bias."""
        return x @ dequantize(self.codes, self.scale).to(x.dtype).mT

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.product(x).to(x.dtype)
        return y if self.bias is None else y + self.bias


class W8A8Linear(Int8Linear):
    """Weights and activations in 8 bits, and a product of whole numbers.

    inputs: "row" gives each token a scale, "tensor" all tokens of a call the same, both from the numbers that come in
    (dynamic). static: one scale that was fixed before; what is beyond it is clipped. zero: with a zero point.
    """

    def __init__(
        self, linear: nn.Linear, inputs: By = "row", by: By = "row", *, zero=False, static: torch.Tensor | None = None
    ):
        super().__init__(linear, by)
        if self.scale.shape[-1] != 1 or inputs not in ("row", "tensor"):
            raise ValueError(f"inputs by {inputs!r}, weights by {by!r}: whole numbers take 'row' or 'tensor'")
        if zero and static is not None:
            raise ValueError("a static scale has no zero point here: leave out one of them")
        self.inputs, self.zero = inputs, zero
        self.register_buffer("static", static)

    def product(self, x: torch.Tensor) -> torch.Tensor:
        """x times the matrix, without the bias."""
        if self.zero:
            scale, zero = zero_point(x, self.inputs)
            return scaled_product(quantize_affine(x, scale, zero), scale, self.codes, self.scale, zero)
        scale = absmax_scale(x, self.inputs) if self.static is None else self.static.expand([1] * x.ndim)
        return scaled_product(quantize(x, scale), scale, self.codes, self.scale)


class SplitLinear(Int8Linear):
    """LLM.int8(): `split_product` at each call."""

    def __init__(self, linear: nn.Linear, threshold: float = 6.0):
        super().__init__(linear)
        self.threshold = threshold

    def product(self, x: torch.Tensor) -> torch.Tensor:
        """x times the matrix, without the bias."""
        return split_product(x, self.codes, self.scale, self.threshold)
