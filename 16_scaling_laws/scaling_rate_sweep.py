"""Which learning rate is best for each size and budget? Seed 0, which judges nothing else.

python scaling_rate_sweep.py --workers 2        # 70 minutes of one core
"""

import sys

from scaling_training import train
from scaling_world import world

from shared.sweeps import Sweep, main, stored

MOST = {"steep": 2**21, "flat": 2**21, "stories": 2**20}  # tokens
WIDTHS = {"steep": (4, 6, 8, 12, 16, 24, 32, 48, 64), "flat": (4, 8, 16, 32, 64), "stories": (8, 16, 32, 64)}
LEAST = 2**16
RATES = tuple(0.32 / 2**i for i in range(9))  # 0.32 to 0.00125
LONG = {16: 2**23, 24: 2**23, 32: 2**23, 48: 2**22, 64: 2**22}  # of `steep`: what the largest budgets of compute need
LONG_RATES = (0.005, 0.0025)
TRIED = {"steep": 5, "flat": 5, "stories": 4}  # of them for each size


def budgets(most: int) -> list[int]:
    """Budgets in tokens, each twice the one before."""
    return [LEAST * 2**i for i in range((most // LEAST).bit_length())]


def rates(name: str, width: int) -> tuple[float, ...]:
    """The rates that are tried for a width, highest first: those around 0.32 / width."""
    first = next(i for i, rate in enumerate(RATES) if rate <= 1.3 / width)
    return RATES[first : first + TRIED[name]]


def run(job: dict) -> dict:
    """Nats per token above the floor at each budget, finished and not."""
    found = train(world(job["world"]), job["width"], job["rate"], budgets(job["most"]), job["seed"])
    return {"above": rounded(found.above), "unfinished": rounded(found.unfinished)}


def rounded(table: list[list[float]]) -> list[list[float]]:
    """Numbers as they are stored."""
    return [[round(part, 5) for part in parts] for parts in table]


def seconds(name: str, width: int, most: int) -> float:
    """About what a run up to a budget takes on one core."""
    fixed = 2e-5 if name == "stories" else 5e-6  # a token, at width 0
    return 1.4 * most * (fixed + 2.7e-7 * width)


def rate_rows(name: str) -> list[dict]:
    """The stored runs of a world, with the budgets of each."""
    rows, _ = stored(SWEEP.results)
    return [row | {"budgets": budgets(row["most"])} for row in rows if row["world"] == name]


JOBS = [
    {"world": name, "width": width, "rate": rate, "seed": 0, "most": MOST[name]}
    for name, widths in WIDTHS.items()
    for width in widths
    for rate in rates(name, width)
]
JOBS += [
    {"world": "steep", "width": width, "rate": rate, "seed": 0, "most": most}
    for width, most in LONG.items()
    for rate in LONG_RATES
]
SWEEP = Sweep(
    __file__,
    "scaling_rates",
    run,
    jobs=JOBS,
    quick=[{"world": "steep", "width": 4, "rate": 0.08, "seed": 0, "most": LEAST}],
    cost=lambda job: seconds(job["world"], job["width"], job["most"]),
    tolerance={"above": 0.02, "unfinished": 0.05},
)
if __name__ == "__main__":
    sys.exit(main(SWEEP))
