"""Where a token stands: sinusoids, rotations (RoPE) in both layouts, ALiBi, and the ways to stretch a rotation.

Shapes, everywhere in this file:

    x          (..., T, d)      queries or keys of one head, or tokens' vectors; d even
    positions  (T,)             whole numbers, or numbers between them
    speeds     (d / 2,)         how far each pair of numbers turns from one position to the next, in radians
    angles     (T, d / 2)       positions times speeds

Angles are computed in float64: in bfloat16 the positions 256 and 257 are the same number. Public functions raise
ValueError, in words, for widths that are odd, shapes that do not fit and numbers that cannot work.

Sources: Vaswani et al. 2017 (arXiv 1706.03762) for sinusoids; Su et al. 2021 (2104.09864) for RoPE; Press et al. 2021
(2108.12409) for ALiBi; Chen et al. 2023 (2306.15595) for interpolation; bloc97 2023 for the NTK-aware base; Peng et al.
2023 (2309.00071) for YaRN.
"""

import math
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from shared.layers import CausalAttention

BASE = 10_000.0


# Speeds and angles


def speeds(d: int, base: float = BASE) -> torch.Tensor:
    """One speed for each pair of d numbers, from 1 to nearly 1 / base, each slower by the same factor: (d / 2,)."""
    _check_width(d)
    if not 1 < base < math.inf:
        raise ValueError(f"base is {base}: expected a number above 1")
    return base ** (-torch.arange(0, d, 2, dtype=torch.float64) / d)


def angles(positions: torch.Tensor, speeds: torch.Tensor) -> torch.Tensor:
    """How far each pair has turned at each position, in radians: (T,), (d / 2,) -> (T, d / 2), float64."""
    if positions.ndim != 1 or speeds.ndim != 1:
        raise ValueError(
            f"positions are {tuple(positions.shape)}, speeds {tuple(speeds.shape)}: expected one axis each"
        )
    return positions.double()[:, None] * speeds.double()


def sinusoids(positions: torch.Tensor, d: int, base: float = BASE) -> torch.Tensor:
    """The table that is *added* to tokens' vectors: sine and cosine of each angle, one after the other: (T, d)."""
    turned = angles(positions, speeds(d, base))
    return torch.stack([turned.sin(), turned.cos()], dim=-1).flatten(-2)


# One rotation, four ways to write it


def rotation_matrix(angle: torch.Tensor) -> torch.Tensor:
    """The specification: for one position's angles (d / 2,) the d x d matrix with a 2 x 2 rotation for each pair."""
    blocks = [torch.tensor([[a.cos(), -a.sin()], [a.sin(), a.cos()]], dtype=torch.float64) for a in angle]
    return torch.block_diag(*blocks)


def rotate_complex(x: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """Numbers 2i and 2i + 1 are one complex number, and turning it is a product with e^(i angle)."""
    _check(x, angles)
    pairs = torch.view_as_complex(x.double().contiguous().unflatten(-1, (-1, 2)))  # (..., T, d / 2)
    turned = pairs * torch.polar(torch.ones_like(angles), angles)
    return torch.view_as_real(turned).flatten(-2).to(x.dtype)


def rotate_pairs(x: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """The same without complex numbers: neighbours 2i and 2i + 1 turn together (the paper's layout)."""
    _check(x, angles)
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1).flatten(-2)


def rotate_halves(x: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """Number i turns together with number i + d / 2 (the layout of Llama as Hugging Face stores it)."""
    _check(x, angles)
    twice = torch.cat([angles, angles], dim=-1)  # (T, d): the angle of each number
    a, b = x.chunk(2, dim=-1)
    return x * twice.cos().to(x.dtype) + torch.cat([-b, a], dim=-1) * twice.sin().to(x.dtype)


def pairs_to_halves(d: int) -> torch.Tensor:
    """The order (d,) in which rows of weights for pairs stand when they are meant for halves: evens first, then odds.

    rotate_halves(x[..., order], angles) is rotate_pairs(x, angles)[..., order], so scores are the same.
    """
    _check_width(d)
    return torch.cat([torch.arange(0, d, 2), torch.arange(1, d, 2)])


# Longer than trained


@dataclass(frozen=True, eq=False)
class Scaling:
    """Speeds for texts longer than the trained ones. attention_factor: what queries and keys are both multiplied by."""

    speeds: torch.Tensor
    attention_factor: float = 1.0


def interpolated(d: int, scale: float, base: float = BASE) -> Scaling:
    """Position interpolation: every speed divided by `scale`, as if positions lay closer together."""
    return Scaling(speeds(d, base) / _checked_scale(scale))


def ntk_aware(d: int, scale: float, base: float = BASE) -> Scaling:
    """A larger base: the fastest pair keeps its speed, the slowest is slowed down by `scale`, the rest between."""
    if d < 4:
        raise ValueError(f"d is {d}: one pair alone cannot be both the fastest and the slowest")
    return Scaling(speeds(d, base * _checked_scale(scale) ** (d / (d - 2))))


def dynamic_ntk(d: int, length: int, trained: int, scale: float, base: float = BASE) -> Scaling:
    """The NTK-aware base that grows with the text: as trained up to `trained` tokens, beyond as for a scale of
    scale * length / trained - (scale - 1)."""
    _check_trained(trained)
    return ntk_aware(d, _checked_scale(scale) * max(length, trained) / trained - (scale - 1), base)


def yarn(d: int, scale: float, trained: int, base: float = BASE, fast: float = 32, slow: float = 1) -> Scaling:
    """YaRN: pairs that turn `fast` times or more within the trained length keep their speed, those that turn `slow`
    times or less are interpolated; and scores grow a little, which sharpens attention.

    Between the two stretches a straight ramp over the pairs' numbers, from the last pair, counted down, that turns
    `fast` times (the first pair, where none does) to the first that turns `slow` times: so the authors' code and
    `transformers` have it. The paper's text has the ramp over the turns.
    """
    plain, _ = speeds(d, base), _checked_scale(scale)
    _check_trained(trained)

    def pair(turns):
        """Which pair turns so often within the trained length."""
        return d * math.log(trained / (turns * 2 * math.pi)) / (2 * math.log(base))

    low, high = max(math.floor(pair(fast)), 0), min(math.ceil(pair(slow)), d - 1)
    ramp = ((torch.arange(d // 2) - low) / max(high - low, 0.001)).clamp(0, 1)
    attention_factor = 0.1 * math.log(scale) + 1 if scale > 1 else 1.0
    return Scaling(plain + ramp * (plain / scale - plain), attention_factor)


def full_turns(speeds: torch.Tensor, length: int) -> torch.Tensor:
    """How often each pair has been all round within `length` positions; below 1 it meets new angles beyond. (d / 2,)"""
    return speeds * length / (2 * math.pi)


# Distance as a penalty


def alibi_slopes(n_heads: int) -> torch.Tensor:
    """ALiBi's slopes: 2^(-8 / n), 2^(-16 / n), ... for n heads, n a power of two: (n_heads,).

    For other numbers, as published: those of the largest power of two below, then every second one of twice that power.
    """
    if n_heads < 1:
        raise ValueError(f"n_heads is {n_heads}: expected at least 1")
    n = 2 ** math.floor(math.log2(n_heads))
    slopes = 2.0 ** (-8 / n * torch.arange(1, n + 1, dtype=torch.float64))
    if n == n_heads:
        return slopes
    return torch.cat([slopes, alibi_slopes(2 * n)[0::2][: n_heads - n]])


def alibi_bias(slopes: torch.Tensor, t_q: int, t_k: int) -> torch.Tensor:
    """What is added to scores: minus slope times distance: (n_heads, t_q, t_k). The last query sees the last key."""
    distance = (torch.arange(t_q) + t_k - t_q)[:, None] - torch.arange(t_k)
    return -slopes[:, None, None] * distance.abs()


# In a model


class CachedAttention(CausalAttention):
    """Causal attention for TinyLM's slot, with a cache and a window. What subclasses change: `place` and `bias`.

    window: how many tokens, itself among them, a token sees; None for all before it; may be set after training.
    forward's cache is a list, empty at first, in which all keys (placed already) and values are kept: the next token's
    position is how many there are.
    """

    window: int | None = None

    def forward(self, x: torch.Tensor, cache: list | None = None) -> torch.Tensor:
        B, T, C = x.shape
        q, k, v = self.qkv(x).view(B, T, 3, self.n_heads, C // self.n_heads).permute(2, 0, 3, 1, 4)
        start = cache[0].shape[-2] if cache else 0
        q, k = self.place(q, start), self.place(k, start)
        if cache:
            k, v = torch.cat([cache[0], k], dim=-2), torch.cat([cache[1], v], dim=-2)
        if cache is not None:
            cache[:] = [k, v]
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=self.bias(T, k.shape[-2]).to(x))
        return self.proj(y.transpose(1, 2).reshape(B, T, C))

    def place(self, x: torch.Tensor, start: int = 0) -> torch.Tensor:
        """Queries or keys (B, H, T, d) with their positions put in, the first of which is `start`: none here."""
        return x

    def bias(self, t_q: int, t_k: int) -> torch.Tensor:
        """What is added to scores (t_q, t_k): minus infinity for what a token must not see."""
        if self.window is not None and self.window < 1:
            raise ValueError(f"window is {self.window}: a token sees itself, so expected 1 or more, or None")
        distance = (torch.arange(t_q) + t_k - t_q)[:, None] - torch.arange(t_k)
        seen = (distance >= 0) & (distance < (self.window or t_k))
        return torch.zeros(t_q, t_k).masked_fill(~seen, -math.inf)


class Rotary(CachedAttention):
    """Causal attention with RoPE. `scaling` holds the speeds, and may be changed after training."""

    def __init__(self, d_model: int, n_heads: int):
        super().__init__(d_model, n_heads)
        self.scaling = Scaling(speeds(d_model // n_heads))

    def place(self, x: torch.Tensor, start: int = 0) -> torch.Tensor:
        """Queries or keys (B, H, T, d), turned by their positions, the first of which is `start`."""
        positions = torch.arange(start, start + x.shape[-2])
        turned = rotate_halves(x, angles(positions, self.scaling.speeds).to(x.device))
        return turned * self.scaling.attention_factor


class Alibi(CachedAttention):
    """Causal attention with ALiBi: nothing is turned, and far keys are penalised."""

    def bias(self, t_q: int, t_k: int) -> torch.Tensor:
        """The causal mask plus a penalty for distance: (1, n_heads, t_q, t_k); so many axes are PyTorch's fast path."""
        return super().bias(t_q, t_k) + alibi_bias(alibi_slopes(self.n_heads).float(), t_q, t_k)[None]


def _checked_scale(scale):
    if not 1 <= scale < math.inf:
        raise ValueError(f"scale is {scale}: expected how many times longer, 1 or more")
    return scale


def _check_trained(trained):
    if trained < 1:
        raise ValueError(f"trained is {trained}: expected how many tokens the model was trained on, 1 or more")


def _check_width(d):
    if d < 2 or d % 2:
        raise ValueError(f"d is {d}: numbers turn in pairs, so it must be even and at least 2")


def _check(x, angles):
    if x.ndim < 2 or x.shape[-1] % 2 or angles.shape != (x.shape[-2], x.shape[-1] // 2):
        raise ValueError(
            f"x is {tuple(x.shape)} and angles are {tuple(angles.shape)}: expected (..., T, d), (T, d / 2)"
        )
    if not x.is_floating_point():
        raise ValueError(f"x holds {x.dtype}: a rotation makes numbers that are not whole")
