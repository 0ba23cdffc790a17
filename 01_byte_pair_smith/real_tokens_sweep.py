"""How does a real model read its tokens? python real_tokens_sweep.py

Writes results/real_tokens.json, which the notebook shows; up to half an hour on one core. Nothing is trained.
SmolLM2-135M-Instruct (4-bit weights), by `real_tokens` and `real_glitches`:

    prompt      a template's prompts with nothing, a space, a comma and a line end behind them, and with the space
                healed: probabilities of the expected word and of a digit
    border      a digit's probability at 16 borders of words of a text, with the same four behind them
    cut         500 bytes of a text cut in one way, and the 300 behind them, cut by rank: bits per byte of both
    words       about 60 bytes: all cuts that differ in one token from the cut by rank: bits that they add
    glitch      groups of tokens, each token to be said again in a template

The rules (`real_tokens_rules`) were made by the texts, the prompts and the template of `TRIED`, which do not judge.
"""

import functools
import math
import random
import sys
import sysconfig
from pathlib import Path

import real_glitches
import real_tokens
import torch
from real_glitches import TEMPLATES
from real_tokens import PROMPTS, TRAILS
from real_vocabulary import CUTS, scaffolding, token_ids

from shared.corpus import python_docs
from shared.sweeps import Sweep, main
from shared.texts import FILES, OWN, texts

TRIED = {"texts": OWN[:4], "prompts": ("capitals", "weekdays"), "templates": ("twice",)}
JUDGES = {
    "texts": OWN[6:],
    "prompts": tuple(name for name in PROMPTS if name not in TRIED["prompts"]),
    "templates": tuple(name for name in TEMPLATES if name not in TRIED["templates"]),
}
SECOND = ("docs", "code")  # texts of another kind, told beside the others
START = 600  # bytes before a text's window
SEEDS = {"dropout 0.05": (100, 101, 102), "dropout 0.1": (100, 101, 102), "dropout 0.5": (100,)}
AT_POINT, NEAR = (
    0.5,
    2.0,
)  # how far an embedding may be from the control tokens' to be said to be at that point, or near
WORDS = 60  # bytes


def prompt(job: dict) -> dict:
    arms = {name: (trail, False) for name, trail in TRAILS.items()} | {"a space, healed": (" ", True)}
    return {arm: real_tokens.said(PROMPTS[job["on"]], *how) for arm, how in arms.items()}


def border(job: dict) -> dict:
    return real_tokens.at_borders(texts()[job["on"]])


def cut(job: dict) -> dict:
    names, how = [*JUDGES["texts"], JUDGES["texts"][0]], job["arm"]
    if how == "another text":
        other = names[names.index(job["on"]) + 1] if job["on"] in names else names[0]
        return real_tokens.read_after_cut(job["on"], START, "by rank", other=other)
    return real_tokens.read_after_cut(job["on"], START, how, job["seed"])


def words(job: dict) -> dict:
    """How many other cuts, bits of the cut by rank, and by how many bits all together are more likely than it."""
    text = texts()[job["on"]][:WORDS].rpartition(" ")[0]
    bits = real_tokens.total_nats(real_tokens.one_word_apart(text)).double() / -math.log(2)
    more = (bits * math.log(2)).logsumexp(dim=0) / math.log(2) - bits[0]
    return {"others": len(bits) - 1, "bits": -bits[0].item(), "more": more.item()}


@functools.cache
def groups() -> dict[str, list[int]]:
    """Tokens by what is on trial: at the point of the control tokens and near it; by id the nearest to those at the
    point, of the same length; the least and the largest norms; by chance; and scaffolding in this Python's sources."""
    control = set(real_tokens.model_and_tokenizer()[1].specials.values())
    far, norms = real_glitches.distances().tolist(), real_glitches.norms()
    plain = sorted(token_ids().values())
    at_point = [i for i in plain if far[i] <= AT_POINT]
    near = [i for i in plain if AT_POINT < far[i] <= NEAR]
    out = control | {*at_point, *near}
    by_norm = [i for i in norms.argsort().tolist() if i not in out]
    neighbours = {j for i in at_point for j in real_glitches.nearest_ids(i, 4, out)}
    library = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    sources = "".join(path.read_text(encoding="utf-8", errors="ignore") for path in library)
    made = sorted(set(scaffolding(python_docs() + sources)) - out)
    chance = random.Random(100)
    return {
        "at the point": at_point,
        "near it": near,
        "nearest ids": sorted(neighbours),
        "least norms": by_norm[:24],
        "largest norms": by_norm[-24:],
        "by chance": sorted(chance.sample([i for i in plain if i not in out], 48)),
        "scaffolding": sorted(chance.sample(made, min(48, len(made)))),
    }


def glitch(job: dict) -> dict:
    far, norms = real_glitches.distances(), real_glitches.norms()
    found = {}
    for name, ids in groups().items():
        ids = ids[: job.get("most")]
        where = {"ids": ids, "distance": far[ids].tolist(), "norm": norms[ids].tolist()}
        found[name] = where | real_glitches.copied(ids, job["on"])
    return found


PARTS = {"prompt": prompt, "border": border, "cut": cut, "words": words, "glitch": glitch}


@torch.no_grad()
def run(job: dict) -> dict:
    """job: part; on which text, prompts or template; of a cut, arm and seed."""
    return {"found": _stored(PARTS[job["part"]](job))}


def _stored(value):
    """Four decimals; of small numbers, four digits."""
    if isinstance(value, dict):
        return {name: _stored(it) for name, it in value.items()}
    if isinstance(value, list):
        return [*map(_stored, value)]
    return float(f"{value:.4g}") if isinstance(value, float) and abs(value) < 1 else round(value, 4)


def _cuts(on: str) -> list[dict]:
    arms = [("none", 0), ("another text", 0), *((how, seed) for how in CUTS for seed in SEEDS.get(how, (0,)))]
    return [{"part": "cut", "on": on, "arm": arm, "seed": seed} for arm, seed in arms]


SWEEP = Sweep(
    __file__,
    "real_tokens",
    run,
    jobs=[{"part": "prompt", "on": on} for on in PROMPTS]
    + [{"part": part, "on": on} for on in JUDGES["texts"] for part in ("border", "words")]
    + [job for on in (*JUDGES["texts"], *SECOND) for job in _cuts(on)]
    + [{"part": "glitch", "on": on} for on in JUDGES["templates"]],
    quick=[
        {"part": "prompt", "on": "weekdays"},
        {"part": "words", "on": TRIED["texts"][0]},
        *({"part": "cut", "on": TRIED["texts"][0], "arm": arm, "seed": 0} for arm in ("none", "longest")),
    ],
    cost=lambda job: {"prompt": 9.0, "border": 4.0, "cut": 1.5, "words": 4.0, "glitch": 20.0}[job["part"]],
    comparable=lambda job: job["part"] != "glitch" and job["on"] not in SECOND,
    tolerance={"found": 0.02},
    settings={"tried": TRIED, "judges": JUDGES, "second": SECOND},
    files=FILES,
)

if __name__ == "__main__":
    sys.exit(main(SWEEP))
