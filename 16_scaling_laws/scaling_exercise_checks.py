"""Checks of lesson 16's three exercises. Each takes a module with the reader's functions."""

import math

import numpy as np
import scaling
from scaling_cases import apart, by_hand

from shared.clinic import Check

LAWS = [(1.69, (406.4, 410.7), (0.34, 0.28)), (1.0, (90.0, 700.0), (0.25, 0.45))]


def _check_cheapest(m):
    for law in LAWS:
        for loss in (law[0] + 0.3, law[0] + 1.0):
            for served in (0.0, 1e9, 1e13):
                n, d = m.cheapest(scaling.Law(*law), loss, served)
                told = f"law {law}, loss {loss:g}, {served:g} tokens in use"
                if gap := apart(by_hand(law, n, d), loss, tolerance=1e-6):
                    return f"{told}: N {n:.3g} and D {d:.3g} have the loss {gap}"
                cost = 6 * n * d + 2 * n * served
                others = n * np.exp(np.linspace(-2, 2, 4001))
                left = loss - by_hand(law, others, np.full(len(others), np.inf))  # for the tokens' term
                others, left = others[left > 0], left[left > 0]
                tokens = (law[1][1] / left) ** (1 / law[2][1])
                costs = 6 * others * tokens + 2 * others * served
                # the grid's steps are 0.1 %: around a minimum the cost rises by the square of that
                if not cost <= costs.min() * (1 + 1e-5):
                    least = f"{costs.min():.6g} at N = {others[costs.argmin()]:.4g}"
                    return f"{told}: training and use cost {cost:.6g} with N = {n:.4g}, and {least}"


def _check_emerges(m):
    for law in LAWS:
        for tokens, length in ((1e12, 4), (3e11, 7), (1e9, 2)):
            found = m.emerges_at(scaling.Law(*law), tokens, length)
            told = f"law {law}, {tokens:g} tokens of training, answers of {length} tokens"
            if law[1][1] / tokens ** law[2][1] >= math.log(2) / length:
                if not math.isinf(found):
                    return f"{told}: found {found:.4g}, and no size is right half the time: expected inf"
                continue
            right = math.exp(-length * (by_hand(law, found, tokens) - law[0]))
            if not abs(right - 0.5) <= 1e-6:
                return f"{told}: found {found:.4g}, where an answer is right with probability {right:.4g}"


def _check_branched(m):
    for budgets, cooldown in (([1000], 0.2), ([100, 300, 500, 700], 0.2), ([2**i * 10 for i in range(7)], 0.3)):
        read = set()  # tokens of the run at a constant rate, which branches share
        alone = 0
        for budget in budgets:
            begins = round(budget * (1 - cooldown))
            read |= set(range(begins))
            alone += budget - begins
        found = m.branched_cost(budgets, cooldown)
        if told := apart(found, [len(read) + alone, sum(budgets)]):
            return f"budgets {budgets}, cooldown {cooldown}, branched (0) and separate (1), cost {told}"


EXERCISES = [
    Check(
        "the cheapest model for a loss, training and use counted",
        _check_cheapest,
        "How many tokens does a size need for that loss, and what do training and use of it cost?",
    ),
    Check(
        "where answers of some length are right half the time; inf if no size is",
        _check_emerges,
        "How large may a token's loss above the floor be, and what of it is due to the tokens?",
    ),
    Check(
        "what budgets cost with branches, and as separate runs",
        _check_branched,
        "How far must the run at a constant rate go, and what does each budget add to it?",
    ),
]
