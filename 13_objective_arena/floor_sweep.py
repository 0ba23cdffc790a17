"""What does each objective leave open, at best? python floor_sweep.py

Writes results/floor.json, which the notebook shows; a quarter of an hour on one core. Nothing is trained:
these are the exact floors of the held-out texts (`objective_world.held_out`), sixteen texts to a job.

    left            each word given all before it; from the right the sum is the same
    two sides       each word given all others
    masked 0.15     each word hidden with this probability: the hidden ones, given the others
    masked 0.4      the same by nested masks, of 38 and of 42 %: the words between, one after another, are asked at
                    rates from 38 to 42 %; of half of the texts
    span 0.15       spans of three words on average, drawn as `objectives.draw_spans` draws: their words and their ends;
                    of half of the texts
    middle 12       twelve words side by side, one after another: given what stands before them, or both sides

A row has for each text `nats`, the sum, and `asked`, over how many targets: a floor is sum(nats) / sum(asked) over all
texts. Of "left" there is `words` as well, each word's nats; of "two sides" `words` is given both sides; of "middle 12"
`before` is the sum given what stands before.
"""

import functools
import math
import random
import sys
from itertools import islice

from objective_floors import Told
from objective_world import CONTEXT, WORLD

from shared.sweeps import Sweep, main
from shared.world import HELD_OUT, documents
from shared.world.words import split

TEXTS, CHUNK, MIDDLE = 256, 16, 12
LOW, HIGH, WITHIN = 0.15, 0.4, 0.02  # rates of masks
RATE, MEAN_LENGTH = 0.15, 3.0  # of spans


@functools.cache
def held_out_stories(n: int = TEXTS) -> list[Told]:
    """The first held-out texts, as far as a row has them."""
    found = [split(story.text) for story in islice(documents(HELD_OUT, WORLD), n)]
    return [Told(words[:CONTEXT], cut=len(words) > CONTEXT, most=2_000_000) for words in found]


def left(told: Told, _) -> dict:
    """Each word given all before it."""
    return {"nats": math.fsum(told.left), "asked": len(told.words), "words": [round(it, 4) + 0.0 for it in told.left]}


def two_sides(told: Told, _) -> dict:
    """Each word given all others."""
    found = [told.two_sided(at) for at in range(len(told.words))]
    return {"nats": math.fsum(found), "asked": len(found), "words": [round(it, 4) + 0.0 for it in found]}


def masked(told: Told, drawn: random.Random) -> dict:
    """Hidden words given the others."""
    hidden = [at for at in range(len(told.words)) if drawn.random() < LOW]
    return {"nats": math.fsum(told.masked(hidden)), "asked": len(hidden)}


def nested(told: Told, drawn: random.Random) -> dict:
    """The words that one mask hides and a smaller one does not, one after another: two sums, not one for each."""
    heights = [drawn.random() for _ in told.words]
    more, fewer = (
        [at for at, height in enumerate(heights) if height < rate] for rate in (HIGH + WITHIN, HIGH - WITHIN)
    )
    return {"nats": told.seen(fewer) - told.seen(more), "asked": len(more) - len(fewer)}


def spans(told: Told, drawn: random.Random) -> dict:
    """Hidden words and the ends of their spans, given the rest. asked: also a sentinel a span, and a last one."""
    n = len(told.words)
    hidden, pieces = span_sizes(n)
    ends = sorted(drawn.sample(range(1, hidden), pieces - 1))
    sizes = [b - a for a, b in zip([0, *ends], [*ends, hidden], strict=True)]
    found, gone = [], 0
    for kept, size in zip(sorted(drawn.sample(range(n - hidden + 1), pieces)), sizes, strict=True):
        found.append((kept + gone, kept + gone + size))
        gone += size
    return {
        "nats": told.filled(found, functools.partial(span_law, n - hidden, pieces), n + 1),
        "asked": hidden + pieces + 1,
    }


def span_sizes(n: int) -> tuple[int, int]:
    """How many of n words are hidden, and in how many spans."""
    hidden = max(1, round(RATE * n))
    return hidden, max(1, min(round(hidden / MEAN_LENGTH), hidden, n - hidden + 1))


def span_law(kept: int, pieces: int, n: int) -> float:
    """The probability of one way to hide spans in a text of n words; 0 if another number of words or spans is left."""
    hidden, wanted = span_sizes(n)
    if (n - hidden, wanted) != (kept, pieces):
        return 0.0
    return 1 / (math.comb(hidden - 1, pieces - 1) * math.comb(kept + 1, pieces))


def middle(told: Told, drawn: random.Random) -> dict:
    """Words side by side."""
    start = drawn.randrange(1, len(told.words) - MIDDLE)
    gone = range(start, start + MIDDLE)
    before = math.fsum(told.left[at] for at in gone)
    return {"nats": math.fsum(told.left) - told.seen(gone), "asked": MIDDLE, "before": before}


PARTS = {
    "left": left,
    "two sides": two_sides,
    f"masked {LOW}": masked,
    f"masked {HIGH}": nested,
    f"span {RATE}": spans,
    f"middle {MIDDLE}": middle,
}
COSTS = {"left": 0.1, "two sides": 4, "masked 0.4": 40, "middle 12": 4}


def texts_of(part: str) -> int:
    """How many texts a part has."""
    return TEXTS // 2 if PARTS[part] in (nested, spans) else TEXTS


def run(job: dict) -> dict:
    """job: part, and the number of the first text."""
    drawn = random.Random(f"{job['part']} {job['first']}")
    texts = held_out_stories()[job["first"] : job["first"] + job.get("texts", CHUNK)]
    found = [PARTS[job["part"]](told, drawn) for told in texts]
    return {name: [it[name] if name != "nats" else round(it[name], 5) for it in found] for name in found[0]}


SWEEP = Sweep(
    __file__,
    "floor",
    run,
    jobs=[{"part": part, "first": first} for part in PARTS for first in range(0, texts_of(part), CHUNK)],
    quick=[{"part": part, "first": 0, "texts": 1} for part in PARTS],
    cost=lambda job: COSTS.get(job["part"], 10),
    comparable=lambda job: job["part"] in ("left", "two sides", f"middle {MIDDLE}"),
    tolerance={"nats": 1e-4, "words": 1e-3, "before": 1e-3},
    settings={"context": CONTEXT},
)

if __name__ == "__main__":
    sys.exit(main(SWEEP))
