"""What each arm of the sweep makes of the real model: a copy of it whose linear layers are others.

Arms of activations alone are `Rounded`, a product in float of what is left of the inputs. Those with "W8A8" and the
cures have codes for both, weights by row, and products of whole numbers. "tensor" is all tokens of one text.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial

import torch
from int8 import By, SplitLinear, W8A8Linear, outlier_columns, round_trip, top
from int8_awq import awq
from int8_cures import Turned, rotate_stream, smooth
from int8_gptq import gptq
from int8_groups import FourBitLinear, round_groups
from int8_model import Change, Rounded, calibrate, convert, watch
from int8_real import fitting, largest, means, moments, quantiles, whole
from torch import nn

KINDS = {
    "qkv": "attention.qkv",
    "o": "attention.proj",
    "gate_up": "feed_forward.gate_up",
    "down": "feed_forward.proj",
}
WORST = (2, 9, 11, 28, 29)  # whose down matrix alone costs most, by windows that do not judge
TENSOR = partial(round_trip, by="tensor")
SEEDS = range(5)
Arms = dict[str, Callable[[], nn.Module]]
Where = Callable[[str], bool]


def downs(layers: Iterable[int]) -> set[str]:
    """Their names."""
    return {f"blocks.{layer}.{KINDS['down']}" for layer in layers}


def inputs(change: Change, where: Where = lambda name: True) -> nn.Module:
    """The inputs of those linear layers changed."""
    return convert(whole(), lambda name, linear: Rounded(linear, inputs=change) if where(name) else None)


def weights(change: Change) -> nn.Module:
    """The matrices changed."""
    return convert(whole(), lambda name, linear: Rounded(linear, weight=change))


def w8a8(x_by: By = "row", of: nn.Module | None = None, scales: dict | None = None, **how) -> nn.Module:
    """Weights and activations in codes; scales: static ones of activations, by name. how: as `W8A8Linear` takes it."""
    fixed = {} if scales is None else scales
    make = partial(W8A8Linear, inputs=x_by, **how)
    return convert(of or whole(), lambda name, linear: make(linear, static=fixed.get(name)))


def static(maxima: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A scale for each layer, of the largest |x|."""
    return {name: each.max() / top() for name, each in maxima.items()}


# Granularity


def granularity() -> Arms:
    arms = {"float": whole, "weights tensor": partial(weights, TENSOR)}
    for name, by in (("row", "row"), ("32", 32)):
        arms[f"weights {name}"] = partial(weights, partial(round_trip, by=by))
    for name, by in (("tensor", "tensor"), ("token", "row"), ("channel", "column"), ("32", 32)):
        arms[f"inputs {name}"] = partial(inputs, partial(round_trip, by=by))
    arms["inputs tensor, zero point"] = partial(inputs, partial(TENSOR, zero=True))
    arms |= {"W8A8 tensor": partial(w8a8, "tensor"), "W8A8 token": w8a8}
    arms["W8A8 tensor, zero point"] = partial(w8a8, "tensor", zero=True)
    arms["W8A8 tensor, weights tensor"] = lambda: w8a8("tensor", by="tensor")
    arms["W8A8 static"] = lambda: w8a8("tensor", scales=static(largest()))
    arms["W8A8 static, without the first token"] = lambda: w8a8("tensor", scales=static(largest(1)))
    arms["W8A8 static, 99.9 %"] = lambda: w8a8("tensor", scales=static(quantiles(0.999)))
    return arms


# Which token, which layers


def keeping(places: Callable[[torch.Tensor], Sequence[int]], change: Change = TENSOR) -> Change:
    """All tokens changed but those at places(x), which have no part in the others' scale."""

    def keep(x: torch.Tensor) -> torch.Tensor:
        others = torch.ones(x.shape[1], dtype=torch.bool)
        others[places(x)] = False
        x = x.clone()
        x[:, others] = change(x[:, others])
        return x

    return keep


def drawn(seed: int) -> Callable[[torch.Tensor], list[int]]:
    """A place other than the first, the same for all layers."""

    def place(x: torch.Tensor) -> list[int]:
        generator = torch.Generator().manual_seed(seed)
        return [1 + int(torch.randint(x.shape[1] - 1, (), generator=generator))]

    return place


def loudest(x: torch.Tensor, first: int = 0, n: int = 1) -> list[int]:
    """The n tokens, from `first` on, with the largest numbers of this input."""
    return [first + place for place in x[0, first:].abs().amax(dim=-1).topk(n).indices.tolist()]


def loud_in(least: int, most: int, x: torch.Tensor) -> torch.Tensor:
    """Which columns have a number above 6 in so many tokens: (n,) bool."""
    tokens = (x.abs() > 6).flatten(0, -2).sum(dim=0)
    return (tokens >= least) & (tokens <= most)


def token() -> Arms:
    """Inputs by tensor, and these tokens kept in float."""
    arms = {f"first {n}": partial(inputs, keeping(lambda x, n=n: list(range(n)))) for n in (1, 2, 4)}
    arms |= {f"drawn {seed}": partial(inputs, keeping(drawn(seed))) for seed in SEEDS}
    arms |= {"loudest": partial(inputs, keeping(loudest))}
    arms["loudest but the first"] = partial(inputs, keeping(partial(loudest, first=1)))
    for n in (1, 4):
        arms[f"first and {n} loudest others"] = partial(inputs, keeping(lambda x, n=n: [0, *loudest(x, 1, n)]))
    arms["first and 4 drawn"] = partial(inputs, keeping(lambda x: [0, *(drawn(seed)(x)[0] for seed in range(4))]))
    for name, least, most in (("64 or more", 64, 10**6), ("1 to 63", 1, 63)):
        change = splitting(partial(loud_in, least, most))
        arms[f"first, and columns loud in {name} others"] = partial(inputs, keeping(lambda x: [0], change))
    return arms


def but(layers: Iterable[int]) -> nn.Module:
    """Inputs by tensor but those of these layers' down matrices."""
    kept = downs(layers)
    return inputs(TENSOR, lambda name: name not in kept)


def five_others(seed: int) -> list[int]:
    """Five layers, none of `WORST`."""
    others = torch.tensor([layer for layer in range(30) if layer not in WORST])
    return others[torch.randperm(len(others), generator=torch.Generator().manual_seed(seed))[:5]].tolist()


def layers() -> Arms:
    arms = {
        f"{kind} only": partial(inputs, TENSOR, lambda name, it=it: name.endswith(it)) for kind, it in KINDS.items()
    }
    arms |= {f"down {layer}": partial(inputs, TENSOR, downs([layer]).__contains__) for layer in range(30)}
    arms["but the five worst"] = partial(but, WORST)
    return arms | {f"but five others {seed}": lambda seed=seed: but(five_others(seed)) for seed in SEEDS}


# Which columns


def splitting(columns: Callable[[torch.Tensor], torch.Tensor], change: Change = TENSOR) -> Change:
    """All columns changed but those that columns(x), (n,) bool, says; they have no part in the others' scale."""

    def split(x: torch.Tensor) -> torch.Tensor:
        kept = columns(x)
        return torch.where(kept, x, change(x.masked_fill(kept, 0)))

    return split


def as_many(threshold: float, seed: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """As many columns as have numbers above the threshold, drawn for each layer and text."""
    generator = torch.Generator().manual_seed(seed)

    def columns(x: torch.Tensor) -> torch.Tensor:
        chosen = torch.zeros(x.shape[-1], dtype=torch.bool)
        chosen[torch.randperm(len(chosen), generator=generator)[: outlier_columns(x, threshold).sum()]] = True
        return chosen

    return columns


THRESHOLDS = (3, 6, 20, 100)


def columns() -> Arms:
    arms = {
        f"LLM.int8() {t}": lambda t=t: convert(whole(), lambda name, linear: SplitLinear(linear, t)) for t in THRESHOLDS
    }
    arms |= {
        f"inputs tensor, above {t} kept": partial(inputs, splitting(partial(outlier_columns, threshold=t)))
        for t in THRESHOLDS
    }
    return arms | {f"inputs tensor, as many drawn {s}": lambda s=s: inputs(splitting(as_many(6, s))) for s in SEEDS}


@cache
def column_share(threshold: float) -> float:
    """Of all columns of all inputs, how many have a number above it, over the texts that calibrate."""
    counts = []
    watch(whole(), fitting().split(1), lambda name, x: counts.append(outlier_columns(x, threshold).float()))
    return float(torch.cat(counts).mean())


# Cures


def smoothed(alpha: float, first: int = 0) -> nn.Module:
    return smooth(whole(), largest(first), alpha)


def turned(by: By, where: Where = lambda name: True, of: nn.Module | None = None) -> nn.Module:
    """W8A8, the inputs of those layers rotated before."""
    make = partial(W8A8Linear, inputs=by)
    return convert(of or whole(), lambda name, linear: Turned(linear, make) if where(name) else make(linear))


@cache
def orthogonal(n: int) -> torch.Tensor:
    """A rotation by chance: (n, n)."""
    return torch.linalg.qr(torch.randn(n, n, dtype=torch.float64, generator=torch.Generator().manual_seed(n))).Q.float()


def through(change: Change, x: torch.Tensor) -> torch.Tensor:
    """Rotated by chance, changed, rotated back."""
    turn = orthogonal(x.shape[-1])
    return change(x @ turn) @ turn.mT


def turned_by_chance(by: By) -> nn.Module:
    """What `turned` computes, but for the rotation, in float."""
    change = {"inputs": partial(through, partial(round_trip, by=by))}
    change["weight"] = partial(through, partial(round_trip, by="row"))
    return convert(whole(), lambda name, linear: Rounded(linear, **change))


def cures() -> Arms:
    arms = {}
    for name, by in (("tensor", "tensor"), ("token", "row")):
        for alpha in (0.25, 0.5, 0.75, 0.85):
            arms[f"SmoothQuant {alpha} {name}"] = lambda by=by, alpha=alpha: w8a8(by, of=smoothed(alpha))
        arms[f"Hadamard {name}"] = partial(turned, by)
        arms[f"stream rotated {name}"] = lambda by=by: w8a8(by, of=rotate_stream(whole()))
        arms[f"orthogonal {name}"] = partial(turned_by_chance, by)
    for alpha in (0.5, 0.75):
        how = f"SmoothQuant {alpha} tensor, without the first token"
        arms[how] = lambda alpha=alpha: w8a8("tensor", of=smoothed(alpha, first=1))
    arms["stream rotated, other inputs at each call, tensor"] = lambda: turned(
        "tensor", lambda name: name.endswith("proj"), of=rotate_stream(whole())
    )
    return arms


# Prefix: what the first token was run by, and what runs the tokens behind it

Pair = tuple[nn.Module, nn.Module]


def behind(make: Callable[[nn.Module], nn.Module], before: Callable[[], nn.Module] = whole) -> Pair:
    """make: what of the model that runs the prefix is made for the rest."""
    first = before()
    return first, make(first)


def fixed_behind(model: nn.Module) -> nn.Module:
    """Static scales of the tokens behind the first, which ran in float."""
    return w8a8("tensor", of=model, scales=static(calibrate(model, fitting().split(1), first=1)))


def prefixes() -> dict[str, Callable[[], Pair]]:
    arms = {"float": lambda: (whole(), whole())}
    arms["tensor"] = partial(behind, partial(w8a8, "tensor"))
    arms["token"] = partial(behind, partial(w8a8, "row"))
    arms["static"] = partial(behind, fixed_behind)
    for alpha in (0.5, 0.75):
        arms[f"SmoothQuant {alpha} static"] = partial(behind, fixed_behind, partial(smoothed, alpha, 1))
    arms["Hadamard tensor"] = partial(behind, lambda model: turned("tensor", of=model))
    return arms


# Fewer bits


def low_bits() -> Arms:
    """Of weights; the model's own file has 4 bits, so all but the first are a second rounding."""
    arms: Arms = {"4 bits, groups of 32": lambda: convert(whole(), lambda name, linear: FourBitLinear(linear))}
    arms["4 bits, symmetric groups of 32"] = partial(weights, partial(round_trip, by=32, bits=4))
    for size in (64, 192):
        arms[f"4 bits, groups of {size}"] = partial(weights, partial(round_groups, bits=4, size=size))
    for bits in (6, 5, 4):
        arms[f"{bits} bits, rows"] = partial(weights, partial(round_trip, by="row", bits=bits))
    arms["3 bits, rounded"] = partial(weights, partial(round_groups, bits=3))
    arms |= {"3 bits, GPTQ": three_by_gptq, "3 bits, GPTQ, sink 0.1": partial(three_by_gptq, 0.1)}
    arms["3 bits, GPTQ, sink 0"] = partial(three_by_gptq, 0.0)
    arms |= {"3 bits, AWQ": three_by_awq, "3 bits, AWQ, sink 0.1": partial(three_by_awq, 0.1)}
    for bits in (6, 5, 4):
        for name, by in (("token", "row"), ("32", 32)):
            arms[f"inputs {name}, {bits} bits"] = partial(inputs, partial(round_trip, by=by, bits=bits))
    low = partial(Rounded, inputs=partial(round_trip, by="row", bits=4))
    arms["inputs token, rotated, 4 bits"] = lambda: convert(whole(), lambda name, linear: Turned(linear, low))
    return arms


def three_by_gptq(sink: float | None = None) -> nn.Module:
    return _by_name(lambda name, w: gptq(w, moments(sink)[name], bits=3))


def three_by_awq(sink: float | None = None) -> nn.Module:
    return _by_name(lambda name, w: awq(w, means()[name], moments(sink)[name], bits=3))


def _by_name(change: Callable[[str, torch.Tensor], torch.Tensor]) -> nn.Module:
    return convert(whole(), lambda name, linear: Rounded(linear, weight=partial(change, name)))
