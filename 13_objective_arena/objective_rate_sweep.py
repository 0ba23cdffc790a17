"""Which learning rate is best for each arm? python objective_rate_sweep.py --workers 2

Writes results/objective_rate.json, from which `objective_sweep` takes each arm's rate: the best of seed 0 for its body
and its number of steps. About two hours on one core. What a row has: `objective_training`. The longest training,
of 6,400 steps, is tried by this seed alone, and judges nothing.
"""

import sys
from collections.abc import Iterable, Mapping

import floor_sweep
import torch
from objective_training import EQUAL, FAR, FAR_EQUAL, FEW, LARGE, SETTINGS, SMALL, STEPS, cost, quick, run, runs

from shared.sweeps import Sweep, best_rate, main
from shared.sweeps.rates import BestRate

SEED = 0
TRIED = [*SETTINGS, (FEW, SMALL, FAR), (["causal"], SMALL, FAR_EQUAL)]


def rates(body: str, steps: int) -> list[float]:
    """What is tried: so wide that no arm is best at an edge."""
    if body == LARGE and steps == STEPS[1]:
        return [3e-4, 1e-3, 3e-3, 1e-2]
    if steps > STEPS[0] and steps != EQUAL[1]:
        return [1e-3, 3e-3, 1e-2, 3e-2]
    return [*([1e-3] if steps == STEPS[0] else []), 3e-3, 1e-2, 3e-2, 1e-1]


def best_of(rows: Iterable[Mapping]) -> BestRate:
    """Of runs that differ in their rate alone. One that diverged is never the best."""
    found = {row["rate"]: torch.inf if row["excess"] is None else row["excess"] for row in rows}
    return best_rate(torch.tensor([[*found.values()]]), list(found))


def best(rows: Iterable[Mapping], arm: str, body: str, steps: int) -> BestRate:
    """Of a sweep's rows, an arm's best rate."""
    tried = {"arm": arm, "body": body, "steps": steps, "seed": SEED}
    return best_of(row for row in rows if tried.items() <= row.items())


SWEEP = Sweep(
    __file__,
    "objective_rate",
    run,
    jobs=[job for arms, body, steps in TRIED for job in runs(arms, body, steps, rates(body, steps), [SEED])],
    quick=quick(SEED),
    cost=cost,
    comparable=lambda job: job["steps"] <= 400 and job["rate"] <= 1e-2,
    tolerance={"loss": 0.03, "excess": 0.03, "excess_by_step": 0.2},
    files=[floor_sweep.SWEEP.results],
)

if __name__ == "__main__":
    sys.exit(main(SWEEP))
