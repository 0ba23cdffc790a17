"""The arms of the trial: what policies are trained on, how, and at which rates each is tried.

With a penalty one rate, 0.0003, is the best of those tried for coefficients 0.03, 0.1 and 0.3, after 24 iterations and
after 96 (`ppo_rate_sweep`). Without one the score has no best rate: the faster, the more of it, up to policies whose
words are no story. So that arm is judged at three times the others' rate, and at the same rate as they. The rate is
constant: a training of 12 iterations is the first quarter of one of 48.
"""

from collections.abc import Iterable

FRESH = [20, 21, 22, 23, 24]  # seeds by which a rule is decided that the first five had missed by its margin
SHORT, LONG = 12, 48  # iterations that are judged
RATE, FAST = 3e-4, 1e-3


def arm(method: str, reward: str, coefficient: float, iterations: int) -> dict:
    """A job without its rate and seed."""
    return {"method": method, "reward": reward, "coefficient": coefficient, "iterations": iterations}


RATED = [arm("ppo", "600", coefficient, 24) for coefficient in (0, 0.03, 0.1, 0.3)]
RATED += [arm("ppo", "600", coefficient, 96) for coefficient in (0, 0.1, 0.3, 1)]

MAIN = [arm("ppo", "600", 0, LONG) | {"rate": FAST}]
MAIN += [arm("ppo", "600", coefficient, LONG) | {"rate": RATE} for coefficient in (0, 0.1)]
MAIN += [arm("ppo", "gold", 0, LONG) | {"rate": RATE}, arm("ppo", "600", 0.3, LONG) | {"rate": RATE}]
PENALISED = MAIN[2]
MORE = [arm("ppo", reward, 0, LONG) | {"rate": FAST} for reward in ("40", "150")]
MORE += [arm("ppo", "600", 0.03, LONG) | {"rate": RATE}, arm("ppo", "gold", 0, LONG) | {"rate": FAST}]
MORE += [arm("ppo", "40", 0.1, LONG) | {"rate": RATE}]

OTHERS = [arm(method, "600", coefficient, 24) for method in ("rloo", "grpo") for coefficient in (0, 0.1)]
OTHERS += [arm("dpo", "150", 0.1, passes) for passes in (4, 16)]
BEST_OF_N = [{"method": "best of n", "reward": "600"}]


def rates(of: dict) -> list[float]:
    """What is tried."""
    tried = {"dpo": [1e-4, 3e-4, 1e-3, 3e-3], "rloo": [3e-4, 1e-3, 3e-3, 1e-2], "grpo": [1e-4, 3e-4, 1e-3, 3e-3]}
    if of["method"] in tried:
        return tried[of["method"]]
    return [1e-4, 3e-4, 1e-3] if of["iterations"] == 96 else [1e-4, 3e-4, 1e-3, 3e-3]


def runs(arms: Iterable[dict], seeds: Iterable[int]) -> list[dict]:
    """Each arm by each seed."""
    return [each | {"seed": seed} for each in arms for seed in seeds]


def tries(arms: Iterable[dict], seed: int) -> list[dict]:
    """Each arm at each of its rates."""
    return [each | {"rate": rate, "seed": seed} for each in arms for rate in rates(each)]
