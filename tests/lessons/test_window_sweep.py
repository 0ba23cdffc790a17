"""Lesson 09's sweeps: what is counted, what is asked, how far a model sees, and that every part runs small."""

import json
import math
import os

import memory_sweep
import pytest
import torch
import window
import window_sweep

from shared.training import next_token_loss

ONE_HEAD = memory_sweep.SETTINGS["one head"]
RATE, STEPS = 1e-2, 2


# Memory and time


def test_all_arms_give_the_answer_of_their_scope():
    """And the same gradients, recomputed or not: float32, sums of 300 terms."""
    calls = {name: memory_sweep.call_of("one head", name, True, 300) for name in memory_sweep.arms(**ONE_HEAD)}
    found = {name: call() for name, call in calls.items()}
    for name, gradients in found.items():
        expected = found["all scores, band mask" if "band" in name else "all scores"]
        for one, other in zip(gradients, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5, msg=name)


def test_the_lean_mask_is_the_band():
    assert torch.equal(memory_sweep.lean_mask(9, 3), window.band_mask(9, 3))


@pytest.mark.parametrize(("n", "block"), [(10, 4), (8, 4), (3, 128)])
def test_products_are_counted(monkeypatch, n, block):
    """As many as the scores that are made: what the function is handed, block by block."""
    made = []
    monkeypatch.setattr(window, "_attend", lambda q, k, v, seen: made.append(seen.numel()) or q)
    for arm, scope in (("blocks, every key", None), ("blocks, band", 3)):
        made.clear()
        window.banded_attention(*torch.ones(3, 1, n, 2), scope, block=block)
        assert memory_sweep.products(arm, n, 3, block) == sum(made)
    assert memory_sweep.products("all scores, band mask", n, 3, block) == n * n


def test_what_is_left_out():
    """Recomputing in the forward pass; all scores of four heads and 8,192 tokens; what has no blocks by their size."""
    assert not any("recomputed" in name for name in memory_sweep.chosen("one head", False, 512))
    assert len(memory_sweep.chosen("one head", True, 8192)) == len(memory_sweep.arms(**ONE_HEAD))
    assert not set(memory_sweep.ALL_SCORES) & set(memory_sweep.chosen("four heads", True, 8192))
    assert set(memory_sweep.ALL_SCORES) <= set(memory_sweep.chosen("four heads", True, 4096))
    assert all("blocks" in name for name in memory_sweep.chosen("narrow", True, 512))


def _resident_after_others():
    """Of two tensors of 2 MiB at once, where larger and smaller ones were there before."""
    memory_sweep.give_back_at_once()
    for n in (2**18, 2**20, 2**17, 2**19):
        found = memory_sweep.resident_peak(lambda n=n: torch.ones(n) + 1)
    return found


@pytest.mark.skipif(not os.access(memory_sweep.PEAK_RESET, os.W_OK), reason="the system does not count")
def test_the_resident_peak_is_what_is_held_at_once():
    """Whatever was freed before. The slack is for pages and Python."""
    assert memory_sweep.in_child(_resident_after_others) == pytest.approx(2**22, abs=2**18)


def test_an_error_in_a_child_is_one_here():
    assert memory_sweep.in_child(max, 2, 3) == 3
    if hasattr(os, "fork"):
        with pytest.raises(RuntimeError, match="int"):
            memory_sweep.in_child(int, "no number")


def test_the_exponent_of_a_power_and_its_error():
    """Of points that lie off the line it is scipy's."""
    assert memory_sweep.exponent([1, 2, 4], [3, 12, 48]) == pytest.approx((2, 0), abs=1e-12)
    stats = pytest.importorskip("scipy.stats")
    n, y = [1024, 2048, 4096, 8192], [3.0, 5.5, 13.0, 21.0]
    expected = stats.linregress([math.log(each) for each in n], [math.log(each) for each in y])
    assert memory_sweep.exponent(n, y) == pytest.approx((expected.slope, expected.stderr))
    with pytest.raises(ValueError, match="2 sizes"):
        memory_sweep.exponent([1, 2], [1, 2])


def test_exponents_are_of_long_texts_alone():
    """From 1,024 tokens on; of seconds the rounds' median; an arm that is not everywhere, where it is."""
    rows = [
        {"setting": "one head", "training": False, "n": n, "seconds": {"a": [n, n**2, 9e9], "b": [n]}}
        for n in (512, 1024, 2048, 4096)
    ]
    rows[0]["seconds"]["a"] = [0.0]
    del rows[3]["seconds"]["b"]
    found = memory_sweep.exponents(rows, "seconds", "one head", False)
    assert found == {"a": pytest.approx((2, 0), abs=1e-9)}


def test_caches_hold_what_they_say():
    """A ring is as large for any text; five of six layers local keep a sixth of what grows."""
    short, long = (
        {name: memory_sweep.cache_bytes(it) for name, it in memory_sweep.caches(n).items()} for n in (512, 1024)
    )
    layer = 2 * memory_sweep.KV_HEADS * memory_sweep.D_CACHE * 4  # bytes of a token in a layer
    assert short["ring"] == long["ring"] == memory_sweep.LAYERS * memory_sweep.WINDOW * layer
    assert long["growing"] == 2 * short["growing"] == memory_sweep.LAYERS * 1024 * layer
    assert long["five of six local"] - short["five of six local"] == 512 * layer


@pytest.mark.parametrize("sweep", [memory_sweep.SWEEP, window_sweep.SWEEP], ids=lambda sweep: sweep.name)
def test_every_part_runs_small(sweep, monkeypatch):
    """What comes of a job is JSON of other names than the job's, and numbers alone."""
    for name in ("TURN", "LONG"):
        monkeypatch.setattr(memory_sweep, name, 1e-6)
    for job in sweep.quick:
        found = json.loads(json.dumps(sweep.run(job), allow_nan=False))
        assert found and not found.keys() & job.keys()


# Recall


@pytest.mark.parametrize("task", window_sweep.RECALL)
def test_the_answer_stands_where_it_is_said_to_stand(task):
    draw = {"passkey": window_sweep.passkey, "pairs": window_sweep.pairs}[task]
    x, y, back = draw(500, torch.Generator().manual_seed(0))
    text, at = (y != -100).nonzero(as_tuple=True)
    answer, given = y[text, at], x[text, at - back[text, at]]
    if task == "passkey":
        assert torch.equal(answer, given) and (x[:, :-1] < window_sweep.DIGITS).sum() == len(x) == len(answer)
        assert sorted(set(back[text, at].tolist())) == list(range(1, window_sweep.FAR + 1))
    else:
        pair = window_sweep.VALUES * (x[text, at] - 32) + answer - 36
        assert torch.equal(pair, given) and len(answer) == 4 * len(x)
        assert (x[:, -4:].sort().values == torch.arange(32, 36)).all() and (x < 32).sum() == 4 * len(x)
    assert x.max() < window_sweep.SIZES[task][0] and (back[y == -100] == 0).all()


@pytest.mark.parametrize("windows", [[4], [4, 4], [4, 6, 3], [None, 4], [4, None]])
def test_the_measured_reach_is_the_formulas(windows):
    model = window_sweep.new_model("passkey", windows, 0).eval()
    texts = window_sweep.passkey(3, torch.Generator().manual_seed(0))[0]
    assert window_sweep.measured_reach(model, texts) == min(window.reach(windows), window_sweep.T_RECALL)


def test_recall_counts_right_answers_by_distance():
    """Of one who sees the last 20 tokens and answers with the digit among them."""

    def sees_twenty(x, last=None):
        digits = torch.where(x[:, -21:] < window_sweep.DIGITS, x[:, -21:], 0).amax(dim=1)
        return torch.nn.functional.one_hot(digits, window_sweep.SYMBOLS).double()[:, None].expand(-1, x.shape[1], -1)

    right = window_sweep.recalled(sees_twenty, "passkey")["right"]
    assert right[:20] == [1] * 20 and len(right) == window_sweep.FAR
    assert sum(right[20:]) / 35 == pytest.approx(
        0.1, abs=0.02
    )  # a tenth are 0: 1,300 texts, two and a half standard errors


# Loss


def test_a_window_imposed_is_that_window():
    """On a model without windows, the loss of the same weights with windows: float32."""
    full, narrow = (window_sweep.new_model("docs", windows, 0) for windows in ([None, None], [4, 4]))
    x, y = (part[:2] for part in window_sweep.held_out("docs")[:2])
    with torch.no_grad():
        assert window_sweep.with_window(full, x, y, 4) == pytest.approx(next_token_loss(narrow, x, y).item(), abs=1e-5)
        assert window_sweep.with_window(full, x, y, 4) != pytest.approx(next_token_loss(full, x, y).item(), abs=1e-5)


def test_arms_of_a_seed_read_the_same_text():
    for task in window_sweep.SIZES:
        one, other, third = (window_sweep.batches(task, 3, seed) for seed in (5, 5, 6))
        for _ in range(2):
            first = one()
            assert all(map(torch.equal, first, other())) and not torch.equal(first[0], third()[0])


def test_each_judged_rate_was_tried_and_is_not_at_the_edge():
    tried = {(job["task"], str(job["windows"]), job["steps"], job["rate"]) for job in window_sweep.TRIED}
    for job in window_sweep.AT_BEST:
        arm = (job["task"], str(job["windows"]), job["steps"])
        rates = sorted(rate for *name, rate in tried if tuple(name) == arm)
        assert job["rate"] in rates[1:-1], arm
