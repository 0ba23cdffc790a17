"""What the sweeps of lesson 15 share: one training of a policy, and what is measured of it.

    run({"method": "ppo", "reward": "600", "coefficient": 0.1, "rate": 0.0003, "iterations": 24, "seed": 10})

reward: "gold", or how many pairs the reward model was trained on. A seed draws the pairs, the reward model's order of
them, the prompts and the responses. Rates are tried by seed 0, and judged by others.

A row has the means over 256 held-out prompts of `score` (what the policy was trained on, without the penalty),
`gold`, `kl` (nats a response, exact), `length`, `finished`, `consistent`, `deeds`; `curve`: the same on the way, each
of 24 numbers the mean over the rollouts of an iteration, or of two or four. A row of a seed that judges has `texts`,
what the policy writes to two held-out prompts at some iterations.
"""

import copy
import math
from collections.abc import Callable, Iterable
from statistics import fmean

import ppo_reward_sweep
import torch
from ppo import ActorCritic, Rollout, Settings, by_gae, exact_kl, rollout
from ppo_best_of_n import best_of_n_kl, expected_best
from ppo_others import by_group, by_leaving_one_out, dpo_loss, in_groups, response_log_p
from ppo_rewards import base, rewarded
from ppo_training import train
from ppo_world import MOST, PAIRS, STOP, gold, openings, preferences, side_by_side, tell

from shared.generation import seeded
from shared.tiny_lm import TinyLM
from shared.training import fit
from shared.world import HELD_OUT

JUDGES = [10, 11, 12, 13, 14]
FEWER = JUDGES[:3]
POINTS = 24  # of a curve
ROLLOUTS = 64  # of an iteration; half as many for the other algorithms
MEASURES = ("score", "gold", "kl", "length", "finished", "consistent", "deeds")
NS = [2**i for i in range(9)]  # of best-of-n
METHODS = {  # what a token is worth; settings
    "ppo": (by_gae, {}),
    "rloo": (by_leaving_one_out, {"epochs": 1, "minibatches": 1}),
    "grpo": (by_group, {}),
}


def scorer(reward: str, seed: int) -> Callable[[Rollout], torch.Tensor]:
    """What policies are trained on: the gold reward, with about the same mean and spread, or a reward model."""
    if reward == "gold":
        return lambda drawn: (gold(drawn).to(drawn.ids.device) - 0.27) / 0.27  # of the base: mean and deviation
    model = rewarded(int(reward), seed, ppo_reward_sweep.best(int(reward)).rate)
    return lambda drawn: model(drawn.ids, drawn.said)


def cost(job: dict) -> float:
    """A job's share of the time, in iterations."""
    return {"dpo": 20, "best of n": 60}.get(job["method"], job.get("iterations", 0)) + 0.01 * int(
        job["reward"].replace("gold", "0")
    )


def comparable(job: dict) -> bool:
    """Runs that another machine, or no GPU, brings to much the same end: held near the base, in small steps."""
    return job.get("iterations", 0) <= 48 and job.get("coefficient", 0) >= 0.1 and job["rate"] <= 3e-4


# A policy goes another way where rounding differs, to an end as good; 256 responses have an error of their own.
TOLERANCE = {"score": 0.3, "gold": 0.2, "kl": 3, "length": 15, "finished": 0.25, "consistent": 0.2, "deeds": 1}
TOLERANCE |= {"curve": math.inf, "texts": math.inf}


def quick(seed: int, methods: Iterable[str] = ("ppo",)) -> list[dict]:
    """Jobs of seconds."""
    some = [{"method": method, "reward": "gold", "coefficient": 0.1, "rate": 1e-3} for method in methods]
    return [each | {"iterations": 1, "seed": seed, "few": 1} for each in some]


def run(job: dict) -> dict:
    """Train a policy (method "ppo" and the like, or "dpo": coefficient is its beta), or draw many responses and keep
    the best ("best of n"). few: at most so many iterations, prompts and pairs."""
    few = job.get("few", 256)
    if job["method"] == "best of n":
        return many(scorer(job["reward"], job["seed"]), job["seed"], few)
    if job["method"] == "dpo":
        return preferred(job, few)
    score = scorer(job["reward"], job["seed"])
    credit, special = METHODS[job["method"]]
    in_loss = {"in_loss": job["coefficient"]} if job["method"] == "grpo" else {"coefficient": job["coefficient"]}
    settings = Settings(
        rate=job["rate"], iterations=min(few, job["iterations"]), most=MOST, stop=STOP, **special, **in_loss,
    )  # fmt: skip
    size = min(8 * few, ROLLOUTS if job["method"] == "ppo" else ROLLOUTS // 2)
    prompts = openings(1_000_000 + job["seed"], size)
    prompts = in_groups(prompts) if credit in (by_group, by_leaving_one_out) else prompts
    torch.manual_seed(job["seed"])
    policy, texts = ActorCritic(copy.deepcopy(base())), []

    def watch(drawn: Rollout) -> dict:
        if job["seed"] in JUDGES and job["method"] == "ppo" and len(texts) % (settings.iterations // 8 or 1) == 0:
            texts.append(written(policy.lm))
        else:
            texts.append([])
        return found(drawn)

    history = train(policy, base(), score, prompts, settings, credit, watch, label=None)
    if history.stopped:
        return dict.fromkeys(MEASURES) | {"stopped": history.stopped}
    result = measured(policy.lm, score, few) | {"curve": curve(history.rows)}
    if job["seed"] in JUDGES and job["method"] == "ppo":
        result["texts"] = {str(i): each for i, each in enumerate([*texts, written(policy.lm)]) if each}
    return result


def found(drawn: Rollout) -> dict[str, float]:
    """What the judge finds of a rollout, means."""
    told = tell(drawn)
    shares = {"gold": [each.gold for each in told], "finished": [each.finished for each in told]}
    shares["consistent"] = [each.consistent / max(1, each.sentences) for each in told]
    return {name: fmean(each) for name, each in shares.items()} | {"deeds": fmean(each.deeds for each in told)}


def curve(rows: list[dict]) -> dict[str, list[float]]:
    """What a training was like, in at most 24 points, each the mean of as many iterations."""
    size = max(1, len(rows) // POINTS)
    parts = [rows[i : i + size] for i in range(0, len(rows), size)]
    return {name: [round(fmean(row[name] for row in part), 4) for part in parts] for name in (*MEASURES, "coefficient")}


@torch.no_grad()
def measured(lm: TinyLM, score: Callable[[Rollout], torch.Tensor], n: int) -> dict[str, float]:
    """What a policy writes to n held-out prompts is worth."""
    drawn = rollout(lm, next(openings(HELD_OUT, n)), MOST, STOP, seeded(range(n)))
    kl = (exact_kl(lm(drawn.ids), base()(drawn.ids)) * drawn.said).sum(1).mean()
    numbers = {"score": float(score(drawn).mean()), "kl": float(kl), "length": float(drawn.said.sum(1).float().mean())}
    return {name: round(number, 4) for name, number in (numbers | found(drawn)).items()}


def written(lm: TinyLM) -> list[str]:
    """What a policy writes to two held-out prompts."""
    return [each.text for each in tell(rollout(lm, next(openings(HELD_OUT, 2)), MOST, STOP, seeded(range(2))))]


@torch.no_grad()
def many(score: Callable[[Rollout], torch.Tensor], seed: int, few: int) -> dict:
    """Of n of the base's responses the one with the best score, for n up to 256: means over 16 prompts, exact over all
    choices of n of 256."""
    torch.manual_seed(seed)
    scores, golds, ns = [], [], [n for n in NS if n <= few]
    for prompt in next(openings(HELD_OUT + 100 + seed, min(few, 16))):
        drawn = rollout(base(), [prompt] * min(few, NS[-1]), MOST, STOP)
        scores.append(score(drawn).cpu())
        golds.append(gold(drawn))

    def best(of: list[torch.Tensor]) -> list[float]:
        means = (fmean(float(expected_best(*each, n)) for each in zip(scores, of, strict=True)) for n in ns)
        return [round(mean, 4) for mean in means]

    kl = [round(best_of_n_kl(n), 4) for n in ns]
    return {"curve": {"n": ns, "kl": kl, "score": best(scores), "gold": best(golds)}}


def preferred(job: dict, few: int) -> dict:
    """DPO on the pairs of a reward model, the same number of times over."""
    score, pairs = scorer(job["reward"], job["seed"]), preferences(base(), min(few, int(job["reward"])), job["seed"])
    torch.manual_seed(job["seed"])
    lm, reference, order, looks = copy.deepcopy(base()), base(), [], []
    steps = max(1, job["iterations"] * len(pairs) // PAIRS)

    def batch():
        while len(order) < PAIRS:
            order.extend(torch.randperm(len(pairs)).tolist())
        return side_by_side([pairs[order.pop()] for _ in range(PAIRS)])

    def loss(lm, ids, said):
        with torch.no_grad():
            before = response_log_p(reference, ids, said)
        return dpo_loss(response_log_p(lm, ids, said), before, job["coefficient"])

    def watch():
        looks.append(measured(lm, score, min(few, 64)))
        return {}

    how = {"loss": loss, "weight_decay": 0.0, "label": None, "watch": watch, "watch_every": max(1, steps // 8)}
    fit(lm, batch, steps, job["rate"], **how)
    return measured(lm, score, few) | {"curve": {name: [each[name] for each in looks] for name in MEASURES}}
