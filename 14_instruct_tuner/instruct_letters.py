"""The small world of the clinic's caller: letters, and what may be done with one. A base model of it in two seconds.

    "twice c"  ->  "c c"

A text for the base is one such line after the other, as in "twice c = c c ; next a = b ;". In a conversation a user
says "twice c" and the assistant "c c". A model that knows the lines can be tuned to obey in a few dozen steps.
"""

import copy
import functools
import random

import torch

from shared.tiny_lm import TinyLM
from shared.training import fit, initialise_by_fan_in

LETTERS = "abcdefgh"
VERBS = ("same", "next", "twice", "thrice")
NAMES = ("<text>", "<begin>", "<start>", "<end>", "system", "user", "assistant", "=", ";", *VERBS, *LETTERS)
TEXT, BEGIN, START, END, SYSTEM, USER, ASSISTANT, IS, LINE_END = range(9)
FIRST_VERB, FIRST = 9, 9 + len(VERBS)
CONTEXT = 64


def words(ids) -> str:
    """Tokens as they are read."""
    return " ".join(NAMES[int(i)] for i in ids)


def answer(question: list[int]) -> list[int]:
    """What a question, a verb and a letter, asks for."""
    verb, letter = question[0] - FIRST_VERB, question[1] - FIRST
    return [FIRST + (letter + (verb == 1)) % len(LETTERS)] * (1, 1, 2, 3)[verb]


def questions(draw: random.Random, n: int) -> list[list[int]]:
    """n at random."""
    return [[FIRST_VERB + draw.randrange(len(VERBS)), FIRST + draw.randrange(len(LETTERS))] for _ in range(n)]


def talk(asked: list[list[int]]) -> list[tuple[str, list[int]]]:
    """The messages of a conversation with these questions and their answers."""
    return [message for question in asked for message in (("user", question), ("assistant", answer(question)))]


def lines(draw: random.Random, rows: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of the base's text, and what follows each token: twice (rows, length)."""
    texts = [
        [token for asked in questions(draw, length) for token in (*asked, IS, *answer(asked), LINE_END)][:length]
        for _ in range(rows)
    ]
    whole = torch.tensor([[BEGIN, *text] for text in texts])
    return whole[:, :-1], whole[:, 1:]


@functools.cache
def _trained(steps: int) -> TinyLM:
    draw = random.Random(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = TinyLM(len(NAMES), CONTEXT, 32, 2, 4)
        initialise_by_fan_in(model)
    fit(model, lambda: lines(draw, 16, 24), steps, 1e-2, label=None)
    return model


def base_model(steps: int = 200) -> TinyLM:
    """A model of the base's texts: a copy of its own for each caller."""
    return copy.deepcopy(_trained(steps))
