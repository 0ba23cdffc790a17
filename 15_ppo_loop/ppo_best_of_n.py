"""Best-of-n: draw n responses and hand over the one with the best score. No weight changes.

    expected_best(proxy, value, 4)     # what the best of four by `proxy` has in `value`, on average
    best_of_n_kl(4), tied_kl(proxy, 4)  # how far best-of-4 is from the policy at most, and with these ties, in nats

A response that ties for the best score is handed over as often as any other that does.
"""

import math
from collections.abc import Sequence

import numpy as np


def expected_best(proxy: Sequence[float], value: Sequence[float], n: int) -> float:
    """The mean of `value` at the best of n responses by `proxy`, over all subsets of size n.

    proxy, value: (N,) numbers of N responses. Where several tie for the best, the mean of their values counts. With
    N responses drawn from a policy this is an unbiased estimate of best-of-n on it. Raises ValueError for n outside
    1 to N, lengths that differ, and a score that is NaN.

    Proxy 1, 2, 3, values 5, 0, 7, n = 2: two of the three pairs hold the last and one does not: (7 + 7 + 0) / 3.
    """
    proxy, value = np.asarray(proxy, dtype=float), np.asarray(value, dtype=float)
    if proxy.ndim != 1 or proxy.shape != value.shape:
        raise ValueError(f"proxy has shape {proxy.shape}, value {value.shape}: expected (N,) of both")
    if np.isnan(proxy).any():
        raise ValueError(f"score {int(np.isnan(proxy).argmax())} is NaN: expected a number for each response")
    if not 1 <= n <= len(proxy):
        raise ValueError(f"n is {n}: expected 1 to {len(proxy)}, the responses that there are")
    level, counts = np.unique(proxy, return_inverse=True, return_counts=True)[1:]
    at_most = np.concatenate([[0], np.cumsum(counts)])  # how many responses reach no higher than each score
    drawn = np.arange(n)  # all n are among `many` of N with probability many / N * (many - 1) / (N - 1) * ...
    below = (np.maximum(at_most[:, None] - drawn, 0) / (len(proxy) - drawn)).prod(axis=1)
    means = np.bincount(level, weights=value) / counts
    return float(np.diff(below) @ means)


def best_of_n_kl(n: int) -> float:
    """ln n - (n - 1) / n, in nats: the most that KL(best-of-n || policy) can be. Raises ValueError for n below 1.

    It is exact for scores without ties where no single response has a probability that matters beside 1 / n, as for
    long texts. Otherwise it is an upper bound (Beirami et al. 2024, arXiv 2401.01879), for ties, and for short answers
    without ties too: of two responses of probability 1/2 best-of-2 takes the better with 3/4, which is .131 nats and
    not .193. Why a bound: let a number drawn at random break ties, and the formula is exact for pairs of response and
    number; to leave out the number cannot raise a divergence.
    """
    if n < 1:
        raise ValueError(f"n is {n}: expected 1 or more")
    return math.log(n) - (n - 1) / n


def tied_kl(scores: Sequence[float], n: int) -> float:
    """KL(best-of-n || policy) in nats, where the policy draws each of these responses equally often, with replacement.

    scores: (N,). Among responses that tie best-of-n keeps the policy's proportions, so that only the shares of the
    scores count: scores 0, 0, 0, 1 can never be more than ln 4 apart, whatever n. Where scores do not tie this is
    near `best_of_n_kl` for n far below N alone: it takes each response for a quarter of four, or a hundredth of 100.
    """
    best_of_n_kl(n)  # n is checked
    share = np.unique(np.asarray(scores, dtype=float), return_counts=True)[1] / len(scores)
    best = np.diff(np.concatenate([[0.0], np.cumsum(share)]) ** n)
    at = best > 0  # a share so small that its power underflows adds nothing
    return float((best[at] * np.log(best[at] / share[at])).sum())
