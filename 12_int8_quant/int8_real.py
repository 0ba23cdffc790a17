"""What the sweep on the real model shares: the model, texts that calibrate, texts that judge, and nats of each text.

Scales, moments and means see the first tokens of `FITTED`. Eight texts of `JUDGES` judge, by tokens 256 to 511 of each;
rules and arms were chosen by their first 256. A second length has eight windows of 1,024 tokens, of Python's own
documentation and code. Each text is a call of its own, so that a scale "of all tokens" is of the tokens of one text.
"""

import functools
from collections.abc import Callable, Mapping

import torch
from int8_awq import mean_inputs
from int8_gptq import input_moments
from int8_model import calibrate, watch
from torch import nn
from torch.nn import functional as F

from shared.cache import KVCache
from shared.hooks import Hook, hooked
from shared.smollm2 import load_smollm2
from shared.texts import OWN, texts

FITTED, JUDGES, LONG_JUDGES = OWN[:4], OWN[6:], ("docs", "code")
START, TOKENS, LONG = 256, 256, 1024  # where a window begins that judges; how long it is; the second length
FIT_TOKENS = 512  # of a text that calibrates


@functools.cache
def model_and_tokenizer():
    """The real model, read once in a process, and its tokenizer."""
    return load_smollm2()


def whole() -> nn.Module:
    """The model in float."""
    return model_and_tokenizer()[0]


@functools.cache
def encoded(name: str) -> torch.Tensor:
    """A text's tokens: (T,)."""
    return torch.tensor(model_and_tokenizer()[1].encode(texts()[name]))


@functools.cache
def judged(tokens: int = TOKENS) -> torch.Tensor:
    """The eight windows that judge: (8, tokens). Above `TOKENS` they are of the long texts, four of each."""
    if tokens > TOKENS:
        return torch.cat([encoded(name)[: 4 * tokens].view(4, tokens) for name in LONG_JUDGES])
    return torch.stack([encoded(name)[START : START + tokens] for name in JUDGES])


@functools.cache
def fitting() -> torch.Tensor:
    """The texts that calibrate: (4, FIT_TOKENS)."""
    return torch.stack([encoded(name)[:FIT_TOKENS] for name in FITTED])


@functools.cache
def largest(first: int = 0) -> dict[str, torch.Tensor]:
    """What `calibrate` finds in the texts that calibrate, from token `first` on."""
    return calibrate(whole(), fitting().split(1), first)


@functools.cache
def quantiles(share: float) -> dict[str, torch.Tensor]:
    """For each linear layer the |x| that this share of its inputs' numbers does not exceed: a number each."""
    found = {}

    def see(name, x):
        x = x.abs().flatten()
        found[name] = x.topk(max(1, round((1 - share) * len(x)))).values[-1]

    watch(whole(), [fitting()], see)
    return found


@functools.lru_cache(maxsize=1)  # 400 MB
def moments(sink: float | None = None) -> dict[str, torch.Tensor]:
    """What `input_moments` finds in the texts that calibrate."""
    return input_moments(whole(), fitting().split(1), sink)


@functools.cache
def means() -> dict[str, torch.Tensor]:
    """What `mean_inputs` finds in the texts that calibrate."""
    return mean_inputs(whole(), fitting().split(1))


@torch.no_grad()
def nats(model: nn.Module, x: torch.Tensor, first: int = 0, hooks: Mapping[str, Hook] | None = None) -> torch.Tensor:
    """Mean nats of the tokens behind position `first` of each text: (B, T) -> (B,)."""
    with hooked(model, hooks or {}):
        return torch.stack([_nats(model(row[None], last=len(row) - first), row) for row in x])


@torch.no_grad()
def nats_behind(before: nn.Module, model: nn.Module, x: torch.Tensor, n: int = 1) -> torch.Tensor:
    """The same of the tokens behind position n, (B,), where `before` has run the first n tokens and `model` runs those
    behind them, with what `before` left in the cache."""
    return _by_cache(x, n, before, model, lambda: before.new_cache(1, x.shape[1]))


@torch.no_grad()
def nats_from(model: nn.Module, x: torch.Tensor, new_cache: Callable[[], KVCache]) -> torch.Tensor:
    """The same of the second half of each text, (B,), after the first half went into a cache in one pass."""
    return _by_cache(x, x.shape[1] // 2, model, model, new_cache)


def _by_cache(
    x: torch.Tensor, n: int, before: nn.Module, model: nn.Module, new_cache: Callable[[], KVCache]
) -> torch.Tensor:
    found = []
    for row in x:
        cache = new_cache()
        before(row[None, :n], cache, last=1)
        found.append(_nats(model(row[None, n:], cache), row))
    return torch.stack(found)


def _nats(logits: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
    """logits: (1, n, vocabulary), at the last n places of a text."""
    said = logits[0, :-1]
    return F.cross_entropy(said, row[len(row) - len(said) :])


def rounded(x: torch.Tensor, digits: int = 5) -> list:
    """As numbers are stored; a list of lists for a matrix."""
    if x.ndim > 1:
        return [rounded(row, digits) for row in x]
    return [round(each, digits) for each in x.tolist()]
