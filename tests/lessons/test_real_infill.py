"""Lesson 13's look into the real model, on a small one: Bayes' rule, positions without the mask, texts and partners."""

import math
from types import SimpleNamespace

import infill_rules
import pytest
import real_infill
import real_infill_sweep
import torch
from real_infill import RIGHT, Gap, candidates, gaps, judged, posterior, scores, sight, without_mask
from small_models import VOCABULARY, llama, tokens
from torch.nn import functional as F

from shared.sweeps import stored
from shared.texts import OWN, texts

CLOSE = {"rtol": 1e-9, "atol": 1e-9}  # float64


@pytest.fixture
def small(monkeypatch):
    """A Llama of two layers in the real model's place, whose tokens are characters."""
    model = llama(bias=False)
    model.context = 200  # no part of it has a size by the context
    encode = lambda text: [1 + ord(c) % (VOCABULARY - 1) for c in text]  # noqa: E731
    chat = lambda messages: encode(messages[0][1])  # noqa: E731
    decode = lambda ids: "".join(chr(97 + i % 26) for i in ids)  # noqa: E731
    kind = {
        "specials": {real_infill.ENDS: 0},
        "vocab_size": VOCABULARY,
        "encode": encode,
        "chat": chat,
        "decode": decode,
    }
    pair = model, SimpleNamespace(**kind)
    for module in (real_infill, real_infill_sweep):
        monkeypatch.setattr(module, "model_and_tokenizer", lambda: pair)
    gaps.cache_clear()
    yield model
    gaps.cache_clear()


def gap():
    row = tokens(1, 20 + 1 + RIGHT)[0]
    right = row[21:]
    return Gap(row[:20], row[20].item(), right, right.flip(0), right.roll(1))


def test_who_judges_was_not_looked_at():
    assert not set(real_infill.TRIED) & set(real_infill.JUDGES)
    assert {*real_infill.TRIED, *real_infill.JUDGES} <= set(OWN) and len(real_infill.JUDGES) == 8


def test_gaps_are_pieces_of_their_text(small):
    ids = torch.tensor(real_infill.model_and_tokenizer()[1].encode(texts()["letter"]))
    for before in (16, 64):
        windows = ids.unfold(0, before + 1 + RIGHT, 1)
        for it in gaps("letter", 12, before):
            whole = torch.cat([it.left, torch.tensor([it.token]), it.right])
            assert (windows == whole).all(dim=1).any() and len(it.left) == before
            assert (ids.unfold(0, RIGHT, 1) == it.other).all(dim=1).any() and not torch.equal(it.other, it.right)
            assert torch.equal(it.shuffled.sort().values, it.right.sort().values)
    assert [it.token for it in gaps("letter", 12, 16)] == [it.token for it in gaps("letter", 12, 64)]


@pytest.mark.parametrize("rows", [7, 64])
def test_bayes_rule_is_the_law_of_whole_texts(small, monkeypatch, rows):
    """With all tokens as candidates: each whole text's probability, read without a cache, as a share of their sum."""
    monkeypatch.setattr(real_infill, "ROWS", rows)
    it, all_ = gap(), torch.arange(VOCABULARY)
    left, (right, shuffled) = scores(small, it.left, all_, it.right, it.shuffled)
    for given, found in ((it.right, right), (it.shuffled, shuffled)):
        for n in (0, 1, 5, RIGHT):
            whole = torch.stack([torch.cat([it.left, each[None], given[:n]]) for each in all_])
            nats = F.cross_entropy(small(whole)[:, 19:-1].mT, whole[:, 20:], reduction="none").sum(dim=1)
            torch.testing.assert_close(posterior(left, found[:, :n]), (-nats).log_softmax(dim=0), **CLOSE)


def test_the_true_token_is_among_the_candidates_once(small):
    it = gap()
    for n in (1, 5, VOCABULARY):
        found = candidates(small, it, n).tolist()
        assert found.count(it.token) == 1 and len(found) in (n, n + 1) and len(set(found)) == len(found)
        best = small(it.left[None])[0, -1].argsort(descending=True)[:n]
        assert set(found) == {*best.tolist(), it.token}


def test_ranks_and_hits_by_hand():
    log_p, set_ = torch.tensor([0.1, 0.2, 0.7]).log(), torch.tensor([8, 5, 3])
    assert judged(log_p, set_, 3, 3) == (pytest.approx(-math.log(0.7)), 1, True)
    assert judged(log_p, set_, 3, 2)[1:] == (1, False)  # it was put behind the model's own two
    assert judged(log_p, set_, 5, 2)[1:] == (2, True)  # the best of the model's own two
    assert judged(log_p, set_, 8, 3)[1:] == (3, False)


def test_what_lifting_the_mask_lets_through(small):
    """As ever without lifting; with a hole what stands in the gap changes nothing; without one it does."""
    it = gap()

    def told(scope, hole, filler, right=it.right):
        return without_mask(small, [(torch.cat([it.left, torch.tensor([filler]), right]), sight(20, scope, hole))])[0]

    plain = small(it.left[None])[0, -1].log_softmax(dim=-1)
    torch.testing.assert_close(told("nobody", False, 3), plain, **CLOSE)
    for scope in real_infill.SCOPES:
        torch.testing.assert_close(told(scope, True, 3), told(scope, True, 4), **CLOSE)
        assert (told(scope, False, 3) - told(scope, False, 4)).abs().max() > 1e-3
        assert (told(scope, True, 3) - told(scope, True, 3, it.other)).abs().max() > 1e-3
    assert sight(20, "asking", False)[19].all() and torch.equal(
        sight(20, "asking", False)[:19], sight(20, "", False)[:19]
    )


def test_each_part_runs(small):
    for part in real_infill_sweep.PARTS:
        row = real_infill_sweep.run({"part": part, "text": "letter", "candidates": 4, "before": 8, "gaps": 2})
        assert len(row["covered"]) == 2
        assert all(len(values) == 2 for arm in row["found"].values() for values in arm.values())
    found = real_infill_sweep.run({"part": "prompt", "text": "letter", "candidates": 4, "before": 8, "gaps": 2})[
        "found"
    ]
    lifted = real_infill_sweep.run({"part": "mask", "text": "letter", "candidates": 4, "before": 8, "gaps": 2})["found"]
    assert found["left alone"]["open"] == pytest.approx(lifted["causal"]["open"], abs=1e-3)


# Rules

GOOD = {"left": 4, "right 8": 2, "other 8": 6, "shuffled 8": 6, "causal": 4, "asking, hole": 4, "all, hole": 7}
GOOD |= {"all, the answer": 2, "left alone": 4, "right first": 4, "asked": 4}
HITS = {"left": 0.2, "right 8": 0.5}


def rows(change=lambda arm, text: 0.0):
    """Two gaps of each text, half a nat beside a mean."""

    def numbers(arm, text):
        mean = GOOD[arm] + change(arm, text)
        return {
            "nats": [mean - 0.5, mean + 0.5],
            "open": [mean, mean],
            "hit": [HITS.get(arm, 0.2) + change(arm, text)] * 2,
        }

    def row(part, text):
        arms = {"bayes": list(GOOD)[:4], "mask": list(GOOD)[4:8], "prompt": list(GOOD)[8:]}[part]
        kind = {"part": part, "text": text, "candidates": infill_rules.NEAR, "before": real_infill.LEFT}
        return kind | {"found": {arm: numbers(arm, text) for arm in arms}}

    return [row(part, text) for text in real_infill.JUDGES for part in infill_rules.ALONE]


def unmet(rows):
    return {it.what for found in infill_rules.findings(rows).values() for it in found if not it.met}


def test_gains_by_hand():
    changed = rows(lambda arm, text: 1.0 * (arm == "right 8" and text == "diary"))
    found = infill_rules.gain(changed, "bayes", "right 8")
    assert sorted(found) == [1.0] + [2.0] * 7 and found[real_infill.JUDGES.index("diary")] == 1.0
    assert infill_rules.gain(rows(), "mask", "all, hole", "open") == pytest.approx([-3.0] * 8)
    assert infill_rules.share(rows(lambda arm, text: -0.5 * (arm == "asked")), "prompt", "asked") == pytest.approx(0.25)
    with pytest.raises(ValueError, match="no row of 'mask', 'voyage'"):
        infill_rules.gain([it for it in rows() if it["text"] != "voyage"], "mask", "all, hole")
    with pytest.raises(ValueError, match="200 candidates"):
        infill_rules.gain(rows(), "bayes", "right 8", n=200)


def test_each_rule_can_fail():
    """Each arm in turn is as good as the answer, or no better than nothing; one text alone fails the first rule."""
    assert not unmet(rows())
    texts_of = lambda arm, by: unmet(rows(lambda it, text: by * (it == arm)))  # noqa: E731
    worse = [texts_of(arm, 3.0) for arm in GOOD]
    better = [texts_of(arm, -4.0) for arm in GOOD]
    assert set().union(*worse, *better) == {rule.what for rule in infill_rules.RULES}
    one = unmet(rows(lambda arm, text: 3.0 * (arm == "right 8" and text == "diary")))
    assert infill_rules.RULES[0].what in one


def test_the_rules_read_what_is_stored():
    found, _ = stored(real_infill_sweep.SWEEP.results)
    kinds = infill_rules.findings(found)
    assert sum(map(len, kinds.values())) == len(infill_rules.RULES)
    left = infill_rules.mean(found, "bayes", "left")
    assert left == pytest.approx(infill_rules.mean(found, "mask", "causal"), abs=1e-3)
    assert left == pytest.approx(infill_rules.mean(found, "prompt", "left alone"), abs=1e-3)
