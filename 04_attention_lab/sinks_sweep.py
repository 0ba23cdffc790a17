"""Why the real model's sinks and copying heads are what they are: python sinks_sweep.py

Writes results/sinks.json, which the notebook shows; about 8 minutes on one core. These runs came after the rules of
`real_sweep` had been judged: they judge nothing, they look for causes and for controls that could show a conclusion
to be wrong. The same model, the same six texts, 128 tokens of each, and the same eight seeds.
"""

import sys
from collections.abc import Callable

import torch
from real_sweep import (
    COPIERS,
    GIANT,
    GIANT_LAYER,
    JUDGES,
    JUDGING_SEEDS,
    MASKS,
    SATURATED,
    alone,
    losses,
    losses_after,
    masked,
    model_and_tokenizer,
    rounded,
    seeded,
    text_ids,
    twice,
    without_heads,
    without_write,
)

from shared.hooks import hooked
from shared.sweeps import Sweep, main
from shared.texts import FILES

TOKENS = 128
PLACES = (2, 5, 10, 20, 50, 100)
# Of the heads that are no copiers, the four whose absence costs the second copy most on seed 0, one head at a time.
NEEDED = ((1, 4), (16, 0), (1, 5), (1, 3))


def write_moved(token: int) -> dict:
    """What layer 11's feed-forward would write at token 0 it writes at another one, in place of its own."""

    def move(y, layer):
        if layer == GIANT_LAYER:
            y = y.clone()
            y[:, token], y[:, 0] = y[:, 0].clone(), 0
        return y

    return {"feed_forward": move}


def write_times(factor: float) -> dict:
    """What layer 11's feed-forward writes at token 0, times a number."""

    def scale(y, layer):
        if layer == GIANT_LAYER:
            y = y.clone()
            y[:, 0] *= factor
        return y

    return {"feed_forward": scale}


def without_value(token: int) -> dict:
    """From layer 12 on a token has nothing to hand over: its values are zero."""

    def silence(v, layer):
        if layer > GIANT_LAYER:
            v = v.clone()
            v[:, :, token] = 0
        return v

    return {"v": silence}


def until_marked(change: Callable[[torch.Tensor], torch.Tensor]) -> dict:
    """Another mask up to layer 11, the usual one behind it."""
    return {"mask": lambda mask, layer: change(mask.clone()) if layer <= GIANT_LAYER else None}


CAUSES = {
    "whole": {},
    "no write at 0": without_write(GIANT_LAYER, 0),
    "write moved to 20": write_moved(20),
    "write times 1/10": write_times(1 / 10),
    "write times 1/30": write_times(1 / 30),
    "no write at 0, layer 0": without_write(0, 0),
    "value of 0 silent": without_value(0),
    "value of 20 silent": without_value(20),
    "1 alone until marked": until_marked(alone(1)),
    "no write at 1": without_write(GIANT_LAYER, 1),
}
HEADS = {"whole": {}, "without copiers": without_heads(COPIERS), "without needed": without_heads(NEEDED)}
LEAKS = {"causal": {}, "one layer": {"mask": lambda mask, layer: MASKS["one ahead"](mask) if layer == 15 else None}}


def run(job: dict) -> dict:
    """One arm. job: part, arm, and on what: a text's name, a seed, or "vocabulary"."""
    return PARTS[job["part"]](job)


def _cause(job: dict) -> dict:
    """Loss of the tokens from 64 on; of what those give in layer 12 and later, mean over heads, the largest share of a
    single token, and which that is; giants after layer 11; saturated rows, all but the first, over all layers."""
    given, giants, shut = [], [], []

    def note(weights, layer):
        shut.append((weights[0, :, 1:].amax(dim=-1) > SATURATED).float().mean())
        if layer > GIANT_LAYER:
            given.append(weights[0, :, 64:].mean(dim=(0, 1)))

    def note_giants(x, layer):
        if layer == GIANT_LAYER:
            giants.append((x[0].abs().amax(dim=-1) > GIANT).sum())

    with hooked(model_and_tokenizer()[0], CAUSES[job["arm"]]):
        each = losses(text_ids(job["on"], TOKENS), {"weights": note, "block": note_giants})
    share, token = torch.stack(given).mean(dim=0).max(dim=-1)
    found = {"loss": each[63:].mean(), "largest": share, "saturated": torch.stack(shut).mean()}
    return rounded(**found) | {"token": token.item(), "giants": giants[0].item()}


def _company(job: dict) -> dict:
    """Of tokens at several places that see themselves and `arm` tokens before them, one place at a time, how many are
    giants after layer 11."""
    x = text_ids(job["on"], TOKENS)
    return {"giants": sum(_giants(x, masked(alone(place, job["arm"])))[0, place].item() for place in PLACES)}


@torch.no_grad()
def _giants(x: torch.Tensor, hooks: dict) -> torch.Tensor:
    """Which tokens are giants after layer 11: (B, T)."""
    model, found = model_and_tokenizer()[0], []

    def note(stream, layer):
        if layer == GIANT_LAYER:
            found.append(stream.abs().amax(dim=-1) > GIANT)

    with hooked(model, hooks), hooked(model, {"block": note}):
        model(x, last=1)
    return found[0]


def _vocabulary(job: dict) -> dict:
    """Each token of the vocabulary as a text of its own ("alone"), or each of 512 of them twelve times ("twelve
    times"): the share of giants, and the tokens of whose texts not all are."""
    tokens = torch.arange(model_and_tokenizer()[0].vocab_size)[:, None]  # (V, 1)
    if job["arm"] == "twelve times":
        tokens = tokens[torch.randperm(len(tokens), generator=seeded(0))[:512]].repeat(1, 12)
    giants = torch.cat([_giants(part, {}) for part in tokens.split(512)])
    return {"share": round(giants.float().mean().item(), 5), "others": tokens[~giants.all(dim=1), 0].tolist()}


def _pairs(job: dict) -> dict:
    """24 random pairs of tokens, and the same pairs in another order: loss of each second token there, and what each
    copier gives, where the first stands again, to the token that followed it before."""
    _, tokenizer = model_and_tokenizer()
    generator = seeded(job["on"])
    pairs = torch.randint(len(tokenizer.specials), tokenizer.vocab_size, (24, 2), generator=generator)
    order = torch.randperm(24, generator=generator)
    x, again = torch.cat([pairs, pairs[order]]).view(1, -1), 48 + 2 * torch.arange(24)  # where each first stands again
    given = {}

    def note(weights, layer):
        for head in [head for at, head in COPIERS if at == layer]:
            given[layer, head] = weights[0, head, again, 2 * order + 1].mean()

    with hooked(model_and_tokenizer()[0], HEADS[job["arm"]]):
        each = losses(x, {"weights": note})
    return rounded(loss=each[again].mean(), **{f"given_{i}": given[head] for i, head in enumerate(COPIERS)})


def _heads(job: dict) -> dict:
    """Loss of the second copy of 64 random tokens, for a seed, or of a text."""
    if job["on"] in JUDGES:
        return rounded(loss=losses(text_ids(job["on"], TOKENS), HEADS[job["arm"]]).mean())
    return rounded(loss=losses(twice(job["on"], 64), HEADS[job["arm"]])[64:].mean())


def _leak(job: dict) -> dict:
    """Measured and honest loss, as in `real_sweep`, at every eighth token from 16 on."""
    x, places = text_ids(job["on"], TOKENS), range(16, TOKENS - 1, 8)
    honest = [losses_after(x[:, : place + 1], x[0, place + 1], LEAKS[job["arm"]]) for place in places]
    measured = losses(x, LEAKS[job["arm"]])[list(places)]
    return rounded(measured=measured.mean(), honest=torch.tensor(honest).mean())


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
