"""Many responses to a prompt, drawn from SmolLM2-135M-Instruct (4-bit weights) at temperature 1.

    drawn = draws(model, [prompt] * 256, range(256), most=48, stop=ends())
    drawn[0].ids, drawn[0].log_p        # what was said, its stop among it where it stopped; nats of each token

A response that has not stopped after `most` tokens is cut off there, and is a response like any other: what is said of
best-of-n is said of the policy that ends there. No stop is ever put in, so that its log-probability is that of what was
drawn.
"""

import functools
from collections.abc import Collection, Sequence
from typing import NamedTuple

import torch

from shared.cache import KVCache
from shared.generation import seeded, stream
from shared.gguf_tokenizer import END
from shared.smollm2 import load_smollm2
from shared.tiny_lm import TinyLM

ENDS_TEXT = "<|endoftext|>"


class Drawn(NamedTuple):
    """ids: of a response. log_p: of each of its tokens, in nats. stops: the last of them is a stop."""

    ids: list[int]
    log_p: list[float]
    stops: bool


class Prompted:
    """A model for `shared.generation` that computes the prompts once in the cache, not once for each row."""

    takes_cache = True

    def __init__(self, model: TinyLM, prompts: Sequence[Sequence[int]]):
        self.model, self.prompts, self.context = model, list(map(tuple, prompts)), model.context

    def new_cache(self, batch: int, capacity: int, padding: torch.Tensor | None = None) -> KVCache:
        different = list(dict.fromkeys(self.prompts))
        longest = max(map(len, different))
        cache = self.model.new_cache(batch, capacity, padding)
        cache.keep([self.prompts.index(each) for each in different])
        if longest > 1:
            before = [[0] * (longest - len(each)) + list(each[:-1]) for each in different]
            self.model(torch.tensor(before), cache, last=1)
        cache.keep([different.index(each) for each in self.prompts])
        return cache

    def __call__(self, ids: torch.Tensor, cache: KVCache, last: int) -> torch.Tensor:
        return self.model(ids, cache, last=last)


@functools.cache
def model_and_tokenizer():
    """The real model, read once in a process, and its tokenizer."""
    return load_smollm2()


def ends() -> frozenset[int]:
    """The tokens that end a turn or a text."""
    return frozenset(model_and_tokenizer()[1].specials[name] for name in (END, ENDS_TEXT))


def newlines() -> frozenset[int]:
    """The tokens in which a line ends."""
    return frozenset(i for i, token in enumerate(model_and_tokenizer()[1].vocab) if b"\n" in token)


def draws(
    model: TinyLM,
    prompts: Sequence[Sequence[int]],
    seeds: Sequence[int],
    most: int,
    stop: Collection[int],
    rows: int = 320,
) -> list[Drawn]:
    """A response to each prompt, of up to `most` tokens, by its own seed; up to `rows` at once. What a seed draws does
    not hang on the other rows, but for rounding."""
    found = []
    for at in range(0, len(seeds), rows):
        asked, drawn_by = prompts[at : at + rows], seeded(seeds[at : at + rows])
        ids, log_p = ([[] for _ in asked] for _ in range(2))
        for step in stream(Prompted(model, asked), asked, most, stop=stop, generators=drawn_by):
            for row, token, its in zip(step.rows, step.tokens.tolist(), step.log_p.tolist(), strict=True):
                ids[row].append(token)
                log_p[row].append(its)
        found += [Drawn(*each, each[0][-1] in stop) for each in zip(ids, log_p, strict=True)]
    return found
