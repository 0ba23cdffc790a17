"""Norms and activations with their backward passes by hand, and three places for a norm in a block.

Functions return their output and `back`, which takes the gradient of the output and returns those of the inputs:

    y, back = layer_norm(x, gain, bias)          # x (..., C), gain and bias (C,)
    dx, dgain, dbias = back(dy)

An activation returns its value and its slope. The modules below fill the slots of `shared.tiny_lm`; `rewire` gives a
model that was made before norms in other places. Norms compute half precision (float16, bfloat16) in float32 and cast
at the end; activations compute in the type of x.

Sources: Ioffe & Szegedy 2015 (BatchNorm, arXiv 1502.03167), Ba et al. 2016 (LayerNorm, 1607.06450), Zhang & Sennrich
2019 (RMSNorm, 1910.07467), Hendrycks & Gimpel 2016 (GELU, 1606.08415), Shazeer 2020 (SwiGLU, 2002.05202), Xiong et al.
2020 (where norms stand, 2002.04745), Zhu et al. 2025 (DyT, 2503.10622).
"""

import math
from collections.abc import Callable

import torch
from torch import nn

from shared.layers import CausalAttention
from shared.tiny_lm import TinyLM

# Norms. All three are one formula; they differ in which numbers are taken together, and whether their mean goes.


def normalise(x: torch.Tensor, dims: tuple[int, ...], eps: float, centre: bool):
    """x less its mean over `dims` (if `centre`), over the root of its mean square there: the same shape, and back."""
    centred = x - x.mean(dims, keepdim=True) if centre else x
    scale = (centred.square().mean(dims, keepdim=True) + eps).rsqrt()
    unit = centred * scale

    def back(du):
        along = unit * (du * unit).mean(dims, keepdim=True)  # stretching x changes nothing: take this direction out
        shift = du.mean(dims, keepdim=True) if centre else 0  # nor does shifting it
        return scale * (du - along - shift)

    return unit, back


def layer_norm(x, gain, bias, eps=1e-5):
    """Each token by itself, over its own C numbers. x (..., C)."""
    unit, back_unit = normalise(widened(x), (-1,), eps, centre=True)
    return _scaled(x, unit, back_unit, gain, bias)


def rms_norm(x, gain, eps=1e-5):
    """Each token by itself, and the mean stays. No bias: back returns dx and dgain. x (..., C)."""
    unit, back_unit = normalise(widened(x), (-1,), eps, centre=False)
    y, back = _scaled(x, unit, back_unit, gain, torch.zeros_like(gain))
    return y, lambda dy: back(dy)[:2]


def batch_norm(x, gain, bias, eps=1e-5):
    """Each of the C numbers by itself, over all tokens of the batch: what it does in training. x (..., C).

    Raises ValueError for fewer than two tokens, which have no variance.
    """
    if x.numel() < 2 * len(gain):
        raise ValueError(f"x has shape {tuple(x.shape)}: the statistics of a batch need at least two tokens")
    unit, back_unit = normalise(widened(x), tuple(range(x.ndim - 1)), eps, centre=True)
    return _scaled(x, unit, back_unit, gain, bias)


def _scaled(x, unit, back_unit, gain, bias):
    """unit * gain + bias in x's own precision, and back."""

    def back(dy):
        dy = widened(dy)  # below, gain and bias served every token: their gradients are sums over all tokens, (C,)
        return back_unit(dy * gain).to(x.dtype), (dy * unit).sum_to_size(gain.shape), dy.sum_to_size(gain.shape)

    return (unit * gain + bias).to(x.dtype), back


def widened(x: torch.Tensor) -> torch.Tensor:
    """x in float32 if it is shorter: the square of 300 does not fit in float16, whose largest number is 65504."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


# Activations: the value and the slope at x, of x's shape.


def relu(x):
    """max(x, 0)."""
    return x.clamp(min=0), (x > 0).to(x.dtype)


def relu_squared(x):
    """max(x, 0)^2 (So et al. 2021, 2109.08668)."""
    positive = x.clamp(min=0)
    return positive.square(), 2 * positive


def gelu(x):
    """x times the share of the standard normal distribution that lies below x."""
    below = 0.5 * (1 + torch.erf(x / math.sqrt(2)))
    density = torch.exp(-x.square() / 2) / math.sqrt(2 * math.pi)
    return x * below, below + x * density


def gelu_tanh(x):
    """GPT-2's approximation of `gelu`, off by at most 5e-4. The cube of x must fit its type: in float16, |x| < 40."""
    c = math.sqrt(2 / math.pi)
    t = torch.tanh(c * (x + 0.044715 * x**3))
    return 0.5 * x * (1 + t), 0.5 * (1 + t) + 0.5 * x * (1 - t.square()) * c * (1 + 3 * 0.044715 * x.square())


def silu(x):
    """x times its sigmoid, also called swish."""
    s = torch.sigmoid(x)
    return x * s, s * (1 + x * (1 - s))


def swiglu(gate, up):
    """silu(gate) * up; back takes dy and returns dgate and dup."""
    value, slope = silu(gate)

    def back(dy):
        return dy * up * slope, dy * value

    return value * up, back


# For the slots of `TinyLM`.


class LayerNorm(nn.Module):
    """`layer_norm` with weights of its own. d_model: C."""

    def __init__(self, d_model: int, eps: float = 1e-5):
        super().__init__()
        self.gain, self.bias, self.eps = nn.Parameter(torch.ones(d_model)), nn.Parameter(torch.zeros(d_model)), eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return layer_norm(x, self.gain, self.bias, self.eps)[0]


class RMSNorm(nn.Module):
    """`rms_norm` with a gain of its own."""

    def __init__(self, d_model: int, eps: float = 1e-5):
        super().__init__()
        self.gain, self.eps = nn.Parameter(torch.ones(d_model)), eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return rms_norm(x, self.gain, self.eps)[0]


class BatchNorm(nn.Module):
    """`batch_norm` in training; in eval mode the means and variances that were remembered from training.

    momentum: how much of the remembered value each batch replaces. The variance remembered is the unbiased one, as in
    PyTorch.
    """

    def __init__(self, d_model: int, eps: float = 1e-5, momentum: float = 0.1):
        super().__init__()
        self.gain, self.bias = nn.Parameter(torch.ones(d_model)), nn.Parameter(torch.zeros(d_model))
        self.eps, self.momentum = eps, momentum
        self.register_buffer("mean", torch.zeros(d_model))
        self.register_buffer("variance", torch.ones(d_model))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            unit = (widened(x) - self.mean) * (self.variance + self.eps).rsqrt()
            return (unit * self.gain + self.bias).to(x.dtype)
        y, _ = batch_norm(x, self.gain, self.bias, self.eps)
        with torch.no_grad():
            tokens = widened(x).flatten(0, -2)  # (all tokens, C)
            self.mean += self.momentum * (tokens.mean(0) - self.mean)
            self.variance += self.momentum * (tokens.var(0) - self.variance)
        return y


class DyT(nn.Module):
    """Dynamic tanh: no statistics at all, tanh(a x), with a learned, times a gain, plus a bias."""

    def __init__(self, d_model: int, start: float = 0.5):
        super().__init__()
        self.a = nn.Parameter(torch.tensor(start))
        self.gain, self.bias = nn.Parameter(torch.ones(d_model)), nn.Parameter(torch.zeros(d_model))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (torch.tanh(self.a * widened(x)) * self.gain + self.bias).to(x.dtype)


class QKNormAttention(CausalAttention):
    """Attention whose queries and keys have a root mean square of 1 (there is no gain): no score exceeds sqrt(d)."""

    def place(self, x: torch.Tensor, positions: torch.Tensor | None = None) -> torch.Tensor:
        return normalise(widened(x), (-1,), 1e-6, centre=False)[0].to(x.dtype)


class FeedForward(nn.Module):
    """Two matrices with an activation between them. activation: one of this module's, such as `gelu`."""

    def __init__(self, d_model: int, d_hidden: int, activation: Callable):
        super().__init__()
        self.up, self.proj = nn.Linear(d_model, d_hidden), nn.Linear(d_hidden, d_model)
        self.activation = activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.proj(self.activation(self.up(x))[0])


class SwiGLU(nn.Module):
    """Three matrices: a gate, a value, and back. Two thirds as wide, they have about as many weights as two."""

    def __init__(self, d_model: int, d_hidden: int):
        super().__init__()
        self.gate, self.up = nn.Linear(d_model, d_hidden), nn.Linear(d_model, d_hidden)
        self.proj = nn.Linear(d_hidden, d_model)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.proj(swiglu(self.gate(x), self.up(x))[0])


# Where the norms stand: for the slot `block`. norm() makes one.


class PreBlock(nn.Module):
    """x + f(norm(x)): the norm in the branch, the stream untouched. What `TinyLM` has."""

    n_norms, ends_in_norm = 2, False

    def __init__(self, attention: nn.Module, feed_forward: nn.Module, norm: Callable[[], nn.Module]):
        super().__init__()
        self.attention, self.feed_forward = attention, feed_forward
        self.norms = nn.ModuleList(norm() for _ in range(self.n_norms))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.norms[0](x))
        return x + self.feed_forward(self.norms[1](x))


class PostBlock(PreBlock):
    """norm(x + f(x)): the norm on the stream, as in Vaswani et al. 2017."""

    ends_in_norm = True  # so the model needs none after the last block

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norms[0](x + self.attention(x))
        return self.norms[1](x + self.feed_forward(x))


class SandwichBlock(PreBlock):
    """x + norm(f(norm(x))): a norm before and after, both in the branch."""

    n_norms = 4

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.norms[2](self.attention(self.norms[0](x)))
        return x + self.norms[3](self.feed_forward(self.norms[1](x)))


PLACES = {"pre": PreBlock, "post": PostBlock, "sandwich": SandwichBlock}


def rewire(model: TinyLM, place: str, norm: Callable[[int], nn.Module] = LayerNorm) -> TinyLM:
    """The model with fresh norms where `place` says: "pre", "post" or "sandwich"; changed in place.

    A new model gets the same by TinyLM(..., block=PLACES[place], norm=norm). The norms get the model's type and device;
    what the old ones had learnt is not kept. Raises ValueError for other places.
    """
    if place not in PLACES:
        raise ValueError(f"place is {place!r}: expected one of {list(PLACES)}")
    kind, like = PLACES[place], model.embedding.weight  # (vocabulary, C)

    def fresh():
        return norm(like.shape[1]).to(like)

    model.blocks = nn.ModuleList(kind(block.attention, block.feed_forward, fresh) for block in model.blocks)
    model.norm = nn.Identity() if kind.ends_in_norm else fresh()
    return model
