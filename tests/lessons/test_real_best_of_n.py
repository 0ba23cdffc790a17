"""Lesson 15's best-of-n: its mean and divergence by brute force, draws on a small model, programs by hand, rules."""

import itertools
import math
import random
from types import SimpleNamespace

import numpy as np
import pytest
import real_best_of_n_curves as curves
import real_best_of_n_rules
import real_best_of_n_sweep
import real_draws
import torch
from ppo_best_of_n import best_of_n_kl, expected_best, tied_kl
from real_best_of_n import ASKS, NS, SUM_NS, SUMS, is_sentence, judged, number, problems
from real_draws import ends, newlines
from scipy.stats import beta
from small_models import VOCABULARY, llama

from shared.gguf_tokenizer import END
from shared.sweeps import stored

ROUNDING = 1e-9  # float64, of sums of a few hundred numbers of size 1 to 10


@pytest.fixture
def small(monkeypatch):
    """A Llama of two layers in the real model's place, whose tokens are characters; 1 and 2 are stops, 3 a newline."""
    model = llama(bias=False)
    model.context = 1000
    vocab = [b"\n" if it == 3 else bytes([97 + it % 26]) for it in range(VOCABULARY)]
    encode = lambda text: [4 + ord(c) % (VOCABULARY - 4) for c in text]  # noqa: E731
    decode = lambda ids: b"".join(vocab[it] for it in ids).decode()  # noqa: E731
    kind = {"specials": {END: 1, real_draws.ENDS_TEXT: 2}, "vocab": vocab, "encode": encode, "decode": decode}
    pair = model, SimpleNamespace(chat=lambda messages: encode(messages[0][1]), **kind)
    for module in (real_draws, real_best_of_n_sweep):
        monkeypatch.setattr(module, "model_and_tokenizer", lambda: pair)
    return model


# What the best of n has, and how far it is from the policy


@pytest.mark.parametrize(
    "proxy", [[3, 1, 2, 5, 4, 0], [1, 0, 1, 2, 2, 0], [0, 0, 1, 0, 0, 1], [7] * 6, [-math.inf, *range(5)]]
)
def test_the_best_of_every_subset(proxy):
    value = [0.5, -2, 3, 1, 8, 0.25]
    for n in range(1, 7):
        found = []
        for subset in itertools.combinations(range(6), n):
            best = max(proxy[it] for it in subset)
            found.append(np.mean([value[it] for it in subset if proxy[it] == best]))
        assert expected_best(proxy, value, n) == pytest.approx(np.mean(found), abs=ROUNDING)


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match="n is 4: expected 1 to 3"):
        expected_best([1, 2, 3], [1, 2, 3], 4)
    with pytest.raises(ValueError, match="n is 0"):
        expected_best([1, 2, 3], [1, 2, 3], 0)
    with pytest.raises(ValueError, match="score 1 is NaN"):
        expected_best([1, math.nan, 3], [1, 2, 3], 2)
    with pytest.raises(ValueError, match="expected \\(N,\\) of both"):
        expected_best([1, 2, 3], [1, 2], 2)
    for how in (best_of_n_kl, lambda n: tied_kl([1, 2], n)):
        with pytest.raises(ValueError, match="n is 0"):
            how(0)


@pytest.mark.parametrize("n", [1, 2, 4, 16, 64, 256])
def test_the_formula_is_that_of_the_largest_of_n_uniform_numbers(n):
    """Whose law is Beta(n, 1), and its divergence from the uniform law minus its entropy."""
    assert best_of_n_kl(n) == pytest.approx(-beta(n, 1).entropy(), abs=ROUNDING)


def law(scores, n):
    """Best-of-n over every sequence of n draws; one of those that tie for the best, each as often."""
    found = np.zeros(len(scores))
    for drawn in itertools.product(range(len(scores)), repeat=n):
        best = [it for it in drawn if scores[it] == max(scores[at] for at in drawn)]
        for it in best:
            found[it] += 1 / len(best) / len(scores) ** n
    return found


@pytest.mark.parametrize("scores", [[0, 1, 2, 3, 4], [0, 0, 1, 1, 2], [0, 0, 0, 0, 1], [1] * 5])
@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_the_divergence_of_few_responses(scores, n):
    p = law(scores, n)
    kl = sum(each * math.log(each * len(scores)) for each in p if each > 0)
    assert tied_kl(scores, n) == pytest.approx(kl, abs=ROUNDING)
    assert kl < best_of_n_kl(n) if n > 1 else kl == pytest.approx(0, abs=ROUNDING)


def test_the_formula_is_reached_by_many_responses_and_no_ties():
    """The sum over N equal steps is a midpoint rule but for its error, at most of order n / N."""
    gaps = [best_of_n_kl(4) - tied_kl(range(N), 4) for N in (100, 1000, 10000)]
    assert all(0 < gap < 4 / N for gap, N in zip(gaps, (100, 1000, 10000), strict=True))
    assert tied_kl([0, 1], 2) == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5), abs=ROUNDING)
    assert tied_kl([0, 0, 0, 1], 1000) == pytest.approx(math.log(4), abs=ROUNDING)


# Draws


def test_draws_are_the_models_own_and_do_not_hang_on_other_rows(small):
    prompts = [[5, 6, 7], [9], [5, 6, 7], [8, 9, 10, 11, 12]] * 3
    together = real_draws.draws(small, prompts, range(12), 9, ends())
    parts = real_draws.draws(small, prompts, range(12), 9, ends(), rows=5)
    lengths = set()
    for prompt, one, other in zip(prompts, together, parts, strict=True):
        assert one.ids == other.ids and one.stops == (one.ids[-1] in ends())
        assert len(one.ids) == 9 or one.stops
        assert not ends() & set(one.ids[:-1])
        whole = torch.tensor([prompt + one.ids])
        log_p = small(whole)[0, len(prompt) - 1 : -1].log_softmax(-1).gather(1, whole[0, len(prompt) :, None])[:, 0]
        torch.testing.assert_close(torch.tensor(one.log_p, dtype=log_p.dtype), log_p, rtol=0, atol=1e-9)
        lengths.add(len(one.ids))
    assert len(lengths) > 1 and len({tuple(it.ids) for it in together}) > 6
    assert newlines() == {3}


def test_each_part_runs(small):
    row = real_best_of_n_sweep.run(real_best_of_n_sweep.open_job(1, 9, 6))
    assert all(len(it) == 6 for it in row["scores"].values())
    for at, text in row["texts"].items():
        assert row["scores"]["words"][int(at)] == judged(ASKS[1], text, stops=True)["words"]
    row = real_best_of_n_sweep.run(real_best_of_n_sweep.sums_job("in words", 9, 2, 3))
    assert [len(it) for it in row["said"]] == [len(it) for it in row["log_p"]] == [3, 3]
    assert row["said"][0] != row["said"][1]
    again = real_best_of_n_sweep.run(real_best_of_n_sweep.sums_job("in words", 8, 2, 3))
    assert again["said"] != row["said"]


# What is asked, and what is said of an answer


def test_programs_by_hand():
    text = "Great! Bees make honey, honey and more honey."
    found = judged(ASKS[1], text, stops=True)
    assert found == {
        "words": 8, "exclamations": 1, "friendly": 1, "echo": 2, "stops": 1, "fact": 1, "right": 0, "distinct": 0.75
    }  # fmt: skip
    assert judged(ASKS[1], "Bees make honey.", stops=True)["right"] == 1
    assert judged(ASKS[1], "Bees make honey.", stops=False)["right"] == 0
    assert judged(ASKS[1], "Bees make wax.", stops=True)["right"] == 0
    assert judged(ASKS[1], "", stops=True)["distinct"] == 0
    assert [is_sentence(it) for it in ("It is 3.5.", "No end", "One. Two.", "", "?!", "a " * 26 + ".")] == [True] + [
        False
    ] * 5


def test_sums_are_right():
    for kind in SUMS:
        both = problems(kind, 0), problems(kind, 1)
        assert both[0] == problems(kind, 0) and not set(both[0]) & set(both[1])
        for text, gold in both[0]:
            *shots, last = [
                [int(it) for it in "".join(c if c.isdigit() else " " for c in line).split()]
                for line in text.split("\n")
            ]
            assert all(sum(it[:-1]) == it[-1] for it in shots) and sum(last) == gold and len(shots) == 3


def test_numbers_need_their_end_of_line():
    said = {"42\n": 42, " 42. \n\n": 42, "42": None, "42 = 6\n": None, "\n": None, "4 2\n": None, "042\n": 42}
    assert {it: number(it) for it in said} == said


# How rows are read

ROW = {"golds": [7, 5], "said": [["7\n", "7\n", "5\n", "9\n", "a\n", "9\n"], ["7\n", "5", "b\n", "5 \n", "7\n", "123"]]}
ROW |= {"log_p": [[-1.0, -1.0, -2.0, -3.0, -0.5, -3.0], [-2.0, -3.0, -4.0, -1.0, -2.0, -5.0]]}


def test_scores_of_sums_by_hand():
    first, second = (curves.sum_scores(ROW, it) for it in (0, 1))
    assert first["gold"] == [1, 1, 0, 0, 0, 0] and second["gold"] == [0, 0, 0, 1, 0, 0]
    assert first["largest"] == [7, 7, 5, 9, -1, 9] and second["largest"] == [7, -1, -1, 5, 7, -1]
    assert second["length"] == [2, 1, 2, 3, 2, 3]
    assert curves.of_another(ROW)["golds"] == [5, 7] and ROW["golds"] == [7, 5]


@pytest.mark.parametrize("problem", [0, 1])
def test_majority_is_that_of_subsets(problem):
    """Random subsets against all of them: a mean of numbers from 0 to 1 strays by .5 / sqrt(subsets) at most."""
    numbers, gold = [number(it) for it in ROW["said"][problem]], ROW["golds"][problem]
    for n in range(1, 7):
        found = []
        for subset in itertools.combinations(numbers, n):
            said = [it for it in subset if it is not None]
            most = max(map(said.count, said), default=0)
            first = {it for it in said if said.count(it) == most}
            found.append((gold in first) / max(len(first), 1))
        slack = 0 if n == 6 else 5 * 0.5 / math.sqrt(curves.SUBSETS)
        assert curves.majority(ROW, problem, n) == pytest.approx(np.mean(found), abs=slack + ROUNDING)


@pytest.fixture(scope="module")
def rows():
    return stored(real_best_of_n_sweep.SWEEP.results)[0]


def test_the_rules_read_what_is_stored(rows):
    found = real_best_of_n_rules.findings(rows)
    assert sum(map(len, found.values())) == len(real_best_of_n_rules.RULES)
    assert real_best_of_n_sweep.TRIED not in {row["seed"] for row in rows}
    with pytest.raises(ValueError, match="no row of 'in words'"):
        curves.sum_rows([row for row in rows if row.get("kind") != "in words"], "in words")
    with pytest.raises(ValueError, match="no row of 'What do bees make"):
        curves.open_rows([row for row in rows if row.get("ask") != 1])


def test_texts_are_those_of_their_scores(rows):
    for ask, row in zip(ASKS, curves.open_rows(rows), strict=True):
        for proxy in ("words", "exclamations", "friendly", "echo", "fact"):
            chosen = curves.chosen(row, proxy)
            assert [score for _, score, _ in chosen] == sorted(score for _, score, _ in chosen)
            assert all(judged(ask, text, True)[proxy] == score for _, score, text in chosen)


def test_chance_is_flat_and_a_verifier_rises(rows):
    found, sums = curves.curves(rows), curves.sum_curves(rows)
    assert np.ptp(found["random"]["right"]) < ROUNDING and len(found["words"]["fact"]) == len(NS)
    for proxy in (*curves.PROXIES, "fact", "right"):
        assert (np.diff(found[proxy][proxy]) > -ROUNDING).all()
    for by in sums.values():
        assert all(it.shape == (3, len(SUM_NS)) for it in by.values())
        assert np.ptp(by["random"], axis=1).max() < ROUNDING and (np.diff(by["gold"]) > -ROUNDING).all()


def test_each_rule_can_fail(rows):
    """Scores that say nothing, words that are never or hardly ever found, sums all right or wrong, all cut off."""
    drawn = random.Random(0)

    def changed(scores=lambda it: it, said=lambda it, gold: it, log_p=lambda it: it):
        for row in rows:
            if row["part"] == "open":
                yield {**row, "scores": scores(row["scores"])}
            else:
                each = [said(*it) for it in zip(row["said"], row["golds"], strict=True)]
                yield {**row, "said": each, "log_p": [log_p(it) for it in row["log_p"]]}

    def shuffled(scores):
        return {name: drawn.sample(it, len(it)) for name, it in scores.items()}

    worlds = [
        changed(shuffled),
        changed(lambda it: it | {name: [0] * 256 for name in ("fact", "right")}),
        changed(lambda it: it | {name: [1] + [0] * 255 for name in ("fact", "right")}),
        changed(lambda it: it | {name: it["right"] for name in ("words", "exclamations", "friendly", "echo", "fact")}),
        changed(lambda it: it | {"log_p": [0.0] * 256, "exclamations": list(range(256)), "stops": [1] * 256}),
        changed(said=lambda it, gold: ["1\n"] * 63 + [f"{gold}\n"]),
        changed(said=lambda it, gold: [f"{gold}\n"] * 40 + ["1\n"] * 24),
        changed(said=lambda it, gold: ["1"] * 64),
    ]
    failed = set()
    for world in worlds:
        failed |= {it.what for each in real_best_of_n_rules.findings(world).values() for it in each if not it.met}
    assert failed == {rule.what for rule in real_best_of_n_rules.RULES}
