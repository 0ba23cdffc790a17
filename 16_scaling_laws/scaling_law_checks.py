"""Checks of `scaling.py`: laws, lines, and what a fit makes small."""

import math

import numpy as np
from scaling_cases import ONE, TWO, D, N, X, apart, by_hand, noisy, objective_by_torch, theta_of

from shared.clinic import Check, refusal

DELTA = 0.05  # about half of the residuals of `_points` are beyond it


def _points():
    """Constants, logs and log-losses whose residuals lie on both sides of DELTA and of 0: of one term, and of two."""
    draw = np.random.default_rng(0)
    for law, x in ((ONE[0], [X]), (TWO[1], [N, D])):
        theta = theta_of(law) + 0.02 * draw.normal(size=len(theta_of(law)))
        yield theta, np.log(np.stack(x)), np.log(noisy(law, 0.08, *x))


def _check_law(m):
    for law, x in ((ONE[1], [X]), (TWO[0], [N, D]), ((0.0, (5.0, 7.0, 9.0), (0.2, 0.3, 0.5)), [N, D, N + D])):
        if told := apart(m.Law(*law)(*x), by_hand(law, *x), "run"):
            return f"floor, scales and exponents {law}: {told}"
    chinchilla = m.Law(1.69, (406.4, 410.7), (0.34, 0.28))
    wanted = 1.69 + 406.4 / 70e9**0.34 + 410.7 / 1.4e12**0.28
    if told := apart(chinchilla(70_000_000_000, 1_400_000_000_000), wanted):
        return f"Chinchilla's law at 70 billion parameters and 1.4 trillion tokens, whole numbers: {told}"
    return refusal([("one number to a law of two terms", "", lambda: chinchilla(1e9))])


def _check_line(m):
    for a, b in ((5.0, -0.13), (-2.0, 0.7)):
        found = m.line(X, a + b * np.log(X))
        if told := apart(found, [a, b], tolerance=1e-9):
            return f"losses on the line {a:g} + {b:g} ln x, a and b: {told}"
        if told := apart(found(3.3e5), a + b * math.log(3.3e5)) or apart(found.reaches(a + 5 * b), math.exp(5)):
            return f"the line {a:g} + {b:g} ln x, its loss at 3.3e5 and where it has that of e^5: {told}"


def _check_line_squares(m):
    loss = noisy(ONE[0], 0.05, X)
    found = m.line(X, loss)
    left = loss - (found.a + found.b * np.log(X))
    # sums of 13 numbers of size 1 to 20
    for what, total in (("sum", left.sum()), ("sum, each times ln x,", (left * np.log(X)).sum())):
        if abs(total) > 1e-9:
            return f"13 losses that are on no line: the {what} of what the line leaves is {total:.4g}, expected 0"


def _check_line_refused(m):
    return refusal(
        [
            ("one run", "", lambda: m.line(np.array([1e6]), np.array([3.0]))),
            ("two runs of the same x", "1e+06", lambda: m.line(np.array([1e6, 1e6]), np.array([3.0, 2.9]))),
            ("an x of 0", "above 0", lambda: m.line(np.array([0.0, 1e6]), np.array([3.0, 2.9]))),
            ("3 losses for 2 x", "(3,)", lambda: m.line(np.array([1e5, 1e6]), np.array([3.0, 2.9, 2.8]))),
        ]
    )


def _check_terms(m):
    for law, x in ((ONE[2], [X]), (TWO[1], [N, D])):
        floor, scales, exponents = law
        parts = [np.full(len(x[0]), floor), *(a / at**p for a, at, p in zip(scales, x, exponents, strict=True))]
        found = m.log_terms(theta_of(law), np.log(np.stack(x)))
        if told := apart(found, np.log(parts), "term, run", least=1.0):
            return f"floor, scales and exponents {law}: the logarithm of {told}"


def _check_residuals(m):
    for theta, log_x, log_loss in _points():
        k = len(log_x)
        law = math.exp(theta[0]), np.exp(theta[1 : k + 1]), theta[k + 1 :]
        found = m.residuals(theta, log_x, log_loss)
        if told := apart(found, np.log(by_hand(law, *np.exp(log_x))) - log_loss, "run", least=1.0):
            return f"{k} terms, log-loss of the law less that of {told}"
    none = np.concatenate([[-math.inf], theta[1:]])
    bare = np.log(by_hand((0.0, *law[1:]), *np.exp(log_x))) - log_loss
    if told := apart(m.residuals(none, log_x, log_loss), bare, "run", least=1.0):
        return f"e = -inf, a floor of 0: {told}"
    with np.errstate(over="ignore"):
        large = m.residuals(np.array([900.0, *theta[1:]]), log_x, log_loss)
    if told := apart(large, 900 - log_loss, "run"):
        return f"e = 900, whose exponential is no float: {told}"


def _check_huber(m):
    sizes = [0.0, 1e-9, 3e-4, 1e-3, 1.0001e-3, 2e-3, 0.5]
    for sign in (1, -1):
        for r in sizes:
            wanted = r * r / 2 if r <= 1e-3 else 1e-3 * r - 5e-7
            if told := apart(m.huber(np.array([sign * r, 9.0]))[0], wanted):
                return f"residual {sign * r:g}, delta not given, 0.001: {told}"
            wanted = r * r / 2 if r <= 0.3 else 0.3 * r - 0.045
            if told := apart(m.huber(np.array([sign * r, 9.0]), 0.3)[0], wanted):
                return f"residual {sign * r:g}, delta 0.3: {told}"


def _check_objective(m):
    for theta, log_x, log_loss in _points():
        wanted, _ = objective_by_torch(theta, log_x, log_loss, DELTA)
        found = m.objective(theta, log_x, log_loss, DELTA)
        if told := apart(found, wanted):
            return f"{len(log_loss)} runs, {len(log_x)} terms, delta {DELTA}: {told}"
        twice = m.objective(theta, np.tile(log_x, 2), np.tile(log_loss, 2), DELTA)
        if told := apart(twice, 2 * found):
            return f"all runs twice: {told}, twice as much"
        wanted, _ = objective_by_torch(theta, log_x, log_loss, 1e-3)
        if told := apart(m.objective(theta, log_x, log_loss), wanted):
            return f"delta not given, 0.001: {told}"


def _check_gradient(m):
    for theta, log_x, log_loss in _points():
        for delta in (DELTA, 10.0):
            _, wanted = objective_by_torch(theta, log_x, log_loss, delta)
            if told := apart(m.gradient(theta, log_x, log_loss, delta), wanted, "constant", least=1.0):
                return f"{len(log_x)} terms, delta {delta}, derivative by {told}"
        _, wanted = objective_by_torch(theta, log_x, log_loss, 1e-3)
        if told := apart(m.gradient(theta, log_x, log_loss), wanted, "constant", least=0.01):
            return f"{len(log_x)} terms, delta not given, 0.001, derivative by {told}"
    none = np.concatenate([[-math.inf], theta[1:]])
    _, wanted = objective_by_torch(np.concatenate([[-700.0], theta[1:]]), log_x, log_loss, DELTA)
    if told := apart(m.gradient(none, log_x, log_loss, DELTA), wanted, "constant", least=1.0):
        return f"e = -inf, a floor of 0, derivative by {told}"


LAW_CHECKS = [
    Check(
        "a law is its floor and a term for each of its numbers",
        _check_law,
        "What is raised to which power, and what of whole numbers?",
        about=["Law"],
    ),
    Check("a line finds the line that is there", _check_line, "In what is it a line?", about=["line", "Line"]),
    Check(
        "a line leaves as much above as below, and no slope",
        _check_line_squares,
        "Which sum has a line with the least squares made small?",
        about=["line"],
    ),
    Check("runs that have no line are refused", _check_line_refused, about=["line"]),
    Check(
        "the terms of a law are those of its constants, in logarithms",
        _check_terms,
        "Which sign has an exponent, and which rows belong to which numbers?",
        about=["log_terms"],
    ),
    Check(
        "a residual is the law's log-loss less the run's, at any size",
        _check_residuals,
        "Is the sum of exponentials ever taken before its logarithm?",
        about=["residuals", "log_terms"],
    ),
    Check(
        "Huber's loss is half a square up to delta, and goes on as steeply",
        _check_huber,
        "What do both pieces say at delta, and what if a residual is negative?",
        about=["huber"],
    ),
    Check(
        "the objective is PyTorch's Huber loss, summed over the runs",
        _check_objective,
        "What becomes of a sum, and of a mean, if every run is there twice?",
        about=["objective", "huber", "residuals"],
    ),
    Check(
        "the gradient is that of autograd",
        _check_gradient,
        "What is the derivative of a log-sum-exp, and what that of Huber's loss beyond delta?",
        about=["gradient", "log_terms"],
    ),
]
