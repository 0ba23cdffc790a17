"""What shared heads save when one more token is generated, by how the product is written: python real_decode_sweep.py

Writes results/real_decode.json, which the notebook shows; about 2 minutes on one core. CPU seconds of one thread, the
arms in turn. The past is not read but filled with random numbers: no time hangs on them.

    product     one layer's attention: 9 query heads, 64 wide, of one new token for each text
    step        the whole of SmolLM2-135M-Instruct, its 3 key and value heads repeated to 9, as they are, or their mean

    grouped, repeated, expanded     as `gqa` has them; with as many key heads as query heads nothing is shared
    copied                          repeated into memory that is kept: without what it costs to ask for new pages
    fused                           PyTorch's `scaled_dot_product_attention(enable_gqa=True)`
"""

import copy
import math
import sys
import time
from collections.abc import Callable
from functools import partial

import torch
from gqa import attend_expanded, attend_grouped, attend_repeated, pool_model, replace_qkv
from gqa_real import model_and_tokenizer
from torch import nn
from torch.nn import functional as F

from shared.sweeps import Sweep, main
from shared.texts import FILES

HEADS, WIDTH = 9, 64
KV_HEADS, ROUNDS, TURN = (9, 3, 1), 7, 0.05  # seconds of an arm's turn, or one call


def attend_fused(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """What each head has read, of one new token."""
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)


KEPT = {}  # by what is copied there, and its shape


def attend_copied(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """What each head has read, after a copy of all keys and values for each query head into the same memory."""
    B, K, S, d = k.shape
    copies = []
    for name, x in (("k", k), ("v", v)):
        copy = KEPT.setdefault((name, B, S), x.new_empty(B, q.shape[1], S, d))
        copy.view(B, K, -1, S, d).copy_(x[:, :, None])
        copies.append(copy)
    return attend_grouped(q, *copies, mask)


SHARED = {"repeated": attend_repeated, "expanded": attend_expanded, "copied": attend_copied}
WAYS = {"grouped": attend_grouped, "fused": attend_fused} | SHARED


def arms_of(heads: int) -> dict[str, Callable]:
    """Those that make sense: where nothing is shared nobody copies."""
    return {name: way for name, way in WAYS.items() if heads < HEADS or name not in SHARED}


@torch.inference_mode()
def run(job: dict) -> dict:
    """job: part, batch, tokens. For each number of key and value heads and each way: seconds of each round, and bytes
    of keys and values that are stored."""
    arms = PARTS[job["part"]](job["batch"], job["tokens"])
    found = in_turn([step for _, _, step in arms])
    return {
        "arms": [names for names, _, _ in arms],
        "bytes": [stored for _, stored, _ in arms],
        "seconds": [[float(f"{each:.4g}") for each in rounds] for rounds in found],
    }


Arm = tuple[dict, int, Callable[[], object]]  # names, bytes that are stored, a call


def product(batch: int, tokens: int) -> list[Arm]:
    """Of one layer."""
    generator, arms = torch.Generator().manual_seed(0), []
    for heads in KV_HEADS:
        q, k, v = (torch.randn(batch, *it, WIDTH, generator=generator) for it in ((HEADS, 1), *[(heads, tokens)] * 2))
        for name, attend in arms_of(heads).items():
            arms.append(({"kv_heads": heads, "way": name}, k.nbytes + v.nbytes, partial(attend, q, k, v)))
    return arms


def step(batch: int, tokens: int) -> list[Arm]:
    """Of the whole model: the token behind a cache that is full but for one column."""
    arms = []
    for heads in KV_HEADS:
        model = with_kv_heads(heads)
        cache = filled(model, batch, tokens)
        stored = cache.keys.nbytes + cache.values.nbytes
        for name, attend in arms_of(heads).items():
            call = partial(one_more, reading(model, attend), cache)
            arms.append(({"kv_heads": heads, "way": name}, stored, call))
    return arms


def with_kv_heads(n: int) -> nn.Module:
    """The model with its heads repeated, which is the same model with a larger cache; as it is; or pooled."""
    model, _ = model_and_tokenizer()
    if n < model.blocks[0].attention.n_kv_heads:
        return pool_model(model, n)
    model = copy.deepcopy(model, {id(parameter): parameter for parameter in model.parameters()})
    for block in model.blocks:
        repeat_heads(block.attention, n)
    return model


def repeat_heads(layer: nn.Module, n: int) -> None:
    """Store each key and value head several times, next to itself, so that there are n."""
    heads = layer.qkv.weight.unflatten(0, (-1, layer.d_head))
    q, k, v = heads.split_with_sizes([layer.n_heads, layer.n_kv_heads, layer.n_kv_heads])
    k, v = (it.repeat_interleave(n // layer.n_kv_heads, dim=0) for it in (k, v))
    replace_qkv(layer, n, torch.cat([q, k, v]).flatten(0, 1), None)


def reading(model: nn.Module, attend: Callable) -> nn.Module:
    """The same parameters, with attention read by one of `WAYS`."""
    model = copy.deepcopy(model, {id(parameter): parameter for parameter in model.parameters()})
    for block in model.blocks:
        block.attention.attend = attend
    return model


def filled(model: nn.Module, batch: int, tokens: int):
    """A cache with random keys and values, and room for one more."""
    generator = torch.Generator().manual_seed(0)
    cache = model.new_cache(batch, tokens)
    for stored in (cache.keys, cache.values):
        stored.normal_(generator=generator)
    cache.advance(tokens - 1)
    return cache


def one_more(model: nn.Module, cache) -> torch.Tensor:
    """The logits behind one token, which is then taken back."""
    logits = model(torch.zeros(cache.batch, 1, dtype=torch.long), cache)
    cache.step_back(1)
    return logits


def in_turn(steps: list[Callable[[], object]]) -> list[list[float]]:
    """CPU seconds of a call of each in each round, the fastest of its turn. A turn's first call is not counted: it
    brings back to the processor's caches what the others have driven out."""
    for call in steps:
        call()
    calls = [max(1, round(TURN / seconds(call))) for call in steps]
    rounds = [[turn(call, n) for call, n in zip(steps, calls, strict=True)] for _ in range(ROUNDS)]
    return [list(each) for each in zip(*rounds, strict=True)]


def turn(call: Callable[[], object], n: int) -> float:
    """The fastest of n calls after one."""
    call()
    return min(seconds(call) for _ in range(n))


def seconds(call: Callable[[], object]) -> float:
    """CPU seconds of a call."""
    start = time.process_time()
    call()
    return max(time.process_time() - start, 1e-6)  # the clock's own resolution


PARTS = {"product": product, "step": step}
JOBS = [("product", batch, tokens) for batch in (1, 8) for tokens in (2048, 8192)] + [("step", 1, 8192)]

SWEEP = Sweep(
    __file__,
    "real_decode",
    run,
    jobs=[dict(zip(("part", "batch", "tokens"), job, strict=True)) for job in JOBS],
    quick=[{"part": "product", "batch": 2, "tokens": 16}],
    cost=lambda job: job["batch"] * job["tokens"] * (8 if job["part"] == "step" else 1),
    comparable=lambda job: job["part"] == "product" and job["batch"] == 1,
    tolerance={"seconds": math.inf},  # no two runs agree in these; in bytes they must
    files=FILES,
)

if __name__ == "__main__":
    sys.exit(main(SWEEP))
