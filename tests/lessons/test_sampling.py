"""Lesson 07's rules against transformers, exact distributions, and each other. (Its clinic: test_clinics.py.)"""

import math
from functools import partial
from types import SimpleNamespace

import frontier_sweep
import pytest
import sampling
import torch
from folded import solutions
from hypothesis import given, settings
from hypothesis import strategies as st
from sampling_checks import EXERCISES
from transformers import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from shared.clinic import examine
from shared.generation import generate, seeded
from shared.rotary import RotaryAttention, no_positions
from shared.tiny_lm import TinyLM
from shared.world.words import encode

shapes = {"batch": st.integers(1, 3), "words": st.integers(2, 40), "seed": st.integers(0, 9999), "ties": st.booleans()}


def draw(batch, words, seed, ties, scale=2.0):
    """Random logits, float64; with ties they are whole numbers."""
    z = scale * torch.randn(batch, words, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return z.round() if ties else z


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


CHAINS = [
    [],
    [partial(sampling.temperature, T=1.4), partial(sampling.min_p, p=0.05)],
    [partial(sampling.top_p, p=0.9)],
    [partial(sampling.temperature, T=0)],
]


@pytest.mark.parametrize("chain", CHAINS)
def test_generate_is_the_shared_loop(chain):
    """The readable loop and the one that everything else uses: the same seeds, the same words. One reads all again, the
    other reads from a cache; in float64 their probabilities differ by 1e-12, too little to move one of 240 draws."""
    torch.manual_seed(0)
    model = TinyLM(30, 24, 16, 2, 2, attention=RotaryAttention, positions=no_positions).double()
    model.embedding.weight.data *= 20  # a model with preferences
    rule = lambda logits, said: sampling.through(chain, logits)  # noqa: E731
    for seed in range(3):
        wanted = sampling.generate(model, torch.tensor([[3, 1]]), 20, chain, torch.Generator().manual_seed(seed))
        found = generate(model, [[3, 1]], 20, rules=[rule], generators=seeded([seed]))
        assert found == wanted[:, 2:].tolist()


@pytest.mark.parametrize(
    "penalty", [partial(sampling.repetition_penalty, penalty=1.5), partial(sampling.presence_penalty, amount=0.7)]
)
def test_penalties_spare_padding_and_refuse_what_does_not_fit(penalty):
    """-1 is no word, so that a shorter text may stand beside a longer one; another batch and strange ids are named."""
    z = draw(2, 6, 0, ties=False)
    seen = torch.tensor([[-1, -1, 3], [5, 2, 2]])
    found = penalty(z, seen)
    assert torch.equal(found[:1], penalty(z[:1], torch.tensor([[3]])))
    assert torch.equal(found[1:], penalty(z[1:], torch.tensor([[5, 2]])))
    assert torch.equal(penalty(z, torch.full((2, 4), -1)), z)
    for wrong in (seen[:1], torch.tensor([[0], [6]]), torch.tensor([[0], [-2]])):
        with pytest.raises(ValueError, match="expected a row for each row, of ids below 6, or -1 for no word"):
            penalty(z, wrong)


def test_no_cut_hides_a_model_that_broke():
    """A NaN among the logits is there after any cut, and refused at the draw."""
    z = torch.tensor([[0.3, math.nan, 0.1, 2.0]])
    for rule in (partial(sampling.top_k, k=2), partial(sampling.top_p, p=0.5), partial(sampling.min_p, p=0.1)):
        with pytest.raises(ValueError, match="the model broke"):
            sampling.draw(rule(z))


@pytest.mark.parametrize(("n", "shape"), [(-3, (1, 2)), (3, (1, 0)), (3, (4,))])
def test_generate_refuses_what_it_cannot_go_on_from(n, shape):
    with pytest.raises(ValueError, match="expected 0 or more, and"):
        sampling.generate(lambda t: t, torch.zeros(shape, dtype=torch.long), n)


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


def test_the_worlds_own_stories_have_no_flaw():
    found = frontier_sweep.scores(frontier_sweep.world_stories(5, 0))
    assert found["flawless"] == found["consistent"] == found["grammatical"] == 1


def test_four_grams():
    a, b, c, d, e = encode("Once Tom was in the")
    assert frontier_sweep.four_grams("Once Tom was in the") == [(a, b, c, d), (b, c, d, e)]
    assert frontier_sweep.four_grams("Once Tom was") == []


SOLVED = solutions(sampling, "sampling_vis.ipynb", torch=torch)


def test_the_exercises_solutions_pass_their_checks():
    """And an exercise that is not done fails."""
    assert examine(SimpleNamespace(**SOLVED), EXERCISES).passes
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
