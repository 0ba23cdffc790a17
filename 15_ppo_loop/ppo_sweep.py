"""What does PPO do to the reward that it is trained on? python ppo_sweep.py --workers 2

Writes results/ppo.json, which the notebook shows: the arms `ppo_arms.JUDGED` by five seeds that had no part in choosing
their rate. On a GPU where there is one. The rules by which the rows decide: `ppo_rules`. What a row has: `ppo_trial`.
"""

import sys

import ppo_reward_sweep
from ppo_arms import JUDGED, runs
from ppo_rewards import DEVICE
from ppo_trial import JUDGES, TOLERANCE, comparable, cost, quick, run

from shared.sweeps import Sweep, main

SWEEP = Sweep(
    __file__,
    "ppo",
    run,
    jobs=runs(JUDGED, JUDGES),
    quick=quick(JUDGES[0]),
    cost=cost,
    comparable=comparable,
    tolerance=TOLERANCE,
    device=DEVICE,
    files=[ppo_reward_sweep.SWEEP.results],
)

if __name__ == "__main__":
    sys.exit(main(SWEEP))
