"""Lesson 12: codes, groups, a cache and a model of them against independent references. (Its clinic:
test_clinics.py.)"""

from functools import partial
from types import SimpleNamespace

import gguf
import int8
import int8_groups
import int8_model
import numpy as np
import pytest
import torch
from folded import solutions
from hypothesis import given, settings
from hypothesis import strategies as st
from int8_checks import EXERCISES
from small_models import EXACT, VOCABULARY, draw, llama, tokens
from torch import nn

from shared.clinic import examine
from shared.gguf_files import read_gguf
from shared.hooks import look

T = 70


@settings(max_examples=60, deadline=None)
@given(rows=st.integers(1, 6), n=st.integers(1, 9), bits=st.integers(2, 8), seed=st.integers(0, 999))
def test_there_and_back_is_pytorchs(rows, n, bits, seed):
    """`fake_quantize` by row and for all, of any number of bits, with a zero point and without."""
    x, top = draw(rows, n, seed=seed, dtype=torch.float32) * 10, 2 ** (bits - 1) - 1
    scale = int8.absmax_scale(x, "row", bits)
    wanted = torch.fake_quantize_per_channel_affine(x, scale[:, 0], torch.zeros(rows, dtype=torch.int32), 0, -top, top)
    same(int8.round_trip(x, "row", bits), wanted, x / scale)
    scale, zero = int8.zero_point(x, "tensor", bits)
    wanted = torch.fake_quantize_per_tensor_affine(x, float(scale), int(zero), -top - 1, top)
    same(int8.round_trip(x, "tensor", bits, zero=True), wanted, x / scale)


def same(found, wanted, steps):
    """Equal but for numbers half-way between two codes: PyTorch multiplies by 1 / scale, which rounds another way."""
    clear = (steps.frac().abs() - 0.5).abs() > 1e-4
    torch.testing.assert_close(found[clear], wanted[clear], rtol=1e-5, atol=0)


def bitsandbytes_rows(x):
    """Codes and largest numbers by the formula that `int8_vectorwise_quant` publishes: 127 over the row's largest,
    times the row, to the nearest."""
    wide = x.numpy().astype(np.float32)
    largest = np.abs(wide).max(axis=1, keepdims=True)
    return np.rint(wide * (127 / largest)).astype(np.int8), largest


def test_rows_are_those_of_bitsandbytes():
    x = draw(40, 64, dtype=torch.float16)
    codes, largest = bitsandbytes_rows(x)
    scale = int8.absmax_scale(x, "row")
    assert np.array_equal(int8.quantize(x, scale).numpy(), codes)
    np.testing.assert_allclose(scale.numpy() * 127, largest, rtol=1e-6)


def test_the_formula_is_the_librarys():
    """Where it is installed; no lesson needs it."""
    library = pytest.importorskip("bitsandbytes.functional")
    x = draw(40, 64, dtype=torch.float16)
    codes, largest = bitsandbytes_rows(x)
    theirs, sizes, _ = library.int8_vectorwise_quant(x)
    assert np.array_equal(theirs.numpy(), codes) and np.allclose(sizes.numpy(), largest[:, 0], rtol=1e-6)


def blocks(n, seed=0):
    """n random blocks of Q4_1, each with its lowest and its highest code, as the format's writers leave them."""
    random = np.random.default_rng(seed)
    codes = random.integers(0, 16, (n, 32), dtype=np.uint8)
    codes[:, :2] = [0, 15]
    codes = random.permuted(codes, axis=1)
    numbers = random.uniform(-1, 1, (n, 2)).astype(np.float16)
    numbers[:, 0] = np.abs(numbers[:, 0]) + np.float16(0.01)
    return np.concatenate([numbers.view(np.uint8), codes[:, :16] | codes[:, 16:] << 4], axis=1)


def raw(layer):
    """A layer's groups as GGUF's bytes."""
    parts = [it.numpy().view(np.uint8) for it in (layer.scale, layer.low)]
    return np.concatenate([*parts, layer.codes.numpy()], axis=-1).reshape(-1, 20)


def test_groups_are_ggufs():
    """Read by the library, stored by us: the same bytes; multiplied out: the same numbers, bit for bit."""
    given = blocks(7 * 3)
    weight = torch.from_numpy(gguf.dequantize(given, gguf.GGMLQuantizationType.Q4_1)).view(7, 96)
    layer = int8_groups.FourBitLinear(linear(weight))
    assert np.array_equal(raw(layer), given)
    assert torch.equal(layer.matrix(), weight)
    x = draw(4, 96, dtype=torch.float32)
    assert torch.equal(layer(x), x @ weight.T + 1)
    assert int8_model.stored_bytes(layer) == 21 * 20 + 7 * 4


def test_the_real_models_groups_come_back(smollm2_path):
    """Every 4-bit matrix of its first and last layer."""
    stored = read_gguf(smollm2_path)[1]
    names = [name for name in stored if name.startswith(("blk.0.", "blk.29.")) and "norm" not in name]
    assert len(names) == 14
    for name in names:
        weight = stored[name].read()
        assert torch.equal(int8_groups.FourBitLinear(linear(weight)).matrix(), weight)


def linear(weight):
    """A layer of this matrix and a bias of 1."""
    made = nn.Linear(*weight.T.shape).requires_grad_(False)
    made.weight = nn.Parameter(weight, requires_grad=False)
    made.bias.fill_(1)
    return made


def test_a_converted_model():
    """Integer layers are the simulated ones; what stays is shared; the head too if asked; bytes by hand."""
    model = llama(bias=False)
    before = model(tokens())
    for inputs in ("row", "tensor"):
        by = partial(int8.round_trip, by=inputs)
        ours = int8_model.convert(model, lambda name, it, inputs=inputs: int8.W8A8Linear(it, inputs), head=True)
        float_ones = int8_model.convert(
            model, lambda name, it, by=by: int8_model.Rounded(it, by, partial(int8.round_trip, by="row")), head=True
        )
        torch.testing.assert_close(ours(tokens()), float_ones(tokens()), **EXACT)
        assert not torch.allclose(ours(tokens()), before)
    torch.testing.assert_close(model(tokens()), before, atol=0, rtol=0)
    assert ours.embedding.weight is model.embedding.weight
    rows = 2 * (24 * 2 + 24 + 80 + 24) + VOCABULARY  # of qkv, proj, gate and up, proj; of the head
    numbers = 2 * (24 * 48 + 24 * 24 + 24 * 80 + 40 * 24) + 24 * VOCABULARY
    assert int8_model.stored_bytes(ours) == numbers + 8 * (rows + 24 * VOCABULARY + 5 * 24)
    one = int8_model.convert(model, lambda name, it: int8.Int8Linear(it) if name == "blocks.1.attention.qkv" else None)
    assert [name for name, it in one.named_modules() if isinstance(it, int8.Int8Linear)] == ["blocks.1.attention.qkv"]
    with pytest.raises(ValueError, match=r"no nn\.Linear"):
        int8_model.convert(ours, lambda name, it: None)


def test_calibration_sees_what_passes():
    """The largest input of each channel is that of the hooks, over texts; from the second token on if so asked."""
    model, texts = llama(), [tokens(seed=1), tokens(seed=2)]
    seen = [look(model, text, ["norm_1", "hidden"]) for text in texts]
    for first in (0, 1):
        found = int8_model.calibrate(model, texts, first)
        for name, hook in (("attention.qkv", "norm_1"), ("feed_forward.proj", "hidden")):
            wanted = torch.cat([it[hook][1][:, first:].flatten(0, 1) for it in seen]).abs().amax(dim=0)
            torch.testing.assert_close(found[f"blocks.1.{name}"], wanted, **EXACT)
    assert not model.blocks[0].attention.qkv._forward_pre_hooks


@pytest.mark.parametrize("by", ["channel", "token"])
def test_a_rounded_cache_holds_rounded_groups(by):
    """Keys and values of full groups are rounded once, the rest is as it was; bytes by hand."""
    model = llama(d_head=32)
    whole, text = model.new_cache(2, 80), tokens(T=T)
    wanted = model(text, whole)
    for keys, values in ((4, None), (None, 3), (8, 8), (None, None)):
        how = {"key_bits": keys, "value_bits": values, "keys_by": by, "values_by": by}
        cache = int8_groups.rounded_cache(model, 2, 80, **how)
        logits = model(text, cache)  # one pass reads itself in float
        torch.testing.assert_close(logits, wanted, **EXACT)
        dim = -2 if by == "channel" else -1
        for held, plain, bits in ((cache.keys, whole.keys, keys), (cache.values, whole.values, values)):
            full = plain[..., :64, :]
            full = full if bits is None else int8_groups.round_groups(full, bits, dim=dim)
            torch.testing.assert_close(held[..., :64, :], full, **EXACT)
            assert torch.equal(held[..., 64:T, :], plain[..., 64:T, :])
        one = 2 * 2 * 3 * 32  # numbers of a column: layers, rows, heads, width
        bits = sum(64 * one * (each + 1) if each else 64 * one * 64 for each in (keys, values))  # 32 bits for 32
        assert cache.stored_bytes() == bits // 8 + 2 * 6 * one * 8
    cache = int8_groups.rounded_cache(model, 2, 80, key_bits=8, value_bits=8)
    parts = torch.cat([model(part, cache) for part in text.split([30, 1, 20, 19], dim=1)], dim=1)
    torch.testing.assert_close(parts[:, :32], wanted[:, :32], **EXACT)  # no group was full
    assert 0 < (parts - wanted).abs().max() < 0.1 * wanted.std()  # 8 bits: 1/510 of a group's range, through 2 layers


def test_what_cannot_work_is_refused():
    """Groups, widths and numbers that do not fit."""
    with pytest.raises(ValueError, match="heads 4 wide"):
        int8_groups.rounded_cache(llama(), 1, 20, key_bits=4)
    with pytest.raises(ValueError, match="'head'"):
        int8_groups.rounded_cache(llama(), 1, 20, keys_by="head")
    with pytest.raises(ValueError, match="below 65,504"):
        int8_groups.FourBitLinear(linear(torch.full((1, 32), 70_000.0)))


def test_the_folded_solutions_pass():
    """Those that the notebook shows."""
    assert examine(SimpleNamespace(**solutions(int8, "int8_vis.ipynb", torch=torch)), EXERCISES).passes


def test_our_own_passes_the_checks():
    assert examine(int8).passes
