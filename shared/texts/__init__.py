"""Sixteen texts for measurements on a real English model. Nothing is downloaded.

    from shared.texts import OWN, texts

    texts()["letter"]                          # one text
    [texts()[name] for name in OWN]            # those that no model has been trained on

Fourteen are ours, in the files beside this one: about 3,000 characters of prose each, of fourteen kinds, written for
these lessons. No model whose weights are older can have been trained on them. Two come with Python, so models may well
have been trained on them, and they change a little from one Python version to the next: "docs", 40,000 characters of
the documentation behind `help()`, and "code", 40,000 of the standard library's `optparse`.
"""

import inspect
import optparse
from pathlib import Path

OWN = (
    *("letter", "recipe", "hearing", "glacier", "report", "rules", "diary", "essay"),
    *("speech", "manual", "fable", "minutes", "review", "voyage"),
)  # in the order in which they were written
FILES = [Path(__file__).with_name(f"{name}.txt") for name in OWN]
LONG = 40_000  # characters


def texts() -> dict[str, str]:
    """Each text by its name, ours first, in the order of `OWN`; then "docs" and "code".

    Raises ValueError, or for "code" OSError, where Python was installed without its documentation or its sources.
    """
    ours = {path.stem: path.read_text(encoding="utf-8") for path in FILES}
    return ours | {"docs": _docs(), "code": _code()}


def _docs() -> str:
    """From the topic "objects" on: mostly prose about Python's data model."""
    from shared.corpus import python_docs  # here, since it imports torch

    return _excerpt(python_docs(), "Objects, values and types\n***")


def _code() -> str:
    """From its first class on: before it stand the licence and the imports."""
    return _excerpt(inspect.getsource(optparse), "class OptParseError")


def _excerpt(text: str, first: str) -> str:
    """`LONG` characters of a text from `first` on."""
    start = text.find(first)
    if start < 0 or len(text) < start + LONG:
        raise ValueError(f"this Python's text has no {LONG} characters from {first!r} on: use texts()[name] of ours")
    return text[start : start + LONG]
