"""The arms of the trial: what policies are trained on, how, and at which rates each is tried."""

from collections.abc import Iterable

COEFFICIENTS = [0, 0.03, 0.1, 0.3, 1, 3]
SHORT, LONG = 24, 96  # iterations
GROUPED = ("reinforce", "baseline", "rloo", "grpo")


def arm(method: str, reward: str, coefficient: float, iterations: int) -> dict:
    """A job without its rate and seed."""
    return {"method": method, "reward": reward, "coefficient": coefficient, "iterations": iterations}


PENALTIES = [arm("ppo", "600", c, LONG) for c in (0, 0.1, 0.3, 1)] + [arm("ppo", "600", c, SHORT) for c in COEFFICIENTS]
REWARDS = [arm("ppo", reward, c, LONG) for reward, c in (("150", 0), ("150", 0.3), ("gold", 0))]
REWARDS += [arm("ppo", reward, c, SHORT) for reward in ("40", "150", "gold") for c in (0, 0.3)]
OTHERS = [arm(method, "600", coefficient, SHORT) for method in GROUPED for coefficient in (0, 0.1)]
PREFERRED = [arm("dpo", reward, beta, 4) for reward in ("150", "600") for beta in (0.1, 0.5)]
ADAPTED = {"target": 4.0}  # nats a response, to which the coefficient is adapted
BEST_OF_N = [{"method": "best of n", "reward": reward} for reward in ("40", "150", "600")]
ARMS = [*PENALTIES, *REWARDS, *OTHERS, *PREFERRED]


def rates(of: dict) -> list[float]:
    """What is tried."""
    if of["method"] == "dpo":
        return [3e-5, 1e-4, 3e-4, 1e-3]
    if of["method"] in ("reinforce", "baseline", "rloo"):
        return [3e-4, 1e-3, 3e-3, 1e-2]
    return [1e-4, 3e-4, 1e-3] if of["iterations"] == LONG else [1e-4, 3e-4, 1e-3, 3e-3]


def runs(arms: Iterable[dict], of: Iterable[float], seeds: Iterable[int]) -> list[dict]:
    """Each arm at each rate by each seed."""
    return [each | {"rate": rate, "seed": seed} for each in arms for rate in of for seed in seeds]
