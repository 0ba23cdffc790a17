"""Lesson 04's attention against PyTorch's own: time and memory of one causal forward pass.

    .venv/bin/python tests/benchmarks/bench_attention.py

Prints a table and the goals, and exits with status 1 if a goal is not met. "whole" makes its causal mask in the call,
as `MultiHeadAttention` does. The loop takes n^2 steps of Python, so it runs on the short lengths only.
"""

import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from measure import Goal, cpu_seconds, median_ratio, print_table, report, resident_bytes
from torch.nn import functional as F

from shared.memory import peak_bytes

sys.path.insert(0, str(Path(__file__).parents[2] / "04_attention_lab"))
from attention import attention, attention_loop, attention_tiled, causal_mask

N_HEADS, WIDTH, TILE = 4, 64, 256
SHORT, LONG = (16, 32), (512, 1024, 2048, 4096)  # tokens


def pytorch(q, k, v):
    """PyTorch's own; on a CPU it takes its fused path for tensors with four axes only, which these have."""
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def loop(q, k, v):
    """One query and one key at a time."""
    return attention_loop(q, k, v, causal_mask(q.shape[-2]))


def whole(q, k, v):
    """All scores at once."""
    return attention(q, k, v, causal_mask(q.shape[-2]))


def tiled(q, k, v):
    """A tile of the scores at a time."""
    return attention_tiled(q, k, v, causal=True, tile=TILE)


def make_call(way: Callable, n: int) -> Callable[[], torch.Tensor]:
    """A call of `way` on n tokens, without gradients: q, k and v are (1, N_HEADS, n, WIDTH), the same for every way."""
    q, k, v = torch.randn(3, 1, N_HEADS, n, WIDTH, generator=torch.Generator().manual_seed(n))
    return torch.no_grad()(partial(way, q, k, v))


@dataclass(frozen=True)
class Row:
    """One way on n tokens. Memory is on top of the inputs, None where it was not measured.

    seconds: CPU, the median. to_pytorch, to_whole: time as a multiple, the median of the rounds' ratios.
    resident: bytes at the peak. tensors: bytes of tensors at the peak, without a fused kernel's scratch memory.
    error: the largest difference from PyTorch's result.
    """

    n: int
    way: str
    seconds: float
    to_pytorch: float
    to_whole: float
    error: float
    resident: int | None = None
    tensors: int | None = None


def measure(n: int, ways: Sequence[Callable], rounds: int, memory: bool) -> list[Row]:
    """A row for each way on n tokens; `pytorch` and `whole` must be among them."""
    calls = {way.__name__: make_call(way, n) for way in ways}
    seconds = cpu_seconds(calls, rounds)
    expected = calls["pytorch"]()
    return [
        Row(
            n=n,
            way=name,
            seconds=statistics.median(seconds[name]),
            to_pytorch=median_ratio(seconds[name], seconds["pytorch"]),
            to_whole=median_ratio(seconds[name], seconds["whole"]),
            error=(call() - expected).abs().max().item(),
            resident=resident_bytes(partial(make_call, way), n) if memory else None,
            tensors=peak_bytes(call) if memory else None,
        )
        for way, (name, call) in zip(ways, calls.items(), strict=True)
    ]


def goals(rows: Sequence[Row]) -> list[Goal]:
    """What is promised: tiled's time from 1024 tokens on, its memory on the longest length, every way's error."""
    longest = max(row.n for row in rows)
    time = _worst(row.to_pytorch for row in rows if row.way == "tiled" and row.n >= 1024)
    few, many = (next(row for row in rows if (row.n, row.way) == (longest, way)) for way in ("tiled", "whole"))
    promised = [Goal("tiled's time as a multiple of pytorch's, worst from n = 1024 on", time, 3)]
    if few.resident is not None:
        share = few.resident / many.resident
        promised.append(Goal(f"tiled's resident memory as a share of whole's, n = {longest}", share, 0.05))
    share = few.tensors / many.tensors
    promised.append(Goal(f"tiled's tensors as a share of whole's, n = {longest}", share, 0.05))
    promised.append(Goal("largest difference from pytorch", _worst(row.error for row in rows), 1e-5))
    return promised


def _worst(values):
    """The largest; NaN if one is NaN, which Python's max can miss."""
    return torch.tensor(list(values), dtype=torch.float64).max().item()


def show(rows: Sequence[Row]) -> None:
    """Print the rows as a table; each x column is a multiple of what it names."""
    multiples = ["x pytorch", "x whole"]
    head = ["n", "way", "CPU ms", *multiples, "resident MB", *multiples, "tensors MB", "x whole", "error"]
    base = {(row.n, row.way): row for row in rows}
    print_table(
        head,
        [
            [
                str(row.n),
                row.way,
                f"{1e3 * row.seconds:.2f}",
                f"{row.to_pytorch:.2f}",
                f"{row.to_whole:.3f}",
                *_memory(row.resident, base[row.n, "pytorch"].resident, base[row.n, "whole"].resident),
                *_memory(row.tensors, base[row.n, "whole"].tensors),
                f"{row.error:.0e}",
            ]
            for row in rows
        ],
    )


def _memory(size, *bases):
    """Megabytes and multiples of the bases, in words."""
    if size is None:
        return ["-"] * (1 + len(bases))
    return [f"{size / 1e6:.1f}", *(f"{size / base:.3f}" for base in bases)]


def main() -> int:
    """Measure and print everything; returns the exit status."""
    rows = [row for n in SHORT for row in measure(n, (pytorch, loop, whole, tiled), rounds=3, memory=False)]
    rows += [row for n in LONG for row in measure(n, (pytorch, whole, tiled), rounds=5, memory=True)]
    print(f"Causal attention forward: batch 1, {N_HEADS} heads of {WIDTH}, float32, one thread, tiles of {TILE}")
    show(rows)
    if rows[-1].resident is None:
        print("resident memory: not measured here (it takes Linux)")
    return report(goals(rows))


if __name__ == "__main__":
    sys.exit(main())
