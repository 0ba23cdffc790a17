"""What does a rule cost that the real model is taught by LoRA? python real_lora_sweep.py

Writes results/real_lora.json, which the notebook shows; a quarter of an hour on one core. Each arm of `real_lora` is
trained by seeds 10, 11 and 12, at the rate that was best for seed 0 (real_instruct_rate_sweep), and judged by 24
questions that nothing was trained on and no rate was chosen by; "untuned" is SmolLM2-135M-Instruct (4-bit weights).

    asked       the questions with the rule, with the rule in other words, and without
    general     the requests that judge in real_instruct_sweep, in the own template; `one_word` answers are counted too
    text        nats per token of eight texts
"""

import sys

from real_chat import answers, cut, model_and_tokenizer, words
from real_instruct import ARMS, judged, prompt
from real_lora import JUDGING, SHORT, TRYING, asked, text_loss, tuned
from real_requests import JUDGES, SEEN

from shared.sweeps import Sweep, main
from shared.texts import FILES

SEEDS = (10, 11, 12)
RATES = {  # the best of real_instruct_rate_sweep
    ("narrow", "all", SHORT): 1e-3,
    ("contrast", "all", SHORT): 2e-3,
    ("shuffled", "all", SHORT): 1e-3,
    ("contrast", "qkv", SHORT): 2e-3,
}


def run(job: dict) -> dict:
    """job: arm, sites, steps, lr, seed, half; and first, so many of the requests that may be seen."""
    model = tuned(job["arm"], job["sites"], job["steps"], job["lr"], job["seed"])
    asks, questions = (JUDGES, JUDGING) if job["half"] == "judging" else (SEEN[: job["first"]], TRYING)
    tokenizer = model_and_tokenizer()[1]
    ids = answers(model, [prompt(ARMS["own"], ask.request) for ask in asks])
    each = [judged(ask, said) for ask, said in zip(asks, ids, strict=True)]
    general = {name: [it[name] for it in each] for name in each[0]}
    general["one_word"] = [int(len(words(cut(tokenizer.decode(said)))) == 1) for said in ids]
    return {
        "asked": asked(model, questions),
        "general": general,
        "text": [round(nats, 4) for nats in text_loss(model)],
    }


def job(arm: str, sites: str, steps: int, lr: float, seed: int, half: str = "judging") -> dict:
    return {"part": "lora", "arm": arm, "sites": sites, "steps": steps, "lr": lr, "seed": seed, "half": half}


def jobs(rates: dict[tuple[str, str, int], float]) -> list[dict]:
    """Each arm at its rate, for each seed."""
    return [job(*arm, lr, seed) for arm, lr in rates.items() for seed in SEEDS]


SWEEP = Sweep(
    __file__,
    "real_lora",
    run,
    jobs=[job("untuned", "all", 0, 0.0, 0), *jobs(RATES)],
    quick=[job("contrast", "qkv", 1, 1e-3, 0, "seen") | {"first": 1}],
    cost=lambda job: 30.0 + job["steps"] * 1.4,
    tolerance={"asked": 1.0, "general": 1.0, "text": 0.05},
    files=FILES,
)

if __name__ == "__main__":
    sys.exit(main(SWEEP))
