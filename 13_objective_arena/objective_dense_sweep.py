"""What if masks of 15 % were asked as much as causal? python objective_dense_sweep.py --workers 2

Writes results/objective_dense.json, which the notebook shows; a quarter of an hour on one core. The counterpart of
"causal, 15 % asked": a step has the same eight stories, each with seven draws of masks, so that it asks for as many
targets as a causal step, at seven times the work. Seed 0 chooses the rate; the others judge. Training and question
are `objective_training`'s.
"""

import sys
from functools import partial

import floor_sweep
from objective_arms import ARMS
from objective_holes_sweep import control
from objective_rate_sweep import SEED
from objective_training import JUDGES, STEPS, question

from shared.sweeps import Sweep, main

DRAWS, RATES = 7, [3e-3, 1e-2, 3e-2]
PLAIN = ARMS["masked 15 %"]
ARM = PLAIN._replace(draw=lambda x, g: PLAIN.draw(x.repeat(DRAWS, 1), g))


def run(job: dict) -> dict:
    """job: see `control`."""
    return control(ARM, partial(question, ARM.own), job)


SWEEP = Sweep(
    __file__,
    "objective_dense",
    run,
    jobs=[{"rate": rate, "steps": STEPS[0], "seed": seed} for seed in (SEED, *JUDGES) for rate in RATES],
    quick=[{"rate": 1e-2, "steps": 2, "seed": 0, "texts": 1}],
    comparable=lambda job: job["rate"] <= 1e-2,
    tolerance={"excess": 0.03, "excess_by_step": 0.2},
    files=[floor_sweep.SWEEP.results],
)

if __name__ == "__main__":
    sys.exit(main(SWEEP))
