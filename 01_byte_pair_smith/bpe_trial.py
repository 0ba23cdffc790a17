"""The claim on trial: what moves a tokenizer's cuts, the text that is counted or a decision of people.

    moves(seed=2, size=1024, share=0.25)["across spaces"].drift     # same text, same number of merges
    price(seed=2, size=1024, pattern=bpe.GPT2)                      # of Hindi, in tokens of the same text in English
    surviving(DIALOGUE, bpe.GPT2, seed=2)                           # merges, after letters were renamed

Every function draws by its seed and nothing else.
"""

import importlib
import inspect
import random
import string
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import bpe
from bpe_drift import drift, within_words
from bpe_patterns import LINE
from bpe_texts import PARAGRAPHS, SENTENCES

from shared.corpus import python_docs
from shared.texts import OWN, texts

MODULES = ["argparse", "ast", "difflib", "doctest", "inspect", "pickle", "tarfile", "typing", "zipfile"]
WITH_MARKS = (  # GPT-2's pattern, but a vowel sign or an accent goes with its letter
    bpe.GPT2.replace(r"?\p{L}+", r"?[\p{L}\p{M}]+").replace(r"[^\s\p{L}\p{N}]", r"[^\s\p{L}\p{M}\p{N}]")
)
NO_CONTRACTIONS = "|".join(list(bpe.GPT2_PIECES.values())[1:])  # GPT-2's pattern without its first alternative


@cache
def prose() -> str:
    """Python's documentation: English, with code in it."""
    return python_docs()


@cache
def code() -> str:
    """The source of some of Python's own modules, at most as long."""
    return "\n\n".join(inspect.getsource(importlib.import_module(name)) for name in MODULES)[: len(prose())]


def unread(text: str) -> str:
    """The last tenth of a text, from which nothing is learnt."""
    return text[int(0.9 * len(text)) :]


def halves(text: str, seed: int, share: float = 1.0) -> tuple[str, str]:
    """Two halves of a text's first nine tenths, each a random choice of paragraphs; `share` of each half."""
    paragraphs = text[: int(0.9 * len(text))].split("\n\n")
    random.Random(seed).shuffle(paragraphs)
    half = len(paragraphs) // 2
    both = "\n\n".join(paragraphs[:half]), "\n\n".join(paragraphs[half:])
    return tuple(each[: int(share * len(each))] for each in both)


def larger_ids_win(pieces: Iterable[str], n: int) -> list[str]:
    """`bpe.learn_from_distinct` with another rule for ties: of the most frequent pairs the one with the larger ids."""
    words, merges = Counter(map(bpe.spell, pieces)), []
    while len(merges) < n and (counts := bpe.count_pairs(words)):
        merges.append(max(counts, key=lambda pair: (counts[pair], pair)))
        changed = Counter()
        for word, often in words.items():
            changed[bpe.merge(word, merges[-1], chr(255 + len(merges)))] += often
        words = changed
    return merges


@dataclass(frozen=True)
class Move:
    """A tokenizer beside the first one: drift over all cuts and within words, and its tokens over the first one's."""

    drift: float
    within_words: float
    tokens: float


def moves(seed: int, size: int, share: float, ties: bool = False) -> dict[str, Move]:
    """How far the cuts of unread prose move from those of a tokenizer of `size` tokens learnt from half of the prose.

    Changed is the text ("other half", "code", "other English": this course's own texts, and as a control for their
    size "other half, as little") or, with the same half, a decision: the pattern ("GPT-4's pattern", "across spaces"),
    the size of the vocabulary ("half the vocabulary") or, if asked for, the rule for ties ("ties").
    """
    half, other = halves(prose(), seed, share)
    first = bpe.train(half, size)
    little = "\n\n".join(texts()[name] for name in OWN)
    changed = {
        "other half": bpe.train(other, size),
        "code": bpe.train(halves(code(), seed, share)[0], size),
        "other half, as little": bpe.train(other[: len(little)], size),
        "other English": bpe.train(little, size),
        "GPT-4's pattern": bpe.train(half, size, bpe.GPT4),
        "across spaces": bpe.train(half, size, LINE),
        "half the vocabulary": bpe.Tokenizer(first.merges[: size // 2 - 256]),
    }
    if ties:
        changed["ties"] = bpe.train(half, size, learn=larger_ids_win)
    text = unread(prose())
    tokens = len(first.encode(text))
    return {
        name: Move(drift(first, each, text), within_words(first, each, text), len(each.encode(text)) / tokens)
        for name, each in changed.items()
    }


def price(seed: int, size: int, pattern: str, docs: int = 0) -> float:
    """Tokens of Hindi over those of English in ten sentences that say the same, by a tokenizer that has learnt from the
    other thirty and the paragraph, in both languages, and from `docs` characters of Python's documentation."""
    drawn = random.Random(seed).sample(SENTENCES, len(SENTENCES))
    learn_from = [text for pair in drawn[:30] for text in pair] + [PARAGRAPHS["English"], PARAGRAPHS["Hindi"]]
    tokenizer = bpe.train([*learn_from, prose()[:docs]], size, pattern)
    english, hindi = (sum(len(tokenizer.encode(text)) for text in texts) for texts in zip(*drawn[30:], strict=True))
    return hindi / english


def surviving(text: str, pattern: str, seed: int, n: int = 200) -> float:
    """The share of n merges that are learnt again, renamed, after the letters a to z of a text were renamed at random.

    Ties go to the pair that stands first, since the rule of ids knows the letters.
    """
    letters = string.ascii_lowercase
    rename = str.maketrans(letters, "".join(random.Random(seed).sample(letters, len(letters))))
    before = {_spelt(pair).translate(rename) for pair in _first_seen(bpe.split(text, pattern), n)}
    now = {_spelt(pair) for pair in _first_seen(bpe.split(text.translate(rename), pattern), n)}
    return len(before & now) / len(before)


def _first_seen(pieces: list[str], n: int) -> list[tuple[str, str]]:
    """n merges of texts, each two strings, by recounting; of the most frequent pairs the one that stands first wins."""
    words, merges = [list(piece) for piece in pieces], []
    while len(merges) < n:
        counts = Counter(pair for word in words for pair in pairwise(word))
        if not counts:
            break
        merges.append(max(counts, key=counts.get))
        words = [_merged(word, merges[-1]) for word in words]
    return merges


def _merged(word: list[str], pair: tuple[str, str]) -> list[str]:
    merged = []
    for token in word:
        if merged and (merged[-1], token) == pair:
            merged[-1] += token
        else:
            merged.append(token)
    return merged


def _spelt(pair: tuple[str, str]) -> str:
    return "\0".join(pair)
