"""What `int8_gpu` times, and how: the ways to multiply a matrix, and a GPU's seconds, with Python and without.

steps = {"bfloat16": partial(linear, x), "W8A8": partial(W8A8Linear(linear), x)}
timed(steps)            # {"ways": ["bfloat16", "W8A8"], "seconds": [[...], [...]], "graph": [[...], None]}
"""

import time
from collections.abc import Callable
from functools import partial

import torch
from int8 import Int8Linear, SplitLinear, W8A8Linear, absmax_scale, scaled_product, top
from int8_cures import Turned
from int8_groups import FourBitLinear
from torch import nn

HERE = "cuda" if torch.cuda.is_available() else "cpu"
ROUNDS, CALLS = 5, 5


class Unchecked(W8A8Linear):
    """`W8A8Linear` by token that does not look for NaN, for which Python would wait for the GPU."""

    def product(self, x: torch.Tensor) -> torch.Tensor:
        """x times the matrix, without the bias."""
        scale = absmax_scale(x, "row")
        codes = (x / scale).round_().clamp_(-top(), top()).to(torch.int8)
        return scaled_product(codes, scale, self.codes, self.scale)


KINDS: dict[str, Callable[[nn.Linear], nn.Module]] = {
    "multiplied out": Int8Linear,
    "multiplied out, 4 bits": FourBitLinear,
    "W8A8": W8A8Linear,
    "W8A8, unchecked": Unchecked,
    "split": SplitLinear,
    "turned W8A8, unchecked": partial(Turned, make=Unchecked),
}
ASKS = {"W8A8", "split"}  # the GPU, in between: no graph can hold them


def in_tf32(call: Callable[[], torch.Tensor]) -> torch.Tensor:
    """The call, in which a product of float32 takes 11 significant bits of each number."""
    torch.set_float32_matmul_precision("high")
    try:
        return call()
    finally:
        torch.set_float32_matmul_precision("highest")


def captured(step: Callable[[], object]) -> Callable[[], object]:
    """The step recorded once, after three warm-ups aside, and replayed as one. Without a GPU: the step itself."""
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
        step()
    return graph.replay


def seconds(step: Callable[[], object]) -> float:
    """Seconds of one call, of some in a row: on a GPU between two of its events, behind a call that is not counted."""
    step()
    if HERE == "cpu":
        start = time.perf_counter()
        for _ in range(CALLS):
            step()
        return (time.perf_counter() - start) / CALLS
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    first.record()
    for _ in range(CALLS):
        step()
    last.record()
    last.synchronize()
    return first.elapsed_time(last) / 1000 / CALLS


def timed(steps: dict[str, Callable[[], object]], times: int = 1) -> dict:
    """Seconds of some ways, in turn, and of their graphs, None for those that have none: a number for each round.

    times: how many calls a step has, of which the seconds of one are found.
    """
    graphs = {name: captured(step) for name, step in steps.items() if name not in ASKS}
    every = [*steps.values(), *graphs.values()]
    rounds = [[float(f"{seconds(step) / times:.4g}") for step in every] for _ in range(ROUNDS)]
    found = [list(each) for each in zip(*rounds, strict=True)]
    replayed = dict(zip(graphs, found[len(steps) :], strict=True))
    return {"ways": list(steps), "seconds": found[: len(steps)], "graph": [replayed.get(name) for name in steps]}
