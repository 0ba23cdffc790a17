"""Lesson 09's attention by blocks and its ring against a mask, PyTorch's own, and a cache that keeps all.

    .venv/bin/python tests/benchmarks/bench_window.py

Prints two tables and the goals, and exits with status 1 if a goal is not met. The first is one forward pass of four
heads, 64 wide; the second the next token of a model behind so many. "sdpa" is
`torch.nn.functional.scaled_dot_product_attention`; a mask is made in the call, and counts in its time and memory.
"""

import statistics
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from measure import Goal, cpu_seconds, median_ratio, print_table, report, resident_bytes
from torch.nn import functional as F

from shared.memory import peak_bytes
from shared.rotary import RotaryAttention, no_positions
from shared.tiny_lm import TinyLM

sys.path.insert(0, str(Path(__file__).parents[2] / "09_sliding_window"))
from window import band_mask, banded_attention, masked_attention, new_ring

HEADS, WIDTH, WINDOW = 4, 64, 256
LENGTHS = (1024, 2048, 4096, 8192)
BEHIND = (512, 2048, 8192)  # tokens
ROUNDS = 5


def masked(q, k, v):
    """All scores and a mask."""
    return masked_attention(q, k, v, WINDOW)


def banded(q, k, v):
    """A block of queries at a time, and the keys in their windows."""
    return banded_attention(q, k, v, WINDOW)


def blocks(q, k, v):
    """A block of queries at a time, and every key."""
    return banded_attention(q, k, v)


def sdpa(q, k, v):
    """PyTorch's own, full."""
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def sdpa_masked(q, k, v):
    """PyTorch's own with a mask of the window."""
    return F.scaled_dot_product_attention(q, k, v, attn_mask=band_mask(q.shape[-2], WINDOW))


WAYS = (masked, banded, blocks, sdpa, sdpa_masked)


def make_call(way: Callable, n: int) -> Callable[[], torch.Tensor]:
    """A call of `way` on n tokens, the same for every way."""
    q, k, v = torch.randn(3, 1, HEADS, n, WIDTH, generator=torch.Generator().manual_seed(n))
    return torch.no_grad()(partial(way, q, k, v))


def attention_rows() -> list[dict]:
    """Each way at each length: time, memory, and how far the three with a window differ."""
    rows = []
    for n in LENGTHS:
        calls = {way.__name__: make_call(way, n) for way in WAYS}
        seconds = cpu_seconds(calls, ROUNDS)
        error = (calls["banded"]() - calls["sdpa_masked"]()).abs().max().item()
        for way in WAYS:
            name = way.__name__
            rows.append(
                {
                    "n": n,
                    "way": name,
                    "ms": 1e3 * statistics.median(seconds[name]),
                    "to_banded": median_ratio(seconds[name], seconds["banded"]),
                    "resident": resident_bytes(partial(make_call, way), n),
                    "tensors": peak_bytes(calls[name]),
                    "error": error,
                }
            )
    return rows


def step(model: TinyLM, cache, n: int) -> Callable[[], torch.Tensor]:
    """The next token behind n others, again and again: what came before is random."""
    for stored in (*cache.keys, *cache.values):
        stored.normal_()
    token = torch.zeros(1, 1, dtype=torch.long)

    @torch.inference_mode()
    def call():
        cache.length = n
        return model(token, cache, last=1)

    return call


def step_rows() -> list[dict]:
    """The next token, by a ring and by the house's cache."""
    torch.manual_seed(0)
    model = TinyLM(1000, max(BEHIND) + 1, 256, 4, 4, attention=RotaryAttention, positions=no_positions).eval()
    rings = {n: new_ring(model, [WINDOW] * 4) for n in BEHIND}
    wholes = {n: model.new_cache(1, n + 1) for n in BEHIND}
    calls = {("ring", n): step(model, cache, n) for n, cache in rings.items()}
    calls |= {("whole", n): step(model, cache, n) for n, cache in wholes.items()}
    seconds = cpu_seconds(calls, 5 * ROUNDS)
    return [
        {
            "n": n,
            "ring": 1e3 * statistics.median(seconds["ring", n]),
            "ratio": median_ratio(seconds["whole", n], seconds["ring", n]),
            "to_first": median_ratio(seconds["ring", n], seconds["ring", BEHIND[0]]),
            "bytes": rings[n].nbytes,
            "whole": wholes[n].keys.nbytes + wholes[n].values.nbytes,
        }
        for n in BEHIND
    ]


def goals(rows: list[dict], steps: list[dict]) -> list[Goal]:
    """What is promised."""
    longest = {row["way"]: row for row in rows if row["n"] == LENGTHS[-1]}
    n = f"n = {LENGTHS[-1]}"
    return [
        Goal(f"banded is faster than masked, {n}", longest["masked"]["to_banded"], 5, at_least=True),
        Goal(f"banded is faster than PyTorch's own with a mask, {n}", longest["sdpa_masked"]["to_banded"], 3, True),
        Goal(f"banded is faster than PyTorch's own, full, {n}", longest["sdpa"]["to_banded"], 1.2, True),
        Goal(
            f"banded's tensors as a share of masked's, {n}",
            longest["banded"]["tensors"] / longest["masked"]["tensors"],
            0.02,
        ),
        Goal(
            f"tensors by blocks, every key, as a share of masked's, {n}",
            longest["blocks"]["tensors"] / longest["masked"]["tensors"],
            0.06,
        ),
        Goal("banded's largest difference from PyTorch's own with the mask", max(row["error"] for row in rows), 1e-5),
        Goal(f"a ring's token is faster, behind {BEHIND[-1]}", steps[-1]["ratio"], 1.5, True),
        Goal(f"a ring's token behind {BEHIND[-1]}, by that behind {BEHIND[0]}", steps[-1]["to_first"], 1.2),
    ]


def show(rows: list[dict], steps: list[dict]) -> None:
    """Print both tables."""
    print(f"One forward pass: {HEADS} heads of {WIDTH}, float32, one thread, a window of {WINDOW}, blocks of 128")
    cells = [
        [
            str(row["n"]),
            row["way"],
            f"{row['ms']:.1f}",
            f"{row['to_banded']:.2f}",
            "-" if row["resident"] is None else f"{row['resident'] / 2**20:.1f}",
            f"{row['tensors'] / 2**20:.1f}",
        ]
        for row in rows
    ]
    print_table(["n", "way", "CPU ms", "x banded", "resident MiB", "tensors MiB"], cells)
    print(f"\nThe next token: 4 layers 256 wide, 4 heads, a window of {WINDOW}")
    cells = [
        [
            str(it["n"]),
            f"{it['ring']:.2f}",
            f"{it['ratio']:.2f}",
            *(f"{it[name] / 2**20:.1f}" for name in ("bytes", "whole")),
        ]
        for it in steps
    ]
    print_table(["behind", "ring CPU ms", "whole cache x ring", "ring MiB", "whole MiB"], cells)


def main() -> int:
    """Measure and print everything; returns the exit status."""
    rows, steps = attention_rows(), step_rows()
    show(rows, steps)
    return report(goals(rows, steps))


if __name__ == "__main__":
    sys.exit(main())
