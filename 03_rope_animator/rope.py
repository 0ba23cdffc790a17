"""Where a token stands: sinusoids, rotations (RoPE) in both layouts, ways to stretch a rotation, and ALiBi.

Shapes and names, everywhere in this file:

    d                                     the width of a head (of the whole model for sinusoids); it is even
    theta                                 the base of the frequencies; `rope_theta` in model files
    inv_freq  (d / 2,)                    how far each pair of coordinates turns a position, in radians
    positions (T,) or (B, T)              whole numbers, or numbers between them
    angles    (T, d / 2) or (B, T, d / 2) positions times inv_freq
    x         (..., T, d)                 queries or keys

Read it from the top: frequencies, angles, the table of sinusoids, one rotation in four forms, its gradient, ways to
stretch it to longer texts, ALiBi, and the two attention layers. Angles are float64: in bfloat16 the positions 256 and
257 are the same number. Functions raise ValueError, in words, for numbers that would give a wrong result in silence.

Sources: Vaswani et al. 2017 (arXiv 1706.03762) for sinusoids; Su et al. 2021 (2104.09864) for RoPE; Press et al. 2021
(2108.12409) for ALiBi; Chen et al. 2023 (2306.15595) for position interpolation; bloc97 2023 (a post on Reddit) for the
NTK-aware base; Peng et al. 2023 (2309.00071) for YaRN; Grattafiori et al. 2024 (2407.21783) for Llama 3.1.
"""

import math
from dataclasses import dataclass

import torch

from shared.layers import CausalAttention

THETA = 10_000.0


# Frequencies and angles


def inv_freq(d: int, theta: float = THETA) -> torch.Tensor:
    """theta^(-2 i / d) for each pair i: from 1 radian a position down to nearly 1 / theta. (d / 2,), float64.

    inv_freq(4) = [1, 0.01]
    """
    _check_width(d)
    if not 1 < theta < math.inf:
        raise ValueError(f"theta is {theta}: expected a number above 1, such as 10,000")
    return theta ** (-torch.arange(0, d, 2, dtype=torch.float64) / d)


def angles(positions: torch.Tensor, inv_freq: torch.Tensor) -> torch.Tensor:
    """The angle of each pair at each position, in radians, float64: (T,) or (B, T), and (d / 2,) -> (..., T, d / 2).

    angles([2, 3], [1, 0.01]) = [[2, 0.02], [3, 0.03]]
    """
    for name, given, axes in (("positions", positions, (1, 2)), ("inv_freq", inv_freq, (1,))):
        if not isinstance(given, torch.Tensor) or given.ndim not in axes:
            found = tuple(given.shape) if isinstance(given, torch.Tensor) else type(given).__name__
            wanted = "(T,) or (B, T)" if name == "positions" else "(d / 2,)"
            raise ValueError(f"{name} is {found}: expected a tensor of shape {wanted}")
    return positions.double()[..., None] * inv_freq.double()


def full_turns(inv_freq: torch.Tensor, length: int) -> torch.Tensor:
    """How many full turns each pair makes in `length` positions: length / wavelength. (d / 2,)

    A pair below 1 has not been all round: beyond `length` it comes to angles that were not in the text.
    """
    _check_length(length=length)
    return inv_freq * length / (2 * math.pi)


def sinusoids(positions: torch.Tensor, d: int, theta: float = THETA) -> torch.Tensor:
    """The table that is *added* to tokens' vectors: sine and cosine of each angle, one after the other: (..., T, d)."""
    turned = angles(positions, inv_freq(d, theta))
    return torch.stack([turned.sin(), turned.cos()], dim=-1).flatten(-2)


# One rotation in four forms


def rotation_matrix(angle: torch.Tensor) -> torch.Tensor:
    """The specification: for one position's angles, (d / 2,), the d x d matrix with a 2 x 2 rotation for each pair."""
    blocks = [torch.tensor([[a.cos(), -a.sin()], [a.sin(), a.cos()]], dtype=torch.float64) for a in angle]
    return torch.block_diag(*blocks)


def rotate_complex(x: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """Coordinates 2i and 2i + 1 are one complex number, which is multiplied by e^(i angle). (..., T, d)"""
    _check(x, angles)
    pairs = torch.view_as_complex(x.double().contiguous().unflatten(-1, (-1, 2)))  # (..., T, d / 2)
    turned = pairs * torch.polar(torch.ones_like(angles), angles)
    return torch.view_as_real(turned).flatten(-2).to(x.dtype)


def rotate_pairs(x: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """The same in real numbers: coordinates 2i and 2i + 1 turn together (the paper's layout, "interleaved")."""
    _check(x, angles)
    cos, sin = angles.cos().to(x), angles.sin().to(x)  # (..., T, d / 2)
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1).flatten(-2)


def rotate_halves(x: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """Coordinate i turns together with i + d / 2 (the layout of Llama as Hugging Face stores it)."""
    _check(x, angles)
    cos, sin = angles.cos().to(x), angles.sin().to(x)  # (..., T, d / 2)
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


def pairs_to_halves(d: int) -> torch.Tensor:
    """The order, (d,), in which rows of weights for pairs stand when they are meant for halves: evens first, then odds.

    rotate_halves(x[..., order], angles) is rotate_pairs(x, angles)[..., order], so scores are the same.
    """
    _check_width(d)
    return torch.cat([torch.arange(0, d, 2), torch.arange(1, d, 2)])


def rotate_backward(d_out: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """The gradient of rotate_halves' x from that of its result, both (..., T, d): turned back, by minus the angles."""
    return rotate_halves(d_out, -angles)


class _Rotation(torch.autograd.Function):
    """rotate_halves with its backward pass by hand. It keeps the angles and nothing of x."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x, angles):
        return rotate_halves(x, angles)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx, d_out):
        (angles,) = ctx.saved_tensors
        return rotate_backward(d_out, angles), None


# Longer than trained


@dataclass(frozen=True, eq=False)
class Scaling:
    """Frequencies for texts longer than the trained ones. attention_factor multiplies queries, and keys, once each."""

    inv_freq: torch.Tensor
    attention_factor: float = 1.0


def interpolated(d: int, scale: float, theta: float = THETA) -> Scaling:
    """Position interpolation: every frequency divided by `scale`, as if positions lay closer together."""
    _check_scale(scale)
    return Scaling(inv_freq(d, theta) / scale)


def ntk_aware(d: int, scale: float, theta: float = THETA) -> Scaling:
    """A larger theta: the fastest pair keeps its frequency, the slowest has it divided by `scale`, the rest between."""
    _check_scale(scale)
    if d < 4:
        raise ValueError(f"d is {d}: one pair alone cannot be both the fastest and the slowest, so expected 4 or more")
    return Scaling(inv_freq(d, theta * scale ** (d / (d - 2))))


def dynamic_ntk(d: int, length: int, trained: int, scale: float, theta: float = THETA) -> Scaling:
    """The NTK-aware theta that grows with the text: as trained for up to `trained` tokens, and for a longer text as for
    a scale of 1 + scale * (length / trained - 1)."""
    _check_length(length=length, trained=trained)
    _check_scale(scale)
    return ntk_aware(d, 1 + scale * (max(length, trained) / trained - 1), theta)


def yarn(d: int, scale: float, trained: int, theta: float = THETA, fast: float = 32, slow: float = 1) -> Scaling:
    """YaRN: pairs that turn `fast` times or more within the trained length keep their frequency, those that turn `slow`
    times or less are interpolated; and scores grow a little, which sharpens attention.

    Between the two is a straight ramp over the pairs' numbers, from the last pair, counted down, that turns `fast`
    times (the first pair, where none does) to the first that turns `slow` times: so the authors' code and the library
    `transformers` have it. The paper's text has the ramp over the turns.
    """
    _check_parts(scale, trained, fast, slow)

    def pair(turns):
        """Which pair turns so often within the trained length."""
        return d * math.log(trained / (turns * 2 * math.pi)) / (2 * math.log(theta))

    plain = inv_freq(d, theta)
    low, high = max(math.floor(pair(fast)), 0), min(math.ceil(pair(slow)), d - 1)
    ramp = ((torch.arange(d // 2) - low) / max(high - low, 0.001)).clamp(0, 1).double()
    return Scaling(_by_parts(plain, 1 - ramp, scale), 0.1 * math.log(scale) + 1)


def llama3(d: int, scale: float, trained: int, theta: float = 500_000.0, fast: float = 4, slow: float = 1) -> Scaling:
    """Llama 3.1's way: as YaRN, with a ramp over the turns themselves and no attention factor.

    `fast` and `slow` are `high_freq_factor` and `low_freq_factor` in its files, `scale` is `factor`, and `trained` is
    `original_max_position_embeddings`.
    """
    _check_parts(scale, trained, fast, slow)
    plain = inv_freq(d, theta)
    kept = ((full_turns(plain, trained) - slow) / (fast - slow)).clamp(0, 1)
    return Scaling(_by_parts(plain, kept, scale))


def _by_parts(plain, kept, scale):
    """kept: 1 where a frequency stays as it is, 0 where it is divided by scale, between them a mean of the two."""
    return kept * plain + (1 - kept) * plain / scale


# Distance as a penalty


def alibi_slopes(n_heads: int) -> torch.Tensor:
    """ALiBi's slopes: 2^(-8 / n), 2^(-16 / n), ... for n heads, n a power of two: (n_heads,), float64.

    For other numbers, as published: those of the largest power of two below, then every second one of twice that power.
    """
    if not isinstance(n_heads, int) or n_heads < 1:
        raise ValueError(f"n_heads is {n_heads}: expected a whole number, 1 or more")
    n = 2 ** math.floor(math.log2(n_heads))
    slopes = 2.0 ** (-8 / n * torch.arange(1, n + 1, dtype=torch.float64))
    if n == n_heads:
        return slopes
    return torch.cat([slopes, alibi_slopes(2 * n)[0::2][: n_heads - n]])


def alibi_bias(slopes: torch.Tensor, t_q: int, t_k: int) -> torch.Tensor:
    """What is added to scores: minus slope times distance: (n_heads, t_q, t_k). The last query stands at the last key.

    alibi_bias([0.5], 2, 3) = [[[-0.5, 0, -0.5], [-1, -0.5, 0]]]
    """
    if not 0 < t_q <= t_k:
        raise ValueError(f"{t_q} queries and {t_k} keys: expected 1 query or more, and no fewer keys than queries")
    queries = torch.arange(t_k - t_q, t_k, device=slopes.device)
    distance = (queries[:, None] - torch.arange(t_k, device=slopes.device)).abs()  # (t_q, t_k)
    return -slopes[:, None, None] * distance


# In a model


class Rotary(CausalAttention):
    """Causal attention with RoPE, for TinyLM's slot. `scaling` holds the frequencies and may be set after training.

    sizes: as `CausalAttention` takes them. positions: (T,), or (B, T) for rows that are padded on the left. A cache
    keeps keys turned, so with a filled one a new scaling raises ValueError.
    """

    def __init__(self, d_model: int, n_heads: int, *, theta: float = THETA, **sizes):
        super().__init__(d_model, n_heads, **sizes)
        self.scaling = Scaling(inv_freq(self.d_head, theta))
        self._cached_with = None

    def forward(self, x, positions=None, cache=None):
        """(B, T, d_model) -> (B, T, d_model)."""
        if cache is not None:
            if cache.start and self._cached_with is not self.scaling:
                turned = f"the keys of {cache.start} tokens in the cache are turned by other frequencies"
                raise ValueError(f"the scaling was changed, and {turned}: read the text again with an empty cache")
            self._cached_with = self.scaling
        return super().forward(x, positions, cache)

    def place(self, x: torch.Tensor, positions: torch.Tensor | None = None) -> torch.Tensor:
        """Queries and keys, (B, H, T, d), turned by their positions: 0, 1, 2 and so on if None."""
        positions = torch.arange(x.shape[-2]) if positions is None else positions
        turned = angles(positions, self.scaling.inv_freq)  # (T, d / 2) or (B, T, d / 2)
        turned = turned if positions.ndim == 1 else turned[:, None]  # (B, 1, T, d / 2): the same for all heads
        return _Rotation.apply(x, turned) * self.scaling.attention_factor


class Alibi(CausalAttention):
    """Causal attention with ALiBi, for TinyLM's slot: nothing is turned, and far keys lose score."""

    def attend(self, q, k, v, mask):
        """q (B, H, T, d), k and v (B, K, S, d), mask (T, S) or (B, 1, T, S) -> (B, H, T, d)."""
        t_q, t_k = q.shape[-2], k.shape[-2]
        mask = torch.ones(t_q, t_k, dtype=torch.bool, device=q.device).tril(t_k - t_q) if mask is None else mask
        bias = alibi_bias(alibi_slopes(self.n_heads), t_q, t_k)[None].to(q)  # (1, H, T, S)
        return super().attend(q, k, v, bias.masked_fill(~mask, -math.inf))


def _check(x, angles):
    if not x.is_floating_point():
        raise ValueError(f"x holds {x.dtype}: a rotation makes numbers that are not whole, so expected float")
    if x.ndim < 2 or x.shape[-1] % 2 or not _fits(angles.shape, (*x.shape[:-1], x.shape[-1] // 2)):
        found = f"x is {tuple(x.shape)} and angles are {tuple(angles.shape)}"
        raise ValueError(f"{found}: expected (..., T, d) and (T, d / 2), or axes of x before these")


def _fits(shape, wanted):
    """Whether a tensor has its last two axes as wanted, and can be repeated along those before."""
    before = zip(shape[-3::-1], wanted[-3::-1], strict=False)
    return shape[-2:] == wanted[-2:] and len(shape) <= len(wanted) and all(n in (1, m) for n, m in before)


def _check_width(d):
    if not isinstance(d, int) or d < 2 or d % 2:
        raise ValueError(f"d is {d}: coordinates turn in pairs, so expected an even whole number, 2 or more")


def _check_scale(scale):
    if not 1 <= scale < math.inf:
        raise ValueError(f"scale is {scale}: expected how many times longer, 1 or more")


def _check_length(**lengths):
    for name, length in lengths.items():
        if not 1 <= length < math.inf:
            raise ValueError(f"{name} is {length}: expected a number of tokens, 1 or more")


def _check_parts(scale, trained, fast, slow):
    _check_scale(scale)
    _check_length(trained=trained)
    if not 0 < slow < fast < math.inf:
        raise ValueError(f"fast is {fast} and slow {slow}: expected numbers of turns, 0 < slow < fast")
