"""The clinic in a notebook: a patient's symptom and evidence first, all else when it is asked for."""

from types import ModuleType

from shared.clinic.check import examine
from shared.clinic.copies import repair
from shared.clinic.fault import Fault, subjects
from shared.clinic.files import faults

_admitted: dict[str, Fault] = {}  # by the name of the patient's module
_hints_given: dict[str, int] = {}


def admit(module: ModuleType, number: int) -> ModuleType:
    """Show the symptom and the evidence of the module's fault `number`, counted from 1; return the patient.

    Raises ValueError if there is no such number.
    """
    there = faults(module)
    if not 1 <= number <= len(there):
        raise ValueError(f"there is no patient {number}: {module.__name__} has 1 to {len(there)}")
    fault = there[number - 1]
    patient, caller = subjects(module, fault)
    _admitted[patient.__name__] = fault
    print(f"Symptom: {fault.symptom}")
    if fault.evidence:
        fault.evidence(patient, caller).show()
    return patient


def hint(patient: ModuleType) -> None:
    """Print the patient's next hint; after the last one, say so."""
    hints, given = _fault_of(patient).hints, _hints_given.get(patient.__name__, 0)
    print(f"Hint {given + 1} of {len(hints)}: {hints[given]}" if given < len(hints) else "There are no more hints.")
    _hints_given[patient.__name__] = given + 1


def answer(patient: ModuleType) -> None:
    """Print what ails the patient, and where it was seen."""
    print(_fault_of(patient).answer)


def treat(patient: ModuleType, line: str, becomes: str) -> None:
    """Examine the patient with one line replaced, as `repair` does it. An empty line is no treatment yet."""
    if line:
        examine(repair(patient, line, becomes), failures_only=True)


def _fault_of(patient: ModuleType) -> Fault:
    if patient.__name__ not in _admitted:
        raise ValueError(f"{patient.__name__} is no patient: make one with admit(module, number)")
    return _admitted[patient.__name__]
