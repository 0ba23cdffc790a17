"""What is seen of lesson 10's patients, made by running them: answers, losses, gaps, maps, bytes. No answers here.

Each function takes a patient's helper and caller and returns Evidence.
"""

import copy
import functools

import gqa
import gqa_caller
import torch
from matplotlib.figure import Figure
from torch.nn import functional as F

from shared.clinic import Evidence
from shared.colors import BROKEN, FLOOR, OTHERS, WORKING
from shared.memory import peak_bytes
from shared.rotary import RotaryAttention
from shared.story_model import load_story_lm
from shared.training import evaluate
from shared.world import BASE, HELD_OUT, held_out_rows
from shared.world.words import decode

STYLES = {"healthy": {"color": WORKING}, "patient": {"color": BROKEN, "linestyle": (0, (7, 2))}}
SIZES = [(4, 4), (4, 2), (4, 1), (6, 3), (8, 2)]  # query heads, key heads of the layers that others wrote
HEAD = 8  # how wide theirs are
FAR = (1, 10, 30, 100, 299)
LETTERS, LENGTHS = (0, 1, 2, 5, 11, 23), (256, 512, 1024, 2048)


def answers(helper, caller):
    """How far the answers of the model, with all key heads and with fewer, are those of the house's own attention."""
    lines = [
        "words that PyTorch's own attention, same weights, would say too, before the first that it would not / all"
    ]
    lines.append(_row("the prompt's words", [len(prompt) for prompt in caller.PROMPTS]))
    for n in (4, 2, 1):
        said = caller.serve(loaded(caller, n), caller.PROMPTS)
        lines.append(_row(f"{n} key heads", map(functools.partial(_right, n), caller.PROMPTS, said)))
    said, own = (program.serve(loaded(program, 2), program.PROMPTS)[1] for program in (caller, gqa_caller))
    lines += ["", f"prompt     ... {caller.WISHES[1]} ...", f"PyTorch's  {_text(own)}", f"here       {_text(said)}"]
    return Evidence("\n".join(lines))


def conversion(helper, caller):
    """The loss on stories that were not trained on: of the model with pooled heads, and after some training."""
    model = caller.load()
    lines = ["nats a word on eight held-out stories of 96 words, before any training", _row("key heads", [4, 2, 1])]
    for how in ("mean", "first", "random"):
        pools = [helper.pool_model(model, n, how, torch.Generator().manual_seed(0)) for n in (4, 2, 1)]
        lines.append(_row(how, [f"{nats(small):.2f}" for small in pools]))
    small, losses = caller.convert(model)
    lines.append(f"the model that was given: {nats(model):.2f}")
    lines.append(f"to {caller.KV_HEADS} by mean, and trained for {len(losses)} steps: {nats(small):.2f}")
    figure, (axis,) = _figure(1)
    axis.plot(losses, color=BROKEN)
    axis.set(xlabel="step of training", ylabel="loss of the step, nats a word", ylim=(0, None))
    return Evidence("\n".join(lines), figure)


def returned(helper, caller):
    """A model with two key heads that was given to a program that knows no sharing, and is made one with two again."""
    model, whole = _shared(2), copy.deepcopy(_shared(2))
    for block in whole.blocks:
        layer = block.attention
        parts = (layer.qkv.weight, layer.qkv.bias)
        gqa.replace_qkv(layer, 4, *(gqa_caller.unshared(part, layer.n_heads, 2, layer.d_head) for part in parts))
    lines = ["nats a word on held-out stories"]
    lines += [_row("two key heads", [f"{nats(model):.2f}"]), _row("each of them twice", [f"{nats(whole):.2f}"])]
    for how in ("mean", "first"):
        lines.append(_row(f"two again, by {how}", [f"{nats(helper.pool_model(whole, 2, how)):.2f}"]))
    return Evidence("\n".join(lines))


def readers(helper, caller):
    """Which query heads put out something else when a key head is another one, in a pass of five words and of one."""
    figure, axes = _figure(2)
    lines = ["6 query heads, 2 key heads: largest gap of each query head from PyTorch's own"]
    lines.append(_row("query head", range(6)))
    k, v = _random(1, 2, 5, 8, seed=1), _random(1, 2, 5, 8, seed=2)
    for axis, n, name in zip(axes, (5, 1), ("five words in a pass", "one word in a pass"), strict=True):
        q = _random(1, 6, n, 8)
        wanted = F.scaled_dot_product_attention(q, k, v, is_causal=n > 1, enable_gqa=True)
        gaps = (caller.attend(q, k, v) - wanted).abs().amax(dim=(0, 2, 3))
        lines.append(_row(name, [f"{gap:.0g}" for gap in gaps]))
        others = [torch.cat([k[:, :1] - k[:, 1:], k[:, 1:]], dim=1), torch.cat([k[:, :1], k[:, 1:] - k[:, :1]], dim=1)]
        changed = [(caller.attend(q, other, v) - caller.attend(q, k, v)).abs().amax(dim=(0, 2, 3)) for other in others]
        axis.imshow(torch.stack(changed) > 1e-9, cmap="Blues", vmin=0, vmax=1.4)
        axis.set(xlabel="query head that puts out something else", ylabel="key head that is\nanother one", title=name)
        axis.set(xticks=range(6), yticks=range(2))
    return Evidence("\n".join(lines), figure)


def layouts(helper, caller):
    """How far layers in others' layouts are from what they give where they come from."""
    lines = ["largest gap of what a layer puts out, 300 words, from what the other program gives"]
    lines.append("(one matrix: group after group, each its query heads, its key head, its value head)")
    lines.append(_row("query heads, key heads", [f"{H}, {K}" for H, K in SIZES]))
    ways = {"q, k, v in three matrices": from_pairs, "in one matrix": from_groups, "given away unshared": _unshared}
    for name, run in ways.items():
        lines.append(_row(name, [_gap(run, caller, H, K) for H, K in SIZES]))
    return Evidence("\n".join(lines))


def distances(helper, caller):
    """The same by the position in the text, and by what the files name as the base of the rotation."""
    figure, (axis,) = _figure(1)
    lines = ["8 query heads over 2: gap of what a layer puts out, by position, from what the other program gives"]
    lines.append(_row("position", FAR))
    names = ("an older model", "a newer one", "the newest one")
    for name, base, color, marker in zip(names, (10_000, 500_000, 1_000_000), OTHERS, "ov^", strict=False):
        found = gaps(from_pairs, caller, 8, 2, base).clamp(min=1e-9)
        lines.append(_row(name, [f"{found[at]:.0g}" for at in FAR]))
        axis.plot(found, label=name, color=color, marker=marker, markevery=60)
    axis.set(xlabel="position", ylabel="gap", yscale="log", ylim=(3e-10, 1e3))
    axis.legend(frameon=False, ncols=2)
    return Evidence("\n".join(lines), figure)


def memory(helper, caller):
    """What is planned, and what is held while six prompts are answered."""
    lines = [f"there are {caller.MEMORY:,} bytes for keys and values; six prompts"]
    lines.append(f"{'key heads':<12}{'texts at once':>15}{'most bytes held':>18}{'passes':>9}")
    figure, (axis,) = _figure(1)
    for at, n in enumerate((4, 2, 1)):
        planned, held, passes, error = _served(caller, helper.pool_model(caller.load(), n))
        lines.append(f"{n:<12}{planned:>15}{held:>18,}{passes:>9}{error}")
        axis.bar(at, held / 2**20, color=OTHERS[0])
    axis.axhline(caller.MEMORY / 2**20, color=FLOOR, linestyle="--", label="there is")
    axis.set_xticks(range(3), (4, 2, 1))
    axis.set(xlabel="key heads", ylabel="MiB held at most", ylim=(0, 4))
    axis.legend(frameon=False, loc="upper right")
    return Evidence("\n".join(lines), figure)


def word(helper, caller):
    """Bytes that one more word makes in a layer, in the program's own way of attention."""
    lines = ["KiB of tensors that one layer makes for one more word; 8 query heads, each 64 wide"]
    lines.append(_row("words before it", LENGTHS))
    for K in (8, 4, 2):
        made, cached = zip(*(made_for_a_word(caller.attend, K, S) for S in LENGTHS), strict=True)
        curves = {f"{K} key heads, cached": cached, f"{K} key heads, made": made}
        lines += [_row(name, [f"{kib:.0f}" for kib in values]) for name, values in curves.items()]
    return Evidence("\n".join(lines), _growth(curves))


def ways(helper, caller):
    """Bytes that the three ways make for one more word."""
    lines = ["KiB of tensors made for one more word after 1,024; heads 64 wide"]
    heads = [(8, 8), (8, 4), (8, 2), (8, 1)]
    lines.append(_row("query heads, key heads", [f"{H}, {K}" for H, K in heads]))
    cells = [f"{made_for_a_word(helper.attend_grouped, K, 1024, H)[1]:.0f}" for H, K in heads]
    lines.append(_row("keys and values", cells))
    for name in ("attend_grouped", "attend_repeated", "attend_expanded"):
        cells = [f"{made_for_a_word(getattr(helper, name), K, 1024, H)[0]:.0f}" for H, K in heads]
        lines.append(_row(name, cells))
    return Evidence("\n".join(lines))


def letters(helper, caller):
    """What the small model learns, and how it goes on."""
    figure, axes = _figure(2)
    lines = ["right letters of texts that say six letters again and again: read at once as in training, and written"]
    for name, program in (("healthy", gqa_caller), ("patient", caller)):
        model, losses = program.train()
        read, written = _letters(program, model)
        lines.append(f"{name}: loss {sum(losses[-5:]) / 5:.2f}; read: {read:.0%}; 12 written: {written.mean():.0%}")
        axes[0].plot(losses, label=name, **STYLES[name])
        axes[1].plot(range(1, 13), written, label=name, **STYLES[name])
    axes[0].set(xlabel="step of training", ylabel="loss, nats a letter", ylim=(0, 2.4))
    axes[1].set(xlabel="letter that is written", ylabel="share that is right", ylim=(-0.05, 1.05))
    axes[0].legend(frameon=False)
    return Evidence("\n".join(lines), figure)


def borrowed(helper, caller):
    """How far the logits of small models are from those of the program that trained them."""
    lines = ["largest gap of a logit, by the position of the letter, from the program that trained the model"]
    lines.append(_row("position", LETTERS))
    for name, program in {"trained here": caller, "trained elsewhere": gqa_caller}.items():
        for seed in range(2):
            found = _letter_gaps(program.train(seed)[0], caller)
            lines.append(_row(f"{name}, seed {seed}", [f"{found[at]:.1g}" for at in LETTERS]))
    return Evidence("\n".join(lines))


def latent_bytes(helper, caller):
    """Bytes that a layer of latents makes for one more word."""
    lines = ["KiB of tensors made for one more word; 8 heads 64 wide, latents of 64 and 16 numbers"]
    lines.append(_row("words before it", LENGTHS))
    layer = helper.LatentAttention(128, 8, d_latent=64, d_rotary=16, d_content=64).requires_grad_(False)
    lines.append(_row("cached", [80 * 4 * S // 1024 for S in LENGTHS]))
    curves = {"keys and values made": layer.read_written_out, "absorbed": layer.read_absorbed}
    for name, read in curves.items():
        given = [[_random(*shape).float() for shape in ((1, 8, 1, 64), (1, S, 64), (1, 8, 1, S))] for S in LENGTHS]
        curves[name] = [peak_bytes(functools.partial(read, *tensors, None)) / 1024 for tensors in given]
        lines.append(_row(name, [f"{kib:.0f}" for kib in curves[name]]))
    return Evidence("\n".join(lines), _growth(curves))


def made_for_a_word(attend, K, S, H=8):
    """KiB of tensors that attention makes for a word after S others, and KiB of their keys and values."""
    q, k, v = _random(1, H, 1, 64).float(), *(_random(1, K, S, 64).float() for _ in "kv")
    return peak_bytes(functools.partial(attend, q, k, v)) / 1024, (k.nbytes + v.nbytes) / 1024


def _growth(curves):
    """A picture of KiB by the words before."""
    figure, (axis,) = _figure(1)
    for (name, values), color, marker in zip(curves.items(), OTHERS, "ov^", strict=False):
        axis.plot(LENGTHS, values, label=name, color=color, marker=marker)
    axis.set(xlabel="words before it", ylabel="KiB", xscale="log", yscale="log", ylim=(5, 1e5))
    axis.set_xticks(LENGTHS, LENGTHS)
    axis.minorticks_off()
    axis.legend(frameon=False, loc="upper left")
    return figure


@functools.cache
def _shared(n):
    """The story model with n key heads by healthy files, in the house's own attention; with two after some training."""
    model = gqa_caller.convert(load_story_lm())[0] if n == 2 else gqa.pool_model(load_story_lm(), n)
    return model.requires_grad_(False)


def loaded(program, n):
    """A program's model with the weights of `_shared`."""
    served, model = program.load(), _shared(n)
    served.load_state_dict({name: x for name, x in model.state_dict().items() if "qkv" not in name}, strict=False)
    for block, other in zip(served.blocks, model.blocks, strict=True):
        gqa.replace_qkv(block.attention, n, other.attention.qkv.weight, other.attention.qkv.bias)
    return served


@torch.inference_mode()
def _right(n, prompt, said):
    """How many words of an answer are the model's likeliest after all before them, up to the first that is not."""
    own = _shared(n)(torch.tensor([prompt + said]))[0, len(prompt) - 1 : -1].argmax(dim=-1).tolist()
    wrong = (i for i, (word, likeliest) in enumerate(zip(said, own, strict=True)) if word != likeliest)
    return f"{next(wrong, len(said))}/{len(said)}"


def nats(model):
    """A story model's loss a word on stories that were not trained on."""
    x, y, _ = held_out_rows(8, 96, HELD_OUT, BASE)
    return evaluate(model, x, y).nats


def _elsewhere(H, K, base=10_000):
    """A layer as another program has it, and its sizes."""
    config = {"d_model": H * HEAD, "n_heads": H, "n_kv_heads": K, "rope_theta": base}
    layer = RotaryAttention(H * HEAD, H, n_kv_heads=K, rotary_base=base, bias=False).requires_grad_(False)
    layer.qkv.weight.copy_(_random((H + 2 * K) * HEAD, H * HEAD) * (H * HEAD) ** -0.5)
    layer.proj.weight.copy_(_random(H * HEAD, H * HEAD, seed=1) * (H * HEAD) ** -0.5)
    return config, layer


def from_pairs(caller, config, layer):
    """The layer that is read from a file in which neighbours turn together."""
    H, K = config["n_heads"], config["n_kv_heads"]
    q, k, v = layer.qkv.weight.split([H * HEAD, K * HEAD, K * HEAD])
    q, k = (x.unflatten(0, (-1, 2, HEAD // 2)).transpose(1, 2).flatten(0, 2) for x in (q, k))
    return caller.from_pairs(config, {"wq": q, "wk": k, "wv": v, "wo": layer.proj.weight})


def from_groups(caller, config, layer):
    """The layer that is read from a file that has group after group."""
    H, K = config["n_heads"], config["n_kv_heads"]
    q, k, v = layer.qkv.weight.unflatten(0, (-1, HEAD)).split([H, K, K])
    q, k, v = q.unflatten(0, (K, -1)), k[:, None], v[:, None]
    fused = torch.cat([q, k, v], dim=1).flatten(0, 2)
    return caller.from_groups(config, {"query_key_value": fused, "dense": layer.proj.weight})


def _unshared(caller, config, layer):
    """The layer of a program that knows no sharing, with the weights that it is given."""
    H, K = config["n_heads"], config["n_kv_heads"]
    whole = RotaryAttention(config["d_model"], H, rotary_base=config["rope_theta"], bias=False)
    weight = caller.unshared(layer.qkv.weight, H, K, HEAD)
    whole.load_state_dict({"qkv.weight": weight, "proj.weight": layer.proj.weight})
    return whole


@torch.inference_mode()
def gaps(run, caller, H, K, base=10_000):
    """The largest gap at each of 300 positions between a layer and where its weights come from."""
    config, layer = _elsewhere(H, K, base)
    x = _random(1, 300, H * HEAD, seed=2).float()
    return (run(caller, config, layer)(x) - layer(x)).abs().amax(dim=-1)[0]


def _gap(run, caller, H, K):
    """The largest gap, or that there is an error."""
    try:
        return f"{gaps(run, caller, H, K).max():.0g}"
    except (RuntimeError, IndexError, ValueError):
        return "error"


def _served(program, model):
    """Texts at once, most bytes of a cache, passes, and the error that ended it."""
    planned, held, error = program.at_once(model), [0], ""
    make = model.new_cache

    def noted(*sizes):
        cache = make(*sizes)
        held.append(cache.keys.nbytes + cache.values.nbytes)
        return cache

    model.new_cache, passes = noted, []
    hook = model.register_forward_pre_hook(lambda module, given: passes.append(1))
    try:
        program.serve(model, program.PROMPTS)
    except (MemoryError, ValueError, RuntimeError) as found:
        error = f"   {type(found).__name__}: {found}"
    hook.remove()
    return planned, max(held), len(passes), error


@torch.inference_mode()
def _letters(program, model):
    """The share of next letters that are right in one pass, and of 12 letters that are written, each."""
    ids = gqa_caller.texts(64, 24, 10**6)
    read = (model(ids[:, :-1])[:, 11:].argmax(dim=-1) == ids[:, 12:]).float().mean().item()
    return read, (program.go_on(model, ids[:, :12], 12) == ids[:, 12:]).float().mean(dim=0)


@torch.inference_mode()
def _letter_gaps(model, program):
    """The largest gap of a logit at each position between a model and the same weights in a program."""
    here = program.new_model(absorbed=False)
    here.load_state_dict(model.state_dict())
    ids = gqa_caller.texts(64, 24, 10**6)
    return (here(ids) - model(ids)).abs().amax(dim=(0, 2))


def _text(ids):
    return decode(ids).strip().replace("\n", " / ")


def _random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _row(name, cells):
    return f"{name:<32}" + "".join(f"{cell!s:>9}" for cell in cells)


def _figure(n):
    figure = Figure(figsize=(4.6 * n, 3.1), layout="constrained")
    return figure, figure.subplots(1, n, squeeze=False)[0]
