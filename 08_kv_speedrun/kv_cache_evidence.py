"""What is seen of lesson 08's patients, made by running them: answers, gaps, columns, pages, rounds. No answers here.

Each function takes a patient's helper and caller and returns Evidence, beside what the healthy files give.
"""

import functools
import itertools
import time

import kv_cache
import kv_cache_caller
import torch
from matplotlib.figure import Figure

from shared.clinic import Evidence
from shared.colors import BROKEN, FLOOR, OTHERS, WORKING
from shared.story_model import load_story_lm
from shared.tiny_lm import TinyLM
from shared.world.words import VOCABULARY, decode, encode

MODULES = {"healthy": (kv_cache, kv_cache_caller)}
STYLES = {
    "healthy": {"color": WORKING},
    "patient": {"color": BROKEN, "linestyle": (0, (7, 2))},
}
SHORT = [
    "Once Amy Gardner, an old nurse from Wickel, was in the tower. "
    "Kate Gardner, her niece, was in the church. A dog was",
    "Once Lily King, an old tailor from Yelm, was in the barn. Vera Fuller, her granddaughter, was in",
    "Once Emma Gardner, a young pilot from Gorse, was in the school. Olga Day, her mother, was in",
]


def answers(helper, caller):
    """How far the answers agree with those of the model without a cache, in the caller's four ways."""
    prompts, said = caller.prompts(), _uncached()
    lines = ["words up to the first that is not what the model says without a cache, of all words of the answer"]
    lines.append(_row("the prompt's words", [len(prompt) for prompt in prompts]))
    for way in ("session", "batch", "serve", "guessed"):
        found, error = _answers(caller, way)
        cells = [f"{_agree(ours, true)}/{len(true)}" for ours, true in zip(found, said, strict=False)]
        lines.append(_row(way, cells) + error)
    return Evidence("\n".join(lines))


def session(helper, caller):
    """What a session says to three prompts, one after another."""
    prompts = _short(caller)
    ours, true = (program.session(program.load(), prompts) for program in (caller, kv_cache_caller))
    lines = []
    for text, said, right in zip(SHORT, ours, true, strict=True):
        lines += [f"prompt   {text} ...", f"healthy  {_text(right)}", f"patient  {_text(said)}", ""]
    return Evidence("\n".join(lines[:-1]))


def left_over(helper, caller):
    """What lies in the cache of a session after each answer, and the answers."""
    lines = ["after 1, 2 and 3 answers: the cache's length, the mean size of a number in its first 40 columns of keys"]
    for name, (_, program) in _both(helper, caller).items():
        for n in range(1, len(SHORT) + 1):
            said, cache = _session_and_cache(program, n)
            left = f"{cache.length}, {cache.keys[:, :, :, :40].abs().mean():.2f}"
            lines.append(f"{name}  {left}; answer {n}: {_text(said[-1][:12])} ...")
    return Evidence("\n".join(lines))


def gaps(helper, caller):
    """How far the logits are from those without a cache, by the size of a pass, the number type and the position."""
    ids = torch.tensor([[caller.STOP, *encode(caller.SCENE)][:40]])
    lines = ["largest gap of a logit from the model without a cache; 40 words, so many a pass"]
    lines.append(f"{'words a pass':<14}{'float32':>10}{'float64':>10}    float64, healthy")
    figure, axes = _figure(2)
    for T, color, marker in zip((1, 3, 8, 40), OTHERS, "ov^s", strict=True):
        row = [_gaps(helper, ids, T, dtype) for dtype in (torch.float32, torch.float64)]
        row.append(_gaps(kv_cache, ids, T, torch.float64))
        lines.append(f"{T:<14}{row[0].max():>10.1g}{row[1].max():>10.1g}{row[2].max():>20.1g}")
        for axis, gap in zip(axes, row[:2], strict=True):
            axis.plot(gap.clamp(min=1e-17), label=f"{T} a pass", color=color, marker=marker, markersize=3)
    for axis, name in zip(axes, ("float32", "float64"), strict=True):
        axis.set(xlabel="position", ylabel="largest gap of its logits", yscale="log", ylim=(3e-18, 1e3), title=name)
    axes[0].legend(frameon=False)
    return Evidence("\n".join(lines), figure)


def rows(helper, caller):
    """How far each row of a padded batch is from its text alone, in two models, before and after a row has left."""
    prompts = caller.prompts()[:4]
    padding = [max(map(len, prompts)) - len(prompt) for prompt in prompts]
    lines = ["largest gap of the next word's logits from those of the row alone, without a cache"]
    lines.append(_row("padding of the row", padding))
    for name, model in (("rotary positions", load_story_lm()), ("learned positions", _learned())):
        first, second = _row_gaps(helper, model, prompts, padding)
        lines.append(_row(f"{name}, all", [f"{gap:.1g}" for gap in first]))
        lines.append(_row(f"{name}, the first has left", ["", *[f"{gap:.1g}" for gap in second]]))
    return Evidence("\n".join(lines))


def batch(helper, caller):
    """What the rows of a batch say."""
    ours, error = _answers(caller, "batch")
    lines = [error.strip()] if error else []
    for wish, said, right in zip(caller.WISHES, ours, _uncached(), strict=False):
        lines += [f"prompt   ... {wish[-60:]}", f"alone    {_text(right)}", f"in batch {_text(said)}", ""]
    return Evidence("\n".join(lines).strip())


def pages(helper, caller):
    """Columns of the pool that are held, and requests that run, pass by pass; and how far the answers are right."""
    figure, axes = _figure(2)
    scene = len([caller.STOP, *encode(caller.SCENE)])
    lines = [f"words of each answer that are what the model says without a cache; the scene has {scene} words"]
    lines.append(_row("words behind the scene", [len(prompt) - scene for prompt in caller.prompts()]))
    for name, (_, program) in _both(helper, caller).items():
        model = program.load()
        found, error, passes = _recorded(model, _held, functools.partial(_serve, program, model))
        cells = [f"{_agree(said, true)}/{len(true)}" for said, true in zip(found, _uncached(), strict=False)]
        lines.append(_row(name, cells) + f"{error}   {len(passes)} passes")
        for axis, values in zip(axes, zip(*passes, strict=True), strict=True):
            axis.plot(values, label=name, **STYLES[name])
    axes[0].axhline(caller.PAGE * caller.N_PAGES, color=FLOOR, linestyle="--", label="the pool's")
    for axis, label in zip(axes, ("columns that are held", "rows of the pass"), strict=True):
        axis.set(xlabel="pass", ylabel=label, ylim=(0, None))
    axes[0].legend(frameon=False, loc="lower right")
    return Evidence("\n".join(lines), figure)


def served(helper, caller):
    """What the requests of a pool are told, beside the same without a cache."""
    ours, error = _answers(caller, "serve")
    lines = [error.strip()] if error else []
    scene = len([caller.STOP, *encode(caller.SCENE)])
    for prompt, said, right in zip(caller.prompts(), ours, _uncached(), strict=False):
        lines += [f"request of {len(prompt) - scene} words after a scene of {scene}, in pages of {caller.PAGE}"]
        lines += [f"alone    {_text(right)}", f"in pages {_text(said)}", ""]
    return Evidence("\n".join(lines).strip())


def rounds(helper, caller):
    """Columns that each pass of speculation finds and leaves, and the answer."""
    figure, axes = _figure(2)
    lines = ["a prompt and what it is told by guesses"]
    for name, (_, program) in _both(helper, caller).items():
        model, prompts = program.load(), program.prompts()[1:2]
        run = functools.partial(program.guessed, model, prompts)
        said, error, lengths = _recorded(model, lambda tokens, cache: cache.length, run)
        columns = [length for length in lengths if length >= len(prompts[0]) - 1]
        lines.append(f"{name}  {_text(said[0]) if said else ''}{error}")
        axes[0].plot(columns, label=name, **STYLES[name])
        stay = [after - before for before, after in itertools.pairwise(columns)]
        axes[1].plot(stay, marker="o", markersize=3, **STYLES[name])
    axes[0].set(xlabel="pass after the prompt", ylabel="columns before the pass")
    axes[1].set(xlabel="pass after the prompt", ylabel="columns that stay of it", ylim=(0, None))
    axes[0].legend(frameon=False)
    lines.append(f"without  {_text(_uncached()[1])}")
    return Evidence("\n".join(lines), figure)


def endless(helper, caller):
    """Columns that are held in a telling that goes on in a cache of 128 columns, how sure it is, and its words."""
    figure, axes = _figure(2)
    lines = []
    for name, (_, program) in _both(helper, caller).items():
        model = program.load()
        run = functools.partial(program.tell, model, program.prompts()[1], 200)
        said, error, held = _recorded(model, lambda tokens, cache: cache.length, run)
        lines.append(f"{name}, from word 60 on: {_text(said[60:130])}{error}")
        for axis, values in zip(axes, (held, _known(said)), strict=True):
            axis.plot(values, label=name, **STYLES[name])
    axes[0].set(xlabel="pass", ylabel="columns before the pass")
    axes[1].set(xlabel="word", ylabel="of 20 words, share that the last 100\nwithout a cache give, too", ylim=(0, 1.05))
    axes[1].legend(frameon=False)
    return Evidence("\n".join(lines), figure)


def seconds(helper, caller):
    """CPU seconds of a word by a cache that is copied at each step, and by one with room."""
    lines = ["CPU milliseconds a word, the best of 3 tellings of 96 words, by words that are held"]
    model = helper.by_cached_step(load_story_lm())
    sizes = caller.sizes(model)
    for name in ("ConcatCache", "PreallocatedCache"):
        room = [caller.CAPACITY] if name == "PreallocatedCache" else []
        took = []
        for _ in range(3):
            cache = getattr(helper, name)(sizes[0], 1, sizes[1], *room, sizes[2])
            took.append([_seconds(model, cache, 32) for _ in range(3)])
        best = [1e3 * min(column) / 32 for column in zip(*took, strict=True)]
        cells = [f"{at} to {at + 31}: {ms:.2f}" for at, ms in zip((0, 32, 64), best, strict=True)]
        lines.append(f"{name:<18} {'   '.join(cells)}")
    return Evidence("\n".join(lines))


def _both(helper, caller):
    return MODULES | {"patient": (helper, caller)}


@functools.cache
def _uncached():
    """What the model says to each prompt without a cache, by the healthy session: the two are held equal."""
    return kv_cache_caller.session(kv_cache_caller.load(), kv_cache_caller.prompts())


def _answers(program, way):
    """The answers of a way, and the error if there is one."""
    model = program.load()
    if way == "serve":
        return _call(lambda: _serve(program, model))
    return _call(lambda: getattr(program, way)(model, program.prompts()))


def _serve(program, model):
    scene = [program.STOP, *encode(program.SCENE)]
    return program.serve(model, scene, [prompt[len(scene) :] for prompt in program.prompts()])


def _session_and_cache(program, n):
    """The first answers of a session, and its cache as it was left."""
    model = program.load()
    run = functools.partial(program.session, model, _short(program)[:n])
    said, _, caches = _recorded(model, lambda tokens, cache: cache, run)
    return said, caches[-1]


@torch.inference_mode()
def _known(said):
    """How many of 20 words are the likeliest of a model that sees the last 100 words alone, without a cache."""
    windows = torch.tensor(said).unfold(0, 101, 1)
    model = load_story_lm()
    agree = [part[:, -1] == model(part[:, :-1], last=1)[:, -1].argmax(dim=-1) for part in windows.split(50)]
    share = torch.cat(agree).float().unfold(0, 20, 1).mean(dim=1)
    return [float("nan")] * (len(said) - len(share)) + share.tolist()


def _call(run):
    """What it returns and no error, or nothing and the error in words."""
    try:
        return run(), ""
    except (ValueError, IndexError, RuntimeError) as error:
        return [], f"   {type(error).__name__}: {error}"


def _recorded(model, look, run):
    """What a call returns, its error in words, and what `look` saw of tokens and cache before each pass."""
    seen = []
    hook = model.register_forward_pre_hook(lambda module, given: seen.append(look(*given[:2])))
    result, error = _call(run)
    hook.remove()
    return result, error, seen


def _held(tokens, cache):
    pool = cache.pool
    return pool.page * (len(pool.users) - pool.free), cache.batch


def _agree(said, true):
    """How many words agree, up to the first that does not."""
    pairs = enumerate(zip(said, true, strict=False))
    return next((i for i, (ours, right) in pairs if ours != right), min(len(said), len(true)))


def _short(program):
    return [[program.STOP, *encode(text)] for text in SHORT]


@torch.inference_mode()
def _gaps(module, ids, T, dtype):
    """The largest gap at each position, (40,), read T a pass."""
    model = module.by_cached_step(load_story_lm().to(dtype))
    n_layers, n_kv_heads, d_head = kv_cache_caller.sizes(model)
    cache = module.PreallocatedCache(n_layers, 1, n_kv_heads, 64, d_head, dtype=dtype)
    logits = torch.cat([model(part, cache) for part in ids.split(T, dim=1)], dim=1)
    return (logits - model(ids)).abs().amax(dim=-1)[0].nan_to_num(100)


@torch.inference_mode()
def _row_gaps(module, model, prompts, padding):
    """The gap of each row's next logits: of all rows, and, after one more word, without the first."""
    module.by_cached_step(model)
    cache = module.PreallocatedCache(
        len(model.blocks), len(prompts), *_widths(model, max(map(len, prompts)) + 1), padding=padding
    )
    tokens = torch.tensor([[0] * n + prompt for n, prompt in zip(padding, prompts, strict=True)])
    logits = model(tokens, cache)[:, -1]
    first = [_gap(model, prompt, row) for prompt, row in zip(prompts, logits, strict=True)]
    cache.keep(range(1, len(prompts)))
    longer = [[*prompt, 5] for prompt in prompts[1:]]
    logits = model(torch.tensor([[5]] * len(longer)), cache)[:, -1]
    return first, [_gap(model, prompt, row) for prompt, row in zip(longer, logits, strict=True)]


def _widths(model, capacity):
    attention = model.blocks[0].attention
    return attention.n_kv_heads, capacity, attention.d_head


def _gap(model, prompt, logits):
    return (model(torch.tensor([prompt]))[0, -1] - logits).abs().max().item()


def _learned():
    """A small model with learned positions and weights large enough to show where its words stand."""
    torch.manual_seed(0)
    model = TinyLM(len(VOCABULARY), 128, d_model=32, n_layers=2, n_heads=4)
    for weights in model.parameters():
        weights.data *= 5
    return model


@torch.inference_mode()
def _seconds(model, cache, n):
    start = time.process_time()
    for _ in range(n):
        model(torch.tensor([[5]]), cache, last=1)
    return time.process_time() - start


def _text(ids):
    return decode(ids).strip()


def _row(name, cells):
    return f"{name:<42}" + "".join(f"{cell!s:>8}" for cell in cells)


def _figure(n):
    figure = Figure(figsize=(4.6 * n, 3.1), layout="constrained")
    return figure, figure.subplots(1, n, squeeze=False)[0]
