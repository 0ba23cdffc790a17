"""Pre-tokens: the published patterns that cut a text before any pair is counted, and what finds their matches.

GPT2 is that of GPT-2 (Radford et al. 2019), GPT4 that of cl100k (GPT-4), GPT4O that of o200k (GPT-4o), each as OpenAI
first published it. (tiktoken 0.14 has a faster cl100k, which takes white space at the end of a text as one.)
"""

import functools
import re
from collections.abc import Callable

import regex

GPT2_PIECES = {  # what each alternative matches: the pattern; the first that fits is taken
    "'s, 't, 'll and their like": r"'(?:[sdmt]|ll|ve|re)",
    "letters, with the space before them": r" ?\p{L}+",
    "digits, with the space before them": r" ?\p{N}+",
    "other signs, with the space before them": r" ?[^\s\p{L}\p{N}]+",
    "white space up to the last before a word": r"\s+(?!\S)",
    "white space": r"\s+",
}
GPT4_PIECES = {
    "'s, 'T, 'Ll and their like": r"'(?i:[sdmt]|ll|ve|re)",
    "letters, with one sign or space before them": r"[^\r\n\p{L}\p{N}]?\p{L}+",
    "digits, three at most": r"\p{N}{1,3}",
    "other signs, with the space before and the line ends behind": r" ?[^\s\p{L}\p{N}]+[\r\n]*",
    "white space up to its last line end": r"\s*[\r\n]+",
    "white space up to the last before a word": r"\s+(?!\S)",
    "white space": r"\s+",
}
_UPPER, _LOWER = (
    r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]",
    r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]",
)  # \p{M}: marks, as Hindi's vowel signs
_ENDING = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
GPT4O_PIECES = {
    "capitals, then small letters, with one sign or space before and 's or its like behind": (
        rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_ENDING}"
    ),
    "capitals, with the same before and behind": rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_ENDING}",
    "digits, three at most": r"\p{N}{1,3}",
    "other signs, with the space before and line ends or / behind": r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
    "white space up to its last line end": r"\s*[\r\n]+",
    "white space up to the last before a word": r"\s+(?!\S)",
    "white space": r"\s+",
}
GPT2, GPT4, GPT4O = ("|".join(pieces.values()) for pieces in (GPT2_PIECES, GPT4_PIECES, GPT4O_PIECES))
LINE = r"[^\n]+|\n+"  # no model's: a pre-token is a line, and merges cross spaces
KNOWN = (GPT2, GPT4, GPT4O)  # of these it is known how far they look ahead

# Each of the three begins a new pre-token at a single space between two signs that are no white space, whatever stands
# around it. So a text may be cut there into stretches, and what was made of a stretch can be remembered. (Python's own
# `re` takes a few more characters for white space than `regex` does, and so cuts at fewer places.)
STRETCH = re.compile(r"\s*\S+(?:(?! \S)\s+\S+)*(?:\s+\Z)?|\s+")


def split(text: str, pattern: str | None = GPT2) -> list[str]:
    """The pre-tokens of a text, which no merge crosses: the pattern's matches, or the whole text for None.

    Raises ValueError if the pattern leaves something out, which nobody could decode.
    """
    if pattern is None:
        return [text] if text else []
    if not isinstance(pattern, str):
        raise ValueError(f"the pattern {pattern!r} is none: expected a str, or None")
    pieces = _finder(pattern)(text)
    if missing := len(text) - len("".join(pieces)):
        raise ValueError(f"the pattern {pattern!r} leaves out {missing} characters of a text: append |(?s:.) to it")
    return pieces


@functools.cache
def _finder(pattern: str) -> Callable[[str], list[str]]:
    """What finds all matches of a pattern. Raises ValueError for a pattern that is none, or that has groups."""
    try:
        compiled = regex.compile(pattern)
    except regex.error as error:
        raise ValueError(f"the pattern {pattern!r} is none: {error}") from error
    if compiled.groups:
        raise ValueError(f"the pattern {pattern!r} has groups: write (?:...) in place of (...)")
    return compiled.findall
