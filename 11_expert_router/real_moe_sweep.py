"""Do a real model's states make experts collapse? python real_moe_sweep.py

Writes results/real_moe.json, which the notebook shows. A mixture of eight small experts learns to answer as one
feed-forward layer of SmolLM2-135M-Instruct (4-bit weights) does, see `moe_real`. Training is `shared.training.fit`:
AdamW with betas 0.9 and 0.95, weight decay 0.1, gradients clipped at 1, a tenth of the steps to warm up and a cosine
down to a tenth. Seeds below 10 try rates; those from 10 up judge: `JUDGED`, which is not among the stored runs yet.
"""

import sys
from collections.abc import Iterable

from moe_real import LAYERS, imitate

from shared.sweeps import Sweep, main
from shared.texts import FILES

STEPS = [150, 600]
JUDGES = [10, 11, 12, 13, 14]


def arms(names: Iterable[str], k: int = 1) -> list[dict]:
    """For each layer, with its router given the states as they are and less their mean; without rate, steps, seed."""
    return [
        {"layer": layer, "arm": name, "n_experts": 8, "k": k, "centred": centred}
        for layer in LAYERS
        for centred in (False, True)
        for name in names
    ]


def runs(arms: list[dict], length: int, rates: list[float], seeds: Iterable[int]) -> list[dict]:
    """Each arm at each rate by each seed; length 0 or 1: short or long."""
    return [one | {"rate": it, "steps": STEPS[length], "seed": s} for one in arms for it in rates for s in seeds]


ONE = arms(["none", "aux 0.1", "frozen"])  # expert a token
TWO = arms(["none"], k=2)
BIASED = [it for it in arms(["bias 0.01"]) if not it["centred"] and it["layer"] == 20]
LONG = [it for it in ONE if it["arm"] == "none" or (it["arm"] == "aux 0.1" and not it["centred"])]
TRIED = [
    *runs(ONE + TWO, 0, [1e-3, 3e-3, 1e-2], [0]),
    *runs(LONG + TWO, 0, [3e-2], [0]),
    *runs([it for it in LONG if it["arm"] == "none"], 0, [1e-2], [1, 2]),
    *runs(BIASED, 0, [3e-3, 1e-2, 3e-2], [0]),
    *runs(LONG + BIASED, 1, [1e-3, 3e-3, 1e-2, 3e-2], [0]),
]
FASTER = [it for it in LONG if it["layer"] == 20 and (it["centred"] or it["arm"] == "aux 0.1")] + BIASED
SLOWER = [it for it in LONG if it not in FASTER]
JUDGED = [
    *runs(LONG + BIASED + TWO, 0, [1e-2], JUDGES),
    *runs(SLOWER, 1, [3e-3], JUDGES),
    *runs(FASTER, 1, [1e-2], JUDGES),
]

SWEEP = Sweep(
    __file__,
    "real_moe",
    imitate,
    jobs=TRIED,
    quick=[one | {"rate": 1e-2, "steps": 3, "seed": 0} for one in (ONE[0], ONE[4], TWO[1])],
    cost=lambda job: job["steps"],
    comparable=lambda job: job["steps"] <= STEPS[0],
    tolerance={"loss": 0.02, "largest": 0.1},
    files=FILES,
)

if __name__ == "__main__":
    sys.exit(main(SWEEP))
