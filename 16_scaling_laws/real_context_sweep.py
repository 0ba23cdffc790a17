"""How does loss fall with the amount of context? python real_context_sweep.py

Writes results/real_context.json, which the notebook shows; five minutes on one core. Nothing is trained.
SmolLM2-135M-Instruct (4-bit weights) predicts 128 tokens of each of eight texts of `shared.texts`, and of two long ones
(`real_context`).

    amount      the same tokens after their last 1, 2, 4, ..., 512 tokens (2,048 in the long texts), with the token that
                stands between texts as the first, and after 1, 8 and 512 without it
    position    one pass over the text: the tokens at positions n to 2n - 1 (of 512 on, 128), other ones for each amount
    prefix      every second of the tokens after its last eight alone, and with 504 more before them: the text's own,
                the same shuffled, or those of the text that judges next

`contexts`: how many tokens were read, the geometric mean, not counting the first; `nats`: the mean over tokens; an
amount each. The rules (`context_rules`) were made by texts of `TRIED`, which do not judge.
"""

import sys

import real_context
import torch
from real_context import AMOUNTS, BARE, JUDGES, LATER, LONG, LONGER, PREFIXED, SINK, START, TARGETS, TRIED, ids_of

from shared.sweeps import Sweep, main
from shared.texts import FILES


def amount(job: dict) -> dict:
    model, tokenizer = real_context.model_and_tokenizer()
    before = tokenizer.specials[job["before"]] if job["before"] else None
    where = ids_of(job["text"]), job["start"]
    each = [real_context.by_amount(model, *where, it, before, job.get("targets", TARGETS)) for it in job["amounts"]]
    return {
        "contexts": [contexts.double().log().mean().exp().item() for contexts, _ in each],
        "nats": [nats.mean().item() for _, nats in each],
    }


def position(job: dict) -> dict:
    ids = ids_of(job["text"])[: job["start"] + TARGETS]
    nats = real_context.by_position(real_context.model_and_tokenizer()[0], ids).double()
    read = torch.arange(1, len(ids)).double().log()
    parts = [slice(it - 1, 2 * it - 1) for it in job["amounts"]]
    return {
        "contexts": [read[it].mean().exp().item() for it in parts],
        "nats": [nats[it].mean().item() for it in parts],
    }


def prefix(job: dict) -> dict:
    model, ids, start = real_context.model_and_tokenizer()[0], ids_of(job["text"]), job["start"]
    names = (*JUDGES, *JUDGES[:1])
    other = ids_of(names[names.index(job["text"]) + 1] if job["text"] in JUDGES else TRIED[1])
    targets = job.get("targets", TARGETS)
    arms = {"near": None} | real_context.prefixes(ids, start, job["amounts"][0], other)
    return {arm: real_context.after(model, ids, start, it, targets).mean().item() for arm, it in arms.items()}


PARTS = {"amount": amount, "position": position, "prefix": prefix}


def run(job: dict) -> dict:
    """job: part, text, where its tokens start, amounts of context, the token before them (or "")."""
    found = PARTS[job["part"]](job)
    return {"found": {name: _stored(value) for name, value in found.items()}}


def _stored(value: float | list[float]) -> float | list[float]:
    return [_stored(it) for it in value] if isinstance(value, list) else round(value, 4)


def _job(part: str, text: str, start: int, amounts: tuple[int, ...], before: str = "") -> dict:
    return {"part": part, "text": text, "start": start, "amounts": list(amounts), "before": before}


OURS = [
    job
    for text in JUDGES
    for job in (
        _job("amount", text, START, AMOUNTS, SINK),
        _job("amount", text, START, BARE),
        _job("position", text, START, AMOUNTS),
        _job("prefix", text, START, (PREFIXED,)),
    )
]
SWEEP = Sweep(
    __file__,
    "real_context",
    run,
    jobs=OURS + [_job("amount", text, LATER, LONGER, SINK) for text in LONG],
    quick=[
        _job("amount", TRIED[0], 64, (1, 16), SINK) | {"targets": 16},
        _job("position", TRIED[0], 64, (1, 2, 64)),
        _job("prefix", TRIED[0], 64, (16,)) | {"targets": 16},
    ],
    cost=lambda job: {"amount": 14.0, "position": 2.0, "prefix": 20.0}[job["part"]] + 10.0 * (job["text"] in LONG),
    tolerance={"found": 0.01},
    settings={"judges": JUDGES, "long": LONG},
    files=FILES,
)

if __name__ == "__main__":
    sys.exit(main(SWEEP))
