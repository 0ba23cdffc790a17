"""The arms of the trial: what policies are trained on, how, and at which rates each is tried.

One rate serves PPO's arms, 0.0003: of those tried the best for coefficients 0.1 and 0.3, after 24 iterations and after
96 (`ppo_rate_sweep`). Without a penalty the score has no best rate: the faster, the more of it, up to policies that say
no word in its place. So that arm is judged at the others' rate, and at a third of it. A coefficient of 1 is best at a
third, too. The rate is constant, so that a training of 24 iterations is the first quarter of one of 96.
"""

from collections.abc import Iterable

SHORT, LONG = 24, 96  # iterations
RATE, SLOW = 3e-4, 1e-4
ADAPTED = {"target": 4.0}  # nats a response, to which the coefficient is adapted
GROUPS = ("reinforce", "baseline", "rloo", "grpo")


def arm(method: str, reward: str, coefficient: float, iterations: int) -> dict:
    """A job without its rate and seed."""
    return {"method": method, "reward": reward, "coefficient": coefficient, "iterations": iterations}


RATED = [arm("ppo", "600", coefficient, SHORT) for coefficient in (0, 0.03, 0.1, 0.3)]
RATED += [arm("ppo", "600", coefficient, LONG) for coefficient in (0, 0.1, 0.3, 1)]

JUDGED = [arm("ppo", "600", coefficient, LONG) | {"rate": RATE} for coefficient in (0, 0.1, 0.3, 0.03)]
JUDGED += [arm("ppo", reward, 0, LONG) | {"rate": RATE} for reward in ("gold", "150", "40")]
JUDGED += [arm("ppo", "600", 0, LONG) | {"rate": SLOW}, arm("ppo", "150", 0.3, LONG) | {"rate": RATE}]
JUDGED += [arm("ppo", "600", 0.1, LONG) | {"rate": RATE} | ADAPTED, arm("ppo", "600", 1, LONG) | {"rate": SLOW}]

OTHERS = [arm(method, "600", coefficient, SHORT) for method in GROUPS for coefficient in (0, 0.1)]
OTHERS += [arm("dpo", "600", 0.1, passes) for passes in (2, 8)]
BEST_OF_N = [{"method": "best of n", "reward": reward} for reward in ("150", "600")]


def rates(of: dict) -> list[float]:
    """What is tried."""
    if of["method"] == "dpo":
        return [3e-5, 1e-4, 3e-4, 1e-3]
    if of["method"] != "ppo":
        return [3e-4, 1e-3, 3e-3]
    return [1e-4, 3e-4, 1e-3] if of["iterations"] == LONG else [1e-4, 3e-4, 1e-3, 3e-3]


def runs(arms: Iterable[dict], seeds: Iterable[int]) -> list[dict]:
    """Each arm by each seed."""
    return [each | {"seed": seed} for each in arms for seed in seeds]


def tries(arms: Iterable[dict], seed: int) -> list[dict]:
    """Each arm at each of its rates."""
    return [each | {"rate": rate, "seed": seed} for each in arms for rate in rates(each)]
