"""How far can a causal model fill a gap? python real_infill_sweep.py

Writes results/real_infill.json, which the notebook shows; about half an hour on one core. Nothing is trained. Six
tokens of each of eight texts of `shared.texts`, drawn at random, are hidden from SmolLM2-135M-Instruct (4-bit
weights), which reads 64 tokens before each and 16 behind it (`real_infill`). Candidates are the 50 tokens that are
likeliest by the left alone, and the true one.

    bayes       candidates by the left, and by Bayes' rule with 1 to 16 tokens behind the gap; controls: the tokens
                behind another position of the text, and the right ones in random order
    mask        the causal mask is lifted, so that the position before the gap, or every one, sees what follows; in the
                gap stands the answer itself, the end of a text, a random token, the model's own first guess, or nothing
                that anybody sees (a hole)
    prompt      the right side is told first, plainly or as a request, then the left

For each arm and each gap `nats` is of the true token among the candidates, `rank` its rank there, `hit` whether the
best of the first 50 is the true one. "mask" and "prompt" have `open`, nats among all tokens, as well, and "mask" what
is told: `next`, the token behind the gap, or `filler`, that which stands in it. `covered`: the true token is among the
50. The rules (`infill_rules`) were made by texts of `TRIED`, which do not judge.
"""

import random
import sys

import torch
from real_infill import (
    AHEAD,
    JUDGES,
    LEFT,
    SCOPES,
    TRIED,
    Gap,
    candidates,
    fillers,
    gaps,
    judged,
    model_and_tokenizer,
    posterior,
    prompts,
    scores,
    sight,
    without_mask,
)

from shared.sweeps import Sweep, main
from shared.texts import FILES

GAPS = 6
CANDIDATES = 50
CONTROL = 8  # tokens read of a control


def bayes(gap: Gap, set_: torch.Tensor, own: int, _) -> dict:
    """Each kind of right side, read 0 to 16 tokens far."""
    sides = {"right": gap.right, "other": gap.other[:CONTROL], "shuffled": gap.shuffled[:CONTROL]}
    left, rights = scores(model_and_tokenizer()[0], gap.left, set_, *sides.values())
    found = {"left": judged(left.log_softmax(dim=0), set_, gap.token, own)}
    for kind, right in zip(sides, rights, strict=True):
        ahead = [n for n in AHEAD if n <= right.shape[1]]
        found |= {f"{kind} {n}": judged(posterior(left, right[:, :n]), set_, gap.token, own) for n in ahead}
    return {arm: dict(zip(("nats", "rank", "hit"), it, strict=True)) for arm, it in found.items()}


def lifted(gap: Gap, set_: torch.Tensor, own: int, drawn: int) -> dict:
    """Without the mask, by what stands in the gap and by who sees all; and with the right side of another position."""
    model, first, at = model_and_tokenizer()[0], set_[0].item(), len(gap.left)
    arms = {"causal": (gap.token, gap.right, sight(at, "nobody", False))}
    for scope in SCOPES:
        for name, filler in fillers(gap, first, drawn).items():
            arms[f"{scope}, {name}"] = filler, gap.right, sight(at, scope, False)
        arms[f"{scope}, hole"] = gap.token, gap.right, sight(at, scope, True)
        arms[f"{scope}, hole, other"] = gap.token, gap.other, sight(at, scope, True)
    given = [(torch.cat([gap.left, torch.tensor([it]), right]), seen) for it, right, seen in arms.values()]
    log_p = without_mask(model, given)
    found = {}
    for (arm, (filler, right, _)), each in zip(arms.items(), log_p, strict=True):
        told = each.argmax().item()
        found[arm] = _open(each, set_, gap, own) | {"next": told == right[0].item(), "filler": told == filler}
    return found


@torch.no_grad()
def prompted(gap: Gap, set_: torch.Tensor, own: int, _) -> dict:
    """By what is read before the left side."""
    model, found = model_and_tokenizer()[0], {}
    for arm, before in prompts(gap).items():
        log_p = model(torch.cat([before, gap.left])[None], last=1)[0, 0].log_softmax(dim=-1)
        found[arm] = _open(log_p, set_, gap, own)
    return found


def _open(log_p: torch.Tensor, set_: torch.Tensor, gap: Gap, own: int) -> dict:
    nats, rank, hit = judged(log_p[set_].log_softmax(dim=0), set_, gap.token, own)
    return {"nats": nats, "rank": rank, "hit": hit, "open": -log_p[gap.token].item()}


PARTS = {"bayes": bayes, "mask": lifted, "prompt": prompted}


def run(job: dict) -> dict:
    """job: part, text, candidates, tokens before a gap. `found`: by arm and measure, a number for each gap."""
    model, tokenizer = model_and_tokenizer()
    own, drawn = job["candidates"], random.Random(job["text"])
    each, covered = [], []
    for gap in gaps(job["text"], job.get("gaps", GAPS), job["before"]):
        set_ = candidates(model, gap, own)
        each.append(PARTS[job["part"]](gap, set_, own, drawn.randrange(tokenizer.vocab_size)))
        covered.append(int(len(set_) == own))
    arms = each[0]
    found = {arm: {name: [_stored(it[arm][name]) for it in each] for name in arms[arm]} for arm in arms}
    return {"covered": covered, "found": found}


def _stored(value: float | int) -> float | int:
    return round(value, 4) if isinstance(value, float) else int(value)


SWEEP = Sweep(
    __file__,
    "real_infill",
    run,
    jobs=[{"part": part, "text": text, "candidates": CANDIDATES, "before": LEFT} for text in JUDGES for part in PARTS],
    quick=[{"part": part, "text": TRIED[0], "candidates": 4, "before": 8, "gaps": 1} for part in PARTS],
    cost=lambda job: {"bayes": 1.2, "mask": 1.0, "prompt": 0.5}[job["part"]],
    comparable=lambda job: job["part"] == "prompt",
    tolerance={"found": 1.0},
    settings={"judges": JUDGES},
    files=FILES,
)

if __name__ == "__main__":
    sys.exit(main(SWEEP))
