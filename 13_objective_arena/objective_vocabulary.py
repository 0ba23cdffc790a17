"""Which ids are words and which are special, and texts of any lengths as one tensor."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Vocabulary:
    """Which ids are words, 0 to n_words - 1, and which are special, all that follow.

    Vocabulary(100, n_sentinels=4): padding 100, mask 101, end 102, prefix 103, suffix 104, middle 105, sentinels 106
    to 109; size 110.
    """

    n_words: int
    n_sentinels: int = 0

    @property
    def padding(self) -> int:
        """Fills a row up; it is never seen and never asked for."""
        return self.n_words

    @property
    def mask(self) -> int:
        """Stands for a hidden word."""
        return self.n_words + 1

    @property
    def end(self) -> int:
        """Ends a middle that was written."""
        return self.n_words + 2

    @property
    def marks(self) -> tuple[int, int, int]:
        """What stands before the prefix, the suffix and the middle."""
        return self.n_words + 3, self.n_words + 4, self.n_words + 5

    @property
    def size(self) -> int:
        """How many ids there are."""
        return self.n_words + 6 + self.n_sentinels

    def sentinel(self, i: int) -> int:
        """What stands for the i-th hidden span, from 0. Raises ValueError if there are too few."""
        if not 0 <= i < self.n_sentinels:
            raise ValueError(f"sentinel {i} of {self.n_sentinels}: n spans need n + 1, choose a larger n_sentinels")
        return self.n_words + 6 + i

    def is_word(self, tokens: torch.Tensor) -> torch.Tensor:
        """True where a token is a word, and not special."""
        return tokens < self.n_words


def padded(texts: Sequence[Sequence[int]], vocabulary: Vocabulary) -> torch.Tensor:
    """Texts of any lengths as one tensor, (B, longest)."""
    longest = max(map(len, texts))
    return torch.tensor([[*text, *[vocabulary.padding] * (longest - len(text))] for text in texts])


def rows_of(tokens: torch.Tensor, vocabulary: Vocabulary) -> list[list[int]]:
    """The texts without their padding."""
    return [[token for token in row if token != vocabulary.padding] for row in tokens.tolist()]
