"""The checks of lesson 01's exercises: functions that the helper does not have."""

import random
from collections import Counter

from bpe_cases import PROSE, drawn_words

from shared.clinic import Check


def _numbers(word):
    return [ord(token) for token in word]


def _check_digits(m):
    text = "1234567 nails, 12 bars, x1000y, ٣٤٥٦"
    wanted = ["1", "234", "567", "12", "1", "000", "٣", "٤٥٦"]
    if m.DIGITS_FROM_THE_RIGHT == r"...":
        return "not written yet"
    if m.regex.compile(m.DIGITS_FROM_THE_RIGHT).groups:
        return "the pattern has groups that capture: write (?:...) in place of (...)"
    if (found := m.regex.findall(m.DIGITS_FROM_THE_RIGHT, text)) != wanted:
        return f"found {found}, expected {wanted}"


def _check_dropout(m):
    ranks = {pair: rank for rank, pair in enumerate(m.bpe.learn_by_recounting(drawn_words(8, 200), 40))}
    chance = random.Random(0)
    for word in map(m.bpe.spell, drawn_words(9, 30)):
        if (found := m.encode_with_dropout(word, ranks, 0.0, chance)) != (wanted := m.bpe.encode_word(word, ranks)):
            return f"dropping nothing, {word!r} became {_numbers(found)}, expected {_numbers(wanted)}"
        if (found := m.encode_with_dropout(word, ranks, 1.0, chance)) != word:
            return f"dropping each merge, {word!r} became {_numbers(found)}, expected itself"
    merged = sum(m.encode_with_dropout("ab", {"ab": 0}, 0.25, chance) == "\u0100" for _ in range(4000)) / 4000
    if abs(merged - 0.75) > 0.035:  # five standard deviations
        return f"'ab' was merged in {merged:.3f} of 4000 draws, expected 0.75 where a quarter is dropped"
    draws = Counter(m.encode_with_dropout("aaa", {"aa": 0}, 0.5, chance) for _ in range(4000))
    for found, wanted in (("\u0100a", 0.5), ("a\u0100", 0.25), ("aaa", 0.25)):
        if abs(draws[found] / 4000 - wanted) > 0.04:
            return f"'aaa' became {_numbers(found)} in {draws[found] / 4000:.3f} of 4000 draws, expected {wanted}"


def _check_heal(m):
    tokenizer = m.bpe.train(PROSE, 330, specials=["it<|end|>"])
    for prompt in ("It's said that the smith's appren", "they'll weigh ", "価格は", "it"):
        *before, last = tokenizer.encode(prompt)
        kept, may = m.heal(tokenizer, prompt)
        if list(kept) != before:
            return f"{prompt!r}: kept {kept}, expected all tokens but the last: {before}"
        wanted = {i for i, token in enumerate(tokenizer.vocab[:330]) if token[: len(tokenizer.vocab[last])]
                  == tokenizer.vocab[last]}  # fmt: skip
        if set(may) != wanted:
            return f"{prompt!r}: {len(set(may))} tokens may follow, expected the {len(wanted)} that begin with the last"


EXERCISES = [
    Check("digits are grouped in threes from the right", _check_digits, "At most three digits: how many may follow?"),
    Check(
        "each place of a merge is dropped with the chance that was given, at each step anew",
        _check_dropout,
        "Which places may be merged in this step, and which of those that are left goes first?",
    ),
    Check("a healed prompt may go on with what begins like its last token", _check_heal),
]
