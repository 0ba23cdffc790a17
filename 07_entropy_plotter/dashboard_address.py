"""The dashboard's settings: their sliders, and how they stand in the page's address, so that a link carries a run.

to_query(Rules(T=0.8))                              # {"T": "0.8"}
from_query({"T": "0.8", "p": "much"})               # (Rules(T=0.8), ["p in the address is 'much': ..."])
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

from storyteller import Rules

from shared.world import VOCABULARY


@dataclass(frozen=True)
class Knob:
    """A slider. name: the field of `Rules`. options: its stops, from one end to the other."""

    name: str
    label: str
    options: tuple
    help: str


def _steps(first: float, last: float, step: float) -> tuple[float, ...]:
    return tuple(round(first + i * step, 4) for i in range(round((last - first) / step) + 1))


KNOBS = [
    Knob("T", "Temperature", _steps(0, 3, 0.05), "Below 1 sharper, above 1 flatter; 0 is greedy: the likeliest word."),
    Knob("k", "Top-k", (*range(1, 11), 15, 20, 30, 50, 100, 200, 500, len(VOCABULARY)), "The k likeliest words stay."),
    Knob("p", "Top-p", _steps(0, 1, 0.05), "The fewest words with this much probability stay."),
    Knob("min_p", "Min-p", _steps(0, 1, 0.01), "Words with this share of the best word's probability stay."),
    Knob("typical", "Typical", _steps(0, 1, 0.05), "The words nearest to the expected surprisal stay, this much mass."),
    Knob(
        "repetition", "Repetition penalty", _steps(1, 2, 0.05), "Said words: positive logits over it, others times it."
    ),
    Knob("presence", "Presence penalty", _steps(0, 5, 0.1), "What said words lose from their logits."),
    Knob("cut_first", "Order", (False, True), "What comes first, the temperature or the cuts?"),
]
SEEDS, MOST = (0, 2**31 - 1), (1, 191)


def to_query(rules: Rules, prefix: str = "") -> dict[str, str]:
    """The rules that differ from the defaults, as parameters of an address."""
    changed = {field.name: getattr(rules, field.name) for field in fields(Rules)}
    return {prefix + name: f"{value:g}" for name, value in changed.items() if value != getattr(Rules, name)}


def from_query(query: Mapping[str, str], prefix: str = "") -> tuple[Rules, list[str]]:
    """The rules that an address asks for, and a sentence on each parameter that had to be read otherwise."""
    found, remarks = {}, []
    for knob in KNOBS:
        if (given := query.get(prefix + knob.name)) is not None:
            value = nearest(given, knob.options)
            if value is None or value != float(given) or not given.isascii():
                value = getattr(Rules, knob.name) if value is None else value
                remarks.append(_instead(prefix + knob.name, given, value))
            found[knob.name] = value
    return Rules(**found), remarks


def nearest(given: str, options: Sequence) -> float | None:
    """The option that is nearest to a number; None if it is no finite number."""
    try:
        number = float(given)
    except ValueError:
        return None
    return min(options, key=lambda option: abs(option - number)) if math.isfinite(number) else None


def whole_number(query: Mapping[str, str], name: str, bounds: tuple[int, int], default: int) -> tuple[int, list[str]]:
    """A whole number from an address, kept within bounds; the default if it is none. And what had to be read otherwise,
    as `from_query` says it."""
    if (given := query.get(name)) is None:
        return default, []
    number = int(given) if re.fullmatch(r"-?[0-9]{1,12}", given) else default
    number = min(max(number, bounds[0]), bounds[1])
    return number, [] if str(number) == given else [_instead(name, given, number)]


def _instead(name: str, given: str, used: float) -> str:
    return f"{name} in the address is {given[:20]!r}: {used:.10g} is used instead."
