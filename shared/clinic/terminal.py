"""The clinic in a terminal: patients by their symptoms, in files for your own editor.

    {command}                  the lessons, and the patient that you are at
    {command} 04               lesson 04's patients, by symptom
    {command} 04 any           one of them, by chance
    {command} 04 3             patient 3: writes its files, and what is seen of it

Of the patient that you are at (or of the one that is named):

    {command} --check          examine your copy: the lesson's checks, and whether the patient is healed
    {command} --check --hint   the same, with a question for each check that fails
    {command} --hint           the next hint
    {command} --healthy        say that nothing is wrong with it
    {command} --property       does your property.py hold on the healthy files and not on the patient?
    {command} --answer         what it is, and where it was seen
    {command} --again          begin anew: your edits are overwritten, your property.py is kept
"""

import argparse
import os
import random
import re
import sys
from pathlib import Path

from shared.clinic import replies
from shared.clinic.case import Case, cases
from shared.clinic.record import Record
from shared.clinic.replies import HOME, command, shown
from shared.lessons import LESSONS, lesson

ACTIONS = {
    "check": replies.check,
    "hint": replies.hint,
    "healthy": replies.healthy,
    "property": replies.try_property,
    "answer": replies.answer,
}


def find(words: list[str], record: Record) -> Case | list[Case]:
    """The patient that is meant, or all patients of a lesson. Raises ValueError, in words, if there is none."""
    words = [part for word in words for part in re.split(r"(?<=\w)[-.](?=\w)|\s+", word.strip()) if part]
    if not words:
        if not record.current:
            raise ValueError(f"which patient? {command()} 04 any draws one")
        words = record.current.split("-")
    named = next((it.number for it in LESSONS if it.built and words[0] in (it.helper, it.folder)), words[0])
    there = cases(lesson(named), HOME)
    if len(words) == 1:
        return there
    if len(words) > 2:
        raise ValueError(f"{' '.join(words)!r} is more than a lesson and a patient: {command()} 04 3")
    if words[1] == "any":
        unseen = [case for case in there if record.of(case.name).state == "open" and not case.fault.example]
        return random.choice(unseen or there)
    if not words[1].isdecimal() or not 1 <= int(words[1]) <= len(there):
        raise ValueError(f"no patient {words[1]!r} in lesson {there[0].lesson.number}: there are 1 to {len(there)}")
    return there[int(words[1]) - 1]


def main(arguments: list[str] | None = None) -> int:
    """Read the command line; return the exit status."""
    sys.stdout.reconfigure(errors="replace")
    sys.stderr.reconfigure(errors="replace")
    parser = argparse.ArgumentParser(
        prog=command(),
        description=__doc__.format(command=command()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage=argparse.SUPPRESS,
    )
    parser.add_argument("patient", nargs="*", help="a lesson, and a patient's number or `any`")
    for name in ("check", "hint", "healthy", "property", "answer", "again"):
        parser.add_argument(f"--{name}", action="store_true")
    asked = parser.parse_args(arguments)
    record = Record.read(HOME / "progress.json")
    if record.spoilt:
        print("progress.json could not be read: it was put aside, and a new one is begun.")
    try:
        serve(asked, record)
    except BrokenPipeError:  # the reader of our output, such as `head`, has gone
        record.write()
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError) as error:
        print(error)
        return 2
    except KeyboardInterrupt:
        print("\nStopped.")
        return 130
    record.write()
    return 0


def serve(asked: argparse.Namespace, record: Record) -> None:
    """Do what was asked. Raises ValueError in words."""
    actions = [name for name in ACTIONS if getattr(asked, name)]
    if not (asked.patient or actions or asked.again):
        replies.show_lessons(record)
        return
    case = find(asked.patient, record)
    if isinstance(case, list):
        if actions or asked.again:
            raise ValueError(f"which patient of lesson {case[0].lesson.number}? Give its number, too")
        replies.show_patients(case, record)
        return
    if not actions:
        replies.start(case, record, asked.again)
        return
    if not case.folder.exists():
        raise ValueError(f"patient {case.name} has no files yet: {command()} {case.name} writes them")
    record.current = case.name
    try:
        if asked.check:
            replies.check(case, record, questions=asked.hint)
        else:
            ACTIONS[actions[-1]](case, record)
    except FileNotFoundError as error:
        name = Path(error.filename).name
        raise ValueError(f"{name} is not in {shown(case.folder)}: {command()} {case.name} writes it again") from None
