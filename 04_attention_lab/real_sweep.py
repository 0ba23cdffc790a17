"""What attention does in a real model, text by text: python real_sweep.py

Writes results/real.json, which the notebook shows; about 25 minutes on one core. SmolLM2-135M-Instruct (4-bit weights)
reads sixteen texts, 128 and 512 tokens of each, and random tokens that come twice. Nothing is trained.

The rules were written after a look at the texts `LOOKED_AT` and at seeds below 100. The other texts were written after
the rules, and they and the seeds from 100 on judge.
"""

import functools
import sys
from collections.abc import Callable

import torch
from torch.nn import functional as F

from shared.hooks import hooked
from shared.smollm2 import load_smollm2
from shared.sweeps import Sweep, main
from shared.texts import FILES, OWN, texts

LOOKED_AT, JUDGES = (*OWN[:8], "docs", "code"), OWN[8:]
LENGTHS = (128, 512)
SATURATED = 0.9  # a row is saturated if one key has more than this share of it
FACTORS = (1 / 8, 1 / 4, 1 / 2, 0.8, 8 / 9, 1, 8 / 7.6, 1.25, 2, 4, 8)  # times the model's own 1/8; 8 leaves none
GIANT_LAYER = 11  # whose feed-forward writes the largest number
GIANT = 2000  # a token with a larger number in the stream after that layer; other tokens have about 100
COPIERS = ((18, 6), (17, 3), (17, 4), (18, 7))  # (layer, head): the four that `copying_scores` of seed 0 ranks first
NEXT = ((23, 2), (23, 7), (17, 5), (20, 6))  # the four behind them
LEAST = ((17, 8), (17, 6), (18, 8), (18, 5))  # in the copiers' layers, as many as there, the lowest by that score
COPY_SEEDS, COPY_LENGTHS = (0, 1, 2, *range(100, 108)), (16, 64, 256)
JUDGING_SEEDS = COPY_SEEDS[3:]


@functools.cache
def model_and_tokenizer():
    """The real model, read once in a process."""
    return load_smollm2()


@functools.cache
def text_ids(name: str, tokens: int) -> torch.Tensor:
    """The beginning of a text: (1, tokens)."""
    ids = model_and_tokenizer()[1].encode(texts()[name])[:tokens]
    return torch.tensor([ids])


def twice(seed: int, tokens: int) -> torch.Tensor:
    """Random tokens, none of them special, and the same again: (1, 2 tokens)."""
    _, tokenizer = model_and_tokenizer()
    first = torch.randint(len(tokenizer.specials), tokenizer.vocab_size, (1, tokens), generator=seeded(seed))
    return torch.cat([first, first], dim=1)


def seeded(seed: int) -> torch.Generator:
    """A generator begun with a seed."""
    return torch.Generator().manual_seed(seed)


@torch.no_grad()
def losses(x: torch.Tensor, hooks: dict | None = None) -> torch.Tensor:
    """Nats of each token but the first, (tokens - 1,), of one text, with hooks in the model."""
    model, _ = model_and_tokenizer()
    with hooked(model, hooks or {}):
        logits = model(x)
    return F.cross_entropy(logits[0, :-1], x[0, 1:], reduction="none")


# What hooks change


def times(factor: float) -> dict:
    """All scores times a number."""
    return {"q": lambda q, layer: factor * q}


def capped(limit: float, where: str = "all") -> dict:
    """No row gives more than `limit` to one key; what is over goes to the others in proportion. where: "all" rows, or
    those whose first choice is the "first" token, or the "rest"."""

    def cap(weights, layer):
        top, key = weights.max(dim=-1, keepdim=True)  # (B, H, T, 1)
        others = weights.scatter(-1, key, 0.0)
        left = others.sum(dim=-1, keepdim=True)
        over = (top > limit) & (left > 0)
        if where != "all":
            over &= (key == 0) == (where == "first")
        bent = (others * (1 - limit) / left).scatter(-1, key, limit)
        return torch.where(over, bent, weights)

    return {"weights": cap}


def without_heads(heads: tuple[tuple[int, int], ...]) -> dict:
    """Heads, each (layer, head), whose output is set to zero."""
    return {"heads": lambda y, layer: _zero(y, 1, [head for at, head in heads if at == layer])}


def without_write(layer: int, token: int) -> dict:
    """A layer's feed-forward writes nothing to the stream of one token."""
    return {"feed_forward": lambda y, at: _zero(y, 1, [token] if at == layer else [])}


def _zero(x: torch.Tensor, dim: int, where: list[int]) -> torch.Tensor | None:
    return x.index_fill(dim, torch.tensor(where, device=x.device), 0.0) if where else None


def masked(change: Callable[[torch.Tensor], torch.Tensor], first_layer: int = 0) -> dict:
    """Another mask, (T, T), from a layer on."""
    return {"mask": lambda mask, layer: change(mask.clone()) if layer >= first_layer else None}


def hidden(token: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """No token sees this one but itself."""

    def change(mask):
        mask[:, token] = False
        return mask.fill_diagonal_(True)

    return change


def alone(token: int, company: int = 0) -> Callable[[torch.Tensor], torch.Tensor]:
    """One token sees itself and as many before it as are its company, no more."""

    def change(mask):
        mask[token, : token - company] = False
        return mask

    return change


MASKS = {
    "causal": lambda mask: mask,
    "one ahead": lambda mask: torch.ones_like(mask).tril(1),
    "all": torch.ones_like,
}
SINK_ARMS = {
    "whole": {},
    "no write at 0": without_write(GIANT_LAYER, 0),
    "no write at 20": without_write(GIANT_LAYER, 20),
    "no write at 0, layer before": without_write(GIANT_LAYER - 1, 0),
    "no write at 0, layer after": without_write(GIANT_LAYER + 1, 0),
    "0 hidden": masked(hidden(0)),
    "20 hidden": masked(hidden(20)),
    "0 hidden, later layers": masked(hidden(0), GIANT_LAYER + 1),
    "20 hidden, later layers": masked(hidden(20), GIANT_LAYER + 1),
    **{f"50 sees {n} before it": masked(alone(50, n)) for n in (0, 1, 3, 7)},
}
COPY_ARMS = {
    "whole": {},
    "without copiers": without_heads(COPIERS),
    "without next": without_heads(NEXT),
    "without least": without_heads(LEAST),
    "capped at 0.9": capped(0.9),
    "capped at 0.65": capped(0.65),
    "first capped at 0.65": capped(0.65, "first"),
    "rest capped at 0.65": capped(0.65, "rest"),
}
CAPS = {"capped at 0.9": capped(0.9), "capped at 0.65": capped(0.65), "capped at 0.5": capped(0.5)}


# What is measured


def run(job: dict) -> dict:
    """One arm on one text. job: part, arm, how many tokens, and on which text: a name, or the seed of random tokens."""
    return PARTS[job["part"]](job)


def _factor(job: dict) -> dict:
    """Loss, share of saturated rows, and share of rows saturated on the first token, over all heads; the first row,
    which has no choice, is left out."""
    rows = []

    def note(weights, layer):
        top, key = weights[0, :, 1:].max(dim=-1)
        full = top > SATURATED
        rows.append([full.float().mean(), (full & (key == 0)).float().mean()])

    hooks = times(job["arm"]) if job["part"] == "factor" else CAPS[job["arm"]]
    with hooked(model_and_tokenizer()[0], hooks):
        loss = losses(text_ids(job["on"], job["tokens"]), {"weights": note}).mean()
    saturated, first = torch.tensor(rows).mean(dim=0)
    return rounded(loss=loss, saturated=saturated, on_first=first)


def _mask(job: dict) -> dict:
    """At every eighth token from 16 on: the loss that is measured on a whole text, and the honest one, of a text that
    ends there, so that there is nothing to see but what came before."""
    x, change = text_ids(job["on"], job["tokens"]), masked(MASKS[job["arm"]])
    places = range(16, job["tokens"] - 1, max(8, job["tokens"] // 16))
    honest = [losses_after(x[:, : place + 1], x[0, place + 1], change) for place in places]
    return rounded(measured=losses(x, change)[list(places)].mean(), honest=torch.tensor(honest).mean())


@torch.no_grad()
def losses_after(prefix: torch.Tensor, token: torch.Tensor, hooks: dict) -> float:
    """Nats of the token that follows a text."""
    model, _ = model_and_tokenizer()
    with hooked(model, hooks):
        return F.cross_entropy(model(prefix, last=1)[0, -1], token).item()


def _sink(job: dict) -> dict:
    """Loss of the tokens from 64 on; what those give in layer 12 and later, mean over heads, to token 0 and to all
    giants; how many giants there are, and the largest number in the stream at tokens 0 and 50 (after layer 11)."""
    given, largest = [], []

    def note(weights, layer):
        if layer > GIANT_LAYER:
            to = weights[0, :, 64:].mean(dim=(0, 1))  # (tokens,)
            given.append(torch.stack([to[0], to[largest[0] > GIANT].sum()]))

    def note_largest(x, layer):
        if layer == GIANT_LAYER:
            largest.append(x[0].abs().amax(dim=-1))

    with hooked(model_and_tokenizer()[0], SINK_ARMS[job["arm"]]):
        each = losses(text_ids(job["on"], job["tokens"]), {"weights": note, "block": note_largest})
    to_first, to_giants = torch.stack(given).mean(dim=0)
    found = {"giants": (largest[0] > GIANT).sum(), "largest_0": largest[0][0], "largest_50": largest[0][50]}
    return rounded(loss=each[63:].mean(), to_first=to_first, to_giants=to_giants, **found)


def _copy(job: dict) -> dict:
    """Loss of the second copy, and the share of saturated rows among the copiers' rows there."""
    n, rows = job["tokens"], []
    x = text_ids(job["on"], n).repeat(1, 2) if job["on"] in texts() else twice(job["on"], n)

    def note(weights, layer):
        heads = [head for at, head in COPIERS if at == layer]
        rows.extend(weights[0, heads, n:].amax(dim=-1).flatten().tolist())

    with hooked(model_and_tokenizer()[0], COPY_ARMS[job["arm"]]):
        loss = losses(x, {"weights": note})[n:].mean()
    return rounded(loss=loss, saturated=(torch.tensor(rows) > SATURATED).float().mean())


def _plain(job: dict) -> dict:
    """Loss of a text without some heads."""
    return rounded(loss=losses(text_ids(job["on"], job["tokens"]), COPY_ARMS[job["arm"]]).mean())


def rounded(**numbers: torch.Tensor) -> dict:
    """Tensors of one number each, as they are stored."""
    return {name: round(number.item(), 4) for name, number in numbers.items()}


PARTS = {"factor": _factor, "cap": _factor, "mask": _mask, "sink": _sink, "copy": _copy, "plain": _plain}
ON_TEXTS = {"factor": FACTORS, "cap": CAPS, "mask": MASKS, "sink": SINK_ARMS, "plain": list(COPY_ARMS)[:4]}


def jobs() -> list[dict]:
    """Each part's arms on each text and length; copying on random tokens and on texts."""
    names = (*LOOKED_AT, *JUDGES)
    each = [(part, on, n, arm) for part, arms in ON_TEXTS.items() for n in LENGTHS for on in names for arm in arms]
    each += [("copy", on, n, arm) for n in COPY_LENGTHS for on in COPY_SEEDS for arm in COPY_ARMS]
    each += [("copy", on, 64, arm) for on in names for arm in COPY_ARMS]
    return [dict(zip(("part", "on", "tokens", "arm"), job, strict=True)) for job in each]


def copying_scores(seed: int, tokens: int = 64) -> torch.Tensor:
    """How much each head of the second copy gives to the token that came next in the first: (layers, heads)."""
    model, _ = model_and_tokenizer()
    scores = []

    def note(weights, layer):
        scores.append(weights[0].diagonal(-(tokens - 1), -2, -1)[:, 1:].mean(dim=-1))

    with torch.no_grad(), hooked(model, {"weights": note}):
        model(twice(seed, tokens))
    return torch.stack(scores)


SWEEP = Sweep(
    __file__,
    "real",
    run,
    jobs=jobs(),
    quick=[{"part": part, "on": "letter", "tokens": 72, "arm": list(ON_TEXTS[part])[1]} for part in ON_TEXTS]
    + [{"part": "copy", "on": 0, "tokens": 8, "arm": arm} for arm in COPY_ARMS],
    cost=lambda job: job["tokens"] * (8 if job["part"] == "mask" else 1),
    comparable=lambda job: job["on"] not in ("docs", "code") and job["part"] != "mask",
    tolerance={"loss": 0.01, "saturated": 0.01, "on_first": 0.01, "to_first": 0.01, "to_giants": 0.01, "largest_50": 20}
    | {"largest_0": 20},
    files=FILES,
)

if __name__ == "__main__":
    sys.exit(main(SWEEP))
