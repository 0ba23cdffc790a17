"""Lesson 16's grids, forecasts and rules, on runs that a known law has made; and what is stored."""

import json

import numpy as np
import pytest
import scaling
import scaling_forecasts
import scaling_largest_sweep
import scaling_rules as rules
import scaling_sweep
from scaling_grid import Grid, grids
from scaling_rates import best_rates, by_rate
from scaling_trial import FLOORED, LINE, POWER, Axis, axes, groups, held_out, repeated, surface, three_ways, valleys
from scaling_world import world

from shared.sweeps import stored

WIDTHS = (4, 6, 8, 12, 16, 24, 32, 48, 64)
BUDGETS = tuple(2**i for i in range(17, 24))
LAW = scaling.Law(world("steep").floor, (30.0, 600.0), (0.7, 0.6))


def planted(law=LAW, widths=WIDTHS, budgets=BUDGETS):
    """A grid whose losses are a law's."""
    empty = Grid("steep", widths, budgets, np.zeros((len(widths), len(budgets))))
    n, d = np.meshgrid(empty.n, budgets, indexing="ij")
    return Grid("steep", widths, budgets, law(n, d) - empty.floor)


def test_rows_become_grids():
    rows = [
        {"world": "steep", "width": 8, "seed": 2, "budgets": [64, 256], "above": [[1.0, 3.0], [1.0, 1.0]]},
        {"world": "steep", "width": 4, "seed": 2, "budgets": [128], "above": [[4.0, 6.0]]},
        {"world": "flat", "width": 4, "seed": 2, "budgets": [128], "above": [[9.0, 9.0]]},
    ]
    (seed, grid), *others = grids(rows, "steep").items()
    assert seed == 2 and not others and grid.widths == (4, 8) and grid.budgets == (64, 128, 256)
    assert np.array_equal(grid.above, [[np.nan, 5, np.nan], [2, np.nan, 1]], equal_nan=True)
    assert [c.tolist() for c, _ in grid.curves] == [[grid.flops[0, 1]], [grid.flops[1, 0], grid.flops[1, 2]]]
    assert grid.cut(least=128).budgets == (128, 256) and grid.cut(most=100).above.tolist()[1] == [2.0]


def test_the_best_rate_of_each_cell_and_the_runs_that_serve_them():
    rows = [
        {"width": 4, "rate": 0.1, "budgets": [1, 2, 4], "above": [[1.0], [0.9], [0.8]]},
        {"width": 4, "rate": 0.05, "budgets": [1, 2, 4], "above": [[2.0], [0.8], [0.7]]},
        {"width": 8, "rate": 0.1, "budgets": [1, 2], "above": []},
        {"width": 8, "rate": 0.05, "budgets": [1, 2], "above": [[2.0], [0.8]]},
    ]
    best = best_rates(rows)
    assert best == {(4, 1): 0.1, (4, 2): 0.05, (4, 4): 0.05, (8, 1): 0.05, (8, 2): 0.05}
    assert by_rate(best) == {(4, 0.1): [1], (4, 0.05): [2, 4], (8, 0.05): [1, 2]}


def test_a_frontier_has_a_smaller_and_a_larger_size_beside_it():
    """So that the best size is not merely the last one; its losses are those of the best width at that budget."""
    grid = planted()
    flops, loss, which = grid.frontier()
    assert which.min() > 0 and which.max() < len(WIDTHS) - 1 and np.all(np.diff(loss) < 0)
    for c, least in zip(flops, loss, strict=True):
        sizes = grid.n[np.array([curve[0] <= c <= curve[-1] for curve, _ in grid.curves])]
        assert len(sizes) >= 3 and least == pytest.approx(grid.iso_flop(c)[1].min())


def test_a_law_forecasts_itself_and_the_other_forms_promise_too_much():
    x = np.geomspace(1, 1e4, 20)
    errors = held_out(Axis(x, 1.5 + 2 * x**-0.4), share=0.1)
    assert abs(errors[FLOORED]) < 1e-5 and errors[LINE] < errors[POWER] < -0.05
    errors = held_out(Axis(x, 3 - 0.1 * np.log(x)), share=0.1)
    assert abs(errors[LINE]) < 1e-12


def test_a_surface_is_found_again_and_the_ways_agree_where_the_law_is_exact():
    grid = planted()
    law = surface(groups([grid, grid]))
    assert np.allclose([law.floor, *law.scales, *law.exponents], [LAW.floor, *LAW.scales, *LAW.exponents], rtol=1e-4)
    ways = three_ways(grid)
    assert ways["the surface, 6 N D"] == pytest.approx(0.6 / 1.3, abs=1e-3)
    exact = [a for name, a in ways.items() if "6 N D" not in name]
    assert max(exact) - min(exact) < 0.1  # between widths and budgets all three interpolate
    flops, sizes = valleys(grid)
    assert np.all(np.diff(flops) > 0) and np.all(sizes > grid.n[0]) and np.all(sizes < grid.n[-1])


def test_the_embedding_moves_the_exponent_of_the_size():
    with_embedding = surface(groups([planted()], embeddings=True))
    assert with_embedding.exponents[0] > LAW.exponents[0] + 0.1


def test_repeated_text_is_judged_by_other_seeds_than_the_one_that_chose_rates():
    rows = [
        {"width": 32, "rate": rate, "unique": 64, "seed": seed, "most": 2**17, "above": [[loss], [loss / 2]]}
        for seed in range(4)
        for rate, loss in ((0.1, 1.0 + seed), (0.2, 2.0 - seed / 4))
    ]
    again = repeated(rows, 64)
    assert again.x.tolist() == [2**16, 2**17] and again.loss.tolist() == [[2.0, 1.0], [3.0, 1.5], [4.0, 2.0]]


def test_the_rules_can_be_met_and_missed():
    """On runs of a law with a floor the line is refuted; on runs that are a line in ln N it is not."""
    law = planted().cut(most=2**21)
    n = law.n
    straight = Grid(
        "steep", WIDTHS, law.budgets, np.repeat((0.6 - 0.05 * np.log(n))[:, None], len(law.budgets), axis=1)
    )
    met = [finding.met for finding in rules.against([law, law], [law, law], [LAW.floor + 0.1] * 2)]
    assert met[0] and met[1]
    missed = rules.against([law, law], [straight, straight], [LAW.floor + 0.1] * 2)[1]
    assert not missed.met and abs(missed.mean) < 1e-9


def test_the_forecasts_are_those_of_the_short_runs():
    """Each form, each seed: what was written down is what today's code says of the stored runs."""
    written = json.loads(scaling_forecasts.FILE.read_text(encoding="utf-8"))
    found = scaling_forecasts.from_stored_runs()
    assert written.keys() == found.keys()
    assert all(np.allclose(written[form], found[form], atol=2e-4) for form in found)  # L-BFGS ends that near


def test_the_longest_runs_were_not_among_those_that_forecasts_are_made_from():
    short, _ = stored(scaling_sweep.SWEEP.results)
    long, _ = stored(scaling_largest_sweep.SWEEP.results)
    longest = max(budget for row in short if row["world"] == "steep" for budget in row["budgets"])
    assert longest < min(budget for row in long for budget in row["budgets"])
    assert axes(rules.short(grids(short, "steep"))[0])["compute"].x[-1] < rules.LARGEST / 3
