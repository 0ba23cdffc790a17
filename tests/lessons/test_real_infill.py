"""Lesson 13's look into the real model, on a small one: Bayes' rule, positions without the mask, texts and partners."""

import math
from types import SimpleNamespace

import pytest
import real_infill
import real_infill_sweep
import torch
from real_infill import RIGHT, Gap, candidates, gaps, judged, posterior, scores, sight, without_mask
from small_models import VOCABULARY, llama, tokens
from torch.nn import functional as F

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
