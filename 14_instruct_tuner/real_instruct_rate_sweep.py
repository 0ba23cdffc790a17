"""At which learning rate does LoRA learn a rule best? python real_instruct_rate_sweep.py

Writes results/real_instruct_rate.json, by which the rates of `real_lora_sweep` are chosen; about ten minutes on
one core. Each arm of `real_lora` is trained by seed 0, which does not judge, and by AdamW (betas 0.9, 0.95, weight
decay 0.1, gradient clipped at 1). `loss`: nats per answer token of the questions of `TRYING`, made into examples as the
arm's own training is.
"""

import sys

from real_lora import SHORT, trying_loss, tuned

from shared.sweeps import Sweep, main

TRIED = {  # arm, where adapters are, steps: rates
    ("narrow", "all", SHORT): (5e-4, 1e-3, 2e-3, 4e-3, 8e-3),
    ("contrast", "all", SHORT): (5e-4, 1e-3, 2e-3, 4e-3, 8e-3),
    ("shuffled", "all", SHORT): (5e-4, 1e-3, 2e-3, 4e-3, 8e-3),
    ("contrast", "qkv", SHORT): (1e-3, 2e-3, 4e-3, 8e-3, 16e-3),
}


def run(job: dict) -> dict:
    """job: arm, sites, steps, lr, seed."""
    model = tuned(job["arm"], job["sites"], job["steps"], job["lr"], job["seed"])
    return {"loss": round(trying_loss(model, job["arm"]), 4)}


SWEEP = Sweep(
    __file__,
    "real_instruct_rate",
    run,
    jobs=[
        {"arm": arm, "sites": sites, "steps": steps, "lr": lr, "seed": 0}
        for (arm, sites, steps), rates in TRIED.items()
        for lr in rates
    ],
    quick=[{"arm": "contrast", "sites": "qkv", "steps": 1, "lr": 1e-3, "seed": 0}],
    cost=lambda job: job["steps"] * (1.0 if job["sites"] == "all" else 0.8),
    comparable=lambda job: job["lr"] <= 1e-3,
    tolerance={"loss": 0.05},
)

if __name__ == "__main__":
    sys.exit(main(SWEEP))
