"""The clinic: plant a bug in a lesson's helper, see its symptom, examine the patient, repair it.

A lesson's helper has two lists. CHECKS are properties that a right implementation must have; FAULTS are bugs of one
line that were really shipped or printed. A fault is a line of the helper's own source and what it becomes, so it cannot
drift from the code.

    examine(attention)                                # a line per check
    patient = plant(attention, attention.FAULTS[0])   # a fresh module with one line changed
    examine(patient)                                  # says which property fails, where, and what to look at
    examine(repair(patient, "the bad line", "the line you think it should be"))

In a notebook `admit` and `treat` do the same with a fault's number, and show its card.
"""

import html
import itertools
import linecache
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import ModuleType

import torch
from IPython.display import display

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Check:
    """A property of a right implementation.

    name: what holds, as a sentence ("each row sums to one"). test: takes the module; returns None if the property
    holds, else a sentence that says what was found, where, and what to look at.
    """

    name: str
    test: Callable[[ModuleType], str | None]


@dataclass(frozen=True, repr=False)
class Fault:
    """A bug of one line. Shown in a notebook it is a card: the symptom in the open, hints and answer folded away.

    name: what it is called. line: the healthy line, as a whole, indentation aside. becomes: the bad line.
    symptom: what somebody sees who has it. hints: one at a time, from far to near.
    seen_in: the thread in which a real project reported or repaired it, or why there is none.
    """

    name: str
    line: str
    becomes: str
    symptom: str
    hints: Sequence[str]
    seen_in: str

    def __repr__(self) -> str:
        return f"Symptom: {self.symptom}"

    def _repr_html_(self) -> str:
        hints = "".join(_folded(f"Hint {i}", html.escape(hint)) for i, hint in enumerate(self.hints, 1))
        lines = f"<pre>is         {html.escape(self.becomes)}\nshould be  {html.escape(self.line)}</pre>"
        answer = _folded("The answer", f"<b>{html.escape(self.name)}</b>{lines}{html.escape(self.seen_in)}")
        return f"<b>Symptom.</b> {html.escape(self.symptom)}{hints}{answer}"


@dataclass(frozen=True)
class Examination:
    """What `examine` found: `failed` maps the name of each failing check to its message."""

    passed: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def healthy(self) -> bool:
        """True if every check passed, and there was one."""
        return bool(self.passed) and not self.failed


def difference(found: torch.Tensor, wanted: torch.Tensor, tolerance: float = 1e-9) -> str | None:
    """None if two tensors are equal, else in words where they differ most, and by what. NaN differs from all.

    tolerance: the default is for float64, which rounds at 1e-16, and sums of under a thousand terms of size 1 to 100.
    """
    if found.shape != wanted.shape:
        return f"shape {tuple(found.shape)}, expected {tuple(wanted.shape)}"
    gaps = (found - wanted).abs().nan_to_num(nan=math.inf)
    if not gaps.numel() or gaps.max() <= tolerance:
        return None
    place = tuple(int(i) for i in torch.unravel_index(gaps.argmax(), gaps.shape))
    return f"found {found[place]:.4g} at {list(place)}, expected {wanted[place]:.4g}"


def refusal(cases: Sequence[tuple[str, str, Callable[[], object]]]) -> str | None:
    """None if every call raises a ValueError that names what is wrong, else which does not, in words.

    cases: what is given, words that the error must hold, the call.
    """
    for given, words, call in cases:
        try:
            call()
        except ValueError as error:
            if words not in str(error):
                return f"given {given} it said {str(error)!r}, which does not name it"
        else:
            return f"{given} was taken without a word, expected a ValueError"
    return None


def examine(module: ModuleType, checks: Sequence[Check] | None = None, failures_only: bool = False) -> Examination:
    """Run the module's CHECKS (or those given), print a line for each (or each that fails), return what was found.

    A check that raises has failed: the error is its message. Raises ValueError if there are no checks.
    """
    checks = module.CHECKS if checks is None else checks
    if not checks:
        raise ValueError(f"{module.__name__} has no checks: an examination that looks at nothing proves nothing")
    result = Examination()
    for check in checks:
        try:
            message = check.test(module)
        except Exception as error:
            message = f"{type(error).__name__}: {error}".splitlines()[0]
        if message is None:
            result.passed.append(check.name)
            if not failures_only:
                print(f"  ok    {check.name}")
        else:
            result.failed[check.name] = message
            print(f"  FAIL  {check.name}\n        {message}")
    print(f"{len(result.passed)} of {len(checks)} checks pass" + ("" if result.failed else ": healthy"))
    return result


def plant(module: ModuleType, fault: Fault) -> ModuleType:
    """A fresh copy of the module with the fault's line changed; the module itself is left alone.

    Raises ValueError naming the fault if its line does not stand in the source exactly once, or changes nothing.
    """
    return _changed(module, fault.line, fault.becomes, f"fault {fault.name!r}")


def repair(patient: ModuleType, line: str, becomes: str) -> ModuleType:
    """A fresh copy of the patient in which the whole line `line` now reads `becomes` (indentation is kept).

    Raises ValueError if the line does not stand in the patient's source exactly once.
    """
    return _changed(patient, line, becomes, "repair")


def admit(module: ModuleType, number: int) -> ModuleType:
    """Plant the module's fault `number`, counted from 1; show which checks fail, and the card; return the patient."""
    fault = module.FAULTS[number - 1]
    patient = plant(module, fault)
    examine(patient, failures_only=True)
    display(fault)
    return patient


def treat(patient: ModuleType, line: str, becomes: str) -> None:
    """Examine the patient with one line replaced, as `repair` does it. An empty line is no treatment yet."""
    if line:
        examine(repair(patient, line, becomes), failures_only=True)


def source(module: ModuleType) -> str:
    """The module's source text, a patient's with its fault in it."""
    linecache.checkcache(module.__file__)  # the file may have been edited since it was read
    return "".join(linecache.getlines(module.__file__))


def _changed(module: ModuleType, line: str, becomes: str, what: str) -> ModuleType:
    line, becomes = line.strip(), becomes.strip()
    lines = source(module).split("\n")
    places = [i for i, text in enumerate(lines) if text.strip() == line]
    if len(places) != 1:
        found = f"the line {line!r} stands {len(places)} times in {module.__name__}, not once"
        raise ValueError(f"{what}: {found}. Give the whole line, as it is there")
    if line == becomes:
        raise ValueError(f"{what}: {line!r} becomes itself")
    at = places[0]
    indentation = lines[at][: len(lines[at]) - len(lines[at].lstrip())]
    lines[at] = indentation + becomes
    return _load(module, "\n".join(lines))


def _load(original: ModuleType, text: str) -> ModuleType:
    """A module made from a text. Its source is kept where `inspect` and tracebacks look for it."""
    name = original.__name__.split("_patient_")[0] + f"_patient_{next(_numbers)}"
    filename = f"<{name}>"
    linecache.cache[filename] = (len(text), None, text.splitlines(keepends=True), filename)
    patient = ModuleType(name, original.__doc__)
    patient.__file__ = filename
    sys.modules[name] = patient  # dataclasses and inspect look a class's module up here
    exec(compile(text, filename, "exec"), patient.__dict__)
    return patient


def _folded(summary: str, body: str) -> str:
    return f"<details><summary>{summary}</summary>{body}</details>"
