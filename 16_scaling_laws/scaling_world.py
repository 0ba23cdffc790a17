"""Two sources whose entropy is known: facts about people who are named by Zipf's law, and the story world.

    world = Facts(exponent=1.5)
    world.floor                                 # nats per token that no model can cross
    x, y = world.draw(16, generator)            # (16, 64) ids and the next ones
    world.above_floor(model)                    # how far a model's expected loss is above the floor, nats per token

A text of `Facts` is sentences of four words, one after another: first name, last name, verb, answer. Sentences are
drawn by themselves: the person by rank ** -exponent, the verb evenly; the answer is the person's own, drawn once. So
verbs and names have an entropy that is known, and an answer has none for a model that knows the person. Of the people
of rank r a text tells in proportion to r ** -exponent: a few stand in it often, very many seldom.
"""

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from shared.world import HELD_OUT, STORY, VOCABULARY, held_out_rows, rows, true_distributions

FIRST, LAST, VERBS, ANSWERS = 64, 64, 4, 32  # names, verbs, and answers for each verb
SENTENCES, WORDS = 16, 4  # in a row; in a sentence
ASKED = 512  # rows of text that a model is measured on
KINDS = ("first name", "last name", "verb", "answer")


@dataclass(frozen=True)
class Facts:
    """Facts about people. exponent: of the law by which they are named. people: at most 4,096, a name each. seed: draws
    who is called how, and the answers. Raises ValueError for more people than names."""

    exponent: float
    people: int = FIRST * LAST
    seed: int = 0

    vocab_size = 1 + FIRST + LAST + VERBS + VERBS * ANSWERS  # 0 begins a row
    context = SENTENCES * WORDS

    def __post_init__(self):
        if not 1 <= self.people <= FIRST * LAST:
            raise ValueError(f"people is {self.people}: expected 1 to {FIRST * LAST}, as many as there are names")

    @functools.cached_property
    def names(self) -> torch.Tensor:
        """First and last name of each rank, (people, 2)."""
        pairs = torch.randperm(FIRST * LAST, generator=torch.Generator().manual_seed(self.seed))[: self.people]
        return torch.stack([pairs // LAST, pairs % LAST], dim=1)

    @functools.cached_property
    def answers(self) -> torch.Tensor:
        """What each person's answer to each verb is, (people, VERBS)."""
        return torch.randint(ANSWERS, (self.people, VERBS), generator=torch.Generator().manual_seed(self.seed + 1))

    @functools.cached_property
    def shares(self) -> torch.Tensor:
        """How often each person is named, (people,) float64."""
        weights = torch.arange(1, self.people + 1, dtype=torch.float64) ** -self.exponent
        return weights / weights.sum()

    @functools.cached_property
    def floor(self) -> float:
        """A sentence's entropy for each of its tokens: who, and which verb; the answer follows."""
        who = -(self.shares * self.shares.log()).sum().item()
        return (who + math.log(VERBS)) / WORDS

    def draw(self, n: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """n rows as x and y, (n, 64) ids each; x begins with 0, y is one token later."""
        size = (n, SENTENCES)
        at = torch.rand(size, generator=generator, dtype=torch.float64)
        who = torch.searchsorted(self.shares.cumsum(0), at).clamp_max(self.people - 1)  # (n, SENTENCES)
        verb = torch.randint(VERBS, size, generator=generator)
        first, last = self.names[who].unbind(-1)
        words = (
            first,
            FIRST + last,
            FIRST + LAST + verb,
            FIRST + LAST + VERBS + verb * ANSWERS + self.answers[who, verb],
        )
        y = 1 + torch.stack(words, dim=-1).flatten(1)
        return torch.cat([torch.zeros(n, 1, dtype=torch.long), y[:, :-1]], dim=1), y

    def stream(self, seed: int, n: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Endless batches of n rows."""
        generator = torch.Generator().manual_seed(seed)
        while True:
            yield self.draw(n, generator)

    def truth(self, y: torch.Tensor) -> torch.Tensor:
        """The true next-token probabilities at each place of rows y (n, 64): (n, 64, vocab_size) float32."""
        joint = torch.zeros(FIRST, LAST, dtype=torch.float64)
        joint[self.names[:, 0], self.names[:, 1]] = self.shares
        first = joint.sum(dim=1)  # (FIRST,)
        last = (joint / first.clamp_min(1e-300)[:, None]).float()  # given the first name
        lasts, verbs = 1 + FIRST, 1 + FIRST + LAST
        result = torch.zeros(*y.shape, self.vocab_size)
        result[:, 0::WORDS, 1:lasts] = first.float()
        result[:, 1::WORDS, lasts:verbs] = last[y[:, 0::WORDS] - 1]
        result[:, 2::WORDS, verbs : verbs + VERBS] = 1 / VERBS
        return result.index_put_(
            (torch.arange(len(y))[:, None], torch.arange(3, self.context, WORDS), y[:, 3::WORDS]), torch.tensor(1.0)
        )

    @functools.cached_property
    def _asked(self) -> tuple[torch.Tensor, torch.Tensor]:
        x, y = self.draw(ASKED, torch.Generator().manual_seed(HELD_OUT))
        return x, self.truth(y)

    def above_floor(self, model: nn.Module) -> list[float]:
        """A model's divergence from the truth, nats per token, at each of the four places of a sentence (`KINDS`), over
        512 rows that no training sees. Its loss is the floor and their mean."""
        at = divergences(model, *self._asked)  # (ASKED, 64)
        return at.view(ASKED, SENTENCES, WORDS).mean(dim=(0, 1)).tolist()


@dataclass(frozen=True)
class Stories:
    """The story world's documents (`shared.world`), of 1,000 people: to tell of a person again one reads back."""

    vocab_size = len(VOCABULARY)
    context = 128
    held_out = 128  # rows

    @functools.cached_property
    def _asked(self) -> tuple[torch.Tensor, torch.Tensor]:
        x, _, _ = held_out_rows(self.held_out, self.context, HELD_OUT, STORY)
        return x, torch.stack([true_distributions(row, STORY).float() for row in x])

    @functools.cached_property
    def floor(self) -> float:
        """The entropy of the next token, the mean over the places where models are measured."""
        true = self._asked[1].double()
        return -torch.xlogy(true, true).sum(-1).mean().item()

    def stream(self, seed: int, n: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Endless batches of n rows as x and y, (n, 128) ids each."""
        drawn = rows(self.context, seed, STORY)
        while True:
            both = torch.stack([next(drawn) for _ in range(n)])
            yield both[:, :-1], both[:, 1:]

    def above_floor(self, model: nn.Module) -> list[float]:
        """A model's divergence from the truth, nats per token, the mean over rows that no training sees."""
        return [divergences(model, *self._asked).mean().item()]


@torch.no_grad()
def divergences(model: nn.Module, x: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    """KL(true || model) in nats at each place: x (n, T), true (n, T, vocabulary) -> (n, T)."""
    parts = []
    for ids, p in zip(x.split(64), true.split(64), strict=True):
        parts.append((torch.xlogy(p, p) - p * model(ids).log_softmax(-1)).sum(-1))
    return torch.cat(parts)


WORLDS = {"steep": Facts(1.5), "flat": Facts(1.0), "stories": Stories()}


@functools.cache
def world(name: str) -> Facts | Stories:
    """A world by its name, one for all that ask. Raises ValueError for a name that there is not."""
    if name not in WORLDS:
        raise ValueError(f"world {name!r}: expected one of {list(WORLDS)}")
    return WORLDS[name]
