"""What moves a tokenizer's cuts, by five draws of the text: python drift_sweep.py

Writes results/drift.json, which the notebook shows. Two sizes of the vocabulary, a quarter of the text and all of it;
and the price of Hindi by two patterns, where half of the text is Hindi and where little is.
"""

import sys
from dataclasses import astuple

import bpe
from bpe_trial import WITH_MARKS, moves, price

from shared.sweeps import Sweep, main

SEEDS = (2, 3, 4, 5, 6)  # 0 and 1 were looked at before the rules were written
SIZES, SHARES = (1024, 4096), (0.25, 1.0)
PRICED = ((512, 0), (1024, 0), (1024, 100_000), (4096, 100_000))  # tokens; characters of documentation learnt from


def run(job: dict) -> dict:
    """Each move as [drift, drift within words, tokens], or the price of Hindi by GPT-2's pattern and with marks."""
    if job["what"] == "price":
        return {
            "price": [round(price(job["seed"], job["size"], each, job["docs"]), 4) for each in (bpe.GPT2, WITH_MARKS)]
        }
    found = moves(job["seed"], job["size"], job["share"], ties=job["size"] == min(SIZES))
    return {"moves": {name: [round(number, 4) for number in astuple(move)] for name, move in found.items()}}


SWEEP = Sweep(
    __file__,
    "drift",
    run,
    jobs=[
        *(
            {"what": "moves", "size": size, "share": share, "seed": seed}
            for size in SIZES
            for share in SHARES
            for seed in SEEDS
        ),
        *({"what": "price", "size": size, "docs": docs, "seed": seed} for size, docs in PRICED for seed in SEEDS),
    ],
    quick=[
        {"what": "moves", "size": 300, "share": 0.1, "seed": 2},
        {"what": "price", "size": 300, "docs": 0, "seed": 2},
    ],
    cost=lambda job: 0.2 if job["what"] == "price" else 4.0,
    tolerance={"moves": 0.02, "price": 0.02},
)
if __name__ == "__main__":
    sys.exit(main(SWEEP))
