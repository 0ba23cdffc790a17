"""The small world of the clinic's caller: letters, and what a response is worth. A base model of it in two seconds.

    "b c"  ->  "d e f ."

A text goes on with the next letter of the alphabet, or with any other, and ends at some time with ".". A response is
worth the number of different vowels in it, and 1 less if it did not end.
"""

import copy
import functools
import random

import torch

from shared.tiny_lm import TinyLM
from shared.training import fit, initialise_by_fan_in

LETTERS = ".abcdefghij"
END, VOWELS = 0, {LETTERS.index(vowel) for vowel in "aei"}
CONTEXT = 24
IGNORE = -100  # what PyTorch's cross entropy leaves out


def words(ids) -> str:
    """Tokens as they are read."""
    return "".join(LETTERS[int(i)] for i in ids)


def worth(said) -> float:
    """Of a response, a list of tokens."""
    return len(VOWELS & set(said)) - float(said[-1] != END)


def prompt(draw: random.Random) -> list[int]:
    """One letter to three."""
    return [draw.randrange(1, len(LETTERS)) for _ in range(draw.randint(1, 3))]


def text(draw: random.Random, length: int) -> list[int]:
    """A text of up to `length` tokens: the next letter half of the time, else any, the end every sixth time."""
    said = prompt(draw)
    while len(said) < length and said[-1] != END:
        any_letter = draw.randrange(1, len(LETTERS))
        said.append(END if draw.random() < 1 / 6 else draw.choice((said[-1] % (len(LETTERS) - 1) + 1, any_letter)))
    return said[:length]


def rows(draw: random.Random, n: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Texts, and what follows each token, twice (n, length)."""
    texts = [text(draw, length + 1) for _ in range(n)]
    inputs = [(said[:-1] + [END] * length)[:length] for said in texts]
    targets = [(said[1:] + [IGNORE] * length)[:length] for said in texts]
    return torch.tensor(inputs), torch.tensor(targets)


@functools.cache
def _trained() -> TinyLM:
    draw = random.Random(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = TinyLM(len(LETTERS), CONTEXT, 32, 1, 4)
        initialise_by_fan_in(model)
    fit(model, lambda: rows(draw, 32, 12), 200, 1e-2, label=None)
    return model


def base_model() -> TinyLM:
    """A model of the texts: a copy of its own for each caller."""
    return copy.deepcopy(_trained())
