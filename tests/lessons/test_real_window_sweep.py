"""Lesson 09's looks into the real model: their arms do what they are called, on a small model of as many layers."""

import math
from functools import partial
from types import SimpleNamespace

import pytest
import real_reach_sweep as reach
import real_window_sweep as sweep
import torch
from torch import nn
from window import restrict

from shared.hooks import hooked
from shared.layers import SwiGLU
from shared.rotary import RotaryAttention, no_positions
from shared.tiny_lm import TinyLM

V, FIRST = 60, sweep.FIRST
CLOSE = {"atol": 2e-4, "rtol": 0}  # means are rounded to 1e-4; float32 through 30 layers
CACHED = (sweep.text_ids, sweep.beginning, sweep.constants, sweep.mean_scores, reach.digit_ids, reach.stream)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """A Llama of 30 narrow layers in the real model's place."""
    torch.manual_seed(0)
    parts = {"attention": partial(RotaryAttention, n_kv_heads=1, bias=False), "norm": nn.RMSNorm}
    parts |= {"feed_forward": partial(SwiGLU, d_hidden=12), "positions": no_positions}
    model = TinyLM(V, 700, d_model=16, n_layers=sweep.LAYERS, n_heads=2, **parts).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    tokenizer = SimpleNamespace(specials={"<s>": 0, "</s>": 1}, vocab_size=V)
    tokenizer.encode = lambda text, allowed=(): [2 + ord(letter) % (V - 2) for letter in text]
    for module in (sweep, reach):
        monkeypatch.setattr(module, "model_and_tokenizer", lambda: (model, tokenizer))
    for each in CACHED:
        each.cache_clear()
    yield model
    for each in CACHED:
        each.cache_clear()


def same(row, nats, first=FIRST):
    """A row's means are those of the losses of a text that was read at once."""
    found = sweep.stretches(nats[first:], first)
    assert {name: row[name] for name in ("starts", "counts")} == {name: found[name] for name in ("starts", "counts")}
    torch.testing.assert_close(torch.tensor(row["nats"]), torch.tensor(found["nats"]), **CLOSE)


# How a text is read


@pytest.mark.parametrize(("kept", "sinks", "start"), [(32, 0, 0), (64, 1, 0), (128, 4, 103), (256, 8, 0)])
def test_a_ring_after_the_beginning_is_the_whole_text_with_a_mask(kept, sinks, start):
    job = {"on": "speech", "part": "windows", "start": start, "kept": kept, "sinks": sinks}
    masked = restrict([kept - sinks] * sweep.LAYERS, sinks)
    x = sweep.text_ids("speech", start, sweep.LONG)
    same(sweep.run(job), sweep.losses_with(x, masked), kept)
    assert sweep.stretches(sweep.losses_with(x, {})[kept:], kept)["nats"] != sweep.run(job)["nats"]


@pytest.mark.parametrize("arm", sweep.LAYOUTS)
def test_windows_in_some_layers(arm):
    windows = sweep.LAYOUTS[arm](7)
    masked = restrict(sweep.LAYOUTS[arm](FIRST - 1), 1)
    job = {"on": "fable", "part": "layers", "arm": arm, "sinks": 1}
    same(sweep.run(job), sweep.losses_with(sweep.text_ids("fable"), masked))
    seeing_all = {"all local": [], "0 to 11 local": range(12, 30), "12 to 29 local": range(12)}
    seeing_all |= {"every other": range(1, 30, 2), "five of six": reach.every(6, 5)}
    assert [layer for layer in range(30) if windows[layer] is None] == list(seeing_all[arm])
    assert {window for window in windows if window} == {7}


def test_stretches_and_their_mean_by_hand():
    row = sweep.stretches(torch.tensor([1.0] * 64 + [4.0] * 128 + [2.0] * 64), 64)
    assert row == {"nats": [1.0, 4.0, 2.0], "starts": [64, 128, 256], "counts": [64, 128, 64]}
    assert sweep.past(row, 64) == (64 + 4 * 128 + 128) / 256 and sweep.past(row, 128) == (4 * 128 + 128) / 192
    assert sweep.past(row, 256) == 2


@pytest.mark.parametrize("scope", ["window", "whole"])
def test_another_token_before_the_text(small, scope):
    """The text's own tokens are scored, read behind it; a slot holds what no token of the text has made."""
    x, first = sweep.text_ids("review"), torch.tensor([[2 + ord("\n") % (V - 2)]])
    job = {"on": "review", "part": "first", "scope": scope}
    masked = restrict(*sweep.WITH_SINK) if scope == "window" else {}
    same(sweep.run(job | {"arm": "newline"}), sweep.losses_with(torch.cat([first, x], dim=1), masked)[1:])
    slot, mean = sweep.run(job | {"arm": "slot"}), sweep.mean_constants()
    given = {name: lambda y, layer, i=i: torch.cat([mean[layer][i], y[:, :, 1:]], dim=2) for i, name in enumerate("kv")}
    same(slot, sweep.losses_with(torch.cat([first, x], dim=1), given | masked)[1:])


def test_constants_are_those_of_random_first_tokens(small):
    keys, values = sweep.constants()
    assert keys.shape == values.shape == (30, 12, 1, 8) and len(keys[0].unique(dim=0)) > 6
    assert torch.equal(sweep.mean_constants()[3][0][0, 0, 0], keys[3, :, 0].mean(dim=0))
    row = sweep.run({"part": "constant"})
    others = torch.stack([keys[5, torch.arange(12) != i, 0].mean(dim=0) for i in range(12)])
    lowest = torch.cosine_similarity(keys[5, :, 0], others, dim=-1).min().item()
    assert row["k"][5] == pytest.approx(lowest, abs=6e-4) and len(row["v"]) == 30


# What is changed, held to attention that is written out


def attention(q, k, v, change):
    """Attention of one text in which the rows from `FIRST` on are changed: change(scores, v) -> scores, v, nothing."""

    def attend(scores, v, nothing=0.0):
        powers = scores.exp()
        return (powers / (powers.sum(dim=-1, keepdim=True) + nothing)) @ v

    T = q.shape[2]
    scores = q @ k.mT / math.sqrt(q.shape[-1])  # (1, H, T, T): one key and value head
    scores = scores.masked_fill(~torch.ones(T, T, dtype=torch.bool).tril(), -math.inf)
    return torch.cat([attend(scores[:, :, :FIRST], v), attend(*change(scores[:, :, FIRST:].clone(), v.clone()))], dim=2)


def written_out(on, change):
    """The losses of a text whose later queries read what is changed."""
    seen = {}
    hooks = {name: lambda x, layer, name=name: seen.__setitem__(name, x) for name in "qkv"}
    hooks["heads"] = lambda y, layer: attention(seen["q"], seen["k"], seen["v"], partial(change, layer))
    return sweep.losses_with(sweep.text_ids(on), hooks)


def put(x, column, value):
    x[:, :, :, column] = value
    return x


def v_times(factor):
    def change(layer, scores, v):
        v[:, :, 0] *= factor
        return scores, v

    return change


def v_mean(layer, scores, v):
    v[:, :, 0] = v[:, :, 1:64].mean(dim=2)
    return scores, v


WRITTEN = {
    "none": lambda layer, scores, v: (scores, v),
    "v zero": v_times(0),
    "v mean": v_mean,
    "k zero": lambda layer, scores, v: (put(scores, 0, 0.0), v),
    "k and v zero": lambda layer, scores, v: (put(scores, 0, -math.inf), v, 1.0),  # softmax-off-by-one as it is known
    "hidden": lambda layer, scores, v: (put(scores, 0, -math.inf), v),
}


@pytest.mark.parametrize("arm", WRITTEN)
def test_edits_for_later_queries(monkeypatch, arm):
    """A ring whose first column is changed behind the beginning does what attention does row by row."""
    monkeypatch.setattr(sweep, "WITH_SINK", sweep.EVERYTHING)
    row = sweep.run({"on": "voyage", "part": "edit", "arm": arm, "queries": "later"})
    same(row, written_out("voyage", WRITTEN[arm]))
    assert (arm == "none") == (row["nats"] == sweep.read_on("voyage", *sweep.EVERYTHING)["nats"])


@pytest.mark.parametrize("arm", sweep.IN_BOTH)
def test_edits_for_all_queries_are_not_those_for_later_ones(arm):
    job = {"on": "minutes", "part": "edit", "arm": arm}
    everywhere = sweep.run(job | {"queries": "all"})
    hooks = sweep.EDITS[arm]("minutes") | restrict(*sweep.WITH_SINK)
    same(everywhere, sweep.losses_with(sweep.text_ids("minutes"), hooks))
    assert everywhere["nats"] != sweep.run(job | {"queries": "later"})["nats"]


def test_keys_and_values_are_replaced_in_one_column():
    x = torch.randn(1, 1, 70, 8)
    keys, values = sweep.constants()
    whole, one = sweep.borrowed(slice(None)), sweep.borrowed(slice(1))
    cases = [(whole["k"], keys[4].mean(dim=0)), (whole["v"], values[4].mean(dim=0)), (one["v"], values[4, 0])]
    cases += [(hook, x[0, :, 5]) for hook in sweep.other_kept(5).values()]
    for hook, wanted in cases:
        torch.testing.assert_close(hook(x, 4)[0, :, 0], wanted)
        assert torch.equal(hook(x, 4)[:, :, 1:], x[:, :, 1:])
    random = sweep.random_value(x, 4)
    torch.testing.assert_close(random.norm(), x[:, :, 0].norm())
    assert torch.cosine_similarity(random, x[:, :, 0], dim=-1).abs() < 0.99


def test_a_key_that_is_further_away(small):
    """Its scores are those that queries so many positions later give to it where it was."""
    place = small.blocks[2].attention.place
    q, k = torch.randn(1, 1, 1, 8), torch.randn(1, 1, 3, 8)
    away = sweep.moved_away(1000)["k"](k, 2)
    torch.testing.assert_close(
        (place(q, torch.tensor([70])) * away[:, :, :1]).sum(), (place(q, torch.tensor([1070])) * k[:, :, :1]).sum()
    )
    assert torch.equal(away[:, :, 1:], k[:, :, 1:])


def test_a_constant_score_is_each_heads_mean(small):
    seen = {}
    keep = {"scores": lambda scores, layer: seen.__setitem__(layer, scores[0, :, :, 0])}
    sweep.read_on("fable", *sweep.WITH_SINK, keep)
    assert len(seen[3]) == 2 and seen[3].shape[1] == sweep.TOKENS - FIRST
    scores = sweep.constant_score("fable")["scores"](torch.randn(1, 2, 9, 30), 3)
    torch.testing.assert_close(scores[0, :, :, 0], seen[3].mean(dim=1)[:, None].expand(2, 9))


def test_who_gets_the_weight_of_later_queries(small):
    """The means of weights that are written out; a hidden token gets none."""
    seen = {}
    keep = {"weights": lambda weights, layer: seen.__setitem__(layer, weights[0, :, FIRST:])}
    sweep.losses_with(sweep.text_ids("manual"), keep)
    mean = torch.stack([seen[layer].mean(dim=(0, 1)) for layer in range(12, 30)]).mean(dim=0)
    row = sweep.run({"on": "manual", "part": "moved", "arm": "none", "queries": "later"})
    assert row["to_first"] == pytest.approx(mean[0].item(), abs=2e-4) and row["other"] == 1 + mean[1:].argmax().item()
    assert row["to_other"] == pytest.approx(mean[1:].max().item(), abs=2e-4)
    assert sweep.run({"on": "manual", "part": "moved", "arm": "hidden", "queries": "later"})["to_first"] == 0
    everywhere = sweep.run({"on": "manual", "part": "moved", "arm": "k zero", "queries": "all"})
    same(everywhere, sweep.losses_with(sweep.text_ids("manual"), sweep.times("k", 0)))
    mass = sweep.run({"on": "manual", "part": "mass"})
    assert mass["mass"][5] == pytest.approx(seen[5][:, :, 0].mean(dim=1).tolist(), abs=1e-3)
    assert len(mass["v_first"]) == len(mass["v_others"]) == 30


def test_arms_are_compared_at_equal_keys():
    windows = [job for job in sweep.SWEEP.jobs if job["part"] == "windows" and job["kept"] and not job["start"]]
    assert {(job["kept"], job["sinks"]) for job in windows} == {(kept, n) for kept in sweep.KEPT for n in sweep.SINKS}
    assert sum(sweep.WITH_SINK[0][:1]) + sweep.WITH_SINK[1] == FIRST == min(sweep.LAYOUTS["all local"](63)) + 1


# Reach


@pytest.mark.parametrize("distance", [40, 384])
def test_a_key_stands_at_its_distance(distance):
    x, keys = reach.prompts(distance, 30)
    said = reach.model_and_tokenizer()[1].encode(reach.KEY)
    first = 30 + len(said)
    for row, key, on in zip(x.tolist(), keys.tolist(), sweep.TEXTS, strict=True):
        assert row[:30] == sweep.text_ids(on)[0, :30].tolist() and row[30:first] == said
        assert row[first : first + 5] == key and row[-4:] == key[:-1]
        assert len(row) - 5 - first == distance  # the query that is to say the first digit is the last but four
    assert set(keys.flatten().tolist()) <= set(reach.digit_ids()) and len(keys.unique(dim=0)) == 8
    with pytest.raises(ValueError, match="distance is 20"):
        reach.prompts(20, 30)


def test_what_is_known_of_a_key():
    keys, digits = torch.tensor(reach.digit_ids())[torch.tensor([[1, 2, 3, 4, 5], [9, 8, 7, 6, 5]])], reach.digit_ids()
    logits = torch.zeros(2, 5, V)
    assert reach.known(logits, keys)["known"] == [0.0, 0.0]
    logits.scatter_(-1, keys[:, :, None], 50.0)
    assert reach.known(logits, keys) == {"exact": 2, "nats": 0.0, "known": [2.303, 2.303]}
    logits[1, 2, digits[0]] = 60.0
    found = reach.known(logits, keys)
    assert found["exact"] == 1 and found["known"][1] == pytest.approx(math.log(10) - 10 / 5, abs=1e-3)


def test_recall_reads_with_the_windows_of_its_job(small):
    job = {"part": "recall", "before": 30, "distance": 60, "global": [3, 9], "kept": 16, "sinks": 1}
    x, keys = reach.prompts(60, 30)
    windows = [None if layer in (3, 9) else 15 for layer in range(30)]
    with torch.no_grad(), hooked(small, restrict(windows, 1)):
        assert reach.run(job) == reach.known(small(x)[:, -5:], keys)
    assert reach.run(job) != reach.run(job | {"global": []})


def test_influence_ends_where_nothing_is_seen():
    """A window of one sees itself alone, so nothing reaches a later query; one that sees all is the whole text."""
    job = {"part": "influence", "on": "speech", "global": [], "sinks": 1}
    assert reach.run(job | {"kept": 2}) == {"divergence": [0.0] * 5}
    whole = reach.run(job | {"global": reach.GLOBAL, "kept": 64, "sinks": 0})
    assert reach.run(job | {"kept": 400}) == whole and min(whole["divergence"]) > 0


def test_a_stream_is_the_text_read_at_once():
    """Whatever the chunk; with positions in the cache the sinks come nearer."""
    job = {"part": "stream", "texts": ["docs", "prose"], "tokens": 600, "global": [], "kept": 40, "sinks": 2}
    job |= {"turned": False, "chunk": 32}
    row = reach.run(job)
    nats = torch.stack(
        [sweep.losses_with(x[None, :600], restrict([38] * 30, 2)) for x in map(reach.stream, job["texts"])]
    )
    wanted = torch.stack([nats[:, 128:512].mean(dim=1), nats[:, 512:].mean(dim=1)], dim=1)
    for found in (row, reach.run(job | {"chunk": 7})):
        torch.testing.assert_close(torch.tensor(found["nats"]), wanted, **CLOSE)
    assert reach.run(job | {"turned": True})["nats"] != row["nats"]


def test_long_texts_are_long_enough_and_different():
    docs, prose = map(reach.stream, reach.STREAMED)
    assert len(docs) >= reach.LONGER and len(prose) >= reach.STREAM > 8192 + 1024
    assert not torch.equal(docs[:99], prose[:99]) and set(reach.STREAM_STARTS) >= {8192, reach.STREAM}
