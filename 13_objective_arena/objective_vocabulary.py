"""Which ids are words and which are special, texts of any lengths as one tensor, and chance."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Vocabulary:
    """The ids of words, one after another, and of what is special.

    padding: fills a row up; it is never seen and never asked for. mask: stands for a hidden word. end: ends a middle.
    marks: what stands before a prefix, a suffix and a middle. sentinels: what stands for the first hidden span, the
    second and so on; n spans need n + 1. Raises ValueError if an id has two meanings.
    """

    words: range
    padding: int
    mask: int
    end: int
    marks: tuple[int, int, int]
    sentinels: Sequence[int] = ()

    def __post_init__(self):
        special = [self.padding, self.mask, self.end, *self.marks, *self.sentinels]
        if twice := [i for i in special if special.count(i) > 1 or i in self.words or i < 0]:
            raise ValueError(f"special id {twice[0]} is another's too, or negative: words are {self.words}")

    @property
    def size(self) -> int:
        """How many ids a model must know."""
        return 1 + max(self.words.stop - 1, self.padding, self.mask, self.end, *self.marks, *self.sentinels)

    def sentinel(self, i: int) -> int:
        """What stands for the i-th hidden span, from 0. Raises ValueError if there are too few."""
        if i >= len(self.sentinels):
            raise ValueError(f"sentinel {i} of {len(self.sentinels)}: n hidden spans need n + 1 sentinels")
        return self.sentinels[i]

    def is_word(self, tokens: torch.Tensor) -> torch.Tensor:
        """True where a token is a word, and not special."""
        return (tokens >= self.words.start) & (tokens < self.words.stop)


def numbered(n_words: int, n_sentinels: int = 0) -> Vocabulary:
    """Words first, from 0, then what is special.

    numbered(100, 4): padding 100, mask 101, end 102, marks 103 to 105, sentinels 106 to 109
    """
    n = n_words
    return Vocabulary(range(n), n, n + 1, n + 2, (n + 3, n + 4, n + 5), range(n + 6, n + 6 + n_sentinels))


def padded(texts: Sequence[Sequence[int]], vocabulary: Vocabulary) -> torch.Tensor:
    """Texts of any lengths as one tensor, (B, longest)."""
    longest = max(map(len, texts))
    return torch.tensor([[*text, *[vocabulary.padding] * (longest - len(text))] for text in texts])


def rows_of(tokens: torch.Tensor, vocabulary: Vocabulary) -> list[list[int]]:
    """The texts without their padding."""
    return [[token for token in row if token != vocabulary.padding] for row in tokens.tolist()]


def check_share(name: str, share: float) -> None:
    """Raise ValueError for a number that is no share of a whole: 15 % is 0.15."""
    if not 0 < share <= 1:
        raise ValueError(f"{name} is {share}: expected a number above 0, at most 1")


def by_chance(name: str, share: float, shape: Sequence[int], generator: torch.Generator | None) -> torch.Tensor:
    """True with probability `share`, each by itself. name: what the share is called, if it is refused."""
    check_share(name, share)
    return torch.rand(*shape, generator=generator) < share
