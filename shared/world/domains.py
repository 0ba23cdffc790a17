"""The story world's other documents: facts to memorise, sums, a dialect of code, lists of requests.

Each is told as a `Tale` is, a `sentence()` at a time until it is `over`; `Document` joins the kinds.
"""

import functools
from collections import Counter
from typing import ClassVar

from shared.world import words as w
from shared.world.choice import Choice, Lost, Voice, even
from shared.world.people import SCALE, World
from shared.world.tales import Tale

LARGEST, MOST_LINES = 49, 6  # the largest number in a sum; the most assignments in a program


class Facts:
    """Sentences that are true: of people by name, and of kinds of things. One in four is the last."""

    GENERAL: ClassVar = {"A": 5, "All": 2, "capital": 1}  # in a hundred sentences

    def __init__(self, world: World, voice: Voice):
        self.world, self.over = world, False
        self.say, self.tell, self.pick = voice.say, voice.tell, voice.pick

    @staticmethod
    @functools.cache
    def starts(world: World, end: bool) -> Choice:
        """The first words of a sentence, with the document's end among them or not."""
        people = sum(world.first_weights.values())
        general = Facts.GENERAL
        weights = {name: weight * (100 - sum(general.values())) for name, weight in world.first_weights.items()}
        weights |= {"A": general["A"] * people, "All": general["All"] * people}
        weights |= {capital: general["capital"] * people // len(w.CAPITALS) for capital in w.CAPITALS}
        if end:
            weights[w.END] = 100 * people // 3
        return Choice(tuple(weights), tuple(weights.values()))

    def sentence(self, first: str | None = None) -> None:
        """Tell the next sentence, or the end."""
        word = first or self.pick(self.starts(self.world, True))
        if word == w.END:
            self.over = True
            return
        if word == "A":
            self._kind()
        elif word == "All":
            plural = self.pick(even([w.PLURAL[name] for name in self.world.lists["object"]]))
            self.say("are made of")
            self.tell(w.MATERIAL_OF[w.SINGULAR[plural]], "material", "fact")
        elif word in w.CAPITALS:
            self.say("is the capital of")
            self.tell(w.COUNTRY_OF[word], "country", "fact")
        else:
            self._person(word)
        self.say(".")

    def _person(self, first):
        person = self.world.person(first, self.pick(self.world.last_name(first)))
        verb = self.pick(PERSON_VERBS)
        if verb == "is":
            self.say("a")
            self.tell(person.noun, "noun", "fact")
        elif verb == "works":
            self.say("as a")
            self.tell(person.job, "job", "fact")
        elif verb == "likes":
            self.tell(person.food, "food", "fact")
        else:
            self.say("from")
            self.tell(person.town, "town", "fact")

    def _kind(self):
        lists = self.world.lists
        word = self.pick(even((*lists["job"], *lists["animal"], *lists["object"], "boy", "girl")))
        kind = w.KIND[word]
        if kind == "object":
            self.say("is made of")
            self.tell(w.MATERIAL_OF[word], "material", "fact")
            return
        self.say("is")
        grown = kind == "animal" and word not in w.GROWN_UP
        if self.pick(even(("an",) if grown else ("a",), ("a", "an"), "article")) == "an":
            self.say("animal")
        elif kind == "job":
            self.say("person")
        elif word in w.GROWN_UP:
            self.say("young")
            self.tell(w.GROWN_UP[word], w.KIND[w.GROWN_UP[word]], "fact")
        else:
            raise Lost("an animal is not a ...")


PERSON_VERBS = even(("is", "works", "likes", "comes"))


class Sums:
    """One sum of numbers up to 49, in digits or in words: 12 + 30 = 42. or twelve plus thirty is forty two."""

    start = even((*w.DIGITS, *w.UNITS, *w.TEENS, *w.TENS[:3]))

    def __init__(self, world: World, voice: Voice):
        self.voice, self.over, self.done = voice, False, False
        self.say, self.tell, self.pick = voice.say, voice.tell, voice.pick

    def sentence(self, first: str | None = None) -> None:
        """Tell the sum, then the end."""
        if self.done:
            self.say(w.END)
            self.over = True
            return
        self.done = True
        first = first or self.pick(self.start)
        digits = first in w.DIGITS
        plus, minus, equals = ("+", "-", "=") if digits else ("plus", "minus", "is")
        numbers = {spoken(n, digits): n for n in range(LARGEST + 1)}
        *a, sign = one_of(self.voice, [(*number, sign) for number in numbers for sign in (plus, minus)], "sum", first)
        a = numbers[tuple(a)]
        most = LARGEST if sign == plus else a
        *b, _ = one_of(self.voice, [(*number, equals) for number, n in numbers.items() if n <= most], "negative")
        b = numbers[tuple(b)]
        number_and_stop(self.voice, spoken(a + b if sign == plus else a - b, digits), "sum")


@functools.cache
def spoken(number: int, digits: bool) -> tuple[str, ...]:
    """A number from 0 to 99 in digits or in words."""
    if digits:
        return tuple(str(number))
    tens, units = divmod(number, 10)
    if number < 20:
        return ((w.UNITS + w.TEENS)[number],)
    return (w.TENS[tens - 2], w.UNITS[units]) if units else (w.TENS[tens - 2],)


def one_of(voice: Voice, phrases: list[tuple[str, ...]], rule: str, first: str | None = None) -> tuple[str, ...]:
    """One of the phrases, word by word, all alike but for a first word said already; none is another's beginning."""
    said = (first,) if first else ()
    while said not in phrases:
        left = [phrase for phrase in phrases if phrase[: len(said)] == said]
        if not left:
            raise Lost("none of the phrases")
        counts = Counter(phrase[len(said)] for phrase in left)
        word = voice.pick(Choice(tuple(counts), tuple(counts.values()), (*w.DIGITS, *w.LISTS["number"]), rule))
        said = (*said, word)
    return said


def number_and_stop(voice: Voice, words: tuple[str, ...], rule: str) -> None:
    """A number that is known, and a full stop; a wrong one may be longer or shorter."""
    expected, sayable = iter(words), (*w.LISTS[w.KIND[words[0]]], ".")
    while voice.pick(even((next(expected, "."),), sayable, rule)) != ".":
        pass


class Code:
    """A short program in a dialect of its own, and what it prints: let b = 3; let c = b + 4; print c => 7."""

    start = even(("let",))

    def __init__(self, world: World, voice: Voice):
        self.voice, self.over, self.done = voice, False, False
        self.say, self.tell, self.pick = voice.say, voice.tell, voice.pick
        self.values: dict[str, int] = {}
        self.lines = 0

    def sentence(self, first: str | None = None) -> None:
        """Tell the next assignment, the printing, or the end."""
        if self.done:
            self.say(w.END)
            self.over = True
        elif (first or self.pick(self._let_or_print())) == "let":
            self.lines += 1
            self._let()
        else:
            self.done = True
            value = self._value(self.pick(even(tuple(self.values), w.VARIABLES, "defined")))
            self.say("=>")
            number_and_stop(self.voice, spoken(value, True), "value")

    def _let_or_print(self):
        if self.lines == 0:
            return even(("let",))
        return even(("print",)) if self.lines == MOST_LINES else LET_OR_PRINT

    def _let(self):
        name = self.pick(even(w.VARIABLES))
        self.say("=")
        what = self.pick(even((*self.values, *w.DIGITS), (*w.VARIABLES, *w.DIGITS), "defined"))
        if what in w.DIGITS:
            value = int(what)
        else:
            value = self._value(what)
            if self.pick(PLUS_OR_MINUS if value else even(("+",), ("+", "-"), "negative")) == "+":
                value += int(self.pick(even(w.DIGITS)))
            else:
                value -= int(self.pick(even(w.DIGITS[: value + 1], w.DIGITS, "negative")))
        self.say(";")
        self.values[name] = value

    def _value(self, name):
        if name not in self.values:
            raise Lost(f"{name} has no value")
        return self.values[name]


LET_OR_PRINT = Choice(("let", "print"), (3, 1))
PLUS_OR_MINUS = even(("+", "-"))


class Requests:
    """A list of what one may ask for, with no answers: Write a happy story about Tom. List the places. ..."""

    start = Choice(("Write", "List"), (3, 1))

    def __init__(self, world: World, voice: Voice):
        self.world, self.over = world, False
        self.say, self.tell, self.pick = voice.say, voice.tell, voice.pick

    def sentence(self, first: str | None = None) -> None:
        """Tell the next request, or the end."""
        word = first or self.pick(REQUESTS)
        if word == w.END:
            self.over = True
            return
        if word == "Write":
            self.say("a")
            self.pick(even(w.TONES))
            self.say("story about")
            self.pick(self.world.firsts)
        else:
            self.say("the")
            self.pick(even(w.LISTABLE))
        self.say(".")


REQUESTS = Choice((w.END, "Write", "List"), (1, 3, 1))


class Document:
    """A document of any kind: the first word tells which. kind: its name in `Config`, "" before that word."""

    KINDS: ClassVar = {"story": Tale, "facts": Facts, "sums": Sums, "code": Code, "requests": Requests}

    def __init__(self, world: World, voice: Voice):
        self.world, self.voice = world, voice
        self.kind, self.body = "", None

    @property
    def over(self) -> bool:
        """It is told to its end."""
        return self.body is not None and self.body.over

    @property
    def opening(self) -> bool:
        """What the rest speaks of has still to be introduced."""
        return self.body is None or bool(getattr(self.body, "opening", None))

    def sentence(self) -> None:
        """Tell the next sentence, or the end."""
        if self.body is not None:
            self.body.sentence()
            return
        first = self.voice.pick(first_words(self.world))
        kinds = {"Once": "story", "let": "code", "Write": "requests", "List": "requests"}
        is_number = w.KIND[first] in ("digit", "number")
        self.kind = kinds.get(first, "sums" if is_number else "facts")
        self.body = self.KINDS[self.kind](self.world, self.voice)
        self.body.sentence(first)

    def run(self) -> None:
        """Tell it all."""
        while not self.over:
            self.sentence()


@functools.cache
def first_words(world: World) -> Choice:
    """The choice of a document's first word: each kind's own, times the kind's share."""
    weights = {}
    for kind, body in Document.KINDS.items():
        start = Facts.starts(world, False) if kind == "facts" else body.start
        if share := getattr(world.config, kind):
            for word, weight in zip(start.words, start.weights, strict=True):
                weights[word] = max(1, share * SCALE**2 * weight // start.total)
    return Choice(tuple(weights), tuple(weights.values()))
