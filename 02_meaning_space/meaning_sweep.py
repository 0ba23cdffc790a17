"""Which vectors know what, at which width, after how much training? python meaning_sweep.py

Writes results/meaning.json, which the notebook shows; about ten minutes on one core. What a run is: `meaning_runs`.
Each trained arm runs at its best rate by seed 0 (`meaning_rate_sweep`); seeds 1 to 3 judge (`meaning_rules`).
"""

import sys

import meaning_rate_sweep
from meaning_rate_sweep import stored_best
from meaning_rules import JUDGES
from meaning_runs import cost, run, trained

from shared.sweeps import Sweep, main

WIDTHS, SIZES = (24, 100, 300), (1000, 9000)


def docs_jobs(seed: int) -> list[dict]:
    """All arms of the documentation."""
    arms = [{"arm": "bag"}] + [
        {"arm": arm, "d": d} for arm in ("bag, squeezed", "random", "PPMI and SVD") for d in WIDTHS
    ]
    rates = {arm: rate for arm, (rate, _) in stored_best().items() if len(arm) == 2}
    jobs = [trained("docs", *arm, rate, seed) for arm, rate in rates.items()]
    return jobs + [{"text": "docs", "seed": seed} | arm for arm in arms]


def world_jobs(seed: int) -> list[dict]:
    """All arms of the world."""
    rates = {arm: rate for arm, (rate, _) in stored_best().items() if len(arm) == 3}
    jobs = [trained("world", d, steps, rate, seed, size=size) for (size, d, steps), rate in rates.items()]
    arms = [{"arm": "counts"}, {"arm": "PPMI"}, {"arm": "PPMI and SVD", "d": 24}, {"arm": "random", "d": 24}]
    jobs += [{"text": "world", "size": size, "seed": seed} | arm for size in SIZES for arm in arms]
    return [*jobs, trained("world", 24, 120, rates[9000, 24, 120], seed, size=9000, shuffled=True)]


SWEEP = Sweep(
    __file__,
    "meaning",
    run,
    jobs=[job for seed in JUDGES for job in docs_jobs(seed) + world_jobs(seed)],
    quick=[
        {"text": "docs", "arm": "bag", "seed": 0, "splits": 1},
        {"text": "docs", "arm": "bag, squeezed", "d": 8, "seed": 0, "splits": 1},
        {"text": "world", "arm": "PPMI and SVD", "d": 8, "seed": 0, "size": 300},
    ],
    cost=cost,
    comparable=lambda job: cost(job) < 12,
    tolerance={"shares": 0.1, "hubs": 30},
    files=[meaning_rate_sweep.SWEEP.results],
)

if __name__ == "__main__":
    sys.exit(main(SWEEP))
