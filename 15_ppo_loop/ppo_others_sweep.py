"""Are other algorithms gamed as PPO is? python ppo_others_sweep.py --workers 2

Writes results/ppo_others.json: RLOO, GRPO and DPO, each at its best rate
(`ppo_others_rate_sweep`), by three seeds that had no part in choosing it; and the best of up to 256 responses of the
base, by five. What a row has: `ppo_trial`.
"""

import sys

import ppo_others_rate_sweep
import ppo_rate_sweep
import ppo_reward_sweep
from ppo_arms import BEST_OF_N, OTHERS, runs
from ppo_rewards import DEVICE
from ppo_trial import FEWER, JUDGES, TOLERANCE, comparable, cost, quick, run

from shared.sweeps import Sweep, main, stored


def judged() -> list[dict]:
    """Each arm at its best rate, by the seeds that judge."""
    tried = stored(ppo_others_rate_sweep.SWEEP.results)[0]
    arms = [arm | {"rate": ppo_rate_sweep.best(tried, arm).rate} for arm in OTHERS]
    return [*runs(arms, FEWER), *runs(BEST_OF_N, JUDGES)]


SWEEP = Sweep(
    __file__,
    "ppo_others",
    run,
    jobs=judged(),
    quick=[*quick(JUDGES[0], ("rloo", "grpo")), {"method": "best of n", "reward": "gold", "seed": JUDGES[0], "few": 4}],
    cost=cost,
    comparable=comparable,
    tolerance=TOLERANCE,
    device=DEVICE,
    files=[ppo_reward_sweep.SWEEP.results, ppo_others_rate_sweep.SWEEP.results],
)

if __name__ == "__main__":
    sys.exit(main(SWEEP))
