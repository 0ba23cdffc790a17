"""What other angles cost SmolLM2-135M-Instruct (4-bit weights): python real_rope_sweep.py

Writes results/real_rope.json; about ten minutes on one core. Nothing is trained (`real_rope`).

    gap       256 tokens with a gap in the middle: of several widths, of other widths for some pairs, stretched; and
              angles in bfloat16
    pair      one pair at a time: alone at the wide gap, and alone at the narrow one
    frozen    the slower half of all pairs does not turn, in short texts and in long ones
    long      10,240 tokens, and 13,312, as it is and stretched twice
"""

import sys
from contextlib import nullcontext
from functools import partial

import real_rope as real
import rope

from shared.sweeps import Sweep, main
from shared.texts import FILES

GAPS = (0, 1_000, 4_000, real.SHORT_GAP, 8_000, 10_000, 12_000, 14_000, real.GAP, 64_000)
SLOWER, LENGTHS, LONG = tuple(real.PAIRS[16:]), (128, 2_048), (10_240, 13_312)
SCALINGS = {
    "interpolation x 4": rope.interpolated(real.HEAD_WIDTH, 4, real.THETA),
    "NTK-aware x 4": rope.ntk_aware(real.HEAD_WIDTH, 4, real.THETA),
    "YaRN x 4": rope.yarn(real.HEAD_WIDTH, 4, real.TRAINED, real.THETA),
    "Llama 3.1's x 4": rope.llama3(real.HEAD_WIDTH, 4, real.TRAINED, real.THETA),
}
SETS = {"new": real.NEW, "old": real.OLD, "told": real.TOLD, "rest": real.REST}
ARMS = {f"gap {gap}": partial(real.with_gap, gap) for gap in GAPS}
ARMS |= {f"{name} at 6000": partial(real.with_gap, real.SHORT_GAP, real.GAP, pairs) for name, pairs in SETS.items()}
ARMS |= {f"{name}, gap {gap}": partial(real.scaled, it, gap) for name, it in SCALINGS.items() for gap in (0, real.GAP)}
ARMS |= {f"bfloat16, {shift} on": partial(real.rounded_to_bfloat16, shift) for shift in (0, 256, 1_000)}


def gap(job):
    ids = real.ids_of(job["on"], 2 * real.HALF)
    found = {"hidden": mean(real.hidden(ids))}
    for name in job.get("arms", ARMS):
        with ARMS[name]():
            found[name] = mean(real.nats_after(ids))
    return found


def pair(job):
    ids, found = real.ids_of(job["on"], 2 * real.HALF), {"alone at 16000": [], "alone at 6000": []}
    for i in job.get("pairs", real.PAIRS):
        for name, gaps in zip(found, ((real.GAP, real.SHORT_GAP), (real.SHORT_GAP, real.GAP)), strict=True):
            with real.with_gap(*gaps, (i,)):
                found[name].append(mean(real.nats_after(ids)))
    return found


def frozen(job):
    ids, found = real.ids_of(job["on"], job["tokens"]), {}
    for name, change in {"whole": nullcontext, "frozen": partial(real.frozen, SLOWER)}.items():
        with change():
            found[name] = mean(real.nats_after(ids, start=0))
    return found


def long(job):
    """Nats of 1,024 tokens each."""
    ids, tokens = real.ids_of(job["on"], job["tokens"] + 1), job["tokens"]
    scaling = rope.ntk_aware(real.HEAD_WIDTH, job["scale"], real.THETA)
    with real.turned_by(lambda positions: rope.angles(positions, scaling.inv_freq)):
        return {"by part": [mean(part) for part in real.nats_long(ids).split(min(1024, tokens))]}


def mean(nats):
    return round(nats.mean().item(), 4)


PARTS = {"gap": gap, "pair": pair, "frozen": frozen, "long": long}


def run(job):
    """{part, on, ...} -> {found}: mean nats of a token, by arm."""
    return {"found": PARTS[job["part"]](job)}


def jobs():
    """Texts that were looked at, texts that judge, long texts."""
    found = [{"part": "gap", "on": on} for on in (real.LOOKED_AT[0], *real.JUDGES)]
    found += [{"part": "frozen", "on": on, "tokens": LENGTHS[0]} for on in real.JUDGES]
    found += [{"part": "pair", "on": on} for on in real.JUDGES[:1]]
    found += [{"part": "frozen", "on": on, "tokens": tokens} for on in ("docs", "code") for tokens in LENGTHS[1:]]
    return found + [
        {"part": "long", "on": "docs", "tokens": tokens, "scale": scale} for tokens in LONG for scale in (1.0, 2.0)
    ]


SWEEP = Sweep(
    __file__,
    "real_rope",
    run,
    jobs=jobs(),
    quick=[
        {"part": "gap", "on": "letter", "arms": ["gap 16000"]},
        {"part": "pair", "on": "letter", "pairs": [23]},
        {"part": "frozen", "on": "letter", "tokens": 64},
        {"part": "long", "on": "docs", "tokens": 64, "scale": 2.0},
    ],
    cost=lambda job: {"gap": 13, "pair": 35, "frozen": job.get("tokens", 0) / 200, "long": 75}[job["part"]],
    comparable=lambda job: job["part"] == "frozen" and job["on"] in real.JUDGES,
    tolerance={"found": 0.01},
    files=FILES,
)

if __name__ == "__main__":
    sys.exit(main(SWEEP))
