"""Why that token: the one large number of the residual stream, what clipping and moving it costs, and who gets it.

The model writes a number above 20,000 into one channel of the first token's stream, in one block. Here it is found
(`spike`), changed (`SCALED`), clipped in the input of the matrix that writes it (`clipping`), and it is asked which
token gets it (`firsts`): the word that stands first, or whatever stands first.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import NamedTuple

import torch
from int8_arms import KINDS, SEEDS, TENSOR, inputs, keeping
from int8_model import Change
from int8_real import fitting, model_and_tokenizer, nats, rounded, whole
from torch import nn

from shared.hooks import Hook, look

ALONE = 50  # the token that is made to see itself only
BOS = "<|endoftext|>"  # what the model's texts began with in training
Hooks = dict[str, Hook]


class Spike(NamedTuple):
    """The block after which it stands in the stream, its channel, the next largest channel of that token, its size."""

    layer: int
    channel: int
    next: int
    size: float


@cache
def spike() -> Spike:
    """In the texts that calibrate: the first block after which the stream's largest |number| is over half of what it
    is after any block."""
    stream = torch.stack([x[:, 0].abs().amax(dim=0) for x in look(whole(), fitting()[:, :64], ["block"])["block"]])
    tops = stream.amax(dim=-1)  # (layers,)
    layer = int((tops > tops.max() / 2).nonzero()[0])
    channel, following = stream[layer].topk(2).indices.tolist()
    return Spike(layer, channel, following, float(stream[layer, channel]))


# The number scaled


def scaled(factor: float, what: Callable[[torch.Tensor], tuple], hook: str = "block") -> Hooks:
    """The stream behind the spike's block, or what its "feed_forward" writes: what(x) says which numbers are
    multiplied."""

    def change(x: torch.Tensor, layer: int) -> torch.Tensor | None:
        if layer != spike().layer:
            return None
        x = x.clone()
        x[what(x)] *= factor
        return x

    return {hook: change}


def at(places: slice, channels: Callable[[int], torch.Tensor | list[int]]) -> Callable[[torch.Tensor], tuple]:
    return lambda x: (slice(None), places, channels(x.shape[-1]))


FIRST, OTHERS = slice(0, 1), slice(1, None)
THE_ONE = at(FIRST, lambda n: [spike().channel])
SCALED: dict[str, Callable[[], Hooks]] = {"float": dict}
SCALED |= {f"times {factor}": partial(scaled, factor, THE_ONE) for factor in (0, 0.25, 0.5, 2, 4, -1)}
SCALED["next channel, times 0"] = partial(scaled, 0, at(FIRST, lambda n: [spike().next]))
SCALED["all other channels, times 0"] = partial(
    scaled, 0, at(FIRST, lambda n: [c for c in range(n) if c != spike().channel])
)
SCALED["other tokens, times 0"] = partial(scaled, 0, at(OTHERS, lambda n: [spike().channel]))
for factor in (0.25, 0.05):
    SCALED[f"all channels, times {factor}"] = partial(scaled, factor, at(FIRST, lambda n: list(range(n))))


def silent(v: torch.Tensor, layer: int) -> torch.Tensor | None:
    """Behind the spike's block nothing is read of the first token, however much attention it gets."""
    if layer <= spike().layer:
        return None
    v = v.clone()
    v[:, :, 0] = 0
    return v


WRITTEN = partial(scaled, what=at(FIRST, lambda n: slice(None)), hook="feed_forward")
SCALED |= {f"all that is written, times {factor}": partial(WRITTEN, factor) for factor in (0, 0.01, 0.05, 0.25)}
SCALED["its values at 0"] = lambda: {"v": silent}
SCALED["all that is written at 0, its values at 0"] = lambda: WRITTEN(0) | {"v": silent}
SCALED["times 0, its values at 0"] = lambda: scaled(0, THE_ONE) | {"v": silent}


def judged_scaled(arm: str, x: torch.Tensor) -> dict:
    """Nats of the tokens behind position 1, and by layer how much of the others' attention the first token gets."""
    spike()  # before there are hooks, which it would run through
    hooks, mass = SCALED[arm](), []
    seen = {"weights": lambda weights, layer: mass.append(weights[0, :, 1:, 0].mean())}
    found = nats(whole(), x, 1, hooks | seen)
    return {"nats": rounded(found), "mass": rounded(torch.stack(mass).view(len(x), -1).mean(dim=0))}


# Clipping, without any rounding or before it


def clamp_to_others(x: torch.Tensor) -> torch.Tensor:
    most = x[:, 1:].abs().amax()
    return x.clamp(-most, most)


def capped(most: float, n: int = 1) -> Change:
    """The first token's n largest numbers no larger than that."""

    def cap(x: torch.Tensor) -> torch.Tensor:
        x = x.clone()
        at = x[0, 0].abs().topk(n).indices
        x[0, 0, at] = x[0, 0, at].clamp(-most, most)
        return x

    return cap


def strongest(n: int, drawn: torch.Generator | None = None) -> Change:
    """The n columns with the largest numbers set to 0, or as many that are drawn."""

    def silence(x: torch.Tensor) -> torch.Tensor:
        tops = x.abs().flatten(0, -2).amax(dim=0)
        order = tops.argsort(descending=True) if drawn is None else torch.randperm(len(tops), generator=drawn)
        return x.index_fill(-1, order[:n], 0)

    return silence


def writer(name: str) -> bool:
    """Whether it is the matrix that writes the spike."""
    return name == f"blocks.{spike().layer}.{KINDS['down']}"


def clipping() -> dict[str, Callable[[], nn.Module]]:
    arms = {"all inputs at the other tokens' largest": partial(inputs, clamp_to_others)}
    arms["all but the writer's"] = partial(inputs, clamp_to_others, lambda name: not writer(name))
    arms["the writer's alone"] = partial(inputs, clamp_to_others, writer)
    arms |= {f"the writer's largest at {most}": partial(inputs, capped(most), writer) for most in (0, 100, 300, 1000)}
    for most in (0, 100, 300, 1000):
        arms[f"the writer's two largest at {most}"] = partial(inputs, capped(most, 2), writer)
    for most in (1000, 300, 100, 60, 30):
        arms[f"all at {most}"] = partial(inputs, lambda x, most=most: x.clamp(-most, most))
        arms[f"all at {most}, then one scale"] = partial(inputs, lambda x, most=most: TENSOR(x.clamp(-most, most)))
    arms |= {f"largest {n} columns at 0": partial(inputs, strongest(n)) for n in (1, 6)}
    for seed in SEEDS[:3]:
        arms[f"6 drawn columns at 0, {seed}"] = lambda s=seed: inputs(strongest(6, torch.Generator().manual_seed(s)))
    return arms


# Who gets it


def with_first(x: torch.Tensor, token: int) -> torch.Tensor:
    """The texts with another first token."""
    return torch.cat([torch.full_like(x[:, :1], token), x[:, 1:]], dim=1)


def bos() -> int:
    return model_and_tokenizer()[1].specials[BOS]


def drawn_token(seed: int) -> int:
    """A token that is not special."""
    tokenizer = model_and_tokenizer()[1]
    generator = torch.Generator().manual_seed(seed)
    return int(torch.randint(len(tokenizer.specials), tokenizer.vocab_size, (), generator=generator))


def only_itself(mask: torch.Tensor, layer: int) -> torch.Tensor:
    mask, place = mask.clone(), min(ALONE, mask.shape[-1] // 2)
    mask[..., place, :place] = False
    return mask


FIRSTS: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], Hooks]] = {"own": (lambda x: x, {})}
FIRSTS |= {f"drawn {seed}": (lambda x, s=seed: with_first(x, drawn_token(s)), {}) for seed in SEEDS}
FIRSTS["own, twice"] = lambda x: torch.cat([x[:, :1], x[:, :-1]], dim=1), {}
FIRSTS[BOS] = lambda x: with_first(x, bos()), {}
FIRSTS[f"own; token {ALONE} sees itself alone"] = lambda x: x, {"mask": only_itself}


def judged_first(arm: str, x: torch.Tensor) -> dict:
    """Nats of the tokens behind position 1 in float, with inputs rounded by tensor, and with the first token or the
    first two kept; which tokens have a number in the spike's channel of over a tenth of its usual size, and the largest
    of these numbers, text by text."""
    (change, hooks), it = FIRSTS[arm], spike()
    x, stream = change(x), []
    seen = {"block": lambda y, layer: stream.append(y[0, :, it.channel].abs()) if layer == it.layer else None}
    found = nats(whole(), x, 1, hooks | seen)
    return {
        "nats": rounded(found),
        "rounded": rounded(nats(inputs(TENSOR), x, 1, hooks)),
        "kept_one": rounded(nats(inputs(keeping(lambda y: [0])), x, 1, hooks)),
        "kept_two": rounded(nats(inputs(keeping(lambda y: [0, 1])), x, 1, hooks)),
        "where": [(y > it.size / 10).nonzero()[:, 0].tolist() for y in stream],
        "size": rounded(torch.stack(stream).amax(dim=1), 1),
    }
