"""What SmolLM2-135M-Instruct (4-bit weights) is asked for best-of-n, and programs that say what is right.

    judged(ASKS[0], "The capital of France is Paris.", stops=True)  # {"words": 6, "exclamations": 0, ..., "right": 1}
    text, gold = SUMS["two numbers"](random.Random(0))              # three solved sums and an open one; its result

`fact` and `right` look for words that were written down before anything was drawn: a program cannot tell a true
sentence from a false one in which the word stands. What a sum is has one answer.
"""

import random
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

# ---- open requests

SAMPLES, MOST = 256, 48  # responses to a request, and their tokens at most
NS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
SHORT = 25  # words that a short sentence has at most
FRIENDLY = ("great", "happy", "glad", "good", "love", "lovely", "wonderful", "beautiful", "nice", "amazing", "welcome")


class Ask(NamedTuple):
    """A request for one short sentence, and the words of which a right answer has one."""

    question: str
    fact: tuple[str, ...]

    @property
    def request(self) -> str:
        return f"{self.question} Answer in one short sentence."


ASKS = [
    Ask("What is the capital of France?", ("paris",)),
    Ask("What do bees make?", ("honey",)),
    Ask("Why is the sky blue?", ("scatter", "scatters", "scattered", "scattering")),
    Ask("Which gas in the air do we need to breathe?", ("oxygen",)),
    Ask("How many days does a week have?", ("seven", "7")),
    Ask("What is ice made of?", ("water",)),
    Ask("Who wrote Romeo and Juliet?", ("shakespeare",)),
    Ask("Which planet do we live on?", ("earth", "earth's")),
]


def words(text: str) -> list[str]:
    """The words of a text, in lower case."""
    return re.findall(r"[a-z0-9']+", text.lower())


def is_sentence(text: str) -> bool:
    """One sentence of at most SHORT words."""
    said = words(text)
    return 1 <= len(said) <= SHORT and len(re.findall(r"[.!?]+(?=\s|$)", text)) == 1 and text.strip()[-1] in ".!?"


def judged(ask: Ask, text: str, stops: bool) -> dict[str, float]:
    """What programs say of a response. words, exclamations, friendly: how many. echo: words of the request, each time
    it stands there. fact: a word that was looked for. stops: by itself. right: the fact, in one short sentence, and
    stops. distinct: the share of its words that did not stand there before; 0 without words."""
    said, asked = words(text), set(words(ask.request))
    found = {"words": len(said), "exclamations": text.count("!"), "friendly": sum(it in FRIENDLY for it in said)}
    found |= {"echo": sum(it in asked for it in said), "stops": int(stops)}
    found["fact"] = int(any(it in ask.fact for it in said))
    found["right"] = int(found["fact"] and stops and is_sentence(text))
    return found | {"distinct": round(len(set(said)) / max(len(said), 1), 4)}


def first_best(scores: Sequence[float], n: int) -> int:
    """Of the first n responses the one with the best score, the first of those that tie."""
    return scores.index(max(scores[:n]))


# ---- sums

PROBLEMS, DRAWN, DIGITS = 20, 64, 8  # sums, responses to each, their tokens at most
SUM_NS = (1, 2, 4, 8, 16, 32, 64)


def _solved(numbers: Sequence[int]) -> str:
    return f"{' + '.join(map(str, numbers))} = "


def _told(numbers: Sequence[int]) -> str:
    return f"If you add {numbers[1]} to {numbers[0]}, you have "


def _three_shots(write: Callable, many: int, least: int, most: int) -> Callable[[random.Random], tuple[str, int]]:
    def drawn(by: random.Random) -> tuple[str, int]:
        *shots, last = ([by.randint(least, most) for _ in range(many)] for _ in range(4))
        return "".join(f"{write(it)}{sum(it)}\n" for it in shots) + write(last), sum(last)

    return drawn


SUMS: dict[str, Callable[[random.Random], tuple[str, int]]] = {
    "two numbers": _three_shots(_solved, 2, 11, 99),
    "three numbers": _three_shots(_solved, 3, 2, 9),
    "in words": _three_shots(_told, 2, 11, 49),
}


def problems(kind: str, seed: int, n: int = PROBLEMS) -> list[tuple[str, int]]:
    """The prompts and their results."""
    by = random.Random(f"{kind} {seed}")
    return [SUMS[kind](by) for _ in range(n)]


def number(said: str) -> int | None:
    """What a response says: a number and the end of the line, or None."""
    found = re.fullmatch(r" *(\d+) *\.? *\n\s*", said)
    return int(found[1]) if found else None
