"""What is near what in a real model's embedding matrix? python real_meaning_sweep.py

Writes results/real_meaning.json, which the notebook shows; a few minutes on one core. Nothing is trained. Sample 0 of
the families and the first list of rated pairs were looked at before the rules were written; the others judge.
"""

import sys

from meaning_texts import RATED
from real_meaning import HOMONYMS, RELATIONS, by_family, by_kind, by_rating, by_relation, by_sense

from shared.sweeps import Sweep, main

SAMPLES, WORDS = range(6), ("bank", "bat", "spring", "match", "seal", "plant")
PARTS = {"family": by_family, "rating": by_rating, "kind": by_kind, "relation": by_relation, "sense": by_sense}


def run(job: dict) -> dict:
    """job: part, and of what."""
    found = PARTS[job["part"]](*([job["of"]] if "of" in job else []))
    return {"found": {name: [round(value, 4) for value in values] for name, values in found.items()}}


SWEEP = Sweep(
    __file__,
    "real_meaning",
    run,
    jobs=[{"part": "family", "of": sample} for sample in SAMPLES]
    + [{"part": "rating", "of": which} for which in RATED]
    + [{"part": "kind"}]
    + [{"part": "relation", "of": name} for name in RELATIONS]
    + [{"part": "sense", "of": word} for word in WORDS],
    quick=[{"part": "kind"}, {"part": "sense", "of": "bank"}],
    cost=lambda job: {"family": 10.0, "rating": 10.0, "kind": 1.0, "relation": 10.0, "sense": 2.0}[job["part"]],
    tolerance={"found": 0.1},
    files=[*RATED.values(), HOMONYMS],
)

if __name__ == "__main__":
    sys.exit(main(SWEEP))
