"""Lesson 08's sweeps: arms differ in what they are called by alone; counts are exact; a rule names the regimes."""

import json
import math
import sys
from functools import partial
from types import SimpleNamespace

import kv_gpu
import kv_sweep
import kv_timing
import pytest
import real_kv_sweep
import torch
from kv_work import work
from torch import nn

from shared.layers import SwiGLU
from shared.rotary import RotaryAttention, no_positions
from shared.sweeps import stored
from shared.sweeps.again import differences
from shared.tiny_lm import TinyLM

V, LAYERS = 64, 3


@pytest.fixture
def small(monkeypatch):
    """A Llama of three layers in the real model's place; sizes that every kernel takes."""
    torch.manual_seed(0)
    parts = {"attention": partial(RotaryAttention, n_kv_heads=1, bias=False), "norm": nn.RMSNorm}
    parts |= {"feed_forward": partial(SwiGLU, d_hidden=96), "positions": no_positions}
    model = TinyLM(V, 700, d_model=64, n_layers=LAYERS, n_heads=2, **parts).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    tokenizer = SimpleNamespace(encode=lambda text: [ord(letter) % V for letter in text])
    monkeypatch.setattr(real_kv_sweep, "model_and_tokenizer", lambda: (model, tokenizer))
    monkeypatch.setattr(kv_timing, "TURN", 1e-6)
    real_kv_sweep.text_ids.cache_clear()
    yield model
    real_kv_sweep.text_ids.cache_clear()


# How arms are timed


def test_arms_are_timed_in_turn_and_undone(monkeypatch):
    """Twice to see how long they are; then in each round a step that is not counted and those of a turn."""
    clock, calls = iter(range(1000)), []
    monkeypatch.setattr(kv_timing, "TURN", 2.0)
    monkeypatch.setattr(kv_timing.time, "process_time", lambda: next(clock))  # each step takes one second
    arms = [
        kv_timing.Arm({}, {}, lambda name=name: calls.append(name), lambda name=name: calls.append(name.upper()))
        for name in "ab"
    ]
    assert kv_timing.in_turn(arms, 2) == [[1, 1], [1, 1]]
    assert "".join(calls) == "aAaA" + "bBbB" + 2 * (3 * "aA" + 3 * "bB")
    with pytest.raises(ValueError, match="rounds is 0"):
        kv_timing.in_turn(arms, 0)


def test_a_round_beside_slow_reading_is_measured_anew(monkeypatch):
    """Before and after it reading must be as fast as at best; when there are no tries left the last rounds are kept."""
    rounds = iter([5.0, 6.0, 7.0, 8.0, 9.0])
    arm = kv_timing.Arm({}, {}, lambda: None)
    monkeypatch.setattr(kv_timing, "turn", lambda arm, calls: next(rounds))
    readings = iter([1.0, 1.05, 1.5, 1.0, 1.08, 1.0])  # one around each round: the second and the third are disturbed
    monkeypatch.setattr(kv_timing, "reading", lambda: next(readings))
    assert kv_timing.in_turn([arm], 3) == [[5.0, 8.0, 9.0]]
    rounds, readings = iter(range(8)), iter([1.0, *[2.0] * 8])
    assert kv_timing.in_turn([arm], 2) == [[6, 7]]


def test_operations_are_counted():
    x = torch.ones(2, 2)
    arm = kv_timing.Arm({}, {}, lambda: x + (x @ x).exp())
    assert kv_timing.operations(arm) == 3


def test_a_row_becomes_a_dict_for_each_arm():
    row = {"T": 1, "arms": [{"width": 2}, {"width": 4}], "counts": [{"flops": 8}, {"flops": 9}]}
    row |= {"seconds": [[1.0], [2.0]], "peaks": {"rows": [1, 3], "columns": [4, 4], "matmul": [5, 7]}}
    machine = {"T": 1, "read": 4, "matmul": 7}
    assert kv_timing.flat(row) == [
        machine | {"width": 2, "flops": 8, "seconds": [1.0]},
        machine | {"width": 4, "flops": 9, "seconds": [2.0]},
    ]
    assert kv_timing.significant(1234567) == 1235000 and kv_timing.significant(0.000123456) == 0.0001235


# The regimes


@pytest.mark.parametrize(
    ("seconds", "bytes_", "flops", "expected", "predicted"),
    [
        (1.2, 10, 10, "overhead", 0.1),
        (5.0, 400, 100, "bandwidth", 4.0),
        (5.0, 100, 400, "compute", 4.0),
        (12.0, 400, 100, "bandwidth", 4.0),  # three times, no more
        (12.1, 400, 100, "none", 4.0),
        (3.1, 10, 10, "none", 0.1),
        (0.1, 400, 100, "bandwidth", 4.0),  # from the processor's cache: faster than memory
    ],
)
def test_the_regime_of_made_up_rows(seconds, bytes_, flops, expected, predicted):
    """Of a machine that reads 100 bytes and does 100 FLOPs a second, with an overhead of a second."""
    row = {"seconds": [0, seconds, 99], "bytes": bytes_, "flops": flops, "read": 100, "matmul": 100, "overhead": 1.0}
    assert (kv_sweep.regime(row), kv_sweep.predicted(row)) == (expected, predicted)


def test_a_regimes_job(monkeypatch):
    """The bare step first, all widths after it, what `work` counts, each round's seconds."""
    monkeypatch.setattr(kv_timing, "TURN", 1e-6)
    job = {"T": 3, "batch": 2, "cached": 5, "widths": [32, 128], "rounds": 2}
    row = job | json.loads(json.dumps(kv_sweep.run(job)))
    assert row["arms"][0] == kv_sweep.BARE
    for found, width in zip(kv_sweep.table(row), job["widths"], strict=True):
        counted = work(kv_sweep.random_model(width, 8), 3, 5, 2)
        assert (found["flops"], found["bytes"]) == (counted.flops, counted.bytes)
        assert (found["width"], found["T"], found["batch"], found["cached"]) == (width, 3, 2, 5)
        assert len(found["seconds"]) == 2 and min(found["seconds"]) > 0 and found["operations"] > 100
        assert kv_sweep.regime(found) in {"overhead", "bandwidth", "compute", "none"}
    assert kv_sweep.terms(found)["overhead"] == found["overhead"] > 0


def test_each_step_is_one_position_further_and_reads_the_same():
    """As when a text is generated: the angles are new, and what is stored is not."""
    arm, seen = kv_sweep.arm(32, 2, 1, 4), []
    cache, model = SimpleNamespace(positions=lambda T: torch.arange(4, 4 + T)), lambda *given: seen.append(given)
    step = kv_timing.passes(model, torch.zeros(1, 2), cache, 2)
    step(), step()
    assert (seen[1][2] - seen[0][2]).tolist() == [1, 1] and seen[0][3] == 2
    with torch.inference_mode():
        first = kv_timing.operations(arm)
        assert arm.step().shape == (1, 1, kv_sweep.VOCABULARY)
        arm.reset()
        assert kv_timing.operations(arm) == first


@pytest.mark.parametrize("sweep", [kv_sweep.SWEEP, real_kv_sweep.SWEEP], ids=lambda sweep: sweep.name)
def test_verifying_compares_counts_and_not_times(sweep):
    row = {"arms": [{"width": 2}], "counts": [{"flops": 8, "token": 3}], "seconds": [[1.0]], "peaks": {"rows": [2, 3]}}

    def agrees(**other):
        apart = differences(row, row | other, {})
        return all(gap <= sweep.tolerance.get(name, 0) for name, gap in apart.items())

    assert agrees(seconds=[[9.0]], peaks={"rows": [1, 1]})
    assert not agrees(counts=[{"flops": 8, "token": 4}]) and not agrees(arms=[{"width": 3}])


# The real model, on a small one


def test_every_cache_holds_the_text_that_was_read(small):
    """The logits behind it are those of the whole text, in each row; again and again where tokens are taken back."""
    before, tokens = real_kv_sweep.past(small, 20), real_kv_sweep.ids(20, 22)
    with torch.inference_mode():
        whole = small(real_kv_sweep.ids(0, 22))[:, -2:]
        for kind in (*real_kv_sweep.CACHES, "house"):
            cache = real_kv_sweep.filled(small, kind, before, 2, 2)
            again = real_kv_sweep.undo(cache, 2)
            for _ in range(1 if kind == "concat" else 3):
                found = small(tokens.repeat(2, 1), cache)
                torch.testing.assert_close(found, whole.expand(2, -1, -1), msg=kind)  # float32
                again()


def test_a_concatenated_cache_goes_on_growing(small):
    """As in generation: nothing is given back."""
    cache = real_kv_sweep.filled(small, "concat", real_kv_sweep.past(small, 9), 1, 1)
    with torch.inference_mode():
        for length in (10, 11):
            small(real_kv_sweep.ids(length - 1, length), cache)
            real_kv_sweep.undo(cache, 1)()
            assert {it.shape[2] for it in (*cache.keys, *cache.values)} == {length} == {cache.length}


def test_a_long_past_is_random_and_the_same_each_time(small, monkeypatch):
    monkeypatch.setattr(real_kv_sweep, "READ", 8)
    one, other = real_kv_sweep.past(small, 9), real_kv_sweep.past(small, 9)
    assert all(map(torch.equal, one, other)) and one[0].shape == (LAYERS, 1, 1, 9, 32) and one[0].std() > 0.9


def test_layers_that_are_drawn_from_few(small):
    """The first n in turn, as the same objects; with all of them it is the model; the model keeps its own."""
    blocks = list(small.blocks)
    drawn = real_kv_sweep.drawn_from(small, 2)
    assert [list(small.blocks).index(block) for block in drawn.blocks] == [0, 1, 0]
    assert list(small.blocks) == blocks and drawn.embedding is small.embedding
    x = real_kv_sweep.ids(0, 5)
    assert torch.equal(real_kv_sweep.drawn_from(small, LAYERS)(x), small(x))
    layer = sum(parameter.nbytes for parameter in blocks[0].parameters())
    assert real_kv_sweep.different_bytes(small) - real_kv_sweep.different_bytes(drawn) == layer


@pytest.mark.parametrize(
    ("group", "sizes", "arms"),
    [
        ("caches", [1, 2], 1 + 2 * 4),
        ("kinds", [1], len(real_kv_sweep.KINDS)),
        ("layers", [1, LAYERS], 2 * 2),
        ("batch", [1, 3], 3 * 2),
        ("tokens", [1, 17], 3 * 2),
    ],
)
def test_a_group_runs(small, group, sizes, arms):
    """Its arms have the same names, finite seconds, and FLOPs of equal work are equal."""
    job = {"group": group, "cached": 6, "sizes": sizes, "rounds": 2}
    found = kv_timing.flat(job | json.loads(json.dumps(real_kv_sweep.run(job))))
    assert len(found) == arms and all(len(arm["seconds"]) == 2 and min(arm["seconds"]) > 0 for arm in found)
    names = {"weights", "layers", "cache", "batch", "T", "last", "flops", "bytes", "token", "operations", "read"}
    assert all(names <= arm.keys() for arm in found)
    works = {(arm["batch"], arm["T"]): arm["flops"] for arm in found}
    assert all(arm["flops"] == works[arm["batch"], arm["T"]] for arm in found)
    if group == "caches":
        assert len({arm["token"] for arm in found}) == 1 and found[0]["T"] == 7
    if group == "kinds":
        read = {arm["weights"]: arm["bytes"] for arm in found}
        assert read["rows"] == read["columns"] > read["bfloat16"] > read["int8"] > read["4-bit"]
    if group == "layers":
        assert [arm["different"] < arm["bytes"] for arm in found] == [True, True] * 2
        assert found[0]["different"] < found[1]["different"] and found[0]["bytes"] == found[1]["bytes"]
    if group == "tokens":
        assert [(arm["T"], arm["last"]) for arm in found[:2]] == [(1, 1), (17, 1)]


# The GPU's path, on the CPU


def test_the_static_step_is_the_houses(monkeypatch):
    """Token by token, with a mask over what is empty: the logits of the house's model with its cache; a whole text
    without a cache, too. float32."""
    model = kv_gpu.random_model("small", "cpu", torch.float32)
    width, layers, heads, kv_heads, hidden = kv_gpu.SHAPES["small"]
    parts = {"attention": partial(RotaryAttention, n_kv_heads=kv_heads, bias=False), "norm": nn.RMSNorm}
    parts |= {"feed_forward": partial(SwiGLU, d_hidden=hidden), "positions": no_positions}
    house = TinyLM(kv_gpu.VOCABULARY, kv_gpu.CONTEXT, width, layers, heads, **parts).eval()
    house.load_state_dict(model.state_dict())
    cache, own = kv_gpu.StaticCache(model, 2, 16), house.new_cache(2, 16)
    tokens = torch.randint(kv_gpu.VOCABULARY, (2, 6))
    with torch.inference_mode():
        torch.testing.assert_close(model(tokens), house(tokens))
        for at in range(6):
            cache.at.fill_(at)
            found = model(tokens[:, at : at + 1], cache)
            torch.testing.assert_close(found, house(tokens[:, at : at + 1], own))
    with pytest.raises(ValueError, match="2 new tokens"):
        model(tokens[:, :2], cache)


def test_the_gpu_job_small_on_the_cpu():
    for job in kv_gpu.SWEEP.quick:
        found = json.loads(json.dumps(kv_gpu.run(job)))
        assert len(found["arms"]) == len(job["ways"]) * len(job["sizes"]) == len(found["seconds"])
        assert found["share"] and all(0 < share < kv_gpu.ABOVE for share in found["share"])
    decoded = kv_gpu.run(kv_gpu.SWEEP.quick[0])
    assert decoded["tokens"][0::2] == decoded["tokens"][1::2]  # eager and graph


def test_more_than_the_memory_has_is_refused():
    """A time without synchronisation is that of handing over: 2 GB in 40 microseconds."""
    assert kv_gpu.bandwidth(1e-3, 2e9, 3e12) == 2e12
    with pytest.raises(ValueError, match=r"5e\+13 bytes a second, and a copy has 3e\+12.*synchronize"):
        kv_gpu.bandwidth(4e-5, 2e9, 3e12)
    with pytest.raises(ValueError, match="bytes a second"):
        kv_gpu.bandwidth(math.inf, 2e9, 3e12)


@pytest.mark.skipif(kv_gpu.HERE == "cuda", reason="there is a GPU")
def test_without_a_gpu_nothing_is_measured(monkeypatch, capsys):
    before = kv_gpu.SWEEP.results.exists()
    monkeypatch.setattr(sys, "argv", ["kv_sweep.py"])
    assert kv_gpu.main_gpu() == 1
    assert "nothing is measured" in capsys.readouterr().out
    assert kv_gpu.SWEEP.results.exists() == before and not kv_gpu.SWEEP.underway.exists()


def test_what_a_gpu_measured_is_what_would_be_measured():
    """The stored jobs are today's, and so are the counts. (That the code is the same byte for byte only a GPU could
    mend.)"""
    rows, _ = stored(kv_gpu.SWEEP.results)
    assert [{name: row[name] for name in job} for row, job in zip(rows, kv_gpu.SWEEP.jobs, strict=True)] == list(
        kv_gpu.SWEEP.jobs
    )
    for row in rows:
        model = kv_gpu.random_model(row["shape"], "meta")
        for names, counts in zip(row["arms"], row["counts"], strict=True):
            size, decodes = names["size"], row["pass"] == "decode"
            it = work(model, 1, kv_gpu.CAPACITY - 1, size) if decodes else work(model, size)
            assert counts == {"flops": it.flops, "bytes": it.bytes}
