"""A small model of large random weights, and numbers to feed it, for tests that hold two ways of computing equal."""

from functools import partial

import torch
from torch import nn

from shared.layers import SwiGLU
from shared.rotary import RotaryAttention, no_positions
from shared.tiny_lm import TinyLM

FLOAT = torch.float64
EXACT = {"atol": 1e-9, "rtol": 0}  # float64 rounds at 1e-16; sums of under 1,000 terms of size 1 to 100
VOCABULARY = 50


def draw(*shape, seed=0, dtype=FLOAT):
    """Numbers of size 1."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=FLOAT).to(dtype)


def tokens(batch=2, T=9, seed=0):
    """Words of no meaning."""
    return torch.randint(VOCABULARY, (batch, T), generator=torch.Generator().manual_seed(seed))


def llama(d_head=4, bias=True, **how):
    """A decoder of large random weights: six query heads share three, RMSNorm, a gate, a head of its own or not."""
    attention = partial(RotaryAttention, n_kv_heads=3, bias=bias)
    parts = {"attention": attention, "feed_forward": partial(SwiGLU, d_hidden=40), "norm": nn.RMSNorm}
    model = TinyLM(VOCABULARY, 80, 6 * d_head, 2, 6, positions=no_positions, **(parts | how)).to(FLOAT).eval()
    for seed, parameter in enumerate(model.parameters()):
        parameter.data = draw(*parameter.shape, seed=seed) * 0.4
    return model.requires_grad_(False)
