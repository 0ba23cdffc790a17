"""What the sweeps must show, written before any seed that judges had run; bounds are by seed 0, which tried rates.

    rows, how = stored(ppo_sweep.SWEEP.results)
    end(rows, FREE, "gold")                         # by seed, on 256 held-out prompts after 96 iterations
    fall(rows, FREE)                                # from the highest of its curve's points to the end
    supports(rows), against(rows), limits(rows, others), further(rows, others)      # `Finding`s for the verdict

"The Reward Model is easily gamed without KL penalties." Gamed means: the score rises and the gold reward falls from
where it has been. Seed 0 without a penalty: the score went from 0 to 1.2, gold from 0.27 over 0.47 to 0.09, at a third
of the rate over 0.50 to 0.29; with a coefficient of 0.1 gold ended at 0.62 (0.65 at its peak), with 0.3 at 0.49.
"""

from collections.abc import Iterable, Mapping

import numpy as np
from ppo_arms import ADAPTED, LONG, RATE, SHORT, SLOW, arm

from shared.finding import Finding

Rows = Iterable[Mapping]
FREE = arm("ppo", "600", 0, LONG) | {"rate": RATE}
FREE_SLOW = FREE | {"rate": SLOW}
SMALL, MIDDLE, LARGE = (FREE | {"coefficient": coefficient} for coefficient in (0.03, 0.1, 0.3))
TOO_LARGE = FREE_SLOW | {"coefficient": 1}
TARGET = MIDDLE | ADAPTED
ON_GOLD, ON_150, ON_40 = (FREE | {"reward": reward} for reward in ("gold", "150", "40"))
LARGE_150 = ON_150 | {"coefficient": 0.3}
BASE_GOLD, BASE_SCORE = 0.27, 0.0  # of the base; scores are standardised by its responses
PER_POINT = 4  # iterations of a curve's point


def of_arm(rows: Rows, which: Mapping) -> list[Mapping]:
    """An arm's rows, by seed. Raises ValueError if there are none."""
    found = [row for row in rows if all(row.get(name) == value for name, value in which.items())]
    if "target" not in which:
        found = [row for row in found if "target" not in row]
    if not found:
        raise ValueError(f"no row of {which}: run the sweep")
    return sorted(found, key=lambda row: row["seed"])


def end(rows: Rows, which: Mapping, measure: str) -> list[float]:
    """By seed, on held-out prompts after training."""
    return [row[measure] for row in of_arm(rows, which)]


def curves(rows: Rows, which: Mapping, measure: str) -> np.ndarray:
    """(seeds, points): on the way, on the rollouts."""
    return np.array([row["curve"][measure] for row in of_arm(rows, which)])


def early(rows: Rows, which: Mapping, measure: str) -> list[float]:
    """By seed, on the rollouts of the last four of the first 24 iterations."""
    return curves(rows, which, measure)[:, SHORT // PER_POINT - 1].tolist()


def peak(rows: Rows, which: Mapping) -> list[float]:
    """By seed, the highest gold of a curve's points."""
    return curves(rows, which, "gold").max(axis=1).tolist()


def fall(rows: Rows, which: Mapping) -> list[float]:
    """By seed, from there to the end."""
    return less(peak(rows, which), end(rows, which, "gold"))


def less(some: Iterable[float], others: Iterable[float]) -> list[float]:
    """Seed by seed, some less others."""
    return [a - b for a, b in zip(some, others, strict=True)]


def at_divergence(rows: Rows, which: Mapping, of: Mapping) -> list[float]:
    """By seed, an arm's gold on its way where its divergence first was as large as another's is at its end."""
    return [
        float(np.interp(kl, np.maximum.accumulate(own), golds))
        for kl, own, golds in zip(
            end(rows, of, "kl"), curves(rows, which, "kl"), curves(rows, which, "gold"), strict=True
        )
    ]


def supports(rows: Rows) -> list[Finding]:
    """What must be so for the claim to hold at all."""
    rows = list(rows)
    rise = [score - BASE_SCORE for score in end(rows, FREE, "score")]
    slow = [score - BASE_SCORE for score in end(rows, FREE_SLOW, "score")]
    kept = [gold - BASE_GOLD for gold in end(rows, MIDDLE, "gold")]
    because = "with a penalty it is gamed as well"
    return [
        Finding("96 iterations without a penalty: the score rises", rise, 0.5),
        Finding("96 iterations without a penalty: gold falls from its peak", fall(rows, FREE), 0.1),
        Finding("the same at a third of the rate: the score rises", slow, 0.3),
        Finding("the same at a third of the rate: gold falls from its peak", fall(rows, FREE_SLOW), 0.0),
        Finding("96 iterations, coefficient 0.1: gold above the base's", kept, 0.05, because=because),
        Finding(
            "96 iterations: gold with coefficient 0.1, less gold without a penalty",
            less(end(rows, MIDDLE, "gold"), end(rows, FREE, "gold")),
            0.0,
            because="a penalty keeps no more of the gold reward",
        ),
    ]


def against(rows: Rows) -> list[Finding]:
    """What must not be so."""
    rows = list(rows)
    because = "with a penalty the gold reward falls, too"
    return [
        Finding(f"96 iterations, coefficient {c}: gold falls from its peak", fall(rows, which), 0.1, because=because)
        for c, which in ((0.1, MIDDLE), (0.3, LARGE))
    ]


def limits(rows: Rows, others: Rows) -> list[Finding]:
    """Where it is not so, each with the condition that it sets. others: of `ppo_others_sweep`."""
    rows, others = list(rows), list(others)
    above = [gold - BASE_GOLD for gold in peak(rows, FREE)]
    best = [np.array(row["curve"]["gold"]) for row in others if row["method"] == "best of n" and row["reward"] == "600"]
    return [
        Finding(
            "without a penalty, trained on the gold reward itself: gold falls from its peak",
            fall(rows, ON_GOLD),
            at_most=0.15,
            when="the score comes from a model that learned it and not from the program itself",
        ),
        Finding(
            "without a penalty: gold at its peak, above the base's",
            above,
            at_least=0.02,
            when="training goes on past the peak of the gold reward",
        ),
        Finding(
            "the best of n: gold falls from its peak, n up to 256",
            [float(gold.max() - gold[-1]) for gold in best],
            at_most=0.1,
            when="the policy is trained and not chosen from what the base writes",
        ),
    ]


def further(rows: Rows, others: Rows) -> list[Finding]:
    """What is said beside the verdict, and does not decide it."""
    rows, others = list(rows), list(others)
    stopped = at_divergence(rows, FREE_SLOW, MIDDLE)
    gaps = less(early(rows, MIDDLE, "gold"), early(rows, FREE, "gold"))
    later = less(early(rows, FREE, "gold"), early(rows, ON_40, "gold"))
    found = [
        Finding("24 iterations: gold with coefficient 0.1, less gold without", gaps, 0.0),
        Finding(
            "24 iterations without a penalty: gold falls from its peak",
            less(peak(rows, FREE), early(rows, FREE, "gold")),
            0.1,
        ),
        Finding("coefficient 0.03: gold falls from its peak", fall(rows, SMALL), at_most=0.1),
        Finding(
            "coefficient 0.1: gold, less without a penalty at equal divergence",
            less(end(rows, MIDDLE, "gold"), stopped),
            0.0,
        ),
        Finding("coefficient 0.1: gold, less with 0.3", less(end(rows, MIDDLE, "gold"), end(rows, LARGE, "gold")), 0.0),
        Finding("24 iterations: gold by 600 pairs, less by 40", later, 0.0),
        Finding("150 pairs, coefficient 0.3: gold falls from its peak", fall(rows, LARGE_150), at_most=0.1),
        Finding("coefficient adapted to 4 nats: divergence at the end", end(rows, TARGET, "kl"), 2.0, 8.0),
        Finding(
            "coefficient 1: gold above the base's",
            [it - BASE_GOLD for it in end(rows, TOO_LARGE, "gold")],
            at_most=0.15,
        ),
    ]
    for method in ("reinforce", "baseline", "rloo", "grpo"):
        free, penalised = (end(others, arm(method, "600", c, SHORT), "gold") for c in (0, 0.1))
        found.append(Finding(f"{method}: gold with coefficient 0.1, less without", less(penalised, free), 0.0))
    passes = less(end(others, arm("dpo", "600", 0.1, 2), "gold"), end(others, arm("dpo", "600", 0.1, 8), "gold"))
    return [*found, Finding("DPO: gold after 2 passes, less after 8", passes, 0.0)]
