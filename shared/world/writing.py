"""Text drawn from the grammar, with its nats; text read back; and the floor.

Why the floor is exact: a document is written word by word. At each place the grammar offers words with weights, no word
twice, and writes the one that was drawn at once. Nothing is drawn that is not written. So the text tells each draw, the
probability of a text is the product of its draws', and what is offered at a place *is* the true distribution of the
next word there.
"""

import functools
import math
import statistics
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from random import Random

from shared.world.choice import Choice, Ended, Reading
from shared.world.domains import Document
from shared.world.people import Config, World, world_of
from shared.world.state import State
from shared.world.words import encode, join, split

STORY = Config()
FACTS = Config(story=0, facts=1, people=4000)
MIXED = Config(story=2, facts=1, sums=1, code=1)
BASE = Config(
    story=85,
    facts=8,
    requests=7,
    questions=150,
    people=150,
    exponent=0.7,
    first_names=32,
    last_names=32,
    towns=24,
    jobs=24,
    foods=24,
    animals=12,
    objects=24,
    places=16,
)
HELD_OUT = 2**31  # seeds from here up are for evaluation: nothing in this project trains on them


@dataclass(frozen=True, slots=True)
class Story:
    """A document. text: ends in a line's end. nats: minus the log of its probability. state: how a story ended."""

    text: str
    nats: float
    kind: str
    state: State | None


def stories(n: int, seed: int, config: Config = STORY) -> list[Story]:
    """n documents of a world, always the same for a seed. Raises ValueError for n below 1."""
    if n < 1:
        raise ValueError(f"n is {n}: expected at least 1")
    return list(islice(documents(seed, config), n))


def documents(seed: int, config: Config = STORY) -> Iterator[Story]:
    """The documents of a world without end; the first n are those of `stories`."""
    world, random = world_of(config), Random(seed).random
    while True:
        yield _write(world, random)


class _Writer:
    """The voice that draws each word by its weight: `words`, and in `drawn` the probability of each that had a rival.

    Most of the time of writing goes by in `pick`, so it is a closure: it looks nothing up.
    """

    def __init__(self, random: Callable[[], float]):
        words, drawn = [], []
        say, note = words.append, drawn.append

        def tell(word, kind, rule):
            say(word)
            return word

        def pick(choice):
            if len(choice.words) == 1:
                word = choice.words[0]
            else:
                at = bisect_right(choice.bounds, int(random() * choice.total))
                word = choice.words[at]
                note(choice.weights[at] / choice.total)
            say(word)
            return word

        self.words, self.drawn, self.say, self.tell, self.pick = words, drawn, say, tell, pick


def _write(world: World, random: Callable[[], float]) -> Story:
    writer = _Writer(random)
    document = Document(world, writer)
    document.run()
    nats = -math.fsum(map(math.log, writer.drawn))
    return Story(join(writer.words), nats, document.kind, getattr(document.body, "state", None))


class _Reader(Reading):
    """The voice that has the words already: it notes what was offered at each, and stops where they end."""

    def __init__(self, words: Sequence[str]):
        self.words = words
        self.offers: list[Choice] = []

    def pick(self, choice):
        at = len(self.offers)
        self.offers.append(choice)
        if at == len(self.words):
            raise Ended
        word = self.words[at]
        if word not in choice.words:
            before, possible = join(self.words[max(0, at - 6) : at]), ", ".join(map(repr, choice.words[:5]))
            raise ValueError(f"{word!r} (word {at}) cannot follow {before!r}; what can: {possible}")
        return word


def offers(text: str, config: Config = STORY) -> list[Choice]:
    """What the grammar offered at each word of a text, and last what it offers next; documents may follow each other.

    Raises ValueError for a text that this world cannot write, naming the word and what could stand there.
    """
    return _read(text, config)[0].offers


def next_token_distribution(prefix: str, config: Config = STORY) -> dict[str, float]:
    """The true distribution of the word after a text: exact, no sampling. Raises as `offers` does."""
    return offers(prefix, config)[-1].probabilities


def nats(text: str, config: Config = STORY) -> list[float]:
    """Minus the log of the true probability of each word of a text. Raises as `offers` does."""
    words = split(text)
    return [_nats(choice, word) for choice, word in zip(offers(text, config), words, strict=False)]


def state(text: str, config: Config = STORY) -> State | None:
    """How things stand where a text ends, in its last story; None if its last document is none. Raises as `offers`."""
    return getattr(_read(text, config)[1].body, "state", None)


def _read(text: str, config: Config) -> tuple[_Reader, Document]:
    """The reader after the text's last word, and the document which that word belongs to."""
    world, reader = world_of(config), _Reader(split(text))
    document = Document(world, reader)
    while True:
        last, document = document, Document(world, reader)
        try:
            document.run()
        except Ended:
            return reader, document if document.body else last


def _nats(choice: Choice, word: str) -> float:
    return -math.log(choice.weights[choice.words.index(word)] / choice.total)


@dataclass(frozen=True)
class Floor:
    """The entropy of a world's text in nats per token, its standard error, and a document's mean length in tokens."""

    nats: float
    error: float
    length: float


@functools.cache
def floor(config: Config = STORY, unit: str = "words", n: int = 5000, seed: int = HELD_OUT) -> Floor:
    """The entropy per token, by word or by byte, from n documents: no model's expected loss on this text is lower.

    It is that of whole documents. Rows that are cut off have other floors, their own nats (`held_out_rows`). Each
    document's nats are exact; the error is that of their mean over documents of unequal length. Raises ValueError for n
    below 2, which has no error.
    """
    if n < 2:
        raise ValueError(f"n is {n}: a standard error needs at least 2")
    sample = stories(n, seed, config)
    lengths = [len(encode(story.text, unit)) for story in sample]
    length = sum(lengths) / n
    per_token = math.fsum(story.nats for story in sample) / sum(lengths)
    residuals = [story.nats - per_token * size for story, size in zip(sample, lengths, strict=True)]
    return Floor(per_token, statistics.stdev(residuals) / math.sqrt(n) / length, length)
