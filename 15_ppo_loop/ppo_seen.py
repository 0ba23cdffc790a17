"""Measures of lesson 15's patients that ask nothing of their helper and caller: what is measured here is what is true.

The base is `ppo_letters`'s, and no patient can have changed it; responses are drawn anew, to prompts that no patient
has read, from the policy as it is.
"""

import random

import torch
from ppo_letters import END, base_model, prompt, worth

from shared.generation import generate, seeded

NEW, MOST = 999, 10  # the seed of prompts that no patient has read; tokens of a response


def asked(n=256, seed=NEW):
    """Prompts."""
    draw = random.Random(seed)
    return [prompt(draw) for _ in range(n)]


def said(lm, prompts):
    """The policy's responses, each prompt with a generator of its own."""
    return generate(lm, prompts, MOST, stop=[END], generators=seeded(range(len(prompts))))


@torch.no_grad()
def divergence(lm, prompts, responses, other=None):
    """KL(policy || base) of each response, in nats: of each token's distribution, summed."""
    other, found = base_model() if other is None else other, []
    for n in sorted({len(it) for it in prompts}):
        rows = [i for i, it in enumerate(prompts) if len(it) == n]
        ids = [(prompts[i] + responses[i] + [END] * MOST)[: n + MOST] for i in rows]
        p, q = (each(torch.tensor(ids))[:, n - 1 : -1].log_softmax(-1) for each in (lm, other))
        nats = (p.exp() * (p - q)).sum(-1)  # (rows, MOST)
        found += [(i, float(row[: len(responses[i])].sum())) for i, row in zip(rows, nats, strict=True)]
    return [nats for _, nats in sorted(found)]


def truth(lm, n=256):
    """Of n responses to new prompts the means: what they are worth, their divergence from the base, their tokens, and
    how often they end."""
    prompts = asked(n)
    responses = said(lm, prompts)
    columns = (
        map(worth, responses),
        divergence(lm, prompts, responses),
        map(len, responses),
        (float(it[-1] == END) for it in responses),
    )
    return [sum(column) / n for column in columns]
