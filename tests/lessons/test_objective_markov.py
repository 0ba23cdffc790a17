"""Lesson 13: what each objective can reach on a Markov chain, against sums over all its texts."""

import functools
import itertools

import numpy as np
import objective_markov as markov
import objectives
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from objective_vocabulary import numbered
from small_models import EXACT, FLOAT
from torch.nn import functional as F

T, V = 5, 3
TEXTS = torch.tensor(list(itertools.product(range(V), repeat=T)))
CHAIN = markov.random_chain(V, generator=torch.Generator().manual_seed(0))


def probabilities(chain=CHAIN):
    """Of each text, by its definition."""
    p = [
        chain.first[text[0]] * np.prod([float(chain.step[a, b]) for a, b in itertools.pairwise(text)])
        for text in TEXTS.tolist()
    ]
    return torch.stack(p)


def table(visible, t, p):
    """P(word t | the words of each text at `visible`), by summing over all texts that agree with it: (texts, V)."""
    agree = (TEXTS[:, None, visible] == TEXTS[:, visible]).all(dim=-1) * p
    return agree @ F.one_hot(TEXTS[:, t], V).to(p) / agree.sum(dim=1, keepdim=True)


@functools.cache
def entropy(visible, t):
    """H(word t | words at `visible`) by sums over all texts."""
    p = probabilities()
    visible = list(visible)
    return p @ -table(visible, t, p)[torch.arange(len(TEXTS)), TEXTS[:, t]].log()


def test_one_sided_and_two_sided_losses():
    others = [[s for s in range(T) if s != t] for t in range(T)]
    for found, visible in (
        (markov.left_losses(CHAIN, T), [list(range(t)) for t in range(T)]),
        (markov.right_losses(CHAIN, T), [list(range(t + 1, T)) for t in range(T)]),
        (markov.two_sided_losses(CHAIN, T), others),
        (markov.span_losses(CHAIN, T, 1, 4), [[], [0, 4], [0, 1, 4], [0, 1, 2, 4]]),
        (markov.span_losses(CHAIN, T, 2, 5), [[], [], [0, 1], [0, 1, 2], [0, 1, 2, 3]]),
        (markov.span_losses(CHAIN, T, 0, 2), [[2, 3, 4], [0, 2, 3, 4]]),
    ):
        first = len(visible) - len(found)  # spans are given with what stands before them
        wanted = [entropy(tuple(visible[t]), t) for t in range(first, len(visible))]
        torch.testing.assert_close(found, torch.stack(wanted), **EXACT)


@pytest.mark.parametrize("rate", [0.0, 0.15, 0.6, 1.0])
def test_masked_loss_is_the_mean_over_all_masks(rate):
    total = 0.0
    for t in range(T):
        others = [s for s in range(T) if s != t]
        for shown in itertools.product((False, True), repeat=T - 1):
            p = rate ** shown.count(False) * (1 - rate) ** shown.count(True)
            total += p * entropy(tuple(s for s, it in zip(others, shown, strict=True) if it), t) / T
    assert markov.masked_loss(CHAIN, T, rate) == pytest.approx(float(total), abs=1e-9)


@settings(max_examples=20, deadline=None)
@given(words=st.integers(1, 6), T=st.integers(1, 8), sharpness=st.floats(0, 4), seed=st.integers(0, 999))
def test_what_holds_for_every_chain(words, T, sharpness, seed):
    """Both sides never cost more than one; left to right and right to left ask as much; so does masking over all rates
    (a polynomial of degree below 2 T, which T nodes integrate exactly)."""
    chain = markov.random_chain(words, sharpness, torch.Generator().manual_seed(seed))
    left, right = markov.left_losses(chain, T), markov.right_losses(chain, T)
    both = markov.two_sided_losses(chain, T)
    assert (both <= torch.minimum(left, right) + 1e-9).all()
    torch.testing.assert_close(left.sum(), right.sum(), **EXACT)
    nodes, weights = np.polynomial.legendre.leggauss(T)
    over_rates = sum(w / 2 * markov.masked_loss(chain, T, (1 + x) / 2) for x, w in zip(nodes, weights, strict=True))
    assert over_rates == pytest.approx(float(left.mean()), abs=1e-9)


def test_posteriors_are_those_of_all_texts():
    p = probabilities()
    for code in range(2**T):
        visible = torch.tensor([bool(code >> t & 1) for t in range(T)])
        found = markov.posteriors(CHAIN, TEXTS, visible.expand(len(TEXTS), -1))
        for t in range(T):
            others = [s for s in range(T) if visible[s] and s != t]
            torch.testing.assert_close(found[:, t], table(others, t, p), **EXACT)
    hidden = torch.zeros(2, T, dtype=torch.bool)
    unseen = markov.posteriors(CHAIN, torch.full((2, T), 99), hidden)
    torch.testing.assert_close(unseen[0], CHAIN.marginals(T), **EXACT)


def test_long_texts_do_not_underflow():
    chain = markov.random_chain(30, 6.0, torch.Generator().manual_seed(1))
    text = markov.sample(chain, 2, 3000, torch.Generator().manual_seed(2))
    found = markov.posteriors(chain, text, torch.arange(3000).expand(2, -1) % 3 > 0)
    assert found.isfinite().all()
    torch.testing.assert_close(found.sum(dim=-1), torch.ones(2, 3000, dtype=FLOAT), **EXACT)


def test_a_perfect_model_reaches_these_losses_by_the_objectives():
    """Over 20,000 texts, to five standard errors: also the weights of diffusion, whose loss is the chain rule's."""
    generator = torch.Generator().manual_seed(3)
    vocabulary = numbered(V)
    texts = markov.sample(CHAIN, 20_000, T, generator)
    left = markov.left_losses(CHAIN, T)
    causal = objectives.causal(texts, vocabulary)
    following = torch.cat([CHAIN.step[texts], torch.zeros(*texts.shape, vocabulary.size - V, dtype=FLOAT)], dim=-1)
    cases = [
        (causal, following, left[1:].mean()),
        (objectives.prefix(texts, vocabulary, torch.full((len(texts),), 3)), following, left[3:].mean()),
    ]
    for batch, wanted in (
        (objectives.masked(texts, vocabulary, 0.3, generator, 1.0, 0.0), markov.masked_loss(CHAIN, T, 0.3)),
        (objectives.diffusion(texts, vocabulary, generator), left.mean()),
    ):
        answers = markov.posteriors(CHAIN, texts, batch.targets == objectives.IGNORE)
        cases.append((batch, F.pad(answers, (0, vocabulary.size - V)), wanted))
    for batch, p, wanted in cases:
        logits = p.clamp(min=1e-300).log()
        by_text = (objectives.losses(logits, batch) * batch.weights).sum(dim=1)
        found = objectives.objective_loss(logits, batch)
        excess = by_text - wanted * batch.weights.sum(dim=1)
        error = excess.std() / len(texts) ** 0.5 / batch.weights.sum(dim=1).mean()
        assert abs(found - wanted) < 5 * error
