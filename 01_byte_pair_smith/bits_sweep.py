"""Bits per byte by tokenizer and length of training, each at its best rate: python bits_sweep.py

Writes results/bits.json, which the notebook shows. The lengths are equal numbers of bytes, and equal numbers of
operations: of the merges across spaces, whose steps hold fewer tokens, the longer two.
"""

import sys

from bits_rate_sweep import ARMS, RATES, best_rates
from bits_rate_sweep import SWEEP as RATE_SWEEP
from bits_training import arms, bits_per_byte

from shared.sweeps import Sweep, main, stored

SEEDS = (1, 2, 3)
CHEAPEST = "1,024, across spaces"  # of those whose merges are plain: its operations at these lengths are the budgets
BUDGETS = (400, 1600)  # its steps
STEPS = {  # of as many operations, by `Arm.flops_per_step`; a test holds them
    "512": (187, 749),
    "1,024": (234, 937),
    "1,024, across spaces late": (437, 1749),
}


def run(job: dict) -> dict:
    """Bits per byte of one training."""
    return {"bits": round(bits_per_byte(arms()[job["arm"]], job["steps"], job["rate"], job["seed"]), 4)}


def lengths() -> list[tuple[str, int, int]]:
    """Tokenizer, steps, and the number of steps whose best rate is taken: its own, or the budget's."""
    equal_bytes = [(arm, steps, steps) for steps in RATES for arm in ARMS]
    equal_compute = [
        (arm, steps, near) for arm, both in STEPS.items() for steps, near in zip(both, BUDGETS, strict=True)
    ]
    return equal_bytes + equal_compute


def jobs() -> list[dict]:
    """Each tokenizer and length by each seed. Rates are those that the other sweep has stored."""
    best = best_rates(stored(RATE_SWEEP.results)[0])
    return [
        {"arm": arm, "steps": steps, "rate": best[arm, near], "seed": seed}
        for arm, steps, near in lengths()
        for seed in SEEDS
    ]


SWEEP = Sweep(
    __file__,
    "bits",
    run,
    jobs=jobs(),
    quick=[{"arm": CHEAPEST, "steps": 2, "rate": 0.008, "seed": 1}],
    cost=lambda job: job["steps"],
    comparable=lambda job: job["steps"] == min(RATES),
    tolerance={"bits": 0.02},
    files=(RATE_SWEEP.results,),
)
if __name__ == "__main__":
    sys.exit(main(SWEEP))
