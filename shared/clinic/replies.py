"""What the clinic answers in a terminal, one function for each thing that can be asked."""

import os
import shutil
import sys
import textwrap
from pathlib import Path

from shared.clinic.case import Case, cases
from shared.clinic.copies import copies
from shared.clinic.fault import catches
from shared.clinic.record import Record
from shared.lessons import LESSONS, ROOT

HOME = ROOT / "scratch" / "clinic"
NOTHING = "Nothing has been changed yet."
PASSES = " The checks pass, as they do for some faults. If you find nothing wrong, say --healthy."
STILL = "The checks pass, but the symptom is still there."
ELSE = "The checks pass, but something else is not as in a healthy copy: did one of your edits break it?"
UNSEEN = "No check of the lesson saw it. Write the property that does, in property.py, then say --property."


def command() -> str:
    """How this program is called here."""
    python = Path(sys.executable)
    known = shutil.which(python.name)
    same = known is not None and os.path.samefile(os.path.dirname(known), python.parent)
    return f"{python.name if same else shown(python)} -m shared.clinic"


def show_lessons(record: Record) -> None:
    """Each lesson with patients, and how many of them are healed."""
    for it in LESSONS:
        if it.built:
            there = cases(it, HOME)
            done = sum(record.of(case.name).healed for case in there)
            print(f"{it.number}  {it.project:<20}{len(there):>3} patients, {done} healed")
    if record.current:
        print(f"\nYou are at patient {record.current.replace('-', ' ')}, in {shown(HOME / record.current)}.")
    print(f"\n{command()} 04        lists the patients of lesson 04\n{command()} 04 any    draws one by chance")


def show_patients(there: list[Case], record: Record) -> None:
    """The patients by symptom."""
    for case in there:
        lines = textwrap.wrap(case.fault.symptom, 84)
        print(f"{case.number:>3}  {lines[0]}")
        for line in lines[1:]:
            print(f"     {line}")
        print(f"     [{record.of(case.name).state}]")


def start(case: Case, record: Record, again: bool) -> None:
    """Write the patient's files, without touching those that are there, and what is seen of it."""
    written = case.write(command(), again)
    text, files = case.see()
    record.current = case.name
    print(f"Patient {case.number} of lesson {case.lesson.number}, in {shown(case.folder)}\n")
    print(textwrap.fill(f"Symptom: {case.fault.symptom}", 100))
    if text:
        print(f"\n{text}")
    if files:
        print(f"\nEvidence: {', '.join(shown(path) for path in files)}")
    kept = [name for name in case.texts() if case.folder / name not in written]
    if kept and not case.untouched():
        print(f"\n{' and '.join(kept)}: as you left it. To begin anew: {command()} --again")
    names = list(case.texts())
    run = f" ({names[1]} can be run there)" if names[1:] else ""
    print(f"\nEdit {' or '.join(names)}{run}, then: {command()} --check")


def check(case: Case, record: Record, questions: bool) -> None:
    """Examine the reader's copy."""
    modules = case.edited()
    result, lacking = case.examined(modules, questions)
    if case.untouched():
        print(NOTHING + PASSES * result.passes)
    elif result.passes and not lacking and case.sick():
        record.of(case.name).healed = True
        print(f"Healed. It was: {case.fault.answer}")
        if case.passes_every_check() and not record.of(case.name).caught:
            print(f"\n{UNSEEN}")
    elif result.passes:
        print(STILL if case.fault.holds in lacking or not lacking else ELSE)


def hint(case: Case, record: Record) -> None:
    """The next hint."""
    progress, hints = record.of(case.name), case.fault.hints
    if progress.hints < len(hints):
        progress.hints += 1
        print(f"Hint {progress.hints} of {len(hints)}: {hints[progress.hints - 1]}")
    else:
        print(f"There are no more hints. The first {len(hints)}:")
        print("\n".join(f"  {each}" for each in hints))


def healthy(case: Case, record: Record) -> None:
    """The reader says that nothing is wrong."""
    if case.sick():
        record.of(case.name).wrong += 1
        print("No: something is wrong with it.")
    else:
        record.of(case.name).healed = True
        print(f"Right: {case.fault.answer}")


def try_property(case: Case, record: Record) -> None:
    """The reader's property on the healthy files and on the patient as it came in."""
    holds = case.own_property()
    if holds is None:
        print(f"{shown(case.folder / 'property.py')} is not written yet.")
    elif catches(holds, case.only(copies(case.module)), case.only(case.planted())):
        record.of(case.name).caught = True
        print("Caught.")


def answer(case: Case, record: Record) -> None:
    """What it is."""
    record.of(case.name).answered = True
    print(case.fault.answer)


def shown(path: Path) -> str:
    """A path as it is reached from here."""
    return str(path) if os.path.splitdrive(path)[0] != os.path.splitdrive(os.getcwd())[0] else os.path.relpath(path)
