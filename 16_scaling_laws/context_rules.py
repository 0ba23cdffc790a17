"""The rules by which the real model's rows decide how loss falls with context, and how a row is read.

    rows, how = stored(real_context_sweep.SWEEP.results)
    x, y = curves(rows)                 # tokens of context, (10,), and nats, (8, 10): a text each
    errors(rows, LINE)                  # predicted less measured beyond FITTED tokens, (8, 3)
    found = findings(rows)              # {"forms": [Finding, ...], "convex": ..., "floor": ..., ...}

Bounds come from three texts that do not judge, "letter", "recipe" and "hearing", and were written before the stored
run; that of the long texts comes from the same three. Each form is fitted to a text's curve up to FITTED tokens.
"""

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np
import scaling
from real_context import AMOUNTS, BARE, JUDGES, LATER, LONG, SINK, START
from scaling_trial import FLOORED, FORMS, LINE, POWER

from shared.finding import Finding

Rows = Iterable[Mapping]
FITTED = 64  # tokens of context that the fit sees at most
PLACES = [(text, START) for text in JUDGES]
LONG_PLACES = [(text, LATER) for text in LONG]


def found(rows: Rows, part: str, text: str, start: int, before: str = "") -> Mapping:
    """What is stored of a text. Raises ValueError where its row is missing."""
    wanted = {"part": part, "text": text, "start": start, "before": before}
    for row in rows:
        if wanted.items() <= row.items():
            return row["found"]
    raise ValueError(f"no row of {part!r}, {text!r} from {start} on, first {before!r}: run the sweep")


def curves(
    rows: Rows, part: str = "amount", before: str = SINK, places: Iterable[tuple[str, int]] = PLACES
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens of context, (A,), and nats, (texts, A)."""
    rows = list(rows)
    each = [found(rows, part, *place, before) for place in places]
    return np.array(each[0]["contexts"]), np.array([it["nats"] for it in each])


def errors(rows: Rows, form: str, since: int = 1, **which) -> np.ndarray:
    """Predicted less measured nats beyond FITTED tokens, by a fit to `since` to FITTED tokens: (texts, amounts)."""
    x, y = curves(rows, **which)
    left = x > FITTED + 1
    return np.array([fitted(form, x, each, since)(x[left]) - each[left] for each in y])


def fitted(form: str, x: np.ndarray, y: np.ndarray, since: int = 1) -> scaling.Line | scaling.Law:
    """A form, fitted to the amounts from `since` to FITTED tokens."""
    seen = (x >= since) & (x < FITTED + 1)
    return _fit(form, tuple(x[seen].tolist()), tuple(y[seen].tolist()))


@functools.cache
def _fit(form: str, x: tuple[float, ...], y: tuple[float, ...]) -> scaling.Line | scaling.Law:
    return FORMS[form](np.array(x), np.array(y))


def nearest(rows: Rows, name: str, **how) -> int:
    """In how many texts a form comes nearest to the loss at the largest amount."""
    off = np.array([np.abs(errors(rows, form, **how)[:, -1]) for form in FORMS])  # (forms, texts)
    return int((off.argmin(axis=0) == list(FORMS).index(name)).sum())


def floors(rows: Rows, since: int = 1) -> np.ndarray:
    """The floor that is fitted to each text from `since` tokens on: (texts,)."""
    x, y = curves(rows)
    return np.array([fitted(FLOORED, x, each, since).floor for each in y])


def fall(rows: Rows, first: int, last: int, **which) -> np.ndarray:
    """How many nats a doubling from `first` to `last` tokens takes away, on average: (texts,)."""
    _, y = curves(rows, **which)
    a, b = AMOUNTS.index(first), AMOUNTS.index(last)
    return (y[:, a] - y[:, b]) / (b - a)


def rises(rows: Rows, part: str, before: str) -> np.ndarray:
    """How often of nine a doubling of the context makes the loss larger: (texts,)."""
    return (np.diff(curves(rows, part, before)[1], axis=1) > 0).sum(axis=1)


def gain(rows: Rows, kind: str) -> np.ndarray:
    """How many nats a prefix of a kind takes away: (texts,)."""
    rows = list(rows)
    each = [found(rows, "prefix", *place) for place in PLACES]
    return np.array([it["near"] - it[kind] for it in each])


def of_the_first(rows: Rows) -> np.ndarray:
    """How many nats the token between texts as the first takes away: (texts, amounts of BARE)."""
    rows = list(rows)
    return curves(rows, before="")[1] - curves(rows)[1][:, [AMOUNTS.index(it) for it in BARE]]


class Rule(NamedTuple):
    """kind: what it is about. measured: of all rows. bound: at_least or at_most."""

    kind: str
    what: str
    measured: Callable[[list[Mapping]], float]
    bound: dict[str, float]


RULES = [
    Rule(
        "forms",
        "a line in log context, fitted to 1 to 64 tokens: predicted less measured nats at 512, where it is least wrong",
        lambda rows: errors(rows, LINE)[:, -1].max(),
        {"at_most": -0.8},
    ),
    Rule(
        "forms",
        "the same, fitted to 4 to 64 tokens, the mean over texts",
        lambda rows: errors(rows, LINE, since=4)[:, -1].mean(),
        {"at_most": -0.4},
    ),
    Rule(
        "forms",
        "a power without a floor, fitted to 1 to 64 tokens: the same, where it is least wrong",
        lambda rows: errors(rows, POWER)[:, -1].max(),
        {"at_most": -0.25},
    ),
    Rule(
        "forms",
        "of eight texts, those where a floor and a power is nearest at 512 tokens",
        lambda rows: nearest(rows, FLOORED),
        {"at_least": 5},
    ),
    Rule(
        "forms",
        "of eight texts, those where the line is nearest, fitted to 1 to 64 or to 4 to 64 tokens: the more of the two",
        lambda rows: max(nearest(rows, LINE, since=since) for since in (1, 4)),
        {"at_most": 1},
    ),
    Rule(
        "convex",
        "what a doubling takes away from 1 to 8 tokens, as a multiple of 64 to 512: where it is least",
        lambda rows: (fall(rows, 1, 8) / fall(rows, 64, 512)).min(),
        {"at_least": 3},
    ),
    Rule(
        "convex",
        "of eight texts, those where a doubling takes away more from 8 to 64 tokens than from 64 to 512",
        lambda rows: (fall(rows, 8, 64) > fall(rows, 64, 512)).sum(),
        {"at_least": 7},
    ),
    Rule(
        "floor",
        "the last doubling, from 256 to 512 tokens: nats less, the mean over texts",
        lambda rows: fall(rows, 256, 512).mean(),
        {"at_least": 0.05},
    ),
    Rule(
        "floor",
        "the fitted floor: nats by which it moves if amounts below 4 are left out, the mean over texts",
        lambda rows: np.abs(floors(rows) - floors(rows, since=4)).mean(),
        {"at_least": 0.7},
    ),
    Rule(
        "floor",
        "a floor and a power: nats off at 512 tokens, in the text where it is worst",
        lambda rows: np.abs(errors(rows, FLOORED)[:, -1]).max(),
        {"at_most": 0.8},
    ),
    Rule(
        "content",
        "504 more tokens of the text's own: nats less, the mean over texts",
        lambda rows: gain(rows, "own").mean(),
        {"at_least": 0.7},
    ),
    Rule(
        "content",
        "504 tokens of another text: nats less, the mean over texts",
        lambda rows: gain(rows, "other").mean(),
        {"at_most": 0.15},
    ),
    Rule(
        "content",
        "the text's own 504 in random order: nats less, the mean over texts",
        lambda rows: gain(rows, "shuffled").mean(),
        {"at_most": -0.4},
    ),
    Rule(
        "first",
        "the token between texts before a context of one: nats less, in the text where it is least",
        lambda rows: of_the_first(rows)[:, 0].min(),
        {"at_least": 1.2},
    ),
    Rule(
        "first",
        "the same before 8 and before 512 tokens: nats less or more, the mean over texts, the larger of the two",
        lambda rows: np.abs(of_the_first(rows)[:, 1:].mean(axis=0)).max(),
        {"at_most": 0.1},
    ),
    Rule(
        "position",
        "of nine doublings, those by which the loss rises along one pass, the mean over texts",
        lambda rows: rises(rows, "position", "").mean(),
        {"at_least": 2},
    ),
    Rule(
        "position",
        "the same for the same tokens after more and more context",
        lambda rows: rises(rows, "amount", SINK).mean(),
        {"at_most": 0.5},
    ),
    Rule(
        "long",
        "long texts, a line fitted to 1 to 64 tokens: predicted less measured nats at 2,048, where it is least wrong",
        lambda rows: errors(rows, LINE, places=LONG_PLACES)[:, -1].max(),
        {"at_most": -0.8},
    ),
]


def findings(rows: Rows) -> dict[str, list[Finding]]:
    """What the rules say of the rows, by kind."""
    rows = list(rows)
    said: dict[str, list[Finding]] = {}
    for rule in RULES:
        said.setdefault(rule.kind, []).append(Finding(rule.what, float(rule.measured(rows)), **rule.bound))
    return said
