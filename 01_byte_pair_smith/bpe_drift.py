"""Token drift: how differently two tokenizers cut one text. 0: at the same places; 1: at no place in common.

drift(a, b, text)               # over all cuts: mostly those that a pattern makes
within_words(a, b, text)        # over the cuts that only merges decide
"""

from itertools import accumulate

from bpe import Tokenizer, split


def boundaries(tokenizer: Tokenizer, text: str) -> set[int]:
    """Where one token ends and the next begins, in bytes from the start of the text; its two ends are none."""
    ends = accumulate(len(tokenizer.vocab[i]) for i in tokenizer.encode(text))
    return set(ends) - {len(text.encode())}


def borders(text: str, pattern: str | None) -> set[int]:
    """Where one of the pattern's pre-tokens ends and the next begins, counted as in `boundaries`."""
    ends = accumulate(len(piece.encode()) for piece in split(text, pattern))
    return set(ends) - {len(text.encode())}


def drift(a: Tokenizer, b: Tokenizer, text: str) -> float:
    """1 - F1 of two tokenizers' boundaries in a text: F1 is 2 * those in common / (those of a + those of b)."""
    return _distance(boundaries(a, text), boundaries(b, text))


def within_words(a: Tokenizer, b: Tokenizer, text: str) -> float:
    """`drift` over the boundaries at which neither tokenizer's pattern begins a pre-token.

    Both patterns' borders are left out of both tokenizers' boundaries: what one pattern cuts is no choice of merges,
    even if the other's merges cut there, too. 0 if nothing is left, as in a text of words that are one token each.
    """
    given = borders(text, a.pattern) | borders(text, b.pattern)
    return _distance(boundaries(a, text) - given, boundaries(b, text) - given)


def _distance(ours: set[int], theirs: set[int]) -> float:
    return 1 - 2 * len(ours & theirs) / (len(ours) + len(theirs)) if ours or theirs else 0.0
