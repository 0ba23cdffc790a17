"""What a step of a real model costs, by cache, weights, layers, batch and new tokens: python real_kv_sweep.py

Writes results/real_kv.json, which the notebook shows; about 9 minutes on one core. SmolLM2-135M-Instruct reads a text
and is timed on the next tokens, in CPU seconds of one thread. Each group changes one thing and leaves the rest:

    caches    how keys and values are kept, by length and batch; "none" reads the whole text again
    kinds     how the weights are stored: fewer bytes at equal FLOPs
    layers    how many of the 30 layers are different ones: few fit in the processor's cache; FLOPs and calls are equal
    batch     rows: more FLOPs at equal bytes of weights
    tokens    new tokens in one pass, to verify or to prefill: the same

"rows" are the weights as they come, each output's contiguous; "columns" the same, each matrix with its longer side
contiguous: the same bytes in another order.
"""

import copy
import functools
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import torch
from kv_cache import ConcatCache, PagedCache, PagePool, PreallocatedCache, Request
from kv_timing import Arm, measure, passes
from kv_weights import sharing, store_as
from kv_work import Work, lay_out, work
from torch import nn

from shared.smollm2 import load_smollm2
from shared.sweeps import Sweep, main
from shared.texts import FILES, texts
from shared.tiny_lm import TinyLM

PAGE = 16  # columns
READ = 512  # a longer past is not read but filled with random numbers: no time hangs on them
VERIFY = 16  # of up to so many new tokens all get logits, as verifying needs; of more the last, as of a prompt
LAID = ("rows", "columns")
KINDS = (*LAID, "bfloat16", "int8", "int8 x int8", "4-bit")

Past = tuple[torch.Tensor, torch.Tensor]  # keys and values of what came before: (layers, 1, K, cached, d) each


@functools.cache
def model_and_tokenizer():
    """The real model, read once in a process."""
    return load_smollm2()


def stored_as(kind: str) -> TinyLM:
    """The real model with its weights as one of `KINDS` says."""
    model, _ = model_and_tokenizer()
    if kind == "rows":
        return model
    if kind == "columns":
        return lay_out(copy.deepcopy(model))
    return store_as(sharing(model), kind)


def drawn_from(model: TinyLM, n: int) -> TinyLM:
    """A model of as many layers, which are the first n of this one in turn: no weight is copied."""
    other = copy.deepcopy(model, {id(part): part for part in model.children()})
    other.blocks = nn.ModuleList(model.blocks[i % n] for i in range(len(model.blocks)))
    return other


def different_bytes(model: TinyLM) -> int:
    """Bytes of all weights, each once. Layers that are used again come from the processor's cache, if they fit in."""
    return sum(parameter.nbytes for parameter in model.parameters())


def ids(start: int, stop: int) -> torch.Tensor:
    """Tokens of a text, from one place to another: (1, stop - start). It begins anew where it ends."""
    tokens = text_ids()
    return tokens[torch.arange(start, stop) % len(tokens)][None]


@functools.cache
def text_ids() -> torch.Tensor:
    """The whole text."""
    return torch.tensor(model_and_tokenizer()[1].encode(texts()["essay"]))


@torch.inference_mode()
def past(model: TinyLM, cached: int) -> Past:
    """What the model keeps of the text's beginning; random numbers where that is long."""
    cache = model.new_cache(1, cached)
    if cached <= READ:
        model(ids(0, cached), cache, last=1)
    else:
        generator = torch.Generator().manual_seed(0)
        for stored in (cache.keys, cache.values):
            stored.normal_(generator=generator)
    return cache.keys, cache.values


def paged(layers, batch, heads, capacity, d, *, dtype) -> PagedCache:
    """A cache of pages, with a pool for as many columns."""
    pool = PagePool(layers, batch * -(-capacity // PAGE), PAGE, heads, d, dtype=dtype)
    return PagedCache([Request(pool) for _ in range(batch)])


def concat(layers, batch, heads, capacity, d, *, dtype) -> ConcatCache:
    """A cache that grows, and needs no capacity."""
    return ConcatCache(layers, batch, heads, d, dtype=dtype)


CACHES = {"concat": concat, "preallocated": PreallocatedCache, "paged": paged}  # and the house's own


def filled(model: TinyLM, kind: str, before: Past, batch: int, T: int):
    """A cache of a kind that holds the same past in each row, with room for T tokens more."""
    layers, _, heads, cached, d = before[0].shape
    if kind == "house":
        cache = model.new_cache(batch, cached + T)
    else:
        cache = CACHES[kind](layers, batch, heads, cached + T, d, dtype=before[0].dtype)
    for part, k, v in zip(cache.layers(cached), *before, strict=True):
        part.extend(*(each.expand(batch, -1, -1, -1) for each in (k, v)))
    cache.advance(cached)
    return cache


def undo(cache, T: int) -> Callable[[], None]:
    """What takes T tokens back. A cache that grows goes on growing, as in generation: memory that it gave back to the
    system it would have to ask for again."""
    return (lambda: None) if isinstance(cache, ConcatCache) else lambda: cache.step_back(T)


def arm(model: TinyLM, before: Past, *, weights="rows", layers=30, cache="house", batch=1, T=1) -> Arm:
    """A pass over the T tokens of the text that follow the past, the same in each row."""
    cached, last = before[0].shape[3], T if T <= VERIFY else 1
    held, tokens = filled(model, cache, before, batch, T), ids(cached, cached + T).repeat(batch, 1)
    names = {"weights": weights, "layers": layers, "cache": cache, "batch": batch, "T": T, "last": last}
    counted = work(model, T, cached, batch, last)
    follow = partial(model, tokens, held, last=last)  # at the positions behind the past
    return timed(names, counted, follow, passes(model, tokens, held, last), undo(held, T))


def recomputed(model: TinyLM, cached: int) -> Arm:
    """The next token without a cache: the whole text again."""
    tokens = ids(0, cached + 1)
    names = {"weights": "rows", "layers": 30, "cache": "none", "batch": 1, "T": cached + 1, "last": 1}
    again = partial(model, tokens, last=1)
    return timed(names, work(model, cached + 1), again, again, lambda: None)


@torch.inference_mode()
def timed(names: dict, counted: Work, first: Callable, step: Callable, reset: Callable) -> Arm:
    """An arm with what is known of it: FLOPs, bytes, and the likeliest token by a first step."""
    token = int(first()[0, -1].argmax())
    reset()
    return Arm(names, {"flops": counted.flops, "bytes": counted.bytes, "token": token}, step, reset)


# The groups: each gives its arms


def _caches(job: dict) -> Iterator[Arm]:
    model, cached = stored_as("rows"), job["cached"]
    before = past(model, cached)
    if cached <= READ:
        yield recomputed(model, cached)
    for batch in job["sizes"]:
        for cache in (*CACHES, "house"):
            yield arm(model, before, cache=cache, batch=batch)


def _weights(kinds: Sequence[str], varied: str, job: dict) -> Iterator[Arm]:
    for kind in kinds:
        model = stored_as(kind)
        before = past(model, job["cached"])
        for size in job["sizes"]:
            yield arm(model, before, weights=kind, **{varied: size})


def _layers(job: dict) -> Iterator[Arm]:
    for kind in LAID:
        whole = stored_as(kind)
        before = past(whole, job["cached"])
        for n in job["sizes"]:
            model = drawn_from(whole, n)
            made = arm(model, before, weights=kind, layers=n)
            yield replace(made, counts=made.counts | {"different": different_bytes(model)})


GROUPS = {
    "caches": _caches,
    "kinds": partial(_weights, KINDS, "batch"),
    "layers": _layers,
    "batch": partial(_weights, (*LAID, "4-bit"), "batch"),
    "tokens": partial(_weights, (*LAID, "4-bit"), "T"),
}


def run(job: dict) -> dict:
    """A group's arms in turn. job: group, how many tokens are cached, the sizes that the group goes through, rounds."""
    return measure(list(GROUPS[job["group"]](job)), job["rounds"])


ROUNDS = 5
SIZES = [
    *(("caches", cached, [1, 8] if cached <= 2048 else [1]) for cached in (16, 128, 512, 2048, 8000)),
    *(("kinds", cached, [1]) for cached in (128, 512)),
    ("layers", 128, [1, 5, 15, 30]),
    ("batch", 128, [1, 2, 4, 8, 16, 32]),
    ("tokens", 128, [1, 2, 4, 8, 16, 64, 256, 512]),
]
QUICK = [("caches", 20, [2]), ("layers", 8, [1])]  # a copy of the model for each kind of weights takes its time


def jobs(settings: list[tuple], rounds: int) -> list[dict]:
    """A job for each setting."""
    return [{"group": group, "cached": cached, "sizes": sizes, "rounds": rounds} for group, cached, sizes in settings]


SWEEP = Sweep(
    __file__,
    "real_kv",
    run,
    jobs=jobs(SIZES, ROUNDS),
    quick=jobs(QUICK, 1),
    cost=lambda job: {"batch": 3, "tokens": 6}.get(job["group"], 1 + job["cached"] / 1000),
    comparable=lambda job: job["cached"] <= READ and job["group"] in ("caches", "layers"),  # float32, a minute at most
    tolerance={"seconds": math.inf, "peaks": math.inf},  # no two runs agree in these; in counts they must
    files=FILES,
)

if __name__ == "__main__":
    sys.exit(main(SWEEP))
