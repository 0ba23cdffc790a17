"""Your functions in place of the helper's own, examined by the lesson's checks."""

import difflib
import functools
import traceback
from collections.abc import Callable
from types import ModuleType

from shared.clinic.check import Examination, examine
from shared.clinic.copies import copies
from shared.clinic.files import checks, name_of


class _Unwritten(BaseException):
    """Raised when a stub is called, with what to say; no check can take it for an answer."""


def graft(module: ModuleType, *functions: Callable, **named: Callable) -> ModuleType:
    """A fresh copy of the helper with your functions in place of its own, also where its other functions call them.

    functions: replace those of the same name. named: for another name, or for a method, as in
    graft(attention, **{"MultiHeadAttention.heads": f}). Raises ValueError for a name that the helper does not have.
    """
    copy, _ = copies(module)
    for name, function in {**{f.__name__: f for f in functions}, **named}.items():
        *path, last = name.split(".")
        owner = functools.reduce(lambda at, part: getattr(at, part, None), path, copy)
        if not callable(getattr(owner, last, None)):
            near = difflib.get_close_matches(name, [n for n, it in vars(copy).items() if callable(it)], 1)
            guess = f": did you mean {near[0]}?" if near else ""
            raise ValueError(f"{name_of(module)} has no function {name}{guess}")
        setattr(owner, last, function)
    return copy


def try_out(module: ModuleType, function: Callable, name: str = "", questions: bool = False) -> Examination | None:
    """Examine your function in place of the helper's, by the checks about it; None if it is not written yet.

    name: that of the helper's function or method, if yours has another. A function is not written yet if it raises
    NotImplementedError, or calls a function of yours that does, or returns `...` or nothing. questions: as for
    `examine`. Raises ValueError if the helper has no such function.
    """
    name = name or function.__name__
    copy = graft(module, **{name: _noticed(function, name)})
    about = [check for check in checks(module) if name in check.about]
    try:
        return examine(copy, about or checks(module), questions=questions)
    except _Unwritten as unwritten:
        print(unwritten)
        return None


def _noticed(function: Callable, name: str) -> Callable:
    """The function; it raises _Unwritten where it is still a stub."""

    @functools.wraps(function)
    def call(*args, **kwargs):
        try:
            found = function(*args, **kwargs)
        except NotImplementedError as error:
            stub = _where_raised(error)
            itself = stub in (function.__name__, name)
            raise _Unwritten(f"{name} is not written yet" if itself else f"{name} calls {stub}, a stub") from None
        if found is ...:
            raise _Unwritten(f"{name} is not written yet")
        if found is None and "." not in name:  # a method may well return None, as `mask` does
            raise _Unwritten(f"{name} returned nothing: is its `return` missing?")
        return found

    return call


def _where_raised(error: BaseException) -> str:
    """The name of the function that raised."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return frame.f_code.co_name
