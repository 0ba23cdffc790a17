"""Which learning rate is best for a reward model of so many pairs? python ppo_reward_sweep.py --workers 2

Writes results/ppo_reward.json: for each number of pairs, rate and seed the loss and the accuracy on 256 held-out pairs,
and on the pairs that it was trained on.
"""

import sys

import torch
from ppo import RewardModel, preference_loss
from ppo_rewards import DEVICE, base, held_out_pairs, rewarded
from ppo_world import Pair, accuracy, preferences, side_by_side, train_reward_model

from shared.sweeps import Sweep, best_rate, main, stored
from shared.sweeps.rates import BestRate
from shared.world import HELD_OUT

RATES = [5e-4, 1.5e-3, 5e-3, 1.5e-2, 4e-2]
SIZES = [40, 150, 600]


def best(pairs: int) -> BestRate:
    """Of what is stored, the rate with the lowest loss on held-out pairs."""
    found = {row["rate"]: row["loss"] for row in stored(SWEEP.results)[0] if row["pairs"] == pairs}
    return best_rate(torch.tensor([[*found.values()]]), list(found))


def run(job: dict) -> dict:
    """Train a reward model and ask it. few: on so many held-out pairs."""
    pairs = preferences(base(), job["pairs"], job["seed"])
    if few := job.get("few"):
        model, others = train_reward_model(base(), pairs, job["rate"], job["seed"]), preferences(base(), few, HELD_OUT)
    else:
        model, others = rewarded(job["pairs"], job["seed"], job["rate"]), held_out_pairs()
    found = {"loss": loss(model, others), "held_out": accuracy(model, others), "seen": accuracy(model, pairs)}
    return {name: round(number, 4) for name, number in found.items()}


@torch.no_grad()
def loss(model: RewardModel, pairs: list[Pair]) -> float:
    """The loss that it was trained on: of its numbers before they were standardised."""
    parts = [side_by_side(pairs[start : start + 64]) for start in range(0, len(pairs), 64)]
    numbers = [(model(ids.to(DEVICE), said.to(DEVICE)) * model.scale).chunk(2) for ids, said in parts]
    return float(preference_loss(*(torch.cat(each) for each in zip(*numbers, strict=True))))


SWEEP = Sweep(
    __file__,
    "ppo_reward",
    run,
    jobs=[{"pairs": pairs, "rate": rate, "seed": 0} for pairs in SIZES for rate in RATES],
    quick=[{"pairs": 16, "rate": 1e-3, "seed": 0, "few": 16}],
    cost=lambda job: job["pairs"],
    comparable=lambda job: job["rate"] <= 1.5e-3,  # at higher rates rounding sends a training another way
    tolerance={"loss": 0.1, "held_out": 0.06, "seen": 0.06},
    device=DEVICE,
)

if __name__ == "__main__":
    sys.exit(main(SWEEP))
