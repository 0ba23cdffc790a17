"""Which learning rate is best for PPO? python ppo_rate_sweep.py --workers 2

Writes results/ppo_rate.json: coefficients and lengths, each at several rates, by seed 0, which judges nothing. On a GPU
where there is one. What a row has: `ppo_trial`; what came of it: `ppo_arms`.
"""

import sys

import ppo_reward_sweep
import torch
from ppo_arms import RATED, tries
from ppo_rewards import DEVICE
from ppo_trial import TOLERANCE, comparable, cost, quick, run

from shared.sweeps import Sweep, best_rate, main
from shared.sweeps.rates import BestRate

SEED = 0


def best(rows: list[dict], arm: dict) -> BestRate:
    """Of a sweep's rows, the rate that brings an arm most of what it is trained for: its score less its coefficient
    times the divergence, on held-out prompts. The gold reward has no say in it. One that diverged is never the best.
    """
    found = {row["rate"]: _badness(row) for row in rows if arm.items() <= row.items()}
    return best_rate(torch.tensor([[*found.values()]]), list(found))


def _badness(row: dict) -> float:
    """What the best rate has least of. DPO is compared by the score of the reward model of its pairs alone."""
    if row["score"] is None:
        return torch.inf
    penalty = 0 if row["method"] == "dpo" else row["coefficient"] * row["kl"]
    return penalty - row["score"]


SWEEP = Sweep(
    __file__,
    "ppo_rate",
    run,
    jobs=tries(RATED, SEED),
    quick=quick(SEED),
    cost=cost,
    comparable=comparable,
    tolerance=TOLERANCE,
    device=DEVICE,
    files=[ppo_reward_sweep.SWEEP.results],
)

if __name__ == "__main__":
    sys.exit(main(SWEEP))
