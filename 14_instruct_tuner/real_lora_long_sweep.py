"""What does the rule of real_lora_sweep cost when it is trained four times as long? python real_lora_long_sweep.py

Writes results/real_lora_long.json; about a quarter of an hour on one core. Rows are those of `real_lora_sweep`.
"""

import sys

from real_lora import LONG
from real_lora_sweep import SWEEP as SHORT_SWEEP
from real_lora_sweep import jobs, run

from shared.sweeps import Sweep, main
from shared.texts import FILES

RATES = {("narrow", "all", LONG): 2.5e-4, ("contrast", "all", LONG): 1e-3}  # the best of real_instruct_rate_sweep

SWEEP = Sweep(
    __file__,
    "real_lora_long",
    run,
    jobs=jobs(RATES),
    quick=SHORT_SWEEP.quick,
    tolerance=SHORT_SWEEP.tolerance,
    files=FILES,
)

if __name__ == "__main__":
    sys.exit(main(SWEEP))
