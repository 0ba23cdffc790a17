"""Attention with rotary positions, for `TinyLM`: TinyLM(..., attention=RotaryAttention, positions=no_positions)."""

import torch
from torch import nn

from shared.tiny_lm import CausalAttention


def rotate(x: torch.Tensor, base: float = 10_000.0) -> torch.Tensor:
    """Queries or keys, (..., T, d), turned by their positions 0 .. T - 1: pair (i, i + d/2) by position *
    base ** (-2 i / d). Su et al. 2021, "RoFormer"; lesson 03 derives it."""
    T, d = x.shape[-2:]
    speeds = base ** (-torch.arange(0, d, 2, device=x.device) / d)
    angles = torch.arange(T, device=x.device)[:, None] * speeds  # (T, d / 2)
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


class RotaryAttention(CausalAttention):
    """Causal self-attention whose scores know how far apart two tokens are: queries and keys are turned by angles that
    grow with their position.

    Raises ValueError if a head has an odd number of numbers, which make no pairs.
    """

    def __init__(self, d_model: int, n_heads: int):
        super().__init__(d_model, n_heads)
        if (width := d_model // n_heads) % 2:
            raise ValueError(f"d_model {d_model} with {n_heads} heads makes heads {width} wide: expected an even width")

    def place(self, x: torch.Tensor) -> torch.Tensor:
        """Each query or key turned by its position."""
        return rotate(x)


def no_positions(context: int, d_model: int) -> nn.Module:
    """Fills the slot `positions` with nothing."""
    return nn.Identity()
