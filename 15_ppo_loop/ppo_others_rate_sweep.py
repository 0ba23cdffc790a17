"""Which learning rate is best for each of the other algorithms? python ppo_others_rate_sweep.py --workers 2

Writes results/ppo_others_rate.json, from which `ppo_others_sweep` takes each arm's rate: by seed 0, that which brings
most of what the arm is trained for (`ppo_rate_sweep.best`). What a row has: `ppo_trial`.
"""

import sys

import ppo_reward_sweep
from ppo_arms import OTHERS, tries
from ppo_rate_sweep import SEED
from ppo_rewards import DEVICE
from ppo_trial import TOLERANCE, comparable, cost, quick, run

from shared.sweeps import Sweep, main

SWEEP = Sweep(
    __file__,
    "ppo_others_rate",
    run,
    jobs=tries(OTHERS, SEED),
    quick=quick(SEED, ("rloo", "grpo")),
    cost=cost,
    comparable=comparable,
    tolerance=TOLERANCE,
    device=DEVICE,
    files=[ppo_reward_sweep.SWEEP.results],
)

if __name__ == "__main__":
    sys.exit(main(SWEEP))
