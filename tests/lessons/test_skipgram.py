"""Lesson 02: word vectors against independent references. (Its clinic: test_clinics.py.)"""

import math
import re
from collections import Counter
from types import SimpleNamespace

import meaning_rate_sweep
import meaning_tasks
import meaning_texts
import numpy as np
import pytest
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
from shared.world.words import KIND

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


def test_a_window_takes_time_by_the_text():
    """Not by itself: a window of a thousand million words is as quick as one of the longest sentence."""
    text, generator = as_tensors([[0, 1, 2], [3]]), torch.Generator().manual_seed(0)
    assert len(skipgram.pairs(text, 10**9, generator)[0]) <= 6
    assert skipgram.cooccurrence(text, V, 10**9).sum() == pytest.approx(6, abs=1e-6)


@pytest.mark.parametrize("score", [-1e4, -150.0, -1.0, 0.0, 20.0, 1e4])
@pytest.mark.parametrize(("dtype", "digits"), [(torch.float64, 1e-12), (torch.float32, 1e-6), (torch.float16, 2e-3)])
def test_losses_and_slopes_are_right_at_any_score(score, dtype, digits):
    """One negative and one true context with the same score: PyTorch's losses in float64, and the slopes -s(-x), s(x),
    of which PyTorch's own loss has few digits where s rounds to 1."""
    row = torch.tensor([[score]], dtype=dtype)
    at, targets = row.double().expand(1, 2), torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    wanted = F.binary_cross_entropy_with_logits(at, targets, reduction="sum").item()
    loss, _, dc, dn = skipgram.negative_gradients(torch.ones(1, 1, dtype=dtype), row, row[None])
    tiny = max(1e-300, 2 * torch.finfo(dtype).smallest_normal)
    assert loss.item() == pytest.approx(wanted, rel=digits)
    assert dc.item() == pytest.approx(-1 / (1 + math.exp(min(at[0, 0], 700))), rel=digits, abs=tiny)
    assert dn.item() == pytest.approx(1 / (1 + math.exp(min(-at[0, 0], 700))), rel=digits, abs=tiny)


@pytest.mark.parametrize("gap", [1.0, 104.0, 1e4])
def test_the_full_softmax_is_pytorchs_at_any_gap(gap):
    """In float32, where e^-104 is 0."""
    c = torch.tensor([[0.0], [gap], [-gap]])
    loss, _, dc = skipgram.softmax_gradients(torch.ones(1, 1), c, torch.tensor([0]), torch.tensor([0]))
    scores = c.T.clone().requires_grad_()
    wanted = F.cross_entropy(scores, torch.tensor([0]))
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-6)
    torch.testing.assert_close(dc[:, 0], torch.autograd.grad(wanted, scores)[0][0], rtol=1e-6, atol=1e-30)


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
        (lambda: skipgram.one_hot(torch.tensor([7]), 7), "0 to 6"),
        (lambda: skipgram.pairs([], 2, torch.Generator()), "no sentences"),
        (lambda: skipgram.cooccurrence(as_tensors([[0, 1]]), V, 0), "window is 0"),
        (lambda: skipgram.cooccurrence(as_tensors([[0, 9]]), V, 1), "0 to 6"),
        (lambda: skipgram.train(as_tensors([[0, 1]]), V, k=0), "k is 0"),
        (lambda: skipgram.train(as_tensors([[0, 1]]), V, rate=math.nan), "rate is nan"),
        (lambda: skipgram.train(as_tensors([[0, -1]]), V), "0 to 6"),
        (lambda: skipgram.one_hot(torch.tensor([1.5]), 7), "ids of torch.float32: expected whole numbers, 0 to 6"),
        (lambda: skipgram.keep_probability(torch.ones(3), -1e-3), "threshold is -0.001"),
        (lambda: skipgram.keep_probability(torch.ones(3), math.nan), "threshold is nan"),
        (lambda: skipgram.noise_distribution(torch.zeros(3)), "not all 0"),
        (lambda: skipgram.ppmi(torch.tensor([[-1.0, 2.0], [2.0, 0.0]])), "expected none below 0"),
        (lambda: skipgram.train(as_tensors([[0, 1]]), V, threshold=-1), "threshold is -1"),
        (lambda: skipgram.nearest(torch.eye(3), 0, 3), "expected 1 to 2"),
        (lambda: skipgram.analogy(torch.eye(4), *torch.tensor([[0], [1], [2]]), n=2), "expected 1 to 1"),
        (lambda: skipgram.nearest(torch.eye(3), 3), "0 to 2"),
        (lambda: skipgram.analogy(torch.eye(3), *torch.tensor([[0], [1], [-1]])), "0 to 2"),
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
        {"pooled": lambda table, rows: table[torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)].mean(dim=1)},
        {"glove_gradients": lambda *given: SOLVED["glove_gradients"](*given[:4], given[4] + 1e-3)},
        {"contrastive": lambda a, b, t: F.cross_entropy(skipgram.cosine(a, b) / t, torch.arange(len(a)))},
        {"contrastive": lambda a, b, t: F.cross_entropy(a @ b.T / t, torch.arange(len(a)))},
    ],
)
def test_wrong_answers_to_the_exercises_are_refused(wrong):
    """Near misses: a mean over padding, pairs that were never seen, one direction only, dot products."""
    assert examine(SimpleNamespace(**SOLVED | wrong), EXERCISES).failed


def test_scores_by_hand():
    """Lists, hubs, relations and topics of a handful of vectors."""
    similarity = torch.tensor([[9.0, 5, 1, 2], [5, 9, 1, 2], [6, 5, 9, 2], [5, 7, 1, 9]])
    assert meaning_tasks.largest_hub(similarity, 1) == 2  # nearest are 1, 0, 0, 1
    assert meaning_tasks.own_list(similarity, {0: 0, 1: 0, 2: 1}) == pytest.approx(2 / 3)
    people = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    vectors = torch.cat([people, people + 0.05])
    asked = meaning_tasks.questions(
        {"a": "A", "b": "B", "c": "C", "d": "D"}, {name: i for i, name in enumerate("abcdABCD")}
    )
    assert len(asked) == 12 and asked[0].tolist() == [0, 4, 1, 5]
    assert meaning_tasks.analogies(vectors, asked) == meaning_tasks.partner_alone(vectors, asked) == 1
    own, wrong = meaning_tasks.offsets(vectors, asked)
    assert own > 0.5 > wrong
    assert meaning_tasks.unbarred(people.repeat(2, 1), asked) < 1  # where partners are equal c itself comes first


def test_rescaling_leaves_the_model_as_it_is():
    w, c = torch.randn(2, 9, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64).unbind()
    other_w, other_c = meaning_tasks.rescaled(w, c, 1.0, seed=0)
    torch.testing.assert_close(other_w @ other_c.T, w @ c.T)
    assert (skipgram.cosine(other_w, other_w) - skipgram.cosine(w, w)).abs().max() > 0.1


def test_rated_pairs_are_pairs_with_two_ratings():
    """None twice, each rating 0 to 6; those of the first list are words of the story world."""
    first, later = (meaning_texts.rated_pairs(which) for which in ("", "_later"))
    assert (len(first), len(later)) == (60, 43)
    assert len({frozenset(row[:2]) for row in first + later}) == 103
    assert all(0 <= rating <= 6 for row in first + later for rating in row[2:])
    assert all(word in KIND for row in first for word in row[:2])


def test_no_best_rate_is_at_an_edge():
    """Of what the stored runs tried."""
    assert not [arm for arm, (_, at_edge) in meaning_rate_sweep.stored_best().items() if at_edge]
    rows = [{"d": 1, "steps": 2, "rate": rate, "shares": {"topics by 448": 0.5}} for rate in (1, 2, 4)]
    assert meaning_rate_sweep.best_rates(rows) == {(1, 2): (2, False)}
