"""Whose outliers destroy what, on a real model: python real_int8_sweep.py

Writes results/real_int8.json, which the notebook shows; about half an hour on two cores. Nothing is trained. Each arm
makes other linear layers for SmolLM2-135M-Instruct (4-bit weights), all but the head, and eight texts judge it: nats of
each (see `int8_real`), in windows of 256 tokens and, for the main arms, of 1,024.

    granularity     how many numbers share a scale
    token           one scale for all tokens, but for those that stay in float
    layers          one scale for all tokens, in some layers only
    columns         LLM.int8(), and as many columns that are drawn
    cures           SmoothQuant, rotations
    prefix          the first token was run in float, and its keys and values stand in the cache
    why             the one large number of the residual stream, or all that is written with it, scaled
    first           another token stands first
    clip            large numbers are clipped, or columns set to 0; nothing is rounded but where it says "then"
    bits            fewer bits for weights, and for inputs by token
    cache           keys and values in the cache rounded
    seen            maps of the first text

A row has `nats`, one for each text, and what its part adds. "prefix", "why" and "first" judge the tokens behind
position 1, "cache" the second half of each text, all others the tokens behind position 0. "float" is each part's own
baseline.
"""

import sys
from functools import partial

import torch
from int8_arms import Arms, column_share, columns, cures, granularity, layers, low_bits, prefixes, token
from int8_groups import rounded_cache
from int8_real import (
    FITTED,
    JUDGES,
    LONG,
    LONG_JUDGES,
    START,
    TOKENS,
    judged,
    nats,
    nats_behind,
    nats_from,
    rounded,
    whole,
)
from int8_seen import MAPS
from int8_why import BOS, FIRSTS, SCALED, bos, clipping, judged_first, judged_scaled, spike, with_first

from shared.sweeps import Sweep, main
from shared.texts import FILES

ARMS: dict[str, Arms] = {"granularity": granularity(), "token": token(), "layers": layers(), "columns": columns()}
ARMS |= {"cures": cures(), "clip": clipping(), "bits": low_bits()}
PREFIXES = prefixes()
AT_BOS = f", {BOS} first"
ROUNDED_WITH_TEXT = {"tensor, not in float": ("granularity", "W8A8 tensor")}

CACHES = {"float": {}}
CACHES |= {f"K channel, V token, {n} bits": {"key_bits": n, "value_bits": n} for n in (8, 4, 3, 2)}
CACHES |= {f"K token, V token, {n} bits": {"key_bits": n, "value_bits": n, "keys_by": "token"} for n in (8, 4, 3, 2)}
for by in ("channel", "token"):
    CACHES |= {f"K {by}, {n} bits": {"key_bits": n, "keys_by": by} for n in (4, 3, 2)}
    CACHES |= {f"V {by}, {n} bits": {"value_bits": n, "values_by": by} for n in (4, 3, 2)}


def judged_prefix(arm: str, x: torch.Tensor) -> dict:
    """The first token in float before all others; or rounded with them."""
    if arm.endswith(AT_BOS):
        arm, x = arm.removesuffix(AT_BOS), with_first(x, bos())
    if arm in ROUNDED_WITH_TEXT:
        part, other = ROUNDED_WITH_TEXT[arm]
        return {"nats": rounded(nats(ARMS[part][other](), x, 1))}
    return {"nats": rounded(nats_behind(*PREFIXES[arm](), x))}


def judged_cache(arm: str, x: torch.Tensor) -> dict:
    """With what the first half's keys and values would take, in bytes a token."""
    model, made = whole(), []

    def new_cache():
        made.append(rounded_cache(model, 1, x.shape[1], **CACHES[arm]))
        return made[-1]

    found = rounded(nats_from(model, x, new_cache))
    return {"nats": found, "bytes": round(made[-1].stored_bytes() / x.shape[1], 1)}


def judged_arm(part: str, arm: str, x: torch.Tensor) -> dict:
    """A changed model's nats, and what part of all columns LLM.int8() keeps in float."""
    found = {"nats": rounded(nats(ARMS[part][arm](), x))}
    if arm.startswith("LLM.int8()"):
        found["share"] = round(column_share(float(arm.split()[-1])), 5)
    return found


OTHER = {"prefix": judged_prefix, "why": judged_scaled, "first": judged_first, "cache": judged_cache}


def run(job: dict) -> dict:
    """job: part, arm, and how many tokens a text has."""
    part, arm, x = job["part"], job["arm"], judged(job["tokens"])
    if part == "seen":
        return MAPS[arm](x[0]) if arm in MAPS else spike()._asdict()
    judge = OTHER.get(part, partial(judged_arm, part))
    return judge(arm, x)


NAMES = {part: list(arms) for part, arms in ARMS.items()}
NAMES["prefix"] = [arm + first for first in ("", AT_BOS) for arm in (*PREFIXES, *ROUNDED_WITH_TEXT)]
NAMES |= {"why": list(SCALED), "first": list(FIRSTS), "cache": list(CACHES), "seen": [*MAPS, "spike"]}
MAIN = {
    "granularity": ("float", "weights row", "inputs tensor", "inputs token", "W8A8 tensor", "W8A8 token"),
    "token": ("first 1", "drawn 0", "loudest but the first"),
    "columns": ("LLM.int8() 6", "inputs tensor, above 6 kept", "inputs tensor, as many drawn 0"),
    "cures": ("SmoothQuant 0.75 tensor", "Hadamard tensor"),
    "prefix": ("float", "tensor", "tensor, not in float"),
    "cache": ("float", "K channel, V token, 4 bits", "K token, V token, 4 bits"),
}
JOBS = [(part, arm, TOKENS) for part, arms in NAMES.items() for arm in arms]
JOBS += [(part, arm, LONG) for part, arms in MAIN.items() for arm in arms]
SLOW = ("3 bits, GPTQ", "3 bits, AWQ")


def cost(job: dict) -> float:
    if job["part"] == "seen":
        return 0.2
    return job["tokens"] / TOKENS * (3.5 if job["part"] == "first" else 1.0) + 10 * job["arm"].startswith(SLOW)


SWEEP = Sweep(
    __file__,
    "real_int8",
    run,
    jobs=[{"part": part, "arm": arm, "tokens": tokens} for part, arm, tokens in JOBS],
    quick=[{"part": "token", "arm": "first 1", "tokens": 32}],
    cost=cost,
    comparable=lambda job: job["tokens"] == TOKENS and not job["arm"].startswith(SLOW),
    tolerance={
        "nats": 0.05,
        "rounded": 0.05,
        "kept_one": 0.05,
        "kept_two": 0.05,
        "mass": 0.01,
        "size": 100.0,
        "zeros": 0.01,
        "sqnr": 0.1,
        "stream": 100.0,
    },
    settings={"fitted": FITTED, "judges": JUDGES, "from": START, "long": LONG_JUDGES},
    files=FILES,
)

if __name__ == "__main__":
    sys.exit(main(SWEEP))
