"""What is seen of lesson 12's patients, made by running them: losses, error maps, tables of codes. No answers here.

Each function takes a patient's helper and caller and returns Evidence. "nats" are the loss a word on the first lines of
held-out documents.
"""

import copy
import functools
from unittest.mock import patch

import int8_caller
import torch
from int8_model import watch
from matplotlib.figure import Figure
from torch.nn import functional as F

from shared.clinic import Evidence
from shared.colors import OTHERS, WORKING
from shared.story_model import load_story_lm
from shared.world.words import decode

WAYS = ("weights", "tokens", "split", "fixed")
PARTS = {"0": slice(0, 1), "1": slice(1, 2), "2-7": slice(2, 8), "8-31": slice(8, 32), "32-": slice(32, None)}
WIDTHS = (32, 40, 64, 72)
SIZES = (1, 1e-2, 1e-4, 1e-6, 1e-8)
RANGES = ((-1, 3), (0, 3), (2, 5), (-5, -2))


@functools.cache
def judges():
    """Six lines on which no scale was found, each (1, T)."""
    return int8_caller.texts(6, seed=777)


@torch.inference_mode()
def line_losses(model):
    """The loss of each word of each line: (T - 1,) for each."""
    return [F.cross_entropy(model(ids)[0, :-1], ids[0, 1:], reduction="none") for ids in judges()]


def nats(model):
    """The mean over the lines."""
    return float(torch.stack([line.mean() for line in line_losses(model)]).mean())


def losses(helper, caller):
    """The loss on each line, of the model and of what each way makes of it, and how these go on with a prompt."""
    model, made = caller.load(), {}
    lines = ["nats a word, on six lines", _row("line", [*range(1, 7), "mean"])]
    lines += [_losses("the story model", load_story_lm), _losses("it with outliers", lambda: model)]
    for way in WAYS:
        lines.append(_losses(f"in 8 bits: {way}", lambda way=way: made.setdefault(way, caller.small(model, way))))
    lines += [_losses("it with outliers, again", lambda: model), "", f"{caller.WISHES[0]} ..."]
    lines += [f"{way:<9}... {_said(caller, small)}" for way, small in made.items()]
    return Evidence("\n".join(lines))


def positions(helper, caller):
    """The loss by the position of the word from which the next one is told."""
    model = caller.load()
    rows = {"it with outliers": model} | {f"in 8 bits: {way}": caller.small(model, way) for way in WAYS}
    lines = ["nats a word on six lines, by the position from which it is told", _row("position", PARTS)]
    for name, small in rows.items():
        found = line_losses(small)
        lines.append(_row(name, [f"{torch.cat([line[part] for line in found]).mean():.2f}" for part in PARTS.values()]))
    return Evidence("\n".join(lines))


def clipped(helper, caller):
    """What layers with fixed scales are given, beside what these hold; and numbers there and back by a fixed scale."""
    small = caller.small(caller.load(), "fixed")
    lines = ["a layer's largest input over the largest number that its scale holds, on the lines on which scales were"]
    lines += ["found, and on others", _row("layer", ["found on", "others"])]
    known, new = (_reach(small, ids) for ids in (caller.texts(), judges()))
    lines += [_row(name, [f"{known[name]:.2f}", f"{new[name]:.2f}"]) for name in known]
    lines += ["", "numbers there and back: their mean over what it was", _row("the scale holds up to", [1, 2, 4])]
    scales = torch.tensor([1, 2, 4])[:, None, None] / 127
    for name, x in {"0.02 to 0.9": torch.linspace(0.02, 0.9, 23), "1.02 to 1.3": torch.tensor([1.02, 1.3])}.items():
        back = (helper.dequantize(helper.quantize(x[None], scale), scale) for scale in scales)
        lines.append(_row(name, [f"{it.mean() / x.mean():.3f}" for it in back]))
    lines += ["", _row("nats a word, six others", [f"{line.mean():.3f}" for line in line_losses(small)])]
    return Evidence("\n".join(lines))


def layer_map(helper, caller):
    """What a layer with a fixed scale puts out, beside the layer that it was made of, by channel and token."""
    model = caller.load()
    smoothed = caller.smooth(model, caller.ranges(model, caller.texts()))
    small, given = caller.small(model, "fixed"), {}
    watch(smoothed, judges()[:1], lambda name, x: given.setdefault(name, x))
    lines = ["what layers put out, given the same: root mean square of that, of the error, of its mean over tokens"]
    lines.append(_row("layer", ["output", "error", "its mean"]))
    figure = _figure(2)
    for name, x in given.items():
        wanted = smoothed.get_submodule(name)(x)[0]
        error = small.get_submodule(name)(x)[0] - wanted  # (T, out)
        lines.append(_row(name, [f"{it.square().mean().sqrt():.3g}" for it in (wanted, error, error.mean(dim=0))]))
        if name in ("blocks.1.attention.proj", "blocks.1.feed_forward.proj"):
            _map(figure.axes["attention" not in name], error[:48].T / wanted.abs().max(), name, "token", "channel")
    return Evidence("\n".join(lines), figure)


def outputs(helper, caller):
    """Errors of a matrix with weights in 8 bits, whose outputs have other sizes."""
    weight, error = weight_errors(caller)
    lines = ["a matrix of 6 outputs and 40 inputs: largest weight of an output, largest error of one, in % of that"]
    lines.append(_row("output", range(len(weight))))
    lines.append(_row("largest weight", [f"{row.max():.3g}" for row in weight.abs()]))
    lines.append(_row("largest error, %", [f"{100 * it:.2g}" for it in error.amax(dim=1)]))
    figure = _figure(1)
    _map(figure.axes[0], error, "error over the output's largest", "input", "output")
    return Evidence("\n".join(lines), figure)


def weight_errors(caller):
    """Weights, and their errors in 8 bits over each output's largest weight, (6, 40) each."""
    weight = _random(6, 40) * torch.tensor([[100.0], [1], [30], [1], [10], [0.1]])
    back = caller.WAYS["weights"]("", caller.linear(weight, torch.zeros(6)))(torch.eye(40)).T
    return weight, (back - weight).abs() / weight.abs().amax(dim=1, keepdim=True)


def files(helper, caller):
    """Errors of matrices of several widths, in four bits."""
    lines = ["matrices of 8 outputs, by turns of size 100 and 1: largest error, in % of the output's largest weight"]
    lines.append(_row("inputs", WIDTHS))
    found = {width: file_errors(caller, width) for width in WIDTHS}
    for name, rows in (("outputs of size 100", slice(0, None, 2)), ("outputs of size 1", slice(1, None, 2))):
        lines.append(_row(name, [f"{100 * error[rows].max():.3g}" for error in found.values()]))
    figure = _figure(2)
    for axis, width in zip(figure.axes, (64, 72), strict=True):
        _map(axis, found[width], f"{width} inputs", "input", "output")
    return Evidence("\n".join(lines), figure)


def file_errors(caller, width):
    """Errors of a matrix in four bits over each output's largest weight, (8, width)."""
    weight = _random(8, width) * torch.tensor([[100.0], [1]]).repeat(4, 1)
    return (caller.in_four_bits(weight) - weight).abs() / weight.abs().amax(dim=1, keepdim=True)


def groups(helper, caller):
    """Groups of 4 bits there and back, at several distances from 0."""
    x = torch.linspace(0, 1, 32)[None] + 0.01 * _random(1, 32).sin()
    lines = ["a group of 32 numbers over a range of 1, moved away from 0: errors in steps of 1/15 of the range"]
    lines.append(_row("lowest number, in steps", ["mean", "largest"]))
    moves = torch.linspace(-2, 2, 41) / 15
    found = [helper.to_groups(x + move, 32) for move in moves]
    errors = [15 * (helper.from_groups(*it) - x - move)[0] for it, move in zip(found, moves, strict=True)]
    for move, error in list(zip(moves, errors, strict=True))[::6]:
        lines.append(_row(f"{15 * move:.1f}", [f"{error.mean():.2f}", f"{error.abs().max():.2f}"]))
    figure = _figure(1)
    figure.axes[0].plot(15 * moves, [error.mean() for error in errors], color=OTHERS[0], marker="o")
    figure.axes[0].set(xlabel="lowest number, steps", ylabel="mean error, steps", ylim=(-1, 1))
    return Evidence("\n".join(lines), figure)


def codes(helper, caller):
    """Codes of a row of numbers, and how often each code is used."""
    x = torch.tensor([[-2.54, -1.905, -0.508, -0.012, 0, 0.012, 0.508, 1.9]])
    lines = ["rows of numbers, their codes, and the errors in steps of 1/127 of the largest"]
    for row in (x, -x, x[:, 1:] * 2):
        scale = helper.absmax_scale(row, "row")
        made = helper.quantize(row, scale)
        step = row.abs().max() / 127
        lines += [_row("number", [f"{it:.3g}" for it in row[0]]), _row("code", made[0].tolist())]
        lines += [_row("error", [f"{it:.2f}" for it in ((helper.dequantize(made, scale) - row) / step)[0]]), ""]
    many = torch.linspace(-3, 3, 25_401)[None]
    made = helper.quantize(many, helper.absmax_scale(many)).flatten().long()
    counts = torch.bincount(made + 128, minlength=256)
    lines.append(f"25,401 numbers evenly from -3 to 3 use {int((counts > 0).sum())} codes of 256")
    lines.append(f"the lowest is {int(made.min())}, the highest {int(made.max())}; -128 is used {int(counts[0])} times")
    figure = _figure(1)
    figure.axes[0].bar(range(-128, 128), counts, width=1, color=WORKING)
    figure.axes[0].set(xlabel="code", ylabel="numbers that have it")
    return Evidence("\n".join(lines), figure)


def ranges(helper, caller):
    """Scale, zero point, and what comes back of a range's ends and of 0."""
    lines = ["numbers from one end of a range to the other, there and back with a zero point"]
    lines.append(_row("range", ["step", "zero", "lowest", "0", "highest", "mean err."]))
    for low, high in RANGES:
        x = torch.linspace(low, high, 1001)[None]
        scale, zero = helper.zero_point(x)
        given = torch.cat([x, torch.zeros(1, 1)], dim=1)
        back = helper.dequantize(helper.quantize_affine(given, scale, zero), scale, zero)
        error = (back - given)[0, :-1].abs().mean() / scale.item()
        cells = [f"{it:.4f}" for it in (scale.item(), back[0, 0], back[0, -1], back[0, -2], error)]
        lines.append(_row(f"{low} to {high}", [cells[0], int(zero), *cells[1:]]))
    return Evidence("\n".join(lines))


def kernels(helper, caller):
    """The same model and the same products on two machines: one has PyTorch's product of whole numbers."""
    model, lines = caller.load(), ["nats a word, on six lines", _row("line", [*range(1, 7), "mean"])]
    lengths = (16, 64, 256, 1024)
    gaps = []
    for name, side_effect in (("one machine", None), ("the other", RuntimeError("no such kernel"))):
        kernel = patch.object(torch, "_int_mm", wraps=torch._int_mm, side_effect=side_effect)
        with kernel:
            lines += [
                _losses(f"{name}: {way}", lambda way=way: caller.small(model, way)) for way in ("weights", "tokens")
            ]
            gaps.append(_row(name, [_product_gap(helper, n) for n in lengths]))
    lines += ["", "largest gap of products of codes from those of 64 bits", _row("codes in a row", lengths), *gaps]
    return Evidence("\n".join(lines))


def columns(helper, caller):
    """What is taken out of the product in 8 bits, and what is gained by it."""
    model = caller.load()
    split, tokens = (caller.small(model, way) for way in ("split", "tokens"))
    lines = ["one line: inputs with a number above the threshold, how many are taken for outliers, and the errors of"]
    lines += [
        "what the layer puts out, with and without the split",
        _row("", ["above", "taken", "split, %", "none, %"]),
    ]
    given = {}
    watch(model, judges()[:1], lambda name, x: given.setdefault(name, x))
    for name, x in given.items():
        above, taken = (x.abs() > caller.THRESHOLD).any(dim=1).sum(), helper.outlier_columns(x, caller.THRESHOLD).sum()
        wanted = model.get_submodule(name)(x)
        errors = [_share(it.get_submodule(name)(x) - wanted, wanted) for it in (split, tokens)]
        lines.append(_row(name, [int(above), int(taken), *errors]))
    return Evidence("\n".join([*lines, "", *losses(helper, caller).text.split("\n")[:7]]))


@torch.inference_mode()
def neighbours(helper, caller):
    """What a text's last logits are when it is run alone, and beside others of the same length."""
    model = caller.load()
    ids = torch.cat([text[:, :40] for text in judges() if text.shape[1] >= 40])  # (B, 40)
    lines = ["a text alone and beside others of the same length: largest gap of a logit, and at how many of its 40"]
    lines += ["positions the likeliest word is another one", _row("texts side by side", [1, 2, 4, len(ids)])]
    for name, made in {"with outliers": model, **{way: caller.small(model, way) for way in WAYS}}.items():
        alone, cells = made(ids[:1])[0], []
        for n in (1, 2, 4, len(ids)):
            beside = made(ids[:n])[0]
            others = int((beside.argmax(dim=-1) != alone.argmax(dim=-1)).sum())
            cells.append(f"{(beside - alone).abs().max():.1g}/{others}")
        lines.append(_row(name, cells))
    seen = {}
    watch(model, [ids], lambda name, x: seen.setdefault(name, x))
    x = seen["blocks.1.feed_forward.proj"]
    lines += ["", "of block 1's last matrix: inputs that the split takes for outliers"]
    lines.append(_row("", [int(helper.outlier_columns(x[:n], caller.THRESHOLD).sum()) for n in (1, 2, 4, len(ids))]))
    return Evidence("\n".join(lines))


def small_numbers(helper, caller):
    """The loss where norms put out smaller numbers and the matrices behind them are larger by as much."""
    lines = ["nats a word; the norms' outputs times a factor, the matrices behind them divided by it"]
    lines.append(_row("factor", SIZES))
    made = {"in float": lambda model: model, "in 8 bits: tokens": lambda model: caller.small(model, "tokens")}
    for name, make in made.items():
        lines.append(_row(name, [f"{nats(make(_with_norms(helper, size))):.3f}" for size in SIZES]))
    lines += ["", "numbers there and back: root mean square error over that of the numbers, %"]
    x = _random(1, 1000)
    lines.append(_row("in 8 bits", [_share(helper.round_trip(x * size) - x * size, x * size) for size in SIZES]))
    return Evidence("\n".join(lines))


def moved(helper, caller):
    """What smoothing does: the loss before anything is rounded and after, and the largest inputs."""
    model = caller.load()
    smoothed = caller.smooth(model, caller.ranges(model, caller.texts()))
    lines = ["nats a word, on six lines", _row("line", [*range(1, 7), "mean"])]
    lines += [_losses("the story model", load_story_lm), _losses("it with outliers", lambda: model)]
    lines += [_losses("smoothed", lambda: smoothed), _losses("in 8 bits: fixed", lambda: caller.small(model, "fixed"))]
    lines += ["", "largest input of a layer", _row("", ["before", "smoothed"])]
    before, after = (caller.ranges(it, caller.texts()) for it in (model, smoothed))
    lines += [_row(name, [f"{it[name].abs().max():.3g}" for it in (before, after)]) for name in before]
    return Evidence("\n".join(lines))


def _with_norms(helper, size):
    """The story model, what its norms put out multiplied by size and the matrices behind divided."""
    model = copy.deepcopy(load_story_lm()).requires_grad_(False)
    for block in model.blocks:
        for norm, layer in ((block.norm_1, block.attention.qkv), (block.norm_2, block.feed_forward.up)):
            helper.move_scale(norm, layer, torch.full((layer.in_features,), size))
    return model


@torch.inference_mode()
def _reach(small, ids):
    """The largest input of each layer with a fixed scale over the largest number that it holds."""
    found = {}

    def see(name, layer, x):
        held = 127 * layer.static if hasattr(layer, "static") else layer.step * (127 - layer.zero)
        found[name] = max(found.get(name, 0), float(x.abs().max() / held))

    layers = {name: it for name, it in small.named_modules() if hasattr(it, "codes")}
    hooks = [it.register_forward_pre_hook(lambda it, x, name=name: see(name, it, x[0])) for name, it in layers.items()]
    for each in ids:
        small(each)
    for hook in hooks:
        hook.remove()
    return found


def _product_gap(helper, n):
    """The largest gap of a product of codes, rows of n, from that of 64 bits."""
    x, w = (127 * _random(*shape).sin() for shape in ((20, n), (16, n)))
    x, w = x.abs().char(), w.abs().char()
    return f"{(helper.int_product(x, w).long() - x.long() @ w.long().T).abs().max():.2g}"


def _losses(name, make):
    """A row of the losses on each line and their mean, or the error that making the model ended in."""
    try:
        found = [float(line.mean()) for line in line_losses(make())]
    except (RuntimeError, ValueError, KeyError) as error:
        return f"{name:<28}{type(error).__name__}: {error}"[:118]
    return _row(name, [f"{it:.3f}" for it in (*found, sum(found) / len(found))])


def _said(caller, model):
    """How the model goes on with the first prompt."""
    try:
        return decode(caller.answers(model, caller.PROMPTS[:1])[0]).strip().replace("\n", " / ")
    except (RuntimeError, ValueError, KeyError) as error:
        return f"{type(error).__name__}: {error}"[:100]


def _share(error, wanted):
    """The error's root mean square in % of that of what was wanted."""
    return f"{100 * (error.square().mean() / wanted.square().mean()).sqrt():.2g}"


def _map(axis, error, title, x, y):
    """A picture of |error|."""
    picture = axis.imshow(error.abs(), cmap="Blues", vmin=0, aspect="auto", interpolation="nearest")
    axis.figure.colorbar(picture, ax=axis)
    axis.set(title=title, xlabel=x, ylabel=y)


def _random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _row(name, cells):
    return f"{name:<28}" + "".join(f"{cell!s:>10}" for cell in cells)


def _figure(n):
    figure = Figure(figsize=(4.6 * n, 3.1), layout="constrained")
    figure.subplots(1, n)
    return figure
