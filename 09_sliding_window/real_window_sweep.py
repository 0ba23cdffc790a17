"""What a window does to a model that was trained without one, text by text: python real_window_sweep.py

Writes results/real_window.json, which the notebook shows; about 15 minutes on one core. SmolLM2-135M-Instruct (4-bit
weights) reads the beginnings of eight texts. Nothing is trained. Each part changes one thing:

    windows   the latest tokens that a query sees, and the first ones that it sees besides ("sinks"): 384 tokens
    layers    windows in some layers alone: 256 tokens, as in all that follows
    first     another token before the text, or keys and values that no token of it made
    edit      the first token's key and value, or its score, in all layers, for later queries or for all
    moved     the same where everything can be seen, and which token gets the weight then
    gap       the first token's distance from all later queries
    late      the first token is hidden from a query on, early or late
    fresh     the last tokens as a text of their own, at every fourth query
    mass      how much of its weight each head gives to the first token
    constant  how alike the keys and values of different first tokens are

`kept` is how many keys a query has, sinks and all: arms are compared at equal kept. "later" queries are those from
`FIRST` on, and read what the tokens before them have made without a change. The rules by which the notebook judges come
from other texts; none of these eight had been read with a window before. "docs" and "code" come with Python.
"""

import functools
import sys
from collections.abc import Callable, Sequence

import torch
from torch.nn import functional as F
from window import layer_windows, new_ring, restrict

from shared.hooks import hooked, look
from shared.smollm2 import load_smollm2
from shared.sweeps import Sweep, main
from shared.texts import FILES, OWN, texts

TEXTS = (*OWN[8:], "docs", "code")
LONG, TOKENS, LAYERS = 384, 256, 30
STARTS = (32, 64, 128, 256)  # queries from each of these to the next are one mean
FIRST = 64  # the first later query; a window keeps as many keys
LATER = TOKENS - FIRST
KEPT, SINKS = (32, 64, 128, 256), (0, 1, 2, 4, 8)
LATE = range(12, LAYERS)  # behind the layer that makes the first token a giant, see lesson 04
GAPS = (1_000, 4_000, 6_000, 8_000, 12_000, 16_000, 1_000_000)
PREFIXES = {"<|endoftext|>": "<|endoftext|>", "newline": "\n", "zebra": " zebra", "slot": None}
Stored = list[tuple[torch.Tensor, torch.Tensor]]  # for each layer keys and values, (1, K, T, d) each


@functools.cache
def model_and_tokenizer():
    """The real model, read once in a process."""
    return load_smollm2()


@functools.cache
def text_ids(name: str, start: int = 0, tokens: int = TOKENS) -> torch.Tensor:
    """Tokens of a text: (1, tokens)."""
    ids = model_and_tokenizer()[1].encode(texts()[name])[start : start + tokens]
    return torch.tensor([ids])


def losses(x: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """Nats of each token but the first, (tokens - 1,), of one text, from its logits, (1, tokens, vocabulary)."""
    return F.cross_entropy(logits[0, :-1], x[0, 1:], reduction="none")


@torch.no_grad()
def losses_with(x: torch.Tensor, hooks: dict) -> torch.Tensor:
    """The same of a text that is read at once, with hooks in the model."""
    model, _ = model_and_tokenizer()
    with hooked(model, hooks):
        return losses(x, model(x))


@functools.lru_cache(maxsize=8)
def beginning(on: str, start: int) -> Stored:
    """What the model stores of a text's first 256 tokens, all of them seen."""
    return stored_of(text_ids(on, start, max(STARTS)))


def stored_of(x: torch.Tensor) -> Stored:
    """What the model stores of a text: for each layer keys and values, (1, K, T, d) each."""
    seen = look(model_and_tokenizer()[0], x, ["k", "v"], last=1)
    return list(zip(seen["k"], seen["v"], strict=True))


@torch.no_grad()
def read(
    x: torch.Tensor, before: Stored, windows: Sequence[int | None], sinks: int = 0, hooks: dict | None = None
) -> torch.Tensor:
    """Losses of the tokens of x that a ring reads after what is stored `before`: (T - 1,).

    The hooks are in the model for these alone; their column i is then the i-th of all tokens. Who came before has seen
    all before it, so that windows smaller than that change nothing for it.
    """
    model, _ = model_and_tokenizer()
    n = before[0][0].shape[2]
    ring = new_ring(model, windows, sinks=sinks, capacity=n + x.shape[1])
    for part, (k, v) in zip(ring.layers(n), before, strict=True):
        part.extend(k, v)
    ring.advance(n)
    with hooked(model, hooks or {}):
        return losses(x, model(x, ring))


def read_on(
    on: str, windows: Sequence[int | None], sinks=0, hooks=None, *, first=FIRST, start=0, tokens=TOKENS
) -> dict:
    """Loss of the queries from `first` on, in a text of `tokens` tokens from `start` on."""
    before = [tuple(each[:, :, :first] for each in layer) for layer in beginning(on, start)]
    x = text_ids(on, start, tokens)[:, first:]
    return stretches(read(x, before, windows, sinks, hooks), first)


@functools.cache
@torch.no_grad()
def constants() -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values of twelve random tokens, each at the beginning of a text: (layers, 12, K, d) twice."""
    model, tokenizer = model_and_tokenizer()
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(len(tokenizer.specials), tokenizer.vocab_size, (12, 1), generator=generator)
    seen = look(model, tokens, ["k", "v"])
    return tuple(torch.stack(seen[name])[:, :, :, 0] for name in ("k", "v"))


def mean_constants() -> Stored:
    """Their mean, as a ring stores them."""
    return [tuple(each.mean(dim=0)[None, :, None] for each in layer) for layer in zip(*constants(), strict=True)]


# What is changed


def column(name: str, change: Callable[[torch.Tensor, int], torch.Tensor], token: int = 0) -> dict:
    """One token's key or value for what reads it: change((B, K, S, d), layer) -> (B, K, d)."""

    def replace(x, layer):
        x = x.clone()
        x[:, :, token] = change(x, layer)
        return x

    return {name: replace}


def times(name: str, factor: float, token: int = 0) -> dict:
    """One token's key or value times a number."""
    return column(name, lambda x, layer: factor * x[:, :, token], token)


def in_layers(hooks: dict, first: int, last: int) -> dict:
    """The same hooks in some layers alone."""
    return {
        name: lambda x, layer, hook=hook: hook(x, layer) if first <= layer <= last else x
        for name, hook in hooks.items()
    }


def mean_value(v: torch.Tensor, layer: int) -> torch.Tensor:
    """The mean of the values of tokens 1 to 63."""
    return v[:, :, 1:FIRST].mean(dim=2)


def random_value(v: torch.Tensor, layer: int) -> torch.Tensor:
    """As long as the first token's, in a random direction."""
    direction = torch.randn(v[:, :, 0].shape, generator=torch.Generator().manual_seed(layer))
    return F.normalize(direction, dim=-1) * v[:, :, 0].norm(dim=-1, keepdim=True)


def borrowed(which: slice) -> dict:
    """Key and value of token 0 are the mean over some of the twelve other first tokens."""
    means = [each[:, which].mean(dim=1) for each in constants()]  # (layers, K, d) each
    return {
        name: column(name, lambda x, layer, mean=mean: mean[layer])[name]
        for name, mean in zip("kv", means, strict=True)
    }


def other_kept(token: int) -> dict:
    """Another token is kept in the first one's column."""
    return {name: column(name, lambda x, layer: x[:, :, token])[name] for name in "kv"}


def moved_away(gap: int) -> dict:
    """The first token's key is that of a token so many positions earlier."""
    blocks, back = model_and_tokenizer()[0].blocks, torch.tensor([-gap])
    return column("k", lambda k, layer: blocks[layer].attention.place(k[:, :, :1], back)[:, :, 0])


@functools.cache
def mean_scores(on: str) -> tuple[torch.Tensor, ...]:
    """What each layer's heads score the first token on average, for later queries of a text: (H, 1) each."""
    found = {}
    keep = {"scores": lambda scores, layer: found.__setitem__(layer, scores[0, :, :, 0].mean(dim=1, keepdim=True))}
    read_on(on, *WITH_SINK, keep)
    return tuple(found[layer] for layer in range(LAYERS))


def constant_score(on: str) -> dict:
    """Each head scores the first token the same for all queries: its own mean."""
    means = mean_scores(on)

    def replace(scores, layer):
        scores = scores.clone()
        scores[0, :, :, 0] = means[layer]
        return scores

    return {"scores": replace}


def hidden(token: int, start: int = 0) -> dict:
    """No query of the pass from its `start`-th on sees a token."""

    def hide(mask, layer):
        mask = mask.clone()
        mask[start:, token] = False
        return mask

    return {"mask": hide}


WITH_SINK = ([FIRST - 1] * LAYERS, 1)  # windows and sinks that keep `FIRST` keys
EVERYTHING = ([None] * LAYERS, 0)
EDITS = {  # arm: hooks for a text
    "none": lambda on: {},
    "borrowed": lambda on: borrowed(slice(None)),
    "borrowed from one": lambda on: borrowed(slice(1)),
    "token 5 kept": lambda on: other_kept(5),
    "v zero": lambda on: times("v", 0),
    "v zero, 0 to 11": lambda on: in_layers(times("v", 0), 0, 11),
    "v zero, 12 to 20": lambda on: in_layers(times("v", 0), 12, 20),
    "v zero, 21 to 29": lambda on: in_layers(times("v", 0), 21, 29),
    "v mean": lambda on: column("v", mean_value),
    "v random": lambda on: column("v", random_value),
    "k zero": lambda on: times("k", 0),
    "k and v zero": lambda on: times("k", 0) | times("v", 0),  # a score of 0 for nothing: softmax-off-by-one
    "constant score": constant_score,
    "constant score, v zero": lambda on: constant_score(on) | times("v", 0),
    "token 7 v zero": lambda on: times("v", 0, token=7),
    "hidden": lambda on: hidden(0),
}
IN_WINDOW, IN_BOTH, IN_WHOLE = list(EDITS)[:-2], ("v zero", "v mean", "k zero"), list(EDITS)[-2:]
LAYOUTS = {  # arm: windows, of layers that keep `kept` keys or all
    "all local": lambda window: [window] * LAYERS,
    "0 to 11 local": lambda window: [window] * 12 + [None] * 18,
    "12 to 29 local": lambda window: [None] * 12 + [window] * 18,
    "every other": lambda window: layer_windows(LAYERS, window, every=2),
    "five of six": lambda window: layer_windows(LAYERS, window, every=6),
}


# What is measured


def run(job: dict) -> dict:
    """One arm on one text; see `jobs`."""
    return PARTS[job["part"]](job)


def stretches(nats: torch.Tensor, first: int) -> dict:
    """Mean loss of the queries from each of `STARTS` to the next, the last to the end. nats: of those from `first` on,
    one of `STARTS`."""
    starts = [start for start in STARTS if first <= start < first + len(nats)]
    parts = nats.tensor_split([start - first for start in starts[1:]])
    means = rounded(torch.stack([part.mean() for part in parts]), 4)
    return {"nats": means, "starts": starts, "counts": [len(part) for part in parts]}


def rounded(numbers: torch.Tensor, decimals: int = 3) -> list:
    """As they are stored."""
    return numbers.double().round(decimals=decimals).tolist()


def past(row: dict, start: int) -> float:
    """Mean loss of the queries from `start`, one of `STARTS`, on, in a row that `stretches` has made."""
    parts = [part for part in zip(row["starts"], row["counts"], row["nats"], strict=True) if part[0] >= start]
    return sum(n * mean for _, n, mean in parts) / sum(n for _, n, _ in parts)


def _windows(job: dict) -> dict:
    kept, sinks, text = job["kept"], job["sinks"], {"start": job["start"], "tokens": LONG}
    if kept is None:
        return read_on(job["on"], *EVERYTHING, first=min(STARTS), **text)
    return read_on(job["on"], [kept - sinks] * LAYERS, sinks, first=kept, **text)


def _layers(job: dict) -> dict:
    return read_on(job["on"], LAYOUTS[job["arm"]](FIRST - job["sinks"]), job["sinks"])


def _first(job: dict) -> dict:
    """The loss of the text's own tokens, which stand one position later."""
    x, prefix = text_ids(job["on"]), PREFIXES[job["arm"]]
    scope = WITH_SINK if job["scope"] == "window" else EVERYTHING
    if prefix is None:
        before = mean_constants()
    else:
        before = stored_of(torch.tensor([model_and_tokenizer()[1].encode(prefix, allowed="all")]))
    return stretches(read(x, before, *scope)[FIRST:], FIRST)


def _edit(job: dict) -> dict:
    hooks = EDITS[job["arm"]](job["on"])
    if job["queries"] == "later":
        return read_on(job["on"], *WITH_SINK, hooks)
    return stretches(losses_with(text_ids(job["on"]), hooks | restrict(*WITH_SINK))[FIRST:], FIRST)


def _moved(job: dict) -> dict:
    """Besides the loss: of what later queries give in layer 12 and later, mean over heads, the share of token 0, and of
    the other token with the largest share, and which that is."""
    given, hooks = {}, EDITS[job["arm"]](job["on"])
    keep = {"weights": lambda weights, layer: given.__setitem__(layer, weights[0, :, -LATER:].mean(dim=(0, 1)))}  # (S,)
    if job["queries"] == "later":
        found = read_on(job["on"], *EVERYTHING, hooks | keep)
    else:
        found = stretches(losses_with(text_ids(job["on"]), hooks | keep)[FIRST:], FIRST)
    to = torch.stack([given[layer] for layer in LATE]).mean(dim=0)
    share, token = to[1:].max(dim=0)
    first, other = rounded(torch.stack([to[0], share]), 4)
    return found | {"to_first": first, "to_other": other, "other": token.item() + 1}


def _gap(job: dict) -> dict:
    return read_on(job["on"], *WITH_SINK, moved_away(job["arm"]))


def _late(job: dict) -> dict:
    """The first token is hidden from the arm-th query on; all else is in sight."""
    return stretches(losses_with(text_ids(job["on"]), hidden(0, job["arm"]))[FIRST:], FIRST)


@torch.no_grad()
def _fresh(job: dict) -> dict:
    """Mean loss of every fourth later query, if it sees the "whole" text, the last `FIRST` tokens in a "band", a "sink"
    for the oldest of them, or the last `FIRST` "fresh": as a text of their own, which the oldest begins."""
    x, (model, _) = text_ids(job["on"]), model_and_tokenizer()
    places = list(range(FIRST, TOKENS - 1, 4))
    rows = torch.stack([x[0, place - FIRST + 1 : place + 1] for place in places])
    fresh = F.cross_entropy(model(rows, last=1)[:, -1], x[0, [place + 1 for place in places]])
    arms = {"whole": {}, "band": restrict([FIRST] * LAYERS), "sink": restrict(*WITH_SINK)}
    found = {name: losses_with(x, hooks)[places].mean() for name, hooks in arms.items()} | {"fresh": fresh}
    return {name: round(nats.item(), 4) for name, nats in found.items()}


def _mass(job: dict) -> dict:
    """What each head of each layer gives to the first token, mean over later queries: (layers, heads). And the mean
    length of values: of the first token, and of the later ones, by layer."""
    seen = look(model_and_tokenizer()[0], text_ids(job["on"]), ["weights", "v"], last=1)
    mass = torch.stack([weights[0, :, FIRST:, 0].mean(dim=1) for weights in seen["weights"]])
    lengths = torch.stack([v[0].norm(dim=-1).mean(dim=0) for v in seen["v"]])  # (layers, T)
    found = {"mass": mass, "v_first": lengths[:, 0], "v_others": lengths[:, FIRST:].mean(dim=1)}
    return {name: rounded(numbers) for name, numbers in found.items()}


def _constant(job: dict) -> dict:
    """By layer, the lowest cosine of a first token's key, and value, with the mean of the other eleven, over heads."""
    found = {}
    for name, each in zip("kv", constants(), strict=True):  # (layers, 12, K, d)
        others = (each.sum(dim=1, keepdim=True) - each) / 11
        found[name] = rounded(F.cosine_similarity(each, others, dim=-1).amin(dim=(1, 2)))
    return found


PARTS = {"windows": _windows, "layers": _layers, "first": _first, "edit": _edit, "moved": _moved, "gap": _gap}
PARTS |= {"mass": _mass, "constant": _constant, "late": _late, "fresh": _fresh}
STARTED = (1, 2, 3, 4, 8, 16, 64)  # the first query that does not see the first token
MIDDLE = 103  # a text that begins there begins within a sentence


def jobs() -> list[dict]:
    """Every arm on every text."""
    each = [{"part": "windows", "start": start, "kept": None, "sinks": 0} for start in (0, MIDDLE)]
    each += [{"part": "windows", "start": 0, "kept": kept, "sinks": sinks} for kept in KEPT for sinks in SINKS]
    each += [{"part": "windows", "start": MIDDLE, "kept": 64, "sinks": n} for n in (0, 1, 4)]
    each += [{"part": "edit", "arm": arm, "queries": "later"} for arm in IN_WINDOW]
    each += [{"part": "edit", "arm": arm, "queries": "all"} for arm in IN_BOTH]
    each += [{"part": "moved", "arm": arm, "queries": "later"} for arm in ("none", *IN_BOTH, *IN_WHOLE)]
    each += [{"part": "moved", "arm": arm, "queries": "all"} for arm in IN_BOTH]
    each += [{"part": "layers", "arm": arm, "sinks": n} for arm in LAYOUTS for n in (0, 1)]
    each += [{"part": "first", "arm": arm, "scope": scope} for arm in PREFIXES for scope in ("window", "whole")]
    each += [{"part": "gap", "arm": gap} for gap in GAPS] + [{"part": "mass"}, {"part": "fresh"}]
    each += [{"part": "late", "arm": start} for start in STARTED]
    return [{"part": "constant"}] + [{"on": on} | job for job in each for on in TEXTS]


SWEEP = Sweep(
    __file__,
    "real_window",
    run,
    jobs=jobs(),
    quick=[job for job in jobs() if job.get("on") == "speech"][::12],
    comparable=lambda job: job.get("on") not in ("docs", "code"),
    tolerance={"nats": 0.01, "to_first": 0.01, "to_other": 0.01, "mass": 0.01, "v_first": 0.02, "v_others": 0.02}
    | {"k": 0.002, "v": 0.002, "whole": 0.01, "band": 0.01, "sink": 0.01, "fresh": 0.01},
    files=FILES,
)

if __name__ == "__main__":
    sys.exit(main(SWEEP))
