"""Why the real model's sinks and copying heads are what they are: python sinks_sweep.py

Writes results/sinks.json, which the notebook shows; about 8 minutes on one core. These runs came after the rules of
`real_sweep` had been judged: they judge nothing, they look for causes and for controls that could show a conclusion
to be wrong. The same model, the same six texts, 128 tokens of each, and the same eight seeds.
"""

import sys

import torch
from real_sweep import (
    COPIERS,
    GIANT,
    GIANT_LAYER,
    JUDGES,
    JUDGING_SEEDS,
    LATER,
    LAYERS,
    MASKS,
    SATURATED,
    alone,
    edited,
    given_later,
    largest,
    leak,
    losses,
    losses_with,
    masked,
    model_and_tokenizer,
    rounded,
    seen,
    text_ids,
    twice,
    without_heads,
    without_write,
)

from shared.sweeps import Sweep, main
from shared.texts import FILES

TOKENS = 128
PLACES = (2, 5, 10, 20, 50, 100)
# Of the heads that are no copiers, the four whose absence costs the second copy most on seed 0, one head at a time.
NEEDED = ((1, 4), (16, 0), (1, 5), (1, 3))


def write_moved(token: int) -> dict:
    """What layer 11's feed-forward would write at token 0 it writes at another one, in place of its own."""

    def move(y):
        y[:, token], y[:, 0] = y[:, 0].clone(), 0

    return edited("feed_forward", [GIANT_LAYER], move)


def write_times(factor: float) -> dict:
    """What layer 11's feed-forward writes at token 0, times a number."""
    return edited("feed_forward", [GIANT_LAYER], lambda y: y[:, 0].mul_(factor))


def without_value(token: int) -> dict:
    """From layer 12 on a token has nothing to hand over: its values are zero."""
    return edited("v", LATER, lambda v: v[:, :, token].zero_())


CAUSES = {
    "whole": {},
    "no write at 0": without_write(GIANT_LAYER, 0),
    "write moved to 20": write_moved(20),
    "write times 1/10": write_times(1 / 10),
    "write times 1/30": write_times(1 / 30),
    "no write at 0, layer 0": without_write(0, 0),
    "value of 0 silent": without_value(0),
    "value of 20 silent": without_value(20),
    "1 alone until marked": masked(alone(1), LAYERS[: GIANT_LAYER + 1]),
    "no write at 1": without_write(GIANT_LAYER, 1),
}
HEADS = {"whole": {}, "without copiers": without_heads(COPIERS), "without needed": without_heads(NEEDED)}
LEAKS = {"causal": {}, "one layer": masked(MASKS["one ahead"], [15])}


def run(job: dict) -> dict:
    """One arm. job: part, arm, and on what: a text's name, a seed, or "vocabulary"."""
    return PARTS[job["part"]](job)


def _cause(job: dict) -> dict:
    """Loss of the tokens from 64 on; of what those give in layer 12 and later, mean over heads, the largest share of a
    single token, and which that is; giants after layer 11; saturated rows, all but the first, over all layers."""
    x = text_ids(job["on"], TOKENS)
    weights, blocks, (logits,) = seen(x, CAUSES[job["arm"]], "weights", "block", "logits")
    share, token = given_later(weights).max(dim=-1)
    shut = torch.stack([rows[0, :, 1:].amax(dim=-1) for rows in weights]) > SATURATED
    found = rounded(loss=losses(x, logits)[63:].mean(), largest=share, saturated=shut.float().mean())
    return found | {"token": token.item(), "giants": (largest(blocks) > GIANT).sum().item()}


def _company(job: dict) -> dict:
    """Of tokens at several places that see themselves and `arm` tokens before them, one place at a time, how many are
    giants after layer 11."""
    x = text_ids(job["on"], TOKENS)
    return {"giants": sum(_giants(x, masked(alone(place, job["arm"])))[0, place].item() for place in PLACES)}


def _giants(x: torch.Tensor, hooks: dict) -> torch.Tensor:
    """Which tokens are giants after layer 11: (B, T)."""
    return largest(*seen(x, hooks, "block", last=1)) > GIANT


def _vocabulary(job: dict) -> dict:
    """Each token of the vocabulary as a text of its own ("alone"), or each of 512 of them twelve times ("twelve
    times"): the share of giants, and the tokens of whose texts not all are."""
    tokens = torch.arange(model_and_tokenizer()[0].vocab_size)[:, None]  # (V, 1)
    if job["arm"] == "twelve times":
        tokens = tokens[torch.randperm(len(tokens), generator=torch.Generator().manual_seed(0))[:512]].repeat(1, 12)
    giants = torch.cat([_giants(part, {}) for part in tokens.split(512)])
    return {"share": round(giants.float().mean().item(), 5), "others": tokens[~giants.all(dim=1), 0].tolist()}


def _pairs(job: dict) -> dict:
    """24 random pairs of tokens, and the same pairs in another order: loss of each second token there, and what each
    copier gives, where the first stands again, to the token that followed it before."""
    _, tokenizer = model_and_tokenizer()
    generator = torch.Generator().manual_seed(job["on"])
    pairs = torch.randint(len(tokenizer.specials), tokenizer.vocab_size, (24, 2), generator=generator)
    order = torch.randperm(24, generator=generator)
    x, again = torch.cat([pairs, pairs[order]]).view(1, -1), 48 + 2 * torch.arange(24)  # where each first stands again
    weights, (logits,) = seen(x, HEADS[job["arm"]], "weights", "logits")
    given = [weights[layer][0, head, again, 2 * order + 1].mean() for layer, head in COPIERS]
    return rounded(loss=losses(x, logits)[again].mean(), **{f"given_{i}": each for i, each in enumerate(given)})


def _heads(job: dict) -> dict:
    """Loss of the second copy of 64 random tokens, for a seed, or of a text."""
    if job["on"] in JUDGES:
        return rounded(loss=losses_with(text_ids(job["on"], TOKENS), HEADS[job["arm"]]).mean())
    return rounded(loss=losses_with(twice(job["on"], 64), HEADS[job["arm"]])[64:].mean())


def _leak(job: dict) -> dict:
    return leak(text_ids(job["on"], TOKENS), range(16, TOKENS - 1, 8), LEAKS[job["arm"]])


PARTS = {"cause": _cause, "company": _company, "vocabulary": _vocabulary, "pairs": _pairs}
PARTS |= {"heads": _heads, "leak": _leak}
JOBS = [("cause", on, arm) for on in JUDGES for arm in CAUSES]
JOBS += [("company", on, n) for on in JUDGES for n in range(4)]
JOBS += [("vocabulary", "vocabulary", arm) for arm in ("alone", "twelve times")]
JOBS += [("pairs", seed, arm) for seed in JUDGING_SEEDS for arm in HEADS]
JOBS += [("heads", on, arm) for on in (*JUDGING_SEEDS, *JUDGES) for arm in HEADS]
JOBS += [("leak", on, arm) for on in JUDGES for arm in LEAKS]

SWEEP = Sweep(
    __file__,
    "sinks",
    run,
    jobs=[dict(zip(("part", "on", "arm"), job, strict=True)) for job in JOBS],
    quick=[
        {"part": "cause", "on": JUDGES[0], "arm": "write moved to 20"},
        {"part": "pairs", "on": 0, "arm": "whole"},
        {"part": "heads", "on": 0, "arm": "without needed"},
    ],
    comparable=lambda job: job["part"] != "vocabulary",
    tolerance={"loss": 0.01, "largest": 0.01, "saturated": 0.01, "measured": 0.01, "honest": 0.01}
    | {f"given_{i}": 0.01 for i in range(4)},
    files=FILES,
)

if __name__ == "__main__":
    sys.exit(main(SWEEP))
