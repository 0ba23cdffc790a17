"""Lesson 04: attention against independent references. (Its clinic: test_clinics.py.)"""

import math
from types import SimpleNamespace

import attention
import pytest
import scale_sweep
import torch
from attention_checks import EXERCISES
from folded import solutions
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from shared.clinic import examine
from shared.memory import peak_bytes

EXACT = {"atol": 1e-10, "rtol": 0}  # float64 rounds at 1e-16; sums of under 100 terms of size 1


def draw(seed, *shapes):
    """Normal float64 tensors."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def random_mask(seed, *shape):
    """A boolean mask in which each row may attend to something."""
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) > 0.5
    mask[..., 0] = True
    return mask


sizes = st.integers(min_value=1, max_value=6)


@settings(max_examples=40, deadline=None)
@given(
    batch=sizes, t_q=sizes, t_k=sizes, d_k=sizes, d_v=sizes, tile=sizes, seed=st.integers(0, 999), masked=st.booleans()
)
def test_all_versions_equal_pytorchs_own(batch, t_q, t_k, d_k, d_v, tile, seed, masked):
    """Loop, tensor form and tiles give scaled_dot_product_attention's answer at any size."""
    q, k, v = draw(seed, (batch, t_q, d_k), (batch, t_k, d_k), (batch, t_k, d_v))
    mask = random_mask(seed, batch, t_q, t_k) if masked else None
    wanted = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    for found in (
        attention.attention_loop(q, k, v, mask),
        attention.attention(q, k, v, mask),
        attention.attention_tiled(q, k, v, mask, tile=tile),
        attention.attention_weights(q, k, mask) @ v,
    ):
        torch.testing.assert_close(found, wanted, **EXACT)


@settings(max_examples=30, deadline=None)
@given(t_q=sizes, t_k=sizes, tile=sizes, causal=st.booleans(), seed=st.integers(0, 999))
def test_gradients_by_hand_and_by_tiles_equal_pytorchs(t_q, t_k, tile, causal, seed):
    """Under any mask, causal or not. Rows that may attend to nothing are zeros here, and taken out of PyTorch's."""
    q, k, v, d_out = draw(seed, (2, t_q, 3), (2, t_k, 3), (2, t_k, 4), (2, t_q, 4))
    mask = torch.rand(2, t_q, t_k, generator=torch.Generator().manual_seed(seed)) > 0.3
    whole = mask & torch.ones(t_q, t_k).tril(t_k - t_q).bool() if causal else mask
    seen = whole.any(dim=-1, keepdim=True)
    inputs = [part.requires_grad_() for part in (q, k, v)]
    by_torch = F.scaled_dot_product_attention(q, k, v, attn_mask=whole | ~seen) * seen
    wanted = torch.autograd.grad(by_torch, inputs, d_out)
    for out in (
        attention.attention(q, k, v, whole),
        attention.attention_tiled(q, k, v, mask, causal=causal, tile=tile),
    ):
        torch.testing.assert_close(out, by_torch, **EXACT)
        for found, theirs in zip(torch.autograd.grad(out, inputs, d_out), wanted, strict=True):
            torch.testing.assert_close(found, theirs, **EXACT)


def test_a_penalty_on_a_gradient_reaches_the_weights():
    """As in a gradient penalty: the weights' gradient of a gradient, PyTorch's and ours, without `.backward()`."""
    layer, theirs = layer_and_pytorchs(n_heads=3, causal=False)
    (x,) = draw(0, (2, 5, 12))
    found = []
    for module, call in ((layer, layer), (theirs, lambda x: theirs(x, x, x)[0])):
        x = x.detach().requires_grad_()
        (slope,) = torch.autograd.grad(call(x).square().sum(), x, create_graph=True)
        found.append(torch.autograd.grad(slope.square().sum(), list(module.parameters())))
    (q, k, v, proj), (in_proj, out_proj) = found
    torch.testing.assert_close(torch.cat([q, k, v]), in_proj, atol=1e-8, rtol=1e-10)  # of size 1 to 100
    torch.testing.assert_close(proj, out_proj, atol=1e-8, rtol=1e-10)


def layer_and_pytorchs(n_heads, causal):
    """Our layer and PyTorch's, with the same weights, in float64."""
    layer = attention.MultiHeadAttention(12, n_heads, causal=causal).double()
    theirs = nn.MultiheadAttention(12, n_heads, bias=False, batch_first=True, dtype=torch.float64)
    theirs.in_proj_weight.data = torch.cat([layer.query.weight, layer.key.weight, layer.value.weight]).data
    theirs.out_proj.weight.data = layer.proj.weight.data
    return layer, theirs


@pytest.mark.parametrize(("n_heads", "causal"), [(1, False), (3, False), (3, True)])
def test_the_layer_equals_pytorchs_multihead_attention(n_heads, causal):
    """Output and gradients, with the same weights."""
    layer, theirs = layer_and_pytorchs(n_heads, causal)
    (x,) = draw(0, (2, 5, 12))
    blocked = ~attention.causal_mask(5) if causal else None
    ours, other = layer(x), theirs(x, x, x, attn_mask=blocked, need_weights=False)[0]
    torch.testing.assert_close(ours, other, **EXACT)
    ours.pow(2).sum().backward()
    other.pow(2).sum().backward()
    ours = torch.cat([layer.query.weight.grad, layer.key.weight.grad, layer.value.weight.grad])
    torch.testing.assert_close(ours, theirs.in_proj_weight.grad, **EXACT)


def test_head_maps_are_those_of_pytorch():
    """`weights` gives each head's map, not their mean."""
    layer, theirs = layer_and_pytorchs(n_heads=3, causal=False)
    (x,) = draw(0, (2, 5, 12))
    torch.testing.assert_close(layer.weights(x), theirs(x, x, x, average_attn_weights=False)[1], **EXACT)


def test_no_peeking_to_the_last_bit():
    """Outputs before a changed token are bit-equal in float32, through a stack of two layers."""
    torch.manual_seed(0)
    layers = nn.Sequential(attention.MultiHeadAttention(12, 3), attention.MultiHeadAttention(12, 3))
    x = torch.randn(2, 9, 12)
    for changed in range(1, 9):
        y = x.clone()
        y[:, changed] = torch.randn(2, 12)
        assert torch.equal(layers(x)[:, :changed], layers(y)[:, :changed])


def test_left_padding_changes_nothing():
    """Rows before the first token have nothing to see and become zeros, with finite gradients."""
    layer = attention.MultiHeadAttention(12, 3).double()
    x, filler = draw(0, (2, 5, 12), (2, 3, 12))
    padded = torch.cat([filler, x], dim=1).requires_grad_()
    out = layer(padded, (torch.arange(8) >= 3).expand(2, 8))
    torch.testing.assert_close(out[:, 3:], layer(x), **EXACT)
    assert torch.equal(out[:, :3], torch.zeros(2, 3, 12, dtype=torch.float64))
    out.sum().backward()
    assert padded.grad.isfinite().all()


def test_the_whole_holds_a_square_and_the_tiles_do_not():
    """Bytes alive at once: at 512 tokens the whole needs at least one n x n matrix, the tiles a tenth of it."""
    q, k, v = (t.float() for t in draw(0, *[(512, 8)] * 3))
    square = 512 * 512 * 4
    assert peak_bytes(lambda: attention.attention(q, k, v)) >= square
    assert peak_bytes(lambda: attention.attention_tiled(q, k, v, tile=32)) < square / 10


SOLVED = solutions(attention, "attention_vis.ipynb", torch=torch, math=math)


def test_the_exercises_solutions_pass_their_checks():
    """And an exercise that is not done fails."""
    names = ("soft_cap", "attention_with_sink", "merge")
    found = SOLVED
    assert examine(SimpleNamespace(**{name: found[name] for name in names}), EXERCISES).passes
    assert len(examine(SimpleNamespace(), EXERCISES).failed) == 3


@pytest.mark.parametrize(
    "wrong",
    [
        {"soft_cap": lambda scores, cap: scores.clamp(-cap, cap)},
        {"soft_cap": lambda scores, cap: cap * torch.tanh(scores / cap) / 2},
        {"soft_cap": lambda scores, cap: torch.tanh(scores / cap)},
        {"attention_with_sink": lambda q, k, v, sink: (q @ k.mT / 2).softmax(dim=-1) @ v},
        {"merge": lambda out_a, lse_a, out_b, lse_b: (out_a + out_b) / 2},
        {"merge": lambda a, x, b, y: (a * x.exp()[:, None] + b * y.exp()[:, None]) / (x.exp() + y.exp())[:, None]},
    ],
)
def test_wrong_answers_to_the_exercises_are_refused(wrong):
    """Near misses: a hard cap, a lost factor, no sink, a plain mean, a sum that overflows."""
    (name,) = wrong
    assert any(name in check for check in examine(SimpleNamespace(**SOLVED | wrong), EXERCISES).failed)


def test_the_sweeps_arms_are_what_they_are_called():
    """At step 0 the small W_Q computes what the factor computes, and another arm does not."""
    tokens = torch.randint(32, (2, 23), generator=torch.Generator().manual_seed(0))
    factor, small, none = (
        scale_sweep.new_model("copy", arm, "unit", seed=0)(tokens) for arm in ("1/√d", "small W_Q", "none")
    )
    torch.testing.assert_close(small, factor, atol=1e-5, rtol=0)  # float32, scores up to 5 from sums of 128 terms
    assert (none - factor).abs().max() > 1e-3


def test_saturated_rows_are_counted():
    """A row is saturated above 0.9, not at it."""
    rows = torch.tensor([[0.95, 0.05], [0.9, 0.1], [0.5, 0.5], [0.0, 1.0]])
    assert scale_sweep.saturated(rows) == 0.5
