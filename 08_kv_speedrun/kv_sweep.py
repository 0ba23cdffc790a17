"""How long a pass takes, by width, batch, tokens and cached length, on random models: python kv_sweep.py

Writes results/regimes.json, which the notebook shows; about 7 minutes on one core. The models are Llamas of four layers
with 1,024 tokens, 32 to 2,048 wide, each matrix laid out with its longer side contiguous; CPU seconds of one thread.

With --gpu, results/gpu.json instead, on a GPU alone: see `kv_gpu`.

The rule of `regime` was written before the numbers.
"""

import importlib
import math
import statistics
import sys
from functools import partial

import torch
from kv_timing import Arm, flat, measure, passes
from kv_work import lay_out, work
from torch import nn

from shared.layers import SwiGLU
from shared.rotary import RotaryAttention, no_positions
from shared.sweeps import Sweep, main
from shared.tiny_lm import TinyLM

VOCABULARY, LAYERS, D_HEAD = 1024, 4, 64
WIDTHS = [32, 64, 128, 256, 512, 1024, 2048]
BARE = {"width": 32, "T": 1, "batch": 1, "cached": 16}  # next to no bytes and FLOPs: its time is overhead
UNEXPLAINED = 3  # times the largest term: a step that takes longer is none of the three


def random_model(width: int, context: int) -> TinyLM:
    """A Llama ready to be timed; its feed-forward is three times as wide inside."""
    torch.manual_seed(0)
    attention, feed_forward = partial(RotaryAttention, bias=False), partial(SwiGLU, d_hidden=3 * width)
    parts = {"attention": attention, "feed_forward": feed_forward, "norm": nn.RMSNorm, "positions": no_positions}
    return lay_out(TinyLM(VOCABULARY, context, width, LAYERS, max(1, width // D_HEAD), **parts)).eval()


def arm(width: int, T: int, batch: int, cached: int) -> Arm:
    """A pass over T new tokens of each row, behind a cache that is filled with random numbers."""
    model = random_model(width, cached + T)
    cache = model.new_cache(batch)
    for stored in (cache.keys, cache.values):
        nn.init.normal_(stored)
    cache.length = cached
    tokens = torch.randint(VOCABULARY, (batch, T))
    counted = work(model, T, cached, batch)
    return Arm(
        {"width": width, "T": T, "batch": batch, "cached": cached},
        {"flops": counted.flops, "bytes": counted.bytes},
        passes(model, tokens, cache),
        lambda: cache.step_back(T),
    )


def run(job: dict) -> dict:
    """Models of some widths in turn, behind the bare one. job: T, batch, cached, widths, rounds."""
    setting = {name: job[name] for name in ("T", "batch", "cached")}
    return measure([arm(**BARE), *(arm(width, **setting) for width in job["widths"])], job["rounds"])


def table(row: dict) -> list[dict]:
    """The arms of a stored row, each with `overhead`, the seconds of the bare one."""
    bare, *arms = flat(row)
    return [arm | {"overhead": statistics.median(bare["seconds"])} for arm in arms]


def terms(row: dict) -> dict[str, float]:
    """Seconds that an arm of `table` takes at least, by each of the three."""
    bandwidth, compute = row["bytes"] / row["read"], row["flops"] / row["matmul"]
    return {"overhead": row["overhead"], "bandwidth": bandwidth, "compute": compute}


def predicted(row: dict) -> float:
    """Seconds by the roofline: until all bytes are read, or all FLOPs done, whichever comes last."""
    return max(row["bytes"] / row["read"], row["flops"] / row["matmul"])


def regime(row: dict) -> str:
    """Which of `terms` explains the time: the largest; "none" if the time is over three times that."""
    found = terms(row)
    name = max(found, key=found.get)
    return name if statistics.median(row["seconds"]) <= UNEXPLAINED * found[name] else "none"


def jobs() -> list[dict]:
    """Decoding at four batches, and 256 tokens at two, each at two cached lengths. Large ones are left out that take
    gigabytes or minutes."""
    settings = [(1, batch, cached) for cached in (16, 1024) for batch in (1, 4, 16, 64)]
    settings += [(256, batch, cached) for cached in (16, 1024) for batch in (1, 4)]
    return [
        {"T": T, "batch": batch, "cached": cached, "widths": WIDTHS if batch * T <= 256 and batch < 16 else WIDTHS[:-1]}
        | {"rounds": 5}
        for T, batch, cached in settings
    ]


SWEEP = Sweep(
    __file__,
    "regimes",
    run,
    jobs=jobs(),
    quick=[{"T": T, "batch": 2, "cached": 8, "widths": [32, 64], "rounds": 2} for T in (1, 4)],
    cost=lambda job: job["T"] * job["batch"] + job["batch"] * job["cached"] / 50 + 40,
    comparable=lambda job: job["T"] == 1 and job["batch"] < 16,
    tolerance={"seconds": math.inf, "peaks": math.inf},  # no two runs agree in these; in counts they must
)

if __name__ == "__main__":
    if "--gpu" in sys.argv:
        sys.argv.remove("--gpu")
        sys.exit(importlib.import_module("kv_gpu").main_gpu())  # so named, its code does not date the rows of this one
    sys.exit(main(SWEEP))
