"""How the rows of the real model's best-of-n are read: by n, by proxy, and as texts.

    rows, how = stored(real_best_of_n_sweep.SWEEP.results)
    curves(rows)["words"]["right"]              # by n in NS, the mean over requests
    sum_curves(rows)["two numbers"]["gold"]     # (seeds, n in SUM_NS)
    chosen(open_rows(rows)[0], "words")         # [(n, score, text), ...]: of the first n responses, the best

A proxy is a program that scores a response without knowing what is right. "random" is the control: all responses tie,
so that any of n is handed over. All else is the exact mean over all subsets of size n of what was drawn.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from ppo_best_of_n import best_of_n_kl, expected_best, tied_kl
from real_best_of_n import ASKS, NS, SUM_NS, SUMS, first_best, number

PROXIES = ("words", "exclamations", "friendly", "echo", "log_p", "total")
VALUES = ("fact", "right", "stops", "distinct")
SUM_PROXIES = ("gold", "log_p", "majority", "length", "largest", "random")
SUBSETS = 100  # of size n, drawn for the majority's vote
ENDS = (SUM_NS[0], SUM_NS[-1])
Rows = Iterable[Mapping]

# ---- one row


def open_curve(row: Mapping, proxy: str, value: str, ns: Sequence[int] = NS) -> list[float]:
    """What the best of n has on average, for each n. proxy: also "random", under which all tie."""
    values = row["scores"][value]
    by = [0.0] * len(values) if proxy == "random" else row["scores"][proxy]
    return [expected_best(by, values, n) for n in ns]


def chosen(row: Mapping, proxy: str, ns: Sequence[int] = (1, 4, 16, 64, 256)) -> list[tuple[int, float, str]]:
    """What the best of the first n responses is: n, its score, its text."""
    scores = row["scores"][proxy]
    return [(n, scores[at], row["texts"][str(at)]) for n in ns for at in [first_best(scores, n)]]


def sum_scores(row: Mapping, problem: int) -> dict[str, list[float]]:
    """What each proxy but the majority says of a problem's responses. What is no number is -1, the smallest."""
    said, gold = row["said"][problem], row["golds"][problem]
    numbers = [-1 if number(it) is None else number(it) for it in said]
    scores = {"gold": [float(it == gold) for it in numbers], "log_p": row["log_p"][problem]}
    scores |= {"length": [float(len(it)) for it in said], "largest": list(map(float, numbers))}
    return scores | {"random": [0.0] * len(said)}


def of_another(row: Mapping) -> Mapping:
    """The control: each problem's responses beside the result of the next problem that has another one."""
    golds = row["golds"]
    others = [next(it for it in golds[at:] + golds[:at] if it != gold) for at, gold in enumerate(golds)]
    return {**row, "golds": others}


def majority(row: Mapping, problem: int, n: int) -> float:
    """How often the number that most of n responses say is right, over SUBSETS subsets; ties count in part."""
    numbers = [number(it) for it in row["said"][problem]]
    said = sorted({it for it in numbers if it is not None})
    if row["golds"][problem] not in said:
        return 0.0
    votes = np.array([[it == each for each in said] for it in numbers])  # (N, numbers); none votes for no number
    rng = np.random.default_rng([problem, n])
    rows = rng.permuted(np.tile(np.arange(len(numbers)), (SUBSETS, 1)), axis=1)[:, :n]
    counts = votes[rows].sum(axis=1)  # (SUBSETS, numbers)
    first = (counts == counts.max(axis=1, keepdims=True)) & (counts > 0)
    return float((first[:, said.index(row["golds"][problem])] / first.sum(axis=1).clip(min=1)).mean())


def sum_curve(row: Mapping, proxy: str, ns: Sequence[int] = SUM_NS) -> list[float]:
    """The share of right answers for each n, the mean over problems."""
    many = range(len(row["golds"]))
    if proxy == "majority":
        return [float(np.mean([majority(row, it, n) for it in many])) for n in ns]
    scores = [sum_scores(row, it) for it in many]
    return [float(np.mean([expected_best(it[proxy], it["gold"], n) for it in scores])) for n in ns]


# ---- all rows


def open_rows(rows: Rows) -> list[Mapping]:
    """The rows of the requests, in their order. Raises ValueError where one is missing."""
    found = {row["ask"]: row for row in rows if row["part"] == "open"}
    if missing := [ask.question for at, ask in enumerate(ASKS) if at not in found]:
        raise ValueError(f"no row of {missing[0]!r}: run the sweep")
    return [found[at] for at in range(len(ASKS))]


def sum_rows(rows: Rows, kind: str) -> list[Mapping]:
    """The rows of a kind of sums, a seed each. Raises ValueError where there is none."""
    found = [row for row in rows if row["part"] == "sums" and row["kind"] == kind]
    if not found:
        raise ValueError(f"no row of {kind!r}: run the sweep")
    return sorted(found, key=lambda row: row["seed"])


def by_request(rows: Rows, proxy: str, value: str, ns: Sequence[int] = NS) -> np.ndarray:
    """What the best of n by a proxy has on average: (requests, n)."""
    return np.array([open_curve(row, proxy, value, ns) for row in open_rows(rows)])


def mean(rows: Rows, proxy: str, value: str, n: int = NS[-1]) -> float:
    """The mean over requests."""
    return float(by_request(rows, proxy, value, [n]).mean())


def gain(rows: Rows, proxy: str, value: str, n: int = NS[-1], since: int = 1) -> float:
    """How much more the best of n has than the best of `since`."""
    return mean(rows, proxy, value, n) - mean(rows, proxy, value, since)


def _ratio(one: float, other: float) -> float:
    """NaN, which keeps no bound, where there is nothing to be a share of."""
    return float(one / other) if other else math.nan


def share(rows: Rows, proxy: str, value: str = "right", n: int = NS[-1]) -> float:
    """The best of n, as a share of a single response."""
    return _ratio(mean(rows, proxy, value, n), mean(rows, proxy, value, 1))


def turned(rows: Rows, proxy: str, value: str = "right") -> int:
    """For how many requests the best of all is right less often than the best of fewer at its peak, by .1 or more."""
    each = by_request(rows, proxy, value)
    return int((each.max(axis=1) - each[:, -1] >= 0.1).sum())


def curves(rows: Rows) -> dict[str, dict[str, list[float]]]:
    """For a figure: by proxy and value the mean over requests, for n in NS."""
    rows, values = list(rows), (*VALUES, "log_p", "words")
    proxies = (*PROXIES, "fact", "right", "random")
    named = lambda proxy: (*values, *([] if proxy == "random" else [proxy]))  # noqa: E731
    return {p: {v: by_request(rows, p, v).mean(axis=0).tolist() for v in named(p)} for p in proxies}


def sum_curves(rows: Rows) -> dict[str, dict[str, np.ndarray]]:
    """For a figure: by kind and proxy the share of right sums, (seeds, n in SUM_NS); "another": how often one of n is
    the result of another problem."""
    rows, found = list(rows), {}
    for kind in SUMS:
        each = sum_rows(rows, kind)
        found[kind] = {proxy: np.array([sum_curve(row, proxy) for row in each]) for proxy in SUM_PROXIES}
        found[kind]["another"] = np.array([sum_curve(of_another(row), "gold") for row in each])
    return found


def sum_gain(rows: Rows, kind: str, proxy: str) -> np.ndarray:
    """How many more sums are right at the largest n than for a single response: (seeds,)."""
    found = np.array([sum_curve(row, proxy, ENDS) for row in sum_rows(rows, kind)])
    return found[:, -1] - found[:, 0]


def above_another(rows: Rows) -> float:
    """How much oftener one of all responses is the problem's result than another problem's, in the kind of sums where
    it is least: a verifier finds what is drawn by chance, too."""
    ends = lambda row: sum_curve(row, "gold", ENDS)[-1] - sum_curve(of_another(row), "gold", ENDS)[-1]  # noqa: E731
    return min(float(np.mean([ends(row) for row in sum_rows(rows, kind)])) for kind in SUMS)


def of_the_verifier(rows: Rows, proxy: str) -> float:
    """A proxy's gain as a share of the verifier's, in the kind of sums where it is largest."""
    gains = [(sum_gain(rows, kind, proxy).mean(), sum_gain(rows, kind, "gold").mean()) for kind in SUMS]
    return float(np.max([_ratio(*each) for each in gains]))


def sum_share(rows: Rows, proxy: str) -> float:
    """Right sums at the largest n as a share of those of a single response, all kinds and seeds together."""
    found = np.array([sum_curve(row, proxy, ENDS) for kind in SUMS for row in sum_rows(rows, kind)]).mean(axis=0)
    return _ratio(found[-1], found[0])


def cut_off(rows: Rows, which: Callable[[str], bool] = lambda said: True) -> float:
    """The share of responses to sums that came to no end of line, of those that are so."""
    said = [it for kind in SUMS for row in sum_rows(rows, kind) for each in row["said"] for it in each]
    return float(np.mean(["\n" not in it and which(it) for it in said]))


def kl_share(rows: Rows, proxy: str, n: int) -> float:
    """The divergence with its ties as a share of the formula's, over requests; n is to be far below the responses."""
    return float(np.mean([tied_kl(row["scores"][proxy], n) for row in open_rows(rows)]) / best_of_n_kl(n))


def sum_kl(rows: Rows, proxy: str, n: int) -> float:
    """The divergence of the best of n with its ties, in nats, the mean over all problems."""
    each = [(row, at) for kind in SUMS for row in sum_rows(rows, kind) for at in range(len(row["golds"]))]
    return float(np.mean([tied_kl(sum_scores(row, at)[proxy], n) for row, at in each]))
