"""What the grid must show, written before any seed that judges had run; bounds are by seed 0, which tried rates.

    short(grids(rows, "steep"))                 # of each seed the runs that forecasts are made from
    forecasts(short)                            # by form, nats per token at LARGEST, one for each seed
    against(...), supports(...), further(...)   # `Finding`s for the verdict

"Loss scales linearly with the log of compute/parameters." Tried by forecasts: a line in the log is fitted to small runs
and asked for the largest; its error is forecast minus run, and below zero it promised too much. Seed 0, nats per token:
over parameters, fitted to a tenth of the largest: -0.197 (`steep`), -0.121 (`flat`); a floor plus a power law: 0.029,
0.066. Over tokens, fitted to half: -0.029, -0.045, and 0.115 in `stories`, where the widest model learns to look back
only with the largest budget. Over compute a line's forecast at 1.2e12 operations, from runs of up to 1.8e11, lies below
the floor.

Changed since: of three ways to the exponent of the best size the surface's was taken with C = 6 N D, and is now with C
counted exactly. What is called 16 times the size was called ten times, and was 16.
"""

from collections.abc import Iterable, Mapping

import numpy as np
from scaling_grid import LEAST, Grid
from scaling_rate_sweep import MOST
from scaling_trial import FLOORED, FORMS, LINE, POWER, Axis, axes, constants, groups, held_out, surface, three_ways

from shared.finding import Finding

LARGEST = 1.2e12  # operations: sizes around the best one have been trained on so much, in the longest runs
HALF = 0.5  # of the largest number of tokens


def short(grids: Mapping[int, Grid]) -> list[Grid]:
    """Of each seed the runs that forecasts are made from: those that are trained at all, and not the longest."""
    return [grid.cut(least=LEAST, most=MOST[grid.world]) for grid in grids.values()]


def forecasts(grids: Iterable[Grid]) -> dict[str, list[float]]:
    """The loss at LARGEST by each form, fitted to the frontier of the short runs, nats per token, by seed."""
    frontiers = [axes(grid)["compute"] for grid in grids]
    return {name: [float(fit(*axis)(LARGEST)) for axis in frontiers] for name, fit in FORMS.items()}


def found(grids: Mapping[int, Grid]) -> list[float]:
    """The least loss at LARGEST among all runs, by seed: between two points of the frontier, a line in ln C."""
    frontiers = [axes(grid)["compute"] for grid in grids.values()]
    return [float(np.interp(np.log(LARGEST), np.log(axis.x), axis.loss)) for axis in frontiers]


def errors(grids: Iterable[Grid], axis: str, share: float) -> dict[str, list[float]]:
    """Of each form, forecast minus run at the largest of an axis, by seed."""
    each = [held_out(axes(grid)[axis], share) for grid in grids]
    return {name: [one[name] for one in each] for name in FORMS}


def apart(one: Iterable[float], other: Iterable[float]) -> list[float]:
    """How much larger errors are in size than others, by seed."""
    return [abs(a) - abs(b) for a, b in zip(one, other, strict=True)]


def r_squared(axis: Axis) -> float:
    """The share of a curve's variance that a line in ln x explains, in the first decade of x."""
    decade = axis.below(10 * axis.x[0])
    rest = decade.loss - FORMS[LINE](*decade)(decade.x)
    return float(1 - rest.var() / decade.loss.var())


def supports(steep: list[Grid]) -> list[Finding]:
    """What the claim rests on."""
    r2 = [r_squared(axes(grid)["compute"]) for grid in steep]
    return [Finding("R² of a line in ln C over the first decade of compute", r2, at_least=0.9, possible=(0, 1))]


def against(steep: list[Grid], flat: list[Grid], largest: list[float]) -> list[Finding]:
    """What makes it false as worded. largest: the loss at LARGEST, by seed."""
    line = np.array(forecasts(steep)[LINE]) - largest
    return [
        Finding(
            "steep, parameters: the line's forecast for 16 times the size minus the run, nats",
            errors(steep, "parameters", 0.1)[LINE],
            at_most=-0.05,
            because="a line that is fitted to small models promises large ones too much",
        ),
        Finding(
            "flat, parameters: the same",
            errors(flat, "parameters", 0.1)[LINE],
            at_most=-0.05,
            because="so it does in a world with another tail",
        ),
        Finding(
            "steep, compute: the line's forecast for the largest budget minus the run, nats",
            line.tolist(),
            at_most=-0.03,
            because="so does one that is fitted to small budgets of compute",
        ),
    ]


def further(
    steep: list[Grid],
    flat: list[Grid],
    stories: list[Grid],
    largest: list[float],
    one_rate: np.ndarray,
    best: np.ndarray,
    repeats: Mapping[int, list[float]],
) -> list[Finding]:
    """What else was written down. one_rate, best: nats above the floor of the narrowest and the widest model after
    131,072 tokens, (seeds, 2), at one rate and each at its own. repeats: by how many tokens differ, what 2,097,152
    tokens that repeat lose against fresh ones, by seed; of these no run of any seed had been seen."""
    stories_off = errors(stories, "tokens", HALF)
    forecast = {name: np.array(each) - largest for name, each in forecasts(steep).items()}
    over_n = {name: errors(grids, "parameters", 0.1) for name, grids in (("steep", steep), ("flat", flat))}
    laws = {name: [surface(groups([grid])) for grid in grids] for name, grids in (("steep", steep), ("flat", flat))}
    off = {
        name: [law.floor - grids[0].floor for law in laws[name]] for name, grids in (("steep", steep), ("flat", flat))
    }
    with_embedding = [constants(surface(groups([grid], embeddings=True)))[3] for grid in steep]
    ways = [[a for name, a in three_ways(grid).items() if name != "the surface, 6 N D"] for grid in steep]
    return [
        Finding("steep, parameters: floor plus power law, forecast minus run", over_n["steep"][FLOORED], -0.05, 0.05),
        Finding("steep, parameters: the line errs by more than it", apart(*_pair(over_n["steep"])), at_least=0.05),
        Finding("flat, parameters: the line errs by more than it", apart(*_pair(over_n["flat"])), at_least=0.03),
        Finding("steep, compute: power law, forecast minus run", forecast[POWER].tolist(), at_most=-0.02),
        Finding("steep, compute: the line errs by more than floor plus power law", apart(*_pair(forecast)), at_least=0),
        Finding("steep: the surface's floor minus the true one, nats", off["steep"], -0.05, 0.05),
        Finding("flat: the surface's floor minus the true one, nats", off["flat"], at_most=-0.1),
        Finding(
            "steep: exponents of the best size, the three ways apart", [max(w) - min(w) for w in ways], at_least=0.1
        ),
        Finding(
            "steep: the exponent of N with the embedding minus without",
            [a - law.exponents[0] for a, law in zip(with_embedding, laws["steep"], strict=True)],
            at_least=0.1,
        ),
        Finding(
            "steep: what width 64 gains on 4 at one rate, over what it gains at best rates",
            ((one_rate[:, 0] - one_rate[:, 1]) / (best[:, 0] - best[:, 1])).tolist(),
            at_least=2,
        ),
        Finding("stories, tokens: the line's forecast for twice the tokens minus the run", stories_off[LINE], 0.05),
        Finding("stories, tokens: floor plus power law, the same", stories_off[FLOORED], 0.05),
        Finding("4 epochs of 524,288 tokens lose against fresh ones, nats", repeats[2**19], at_most=0.01),
        Finding("16 epochs of 131,072 tokens lose against fresh ones, nats", repeats[2**17], at_least=0.03),
    ]


def _pair(by_form: Mapping[str, Iterable[float]]) -> tuple[Iterable[float], Iterable[float]]:
    return by_form[LINE], by_form[FLOORED]
