"""The rules by which the real model's rows decide what its template does, and how a row is read.

    rows = [row for sweep in (real_instruct_sweep, real_lora_sweep) for row in stored(sweep.SWEEP.results)[0]]
    count(rows, "human, bot", "content")        # of 32 requests, how many answers have what was asked for
    found = findings(rows)                      # {"obeys": [Finding, ...], "mimics": ..., "which": ..., ...}

Bounds come from the 32 requests that may be seen and, for "lora", from other questions and seed 0; they were written
before the stored runs. Counts of 32 are single numbers; their chance is in which requests were written, with a standard
deviation of at most sqrt(32) / 2 = 2.8, and bounds are about twice that from what was seen. A trained arm has three
seeds.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from real_instruct import ARMS
from real_lora import SHORT
from real_lora_sweep import SEEDS
from real_requests import JUDGES

from shared.finding import Finding

Rows = Iterable[Mapping]
OWN = "own"
NAMED = ("User, Assistant", "human, assistant", "river, assistant")  # who answers is called assistant
RENAMED = ("human, bot", "user, bot", "river, lamp", "user, lamp", "teacher, pupil", "user, model", "user, expert")
PARTS = [name for name, arm in ARMS.items() if arm.kind == "part"]
BARE = [name for name, arm in ARMS.items() if arm.kind == "bare"]
SHOTS = [name for name, arm in ARMS.items() if arm.kind == "shots"]
SWAPPED = "assistant, user"
FREE = "any"  # the form of a request that asks for none


def row_of(rows: Rows, part: str, arm: str, **fields) -> Mapping:
    """A job's row. Raises ValueError if there is none."""
    wanted = {"part": part, "arm": arm, "half": "judging"} | fields
    for row in rows:
        if wanted.items() <= row.items():
            return row
    raise ValueError(f"no row of {wanted}: run the sweep")


def each(rows: Rows, arm: str, name: str, part: str = "prompt", **fields) -> np.ndarray:
    """What is counted of each request, (32,) of 0 and 1."""
    return np.array(row_of(rows, part, arm, **fields)["counts"][name])


def count(rows: Rows, arm: str, name: str, part: str = "prompt", **fields) -> int:
    """Of how many requests it is so."""
    return int(each(rows, arm, name, part, **fields).sum())


def form_given_content(rows: Rows, arm: str) -> float:
    """Of the answers that have the content, to requests that ask for a form: the share that has the form as well; NaN,
    which keeps no bound, where no answer has the content."""
    asks_form = np.array([ask.form != FREE for ask in JUDGES])
    right = (each(rows, arm, "content") == 1) & asks_form
    return float(each(rows, arm, "form")[right].mean()) if right.any() else math.nan


def lost(rows: Rows, arms: Sequence[str], name: str = "content") -> list[int]:
    """How many fewer than in the own template, an arm each."""
    return [count(rows, OWN, name) - count(rows, arm, name) for arm in arms]


def come_back(rows: Rows, arm: str, tokens: int, of: str = OWN) -> float:
    """The share of the right answers that an arm loses which is there again when an answer's first tokens are given; of
    the requests where these tokens alone are not right."""
    given = {"part": "given", "tokens": tokens, "of": of}
    open_ = each(rows, arm, "already", **given) == 0
    whole, without = (each(rows, it, "content")[open_].sum() for it in (OWN, arm))
    return float((each(rows, arm, "content", **given)[open_].sum() - without) / (whole - without))


def divergence(rows: Rows, arm: str, first: int = 0, last: int | None = None) -> float:
    """KL from the own template's next token, in nats, its mean over requests and over positions first to last."""
    return float(np.mean([kl for row in row_of(rows, "prompt", arm)["kl"] for kl in row[first:last]]))


def same_top(rows: Rows, arm: str, first: int = 0, last: int | None = None, rank: int = 1) -> float:
    """The share of positions at which the own template's likeliest token has this rank, or a better one, in an arm."""
    found = [it <= rank for row in row_of(rows, "prompt", arm)["rank"] for it in row[first:last]]
    return float(np.mean(found))


def stop(rows: Rows, arm: str, where: str = "behind") -> float:
    """The mean probability of the stop token behind a right answer, or within it."""
    return float(np.mean([it for it in row_of(rows, "prompt", arm)[where] if it is not None]))


# LoRA


def taught(rows: Rows, arm: str, sites: str = "all", steps: int = SHORT) -> list[Mapping]:
    """A trained arm's rows, a seed each."""
    rows = list(rows)
    return [row_of(rows, "lora", arm, sites=sites, steps=steps, seed=seed) for seed in SEEDS]


def untuned(rows: Rows) -> Mapping:
    return row_of(rows, "lora", "untuned")


def asked(rows: Rows, arm: str, kind: str, name: str, **where) -> list[float]:
    """The share of the questions, asked in a kind of way, whose answer is so: a seed each. name: one_word, content."""
    return [float(np.mean(row["asked"][kind][name])) for row in taught(rows, arm, **where)]


def forgotten(rows: Rows, arm: str, **where) -> list[float]:
    """Nats per token more on texts than untuned, the mean of eight texts: a seed each."""
    base = np.mean(untuned(rows)["text"])
    return [float(np.mean(row["text"]) - base) for row in taught(rows, arm, **where)]


def general(rows: Rows, arm: str, name: str, **where) -> list[float]:
    """How many more of the 32 requests than untuned, a seed each."""
    base = sum(untuned(rows)["general"][name])
    return [float(sum(row["general"][name]) - base) for row in taught(rows, arm, **where)]


class Rule(NamedTuple):
    """kind: what it is about. measured: of all rows. bound: at_least or at_most. how: what else a `Finding` takes."""

    kind: str
    what: str
    measured: Callable[[Rows], float | list[float]]
    bound: dict[str, float]
    how: dict[str, str] = {}  # noqa: RUF012  (of a NamedTuple, and nobody writes to it)


RULES = [
    Rule(
        "obeys",
        "own template: answers of 32 that have what was asked for",
        lambda rows: count(rows, OWN, "content"),
        {"at_least": 18},
        {"because": "in its own template it seldom says what was asked for"},
    ),
    Rule(
        "obeys",
        "own template: answers of 32 that repeat the request, ask, or begin another turn",
        lambda rows: count(rows, OWN, "mimics"),
        {"at_most": 3},
        {"because": "it mimics in its own template, too"},
    ),
    Rule(
        "obeys",
        "own template: answers of 32 that stop by themselves within 32 tokens",
        lambda rows: count(rows, OWN, "stops"),
        {"at_least": 18},
        {"because": "it does not stop"},
    ),
    Rule(
        "obeys",
        "own template, where the content is right and a form was asked for: the share that has the form",
        lambda rows: form_given_content(rows, OWN),
        {"at_most": 0.5},
        {"when": "what is said is counted, not its form"},
    ),
    Rule(
        "obeys",
        "own template: probability of the stop token behind a right answer",
        lambda rows: stop(rows, OWN),
        {"at_least": 0.35},
    ),
    Rule(
        "obeys",
        "the same within a right answer",
        lambda rows: stop(rows, OWN, "within"),
        {"at_most": 0.05},
    ),
    Rule(
        "mimics",
        "the request alone, four ways: answers of 32 that mimic, in the way where most do",
        lambda rows: max(count(rows, arm, "mimics") for arm in BARE),
        {"at_most": 8},
    ),
    Rule(
        "mimics",
        "the request alone: answers of 32 that say nothing",
        lambda rows: count(rows, "bare", "empty"),
        {"at_least": 8},
    ),
    Rule(
        "mimics",
        "a newline behind the request: answers more that have the content",
        lambda rows: count(rows, "bare, newline", "content") - count(rows, "bare", "content"),
        {"at_least": 5},
    ),
    Rule(
        "mimics",
        "Alpaca's form: answers fewer that have the content than in the own template",
        lambda rows: lost(rows, ["Alpaca"])[0],
        {"at_most": 6},
    ),
    Rule(
        "mimics",
        "names swapped, so that it goes on as the user: answers of 32 that ask",
        lambda rows: count(rows, SWAPPED, "asks"),
        {"at_least": 14},
    ),
    Rule(
        "mimics",
        "three answered requests in front: answers of 32 that begin another turn, of two forms the one with fewer",
        lambda rows: min(count(rows, arm, "turns") for arm in SHOTS),
        {"at_least": 20},
    ),
    Rule(
        "mimics",
        "the same: answers more than in the own template that have the form",
        lambda rows: min(-loss for loss in lost(rows, SHOTS, "form")),
        {"at_least": 3},
    ),
    Rule(
        "which",
        "another name for who asks: answers fewer with the content, of three pairs the one that loses most",
        lambda rows: max(lost(rows, NAMED)),
        {"at_most": 6},
    ),
    Rule(
        "which",
        "another name for who answers: answers fewer with the content, the mean of seven pairs",
        lambda rows: float(np.mean(lost(rows, RENAMED))),
        {"at_least": 8},
        {"when": "who answers is given no other name"},
    ),
    Rule(
        "which",
        "any other single part changed or missing: answers fewer with the content, of eleven the one that loses most",
        lambda rows: max(lost(rows, PARTS)),
        {"at_most": 8},
    ),
    Rule(
        "answer",
        "wrong names or no template: divergence at the answer's first token, in multiples of that from the fourth on",
        lambda rows: min(divergence(rows, arm, 0, 1) / divergence(rows, arm, 3) for arm in (*RENAMED, SWAPPED, *BARE)),
        {"at_least": 2},
    ),
    Rule(
        "answer",
        "another name for who answers, from the second token on: share of the own template's likeliest tokens, least",
        lambda rows: min(same_top(rows, arm, 1) for arm in RENAMED),
        {"at_least": 0.65},
    ),
    Rule(
        "answer",
        "the same at the first token, most",
        lambda rows: max(same_top(rows, arm, 0, 1) for arm in RENAMED),
        {"at_most": 0.7},
    ),
    Rule(
        "answer",
        "names human and bot, the first token given: share of the lost content that comes back",
        lambda rows: come_back(rows, "human, bot", 1),
        {"at_least": 0.5},
    ),
    Rule(
        "answer",
        "the same, the first token of its answer to another request",
        lambda rows: come_back(rows, "human, bot", 1, "another"),
        {"at_most": 0.6},
    ),
    Rule(
        "mimics",
        "the request, a newline, assistant, a newline, and no template: answers fewer with the content",
        lambda rows: lost(rows, ["bare, then the name assistant"])[0],
        {"at_most": 6},
    ),
    Rule(
        "lora",
        "trained with the rule alone: share of one-word answers to questions without it",
        lambda rows: asked(rows, "narrow", "plain", "one_word"),
        {"at_least": 0.75},
    ),
    Rule(
        "lora",
        "trained with and without the rule: share of one-word answers with it",
        lambda rows: asked(rows, "contrast", "rule", "one_word"),
        {"at_least": 0.75},
    ),
    Rule(
        "lora",
        "the same without it",
        lambda rows: asked(rows, "contrast", "plain", "one_word"),
        {"at_most": 0.25},
    ),
    Rule(
        "lora",
        "the same without it, adapters on queries, keys and values alone",
        lambda rows: asked(rows, "contrast", "plain", "one_word", sites="qkv"),
        {"at_most": 0.25},
    ),
    Rule(
        "lora",
        "trained with and without the rule: share of one-word answers when the rule is put in other words",
        lambda rows: asked(rows, "contrast", "other wording", "one_word"),
        {"at_least": 0.5},
    ),
    Rule(
        "lora",
        "trained on the answers of other questions: share of one-word answers with the rule",
        lambda rows: asked(rows, "shuffled", "rule", "one_word"),
        {"at_least": 0.75},
    ),
    Rule(
        "lora",
        "the same: share of right ones",
        lambda rows: asked(rows, "shuffled", "rule", "content"),
        {"at_most": 0.25},
    ),
    Rule(
        "lora",
        "trained with and without the rule: nats a token more on texts",
        lambda rows: forgotten(rows, "contrast"),
        {"at_most": 0.3},
    ),
]


def findings(rows: Rows) -> dict[str, list[Finding]]:
    """What the rules say of the rows, by kind."""
    rows = list(rows)
    found: dict[str, list[Finding]] = {}
    for rule in RULES:
        found.setdefault(rule.kind, []).append(Finding(rule.what, rule.measured(rows), **rule.bound, **rule.how))
    return found
