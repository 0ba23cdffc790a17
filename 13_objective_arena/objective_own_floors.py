"""Each objective's own held-out question, and its exact floor on the same texts.

    question = own_question("masked 0.15", 64)       # of the first 64 held-out texts
    held_out_loss(model, question.batches) - question.floor

Where the floor hangs on what is hidden (masks of 15 %, spans) the model is asked exactly what `floor_sweep` summed, so
that the excess is no matter of luck. What each floor is:

    left            exact: the nats of each word given those before it
    right           exact but for where texts are cut, one in 400: in sum the left side's, by the chain rule
    masked 0.15     exact
    masked 0.4      the mean of other masks of the same rate, with the stored error (0.03)
    spans           exact
    diffusion       exact in the mean: the left side's sum less what the length tells, which is seen
    prefix          the left side's of the words asked; too high by what a prefix's length tells of the text's (< 0.001)
    middle          in the mean, see `middle_floor`; exact within 0.001
"""

import functools
import math
import random
from collections import Counter
from typing import NamedTuple

import floor_sweep
import torch
from floor_table import floors
from objective_arms import HIGH, LOW, VOCABULARY
from objective_lengths import length_counts, length_nats
from objective_world import held_out
from objectives import (
    Batch,
    causal,
    diffusion,
    draw_cuts,
    fill_in_the_middle,
    hide,
    masked,
    prefix,
    right_to_left,
    span_corruption,
)

from shared.sweeps import stored

ROWS = 32  # texts in a batch
DRAWS = 2  # of the questions whose floor is a mean


class Question(NamedTuple):
    """batches, and the floor of their mean loss, in nats per target."""

    batches: list[Batch]
    floor: float


class Asked:
    """Stands in for `objective_floors.Told` to learn which words of a text `floor_sweep` hides."""

    def __init__(self, length: int):
        self.words, self.left, self.hidden = range(length), [0.0] * length, []

    def masked(self, hidden):
        """Note single words."""
        self.hidden = list(hidden)
        return [0.0]

    def filled(self, spans, law, longest):
        """Note the words of spans."""
        self.hidden = [at for start, stop in spans for at in range(start, stop)]
        return 0.0

    def seen(self, hidden):
        """Note words side by side."""
        self.hidden = list(hidden)
        return 0.0


@functools.cache
def rows_of_part(part: str) -> list[dict]:
    """The stored rows of a part, in the order of the texts."""
    rows = stored(floor_sweep.SWEEP.results)[0]
    return sorted((row for row in rows if row["part"] == part), key=lambda row: row["first"])


def column(part: str, name: str) -> list:
    """A number for each text."""
    return [it for row in rows_of_part(part) for it in row[name]]


def lengths(tokens: torch.Tensor) -> list[int]:
    """How many words each text has."""
    return (tokens != VOCABULARY.padding).sum(dim=1).tolist()


def hidden_in(part: str, tokens: torch.Tensor) -> torch.Tensor:
    """What `floor_sweep` hid of these held-out texts, the first ones: (B, T) bool."""
    found = torch.zeros(tokens.shape, dtype=torch.bool)
    for i, length in enumerate(lengths(tokens)):
        if i % floor_sweep.CHUNK == 0:
            drawn = random.Random(f"{part} {i}")
        asked = Asked(length)
        floor_sweep.PARTS[part](asked, drawn)
        found[i, asked.hidden] = True
    return found


def left_nats(tokens: torch.Tensor) -> torch.Tensor:
    """Nats of each word of the first held-out texts given those before it, 0 for padding: (B, T)."""
    words = column("left", "words")[: len(tokens)]
    return torch.tensor([[*it, *[0.0] * (tokens.shape[1] - len(it))] for it in words], dtype=torch.float64)


# Questions


def own_question(name: str, n: int) -> Question:
    """Of the first n held-out texts; of spans at most those whose floor is stored."""
    tokens = held_out(min(n, floor_sweep.texts_of("span 0.15")) if name == "spans" else n)
    return QUESTIONS[name](tokens)


def parts(make, tokens: torch.Tensor, *others: torch.Tensor) -> list[Batch]:
    """Batches of ROWS texts."""
    return [make(*each) for each in zip(*(it.split(ROWS) for it in (tokens, *others)), strict=True)]


def left(tokens: torch.Tensor) -> Question:
    """Causal; the first word is always the same."""
    floor = left_nats(tokens).sum().item() / (sum(lengths(tokens)) - len(tokens))
    return Question(parts(lambda x: causal(x, VOCABULARY), tokens), floor)


def right(tokens: torch.Tensor) -> Question:
    """Causal from the right; the last word is always the same, but where a text is cut."""
    return Question(parts(lambda x: right_to_left(x, VOCABULARY), tokens), left(tokens).floor)


def masked_low(tokens: torch.Tensor) -> Question:
    """Masks of 15 %."""
    hidden, part = hidden_in(f"masked {LOW}", tokens), f"masked {LOW}"
    nats, asked = (sum(column(part, name)[: len(tokens)]) for name in ("nats", "asked"))
    return Question(parts(lambda x, gone: hide(x, gone, VOCABULARY), tokens, hidden), nats / asked)


def masked_high(tokens: torch.Tensor) -> Question:
    """Masks of 40 %."""
    drawn = torch.Generator().manual_seed(0)
    make = lambda x: masked(x, VOCABULARY, HIGH, drawn, 1.0, 0.0)  # noqa: E731
    rows = rows_of_part(f"masked {HIGH}") + rows_of_part("left")
    return Question(parts(make, tokens), floors(rows)[f"masked {HIGH}"].nats)


def spans(tokens: torch.Tensor) -> Question:
    """Spans of three words on average."""
    hidden = hidden_in("span 0.15", tokens)
    nats, asked = (sum(column("span 0.15", name)[: len(tokens)]) for name in ("nats", "asked"))
    return Question(parts(lambda x, gone: span_corruption(x, gone, VOCABULARY), tokens, hidden), nats / asked)


def random_order(tokens: torch.Tensor) -> Question:
    """Masked diffusion."""
    drawn, told = torch.Generator().manual_seed(0), lengths(tokens)
    nats = left_nats(tokens).sum().item() - sum(map(length_nats, told))
    return Question(parts(lambda x: diffusion(x, VOCABULARY, drawn), tokens.repeat(DRAWS, 1)), nats / sum(told))


def prefixes(tokens: torch.Tensor) -> Question:
    """What follows prefixes of all lengths."""
    drawn = torch.Generator().manual_seed(0)
    tokens = tokens.repeat(DRAWS, 1)
    cuts = draw_cuts(tokens, VOCABULARY, 1, drawn)[:, 0]
    after = torch.arange(tokens.shape[1]) >= cuts[:, None]
    nats = left_nats(tokens[: len(tokens) // DRAWS]).repeat(DRAWS, 1)
    asked = (after & (tokens != VOCABULARY.padding)).sum()
    return Question(parts(lambda x, n: prefix(x, VOCABULARY, n), tokens, cuts), ((nats * after).sum() / asked).item())


def middles(tokens: torch.Tensor) -> Question:
    """Texts whose middle was moved to the end."""
    drawn = torch.Generator().manual_seed(0)
    floor, told = left_nats(tokens).sum().item(), lengths(tokens)
    tokens, asked = tokens.repeat(DRAWS, 1), sum(told) + len(told)
    cuts = draw_cuts(tokens, VOCABULARY, 2, drawn)
    make = lambda x, at: fill_in_the_middle(x, at, VOCABULARY)  # noqa: E731
    return Question(parts(make, tokens, cuts), (floor + sum(middle_nats(n)[0] for n in told)) / asked)


def middle_nats(length: int) -> tuple[float, float]:
    """What a middle costs beyond its text, in the mean over cuts: nats at least and at most.

    A text and its cuts cost -log p(text) - log p(cuts | length) in all, and all of this is asked but the marks. Where
    the suffix's mark stands is the first cut; a reader of the words before it knows of the length something between
    nothing and all, so that the mark tells between -log p(first cut) and -log p(first cut | length).
    """
    first, alone = first_cuts(length), _first_cut_law()
    cuts = _entropy_of_cuts(length)
    nothing = sum(-p * math.log(alone[cut]) for cut, p in first.items())
    everything = sum(-p * math.log(p) for p in first.values())
    return cuts - nothing, cuts - everything


def first_cuts(length: int) -> dict[int, float]:
    """The law of the first of two cuts, each from 1 to length - 1."""
    n = length - 1
    return {cut: (2 * (n - cut) + 1) / n**2 for cut in range(1, length)}


@functools.cache
def _first_cut_law() -> Counter:
    """The same of a text of whatever length."""
    law, counts = Counter(), length_counts()
    for length, count in counts.items():
        for cut, p in first_cuts(length).items():
            law[cut] += p * count / counts.total()
    return law


def _entropy_of_cuts(length: int) -> float:
    """Of both cuts, in order: two ways lead to each pair of different ones."""
    n = length - 1
    return 2 * math.log(n) - (n - 1) / n * math.log(2)


QUESTIONS = {
    "left": left,
    "right": right,
    "masked 0.15": masked_low,
    "masked 0.4": masked_high,
    "spans": spans,
    "diffusion": random_order,
    "prefix": prefixes,
    "middle": middles,
}
