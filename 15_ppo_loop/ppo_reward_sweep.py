"""Which learning rate is best for a reward model of so many pairs? python ppo_reward_sweep.py --workers 2

Writes results/ppo_reward.json: for each number of pairs, rate and seed the loss and the accuracy on 256 held-out pairs,
and on the pairs that it was trained on.
"""

import sys

import torch
from ppo import preference_loss
from ppo_rewards import DEVICE, base, held_out_pairs, rewarded
from ppo_world import accuracy, preferences, side_by_side

from shared.sweeps import Sweep, best_rate, main, stored
from shared.sweeps.rates import BestRate

RATES = [5e-4, 1.5e-3, 5e-3, 1.5e-2, 4e-2]
SIZES = [40, 150, 600]


def best(pairs: int) -> BestRate:
    """Of what is stored, the rate with the lowest loss on held-out pairs."""
    found = {row["rate"]: row["loss"] for row in stored(SWEEP.results)[0] if row["pairs"] == pairs}
    return best_rate(torch.tensor([[*found.values()]]), list(found))


@torch.no_grad()
def run(job: dict) -> dict:
    """Train a reward model and ask it."""
    with torch.enable_grad():
        model = rewarded(job["pairs"], job["seed"], job["rate"])
    losses = []
    for start in range(0, 256, 64):
        ids, said = side_by_side(held_out_pairs()[start : start + 64])
        numbers = model(ids.to(DEVICE), said.to(DEVICE)) * model.scale  # as it was trained
        losses.append(preference_loss(*numbers.chunk(2)))
    seen = preferences(base(), job["pairs"], job["seed"])
    found = {
        "loss": float(sum(losses)) / 4,
        "held_out": accuracy(model, held_out_pairs()),
        "seen": accuracy(model, seen),
    }
    return {name: round(number, 4) for name, number in found.items()}


SWEEP = Sweep(
    __file__,
    "ppo_reward",
    run,
    jobs=[{"pairs": pairs, "rate": rate, "seed": 0} for pairs in SIZES for rate in RATES],
    quick=[{"pairs": 16, "rate": 1e-3, "seed": 0}],
    cost=lambda job: job["pairs"],
    tolerance={"loss": 0.1, "held_out": 0.06, "seen": 0.06},
    device=DEVICE,
)

if __name__ == "__main__":
    sys.exit(main(SWEEP))
