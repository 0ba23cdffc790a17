"""What sharing key and value heads costs a small model: python gqa_sweep.py

Writes results/gqa.json, which the notebook shows; about an hour on one core. Three tasks:

story       the story world, whose floor is known: nats above it. Two lengths, the second four times the first; six
            arms four times as long again
recall      records of a key and fields, then keys with a field's name: which value? No positions, one layer
convert     a model of the story world loses key and value heads, and is trained some more

An arm is its `n_heads`, `n_kv_heads`, `d_head` and `n_layers`, and `d_hidden`, the width of its feed-forward, which
makes it as large as the others of its task. Training is `shared.training.fit`: AdamW with betas 0.9 and 0.95, weight
decay 0.1 on matrices, gradients clipped at 1, a tenth of the steps to warm up and a cosine down to a tenth.

Seeds below 100 try rates. Seeds from 100 up are trained at each arm's best one alone, so that what is said of an arm
is not said by the seeds that chose its rate.
"""

import functools
import random
import sys
from collections.abc import Iterable
from functools import partial

import torch
from gqa import GroupedAttention, pool_model
from torch import nn
from torch.nn import functional as F

from shared.layers import SwiGLU
from shared.rotary import no_positions
from shared.sweeps import Sweep, main
from shared.tiny_lm import TinyLM
from shared.training import evaluate, fit, initialise_by_fan_in
from shared.world import HELD_OUT, VOCABULARY, Config, held_out_rows, rows

D_MODEL = 64
LAYERS = {"story": 2, "recall": 1}
D_HIDDEN = {"story": 170, "recall": 128}  # of the arm with eight heads of eight numbers that share nothing
STEPS = {"story": [200, 800, 3200], "recall": [250, 2000, 8000]}  # some arms, the late ones, in all three
JUDGES = [100, 101, 102, 103, 104]

# The story world, a small one: about 180 words
WORLD = Config(
    people=24, first_names=12, last_names=8, towns=6, jobs=8, foods=8, animals=6, objects=10, places=8, exponent=0.7
)
CONTEXT, ROWS = 64, 8

# Recall
KEYS, VALUES = 128, 32
RECORDS = {1: [2, 4, 8, 16, 32, 64], 3: [4]}  # by fields: a batch has one of these numbers in all its contexts
CONTEXTS, MOST_ASKED = 16, 16


def arm(task: str, n_heads: int, n_kv_heads: int, d_head: int, n_layers: int | None = None) -> dict:
    """With as many parameters as the arm of eight heads that share nothing, but for rounding."""
    layers, n_layers = LAYERS[task], LAYERS[task] if n_layers is None else n_layers
    whole = layers * (4 * D_MODEL * 64 + 3 * D_MODEL * D_HIDDEN[task])
    attention = 2 * D_MODEL * (n_heads + n_kv_heads) * d_head
    d_hidden = round((whole / n_layers - attention) / (3 * D_MODEL))
    sizes = {"n_heads": n_heads, "n_kv_heads": n_kv_heads, "d_head": d_head, "n_layers": n_layers}
    return {"task": task} | sizes | {"d_hidden": d_hidden}


def cached(row: dict) -> int:
    """Numbers that an arm's cache holds of a token."""
    return 2 * row["n_layers"] * row["n_kv_heads"] * row["d_head"]


# Models


class Unplaced(GroupedAttention):
    """Without positions: a pair is found by its key alone, and every number of a head can serve that."""

    def place(self, x: torch.Tensor, positions: torch.Tensor | None = None) -> torch.Tensor:
        return x


class RecordEmbedding(nn.Module):
    """A token's vector is the sum of those of its parts, which are digits of its number: a key, each field's value, and
    the field that is asked for; all but the key count from 1, and 0 is none. (B, T) -> (B, T, C)."""

    def __init__(self, d_model: int, fields: int):
        super().__init__()
        sizes = [KEYS, *[1 + VALUES] * fields, 1 + fields]
        self.parts = nn.ModuleList(nn.Embedding(size, d_model) for size in sizes)
        for table in self.parts:
            nn.init.normal_(table.weight, std=0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        total = 0
        for table in self.parts:
            total = total + table(x % table.num_embeddings)
            x = x // table.num_embeddings
        return total


def new_model(job: dict) -> TinyLM:
    """A job's model, ready to train."""
    torch.manual_seed(job["seed"])
    recall = job["task"] == "recall"
    model = TinyLM(
        VALUES if recall else len(words()),
        128 if recall else CONTEXT,
        D_MODEL,
        job["n_layers"],
        job["n_heads"],
        attention=partial(
            Unplaced if recall else GroupedAttention, n_kv_heads=job["n_kv_heads"], d_head=job["d_head"], bias=False
        ),
        feed_forward=partial(SwiGLU, d_hidden=job["d_hidden"]),
        norm=nn.RMSNorm,
        positions=no_positions,
        tied=not recall,
    )
    initialise_by_fan_in(model)
    if recall:
        model.embedding = RecordEmbedding(D_MODEL, job["fields"])
    return model


# Stories


@functools.cache
def words() -> torch.Tensor:
    """Which of the vocabulary's words this world has, in order."""
    stream = rows(CONTEXT, 0, WORLD)
    return torch.cat([next(stream) for _ in range(2000)]).unique()


def numbered(ids: torch.Tensor) -> torch.Tensor:
    """The vocabulary's ids as places in `words`; -1, which no model takes, for a word that is not there."""
    places = torch.full((len(VOCABULARY),), -1)
    places[words()] = torch.arange(len(words()))
    return places[ids]


def story_batches(seed: int):
    """x and y for each step, the same for all arms of a seed."""
    stream = rows(CONTEXT, seed, WORLD)

    def batch():
        both = numbered(torch.stack([next(stream) for _ in range(ROWS)]))
        return both[:, :-1], both[:, 1:]

    return batch


@functools.cache
def held_out_stories() -> tuple[torch.Tensor, torch.Tensor, float]:
    """512 rows, x and y, and the floor of their loss."""
    x, y, nats = held_out_rows(512, CONTEXT, HELD_OUT, WORLD)
    return numbered(x), numbered(y), nats.mean().item()


def above_floor(model: TinyLM) -> float:
    """The loss on held-out stories, nats per word above the floor."""
    return round(evaluate(model, *held_out_stories()).above_floor, 5)


def train_on_stories(model: TinyLM, rate: float, steps: int, batch) -> float | None:
    """Train in place; the loss above the floor, None if it diverged."""
    return None if fit(model, batch, steps, rate, label=None).stopped else above_floor(model)


# Recall


def recall_batch(
    records: int, fields: int, contexts: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """x (contexts, records + asked): records of different keys, each field with any value, then keys of some records,
    each with a field; y (contexts, asked), the values there."""
    asked = min(records, MOST_ASKED)
    keys = torch.rand(contexts, KEYS, generator=generator).argsort(dim=1)[:, :records]
    values = torch.randint(VALUES, (contexts, records, fields), generator=generator)
    which = torch.rand(keys.shape, generator=generator).argsort(dim=1)[:, :asked]
    field = torch.randint(fields, which.shape, generator=generator)
    places = KEYS * (1 + VALUES) ** torch.arange(fields + 1)  # what a digit counts
    told = keys + ((1 + values) * places[:fields]).sum(dim=-1)
    questions = keys.gather(1, which) + (1 + field) * places[fields]
    return torch.cat([told, questions], dim=1), values[torch.arange(contexts)[:, None], which, field]


def recall_loss(model: TinyLM, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Of the answers alone, nats each."""
    return F.cross_entropy(model(x, last=y.shape[1]).flatten(0, 1), y.flatten())


@torch.no_grad()
def recalled(model: TinyLM, fields: int) -> dict:
    """By number of records: the share of right answers, and the loss; `loss` is the mean over these numbers."""
    accuracy, losses = [], []
    for records in RECORDS[fields]:
        generator = torch.Generator().manual_seed(HELD_OUT + records)
        x, y = recall_batch(records, fields, 2048 // min(records, MOST_ASKED), generator)
        logits = model(x, last=y.shape[1])
        accuracy.append(round((logits.argmax(dim=-1) == y).float().mean().item(), 4))
        losses.append(round(F.cross_entropy(logits.flatten(0, 1), y.flatten()).item(), 4))
    return {"loss": round(sum(losses) / len(losses), 5), "losses": losses, "accuracy": accuracy}


# Jobs


def run(job: dict) -> dict:
    """Train one model and judge it. job: an arm with rate, steps and seed; or what `_convert` takes."""
    return {"story": _story, "recall": _recall, "convert": _convert}[job["task"]](job)


def _story(job: dict) -> dict:
    """The loss above the floor, nats per word."""
    model = new_model(job)
    loss = train_on_stories(model, job["rate"], job["steps"], story_batches(job["seed"]))
    return {"loss": loss, "parameters": sum(p.numel() for p in model.parameters())}


def _recall(job: dict) -> dict:
    """See `recalled`; None for all of it if the training diverged."""
    model, generator, sizes = new_model(job), torch.Generator().manual_seed(job["seed"]), random.Random(job["seed"])

    def batch():
        return recall_batch(sizes.choice(RECORDS[job["fields"]]), job["fields"], CONTEXTS, generator)

    history = fit(model, batch, job["steps"], job["rate"], loss=recall_loss, label=None)
    found = {"loss": None, "losses": None, "accuracy": None} if history.stopped else recalled(model, job["fields"])
    return found | {"parameters": sum(p.numel() for p in model.parameters())}


@functools.lru_cache(maxsize=1)  # the jobs of a seed follow each other
def trained(steps: int, seed: int) -> TinyLM:
    """The model that is to be converted: eight heads that share nothing, at their best rate."""
    model = new_model(arm("story", 8, 8, 8) | {"seed": seed})
    train_on_stories(model, TO_CONVERT[steps], steps, story_batches(seed))
    return model


@torch.no_grad()
def converted(model: TinyLM, n_kv_heads: int, how: str, generator: torch.Generator | None = None) -> TinyLM:
    """See `pool_model`; "stretched": the mean of G heads times the root of G, for heads that have nothing in common."""
    if how != "stretched":
        return pool_model(model, n_kv_heads, how, generator)
    small, layer = pool_model(model, n_kv_heads), model.blocks[0].attention
    for block in small.blocks:
        for part in block.attention.qkv.parameters():  # the matrix, and its bias if there is one
            part[layer.n_heads * layer.d_head :] *= (layer.n_kv_heads / n_kv_heads) ** 0.5
    return small


def _convert(job: dict) -> dict:
    """The loss above the floor behind `more` of the training's steps at `rate` on new text, with `n_kv_heads` made by
    `how`; 8 are those that there were. more 0: before any."""
    generator = torch.Generator().manual_seed(job["seed"])
    model = converted(trained(job["steps"], job["seed"]), job["n_kv_heads"], job["how"], generator)
    if not job["more"]:
        return {"loss": above_floor(model)}
    batch = story_batches(NEW_TEXT + job["seed"])
    return {"loss": train_on_stories(model, job["rate"], round(job["more"] * job["steps"]), batch)}


NEW_TEXT = 10_000  # what a converted model reads on is not what made it
TO_CONVERT = {200: 1e-2, 800: 3e-3}  # the rate of what is to be converted, by its steps
WAYS = ("mean", "first", "random", "stretched")  # the last: the mean, as long again as a head
SHARED = [(8, 8, 8), (8, 4, 8), (8, 2, 8), (8, 1, 8)]  # query heads, key and value heads, width of a head
FEWER, NARROWER = [(2, 2, 8), (1, 1, 8)], [(8, 8, 4), (8, 8, 2)]
STORY = [arm("story", *sizes) for sizes in SHARED + FEWER + NARROWER] + [arm("story", 8, 8, 8, 1)]
LONGEST = [STORY[0], *STORY[2:6], STORY[8]]
AS_CONVERTED = [arm("story", 8, n, 8) | {"d_hidden": D_HIDDEN["story"]} for n in (2, 1)]
PAIRS = [arm("recall", *sizes) | {"fields": 1} for sizes in SHARED + FEWER + NARROWER + [(8, 1, 4), (8, 1, 2)]]
NARROW = [PAIRS[6], PAIRS[8]]
FIELDS = [arm("recall", *sizes) | {"fields": 3} for sizes in [SHARED[0], *SHARED[2:], (8, 1, 16)]]
RATES = [3e-3, 1e-2, 3e-2]


def runs(arms: list[dict], length: int, rates: list[float], seeds: Iterable[int]) -> list[dict]:
    """Each arm at each rate by each seed; length 0 or 1: short or long."""
    return [
        one | {"rate": rate, "steps": STEPS[one["task"]][length], "seed": seed}
        for one in arms
        for rate in rates
        for seed in seeds
    ]


def judged(arms: list[dict], length: int, rates: list[float]) -> list[dict]:
    """Each arm at its own rate by the seeds that judge."""
    return [job for one, rate in zip(arms, rates, strict=True) for job in runs([one], length, [rate], JUDGES)]


TRIED = [
    *runs(STORY + AS_CONVERTED, 0, RATES, range(2)),
    *runs(STORY[4:6], 0, [1e-3], range(2)),
    *runs(STORY + AS_CONVERTED, 1, [1e-3, 3e-3, 1e-2], range(1)),
    *runs(LONGEST, 2, [1e-3, 3e-3, 1e-2], range(1)),
    *runs(STORY[5:6], 2, [3e-4], range(1)),
    *runs(STORY[3:4], 2, [1e-3, 3e-3, 1e-2], [1, 2]),  # the first seed found 1e-3 and 3e-3 level
    *runs(STORY[3:4], 2, [3e-4], range(3)),
    *runs(STORY[8:], 1, [1e-3, 3e-3, 1e-2], [1, 2]),  # one seed's best rate was not that of others
    *runs(PAIRS + FIELDS, 0, RATES, range(2)),
    *runs(PAIRS[:2], 0, [1e-1], range(2)),
    *runs([PAIRS[0], PAIRS[3], *NARROW, *FIELDS], 1, [1e-3, *RATES], range(1)),
    *runs(FIELDS[2:3], 2, [1e-3, 3e-3, 1e-2], range(1)),
]
JUDGED = [
    *judged(STORY + AS_CONVERTED, 0, [1e-2, 1e-2, 1e-2, 1e-2, 1e-2, 3e-3, 1e-2, 1e-2, 1e-2, 1e-2, 1e-2]),
    *judged(STORY + AS_CONVERTED, 1, [3e-3] * 11),
    *judged(LONGEST, 2, [3e-3, 3e-3, 1e-3, 3e-3, 1e-3, 3e-3]),
    *judged([*PAIRS[:4], *PAIRS[5:9]], 0, [3e-2, 3e-2, 1e-2, 1e-2, 1e-2, 1e-2, 1e-2, 1e-2]),
    *judged(FIELDS, 0, [1e-2] * 4),
    *judged([PAIRS[0], PAIRS[3], *NARROW, *FIELDS], 1, [3e-3, 3e-3, 1e-2, 1e-2, 1e-2, 1e-2, 3e-3, 3e-3]),
    *judged(FIELDS[2:3], 2, [3e-3]),
]
CONVERTED = [  # each way at each rate, by the seeds that judge; 8 heads are those that there were
    {"task": "convert", "n_kv_heads": n, "how": how, "more": more, "rate": rate, "steps": steps, "seed": seed}
    for steps in TO_CONVERT
    for seed in JUDGES
    for n, how in [(8, "mean"), *((n, how) for n in (2, 1) for how in WAYS)]
    for more in [0, 0.05, 0.2]
    for rate in ([1e-3, 3e-3, 1e-2, 3e-2] if more else [None])
    if steps * more <= 40
]

SWEEP = Sweep(
    __file__,
    "gqa",
    run,
    jobs=TRIED + JUDGED + CONVERTED,
    quick=[one | {"rate": 1e-2, "steps": 3, "seed": 0} for one in (STORY[1], PAIRS[1], FIELDS[1])],
    cost=lambda job: job["steps"] * {"story": 5, "convert": 5 * job.get("more", 0), "recall": 1}[job["task"]],
    comparable=lambda job: job["steps"] <= 250 and job["rate"] is not None and job["rate"] <= 1e-2,
    tolerance={"loss": 0.01, "losses": 0.05, "accuracy": 0.05},  # what is rounded otherwise grows in training
)

if __name__ == "__main__":
    sys.exit(main(SWEEP))
