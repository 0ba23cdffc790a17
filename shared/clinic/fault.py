"""What ails a patient: a fault is a list of changes, what is seen of it, and the answer."""

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType

from shared.clinic.copies import Change, copies
from shared.clinic.evidence import Evidence

Property = Callable[..., str | bool | None]


@dataclass(frozen=True, repr=False)
class Fault:
    """What ails a patient. Shown, it tells its symptom and nothing else.

    name: the answer in a few words. changes: lines of the helper or of its caller and what they become; none if the
    patient is healthy. symptom: what somebody sees who has it. hints: one at a time, from far to near.
    seen_in: the thread in which a real project reported or repaired it, or why there is none.
    evidence: makes what is seen from the patient's helper and caller. holds: for a fault that passes every check, the
    property that catches it: takes helper and caller, returns None if it holds, else what was found. example: the
    lesson's notebook works it out; it is not drawn by chance.
    """

    name: str
    changes: Sequence[Change]
    symptom: str
    hints: Sequence[str]
    seen_in: str
    evidence: Callable[[ModuleType, ModuleType | None], Evidence] | None = None
    holds: Property | None = None
    example: bool = False

    def __repr__(self) -> str:
        return f"Symptom: {self.symptom}"

    @property
    def answer(self) -> str:
        """What it was, each line as it is and as it should be, and where it was seen."""
        parts = [self.name]
        for change in self.changes:
            where = "in the caller, " if change.in_caller else ""
            parts += [f"{where}is", _indented(change.becomes), "should be", _indented(change.line)]
        return "\n".join([*parts, self.seen_in])


def plant(module: ModuleType, fault: Fault) -> ModuleType:
    """A fresh copy of the helper with the fault's changes; the module itself is left alone.

    Raises ValueError naming the fault if a line does not stand in the source exactly once, or changes nothing.
    """
    return subjects(module, fault)[0]


def subjects(module: ModuleType, fault: Fault) -> tuple[ModuleType, ModuleType | None]:
    """Fresh copies of helper and caller with the fault's changes. Raises ValueError as `plant` does."""
    try:
        return copies(module, fault.changes)
    except ValueError as error:
        raise ValueError(f"fault {fault.name!r}: {error}") from None


def holds_on(holds: Property, subject: ModuleType | Sequence[ModuleType]) -> str | None:
    """None if a property holds, else in words how it fails. A property says None, or what is true.

    One that raises has failed. subject: the module, or the modules, that the property takes.
    """
    try:
        found = holds(*(subject if isinstance(subject, Sequence) else [subject]))
        right = found is None or (not isinstance(found, str) and bool(found))  # a tensor or a numpy.bool_ counts, too
    except Exception as error:
        return f"{type(error).__name__}: {error}".splitlines()[0]
    if right:
        return None
    return found if isinstance(found, str) else f"the property says {found!r}"


def catches(holds: Property, healthy, patient) -> bool:
    """True if the property holds on the healthy module and not on the patient; prints what it found on both.

    healthy, patient: what the property takes: a module, or a tuple of modules.
    """
    right, wrong = holds_on(holds, healthy), holds_on(holds, patient)
    print(f"on the healthy one it {'holds' if right is None else f'fails: {right}'}")
    print(f"on the patient it {'holds, too' if wrong is None else f'fails: {wrong}'}")
    return right is None and wrong is not None


def _indented(text: str) -> str:
    return textwrap.indent(textwrap.dedent(text).strip() or "(nothing)", "    ")
