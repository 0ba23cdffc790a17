"""The end of every lesson's experiment: the claim, the rules fixed before the numbers, the numbers, one word.

    verdict(
        lesson="04",
        claim="Scaling factors prevent softmax saturation.",
        supports=[Finding("entropy of a scaled row, share of ln n", entropies, at_least=0.8, possible=(0, 1))],
        limits=[Finding("growth of the largest logit", 5.1, at_least=2.0, when="queries and keys are independent")],
        against=[Finding("loss with the factor minus without, nats", gaps, at_least=0.1)],
        seeds=3,
        minutes=1,
        lengths=[100, 400],
        settings=["the copying task", "SmolLM2-135M"],
    )

A notebook shows the box and stores the verdict beside it as data, which `read_verdict` reads. Numbers that were
measured stand in the box behind a "≈" and nowhere in the data: they may differ on another machine. The word, the
rules and whether each was met may not, and the tests compare those (tests/nbval_sanitize.cfg leaves the numbers out).
"""

import math
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

from IPython import get_ipython
from IPython.display import display

from shared.finding import Finding

__all__ = ["MIME", "Finding", "Verdict", "read_verdict", "verdict"]
MIME = "application/vnd.hardway.verdict+json"
ASCII = str.maketrans("┌│└─≈·", "+|+-~-")


@dataclass(frozen=True)
class Verdict:
    """What a lesson found out, as it is stored: nothing in it differs from machine to machine.

    word: HOLDS, HOLDS WHEN or FAILS. when: the condition, or why it fails. lengths: training lengths in steps; None
    where only one was tried, empty where nothing is trained. findings: for each its kind ("for", "against",
    "limit"), `what`, `rule`, and whether it was `met`. runs: what `seeds` counts.
    """

    lesson: str
    claim: str
    word: str
    when: str
    seeds: int
    minutes: float
    lengths: list[int] | None
    settings: list[str]
    findings: list[dict]
    runs: str = "seeds"

    @property
    def sentence(self) -> str:
        """The word, and what it depends on."""
        joint = {"HOLDS": "", "HOLDS WHEN": " ", "FAILS": ": "}[self.word]
        return f"{self.word}{joint}{self.when}"

    @property
    def extent(self) -> str:
        """How far it was tried: seeds, training lengths, settings. What was tried in one way only is called so."""
        settings = ", ".join(self.settings) if len(self.settings) > 1 else "one setting"
        return f"{self.seeds} {self.runs} · {self._lengths} · {settings}"

    @property
    def _lengths(self) -> str:
        if self.lengths == []:
            return "nothing trained"
        if self.lengths is None or len(self.lengths) == 1:
            return "one training length"
        apart = "" if max(self.lengths) >= 4 * min(self.lengths) else ", less than four times apart"
        return " and ".join(f"{steps:,}" for steps in self.lengths) + f" steps{apart}"


def verdict(
    *,
    lesson: str,
    claim: str,
    supports: Sequence[Finding],
    limits: Sequence[Finding],
    seeds: int,
    minutes: float,
    against: Sequence[Finding] = (),
    when: str = "",
    lengths: Sequence[int] | None = None,
    settings: Sequence[str] = (),
    runs: str = "seeds",
) -> Verdict:
    """Show the box, store the verdict as data in the notebook, and return it.

    supports: what must be so for the claim to hold; one that is not met makes it FAIL. against: what makes the claim
    false as worded; one that is met makes it FAIL. limits: where the claim stops being true; those that are met make
    it HOLD only WHEN their clauses are so. when: one condition for all limits, in place of a clause for each. seeds:
    runs behind each number. minutes: what the whole notebook takes on a laptop. lengths: the training lengths tried,
    in steps, the last at least four times the first; empty where nothing is trained. settings: the settings tried
    (tasks, sizes, models), in words. runs: what `seeds` counts, if it is something else, such as "rounds" of timing.

    Raises ValueError if nothing supports the claim; if a limit is not a number; if a limit has no clause, a clause
    stands beside a condition for all, or a clause stands where it would not be read; for texts with a line break; and
    if `lesson` is not two digits.
    """
    kinds = {"for": supports, "against": against, "limit": limits}
    rows = [(kind, finding) for kind, findings in kinds.items() for finding in findings]
    if not supports:
        raise ValueError("no supports: a claim that nothing was measured for has no verdict")
    if not re.fullmatch(r"\d\d", lesson):
        raise ValueError(f'lesson is {lesson!r}: expected two digits, such as "04"')
    texts = [claim, when, *settings, *(text for _, it in rows for text in (it.what, it.when, it.because))]
    for text in texts:
        if "\n" in text:
            raise ValueError(f"{text!r} holds a line break: the box has one line for each thing")
    _check_clauses(rows, when)
    word, condition = _decide(rows, when)
    findings = [{"kind": kind, "what": it.what, "rule": it.rule, "met": it.met} for kind, it in rows]
    lengths = None if lengths is None else list(lengths)
    result = Verdict(lesson, claim, word, condition, seeds, minutes, lengths, list(settings), findings, runs)
    _show(_box(result, [it.number for _, it in rows]), asdict(result))
    return result


def _check_clauses(rows: list[tuple[str, Finding]], when: str) -> None:
    """Every limit was measured and has one condition; no clause stands where nothing would read it."""
    for kind, finding in rows:
        if (finding.because and kind == "limit") or (finding.when and kind != "limit"):
            raise ValueError(f"{finding.what!r}: `when` is for limits, `because` for what the claim can fail by")
        if kind != "for" and math.isnan(finding.mean):
            raise ValueError(f"{finding.what!r} is not a number: whether the claim ends there was not measured")
        if kind == "limit" and bool(finding.when) == bool(when):
            problem = "two conditions: its own `when` and the verdict's" if when else "no condition"
            raise ValueError(f"limit {finding.what!r} has {problem}; give each limit its `when`")


def _decide(rows: list[tuple[str, Finding]], when: str) -> tuple[str, str]:
    """The word, and the condition or the reasons."""
    reasons = [it.because or it.what for kind, it in rows if kind != "limit" and it.met == (kind == "against")]
    if reasons:
        return "FAILS", "; ".join(reasons)
    clauses = dict.fromkeys(it.when or when for kind, it in rows if kind == "limit" and it.met)
    return ("HOLDS WHEN", ", and ".join(clauses)) if clauses else ("HOLDS", "")


def _box(result: Verdict, numbers: list[str]) -> str:
    """The verdict as text, a line for each finding."""
    kind, what, rule = (max(len(row[name]) for row in result.findings) for name in ("kind", "what", "rule"))
    lines = [f"┌ {result.lesson} ─ {result.claim}", f"│ {result.sentence}", "│"]
    for row, number in zip(result.findings, numbers, strict=True):
        met = "yes" if row["met"] else "no "
        lines.append(f"│ {row['kind']:<{kind}} {met} {row['what']:<{what}}  {row['rule']:<{rule}}  {number}")
    return "\n".join([*lines, f"└ {result.extent} · about {result.minutes:g} min on a laptop"])


def _show(box: str, data: dict) -> None:
    """Display the box with the data in a notebook; print the box elsewhere, on any console."""
    if get_ipython() is not None:
        display({"text/plain": box, MIME: data}, raw=True)
        return
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        box.encode(encoding)
    except UnicodeEncodeError:
        box = box.translate(ASCII).encode(encoding, "replace").decode(encoding)
    print(box)


def read_verdict(outputs: Iterable[Mapping]) -> Verdict | None:
    """The verdict among a notebook's outputs; None if there is none. Raises ValueError if there are several."""
    found = [output["data"][MIME] for output in outputs if MIME in output.get("data", {})]
    if len(found) > 1:
        raise ValueError(f"{len(found)} verdicts in one notebook: a lesson has one")
    return Verdict(**found[0]) if found else None
