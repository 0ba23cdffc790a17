"""What is seen of lesson 09's patients, made by running them: answers, gaps, curves, maps, bytes. No answers here.

Each function takes a patient's helper and caller and returns Evidence, beside what the healthy files give.
"""

import functools
import math

import torch
import window
import window_caller
from matplotlib.figure import Figure
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from shared.clinic import Evidence
from shared.colors import BROKEN, FLOOR, OTHERS, WORKING
from shared.hooks import hooked
from shared.memory import peak_bytes
from shared.rotary import no_positions
from shared.story_model import load_story_lm
from shared.tiny_lm import TinyLM
from shared.world import BASE, HELD_OUT
from shared.world.rows import rows
from shared.world.words import KIND, VOCABULARY, decode, encode

STYLES = {
    "healthy": {"color": WORKING},
    "patient": {"color": BROKEN, "linestyle": (0, (7, 2))},
}
NAMED = ("first name", "animal", "object", "place")  # kinds of words that a scene brings in
TOLD = 160  # words of a telling


def answers(helper, caller):
    """How far the answers are those that a healthy program gives in one pass over all, and two of them."""
    ours, true = _answers(caller, caller.prompts()), _whole_answers()
    lines = ["words up to the first that is not what a healthy model says in one pass over all, of all words"]
    lines.append(_row("the prompt's words", [len(prompt) for prompt in caller.prompts()]))
    cells = [f"{_agree(said, right)}/{len(right)}" for said, right in zip(ours, true, strict=True)]
    lines.append(_row("answer through the ring", cells))
    for i in (1, 5):
        lines += ["", f"prompt    {caller.WISHES[i]} ...", f"one pass  {_text(true[i])}", f"ring      {_text(ours[i])}"]
    return Evidence("\n".join(lines))


def prompt_lengths(helper, caller):
    """How far answers are right, by the length of the prompt."""
    story, lengths = caller.prompts()[2], (14, 20, 26, 44, 80)
    lines = ["a story, cut off after so many words; words of its answer up to the first that a healthy model"]
    lines[0] += " would not say in one pass, of all"
    lines.append(_row("the prompt's words", lengths))
    prompts = [story[:length] for length in lengths]
    for name, program in (("healthy", window_caller), ("patient", caller)):
        pairs = zip(prompts, _answers(program, prompts), strict=True)
        lines.append(_row(name, [f"{_right(prompt, said)}/{len(said)}" for prompt, said in pairs]))
    return Evidence("\n".join(lines))


def gaps(helper, caller):
    """How far a ring's logits are from those of one pass under masks, by position and by the size of a pass."""
    lines = ["largest gap of a logit from one pass under masks; 40 words, windows of 6, 10, 6 and 12"]
    settings = {"no sinks": 0, "3 sinks": 3}
    lines.append(f"{'words a pass':<14}" + "".join(f"{name:>14}" for name in settings) + f"{'3, healthy':>14}")
    figure, axes = _figure(2)
    for T, color, marker, size in zip((1, 3, 8, 40), OTHERS, "ov^s", (3, 8, 6, 3), strict=True):
        found = [_gaps(helper, T, sinks) for sinks in settings.values()]
        cells = [gap.max() for gap in (*found, _gaps(window, T, 3))]
        lines.append(f"{T:<14}" + "".join(f"{cell:>14.1g}" for cell in cells))
        for axis, gap in zip(axes, found, strict=True):
            axis.plot(gap.clamp(min=1e-17), label=f"{T} a pass", color=color, marker=marker, markersize=size)
    for axis, name in zip(axes, settings, strict=True):
        axis.set(xlabel="position", ylabel="largest gap of its logits", yscale="log", ylim=(3e-18, 1e3), title=name)
    axes[0].legend(frameon=False, ncols=2)
    return Evidence("\n".join(lines), figure)


def blocks(helper, caller):
    """How far attention by blocks is from PyTorch's own with the same mask, by the query."""
    lines = ["window 48, 200 queries in blocks of 32: largest gap from PyTorch's own under a mask"]
    figure, axes = _figure(2)
    for axis, sinks in zip(axes, (0, 4), strict=True):
        for name, module in (("healthy", window), ("patient", helper)):
            gap = _block_gaps(module, sinks)
            lines.append(f"{name}, {sinks} sinks: {gap.max():.1g}, in {(gap > 1e-9).sum()} of {len(gap)} queries")
            axis.plot(gap.clamp(min=1e-18), label=name, **STYLES[name])
        axis.set(xlabel="query", ylabel="gap", yscale="log", ylim=(3e-19, 1e5), title=f"{sinks} sinks")
    axes[0].legend(frameon=False, ncols=2, loc="upper left")
    return Evidence("\n".join(lines), figure)


def work(helper, caller):
    """What attention by blocks of 64 costs with a window of 32: bytes at once and multiplications."""
    figure, axes = _figure(2)
    lengths, lines = [256, 512, 1024, 2048], ["window 32, blocks of 64; the largest gap from PyTorch's own is in the"]
    lines[0] += " last column"
    lines.append(f"{'':<10}{'':<16}" + "".join(f"{n:>9}" for n in lengths))
    for name, module in (("healthy", window), ("patient", helper)):
        costs = [_cost(module, n) for n in lengths]
        for axis, label, values in zip(
            axes, ("KiB at once", "million products"), zip(*costs, strict=True), strict=True
        ):
            axis.plot(lengths, values, marker="o", label=name, **STYLES[name])
            lines.append(f"{name:<10}{label:<16}" + "".join(f"{value:>9.1f}" for value in values))
        lines[-1] += f"   gap {_block_gaps(module, 0).max():.0g}"
    for axis, label in zip(axes, ("KiB of tensors at once", "million multiplications"), strict=True):
        axis.set(xlabel="tokens", ylabel=label, xscale="log", yscale="log", xticks=lengths, xticklabels=lengths)
        axis.minorticks_off()
    axes[0].legend(frameon=False)
    return Evidence("\n".join(lines), figure)


def stored(helper, caller):
    """Bytes that each layer's keys and values take, and how far the answers are right."""
    figure, (axis,) = _figure(1)
    lines = []
    for i, (name, program) in enumerate((("healthy", window_caller), ("patient", caller))):
        cache = program.new_cache(load_story_lm())
        sizes = [2 * keys.untyped_storage().nbytes() / 1024 for keys in cache.keys]
        axis.bar([at + 0.4 * i for at in range(len(sizes))], sizes, 0.4, label=name, color=STYLES[name]["color"])
        pairs = zip(_answers(program, program.prompts()), _whole_answers(), strict=True)
        right = sum(said == true for said, true in pairs)
        lines.append(f"{name}: {sum(sizes):.0f} KiB, and {right} of 6 answers are those of one healthy pass")
    axis.set_xticks([at + 0.2 for at in range(4)], range(4))
    axis.set(xlabel="layer", ylabel="KiB of keys and values", ylim=(0, 200))
    axis.legend(frameon=False, ncols=2, loc="upper left")
    return Evidence("\n".join(lines), figure)


def costs(helper, caller):
    """What `cost` says of a text, and what is counted while the model reads it."""
    lines = ["keys and values in KiB, and scores that are not masked, of four layers of four heads"]
    lines.append(f"{'tokens':<10}{'cost says':>20}{'counted':>20}")
    for n in (10, 20, 40, 80, 160):
        said = caller.cost(caller.load(), n)
        cells = [f"{size / 1024:.0f} KiB, {scores:,}" for size, scores in (said, counted(caller, n))]
        lines.append(f"{n:<10}" + "".join(f"{cell:>20}" for cell in cells))
    return Evidence("\n".join(lines))


def telling(helper, caller):
    """What a telling says, how far a healthy program would say the same, and how far it keeps to the scene."""
    figure, axes = _figure(2)
    lines = [f"prompt   {caller.SCENE} {caller.WISHES[1]} ..."]
    full = window_caller.KEPT + window_caller.RECENT - len(window_caller.prompts()[1])
    for name, program in (("healthy", window_caller), ("patient", caller)):
        said, error = _told(program)
        lines += ["", f"{name}, words 40 to 120: {_text(said[40:120])} ...{error}"]
        axes[0].plot(_smooth(_as_a_healthy_one(said), 20), label=name, **STYLES[name])
        axes[1].plot(*_within_scene(said), label=name, **STYLES[name])
    axes[0].axvline(full, color=FLOOR, linestyle="--", label="a healthy one's cache is full")
    axes[0].set(xlabel="word", ylabel="of 20 words, share that a healthy one\nsays after the same words")
    axes[1].set(xlabel="word", ylabel="of 12 names, things and places,\nshare that the scene has")
    for axis in axes:
        axis.set(xlim=(0, TOLD), ylim=(-0.05, 1.05))
    axes[0].legend(frameon=False, loc="lower left")
    return Evidence("\n".join(lines), figure)


def learning(helper, caller):
    """The loss of the small model, and how it goes on with texts that it has not seen."""
    figure, axes = _figure(2)
    floor = math.log(caller.LETTERS) * (caller.PERIOD - 1) / (4 * caller.PERIOD)
    lines = [
        f"a letter by chance costs {math.log(caller.LETTERS):.2f} nats; the floor, with what is known, is {floor:.2f}"
    ]
    for name, program in (("healthy", window_caller), ("patient", caller)):
        model, losses = _trained(program)
        right, one_pass = _letters_right(program, model)
        lines.append(
            f"{name}: loss {sum(losses[-10:]) / 10:.2f}; next letter after 24, in one pass: {one_pass:.0%} right; "
            f"32 letters written: {right.mean():.0%} right"
        )
        axes[0].plot(losses, label=name, **STYLES[name])
        axes[1].plot(range(1, len(right) + 1), right, label=name, **STYLES[name])
    axes[0].axhline(floor, color=FLOOR, linestyle="--", label="floor")
    axes[0].set(xlabel="step", ylabel="loss, nats a letter", ylim=(0, 2.4))
    axes[1].set(xlabel="letter that is written", ylabel="share that is right", ylim=(-0.05, 1.05))
    axes[0].legend(frameon=False)
    return Evidence("\n".join(lines), figure)


def influence(helper, caller):
    """Which tokens change what a position puts out, in a model of one layer and in one of three."""
    lines = ["a token is flipped: how many positions change at most, its own included, and what `reach` says"]
    figure, axes = _figure(2)
    for axis, windows in zip(axes, ([8], [6, 6, 6]), strict=True):
        seen = _influence(helper, windows)
        span = max(int(row.nonzero().max()) - i + 1 for i, row in enumerate(seen) if row.any())
        lines.append(f"windows {windows}: {span} change, reach is {helper.reach(windows)}")
        axis.imshow(seen.T, cmap="Blues", vmin=0, vmax=1.4)
        axis.set(xlabel="token that is flipped", ylabel="position whose logits change", title=f"windows {windows}")
    return Evidence("\n".join(lines), figure)


def fast_way(helper, caller):
    """What the small model learns and writes, and which tokens change what."""
    curves, lines = learning(helper, caller), []
    for name, module in (("healthy", window), ("patient", helper)):
        changed = _influence(module, [8])[4].nonzero().flatten().tolist()
        lines.append(f"{name}, window 8: flipping token 4 changes positions {changed[0]} to {changed[-1]}")
    return Evidence("\n".join([curves.text, *lines]), curves.figure)


def slots(helper, caller):
    """Which token of the text lies in each column of a ring, after each token."""
    figure, axes = _figure(2)
    for axis, sinks in zip(axes, (0, 3), strict=True):
        held = _held(helper, 6, sinks, 22)
        axis.imshow(held.T, cmap="viridis", aspect="auto", vmin=0, vmax=21)
        axis.set(xlabel="token that was read last", ylabel="column", title=f"window 6, {sinks} sinks")
        axis.set(xticks=range(0, 22, 3), yticks=range(6 + sinks))
        for step, column in ((6 + sinks, 0), (14, 2), (18, 5), (21, 1)):
            token = int(held[step, column])
            axis.text(step, column, token, ha="center", va="center", color="white" if token < 12 else "black")
    order = [int(token) for token in _held(helper, 6, 0, 22)[-1]]
    lines = [f"after 22 tokens a ring of 6 holds, column by column, the tokens {order}"]
    lines.append("in the picture a colour is a token; of some the number is written")
    gaps = [_gaps(helper, 1, 0, dtype).max() for dtype in (torch.float32, torch.float64)]
    lines.append("largest gap of a logit, read word by word through the ring, from one pass under masks:")
    lines.append(f"{gaps[0]:.1g} in float32, {gaps[1]:.1g} in float64")
    return Evidence("\n".join(lines), figure)


def masked(helper, caller):
    """Bytes of tensors at once, with a mask and by blocks, by the window."""
    lines = ["1,024 tokens, MiB of tensors at once", f"{'window':<10}{'masked_attention':>18}{'banded_attention':>18}"]
    q = _random(1, 1024, 16).float()
    for size in (None, 256, 64, 16):
        cells = [
            peak_bytes(functools.partial(run, q, q, q, size))
            for run in (helper.masked_attention, helper.banded_attention)
        ]
        lines.append(f"{size!s:<10}" + "".join(f"{cell / 2**20:>18.2f}" for cell in cells))
    return Evidence("\n".join(lines))


def without_first(helper, caller):
    """The story model's loss beyond the window, with the first token and without."""
    ids = torch.stack([row for row, _ in zip(rows(120, HELD_OUT, BASE), range(8), strict=False)])
    lines = ["nats a word at positions 80 to 119 of 8 held-out rows", f"{'window':<10}{'0 sinks':>10}{'1 sink':>10}"]
    for size in (64, 32, 24, 16):
        cells = [_loss(helper, ids, size, sinks) for sinks in (0, 1)]
        lines.append(f"{size:<10}" + "".join(f"{cell:>10.3f}" for cell in cells))
    lines.append(f"{'all':<10}{_loss(helper, ids, None, 0):>10.3f}")
    return Evidence("\n".join(lines))


def _answers(program, prompts):
    """What a program answers; nothing where it raises."""
    return _call(lambda: program.answers(load_story_lm(), prompts), [[] for _ in prompts])[0]


@functools.cache
@torch.inference_mode()
def _whole_answers():
    """The same answers without a cache: each word by one pass over all before it."""
    model, answers = _story_model(), []
    with hooked(model, window.restrict(window_caller.windows(model))):
        for prompt in window_caller.prompts():
            answers.append([])
            while len(answers[-1]) < window_caller.MOST and window_caller.STOP not in answers[-1]:
                answers[-1].append(model(torch.tensor([prompt + answers[-1]]), last=1).argmax().item())
    return answers


@torch.inference_mode()
def _right(prompt, said):
    """How many words of an answer are the likeliest after all before them, up to the first that is not."""
    model = _story_model()
    with hooked(model, window.restrict(window_caller.windows(model))):
        likeliest = model(torch.tensor([prompt + said]))[0, len(prompt) - 1 : -1].argmax(dim=-1).tolist()
    return _agree(said, likeliest)


@functools.cache
def _story_model():
    return load_story_lm()


@torch.inference_mode()
def counted(program, n):
    """Bytes of a cache's memory, and scores that no mask takes away in one pass over n words."""
    model, ones, ids = program.load(), [], torch.tensor([program.prompts()[2] * 2])[:, :n]
    count = {"mask": lambda seen, layer: ones.append(int(seen.sum()))}
    with hooked(model, window.restrict(program.windows(model))), hooked(model, count):
        model(ids)
    cache = program.new_cache(model)
    size = sum(each.untyped_storage().nbytes() for each in (*cache.keys, *cache.values))
    return size, model.blocks[0].attention.n_heads * sum(ones)


@functools.cache
def _healthy_telling():
    return window_caller.tell(load_story_lm(), window_caller.prompts()[1], TOLD)


def _told(program):
    """What a program tells, and the error that ended it, if there is one."""
    if program is window_caller:
        return _healthy_telling(), ""
    return _call(functools.partial(program.tell, load_story_lm(), program.prompts()[1], TOLD), [])


def _as_a_healthy_one(said):
    """Whether each word is the one that a healthy program says after all before it."""
    model, prompt = _story_model(), window_caller.prompts()[1]
    ring = window.new_ring(model, [window_caller.RECENT] * len(model.blocks), sinks=window_caller.KEPT, turned=True)
    after = [window_caller.read(model, prompt, ring)] if said else []
    after += [window_caller.read(model, [word], ring) for word in said[:-1]]
    return [word == own for word, own in zip(said, after, strict=True)]


def _within_scene(said):
    """Where names, things and places are said, and of 12 such words each the share that the scene has."""
    scene = set(encode(window_caller.SCENE))
    at = [i for i, word in enumerate(said) if KIND[VOCABULARY[word]] in NAMED]
    return at[11:], _smooth([said[i] in scene for i in at], 12)[11:]


def _smooth(values, n):
    """The mean of each n that follow one another, where there are n."""
    means = torch.tensor(values, dtype=torch.float32).unfold(0, n, 1).mean(dim=1) if len(values) >= n else []
    return [math.nan] * min(n - 1, len(values)) + [float(value) for value in means]


@functools.cache
def _trained_healthy():
    return window_caller.train()


def _trained(program):
    return _trained_healthy() if program is window_caller else program.train()


def _letters_right(program, model):
    """The share of letters that are right, (32,), and that of the first one when it is read without a ring."""
    T, n = 3 * program.PERIOD, 32
    ids = window_caller.texts(64, T + n, seed=10**6)
    with torch.inference_mode():
        one_pass = model(ids[:, :T])[:, -1].argmax(dim=-1) == ids[:, T]
    return (program.go_on(model, ids[:, :T], n) == ids[:, T:]).float().mean(dim=0), one_pass.float().mean().item()


@torch.inference_mode()
def _gaps(module, T, sinks, dtype=torch.float64):
    """The largest gap at each position, (40,), read T a pass into a ring."""
    model, windows = load_story_lm().to(dtype), [6, 10, 6, 12]
    ids = torch.tensor([window_caller.prompts()[0][:40]])
    with hooked(model, window.restrict(windows, sinks)):
        wanted = model(ids)
    ring = module.new_ring(model, windows, sinks=sinks)
    logits = torch.cat([model(part, ring) for part in ids.split(T, dim=1)], dim=1)
    return (logits - wanted).abs().amax(dim=-1)[0].nan_to_num(100)


def _block_gaps(module, sinks):
    """How far each of 200 queries' answer is from PyTorch's own, (200,)."""
    q, k, v = (_random(200, 8, seed=seed) for seed in range(3))
    wanted = F.scaled_dot_product_attention(q, k, v, attn_mask=window.band_mask(200, 48, sinks))
    return (module.banded_attention(q, k, v, 48, sinks, block=32) - wanted).abs().amax(dim=-1)


def _cost(module, n):
    """KiB at once and million multiplications of attention by blocks."""
    q = _random(1, n, 16).float()
    run = functools.partial(module.banded_attention, q, q, q, 32, block=64)
    with FlopCounterMode(display=False) as counter:
        run()
    return peak_bytes(run) / 1024, counter.get_total_flops() / 2e6


@torch.inference_mode()
def _influence(module, windows):
    """Whether flipping a token changes a position's logits, bit for bit: (32, 32), token by position."""
    torch.manual_seed(0)
    attention = functools.partial(module.WindowAttention, scope=None)
    model = TinyLM(8, 64, 32, len(windows), 2, attention=attention, positions=no_positions)
    for block, size in zip(model.blocks, windows, strict=True):
        block.attention.scope = size
    ids = torch.randint(8, (1, 32))
    flipped = ids.repeat(32, 1)
    flipped[range(32), range(32)] = (ids[0] + 1) % 8
    return (torch.cat([model(row[None]) for row in flipped]) != model(ids)).any(dim=-1).int()


def _held(module, size, sinks, n):
    """The token in each column after each of n tokens, (n, columns); NaN for none."""
    ring = module.RingCache([size], 1, 1, 1, sinks=sinks)
    ring.keys[0].fill_(math.nan)
    held = []
    for token in range(n):
        ring.layers(1)[0].extend(*[torch.full((1, 1, 1, 1), float(token))] * 2)
        ring.advance(1)
        held.append(ring.keys[0].flatten().clone())
    return torch.stack(held)


@torch.inference_mode()
def _loss(module, ids, size, sinks):
    model = _story_model()
    with hooked(model, module.restrict([size] * len(model.blocks), sinks)):
        logits = model(ids[:, :-1])[:, 80:]
    return F.cross_entropy(logits.flatten(0, 1), ids[:, 81:].flatten()).item()


def _random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _call(run, otherwise):
    """What it returns and no error, or what it returns otherwise and the error in words."""
    try:
        return run(), ""
    except (ValueError, IndexError, RuntimeError) as error:
        return otherwise, f"   {type(error).__name__}: {error}"


def _agree(said, true):
    """How many words agree, up to the first that does not."""
    pairs = enumerate(zip(said, true, strict=False))
    return next((i for i, (ours, right) in pairs if ours != right), min(len(said), len(true)))


def _text(ids):
    return decode(ids).strip().replace("\n", " / ")


def _row(name, cells):
    return f"{name:<26}" + "".join(f"{cell!s:>8}" for cell in cells)


def _figure(n):
    figure = Figure(figsize=(4.6 * n, 3.1), layout="constrained")
    return figure, figure.subplots(1, n, squeeze=False)[0]
