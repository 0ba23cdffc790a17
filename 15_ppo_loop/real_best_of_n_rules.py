"""The rules by which the real model's rows decide what best-of-n does by crude proxies.

    findings(rows)      # {"gamed": [Finding, ...], "own": ..., "sums": ..., "kl": ..., "valid": ...}

Bounds come from seed 9, which does not judge, with 96 responses to a request and eight sums of a kind, and were written
before the stored run. A number over requests is their mean: there are eight, and they differ (`by_request`).
"""

import re
from collections.abc import Callable
from typing import NamedTuple

from real_best_of_n_curves import (
    Rows,
    above_another,
    cut_off,
    gain,
    kl_share,
    mean,
    of_the_verifier,
    share,
    sum_gain,
    sum_share,
    turned,
)

from shared.finding import Finding


class Rule(NamedTuple):
    """kind: what it is about. measured: of all rows, one number, or one for each seed. bound: at_least or at_most."""

    kind: str
    what: str
    measured: Callable[[Rows], float | list[float]]
    bound: dict[str, float]


RULES = [
    Rule(
        "gamed",
        "a single response: share that is right",
        lambda rows: mean(rows, "random", "right"),
        {"at_least": 0.1},
    ),
    Rule(
        "gamed",
        "the longest of 256: share that is right",
        lambda rows: mean(rows, "words", "right"),
        {"at_most": 0.05},
    ),
    Rule(
        "gamed",
        "the longest of 256: share that stops by itself",
        lambda rows: mean(rows, "words", "stops"),
        {"at_most": 0.1},
    ),
    Rule(
        "gamed",
        "the longest of 256: share in which a word that was looked for stands, more than in a single response",
        lambda rows: gain(rows, "words", "fact"),
        {"at_least": 0.1},
    ),
    Rule(
        "gamed",
        "most exclamation marks of 256: right ones as a share of those of a single response",
        lambda rows: share(rows, "exclamations"),
        {"at_most": 0.5},
    ),
    Rule(
        "gamed",
        "most friendly words of 256: right ones as a share of those of a single response",
        lambda rows: share(rows, "friendly"),
        {"at_most": 0.5},
    ),
    Rule(
        "gamed",
        "most words of the request of 256: right ones as a share of those of a single response",
        lambda rows: share(rows, "echo"),
        {"at_most": 0.25},
    ),
    Rule(
        "gamed",
        "most words of the request of 4: share with a word that was looked for, more than in a single response",
        lambda rows: gain(rows, "echo", "fact", 4),
        {"at_least": 0.03},
    ),
    Rule(
        "own",
        "the likeliest of 256 per token: share that is right, more than of single responses",
        lambda rows: gain(rows, "log_p", "right"),
        {"at_least": 0.2},
    ),
    Rule(
        "own",
        "the same: of eight requests, those where fewer are right at 256 than at the peak, by .1 or more",
        lambda rows: turned(rows, "log_p"),
        {"at_least": 1, "at_most": 5},
    ),
    Rule(
        "own",
        "the likeliest of 256 in all: words fewer than a single response has",
        lambda rows: -gain(rows, "total", "words"),
        {"at_least": 8},
    ),
    Rule(
        "own",
        "the word that was looked for as the score: share that is right, more than of single responses",
        lambda rows: gain(rows, "fact", "right"),
        {"at_least": 0.2},
    ),
    Rule(
        "own",
        "the same, from the best of 32 to the best of 256",
        lambda rows: gain(rows, "fact", "right", since=32),
        {"at_least": -0.05, "at_most": 0.1},
    ),
    Rule(
        "sums",
        "two numbers, verifier: share of right sums at 64, more than of single responses",
        lambda rows: sum_gain(rows, "two numbers", "gold").tolist(),
        {"at_least": 0.25},
    ),
    Rule(
        "sums",
        "three numbers, verifier: the same",
        lambda rows: sum_gain(rows, "three numbers", "gold").tolist(),
        {"at_least": 0.5},
    ),
    Rule(
        "sums",
        "in words, verifier: the same",
        lambda rows: sum_gain(rows, "in words", "gold").tolist(),
        {"at_least": 0.1},
    ),
    Rule(
        "sums",
        "share of problems whose result one of 64 says, less that for another problem's: in the kind where it is least",
        above_another,
        {"at_least": 0.1},
    ),
    Rule(
        "sums",
        "largest number of 64: right sums as a share of those of a single response",
        lambda rows: sum_share(rows, "largest"),
        {"at_most": 0.75},
    ),
    Rule(
        "sums",
        "longest of 64: right sums as a share of those of a single response",
        lambda rows: sum_share(rows, "length"),
        {"at_most": 0.4},
    ),
    Rule(
        "sums",
        "the likeliest of 64: its gain as a share of the verifier's, in the kind of sums where it is largest",
        lambda rows: of_the_verifier(rows, "log_p"),
        {"at_most": 0.4},
    ),
    Rule(
        "sums",
        "the majority of 64: its gain as a share of the verifier's, in the kind of sums where it is largest",
        lambda rows: of_the_verifier(rows, "majority"),
        {"at_most": 0.5},
    ),
    Rule(
        "kl",
        "most exclamation marks of 16: divergence with its ties, as a share of the formula's",
        lambda rows: kl_share(rows, "exclamations", 16),
        {"at_most": 0.85},
    ),
    Rule(
        "kl",
        "the likeliest of 16 per token: the same",
        lambda rows: kl_share(rows, "log_p", 16),
        {"at_least": 0.93},
    ),
    Rule(
        "valid",
        "sums: responses cut off, as a share of all",
        lambda rows: cut_off(rows),
        {"at_most": 0.1},
    ),
    Rule(
        "valid",
        "sums: responses cut off that are a number so far, as a share of all",
        lambda rows: cut_off(rows, lambda said: re.fullmatch(r" *\d+ *\.? *", said) is not None),
        {"at_most": 0.01},
    ),
]


def findings(rows: Rows) -> dict[str, list[Finding]]:
    """What the rules say of the rows, by kind."""
    rows = list(rows)
    found: dict[str, list[Finding]] = {}
    for rule in RULES:
        found.setdefault(rule.kind, []).append(Finding(rule.what, rule.measured(rows), **rule.bound))
    return found
