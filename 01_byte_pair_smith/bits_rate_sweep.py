"""Which learning rate is best for each tokenizer and length of training, by a seed that judges nothing.

python bits_rate_sweep.py --dry-run
"""

import sys

from bits_training import arms, bits_per_byte

from shared.sweeps import Sweep, best_rate, main

ARMS = ("512", "1,024", "1,024, across spaces", "1,024, across spaces late")
RATES = {
    100: (0.002, 0.004, 0.008, 0.016, 0.032),
    400: (0.004, 0.008, 0.016, 0.032),
    1600: (0.004, 0.008, 0.016),
}  # by steps


def run(job: dict) -> dict:
    """Bits per byte of one training."""
    return {"bits": round(bits_per_byte(arms()[job["arm"]], job["steps"], job["rate"], job["seed"]), 4)}


def best_rates(rows: list[dict]) -> dict[tuple[str, int], float]:
    """For each tokenizer and number of steps the rate that loses least. Raises ValueError where it is at the edge."""
    found = {}
    for arm in ARMS:
        for steps in RATES:
            tried = {row["rate"]: row["bits"] for row in rows if (row["arm"], row["steps"]) == (arm, steps)}
            best = best_rate([list(tried.values())], list(tried))
            if best.at_edge:
                raise ValueError(f"{arm}, {steps} steps: the best rate {best.rate} is at the edge of {list(tried)}")
            found[arm, steps] = best.rate
    return found


SWEEP = Sweep(
    __file__,
    "bits_rates",
    run,
    jobs=[
        {"arm": arm, "steps": steps, "rate": rate, "seed": 0}
        for steps, rates in RATES.items()
        for arm in ARMS
        for rate in rates
    ],
    quick=[{"arm": "1,024, across spaces", "steps": 2, "rate": 0.008, "seed": 0}],
    cost=lambda job: job["steps"],
    comparable=lambda job: job["steps"] == min(RATES),
    tolerance={"bits": 0.02},
)
if __name__ == "__main__":
    sys.exit(main(SWEEP))
