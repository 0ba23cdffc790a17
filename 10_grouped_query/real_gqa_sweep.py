"""A real model that must share more than it was trained to: python real_gqa_sweep.py

Writes results/real_gqa.json, which the notebook shows; about 15 minutes on one core. In SmolLM2-135M-Instruct (4-bit
weights) 9 query heads share 3 key and value heads. Nothing is trained. Each arm makes all keys and values of a layer
otherwise, by other rows of its fused matrix, and three judges say what that cost (see `gqa_real`):

    merge      the three heads made one; keys and values, keys, values
    rank       as many heads, whose numbers depend on fewer: what a latent would store
    joint      one latent for keys and values together, and what rotation makes of it
    across     every other layer reads the keys and values of the layer before it
    single     the same in one layer alone
    one copy   the same, judged by copies
    bytes      what a cache takes, by formula and by its tensors
"""

import sys
from collections.abc import Callable
from functools import partial

import torch
from gqa import cache_bytes
from gqa_arms import across, aligned, apart, chained, each_by, fitted_to, joint, random, ranked, remade, slow, unturned
from gqa_merge import merge_model
from gqa_real import (
    FITTED,
    JUDGES,
    beginnings,
    fitted_moments,
    judged_copy,
    judged_key,
    judged_loss,
    losses,
    model_and_tokenizer,
    rounded,
)
from torch import nn
from torch.nn import functional as F

from shared.hooks import Hook, hooked
from shared.sweeps import Sweep, main
from shared.texts import FILES

LAYERS, SHORT, LONG = range(30), 128, 2048

# The arms

PCA = ranked(1, 64)  # what one head of 64 numbers can store
MERGES = {"mean": each_by(lambda heads: heads.mean(dim=0, keepdim=True)), "random": random, "aligned": aligned}
MERGES |= {"pca": PCA}
KEY_RANKS, VALUE_RANKS, JOINT_RANKS = (2,), (184, 176, 160, 128, 96, 32), (352, 320, 256, 192, 128)
BOTH = ("kv", "k", "v")
Arms = dict[str, Callable[[], dict[str, Hook]]]


def merges() -> Arms:
    """Keys and values apart and together; a head for all three; without what pays most."""
    arms = {f"{name}, {what}": partial(remade, make, what) for name, make in MERGES.items() for what in BOTH}
    for j in range(3):
        arms[f"head {j}, kv"] = partial(remade, each_by(lambda heads, j=j: heads[j : j + 1]))
    for what in BOTH:
        arms[f"pca, {what}, first token kept"] = partial(remade, PCA, what, first=True)
    for name in ("mean", "pca"):
        arms[f"{name}, kv, not in layers 0 and 1"] = partial(remade, MERGES[name], layers=LAYERS[2:])
    for text in ("documentation", "judges"):
        arms[f"pca, kv, fitted to {text}"] = partial(remade, fitted_to(text, PCA))
    return arms | {"mean, kv, first token kept": partial(remade, MERGES["mean"], first=True)}


def latents() -> Arms:
    """Of keys and of values. One complex number, and 64 numbers, are "pca, k" and "pca, v" above."""
    arms = {f"k {rank}": partial(remade, ranked(rank, None), "k") for rank in KEY_RANKS}
    arms |= {f"v {rank}": partial(remade, ranked(None, rank), "v") for rank in VALUE_RANKS}
    arms["k 2, fitted to copies"] = partial(remade, fitted_to("copies", ranked(2, None)), "k")
    return arms | {"v 128, fitted to copies": partial(remade, fitted_to("copies", ranked(None, 128)), "v")}


def joint_latents() -> Arms:
    """Rotated after they are made again; not rotated at all, so that a product could absorb the latent; or only the
    fast pairs are rotated, which are cached apart."""
    arms = {f"rank {rank}": partial(remade, joint(rank)) for rank in JOINT_RANKS}
    arms |= {f"apart, {k} and {v}": partial(remade, apart(k, v)) for k, v in ((64, 192), (96, 160), (64, 64))}
    arms |= {"nothing turned": lambda: unturned("q", "k"), "keys not turned": lambda: unturned("k")}
    slow_still = partial(unturned, "q", "k", of=slow)
    arms["slow pairs not turned"] = slow_still
    for rank in (288, 160, 96):
        make = joint(rank, slow_only=True)
        arms[f"slow pairs not turned, rank {rank}"] = lambda make=make: chained(remade(make), slow_still())
    return arms


def neighbours() -> Arms:
    return {f"{how}, {what}": partial(across, how, what) for how in ("copied", "fitted") for what in BOTH}


def one_copy() -> Arms:
    return {f"pca {at}": partial(remade, PCA, layers=[at]) for at in LAYERS}


def single() -> Arms:
    """In one layer, or for one pair of layers."""
    arms = {f"{name} {at}": partial(remade, MERGES[name], layers=[at]) for name in ("mean", "pca") for at in LAYERS}
    return arms | {f"fitted {2 * i + 1}": partial(across, "fitted", "kv", [i]) for i in range(15)}


ARMS: dict[str, Arms] = {"whole": {"whole": dict}, "merge": merges(), "rank": latents(), "joint": joint_latents()}
ARMS |= {"across": neighbours(), "single": single(), "one copy": one_copy()}
LOST = ("random", "head", "mean")  # no model that could copy: its loss says enough
LONG_ARMS = ("whole", "nothing turned", "slow pairs not turned")


def run(job: dict) -> dict:
    """job: part and arm."""
    model, _ = model_and_tokenizer()
    if job["part"] == "bytes":
        return stored_bytes(job["arm"])
    hooks = ARMS[job["part"]][job["arm"]]()
    found = {}
    for judge in judges(**job):
        found |= judge(model, hooks)
    return found


def judges(part: str, arm: str) -> list[Callable]:
    """Of an arm."""
    if part == "single":
        return [short_loss]
    if part == "one copy":
        return [judged_copy]
    found = [judged_loss] if arm.startswith(LOST) else [judged_loss, judged_copy, judged_key]
    return found + [short_loss] * (part == "whole") + [long_loss] * (arm in LONG_ARMS)


def short_loss(model: nn.Module, hooks: dict) -> dict:
    """Nats of four of the texts that judge, fewer tokens of each."""
    return {"short": rounded(losses(model, hooks, beginnings(JUDGES[::2], SHORT)))}


@torch.no_grad()
def long_loss(model: nn.Module, hooks: dict) -> dict:
    """Nats of each quarter of a long text."""
    x = beginnings(("docs",), LONG + 1)
    with hooked(model, hooks):
        each = F.cross_entropy(model(x[:, :-1])[0], x[0, 1:], reduction="none")
    return {"quarters": rounded(each.view(4, -1).mean(dim=1))}


def stored_bytes(arm: str) -> dict:
    """Of a cache for one token: by formula, and of the tensors of one for 100; and by how much the arm's loss differs
    from that of its hooks, in nats: 0 for one and the same model."""
    model, _ = model_and_tokenizer()
    other = merge_model(model, fitted_moments(), 1) if arm == "pca" else model
    layer, cache = other.blocks[0].attention, other.new_cache(1, 100)
    sizes = {"n_layers": len(other.blocks), "n_kv_heads": layer.n_kv_heads, "d_head": layer.d_head}
    hooks = remade(PCA) if arm == "pca" else {}
    x = beginnings(JUDGES[:1], SHORT)
    apart = (losses(model, hooks, x) - losses(other, {}, x)).abs()
    return {
        "formula": cache_bytes(1, **sizes, bytes_per_number=4),
        "measured": (cache.keys.nbytes + cache.values.nbytes) // 100,
        "apart": rounded(apart)[0],
    }


JOBS = [(part, arm) for part, arms in ARMS.items() for arm in arms] + [("bytes", arm) for arm in ("whole", "pca")]

SWEEP = Sweep(
    __file__,
    "real_gqa",
    run,
    jobs=[{"part": part, "arm": arm} for part, arm in JOBS],
    quick=[{"part": "bytes", "arm": "whole"}],
    cost=lambda job: 0.2 if job["part"] == "single" else 1.0,
    comparable=lambda job: job["part"] in ("bytes", "rank", "single"),
    tolerance={"loss": 0.01, "short": 0.01, "random": 0.05, "text": 0.05, "apart": 0.001, "right": 1, "nats": 0.05},
    settings={"fitted": FITTED, "judges": JUDGES},
    files=FILES,
)

if __name__ == "__main__":
    sys.exit(main(SWEEP))
