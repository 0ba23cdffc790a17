"""Which part of its template does the real model need? python real_instruct_sweep.py

Writes results/real_instruct.json, which the notebook shows; about twenty minutes on one core. Half of the
64 requests of `real_requests` judge, SmolLM2-135M-Instruct (4-bit weights) answers, greedily.

    prompt      each arm of `real_instruct` is one form of a request. `counts`, for each request: what `judged` says of
                the answer. `behind`, `within`: the probability of the stop token behind a right answer and within it.
                `kl`, `rank`: what `apart` says, at the positions of the own template's answer. `answers`: the texts
    given       some arms go on with the first tokens of the own template's answer; as a control, with those of its
                answer to another request. `already`: what is given has the content

The rules (`real_instruct_rules`) were made by the other half of the requests.
"""

import functools
import math
import sys

from real_chat import answers, cut, model_and_tokenizer
from real_instruct import ARMS, apart, judged, p_stop, prompt, with_lead
from real_requests import JUDGES, SEEN, Request

from shared.sweeps import Sweep, main

GIVEN = ("human, bot", "user, lamp", "assistant, user", "bare", "bare, two newlines", "Q, A")


def requests(job: dict) -> list[Request]:
    return JUDGES if job["half"] == "judging" else SEEN[: job["first"]]


@functools.cache
def own_answers(asks: tuple[Request, ...]) -> list[str]:
    """What the own template's answers say, without their end."""
    model, tokenizer = model_and_tokenizer()
    return [cut(tokenizer.decode(ids)) for ids in answers(model, [prompt(ARMS["own"], ask.request) for ask in asks])]


def told_in(job: dict, asks: list[Request]) -> dict:
    """An arm's answers, and its distributions along the own template's."""
    (model, tokenizer), form = model_and_tokenizer(), ARMS[job["arm"]]
    ids = answers(model, [prompt(form, ask.request) for ask in asks])
    each = [judged(ask, said) for ask, said in zip(asks, ids, strict=True)]
    behind, within = zip(*(p_stop(model, form, ask) for ask in asks), strict=True)
    away = [apart(model, form, *both) for both in zip(asks, own_answers(tuple(asks)), strict=True)]
    found = {name: [it[name] for it in away] for name in ("kl", "rank")}
    found |= {"behind": _rounded(behind), "within": _rounded(within)}
    return {"counts": _by_name(each), "answers": list(map(tokenizer.decode, ids))} | found


def given(job: dict, asks: list[Request]) -> dict:
    """What an arm goes on with, behind the first tokens of an answer in the own template."""
    (model, tokenizer), form = model_and_tokenizer(), ARMS[job["arm"]]
    said = own_answers(tuple(asks))
    if job["of"] == "another":
        said = [*said[1:], said[0]]
    firsts = [with_lead(form, each)[: job["tokens"]] for each in said]
    ids = answers(model, [prompt(form, ask.request) + first for ask, first in zip(asks, firsts, strict=True)])
    ids = [first + more for first, more in zip(firsts, ids, strict=True)]
    counts = _by_name([judged(ask, each) for ask, each in zip(asks, ids, strict=True)])
    counts["already"] = [int(ask.has_content(tokenizer.decode(each))) for ask, each in zip(asks, firsts, strict=True)]
    return {"counts": counts, "answers": list(map(tokenizer.decode, ids))}


def _by_name(each: list[dict[str, int]]) -> dict[str, list[int]]:
    return {name: [it[name] for it in each] for name in each[0]}


def _rounded(values) -> list[float]:
    return [value if value is None else round(value, 4) for value in values]


def run(job: dict) -> dict:
    """job: part, arm, half; what the part needs; and first, so many of the requests that may be seen."""
    asks = requests(job)
    return PARTS[job["part"]](job, asks)


PARTS = {"prompt": told_in, "given": given}


def given_job(arm: str, tokens: int, of: str, half: str = "judging") -> dict:
    return {"part": "given", "arm": arm, "tokens": tokens, "of": of, "half": half}


JOBS = [{"part": "prompt", "arm": arm, "half": "judging"} for arm in ARMS]
JOBS += [given_job(arm, n, of) for arm in GIVEN for n, of in ((1, "own"), (1, "another"))]

SWEEP = Sweep(
    __file__,
    "real_instruct",
    run,
    jobs=JOBS,
    quick=[
        {"part": "prompt", "arm": "Q, A", "half": "seen", "first": 2},
        given_job("bare", 1, "another", "seen") | {"first": 2},
    ],
    cost=lambda job: 1.0 if job["part"] == "prompt" else 0.5,
    tolerance={"counts": 1.0, "behind": 0.05, "within": 0.05, "kl": 0.1}
    | dict.fromkeys(("rank", "answers"), math.inf),  # far ranks and greedy texts hang on rounding
)

if __name__ == "__main__":
    sys.exit(main(SWEEP))
