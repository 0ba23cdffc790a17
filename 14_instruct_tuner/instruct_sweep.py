"""What does tuning change, and what does it teach? python instruct_sweep.py --workers 2

Writes results/instruct.json, which the notebook shows. The base, asked in eight ways; then each arm of `instruct_arms`,
tuned at its best rate (`instruct_rate_sweep`) by three seeds that had no part in choosing it. On a GPU where there is
one. The rules by which the rows decide, `instruct_rules`, were written before any of them was read.
"""

import sys

import instruct_rate_sweep
from instruct_training import BASE_PROMPTS, DEVICE, JUDGES, SETTINGS, TOLERANCE, comparable, cost, quick, run, runs

from shared.sweeps import Sweep, main, stored


def judged() -> list[dict]:
    """Each arm at its best rate, by the seeds that judge."""
    tried = stored(instruct_rate_sweep.SWEEP.results)[0]
    return [
        job
        for arms, steps in SETTINGS
        for arm in arms
        for job in runs([arm], [instruct_rate_sweep.best(tried, arm, steps).rate], steps, JUDGES)
    ]


FREE = ("no stop", "from scratch")  # what nobody trained, to stop or to tell documents, hangs on rounding
BASE = [{"task": "base", "prompt": prompt} for prompt in BASE_PROMPTS]
SWEEP = Sweep(
    __file__,
    "instruct",
    run,
    jobs=[*judged(), *BASE],
    quick=[*quick(JUDGES[0]), *(job | {"few": 2} for job in BASE)],
    cost=cost,
    comparable=lambda job: comparable(job) and job.get("arm") not in FREE,
    tolerance=TOLERANCE,
    device=DEVICE,
    files=[instruct_rate_sweep.SWEEP.results],
)

if __name__ == "__main__":
    sys.exit(main(SWEEP))
