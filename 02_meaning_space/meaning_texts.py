"""The two texts that lesson 02 learns words from, as sentences of ids, and what is known of their words.

The story world is English of a small grammar, whose word lists tell each word's kind. The documentation that comes with
Python is real English, and differs a little between Python versions; of it we know which topic a paragraph is from.
"""

import functools
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from pydoc_data.topics import topics

import torch

from shared.world import Config, split, stories
from shared.world.words import COUNTRY_OF, GROWN_UP, KIND, PLURAL

KINDS = ["first name", "last name", "town", "country", "kin", "noun", "job", "food", "animal", "object", "plural"]
KINDS += ["colour", "material", "place", "glad", "cross"]
RELATIONS = {"capital : country": COUNTRY_OF, "young : grown": GROWN_UP, "one : many": dict(list(PLURAL.items())[:20])}
WORLD, STORIES = Config(story=1, facts=8), 9000
LISTS = """one two three four five · for while if else elif try except finally with · left right · true false none
int float complex bool str bytes list tuple dict set · return raise assert yield import
valueerror typeerror keyerror indexerror attributeerror nameerror runtimeerror oserror"""
LABELS = (32, 448)  # how many paragraphs a classifier learns from: 4 of each topic on average, and 70 % of all
RATED = {name: Path(__file__).with_name(f"rated_pairs{name}.txt") for name in ("", "_later")}


@dataclass(frozen=True)
class Text:
    """sentences: ids. words: by id. ids: of words."""

    sentences: list[torch.Tensor]
    words: list[str]
    ids: dict[str, int]


def as_ids(sentences: Sequence[Sequence[str]], least: int = 1) -> Text:
    """Words become numbers, in alphabetical order; words that occur less than `least` times are left out."""
    counts = Counter(word for sentence in sentences for word in sentence)
    words = sorted(word for word, n in counts.items() if n >= least)
    ids = {word: i for i, word in enumerate(words)}
    rows = [torch.tensor([ids[word] for word in sentence if word in ids], dtype=torch.long) for sentence in sentences]
    return Text(rows, words, ids)


@functools.lru_cache(maxsize=2)
def world_text(seed: int, n: int = STORIES) -> Text:
    """n documents of the story world; a full stop or a question mark ends a sentence."""
    sentences = [[]]
    for word in split("".join(story.text for story in stories(n, seed, WORLD))):
        if word in (".", "?"):
            sentences.append([])
        elif word.strip():
            sentences[-1].append(word)
    return as_ids([sentence for sentence in sentences if sentence])


def kinds_of(words: Sequence[str]) -> tuple[list[int], torch.Tensor]:
    """The ids of the words that have one of KINDS, and the number of it."""
    named = [i for i, word in enumerate(words) if KIND.get(word) in KINDS]
    return named, torch.tensor([KINDS.index(KIND[words[i]]) for i in named])


@functools.cache
def paragraphs() -> list[tuple[str, list[str]]]:
    """Each paragraph of Python's documentation: its topic, and its words in small letters."""
    return [
        (name, re.findall(r"[a-z][a-z_]+", paragraph.lower()))
        for name in sorted(topics)
        for paragraph in re.split(r"\n\s*\n", topics[name])
    ]


@functools.cache
def docs_text() -> Text:
    """The paragraphs as sentences, words that occur ten times or more."""
    text = as_ids([words for _, words in paragraphs()], least=10)
    return Text([ids for ids in text.sentences if len(ids) > 1], text.words, text.ids)


def own_lists(text: Text) -> dict[int, int]:
    """The words of seven lists, made by hand, that can take each other's place: id -> number of its list."""
    lists = enumerate(re.split("·|\n", LISTS))
    return {text.ids[word]: number for number, line in lists for word in line.split() if word in text.ids}


@functools.cache
def labelled() -> tuple[torch.Tensor, torch.Tensor]:
    """How often each word stands in each paragraph of the eight topics that have most, (n, V), and the topic, (n,).

    Paragraphs of eight words or more, none of them twice.
    """
    ids = docs_text().ids
    rows = [(name, tuple(ids[word] for word in words if word in ids)) for name, words in paragraphs()]
    copies = Counter(words for _, words in rows)
    rows = [(name, words) for name, words in rows if len(words) >= 8 and copies[words] == 1]
    largest = [name for name, _ in Counter(name for name, _ in rows).most_common(8)]
    rows = [(largest.index(name), torch.tensor(words)) for name, words in rows if name in largest]
    tally = torch.stack([torch.bincount(words, minlength=len(ids)) for _, words in rows])
    return tally.double(), torch.tensor([name for name, _ in rows])


def rated_pairs(which: str = "") -> list[tuple[str, str, int, int]]:
    """Pairs of words, how alike the two are, and how much the one makes think of the other, 0 to 6 each.

    which: "" for sixty pairs of words of the story world, "_later" for forty-three others.
    """
    rows = [line.split() for line in RATED[which].read_text(encoding="utf-8").splitlines()]
    return [(a, b, int(alike), int(together)) for a, b, alike, together in rows]
