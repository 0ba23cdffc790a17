"""Lesson 01's experiments: what moves cuts, what a language costs, and bits per byte at equal compute."""

import math

import bits_sweep
import bits_training
import bpe
import bpe_trial
import pytest
from bpe_texts import DIALOGUE, PARAGRAPHS, SENTENCES, WATER


def test_tie_rules_differ_in_ties_alone():
    """Of "ab" and "cd", as frequent, one rule takes the first, the other the last; a clear winner is both rules'."""
    first, last = (learn(["ab", "cd"], 2) for learn in (bpe.learn_from_distinct, bpe_trial.larger_ids_win))
    assert first == last[::-1] == [bpe.spell("ab"), bpe.spell("cd")]
    for learn in (bpe.learn_from_distinct, bpe_trial.larger_ids_win):
        assert learn(["xyxy", "cd", "ab"], 1) == [bpe.spell("xy")]
        assert learn(["ab"], 5) == [bpe.spell("ab")]


def test_halves_are_a_text_without_its_last_tenth():
    text = "\n\n".join(f"paragraph {i:02}" for i in range(100))  # nine tenths end within a word
    one, other = bpe_trial.halves(text, seed=3)
    whole = text[: int(0.9 * len(text))].split("\n\n")
    assert sorted(one.split("\n\n") + other.split("\n\n")) == sorted(whole)
    assert bpe_trial.halves(text, 3, 0.5)[0] == one[: len(one) // 2]
    assert bpe_trial.halves(text, 4) != (one, other)


def test_renamed_letters_change_nothing_where_the_pattern_names_none():
    for pattern in (None, bpe_trial.NO_CONTRACTIONS):
        assert bpe_trial.surviving(DIALOGUE, pattern, seed=1, n=60) == 1
    assert bpe_trial.surviving("it's he's let's " * 9, bpe.GPT2, seed=1, n=4) < 1


def test_price_is_tokens_over_tokens(monkeypatch):
    """By bytes alone, a language costs its bytes; and equal texts cost the same."""
    monkeypatch.setattr(bpe_trial, "SENTENCES", [(english, english) for english, _ in SENTENCES])
    assert bpe_trial.price(0, 400, bpe.GPT2) == 1
    monkeypatch.setattr(bpe_trial, "SENTENCES", [("a b", "a b a b ")] * 40)
    assert bpe_trial.price(0, 256, bpe.GPT2) == pytest.approx(8 / 3)


def test_marks_leave_words_whole():
    """With marks in words no word of a sentence is cut, and texts without marks are split as before."""
    for name, text in WATER.items():
        words = [word.strip(".।,") for word in text.split()]
        for word in words if "NFD" not in name else ():
            assert bpe.split(word, bpe_trial.WITH_MARKS) == [word]
    for name in ("English", "code", "German"):
        assert bpe.split(PARAGRAPHS[name], bpe_trial.WITH_MARKS) == bpe.split(PARAGRAPHS[name])


@pytest.fixture(scope="module")
def few_stories():
    """The sweep's tokenizers and held-out stories, and less to read."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bits_training, "STORIES", 700)  # more than the tokenizers learn from
        for cached in (bits_training.texts, bits_training.arms):
            cached.cache_clear()
        assert len(bits_training.texts()[0]) > bits_training.LEARN_FROM
        yield bits_training.arms()
    for cached in (bits_training.texts, bits_training.arms):
        cached.cache_clear()


def test_arms_hold_the_same_text(few_stories):
    for arm in few_stories.values():
        assert arm.tokenizer.decode(arm.unseen.tolist()) == bits_training.texts()[1]
        assert arm.context * arm.bytes_per_token == pytest.approx(bits_training.WINDOW, rel=0.02)
    late = few_stories["1,024, across spaces late"].tokenizer
    within = few_stories["1,024"].tokenizer
    assert late.merges[:512] == within.merges[:512]
    assert all(b" " not in token[1:] for token in late.vocab[256:768])
    assert sum(b" " in token[1:] for token in late.vocab[768:]) > 200


def test_bits_per_byte_of_guessing(few_stories, monkeypatch):
    """A model that gives each token the same probability loses log2(vocabulary) for each, spread over its bytes."""
    arm = few_stories["512"]
    monkeypatch.setattr(bits_training, "fit", lambda model, *args, **settings: model.embedding.weight.data.zero_())
    found = bits_training.bits_per_byte(arm, steps=1, rate=0.01, seed=0)
    n = (len(arm.unseen) - 1) // arm.context * arm.context
    size = sum(len(arm.tokenizer.vocab[i]) for i in arm.unseen[1 : n + 1].tolist())
    assert found == pytest.approx(n * math.log2(512) / size, rel=1e-5)


def test_equal_compute_is_equal(few_stories):
    """Steps times operations of a step, to the half of a step that rounding allows."""
    cheapest = few_stories[bits_sweep.CHEAPEST].flops_per_step
    for name, steps in bits_sweep.STEPS.items():
        for budget, n in zip(bits_sweep.BUDGETS, steps, strict=True):
            assert (
                abs(n * few_stories[name].flops_per_step - budget * cheapest) <= 0.5 * few_stories[name].flops_per_step
            )
