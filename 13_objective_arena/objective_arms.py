"""The objectives that `objective_training` compares: one body, one world, and what each objective asks of a text.

    arm = ARMS["masked 15 %"]
    batch = arm.draw(tokens, generator)        # what it is trained on
    batch = arm.both(tokens, at)               # what tells its law of word `at`, given all others
    batch = arm.left(tokens, at)               # the same, given those before it

Of `both` and `left` the sum of a row's asked losses is what counts: rows that differ in word `at` alone have laws in
proportion to exp(-sum). For a next-token objective that is Bayes' rule, since the sum is the whole text's. A masking
objective answers directly. `left` hides all that follows: from a masking objective by masks, so that it knows how long
the text is; from others by cutting the text off. The law of word `at` among some words is asked for in the same way of
all, so that what an objective was not trained for is seen as such: 15 % of masks, and half of a text is hidden.

Controls: "right to left" turns the direction round; "causal, 15 % asked" has a causal mask and as few targets as
masking; "masked 15 %, shifted" is asked what masking is, but as in a causal model the position *before* a word tells
it, which has a word in its input where masking has a mask; plain masking is 80/10/10 without what a reader doubts.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from objective_world import PREFIX, vocabulary
from objectives import (
    Batch,
    ask_share,
    causal,
    diffusion,
    draw_cuts,
    draw_spans,
    fill_in_the_middle,
    hide,
    masked,
    prefix,
    right_to_left,
    sees_all,
    sees_left,
    span_corruption,
)
from torch import nn

from shared.rotary import RotaryAttention, no_positions
from shared.tiny_lm import TinyLM
from shared.training import initialise_by_fan_in

BODIES = {"48 wide": (48, 2), "96 wide": (96, 4)}  # width, layers; 66,000 and 464,000 weights
HEADS = 4
ROOM = 192  # the longest row: 160 words, and what spans add
LOW, HIGH = 0.15, 0.4  # rates of masks
VOCABULARY = vocabulary()

Draw = Callable[[torch.Tensor, torch.Generator], Batch]
Ask = Callable[[torch.Tensor, int], Batch]


def new_body(seed: int, body: str = "48 wide") -> TinyLM:
    """The same weights for every objective of a seed."""
    torch.manual_seed(seed)
    d_model, layers = BODIES[body]
    attention = partial(RotaryAttention, bias=False)
    model = TinyLM(
        VOCABULARY.size,
        ROOM,
        d_model,
        layers,
        HEADS,
        attention=attention,
        norm=nn.RMSNorm,
        positions=no_positions,
    )
    initialise_by_fan_in(model)
    return model


def told_before(model: TinyLM) -> TinyLM:
    """From now on the position before each tells its answer, as in a causal model; the first tells its own."""
    model.register_forward_hook(lambda module, given, logits: torch.cat([logits[:, :1], logits[:, :-1]], dim=1))
    return model


def only(tokens: torch.Tensor, *at: int) -> torch.Tensor:
    """True at these positions, (B, T)."""
    found = torch.zeros(tokens.shape, dtype=torch.bool)
    found[:, list(at)] = True
    return found


def same(tokens: torch.Tensor, value: int) -> torch.Tensor:
    """A number for each text, (B,)."""
    return torch.full((len(tokens),), value)


def sees_right(T: int) -> torch.Tensor:
    """Each position sees itself and all after it, (1, T, T)."""
    return sees_left(T).mT


# What a text is asked


def hide_one(tokens: torch.Tensor, at: int) -> Batch:
    """A mask for one word."""
    return hide(tokens, only(tokens, at), VOCABULARY)


def hide_rest(tokens: torch.Tensor, at: int) -> Batch:
    """Masks for a word and all that follow; the first is asked for."""
    batch = hide(tokens, only(tokens, *range(at, tokens.shape[1])), VOCABULARY)
    return batch._replace(weights=batch.weights * only(tokens, at))


def prefix_of(tokens: torch.Tensor, at: int) -> Batch:
    """All that stands before a word is a prefix."""
    return prefix(tokens, VOCABULARY, same(tokens, at))


def span_of_one(tokens: torch.Tensor, at: int) -> Batch:
    """A span of one word."""
    return span_corruption(tokens, only(tokens, at), VOCABULARY)


def span_to_end(tokens: torch.Tensor, at: int) -> Batch:
    """The first word of a span that has no end yet: its sentinels are not counted."""
    batch = span_of_one(tokens[:, : at + 1], at)
    return batch._replace(weights=batch.weights * VOCABULARY.is_word(batch.targets))


def middle_of_one(tokens: torch.Tensor, at: int) -> Batch:
    """A middle of one word, and its end."""
    return fill_in_the_middle(tokens, torch.tensor([[at, at + 1]] * len(tokens)), VOCABULARY)


def marked(tokens: torch.Tensor, at: int) -> Batch:
    """A text up to a word, behind the mark of a prefix."""
    marks = torch.full((len(tokens), 1), PREFIX)
    return causal(torch.cat([marks, tokens[:, : at + 1]], dim=1), VOCABULARY)


def whole(maker: Callable[..., Batch]) -> Ask:
    """The whole text, whichever word is meant."""
    return lambda tokens, at: maker(tokens, VOCABULARY)


def cut_off(asked: Ask) -> Ask:
    """The text up to a word."""
    return lambda tokens, at: asked(tokens[:, : at + 1], at)


class Arm(NamedTuple):
    """draw: what a step asks. own: the held-out question, and its floor, in `objective_own_floors`. both, left: see the
    module; left is None for who reads from the right. reads: who sees whom in a text that is whole. writes: how texts
    are written, in `objective_stories`. shifted: the position before a word tells it."""

    draw: Draw
    own: str
    both: Ask
    left: Ask | None
    reads: Callable[[int], torch.Tensor]
    writes: str
    shifted: bool = False

    def new_model(self, seed: int, body: str = "48 wide") -> TinyLM:
        """What is trained."""
        model = new_body(seed, body)
        return told_before(model) if self.shifted else model


def _next(own: str, draw: Draw) -> Arm:
    return Arm(draw, own, whole(causal), cut_off(whole(causal)), sees_left, "left")


def _masking(own: str, draw: Draw) -> Arm:
    return Arm(draw, own, hide_one, hide_rest, sees_all, "masks")


PLAIN = _masking("masked 0.15", lambda x, g: masked(x, VOCABULARY, LOW, g, 1.0, 0.0))
ARMS = {
    "causal": _next("left", lambda x, g: causal(x, VOCABULARY)),
    "causal, 15 % asked": _next("left", lambda x, g: ask_share(causal(x, VOCABULARY), LOW, g)),
    "right to left": Arm(
        lambda x, g: right_to_left(x, VOCABULARY), "right", whole(right_to_left), None, sees_right, "right"
    ),
    "masked 15 %": PLAIN,
    "masked 15 %, shifted": PLAIN._replace(shifted=True),
    "masked 15 %, 80/10/10": _masking("masked 0.15", lambda x, g: masked(x, VOCABULARY, LOW, g)),
    "masked 40 %": _masking("masked 0.4", lambda x, g: masked(x, VOCABULARY, HIGH, g, 1.0, 0.0)),
    "diffusion": _masking("diffusion", lambda x, g: diffusion(x, VOCABULARY, g)),
    "prefix": Arm(
        lambda x, g: prefix(x, VOCABULARY, draw_cuts(x, VOCABULARY, 1, g)[:, 0]),
        "prefix",
        prefix_of,
        cut_off(prefix_of),
        sees_all,
        "prefix",
    ),
    "spans": Arm(
        lambda x, g: span_corruption(x, draw_spans(x, VOCABULARY, generator=g), VOCABULARY),
        "spans",
        span_of_one,
        span_to_end,
        sees_all,
        "spans",
    ),
    "middle": Arm(
        lambda x, g: fill_in_the_middle(x, draw_cuts(x, VOCABULARY, 2, g), VOCABULARY),
        "middle",
        middle_of_one,
        marked,
        sees_left,
        "middle",
    ),
}
