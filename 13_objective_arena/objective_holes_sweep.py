"""Is it the holes in the text, or the two sides? python objective_holes_sweep.py --workers 2

Writes results/objective_holes.json, which the notebook shows; a quarter of an hour on one core. A control between
causal and masks of 15 %: the words that are asked are hidden, as for masks, but each position sees the left side alone,
holes among it, and the position before a hidden word tells it. The floor of this is not known; it is no less than that
of the left side without holes, on the same words. So `excess`, the loss above that, is an upper bound of the control's
own. Seed 0 chooses the rate; the others judge. Training, texts and body are `objective_training`'s.
"""

import functools
import sys
from collections.abc import Callable

import floor_sweep
from objective_arms import ARMS, LOW, VOCABULARY, Arm
from objective_own_floors import Question, hidden_in, left_nats, parts
from objective_rate_sweep import SEED, best_of
from objective_training import JUDGES, SIZES, STEPS, Texts, excess, train
from objective_world import held_out
from objectives import Batch, hide, sees_left

from shared.sweeps import Sweep, main

RATES = {STEPS[0]: [3e-3, 1e-2, 3e-2], STEPS[1]: [1e-3, 3e-3, 1e-2, 3e-2]}


def from_left(batch: Batch) -> Batch:
    """The same batch, seen from the left alone."""
    return batch._replace(seen=batch.seen & sees_left(batch.inputs.shape[1]))


PLAIN = ARMS["masked 15 %, shifted"]
ARM: Arm = PLAIN._replace(draw=lambda x, g: from_left(PLAIN.draw(x, g)))


@functools.cache
def question(n: int) -> Question:
    """What masks of 15 % are asked of the first n held-out texts, and the floor of the left side without holes."""
    tokens = held_out(n)
    hidden = hidden_in(f"masked {LOW}", tokens)
    floor = left_nats(tokens)[hidden].sum() / hidden.sum()
    return Question(parts(lambda x, gone: from_left(hide(x, gone, VOCABULARY)), tokens, hidden), floor.item())


def run(job: dict) -> dict:
    """job: see `control`."""
    return control(ARM, question, job)


def control(arm: Arm, asked: Callable[[int], Question], job: dict) -> dict:
    """Train an arm, and ask its question of held-out texts. asked: the question, by how many texts. job: rate, steps,
    seed; `texts`: at most so many."""
    own, look = (asked(min(SIZES[name], job.get("texts", SIZES[name]))) for name in ("own", "look"))
    model = arm.new_model(job["seed"])
    seen = train(model, job, Texts(arm, job["seed"]), look)
    return {"excess": None} if seen is None else {"excess": excess(model, own)} | seen


def judged(rows: list[dict], steps: int) -> list[float]:
    """The excess of the seeds that judge, at the rate that is best by the other."""
    rows = [row for row in rows if row["steps"] == steps]
    best = best_of(row for row in rows if row["seed"] == SEED)
    if best.at_edge:
        raise ValueError(f"{steps} steps: the best rate, {best.rate}, is at the edge of what was tried: try more")
    return [row["excess"] for row in rows if row["rate"] == best.rate and row["seed"] in JUDGES]


SWEEP = Sweep(
    __file__,
    "objective_holes",
    run,
    jobs=[
        {"rate": rate, "steps": steps, "seed": seed}
        for steps, rates in RATES.items()
        for seed in (SEED, *JUDGES)
        for rate in rates
    ],
    quick=[{"rate": 1e-2, "steps": 2, "seed": 0, "texts": 1}],
    cost=lambda job: job["steps"],
    comparable=lambda job: job["steps"] <= STEPS[0] and job["rate"] <= 1e-2,
    tolerance={"excess": 0.03, "excess_by_step": 0.2},
    files=[floor_sweep.SWEEP.results],
)

if __name__ == "__main__":
    sys.exit(main(SWEEP))
