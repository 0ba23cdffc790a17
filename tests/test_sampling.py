"""Lesson 07's rules against transformers, exact distributions, and each other. (Its clinic: test_clinics.py.)"""

import json
import math
import sys
from functools import partial
from types import SimpleNamespace

import frontier_sweep
import pytest
import sampling
import torch
from folded import solutions
from hypothesis import given, settings
from hypothesis import strategies as st
from sampling_clinic import EXERCISES
from transformers import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from shared.clinic import examine
from shared.world.words import encode

shapes = {"batch": st.integers(1, 3), "words": st.integers(2, 40), "seed": st.integers(0, 9999), "ties": st.booleans()}


def draw(batch, words, seed, ties, scale=2.0):
    """Random logits, float64; with ties they are whole numbers."""
    z = scale * torch.randn(batch, words, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return z.round() if ties else z


def test_faults_are_fourteen_different_ones():
    assert len({(fault.line, fault.becomes) for fault in sampling.FAULTS}) == len(sampling.FAULTS) == 14
    assert len(sampling.CHECKS) == 19


@settings(max_examples=150, deadline=None)
@given(**shapes, share=st.floats(0.01, 0.99), k=st.integers(1, 45), heat=st.floats(0.1, 5.0))
def test_rules_are_transformers(batch, words, seed, ties, share, k, heat):
    """The same words are left, with the same probabilities, with ties as well. float64, sums of 40 shares: 1e-12."""
    z = draw(batch, words, seed, ties)
    seen = torch.randint(words, (batch, 3), generator=torch.Generator().manual_seed(seed))
    for ours, theirs in (
        (partial(sampling.temperature, T=heat), TemperatureLogitsWarper(heat)),
        (partial(sampling.top_k, k=k), TopKLogitsWarper(k)),
        (partial(sampling.top_p, p=share), TopPLogitsWarper(share)),
        (partial(sampling.min_p, p=share), MinPLogitsWarper(share)),
        (partial(sampling.typical, mass=share), TypicalLogitsWarper(share)),
        (
            partial(sampling.repetition_penalty, seen=seen, penalty=1 + share),
            RepetitionPenaltyLogitsProcessor(1 + share),
        ),
    ):
        found, wanted = ours(z), theirs(seen, z.clone())
        assert torch.equal(found.isfinite(), wanted.isfinite()), theirs
        torch.testing.assert_close(found.softmax(-1), wanted.softmax(-1), atol=1e-12, rtol=0)


@settings(max_examples=80, deadline=None)
@given(**shapes, share=st.floats(0, 1), k=st.integers(1, 45))
def test_the_best_survives_and_supports_nest(batch, words, seed, ties, share, k):
    """A looser rule keeps all that a stricter one keeps; no rule changes the order of what it keeps."""
    z = draw(batch, words, seed, ties)
    for rule, looser in (
        (partial(sampling.top_k, k=k), partial(sampling.top_k, k=k + 1)),
        (partial(sampling.top_p, p=share), partial(sampling.top_p, p=min(1, share + 0.1))),
        (partial(sampling.min_p, p=share), partial(sampling.min_p, p=max(0, share - 0.1))),
    ):
        kept = rule(z).isfinite()
        assert torch.equal(rule(z).amax(-1), z.amax(-1))  # one of those that tie for the best
        assert (looser(z).isfinite() | ~kept).all()
        assert torch.equal(rule(z)[kept], z[kept])


@settings(max_examples=60, deadline=None)
@given(**shapes, heat=st.floats(0.2, 8.0))
def test_entropy_rises_with_heat(batch, words, seed, ties, heat):
    """Its slope is the variance of the logits over T cubed, never negative; autograd says the same."""
    z = draw(batch, words, seed, ties)
    T = torch.tensor(heat, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(sampling.entropy(z / T).sum(), T)
    found = sampling.entropy_slope(z, heat)
    assert (found >= 0).all()
    torch.testing.assert_close(found.sum(), slope, atol=1e-9, rtol=1e-9)


def test_entropy_of_known_distributions():
    """Even: ln n. One word: 0. Words that were cut do not count."""
    assert sampling.entropy(torch.zeros(8)).item() == pytest.approx(math.log(8), abs=1e-6)
    z = torch.tensor([0.0, 0.0, -math.inf, -math.inf])
    assert sampling.entropy(z).item() == pytest.approx(math.log(2), abs=1e-6)
    assert sampling.entropy(sampling.temperature(torch.randn(1, 8), 0)).item() == 0


def test_order_matters():
    """Truncating before heating keeps the words of T = 1; heating first lets more in."""
    z = draw(1, 40, 0, ties=False)
    first = sampling.temperature(sampling.top_p(z, 0.8), 2.0).isfinite().sum()
    last = sampling.top_p(sampling.temperature(z, 2.0), 0.8).isfinite().sum()
    assert first < last


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 99), words=st.integers(2, 5), width=st.integers(1, 30), n=st.integers(1, 3))
def test_a_wide_beam_finds_the_likeliest_text(seed, words, width, n):
    """With a beam for every beginning it is exhaustive; any beam's score is its text's probability."""
    table = draw(words, words, seed, ties=False).log_softmax(-1)
    beams, scores = sampling.beam_search(lambda tokens: table[tokens], torch.tensor([[0]]), n, width)
    assert (scores[:-1] >= scores[1:]).all()
    for beam, score in zip(beams, scores, strict=True):
        assert table[beam[:-1], beam[1:]].sum().item() == pytest.approx(score.item(), abs=1e-5)
    if width >= words ** (n - 1):
        texts = torch.cartesian_prod(*[torch.arange(words)] * n).view(-1, n)
        full = torch.cat([torch.zeros(len(texts), 1, dtype=torch.long), texts], dim=1)
        assert table[full[:, :-1], full[:, 1:]].sum(1).max().item() == pytest.approx(scores[0].item(), abs=1e-5)


def test_generate_is_the_models_own_distribution():
    """Two words at a time, against the products of their probabilities: chi-square with 8 degrees of freedom."""
    table = draw(3, 3, 1, ties=False, scale=1.0)
    start = torch.zeros(30_000, 1, dtype=torch.long)
    out = sampling.generate(lambda tokens: table[tokens], start, 2, [], torch.Generator().manual_seed(0))
    p = table.softmax(-1)
    wanted = 30_000 * (p[0][:, None] * p).flatten()
    counts = torch.bincount(3 * out[:, 1] + out[:, 2], minlength=9)
    assert ((counts - wanted).square() / wanted).sum() < 31.8  # once in ten thousand
    greedy = [partial(sampling.temperature, T=0)]
    assert len(sampling.generate(lambda tokens: table[tokens], start[:9], 5, greedy).unique(dim=0)) == 1


@pytest.mark.parametrize("seed", range(3))
def test_speculation_accepts_what_it_should(seed):
    """The share of accepted drafts is the sum of the smaller probabilities; equal models refuse nothing."""
    target, draft = draw(2, 6, seed, ties=False, scale=1.0).softmax(-1)
    generator = torch.Generator().manual_seed(seed)
    words = torch.multinomial(draft, 40_000, replacement=True, generator=generator)
    both = target.repeat(40_000, 1), draft.repeat(40_000, 1)
    out = sampling.speculate(*both, words, generator)
    share = torch.minimum(target, draft).sum().item()
    assert (out == words).double().mean().item() == pytest.approx(share, abs=5 * 0.5 / 200)  # five standard errors
    chi = ((torch.bincount(out, minlength=6) - 40_000 * target).square() / (40_000 * target)).sum()
    assert chi < 25.7  # five degrees of freedom: once in ten thousand
    assert torch.equal(sampling.speculate(both[1], both[1], words, generator), words)


@pytest.mark.parametrize("ahead", [1, 2, 5])
def test_drafted_text_is_the_models_own(ahead):
    """Words that follow each other, against the model's probabilities: chi-square with 12 degrees of freedom."""
    table, poor = draw(4, 4, 1, ties=False, scale=1.0), draw(4, 4, 2, ties=False, scale=1.0)
    start, generator = torch.zeros(1, 1, dtype=torch.long), torch.Generator().manual_seed(0)
    out, _ = sampling.generate_with_draft(
        lambda t: table[t], lambda t: poor[t], start, 4000, ahead, generator=generator
    )
    pairs = torch.bincount(4 * out[0, :-1] + out[0, 1:], minlength=16).view(4, 4)
    wanted = pairs.sum(1, keepdim=True) * table.softmax(-1)
    assert ((pairs - wanted).square() / wanted).sum() < 39.1  # once in ten thousand


@pytest.mark.parametrize("ahead", [1, 3, 6])
def test_a_call_yields_as_many_words_as_predicted(ahead):
    """Every word with the same chance a of being accepted: a call yields (1 - a^(ahead + 1)) / (1 - a) words."""
    target, poor = draw(2, 5, 3, ties=False, scale=1.0)
    n, share = 4000, torch.minimum(target.softmax(-1), poor.softmax(-1)).sum().item()
    start, generator = torch.zeros(1, 1, dtype=torch.long), torch.Generator().manual_seed(0)
    _, calls = sampling.generate_with_draft(
        lambda t: target.expand(*t.shape, -1), lambda t: poor.expand(*t.shape, -1), start, n, ahead, generator=generator
    )
    predicted = (1 - share ** (ahead + 1)) / (1 - share)
    k = torch.arange(ahead + 1)
    chances = torch.where(k < ahead, (1 - share) * share**k, share**k)  # that k drafted words are accepted
    deviation = ((chances * (k + 1 - predicted) ** 2).sum() / calls).sqrt().item()
    assert n / calls == pytest.approx(predicted, abs=5 * deviation)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 99), n=st.integers(0, 9), ahead=st.integers(1, 5))
def test_drafts_that_leave_nothing_to_chance(seed, n, ahead):
    """At T = 0 the text is greedy's, whatever the draft; with itself as a draft a model refuses nothing."""
    table, poor = draw(6, 6, seed, ties=False), draw(6, 6, seed + 100, ties=False)
    start, greedy = torch.tensor([[seed % 6]]), [partial(sampling.temperature, T=0)]
    out, _ = sampling.generate_with_draft(lambda t: table[t], lambda t: poor[t], start, n, ahead, greedy)
    assert torch.equal(out, sampling.generate(lambda t: table[t], start, n, greedy))
    out, calls = sampling.generate_with_draft(lambda t: table[t], lambda t: table[t], start, n, ahead)
    assert out.shape == (1, 1 + n) and calls == math.ceil(n / (ahead + 1))


def test_a_rule_of_what_was_seen_is_for_every_drafted_word():
    """It is made for one text, (1, n), and holds at each place; chi-square with 6 degrees of freedom."""
    table, poor = draw(3, 3, 1, ties=False, scale=1.0), draw(3, 3, 2, ties=False, scale=1.0)
    chain = [partial(sampling.presence_penalty, seen=torch.tensor([[1]]), amount=2.0)]
    start, generator = torch.zeros(1, 1, dtype=torch.long), torch.Generator().manual_seed(0)
    out, _ = sampling.generate_with_draft(lambda t: table[t], lambda t: poor[t], start, 3000, 3, chain, generator)
    pairs = torch.bincount(3 * out[0, :-1] + out[0, 1:], minlength=9).view(3, 3)
    logits = table - 2 * torch.tensor([0.0, 1.0, 0.0])
    wanted = pairs.sum(1, keepdim=True) * logits.softmax(-1)
    assert ((pairs - wanted).square() / wanted).sum() < 27.9  # once in ten thousand


def test_half_a_vocabulary_of_a_hundred_thousand():
    """Float32 sums of many small shares: p = 1 cuts nothing, and no p cuts everything."""
    z = torch.randn(4, 100_000, generator=torch.Generator().manual_seed(0))
    assert sampling.top_p(z, 1.0).isfinite().all()
    for p in (0.0, 1e-9, 0.5, 1 - 1e-7):
        kept = sampling.top_p(z, p).isfinite().sum(-1)
        assert (kept >= 1).all()
        mass = z.double().softmax(-1).where(sampling.top_p(z, p).isfinite(), 0).sum(-1)
        assert (mass > p - 1e-4).all()  # 100,000 float32 additions round by 1e-7 each, at worst in one direction


def test_the_sweep_runs(monkeypatch, capsys):
    """Two chains, three short stories: the whole path, nothing written."""
    before = frontier_sweep.RESULTS.read_bytes()
    monkeypatch.setattr(sys, "argv", ["frontier_sweep.py", "--quick"])
    frontier_sweep.main()
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [row["chain"] for row in rows] == ["the world's own", "T 1", "greedy"]
    assert rows[0]["flawless"] == rows[0]["consistent"] == 1
    assert frontier_sweep.RESULTS.read_bytes() == before


def test_what_the_sweep_stored():
    """Each chain with three seeds, and the world's own stories, which have no flaw."""
    record = json.loads(frontier_sweep.RESULTS.read_text())
    chains = [row["chain"] for row in record["rows"]]
    assert set(chains) == {"the world's own", *frontier_sweep.CHAINS}
    assert len(chains) == 3 * (1 + len(frontier_sweep.CHAINS))
    assert all(row["flawless"] == 1 for row in record["rows"] if row["chain"] == "the world's own")
    assert {"command", "seconds", "date", "versions", "threads"} <= record.keys()


def test_four_grams():
    a, b, c, d, e = encode("Once Tom was in the")
    assert frontier_sweep.four_grams("Once Tom was in the") == [(a, b, c, d), (b, c, d, e)]
    assert frontier_sweep.four_grams("Once Tom was") == []


SOLVED = solutions(sampling, "sampling_vis.ipynb", torch=torch)


def test_the_exercises_solutions_pass_their_checks():
    """And an exercise that is not done fails."""
    assert examine(SimpleNamespace(**SOLVED), EXERCISES).healthy
    assert len(examine(SimpleNamespace(), EXERCISES).failed) == 3


@pytest.mark.parametrize(
    "wrong",
    [
        {"top_n_sigma": lambda z, n: sampling.keep(z, z >= z.mean(-1, keepdim=True) - n * z.std(-1, keepdim=True))},
        {"temperature_for": lambda z, nats: 1.0},
        {"frequency_penalty": sampling.presence_penalty},
    ],
)
def test_wrong_answers_to_the_exercises_are_refused(wrong):
    """Near misses: from the mean in place of the best, no search, once for all."""
    assert examine(SimpleNamespace(**SOLVED | wrong), EXERCISES).failed
