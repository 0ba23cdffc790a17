"""What the sweep and the notebook ask of SmolLM2-135M-Instruct (4-bit weights): other angles, and what they cost.

Nothing is trained. Its heads are 64 wide, so they have 32 pairs, its theta is 100,000, and it was trained on texts of
up to 8,192 tokens. "Gap" is how many positions are left out between the first HALF tokens of a text and the next.
"""

import contextlib
import functools

import rope
import torch
from torch.nn import functional as F

from shared.corpus import python_docs
from shared.hooks import hooked
from shared.smollm2 import load_smollm2
from shared.texts import OWN, texts

LOOKED_AT, JUDGES = OWN[:4], OWN[8:]
HALF, TRAINED, THETA, HEAD_WIDTH = 128, 8192, 100_000.0, 64
INV_FREQ = rope.inv_freq(HEAD_WIDTH, THETA)
PAIRS = range(HEAD_WIDTH // 2)
SHORT_GAP, GAP = 6_000, 16_000  # within what the model was trained on, and beyond
TURNS = rope.full_turns(INV_FREQ, TRAINED)
NEW = tuple(i for i in PAIRS if TURNS[i] < 1)  # those that have not been all round
OLD = tuple(range(len(NEW)))  # as many of the fastest: the control
TOLD = tuple(i for i in PAIRS if 0.2 < TURNS[i] < 0.4)  # as far round as the one pair that counts in the small models
REST = tuple(sorted(set(NEW) - set(TOLD)))


@functools.cache
def model_and_tokenizer():
    """The real model, read once in a process, and its tokenizer."""
    return load_smollm2()


@functools.cache
def ids_of(name: str, tokens: int) -> torch.Tensor:
    """The beginning of a text: (1, tokens). "docs" goes on as long as it is asked for."""
    text = texts()[name]
    if name == "docs":
        whole = python_docs()
        text = whole[whole.index(text[:200]) :][: 8 * tokens]
    ids = model_and_tokenizer()[1].encode(text)[:tokens]
    if len(ids) < tokens:
        raise ValueError(f"{name!r} has {len(ids)} tokens: expected at least {tokens}")
    return torch.tensor([ids])


@contextlib.contextmanager
def turned_by(angles_of, attention_factor: float = 1.0):
    """Within it, the model turns queries and keys by angles_of(positions), (T,) -> (T, d / 2)."""
    layers = [block.attention for block in model_and_tokenizer()[0].blocks]
    of_all = functools.lru_cache(maxsize=2)(lambda *positions: angles_of(torch.tensor(positions)))

    def place(x, positions=None):
        where = range(x.shape[-2]) if positions is None else positions.tolist()
        return rope.rotate_halves(x, of_all(*where)) * attention_factor

    for layer in layers:
        layer.place = place
    try:
        yield
    finally:
        for layer in layers:
            del layer.place


def scaled(scaling: rope.Scaling, gap: int = 0):
    """The model with other frequencies, and a gap."""
    return turned_by(lambda positions: rope.angles(apart(positions, gap), scaling.inv_freq), scaling.attention_factor)


def apart(positions: torch.Tensor, gap: int) -> torch.Tensor:
    """Positions with a gap before the token number HALF."""
    return positions + gap * (positions >= HALF)


def with_gap(gap: int, others: int = 0, pairs: tuple[int, ...] = tuple(PAIRS)):
    """The model with a gap for some pairs, and another one for all others."""

    def angles_of(positions):
        angles = rope.angles(apart(positions, others), INV_FREQ)
        angles[:, list(pairs)] = rope.angles(apart(positions, gap), INV_FREQ)[:, list(pairs)]
        return angles

    return turned_by(angles_of)


def rounded_to_bfloat16(shift: int):
    """The model with all positions moved on, and angles that are made in bfloat16."""
    return turned_by(lambda positions: ((positions + shift).bfloat16()[:, None] * INV_FREQ.bfloat16()).double())


def frozen(pairs: tuple[int, ...]):
    """The model with some pairs that do not turn."""
    inv_freq = INV_FREQ.clone()
    inv_freq[list(pairs)] = 0
    return turned_by(lambda positions: rope.angles(positions, inv_freq))


@torch.no_grad()
def nats_after(ids: torch.Tensor, start: int = HALF) -> torch.Tensor:
    """Nats of each token behind number `start`, (tokens - start - 1,)."""
    logits = model_and_tokenizer()[0](ids, last=ids.shape[1] - start)
    return F.cross_entropy(logits[0, :-1], ids[0, start + 1 :], reduction="none")


def hidden(ids: torch.Tensor) -> torch.Tensor:
    """The same, where the second half does not see the first."""

    def hide(mask, layer):
        mask = mask.clone()
        mask[HALF:, :HALF] = False
        return mask

    with hooked(model_and_tokenizer()[0], {"mask": hide}):
        return nats_after(ids)


@torch.no_grad()
def nats_long(ids: torch.Tensor, part: int = 1024) -> torch.Tensor:
    """Nats of each token but the first of a long text, which is read part by part into a cache: (tokens - 1,)."""
    model, tokens = model_and_tokenizer()[0], ids.shape[1]
    context, model.context = model.context, tokens
    cache, nats = model.new_cache(1, tokens), []
    for x, y in zip(ids[:, :-1].split(part, dim=1), ids[:, 1:].split(part, dim=1), strict=True):
        nats.append(F.cross_entropy(model(x, cache)[0], y[0], reduction="none"))
    model.context = context
    return torch.cat(nats)
