"""Who and what there is in a story world: its configuration, and the people with their facts.

People are known by first and last name, the r-th in proportion to r ** -exponent: a few stand in many texts, many in
few. Each one's facts are drawn once, from the configuration's seed, and are the same in all texts: what a model knows
of the rare ones it had to memorise.
"""

import functools
from dataclasses import dataclass
from random import Random
from typing import ClassVar, NamedTuple

from shared.world.choice import Choice, even
from shared.world.words import LISTS, MEN, NOUNS

SCALE = 10**6  # weights are whole numbers, so that no rounding of a machine's own can change a text


@dataclass(frozen=True)
class Config:
    """Which documents there are, and how large the world is.

    story, facts, sums, code, requests: shares of the kinds, whole numbers. questions: how many in a thousand stories
    go on with questions. people: how many are known. exponent: of the Zipf law by which they are named. The other
    sizes: how many words of a list are used. seed: draws the people's facts.
    Raises ValueError for numbers that no world can have.
    """

    story: int = 1
    facts: int = 0
    sums: int = 0
    code: int = 0
    requests: int = 0
    questions: int = 0
    people: int = 1000
    exponent: float = 1.0
    first_names: int = 160
    last_names: int = 150
    towns: int = 74
    jobs: int = 80
    foods: int = 80
    animals: int = 40
    objects: int = 81
    places: int = 40
    seed: int = 0

    # the kinds of documents, and the smallest sizes
    KINDS: ClassVar = ("story", "facts", "sums", "code", "requests")
    LEAST: ClassVar = {
        "first_names": 2, "last_names": 1, "towns": 1, "jobs": 2, "foods": 1, "animals": 1, "objects": 2, "places": 2,
    }  # fmt: skip

    def __post_init__(self):
        bounds = {name: (least, len(LISTS[_kind(name)])) for name, least in self.LEAST.items()}
        bounds |= {kind: (0, 1000) for kind in self.KINDS}
        bounds |= {"questions": (0, 999), "seed": (0, 2**63)}
        for name, (least, most) in bounds.items():
            self._check(name, least, most)
        self._check("people", 2, max(2, self.first_names * self.last_names // 2))  # half of what the names allow
        if not any(getattr(self, kind) for kind in self.KINDS):
            raise ValueError("all shares are 0: a world has documents of some kind")
        if not 0 <= self.exponent <= 2:
            raise ValueError(f"exponent is {self.exponent}: expected 0 (all alike) to 2")

    def _check(self, name, least, most):
        value = getattr(self, name)
        if not isinstance(value, int) or not least <= value <= most:
            raise ValueError(f"{name} is {value!r}: expected a whole number from {least} to {most}")


def _kind(size: str) -> str:
    """The list whose size a configuration's number is: "first_names" is that of "first name"."""
    return size[:-1].replace("_", " ")


class Person(NamedTuple):
    """Somebody and the facts about them; None where a text names somebody whom the world does not know."""

    first: str
    last: str
    gender: str
    age: str | None = None
    job: str | None = None
    town: str | None = None
    food: str | None = None

    @property
    def noun(self) -> str | None:
        """Boy, girl, man or woman."""
        return NOUNS.get((self.gender, self.age))


class World:
    """A configuration's words and people.

    people: by first and last name. firsts: a choice of a first name, last_names[first]: of the last name after it.
    """

    def __init__(self, config: Config):
        self.config = config
        sizes = {_kind(name): getattr(config, name) for name in config.LEAST}
        self.lists = {kind: tuple(words[: sizes.get(kind)]) for kind, words in LISTS.items()}
        self.people: dict[tuple[str, str], Person] = {}
        self._draw_people(Random(config.seed).random)
        by_first: dict[str, dict[str, int]] = {}
        for rank, (first, last) in enumerate(self.people, 1):
            by_first.setdefault(first, {})[last] = max(1, round(SCALE * rank**-config.exponent))
        self.first_weights = {first: sum(lasts.values()) for first, lasts in by_first.items()}
        self.firsts = self.first_names_but(None)
        self.last_names = {
            first: Choice(tuple(lasts), tuple(lasts.values()), LISTS["last name"], "known")
            for first, lasts in by_first.items()
        }
        self.places, self.animals, self.objects = (even(self.lists[kind]) for kind in ("place", "animal", "object"))

    def _draw_people(self, random):
        def draw(kind):
            return self.lists[kind][int(random() * len(self.lists[kind]))]

        while len(self.people) < self.config.people:
            first, last = draw("first name"), draw("last name")
            age = "young" if random() < 0.5 else "old"
            facts = age, draw("job"), draw("town"), draw("food")
            second_of_its_name = len(self.people) == 1 and first in next(iter(self.people))
            if (first, last) not in self.people and not second_of_its_name:  # a story needs two different first names
                self.people[first, last] = Person(first, last, gender(first), *facts)

    @functools.cache  # noqa: B019  worlds are few and are kept
    def first_names_but(self, first: str | None) -> Choice:
        """A choice of a first name, one name left out."""
        weights = {name: weight for name, weight in self.first_weights.items() if name != first}
        return Choice(tuple(weights), tuple(weights.values()), LISTS["first name"], "known")

    def last_name(self, first: str) -> Choice:
        """The choice of a last name after a first name, which may be nobody's."""
        return self.last_names.get(first) or even(LISTS["last name"])

    def person(self, first: str, last: str) -> Person:
        """Who is called so; a stranger without facts if the world knows nobody of that name."""
        return self.people.get((first, last)) or Person(first, last, gender(first))


def gender(first: str) -> str:
    """A first name's: "m" or "f"."""
    return "m" if first in MEN else "f"


@functools.cache
def world_of(config: Config) -> World:
    """The world of a configuration, built once."""
    return World(config)
