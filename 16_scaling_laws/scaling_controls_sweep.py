"""Two controls in the world `steep`: text that repeats, and one learning rate for all sizes.

python scaling_controls_sweep.py --workers 2    # 13 minutes of one core
"""

import sys

from scaling_rate_sweep import budgets, rounded, seconds
from scaling_training import train
from scaling_world import world

from shared.sweeps import Sweep, main

WORLD = "steep"
WIDTH, UNIQUE, RATES = 32, (2**17, 2**19), (0.01, 0.005)  # tokens that differ: 16 and 4 epochs; seed 0 chooses
WIDTHS, ONE_RATE = (4, 8, 16, 32, 64), 0.005  # the widest model's best at most budgets
MOST, MOST_AT_ONE_RATE = 2**21, 2**19


def run(job: dict) -> dict:
    """Nats per token above the floor at each budget."""
    found = train(world(WORLD), job["width"], job["rate"], budgets(job["most"]), job["seed"], unique=job["unique"])
    return {"above": rounded(found.above)}


REPEATS = [
    {"width": WIDTH, "rate": rate, "unique": unique, "seed": seed, "most": MOST}
    for seed in range(4)
    for unique in UNIQUE
    for rate in RATES
]
ONE = [
    {"width": width, "rate": ONE_RATE, "unique": None, "seed": seed, "most": MOST_AT_ONE_RATE}
    for seed in (1, 2, 3)
    for width in WIDTHS
]
SWEEP = Sweep(
    __file__,
    "scaling_controls",
    run,
    jobs=[*REPEATS, *ONE],
    quick=[{"width": 4, "rate": 0.08, "unique": 2**15, "seed": 1, "most": 2**16}],
    cost=lambda job: seconds(WORLD, job["width"], job["most"]),
    tolerance={"above": 0.02},
    settings={"world": WORLD},
)
if __name__ == "__main__":
    sys.exit(main(SWEEP))
