"""Lesson 02: word vectors against independent references. (Its clinic: test_clinics.py.)"""

import math
import re
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import scipy
import skipgram
import torch
from folded import solutions
from gensim.models import Word2Vec
from hypothesis import given, settings
from hypothesis import strategies as st
from skipgram_checks import EXERCISES
from sklearn.metrics.pairwise import cosine_similarity
from torch.nn import functional as F

from shared.clinic import examine

V = 7
texts = st.lists(st.lists(st.integers(0, V - 1), max_size=9), min_size=1, max_size=5)


def as_tensors(text):
    """Lists of ids as the helper wants them."""
    return [torch.tensor(ids, dtype=torch.long) for ids in text]


@settings(max_examples=80, deadline=None)
@given(text=texts, window=st.integers(1, 6))
def test_counts_are_those_of_plain_loops(text, window):
    """Each pair of places in one sentence, weighed by its distance."""
    wanted = np.zeros((V, V))
    for ids in text:
        for i, j in ((i, j) for i in range(len(ids)) for j in range(len(ids)) if 0 < abs(i - j) <= window):
            wanted[ids[i], ids[j]] += (window - abs(i - j) + 1) / window
    found = skipgram.cooccurrence(as_tensors(text), V, window)
    np.testing.assert_allclose(found, wanted, atol=1e-12)  # sums of under 100 numbers of size 1 in float64


@settings(max_examples=40, deadline=None)
@given(text=texts, window=st.integers(1, 6), seed=st.integers(0, 99))
def test_pairs_are_some_of_the_full_window_and_all_neighbours(text, window, seed):
    """Whatever is drawn: neighbours always, nothing beyond the window, nothing twice."""
    centres, contexts = skipgram.pairs(as_tensors(text), window, torch.Generator().manual_seed(seed))
    found = Counter(zip(centres.tolist(), contexts.tolist(), strict=True))

    def within(reach):
        return Counter(
            (ids[i], ids[j])
            for ids in text
            for i in range(len(ids))
            for j in range(max(0, i - reach), min(len(ids), i + reach + 1))
            if i != j
        )

    assert within(1) <= found <= within(window)
    assert window > 1 or found == within(1)


def test_frequent_words_are_kept_as_gensim_keeps_them():
    """gensim follows word2vec.c; it stores the chance in units of 2^-32."""
    sentences = [["a"] * 60 + ["b"] * 25 + ["c"] * 10 + ["d"] * 4 + ["e"]] * 3
    model = Word2Vec(sentences, vector_size=2, min_count=1, sample=0.02, epochs=1)
    frequency = torch.tensor([180, 75, 30, 12, 3]).double()
    found = skipgram.keep_probability(frequency, 0.02).tolist()
    wanted = [min(1, model.wv.get_vecattr(word, "sample_int") / (2**32 - 1)) for word in "abcde"]
    assert found == pytest.approx(wanted, abs=1e-6)


def test_the_noise_is_gensims():
    """gensim stores the ends of the shares, in whole numbers up to 2^31 - 1."""
    model = Word2Vec([list("aaaaaabbbcce")], vector_size=2, min_count=1, epochs=1, negative=5)
    frequency = torch.tensor([model.wv.get_vecattr(word, "count") for word in model.wv.index_to_key]).double()
    found = skipgram.noise_distribution(frequency).cumsum(0).numpy()
    np.testing.assert_allclose(found, model.cum_table / model.cum_table[-1], atol=1e-6)


def test_a_word_without_share_is_never_drawn():
    """Also at either end, where a random point may fall on a bound."""
    drawn = skipgram.draw_negatives(torch.tensor([0.0, 0.5, 0.0, 0.5, 0.0]), 100_000, torch.Generator().manual_seed(0))
    assert set(drawn.tolist()) == {1, 3}


@pytest.mark.parametrize(("shape", "d"), [((9, 5), 3), ((5, 9), 1), ((40, 40), 3)])
def test_singular_values_are_scipys(shape, d):
    """Of matrices of any form; the vectors that belong to them are the clinic's to check."""
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    wanted = np.sort(scipy.sparse.linalg.svds(matrix.numpy(), k=d)[1])[::-1]
    found = skipgram.truncated_svd(matrix, d, rounds=300)[1]
    np.testing.assert_allclose(found, wanted, rtol=1e-6)  # what 300 rounds leave where neighbours are 0.95 as large


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 999), st.floats(1e-6, 1e6))
def test_cosines_are_sklearns(seed, length):
    """At any length, and with a row of zeros."""
    rows = length * torch.randn(6, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    rows[2] = 0
    np.testing.assert_allclose(skipgram.cosine(rows, rows), cosine_similarity(rows.numpy()), atol=1e-12)


def test_neighbours_and_analogies_are_gensims():
    """On the same vectors; gensim also leaves out the words it was given."""
    vectors = torch.randn(30, 8, generator=torch.Generator().manual_seed(0))
    model = Word2Vec([[str(i) for i in range(30)]], vector_size=8, min_count=1, epochs=1)
    model.wv.vectors[[model.wv.key_to_index[str(i)] for i in range(30)]] = vectors.numpy()
    model.wv.fill_norms(force=True)

    def theirs(**given):
        return [int(name) for name, _ in model.wv.most_similar(**given, topn=4)]

    for word in range(30):
        assert skipgram.nearest(vectors, word, 4) == theirs(positive=[str(word)])
    for a, b, c in ((0, 1, 2), (5, 9, 14), (20, 3, 7)):
        found = skipgram.analogy(vectors, *torch.tensor([[a], [b], [c]]), n=4)[0].tolist()
        assert found == theirs(positive=[str(b), str(c)], negative=[str(a)])


def test_the_optimum_is_pmi_minus_log_k():
    """Levy and Goldberg's matrix, by another road: at it, each slope of the expected loss is zero."""
    counts = torch.rand(8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.1
    counts = counts + counts.T
    noise = counts.sum(dim=0) / counts.sum()
    pmi = torch.log(counts * counts.sum() / torch.outer(counts.sum(dim=1), counts.sum(dim=0)))
    w, c = pmi - math.log(5), torch.eye(8, dtype=torch.float64)
    _, dw, dc = skipgram.expected_gradients(w, c, counts, noise, 5)
    assert max(dw.abs().max(), dc.abs().max()) < 1e-15
    _, dw, _ = skipgram.expected_gradients(w + 0.01, c, counts, noise, 5)
    assert dw.abs().max() > 1e-6


def test_the_same_seed_gives_the_same_vectors():
    sentences = as_tensors([[0, 1, 2, 3, 4], [5, 6, 0, 2]] * 20)
    first, again, other = (skipgram.train(sentences, V, 4, epochs=1, seed=seed)[0] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_training_survives_odd_texts():
    """One word, empty sentences, words that never occur: finite vectors, no hang."""
    for text in ([[0]], [[0, 0, 0]], [[], [1, 2]], [[3]] * 4):
        w, c = skipgram.train(as_tensors(text), V, 4, epochs=2)
        assert w.isfinite().all() and c.isfinite().all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: skipgram.one_hot(torch.tensor([7]), 7), "expected 0 to 6"),
        (lambda: skipgram.pairs([], 2, torch.Generator()), "no sentences"),
        (lambda: skipgram.cooccurrence(as_tensors([[0, 1]]), V, 0), "window is 0"),
        (lambda: skipgram.cooccurrence(as_tensors([[0, 9]]), V, 1), "expected 0 to 6"),
        (lambda: skipgram.train(as_tensors([[0, 1]]), V, k=0), "k is 0"),
        (lambda: skipgram.train(as_tensors([[0, 1]]), V, rate=math.nan), "rate is nan"),
        (lambda: skipgram.train(as_tensors([[0, -1]]), V), "expected 0 to 6"),
        (lambda: skipgram.truncated_svd(torch.eye(3), 4), "d is 4"),
        (lambda: skipgram.nearest(torch.eye(3), 3), "expected 0 to 2"),
        (lambda: skipgram.analogy(torch.eye(3), *torch.tensor([[0], [1], [-1]])), "expected 0 to 2"),
    ],
)
def test_bad_input_is_refused_in_words(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()


SOLVED = solutions(skipgram, "embedding_vis.ipynb", torch=torch, F=F)


def test_the_exercises_solutions_pass_their_checks():
    """And an exercise that is not done fails."""
    assert examine(SimpleNamespace(**SOLVED), EXERCISES).passes
    assert len(examine(SimpleNamespace(), EXERCISES).failed) == 3


@pytest.mark.parametrize(
    "wrong",
    [
        {"centred_cosine": lambda vectors: skipgram.cosine(vectors, vectors)},
        {"largest_hub": lambda similarity, n: similarity.topk(n).indices.flatten().bincount().max().item()},
        {"contrastive": lambda a, b, t: F.cross_entropy(skipgram.cosine(a, b) / t, torch.arange(len(a)))},
        {"contrastive": lambda a, b, t: F.cross_entropy(a @ b.T / t, torch.arange(len(a)))},
    ],
)
def test_wrong_answers_to_the_exercises_are_refused(wrong):
    """Near misses: the mean left on, the word itself counted, one direction only, dot products."""
    assert examine(SimpleNamespace(**SOLVED | wrong), EXERCISES).failed
