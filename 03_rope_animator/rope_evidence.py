"""What is seen of lesson 03's patients, made by running them: curves, words, tables, maps. No answers here.

Each function takes a patient's helper and caller and returns Evidence, beside what the healthy files give.
"""

import functools

import rope
import rope_caller
import torch
from matplotlib.figure import Figure

from shared.clinic import Evidence
from shared.colors import BROKEN, FLOOR, WORKING

LENGTHS = (32, 40, 48, 56, 64)
SHIFTS = (0, 100, 300, 1_000, 5_000)
STYLES = {
    "healthy": {"color": WORKING, "label": "healthy"},
    "patient": {"color": BROKEN, "linestyle": (0, (7, 2)), "label": "patient"},
}


def learning(helper, caller):
    """Two loss curves, and how both programs go on."""
    model, losses = caller.train()
    return Evidence(_words(caller, model), _curves(losses))


def learning_and_lengths(helper, caller):
    """The loss curves, and the loss at the end of longer and longer texts."""
    model, losses = caller.train()
    return Evidence(_by_length(caller, model), _curves(losses))


def lengths(helper, caller):
    """The loss at the end of longer and longer texts, each stretched to its length."""
    return Evidence(_by_length(caller, caller.train()[0]))


def starts(helper, caller):
    """The loss of the trained models on texts that begin at other positions."""
    lines = ["START of the caller is set; nats a letter, letters 9 to 31 of 32", f"{'START':<10}healthy   patient"]
    ours, model = _healthy()[0], caller.train()[0]
    for start in SHIFTS:
        values = [_at_start(program, it, start) for program, it in ((rope_caller, ours), (caller, model))]
        lines.append(f"{start:<10}{values[0]:>7.2f}   {values[1]:>7.2f}")
    return Evidence("\n".join(lines))


def words(helper, caller):
    """How both programs go on from prompts of several lengths."""
    return Evidence(_words(caller, caller.train()[0]))


def words_at_start(helper, caller):
    """The same for a document whose first letter stands at position 3,000."""
    model, lines = caller.train()[0], ["START = 3000"]
    for program in (caller, rope_caller):
        program.START = 3000
    try:
        lines.append(_words(caller, model))
    finally:
        for program in (caller, rope_caller):
            program.START = 0
    return Evidence("\n".join(lines))


def converted(helper, caller):
    """How far the answers of a layer read from the other layout are from what they should be, by position."""
    torch.manual_seed(1)
    source, x = rope_caller.attention(32, 2), torch.randn(1, 12, 32)
    wanted = _turning_neighbours(source, x)
    lines = [
        "a layer with random weights that turns neighbours, and the same read by from_pairs",
        "position  largest gap",
    ]
    layer = caller.attention(32, 2)
    layer.load_state_dict(source.state_dict())
    with torch.no_grad():
        gaps = (caller.from_pairs(layer)(x) - wanted).abs().amax(dim=-1)[0]
    lines += [f"{position:>8}  {gap:>11.1g}" for position, gap in enumerate(gaps.tolist())]
    return Evidence("\n".join(lines))


def handed_over(helper, caller):
    """What the program hands to the model for a batch of three prompts."""
    model, given = caller.train()[0], []
    hook = model.register_forward_pre_hook(lambda module, inputs: given.append(inputs))
    caller.go_on(model, _prompts()[0], 1)
    hook.remove()
    ids, _, positions = given[0]
    lines = [f"positions {positions.tolist()}", *(f"letters   {caller.spelt(row)}" for row in ids)]
    return Evidence("\n".join([*lines, "(rows 1 and 2 are filled up with a on the left, and the fill is masked)"]))


def table_map(helper, caller):
    """The table of sinusoids, 64 wide."""
    figure = Figure(figsize=(9, 3.1), layout="constrained")
    for axis, (name, module) in zip(figure.subplots(1, 2), _both(helper), strict=True):
        axis.imshow(module.sinusoids(torch.arange(64), 64).T, aspect="auto", cmap="RdBu", vmin=-1, vmax=1)
        axis.set(title=name, xlabel="position", ylabel="coordinate")
    return Evidence(figure=figure)


def squares(helper, caller):
    """The length of rows of the table of sinusoids."""
    lines = ["sinusoids(positions, 16): the length of some rows", f"{'position':<10}healthy   patient"]
    for position in (0, 1, 2, 5, 10, 100):
        each = [module.sinusoids(torch.tensor([position]), 16).norm().item() for _, module in _both(helper)]
        lines.append(f"{position:<10}{each[0]:>7.3f}   {each[1]:>7.3f}")
    return Evidence("\n".join(lines))


def stretched(helper, caller):
    """By how much each way slows the pairs of a head down."""
    ways = {
        "interpolated(16, 4)": lambda m: m.interpolated(16, 4),
        "ntk_aware(16, 4)": lambda m: m.ntk_aware(16, 4),
        "dynamic_ntk(16, 60, 64, 4)": lambda m: m.dynamic_ntk(16, 60, 64, 4),
        "dynamic_ntk(16, 96, 64, 4)": lambda m: m.dynamic_ntk(16, 96, 64, 4),
        "yarn(16, 4, 1024)": lambda m: m.yarn(16, 4, 1024),
        "yarn(16, 4, 1024, 5e5)": lambda m: m.yarn(16, 4, 1024, 500_000.0),
        "llama3(16, 4, 1024)": lambda m: m.llama3(16, 4, 1024),
    }
    lines = ["how many times slower than inv_freq(16, theta) each of the 8 pairs turns"]
    for name, way in ways.items():
        theta = 500_000.0 if "llama3" in name or "5e5" in name else 10_000.0
        for who, module in _both(helper):
            slower = rope.inv_freq(16, theta) / way(module).inv_freq
            lines.append(f"{name:<28}{who:<9}" + "".join(f"{x:>7.2f}" for x in slower.tolist()))
    return Evidence("\n".join(lines))


def sharpness(helper, caller):
    """How long placed queries are, after stretching by YaRN."""
    lines = ["a layer with random weights and scaling = yarn(16, s, 64): the size of its placed queries"]
    torch.manual_seed(0)
    x = torch.randn(1, 3, 40, 16)
    for scale in (1, 2, 4, 16):
        sizes = []
        for _, module in _both(helper):
            layer = module.Rotary(48, 3)
            layer.scaling = module.yarn(16, scale, 64)
            sizes.append(layer.place(x).norm() / x.norm())
        lines.append(f"s = {scale:<4} healthy {sizes[0]:.4f}   patient {sizes[1]:.4f}")
    return Evidence("\n".join(lines))


def gradients(helper, caller):
    """Loss curves, and what both put out for the same weights."""
    _, losses = caller.train()
    torch.manual_seed(0)
    ours, theirs = rope_caller.new_model(), caller.new_model()
    theirs.load_state_dict(ours.state_dict())
    gap = (rope_caller.nats(ours, 32) - caller.nats(theirs, 32)).abs().max().item()
    return Evidence(
        f"fresh models with the same weights: the largest gap between their losses is {gap:.0e}", _curves(losses)
    )


def slopes(helper, caller):
    """ALiBi's slopes for several numbers of heads."""
    lines = []
    for n in (1, 4, 8, 12):
        for name, module in _both(helper):
            lines.append(f"{n:>2} heads, {name}: " + " ".join(f"{x:.4f}" for x in module.alibi_slopes(n).tolist()))
    return Evidence("\n".join(lines))


def alibi_weights(helper, caller):
    """How far a fresh ALiBi layer looks: the mean weight by distance."""
    figure = Figure(figsize=(4.6, 3.1), layout="constrained")
    axis = figure.subplots()
    for name, module in _both(helper):
        bias = module.alibi_bias(module.alibi_slopes(8), 1, 64)[:, 0]
        axis.plot(range(63, -1, -1), bias.softmax(-1).mean(dim=0), **STYLES[name])
    axis.set(xlabel="distance of the key", ylabel="mean weight, all scores equal")
    axis.legend(frameon=False)
    return Evidence(figure=figure)


def alibi_cached(helper, caller):
    """What an ALiBi layer answers at once and token by token from a cache."""
    from shared.cache import KVCache

    lines = ["an ALiBi layer, 12 tokens at once and one by one from a cache: the largest gap at some tokens"]
    x = torch.randn(1, 12, 32, generator=torch.Generator().manual_seed(0))
    for name, module in _both(helper):
        torch.manual_seed(0)
        layer, cache = module.Alibi(32, 4), KVCache(1, 1, 4, 12, 8)
        with torch.no_grad():
            parts = []
            for t in range(12):
                parts.append(layer(x[:, t : t + 1], cache.positions(1), cache.layers(1)[0]))
                cache.advance(1)
            gaps = (torch.cat(parts, dim=1) - layer(x)).abs().amax(dim=-1)[0]
        lines.append(f"{name}: " + ", ".join(f"token {t} {gaps[t]:.1g}" for t in (0, 1, 5, 11)))
    return Evidence("\n".join(lines))


def kept(helper, caller):
    """How many bytes a fresh layer keeps for its backward pass."""
    lines = ["Rotary(64, 4), one pass over (1, T, 64): bytes that autograd keeps"]
    for T in (64, 256, 1024):
        lines.append(
            f"T = {T:<5}" + "".join(f"{name} {kept_bytes(module, T):>10,}   " for name, module in _both(helper))
        )
    return Evidence("\n".join(lines))


def kept_bytes(module, T):
    """Bytes of the distinct tensors that a layer keeps for its backward pass."""
    seen = {}
    layer, x = module.Rotary(64, 4), torch.randn(1, T, 64)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: seen.setdefault(t.data_ptr(), t), lambda t: t):
        layer.place(layer.qkv(x).view(1, T, -1, 16).transpose(1, 2))
    return sum(t.numel() * t.element_size() for t in seen.values())


@functools.cache
def _healthy():
    return rope_caller.train()


def _both(helper):
    return (("healthy", rope), ("patient", helper))


def _prompts():
    """Beginnings of three texts, and how they go on."""
    whole = [rope_caller.texts(1, n + 12, 900 + n)[0] for n in (20, 14, 9)]
    return [text[:-12].tolist() for text in whole], [text[-12:] for text in whole]


def _words(caller, model):
    prompts, wanted = _prompts()
    ours, theirs = rope_caller.go_on(_healthy()[0], prompts, 12), caller.go_on(model, prompts, 12)
    lines = [f"{'prompt':<22}{'right':<14}{'healthy':<14}patient"]
    for prompt, *each in zip(prompts, wanted, ours, theirs, strict=True):
        spelt = [rope_caller.spelt(ids) for ids in (torch.tensor(prompt), *each)]
        lines.append(f"{spelt[0]:<22}{spelt[1]:<14}{spelt[2]:<14}{spelt[3]}")
    return "\n".join(lines)


def _at_start(program, model, start):
    before, program.START = program.START, start
    try:
        return program.nats(model, 32)[8:31].mean().item()
    finally:
        program.START = before


def _by_length(caller, model):
    """Stretched one length after the other, as a program would that meets longer and longer texts."""
    lines = ["nats of the last 16 letters of texts of several lengths", f"{'letters':<10}healthy   patient"]
    ours = rope_caller.train()[0]
    for length in LENGTHS:
        values = [
            program.nats(program.stretch(it, length), length)[-16:].mean().item()
            for program, it in ((rope_caller, ours), (caller, model))
        ]
        lines.append(f"{length:<10}{values[0]:>7.2f}   {values[1]:>7.2f}")
    return "\n".join(lines)


def _turning_neighbours(layer, x):
    """What a layer would answer if it turned coordinates 2i and 2i + 1."""
    B, T, _ = x.shape
    with torch.no_grad():
        heads = layer.qkv(x).view(B, T, -1, layer.d_head).transpose(1, 2)
        qk, v = heads.split([layer.n_heads + layer.n_kv_heads, layer.n_kv_heads], dim=1)
        turned = rope.rotate_pairs(qk, rope.angles(torch.arange(T), layer.scaling.inv_freq))
        q, k = turned.split([layer.n_heads, layer.n_kv_heads], dim=1)
        return layer.proj(layer.attend(q, k, v, None).transpose(1, 2).reshape(B, T, -1))


def _curves(losses):
    figure = Figure(figsize=(4.6, 3.1), layout="constrained")
    axis = figure.subplots()
    axis.plot(_healthy()[1], **STYLES["healthy"])
    axis.plot(losses, **STYLES["patient"])
    axis.axhline(rope_caller.floor(rope_caller.TRAINED + 1), color=FLOOR, linestyle="--", label="floor")
    axis.set(xlabel="step", ylabel="loss, nats a letter", ylim=(0, 3.2))
    axis.legend(frameon=False)
    return figure
