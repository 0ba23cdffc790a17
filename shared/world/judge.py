"""Is each sentence grammatical, does it agree with what was said before, and if not, which rule is broken where?

    judgement = judge("Once Tom Hill, ...")
    judgement.consistent          # the share of its sentences that are
    print(judgement)              # a line for each sentence that is not, and why

The judge reads with the grammar that writes (`tales`, `sheet`, `domains`). A word that is offered is right. One that
could be said there but is not true breaks the rule of that place, and from then on it is as was said: who gives what
they do not hold has given it, so that an error counts once. Any other word ends the understanding of that sentence,
and reading starts again after its full stop. Spaces are not judged.
"""

import functools
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from shared.world.choice import Choice, Ended, Lost, Reading
from shared.world.domains import Document
from shared.world.people import Config, World, world_of
from shared.world.words import END, KIND, join, split

RULES = {
    "known": "people are those whom the world knows, and the two in a story have different first names",
    "fact": "a person's age, job, home and favourite food, and what things are, never change",
    "article": "an stands before old and before animal, a elsewhere",
    "kin": "what somebody is to the hero fits both their ages",
    "pronoun": "he, she and it, his and her go by the one they stand for",
    "twice": "the two things in a story differ in name and in colour",
    "hero": "the first one named is the one who wants something",
    "subject": "who acted last is called he, she or it, and others by name; no two sentences running are about a "
    "thing; the end comes after three to eight events",
    "possible": "one can find a thing if one lies, give, put or keep one if one has one, take one if another has one; "
    "an animal has no food, job or home; nobody rests, eats, works or the like in the same way twice running",
    "move": "one goes to another place than where one is",
    "free": "only what lies somewhere can be found",
    "holder": "only what one holds can be given, put away or kept, and it is taken from who holds it",
    "held": "a thing that somebody holds is with them, any other is in a place",
    "self": "nobody gives a thing to themselves",
    "place": "who or what is in a place stays there until moved",
    "colour": "a thing keeps its colour",
    "mood": "who is given a thing is glad, who loses one is cross; the hero ends glad with the wish, cross with none",
    "ending": "in the end the hero has what was wanted, or has it not, as it was",
    "wish": "what was wanted stays the same, and only the hero wants something",
    "sum": "a sum comes out right",
    "defined": "a variable has a value before it is used",
    "negative": "nothing falls below zero, and nothing is taken from zero",
    "value": "what is printed is the variable's value",
    "stranger": "nobody and nothing is spoken of that was not introduced",
    "grammar": "a sentence has one of the forms of the grammar",
    "opening": "what follows an opening that cannot be understood cannot be judged",
}
SENTENCE_ENDS = (".", "?", ";")
INTRODUCED = ("first name", "last name", "animal", "object")  # kinds of words for those who can be strangers


@dataclass(frozen=True)
class Breach:
    """A broken rule. at: the word's number in the text. expected: the words that were right there."""

    rule: str
    at: int
    found: str
    expected: tuple[str, ...]

    def __str__(self):
        some = ", ".join(map(repr, self.expected[:5])) + (", ..." if len(self.expected) > 5 else "")
        return f"{self.rule}: word {self.at} is {self.found!r}, right was {some or 'nothing'} ({RULES[self.rule]})"


@dataclass
class Sentence:
    """A sentence, or a line's end that comes too early. start: the number of its first word. finished: not cut off."""

    start: int
    text: str = ""
    breaches: list[Breach] = field(default_factory=list)
    finished: bool = True

    @property
    def grammatical(self) -> bool:
        """It was understood to its end: it has one of the forms of the grammar, and speaks of nobody unknown."""
        return not any(breach.rule in ("grammar", "stranger", "opening") for breach in self.breaches)

    @property
    def consistent(self) -> bool:
        """It is grammatical and breaks no rule."""
        return not self.breaches


@dataclass
class Judgement:
    """What the judge found. sentences: in order. documents: as they stand at their ends."""

    sentences: list[Sentence]
    documents: list[Document]

    @property
    def finished(self) -> bool:
        """The last document is complete."""
        return self.documents[-1].over

    @property
    def flawless(self) -> bool:
        """Every sentence is consistent, and every document is complete."""
        complete = all(document.over for document in self.documents)
        return complete and all(sentence.consistent for sentence in self.sentences)

    @property
    def consistent(self) -> float:
        """The share of the finished sentences that are consistent; 0 if there are none."""
        return _share(sentence.consistent for sentence in self.sentences if sentence.finished)

    @property
    def grammatical(self) -> float:
        """The share of the finished sentences that are grammatical; 0 if there are none."""
        return _share(sentence.grammatical for sentence in self.sentences if sentence.finished)

    def __str__(self):
        lines = [
            f"{sentence.text or 'the end of the line'} <- {b}" for sentence in self.sentences for b in sentence.breaches
        ]
        return "\n".join([*lines, *([] if self.finished else ["the text breaks off"])]) or "nothing is wrong"


def judge(text: str, config: Config | None = None) -> Judgement:
    """Judge a text of documents of any kinds, with questions or without.

    config: the world whose people and lists it speaks of; the default world's if None. Raises ValueError for a text
    without words.
    """
    words = split(text)
    if not words:
        raise ValueError("there is no word to judge")
    world, listener, documents = _all_kinds(config or Config()), _Listener(words), []
    while listener.at < len(words):
        documents.append(Document(world, listener))
        try:
            _hear(listener, documents[-1])
        except Ended:
            listener.end()
    return Judgement(listener.sentences, documents)


@functools.cache
def _all_kinds(config: Config) -> World:
    """The same people and lists, in a world that writes everything."""
    return world_of(replace(config, story=1, facts=1, sums=1, code=1, requests=1, questions=1))


def _hear(listener: "_Listener", document: Document) -> None:
    """One document, from where the listener stands."""
    while not document.over:
        listener.begin()
        try:
            document.sentence()
        except Lost:
            if document.opening or listener.here == END:
                listener.give_up()
                return
            listener.skip()
        listener.end()


class _Listener(Reading):
    """The voice that has the words already and notes which of them are wrong."""

    def __init__(self, words: list[str]):
        self.words, self.at = words, 0
        self.sentences: list[Sentence] = []

    @property
    def here(self) -> str:
        """The next word; "" where there is none."""
        return self.words[self.at] if self.at < len(self.words) else ""

    def pick(self, choice: Choice) -> str:
        """The next word, right or wrong; raises Lost if it could not be said here."""
        if self.at == len(self.words):
            raise Ended
        word = self.here
        if word in choice.words:
            self.at += 1
            return word
        sayable = word in choice.among
        rule = choice.rule if sayable else "stranger" if _is_stranger(word, choice) else "grammar"
        self.sentences[-1].breaches.append(Breach(rule, self.at, word, tuple(choice.words)))
        if not sayable:
            raise Lost(word)
        self.at += 1
        return word

    def begin(self) -> None:
        """A sentence begins here."""
        self.sentences.append(Sentence(self.at))

    def end(self) -> None:
        """It ends before here. A line's end where one belongs, and nothing at all, are no sentences."""
        sentence = self.sentences[-1]
        words = self.words[sentence.start : self.at]
        sentence.text, sentence.finished = join(words).strip(), words[-1:] != [] and words[-1] in SENTENCE_ENDS
        if not sentence.text and not sentence.breaches:
            self.sentences.pop()

    def skip(self) -> None:
        """Go on behind the sentence's end, or before the line's."""
        while self.here not in ("", END):
            self.at += 1
            if self.words[self.at - 1] in SENTENCE_ENDS:
                return

    def give_up(self) -> None:
        """Skip this sentence, and call each further one of this document one that cannot be judged."""
        self.skip()
        self.end()
        while self.here not in ("", END):
            self.begin()
            self.sentences[-1].breaches.append(Breach("opening", self.at, self.here, ()))
            self.skip()
            self.end()
        self.at += 1


def _is_stranger(word: str, choice: Choice) -> bool:
    """It is a name where another of its kind belongs."""
    kind = KIND.get(word)
    return kind in INTRODUCED and any(KIND[each] == kind for each in (*choice.words, *choice.among))


def _share(flags: Iterable[bool]) -> float:
    flags = list(flags)
    return sum(flags) / len(flags) if flags else 0.0
