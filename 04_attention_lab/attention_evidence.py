"""What is seen of lesson 04's patients, made by running them: curves, words, maps, gaps. No answers here.

Each function takes a patient's helper and caller and returns Evidence, beside what the healthy files give.
"""

import functools
import time

import attention
import attention_caller
import torch
from matplotlib.figure import Figure

from shared.clinic import Evidence
from shared.colors import BROKEN, FLOOR, WORKING

HELD_OUT = 1000  # a seed that no training uses
DASHED = (0, (7, 2))


def learning(helper, caller):
    """Two loss curves, and what both programs say after some words."""
    model, losses = caller.train()
    return Evidence(_said(caller, model), _curves(losses))


def losses(helper, caller):
    """Losses of the healthy and of the patient's run."""
    return Evidence(_losses_at(caller.train()[1]))


def hot_losses(helper, caller):
    """Losses of both at four times the learning rate."""
    setting = f"LEARNING_RATE = {4 * caller.LEARNING_RATE} in both callers:"
    return Evidence(f"{setting}\n{_losses_at(_at_rate(caller, 4), _at_rate(attention_caller, 4))}")


def maps(helper, caller):
    """What the heads attend to in one text, after training."""
    return Evidence(figure=_maps(caller.train()[0], _healthy()[0]))


def fresh_maps(helper, caller):
    """What the heads attend to in one text, before training, and the loss curves."""
    return Evidence(_losses_at(caller.train()[1]), _maps(_fresh(caller), _fresh(attention_caller)))


def maps_and_losses(helper, caller):
    """The maps after training, and losses on the way."""
    model, losses = caller.train()
    return Evidence(_losses_at(losses), _maps(model, _healthy()[0]))


def one_hot(helper, caller):
    """How much of its attention each token gives to one other, before and after training."""
    lines = ["the largest weight of a row, on average over the second half (the healthy run has another seed)"]
    ids, real = caller.texts(64, HELD_OUT)
    models = {"healthy": (_fresh(attention_caller, 1), _healthy(1)[0]), "patient": (_fresh(caller), caller.train()[0])}
    for name, pair in models.items():
        before, after = (_weights(it, ids, real).amax(dim=-1)[:, :, caller.LONGEST : -1].mean() for it in pair)
        lines.append(f"{name}: {before:.2f} before training, {after:.2f} after")
    return Evidence("\n".join(lines), _maps(models["patient"][1], models["healthy"][1]))


def evenness_by_heads(helper, caller):
    """How even a fresh layer's attention is, for more and more heads of the same width."""
    counts = [1, 2, 4, 8, 16, 32]
    figure, axis = _figure()
    for module, style in ((attention, _style("healthy")), (helper, _style("patient"))):
        axis.plot(counts, [_spread(module, n) for n in counts], marker="o", **style)
    axis.set_xscale("log", base=2)
    axis.set(xlabel="heads, each 8 wide", ylabel="largest weight of a row of 40", ylim=(0, None))
    axis.legend(frameon=False)
    return Evidence(figure=figure)


def last_batch(helper, caller):
    """Losses of an epoch whose last batch is filled up with empty texts, and of the step after it."""
    lines = ["the fifth batch: ids[20:] = FILL and real[20:] = False, before it goes to loss()"]
    for name, program in (("healthy", attention_caller), ("patient", caller)):
        model, optimizer = _fresh(program), None
        optimizer = torch.optim.Adam(model.parameters(), lr=program.LEARNING_RATE)
        values = []
        for step in range(6):
            ids, real = program.texts(program.BATCH, step)
            if step == 4:
                ids, real = ids.clone(), real.clone()
                ids[20:], real[20:] = program.FILL, False
            optimizer.zero_grad()
            value = program.loss(model, ids, real)
            value.backward()
            optimizer.step()
            values.append(f"{value.item():.3f}")
        lines.append(
            f"{name}: batches of 32 {', '.join(values[:4])}; 20 texts and 12 empty ones {values[4]}; then {values[5]}"
        )
    return Evidence("\n".join(lines))


def gradients(helper, caller):
    """Loss curves, and the size of the first gradient by matrix."""
    figure, (left, right) = _figure(2)
    _draw_curves(left, caller.train()[1], _healthy()[1])
    names = ["query", "key", "value", "proj"]
    for i, (program, name) in enumerate(((attention_caller, "healthy"), (caller, "patient"))):
        model = _fresh(program)
        program.loss(model, *program.texts(program.BATCH, 0)).backward()
        sizes = [getattr(model.layer, matrix).weight.grad.norm().item() for matrix in names]
        right.bar([at + 0.4 * i for at in range(4)], sizes, 0.4, color=_style(name)["color"], label=name)
    right.set_xticks([at + 0.2 for at in range(4)], names)
    right.set(ylabel="size of the first gradient")
    right.legend(frameon=False)
    return Evidence(figure=figure)


def gap_by_length(helper, caller):
    """How far attention_tiled is from attention, for longer and longer texts."""
    lines = ["tokens   largest gap between attention_tiled and attention (float32)"]
    for n in (32, 64, 128, 129, 192, 256, 512):
        q, k, v = _random(n, 16), _random(n, 16, 1), _random(n, 8, 2)
        gap = (
            (helper.attention_tiled(q, k, v, causal=True) - helper.attention(q, k, v, helper.causal_mask(n)))
            .abs()
            .max()
        )
        lines.append(f"{n:>6}   {gap:.1g}")
    return Evidence("\n".join(lines))


def size_by_norm(helper, caller):
    """The size of both versions' outputs, for keys that are longer and longer."""
    lines = [
        "4 queries, 40 keys, tiles of 16",
        "keys' length   size of a row of attention   of attention_tiled",
    ]
    q, k, v = -_random(4, 16).abs(), _random(40, 16, 1).abs(), _random(40, 8, 2)
    for length in (1, 10, 100, 1e3, 1e4, 1e5, 1e6):
        plain, tiled = helper.attention(q, length * k, v), helper.attention_tiled(q, length * k, v, tile=16)
        lines.append(f"{length:>12g}   {plain.norm(dim=-1).mean():>26.3f}   {tiled.norm(dim=-1).mean():>18.3f}")
    return Evidence("\n".join(lines))


def ablation(helper, caller):
    """A table of runs with other scales: the largest weight of a row after training, and how many letters are right."""
    lines = ["SCALE of the caller is set, then train(steps=40)", "scale     largest weight of a row   letters repeated"]
    try:
        for scale in (None, 1.0, 0.1, 0.03, 0.0):
            caller.SCALE = scale
            model, _ = caller.train(steps=40)
            ids, real = caller.texts(64, HELD_OUT)
            largest = _weights(model, ids, real).amax(dim=-1)[:, :, caller.LONGEST : -1].mean()
            lines.append(f"{scale!s:<8}{largest:>25.2f}{_right(caller, model):>19.0%}")
    finally:
        caller.SCALE = None
    return Evidence("\n".join(lines))


def causal_time(helper, caller):
    """How long the tiled version takes with and without causal=True."""
    q, k, v = (_random(1024, 16, seed) for seed in range(3))
    lines = ["1024 tokens in tiles of 64, seconds, the best of 3"]
    for name, module in (("healthy", attention), ("patient", helper)):
        took = [min(_seconds(module, q, k, v, causal) for _ in range(3)) for causal in (False, True)]
        lines.append(f"{name}: all keys {took[0]:.3f}, causal {took[1]:.3f}: {took[1] / took[0]:.0%} of it")
    return Evidence("\n".join(lines))


def first_query(helper, caller):
    """The size of the gradient of each token's query, in a model that is learning."""
    figure, axis = _figure()
    lines = ["gradient of the query at position 0, for each of 64 texts (the healthy run has another seed)"]
    for i, (name, program) in enumerate((("healthy", attention_caller), ("patient", caller))):
        sizes = _query_gradients(program, program.train(seed=1 - i, steps=20)[0])
        at = [position + 0.4 * i for position in range(len(sizes))]
        axis.bar(at, sizes.tolist(), 0.4, color=_style(name)["color"], label=name)
        lines.append(f"{name}: {sizes[0]:.3g}")
    axis.set(xlabel="position", ylabel="gradient of the query")
    axis.legend(frameon=False)
    return Evidence("\n".join(lines), figure)


def handed_over(helper, caller):
    """What the program gives to the layer, for a text of full length."""
    model, losses = caller.train()
    ids, real = caller.texts(200, HELD_OUT)
    full = real.all(dim=1).nonzero()[0, 0]
    given = []
    hook = model.layer.register_forward_pre_hook(lambda layer, inputs: given.append(inputs))
    model(ids[full : full + 1], real[full : full + 1])
    hook.remove()
    x, mask = given[0]
    text = f"layer(x, mask) was called with x {tuple(x.shape)} and mask {mask.int().tolist()}"
    return Evidence(f"{text}\nthe curves: the healthy run has another seed", _curves(losses, _healthy(1)[1]))


@functools.cache
def _healthy(seed=0):
    return attention_caller.train(seed)


def _query_gradients(program, model):
    """The size of the gradient of each position's query, (T,)."""
    seen = []
    hook = model.layer.query.register_forward_hook(lambda *given: given[2].retain_grad() or seen.append(given[2]))
    program.loss(model, *program.texts(64, HELD_OUT)).backward()
    hook.remove()
    return seen[0].grad.norm(dim=-1).mean(dim=0)


def _at_rate(program, factor):
    rate = program.LEARNING_RATE
    program.LEARNING_RATE = factor * rate
    try:
        return program.train()[1]
    finally:
        program.LEARNING_RATE = rate


def _fresh(program, seed=0):
    torch.manual_seed(seed)
    return program.Repeater()


@torch.no_grad()
def _weights(model, ids, real):
    return model.layer.weights(model.embed(ids), real)


def _right(program, model):
    """The share of letters that the model repeats."""
    words = program.texts(200, HELD_OUT)[0][:, : program.LONGEST]
    return (program.repeat(model, words) == words)[words != program.FILL].float().mean().item()


def _said(program, model):
    words = program.texts(6, HELD_OUT)[0][:, : program.LONGEST]
    ours = attention_caller.repeat(_healthy()[0], words)
    lines = ["word       healthy    patient"]
    spelt = attention_caller.spelt
    for word, right, said in zip(words, ours, program.repeat(model, words), strict=True):
        lines.append(f"{spelt(word):<11}{spelt(right):<11}{spelt(said)}".rstrip())
    return "\n".join(lines)


def _losses_at(losses, healthy=None):
    steps = (0, 1, 4, 9, 19, 39, 59, 79, 99)
    lines = ["step       " + "".join(f"{step + 1:>7}" for step in steps)]
    for name, values in (("healthy", healthy or _healthy()[1]), ("patient", losses)):
        lines.append(f"{name:<11}" + "".join(f"{values[step]:>7.2f}" for step in steps))
    return "\n".join(lines)


def _style(name):
    return (
        {"color": BROKEN, "linestyle": DASHED, "label": name}
        if name == "patient"
        else {"color": WORKING, "label": name}
    )


def _figure(n=1):
    figure = Figure(figsize=(4.6 * n, 3.1), layout="constrained")
    axes = figure.subplots(1, n)
    return figure, axes


def _draw_curves(axis, patient, healthy):
    floor = attention_caller.floor(*attention_caller.texts(2000, HELD_OUT))
    axis.plot(healthy, **_style("healthy"))
    axis.plot(patient, **_style("patient"))
    axis.axhline(floor, color=FLOOR, linestyle="--", label="floor")
    axis.set(xlabel="step", ylabel="loss, nats a token", ylim=(0, 3))
    axis.legend(frameon=False)


def _curves(patient, healthy=None):
    figure, axis = _figure()
    _draw_curves(axis, patient, healthy or _healthy()[1])
    return figure


def _maps(model, healthy=None):
    """The maps of all heads for one text of full length, patient below healthy."""
    ids, real = attention_caller.texts(200, HELD_OUT)
    full = real.all(dim=1).nonzero()[0, 0]
    rows = [(name, it) for name, it in (("healthy", healthy), ("patient", model)) if it is not None]
    figure = Figure(figsize=(8.6, 2.4 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), attention_caller.N_HEADS, squeeze=False)
    letters = list(attention_caller.spelt(ids[full, : attention_caller.LONGEST]))
    labels = [*letters, "=", *letters]
    for row, (name, it) in zip(axes, rows, strict=True):
        weights = _weights(it, ids[full : full + 1], real[full : full + 1])[0]
        for head, axis in enumerate(row):
            axis.imshow(weights[head].numpy(), cmap="Blues", vmin=0, vmax=1)
            axis.set_xticks(range(len(labels)), labels, fontsize=6)
            axis.set_yticks(range(len(labels)), labels, fontsize=6)
            axis.set_title(f"{name}, head {head}", fontsize=9)
    return figure


@torch.no_grad()
def _spread(module, n_heads):
    torch.manual_seed(0)
    layer = module.MultiHeadAttention(8 * n_heads, n_heads, causal=False)
    x = 3 * torch.randn(4, 40, 8 * n_heads)
    return layer.weights(x).amax(dim=-1).mean().item()


def _random(n, width, seed=0):
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed))


def _seconds(module, q, k, v, causal):
    start = time.perf_counter()
    module.attention_tiled(q, k, v, causal=causal, tile=64)
    return time.perf_counter() - start
