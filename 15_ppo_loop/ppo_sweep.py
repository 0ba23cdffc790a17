"""What does PPO do to the reward that it is trained on? python ppo_sweep.py --workers 2

Writes results/ppo.json, which the notebook shows: the arms `ppo_arms.MAIN` by five seeds that had no part in choosing
their rate, `ppo_arms.MORE` by three of them; and the arm with
a coefficient of 0.1 by five more. On a GPU where there is one. The rules by which the rows decide:
`ppo_rules`. What a row has: `ppo_trial`.
"""

import sys

import ppo_reward_sweep
from ppo_arms import FRESH, MAIN, MORE, PENALISED, runs
from ppo_rewards import DEVICE
from ppo_trial import FEWER, JUDGES, TOLERANCE, comparable, cost, quick, run

from shared.sweeps import Sweep, main

SWEEP = Sweep(
    __file__,
    "ppo",
    run,
    jobs=[*runs(MAIN, JUDGES), *runs(MORE, FEWER), *runs([PENALISED], FRESH)],
    quick=quick(JUDGES[0]),
    cost=cost,
    comparable=comparable,
    tolerance=TOLERANCE,
    device=DEVICE,
    files=[ppo_reward_sweep.SWEEP.results],
)

if __name__ == "__main__":
    sys.exit(main(SWEEP))
