"""Checks of `scaling.py`: a budget's optimum, valleys, frontiers, bootstraps, and the worth of repeated data."""

import math

import numpy as np
from scaling_cases import TWO, apart, by_hand
from scipy.optimize import minimize_scalar

from shared.clinic import Check, refusal

CHINCHILLAS = [  # A, B, alpha, beta, and the size in billions at 5.76e23: as printed, in the source, and refitted
    ((406.4, 410.7), (0.34, 0.28), 32.2),
    ((406.4, 410.7), (0.3392, 0.2849), 40.3),
    ((482.01, 2085.43), (0.3478, 0.3658), 72.2),
]
SIZES = np.array([2e5, 5e5, 9e5, 2.2e6, 7e6])


def _check_chinchilla(m):
    for scales, exponents, billions in CHINCHILLAS:
        n, d = m.optimum(m.Law(1.7, scales, exponents), 5.76e23)
        told = f"scales {scales}, exponents {exponents}, 5.76e23 operations"
        if not abs(n / 1e9 - billions) <= 0.05:
            return f"{told}: found {n / 1e9:.4g} billion parameters, expected {billions}"
        if gap := apart(6 * n * d, 5.76e23):
            return f"{told}, 6 N D: {gap}"


def _check_optimum(m):
    for law in TWO:
        for flops, per_token in ((1e16, 6.0), (3e21, 2.0), (1e19, 11.0)):
            n, d = m.optimum(m.Law(*law), flops, per_token)

            def loss(log_n, law=law, budget=flops / per_token):
                return by_hand(law, math.exp(log_n), budget / math.exp(log_n)) - law[0]

            found = minimize_scalar(loss, bounds=(0.0, math.log(flops)), method="bounded", options={"xatol": 1e-9})
            told = f"law {law}, {flops:g} operations, {per_token:g} for a parameter and a token"
            # a minimum is flat: its place is known to the root of the loss's rounding, some 1e-8
            if gap := apart(n, math.exp(found.x), tolerance=1e-5):
                return f"{told}, size: {gap} by a search"
            if gap := apart(d, flops / per_token / n):
                return f"{told}, tokens: {gap}"


def _check_optimum_refused(m):
    return refusal(
        [
            ("a law of one term", "", lambda: m.optimum(m.Law(1.0, (5.0,), (0.3,)), 1e20)),
            ("an exponent below 0", "", lambda: m.optimum(m.Law(1.0, (5.0, 6.0), (0.3, -0.1)), 1e20)),
            ("an exponent of 0", "", lambda: m.optimum(m.Law(1.0, (5.0, 6.0), (0.0, 0.3)), 1e20)),
        ]
    )


def _check_valley(m):
    for lowest, least, width in ((1.3e6, 2.31, 0.013), (2.1e5, 4.0, 0.4), (6.9e6, 1.0, 2.0)):
        loss = least + width * (np.log(SIZES) - math.log(lowest)) ** 2
        # of squares of logarithms of size 15, some 1e-13 is lost; divided by the least curvature, 1e-2
        if told := apart(m.valley(SIZES, loss), [lowest, least], tolerance=1e-8):
            return f"a parabola with its lowest point at {lowest:g} and {least:g}: size and loss, {told}"
    loss = np.array([2.9, 2.55, 2.5, 2.61, 3.2])
    c = np.linalg.lstsq(np.stack([np.ones(5), np.log(SIZES), np.log(SIZES) ** 2], axis=1), loss, rcond=None)[0]
    wanted = math.exp(-c[1] / (2 * c[2])), c[0] - c[1] ** 2 / (4 * c[2])
    if told := apart(m.valley(SIZES, loss), wanted, tolerance=1e-8):
        return f"losses {loss.tolist()} at sizes {SIZES.tolist()}: size and loss, {told} by least squares"


def _check_valley_refused(m):
    away = np.log(SIZES) - np.log(SIZES.min()), np.log(SIZES) - np.log(SIZES.max())
    return refusal(
        [
            ("losses that fall to the largest size", "", lambda: m.valley(SIZES, 2 + (away[1] - 0.1) ** 2)),
            ("losses that fall to the smallest size", "", lambda: m.valley(SIZES, 2 + (away[0] + 0.1) ** 2)),
            ("losses with a hill", "", lambda: m.valley(SIZES, 5 - (away[0] - 2) ** 2 / 20)),
        ]
    )


def _check_valley_of_two(m):
    return refusal([("two sizes", "2 runs", lambda: m.valley(SIZES[:2], np.array([2.0, 3.0])))])


CURVES = [  # of three sizes: budgets, losses
    (np.array([1e3, 1e4, 1e5]), np.array([4.0, 3.0, 2.9])),
    (np.array([1e4, 1e5, 1e6, 1e7]), np.array([3.5, 2.5, 2.0, 1.9])),
    (np.array([1e6, 1e8]), np.array([2.4, 1.2])),
]


def _check_frontier(m):
    root = math.sqrt(10)
    cases = [  # a budget, the least loss there by hand, and the size that has it
        (1e3, 4.0, 0),
        (1e3 * root, 3.5, 0),
        (1e4, 3.0, 0),
        (1e4 * root, 2.95, 0),
        (1e5, 2.5, 1),
        (1e6, 2.0, 1),
        (1e6 * root, 1.95, 1),
        (1e7, 1.8, 2),
        (1e8, 1.2, 2),
    ]
    budgets, losses, which = (np.array(column) for column in zip(*cases, strict=True))
    found = m.frontier(budgets, CURVES)
    if told := apart(found[0], losses, "budget"):
        return f"budgets {[f'{it:.3g}' for it in budgets]}, least loss: {told}"
    if told := apart(found[1], which, "budget"):
        return f"budgets {[f'{it:.3g}' for it in budgets]}, size: {told}"


def _check_frontier_ends(m):
    loss, which = m.frontier(np.array([1.0, 999.0, 1e3, 1e8, 1.01e8, 1e12]), CURVES)
    if told := apart(loss, [np.nan, np.nan, 4.0, 1.2, np.nan, np.nan], "budget"):
        return f"the first two and the last two budgets were not reached, least loss: {told}"
    if told := apart(which, [-1, -1, 0, 2, -1, -1], "budget"):
        return f"the first two and the last two budgets were not reached, size: {told}"
    loss, which = m.frontier(np.array([1e3, 3e4, 1e6]), [CURVES[0], CURVES[2]])
    if told := apart(loss, [4.0, 3 - 0.1 * math.log10(3), 2.4], "budget"):
        return f"no size beyond the budgets that it was trained for: {told}"


GROUPS = [[("a", i)] * (i + 1) for i in range(11)]  # of unequal size


def _check_bootstrap_groups(m):
    seen = []
    m.bootstrap(GROUPS, lambda groups: seen.append(groups) or 0.0, 300, seed=0)
    if len(seen) != 300:
        return f"300 draws: the statistic was asked {len(seen)} times"
    for i, groups in enumerate(seen):
        if len(groups) != len(GROUPS) or not all(group in GROUPS for group in groups):
            return f"draw {i} of 11 groups has {len(groups)} of them, expected 11, each as it was given"
    again = sum(len({group[0][1] for group in groups}) < len(GROUPS) for groups in seen)
    if again < 290:  # that 11 draws of 11 are all different has a chance of 11! / 11^11, 1 in 7,000
        return f"11 groups: {300 - again} of 300 draws have each of them once"
    counts = np.bincount([group[0][1] for groups in seen for group in groups], minlength=11)
    if not np.all(np.abs(counts - 300) < 6 * 300**0.5):  # six standard deviations of a count whose mean is 300
        return f"11 groups, 300 draws: each was drawn {counts.tolist()} times, expected about 300"


def _check_bootstrap_spread(m):
    numbers = np.random.default_rng(3).normal(size=40)
    found = m.bootstrap(list(numbers), np.mean, 2000, seed=5)
    if np.shape(found) != (2000,):
        return f"2,000 means of numbers: shape {np.shape(found)}, expected (2000,)"
    wanted = numbers.std() / 40**0.5
    if not abs(found.std() / wanted - 1) < 0.1:  # a deviation of 2,000 draws is off by 1.6 %
        return f"means of 40 numbers: deviation {found.std():.4g}, their standard error is {wanted:.4g}"
    if not abs(found.mean() - numbers.mean()) < 6 * wanted / 2000**0.5:
        return f"means of 40 numbers: their mean is {found.mean():.4g}, that of the numbers {numbers.mean():.4g}"
    both = m.bootstrap(list(numbers), lambda some: (np.mean(some), np.max(some)), 7, seed=5)
    if np.shape(both) != (7, 2):
        return f"7 draws of a statistic of two numbers: shape {np.shape(both)}, expected (7, 2)"
    if told := apart(both[:, 0], found[:7], "draw"):
        return f"the same seed, another statistic beside the mean: {told}"
    if np.array_equal(m.bootstrap(list(numbers), np.mean, 7, seed=6), found[:7]):
        return "seeds 5 and 6 have the same draws"


def _check_repeats(m):
    for unique, half_life in ((1e6, 15.4), (300, 5.0)):
        for epochs in (0.25, 1.0, 1.5, 2.0, 4.0, 16.0, 59.0):
            r = max(epochs - 1, 0)
            wanted = unique * (min(epochs, 1) + half_life * (1 - math.exp(-r / half_life)))
            if told := apart(m.worth_of_repeats(epochs * unique, unique, half_life), wanted):
                return f"{unique:g} unique tokens, {epochs:g} epochs, half-life {half_life}: {told}"
    if not abs((found := m.worth_of_repeats(4.0, 1.0)) - 3.73) <= 0.005:
        return f"4 epochs, half-life not given: found {found:.4g} times the tokens, expected 3.73"
    if told := apart(m.worth_of_repeats(1e9, 2.0), 2 * 16.4):
        return f"2 unique tokens without end: {told}"


def _check_repeats_refused(m):
    return refusal(
        [
            ("no tokens", "tokens 0", lambda: m.worth_of_repeats(0, 100)),
            ("no unique tokens", "unique 0", lambda: m.worth_of_repeats(100, 0)),
            ("a half-life of 0", "half_life 0", lambda: m.worth_of_repeats(100, 50, 0)),
        ]
    )


SPEND_CHECKS = [
    Check(
        "Chinchilla's budget has the optimum of each of its three sets of constants",
        _check_chinchilla,
        "What is equal at the optimum, and which exponent has the budget in the size?",
        about=["optimum"],
    ),
    Check(
        "no other size loses less at the same budget",
        _check_optimum,
        "How many tokens are left to a size, and what has per_token to do with it?",
        about=["optimum"],
    ),
    Check("laws without an optimum are refused", _check_optimum_refused, about=["optimum"]),
    Check(
        "a valley is the lowest point of the parabola",
        _check_valley,
        "In what is it a parabola, and where is its derivative 0?",
        about=["valley"],
    ),
    Check("runs that show no valley are refused", _check_valley_refused, "Where may it lie?", about=["valley"]),
    Check("two runs are refused, which no parabola is fitted to", _check_valley_of_two, about=["_check_runs"]),
    Check(
        "a frontier is the least loss of all sizes at each budget",
        _check_frontier,
        "Along what is a line drawn between two budgets?",
        about=["frontier"],
    ),
    Check(
        "a size says nothing of budgets that it was not trained for",
        _check_frontier_ends,
        "What stands left of a curve's first budget, and right of its last one?",
        about=["frontier"],
    ),
    Check(
        "a sample has as many groups as there are, whole, and some of them again",
        _check_bootstrap_groups,
        "What is drawn, how often, and is it put back?",
        about=["bootstrap"],
    ),
    Check(
        "the spread of bootstrapped means is their standard error, and a seed's draws are the same again",
        _check_bootstrap_spread,
        "From which numbers is a sample drawn?",
        about=["bootstrap"],
    ),
    Check(
        "each repetition is worth less than the one before, and the first pass all of it",
        _check_repeats,
        "How many repetitions has an epoch, and two?",
        about=["worth_of_repeats"],
    ),
    Check("no tokens are refused", _check_repeats_refused, about=["worth_of_repeats"]),
]
