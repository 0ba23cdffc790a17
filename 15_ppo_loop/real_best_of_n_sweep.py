"""What does the best of n have, by crude proxies? python real_best_of_n_sweep.py

Writes results/real_best_of_n.json, which the notebook shows; about fifteen minutes on one core. Nothing is trained:
SmolLM2-135M-Instruct (4-bit weights) draws at temperature 1, and everything else is done with what it drew.

    open    256 responses, of 48 tokens at most, to one of eight requests of `real_best_of_n`, in the model's own chat
            template. `scores`: what `judged` says of each response; `log_p`, its mean log-probability per token, and
            `total`, their sum, its stop among them. `texts`: those that are chosen of the first n
    sums    64 responses to each of 20 sums, each behind three solved ones. `golds`: the results. `said`: each response
            with its end of line, where it came to one within 8 tokens. `log_p`: the sum over its tokens

The rules (`real_best_of_n_rules`) were made by seed 9, which does not judge.
"""

import math
import random
import sys

from real_best_of_n import (
    ASKS,
    DIGITS,
    DRAWN,
    MOST,
    NS,
    PROBLEMS,
    SAMPLES,
    SUMS,
    first_best,
    judged,
    problems,
)
from real_draws import Drawn, draws, ends, model_and_tokenizer, newlines

from shared.sweeps import Sweep, main

SEEDS, TRIED = (0, 1, 2), 9


def seeds(of: str, n: int) -> list[int]:
    """A generator's seed for each response; other ones for what has another name."""
    drawn = random.Random(of)
    return [drawn.randrange(2**60) for _ in range(n)]


def asked(job: dict) -> dict:
    """The responses to one request."""
    (model, tokenizer), ask, n = model_and_tokenizer(), ASKS[job["ask"]], job["samples"]
    prompt = tokenizer.chat([("user", ask.request)])
    drawn = draws(model, [prompt] * n, seeds(f"{ask.question} {job['seed']}", n), MOST, ends())
    texts = [tokenizer.decode(it.ids[:-1] if it.stops else it.ids) for it in drawn]
    each = [judged(ask, text, it.stops) | likely(it) for text, it in zip(texts, drawn, strict=True)]
    scores = {name: [it[name] for it in each] for name in each[0]}
    kept = sorted({first_best(by, k) for by in scores.values() for k in NS if k <= n})
    means = {name: round(sum(scores[name]) / n, 4) for name in ("fact", "right", "stops", "log_p")}
    return {"scores": scores, "texts": {str(at): texts[at] for at in kept}, "means": means}


def likely(drawn: Drawn) -> dict[str, float]:
    """The log-probability of what was drawn, per token and in all."""
    total = sum(drawn.log_p)
    return {"log_p": round(total / len(drawn.log_p), 4), "total": round(total, 3)}


def summed(job: dict) -> dict:
    """The responses to the sums of a kind."""
    (model, tokenizer), n = model_and_tokenizer(), job["samples"]
    given = problems(job["kind"], job["seed"], job["problems"])
    prompts = [tokenizer.encode(text) for text, _ in given for _ in range(n)]
    by = [it for problem in range(len(given)) for it in seeds(f"{job['kind']} {job['seed']} {problem}", n)]
    drawn = draws(model, prompts, by, DIGITS, newlines())
    said = [tokenizer.decode(it.ids) for it in drawn]
    log_p = [round(sum(it.log_p), 3) for it in drawn]
    at = range(0, len(drawn), n)
    golds = [gold for _, gold in given]
    right = [text.strip() == str(golds[it // n]) for it, text in enumerate(said)]
    found = {"golds": golds, "said": [said[it : it + n] for it in at], "log_p": [log_p[it : it + n] for it in at]}
    return found | {"means": {"right": sum(right) / len(right), "log_p": round(sum(log_p) / len(log_p), 4)}}


PARTS = {"open": asked, "sums": summed}


def run(job: dict) -> dict:
    """job: part, seed and samples; ask or kind and problems."""
    return PARTS[job["part"]](job)


def open_job(ask: int, seed: int, samples: int = SAMPLES) -> dict:
    return {"part": "open", "ask": ask, "seed": seed, "samples": samples}


def sums_job(kind: str, seed: int, n: int = PROBLEMS, samples: int = DRAWN) -> dict:
    return {"part": "sums", "kind": kind, "seed": seed, "problems": n, "samples": samples}


SWEEP = Sweep(
    __file__,
    "real_best_of_n",
    run,
    jobs=[open_job(ask, 0) for ask in range(len(ASKS))] + [sums_job(kind, seed) for kind in SUMS for seed in SEEDS],
    quick=[open_job(0, TRIED, 2), sums_job("two numbers", TRIED, 1, 2)],
    cost=lambda job: 1.0 if job["part"] == "open" else 0.6,
    tolerance={"means": 0.3} | dict.fromkeys(("scores", "texts", "said", "log_p"), math.inf),  # draws hang on rounding
)

if __name__ == "__main__":
    sys.exit(main(SWEEP))
