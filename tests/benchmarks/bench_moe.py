"""Lesson 11's three dispatches beside a dense layer of the same active size and `transformers`' Mixtral block.

    .venv/bin/python tests/benchmarks/bench_moe.py

One mixture of gated experts, 256 wide, each token to two of them; random tokens and a random router, so that loads are
about even. A table for a forward pass and one for a training step (forward, and gradients of inputs and weights), for
4, 8, 16 and 32 experts and three numbers of tokens. "dense" is one `SwiGLU` as wide as two experts: what a token's
products cost where nothing is routed. Mixtral's block has two ways of its own: "Mixtral, loop", its plain code, and
"Mixtral, grouped", which calls the operation of PyTorch that the grouped dispatch calls. Exits with status 1 if a goal
is not met.
"""

import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from measure import Goal, cpu_seconds, median_ratio, print_table, report
from torch import nn
from transformers import MixtralConfig
from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock

from shared.layers import SwiGLU

sys.path.insert(0, str(Path(__file__).parents[2] / "11_expert_router"))
from moe import MoE, dispatch_grouped, dispatch_loop, dispatch_masked

WIDTH, HIDDEN, CHOSEN = 256, 256, 2  # of the stream, of an expert; experts of a token
EXPERTS, TOKENS, ROUNDS = (4, 8, 16, 32), (16, 256, 2048), 7
DISPATCHES = {"loop": dispatch_loop, "masked": dispatch_masked, "grouped": dispatch_grouped}
PASSES = ("forward", "training")


@dataclass(frozen=True)
class Row:
    """One way at one size, CPU seconds of a call in each round."""

    part: str
    experts: int
    tokens: int
    way: str
    seconds: list[float]


def layers(n_experts: int) -> dict[str, nn.Module]:
    """Each way, with weights of its own; those of lesson 11 share theirs."""
    torch.manual_seed(0)
    first = MoE(WIDTH, n_experts=n_experts, k=CHOSEN, d_hidden=HIDDEN)
    found = {}
    for name, dispatch in DISPATCHES.items():
        layer = MoE(WIDTH, n_experts=n_experts, k=CHOSEN, d_hidden=HIDDEN, dispatch=dispatch)
        layer.load_state_dict(first.state_dict())
        found[name] = layer
    found["dense"] = SwiGLU(WIDTH, d_hidden=CHOSEN * HIDDEN)
    sizes = {"hidden_size": WIDTH, "intermediate_size": HIDDEN}
    sizes |= {"num_local_experts": n_experts, "num_experts_per_tok": CHOSEN}
    for name, way in (("Mixtral, loop", "eager"), ("Mixtral, grouped", "grouped_mm")):
        block = MixtralSparseMoeBlock(MixtralConfig(**sizes, experts_implementation=way))
        for parameter in block.parameters():
            nn.init.normal_(parameter, std=WIDTH**-0.5)
        found[name] = block
    return found


def train(layer: nn.Module, x: torch.Tensor) -> None:
    """Forward, and gradients of all."""
    layer.zero_grad(set_to_none=True)
    layer(x).square().mean().backward()


@torch.no_grad()
def infer(layer: nn.Module, x: torch.Tensor) -> None:
    """Forward alone."""
    layer(x)


def measure(experts: Sequence[int] = EXPERTS, tokens: Sequence[int] = TOKENS, rounds: int = ROUNDS) -> list[Row]:
    """All ways at all sizes, in turn; short ones are called several times in a round."""
    found = []
    for n_experts in experts:
        ways = layers(n_experts)
        for n in tokens:
            x = torch.randn(1, n, WIDTH, requires_grad=True)
            times = max(1, 512 // n)
            for part, one in zip(PASSES, (infer, train), strict=True):
                calls = {way: partial(repeated, partial(one, layer, x), times) for way, layer in ways.items()}
                for way, seconds in cpu_seconds(calls, rounds).items():
                    found.append(Row(part, n_experts, n, way, [each / times for each in seconds]))
    return found


def repeated(call: Callable[[], None], times: int) -> None:
    """So many calls."""
    for _ in range(times):
        call()


def times_as_fast(rows: Sequence[Row], row: Row, way: str) -> float:
    """How many times as fast as that way a row is, the median of the rounds' ratios."""
    size = (row.part, row.experts, row.tokens)
    base = next(it for it in rows if (it.part, it.experts, it.tokens) == size and it.way == way)
    return median_ratio(base.seconds, row.seconds)


def goals(rows: Sequence[Row]) -> list[Goal]:
    """The grouped dispatch is the fastest of the three, and than Mixtral's, from 8 experts and 256 tokens on."""
    grouped = [it for it in rows if it.way == "grouped" and it.experts >= 8 and it.tokens >= 256]
    found = []
    for part in PASSES:
        for way in ("loop", "masked", "Mixtral, loop", "Mixtral, grouped"):
            least = min(times_as_fast(rows, it, way) for it in grouped if it.part == part)
            found.append(Goal(f"grouped, {part}, its worst size: times as fast as {way}", least, 1, at_least=True))
    return found


def show(rows: Sequence[Row]) -> None:
    """A table for each kind of pass: tokens a CPU second of the grouped dispatch, and it beside the others."""
    others = [way for way in dict.fromkeys(row.way for row in rows) if way != "grouped"]
    for part in PASSES:
        print(f"\n{part}: tokens a CPU second, grouped; and how many times as fast as ...")
        cells = [
            [
                str(row.experts),
                str(row.tokens),
                f"{row.tokens / statistics.median(row.seconds):,.0f}",
                *(f"{times_as_fast(rows, row, way):.2f}" for way in others),
            ]
            for row in rows
            if (row.part, row.way) == (part, "grouped")
        ]
        print_table(["experts", "tokens", "tokens/s", *others], cells)


def main() -> int:
    """Measure and print everything; returns the exit status."""
    rows = measure()
    show(rows)
    print()
    return report(goals(rows))


if __name__ == "__main__":
    sys.exit(main())
