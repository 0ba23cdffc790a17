"""Checks: properties of a right implementation, and what an examination by them finds."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import ModuleType

import torch

from shared.clinic.files import checks as checks_of


@dataclass(frozen=True)
class Check:
    """A property of a right implementation.

    name: what holds, as a sentence ("each row sums to one"). test: takes the module; returns None if the property
    holds, else a sentence with the numbers that were found, and where. question: what to look at if it does not hold,
    shown on request only. about: names of the functions that the property is about.
    """

    name: str
    test: Callable[[ModuleType], str | None]
    question: str = ""
    about: Sequence[str] = ()


@dataclass(frozen=True)
class Examination:
    """What `examine` found: `failed` maps the name of each failing check to its message."""

    passed: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def passes(self) -> bool:
        """Every check passed, and there was one. It does not say that the module is healthy: checks have holes."""
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

    cases: what is given, words that the error must hold ("" for any), the call.
    """
    for given, words, call in cases:
        try:
            call()
        except ValueError as error:
            if words not in str(error):
                return f"given {given} it said {str(error)!r}: expected the words {words!r} in it"
        else:
            return f"{given} was taken without a word, expected a ValueError"
    return None


def examine(
    module: ModuleType, checks: Sequence[Check] | None = None, failures_only: bool = False, questions: bool = False
) -> Examination:
    """Run the lesson's CHECKS (or those given), print a line for each (or each that fails), return what was found.

    questions: print each failing check's question, too. A check that raises has failed: the error is its message.
    Raises ValueError if there are no checks.
    """
    checks = checks_of(module) if checks is None else checks
    if not checks:
        raise ValueError("no checks were given: an examination that looks at nothing proves nothing")
    result = Examination()
    for check in checks:
        try:
            message = check.test(module)
        except Exception as error:
            message = f"{type(error).__name__}: {error}".splitlines()[0]
        except KeyboardInterrupt:
            print(f"\nStopped in the check: {check.name}")
            raise
        if message is None:
            result.passed.append(check.name)
            if not failures_only:
                print(f"  ok    {check.name}")
        else:
            result.failed[check.name] = message
            print(f"  FAIL  {check.name}\n        {message}")
            if questions and check.question:
                print(f"        {check.question}")
    print(f"{len(result.passed)} of {len(checks)} checks pass")
    return result
