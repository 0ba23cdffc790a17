"""Attention with rotary positions, for `TinyLM`: TinyLM(..., attention=RotaryAttention, positions=no_positions)."""

import torch
from torch import nn

from shared.layers import CausalAttention, NoPositions


def rotate(x: torch.Tensor, base: float = 10_000.0, positions: torch.Tensor | None = None) -> torch.Tensor:
    """Queries or keys, (..., T, d) or (B, heads, T, d), turned by their positions: pair (i, i + d/2) by position *
    base ** (-2 i / d). Su et al. 2021, "RoFormer"; lesson 03 derives it.

    positions: whole numbers, (T,) or, a row of its own for each text, (B, T); 0 .. T - 1 if None. Angles are float64:
    float32 rounds those of position 8,192 by up to 5e-4.
    """
    T, d = x.shape[-2:]
    positions = torch.arange(T) if positions is None else positions
    inv_freq = base ** (-torch.arange(0, d, 2, dtype=torch.float64, device=positions.device) / d)
    angles = positions.double()[..., None] * inv_freq  # (T, d / 2) or (B, T, d / 2)
    if angles.ndim == 3:
        angles = angles[:, None]  # (B, 1, T, d / 2): the same for all heads
    cos, sin = angles.cos().to(x), angles.sin().to(x)
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


class RotaryAttention(CausalAttention):
    """Causal self-attention whose scores know how far apart two tokens are: queries and keys are turned by angles that
    grow with their position.

    rotary_base: of the angles; the larger, the slower most pairs turn. Raises ValueError if a head has an odd number of
    numbers, which make no pairs, and for a base that is not above 0.
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        *,
        n_kv_heads: int | None = None,
        bias: bool = True,
        rotary_base: float = 10_000.0,
    ):
        super().__init__(d_model, n_heads, n_kv_heads=n_kv_heads, bias=bias)
        if self.d_head % 2:
            raise ValueError(
                f"d_model {d_model} with {n_heads} heads makes heads {self.d_head} wide: expected an even width"
            )
        if not rotary_base > 0:
            raise ValueError(f"rotary_base is {rotary_base}: expected a number above 0, such as 10,000")
        self.rotary_base = rotary_base

    def place(self, x: torch.Tensor, positions: torch.Tensor | None = None) -> torch.Tensor:
        """Queries and keys, each turned by its position."""
        return rotate(x, self.rotary_base, positions)


def no_positions(context: int, d_model: int) -> nn.Module:
    """Fills the slot `positions` with nothing."""
    return NoPositions()
