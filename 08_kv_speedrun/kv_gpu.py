"""A decoder of a billion numbers on a GPU, step by step: python kv_sweep.py --gpu

Writes results/gpu.json; about 3 minutes on one NVIDIA H100. Two random Llamas in bfloat16 have about as many weights:
"deep" of sixteen layers, 2,048 wide (as Llama 3.2 1B), and "wide" of five, 4,096 wide (as Llama 3 8B): about the same
bytes, in a third of the calls. Each decodes in three ways:

    eager       Python hands each operation to the GPU
    graph       all of a step's operations are recorded once and handed over as one
    compiled    the same, after torch.compile has made fewer of them in each block

A graph replays the same addresses and shapes, so the cache has a fixed capacity and the position is a tensor on the
GPU: all columns are read, and a mask hides those that are empty. Without a GPU, --gpu --quick runs the same path small
on the CPU, and measures nothing.
"""

import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from kv_timing import significant
from kv_work import Work, work
from torch import nn

from shared.layers import SwiGLU
from shared.rotary import RotaryAttention, no_positions
from shared.sweeps import Sweep, main
from shared.tiny_lm import TinyLM

VOCABULARY, CONTEXT, CAPACITY = 32_768, 2048, 512
SHAPES = {  # width, layers, query heads, key/value heads, width inside the feed-forward
    "deep": (2048, 16, 32, 8, 8192),
    "wide": (4096, 5, 32, 8, 14_336),
    "small": (64, 2, 4, 2, 128),
}
CALLS, ROUNDS = 50, 5
ABOVE = 1.25  # times the copy bandwidth: reading alone is up to a tenth faster than copying, not a quarter
HERE = "cuda" if torch.cuda.is_available() else "cpu"


class StaticAttention(RotaryAttention):
    """The house's attention with nothing that a graph cannot replay: positions are looked up on the GPU, and the query
    heads of a group are the rows of one product with their key head. turns: see `turns`; the same for all layers."""

    turns: torch.Tensor

    def place(self, x, positions=None):
        """Queries and keys, (B, heads, T, d), each turned by its position."""
        T, d = x.shape[-2:]
        cos, sin = (self.turns[:T] if positions is None else self.turns[positions]).unbind(1)  # (T, d) each
        return torch.addcmul(x * cos, x.roll(d // 2, dims=-1), sin)

    def attend(self, q, k, v, mask):
        """q (B, H, T, d), k and v (B, K, S, d) -> (B, H, T, d)."""
        if q.shape[2] > 1:
            return super().attend(q, k, v, mask)
        grouped = q.unflatten(1, (self.n_kv_heads, -1)).squeeze(3)  # (B, K, H / K, d)
        return nn.functional.scaled_dot_product_attention(grouped, k, v, attn_mask=mask).flatten(1, 2)[:, :, None]


@dataclass(frozen=True)
class StaticLayer:
    """One layer's part: a new column goes where `at` says, and all columns are given."""

    keys: torch.Tensor
    values: torch.Tensor
    at: torch.Tensor
    mask: torch.Tensor

    def extend(self, k, v):
        """k, v (B, K, 1, d) -> (B, K, capacity, d) each."""
        return self.keys.index_copy_(2, self.at, k), self.values.index_copy_(2, self.at, v)


class StaticCache:
    """Room for `capacity` columns, all of which are read in each step. at: (1,), where the next token stands."""

    def __init__(self, model: TinyLM, batch: int, capacity: int):
        attention, like = model.blocks[0].attention, model.embedding.weight
        shape = (len(model.blocks), batch, attention.n_kv_heads, capacity, attention.d_head)
        self.keys, self.values = (torch.zeros(shape, dtype=like.dtype, device=like.device) for _ in range(2))
        self.at = torch.zeros(1, dtype=torch.long, device=like.device)
        self.batch, self.capacity = batch, capacity

    def positions(self, T: int) -> torch.Tensor:
        """Where the next token stands: (1,). Raises ValueError for more than one."""
        if T != 1:
            raise ValueError(f"{T} new tokens: a step of this cache has 1")
        return self.at

    def layers(self, T: int) -> list[StaticLayer]:
        """Each layer's part. mask: (1, 1, 1, capacity), added to the scores: 0 for columns that are filled, the new one
        included, and -inf for empty ones."""
        empty = torch.arange(self.capacity, device=self.at.device) > self.at
        mask = self.keys.new_zeros(1, 1, 1, self.capacity).masked_fill(empty, -torch.inf)
        return [StaticLayer(k, v, self.at, mask) for k, v in zip(self.keys, self.values, strict=True)]

    def advance(self, T: int) -> None:
        """A step stays where it is until `at` is set: a graph replays the same one."""


def turns(context: int, d: int, base: float) -> torch.Tensor:
    """What multiplies a query or key at each position, and what multiplies the other number of each pair: (context, 2,
    d), as in `shared.rotary.rotate`."""
    inv_freq = base ** (-torch.arange(0, d, 2, dtype=torch.float64) / d)
    angles = torch.arange(context)[:, None] * inv_freq  # (context, d / 2)
    cos, sin = angles.cos(), angles.sin()
    return torch.stack([torch.cat([cos, cos], dim=-1), torch.cat([-sin, sin], dim=-1)], dim=1)


def random_model(shape: str, device: str, dtype: torch.dtype = torch.bfloat16) -> TinyLM:
    """A Llama of one of `SHAPES`, ready to be timed."""
    width, layers, heads, kv_heads, hidden = SHAPES[shape]
    attention = partial(StaticAttention, n_kv_heads=kv_heads, bias=False)
    parts = {"attention": attention, "feed_forward": partial(SwiGLU, d_hidden=hidden), "norm": nn.RMSNorm}
    torch.manual_seed(0)
    with torch.device(device):
        model = TinyLM(VOCABULARY, CONTEXT, width, layers, heads, positions=no_positions, **parts)
    table = turns(CONTEXT, width // heads, model.blocks[0].attention.rotary_base).to(device, dtype)
    for block in model.blocks:
        block.attention.turns = table  # no buffer: it is no weight that a step reads
    return model.to(dtype).eval()


# Time and the machine


def seconds(step: Callable[[], object], device: str, calls: int = CALLS) -> float:
    """Seconds of one call, of some in a row. On a GPU its own events stand around them, and all is waited for: a call
    returns long before the work is done."""
    step()
    if device == "cpu":
        start = time.perf_counter()
        for _ in range(calls):
            step()
        return (time.perf_counter() - start) / calls
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    first.record()
    for _ in range(calls):
        step()
    last.record()
    last.synchronize()
    return first.elapsed_time(last) / 1000 / calls


@torch.inference_mode()
def peaks(device: str) -> dict[str, float]:
    """Bytes a second that a copy of 1 GiB reads and writes, and FLOPs a second of a large product in bfloat16."""
    numbers, n, calls = (2**29, 8192, 10) if device == "cuda" else (2**22, 256, 3)
    source = torch.ones(numbers, dtype=torch.bfloat16, device=device)
    target = torch.empty_like(source)
    a = torch.randn(n, n, dtype=torch.bfloat16, device=device)  # zeros would draw less power, and be faster
    copy = min(seconds(lambda: target.copy_(source), device, calls) for _ in range(ROUNDS))
    product = min(seconds(lambda: a @ a, device, calls) for _ in range(ROUNDS))
    return {"copy": significant(2 * source.nbytes / copy), "matmul": significant(2 * n**3 / product)}


def bandwidth(found: float, moved: float, copy: float) -> float:
    """Bytes a second of a step that reads so many bytes. Raises ValueError for more than the memory has: the time was
    then taken before the work was done."""
    if not 0 < moved / found <= ABOVE * copy:
        raise ValueError(
            f"{moved / found:.3g} bytes a second, and a copy has {copy:.3g}: expected at most {ABOVE} times that; was "
            "the time taken without torch.cuda.synchronize()?"
        )
    return moved / found


# The steps


def captured(step: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
    """The same step, recorded once and replayed as one. It is warmed up aside, as graphs want it. Without a GPU: the
    step itself."""
    if HERE == "cpu":
        return step
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = step()

    def replay():
        graph.replay()
        return result

    return replay


def decoding(model: TinyLM, batch: int) -> tuple[Callable[[], torch.Tensor], Work]:
    """One step at the cache's last column but one, and what it computes and reads: all columns, empty ones too."""
    cache = StaticCache(model, batch, CAPACITY)
    for stored in (cache.keys, cache.values):
        stored.normal_()
    cache.at.fill_(CAPACITY - 2)
    tokens = torch.randint(VOCABULARY, (batch, 1), device=cache.at.device)
    return lambda: model(tokens, cache, last=1), work(model, 1, CAPACITY - 1, batch)


def prefilling(model: TinyLM, T: int) -> tuple[Callable[[], torch.Tensor], Work]:
    """One pass over T tokens, and what it computes and reads."""
    tokens = torch.randint(VOCABULARY, (1, T), device=model.embedding.weight.device)
    return lambda: model(tokens, last=1), work(model, T)


def arms(model: TinyLM, job: dict) -> Iterator[tuple[dict, Callable, Work]]:
    """Names, step and work of each way and size."""
    for size in job["sizes"]:
        step, counted = (decoding if job["pass"] == "decode" else prefilling)(model, size)
        for way in job["ways"]:
            yield {"way": way, "size": size}, step if way == "eager" else captured(step), counted


@torch.inference_mode()
def run(job: dict) -> dict:
    """Some ways in turn. job: shape; pass, "decode" or "prefill"; ways; sizes, of rows or of tokens; calls."""
    model = random_model(job["shape"], HERE)
    if "compiled" in job["ways"]:
        for block in model.blocks:
            block.compile(dynamic=False)
    machine, found = peaks(HERE), list(arms(model, job))
    times = [[seconds(step, HERE, job["calls"]) for _, step, _ in found] for _ in range(ROUNDS)]  # rounds, then arms
    times = [[significant(one) for one in each] for each in zip(*times, strict=True)]
    rates = [
        bandwidth(statistics.median(each), counted.bytes, machine["copy"])
        for each, (_, _, counted) in zip(times, found, strict=True)
    ]
    return {
        "arms": [names for names, _, _ in found],
        "counts": [{"flops": counted.flops, "bytes": counted.bytes} for _, _, counted in found],
        "tokens": [int(step()[0, -1].argmax()) for _, step, _ in found],
        "seconds": times,
        "share": [significant(rate / machine["copy"]) for rate in rates],  # of the copy bandwidth
        "peaks": machine,
    }


def job(shape: str, ways: list[str], kind: str, sizes: list[int], calls: int = CALLS) -> dict:
    """A job by its settings."""
    return {"shape": shape, "ways": ways, "pass": kind, "sizes": sizes, "calls": calls}


BATCHES = [1, 2, 4, 8, 16, 32, 64]
SWEEP = Sweep(
    __file__,
    "gpu",
    run,
    jobs=[
        it
        for shape in ("deep", "wide")
        for it in (
            job(shape, ["eager", "graph"], "decode", BATCHES),
            job(shape, ["compiled"], "decode", [1]),
            job(shape, ["eager"], "prefill", [512, 2048]),
        )
    ],
    quick=[job("small", ["eager", "graph"], "decode", [1, 2], 2), job("small", ["eager"], "prefill", [8], 2)],
    settings={"command": "python kv_sweep.py --gpu"},
    tolerance={"seconds": math.inf, "share": math.inf, "peaks": math.inf},  # no two runs agree in these
    device=HERE,
)


def main_gpu() -> int:
    """The command line of `shared.sweeps`; where there is no GPU, only --quick."""
    if HERE == "cpu":
        print("PyTorch sees no NVIDIA GPU here (torch.cuda.is_available() is False): nothing is measured on one.")
        if "--quick" not in sys.argv:
            return 1
        print("The same path, small, on the CPU; its times say nothing of a GPU:")
    return main(SWEEP)
