"""What does a policy do to the reward that it is trained on? python ppo_sweep.py --workers 2

Writes results/ppo.json, which the notebook shows: each arm of `ppo_arms` at its best rate (`ppo_rate_sweep`) by five
seeds that had no part in choosing it; one with a coefficient that is adapted; and the best of up to 256 responses of
the base. On a GPU where there is one. The rules by which the rows decide: `ppo_rules`. What a row has: `ppo_trial`.
"""

import sys

import ppo_rate_sweep
from ppo_arms import ADAPTED, ARMS, BEST_OF_N, PENALTIES
from ppo_rewards import DEVICE
from ppo_trial import JUDGES, TOLERANCE, comparable, cost, quick, run

from shared.sweeps import Sweep, main, stored


def judged() -> list[dict]:
    """Each arm at its best rate, by the seeds that judge."""
    tried = stored(ppo_rate_sweep.SWEEP.results)[0]
    trained = [(arm, ppo_rate_sweep.best(tried, arm).rate) for arm in ARMS]
    trained += [(arm | ADAPTED, rate) for arm, rate in trained if arm in PENALTIES and arm["coefficient"] == 0.1]
    jobs = [arm | {"rate": rate, "seed": seed} for arm, rate in trained for seed in JUDGES]
    return jobs + [arm | {"seed": seed} for arm in BEST_OF_N for seed in JUDGES]


SWEEP = Sweep(
    __file__,
    "ppo",
    run,
    jobs=judged(),
    quick=[*quick(JUDGES[0]), {"method": "best of n", "reward": "gold", "seed": JUDGES[0], "few": 4}],
    cost=cost,
    comparable=comparable,
    tolerance=TOLERANCE,
    device=DEVICE,
    files=[ppo_rate_sweep.SWEEP.results],
)

if __name__ == "__main__":
    sys.exit(main(SWEEP))
