"""The grid: each world's ladder by seeds 1 to 3, each size and budget at its own best rate, which seed 0 has found.

python scaling_sweep.py --dry-run                   # what would be run, and what it costs
python scaling_sweep.py --grid small --workers 2    # three minutes: one world, four sizes, three budgets
python scaling_sweep.py --grid full --ray           # on all cores; --ray ADDRESS: on a cluster
"""

import sys

from scaling_rate_sweep import MOST, rate_rows, rounded, seconds
from scaling_rate_sweep import SWEEP as RATES
from scaling_rates import best_rates, by_rate
from scaling_training import train
from scaling_world import WORLDS, world

from shared.sweeps import Sweep, main

SEEDS = (1, 2, 3)


def run(job: dict) -> dict:
    """Nats per token above the floor at each budget, finished and not."""
    found = train(world(job["world"]), job["width"], job["rate"], job["budgets"], job["seed"])
    return {"above": rounded(found.above), "unfinished": rounded(found.unfinished)}


def jobs() -> list[dict]:
    """One run for each width and rate, along all budgets at which that rate is the width's best."""
    best = {name: best_rates(rate_rows(name)) for name in WORLDS}
    return [
        {
            "world": name,
            "width": width,
            "rate": rate,
            "budgets": [it for it in budgets if it <= MOST[name]],
            "seed": seed,
        }
        for name in WORLDS
        for (width, rate), budgets in by_rate(best[name]).items()
        for seed in SEEDS
        if budgets[0] <= MOST[name]
    ]


SMALL_WIDTHS, SMALL_MOST = (4, 8, 16, 32), 2**18  # of the world `steep`, by one seed


def small(jobs: list[dict]) -> list[dict]:
    """The part of the grid that takes minutes."""
    return [
        job
        for job in jobs
        if job["world"] == "steep" and job["width"] in SMALL_WIDTHS and job["budgets"][-1] <= SMALL_MOST
    ]


def sweep(name: str, jobs: list[dict]) -> Sweep:
    """The sweep of these jobs."""
    return Sweep(
        __file__,
        name,
        run,
        jobs=jobs,
        quick=[{"world": "steep", "width": 4, "rate": 0.08, "budgets": [2**16], "seed": 1}],
        cost=lambda job: seconds(job["world"], job["width"], job["budgets"][-1]),
        tolerance={"above": 0.02, "unfinished": 0.05},
        files=(RATES.results,),
    )


SWEEP = sweep("scaling_grid", jobs())
SMALL = sweep("scaling_small", small(SWEEP.jobs))
GRIDS = {"small": SMALL, "full": SWEEP}
if __name__ == "__main__":
    sys.exit(main(GRIDS))
