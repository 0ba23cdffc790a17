"""What is learned of colours? python instruct_colour_sweep.py --workers 2

Writes results/instruct_colour.json; about four minutes on one core. The base is tuned to tell colours alone (300
steps, rate 0.001, as in `instruct_training`), and is asked for those of held-out stories. Each story has two things.
Training asks for the colours of two thirds of all things, so that either, both or none of a story's two was ever asked
for. A row has for each of these `groups`, "asked, other": how many responses give the colour of the thing that is asked
for, of the other one, or something else.
"""

import sys
from dataclasses import replace
from itertools import islice, pairwise

import torch
from instruct_arms import ARMS
from instruct_measure import in_template, responses
from instruct_training import DEVICE, JUDGES, tune
from instruct_world import Request, is_held_out, requests

from shared.sweeps import Sweep, main
from shared.world import HELD_OUT
from shared.world.words import KIND, decode, split

N = 160  # requests that judge


def other_thing(request: Request) -> tuple[str, str]:
    """The story's other thing, and its colour, as the story introduces both: "A blue horn was in ..."."""
    words = split(request.story)
    named = {thing: colour for colour, thing in pairwise(words) if KIND.get(colour) == "colour"}
    return next((thing, colour) for thing, colour in named.items() if thing != request.argument)


def run(job: dict) -> dict:
    """Tune, and sort the responses. few: at most so many requests."""
    arm = replace(ARMS["answers"], kinds=("colour",))
    model = arm.new_model(job["seed"]).to(DEVICE)
    if tune(model, arm, job, 0) is None:
        return {"groups": None}
    given = list(islice(requests(HELD_OUT + 555, ("colour",), None), job.get("few", N)))
    with torch.no_grad():
        said = [decode(ids).rstrip("\n. ") for ids in responses(model, given, in_template)]
    groups = {f"{a}, {b}": [0, 0, 0] for a in ("trained", "never") for b in ("trained", "never")}
    for request, colour in zip(given, said, strict=True):
        thing, its = other_thing(request)
        names = ["never" if is_held_out("colour", each) else "trained" for each in (request.argument, thing)]
        right = request.answer.rstrip(".")
        groups[", ".join(names)][0 if colour == right else 1 if colour == its else 2] += 1
    return {"groups": groups}


SWEEP = Sweep(
    __file__,
    "instruct_colour",
    run,
    jobs=[{"rate": 1e-3, "steps": 300, "seed": seed} for seed in JUDGES],
    quick=[{"rate": 1e-3, "steps": 2, "seed": JUDGES[0], "few": 6}],
    tolerance={"groups": 20},
    device=DEVICE,
)

if __name__ == "__main__":
    sys.exit(main(SWEEP))
