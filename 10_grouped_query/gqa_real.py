"""What the sweeps on the real model share: texts that fit, texts that judge, and three judges of a changed model.

    loss    nats of each text, which say little of what a model can look up in its context
    copy    random tokens that come twice, and a text's: nats of the second copy, which only attention can lower
    key     five digits, then a text, then "The pass key is": how many digits, and nats of each

Moments and up-training see `FITTED` and a part of Python's documentation. A learning rate is chosen by `VALIDATE`. The
eight texts of `JUDGES` are fitted to by one arm alone, which asks how much is lost because the texts are new.
"""

import functools
from collections.abc import Mapping

import torch
from gqa_merge import Moments, moments
from torch import nn
from torch.nn import functional as F

from shared.corpus import python_docs
from shared.hooks import Hook, hooked
from shared.smollm2 import load_smollm2
from shared.texts import LONG, OWN, texts

FITTED, VALIDATE, JUDGES = OWN[:4], (*OWN[4:6], "docs", "code"), OWN[6:]
TOKENS, WINDOW = 256, 512  # of a text that judges; of one that fits
COPIED, SEEDS = 64, range(5)
FILLER, DIGITS = 160, 5  # tokens between the key and the question; digits of the key


@functools.cache
def model_and_tokenizer():
    """The real model, read once in a process, and its tokenizer."""
    return load_smollm2()


def encoded(text: str) -> torch.Tensor:
    """(tokens,)"""
    return torch.tensor(model_and_tokenizer()[1].encode(text))


@functools.cache
def beginnings(names: tuple[str, ...], tokens: int) -> torch.Tensor:
    """Of each text its first tokens: (texts, tokens)."""
    return torch.stack([encoded(texts()[name])[:tokens] for name in names])


@functools.cache
def documentation(windows: int) -> torch.Tensor:
    """Of Python's documentation, without the part that `shared.texts` takes: (windows, WINDOW) tokens."""
    docs, taken = python_docs(), texts()["docs"]
    at = docs.index(taken)
    rest = encoded(docs[:at] + docs[at + LONG :])
    starts = torch.linspace(0, len(rest) - WINDOW, windows).long()
    return rest[starts[:, None] + torch.arange(WINDOW)]


def fitting_text(kind: str = "both") -> torch.Tensor:
    """Eight windows, (8, WINDOW) tokens: of the documentation, of the texts that judge, or of the texts that fit and
    the documentation ("both"), or those and random tokens that come twice ("copies")."""
    match kind:
        case "judges":
            return beginnings(JUDGES, WINDOW)
        case "documentation":
            return documentation(8)
        case "copies":
            drawn = torch.stack([twice(1000 + i) for i in range(4 * WINDOW // (2 * COPIED))])  # no seed that judges
            return torch.cat([beginnings(FITTED, WINDOW), drawn.view(4, WINDOW)])
    return torch.cat([beginnings(FITTED, WINDOW), documentation(4)])


@functools.cache
def fitted_moments(kind: str = "both") -> list[Moments]:
    """Of each layer on a text that fits, two windows at a time."""
    model, _ = model_and_tokenizer()
    with torch.no_grad():
        parts = [moments(model, part) for part in fitting_text(kind).split(2)]
    return [_mean(layer) for layer in zip(*parts, strict=True)]


def _mean(parts: tuple[Moments, ...]) -> Moments:
    fields = ("queries", "keys", "values")
    return Moments(*(torch.stack([getattr(part, name) for part in parts]).mean(dim=0) for name in fields))


Hooks = Mapping[str, Hook]


@torch.no_grad()
def losses(model: nn.Module, hooks: Hooks, x: torch.Tensor, start: int = 0) -> torch.Tensor:
    """Nats of each text, (B,), from x (B, T); of the tokens behind place `start`."""
    with hooked(model, hooks):
        logits = model(x, last=x.shape[1] - start)
    each = F.cross_entropy(logits[:, :-1].mT, x[:, start + 1 :], reduction="none")
    return each.mean(dim=1)


def judged_loss(model: nn.Module, hooks: Hooks, tokens: int = TOKENS) -> dict:
    """Nats of each text that judges."""
    return {"loss": rounded(losses(model, hooks, beginnings(JUDGES, tokens)))}


def judged_copy(model: nn.Module, hooks: Hooks) -> dict:
    """Nats of the second copy: of random tokens, by seed, and of a text's first tokens, by text."""
    random = torch.stack([twice(seed) for seed in SEEDS])
    text = beginnings(JUDGES, COPIED).repeat(1, 2)
    return {name: rounded(losses(model, hooks, x, COPIED)) for name, x in (("random", random), ("text", text))}


def twice(seed: int) -> torch.Tensor:
    """`COPIED` random tokens, none of them special, and the same again: (2 COPIED,)."""
    _, tokenizer = model_and_tokenizer()
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(len(tokenizer.specials), tokenizer.vocab_size, (COPIED,), generator=generator).repeat(2)


@torch.no_grad()
def judged_key(model: nn.Module, hooks: Hooks) -> dict:
    """For each text, how many of the digits are the likeliest token, each after the right ones; and nats of a digit."""
    x = passkeys()
    with hooked(model, hooks):
        logits = model(x, last=DIGITS + 1)[:, :-1]  # (B, DIGITS, vocabulary)
    digits = x[:, -DIGITS:]
    nats = F.cross_entropy(logits.mT, digits, reduction="none").mean(dim=1)
    return {"right": (logits.argmax(-1) == digits).sum(dim=1).tolist(), "nats": rounded(nats)}


def passkeys() -> torch.Tensor:
    """A key of five digits, the first tokens of a text that judges, and the question with its answer: (texts, T)."""
    generator, rows = torch.Generator().manual_seed(0), []
    for text in beginnings(JUDGES, FILLER):
        key = "".join(map(str, torch.randint(10, (DIGITS,), generator=generator).tolist()))
        said, asked = encoded(f"The pass key is {key}. Remember it.\n\n"), encoded("\n\nThe pass key is ")
        rows.append(torch.cat([said, text, asked, encoded(key)]))
    return torch.stack(rows)


def rounded(x: torch.Tensor) -> list[float]:
    """As numbers are stored."""
    return [round(each, 4) for each in x.tolist()]
