"""How loss falls with the amount of context, on SmolLM2-135M-Instruct (4-bit weights): what the sweep shares.

    ids = ids_of("diary")
    contexts, nats = by_amount(model, ids, START, 64)  # the same 128 tokens, each after about 64 tokens
    nats = by_position(model, ids)                     # other tokens at each position
    nats = after(model, ids, START, prefix)            # half of the 128, each after a prefix and its own last NEAR

In one pass over a text each amount of context has other tokens to predict, so that the text's own ups and downs lie
on the curve. Here the tokens stay and the context changes: what stood before it is never read.
"""

import functools

import torch
from torch.nn import functional as F

from shared.smollm2 import load_smollm2
from shared.texts import OWN, texts
from shared.tiny_lm import TinyLM

TRIED, JUDGES, LONG = OWN[:3], OWN[6:], ("docs", "code")  # for rules to be made by; that judge; of 9,000 tokens
AMOUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
LONGER = (*AMOUNTS, 1024, 2048)
BARE = (1, 8, 512)  # amounts that are read without a first token, too
PREFIXED = 512  # tokens of context that are a prefix and the NEAR
START, LATER = 512, 2400  # where the tokens to predict begin, in our texts and in long ones
TARGETS = 128  # how many there are
NEAR, ROWS = 8, 16  # tokens of a target's own that stand behind a prefix; rows in one pass
KINDS = ("own", "shuffled", "other")  # of prefixes
SINK = "<|endoftext|>"  # what stands between two texts in training


@functools.cache
def model_and_tokenizer():
    """The real model, read once in a process, and its tokenizer."""
    return load_smollm2()


@functools.cache
def ids_of(name: str) -> torch.Tensor:
    """A text's tokens, (T,)."""
    return torch.tensor(model_and_tokenizer()[1].encode(texts()[name]))


def block_of(amount: int, targets: int = TARGETS) -> tuple[int, int]:
    """The fewest tokens of context, and how many tokens are predicted in one pass: a quarter as many as the amount.

    The first has `fewest` tokens before it, the last `fewest` + `block` - 1: within an eighth of the amount.
    """
    block = min(max(1, amount // 4), targets)
    return amount - block // 2, block


@torch.no_grad()
def by_amount(
    model: TinyLM, ids: torch.Tensor, start: int, amount: int, before: int | None = None, targets: int = TARGETS
) -> tuple[torch.Tensor, torch.Tensor]:
    """How many tokens of context each of the tokens from `start` on has, and its nats: (targets,) each.

    before: a token that each context begins with, and which is not counted. targets: a power of two. Raises ValueError
    where the text is too short.
    """
    fewest, block = block_of(amount, targets)
    if start < fewest or len(ids) < start + targets:
        raise ValueError(f"{targets} tokens from {start} on, each after {fewest} or more: the text has {len(ids)}")
    rows = torch.stack([ids[at - fewest : at + block] for at in range(start, start + targets, block)])
    first = [] if before is None else [torch.full((len(rows), 1), before)]
    logits = model(torch.cat([*first, rows], dim=1), last=block + 1)[:, :-1]  # (rows, block, vocabulary)
    nats = F.cross_entropy(logits.flatten(0, 1), rows[:, -block:].flatten(), reduction="none")
    return torch.arange(fewest, fewest + block).repeat(len(rows)), nats


@torch.no_grad()
def by_position(model: TinyLM, ids: torch.Tensor) -> torch.Tensor:
    """One pass: the nats of each token but the first, (T - 1,); number i has i + 1 tokens of context."""
    return F.cross_entropy(model(ids[None])[0, :-1], ids[1:], reduction="none")


def prefixes(ids: torch.Tensor, start: int, amount: int, other: torch.Tensor) -> dict[str, torch.Tensor]:
    """The tokens that end NEAR before `start`; the same in random order; as many of another text: (amount - NEAR,)."""
    own = ids[start - amount : start - NEAR]
    order = torch.randperm(len(own), generator=torch.Generator().manual_seed(amount))
    return dict(zip(KINDS, (own, own[order], other[: len(own)]), strict=True))


@torch.no_grad()
def after(
    model: TinyLM, ids: torch.Tensor, start: int, prefix: torch.Tensor | None = None, targets: int = TARGETS
) -> torch.Tensor:
    """The nats of every second token from `start` on, each after the prefix and its own last NEAR: (targets / 2,).

    All read the same prefix: for a later one some of its own text is left out between the two.
    """
    windows = ids[start - NEAR : start + targets].unfold(0, NEAR + 1, 2)  # (targets / 2, NEAR + 1)
    if prefix is None:
        return _last(model(windows[:, :-1], last=1), windows)
    cache, found = model.new_cache(ROWS, len(prefix) + NEAR), []
    cache.keep([0])
    model(prefix[None], cache, last=1)
    for part in windows.split(ROWS):
        cache.keep([0] * len(part))
        found.append(_last(model(part[:, :-1], cache, last=1), part))
        cache.step_back(NEAR)
    return torch.cat(found)


def _last(logits: torch.Tensor, windows: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(logits[:, -1], windows[:, -1], reduction="none")
