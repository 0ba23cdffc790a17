"""What 8 bits cost a story model, with outliers planted and without: python int8_sweep.py --workers 2

Writes results/int8.json, which the notebook shows; about 7 minutes on two cores. A loss is in nats a word above the
story world's known floor, on 48 held-out texts of 192 words, 16 in a call: a scale "by tensor" or "by channel" is that
of a call. Three kinds of jobs:

natural     nothing is planted: how large the largest number of each layer's inputs is
channels    a few channels of what each norm puts out are `size` times as large, and the weights that read them as much
            smaller (`int8.move_scale`): the float model computes the same
token       one token of what each linear layer reads is `size` times as large, and of what it puts out as much
            smaller: the float model computes the same

A seed draws the texts, and which channels or which token. A row's `more` says for each arm of `ARMS` how many nats its
model loses more than the float model. Seeds from 10 up judge: `int8_small_rules` was written before they were run.
"""

import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from int8 import SplitLinear, W8A8Linear, move_scale, outlier_columns, round_trip, top
from int8_cures import Turned, smooth
from int8_model import Rounded, calibrate, convert, linears, sharing, watch
from torch import nn

from shared.layers import SwiGLU
from shared.rotary import RotaryAttention, no_positions
from shared.story_model import WEIGHTS, load_story_lm
from shared.sweeps import Sweep, main
from shared.tiny_lm import TinyLM
from shared.training import evaluate, fit, initialise_by_fan_in
from shared.world import BASE, HELD_OUT, VOCABULARY, held_out_rows, rows

CONTEXT, ROWS, CALL, TO_CALIBRATE = 192, 48, 16, 16
SIZES, CHANNELS, THRESHOLD = [1, 3, 10, 30, 100, 200], 4, 6.0
JUDGES = [10, 11, 12, 13, 14]  # seeds from 0 to 4 were a pilot's
TEXTS = {"stories": BASE, "facts": replace(BASE, story=0, facts=1, requests=0, questions=0)}
SAME = 2e-5  # nats: the float loss with something planted differs by float32's rounding alone


# What is planted


@dataclass
class Planted:
    """A model in which something is `size` times as large. chosen: by layer, True where that is among its inputs, to
    broadcast over (texts, words, in); others: as many that are as ever. at: the token, None if it is channels."""

    model: nn.Module
    size: float
    chosen: dict[str, torch.Tensor]
    others: dict[str, torch.Tensor]
    at: int | None = None
    largest: dict[str, torch.Tensor] | None = None

    def converted(self, make: Callable[[str, nn.Linear], nn.Module], model: nn.Module | None = None) -> nn.Module:
        """The model, or a smoothed one of it, with other layers, to which what is planted comes as it is."""
        model = self.model if model is None else model
        if self.at is None:
            return convert(model, make)
        return convert(model, lambda name, it: LargeToken(it, partial(make, name), self.at, self.size))


class LargeToken(nn.Module):
    """One token of a layer's inputs times `size`, and of its outputs divided by it, without the bias: the same, but for
    what the layer that stands between does to large numbers."""

    def __init__(self, linear: nn.Linear, make: Callable[[nn.Linear], nn.Module], at: int, size: float):
        super().__init__()
        inner = sharing(linear)
        inner.bias = None
        self.layer, self.bias, self.at, self.size = make(inner), linear.bias, at, size

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(texts, words, in) -> (texts, words, out)."""
        factor = x.new_ones(x.shape[1], 1)
        factor[self.at] = self.size
        y = self.layer(x * factor) / factor
        return y if self.bias is None else y + self.bias


def plant_channels(model: TinyLM, size: float, n: int, seed: int) -> Planted:
    """n channels behind each norm of the blocks, others for each."""
    model, chosen, others = sharing(model), {}, {}
    generator = torch.Generator().manual_seed(seed)
    for name, linear in linears(model).items():
        order = torch.randperm(linear.in_features, generator=generator)
        for where, some in ((chosen, order[:n]), (others, order[n : 2 * n])):
            where[name] = torch.zeros(linear.in_features, dtype=torch.bool)
            where[name][some] = reads_norm(name)
        if reads_norm(name):
            block = model.blocks[int(name.split(".")[1])]
            factors = torch.ones(linear.in_features).masked_fill(chosen[name], size)
            move_scale(block.norm_1 if "attention" in name else block.norm_2, linear, factors)
    return Planted(model, size, chosen, others)


def reads_norm(name: str) -> bool:
    """Whether a layer's inputs come from a norm."""
    return not name.endswith("proj")


def plant_token(model: TinyLM, size: float, seed: int) -> Planted:
    """One of all tokens, at every linear layer."""
    at, other = torch.randperm(CONTEXT, generator=torch.Generator().manual_seed(seed))[:2].tolist()
    chosen, others = ({name: torch.arange(CONTEXT)[:, None] == it for name in linears(model)} for it in (at, other))
    return Planted(model, size, chosen, others, at)


def calibrate_planted(planted: Planted, batches: list[torch.Tensor]) -> None:
    """Find `largest`, of what each layer is given with what is planted."""
    found = calibrate(planted.converted(lambda name, linear: linear), batches)
    planted.largest = {name.removesuffix(".layer"): it for name, it in found.items()}


# Arms


def keep(which: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Numbers rounded with the scale of all that are not kept in float; which: True for those."""
    return torch.where(which, x, round_trip(x.masked_fill(which, 0)))


@dataclass(frozen=True)
class Arm:
    """make(planted, name, linear): what takes a layer's place. alpha: of SmoothQuant before it, None for none."""

    make: Callable[[Planted, str, nn.Linear], nn.Module]
    alpha: float | None = None


def rounded(**what: Callable[[torch.Tensor], torch.Tensor]) -> Arm:
    """Weights or inputs alone, in a product of floats."""
    return Arm(lambda planted, name, linear: Rounded(linear, **what))


def both(by: str, alpha: float | None = None, **how) -> Arm:
    """A product of whole numbers, inputs by token ("row") or by tensor."""
    return Arm(lambda planted, name, linear: W8A8Linear(linear, by, **how), alpha)


def turned(make: Callable[[nn.Linear], nn.Module]) -> Arm:
    """Inputs by a Hadamard rotation."""
    return Arm(lambda planted, name, linear: Turned(linear, make))


def static(planted: Planted, name: str, linear: nn.Linear) -> nn.Module:
    """One scale, of the largest input over other texts."""
    return W8A8Linear(linear, "tensor", static=planted.largest[name].max() / top())


ARMS = {
    "weights by tensor": rounded(weight=round_trip),
    "weights by row": rounded(weight=partial(round_trip, by="row")),
    "inputs by tensor": rounded(inputs=round_trip),
    "inputs by token": rounded(inputs=partial(round_trip, by="row")),
    "inputs by channel": rounded(inputs=partial(round_trip, by="column")),
    "inputs with zero point": rounded(inputs=partial(round_trip, zero=True)),
    "inputs, planted in float": Arm(lambda it, name, linear: Rounded(linear, partial(keep, it.chosen[name]))),
    "inputs, random in float": Arm(lambda it, name, linear: Rounded(linear, partial(keep, it.others[name]))),
    "inputs, Hadamard": turned(partial(Rounded, inputs=round_trip)),
    "both by tensor": both("tensor"),
    "both by token": both("row"),
    "both with zero point": both("tensor", zero=True),
    "both, static": Arm(static),
    "both, split at 6": Arm(lambda planted, name, linear: SplitLinear(linear, THRESHOLD)),
    "both, SmoothQuant 0.5": both("tensor", 0.5),
    "both by token, SmoothQuant 0.5": both("row", 0.5),
    "both, SmoothQuant 0.75": both("tensor", 0.75),
    "both by token, SmoothQuant 0.75": both("row", 0.75),
    "both, Hadamard": turned(partial(W8A8Linear, inputs="tensor")),
    "both by token, Hadamard": turned(W8A8Linear),
}


# Models and texts


@functools.cache
def story_model(setting: str) -> TinyLM:
    """ "trained": the one of `shared.story_model`. "llama": another of other parts and half the width, a short training
    of its own."""
    if setting == "trained":
        return load_story_lm().requires_grad_(False)
    torch.manual_seed(0)
    parts = {"feed_forward": partial(SwiGLU, d_hidden=176), "norm": nn.RMSNorm, "positions": no_positions}
    attention = partial(RotaryAttention, n_kv_heads=2, bias=False)
    model = TinyLM(len(VOCABULARY), CONTEXT, 64, 2, 4, attention=attention, **parts)
    initialise_by_fan_in(model)
    stream = rows(CONTEXT, 0, BASE)

    def batch():
        both = torch.stack([next(stream) for _ in range(8)])
        return both[:, :-1], both[:, 1:]

    fit(model, batch, STEPS, 1e-2, label=None)
    return model.requires_grad_(False).eval()


@functools.lru_cache(maxsize=4)
def texts(kind: str, seed: int) -> tuple[torch.Tensor, torch.Tensor, float, list[torch.Tensor]]:
    """x, y, their floor, and other texts to calibrate on."""
    x, y, nats = held_out_rows(ROWS, CONTEXT, HELD_OUT + 2 * seed, TEXTS[kind])
    other = held_out_rows(TO_CALIBRATE, CONTEXT, HELD_OUT + 2 * seed + 1, TEXTS[kind])[0]
    return x, y, nats.mean().item(), list(other.split(CALL))


# Jobs


def run(job: dict) -> dict:
    """One job of the kinds above. job: task, setting, text, seed; size, and of channels n."""
    model, (x, y, floor, other) = story_model(job["setting"]), texts(job["text"], job["seed"])

    def loss(model):
        return evaluate(model, x, y, floor, CALL).above_floor

    base = loss(model)
    if job["task"] == "natural":
        return {"float": round(base, 6), "largest": largest(model, other)}
    if job["task"] == "channels":
        planted = plant_channels(model, job["size"], job["n"], job["seed"])
    else:
        planted = plant_token(model, job["size"], job["seed"])
    plain = planted.converted(lambda name, linear: linear)
    if abs(loss(plain) - base) > SAME:
        raise ValueError(
            f"{job}: the float loss is {loss(plain)} above the floor, before it was {base}: expected equal"
        )
    calibrate_planted(planted, other)
    more = {name: round(loss(converted(planted, arm)) - base, 6) for name, arm in ARMS.items()}
    return {"float": round(base, 6), "more": more, "split": in_float(plain, other)}


def converted(planted: Planted, arm: Arm) -> nn.Module:
    """The planted model with an arm's layers."""
    model = planted.model if arm.alpha is None else smooth(planted.model, planted.largest, arm.alpha)
    return planted.converted(partial(arm.make, planted), model)


def largest(model: nn.Module, batches: list[torch.Tensor]) -> dict[str, float]:
    """The largest |x| among each linear layer's inputs, in root mean squares of them."""
    found = {}

    def see(name, x):
        found[name] = round((x.abs().max() / x.square().mean().sqrt()).item(), 3)

    watch(model, batches, see)
    return found


def in_float(model: nn.Module, batches: list[torch.Tensor]) -> float:
    """The share of columns that LLM.int8() multiplies in float, over all layers and calls."""
    shares = []
    watch(model, batches, lambda _, x: shares.append(outlier_columns(x, THRESHOLD).float().mean().item()))
    return round(sum(shares) / len(shares), 5)


def jobs(task: str, seeds: list[int], sizes: list[float], setting="trained", text="stories", **more) -> list[dict]:
    """A job for each size and seed."""
    same = {"task": task, "setting": setting, "text": text} | more
    return [same | {"size": size, "seed": seed} for size in sizes for seed in seeds]


STEPS = 800  # of "llama"
SWEEP = Sweep(
    __file__,
    "int8",
    run,
    jobs=[
        *jobs("natural", JUDGES, [1]),
        *jobs("natural", JUDGES, [1], "llama"),
        *jobs("channels", JUDGES, SIZES, n=CHANNELS),
        *jobs("channels", JUDGES, [100], n=1),
        *jobs("channels", JUDGES, [100], n=16),
        *jobs("channels", JUDGES, [100], text="facts", n=CHANNELS),
        *jobs("token", JUDGES, [10, 30, 100, 200]),
        *jobs("channels", JUDGES, [1, 100], "llama", n=2),
    ],
    quick=[*jobs("natural", [0], [1]), *jobs("channels", [0], [30], n=2), *jobs("token", [0], [30])],
    cost=lambda job: {"natural": 1}.get(job["task"], 20),
    comparable=lambda job: job["setting"] == "trained",
    tolerance={"float": 1e-4, "more": 0.02, "largest": 0.01, "split": 0.001},  # numbers half-way between two codes
    files=[WEIGHTS],
)

if __name__ == "__main__":
    sys.exit(main(SWEEP))
