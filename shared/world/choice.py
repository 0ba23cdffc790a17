"""A place in a text where one of several words comes next, each with its weight."""

import functools
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Protocol

from shared.world.words import LISTS


class Choice:
    """Words of which one comes next.

    words: what is offered, each once. weights: whole numbers; a word's probability is its share of their total.
    among: what a speaker of the language could say here. rule: what is broken by saying one of those that is not
    offered, a key of `shared.world.judge.RULES`. bounds: the running sums of the weights, the last one is the total.
    """

    __slots__ = ("among", "bounds", "rule", "total", "weights", "words")

    def __init__(self, words: Sequence[str], weights: Sequence[int], among: Iterable[str] = (), rule: str = ""):
        self.words, self.weights, self.among, self.rule = words, weights, among, rule
        self.bounds = list(accumulate(weights))
        self.total = self.bounds[-1] if self.bounds else 0

    @property
    def probabilities(self) -> dict[str, float]:
        """Each word's probability."""
        return {word: weight / self.total for word, weight in zip(self.words, self.weights, strict=True)}


class Voice(Protocol):
    """Who a document is told by: a writer draws the words, a reader has them already."""

    def say(self, words: str) -> None:
        """Words that stand here in any case."""

    def tell(self, word: str | None, kind: str, rule: str) -> str:
        """The one word of a kind that is true here, by what was said before or by who somebody is; it is returned."""

    def pick(self, choice: Choice) -> str:
        """One of several words; it is returned."""


def even(words: Sequence[str], among: Iterable[str] = (), rule: str = "") -> Choice:
    """Any of the words, all alike."""
    return Choice(words, (1,) * len(words), among, rule)


@functools.cache
def fixed(word: str) -> Choice:
    """A place where the grammar leaves one word."""
    return even((word,))


@functools.cache
def told(word: str | None, kind: str, rule: str) -> Choice:
    """A place where one word of a kind is true, by what was said before or who somebody is; None: any of the kind."""
    return even((word,) if word else LISTS[kind], LISTS[kind], rule)


@functools.cache
def but(word: str, words: tuple[str, ...], rule: str) -> Choice:
    """Any of the words but one."""
    return even(tuple(each for each in words if each != word), words, rule)


class Reading:
    """A voice that has the words already: whatever is said to it, it picks its own next word."""

    def say(self, words: str) -> None:
        """Pick each of the words."""
        for word in words.split(" "):
            self.pick(fixed(word))

    def tell(self, word: str | None, kind: str, rule: str) -> str:
        """Pick where one word of a kind is true."""
        return self.pick(told(word, kind, rule))


class Ended(Exception):  # noqa: N818  not an error of the program
    """Raised by a voice that reads when it has no more words."""


class Lost(Exception):  # noqa: N818  not an error of the program
    """Raised by a sentence that goes on from something that cannot be, so that nobody can say what comes next."""
