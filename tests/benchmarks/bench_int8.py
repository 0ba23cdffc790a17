"""Lesson 12's products in 8 bits, and the whole real model with them, beside float32.

    .venv/bin/python tests/benchmarks/bench_int8.py

The first table has the real model's matrices, for 1, 16 and 256 tokens: PyTorch's product in float32; that of whole
numbers alone (`int_product`), whose codes are there; a whole `W8A8Linear`, which makes the codes and multiplies the
scales in; and `Int8Linear`, which multiplies its matrix out first. The same matrix is read again and again, so it may
lie in the processor's cache, the more so the fewer bytes it has. The head at 256 tokens gains least, for it writes 50
MB of sums and as much of floats; a model asks it for its last token alone. The second table is the model itself, whose
weights do not fit there. The loss is that of texts which no model has seen. Whole numbers are fast where the processor
has instructions for them (VNNI); elsewhere the goals may not be met. Exits with status 1 if a goal is not met.
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
from torch.nn import functional as F

from shared.smollm2 import INSTALL, is_installed, load_smollm2
from shared.texts import OWN, texts
from shared.tiny_lm import TinyLM

sys.path.insert(0, str(Path(__file__).parents[2] / "12_int8_quant"))
from int8 import Int8Linear, SplitLinear, W8A8Linear, absmax_scale, int_product, quantize
from int8_groups import FourBitLinear
from int8_model import convert, stored_bytes

SHAPES = {"qkv": (576, 960), "proj": (576, 576), "gate_up": (576, 3072), "down": (1536, 576), "head": (576, 49_152)}
TOKENS, ROUNDS = (1, 16, 256), 7
PRODUCTS = ("float32", "whole numbers", "W8A8", "multiplied out")
PREFILL, READ = 256, 6  # tokens; how many texts the loss is of


def as_in_the_file(name: str, linear: nn.Linear) -> nn.Module:
    """4 bits with a minimum, and the head's 8 bits, both in groups of 32: what the file has, back exactly."""
    return Int8Linear(linear, by=32) if name == "head" else FourBitLinear(linear)


KINDS: dict[str, Callable[[str, nn.Linear], nn.Module | None]] = {
    "float32": lambda name, linear: None,
    "W8A8, by token": lambda name, linear: W8A8Linear(linear),
    "W8A8, by tensor": lambda name, linear: W8A8Linear(linear, "tensor"),
    "W8A8, split at 6": lambda name, linear: SplitLinear(linear),
    "int8, multiplied out": lambda name, linear: Int8Linear(linear),
    "4 bits, multiplied out": as_in_the_file,
}


@dataclass(frozen=True)
class Product:
    """One way of one matrix, CPU seconds of a call in each round."""

    matrix: str
    tokens: int
    way: str
    seconds: list[float]


def ways(inputs: int, outputs: int, tokens: int) -> dict[str, Callable[[], torch.Tensor]]:
    """A call of each way, on the same random numbers."""
    torch.manual_seed(0)
    linear, x = nn.Linear(inputs, outputs, bias=False).requires_grad_(False), torch.randn(tokens, inputs)
    codes, both = quantize(x, absmax_scale(x, "row")), W8A8Linear(linear)
    calls = [
        partial(linear, x),
        partial(int_product, codes, both.codes),
        partial(both, x),
        partial(Int8Linear(linear), x),
    ]
    return dict(zip(PRODUCTS, calls, strict=True))


@torch.inference_mode()
def measure_products(rounds: int = ROUNDS) -> list[Product]:
    """All ways of all matrices, in turn; short ones are called several times in a round."""
    found = []
    for name, (inputs, outputs) in SHAPES.items():
        for tokens in TOKENS:
            times = max(1, 50_000_000 // (tokens * inputs * outputs))

            def several(call, times=times):
                for _ in range(times):
                    call()

            calls = {way: partial(several, call) for way, call in ways(inputs, outputs, tokens).items()}
            for way, seconds in cpu_seconds(calls, rounds).items():
                found.append(Product(name, tokens, way, [each / times for each in seconds]))
    return found


def speed_up(rows: Sequence[Product], row: Product) -> float:
    """How many times faster than float32, the median of the rounds' ratios."""
    base = next(it for it in rows if (it.matrix, it.tokens, it.way) == (row.matrix, row.tokens, "float32"))
    return median_ratio(base.seconds, row.seconds)


@dataclass(frozen=True)
class Whole:
    """The model with one kind of layers. prefill, decode: tokens a CPU second, and as multiples of float32's; bytes:
    what a token reads of the weights; loss: nats a token, and how much more than in float32 at worst, on one text."""

    kind: str
    prefill: float
    prefill_up: float
    decode: float
    decode_up: float
    bytes: int
    loss: float
    worst: float


def decoding(model: TinyLM, prompt: torch.Tensor) -> Callable[[], torch.Tensor]:
    """The next token behind a prompt, again and again."""
    n = prompt.shape[1]
    cache = model.new_cache(1, n + 1)
    model(prompt, cache, last=1)

    def call():
        cache.length = n
        return model(prompt[:, :1], cache, last=1)

    return call


def losses(model: TinyLM, read: Sequence[torch.Tensor]) -> list[float]:
    """Nats a token of each text."""
    return [F.cross_entropy(model(text)[0, :-1], text[0, 1:]).item() for text in read]


@torch.inference_mode()
def measure_model(model: TinyLM, read: Sequence[torch.Tensor], rounds: int = ROUNDS) -> list[Whole]:
    """Each kind of layers in this model, the head's too. read: texts (1, T); the first is the prompt."""
    models = {kind: convert(model, make, head=True) for kind, make in KINDS.items()}
    first = {kind: partial(it, read[0], last=1) for kind, it in models.items()}
    steps = {kind: decoding(it, read[0]) for kind, it in models.items()}
    prefill, decode = cpu_seconds(first, rounds), cpu_seconds(steps, rounds)
    base, found = losses(model, read), []
    for kind, it in models.items():
        mine = losses(it, read)
        found.append(
            Whole(
                kind,
                read[0].shape[1] / statistics.median(prefill[kind]),
                median_ratio(prefill["float32"], prefill[kind]),
                1 / statistics.median(decode[kind]),
                median_ratio(decode["float32"], decode[kind]),
                weight_bytes(it),
                statistics.mean(mine),
                max(a - b for a, b in zip(mine, base, strict=True)),
            )
        )
    return found


def weight_bytes(model: TinyLM) -> int:
    """Bytes that one token reads: all but the table in which it is looked up, where the head is another matrix."""
    table = 0 if model.head is None else stored_bytes(model.embedding)
    return stored_bytes(model) - table


def goals(products: Sequence[Product], wholes: Sequence[Whole]) -> list[Goal]:
    """What is promised: of 16 tokens on, and of the whole model."""
    found = []
    for way, limits in (("whole numbers", {16: 2, 256: 2}), ("W8A8", {16: 1.1, 256: 1.3})):
        for tokens, limit in limits.items():
            slowest = min(speed_up(products, it) for it in products if (it.way, it.tokens) == (way, tokens))
            words = f"{way}, {tokens} tokens, the slowest matrix: times as fast as float32"
            found.append(Goal(words, slowest, limit, at_least=True))
    by_kind = {it.kind: it for it in wholes}
    if by_kind:
        row = by_kind["W8A8, by token"]
        found += [
            Goal("the real model, W8A8 by token, prefill: times as fast as float32", row.prefill_up, 1.3, True),
            Goal("the real model, W8A8 by token, decode: times as fast as float32", row.decode_up, 1.1, True),
            Goal("W8A8 by token: bytes as a share of float32's", row.bytes / by_kind["float32"].bytes, 0.26),
            Goal("W8A8 by token: nats a token more, the worst text", row.worst, 0.1),
            Goal("W8A8 split at 6: nats a token more, the worst text", by_kind["W8A8, split at 6"].worst, 0.06),
            Goal(
                "4 bits, as in the file: nats a token more, the worst text",
                by_kind["4 bits, multiplied out"].worst,
                0.02,
            ),
        ]
    return found


def show(products: Sequence[Product], wholes: Sequence[Whole]) -> None:
    """Print both tables."""
    print("One product, one thread; x: times as fast as float32")
    cells = [
        [
            row.matrix,
            str(row.tokens),
            row.way,
            f"{1e3 * statistics.median(row.seconds):.3f}",
            f"{speed_up(products, row):.2f}",
        ]
        for row in products
    ]
    print_table(["matrix", "tokens", "way", "CPU ms", "x"], cells)
    print("\nThe whole model, its head in the same kind; nats a token above float32 are of the worst text")
    cells = [
        [
            it.kind,
            *(f"{number:.{places}f}" for number, places in ((it.prefill, 0), (it.prefill_up, 2))),
            *(f"{number:.{places}f}" for number, places in ((it.decode, 1), (it.decode_up, 2))),
            f"{it.bytes / 1e6:.0f}",
            f"{it.loss:.3f}",
            f"{it.worst:+.3f}",
        ]
        for it in wholes
    ]
    print_table(["layers", "prefill/s", "x", "decode/s", "x", "MB a token", "loss", "worst"], cells)


def main() -> int:
    """Measure and print everything; returns the exit status."""
    products, wholes = measure_products(), []
    if is_installed():
        model, tokenizer = load_smollm2()
        ids = [tokenizer.encode(texts()[name])[:PREFILL] for name in OWN[:READ]]
        wholes = measure_model(model.requires_grad_(False), [torch.tensor([each]) for each in ids])
    else:
        print(f"bench_int8: the real model is not installed, its part is not measured: {INSTALL}")
    show(products, wholes)
    return report(goals(products, wholes))


if __name__ == "__main__":
    sys.exit(main())
