"""The story world's other documents: facts to memorise, sums, a dialect of code, lists of requests.

Each has, as a story has, a choice of its first word (`start`), `sentence()` and `over`; `Document` joins the kinds.
"""

import functools
from collections import Counter
from typing import ClassVar

from shared.world import words as w
from shared.world.choice import Choice, Lost, Voice, even
from shared.world.people import SCALE, World
from shared.world.tales import Story

LARGEST, MOST_LINES = 49, 6  # the largest number in a sum; the most assignments in a program


class Facts:
    """Sentences that are true: of people by name, and of kinds of things. One in four is the last."""

    GENERAL: ClassVar = {"A": 5, "All": 2, "capital": 1}  # in a hundred sentences

    def __init__(self, world: World, voice: Voice):
        self.world, self.voice, self.over = world, voice, False

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
        """The next sentence, or the end."""
        word = first or self.voice.pick(self.starts(self.world, True))
        if word == w.END:
            self.over = True
            return
        if word == "A":
            self._kind()
        elif word == "All":
            plural = self.voice.pick(even(w.PLURALS))
            self.voice.say("are made of")
            self.voice.tell(w.MATERIAL_OF[w.SINGULAR[plural]], "material", "fact")
        elif word in w.CAPITALS:
            self.voice.say("is the capital of")
            self.voice.tell(w.COUNTRY_OF[word], "country", "fact")
        else:
            self._person(word)
        self.voice.say(".")

    def _person(self, first):
        person = self.world.person(first, self.voice.pick(self.world.last_name(first)))
        verb = self.voice.pick(PERSON_VERBS)
        if verb == "is":
            self.voice.say("a")
            self.voice.tell(person.noun, "noun", "fact")
        elif verb == "works":
            self.voice.say("as a")
            self.voice.tell(person.job, "job", "fact")
        elif verb == "likes":
            self.voice.tell(person.food, "food", "fact")
        else:
            self.voice.say("from")
            self.voice.tell(person.town, "town", "fact")

    def _kind(self):
        word = self.voice.pick(A_KIND)
        kind = w.KIND[word]
        if kind == "object":
            self.voice.say("is made of")
            self.voice.tell(w.MATERIAL_OF[word], "material", "fact")
            return
        self.voice.say("is")
        article = self.voice.pick(
            even(("an",) if word in w.GROWN_ANIMALS + w.OTHER_ANIMALS else ("a",), ("a", "an"), "fact")
        )
        if article == "an":
            self.voice.say("animal")
        elif kind == "job":
            self.voice.say("person")
        elif word in w.GROWN_UP:
            self.voice.say("young")
            self.voice.tell(w.GROWN_UP[word], w.KIND[w.GROWN_UP[word]], "fact")
        else:
            raise Lost("an animal is not a ...")


PERSON_VERBS = even(("is", "works", "likes", "comes"))
A_KIND = even((*w.JOBS, *w.ANIMALS, *w.OBJECTS, "boy", "girl"))


class Sums:
    """One sum of numbers up to 49, in digits or in words: 12 + 30 = 42. or twelve plus thirty is forty two."""

    start = even((*w.DIGITS, *w.UNITS, *w.TEENS, *w.TENS[:3]))

    def __init__(self, world: World, voice: Voice):
        self.voice, self.over, self.done = voice, False, False

    def sentence(self, first: str | None = None) -> None:
        """The sum, then the end."""
        if self.done:
            self.voice.say(w.END)
            self.over = True
            return
        self.done = True
        first = first or self.voice.pick(self.start)
        digits = first in w.DIGITS
        plus, minus, equals = ("+", "-", "=") if digits else ("plus", "minus", "is")
        numbers = [spoken(n, digits) for n in range(LARGEST + 1)]
        *a, sign = one_of(self.voice, [(*number, sign) for number in numbers for sign in (plus, minus)], first)
        a = numbers.index(tuple(a))
        most = LARGEST if sign == plus else a
        *b, _ = one_of(self.voice, [(*number, equals) for number in numbers[: most + 1]])
        b = numbers.index(tuple(b))
        for word in spoken(a + b if sign == plus else a - b, digits):
            self.voice.tell(word, w.KIND[word], "sum")
        self.voice.say(".")


@functools.cache
def spoken(number: int, digits: bool) -> tuple[str, ...]:
    """A number from 0 to 99 in digits or in words."""
    if digits:
        return tuple(str(number))
    tens, units = divmod(number, 10)
    if number < 20:
        return ((w.UNITS + w.TEENS)[number],)
    return (w.TENS[tens - 2], w.UNITS[units]) if units else (w.TENS[tens - 2],)


def one_of(voice: Voice, phrases: list[tuple[str, ...]], first: str | None = None) -> tuple[str, ...]:
    """One of the phrases, word by word, all alike but for the first word, which may be given; none begins another."""
    said = []
    while len(phrases) > 1 or len(said) < len(phrases[0]):
        counts = Counter(phrase[len(said)] for phrase in phrases)
        word = (first if first and not said else None) or voice.pick(Choice(tuple(counts), tuple(counts.values())))
        phrases = [phrase for phrase in phrases if phrase[len(said)] == word]
        said.append(word)
    return tuple(said)


class Code:
    """A short program in a dialect of its own, and what it prints: let b = 3; let c = b + 4; print c => 7."""

    start = even(("let",))

    def __init__(self, world: World, voice: Voice):
        self.voice, self.over, self.done = voice, False, False
        self.values: dict[str, int] = {}
        self.lines = 0

    def sentence(self, first: str | None = None) -> None:
        """The next assignment, the printing, or the end."""
        if self.done:
            self.voice.say(w.END)
            self.over = True
        elif (first or self.voice.pick(LINES[(self.lines > 0) + (self.lines == MOST_LINES)])) == "let":
            self.lines += 1
            self._let()
        else:
            self.done = True
            value = self._value(self.voice.pick(even(tuple(self.values), w.VARIABLES, "defined")))
            self.voice.say("=>")
            for digit in spoken(value, True):
                self.voice.tell(digit, "digit", "value")
            self.voice.say(".")

    def _let(self):
        name = self.voice.pick(even(w.VARIABLES))
        self.voice.say("=")
        what = self.voice.pick(even((*self.values, *w.DIGITS), (*w.VARIABLES, *w.DIGITS), "defined"))
        if what in w.DIGITS:
            value = int(what)
        else:
            value = self._value(what)
            if self.voice.pick(PLUS_OR_MINUS if value else even(("+",))) == "+":
                value += int(self.voice.pick(even(w.DIGITS)))
            else:
                value -= int(self.voice.pick(even(w.DIGITS[: value + 1], w.DIGITS, "negative")))
        self.voice.say(";")
        self.values[name] = value

    def _value(self, name):
        if name not in self.values:
            raise Lost(f"{name} has no value")
        return self.values[name]


LINES = [even(("let",)), Choice(("let", "print"), (3, 1)), even(("print",))]
PLUS_OR_MINUS = even(("+", "-"))


class Requests:
    """A list of what one may ask for, with no answers: Write a happy story about Tom. List the places. ..."""

    start = Choice(("Write", "List"), (3, 1))

    def __init__(self, world: World, voice: Voice):
        self.world, self.voice, self.over = world, voice, False

    def sentence(self, first: str | None = None) -> None:
        """The next request, or the end."""
        word = first or self.voice.pick(REQUESTS)
        if word == w.END:
            self.over = True
            return
        if word == "Write":
            self.voice.say("a")
            self.voice.pick(even(w.TONES))
            self.voice.say("story about")
            self.voice.pick(self.world.firsts)
        else:
            self.voice.say("the")
            self.voice.pick(even(w.LISTABLE))
        self.voice.say(".")


REQUESTS = Choice((w.END, "Write", "List"), (1, 3, 1))


class Document:
    """A document of any kind: the first word tells which. kind: its name in `Config`, "" before that word."""

    KINDS: ClassVar = {"story": Story, "facts": Facts, "sums": Sums, "code": Code, "requests": Requests}

    def __init__(self, world: World, voice: Voice):
        self.world, self.voice, self.kind, self.body = world, voice, "", None

    @staticmethod
    @functools.cache
    def start(world: World) -> Choice:
        """The choice of a document's first word."""
        weights = {}
        for kind, body in Document.KINDS.items():
            share = getattr(world.config, kind)
            choice = body.start if kind != "facts" else Facts.starts(world, False)
            if share:
                weights |= {
                    word: max(1, share * SCALE**2 * weight // choice.total)
                    for word, weight in zip(choice.words, choice.weights, strict=True)
                }
        return Choice(tuple(weights), tuple(weights.values()))

    def begin(self, first: str) -> None:
        """Take the kind of document that begins with this word."""
        kinds = {"Once": "story", "let": "code", "Write": "requests", "List": "requests"}
        is_number = w.KIND[first] in ("digit", "number")
        self.kind = kinds.get(first, "sums" if is_number else "facts")
        self.body = self.KINDS[self.kind](self.world, self.voice)

    def tell(self) -> None:
        """The whole document."""
        first = self.voice.pick(self.start(self.world))
        self.begin(first)
        self.body.sentence(first)
        while not self.body.over:
            self.body.sentence()
