"""Do a real model's states make experts collapse? python real_moe_sweep.py

Writes results/real_moe.json, which the notebook shows. A mixture of eight small experts learns to answer as one
feed-forward layer of SmolLM2-135M-Instruct (4-bit weights) does, see `moe_real`. Training is `shared.training.fit`:
AdamW with betas 0.9 and 0.95, weight decay 0.1, gradients clipped at 1, a tenth of the steps to warm up and a cosine
down to a tenth. Seeds below 10 try rates; those from 10 up judge, and those from 20 up were run when the rules that
decide the verdict had been written (`moe_rules`).
"""

import sys

from moe_real import AS_IS, LAYERS, LESS_MEAN, LESS_RANDOM, imitate
from moe_sweep import JUDGES, STEPS, runs

from shared.sweeps import Sweep, main
from shared.texts import FILES

FRESH = list(range(20, 30))  # seeds


def arms(arm: str, given: str = AS_IS, k: int = 1, layers: tuple[int, ...] = LAYERS) -> list[dict]:
    """An arm at each layer, without rate, steps and seed."""
    return [{"layer": it, "arm": arm, "n_experts": 8, "k": k, "given": given} for it in layers]


TOP_1 = [*arms("none"), *arms("none", LESS_MEAN), *arms("none", LESS_RANDOM)]
TOP_1 += [*arms("aux 0.01"), *arms("aux 0.1"), *arms("bias 0.01"), *arms("dense active"), *arms("dense total")]
TOP_2 = [*arms("none", k=2), *arms("none", LESS_MEAN, k=2)]
TRIED = [*runs(TOP_1 + TOP_2, 0, [1e-3, 3e-3, 1e-2, 3e-2], [0]), *runs(TOP_1, 1, [1e-3, 3e-3, 1e-2, 3e-2], [0])]

# At 600 steps most arms are best at 0.003, FASTER at 0.01; at 150 most at 0.01, EARLY at 0.003
FASTER = [*arms("dense active"), *arms("dense total", layers=(11,)), *arms("aux 0.01", layers=(20,))]
FASTER += [*arms("none", LESS_MEAN, layers=(20,)), *arms("none", LESS_RANDOM, layers=(11,))]
SLOWER = [it for it in TOP_1 if it not in FASTER]
EARLY = arms("bias 0.01", layers=(3, 11))
ASKED = [*arms("none", layers=(11, 20)), *arms("aux 0.1", layers=(11, 20)), *arms("bias 0.01", layers=(20,))]
ASKED += [it for given in (LESS_MEAN, LESS_RANDOM) for it in arms("none", given, layers=(11, 20))]
JUDGED = [
    *runs([it for it in TOP_1 + TOP_2 if it not in EARLY], 0, [1e-2], JUDGES),
    *runs(EARLY, 0, [3e-3], JUDGES),
    *runs(SLOWER, 1, [3e-3], JUDGES),
    *runs(FASTER, 1, [1e-2], JUDGES),
    *runs(ASKED, 0, [1e-2], FRESH),
    *runs([it for it in ASKED if it in SLOWER], 1, [3e-3], FRESH),
    *runs([it for it in ASKED if it in FASTER], 1, [1e-2], FRESH),
]

QUICK = [TOP_1[0], TOP_1[5], TOP_2[3], *arms("dense active", layers=(3,))]
SWEEP = Sweep(
    __file__,
    "real_moe",
    imitate,
    jobs=TRIED + JUDGED,
    quick=[one | {"rate": 1e-2, "steps": 3, "seed": 0, "windows": [2, 2]} for one in QUICK],
    cost=lambda job: job["steps"],
    comparable=lambda job: job["steps"] <= STEPS[0],
    tolerance={"loss": 0.02, "largest": 0.1},
    files=FILES,
)

if __name__ == "__main__":
    sys.exit(main(SWEEP))
