"""Run a sample of the stored jobs again, and see whether today's code still gives what is stored."""

import json
import math
import random
from collections.abc import Callable, Iterable


def sample(jobs: Iterable[dict], n: int, cost: Callable[[dict], float]) -> list[dict]:
    """n jobs by chance, cheap ones first: each in turn is one that shows the most new values of the jobs' fields, and
    of these one of the cheapest."""
    left = sorted(jobs, key=lambda job: (cost(job), random.random()))
    chosen = []
    while left and len(chosen) < n:
        seen = values(chosen)
        chosen.append(max(left, key=lambda job: len(values([job]) - seen)))
        left.remove(chosen[-1])
    return chosen


def values(jobs: Iterable[dict]) -> set[tuple[str, str]]:
    """Each field of the jobs with each value that it has."""
    return {(name, json.dumps(value)) for job in jobs for name, value in job.items()}


def differences(row: dict, again: dict, job: dict) -> dict[str, float]:
    """For each field of a row that is not its job's, how far the new one is from the stored one."""
    return {name: difference(row.get(name), again.get(name)) for name in (row | again).keys() - job.keys()}


def difference(one, other) -> float:
    """The largest difference of two values' numbers, lists and dicts item by item; infinite if they differ in kind."""
    if one == other:
        return 0.0
    if isinstance(one, int | float) and isinstance(other, int | float):
        return abs(one - other)
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return max(map(difference, one, other))
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return max(difference(one[name], other[name]) for name in one)
    return math.inf
