"""The rules by which the real model's rows decide how far a causal model fills a gap, and how a row is read.

    rows, how = stored(real_infill_sweep.SWEEP.results)
    gain(rows, "bayes", "right 8")      # nats less than by the left alone: a number for each text that judges
    found = findings(rows)              # {"bayes": [Finding, ...], "mask": ..., "prompt": ...}

Bounds come from six gaps of a text that does not judge, "letter", those of Bayes' rule from six of "recipe" too, and
were written before the stored run. They are on means over texts, but for the first: six gaps are few for a text.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np
from real_infill import JUDGES, LEFT

from shared.finding import Finding

Rows = Iterable[Mapping]
ALONE = {"bayes": "left", "mask": "causal", "prompt": "left alone"}  # what each part has without the right side
NEAR = 50  # candidates


def mean(rows: Rows, part: str, arm: str, measure: str = "nats", n: int = NEAR, before: int = LEFT) -> np.ndarray:
    """The mean over a text's gaps: (8,), a text each. Raises ValueError where a text's row is missing."""
    wanted = {"part": part, "candidates": n, "before": before}
    found = {row["text"]: row["found"][arm][measure] for row in rows if wanted.items() <= row.items()}
    if missing := [text for text in JUDGES if text not in found]:
        raise ValueError(f"no row of {part!r}, {missing[0]!r}, {n} candidates, {before} before: run the sweep")
    return np.array([np.mean(found[text]) for text in JUDGES])


def gain(rows: Rows, part: str, arm: str, measure: str = "nats", **setting: int) -> np.ndarray:
    """How much less than by the left alone: (8,), a text each."""
    return mean(rows, part, ALONE[part], measure, **setting) - mean(rows, part, arm, measure, **setting)


def share(rows: Rows, part: str, arm: str) -> float:
    """The gain in nats as a share of that of Bayes' rule with eight tokens, both means over texts."""
    return gain(rows, part, arm).mean() / gain(rows, "bayes", "right 8").mean()


class Rule(NamedTuple):
    """kind: a part of the sweep. measured: of all rows. bound: at_least or at_most."""

    kind: str
    what: str
    measured: Callable[[Rows], float]
    bound: dict[str, float]


RULES = [
    Rule(
        "bayes",
        "eight tokens behind the gap, by Bayes' rule: nats less, on the text where it is least",
        lambda rows: gain(rows, "bayes", "right 8").min(),
        {"at_least": 0.5},
    ),
    Rule(
        "bayes",
        "the same: how many more in a hundred are found",
        lambda rows: -100 * gain(rows, "bayes", "right 8", "hit").mean(),
        {"at_least": 10},
    ),
    Rule(
        "bayes",
        "eight tokens behind another position: nats less",
        lambda rows: gain(rows, "bayes", "other 8").mean(),
        {"at_most": -0.5},
    ),
    Rule(
        "bayes",
        "the eight in another order: nats less",
        lambda rows: gain(rows, "bayes", "shuffled 8").mean(),
        {"at_most": -0.5},
    ),
    Rule(
        "mask",
        "the asking position sees all but the gap: share of Bayes' gain",
        lambda rows: share(rows, "mask", "asking, hole"),
        {"at_most": 1 / 3},
    ),
    Rule(
        "mask",
        "every position sees all but the gap: nats less, among all tokens",
        lambda rows: gain(rows, "mask", "all, hole", "open").mean(),
        {"at_most": -0.5},
    ),
    Rule(
        "mask",
        "every position sees all, the answer too: nats less, among all tokens",
        lambda rows: gain(rows, "mask", "all, the answer", "open").mean(),
        {"at_least": 0.5},
    ),
    Rule(
        "prompt",
        "the right side told first: share of Bayes' gain",
        lambda rows: share(rows, "prompt", "right first"),
        {"at_most": 1 / 3},
    ),
    Rule(
        "prompt",
        "the right side told in a request: share of Bayes' gain",
        lambda rows: share(rows, "prompt", "asked"),
        {"at_most": 1 / 3},
    ),
]


def findings(rows: Rows) -> dict[str, list[Finding]]:
    """What the rules say of the rows, by kind."""
    rows = list(rows)
    found: dict[str, list[Finding]] = {}
    for rule in RULES:
        found.setdefault(rule.kind, []).append(Finding(rule.what, float(rule.measured(rows)), **rule.bound))
    return found
