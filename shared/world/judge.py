"""Is each sentence grammatical, does it agree with what was said before, and if not, which rule is broken where?

    judgement = judge("Once Tom Hill, ...")
    judgement.consistent          # the share of its sentences that are
    print(judgement)              # a line for each sentence that is not, and why

The judge reads with the grammar that writes (`tales`, `domains`). A word that is offered is right. One that could be
said there but is not true breaks the rule of that place; the story goes on as if it were so. Any other ends the
understanding of that sentence, and reading starts again after it.
"""

import functools
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from shared.world.choice import Choice, Lost, fixed, told
from shared.world.domains import Document
from shared.world.people import Config, World, world_of
from shared.world.words import END, KIND, join, split

RULES = {
    "known": "people are those whom the world knows, and the two in a story have different first names",
    "fact": "a person's age, job, home and favourite food, and what things are, never change",
    "kin": "what somebody is to the hero fits both their ages",
    "pronoun": "he, she and it, his and her go by the one they stand for",
    "twice": "the two things in a story differ in name and in colour",
    "hero": "the first one named is the one who wants something",
    "subject": "who acted last is a pronoun, any other is named, a thing is not the subject twice running, "
    "and the end comes after three to eight events",
    "possible": "nobody finds a thing when none lies, gives or keeps one without any, or takes one that no other has",
    "move": "one goes to another place than where one is",
    "free": "only what lies somewhere can be found",
    "holder": "only what one holds can be given, put away or kept, and it is taken from who holds it",
    "self": "nobody gives a thing to themselves",
    "place": "who or what is in a place stays there until moved",
    "colour": "a thing keeps its colour",
    "mood": "who is given a thing is glad, who loses one is cross, as is the hero in the end with or without the wish",
    "ending": "the hero has what was wanted in the end if it was got, and is without it if not",
    "wish": "what was wanted stays the same, and only the hero wants something",
    "sum": "a sum comes out right",
    "defined": "a variable has a value before it is used",
    "negative": "no value falls below zero",
    "value": "what is printed is the variable's value",
    "stranger": "only those are spoken of who were introduced",
    "grammar": "a sentence has one of the forms of the grammar",
    "opening": "a document whose opening cannot be followed cannot be judged",
}


@dataclass(frozen=True)
class Breach:
    """A broken rule. at: the word's number in the text. expected: some of the words that were right there."""

    rule: str
    at: int
    found: str
    expected: tuple[str, ...]

    def __str__(self):
        right = ", ".join(map(repr, self.expected))
        return f"{self.rule}: word {self.at} is {self.found!r}, right was {right or 'nothing'} ({RULES[self.rule]})"


@dataclass
class Sentence:
    """A sentence, or a line's end. start: the number of its first word. finished: not cut off by the text's end."""

    start: int
    text: str = ""
    breaches: list[Breach] = field(default_factory=list)
    finished: bool = True

    @property
    def grammatical(self) -> bool:
        """It has one of the forms of the grammar."""
        return not any(breach.rule in ("grammar", "opening") for breach in self.breaches)

    @property
    def consistent(self) -> bool:
        """It is grammatical and breaks no rule."""
        return not self.breaches


@dataclass
class Judgement:
    """What the judge found. finished: the text ends where a document does. documents: each one's kind."""

    sentences: list[Sentence]
    documents: list[Document]

    @property
    def finished(self) -> bool:
        """The last document is complete."""
        return bool(self.documents) and self.documents[-1].body is not None and self.documents[-1].body.over

    @property
    def flawless(self) -> bool:
        """Every sentence is consistent, and the text is finished."""
        return self.finished and all(sentence.consistent for sentence in self.sentences)

    @property
    def consistent(self) -> float:
        """The share of the finished sentences that are consistent; 0 if there are none."""
        return _share(sentence.consistent for sentence in self.sentences if sentence.finished)

    @property
    def grammatical(self) -> float:
        """The share of the finished sentences that are grammatical; 0 if there are none."""
        return _share(sentence.grammatical for sentence in self.sentences if sentence.finished)

    def __str__(self):
        lines = [f"{sentence.text} <- {b}" for sentence in self.sentences for b in sentence.breaches]
        return "\n".join([*lines, *([] if self.finished else ["the text breaks off"])]) or "nothing is wrong"


def judge(text: str, config: Config | None = None) -> Judgement:
    """Judge a text of any kinds of documents. config: the world whose people it speaks of, the default world's if None.

    Raises ValueError for a text without words.
    """
    words = split(text)
    if not words:
        raise ValueError("there is no word to judge")
    listener = _Listener(words)
    documents = []
    while listener.at < len(words):
        documents.append(Document(world_of(config or Config()), listener))
        _hear(listener, documents[-1])
    return Judgement(listener.sentences, documents)


def _hear(listener: "_Listener", document: Document) -> None:
    """One document, from where the listener stands."""
    try:
        listener.begin()
        first = listener.pick(_openings(document.world))
        document.begin(first)
        document.body.sentence(first)
        listener.end()
        while not document.body.over:
            _hear_sentence(listener, document)
    except Lost:  # in the opening: who and what the rest speaks of is not known
        listener.skip()
        listener.give_up()
    except _Ended:
        listener.end(finished=False)


def _hear_sentence(listener: "_Listener", document: Document) -> None:
    opening = bool(getattr(document.body, "opening", None))
    listener.begin()
    try:
        document.body.sentence()
    except Lost:
        if opening or listener.here == END:
            raise
        listener.skip()
    listener.end()


@functools.cache
def _openings(world: World) -> Choice:
    """The first words of documents of every kind, also of those that the configuration leaves out."""
    every = replace(world.config, story=1, facts=1, sums=1, code=1, requests=1)
    return Document.start(world_of(every))


class _Ended(Exception):  # noqa: N818  the text has no more words
    pass


class _Listener:
    """The voice that has the words already and notes which of them are wrong."""

    def __init__(self, words: list[str]):
        self.words, self.at = words, 0
        self.sentences: list[Sentence] = []

    def say(self, words):
        for word in words.split(" "):
            self.pick(fixed(word))

    def tell(self, word, kind, rule):
        return self.pick(told(word, kind, rule))

    def pick(self, choice):
        if self.at == len(self.words):
            raise _Ended
        word = self.here
        if word in choice.words:
            self.at += 1
            return word
        kinds = {KIND[each] for each in (*choice.words, *choice.among)}
        if word in choice.among:
            rule = choice.rule
        elif KIND.get(word) in kinds - {"word", "sign"}:
            rule = "stranger"
        else:
            rule = "grammar"
        self.sentences[-1].breaches.append(Breach(rule, self.at, word, tuple(choice.words[:5])))
        if word not in choice.among:
            raise Lost(word)
        self.at += 1
        return word

    @property
    def here(self) -> str:
        """The next word."""
        return self.words[self.at]

    def begin(self):
        """A sentence begins here."""
        self.sentences.append(Sentence(self.at))

    def end(self, finished=True):
        """It ends before here; a line's end, and nothing at all, are no sentences."""
        sentence = self.sentences[-1]
        sentence.text, sentence.finished = join(self.words[sentence.start : self.at]).strip(), finished
        if not sentence.text and not sentence.breaches:
            self.sentences.pop()

    def skip(self):
        """Go on behind the sentence's end, or before the line's end."""
        while self.at < len(self.words) and self.here != END:
            self.at += 1
            if self.words[self.at - 1] in SENTENCE_ENDS:
                return

    def give_up(self):
        """Call every further sentence of this document one that cannot be judged."""
        self.end()
        while self.at < len(self.words) and self.here != END:
            self.begin()
            self.sentences[-1].breaches.append(Breach("opening", self.at, self.here, ()))
            self.skip()
            self.end()
        self.at += 1


SENTENCE_ENDS = (".", "?", ";")


def _share(flags: Iterable[bool]) -> float:
    flags = list(flags)
    return sum(flags) / len(flags) if flags else 0.0
