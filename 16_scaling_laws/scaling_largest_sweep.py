"""The largest budgets of the world `steep`, by seeds 1 to 3: run after `scaling_forecasts.json` had been written.

python scaling_largest_sweep.py --workers 2     # 40 minutes of one core
"""

import sys

from scaling_rate_sweep import LONG, MOST, rate_rows, rounded, seconds
from scaling_rate_sweep import SWEEP as RATES
from scaling_rates import best_rates, by_rate
from scaling_training import train
from scaling_world import world

from shared.sweeps import Sweep, main

WORLD, SEEDS = "steep", (1, 2, 3)


def run(job: dict) -> dict:
    """Nats per token above the floor at each budget, finished and not."""
    found = train(world(WORLD), job["width"], job["rate"], job["budgets"], job["seed"])
    return {"above": rounded(found.above), "unfinished": rounded(found.unfinished)}


def jobs() -> list[dict]:
    """One run for each width and rate, along the long budgets at which that rate is the width's best."""
    best = {cell: rate for cell, rate in best_rates(rate_rows(WORLD)).items() if MOST[WORLD] < cell[1] <= LONG[cell[0]]}
    return [
        {"width": width, "rate": rate, "budgets": budgets, "seed": seed}
        for (width, rate), budgets in by_rate(best).items()
        for seed in SEEDS
    ]


SWEEP = Sweep(
    __file__,
    "scaling_largest",
    run,
    jobs=jobs(),
    quick=[{"width": 4, "rate": 0.08, "budgets": [2**16], "seed": 1}],
    cost=lambda job: seconds(WORLD, job["width"], job["budgets"][-1]),
    tolerance={"above": 0.02, "unfinished": 0.05},
    settings={"world": WORLD},
    files=(RATES.results,),
)
if __name__ == "__main__":
    sys.exit(main(SWEEP))
