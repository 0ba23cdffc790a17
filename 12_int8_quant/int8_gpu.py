"""Products and whole models in 8 bits on a GPU: python int8_gpu.py

Writes results/gpu_int8.json; about 7 minutes on one NVIDIA H100. Without a GPU, --cpu-check runs every path, small, and
measures nothing. Models are random Llamas: "real" has the shapes of SmolLM2-135M, "wide" those of Llama 3 8B in five
layers. All but what is called float32 or TF32 computes in bfloat16 between two products. `flat` makes a dict of each
way of a row, with what was found of it:

    seconds         of one call, a number for each round; the ways take turns in each
    graph           the same, recorded once and replayed: what the GPU takes when it does not wait for Python. None for
                    ways that ask the GPU in between: a look for NaN, or for columns with outliers
    error           root mean square against float64, as a share of the result's; four inputs are 20 times as large,
                    and their weights a twentieth, whose rounding is a part of it
    integers        what multiplies whole numbers, "int8" or "float64": CUDA's `_int_mm` takes 17 rows or more, and
                    sizes that 8 divides, so fewer take the slow way through float64. exact: whether it is, of a product

A product reads another copy of its matrix at each call, 256 MiB in bfloat16 or more before one comes again: none stays
in the GPU's cache. Products of float32 are in full unless TF32 is said.
"""

import copy
import math
import sys
from collections.abc import Callable, Sequence
from functools import partial

import torch
from int8 import Int8Linear, SplitLinear, W8A8Linear, absmax_scale, int_product, move_scale, quantize, scaled_product
from int8_cures import rotation
from int8_gpu_ways import HERE, KINDS, Unchecked, in_tf32, timed
from int8_model import convert
from torch import nn

from shared.layers import SwiGLU
from shared.rotary import RotaryAttention, no_positions
from shared.sweeps import Sweep, main
from shared.tiny_lm import TinyLM
from shared.training import initialise_by_fan_in

MODELS = {  # width, layers, query heads, key/value heads, width inside the feed-forward, vocabulary
    "real": (576, 30, 9, 3, 1536, 49_152),
    "wide": (4096, 5, 32, 8, 14_336, 32_768),
    "small": (64, 2, 4, 2, 128, 96),
}
MATRICES = {  # inputs and outputs
    "real": {"qkv": (576, 960), "proj": (576, 576), "gate_up": (576, 3072), "down": (1536, 576), "head": (576, 49_152)},
    "wide": {"square": (4096, 4096), "up": (4096, 14_336), "down": (14_336, 4096)},
    "small": {"up": (64, 96)},
}
CONTEXT, CACHED = 2048, 256  # the longest text; tokens before the one that is decoded
COPIED = 2**27 if HERE == "cuda" else 2**14  # numbers of all copies of a matrix, at least
LARGE, OUTLIERS = 20, 4  # LLM.int8() saw up to 20 times, in up to 7 channels


# Products


@torch.no_grad()
def product(job: dict) -> dict:
    """The ways of one matrix. job: model and matrix, of `MATRICES`; size, how many tokens."""
    inputs, outputs = MATRICES[job["model"]][job["matrix"]]
    torch.manual_seed(0)
    with torch.device(HERE):
        linear, x = nn.Linear(inputs, outputs, bias=False).requires_grad_(False), torch.randn(job["size"], inputs)
        turn = rotation(inputs).bfloat16()
    x[:, :OUTLIERS] *= LARGE
    linear.weight[:, :OUTLIERS] /= LARGE
    scale = absmax_scale(x, "row")
    low, codes = x.bfloat16(), quantize(x, scale)
    n = max(4, math.ceil(COPIED / linear.weight.numel()))
    whole, both = copies(linear, n), copies(W8A8Linear(linear), n)
    calls = {
        "float32": [partial(it, x) for it in whole],
        "TF32": [partial(in_tf32, partial(it, x)) for it in whole],
        "bfloat16": [partial(it, low) for it in copies(copy.deepcopy(linear).bfloat16(), n)],
        "multiplied out": [partial(it, low) for it in copies(Int8Linear(linear), n)],
        "whole numbers": [partial(int_product, codes, it.codes) for it in both],
        "with scales": [partial(scaled_product, codes, scale, it.codes, it.scale) for it in both],
        "W8A8": [partial(it, low) for it in both],
        "W8A8, unchecked": [partial(it, low) for it in copies(Unchecked(linear), n)],
        "split": [partial(it, low) for it in copies(SplitLinear(linear), n)],
        "the turn": [partial(torch.matmul, low, turn)] * n,
    }
    wanted, other = x.double() @ linear.weight.double().t(), ("whole numbers", "the turn")
    errors = [None if name in other else error(each[0](), wanted) for name, each in calls.items()]
    found = timed({name: partial(one_by_one, each) for name, each in calls.items()}, n)
    exact = bool((calls["whole numbers"][0]() == codes.double() @ both[0].codes.double().t()).all())
    return found | {"error": errors, "copies": n, "integers": integers(codes, both[0].codes), "exact": exact}


def copies(layer: nn.Module, n: int) -> list[nn.Module]:
    """n equal layers, each with numbers of its own."""
    return [copy.deepcopy(layer) for _ in range(n)]


def one_by_one(calls: Sequence[Callable[[], torch.Tensor]]) -> None:
    """Make each call."""
    for call in calls:
        call()


def error(y: torch.Tensor, wanted: torch.Tensor) -> float:
    """The root mean square of y's errors, as a share of what was wanted."""
    return significant(((y - wanted).square().mean() / wanted.square().mean()).sqrt().item())


def significant(number: float) -> float:
    """Four digits of it."""
    return float(f"{number:.4g}")


def integers(codes: torch.Tensor, w: torch.Tensor) -> str:
    """What `int8.int_product` takes for these sizes here."""
    try:
        torch._int_mm(codes, w.t())
    except RuntimeError:
        return "float64"
    return "int8"


# Whole models


def llama(name: str, large: float) -> TinyLM:
    """A random Llama of `MODELS`, float32, whose logits have a standard deviation of about 3. large: how many times as
    large four channels are at the inputs of each block's qkv, gate and up, and down; the function stays the same."""
    width, layers, heads, kv_heads, hidden, vocabulary = MODELS[name]
    attention = partial(RotaryAttention, n_kv_heads=kv_heads, bias=False)
    parts = {"attention": attention, "feed_forward": partial(SwiGLU, d_hidden=hidden), "norm": nn.RMSNorm}
    torch.manual_seed(0)
    with torch.device(HERE):
        model = TinyLM(vocabulary, CONTEXT, width, layers, heads, positions=no_positions, **parts)
        initialise_by_fan_in(model)
        model.norm.weight.mul_(3 / (0.2 * width**0.5))  # the embedding's numbers have 0.2
        for block in model.blocks:
            forward = block.feed_forward
            for before, after, rows in (
                (block.norm_1, block.attention.qkv, slice(None)),
                (block.norm_2, forward.gate_up, slice(None)),
                (forward.gate_up, forward.proj, slice(hidden, None)),
            ):
                factors = torch.ones(after.in_features)
                factors[torch.randperm(after.in_features)[:OUTLIERS]] = large
                move_scale(before, after, factors, rows)
    return model.requires_grad_(False).eval()


def converted(source: TinyLM) -> dict[str, TinyLM]:
    """The model with each kind of layers, its head too."""
    with torch.device(HERE):  # rotations are made there
        return {kind: convert(source, lambda _, linear, kind=kind: KINDS[kind](linear), head=True) for kind in KINDS}


@torch.no_grad()
def whole(job: dict) -> dict:
    """A pass of a whole model in each way. job: part, "prefill" of `size` tokens or "decode" of one in `size` rows."""
    model = llama(job["model"], LARGE)
    low = copy.deepcopy(model).bfloat16()
    begin = prefilling if job["part"] == "prefill" else decoding
    steps = {"float32": begin(model, job["size"]), "TF32": partial(in_tf32, begin(model, job["size"]))}
    steps |= {"bfloat16": begin(low, job["size"])}
    steps |= {kind: begin(it, job["size"]) for kind, it in converted(low).items()}
    tokens = job["size"]
    codes, w = (
        torch.zeros(tokens, 64, dtype=torch.int8, device=HERE),
        torch.zeros(64, 64, dtype=torch.int8, device=HERE),
    )
    return timed(steps) | {"integers": integers(codes, w)}


def prefilling(model: TinyLM, T: int) -> Callable[[], torch.Tensor]:
    """A pass over T tokens, of which the last gets logits."""
    tokens = torch.randint(model.vocab_size, (1, T), device=HERE)
    return lambda: model(tokens, last=1)


def decoding(model: TinyLM, batch: int) -> Callable[[], torch.Tensor]:
    """The next token of some rows, behind `CACHED` ones, again and again."""
    cache = model.new_cache(batch, CACHED + 1)
    for stored in (cache.keys, cache.values):
        stored.normal_()
    tokens = torch.randint(model.vocab_size, (batch, 1), device=HERE)

    def step():
        cache.length = CACHED
        return model(tokens, cache, last=1)

    return step


# The sweep


def run(job: dict) -> dict:
    """One job: see `product` and `whole`."""
    return (product if job["part"] == "product" else whole)(job)


def flat(row: dict) -> list[dict]:
    """A dict of each way of a stored row: the job, the way, and what was found of it."""
    lists = {name: value for name, value in row.items() if isinstance(value, list) and name != "ways"}
    same = {name: value for name, value in row.items() if not isinstance(value, list)}
    every = zip(row["ways"], *lists.values(), strict=True)
    return [same | {"way": way} | dict(zip(lists, found, strict=True)) for way, *found in every]


def jobs(model: str, rows: Sequence[int], tokens: Sequence[int], batches: Sequence[int]) -> list[dict]:
    """All that is found of a model and its matrices."""
    products = [{"matrix": matrix, "size": n} for matrix in MATRICES[model] for n in rows]
    passes = [{"part": part, "size": n} for part, ns in (("prefill", tokens), ("decode", batches)) for n in ns]
    return [{"model": model} | it for it in [{"part": "product"} | it for it in products] + passes]


SWEEP = Sweep(
    __file__,
    "gpu_int8",
    run,
    jobs=[it for model in ("real", "wide") for it in jobs(model, [1, 16, 32, 256, 4096], [256, 2048], [1, 32])],
    quick=jobs("small", [1, 32], [20], [1, 20]),
    tolerance={name: math.inf for name in ("seconds", "graph")},  # no two runs agree in these
    device=HERE,
)


def main_gpu() -> int:
    """The command line of `shared.sweeps`; --cpu-check is its --quick, and all there is where there is no GPU."""
    check = "--cpu-check" in sys.argv
    sys.argv = ["--quick" if it == "--cpu-check" else it for it in sys.argv]
    if HERE == "cpu" and not check:
        print(
            "PyTorch sees no NVIDIA GPU here (torch.cuda.is_available() is False): --cpu-check tries the path, small."
        )
        return 1
    return main(SWEEP)


if __name__ == "__main__":
    sys.exit(main_gpu())
