"""Do experts collapse, and does evening their load pay? python moe_sweep.py

Writes results/moe.json, which the notebook shows. Two tasks:

small       a small decoder with a mixture in both blocks, on four kinds of documents of the story world
upcycle     the trained story model, each feed-forward layer made into a mixture of copies, trained further

The arms are those of `moe_arms`. dose: how large a common direction, the same random one for all tokens, the routers of
a small model are given besides; 1: as large as what a token brings. 0 is the plain case, all else an intervention.

Training is `shared.training.fit`: AdamW with betas 0.9 and 0.95, weight decay 0.1 on matrices, gradients clipped at 1,
a tenth of the steps to warm up and a cosine down to a tenth. Two lengths, the second four times the first. Seeds below
10 try rates. Seeds from 10 up are trained at each arm's best one alone, so that what is said of an arm is not said by
the seeds that chose its rate; but for the upcycled model, which loses least where it is trained least, and is judged at
two rates above its best.
"""

import functools
import sys
from collections.abc import Iterable
from dataclasses import replace
from functools import partial

import torch
from moe import mixtures
from moe_arms import ARMS, loss_of, ready, slot
from moe_load import load_of, mean_cosine, told
from moe_variants import balanced_table, upcycle_model
from torch import nn

from shared.hooks import look
from shared.rotary import RotaryAttention, no_positions
from shared.story_model import WEIGHTS, load_story_lm
from shared.sweeps import Sweep, main
from shared.tiny_lm import TinyLM
from shared.training import evaluate, fit, initialise_by_fan_in
from shared.world import BASE, HELD_OUT, MIXED, VOCABULARY, documents, encode, held_out_rows, rows

D_MODEL, D_HIDDEN, LAYERS, HEADS = 48, 48, 2, 4  # of a small model; D_HIDDEN of one expert
STEPS = [150, 600]
JUDGES = [10, 11, 12, 13, 14]
KINDS = ("story", "facts", "sums", "code")

# The four kinds of documents, in a world of about 240 words
SMALL = {"people": 24, "first_names": 12, "last_names": 8, "towns": 6, "jobs": 8, "foods": 8, "animals": 6}
WORLD = replace(MIXED, **SMALL, objects=10, places=8, exponent=0.7)
CONTEXT, ROWS, HELD_OUT_ROWS = 64, 8, 256
UPCYCLED_CONTEXT, UPCYCLED_ROWS, UPCYCLED_HELD_OUT = 192, 2, 64


# Texts


@functools.cache
def words() -> torch.Tensor:
    """Which of the vocabulary's words this world has, in order. Facts have rare ones, so they are read by themselves
    too."""
    streams = [rows(CONTEXT, 0, it) for it in (WORLD, replace(WORLD, story=0, sums=0, code=0))]
    return torch.cat([next(stream) for stream in streams for _ in range(1500)]).unique()


def numbered(ids: torch.Tensor) -> torch.Tensor:
    """The vocabulary's ids as places in `words`; -1, which no model takes, for a word that is not there."""
    places = torch.full((len(VOCABULARY),), -1)
    places[words()] = torch.arange(len(words()))
    return places[ids]


def batches(seed: int, context: int = CONTEXT, n: int = ROWS, config=WORLD):
    """x and y for each step, the same for all arms of a seed."""
    stream = rows(context, seed, config)

    def batch():
        both = torch.stack([next(stream) for _ in range(n)])
        both = numbered(both) if config is WORLD else both
        return both[:, :-1], both[:, 1:]

    return batch


@functools.cache
def held_out() -> tuple[torch.Tensor, torch.Tensor, float]:
    """x, y and the floor of their loss."""
    x, y, nats = held_out_rows(HELD_OUT_ROWS, CONTEXT, HELD_OUT, WORLD)
    return numbered(x), numbered(y), nats.mean().item()


@functools.cache
def held_out_kinds() -> torch.Tensor:
    """The kind of the document that each token of the held-out x belongs to, a place in KINDS: (rows, CONTEXT). The
    line's end in front counts with what follows it."""
    stream, kinds = documents(HELD_OUT, WORLD), []
    for _ in range(HELD_OUT_ROWS):
        row = []
        while len(row) <= CONTEXT:
            document = next(stream)
            row += [KINDS.index(document.kind)] * (len(encode(document.text)) + (not row))
        kinds.append(row[:CONTEXT])
    return torch.tensor(kinds)


@functools.cache
def table(n_experts: int) -> torch.Tensor:
    """Which expert a hash gives each word: even on a text that no seed trains on."""
    stream = rows(CONTEXT, HELD_OUT - 1, WORLD)
    text = numbered(torch.stack([next(stream) for _ in range(500)]))
    return balanced_table(text.flatten().bincount(minlength=len(words())), n_experts)


# Models


def new_model(job: dict) -> TinyLM:
    """A small job's model, ready to train."""
    torch.manual_seed(job["seed"])
    arm, shift = ARMS[job["arm"]], torch.randn(D_MODEL) * job["dose"] if job["dose"] else None
    n_experts = job["n_experts"]
    model = TinyLM(
        len(words()),
        CONTEXT,
        D_MODEL,
        LAYERS,
        HEADS,
        attention=partial(RotaryAttention, bias=False),
        feed_forward=slot(arm, n_experts, job["k"], D_HIDDEN, shift, table(n_experts) if arm.layer == "hash" else None),
        norm=nn.RMSNorm,
        positions=no_positions,
    )
    initialise_by_fan_in(model)
    return ready(arm, model)


def train(model: nn.Module, job: dict, batch) -> dict | None:
    """Train in place. What `watch` saw; None if it diverged."""
    see = (lambda: {}) if "dense" in job["arm"] else partial(watch, model)
    history = fit(model, batch, job["steps"], job["rate"], loss=loss_of(ARMS[job["arm"]]), watch=see, label=None)
    return None if history.stopped else series(history.watched)


def watch(model: nn.Module) -> dict[str, list[float]]:
    """The load of each layer in the training's last batch, as it was before the step."""
    found = [load_of(layer) for layer in mixtures(model)]
    return {name: [each[name] for each in found] for name in found[0]}


def series(watched: list[dict]) -> dict[str, list[list[float]]]:
    """What `watch` saw, by name and layer: a number for each look, of steps 0, 10, 20 and so on, and of the last."""
    names = sorted(watched[0].keys() - {"step"})
    layers = {name: zip(*(it[name] for it in watched), strict=True) for name in names}
    return {f"{name}_by_step": [list(layer) for layer in each] for name, each in layers.items()}


# Jobs


def run(job: dict) -> dict:
    """Train one model and judge it. job: task, arm, n_experts, k, rate, steps and seed; of a small one, dose."""
    return {"small": _small, "upcycle": _upcycle}[job["task"]](job)


def _small(job: dict) -> dict:
    """Nats above the floor, what the mixtures do with held-out text, and their load while they were trained."""
    model = new_model(job)
    found = {"parameters": sum(p.numel() for p in model.parameters())}
    seen = train(model, job, batches(job["seed"]))
    if seen is None:
        return found | {"loss": None}
    x, y, floor = held_out()
    found |= {"loss": round(evaluate(model, x, y, floor).above_floor, 5)} | seen
    return found if "dense" in job["arm"] else found | judged(model, x, held_out_kinds())


def _upcycle(job: dict) -> dict:
    """The same of the story model; `start`: its loss before."""
    torch.manual_seed(job["seed"])
    whole, (x, y, floor) = load_story_lm(), held_out_stories()
    model = upcycle_model(whole, job["n_experts"], job["k"])
    found = {"start": round(evaluate(model, x, y, floor).above_floor, 5)}
    seen = train(model, job, batches(job["seed"], UPCYCLED_CONTEXT, UPCYCLED_ROWS, BASE))
    if seen is None:
        return found | {"loss": None}
    return found | {"loss": round(evaluate(model, x, y, floor).above_floor, 5)} | seen | judged(model, x)


@functools.cache
def held_out_stories() -> tuple[torch.Tensor, torch.Tensor, float]:
    """x, y and the floor of their loss, as the story model knows them."""
    x, y, nats = held_out_rows(UPCYCLED_HELD_OUT, UPCYCLED_CONTEXT, HELD_OUT, BASE)
    return x, y, nats.mean().item()


def judged(model: nn.Module, x: torch.Tensor, kinds: torch.Tensor | None = None) -> dict[str, list]:
    """By layer, on held-out text: the load; the mean cosine between what the router is given of two tokens; and what
    its choice tells, if the kind of each token is known."""
    inputs, found = look(model, x, ["norm_2"])["norm_2"], []
    for layer, given in zip(mixtures(model), inputs, strict=True):
        cosine = mean_cosine(given.flatten(0, 1) + getattr(layer, "shift", 0))
        found.append(load_of(layer) | {"cosine": round(cosine, 4)})
        if kinds is not None:
            found[-1] |= told(kinds.flatten(), x.flatten(), layer.record, (len(KINDS), model.vocab_size))
    return {name: [each[name] for each in found] for name in found[0]}


def small(arms: Iterable[str], k: int = 1, n_experts: int = 8, dose: float = 0.0) -> list[dict]:
    """Arms of small models, without rate, steps and seed."""
    return [{"task": "small", "arm": arm, "n_experts": n_experts, "k": k, "dose": dose} for arm in arms]


def runs(arms: list[dict], length: int, rates: list[float], seeds: Iterable[int]) -> list[dict]:
    """Each arm at each rate by each seed; length 0 or 1: short or long."""
    return [one | {"rate": it, "steps": STEPS[length], "seed": s} for one in arms for it in rates for s in seeds]


TOP_1 = small(ARMS)
TOP_2 = small(["none", "aux 0.01", "aux 0.1", "bias 0.01", "frozen", "dense active"], k=2)
MANY = small(["none", "aux 0.1"], n_experts=16)
HALF, WHOLE = small(["none"], dose=0.5), small(["none", "aux 0.1", "bias 0.1", "bias 0.01", "sigmoid"], dose=1.0)
SHORT = TOP_1 + TOP_2 + MANY + HALF + WHOLE
LONG = small(["none", "aux 0.01", "aux 0.1", "bias 0.01", "hash", "frozen", "choice", "dense active", "dense total"])
LONG += [*small(["none", "aux 0.1"], k=2), MANY[0], *WHOLE[:3]]
FAST = [*small(["sigmoid", "bias 0.001", "bias 0.01", "bias 0.1", "dense active"]), *MANY, *WHOLE]  # not so 600 steps
UPCYCLED = [{"task": "upcycle", "arm": arm, "n_experts": 8, "k": 2} for arm in ("none", "aux 0.1")]
TRIED = [
    *runs(SHORT, 0, [3e-3, 1e-2, 3e-2], [0]),
    *runs(FAST, 0, [1e-1], [0]),
    *runs(LONG, 1, [3e-3, 1e-2, 3e-2], [0]),
    *runs(UPCYCLED, 0, [3e-4, 1e-3, 3e-3], [0]),
]
SLOW = [it for it in SHORT if it not in FAST]
LAST = [it for it in LONG if it["arm"] not in ("aux 0.01", "choice", "bias 0.1")]
JUDGED = [
    *runs(SLOW, 0, [1e-2], JUDGES),
    *runs(FAST, 0, [3e-2], JUDGES),
    *runs(LAST, 1, [1e-2], JUDGES),
    *runs(UPCYCLED, 0, [1e-3], JUDGES),
    *runs(UPCYCLED[:1], 0, [3e-3], JUDGES),
    *runs(UPCYCLED, 1, [1e-3], JUDGES),
]
QUICK = [TOP_1[1], *TOP_1[6:12], TOP_2[0], WHOLE[1], TOP_1[-1], UPCYCLED[0]]
SWEEP = Sweep(
    __file__,
    "moe",
    run,
    jobs=TRIED + JUDGED,
    quick=[one | {"rate": 1e-2, "steps": 3, "seed": 0} for one in QUICK],
    cost=lambda job: job["steps"] * {"small": 1, "upcycle": 7}[job["task"]],
    comparable=lambda job: job["steps"] <= STEPS[0],
    tolerance={"loss": 0.02, "largest": 0.1},
    files=[WEIGHTS],
)

if __name__ == "__main__":
    sys.exit(main(SWEEP))
