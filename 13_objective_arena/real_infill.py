"""How far a causal model fills a gap of one token, on SmolLM2-135M-Instruct (4-bit weights): what the sweep shares.

    gap = gaps("diary", 6)[0]                       # .left, .token, .right: the token is what is to be found
    set_ = candidates(model, gap, 50)                # the likeliest by the left alone, and the token itself
    left, right = scores(model, gap.left, set_, gap.right)
    posterior(left, right[:, :8])                    # log p(candidate | left, the next 8 tokens), by Bayes' rule

By Bayes' rule p(candidate | left, right) is in proportion to p(candidate | left) p(right | left, candidate), and a
causal model has both. What is missing is the rest of the vocabulary, so all is said of the candidates alone.
"""

import functools
import random
from collections.abc import Sequence
from typing import NamedTuple

import torch

from shared.hooks import hooked
from shared.smollm2 import load_smollm2
from shared.texts import OWN, texts
from shared.tiny_lm import TinyLM

TRIED, JUDGES = OWN[:2], OWN[6:]  # texts for rules to be made by, and texts that judge
LEFT, RIGHT, ROWS = 64, 16, 64  # tokens before a gap and behind it; candidates in one pass
AHEAD = (1, 2, 4, 8, 16)  # how many tokens behind the gap are read
ENDS = "<|endoftext|>"
SCOPES = ("asking", "all")  # which positions see all: that which is asked, or every one


class Gap(NamedTuple):
    """left: the tokens before it. token: what stood in the gap. right: (RIGHT,). other: as many tokens from behind
    another position of the text. shuffled: those of right in another order."""

    left: torch.Tensor
    token: int
    right: torch.Tensor
    other: torch.Tensor
    shuffled: torch.Tensor


@functools.cache
def model_and_tokenizer():
    """The real model, read once in a process, and its tokenizer."""
    return load_smollm2()


@functools.cache
def gaps(name: str, n: int, before: int = LEFT) -> list[Gap]:
    """n positions of a text, drawn at random, with so many tokens before each (at most LEFT, the positions stay), and
    with a partner whose right side does not touch its own."""
    ids = torch.tensor(model_and_tokenizer()[1].encode(texts()[name]))
    drawn, generator = random.Random(name), torch.Generator().manual_seed(0)
    found = []
    for at in drawn.sample(range(LEFT, len(ids) - RIGHT), n):
        far = [it for it in range(LEFT, len(ids) - RIGHT) if abs(it - at) > RIGHT]
        right, other = (ids[it + 1 : it + 1 + RIGHT] for it in (at, drawn.choice(far)))
        shuffled = right[torch.randperm(RIGHT, generator=generator)]
        found.append(Gap(ids[at - before : at], ids[at].item(), right, other, shuffled))
    return found


@torch.no_grad()
def candidates(model: TinyLM, gap: Gap, n: int) -> torch.Tensor:
    """The n tokens that are likeliest by the left alone, and behind them the true one if it is none of these."""
    best = model(gap.left[None], last=1)[0, 0].topk(n).indices
    return best if gap.token in best else torch.cat([best, torch.tensor([gap.token])])


@torch.no_grad()
def scores(
    model: TinyLM, left: torch.Tensor, set_: torch.Tensor, *rights: torch.Tensor
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """log p(candidate | left), (C,), and for each of `rights` the log p of each of its R tokens given all before it and
    the candidate, (C, R)."""
    cache = model.new_cache(min(ROWS, len(set_)), len(left) + max(map(len, rights)))
    cache.keep([0])
    first = model(left[None], cache, last=1)[0, 0].log_softmax(dim=-1)[set_]
    found = [[] for _ in rights]
    for part in set_.split(ROWS):
        cache.keep([0] * len(part))
        for right, each in zip(rights, found, strict=True):
            rows = torch.cat([part[:, None], right[:-1].expand(len(part), -1)], dim=1)  # (C, R)
            logits = model(rows, cache)
            each.append(logits.gather(2, right.expand(len(part), -1)[..., None])[..., 0] - logits.logsumexp(dim=-1))
            cache.step_back(rows.shape[1])
    return first, [torch.cat(each) for each in found]


def posterior(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """log p(candidate | left, right) among the candidates: (C,), (C, n) -> (C,)."""
    return (left + right.sum(dim=1)).log_softmax(dim=0)


def judged(log_p: torch.Tensor, set_: torch.Tensor, token: int, own: int) -> tuple[float, int, bool]:
    """The true token's nats and rank (from 1) among the candidates, and whether the best of the `own` first ones
    is the true one: a token that was put behind them cannot be found."""
    at = (set_ == token).nonzero()[0, 0]
    rank = 1 + (log_p > log_p[at]).sum().item()
    return -log_p[at].item(), rank, set_[log_p[:own].argmax()].item() == token


# Without the mask


def fillers(gap: Gap, first: int, drawn: int) -> dict[str, int]:
    """What may stand in the gap: the answer itself, the end of a text, a random token, the model's own first guess."""
    return {"the answer": gap.token, "end": model_and_tokenizer()[1].specials[ENDS], "random": drawn, "guess": first}


def sight(at: int, scope: str, hole: bool) -> torch.Tensor:
    """Who sees whom, (T, T) bool: causal, but that the position before the gap, or every one, sees all. With a hole the
    gap, at position `at`, is seen by itself alone."""
    T = at + 1 + RIGHT
    seen = torch.ones(T, T, dtype=torch.bool)
    if scope != "all":
        seen = seen.tril()
    if scope == "asking":
        seen[at - 1] = True
    if hole:
        seen[:, at] = False
        seen[at, at] = True
    return seen


@torch.no_grad()
def without_mask(model: TinyLM, arms: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
    """log p of the token in the gap, as the position before it tells it, for each pair of tokens (T,) and sight (T, T):
    (arms, vocabulary)."""
    tokens, seen = (torch.stack(each) for each in zip(*arms, strict=True))
    with hooked(model, {"mask": lambda mask, layer: seen[:, None]}):
        return model(tokens, last=RIGHT + 2)[:, 0].log_softmax(dim=-1)


# Asked for by a prompt


def prompts(gap: Gap) -> dict[str, torch.Tensor]:
    """What is read before the left side; the right side first, as fill-in-the-middle has it (SPM)."""
    tokenizer = model_and_tokenizer()[1]
    newline = torch.tensor(tokenizer.encode("\n\n"))

    def asked(right):
        words = "Write a text. Somewhere in the middle it goes on with these words: "
        return torch.tensor(tokenizer.chat([("user", words + tokenizer.decode(right.tolist()))]))

    return {
        "left alone": torch.tensor([], dtype=torch.long),
        "right first": torch.cat([gap.right, newline]),
        "other first": torch.cat([gap.other, newline]),
        "asked": asked(gap.right),
        "asked, other": asked(gap.other),
    }
