"""What the sweeps of tuning share: one run of an arm, and what is measured of it.

    run({"task": "tune", "arm": "answers", "rate": 0.001, "steps": 400, "seed": 10})

`instruct_rate_sweep` tries rates by seed 0; `instruct_sweep` tunes each arm at its best one by the seeds that judge.

A row has `own_loss`, nats per target on held-out conversations of the arm's own kind, by which its rate is chosen;
`story_nats`, nats per token on documents of the base's own kind; and for each set of requests (`instruct_measure.SETS`)
shares by kind: "trained obeyed", "trained form" and so on, "trained knows". A row of a seed that judges has besides:
`done` and `curve`, the share of trained requests that is obeyed on the way; `shifts`; `texts`, a response for each
kind; and, for the arm "answers", `wrong`: the same for templates with one part wrong.

Training is `shared.training.fit`: AdamW with betas 0.9 and 0.95, no weight decay, gradients clipped at 1, a tenth of
the steps to warm up and a cosine down to a tenth. A step has 16 conversations, each of another story.
"""

import math
from collections.abc import Iterable
from functools import partial

import torch
from instruct import Batch, answer_loss, read, tuning_loss
from instruct_arms import ARMS, Arm, batches
from instruct_measure import (
    MEASURES,
    SETS,
    Prompt,
    asked,
    base_model,
    in_template,
    knows,
    obedience,
    plain,
    responses,
    shifts,
    shots,
    story_loss,
    without,
)
from torch import nn

from shared.training import fit
from shared.world import HELD_OUT
from shared.world.words import decode

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
JUDGES = [10, 11, 12]
STEPS = [400, 1600]
EACH = {"requests": 24, "rows": 64, "own": 16, "look": 4, "wrong": 8, "texts": 1}  # how much is measured
LOOKS = 8
WRONG: dict[str, Prompt] = {"plain": plain} | {
    part: partial(without, part) for part in ("begin", "user", "assistant", "exchanged")
}
BASE_PROMPTS: dict[str, Prompt] = {"plain": plain, "template": in_template}
BASE_PROMPTS |= {f"{n} shots": partial(shots, n, False) for n in (1, 2, 4)}
BASE_PROMPTS |= {f"{n} shots of its kind": partial(shots, n, True) for n in (1, 2, 4)}


def run(job: dict) -> dict:
    """Measure the base (task "base": prompt), or tune an arm (task "tune": arm, rate, steps, seed) and measure it.
    few: at most so much of everything."""
    size = {name: min(n, job.get("few", n)) for name, n in EACH.items()}
    if job["task"] == "base":
        model, prompt = base_model().to(DEVICE), BASE_PROMPTS[job["prompt"]]
        return measured(model, prompt, size) | {"texts": transcripts(model, prompt, size)}
    arm, judges = ARMS[job["arm"]], job["seed"] in JUDGES
    model = arm.new_model(job["seed"]).to(DEVICE)
    seen = tune(model, arm, job, size["look"] if judges else 0)
    if seen is None:
        return {"own_loss": None}
    found = {"own_loss": own_loss(model, arm, size["own"])} | measured(model, arm.prompt, size)
    return found | seen | judged(model, job["arm"], size) if judges else found


def tune(model: nn.Module, arm: Arm, job: dict, look: int) -> dict | None:
    """Train in place. How many steps were `done` and how much was obeyed at each look; None if it diverged."""
    stream = batches(arm, job["seed"])

    def obeyed() -> dict:
        model.eval()
        found = obedience(model, "trained", look, arm.prompt)["obeyed"] if look else []
        model.train()
        return {"obeyed": found}

    how = {"loss": tuning_loss, "weight_decay": 0.0, "label": None}
    how |= {"watch": obeyed, "watch_every": max(1, job["steps"] // LOOKS)} if look else {}
    history = fit(model, lambda: next(stream), job["steps"], job["rate"], **how)
    model.eval()
    if history.stopped:
        return None
    done = [it["step"] + 1 for it in history.watched]
    return {"done": done, "curve": [it["obeyed"] for it in history.watched]}


@torch.no_grad()
def own_loss(model: nn.Module, arm: Arm, n: int) -> float:
    """Nats per target on n held-out batches of the arm's own conversations."""
    stream, total, count = batches(arm, HELD_OUT + 77), 0.0, 0
    device = next(model.parameters()).device
    for _ in range(n):
        batch = Batch(*(tensor.to(device) for tensor in next(stream)))
        total += float(answer_loss(read(model, batch), batch.targets, 1))
        count += int((batch.targets >= 0).sum())
    return round(total / count, 5)


def measured(model: nn.Module, prompt: Prompt, size: dict[str, int]) -> dict:
    """What it obeys, knows and has kept."""
    found = {"story_nats": round(story_loss(model, size["rows"]), 5)}
    for of in SETS:
        shares = obedience(model, of, size["requests"], prompt)
        if of != "pair":
            shares["knows"] = knows(model, of, size["requests"], prompt)
        found |= {f"{of} {measure}": share for measure, share in shares.items()}
    return found


def judged(model: nn.Module, arm: str, size: dict[str, int]) -> dict:
    """What is measured of the seeds that judge alone."""
    found = {"shifts": shifts(model, base_model().to(DEVICE), "trained", size["look"])}
    found["texts"] = transcripts(model, ARMS[arm].prompt, size)
    if arm == "answers":
        wrong = {name: obedience(model, "trained", size["wrong"], prompt) for name, prompt in WRONG.items()}
        found["wrong"] = wrong | {"right": obedience(model, "trained", size["wrong"], in_template)}
    return found


def transcripts(model: nn.Module, prompt: Prompt, size: dict[str, int]) -> list[list[str]]:
    """The request, the right answer and the response, for the first of each kind of each set."""
    given = [request for of in SETS for request in asked(of, size["texts"])]
    found = responses(model, given, prompt)
    return [[it.text, it.answer, decode(ids)] for it, ids in zip(given, found, strict=True)]


def runs(arms: Iterable[str], rates: Iterable[float], steps: int, seeds: Iterable[int]) -> list[dict]:
    """Each arm at each rate by each seed."""
    return [
        {"task": "tune", "arm": arm, "rate": rate, "steps": steps, "seed": seed}
        for arm in arms
        for rate in rates
        for seed in seeds
    ]


FORM = "shuffled within a kind"
LONG = [
    "answers",
    "prompts too",
    "answers, replay",
    "responses alone",
    FORM,
    "from scratch",
    "LoRA 16",
    "LoRA 16 and rows",
]
SETTINGS = [(LONG, STEPS[1]), (list(ARMS), STEPS[0])]  # arms, steps


def rates(arm: str, steps: int) -> list[float]:
    """What is tried: so wide that no arm is best at an edge."""
    if ARMS[arm].rank is not None:
        return [1e-3, 3e-3, 1e-2, 3e-2]
    low = [1e-4] if arm == "one kind" or (steps == STEPS[1] and arm in ("responses alone", FORM)) else []
    return [*low, 3e-4, 1e-3, 3e-3, *([1e-2] if steps == STEPS[0] or arm == "prompts too" else [])]


def cost(job: dict) -> float:
    """A job's share of the time, in steps."""
    return job.get("steps", 0) + (150 if job.get("seed") in JUDGES else 60)


def comparable(job: dict) -> bool:
    """Runs that another machine, or no GPU, brings to much the same end."""
    return job.get("steps", 0) <= STEPS[0] and job.get("rate", 0) <= 3e-3


# By how much the same run differs on a CPU and a GPU: rounding sends a training another way, to an end as good. A share
# is of 24 requests (8, or 4, on the way), and texts are those of other weights.
TOLERANCE = {"own_loss": 0.03, "story_nats": 0.05, "texts": math.inf, "shifts": math.inf, "curve": 1.0, "wrong": 1.0}
TOLERANCE |= {f"{of} {measure}": 0.35 for of in SETS for measure in (*MEASURES, "knows")}


def quick(seed: int) -> list[dict]:
    """Jobs of seconds."""
    some = ("answers", "shuffled among all", "answers, replay", "LoRA 16 and rows", "no template", "64 requests")
    return [job | {"few": 2} for job in runs(some, [1e-3], 2, [seed])]
