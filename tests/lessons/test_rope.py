"""Lesson 03: rotations and penalties against independent references. (Its clinic: test_clinics.py.)"""

import math
import re
from functools import partial
from types import SimpleNamespace

import length_sweep
import pytest
import rope
import torch
from folded import solutions
from hypothesis import given, settings
from hypothesis import strategies as st
from rope_checks import EXERCISES
from transformers import BloomConfig, LlamaConfig
from transformers.models.bloom.modeling_bloom import build_alibi_tensor
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

from shared.clinic import examine
from shared.rotary import RotaryAttention, no_positions
from shared.tiny_lm import TinyLM


def draw(seed, *shape):
    """Normal float64 numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def with_window(window):
    """A layer of two heads."""
    layer = rope.Rotary(8, 2)
    layer.window = window
    return layer


@pytest.mark.parametrize(
    ("kind", "given", "scaling"),
    [
        ("default", {}, rope.Scaling(rope.speeds(64))),
        ("linear", {"factor": 4.0}, rope.interpolated(64, 4)),
        ("dynamic", {"factor": 2.0}, rope.dynamic_ntk(64, length=300, trained=128, scale=2)),
        ("yarn", {"factor": 4.0, "original_max_position_embeddings": 128}, rope.yarn(64, 4, trained=128)),
        ("yarn", {"factor": 16.0, "original_max_position_embeddings": 64}, rope.yarn(64, 16, trained=64)),
    ],
)
def test_equal_to_llamas(kind, given, scaling):
    """Its angles are float32: at position 300 they are exact to 300 * 6e-8, 2e-5."""
    x, places = draw(0, 1, 1, 300, 64).float(), torch.arange(300)
    parameters = {"rope_type": kind, "rope_theta": 10_000.0} | given
    config = LlamaConfig(hidden_size=64, num_attention_heads=1, max_position_embeddings=128, rope_parameters=parameters)
    theirs, _ = apply_rotary_pos_emb(x, x, *LlamaRotaryEmbedding(config)(x, places[None]))
    ours = rope.rotate_halves(x, rope.angles(places, scaling.speeds)) * scaling.attention_factor
    torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=0)


@pytest.mark.parametrize("n_heads", [1, 2, 3, 7, 8, 12, 16, 32])
def test_slopes_are_blooms(n_heads):
    """Bloom's bias at key 1 is the slope (it leaves out what a softmax does not see)."""
    bias = build_alibi_tensor(torch.ones(1, 2), BloomConfig(n_head=n_heads).n_head, torch.float32)
    torch.testing.assert_close(rope.alibi_slopes(n_heads).float(), bias[:, 0, 1], atol=1e-6, rtol=0)


def test_the_layer_is_shared_rotary_attention():
    """The same weights, the same answers as the one that the story model uses, to a few roundings of float32."""
    torch.manual_seed(0)
    ours, theirs = rope.Rotary(32, 4), RotaryAttention(32, 4)
    theirs.load_state_dict(ours.state_dict())
    x = draw(0, 2, 50, 32).float()
    torch.testing.assert_close(ours(x), theirs(x), atol=1e-5, rtol=0)


@pytest.mark.parametrize("layer", [rope.Rotary, rope.Alibi])
@settings(max_examples=15, deadline=None)
@given(parts=st.lists(st.integers(1, 5), min_size=1, max_size=5), window=st.sampled_from([None, 1, 3]))
def test_a_cache_in_any_portions(layer, parts, window):
    """However the tokens are portioned, all of them at once give the same."""
    torch.manual_seed(0)
    attention, x = layer(12, 3).double(), draw(1, 2, sum(parts), 12)
    attention.window = window
    cache, found = [], []
    for portion in x.split(parts, dim=1):
        found.append(attention(portion, cache))
    torch.testing.assert_close(torch.cat(found, dim=1), attention(x), atol=1e-10, rtol=0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rope.speeds(5), "d is 5"),
        (lambda: rope.speeds(4, base=0), "base is 0"),
        (lambda: rope.interpolated(4, 0.5), "scale is 0.5"),
        (lambda: rope.ntk_aware(2, 4), "d is 2"),
        (lambda: rope.yarn(4, math.inf, 64), "scale is inf"),
        (lambda: rope.alibi_slopes(0), "n_heads is 0"),
        (lambda: rope.rotate_pairs(torch.zeros(3, 4), torch.zeros(2, 2)), "expected (..., T, d), (T, d / 2)"),
        (lambda: rope.rotate_halves(torch.zeros(3, 5), torch.zeros(3, 2)), "expected (..., T, d), (T, d / 2)"),
        (lambda: rope.rotate_pairs(torch.zeros(3, 4, dtype=torch.long), torch.zeros(3, 2)), "x holds torch.int64"),
        (lambda: rope.angles(torch.zeros(2, 3), rope.speeds(4)), "positions are (2, 3), speeds (2,)"),
        (lambda: rope.yarn(4, 2, 0), "trained is 0"),
        (lambda: rope.yarn(4, 2, 64, base=1), "base is 1"),
        (lambda: rope.dynamic_ntk(4, 9, 0, 2), "trained is 0"),
        (lambda: with_window(0)(torch.zeros(1, 3, 8)), "window is 0"),
    ],
)
def test_bad_input_is_refused_in_words(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()


def test_any_strides_and_sizes():
    """Complex numbers want neighbours in memory; what was transposed has none. No token, and one pair, are fine."""
    x, angles = draw(0, 6, 5).T, rope.angles(torch.arange(5), rope.speeds(6))
    torch.testing.assert_close(rope.rotate_complex(x, angles), rope.rotate_pairs(x, angles), atol=1e-12, rtol=0)
    assert rope.rotate_halves(torch.zeros(2, 0, 6), rope.angles(torch.arange(0), rope.speeds(6))).shape == (2, 0, 6)
    assert rope.speeds(2).tolist() == [1]


def test_capped_distances():
    """Up to the trained length it is RoPE; beyond, the last query scores a far key as one at distance 63."""
    torch.manual_seed(0)
    layer = rope.Rotary(length_sweep.WIDTH, length_sweep.HEADS)
    capped, x = length_sweep.Capped.like(layer), torch.randn(1, 80, length_sweep.WIDTH)
    torch.testing.assert_close(capped(x[:, :64]), layer(x[:, :64]), atol=1e-5, rtol=0)  # float32, sums of 64 values
    q, k, v = layer.qkv(x).view(80, 3, length_sweep.HEADS, length_sweep.HEAD_WIDTH).permute(1, 2, 0, 3)
    distance = (79 - torch.arange(80)).clamp(max=63)
    turned = rope.rotate_halves(k, rope.angles(63 - distance, layer.scaling.speeds))
    query = rope.rotate_halves(q[:, -1:], rope.angles(torch.tensor([63]), layer.scaling.speeds))
    weights = (query @ turned.mT / math.sqrt(length_sweep.HEAD_WIDTH)).softmax(-1)
    torch.testing.assert_close(capped(x)[0, -1], layer.proj((weights @ v).flatten()), atol=1e-5, rtol=0)


def test_places_without_a_row_get_the_last_one():
    table = length_sweep.LastRowAgain(4, 2)
    added = table(torch.zeros(1, 6, 2))[0]
    assert torch.equal(added, table.table.weight[[0, 1, 2, 3, 3, 3]])


def test_a_change_leaves_the_model_alone():
    torch.manual_seed(0)
    model = TinyLM(11, 16, length_sweep.WIDTH, 2, length_sweep.HEADS, attention=rope.Rotary, positions=no_positions)
    tokens = torch.randint(11, (1, 16))
    before = model(tokens)
    near = length_sweep.changed(model, partial(length_sweep.with_values, window=1))
    assert not torch.equal(near(tokens), before) and torch.equal(model(tokens), before)


SOLVED = solutions(rope, "rope_vis.ipynb", torch=torch, math=math)


def test_the_exercises_solutions_pass_their_checks():
    """And an exercise that is not done fails."""
    assert examine(SimpleNamespace(**SOLVED), EXERCISES).passes
    assert len(examine(SimpleNamespace(), EXERCISES).failed) == 3


@pytest.mark.parametrize(
    "wrong",
    [
        {"score_by_distance": lambda q, k, speeds, distances: (distances[:, None] * speeds).cos().sum(dim=1)},
        {"base_for": lambda d, length: length / (2 * math.pi)},
        {"partial_rotation": lambda x, angles, n_pairs: rope.rotate_pairs(x, angles)},
    ],
)
def test_wrong_answers_to_the_exercises_are_refused(wrong):
    """Near misses: a score of ones, an exponent forgotten, all pairs turned."""
    assert examine(SimpleNamespace(**SOLVED | wrong), EXERCISES).failed
