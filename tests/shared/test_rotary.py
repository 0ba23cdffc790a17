"""shared/rotary.py: queries and keys turned as complex numbers are, and angles that are kept for all layers."""

import math
from functools import partial

import pytest
import torch

from shared.rotary import RotaryAttention, _turns, no_positions, rotate
from shared.tiny_lm import TinyLM

close = partial(torch.testing.assert_close, rtol=0, atol=1e-12)  # float64: one product of numbers of a few units


def by_the_loop(x, positions, base):
    """(B, heads, T, d): each pair of each row at each position alone."""
    found, half = torch.empty_like(x), x.shape[-1] // 2
    for b, row in enumerate(positions.tolist()):
        for t, position in enumerate(row):
            for i in range(half):
                angle = position * base ** (-i / half)
                first, second = x[b, :, t, i], x[b, :, t, i + half]
                found[b, :, t, i] = first * math.cos(angle) - second * math.sin(angle)
                found[b, :, t, i + half] = first * math.sin(angle) + second * math.cos(angle)
    return found


def draw(*shape):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_each_row_has_its_own_positions():
    """(B, T), the same for all heads; (T,) and none at all are the same for all rows. Asked for twice, in turn."""
    x, positions = draw(2, 3, 4, 6), torch.tensor([[0, 1, 2, 3], [9000, 7, 7, 0]])
    for _ in range(2):
        for base in (100.0, 10_000.0):
            close(rotate(x, base, positions), by_the_loop(x, positions, base))
            close(rotate(x, base, positions[1]), by_the_loop(x, positions[1].expand(2, 4), base))
            close(rotate(x, base), by_the_loop(x, positions[0].expand(2, 4), base))


def test_angles_are_exact_where_float32s_are_not():
    """Position 100,000 against the cosines of exact fractions; a float32 angle there is off by up to 4e-3."""
    x = torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0, 0.0], dtype=torch.float64).expand(1, 1, 6)
    single = rotate(x.float(), 8.0, torch.tensor([100_000]))
    found = rotate(x, 8.0, torch.tensor([100_000]))  # what was kept for float32 is not taken
    wanted = [f(100_000 / share) for f in (math.cos, math.sin) for share in (1, 2, 4)]
    torch.testing.assert_close(found.flatten(), torch.tensor(wanted, dtype=torch.float64), rtol=0, atol=1e-10)
    assert single.dtype == torch.float32 and (single - found).abs().max() < 1e-6


@pytest.mark.parametrize("positions", [None, torch.tensor([3, 0]), torch.tensor([[5, 5], [0, 70]])])
def test_gradients(positions):
    assert torch.autograd.gradcheck(partial(rotate, positions=positions), draw(2, 3, 2, 4).requires_grad_())


def test_angles_made_in_inference_mode_do_for_training():
    """Tensors of that mode may not be kept for a gradient; the gradients are those with fresh angles."""
    torch.manual_seed(0)
    model, tokens = TinyLM(11, 8, 12, 2, 3, attention=RotaryAttention, positions=no_positions), torch.tensor([[1, 2]])
    grads = []
    for reads_first in (False, True):
        _turns.cache_clear()
        with torch.inference_mode():
            if reads_first:
                model(tokens)
        grads.append(torch.autograd.grad(model(tokens).logsumexp(-1).sum(), list(model.parameters())))
    assert _turns.cache_info().misses == 1  # two passes of two layers
    torch.testing.assert_close(*grads, rtol=0, atol=0)
