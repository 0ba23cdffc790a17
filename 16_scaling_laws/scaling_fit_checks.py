"""Checks of `scaling.py`: the fit of a law to runs."""

import numpy as np
from scaling_cases import ONE, TWO, D, N, X, apart, by_hand, laws_apart, noisy, objective_by_torch

from shared.clinic import Check, refusal

FLAT = np.full(len(X), 2.0)


def _check_planted_one(m):
    for law in ONE:
        if told := laws_apart(m.fit(by_hand(law, X), X), law):
            return f"runs without chance on floor, scale and exponent {law}: {told}"


def _check_planted_two(m):
    for law in TWO:
        if told := laws_apart(m.fit(by_hand(law, N, D), N, D), law):
            return f"runs without chance on floor, scales and exponents {law}: {told}"


def _check_held(m):
    for law, x in ((ONE[0], [X]), (TWO[1], [N, D])):
        if told := laws_apart(m.fit(by_hand(law, *x), *x, floor=law[0]), law):
            return f"the floor held at {law[0]}, where it is: {told}"
        bare = 0.0, *law[1:]
        if told := laws_apart(m.fit(by_hand(bare, *x), *x, floor=0.0), bare):
            return f"runs of a law without a floor, floor 0: {told}"
    found = m.fit(by_hand(ONE[0], X), X, floor=1.2)
    if told := apart(found.floor, 1.2):
        return f"the floor held at 1.2, where it is not: {told}"


def _check_near(m):
    law, start = TWO[1], (1.1, (50.0, 1500.0), (0.25, 0.5))
    loss = by_hand(law, N, D)
    if told := laws_apart(m.fit(loss, N, D, near=m.Law(*start)), law):
        return f"runs without chance on {law}, near {start}: {told}"
    if told := laws_apart(m.fit(loss, N, D, floor=law[0], near=m.Law(*start)), law):
        return f"the floor held at {law[0]}, where it is, near {start}: {told}"


def _check_stationary(m):
    """At the law that is found the objective has no slope. Each run may pull by delta: a slope is a share of that."""
    for law, x in ((ONE[1], [X]), (TWO[0], [N, D])):
        for delta in (1e-3, 10.0):
            loss = noisy(law, 0.02, *x)
            found = m.fit(loss, *x, delta=delta)
            middle = np.log(np.stack(x)).mean(axis=1)
            a = np.log(found.scales) - np.array(found.exponents) * middle
            theta = np.array([np.log(found.floor), *a, *found.exponents])
            log_x = np.log(np.stack(x)) - middle[:, None]
            _, slope = objective_by_torch(theta, log_x, np.log(loss), delta)
            pull = min(delta, 0.02) * len(loss)
            if not np.abs(slope).max() < 1e-4 * pull:
                worst = int(np.abs(slope).argmax())
                told = f"{len(loss)} runs off by 2 %, {len(x)} terms, delta {delta}"
                return f"{told}: by constant {worst} the objective has the slope {slope[worst]:.3g}, expected 0"


def _check_order_and_units(m):
    law = TWO[0]
    loss = noisy(law, 0.003, N, D)
    found = m.fit(loss, N, D)
    kept = found.floor, found.scales, found.exponents
    mixed = np.random.default_rng(0).permutation(len(loss))
    if told := laws_apart(m.fit(loss[mixed], N[mixed], D[mixed]), kept, 1e-4):
        return f"the same runs in another order: {told}"
    scales = tuple(a * unit**p for a, unit, p in zip(kept[1], (1e-6, 1e-9), kept[2], strict=True))
    if told := laws_apart(m.fit(loss, N * 1e-6, D * 1e-9), (kept[0], scales, kept[2]), 1e-4):
        return f"sizes in millions and tokens in billions: {told}"


def _standard_errors(law, size, *x):
    """Of floor, scales (logarithms) and exponents, if residuals are normal with deviation `size`: from the normal
    equations, derivatives of the log-loss by small differences."""
    floor, scales, exponents = law
    at = np.array([floor, *np.log(scales), *exponents])

    def log_loss(theta):
        k = len(scales)
        return np.log(by_hand((theta[0], np.exp(theta[1 : k + 1]), theta[k + 1 :]), *x))

    columns = [(log_loss(at + step) - log_loss(at - step)) / 2e-6 for step in 1e-6 * np.eye(len(at))]
    jacobian = np.stack(columns, axis=1)
    return at, size * np.sqrt(np.diag(np.linalg.inv(jacobian.T @ jacobian)))


def _check_noise(m):
    """Six standard errors of least squares; Huber's of normal residuals are at most 1.26 times as large."""
    for law, x in ((ONE[0], [X]), (TWO[1], [N, D])):
        wanted, errors = _standard_errors(law, 0.002, *x)
        found = m.fit(noisy(law, 0.002, *x), *x)
        constants = np.array([found.floor, *np.log(found.scales), *found.exponents])
        off = np.abs(constants - wanted) / errors
        if not off.max() < 6 * 1.26:
            i = int(off.argmax())
            told = f"{len(x[0])} runs of {law}, off by 0.2 %, constant {i}"
            return (
                f"{told}: found {constants[i]:.4g}, expected {wanted[i]:.4g} with a standard error of {errors[i]:.2g}"
            )


def _check_outlier(m):
    """One run pulls by no more than delta, so no other run's residual is larger than that."""
    for law, x, at in ((ONE[0], [X], 4), (TWO[1], [N, D], 30)):
        loss = by_hand(law, *x)
        loss[at] *= 1.4
        found = m.fit(loss, *x)(*x)
        off = np.abs(np.log(found / by_hand(law, *x)))
        off[at] = 0
        if not off.max() <= 1.01e-3:
            told = f"one of {len(loss)} runs is 40 % too high"
            return (
                f"{told}: at run {int(off.argmax())} the law is off by {100 * off.max():.2g} %, expected 0.1 % at most"
            )


def _check_refused(m):
    three = X[:3]
    loss = by_hand(ONE[0], three)
    law = m.Law(0.0, (30.0,), (0.3,))
    m.fit(loss, three)
    m.fit(loss[:2], three[:2], floor=0.0)
    return refusal(
        [
            ("2 runs for 3 constants", "2 runs", lambda: m.fit(loss[:2], three[:2])),
            ("4 runs for 5 constants", "4 runs", lambda: m.fit(FLAT[:4], X[:4], X[4:8])),
            ("one run and a held floor", "", lambda: m.fit(loss[:1], three[:1], floor=0.0)),
            ("13 losses and 12 x", "(12,)", lambda: m.fit(FLAT, X[1:])),
            ("losses as a table", "(1, 13)", lambda: m.fit(FLAT[None], X[None])),
            ("a loss of 0", "above 0", lambda: m.fit(np.append(loss[:2], 0.0), three)),
            ("a loss that is NaN", "finite", lambda: m.fit(np.append(loss[:2], np.nan), three)),
            ("an x below 0", "above 0", lambda: m.fit(FLAT, -X)),
            ("an x that is infinite", "finite", lambda: m.fit(FLAT, np.append(X[:-1], np.inf))),
            ("runs of one size", "1e+06", lambda: m.fit(FLAT, np.full(13, 1e6))),
            ("a floor below 0", "floor -0.1", lambda: m.fit(loss, three, floor=-0.1)),
            ("a floor as high as a loss", "floor", lambda: m.fit(loss, three, floor=float(loss.min()))),
            ("near a law of two terms", "terms", lambda: m.fit(loss, three, near=m.Law(*TWO[0]))),
            ("near a law without a floor", "floor 0", lambda: m.fit(loss, three, near=law)),
        ]
    )


FIT_CHECKS = [
    Check(
        "a law of one term is found again",
        _check_planted_one,
        "From where do the descents begin, and when do they end?",
        about=["fit"],
    ),
    Check(
        "a law of two terms is found again",
        _check_planted_two,
        "Which term belongs to which numbers?",
        about=["fit"],
    ),
    Check("a floor that is held stays where it is", _check_held, "Which constants are free?", about=["fit"]),
    Check("a fit near a law comes to the same", _check_near, "Which logarithms has the start?", about=["fit"]),
    Check(
        "where a fit ends the objective has no slope",
        _check_stationary,
        "How large is the objective near its minimum, and by how little may it fall before the search ends?",
        about=["fit"],
    ),
    Check(
        "neither the order of the runs nor their units change a law",
        _check_order_and_units,
        "What does the way of the search depend on?",
        about=["fit"],
    ),
    Check(
        "with noise the constants are off by what noise allows",
        _check_noise,
        "What is made small, and is it small there?",
        about=["fit"],
    ),
    Check(
        "one run that went wrong hardly moves a law",
        _check_outlier,
        "How strongly does a run pull that is far off, and in which unit?",
        about=["fit"],
    ),
    Check("runs and floors that no law can have are refused", _check_refused, about=["fit"]),
]
