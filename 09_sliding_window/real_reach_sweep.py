"""How far a real model reaches through windows, and how long it can read: python real_reach_sweep.py

Writes results/real_reach.json, which the notebook shows; about 20 minutes on one core. SmolLM2-135M-Instruct (4-bit
weights), which was trained without windows on texts of up to 8,192 tokens. Nothing is trained here. Three parts:

    recall      a key of five digits is said, a text follows, and the key is asked for: windows, and layers without one
    influence   one token is another one: how much that changes what is predicted later, by distance
    stream      9,728 tokens of two texts through a ring, and 14,336 of one: the last queries are further from the first
                token than the model's context is long

All layers that are not in a job's "global" see `kept` tokens, `sinks` of them the first ones.
"""

import functools
import math
import sys

import torch
from real_window_sweep import LAYERS, TEXTS, model_and_tokenizer, rounded, text_ids
from torch.nn import functional as F
from window import new_ring, restrict

from shared.corpus import python_docs
from shared.hooks import hooked
from shared.sweeps import Sweep, main
from shared.texts import FILES, OWN, texts

KEY, AFTER, QUESTION = "\nThe pass key is ", ". Remember it.\n", "\nThe pass key is "
DIGITS = 5
DISTANCES = (48, 68, 120, 136, 248, 264, 384)  # two around the end of each window
BEFORE = 40  # tokens of the text before the key
FLIPPED, SHORT, FAR = (40, 60), 256, (1, 31, 62, 93, 124, 186)
STREAMED = ("docs", "prose")
STREAM, LONGER, STREAM_STARTS = 9_728, 14_336, (128, 512, 1024, 2048, 4096, 6144, 8192, 9728, 12288)
CHUNK = 32
GLOBAL = list(range(LAYERS))


def windows(job: dict) -> list[int | None]:
    """What each layer sees of the latest tokens."""
    return [None if layer in job["global"] else job["kept"] - job["sinks"] for layer in range(LAYERS)]


# Recall


def prompts(distance: int, before: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Eight texts with a key in each, (8, T), up to its last digit but one, and the keys' tokens, (8, 5).

    distance: from the key's first digit to the token that the first digit is to follow; so it is for each digit. Keys
    are random, others at each distance.
    """
    encode = model_and_tokenizer()[1].encode
    said, after, question = map(encode, (KEY, AFTER, QUESTION))
    n = distance + 1 - DIGITS - len(after) - len(question)  # tokens of the text behind the key
    if n < 0:
        raise ValueError(f"distance is {distance}: the key and the question alone take {distance - n}")
    generator = torch.Generator().manual_seed(distance)
    keys = torch.tensor(digit_ids())[torch.randint(10, (len(TEXTS), DIGITS), generator=generator)]
    rows = []
    for on, key in zip(TEXTS, keys.tolist(), strict=True):
        text = text_ids(on, 0, before + n)[0].tolist()
        rows.append(text[:before] + said + key + after + text[before:] + question + key[:-1])
    return torch.tensor(rows), keys


@functools.cache
def digit_ids() -> list[int]:
    """The tokens 0 to 9."""
    return [model_and_tokenizer()[1].encode(str(digit))[0] for digit in range(10)]


def known(logits: torch.Tensor, keys: torch.Tensor) -> dict:
    """From logits (B, 5, V): how many keys are exact, nats a digit, and what is known of a digit in nats, for each key:
    ln 10 for all, and on average not above 0 for nothing, since keys are random.

    known: ln 10 less the loss among the ten digits.
    """
    log_p = logits.log_softmax(dim=-1)
    exact = (log_p.argmax(dim=-1) == keys).all(dim=1).sum().item()
    among = logits[:, :, digit_ids()].log_softmax(dim=-1)  # (B, 5, 10)
    right = keys[:, :, None] == torch.tensor(digit_ids())
    info = math.log(10) + (among * right).sum(dim=-1).mean(dim=1)
    nats = -log_p.gather(-1, keys[:, :, None]).mean()
    return {"exact": exact, "nats": round(nats.item(), 4), "known": rounded(info)}


@torch.no_grad()
def _recall(job: dict) -> dict:
    x, keys = prompts(job["distance"], job["before"])
    model, _ = model_and_tokenizer()
    with hooked(model, restrict(windows(job), job["sinks"])):
        return known(model(x, last=DIGITS), keys)


# Influence


@torch.no_grad()
def _influence(job: dict) -> dict:
    """Divergence of the predictions with one token changed from those without, in nats: mean over the queries at the
    distances from each of `FAR` to the next, and over the places of `FLIPPED`, one at a time."""
    model, tokenizer = model_and_tokenizer()
    x = text_ids(job["on"], 0, SHORT).repeat(1 + len(FLIPPED), 1)
    generator = torch.Generator().manual_seed(TEXTS.index(job["on"]))
    for row, place in enumerate(FLIPPED, 1):
        x[row, place] = torch.randint(len(tokenizer.specials), tokenizer.vocab_size, (), generator=generator)
    with hooked(model, restrict(windows(job), job["sinks"])):
        log_p = model(x).log_softmax(dim=-1)
    apart = [(log_p[0].exp() * (log_p[0] - each)).sum(dim=-1) for each in log_p[1:]]  # (T,) each
    by_distance = torch.stack([each[place : place + max(FAR)] for each, place in zip(apart, FLIPPED, strict=True)])
    parts = by_distance.mean(dim=0)[1:].tensor_split([far - 1 for far in FAR[1:-1]])
    return {"divergence": rounded(torch.stack([part.mean() for part in parts]), 6)}


# Stream


@functools.cache
def stream(name: str) -> torch.Tensor:
    """A long text, (T,): the documentation that comes with Python, or our own texts one after the other."""
    text = python_docs()[100_000:200_000] if name == "docs" else "\n\n".join(texts()[on] for on in OWN)
    return torch.tensor(model_and_tokenizer()[1].encode(text))


@torch.no_grad()
def _stream(job: dict) -> dict:
    """Mean loss of the queries from each of `STREAM_STARTS` on to the next, for each text."""
    model, _ = model_and_tokenizer()
    x = torch.stack([stream(on)[: job["tokens"]] for on in job["texts"]])
    how = {"sinks": job["sinks"], "turned": job["turned"], "capacity": job["tokens"]}
    ring, nats = new_ring(model, windows(job), len(x), **how), []
    for part, then in zip(x[:, :-1].split(job["chunk"], dim=1), x[:, 1:].split(job["chunk"], dim=1), strict=True):
        nats.append(F.cross_entropy(model(part, ring).mT, then, reduction="none"))
    starts = [start for start in STREAM_STARTS if start < job["tokens"]]
    parts = torch.cat(nats, dim=1).tensor_split(starts, dim=1)[1:]
    return {"nats": rounded(torch.stack([part.mean(dim=1) for part in parts], dim=1), 4)}  # (texts, stretches)


PARTS = {"recall": _recall, "influence": _influence, "stream": _stream}


def run(job: dict) -> dict:
    """One arm; see `jobs`."""
    return PARTS[job["part"]](job)


def every(n: int, first: int) -> list[int]:
    """Layers first, first + n and so on."""
    return list(range(first, LAYERS, n))


def jobs() -> list[dict]:
    """Every arm of each part."""
    whole, local = {"global": GLOBAL, "kept": 64, "sinks": 0}, {"global": [], "sinks": 1}
    recall = {"part": "recall", "before": BEFORE}
    each = []
    for distance in DISTANCES:
        arms = [whole, *(local | {"kept": kept} for kept in (64, 128, 256) if kept < distance + 60)]
        each += [recall | {"distance": distance} | arm for arm in arms]
    each += [recall | arm | {"distance": 136, "before": 160} for arm in (whole, local | {"kept": 64})]
    mixed = [every(6, first) for first in range(6)] + [every(2, 1), GLOBAL[12:], GLOBAL[:12]]
    mixed += [GLOBAL[16:18], GLOBAL[17:19], GLOBAL[18:20], GLOBAL[12:19], GLOBAL[12:24], GLOBAL[18:]]
    each += [recall | local | {"global": layers, "kept": 64, "distance": 120} for layers in mixed]
    each += [recall | {"global": every(6, 5), "kept": 64, "sinks": 0, "distance": 120}]
    each += [recall | local | {"global": every(6, 5), "kept": 64, "distance": 384}]
    streamed = {"part": "stream", "texts": list(STREAMED), "tokens": STREAM, "chunk": CHUNK, "turned": False}
    streamed |= {"global": [], "kept": 128, "sinks": 1}
    each += [streamed | {"tokens": 2048, "sinks": 0}, streamed | {"turned": True, "chunk": 1, "tokens": 512}]
    each += [{"part": "influence", "on": on} | arm for on in TEXTS for arm in (whole, local | {"kept": 32})]
    each += [streamed, streamed | {"turned": True}, streamed | {"turned": True, "sinks": 4, "tokens": 4096}]
    each += [streamed | {"texts": ["docs"], "tokens": LONGER, "turned": turned} for turned in (False, True)]
    each += [streamed | whole | {"texts": ["prose"], "chunk": 256}]
    return each


SWEEP = Sweep(
    __file__,
    "real_reach",
    run,
    jobs=jobs(),
    quick=[job for job in jobs() if job["part"] != "stream"][::20],
    cost=lambda job: {"recall": 4, "influence": 5, "stream": 100}[job["part"]],
    comparable=lambda job: job["part"] == "influence" and job["on"] in OWN,
    tolerance={"divergence": 0.01},
    files=FILES,
)

if __name__ == "__main__":
    sys.exit(main(SWEEP))
