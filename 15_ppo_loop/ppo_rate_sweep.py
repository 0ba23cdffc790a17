"""Which learning rate is best for each arm? python ppo_rate_sweep.py --workers 2

Writes results/ppo_rate.json, from which `ppo_sweep` takes each arm's rate: that of seed 0 which brings most of what the
arm is trained for, its score less its coefficient times the divergence, on held-out prompts. The gold reward has no say
in it. (DPO: the score of the reward model that was trained on its pairs.) On a GPU where there is one. What a row has:
`ppo_trial`.
"""

import sys

import ppo_reward_sweep
import torch
from ppo_arms import ARMS, rates, runs
from ppo_rewards import DEVICE
from ppo_trial import TOLERANCE, comparable, cost, quick, run

from shared.sweeps import Sweep, best_rate, main
from shared.sweeps.rates import BestRate

SEED = 0


def best(rows: list[dict], arm: dict) -> BestRate:
    """Of a sweep's rows, an arm's best rate. One that diverged is never the best."""
    found = {row["rate"]: _badness(row) for row in rows if arm.items() <= row.items()}
    return best_rate(torch.tensor([[*found.values()]]), list(found))


def _badness(row: dict) -> float:
    """What the best rate has least of."""
    if row["score"] is None:
        return torch.inf
    penalty = 0 if row["method"] == "dpo" else row["coefficient"] * row["kl"]
    return penalty - row["score"]


SWEEP = Sweep(
    __file__,
    "ppo_rate",
    run,
    jobs=[job for arm in ARMS for job in runs([arm], rates(arm), [SEED])],
    quick=quick(SEED),
    cost=cost,
    comparable=comparable,
    tolerance=TOLERANCE,
    device=DEVICE,
    files=[ppo_reward_sweep.SWEEP.results],
)

if __name__ == "__main__":
    sys.exit(main(SWEEP))
