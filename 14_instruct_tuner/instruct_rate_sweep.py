"""Which learning rate is best for each arm? python instruct_rate_sweep.py --workers 2

Writes results/instruct_rate.json, from which `instruct_sweep` takes each arm's rate: the best of seed 0 for its number
of steps, by the loss on held-out conversations of its own kind. On a GPU where there is one. What a row has:
`instruct_training`.
"""

import sys
from collections.abc import Iterable, Mapping

import torch
from instruct_training import DEVICE, SETTINGS, cost, quick, rates, run, runs

from shared.sweeps import Sweep, best_rate, main
from shared.sweeps.rates import BestRate

SEED = 0


def best(rows: Iterable[Mapping], arm: str, steps: int) -> BestRate:
    """Of a sweep's rows, an arm's best rate. One that diverged is never the best."""
    tried = {"arm": arm, "steps": steps, "seed": SEED}
    found = {row["rate"]: row["own_loss"] for row in rows if tried.items() <= row.items()}
    losses = [torch.inf if loss is None else loss for loss in found.values()]
    return best_rate(torch.tensor([losses]), list(found))


SWEEP = Sweep(
    __file__,
    "instruct_rate",
    run,
    jobs=[job for arms, steps in SETTINGS for arm in arms for job in runs([arm], rates(arm, steps), steps, [SEED])],
    quick=quick(SEED),
    cost=cost,
    device=DEVICE,
)

if __name__ == "__main__":
    sys.exit(main(SWEEP))
