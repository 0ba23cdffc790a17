"""The rules by which the real model's rows decide what its tokens do, and how a row is read.

    rows, how = stored(real_tokens_sweep.SWEEP.results)
    kept(rows, "longest")               # of the gain from context, the share that is left, (texts,)
    found = findings(rows)              # {"space": [Finding, ...], "cuts": [...], "glitch": [...]}

Bounds come from the texts, the prompts and the template of `real_tokens_sweep.TRIED`, which do not judge, and were
written before the stored run. Where there are several texts or templates, the worst one decides, or their mean.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np
from real_tokens_sweep import JUDGES

from shared.finding import Finding

Rows = Iterable[Mapping]
WORDS = tuple(name for name in JUDGES["prompts"] if name != "digits")  # prompts whose answer is no digit


def found(rows: Rows, part: str, on: str, **which) -> list[Mapping]:
    """What is stored, a row for each seed. Raises ValueError where there is none."""
    wanted = {"part": part, "on": on} | which
    rows = [row["found"] for row in rows if wanted.items() <= row.items()]
    if not rows:
        raise ValueError(f"no row of {wanted}: run the sweep")
    return rows


def prompts(rows: Rows, arm: str, what: str, names: Iterable[str] = WORDS) -> np.ndarray:
    """The mean over a template's prompts: (templates,)."""
    return np.array([np.mean(found(rows, "prompt", name)[0][arm][what]) for name in names])


def borders(rows: Rows, trail: str) -> np.ndarray:
    """The median probability of a digit at borders of words: (texts,)."""
    return np.array([np.median(found(rows, "border", name)[0][trail]) for name in JUDGES["texts"]])


def bits(rows: Rows, arm: str, what: str, names: Iterable[str] = JUDGES["texts"]) -> np.ndarray:
    """Bits per byte of the "context" or of the "target" behind it, the mean over seeds: (texts,)."""
    return np.array([np.mean([it[what] for it in found(rows, "cut", name, arm=arm)]) for name in names])


def more(rows: Rows, arm: str, **which) -> np.ndarray:
    """Bits per byte more than cut by rank: (texts,)."""
    return bits(rows, arm, "context", **which) - bits(rows, "by rank", "context", **which)


def gain(rows: Rows, arm: str = "by rank", **which) -> np.ndarray:
    """Bits per byte of the target that a context takes away: (texts,)."""
    return bits(rows, "none", "target", **which) - bits(rows, arm, "target", **which)


def kept(rows: Rows, arm: str, **which) -> float:
    """The gain from a context, as a share of the gain where it is cut by rank; sums over texts."""
    return float(gain(rows, arm, **which).sum() / gain(rows, **which).sum())


def first(rows: Rows, group: str) -> np.ndarray:
    """The share of a group's tokens that are the most likely where they are to be said again: (templates,)."""
    each = [found(rows, "glitch", name)[0][group]["rank"] for name in JUDGES["templates"]]
    return np.array([np.mean(np.array(ranks) == 1) for ranks in each])


class Rule(NamedTuple):
    """kind: what it is about. measured: of all rows. bound: at_least or at_most."""

    kind: str
    what: str
    measured: Callable[[list[Mapping]], float]
    bound: dict[str, float]


RULES = [
    Rule(
        "space",
        "the word's probability with a space behind the prompt, over that without, the template where it is largest",
        lambda rows: (prompts(rows, "a space", "word") / prompts(rows, "nothing", "word")).max(),
        {"at_most": 0.1},
    ),
    Rule(
        "space",
        "a digit's probability with a space behind the prompt, the template where it is least",
        lambda rows: prompts(rows, "a space", "digit").min(),
        {"at_least": 0.5},
    ),
    Rule(
        "space",
        "a digit's probability with a comma or a line end behind the prompt, where it is largest",
        lambda rows: max(prompts(rows, arm, "digit").max() for arm in ("a comma", "a line end")),
        {"at_most": 0.2},
    ),
    Rule(
        "space",
        "the right digit's probability with a space behind a prompt that asks for a digit",
        lambda rows: prompts(rows, "a space", "word", ["digits"])[0],
        {"at_least": 0.7},
    ),
    Rule(
        "space",
        "a digit's probability with a space at a border of words, the median, the text where it is least",
        lambda rows: borders(rows, "a space").min(),
        {"at_least": 0.4},
    ),
    Rule(
        "space",
        "the same with a comma or a line end, the text where it is largest",
        lambda rows: max(borders(rows, trail).max() for trail in ("a comma", "a line end")),
        {"at_most": 0.05},
    ),
    Rule(
        "cuts",
        "bits per byte of the target that 500 bytes of context take away, the text where they are fewest",
        lambda rows: gain(rows).min(),
        {"at_least": 0.08},
    ),
    Rule(
        "cuts",
        "longest match: bits per byte more, the mean over texts",
        lambda rows: more(rows, "longest").mean(),
        {"at_most": 0.12},
    ),
    Rule("cuts", "longest match: share of the gain kept", lambda rows: kept(rows, "longest"), {"at_least": 0.85}),
    Rule(
        "cuts",
        "dropout 0.05: bits per byte more, the text where they are fewest",
        lambda rows: more(rows, "dropout 0.05").min(),
        {"at_least": 0.3},
    ),
    Rule(
        "cuts",
        "dropout 0.1: bits per byte more, the text where they are fewest",
        lambda rows: more(rows, "dropout 0.1").min(),
        {"at_least": 0.5},
    ),
    Rule(
        "cuts",
        "dropout 0.1: share of the gain kept",
        lambda rows: kept(rows, "dropout 0.1"),
        {"at_least": 0.4, "at_most": 0.85},
    ),
    Rule("cuts", "dropout 0.5: share of the gain kept", lambda rows: kept(rows, "dropout 0.5"), {"at_most": 0.3}),
    Rule(
        "cuts",
        "the space apart: bits per byte more, the text where they are fewest",
        lambda rows: more(rows, "space apart").min(),
        {"at_least": 0.4},
    ),
    Rule("cuts", "the space apart: share of the gain kept", lambda rows: kept(rows, "space apart"), {"at_most": 0.4}),
    Rule(
        "cuts",
        "characters: bits per byte more, the text where they are fewest",
        lambda rows: more(rows, "characters").min(),
        {"at_least": 5},
    ),
    Rule("cuts", "characters: share of the gain kept", lambda rows: kept(rows, "characters"), {"at_most": 0.2}),
    Rule(
        "cuts", "another text, by rank: share of the gain", lambda rows: kept(rows, "another text"), {"at_most": 0.25}
    ),
    Rule(
        "glitch",
        "tokens at the control tokens' point: share said again, the template where it is largest",
        lambda rows: first(rows, "at the point").max(),
        {"at_most": 0.1},
    ),
    Rule(
        "glitch",
        "tokens of the nearest ids: the same, the template where it is least",
        lambda rows: first(rows, "nearest ids").min(),
        {"at_least": 0.35},
    ),
    Rule(
        "glitch",
        "tokens by chance: the same",
        lambda rows: first(rows, "by chance").min(),
        {"at_least": 0.5},
    ),
    Rule(
        "glitch",
        "tokens of the least norms: the same",
        lambda rows: first(rows, "least norms").min(),
        {"at_least": 0.7},
    ),
    Rule(
        "glitch",
        "scaffolding: the same",
        lambda rows: first(rows, "scaffolding").min(),
        {"at_least": 0.4},
    ),
]


def findings(rows: Rows) -> dict[str, list[Finding]]:
    """What the rules say of the rows, by kind."""
    rows = list(rows)
    said: dict[str, list[Finding]] = {}
    for rule in RULES:
        said.setdefault(rule.kind, []).append(Finding(rule.what, float(rule.measured(rows)), **rule.bound))
    return said
