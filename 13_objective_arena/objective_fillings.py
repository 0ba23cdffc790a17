"""The probability of what is seen of a story, summed over all its fillings: exact, though they are too many to list.

    pattern = Pattern(["Once", HOLE, "Hill", GAP, "\\n"])         # a hidden word; one or more
    chances(pattern, tale)                                        # {length in words: probability}

What comes after a sentence depends on how things stand, not on how it was told. So a story is read sentence by
sentence, in all ways at once, and those after which things stand alike go on as one (the forward algorithm, Baum et al.
1970). Alike are

    - the same state: who is where, who holds what, who acted last, how many events there were;
    - states that differ by words of which no trace is seen later: to exchange two places, colours, objects or animals
      changes no probability, since the grammar treats all alike. Names are kept apart, for people have facts.

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
from shared.world.state import Agent, State, Thing
from shared.world.tales import ADVERBS, Tale
from shared.world.words import KIND

HOLE, GAP = None, ...  # in a pattern: one hidden word; one or more, of which nobody knows how many
ALIKE = {word: kind[0] for kind in (w.MOVES, w.PUTS, w.TAKES, w.GIVES, w.GLAD, w.CROSS, ADVERBS) for word in kind}
EXCHANGED = {word for kind in ("place", "colour", "object", "animal") for word in w.LISTS[kind]}
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


class Fork(Exception):  # noqa: N818  not an error of the program
    """Raised where several words fit."""

    def __init__(self, steps: list[Step]):
        self.steps = steps


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
    """The voice that says what is seen and, where several words fit, the next of `choices`, or Fork."""

    def __init__(self, pattern: Pattern, reach: Reach, choices: Sequence[Step], used: Collection[str]):
        self.pattern, self.reach, self.choices, self.used = pattern, reach, iter(choices), set(used)
        self.probability = 1.0

    def pick(self, choice: Choice) -> str:
        """The next word. Raises Fork, Dead or Cut."""
        steps = self.steps(choice)
        if not steps:
            raise Cut if self.pattern.cut and self.pattern.ends(self.reach) else Dead
        step = steps[0] if len(steps) == 1 else next(self.choices, None)
        if step is None:
            raise Fork(steps)
        self.probability *= step.probability
        self.reach = step.reach
        self.used.add(step.word)
        return step.word

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


def how_things_stand(tale: Tale) -> tuple:
    """All that what comes after a sentence depends on. Moods are not in it: no story asks for them."""
    state = tale.state
    agents = [(it.word, it.place) + ((it.person.last,) if it.person else ()) for it in state.agents.values()]
    things = [(it.word, it.colour, it.place, it.holder and it.holder.word, it.news) for it in state.things.values()]
    last = tale.last and tale.last.word
    rest = len(tale.opening), tale.events, last, tale.idle, tale.asked, state.wish, state.ending, tale.over
    return tuple(word for part in (*agents, *things, rest) for word in part)


def can_be_told(tale: Tale, later: Collection[str]) -> bool:
    """Whether those who are spoken of later can all have entered: after the opening nobody and nothing does."""
    state, missing = tale.state, Counter(KIND[word] for word in later.difference(how_things_stand(tale)))
    left = {"first name": 2 - len(state.people), "animal": state.animal is None}
    left |= dict.fromkeys(("object", "colour"), 2 - len(state.things))
    return all(missing[kind] <= n for kind, n in left.items())


def renamed(stand: tuple, later: Collection[str]) -> tuple:
    """The same, where words that can be exchanged and are not seen later are numbered by their first mention."""
    numbers = {}
    return tuple(
        numbers.setdefault(it, (KIND[it], len(numbers))) if it in EXCHANGED and it not in later else it for it in stand
    )


def tellings(pattern: Pattern, tale: Tale, reach: Reach) -> Iterator[tuple[Tale | None, float, Reach]]:
    """Every way to tell the next sentence: the tale after it (None: it was cut), its probability, the reach after it.

    Ways that are alike are one.
    """
    used, todo = set(how_things_stand(tale)), [()]
    while todo:
        choices = todo.pop()
        voice = Filler(pattern, reach, choices, used)
        told = twin(tale, voice)
        try:
            told.sentence()
        except Fork as fork:
            todo += [(*choices, step) for step in fork.steps]
        except Dead:
            continue
        except Cut:
            yield None, voice.probability, voice.reach
        else:
            yield told, voice.probability, voice.reach


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
                    states, stand = alive.setdefault(after, {}), renamed(how_things_stand(told), later)
                    states[stand] = states.get(stand, (0.0,))[0] + chance, told
    return found
