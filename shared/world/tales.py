"""The grammar of the story world's stories: which words may come next, how likely, and what they change.

A tale is told to a voice, sentence by sentence. It says words that stand there in any case, tells the one that is true
there, and has the voice pick where there are several. A voice that draws by the weights writes a text, one that has a
text's words already reads it (`writing`), and one that also minds what is true judges it (`judge`).

The laws of a story. Two people and an animal are somewhere; each of two things lies in a place or is held by one of
the three. Who finds, puts, gives or takes a thing goes where the thing, the place or the other one is. Only what lies
can be found, only what one holds can be given, put away or kept, only what another holds can be taken. Nobody rests,
eats, works or the like twice running. "He", "she" and "it" are the subject of the sentence before, which is not named
again. A person has one home, job and favourite food in all texts. The hero wants one of the things, and in the end has
it and is glad, or has it not and is sad, or we are not told.
"""

import functools

from shared.world import words as w
from shared.world.choice import Choice, Lost, Voice, but, even
from shared.world.people import World
from shared.world.sheet import QUESTIONS, question
from shared.world.state import Agent, State, Thing

FEWEST_EVENTS, MOST_EVENTS = 3, 8
ADVERBS, ENDINGS, PRONOUNS = ("Then", "Later", "Soon"), ("In", "Nobody"), ("he", "she", "it")
IDLE = frozenset(w.STAYS + w.FACT_VERBS)  # verbs that change nothing


class Tale:
    """A story as it is told to a voice: each `sentence()` is the next one, until it is `over`."""

    start = even(("Once",))

    def __init__(self, world: World, voice: Voice):
        self.world, self.voice, self.state, self.over = world, voice, State(), False
        self.say, self.tell, self.pick = voice.say, voice.tell, voice.pick
        self.last: Agent | None = None  # the subject of the sentence before
        self.events, self.asked, self.idle = 0, False, ""  # idle: the subject's last verb, if it changed nothing
        self.opening = [self._hero, self._other, self._animal, self._one_thing, self._another_thing, self._wish]

    def sentence(self, first: str | None = None) -> None:
        """Tell the next sentence; `first` is its first word if that was said already."""
        if self.opening:
            self.opening[0](first)
            del self.opening[0]
        elif self.state.ending:
            self._after()
        else:
            self._event()

    # the opening: six sentences of always the same length

    def _hero(self, first):
        if first is None:
            self.say("Once")
        person = self._name(self.world.firsts)
        self.say(",")
        self.pick(even(("an",) if person.age == "old" else ("a",), ("a", "an"), "article"))
        self.tell(person.age, "age", "fact")
        self.tell(person.job, "job", "fact")
        self.say("from")
        self.tell(person.town, "town", "fact")
        self.say(", was in the")
        self._enter(person, self.pick(self.world.places))
        self.say(".")

    def _other(self, _):
        hero = self.state.hero
        person = self._name(self.world.first_names_but(hero.word))
        self.say(",")
        self.tell({"m": "his", "f": "her"}[hero.person.gender], "owner", "pronoun")
        self.pick(_kin(hero.person.age, person.age, person.gender))
        self.say(", was in the")
        self._enter(person, self.pick(self.world.places))
        self.say(".")

    def _animal(self, _):
        self.say("A")
        word = self.pick(self.world.animals)
        self.say("was in the")
        self.state.animal = self.state.agents[word] = Agent(word, "it", self.pick(self.world.places))
        self.say(".")

    def _one_thing(self, _):
        self._lying(even(w.COLOURS), self.world.objects)

    def _another_thing(self, _):
        (one,) = self.state.things.values()
        objects = but(one.word, self.world.lists["object"], "twice")
        self._lying(but(one.colour, tuple(w.COLOURS), "twice"), objects)

    def _wish(self, _):
        self.last = self.state.hero
        self.tell(self.last.word, "first name", "hero")
        self.say("wanted the")
        self.state.wish = self.pick(even(tuple(self.state.things)))
        self.say("in the")
        self.tell(self.state.things[self.state.wish].place, "place", "place")
        self.say(".")
        self._list_what_can_be_said()

    def _list_what_can_be_said(self):
        """The words for everybody and everything in the story: its cast does not change after the opening."""
        names, things = (agent.word for agent in self.state.people), self.state.things.values()
        self.people_sayable = (*names, "the")
        self.things_sayable = (*self.state.things, *(thing.colour for thing in things))
        self.subjects_sayable = (*PRONOUNS, *self.people_sayable)
        self.beginnings_sayable = ("The", "He", "She", "It", *ADVERBS, *ENDINGS, *self.people_sayable[:-1])

    def _name(self, firsts):
        first = self.pick(firsts)
        last = self.pick(self.world.last_name(first))
        return self.world.person(first, last)

    def _enter(self, person, place):
        agent = self.state.agents[person.first] = Agent(person.first, w.PRONOUNS[person.gender], place, person)
        self.state.people.append(agent)

    def _lying(self, colours, objects):
        self.say("A")
        colour = self.pick(colours)
        word = self.pick(objects)
        self.say("was in the")
        self.state.things[word] = Thing(word, colour, self.pick(self.world.places))
        self.say(".")

    # the events: who, what, and what it changes

    def _event(self):
        first = self.pick(self._beginnings())
        if first in ENDINGS:
            self._end(first)
            return
        self.events += 1
        subject = self._subject(self.pick(self._subjects()) if first in ADVERBS else first)
        if isinstance(subject, Thing):
            self.last = None
            self._report(subject)
        else:
            if subject is not self.last:
                self.idle = ""
            self.last = subject
            self._act(subject)

    def _subject(self, first):
        """Whom the sentence's first word, or the next one after "the", stands for."""
        if first.lower() in PRONOUNS:
            if self.last is None:
                raise Lost("a pronoun for nobody")
            return self.last
        if first in self.state.agents:
            return self.state.agents[first]
        word = self.pick(self._animals_and_things() if first == "The" else even((self.state.animal.word,)))
        return self.state.things.get(word) or self.state.agents[word]

    def _beginnings(self):
        words, weights = [], []
        if self.events < MOST_EVENTS:
            words, weights = list(ADVERBS), [1] * len(ADVERBS)
            if self._animal_may_act or self.last:
                words.append("The")
                weights.append(4 * self._animal_may_act + sum(self._reports().values()) // 2)
            self._add_people(words, weights, 4)
            if self.last:
                words.append(self.last.pronoun.capitalize())
                weights.append(12)
        if self.events >= FEWEST_EVENTS:
            words += ENDINGS
            weights += 3, 1
        return Choice(words, weights, self.beginnings_sayable, "subject")

    def _subjects(self):
        words, weights = (["the"], [4]) if self._animal_may_act else ([], [])
        self._add_people(words, weights, 4)
        if self.last:
            words.append(self.last.pronoun)
            weights.append(12)
        return Choice(words, weights, self.subjects_sayable, "subject")

    def _add_people(self, words, weights, weight):
        for agent in self.state.people:
            if agent is not self.last:
                words.append(agent.word)
                weights.append(weight)

    @property
    def _animal_may_act(self):
        return self.last is None or self.last.person is not None

    def _animals_and_things(self):
        reports = self._reports()
        words, weights = list(reports), list(reports.values())
        if self._animal_may_act:
            words.append(self.state.animal.word)
            weights.append(8)
        return Choice(words, weights, (*self.state.things, self.state.animal.word), "subject")

    def _reports(self):
        """The things to report on, with weights: none after a sentence of a thing; news come more often."""
        return {thing.word: 12 if thing.news else 2 for thing in self.state.things.values()} if self.last else {}

    def _act(self, subject):
        things = self.state.things.values()
        lying = [thing for thing in things if thing.holder is None]
        held = [thing for thing in things if thing.holder is subject]
        others = [thing for thing in things if thing.holder not in (None, subject)]
        verb = self.pick(_verbs(subject.person is not None, bool(lying), bool(held), bool(others), self.idle))
        self.idle = verb if verb in IDLE else ""
        if verb in w.MOVES:
            self.say("to the")
            subject.place = self.pick(but(subject.place, self.world.lists["place"], "move"))
        elif verb in w.STAYS:
            self._here(subject)
        elif verb in w.FINDS:
            thing = self._thing(lying, "free")
            self.say("in the" if verb == "found" else "from the")
            subject.place = self.tell(thing.where, "place", "place")
            thing.pass_to(subject)
        elif verb in w.PUTS:
            thing = self._thing(held, "holder")
            self.say("in the")
            subject.place = self.pick(self.world.places)
            thing.lie_in(subject.place)
        elif verb in w.GIVES:
            self._give(subject, held)
            return
        elif verb in w.TAKES:
            self._take(subject, others)
            return
        elif verb == "kept":
            self._thing(held, "holder")
        elif subject.person is None:
            raise Lost("an animal without facts")
        elif verb == "ate":
            self.tell(subject.person.food, "food", "fact")
            self._here(subject)
        elif verb == "worked":
            self.say("as a")
            self.tell(subject.person.job, "job", "fact")
            self._here(subject)
        else:
            self.say("of")
            self.tell(subject.person.town, "town", "fact")
        self.say(".")

    def _here(self, subject):
        self.say("in the")
        subject.place = self.tell(subject.place, "place", "place")

    def _give(self, giver, held):
        thing = self._thing(held, "holder")
        self.say("to")
        receiver = self._agent([agent for agent in self.state.agents.values() if agent is not giver], "self")
        self.say("in the")
        giver.place = self.tell(receiver.place, "place", "place")
        thing.pass_to(receiver)
        self._mood(receiver, "glad")

    def _take(self, taker, others):
        thing = self._thing(others, "holder")
        self.say("from")
        owner = self._agent([thing.holder] if thing.holder else [], "holder")
        self.say("in the")
        taker.place = self.tell(owner.place, "place", "place")
        thing.pass_to(taker)
        self._mood(owner, "cross")

    def _mood(self, agent, kind):
        if self.pick(MOOD_OR_STOP) == ".":
            return
        self.say("and")
        self.tell(agent.pronoun, "pronoun", "pronoun")
        self.say("was")
        agent.mood = self.pick(MOODS[kind])
        self.say(".")

    def _thing(self, offered, rule):
        """ "the", and one of the things by its name or by colour and name."""
        self.say("the")
        words = [thing.word for thing in offered] + [thing.colour for thing in offered]
        word = self.pick(even(words, self.things_sayable, rule))
        return self.state.things.get(word) or self._coloured(word)

    def _coloured(self, colour):
        true = tuple(thing.word for thing in self.state.things.values() if thing.colour == colour)
        return self.state.things[self.pick(even(true, tuple(self.state.things), "colour"))]

    def _agent(self, offered, rule):
        """One of the agents as an object of the sentence."""
        names = [agent.word for agent in offered if agent.person]
        words = names + (["the"] if len(names) < len(offered) else [])
        word = self.pick(even(words, self.people_sayable, rule))
        if word == "the":
            word = self.pick(even((self.state.animal.word,)))
        return self.state.agents[word]

    def _report(self, thing):
        self.say("was")
        if self.pick(even(("with",) if thing.holder else ("in",), ("with", "in"), "held")) == "in":
            self.say("the")
            thing.lie_in(self.tell(thing.where, "place", "place"))
        else:
            thing.pass_to(self._agent([thing.holder] if thing.holder else [], "holder"))
        thing.news = False
        self.say(".")

    # the ending, and questions after it

    def _end(self, first):
        hero, thing = self.state.hero, self.state.things[self.state.wish]
        if first == "Nobody":
            self.say("knows what happened next .")
            self.state.ending = "open"
            return
        self.say("the end the")
        self.tell(hero.person.noun, "noun", "fact")
        self.say("had")
        happy = self.pick(even(("the",) if thing.holder is hero else ("no",), ("the", "no"), "ending")) == "the"
        self.tell(thing.word, "object", "wish")
        self.say("and was")
        self.state.ending = "happy" if happy else "sad"
        hero.mood = self.pick(MOODS["glad" if happy else "cross"])
        self.say(".")

    def _after(self):
        word = self.pick(_end_or_question(self.world.config.questions, self.asked))
        if word == w.END:
            self.over = True
            return
        self.asked = True
        question(self.voice, self.world, self.state, word)


MOODS = {"glad": even(w.GLAD, w.GLAD + w.CROSS, "mood"), "cross": even(w.CROSS, w.GLAD + w.CROSS, "mood")}
MOOD_OR_STOP = Choice((".", ","), (7, 3))


@functools.cache
def _kin(hero: str | None, other: str | None, gender: str) -> Choice:
    """What the other one can be to the hero, both "young" or "old" (None: a stranger's age, then anything)."""
    tables = [w.SAME_KIN] if hero == other else [w.OLD_KIN] if other == "old" else [w.YOUNG_KIN]
    tables = tables if hero and other else [w.SAME_KIN, w.OLD_KIN, w.YOUNG_KIN]
    return even([word for table in tables for word in table[gender]], w.KIN, "kin")


@functools.cache
def _verbs(is_person: bool, lying: bool, holds: bool, others_hold: bool, idle: str) -> Choice:
    """What somebody can do now. idle: what they just did, and will not do again at once; "" for nothing such."""
    groups = [(w.MOVES, 2, True), (w.STAYS, 2, True), (["ate", "worked"], 3, is_person), (["dreamed"], 2, is_person)]
    groups += [(w.FINDS, 8, lying), (w.PUTS, 4, holds), (w.GIVES, 7, holds), (["kept"], 3, holds)]
    groups += [(w.TAKES, 4, others_hold)]
    offered = [(verb, weight) for verbs, weight, possible in groups if possible for verb in verbs if verb != idle]
    words, weights = zip(*offered, strict=True)
    return Choice(words, weights, w.VERBS, "possible")


@functools.cache
def _end_or_question(questions: int, asked: bool) -> Choice:
    """The end of the document, or a first or further question. questions: of a thousand stories, how many have one."""
    going_on = 600 if asked else questions
    words = [w.END, *QUESTIONS] if going_on else [w.END]
    return Choice(words, [(1000 - going_on) * len(QUESTIONS)] + [going_on] * (len(words) - 1))
