"""Lesson 03: rotations and penalties against independent references; the sweeps' models. (Clinic: test_clinics.py.)"""

import math
from functools import partial
from types import SimpleNamespace

import length_sweep
import pytest
import real_rope
import repairs_sweep
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

SIZES = length_sweep.WIDTH, length_sweep.HEADS


def draw(seed, *shape):
    """Normal float64 numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


LLAMA3 = {
    "factor": 8.0,
    "high_freq_factor": 4.0,
    "low_freq_factor": 1.0,
    "original_max_position_embeddings": 128,
}


@pytest.mark.parametrize("positions", [torch.arange(300)[None], torch.tensor([[1], [2]]) * torch.arange(300)])
@pytest.mark.parametrize(
    ("kind", "given", "scaling"),
    [
        ("default", {}, rope.Scaling(rope.inv_freq(64, 500.0))),
        ("linear", {"factor": 4.0}, rope.interpolated(64, 4, 500.0)),
        ("dynamic", {"factor": 2.0}, rope.dynamic_ntk(64, length=300, trained=128, scale=2, theta=500.0)),
        ("yarn", {"factor": 4.0, "original_max_position_embeddings": 128}, rope.yarn(64, 4, 128, 500.0)),
        ("yarn", {"factor": 16.0, "original_max_position_embeddings": 64}, rope.yarn(64, 16, 64, 500.0)),
        ("llama3", LLAMA3, rope.llama3(64, 8, 128, 500.0)),
    ],
)
def test_equal_to_llamas(kind, given, scaling, positions):
    """Its angles are float32: at position 600 they are exact to 600 * 6e-8, 4e-5."""
    if kind == "dynamic" and len(positions) > 1:
        pytest.skip("its length is that of the longest position")
    x = draw(0, len(positions), 1, 300, 64).float()
    parameters = {"rope_type": kind, "rope_theta": 500.0} | given
    config = LlamaConfig(hidden_size=64, num_attention_heads=1, max_position_embeddings=128, rope_parameters=parameters)
    theirs, _ = apply_rotary_pos_emb(x, x, *LlamaRotaryEmbedding(config)(x, positions))
    ours = rope.rotate_halves(x, rope.angles(positions, scaling.inv_freq)[:, None]) * scaling.attention_factor
    torch.testing.assert_close(ours, theirs, atol=4e-4, rtol=0)


@pytest.mark.parametrize("n_heads", [1, 2, 3, 7, 8, 12, 16, 32])
def test_slopes_are_blooms(n_heads):
    """Bloom's bias at key 1 is the slope (it leaves out what a softmax does not see)."""
    bias = build_alibi_tensor(torch.ones(1, 2), BloomConfig(n_head=n_heads).n_head, torch.float32)
    torch.testing.assert_close(rope.alibi_slopes(n_heads).float(), bias[:, 0, 1], atol=1e-6, rtol=0)


@pytest.mark.parametrize("positions", [None, torch.arange(7, 57), torch.tensor([[1], [3]]) * torch.arange(50)])
def test_the_layer_is_shared_rotary_attention(positions):
    """The same weights, the same answers as the one that the story model uses, to a few roundings of float32."""
    torch.manual_seed(0)
    ours, theirs = rope.Rotary(32, 4, n_kv_heads=2, theta=77.0), RotaryAttention(32, 4, n_kv_heads=2, rotary_base=77.0)
    theirs.load_state_dict(ours.state_dict())
    x = draw(0, 2, 50, 32).float()
    torch.testing.assert_close(ours(x, positions), theirs(x, positions), atol=1e-5, rtol=0)


@pytest.mark.parametrize("layer", [rope.Rotary, rope.Alibi])
@settings(max_examples=15, deadline=None)
@given(parts=st.lists(st.integers(1, 5), min_size=1, max_size=5), window=st.sampled_from([None, 1, 3]))
def test_a_cache_in_any_portions(layer, parts, window):
    """However the tokens are portioned, all of them at once give the same."""
    torch.manual_seed(0)
    model = TinyLM(11, 25, 12, 1, 3, attention=partial(layer, window=window), positions=no_positions).double()
    tokens, cache = torch.randint(11, (2, sum(parts))), model.new_cache(2)
    with torch.no_grad():
        found = [model(portion, cache) for portion in tokens.split(parts, dim=1)]
        torch.testing.assert_close(torch.cat(found, dim=1), model(tokens), atol=1e-10, rtol=0)


def test_any_strides_and_sizes():
    """Complex numbers want neighbours in memory; what was transposed has none. No token, and one pair, are fine."""
    x, angles = draw(0, 6, 5).T, rope.angles(torch.arange(5), rope.inv_freq(6))
    torch.testing.assert_close(rope.rotate_complex(x, angles), rope.rotate_pairs(x, angles), atol=1e-12, rtol=0)
    assert rope.rotate_halves(torch.zeros(2, 0, 6), rope.angles(torch.arange(0), rope.inv_freq(6))).shape == (2, 0, 6)
    assert rope.inv_freq(2).tolist() == [1]


def test_a_new_scaling_and_a_filled_cache():
    """Refused until the cache is empty again; the error says what to do."""
    torch.manual_seed(0)
    model = TinyLM(11, 25, 12, 1, 3, attention=rope.Rotary, positions=no_positions)
    tokens = torch.randint(11, (1, 6))
    with torch.no_grad():
        cache = model.new_cache(1)
        model(tokens, cache)
        model.blocks[0].attention.scaling = rope.ntk_aware(4, 2)
        with pytest.raises(ValueError, match=r"scaling was changed.* 6 tokens .* read the text again"):
            model(tokens[:, :1], cache)
        again = model.new_cache(1)
        torch.testing.assert_close(model(tokens, again), model(tokens))


@pytest.mark.parametrize("pairs", [tuple(length_sweep.PAIRS), (3,), (0, 1, 2)])
def test_capped_distances(pairs):
    """Up to the trained length it is RoPE; beyond, these pairs of a far key turn as at distance 63, the rest go on."""
    torch.manual_seed(0)
    layer, x = rope.Rotary(*SIZES), torch.randn(1, 80, SIZES[0])
    capped = length_sweep.Capped.like(layer, pairs)
    torch.testing.assert_close(capped(x[:, :64]), layer(x[:, :64]), atol=1e-5, rtol=0)  # float32, sums of 64 values
    q, k, v = layer.qkv(x).view(80, 3, SIZES[1], length_sweep.HEAD_WIDTH).permute(1, 2, 0, 3)
    distance = (79 - torch.arange(80.0))[:, None].repeat(1, 8)  # (80, pairs)
    distance[:, list(pairs)] = distance[:, list(pairs)].clamp(max=63)
    turned = rope.rotate_halves(k, -distance * layer.scaling.inv_freq)
    weights = (q[:, -1:] @ turned.mT / math.sqrt(length_sweep.HEAD_WIDTH)).softmax(-1)
    torch.testing.assert_close(capped(x)[0, -1], layer.proj((weights @ v).flatten()), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("last row again", [0, 1, 2, 3, 3, 3]),
        ("from the first row again", [0, 1, 2, 3, 0, 1]),
        ("rows aligned at the end", [0, 0, 0, 1, 2, 3]),
        ("rows interpolated", [0, 0.6, 1.2, 1.8, 2.4, 3]),
    ],
)
def test_ways_to_read_a_table_of_four_rows(name, rows):
    table = length_sweep.Table(4, 2)
    table.rows = repairs_sweep.TABLES[name]
    table.table.weight.data = torch.arange(4.0)[:, None].repeat(1, 2)
    torch.testing.assert_close(table(torch.zeros(1, 6, 2))[0, :, 0], torch.tensor(rows).float())
    assert table(torch.zeros(1, 3, 2))[0, :, 0].tolist() == [0, 1, 2]  # a short text has its own rows


def test_a_change_leaves_the_model_alone():
    torch.manual_seed(0)
    model = TinyLM(11, 16, SIZES[0], 2, SIZES[1], attention=rope.Rotary, positions=no_positions)
    tokens = torch.randint(11, (1, 16))
    before = model(tokens)
    near = length_sweep.changed(model, partial(length_sweep.with_values, window=1))
    assert not torch.equal(near(tokens), before) and torch.equal(model(tokens), before)


@pytest.fixture
def stand_in(monkeypatch):
    """A small model with heads as wide as the real one's, in its place."""
    torch.manual_seed(0)
    attention = partial(RotaryAttention, rotary_base=real_rope.THETA)
    model = TinyLM(11, 400, 128, 2, 2, attention=attention, positions=no_positions)
    monkeypatch.setattr(real_rope, "model_and_tokenizer", lambda: (model, None))
    return model, torch.randint(11, (1, 2 * real_rope.HALF))


def test_other_angles_in_the_real_model(stand_in):
    """No gap changes nothing; a gap is other positions; afterwards the model is as before."""
    model, ids = stand_in
    plain = real_rope.nats_after(ids)
    for same in (real_rope.with_gap(0), real_rope.frozen(())):
        with same:
            torch.testing.assert_close(real_rope.nats_after(ids), plain, atol=1e-5, rtol=0)
    moved = real_rope.apart(torch.arange(ids.shape[1]), 9000)
    with torch.no_grad():
        logits = model(ids, positions=moved)[0, real_rope.HALF : -1]
    wanted = torch.nn.functional.cross_entropy(logits, ids[0, real_rope.HALF + 1 :], reduction="none")
    with real_rope.with_gap(9000):
        torch.testing.assert_close(real_rope.nats_after(ids), wanted, atol=1e-5, rtol=0)
    with real_rope.with_gap(0, 9000, tuple(real_rope.PAIRS)):
        torch.testing.assert_close(real_rope.nats_after(ids), plain, atol=1e-5, rtol=0)
    torch.testing.assert_close(real_rope.nats_after(ids), plain)


def test_a_long_text_part_by_part(stand_in):
    """Read into a cache in parts, it has the losses of one pass; the second half alone does not see the first."""
    _, ids = stand_in
    torch.testing.assert_close(real_rope.nats_long(ids, part=100)[real_rope.HALF :], real_rope.nats_after(ids))
    alone = real_rope.nats_after(ids[:, real_rope.HALF :], start=0)
    torch.testing.assert_close(real_rope.hidden(ids), alone, atol=1e-5, rtol=0)


def test_pairs_that_were_told_in_advance():
    """A fifth to two fifths of a turn in training: one of eight in the small models, two of 32 in the real one."""
    turns = rope.full_turns(rope.inv_freq(length_sweep.HEAD_WIDTH), length_sweep.TRAINED)
    assert [i for i in length_sweep.PAIRS if 0.2 < turns[i] < 0.4] == [repairs_sweep.TOLD]
    assert real_rope.TOLD == (23, 24) and tuple(range(20, 32)) == real_rope.NEW and len(real_rope.REST) == 10


SOLVED = solutions(rope, "rope_vis.ipynb", torch=torch, math=math)


def test_the_exercises_solutions_pass_their_checks():
    """And an exercise that is not done fails."""
    assert examine(SimpleNamespace(**SOLVED), EXERCISES).passes
    assert len(examine(SimpleNamespace(), EXERCISES).failed) == 3


@pytest.mark.parametrize(
    "wrong",
    [
        {"score_by_distance": lambda q, k, inv_freq, distances: (distances[:, None] * inv_freq).cos().sum(dim=1)},
        {"theta_for": lambda d, length: length / (2 * math.pi)},
        {"partial_rotation": lambda x, angles, n_pairs: rope.rotate_pairs(x, angles)},
    ],
)
def test_wrong_answers_to_the_exercises_are_refused(wrong):
    """Near misses: a score of ones, an exponent forgotten, all pairs turned."""
    assert examine(SimpleNamespace(**SOLVED | wrong), EXERCISES).failed
