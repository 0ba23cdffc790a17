"""Which objective is harder to learn, per what? python objective_sweep.py --workers 2

Writes results/objective.json, which the notebook shows; about two hours on one core. Each arm of `objective_training`
is trained at its best rate (`objective_rate_sweep`) by three seeds that had no part in choosing it. The rules by which
the rows decide, `objective_rules`, were written before these were run.
"""

import sys

import floor_sweep
import objective_rate_sweep
from objective_training import JUDGES, SETTINGS, STEPS, cost, quick, run, runs

from shared.sweeps import Sweep, main, stored


def judged() -> list[dict]:
    """Each arm at its best rate, by the seeds that judge."""
    tried = stored(objective_rate_sweep.SWEEP.results)[0]
    return [
        job
        for arms, body, steps in SETTINGS
        for arm in arms
        for job in runs([arm], body, steps, [objective_rate_sweep.best(tried, arm, body, steps).rate], JUDGES)
    ]


SWEEP = Sweep(
    __file__,
    "objective",
    run,
    jobs=[*judged(), {"task": "world"}],
    quick=[*quick(JUDGES[0]), {"task": "world", "texts": 1}],
    cost=cost,
    comparable=lambda job: job.get("steps", 0) <= STEPS[0],
    tolerance={"loss": 0.03, "excess": 0.03, "excess_by_step": 0.2},
    files=[floor_sweep.SWEEP.results, objective_rate_sweep.SWEEP.results],
)

if __name__ == "__main__":
    sys.exit(main(SWEEP))
