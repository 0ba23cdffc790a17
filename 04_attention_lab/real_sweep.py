"""What attention does in a real model, text by text: python real_sweep.py

Writes results/real.json, which the notebook shows; about 25 minutes on one core. SmolLM2-135M-Instruct (4-bit weights)
reads sixteen texts, 128 and 512 tokens of each, and random tokens that come twice. Nothing is trained.

The rules were written after a look at the texts `LOOKED_AT` and at seeds below 100. The other texts were written after
the rules, and they and the seeds from 100 on judge.
"""

import functools
import sys
from collections.abc import Callable, Collection

import torch
from torch.nn import functional as F

from shared.hooks import hooked, look
from shared.smollm2 import load_smollm2
from shared.sweeps import Sweep, main
from shared.texts import FILES, OWN, texts

LOOKED_AT, JUDGES = (*OWN[:8], "docs", "code"), OWN[8:]
LENGTHS, LAYERS = (128, 512), range(30)
SATURATED = 0.9  # a row is saturated if one key has more than this share of it
FACTORS = (1 / 8, 1 / 4, 1 / 2, 0.8, 8 / 9, 1, 8 / 7.6, 1.25, 2, 4, 8)  # times the model's own 1/8; 8 leaves none
GIANT_LAYER = 11  # whose feed-forward writes the largest number
LATER = LAYERS[GIANT_LAYER + 1 :]
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
    generator = torch.Generator().manual_seed(seed)
    first = torch.randint(len(tokenizer.specials), tokenizer.vocab_size, (1, tokens), generator=generator)
    return torch.cat([first, first], dim=1)


def seen(x: torch.Tensor, hooks: dict, *names: str, **how) -> list[list[torch.Tensor]]:
    """What passes through the model, with hooks in it, in the order of the names; names and how: as for `look`."""
    model, _ = model_and_tokenizer()
    with hooked(model, hooks):
        found = look(model, x, names, **how)
    return [found[name] for name in names]


def losses(x: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """Nats of each token but the first, (tokens - 1,), of one text, from its logits, (1, tokens, vocabulary)."""
    return F.cross_entropy(logits[0, :-1], x[0, 1:], reduction="none")


def losses_with(x: torch.Tensor, hooks: dict) -> torch.Tensor:
    """The same with hooks in the model."""
    return losses(x, seen(x, hooks, "logits")[0][0])


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

    def silence(y, layer):
        return y.index_fill(1, torch.tensor([head for at, head in heads if at == layer], dtype=torch.long), 0.0)

    return {"heads": silence}


def without_write(layer: int, token: int) -> dict:
    """A layer's feed-forward writes nothing to the stream of one token."""
    return edited("feed_forward", [layer], lambda y: y[:, token].zero_())


def edited(name: str, layers: Collection[int], edit: Callable[[torch.Tensor], object]) -> dict:
    """What passes under a name in some layers, changed in place in a copy."""

    def change(x, layer):
        if layer in layers:
            edit(x := x.clone())
        return x

    return {name: change}


def masked(change: Callable[[torch.Tensor], torch.Tensor], layers: Collection[int] = LAYERS) -> dict:
    """Another mask, (T, T), in some layers."""
    return {"mask": lambda mask, layer: change(mask.clone()) if layer in layers else None}


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
    "0 hidden, later layers": masked(hidden(0), LATER),
    "20 hidden, later layers": masked(hidden(20), LATER),
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
    x, hooks = text_ids(job["on"], job["tokens"]), times(job["arm"]) if job["part"] == "factor" else CAPS[job["arm"]]
    weights, (logits,) = seen(x, hooks, "weights", "logits")
    top, key = torch.stack([rows[0, :, 1:] for rows in weights]).max(dim=-1)
    full = top > SATURATED
    first = (full & (key == 0)).float().mean()
    return rounded(loss=losses(x, logits).mean(), saturated=full.float().mean(), on_first=first)


def _mask(job: dict) -> dict:
    places = range(16, job["tokens"] - 1, max(8, job["tokens"] // 16))
    return leak(text_ids(job["on"], job["tokens"]), places, masked(MASKS[job["arm"]]))


def leak(x: torch.Tensor, places: range, hooks: dict) -> dict:
    """At some places, the loss that is measured on a whole text, and the honest one, of a text that ends there, so that
    there is nothing to see but what came before."""
    honest = [loss_after(x[:, : place + 1], x[0, place + 1], hooks) for place in places]
    return rounded(measured=losses_with(x, hooks)[list(places)].mean(), honest=torch.tensor(honest).mean())


@torch.no_grad()
def loss_after(prefix: torch.Tensor, token: torch.Tensor, hooks: dict) -> float:
    """Nats of the token that follows a text."""
    model, _ = model_and_tokenizer()
    with hooked(model, hooks):
        return F.cross_entropy(model(prefix, last=1)[0, -1], token).item()


def _sink(job: dict) -> dict:
    """Loss of the tokens from 64 on; what those give in layer 12 and later, mean over heads, to token 0 and to all
    giants; how many giants there are, and the largest number in the stream at tokens 0 and 50 (after layer 11)."""
    x = text_ids(job["on"], job["tokens"])
    weights, blocks, (logits,) = seen(x, SINK_ARMS[job["arm"]], "weights", "block", "logits")
    given, size = given_later(weights), largest(blocks)[0]
    found = {"giants": (size > GIANT).sum(), "largest_0": size[0], "largest_50": size[50]}
    to_giants = given[size > GIANT].sum()
    return rounded(loss=losses(x, logits)[63:].mean(), to_first=given[0], to_giants=to_giants, **found)


def given_later(weights: list[torch.Tensor]) -> torch.Tensor:
    """What each token gets from those from 64 on in layer 12 and later, mean over heads: (tokens,)."""
    return torch.stack([rows[0, :, 64:].mean(dim=(0, 1)) for rows in weights[GIANT_LAYER + 1 :]]).mean(dim=0)


def largest(blocks: list[torch.Tensor]) -> torch.Tensor:
    """The largest number in each token's stream after layer 11: (B, tokens)."""
    return blocks[GIANT_LAYER].abs().amax(dim=-1)


def _copy(job: dict) -> dict:
    """Loss of the second copy, and the share of saturated rows among the copiers' rows there."""
    n = job["tokens"]
    x = text_ids(job["on"], n).repeat(1, 2) if isinstance(job["on"], str) else twice(job["on"], n)
    weights, (logits,) = seen(x, COPY_ARMS[job["arm"]], "weights", "logits")
    rows = torch.stack([weights[layer][0, head, n:].amax(dim=-1) for layer, head in COPIERS])
    return rounded(loss=losses(x, logits)[n:].mean(), saturated=(rows > SATURATED).float().mean())


def _plain(job: dict) -> dict:
    """Loss of a text without some heads."""
    return rounded(loss=losses_with(text_ids(job["on"], job["tokens"]), COPY_ARMS[job["arm"]]).mean())


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
    (weights,) = seen(twice(seed, tokens), {}, "weights")
    return torch.stack([rows[0].diagonal(-(tokens - 1), -2, -1)[:, 1:].mean(dim=-1) for rows in weights])


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
