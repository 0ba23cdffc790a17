"""Lesson 06's norms and activations against PyTorch's own, and ours compiled: time and bytes moved, forward.

    .venv/bin/python tests/benchmarks/bench_norms.py

A norm is a few operations a number, so it is bound by memory: what costs is how often the numbers travel. Bytes are
those that the operations read and write, without views; a compiled function is one loop, which moves the least there
can be, its input and its output. (Our activations compute their slope as well.) `torch.compile` needs a C++ compiler;
without one its rows are left out.
"""

import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from measure import Goal, cpu_seconds, median_ratio, print_table, report
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

sys.path.insert(0, str(Path(__file__).parents[2] / "06_norm_activation"))
import norms

TOKENS, WIDTH, ROUNDS = 4096, 512, 15


class Traffic(TorchDispatchMode):
    """Counts the bytes that operations read and write; a view reads and writes nothing."""

    def __init__(self):
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        read = [arg for arg in args if isinstance(arg, torch.Tensor)]
        written = [part for part in (out if isinstance(out, tuple | list) else [out]) if isinstance(part, torch.Tensor)]
        places = {part.untyped_storage().data_ptr() for part in read}
        in_place = function._schema.name.endswith("_")
        if in_place or not all(part.untyped_storage().data_ptr() in places for part in written):
            self.bytes += sum(part.numel() * part.element_size() for part in [*read, *written])
        return out


def cases(tokens: int, width: int) -> dict[str, tuple[Callable, Callable, tuple[torch.Tensor, ...]]]:
    """For each part: ours, PyTorch's, and the inputs of both."""
    generator = torch.Generator().manual_seed(0)
    x, up = torch.randn(2, tokens, width, generator=generator)
    gain, bias = torch.randn(2, width, generator=generator)
    return {
        "layer_norm": (
            lambda *inputs: norms.layer_norm(*inputs)[0],
            lambda x, gain, bias: F.layer_norm(x, (width,), gain, bias),
            (x, gain, bias),
        ),
        "rms_norm": (
            lambda *inputs: norms.rms_norm(*inputs)[0],
            lambda x, gain: F.rms_norm(x, (width,), gain, eps=1e-5),
            (x, gain),
        ),
        "batch_norm": (
            lambda *inputs: norms.batch_norm(*inputs)[0],
            lambda x, gain, bias: F.batch_norm(x, None, None, gain, bias, True),
            (x, gain, bias),
        ),
        "gelu": (lambda x: norms.gelu(x)[0], F.gelu, (x,)),
        "silu": (lambda x: norms.silu(x)[0], F.silu, (x,)),
        "swiglu": (lambda *inputs: norms.swiglu(*inputs)[0], lambda gate, up: F.silu(gate) * up, (x, up)),
    }


@dataclass(frozen=True)
class Row:
    """One way of one part. seconds: CPU, the median. to_pytorch: time as a multiple. moved: bytes, as a multiple of the
    least there can be. error: the largest difference from PyTorch's."""

    part: str
    way: str
    seconds: float
    to_pytorch: float
    moved: float
    error: float


def traffic(call: Callable, inputs: tuple[torch.Tensor, ...]) -> float:
    """Bytes that a call moves, over those of its inputs and its output."""
    with Traffic() as counted:
        out = call(*inputs)
    return counted.bytes / sum(t.numel() * t.element_size() for t in (*inputs, out))


@torch.no_grad()
def measure(tokens: int, width: int, rounds: int, compiled: bool = True) -> list[Row]:
    """A row for each part and way."""
    rows = []
    for part, (ours, pytorch, inputs) in cases(tokens, width).items():
        ways = {"ours": ours, "pytorch": pytorch} | ({"compiled": torch.compile(ours)} if compiled else {})
        seconds = cpu_seconds({name: lambda way=way: way(*inputs) for name, way in ways.items()}, rounds)  # noqa: B023
        expected = pytorch(*inputs)
        rows += [
            Row(
                part,
                name,
                statistics.median(seconds[name]),
                median_ratio(seconds[name], seconds["pytorch"]),
                1.0 if name == "compiled" else traffic(way, inputs),
                (way(*inputs) - expected).abs().max().item(),
            )
            for name, way in ways.items()
        ]
    return rows


def goals(rows: list[Row]) -> list[Goal]:
    """Equality, and that compiling ours is worth it: fewer bytes, less time than ours, near PyTorch's own."""
    promised = [Goal("largest difference from pytorch", max(row.error for row in rows), 1e-4)]  # sums over 4,096 tokens
    times = {(row.part, row.way): row.seconds for row in rows}
    for part in ("layer_norm", "rms_norm", "gelu"):
        if (part, "compiled") in times:
            share = times[part, "compiled"] / times[part, "ours"]
            promised.append(Goal(f"{part} compiled, as a share of ours as written", share, 0.7))
    return promised


def show(rows: list[Row]) -> None:
    """Print the rows as a table."""
    head = ["part", "way", "CPU ms", "x pytorch", "bytes, x least", "error"]
    cells = [
        [r.part, r.way, f"{1e3 * r.seconds:.2f}", f"{r.to_pytorch:.2f}", f"{r.moved:.1f}", f"{r.error:.0e}"]
        for r in rows
    ]
    print_table(head, cells)


def can_compile() -> bool:
    """Whether `torch.compile` works here."""
    try:
        torch.compile(lambda x: x + 1)(torch.ones(2))
    except Exception as error:  # each platform has an error of its own
        print(f"torch.compile does not work here ({type(error).__name__}): its rows are left out")
        return False
    return True


if __name__ == "__main__":
    found = measure(TOKENS, WIDTH, ROUNDS, can_compile())
    show(found)
    sys.exit(report(goals(found)))
