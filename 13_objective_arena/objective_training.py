"""What the sweeps of training share: one run of an arm, and what is told of it.

    run({"task": "train", "arm": "masked 15 %", "body": "48 wide", "rate": 0.01, "steps": 400, "seed": 10})

`objective_rate_sweep` tries rates by seed 0; `objective_sweep` trains each arm at its best one by the seeds that judge,
so that what is said of an arm is not said by the seed that chose its rate. The arms are those of `objective_arms`: one
body, the same for all arms of a seed, and the same stories in the same order.

A row has, of an arm's own question on held-out stories (`objective_own_floors`): `loss`, its exact `floor`, and
`excess`, the loss above it, in nats per target, of 256 stories; and curves of 64 stories, a number for each look:
steps `done`, tokens `read` and targets `asked` by then, `excess_by_step`. An arm's own question is plain masks for
80/10/10 too, since the floor is known for them, and all positions where 15 % were asked. A curve is of one run whose
rate falls at its end only: at equal targets an arm is compared by a run of its own length (60 steps of causal ask for
as much as 400 of masks of 15 %).

A row of a seed that judges has the common jobs besides (`objective_jobs`, `objective_stories`): `one_word`, `middle`,
`probe`, `written`. The row of task "world" says what the world's own law gives, and how often a map of nothing is
right.

Training is `shared.training.fit`: AdamW with betas 0.9 and 0.95, weight decay 0.1 on matrices, gradients clipped at 1,
a tenth of the steps to warm up and a cosine down to a tenth. A step has eight stories.
"""

import functools
from collections.abc import Iterable

import torch
from objective_arms import ARMS, BODIES, VOCABULARY, Arm
from objective_jobs import most_frequent, one_word, one_word_floor, probe
from objective_own_floors import Question, own_question
from objective_stories import middle, written
from objective_world import batches
from objectives import Batch, held_out_loss, training_loss
from torch import nn

from shared.training import fit

ROWS, LOOKS = 8, 10  # stories in a step; looks at a run
STEPS, FAR = [400, 1600], 6400  # FAR is tried by the seed that tries rates alone
EQUAL, FAR_EQUAL = [60, 240], 960  # causal steps with as many targets as masks of 15 % have in STEPS, and in FAR
JUDGES = [10, 11, 12]
SIZES = {"own": 256, "look": 64, "one_word": 96, "middle": 48, "probe": 96, "written": 16}  # held-out texts


class Texts:
    """What an arm is trained on: the batches of a seed, and how much of them was read and asked.

    texts(): the next batch. read, asked: tokens that are no padding, and targets, so far.
    """

    def __init__(self, arm: Arm, seed: int):
        self.arm, self.stream = arm, batches(seed, ROWS)
        self.generator = torch.Generator().manual_seed(seed)
        self.read, self.asked = 0, 0

    def __call__(self) -> Batch:
        tokens = next(self.stream)
        batch = self.arm.draw(tokens[:, : int((tokens != VOCABULARY.padding).sum(dim=1).max())], self.generator)
        self.read += int((batch.inputs != VOCABULARY.padding).sum())
        self.asked += int((batch.weights > 0).sum())
        return batch


@functools.cache
def question(name: str, n: int) -> Question:
    """An arm's own question, made once in a process."""
    return own_question(name, n)


def excess(model: nn.Module, asked: Question) -> float:
    """Nats per target above the floor."""
    return round(held_out_loss(model, asked.batches) - asked.floor, 5)


def run(job: dict) -> dict:
    """Train one arm, and judge it if its seed judges. job: task, arm, body, rate, steps and seed; `texts`: at most so
    many held-out ones. Task "world": what its law gives."""
    most = {name: min(n, job.get("texts", n)) for name, n in SIZES.items()}
    if job["task"] == "world":
        return {"one_word": one_word_floor(most["one_word"]), "probe": most_frequent(most["probe"])}
    arm = ARMS[job["arm"]]
    model, own = arm.new_model(job["seed"], job["body"]), question(arm.own, most["own"])
    seen = train(model, job, Texts(arm, job["seed"]), question(arm.own, most["look"]))
    if seen is None:
        return {"excess": None}
    above = excess(model, own)
    found = {"loss": round(above + own.floor, 5), "floor": round(own.floor, 5), "excess": above} | seen
    return found | common(model, arm, most) if job["seed"] in JUDGES else found


def train(model: nn.Module, job: dict, texts: Texts, asked: Question) -> dict[str, list] | None:
    """Train in place. What was seen by the way, a number for each look; None if it diverged."""

    def look():
        return {"read": texts.read, "asked": texts.asked, "excess_by_step": excess(model, asked)}

    how = {"loss": training_loss, "watch": look, "watch_every": max(1, job["steps"] // LOOKS), "label": None}
    history = fit(model, texts, job["steps"], job["rate"], **how)
    if history.stopped:
        return None
    found = {name: [it[name] for it in history.watched] for name in ("read", "asked", "excess_by_step")}
    return found | {"done": [it["step"] + 1 for it in history.watched]}


def common(model: nn.Module, arm: Arm, texts: dict[str, int]) -> dict:
    """The jobs that all arms have in common, of so many texts each."""
    return {
        "one_word": one_word(model, arm, texts["one_word"]),
        "middle": middle(model, arm, texts["middle"]),
        "probe": probe(model, arm, texts["probe"]),
        "written": written(model, arm, texts["written"]),
    }


def runs(arms: Iterable[str], body: str, steps: int, rates: Iterable[float], seeds: Iterable[int]) -> list[dict]:
    """Each arm at each rate by each seed."""
    return [
        {"task": "train", "arm": arm, "body": body, "rate": rate, "steps": steps, "seed": seed}
        for arm in arms
        for rate in rates
        for seed in seeds
    ]


FEW = ["causal", "causal, 15 % asked", "masked 15 %", "masked 40 %"]
LONG = [*FEW, "masked 15 %, shifted", "diffusion", "middle"]
SMALL, LARGE = BODIES
SETTINGS = [  # arms, body, steps
    (FEW, LARGE, STEPS[1]),
    (LONG, SMALL, STEPS[1]),
    (list(ARMS), SMALL, STEPS[0]),
    *((["causal"], SMALL, steps) for steps in EQUAL),
    (["causal"], LARGE, EQUAL[1]),
]


def cost(job: dict) -> float:
    """A job's share of the time, in steps of the small body."""
    steps = job.get("steps", 100) + 400 * (job.get("seed") in JUDGES)
    return steps * (2.5 if job.get("body") == LARGE else 1)


def quick(seed: int) -> list[dict]:
    """Jobs of seconds: three arms, two steps, one text."""
    return [job | {"texts": 1} for job in runs(["causal", "masked 15 %", "middle"], SMALL, 2, [1e-2], [seed])]
