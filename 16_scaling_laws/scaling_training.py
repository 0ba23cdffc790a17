"""A ladder of small decoders, and one training run that serves many budgets.

    run = train(world("steep"), width=16, rate=0.02, budgets=[2**16, 2**17], seed=0)
    run.above, run.unfinished                   # nats per token above the floor, at each budget

The learning rate rises, stays, and falls to 0 over the last fifth (Hu et al. 2024, arXiv 2404.06395). Up to its fall a
long budget's run is that of a short one, so a run goes on at a constant rate, and a copy of it branches off to be
finished at each budget: budgets that double cost 1.2 + 0.1 + 0.05 + ... times the longest, less than 1.4 times.
"""

import copy
import itertools
import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

import torch
from scaling_world import Facts, Stories
from torch import nn

from shared.layers import SwiGLU
from shared.rotary import RotaryAttention, no_positions
from shared.tiny_lm import TinyLM
from shared.training import adamw, initialise_by_fan_in, next_token_loss

TOKENS = 1024  # in a step
WARMUP = 50  # steps
COOLDOWN = 0.2  # of all steps
DECAY, CLIP = 0.1, 1.0  # AdamW's weight decay, on matrices; the largest gradient norm


class Run(NamedTuple):
    """What a run left behind at each budget: tokens seen; nats per token above the floor, in parts, after the rate had
    fallen (`above`), and at the constant rate (`unfinished`); empty where it diverged."""

    tokens: list[int]
    above: list[list[float]]
    unfinished: list[list[float]]


def ladder(width: int, vocab_size: int) -> dict[str, int]:
    """The sizes of a model of the ladder, named as in `scaling.Shape`: two layers, heads at most 16 wide, a
    feed-forward three times as wide as the stream."""
    heads = max(1, width // 16)
    return {
        "vocab_size": vocab_size,
        "d_model": width,
        "n_layers": 2,
        "n_heads": heads,
        "n_kv_heads": heads,
        "d_ff": 3 * width,
    }


def new_model(context: int, *, n_kv_heads: int, d_ff: int, **sizes: int) -> TinyLM:
    """A decoder of these sizes with fresh weights, by fan-in: rotary positions, SwiGLU, RMSNorm, no biases, tied."""
    model = TinyLM(
        context=context,
        attention=partial(RotaryAttention, n_kv_heads=n_kv_heads, bias=False),
        feed_forward=partial(SwiGLU, d_hidden=d_ff),
        norm=nn.RMSNorm,
        positions=no_positions,
        **sizes,
    )
    initialise_by_fan_in(model)
    return model


def schedule(step: int, steps: int) -> float:
    """The share of the peak rate at a step: a straight rise over 50 steps, then 1, then a straight fall to 0 over the
    last fifth of all steps (WSD)."""
    return min(1.0, (step + 1) / WARMUP, (steps - step) / (COOLDOWN * steps))


def train(
    world: Facts | Stories, width: int, rate: float, budgets: Sequence[int], seed: int, unique: int | None = None
) -> Run:
    """Train one model along all budgets, in tokens, rising. unique: the text repeats after so many tokens; None: never.

    A step reads 1,024 tokens; budgets are rounded down to steps. Raises ValueError for budgets that do not rise or do
    not leave room for the warm-up.
    """
    lengths = [budget // TOKENS for budget in budgets]
    if lengths != sorted(set(lengths)) or lengths[0] * (1 - COOLDOWN) < WARMUP:
        raise ValueError(f"budgets {list(budgets)}: expected rising ones, the first with more than {WARMUP} steps")
    torch.manual_seed(seed)
    trunk = Training(new_model(world.context, **ladder(width, world.vocab_size)), _text(world, seed, unique))
    above, unfinished = {}, {}
    for step, steps in _stops(lengths):
        trunk.advance(step, lambda at: rate * schedule(at, 2 * lengths[-1]))
        if step == steps:
            unfinished[steps] = world.above_floor(trunk.model)
        else:
            branch = trunk.branch()
            branch.advance(steps, lambda at, steps=steps: rate * schedule(at, steps))
            above[steps] = world.above_floor(branch.model)
    if not all(math.isfinite(part) for parts in (*above.values(), *unfinished.values()) for part in parts):
        return Run([], [], [])
    return Run([steps * TOKENS for steps in lengths], [above[s] for s in lengths], [unfinished[s] for s in lengths])


def _stops(lengths: Sequence[int]) -> list[tuple[int, int]]:
    """Where the run stops, and on which length's account: where its rate begins to fall, and where it has ended."""
    falls = [(steps - math.floor(COOLDOWN * steps), steps) for steps in lengths]
    return sorted([*falls, *((steps, steps) for steps in lengths)])


class Training:
    """A model on its way: its optimiser, the text it reads, and how many steps it has taken."""

    def __init__(self, model: nn.Module, text: Iterator):
        self.model, self.text, self.step = model, text, 0
        self.optimizer = adamw(model, 1.0, DECAY)

    def branch(self) -> "Training":
        """A copy that reads on where this one does, and leaves it as it is."""
        self.text, text = itertools.tee(self.text)
        copied = Training(copy.deepcopy(self.model), text)
        copied.optimizer.load_state_dict(copy.deepcopy(self.optimizer.state_dict()))
        copied.step = self.step
        return copied

    def advance(self, until: int, rate) -> None:
        """Train up to a step, at rate(step)."""
        while self.step < until:
            x, y = next(self.text)
            next_token_loss(self.model, x, y).backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
            for group in self.optimizer.param_groups:
                group["lr"] = rate(self.step)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.step += 1


def _text(world: Facts | Stories, seed: int, unique: int | None) -> Iterator:
    """Batches of a step's tokens; the same ones again and again, in the same order, if only some are unique."""
    batches = world.stream(seed, TOKENS // world.context)
    if unique is None:
        return batches
    if unique < TOKENS:
        raise ValueError(f"unique is {unique}: expected at least a step's {TOKENS} tokens")
    return itertools.cycle(itertools.islice(batches, unique // TOKENS))
