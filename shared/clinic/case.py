"""A patient in a folder of its own, for the reader's editor: helper, caller, evidence and a property to write."""

import importlib
import inspect
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from shared.clinic.check import Examination, examine
from shared.clinic.copies import load, source
from shared.clinic.fault import Fault, Property, holds_on, subjects
from shared.clinic.files import COPY, checks, faults, importable, name_of
from shared.lessons import Lesson

PROPERTY = '''"""A property that a healthy {helper}.py has and this patient has not. Then: {command} --property"""


def holds({arguments}):
    """Return None or True if the property holds, else False or a sentence with the numbers."""
    raise NotImplementedError
'''


@dataclass(frozen=True)
class Case:
    """A patient of a lesson. module: the lesson's helper. number: counted from 1. folder: where its copy lies."""

    lesson: Lesson
    module: ModuleType
    number: int
    folder: Path

    @property
    def name(self) -> str:
        """Such as "04-3"."""
        return f"{self.lesson.number}-{self.number}"

    @property
    def fault(self) -> Fault:
        """The answer included."""
        return faults(self.module)[self.number - 1]

    def planted(self) -> tuple[ModuleType, ModuleType | None]:
        """The patient as it came in: helper and caller."""
        return subjects(self.module, self.fault)

    def texts(self) -> dict[str, str]:
        """The patient's files as it came in."""
        names = [name_of(self.module), f"{name_of(self.module)}_caller"]
        return {f"{name}.py": source(it) for name, it in zip(names, self.planted(), strict=True) if it}

    def write(self, command: str, again: bool) -> list[Path]:
        """Write the files that are not there; if `again`, all but the reader's property. Return what was written."""
        self.folder.mkdir(parents=True, exist_ok=True)
        texts = self.texts()
        helper = name_of(self.module)
        arguments = f"{helper}, caller" if len(texts) > 1 else helper
        texts["property.py"] = PROPERTY.format(helper=helper, command=command, arguments=arguments)
        written = []
        for name, text in texts.items():
            if (again and name in self.texts()) or not (self.folder / name).exists():
                (self.folder / name).write_text(text, encoding="utf-8", newline="\n")
                written.append(self.folder / name)
        return written

    def see(self) -> tuple[str, list[Path]]:
        """The evidence of the patient as it came in: its text, and the files that it was written to."""
        if self.fault.evidence is None:
            return "", []
        evidence = self.fault.evidence(*self.planted())
        return evidence.text, evidence.save(self.folder)

    def edited(self) -> tuple[ModuleType, ModuleType | None]:
        """The reader's copy as it is now. Raises ValueError, in words, if it does not run; OSError if it is missing."""
        texts = self._read()
        return _in_words("your copy", lambda: load(self.module, *texts))

    def own_property(self) -> Property | None:
        """`holds` of the reader's property.py, None if it is still to be written. Raises as `edited` does."""
        text, space = _text(self.folder / "property.py"), {"__name__": "property"}
        _in_words("property.py", lambda: exec(compile(text, "property.py", "exec"), space))
        if not callable(space.get("holds")):
            raise ValueError("property.py has no function `holds`: it is the one that is called")
        given = self.only(self.planted())
        try:
            inspect.signature(space["holds"]).bind(*given)
        except TypeError:
            names = ", ".join(name_of(module) for module in given)
            raise ValueError(f"`holds` in property.py is called with {len(given)} arguments: {names}") from None
        try:
            space["holds"](*given)
        except NotImplementedError:
            return None
        except Exception:
            pass  # whether it should is asked later
        return space["holds"]

    def untouched(self) -> bool:
        """The reader's copy still is what was written."""
        return self._read() == list(self.texts().values())

    def examined(self, modules: tuple, questions: bool) -> tuple[Examination, list[Property]]:
        """The lesson's checks on a helper, printed where they fail; and the properties that helper and caller lack."""
        result = examine(modules[0], failures_only=True, questions=questions)
        own = dict.fromkeys(fault.holds for fault in faults(self.module) if fault.holds)
        return result, [holds for holds in own if holds_on(holds, self.only(modules))]

    def only(self, modules: tuple) -> list[ModuleType]:
        """What a property takes: helper and caller, or the helper where the lesson has no caller."""
        return [module for module in modules if module is not None]

    def sick(self) -> bool:
        """There is something to be healed."""
        return bool(self.fault.changes)

    def passes_every_check(self) -> bool:
        """No check tells the patient's helper from a healthy one, and it is sick."""
        return self.sick() and all(_passes(check.test, self.planted()[0]) for check in checks(self.module))

    def _read(self) -> list[str]:
        return [_text(self.folder / name) for name in self.texts()]


def cases(lesson: Lesson, root: Path) -> list[Case]:
    """A lesson's patients, which are kept under root. Raises ValueError if the lesson has none."""
    with importable(lesson.path.parent):
        module = importlib.import_module(lesson.helper)
    return [Case(lesson, module, i, root / f"{lesson.number}-{i}") for i in range(1, len(faults(module)) + 1)]


def _passes(test: Callable, module: ModuleType) -> bool:
    return holds_on(test, module) is None


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")  # some editors begin a file with a mark
    except UnicodeDecodeError as error:
        raise ValueError(f"{file.name} is not UTF-8, at byte {error.start}: save it as UTF-8") from None


def _in_words(what: str, call: Callable):
    """The call's result. Raises ValueError that says where a reader's file does not run."""
    try:
        return call()
    except SyntaxError as error:
        what, line = _file(error.filename, what), (error.text or "").strip()
        raise ValueError(f"{what} is no Python: {error.msg}, line {error.lineno}: {line}") from None
    except (Exception, SystemExit) as error:
        for frame in traceback.extract_tb(error.__traceback__):
            what = _file(frame.filename, what)  # the innermost of the reader's files is where it stopped
        raise ValueError(f"{what} stops when it is imported: {type(error).__name__}: {error}") from None


def _file(filename: str | None, otherwise: str) -> str:
    """The reader's file from which a copy was made, by the copy's file name; another name is not one of them."""
    name, copy, _ = (filename or "").strip("<>").partition(COPY)
    return f"{name}.py" if copy else otherwise
