"""Which learning rate is best for each arm? python instruct_rate_sweep.py --workers 2

Writes results/instruct_rate.json, from which `instruct_sweep` takes each arm's rate: the best of seed 0 for its number
of steps, by the loss on held-out conversations of its own kind. Arms that read few requests over and over grow sure of
themselves: their loss rises while they obey more, so that theirs is the rate at which they obey most (by requests that
judge, too, for other seeds). On a GPU where there is one. What a row has: `instruct_training`.
"""

import sys
from collections.abc import Iterable, Mapping
from statistics import fmean

import torch
from instruct_arms import ARMS
from instruct_training import DEVICE, SETTINGS, TOLERANCE, comparable, cost, quick, rates, run, runs

from shared.sweeps import Sweep, best_rate, main
from shared.sweeps.rates import BestRate

SEED = 0


def best(rows: Iterable[Mapping], arm: str, steps: int) -> BestRate:
    """Of a sweep's rows, an arm's best rate. One that diverged is never the best."""
    tried = {"arm": arm, "steps": steps, "seed": SEED}
    found = {row["rate"]: _badness(row) for row in rows if tried.items() <= row.items()}
    return best_rate(torch.tensor([[*found.values()]]), list(found))


def _badness(row: Mapping) -> float:
    """What the best rate has least of."""
    if row["own_loss"] is None:
        return torch.inf
    return row["own_loss"] if ARMS[row["arm"]].different is None else -fmean(row["trained obeyed"])


SWEEP = Sweep(
    __file__,
    "instruct_rate",
    run,
    jobs=[job for arms, steps in SETTINGS for arm in arms for job in runs([arm], rates(arm, steps), steps, [SEED])],
    quick=quick(SEED),
    cost=cost,
    comparable=comparable,
    tolerance=TOLERANCE,
    device=DEVICE,
)

if __name__ == "__main__":
    sys.exit(main(SWEEP))
