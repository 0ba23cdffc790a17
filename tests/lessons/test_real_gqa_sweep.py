"""Lesson 10's look into the real model: its arms do what they are called, on a small model."""

import inspect
import json
from functools import partial
from types import SimpleNamespace

import gqa_arms
import gqa_real
import pytest
import real_decode_sweep
import real_gqa_sweep
import real_uptrain_sweep
import torch
from gqa import pool_model
from gqa_merge import basis, low_rank, merge_model, moments
from torch import nn
from torch.nn import functional as F

from shared.hooks import hooked, look
from shared.layers import SwiGLU
from shared.rotary import RotaryAttention, no_positions, rotate
from shared.texts import OWN, texts
from shared.tiny_lm import TinyLM

V, LAYERS, H, K, D = 40, 4, 6, 3, 8
MODULES = (gqa_real, gqa_arms, real_gqa_sweep, real_uptrain_sweep, real_decode_sweep)


@pytest.fixture
def small(monkeypatch):
    """A Llama of four layers in the real model's place, with its moments; returns it and a text for it."""
    torch.manual_seed(0)
    parts = {
        "attention": partial(RotaryAttention, n_kv_heads=K, bias=False),
        "feed_forward": partial(SwiGLU, d_hidden=20),
    }
    model = TinyLM(V, 600, d_model=H * D, n_layers=LAYERS, n_heads=H, norm=nn.RMSNorm, positions=no_positions, **parts)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    tokenizer = SimpleNamespace(specials={"<s>": 0}, vocab_size=V, encode=lambda text: [ord(c) % V for c in text])
    fitting = torch.randint(V, (4, 64), generator=torch.Generator().manual_seed(1))
    found = moments(model.eval(), fitting)
    for module in MODULES:
        for name, value in {
            "model_and_tokenizer": lambda: (model, tokenizer),
            "fitted_moments": lambda text="both": found,
            "fitting_text": lambda: fitting,
            "FAST": 2,
            "LONG": 40,
            "SHORT": 8,
        }.items():
            if hasattr(module, name):
                monkeypatch.setattr(module, name, value)
    caches = (gqa_arms.given_moments, gqa_arms.fitted_maps, gqa_real.beginnings, gqa_real.documentation)
    for cached in caches:
        cached.cache_clear()
    yield model, torch.randint(V, (2, 9), generator=torch.Generator().manual_seed(2))
    for cached in caches:
        cached.cache_clear()


@torch.no_grad()
def logits(model, x, hooks=None):
    """What the model says with hooks in it."""
    with hooked(model, hooks or {}):
        return model(x)


def close(one, other):
    torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)  # float32, through four layers of spread 0.3


# Three heads made one


def test_merged_by_hooks_is_merged_in_the_weights(small):
    model, x = small
    mean = real_gqa_sweep.MERGES["mean"]
    close(logits(model, x, gqa_arms.remade(mean)), logits(pool_model(model, 1), x))
    found = gqa_arms.fitted_moments()
    close(logits(model, x, gqa_arms.remade(gqa_arms.ranked(1, D))), logits(merge_model(model, found, 1), x))
    latent = low_rank(model, found, value_rank=5)
    close(logits(model, x, gqa_arms.remade(gqa_arms.ranked(None, 5), "v")), logits(latent, x))


@pytest.mark.parametrize("name", ["mean", "random", "aligned", "head 1"])
def test_one_head_is_enough_for_a_merge(small, name):
    """The rows of all heads together have the rank of one head's."""
    makes = real_gqa_sweep.MERGES | {"head 1": gqa_arms.each_by(lambda heads: heads[1:2])}
    layer = small[0].blocks[0].attention
    for rows, before in zip(makes[name](layer, gqa_arms.fitted_moments()[0]), gqa_arms.rows_of(layer), strict=True):
        assert rows.shape == before.shape and torch.linalg.matrix_rank(rows.flatten(0, 1), rtol=1e-4) <= D
        assert not torch.equal(rows, before) and 0.3 < rows.std() / before.std() < 1.1


def test_heads_that_differ_by_a_turn_are_aligned(small):
    """Their mean is then each of them, turned: nothing is lost. The mean of the heads as they are loses much."""
    model, x = small
    for block in model.blocks:
        layer = block.attention
        (k, v), generator = gqa_arms.rows_of(layer), torch.Generator().manual_seed(3)
        angles = torch.polar(torch.ones(K, D // 2, 1), 7 * torch.rand(K, D // 2, 1, generator=generator))
        turns = torch.linalg.qr(torch.randn(K, D, D, generator=generator)).Q
        pairs = torch.complex(*k[:1].chunk(2, dim=1)) * angles
        with torch.no_grad():
            k.copy_(torch.cat([pairs.real, pairs.imag], dim=1))
            v.copy_(turns @ v[0])
    found = moments(model, gqa_arms.fitting_text())
    whole = logits(model, x)
    layer, it = model.blocks[1].attention, found[1]
    for rows, before in zip(gqa_arms.aligned(layer, it), gqa_arms.rows_of(layer), strict=True):
        close(rows, before)
    assert (logits(model, x, gqa_arms.remade(real_gqa_sweep.MERGES["mean"])) - whole).abs().max() > 0.1


def test_keys_values_layers_and_the_first_token(small):
    """Only what is named is made again."""
    model, x = small
    before = look(model, x, ["k", "v"])

    def after(**how):
        with hooked(model, gqa_arms.remade(real_gqa_sweep.MERGES["mean"], **how)):
            return look(model, x, ["k", "v"])

    only = after(what="k", layers=[2])
    assert all(torch.equal(only["v"][at], before["v"][at]) for at in range(3))
    assert [torch.equal(only["k"][at], before["k"][at]) for at in range(3)] == [True, True, False]
    kept = after(first=True, layers=[0])
    for name in "kv":
        assert torch.equal(kept[name][0][:, :, 0], before[name][0][:, :, 0])
        assert not torch.isclose(kept[name][0][:, :, 1:], before[name][0][:, :, 1:]).all()
    merged = after(layers=[0])["k"][0]
    assert torch.equal(merged[:, 0], merged[:, 2])


def test_fitted_to_another_text(small, monkeypatch):
    """The moments are those of that text, layer by layer."""
    model, x = small
    other = moments(model, torch.randint(V, (4, 64), generator=torch.Generator().manual_seed(9)))
    here = gqa_arms.fitted_moments()
    monkeypatch.setattr(gqa_arms, "fitted_moments", lambda text="both": other if text == "judges" else here)
    make = gqa_arms.ranked(1, D)
    found = logits(model, x, gqa_arms.remade(gqa_arms.fitted_to("judges", make)))
    close(found, logits(merge_model(model, other, 1), x))
    assert not torch.allclose(found, logits(model, x, gqa_arms.remade(make)), atol=1e-3)


def test_every_arm_can_be_called():
    """With what it is given: most need the real model's widths, so that none but these are tried here."""
    for arms in real_gqa_sweep.ARMS.values():
        for arm in arms.values():
            if isinstance(arm, partial):
                inspect.signature(arm.func).bind(*arm.args, **arm.keywords)


# One latent


def test_a_latent_of_all_numbers_loses_nothing_and_fewer_lose_more(small):
    model, x = small
    whole = logits(model, x)
    apart = [(logits(model, x, gqa_arms.remade(gqa_arms.joint(r))) - whole).abs().mean() for r in (48, 40, 12)]
    assert apart[0] < 1e-4 < apart[1] < apart[2]
    rows = torch.cat(gqa_arms.joint(12)(model.blocks[0].attention, gqa_arms.fitted_moments()[0]))
    assert torch.linalg.matrix_rank(rows.flatten(0, 1), rtol=1e-4) == 12


def test_two_latents_hold_what_each_may(small):
    model, x = small
    whole = logits(model, x)
    gaps = [
        (logits(model, x, gqa_arms.remade(gqa_arms.apart(k, v))) - whole).abs().mean() for k, v in ((24, 24), (8, 8))
    ]
    assert gaps[0] < 1e-4 < gaps[1]
    for rows, rank in zip(
        gqa_arms.apart(5, 8)(model.blocks[0].attention, gqa_arms.fitted_moments()[0]), (5, 8), strict=True
    ):
        assert torch.linalg.matrix_rank(rows.flatten(0, 1), rtol=1e-4) == rank


def test_the_joint_moment_is_that_of_keys_before_rotation_and_values(small):
    model, _ = small
    x = gqa_arms.fitting_text()
    h = look(model, x, ["norm_1"])["norm_1"][1]
    rows = torch.cat(gqa_arms.rows_of(model.blocks[1].attention)).flatten(0, 1)
    kv = F.linear(h, rows).flatten(0, 1).double()
    torch.testing.assert_close(
        gqa_arms.joint_moment(model.blocks[1].attention), kv.T @ kv / len(kv), rtol=1e-4, atol=1e-4
    )


def test_what_is_not_turned(small):
    """Queries and keys as before rotation, in all numbers or in slow pairs; the others keep theirs."""
    model, x = small
    h, turned = (look(model, x, [name])[name][0] for name in ("norm_1", "k"))
    k = F.linear(h, gqa_arms.rows_of(model.blocks[0].attention)[0].flatten(0, 1)).unflatten(-1, (K, D)).transpose(1, 2)
    with hooked(model, gqa_arms.unturned("q", "k")):
        close(look(model, x, ["k"])["k"][0], k)
    with hooked(model, gqa_arms.unturned("k", of=gqa_arms.slow)):
        half = look(model, x, ["k"])["k"][0]
    slow = torch.tensor([False, False, True, True] * 2)
    assert torch.equal(gqa_arms.slow(D), slow)
    close(half[..., slow], k[..., slow])
    close(half[..., ~slow], turned[..., ~slow])


def test_chained_hooks_run_one_after_another(small):
    model, x = small
    add, double = {"k": lambda k, layer: k + 1}, {"k": lambda k, layer: 2 * k, "v": lambda v, layer: 2 * v}
    before = look(model, x, ["k", "v"])
    with hooked(model, gqa_arms.chained(add, double)):
        after = look(model, x, ["k", "v"])
    assert torch.equal(after["k"][0], 2 * (before["k"][0] + 1)) and torch.equal(after["v"][0], 2 * before["v"][0])
    with hooked(model, gqa_arms.chained({"k": lambda k, layer: None}, double)):
        assert torch.equal(look(model, x, ["k"])["k"][0], 2 * before["k"][0])


def test_rotation_passes_through_complex_factors_and_not_through_a_product():
    """So complex components of keys can be cached after rotation, and real ones of all numbers cannot."""
    generator = torch.Generator().manual_seed(0)
    k = torch.randn(200, K, D, dtype=torch.float64, generator=generator)
    where = torch.arange(200)
    factors = torch.randn(K, D // 2, dtype=torch.complex128, generator=generator)

    def mixed(k):
        return (factors * torch.complex(*k.chunk(2, dim=-1))).sum(dim=1)

    def turned(k):
        return rotate(k.transpose(0, 1), positions=where).transpose(0, 1)  # (tokens, K, D)

    angle = torch.polar(torch.ones(200, D // 2).double(), where[:, None] * 1e4 ** (-torch.arange(0, D, 2).double() / D))
    torch.testing.assert_close(mixed(turned(k)), angle * mixed(k))
    flat = k.flatten(1)
    down, up = basis(flat.T @ flat / 200, torch.eye(K * D).double(), 12)
    before, after = (turned((flat @ (up @ down).T).view_as(k)), turned(k).flatten(1) @ (up @ down).T)
    assert (before.flatten(1) - after).norm() > 0.3 * flat.norm()


# Across layers


def test_a_layer_reads_what_the_one_before_has(small):
    model, x = small
    before = look(model, x, ["k", "v"])
    with hooked(model, gqa_arms.across("copied", "v", [1])):
        after = look(model, x, ["k", "v"])
    assert torch.equal(after["v"][3], after["v"][2]) and torch.equal(after["v"][1], before["v"][1])
    assert torch.equal(after["k"][3], before["k"][3])


@pytest.mark.parametrize("name", ["k", "v"])
def test_a_map_that_is_there_is_found(small, name, monkeypatch):
    """Keys by complex factors of each pair, which commute with rotation; values by any matrix."""
    generator = torch.Generator().manual_seed(4)
    one = torch.randn(4, K, 64, D, generator=generator)
    kind = torch.complex64 if name == "k" else torch.float32
    size = (D // 2, K, K) if name == "k" else (1, K * D, K * D)
    matrix = torch.randn(*size, dtype=kind, generator=generator)
    other = gqa_arms.mapped(one, matrix, name)
    assert other.shape == one.shape
    seen = {"k": [one] * LAYERS, "v": [one] * LAYERS} | {name: [one, other] * (LAYERS // 2)}
    monkeypatch.setattr(gqa_arms, "look", lambda model, part, names, **how: seen)
    for found in gqa_arms.fitted_maps()[name]:
        torch.testing.assert_close(found, matrix, rtol=1e-3, atol=1e-3)  # normal equations in float32


# The judges and the jobs


def test_those_who_judge_are_not_fitted_to():
    parts = (gqa_real.FITTED, gqa_real.VALIDATE, gqa_real.JUDGES)
    assert sum(map(len, parts)) == len({name for part in parts for name in part}) == len(texts())
    assert set(gqa_real.JUDGES) <= set(OWN) and len(gqa_real.JUDGES) == 8


@pytest.mark.parametrize("kind", ["both", "documentation", "judges", "copies"])
def test_texts_that_fit(small, monkeypatch, kind):
    """Eight windows, no two alike; random tokens come twice, and not from a seed that judges."""
    monkeypatch.undo()
    tokenizer = SimpleNamespace(specials={"<s>": 0}, vocab_size=V, encode=lambda text: [ord(c) for c in text])
    monkeypatch.setattr(gqa_real, "model_and_tokenizer", lambda: (None, tokenizer))
    x = gqa_real.fitting_text(kind)
    assert x.shape == (8, gqa_real.WINDOW) and len(x.unique(dim=0)) == 8
    if kind == "copies":
        copies = x[4:].reshape(-1, 2, gqa_real.COPIED)
        assert torch.equal(copies[:, 0], copies[:, 1]) and max(gqa_real.SEEDS) < 1000
    if kind in ("both", "documentation"):
        taken = texts()["docs"]
        assert all("".join(map(chr, row.tolist())) not in taken for row in x[4:])


def test_losses_are_of_the_tokens_behind_a_place(small):
    model, x = small
    each = F.cross_entropy(logits(model, x)[:, :-1].mT, x[:, 1:], reduction="none")
    close(gqa_real.losses(model, {}, x), each.mean(1))
    close(gqa_real.losses(model, {}, x, 4), each[:, 4:].mean(1))


def test_a_passkey_that_is_said_is_counted(small, monkeypatch):
    """A model that gives a digit all is right where that is the digit. The key stands at both ends."""
    x = gqa_real.passkeys()
    end, said = x[:, -5:], gqa_real.encoded("The pass key is ")
    assert torch.equal(x[:, len(said) : len(said) + 5], end) and torch.equal(x[0, : len(said)], said)
    digit = end[0, 0].item()
    says = torch.full((V,), -30.0)
    says[digit] = 30.0
    found = gqa_real.judged_key(SaysOne(says), {})
    assert found["right"] == [int((row == digit).sum()) for row in end]
    assert found["nats"] == pytest.approx([60 * float((row != digit).float().mean()) for row in end], rel=1e-3)


class SaysOne(nn.Module):
    """Says the same at every place."""

    def __init__(self, says):
        super().__init__()
        self.says, self.blocks = says, []

    def forward(self, x, last):
        return self.says.expand(len(x), last, -1)


@pytest.mark.parametrize("part", [part for part in real_gqa_sweep.ARMS if part not in ("single", "one copy")])
def test_each_part_runs(small, part, monkeypatch):
    """Its last arm, on short texts, with numbers that JSON knows. Ranks are those of the real model."""
    for name, value in {"TOKENS": 12, "COPIED": 6, "FILLER": 3, "SEEDS": range(2)}.items():
        monkeypatch.setattr(gqa_real, name, value)
    monkeypatch.setattr(gqa_real, "judged_loss", partial(gqa_real.judged_loss, tokens=12))
    arms = {"whole": "whole", "merge": "aligned, v", "rank": "k 2", "joint": "keys not turned", "across": "fitted, kv"}
    found = json.loads(json.dumps(real_gqa_sweep.run({"part": part, "arm": arms[part]})))
    assert len(found["loss"]) == 8 and all(0 < each < 50 for each in found["loss"])
    assert len(found["random"]) == 2 and all(len(found[name]) == 8 for name in ("text", "right", "nats"))
    assert part != "whole" or (len(found["short"]), len(found["quarters"])) == (4, 4)


def test_what_a_cache_takes(small, monkeypatch):
    monkeypatch.setattr(real_gqa_sweep, "PCA", gqa_arms.ranked(1, D))
    whole, merged = (real_gqa_sweep.run({"part": "bytes", "arm": arm}) for arm in ("whole", "pca"))
    assert whole["formula"] == whole["measured"] == 2 * LAYERS * K * D * 4 == 3 * merged["measured"]
    assert merged["formula"] == merged["measured"] and merged["apart"] < 1e-3


# Up-training and time


def test_only_keys_and_values_are_trained(small):
    model = pool_model(small[0], 1)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    real_uptrain_sweep.train(model, 1e-2, 2)
    changed = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert changed == {f"blocks.{at}.attention.qkv.weight" for at in range(LAYERS)}
    for name in changed:
        now, then = model.get_parameter(name), before[name]
        assert (
            torch.equal(now[: H * D], then[: H * D]) and not torch.isclose(now[H * D :], then[H * D :]).any(dim=1).all()
        )


def test_every_way_of_a_step_says_the_same(small):
    """With heads that are repeated and keys that are, as much as the model itself; a token is taken back."""
    model, _ = small
    with torch.inference_mode():
        nine = real_decode_sweep.with_kv_heads(H)
        close(nine(torch.arange(9)[None]), model(torch.arange(9)[None]))
        for heads in (H, K, 1):
            changed = real_decode_sweep.with_kv_heads(heads)
            cache = real_decode_sweep.filled(changed, 2, 12)
            assert cache.keys.shape[2] == heads
            said = [
                real_decode_sweep.one_more(real_decode_sweep.reading(changed, attend), cache)
                for attend in real_decode_sweep.WAYS.values()
            ]
            assert cache.length == 11
            for other in said[1:]:
                close(other, said[0])
    assert model.blocks[0].attention.n_kv_heads == K and "attend" not in vars(model.blocks[0].attention)


def test_what_is_measured_of_a_product():
    """Every arm with its bytes; copies only where heads are shared."""
    found = real_decode_sweep.run(real_decode_sweep.SWEEP.quick[0])
    names = [(arm["kv_heads"], arm["way"]) for arm in found["arms"]]
    assert len(names) == len(found["seconds"]) == 2 + 5 + 5 and (9, "copied") not in names
    assert found["bytes"] == [2 * 2 * heads * 16 * 64 * 4 for heads, _ in names]
    assert all(len(rounds) == real_decode_sweep.ROUNDS and min(rounds) > 0 for rounds in found["seconds"])


def test_time_is_taken_in_turn(monkeypatch):
    """Each once, each once more to see how long it takes; then in each round one that is not counted."""
    clock, calls = iter(range(1000)), []
    monkeypatch.setattr(real_decode_sweep.time, "process_time", lambda: next(clock))
    monkeypatch.setattr(real_decode_sweep, "TURN", 2.0)
    monkeypatch.setattr(real_decode_sweep, "ROUNDS", 2)
    found = real_decode_sweep.in_turn([lambda: calls.append("a"), lambda: calls.append("b")])
    assert found == [[1, 1], [1, 1]] and "".join(calls) == "ab" + "ab" + 2 * ("aaa" + "bbb")
