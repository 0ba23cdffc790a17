"""Attention with rotary positions, for `TinyLM`: TinyLM(..., attention=RotaryAttention, positions=no_positions)."""

import functools
from collections.abc import Sequence

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
    where = range(T) if positions is None else tuple(positions.flatten().tolist())
    cos, sin = _turns(where, base, d, x.dtype, x.device)
    if positions is not None and positions.ndim == 2:
        cos, sin = (each.view(-1, 1, T, d) for each in (cos, sin))  # the same for all heads
    return x * cos + x.roll(d // 2, dims=-1) * sin


@functools.lru_cache(maxsize=4)  # all layers of a model ask for the same
def _turns(
    positions: Sequence[int], base: float, d: int, dtype: torch.dtype, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """What multiplies x, and what multiplies the other number of each pair: (positions, d) each."""
    with torch.inference_mode(False):  # what is kept must do for training too
        inv_freq = base ** (-torch.arange(0, d, 2, dtype=torch.float64) / d)
        angles = torch.tensor(positions, dtype=torch.float64)[:, None] * inv_freq  # (positions, d / 2)
        cos, sin = angles.cos(), angles.sin()
        return tuple(torch.cat(halves, dim=-1).to(device, dtype) for halves in ((cos, cos), (-sin, sin)))


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
        window: int | None = None,
        rotary_base: float = 10_000.0,
    ):
        super().__init__(d_model, n_heads, n_kv_heads=n_kv_heads, bias=bias, window=window)
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
