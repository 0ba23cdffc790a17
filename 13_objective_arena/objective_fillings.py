"""The probability of what is seen of a story, summed over all its fillings: exact, though they are too many to list.

    pattern = Pattern(["Once", HOLE, "Hill", GAP, "\\n"])         # a hidden word; one or more
    chances(pattern, tale)                                        # {length in words: probability}

What comes after a sentence depends on how things stand, not on how it was told. So a story is read sentence by
sentence, in all ways at once, and those after which things stand alike go on as one (the forward algorithm, Baum et al.
1970). Alike are

    - the same state: who is where, who holds what, who acted last, how many events there were;
    - states that differ by words of which no trace is seen later: to exchange two places, colours, objects, animals or
      ways to rest changes no probability, since the grammar treats all alike; nor does it matter what people are
      called, once they have entered, and which facts they have, unless the name or the fact is seen later.

Within a sentence, too, one word stands for all that are alike: "went" for "walked", a new place for any other new one.
Only what cannot be is dropped, and nothing is drawn by chance: the sum is exact but for the rounding of floats. What it
costs is not bounded: TooMany is raised when `most` sentences were told.
"""

import copy
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from types import MethodType
from typing import NamedTuple

from shared.world import words as w
from shared.world.choice import Choice, Reading, fixed
from shared.world.people import Person
from shared.world.state import Agent, State, Thing
from shared.world.tales import ADVERBS, Tale
from shared.world.words import KIND

HOLE, GAP = None, ...  # in a pattern: one hidden word; one or more, of which nobody knows how many
ALIKE = {word: kind[0] for kind in (w.MOVES, w.PUTS, w.TAKES, w.GIVES, w.GLAD, w.CROSS, ADVERBS) for word in kind}
EXCHANGED = {word for kind in ("place", "colour", "object", "animal") for word in w.LISTS[kind]} | set(w.STAYS)
EXCHANGED_LATER = EXCHANGED.union(w.FIRST_NAMES)  # when both people have entered
Reach = tuple[int, int, bool]  # of a reading: words said, items of the pattern passed, within a gap or not


class Step(NamedTuple):
    """A word that may come next, and where it leads in the pattern."""

    word: str
    probability: float
    reach: Reach


class TooMany(Exception):  # noqa: N818  not an error of the program
    """Raised where a sum has more states than were allowed."""


class Dead(Exception):  # noqa: N818  not an error of the program
    """Raised where the grammar offers nothing that fits the pattern."""


class Cut(Exception):  # noqa: N818  not an error of the program
    """Raised where a pattern that was cut ends within a sentence."""


class Pattern:
    """What is seen of a text. items: words, HOLEs and GAPs, no two GAPs side by side. cut: the text may go on.

    longest: how many words the text has at most, None for any number. later[i]:
    the words that are seen from item i on.
    """

    def __init__(self, items: Sequence, longest: int | None = None, cut: bool = False):
        self.items, self.longest, self.cut = list(items), longest, cut
        self.later = [frozenset()]
        for item in reversed(self.items):
            self.later.append(self.later[-1] | {item} if isinstance(item, str) else self.later[-1])
        self.later.reverse()

    def steps(self, reach: Reach) -> list[tuple[str | None, Reach]]:
        """What may be said next, a word or None for any, each with the reach after it."""
        said, at, within = reach
        found = [(HOLE, (said + 1, at, True))] if within else []
        at += within
        if at < len(self.items):
            item = self.items[at]
            found.append((HOLE, (said + 1, at, True)) if item is GAP else (item, (said + 1, at + 1, False)))
        if self.longest is None:
            return found
        return [step for step in found if step[1][0] + len(self.items) - step[1][1] - step[1][2] <= self.longest]

    def ends(self, reach: Reach) -> bool:
        """Whether a text that ends here fits."""
        _, at, within = reach
        return at + within == len(self.items)


class Filler(Reading):
    """The voice that says what is seen and, where several words fit, the next of `choices`, or the first that fits.

    others: for each word that would have fitted as well, the choices that lead to it.
    """

    def __init__(self, pattern: Pattern, reach: Reach, choices: Sequence[Step], used: Collection[str]):
        self.pattern, self.reach, self.choices, self.used = pattern, reach, choices, set(used)
        self.probability = 1.0
        self.made: list[Step] = []
        self.others: list[tuple[Step, ...]] = []

    def pick(self, choice: Choice) -> str:
        """The next word. Raises Dead or Cut."""
        steps = self.steps(choice)
        if not steps:
            raise Cut if self.pattern.cut and self.pattern.ends(self.reach) else Dead
        step = steps[0] if len(steps) == 1 else self.choose(steps)
        self.probability *= step.probability
        self.reach = step.reach
        self.used.add(step.word)
        return step.word

    def choose(self, steps: list[Step]) -> Step:
        """One of several."""
        at = len(self.made)
        if at == len(self.choices):
            self.others += [(*self.made, other) for other in steps[1:]]
            self.choices = (*self.choices, steps[0])
        self.made.append(self.choices[at])
        return self.made[-1]

    def say(self, words: str) -> None:
        """Words that stand here in any case: those that are seen are passed quickly."""
        for word in words.split(" "):
            said, at, within = self.reach
            if not within and at < len(self.pattern.items) and self.pattern.items[at] == word:
                self.reach = said + 1, at + 1, False
            else:
                self.pick(fixed(word))

    def steps(self, choice: Choice) -> list[Step]:
        """The words that are offered and fit; one stands for all that are alike."""
        found = []
        for wanted, reach in self.pattern.steps(self.reach):
            if wanted is HOLE:
                found += [Step(word, weight / choice.total, reach) for word, weight in self.kinds(choice, reach)]
            elif wanted in choice.words:
                found.append(Step(wanted, choice.weights[choice.words.index(wanted)] / choice.total, reach))
        return found

    def kinds(self, choice: Choice, reach: Reach) -> Iterable[tuple[str, int]]:
        """A word of each kind that is offered, and the weight of all that are alike."""
        if len(choice.words) == 1:
            return [(choice.words[0], choice.total)]
        later, kinds = self.pattern.later[reach[1]], {}
        for word, weight in zip(choice.words, choice.weights, strict=True):
            new = word in EXCHANGED and word not in self.used and word not in later
            first, before = kinds.get(kind := KIND[word] if new else ALIKE.get(word, word), (word, 0))
            kinds[kind] = first, before + weight
        return kinds.values()


def twin(tale: Tale, voice: Reading) -> Tale:
    """The same tale with another voice: what happens in one leaves the other alone."""
    other = copy.copy(tale)
    other.voice, other.say, other.tell, other.pick = voice, voice.say, voice.tell, voice.pick
    other.opening = [MethodType(method.__func__, other) for method in tale.opening]
    old = tale.state
    agents = {it.word: Agent(it.word, it.pronoun, it.place, it.person, it.mood) for it in old.agents.values()}
    things = {}
    for it in old.things.values():
        holder = it.holder and agents[it.holder.word]
        things[it.word] = Thing(it.word, it.colour, it.place, holder, it.news)
    people, animal = [agents[it.word] for it in old.people], old.animal and agents[old.animal.word]
    other.state = State(agents, people, animal, things, old.wish, old.ending)
    other.last = tale.last and agents[tale.last.word]
    return other


def spoken_of(tale: Tale) -> set[str | None]:
    """The words that how things stand now is told by."""
    state = tale.state
    found = {it for agent in state.agents.values() for it in (agent.word, agent.place)}
    return found.union(*((it.word, it.colour, it.place) for it in state.things.values()), [tale.idle])


def how_things_stand(tale: Tale, later: Collection[str]) -> tuple:
    """All that what comes after a sentence depends on, if these words are seen `later`: equal where states are alike.
    Moods are not in it: no story asks for them."""
    state, exchanged = tale.state, EXCHANGED
    agents = [(it.word, it.place, it.person and it.person.last) for it in state.agents.values()]
    if len(state.people) == 2:
        exchanged = EXCHANGED_LATER
        agents = [(it.word, it.place, it.pronoun, *_facts(it.person, later)) for it in state.agents.values()]
    things = [(it.word, it.colour, it.place, it.holder and it.holder.word, it.news) for it in state.things.values()]
    last = tale.last and tale.last.word
    rest = len(tale.opening), tale.events, last, tale.idle, tale.asked, state.wish, state.ending, tale.over
    numbers = {}
    return tuple(
        numbers.setdefault(it, (KIND[it], len(numbers))) if it in exchanged and it not in later else it
        for part in (*agents, *things, rest)
        for it in part
    )


def _facts(person: Person | None, later: Collection[str]) -> list[str | None]:
    facts = (person.job, person.town, person.food, person.noun) if person else ()
    return [it if it in later else None for it in facts]


def can_be_told(tale: Tale, later: Collection[str]) -> bool:
    """Whether those who are spoken of later can all have entered: after the opening nobody and nothing does."""
    state, missing = tale.state, Counter(KIND[word] for word in later.difference(spoken_of(tale)))
    left = {"first name": 2 - len(state.people), "animal": state.animal is None}
    left |= dict.fromkeys(("object", "colour"), 2 - len(state.things))
    return all(missing[kind] <= n for kind, n in left.items())


def tellings(pattern: Pattern, tale: Tale, reach: Reach) -> Iterator[tuple[Tale | None, float, Reach]]:
    """Every way to tell the next sentence: the tale after it (None: it was cut), its probability, the reach after it.

    Ways that are alike are one.
    """
    used, todo = spoken_of(tale), [()]
    while todo:
        voice = Filler(pattern, reach, todo.pop(), used)
        told = twin(tale, voice)
        try:
            told.sentence()
            yield told, voice.probability, voice.reach
        except Dead:
            pass
        except Cut:
            yield None, voice.probability, voice.reach
        todo += voice.others


def chances(pattern: Pattern, tale: Tale, reach: Reach = (0, 0, False), most: int = 200_000) -> dict[int, float]:
    """The probability of what is seen behind a reach, given the tale so far, by the length of the text in words.

    Raises TooMany when `most` sentences were told and some are still to tell.
    """
    found, alive, left = defaultdict(float), {reach: {(): (1.0, tale)}}, most
    while alive:
        reach = min(alive)
        for weight, before in alive.pop(reach).values():
            for told, probability, after in tellings(pattern, before, reach):
                chance, left = weight * probability, left - 1
                if left < 0:
                    raise TooMany(f"{most} sentences were told, and {sum(map(len, alive.values()))} states wait")
                later = pattern.later[after[1]]
                if told is None or told.over or (pattern.cut and pattern.ends(after)):
                    found[after[0]] += chance * pattern.ends(after)
                elif can_be_told(told, later):
                    states, stand = alive.setdefault(after, {}), how_things_stand(told, later)
                    states[stand] = states.get(stand, (0.0,))[0] + chance, told
    return found
