"""The texts of this lesson: short stories whose true law is known, one to a row, and the numbers of their words.

    x = next(batches(seed=0, n=16))            # (16, CONTEXT) ids: a story to its end, then PAD
    words_of(x[0]), names()[MASK]              # its words; "<mask>"

Why this world. Its stories are `shared.world`'s, with few names, things and places, so that 178 words are enough and a
decoder 48 wide with two layers (65,000 weights) comes within 0.2 nats of the floor in 400 steps of 16 rows. Both sides
matter: a story opens with sixty words that introduce two people, an animal and two things, mostly by chance seen from
the left, and what follows speaks of them again. Why one whole story to a row: an objective that reads the right side
has a text to its end, and what it can know is exactly the law of stories (`objective_floors`). A story has 82 to about
170 words; one in 400 is longer than a row and is cut at its right end, which leaves its law exact. A quarter of a row
is PAD on average.

A story begins with "Once" and ends with a line's end, always, so that either can start a reading, from the left or from
the right. Ids: the special ones first, then the words in the order of `shared.world`'s vocabulary.
"""

import functools
from collections.abc import Iterator, Sequence

import torch
from objective_vocabulary import Vocabulary

from shared.world import HELD_OUT, VOCABULARY, Config, documents, offers, split, stories
from shared.world.people import world_of

WORLD = Config(
    people=24,
    exponent=0.7,
    first_names=12,
    last_names=8,
    towns=6,
    jobs=8,
    foods=8,
    animals=6,
    objects=10,
    places=8,
)
CONTEXT = 160  # words of a row

PAD, MASK, STOP, PREFIX, SUFFIX, MIDDLE = range(6)  # STOP ends a middle, the last three mark the parts of a text
SENTINELS = range(6, 22)  # each stands for a hidden span, in order
SPECIAL = ["<pad>", "<mask>", "<stop>", "<prefix>", "<suffix>", "<middle>", *(f"<{i}>" for i in range(len(SENTINELS)))]


@functools.cache
def words() -> tuple[str, ...]:
    """Every word that the world's stories can have: what the grammar offers somewhere in 300 of them, and all facts of
    its people, of whom some are rare."""
    people = world_of(WORLD).people.values()
    known = {fact for it in people for fact in (it.first, it.last, it.age, it.job, it.town, it.food)}
    read = (offers(story.text, WORLD) for story in stories(300, HELD_OUT - 1, WORLD))
    known.update(word for choices in read for choice in choices for word in choice.words)
    return tuple(word for word in VOCABULARY if word in known)


@functools.cache
def names() -> tuple[str, ...]:
    """How each id is written; as many as a model's vocabulary has."""
    return (*SPECIAL, *words())


@functools.cache
def ids() -> dict[str, int]:
    """The id of each word, and of each special one by how it is written."""
    return {name: i for i, name in enumerate(names())}


def vocabulary() -> Vocabulary:
    """Which ids are words, and what the special ones are for."""
    marks = (PREFIX, SUFFIX, MIDDLE)
    return Vocabulary(range(len(SPECIAL), len(names())), PAD, MASK, STOP, marks, SENTINELS)


def row(text: str) -> torch.Tensor:
    """The ids of a story's words as far as there is room, then PAD: (CONTEXT,).

    Raises ValueError for a word that no story of this world has.
    """
    said = split(text)[:CONTEXT]
    if unknown := [word for word in said if word not in ids()]:
        raise ValueError(f"{unknown[0]!r} is in no story of this lesson: expected one of {len(words())} words")
    return torch.tensor([ids()[word] for word in said] + [PAD] * (CONTEXT - len(said)))


def words_of(row: Sequence[int] | torch.Tensor) -> list[str]:
    """The words of a row without its PADs; special ones as they are written."""
    return [names()[int(i)] for i in row if i != PAD]


def batches(seed: int, n: int) -> Iterator[torch.Tensor]:
    """Endless batches of n rows, (n, CONTEXT) int64, the same for a seed. Each story is new."""
    stream = documents(seed, WORLD)
    while True:
        yield torch.stack([row(next(stream).text) for _ in range(n)])


def held_out(n: int) -> torch.Tensor:
    """n rows that nothing trains on: (n, CONTEXT). The first are the same for any n."""
    return next(batches(HELD_OUT, n))
