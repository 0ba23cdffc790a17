"""The end of every lesson's experiment: the claim, the rules fixed before the numbers, the numbers, one word.

    verdict(
        lesson="04",
        claim="Scaling factors prevent softmax saturation.",
        supports=[Finding("entropy of a scaled row, share of ln n", 0.886, at_least=0.8)],
        limits=[Finding("growth of the largest logit in training", 5.1, at_least=2.0)],
        when="queries and keys are still independent of each other",
        seeds=3,
        minutes=1,
    )

Numbers that were measured stand behind a "≈". They may differ on another machine; the word, the rules and whether
each was met may not, and the tests compare those (tests/nbval_sanitize.cfg leaves the numbers out).
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """A measured number and the bound, written down before it was measured, that it must keep.

    what: the quantity with its unit. measured: the number. at_least, at_most: one or both bounds.
    Raises ValueError without a bound: a finding that nothing could contradict is none.
    """

    what: str
    measured: float
    at_least: float | None = None
    at_most: float | None = None

    def __post_init__(self):
        if self.at_least is None and self.at_most is None:
            raise ValueError(f"{self.what!r} has no bound: give at_least or at_most")

    @property
    def met(self) -> bool:
        """True if the number keeps its bounds. NaN keeps none."""
        above = self.at_least is None or self.measured >= self.at_least
        below = self.at_most is None or self.measured <= self.at_most
        return above and below

    @property
    def rule(self) -> str:
        """The bounds in words."""
        words = []
        if self.at_least is not None:
            words.append(f"at least {self.at_least:g}")
        if self.at_most is not None:
            words.append(f"at most {self.at_most:g}")
        return " and ".join(words)


@dataclass(frozen=True)
class Verdict:
    """What a lesson found out. word: HOLDS, HOLDS WHEN or FAILS; when: the condition, or what was not met."""

    lesson: str
    claim: str
    word: str
    when: str
    seeds: int
    minutes: float

    @property
    def sentence(self) -> str:
        """The word, and what it depends on."""
        joint = {"HOLDS": "", "HOLDS WHEN": " ", "FAILS": ": "}[self.word]
        return f"{self.word}{joint}{self.when}"


def verdict(
    lesson: str,
    claim: str,
    supports: Sequence[Finding],
    limits: Sequence[Finding],
    when: str,
    seeds: int,
    minutes: float,
) -> Verdict:
    """Print the block and return the verdict.

    supports: what must be so for the claim to hold; one that is not met makes it FAIL. limits: where the claim stops
    being true; one that is met makes it HOLD only WHEN the condition `when` is given. seeds: runs behind each number.
    minutes: what the whole notebook takes on a laptop. Raises ValueError if nothing supports the claim, if a limit is
    not a number, or for texts that could not be read back: `lesson` is two digits, and nothing holds a line break.
    """
    if not supports:
        raise ValueError("no supports: a claim that nothing was measured for has no verdict")
    if not re.fullmatch(r"\d\d", lesson):
        raise ValueError(f'lesson is {lesson!r}: expected two digits, such as "04"')
    for finding in limits:
        if math.isnan(finding.measured):
            raise ValueError(f"{finding.what!r} is not a number: whether the claim ends there was not measured")
    for text in (claim, when, *(finding.what for finding in (*supports, *limits))):
        if "\n" in text:
            raise ValueError(f"{text!r} holds a line break: the block has one line for each thing")
    missed = [finding.what for finding in supports if not finding.met]
    if missed:
        result = Verdict(lesson, claim, "FAILS", "; ".join(missed), seeds, minutes)
    elif any(finding.met for finding in limits):
        result = Verdict(lesson, claim, "HOLDS WHEN", when, seeds, minutes)
    else:
        result = Verdict(lesson, claim, "HOLDS", "", seeds, minutes)
    print(f"┌ {lesson} ─ {claim}\n│ {result.sentence}\n│")
    rows = [("for", finding) for finding in supports] + [("limit", finding) for finding in limits]
    width = max(len(finding.what) for _, finding in rows)
    for kind, finding in rows:
        met = "yes" if finding.met else "no "
        print(f"│ {kind:<5} {met} {finding.what:<{width}} {finding.rule:<28} ≈ {finding.measured:.2g}")
    print(f"└ {seeds} seeds · about {minutes:g} min on a laptop")
    return result


BLOCK = re.compile(
    r"^┌ (?P<lesson>\d\d) ─ (?P<claim>.+)\n│ (?P<word>HOLDS WHEN|HOLDS|FAILS):? ?(?P<when>.*)\n"
    r"(?:│.*\n)+└ (?P<seeds>\d+) seeds · about (?P<minutes>[\d.]+) min on a laptop$",
    re.MULTILINE,
)


def read_verdict(text: str) -> Verdict | None:
    """The verdict whose block stands in a text, such as a notebook's stored output; None if there is none."""
    found = BLOCK.search(text)
    if found is None:
        return None
    parts = found.groupdict()
    return Verdict(**parts | {"seeds": int(parts["seeds"]), "minutes": float(parts["minutes"])})
