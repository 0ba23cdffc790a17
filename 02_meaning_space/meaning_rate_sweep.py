"""Which learning rate is best for each width and training length? Seed 0, which judges nothing else.

python meaning_rate_sweep.py        # 10 minutes of one core; writes results/meaning_rates.json

The best is that by which most topics are told from 448 paragraphs (documentation), or most kinds known (story world).
"""

import sys

from meaning_runs import cost, run, trained

from shared.sweeps import Sweep, main, stored

RATES = {  # of the documentation, by width and length
    (24, 120): (0.08, 0.16, 0.32),
    (24, 480): (0.02, 0.04, 0.08),
    (100, 120): (0.02, 0.04, 0.08, 0.16),
    (100, 480): (0.005, 0.01, 0.02, 0.04, 0.08),
    (300, 120): (0.02, 0.04, 0.08, 0.16),
    (300, 480): (0.01, 0.02, 0.04, 0.08),
}
WORLD_RATES = {  # of the world, by documents, width and length
    (1000, 24, 120): (0.04, 0.08, 0.16, 0.32, 0.64),
    (1000, 24, 480): (0.04, 0.08, 0.16, 0.32),
    (9000, 24, 120): (0.04, 0.08, 0.16, 0.32, 0.64),
    (9000, 24, 480): (0.02, 0.04, 0.08),
    (9000, 100, 120): (0.02, 0.04, 0.08, 0.16),
}
JOBS = [trained("docs", *arm, rate, 0) for arm, rates in RATES.items() for rate in rates]
JOBS += [
    trained("world", d, steps, rate, 0, size=size) for (size, d, steps), rates in WORLD_RATES.items() for rate in rates
]
SWEEP = Sweep(
    __file__,
    "meaning_rates",
    run,
    jobs=JOBS,
    quick=[trained("docs", 8, 5, 0.1, 0, splits=1), trained("world", 8, 5, 0.1, 0, size=300)],
    cost=cost,
    comparable=lambda job: cost(job) < 12,
    tolerance={"shares": 0.1, "hubs": 30},
)


def best_rates(rows: list[dict]) -> dict[tuple, tuple[float, bool]]:
    """For each arm, (width, length) or (documents, width, length), the rate of the best score, of equal ones the middle
    one, and whether it is the lowest or the highest that was tried."""
    arms: dict[tuple, dict[float, float]] = {}
    for row in rows:
        arm = (*([row["size"]] if "size" in row else []), row["d"], row["steps"])
        score = row["shares"]["kinds" if "size" in row else "topics by 448"]
        arms.setdefault(arm, {})[row["rate"]] = score
    best = {}
    for arm, scores in arms.items():
        equal = sorted(rate for rate, score in scores.items() if score == max(scores.values()))
        rate = equal[len(equal) // 2]
        best[arm] = rate, rate in (min(scores), max(scores))
    return best


def stored_best() -> dict[tuple, tuple[float, bool]]:
    """Of the stored rows."""
    return best_rates(stored(SWEEP.results)[0])


if __name__ == "__main__":
    sys.exit(main(SWEEP))
