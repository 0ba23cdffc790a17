"""One small decoder for each tokenizer, judged in bits per byte on a language whose entropy is known.

The stories are those of `shared.world`; their grammar is a program, so the floor is a number.

    arm = arms()["1,024"]
    bits_per_byte(arm, steps=200, rate=8e-3, seed=1)
"""

import math
from collections import Counter
from dataclasses import dataclass
from functools import cache, cached_property

import bpe
import torch
from bpe_patterns import LINE

from shared.tiny_lm import TinyLM
from shared.training import evaluate, fit
from shared.world import BASE, HELD_OUT, stories

WINDOW, BATCH = 256, 16  # bytes read at once, on average; windows in a step
WIDTH, LAYERS, HEADS = 64, 2, 4
STORIES, LEARN_FROM = 8000, 300_000  # to read; characters of them that a tokenizer learns from


@dataclass(eq=False)
class Arm:
    """A tokenizer, and the stories in its tokens."""

    tokenizer: bpe.Tokenizer

    @cached_property
    def read(self) -> torch.Tensor:
        """The stories to learn from, (tokens,)."""
        return torch.tensor(self.tokenizer.encode(texts()[0]))

    @cached_property
    def unseen(self) -> torch.Tensor:
        """The stories held out, (tokens,)."""
        return torch.tensor(self.tokenizer.encode(texts()[1]))

    @property
    def bytes_per_token(self) -> float:
        """Of the held-out stories."""
        return len(texts()[1].encode()) / len(self.unseen)

    @property
    def context(self) -> int:
        """Tokens that WINDOW bytes are on average."""
        return round(WINDOW / self.bytes_per_token)

    @property
    def flops_per_step(self) -> float:
        """Operations of matrix products in a training step: three times those of the forward pass, the head's too."""
        matrices = 12 * LAYERS * WIDTH**2 + len(self.tokenizer.vocab) * WIDTH
        return 3 * BATCH * self.context * (2 * matrices + 4 * LAYERS * self.context * WIDTH)


@cache
def texts() -> tuple[str, str, float]:
    """The stories to learn from, those held out, and the floor: the held-out stories' entropy in bits per byte."""
    held = stories(150, HELD_OUT, BASE)
    unseen = "".join(story.text for story in held)
    floor = sum(story.nats for story in held) / math.log(2) / len(unseen.encode())
    return "".join(story.text for story in stories(STORIES, 0, BASE)), unseen, floor


def across_late(text: str, within: int, size: int) -> bpe.Tokenizer:
    """A tokenizer whose merges stay within GPT-2's pre-tokens up to `within` tokens and then cross spaces, as
    SuperBPE's do (Liu et al. 2025, arXiv 2503.13423)."""
    early = bpe.train(text, within).merges
    lines = [bpe.spell(line) for line in bpe.split(text, LINE)]
    for rank, (a, b) in enumerate(early):
        lines = [line.replace(chr(a) + chr(b), chr(256 + rank)) for line in lines]
    return bpe.Tokenizer(early + _learnt_on(lines, within, size), LINE)


def _learnt_on(lines: list[str], first: int, size: int) -> list[tuple[int, int]]:
    """Merges of lines of tokens, by counting anew: those that make the tokens `first` to `size` - 1."""
    merges = []
    for token in range(first, size):
        counts = Counter()
        for line in lines:
            counts.update(bpe.pairs(line))
        pair = bpe.most_frequent(counts)
        lines = [bpe.merge(line, pair, chr(token)) for line in lines]
        merges.append((ord(pair[0]), ord(pair[1])))
    return merges


@cache
def arms() -> dict[str, Arm]:
    """By what the vocabulary is: its size, and whether its merges stay within GPT-2's pre-tokens."""
    learn_from = texts()[0][:LEARN_FROM]
    return {
        "512": Arm(bpe.train(learn_from, 512)),
        "1,024": Arm(bpe.train(learn_from, 1024)),
        "1,024, across spaces": Arm(bpe.train(learn_from, 1024, LINE)),
        "1,024, across spaces late": Arm(across_late(learn_from, 768, 1024)),
    }


def bits_per_byte(arm: Arm, steps: int, rate: float, seed: int) -> float:
    """Train a decoder on the stories by AdamW, clipped at 1, and judge it on held-out ones.

    The loss of all judged tokens together, over the bytes that they stand for: longer tokens are harder to guess, and
    fewer. Each is judged after up to `context` tokens of the same window.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)

    def batch():
        starts = torch.randint(len(arm.read) - arm.context, (BATCH,), generator=generator)
        at = starts[:, None] + torch.arange(arm.context)  # (BATCH, context)
        return arm.read[at], arm.read[at + 1]

    model = TinyLM(len(arm.tokenizer.vocab), arm.context, WIDTH, LAYERS, HEADS)
    fit(model, batch, steps, lr=rate, label=None)
    windows = (len(arm.unseen) - 1) // arm.context
    x, y = (arm.unseen[shift : shift + windows * arm.context].view(windows, -1) for shift in (0, 1))
    size = torch.tensor([len(token) for token in arm.tokenizer.vocab])  # bytes of each token
    return evaluate(model, x, y).nats * y.numel() / size[y].sum().item() / math.log(2)
