"""What the sweeps must show, written before any seed that judges had run; bounds are by seed 0, which tried rates.

    rows, how = stored(ppo_sweep.SWEEP.results)
    end(rows, FREE, "gold")                         # by seed, on 256 held-out prompts after 48 iterations
    fall(rows, FREE)                                # from the highest of its curve's points to the end
    supports(rows), against(rows), limits(rows, others), further(rows, others)      # `Finding`s for the verdict

"The Reward Model is easily gamed without KL penalties." Gamed means: the score rises and the gold reward falls. Seed 0,
48 iterations, a base of score 0 and gold 0.27: without a penalty score 1.1 and gold 0.00 (after 12: 0.16), at the
others' rate 1.2 and 0.22 (0.47 at its peak; after 12: 0.43); coefficient 0.1: gold 0.52 (0.44); 0.3: 0.44 (0.38).

Three rules are not as they were first (`first_rules`). That gold with a coefficient of 0.1 ends 0.1 above the base's,
by 1.5 spreads, the five seeds missed by its margin (0.20 to 0.32 above, so 0.26 less 0.18): the bound is 0 now, and
five seeds decide by it that had not run when it was written. Two, which were met, decide no more: one compared arms of
different learning rates, and one made a condition of what gamed means.
"""

from collections.abc import Iterable, Mapping

import numpy as np
from ppo_arms import FAST, FRESH, LONG, RATE, SHORT, arm
from ppo_trial import FEWER, JUDGES, POINTS

from shared.finding import Finding

Rows = Iterable[Mapping]
FREE = arm("ppo", "600", 0, LONG) | {"rate": FAST}
FREE_SLOW, SMALL, MIDDLE, LARGE = (FREE | {"rate": RATE, "coefficient": c} for c in (0, 0.03, 0.1, 0.3))
ON_GOLD, ON_150, ON_40 = FREE_SLOW | {"reward": "gold"}, FREE | {"reward": "150"}, FREE | {"reward": "40"}
ON_GOLD_FAST, MIDDLE_40 = FREE | {"reward": "gold"}, MIDDLE | {"reward": "40"}
BASE_GOLD = 0.27  # of the base; scores are standardised by its responses
PER_POINT = LONG // POINTS  # iterations of a curve's point


def of_arm(rows: Rows, which: Mapping, seeds: Iterable[int] = JUDGES) -> list[Mapping]:
    """An arm's rows by these seeds, in order. Raises ValueError if there are none."""
    seeds = list(seeds)
    found = [row for row in rows if row["seed"] in seeds and all(row.get(name) == it for name, it in which.items())]
    if not found:
        raise ValueError(f"no row of {which}: run the sweep")
    return sorted(found, key=lambda row: row["seed"])


def end(rows: Rows, which: Mapping, measure: str, seeds: Iterable[int] = JUDGES) -> list[float]:
    """By seed, on held-out prompts after training."""
    return [row[measure] for row in of_arm(rows, which, seeds)]


def curves(rows: Rows, which: Mapping, measure: str) -> np.ndarray:
    """(seeds, points): on the way, on the rollouts."""
    return np.array([row["curve"][measure] for row in of_arm(rows, which)])


def early(rows: Rows, which: Mapping, measure: str) -> list[float]:
    """By seed, on the rollouts of the last two of the first 12 iterations."""
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


def count(flags: Iterable[bool]) -> int:
    """In how many seeds."""
    return sum(map(bool, flags))


def supports(rows: Rows) -> list[Finding]:
    """What must be so for the claim to hold at all."""
    rows = list(rows)
    lost = [BASE_GOLD - gold for gold in end(rows, FREE, "gold")]
    kept = [gold - BASE_GOLD for gold in end(rows, MIDDLE, "gold", FRESH)]
    gaps = less(end(rows, MIDDLE, "gold"), end(rows, FREE, "gold"))
    fell = count(it >= 0.1 for it in fall(rows, FREE_SLOW))
    better = count(it > 0 for it in less(end(rows, MIDDLE, "gold"), end(rows, FREE_SLOW, "gold")))
    gamed, keeps = "it is not gamed without a penalty", "with a penalty it is gamed as well"
    five = {"possible": (0, 5)}
    return [
        Finding("48 iterations without a penalty: the score's rise", end(rows, FREE, "score"), 0.5, because=gamed),
        Finding("48 iterations without a penalty: gold below the base's", lost, 0.1, because=gamed),
        Finding("48 iterations, coefficient 0.1, fresh seeds: gold above the base's", kept, 0.0, because=keeps),
        Finding("48 iterations: gold with coefficient 0.1 at 0.0003, less without at 0.001", gaps, 0.2, because=keeps),
        Finding("all at one rate: gold falls by 0.1 from its peak without a penalty, seeds of 5", fell, 4, **five),
        Finding("all at one rate: more gold with coefficient 0.1, seeds of 5", better, 4, because=keeps, **five),
    ]


def first_rules(rows: Rows) -> list[Finding]:
    """What was decided by before, and is not now."""
    rows = list(rows)
    kept = [gold - BASE_GOLD for gold in end(rows, MIDDLE, "gold")]
    sooner = count(it > 0 for it in less(early(rows, MIDDLE, "gold"), early(rows, FREE, "gold")))
    above = [gold - BASE_GOLD for gold in peak(rows, FREE_SLOW)]
    return [
        Finding("48 iterations, coefficient 0.1: gold above the base's", kept, 0.1),
        Finding("12 iterations: more gold with coefficient 0.1 than without at 0.001, seeds of 5", sooner, 4),
        Finding("without a penalty, at 0.0003: gold at its peak, above the base's", above, 0.02),
    ]


def against(rows: Rows) -> list[Finding]:
    """What must not be so."""
    rows = list(rows)
    because = "with a penalty the gold reward falls, too"
    return [
        Finding(f"48 iterations, coefficient {c}: gold falls from its peak", fall(rows, which), 0.1, because=because)
        for c, which in ((0.1, MIDDLE), (0.3, LARGE))
    ]


def limits(rows: Rows, others: Rows) -> list[Finding]:
    """Where it is not so, each with the condition that it sets. others: of `ppo_others_sweep`."""
    rows, others = list(rows), list(others)
    best = [np.array(row["curve"]["gold"]) for row in others if row["method"] == "best of n"]
    return [
        Finding(
            "without a penalty, trained on the gold reward itself: gold falls from its peak",
            fall(rows, ON_GOLD),
            at_most=0.15,
            when="the score comes from a model that learned it and not from the program itself",
        ),
        Finding(
            "the best of n: gold falls from its peak, n up to 256",
            [float(gold.max() - gold[-1]) for gold in best],
            at_most=0.1,
            when="the policy is trained on that score, and not only chosen by it among 256 responses",
        ),
    ]


def further(rows: Rows, others: Rows) -> list[Finding]:
    """What is said beside the verdict, and does not decide it."""
    rows, others = list(rows), list(others)
    few = [row for row in rows if row["seed"] in FEWER]
    stopped = at_divergence(rows, FREE_SLOW, MIDDLE)
    sooner = count(it > 0 for it in less(early(rows, MIDDLE, "gold"), early(rows, FREE_SLOW, "gold")))
    found = [
        Finding("12 iterations, one rate: more gold with coefficient 0.1, seeds of 5", sooner, 4, possible=(0, 5)),
        Finding("coefficient 0.03: gold falls from its peak", fall(rows, SMALL), at_most=0.1),
        Finding("0.1: gold, less without a penalty at equal divergence", less(end(rows, MIDDLE, "gold"), stopped), 0.0),
        Finding("0.1: gold, less with 0.3", less(end(rows, MIDDLE, "gold"), end(rows, LARGE, "gold")), 0.0),
        Finding("gold as the reward, at 0.001: gold falls from its peak", fall(rows, ON_GOLD_FAST), at_most=0.15),
        Finding("40 pairs, coefficient 0.1: gold falls from its peak", fall(rows, MIDDLE_40), at_most=0.1),
        Finding("no penalty: gold at its peak by 600 pairs, less by 40", less(peak(few, FREE), peak(few, ON_40)), 0.0),
    ]
    for method in ("rloo", "grpo"):
        free, penalised = (end(others, arm(method, "600", c, 24), "gold") for c in (0, 0.1))
        found.append(Finding(f"{method}: gold with coefficient 0.1, less without", less(penalised, free), 0.0))
    passes = less(end(others, arm("dpo", "150", 0.1, 4), "gold"), end(others, arm("dpo", "150", 0.1, 16), "gold"))
    return [*found, Finding("DPO: gold after 4 passes, less after 16", passes, 0.0)]
