"""Scaling laws: count a model, count what its training costs, fit a law to runs, and spend a budget by it.

    shape = Shape(vocab_size=49152, d_model=576, n_layers=30, n_heads=9, n_kv_heads=3, d_ff=1536)   # SmolLM2-135M
    count_parameters(shape).total                           # 134,515,008
    train_flops(shape, context=2048, tokens=2e12)           # 3 times the forward pass; 6 N D is near it
    law = fit(loss, N, D)                                   # L = E + A / N^alpha + B / D^beta
    n, d = optimum(law, flops=1e21)                         # the size and the tokens that lose least
    line(C, loss), fit(loss, C, floor=0.0), fit(loss, C)    # three forms of one curve: line in log C, power law, floor

Sizes N are parameters, D tokens, C floating point operations (a multiplication and an addition are two), losses nats
per token. Runs are NumPy arrays, one number for each run.

Sources: Kaplan et al. 2020 (arXiv 2001.08361); Hoffmann et al. 2022 (Chinchilla, 2203.15556); Besiroglu et al. 2024
(2404.10102); Muennighoff et al. 2023 (2305.16264).
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize

DELTA = 1e-3  # where Huber's loss turns from a square into a line, in log-loss: Chinchilla's


# ---- counting


@dataclass(frozen=True)
class Shape:
    """The sizes of a decoder as Llama's: no biases, a gated feed-forward of three matrices, d_ff wide inside, two norms
    in a layer and one at the end. tied: the head is the embedding's own matrix. Raises ValueError for sizes that do not
    divide."""

    vocab_size: int
    d_model: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    d_ff: int
    tied: bool = True

    def __post_init__(self):
        if self.d_model % self.n_heads or self.n_heads % self.n_kv_heads:
            heads = f"{self.n_heads} query heads and {self.n_kv_heads} key heads"
            raise ValueError(f"width {self.d_model} with {heads}: expected widths and heads that divide")


class Parameters(NamedTuple):
    """How many numbers a model learns: in its embedding, in its blocks (and the last norm), in a head of its own."""

    embedding: int
    blocks: int
    head: int

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self)


def count_parameters(shape: Shape) -> Parameters:
    """Counted from the sizes. A tied head is no second matrix. SmolLM2-135M: 28,311,552 and 106,203,456 and 0."""
    d, kv_width = shape.d_model, shape.d_model // shape.n_heads * shape.n_kv_heads
    attention = 2 * d * d + 2 * d * kv_width  # queries and proj; keys and values
    layer = attention + 3 * d * shape.d_ff + 2 * d  # gate, up, proj; two norms
    table = shape.vocab_size * d
    return Parameters(table, shape.n_layers * layer + d, 0 if shape.tied else table)


def forward_flops(shape: Shape, context: int) -> float:
    """Operations of matrix products for one token of a text of `context` tokens, in a forward pass.

    A matrix of n numbers costs 2 n; each layer's scores and mixtures cost 2 context d_model each, the causal half of
    which is computed, too. To look a row of the embedding up costs nothing; the head is a matrix, tied or not. Norms,
    rotations, softmax and activations are left out: they grow with the width, not with its square.
    """
    d = shape.d_model
    norms = (2 * shape.n_layers + 1) * d
    matrices = count_parameters(shape).blocks - norms + shape.vocab_size * d
    return 2.0 * matrices + shape.n_layers * 4.0 * context * d


def train_flops(shape: Shape, context: int, tokens: float) -> float:
    """Operations of a training on `tokens` tokens: backward costs twice forward, a product for each factor."""
    return 3 * forward_flops(shape, context) * tokens


# ---- laws


@dataclass(frozen=True)
class Law:
    """L = floor + the sum of scale_i / x_i ** exponent_i. Chinchilla's: Law(1.69, (406.4, 410.7), (0.34, 0.28)), of
    parameters and tokens. Of compute alone it has one term; a pure power law has floor 0."""

    floor: float
    scales: tuple[float, ...]
    exponents: tuple[float, ...]

    def __call__(self, *x: np.ndarray | float) -> np.ndarray | float:
        """The loss at x, an array or a number for each term."""
        terms = zip(self.scales, x, self.exponents, strict=True)
        return self.floor + sum(a * np.asarray(at, dtype=float) ** -alpha for a, at, alpha in terms)


class Line(NamedTuple):
    """L = a + b ln x."""

    a: float
    b: float

    def __call__(self, x: np.ndarray | float) -> np.ndarray | float:
        """The loss at x."""
        return self.a + self.b * np.log(x)

    def reaches(self, loss: float) -> float:
        """The x at which it comes down to a loss."""
        return math.exp((loss - self.a) / self.b)


def line(x: np.ndarray, loss: np.ndarray) -> Line:
    """The line in ln x with the least squares. Raises ValueError for fewer than two different x."""
    _check_runs(loss, (x,), at_least=2)
    b, a = np.polyfit(np.log(x), loss, 1)
    return Line(float(a), float(b))


def log_terms(theta: np.ndarray, log_x: np.ndarray) -> np.ndarray:
    """The logarithm of each term of a law: theta = (e, a_1, .., a_k, alpha_1, .., alpha_k), log_x (k, runs).

    Returns (k + 1, runs): e in the first row, a_i - alpha_i ln x_i in the others. So E = exp(e) and A = exp(a) are
    above 0 whatever e and a are.
    """
    k = len(log_x)
    a, alpha = theta[1 : k + 1, None], theta[k + 1 :, None]  # (k, 1) each
    return np.concatenate([np.full((1, log_x.shape[1]), theta[0]), a - alpha * log_x])


def residuals(theta: np.ndarray, log_x: np.ndarray, log_loss: np.ndarray) -> np.ndarray:
    """The law's log-loss minus the run's, (runs,): a log-sum-exp over the terms."""
    return np.logaddexp.reduce(log_terms(theta, log_x), axis=0) - log_loss


def huber(r: np.ndarray, delta: float = DELTA) -> np.ndarray:
    """Half the square up to delta, beyond it the line that goes on as steeply (Huber 1964). 0.002 at 0.001: 1.5e-6."""
    size = np.abs(r)
    return np.where(size <= delta, 0.5 * r**2, delta * (size - 0.5 * delta))


def objective(theta: np.ndarray, log_x: np.ndarray, log_loss: np.ndarray, delta: float = DELTA) -> float:
    """What a fit makes small: Huber's loss of the residuals, the *sum* over the runs."""
    return float(huber(residuals(theta, log_x, log_loss), delta).sum())


def gradient(theta: np.ndarray, log_x: np.ndarray, log_loss: np.ndarray, delta: float = DELTA) -> np.ndarray:
    """The objective's, by theta. The derivative of a log-sum-exp is the softmax of its terms, so with s the shares of
    the terms, (k + 1, runs), and h = clip(r, -delta, delta): d/de = sum h s_0, d/da_i = sum h s_i,
    d/dalpha_i = -sum h s_i ln x_i."""
    terms = log_terms(theta, log_x)
    whole = np.logaddexp.reduce(terms, axis=0)
    weights = np.clip(whole - log_loss, -delta, delta) * np.exp(terms - whole)  # (k + 1, runs)
    return np.concatenate([weights.sum(axis=1), -(weights[1:] * log_x).sum(axis=1)])


def fit(
    loss: np.ndarray, *x: np.ndarray, floor: float | None = None, near: Law | None = None, delta: float = DELTA
) -> Law:
    """The law with the least objective, by L-BFGS from many starts.

    loss, and x for each term: (runs,). floor: None if it is to be found, else held there; 0 is a power law without one.
    near: the only start, instead of a grid of 9 (one term) or 27 (two): for samples of runs that were fitted already.
    Raises ValueError for runs that are fewer than the law's constants, for losses and x that are not above 0, for a
    floor that is not below every loss, and for `near` with other terms, or with no floor where it is to be found.
    """
    k = len(x)
    free = [i for i in range(2 * k + 1) if i or floor is None]
    _check_runs(loss, x, at_least=len(free))
    if floor is not None and not 0 <= floor < np.min(loss):
        raise ValueError(f"floor {floor} with a loss of {np.min(loss):.4g}: expected 0 or more, and below every loss")
    log_x, log_loss = np.log(np.stack(x)), np.log(loss)
    middle = log_x.mean(axis=1)  # logs count from their mean, so that scales and exponents can be told apart
    starts = _starts(k, loss, floor) if near is None else [_theta(near, middle, floor)]
    found = [_descend(start, free, log_x - middle[:, None], log_loss, delta) for start in starts]
    theta = min(found, key=lambda theta: objective(theta, log_x - middle[:, None], log_loss, delta))
    alpha = theta[k + 1 :]
    scales = np.exp(theta[1 : k + 1] + alpha * middle)
    return Law(float(np.exp(theta[0])), tuple(scales.tolist()), tuple(alpha.tolist()))


def _starts(k: int, loss: np.ndarray, floor: float | None) -> list[np.ndarray]:
    """Where a fit begins: floors from a tenth of the lowest loss to nearly all of it, the rest shared among the terms,
    small and large exponents."""
    floors = [share * np.min(loss) for share in (0.1, 0.6, 0.95)] if floor is None else [floor]
    return [
        np.array([_log(e), *[math.log((np.median(loss) - e) / k)] * k, *alpha])
        for e, alpha in itertools.product(floors, itertools.product((0.1, 0.4, 1.0), repeat=k))
    ]


def _theta(law: Law, middle: np.ndarray, floor: float | None) -> np.ndarray:
    """A law's constants as `log_terms` takes them, of logs that count from `middle`; with a floor that is held."""
    if len(law.scales) != len(middle) or (floor is None and law.floor <= 0):
        what = f"near a law of {len(law.scales)} terms with floor {law.floor:g}"
        raise ValueError(f"{what}: expected {len(middle)} terms, and a floor above 0 where it is to be found")
    e = _log(law.floor if floor is None else floor)
    return np.array([e, *(np.log(law.scales) - law.exponents * middle), *law.exponents])


def _log(floor: float) -> float:
    return math.log(floor) if floor > 0 else -math.inf


def _descend(start: np.ndarray, free: list[int], log_x: np.ndarray, log_loss: np.ndarray, delta: float) -> np.ndarray:
    """Where L-BFGS comes to from a start, of the free constants. It stops when a step gains little beside 1, and the
    objective near its minimum is 1e-4 and less: so it is given the objective over DELTA squared."""

    def whole(some):
        theta = start.copy()
        theta[free] = some
        return theta

    found = minimize(
        lambda some: objective(whole(some), log_x, log_loss, delta) / DELTA**2,
        start[free],
        jac=lambda some: gradient(whole(some), log_x, log_loss, delta)[free] / DELTA**2,
        method="L-BFGS-B",
    )
    return whole(found.x)


def _check_runs(loss: np.ndarray, x: Sequence[np.ndarray], at_least: int) -> None:
    """Raise ValueError for runs that no law can be fitted to."""
    shapes = [np.shape(each) for each in (loss, *x)]
    if len(set(shapes)) > 1 or len(shapes[0]) != 1:
        raise ValueError(f"losses and what they depend on have shapes {shapes}: expected one number for each run")
    if not all(np.all(np.isfinite(each)) and np.all(np.asarray(each) > 0) for each in (loss, *x)):
        raise ValueError("a loss, or what it depends on, is not a finite number above 0: a law has logarithms of them")
    for each in x:
        if len(np.unique(each)) < 2:
            raise ValueError(f"all runs have {each[0]:g}: expected at least two different ones")
    if len(loss) < at_least:
        raise ValueError(f"{len(loss)} runs for {at_least} constants: expected at least as many runs")


# ---- spending a budget


def optimum(law: Law, flops: float, per_token: float = 6.0) -> tuple[float, float]:
    """The N and D that lose least where per_token N D = flops: alpha A / N^alpha = beta B / D^beta there.

    Chinchilla's constants and 5.76e23: 32 billion, 3.0 trillion. Raises ValueError for a law of other than two terms,
    and for exponents that are not above 0, which have no optimum.
    """
    if len(law.scales) != 2 or min(law.exponents) <= 0:
        raise ValueError(f"exponents {law.exponents}: expected two above 0, of parameters and of tokens")
    (a, b), (alpha, beta) = law.scales, law.exponents
    n = (alpha * a / (beta * b)) ** (1 / (alpha + beta)) * (flops / per_token) ** (beta / (alpha + beta))
    return n, flops / per_token / n


def valley(n: np.ndarray, loss: np.ndarray) -> tuple[float, float]:
    """The lowest point of the parabola in ln n through runs of one budget (IsoFLOP, Chinchilla's second way): size and
    loss. Raises ValueError where the runs show no valley: the parabola opens downward, or its lowest point lies outside
    of the sizes that were run."""
    _check_runs(loss, (n,), at_least=3)
    c2, c1, c0 = np.polyfit(np.log(n), loss, 2)
    lowest = -c1 / (2 * c2)
    if c2 <= 0 or not np.log(np.min(n)) <= lowest <= np.log(np.max(n)):
        raise ValueError("no valley within the sizes that were run: run smaller or larger ones")
    return float(np.exp(lowest)), float(c0 + c1 * lowest + c2 * lowest**2)


def frontier(flops: np.ndarray, runs: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """The least loss that any size reaches for each budget, and which size (Chinchilla's first way).

    flops: (budgets,), rising. runs: of each size its budgets, rising, and its losses. Between two of a size's budgets
    its loss is a line in ln C; outside of them the size is not asked. Returns losses and indices, (budgets,) each; NaN
    and -1 for a budget that no size has reached.
    """
    at = np.log(flops)
    table = np.stack([np.interp(at, np.log(c), loss, left=np.inf, right=np.inf) for c, loss in runs])
    best, which = table.min(axis=0), table.argmin(axis=0)
    reached = np.isfinite(best)
    return np.where(reached, best, np.nan), np.where(reached, which, -1)


def bootstrap(groups: Sequence, statistic: Callable, draws: int, seed: int) -> np.ndarray:
    """The statistic of `draws` samples of the groups, each as many groups as there are, drawn with replacement (Efron
    1979): its spread tells how far other runs would move it. A group is what was drawn by one chance, such as all runs
    of a seed and a size. Returns (draws, ...)."""
    generator = np.random.default_rng(seed)
    picks = generator.integers(len(groups), size=(draws, len(groups)))
    return np.array([statistic([groups[i] for i in pick]) for pick in picks])


# ---- data that repeat


def worth_of_repeats(tokens: float, unique: float, half_life: float = 15.4) -> float:
    """How many fresh tokens `tokens` are worth, if only `unique` of them differ (Muennighoff et al. 2023, equation 5).

    Each repetition is worth less than the one before: unique (1 + R (1 - exp(-r / R))), r repetitions, R the half_life.
    4 epochs: 3.73 times `unique`; without end 1 + R times. Raises ValueError for no tokens.
    """
    if min(tokens, unique, half_life) <= 0:
        raise ValueError(f"tokens {tokens}, unique {unique}, half_life {half_life}: expected numbers above 0")
    repeats = max(tokens / unique - 1, 0.0)
    return min(tokens, unique) * (1 + half_life * (1 - math.exp(-repeats / half_life)))
