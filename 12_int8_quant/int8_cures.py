"""Three cures for activations with outliers, on a whole `TinyLM`: move them, rotate them, or split them off.

    smoothed = smooth(model, calibrate(model, texts), alpha=0.75)      # SmoothQuant: the same function
    turned = rotate_stream(model)                                      # a Hadamard rotation in the weights: the same
    convert(model, lambda name, linear: Turned(linear, W8A8Linear))    # or at each call: any model, any layer
    convert(model, lambda name, linear: SplitLinear(linear))           # LLM.int8()

A Hadamard matrix has entries +-1 and rows at right angles. Over the root of its width it rotates, and one outlier A of
n numbers becomes n numbers of A / sqrt(n). For that all entries must be equally large. Sylvester's doubling gives the
powers of 2, and Paley's two ways (1933) many multiples of 4 more: 576 = 8 x 72 has one, for 71 is a prime, and so have
1,536 = 4 x 384 (383) and 28 = 2 (13 + 1). So no block of 64 beside an orthogonal one of 9 is needed, which would spread
an outlier over those 9 unevenly.

Sources: Xiao et al. 2022 (SmoothQuant, arXiv 2211.10438); Ashkboos et al. 2024 (QuaRot, 2404.00456); Dettmers et al.
2022 (LLM.int8(), 2208.07339).
"""

import functools
import math
from collections.abc import Callable

import torch
from int8 import move_scale, scale_outputs
from int8_model import sharing
from torch import nn

from shared.layers import PostNorm, SwiGLU


def smooth_factors(largest: torch.Tensor, weight: torch.Tensor, alpha: float = 0.5) -> torch.Tensor:
    """What each input is to be divided by, and its column of the matrix multiplied: (in,).

    largest: (in,), the largest |x| of each input; weight: (out, in).
    max|x|^alpha / max|w|^(1 - alpha): alpha 1 makes all inputs equally large, 0 all columns of the matrix.
    smooth_factors([16, 1], [[1, 4]], alpha=0.5) = [4, 0.5]
    Raises ValueError for an alpha that is not from 0 to 1.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is {alpha}: expected 0 to 1")
    columns = weight.detach().abs().amax(dim=0)
    factors = largest**alpha / columns ** (1 - alpha)
    return torch.where((largest > 0) & (columns > 0), factors, 1.0)  # what is always 0 stays as it is


@torch.no_grad()
def smooth(model: nn.Module, largest: dict[str, torch.Tensor], alpha: float = 0.5) -> nn.Module:
    """A copy of the same function whose inputs have smaller outliers: they went into the weights that are new in it.

    largest: as `int8_model.calibrate` finds it. An input's factor goes into the norm before (its weight and bias), or
    into the rows of the linear layer before: of the values for attention's last matrix (one for all query heads that
    share a value), of the part that is gated for SwiGLU's. Behind a GELU there is no such place: `proj` stays there.
    Raises ValueError for blocks whose norm stands on the residual stream, where others read what it puts out.
    """
    model = sharing(model)
    for i, block in enumerate(model.blocks):
        if isinstance(block, PostNorm):
            raise ValueError("PostNorm: its norms write to the residual stream, so their scale can move nowhere")
        attention, hidden = block.attention, block.feed_forward
        first = "gate_up" if isinstance(hidden, SwiGLU) else "up"
        for norm, name in ((block.norm_1, "attention.qkv"), (block.norm_2, f"feed_forward.{first}")):
            linear = block.get_submodule(name)
            move_scale(norm, linear, 1 / smooth_factors(largest[f"blocks.{i}.{name}"], linear.weight, alpha))
        _smooth_heads(attention, largest[f"blocks.{i}.attention.proj"], alpha)
        if isinstance(hidden, SwiGLU):
            factors = smooth_factors(largest[f"blocks.{i}.feed_forward.proj"], hidden.proj.weight, alpha)
            move_scale(hidden.gate_up, hidden.proj, 1 / factors, slice(hidden.proj.in_features, None))
    return model


def _smooth_heads(attention: nn.Module, largest: torch.Tensor, alpha: float) -> None:
    """The rows of the values, each of which several heads may read, and the last matrix."""
    K, d = attention.n_kv_heads, attention.d_head
    shared = largest.unflatten(0, (K, -1, d)).amax(dim=1)  # (K, d)
    columns = attention.proj.weight.unflatten(1, (K, -1, d)).abs().amax(dim=(0, 2))  # (K, d)
    factors = 1 / smooth_factors(shared.flatten(), columns.flatten()[None], alpha)
    repeated = factors.unflatten(0, (K, 1, d)).expand(-1, attention.n_heads // K, -1).flatten()  # (H d,)
    scale_outputs(attention.qkv, factors, slice((attention.n_heads + K) * d, None))
    attention.proj.weight = nn.Parameter(attention.proj.weight / repeated, attention.proj.weight.requires_grad)


def hadamard(n: int) -> torch.Tensor:
    """A matrix of +-1 whose rows are at right angles: (n, n), float64.

    hadamard(4) = [[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]
    Raises ValueError where neither doubling nor Paley's two ways lead to n.
    """
    if n == 1:
        return torch.ones(1, 1, dtype=torch.float64)
    pair = torch.tensor([[1, 1], [1, -1]], dtype=torch.float64)
    if n % 4 == 0 and n & (n - 1) and _is_prime(n - 1):
        return torch.eye(n) + _conference(n - 1)
    if n % 8 == 4 and _is_prime(n // 2 - 1):  # n / 2 - 1 is 1, 5, 9, ...: its matrix is symmetric
        other = torch.tensor([[1, -1], [-1, -1]], dtype=torch.float64)
        return torch.kron(_conference(n // 2 - 1), pair) + torch.kron(torch.eye(n // 2), other)
    if n < 1 or n % 2 or (n % 4 and n > 2):
        raise ValueError(f"no Hadamard matrix of {n} by doubling or by Paley's ways: take blocks, as `rotation` does")
    return torch.kron(pair, hadamard(n // 2))


def _conference(q: int) -> torch.Tensor:
    """Paley's matrix of q + 1 for a prime q: 0 on the diagonal, else +-1, rows at right angles."""
    squares = {i * i % q for i in range(1, q)}
    signs = torch.tensor([0.0, *(1.0 if i in squares else -1.0 for i in range(1, q))], dtype=torch.float64)
    matrix = torch.ones(q + 1, q + 1, dtype=torch.float64)
    matrix[0, 0], matrix[1:, 0] = 0, 1 if q % 4 == 1 else -1
    places = torch.arange(q)
    matrix[1:, 1:] = signs[(places[:, None] - places) % q]
    return matrix


def _is_prime(n: int) -> bool:
    return n > 1 and all(n % i for i in range(2, math.isqrt(n) + 1))


@functools.lru_cache(maxsize=16)  # the layers of a model share theirs
def rotation(n: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """A rotation of n numbers that spreads each over all of them: (n, n), rows of length 1.

    Where no Hadamard matrix of n is found it has blocks of the largest that divides n, each spread within itself: Llama
    2's 11,008 has 43 blocks of 256.
    """
    for blocks in (it for it in range(1, n + 1) if n % it == 0):
        try:
            block = hadamard(n // blocks) / math.sqrt(n // blocks)
        except ValueError:
            continue
        return torch.kron(torch.eye(blocks), block).to(dtype)
    raise ValueError(f"n is {n}: expected 1 or more")


class Turned(nn.Module):
    """A layer whose inputs are rotated at each call, before they are rounded: x W^T = (x Q) (W Q)^T.

    make: what the rotated linear layer becomes, such as `W8A8Linear`. It costs a product of n x n numbers a token.
    """

    def __init__(self, linear: nn.Linear, make: Callable[[nn.Linear], nn.Module]):
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.register_buffer("turn", rotation(linear.in_features, linear.weight.dtype))
        turned = sharing(linear)
        turn_inputs(turned)
        self.layer = make(turned)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., in_features) -> (..., out_features)."""
        return self.layer(x @ self.turn)


@torch.no_grad()
def rotate_stream(model: nn.Module) -> nn.Module:
    """A copy of the same function whose residual stream is rotated, by its weights alone: nothing is done at a call.

    An RMSNorm divides by a length, which rotation keeps; so its weights go into the matrices behind it, what writes to
    the stream is rotated, and what reads it is rotated back. Inputs of qkv and of the feed-forward's first matrix are
    then spread; those of the two `proj` are not (take `Turned`). The head is no longer the embedding, which costs
    bytes. Raises ValueError for other norms: a LayerNorm takes off a mean, which rotation does not keep.
    """
    model = sharing(model)
    embedding = model.embedding
    norms = [model.norm, *(norm for block in model.blocks for norm in (block.norm_1, block.norm_2))]
    if other := [type(norm).__name__ for norm in norms if not isinstance(norm, nn.RMSNorm) or norm.weight is None]:
        raise ValueError(f"{other[0]}: only RMSNorm with weights is rotated in the weights, take `Turned` for others")
    if model.head is None:
        model.head = nn.Linear(*embedding.weight.T.shape, bias=False, device="meta")
        model.head.weight = embedding.weight
    _read(model.norm, model.head)
    for block in model.blocks:
        hidden = block.feed_forward
        _read(block.norm_1, block.attention.qkv)
        _read(block.norm_2, hidden.gate_up if isinstance(hidden, SwiGLU) else hidden.up)
        for writes in (block.attention.proj, hidden.proj):
            writes.weight = nn.Parameter(_turned(writes.weight.T).T.contiguous(), writes.weight.requires_grad)
            if writes.bias is not None:
                writes.bias = nn.Parameter(_turned(writes.bias), writes.bias.requires_grad)
    for table in filter(None, (embedding, getattr(model.positions, "table", None))):
        table.weight = nn.Parameter(_turned(table.weight), table.weight.requires_grad)
    return model


def _read(norm: nn.RMSNorm, linear: nn.Linear) -> None:
    """Put a norm's weights, which may be 0 or negative, into the matrix behind it, and turn that."""
    linear.weight = nn.Parameter(linear.weight * norm.weight, linear.weight.requires_grad)
    norm.weight = nn.Parameter(torch.ones_like(norm.weight), norm.weight.requires_grad)
    turn_inputs(linear)


def turn_inputs(linear: nn.Linear) -> None:
    """Let a layer read inputs that are rotated, in place."""
    linear.weight = nn.Parameter(_turned(linear.weight.detach()), linear.weight.requires_grad)


def _turned(rows: torch.Tensor) -> torch.Tensor:
    """(..., n) times the rotation, computed in float64."""
    return (rows.double() @ rotation(rows.shape[-1], torch.float64)).to(rows.dtype)
