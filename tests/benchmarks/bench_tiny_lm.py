"""Training `TinyLM` against GPT-2 of the same shape from transformers: tokens per CPU second.

    .venv/bin/python tests/benchmarks/bench_tiny_lm.py

Each is trained as its users do: ours by `fit`, which takes the fused AdamW; the peer by a plain loop with
`torch.optim.AdamW` as it comes. The peer's default configuration has dropout, which ours has not, so a second row
takes it out. The weights are random and nothing is downloaded. Exits with status 1 if the goal is not met.
"""

import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass

import torch
from measure import Goal, cpu_seconds, median_ratio, print_table, report
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from shared.tiny_lm import TinyLM
from shared.training import fit

NO_DROPOUT = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
LEARNING_RATE, STEPS = 1e-3, 2  # steps in one timed call


@dataclass(frozen=True)
class Shape:
    """The model's sizes, and the batch: `batch` windows of `context` tokens."""

    vocab_size: int = 1024
    context: int = 128
    d_model: int = 128
    n_layers: int = 4
    n_heads: int = 4
    batch: int = 32

    def windows(self) -> torch.Tensor:
        """Random tokens with one more at the end of each window: (batch, context + 1)."""
        return torch.randint(self.vocab_size, (self.batch, self.context + 1))


def tiny_lm(shape: Shape) -> TinyLM:
    """Our model."""
    return TinyLM(shape.vocab_size, shape.context, shape.d_model, shape.n_layers, shape.n_heads)


def gpt2(shape: Shape, **settings: float) -> GPT2LMHeadModel:
    """The peer, its default configuration but for the sizes and `settings`."""
    config = GPT2Config(
        vocab_size=shape.vocab_size,
        n_positions=shape.context,
        n_embd=shape.d_model,
        n_layer=shape.n_layers,
        n_head=shape.n_heads,
        bos_token_id=None,  # the default, 50256, lies outside this vocabulary
        eos_token_id=None,
        **settings,
    )
    model = GPT2LMHeadModel(config)
    model.loss_type = "ForCausalLM"  # what it falls back on, with a warning, when this is not set
    return model.train()


def train_ours(model: TinyLM, shape: Shape) -> None:
    """STEPS steps of `fit`."""

    def batch():
        windows = shape.windows()
        return windows[:, :-1], windows[:, 1:]

    fit(model, batch, STEPS, LEARNING_RATE, label=None)


def train_peer(model: GPT2LMHeadModel, shape: Shape) -> None:
    """STEPS steps of the loop its users write; the model shifts the labels itself."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    for _ in range(STEPS):
        x = shape.windows()[:, :-1]
        optimizer.zero_grad()
        model(x, labels=x).loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()


def measure(shape: Shape, rounds: int) -> dict[str, list[float]]:
    """CPU seconds of STEPS whole training steps in each round: ours, the peer, the peer without dropout."""
    ours, peer, no_dropout = tiny_lm(shape), gpt2(shape), gpt2(shape, **NO_DROPOUT)
    candidates: dict[str, Callable[[], None]] = {
        "TinyLM": lambda: train_ours(ours, shape),
        "GPT-2, default": lambda: train_peer(peer, shape),
        "GPT-2, no dropout": lambda: train_peer(no_dropout, shape),
    }
    return cpu_seconds(candidates, rounds)


def speed_ups(seconds: dict[str, list[float]]) -> dict[str, float]:
    """How many times as fast as each candidate ours is: the median of the rounds' ratios."""
    return {name: median_ratio(each, seconds["TinyLM"]) for name, each in seconds.items()}


def goals(faster: dict[str, float]) -> list[Goal]:
    """What is promised: against the default. Without dropout both spend their time in the same matrix products."""
    return [Goal("TinyLM's speed as a multiple of GPT-2's default", faster["GPT-2, default"], 1.4, at_least=True)]


def main() -> int:
    """Measure and print everything; returns the exit status."""
    shape = Shape()
    seconds = measure(shape, rounds=15)
    faster = speed_ups(seconds)
    tokens = STEPS * shape.batch * shape.context
    print(f"Training, float32, one thread: {shape}")
    print_table(
        ["model", "tokens per CPU s", "TinyLM's speed as a multiple"],
        [[name, f"{tokens / statistics.median(each):,.0f}", f"{faster[name]:.2f}"] for name, each in seconds.items()],
    )
    return report(goals(faster))


if __name__ == "__main__":
    sys.exit(main())
