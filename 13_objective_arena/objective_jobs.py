"""What every objective is asked in common, on the same held-out texts; what each writes is in `objective_stories`.

    one_word(model, arm, 96)    # a word of a kind, among all of its kind: the left given, and both sides
    probe(model, arm, 96)       # where the hero is, told by a linear map of the last state at each full stop

One word: a name, an age, a job, a place, a colour and so on stands at a random position; the candidates are the words
of its kind. The world's own law of them is known (`law`): "floor" is what it gives. See `objective_arms` for how each
objective is asked; those that read left to right answer for both sides by Bayes' rule.

Probe: the text is whole, nothing is hidden, and each reads it as it was trained to: from the left, from the right, or
both sides. What stands before a full stop is enough to know where the hero is. "most frequent" is what a map of nothing
tells.
"""

import functools
import math
import random
from collections.abc import Callable

import torch
from objective_arms import VOCABULARY, Arm
from objective_own_floors import lengths
from objective_world import WORLD, held_out, ids, names, words, words_of
from objectives import ask, losses, read
from torch import nn
from torch.nn import functional as F

from shared.hooks import hooked
from shared.world import nats, state
from shared.world.words import KIND, join

ASKED = ("first name", "last name", "age", "job", "town", "food", "animal", "object", "colour", "place", "pronoun")
PER_TEXT = 2  # positions


# One word


@functools.cache
def words_of_kind(kind: str) -> list[int]:
    """The ids of the words of a kind that this world has."""
    return [ids()[word] for word in words() if KIND[word] == kind]


@functools.cache
def places(n: int) -> list[tuple[torch.Tensor, int, list[int]]]:
    """PER_TEXT positions of each of the first n texts: the text without padding, the position, the candidates."""
    drawn, found = random.Random(0), []
    for row, length in zip(tokens := held_out(n), lengths(tokens), strict=True):
        text = row[:length]
        kinds = [KIND[names()[i]] for i in text.tolist()]
        for at in drawn.sample([at for at, kind in enumerate(kinds) if at and kind in ASKED], PER_TEXT):
            found.append((text, at, words_of_kind(kinds[at])))
    return found


def law(text: torch.Tensor, at: int, candidates: list[int], left: bool) -> torch.Tensor:
    """The log of the world's own law of a word among candidates, given what stands before it, or both sides."""
    said = words_of(text[: at + 1] if left else text)
    found = []
    for candidate in candidates:
        said[at] = names()[candidate]
        try:
            found.append(-math.fsum(nats(join(said), WORLD)))
        except ValueError:  # no story says this
            found.append(-math.inf)
    return torch.tensor(found, dtype=torch.float64).log_softmax(dim=0)


@torch.no_grad()
def answers(model: nn.Module, asked: Callable, text: torch.Tensor, at: int, candidates: list[int]) -> torch.Tensor:
    """The log of a model's law of a word among candidates. asked: an arm's `both` or `left`."""
    rows = text.repeat(len(candidates), 1)
    rows[:, at] = torch.tensor(candidates)
    batch = asked(rows, at)
    nats = (losses(read(model, batch), batch) * (batch.weights > 0)).sum(dim=1)
    return (-nats).log_softmax(dim=0)


def told(found: list[torch.Tensor], n: int) -> dict[str, float]:
    """Nats of the true word, and how often it is the likeliest, over the positions of the first n texts."""
    right = [candidates.index(text[at].item()) for text, at, candidates in places(n)]
    lost = [-log_p[it].item() for log_p, it in zip(found, right, strict=True)]
    hits = [log_p.argmax().item() == it for log_p, it in zip(found, right, strict=True)]
    return {"nats": round(math.fsum(lost) / len(lost), 4), "hit": round(sum(hits) / len(hits), 4)}


def one_word(model: nn.Module, arm: Arm, n: int) -> dict[str, dict[str, float]]:
    """With both sides, and with the left alone where an objective can read it."""
    sides = {"both": arm.both} | ({"left": arm.left} if arm.left else {})
    return {side: told([answers(model, asked, *it) for it in places(n)], n) for side, asked in sides.items()}


def one_word_floor(n: int) -> dict[str, dict[str, float]]:
    """What the world's own law gives."""
    return {side: told([law(*it, side == "left") for it in places(n)], n) for side in ("both", "left")}


# A linear probe


@functools.cache
def hero_places(first: int, n: int) -> list[tuple[int, int, int]]:
    """Of n texts from the first-th on: text, position of a full stop behind the opening, where the hero is then."""
    tokens, found = held_out(first + n), []
    kind = words_of_kind("place")
    for i in range(first, first + n):
        said = words_of(tokens[i])
        for at, word in enumerate(said):
            now = state(join(said[: at + 1]), WORLD) if word == "." else None
            if now and now.wish and ids().get(now.hero.place) in kind:
                found.append((i, at, kind.index(ids()[now.hero.place])))
    return found


@torch.no_grad()
def last_states(model: nn.Module, arm: Arm, tokens: torch.Tensor) -> torch.Tensor:
    """What the head is given when a whole text is read, nothing hidden: (B, T, C)."""
    kept, batch = [], ask(tokens, tokens, arm.reads(tokens.shape[1]), VOCABULARY)
    with hooked(model, {"norm": lambda x, layer: kept.append(x)}):
        read(model, batch)
    return kept[0]


def probe(model: nn.Module, arm: Arm, n: int) -> float:
    """The share of full stops at which a linear map, fitted to n texts, tells where the hero is in n others."""
    states = last_states(model, arm, held_out(2 * n))
    (x, y), (other_x, other_y) = (_examples(states, first, n) for first in (0, n))
    mean, scale = x.mean(dim=0), x.std(dim=0) + 1e-6
    linear = nn.Linear(x.shape[1], len(words_of_kind("place")))
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    optimizer = torch.optim.LBFGS(linear.parameters(), max_iter=60, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = F.cross_entropy(linear((x - mean) / scale), y) + 1e-2 * linear.weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    found = linear((other_x - mean) / scale).argmax(dim=1)
    return round((found == other_y).float().mean().item(), 4)


def _examples(states, first, n):
    text, at, place = (torch.tensor(it) for it in zip(*hero_places(first, n), strict=True))
    return states[text, at], place


def most_frequent(n: int) -> float:
    """The share that the most frequent place of the texts to fit has in the others."""
    fitted, others = ([place for _, _, place in hero_places(first, n)] for first in (0, n))
    return round(others.count(max(set(fitted), key=fitted.count)) / len(others), 4)
