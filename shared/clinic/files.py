"""What stands beside a lesson's helper, found by name: its checks, its faults, its caller."""

import contextlib
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

COPY = "_copy_"  # attention_copy_3 is the third copy of attention that was made


def name_of(module: ModuleType) -> str:
    """The helper's own name, for the helper and for each of its copies."""
    return module.__name__.partition(COPY)[0]


def folder_of(module: ModuleType) -> Path:
    """The lesson's folder, for the helper and for each of its copies."""
    return Path(sys.modules[name_of(module)].__file__).resolve().parent


@contextlib.contextmanager
def importable(folder: Path) -> Iterator[None]:
    """Within it, the modules of a folder can be imported by their names, from wherever Python was started."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def beside(module: ModuleType, kind: str) -> ModuleType | None:
    """The module `<helper>_<kind>` of the helper's folder, None if there is no such file."""
    name = f"{name_of(module)}_{kind}"
    if not (folder_of(module) / f"{name}.py").exists():
        return None
    with importable(folder_of(module)):
        return importlib.import_module(name)


def checks(module: ModuleType) -> list:
    """The lesson's CHECKS. Raises ValueError if there are none."""
    found = beside(module, "checks")
    if not (found and found.CHECKS):
        what = f"{name_of(module)} has no checks (looked for CHECKS in {name_of(module)}_checks.py)"
        raise ValueError(f"{what}: an examination that looks at nothing proves nothing")
    return found.CHECKS


def exercises(module: ModuleType) -> list:
    """The lesson's EXERCISES: checks of functions that the reader writes and the helper does not have."""
    return beside(module, "checks").EXERCISES


def faults(module: ModuleType) -> list:
    """The lesson's FAULTS, with their answers. Raises ValueError if there is no file of faults."""
    found = beside(module, "faults")
    if found is None:
        raise ValueError(f"{name_of(module)} has no faults: there is no {name_of(module)}_faults.py beside it")
    return found.FAULTS
