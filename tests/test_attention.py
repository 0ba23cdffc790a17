"""Lesson 04: attention against independent references. (Its clinic: test_clinics.py.)"""

import math
from types import SimpleNamespace

import attention
import pytest
import torch
from attention_clinic import EXERCISES
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


def test_faults_are_thirteen_different_ones():
    """The notebook speaks of thirteen patients, and no two are the same bug."""
    assert len({(fault.line, fault.becomes) for fault in attention.FAULTS}) == len(attention.FAULTS) == 13


sizes = st.integers(min_value=1, max_value=6)


@settings(max_examples=60, deadline=None)
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
@given(t_q=sizes, t_k=sizes, tile=sizes, seed=st.integers(0, 999))
def test_causal_tiles_equal_the_causal_mask(t_q, t_k, tile, seed):
    """Also where there are more queries than keys, so that the first rows see nothing."""
    q, k, v = draw(seed, (2, t_q, 3), (2, t_k, 3), (2, t_k, 3))
    found = attention.attention_tiled(q, k, v, causal=True, tile=tile)
    torch.testing.assert_close(found, attention.attention(q, k, v, attention.causal_mask(t_q, t_k)), **EXACT)


def test_a_causal_mask_and_a_given_mask_join_in_the_tiles():
    """causal=True and mask= together are the and of both."""
    q, k, v = draw(0, (2, 5, 3), (2, 5, 3), (2, 5, 3))
    mask = torch.tensor([[True, True, False, True, True]])  # broadcast over the queries, as padding is
    both = attention.attention(q, k, v, mask & attention.causal_mask(5))
    torch.testing.assert_close(attention.attention_tiled(q, k, v, mask, causal=True, tile=2), both, **EXACT)


@pytest.mark.parametrize("scale", [None, 0.3])
def test_gradients_equal_finite_differences(scale):
    """gradcheck in float64 on the backward pass by hand, with a mask that leaves one row empty."""
    inputs = [t.requires_grad_() for t in draw(0, (2, 3, 4), (2, 5, 4), (2, 5, 2))]
    mask = random_mask(0, 3, 5)
    mask[1] = False
    assert torch.autograd.gradcheck(lambda q, k, v: attention.attention(q, k, v, mask, scale), inputs)


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


def test_heads_may_be_wider_than_their_share():
    """d_head sets the width and the scale, and the output keeps the model's width."""
    layer = attention.MultiHeadAttention(8, 2, d_head=64)
    assert layer(torch.randn(2, 5, 8)).shape == (2, 5, 8)
    assert layer.scale == 1 / 8


def test_qk_norm_bounds_the_scores():
    """With gains of one a score is at most sqrt(d_head), however large the weights (Cauchy and Schwarz)."""
    layer = attention.MultiHeadAttention(8, 2, d_head=16, qk_norm=True).double()
    layer.query.weight.data *= 1000
    q, k, _ = layer.heads(draw(0, (2, 5, 8))[0])
    assert (q @ k.mT * layer.scale).abs().max() <= 4 * (1 + 1e-12)


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


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda q, k, v: (q, k[:, :3], v), "queries are 4 wide and keys 3"),
        (lambda q, k, v: (q, k, v[:6]), "7 keys but 6 values"),
        (lambda q, k, v: (q, k[:0], v[:0]), "nothing empty"),
        (lambda q, k, v: (q.where(q < q.max(), math.nan), k, v), "q holds nan at"),
        (lambda q, k, v: (q, k, v.where(v < v.max(), math.inf)), "v holds inf at"),
        (lambda q, k, v: (q, k, v, torch.ones(5, 7)), "expected a bool"),
        (lambda q, k, v: (q, k, v, torch.ones(4, 7) > 0), "broadcasts to"),
        (lambda q, k, v: (q, k.float(), v), "one floating-point type"),
    ],
)
@pytest.mark.parametrize("function", [attention.attention_loop, attention.attention, attention.attention_tiled])
def test_bad_input_is_named(function, change, words):
    """The message holds the value, where it is, or what was expected."""
    with pytest.raises(ValueError, match=words):
        function(*change(*draw(0, (5, 4), (7, 4), (7, 6))))


def test_large_finite_values_are_not_taken_for_infinite():
    """A sum that overflows is no reason to refuse its finite terms."""
    v = torch.full((4, 2), 2e38)
    with pytest.raises(ValueError, match="largest score"):  # the scores themselves do overflow
        attention.attention(v, v, v)
    assert attention.attention(torch.zeros(4, 2), torch.zeros(4, 2), v / 4).isfinite().all()


SOLVED = solutions(attention, "attention_vis.ipynb", torch=torch, math=math)


def test_the_exercises_solutions_pass_their_checks():
    """And an exercise that is not done fails."""
    names = ("soft_cap", "attention_with_sink", "merge")
    found = SOLVED
    assert examine(SimpleNamespace(**{name: found[name] for name in names}), EXERCISES).healthy
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
