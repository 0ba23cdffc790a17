"""Copies of a helper and its caller with lines changed. A copy's source has no comments and no docstrings.

A planted line would else be known by the comment that it lost, and a docstring would recite what is right.
"""

import ast
import io
import itertools
import linecache
import sys
import textwrap
import tokenize
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType

from shared.clinic.files import COPY, beside, name_of

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Change:
    """A line (or several in a row) of the helper, or of its caller, and what it becomes. "" takes the line out."""

    line: str
    becomes: str
    in_caller: bool = False


def source(module: ModuleType) -> str:
    """The module's source text, a copy's with its changes in it."""
    linecache.checkcache(module.__file__)  # the file may have been edited since it was read
    return "".join(linecache.getlines(module.__file__))


def bare(text: str) -> str:
    """A Python text without comments and docstrings; lines that held nothing else are left out."""
    lines = [*text.split("\n"), ""]
    gone = set()
    for token in _tokens(text):
        if token.type == tokenize.COMMENT:
            row, column = token.start[0] - 1, token.start[1]
            lines[row] = lines[row][:column].rstrip()
            gone |= {row} if not lines[row] else set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if ast.get_docstring(node, clean=False) is None:
                continue
            rows = range(first.lineno - 1, first.end_lineno)
            gone |= set(rows)
            if len(node.body) == 1 and not isinstance(node, ast.Module):  # something must be left in the body
                lines[rows[0]] = " " * first.col_offset + "..."
                gone.discard(rows[0])
    return "\n".join(_without(lines[:-1], gone))


def changed(text: str, changes: Sequence[Change], what: str) -> str:
    """A text with lines changed, indentation kept; comments do not count. The result is bare.

    what: the text's name, for the error. Raises ValueError if a line does not stand there exactly once, or stays.
    """
    text = bare(text)
    for change in changes:
        old, new = _block(change.line), _block(change.becomes)
        lines = text.split("\n")
        places = [i for i in range(len(lines)) if _indented(old, lines[i]) == lines[i : i + len(old)]]
        if len(places) != 1:
            found = f"the line {change.line.strip()!r} stands {len(places)} times in {what}, not once"
            raise ValueError(f"{found}. Give the whole line, as it is there")
        if old == new:
            raise ValueError(f"{what}: {change.line.strip()!r} becomes itself")
        at = places[0]
        lines[at : at + len(old)] = _indented(new, lines[at])
        text = "\n".join(lines)
    return text


def copies(module: ModuleType, changes: Sequence[Change] = ()) -> tuple[ModuleType, ModuleType | None]:
    """Fresh copies of the helper and of its caller (None if it has none), with lines changed.

    The caller's copy uses the helper's. The modules themselves are left alone. Raises ValueError as `changed` does.
    """
    caller = beside(module, "caller")
    texts = [
        changed(source(each), [change for change in changes if change.in_caller == (each is caller)], each.__name__)
        for each in (module, caller)
        if each is not None
    ]
    return load(module, *texts)


def load(module: ModuleType, text: str, caller_text: str | None = None) -> tuple[ModuleType, ModuleType | None]:
    """A copy of the helper made from a text, and of its caller, which finds the helper's copy under its name."""
    helper = _run(name_of(module), text)
    if caller_text is None:
        return helper, None
    healthy = sys.modules[name_of(module)]
    sys.modules[name_of(module)] = helper
    try:
        return helper, _run(f"{name_of(module)}_caller", caller_text)
    finally:
        sys.modules[name_of(module)] = healthy


def repair(patient: ModuleType, line: str, becomes: str) -> ModuleType:
    """A fresh copy of the patient in which the whole line `line` now reads `becomes` (indentation is kept).

    Raises ValueError if the line does not stand in the patient's source exactly once.
    """
    return load(patient, changed(source(patient), [Change(line, becomes)], name_of(patient)))[0]


def _run(name: str, text: str) -> ModuleType:
    """A module made from a text. Its source is kept where `inspect` and tracebacks look for it."""
    name = f"{name}{COPY}{next(_numbers)}"
    filename = f"<{name}>"
    linecache.cache[filename] = (len(text), None, text.splitlines(keepends=True), filename)
    copy = ModuleType(name)
    copy.__file__ = filename
    sys.modules[name] = copy  # dataclasses and inspect look a class's module up here
    exec(compile(text, filename, "exec"), copy.__dict__)
    return copy


def _tokens(text: str):
    """The tokens of a text, up to where it ends in the middle of a statement."""
    try:
        yield from tokenize.generate_tokens(io.StringIO(text).readline)
    except (tokenize.TokenError, IndentationError):
        return


def _block(text: str) -> list[str]:
    """The lines of a change, without their common indentation and without comments; none for an empty text."""
    lines = textwrap.dedent(text).strip("\n").split("\n")
    for token in _tokens("\n".join(lines)):
        if token.type == tokenize.COMMENT:
            row, column = token.start[0] - 1, token.start[1]
            lines[row] = lines[row][:column]
    return [line.rstrip() for line in lines] if text.strip() else []


def _indented(block: list[str], line: str) -> list[str]:
    """The block, as far to the right as a line is."""
    indentation = line[: len(line) - len(line.lstrip())]
    return [indentation + each if each else each for each in block]


def _without(lines: list[str], gone: set[int]) -> list[str]:
    """The lines that are not gone. Where some are, the longer of the two gaps is left, and none below a colon."""
    kept, skip = [], 0
    for row, line in enumerate(lines):
        if row in gone:
            gap = next((n for n, each in enumerate(reversed(kept)) if each.strip()), None)
            skip = len(lines) if gap is None or (not gap and kept[-1].rstrip().endswith(":")) else gap
        elif line.strip() or not skip:
            kept.append(line)
            skip = 0
        else:
            skip -= 1
    return kept
