"""Exact floors of the story world for objectives that read more than the left side: no model's expected loss is lower.

    told = Told(split(story.text))
    told.left                                  # nats of each word, given all before it
    told.two_sided(20)                         # nats of word 20, given all others
    told.masked([3, 20, 41])                   # nats of each of these, given all but these three
    told.filled([(10, 13), (40, 42)])          # nats of all in two spans, given the rest; where they end is not known

All of it is one sum. The probability of what can be seen of a text is that of all its fillings together, and a hidden
word's is P(what is seen and the word) / P(what is seen). The sum is over thousands of fillings and more, but what comes
after a sentence depends on how things stand, not on how it was told: a text is read sentence by sentence, all fillings
at once, and those after which things stand alike go on as one (the forward algorithm, Baum et al. 1970). Alike are

    - the same state: who is where, who holds what, who acted last, how many events there were;
    - states that differ by words of which no trace is seen later: to exchange two places, colours, objects or animals
      changes no probability, since the grammar treats all alike. Names differ, for people have facts.

Nothing is dropped and nothing is drawn by chance, so the sum is exact but for the rounding of floats. Its cost is not
bounded: where more states are alive than `most`, TooMany is raised.
"""

import copy
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from types import MethodType
from typing import NamedTuple

from objective_world import WORLD

from shared.world import Config, nats
from shared.world import words as w
from shared.world.choice import Choice, Reading, fixed
from shared.world.people import world_of
from shared.world.state import Agent, State, Thing
from shared.world.tales import ADVERBS, Tale
from shared.world.words import KIND, join

HOLE, GAP = None, ...  # in a pattern: one hidden word; hidden words, one at least, nobody knows how many
ALIKE = {word: kind[0] for kind in (w.MOVES, w.PUTS, w.TAKES, w.GIVES, w.GLAD, w.CROSS, ADVERBS) for word in kind}
EXCHANGED = {word for kind in ("place", "colour", "object", "animal") for word in w.LISTS[kind]}


Place, Span, Law = tuple[int, int, bool], tuple[int, int], Callable[[int], float]


class Step(NamedTuple):
    """A word that may come next, and where it leads in the pattern."""

    word: str
    probability: float
    place: Place


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

    longest: how many words the text has at most, None for any number. A place is (words said, items passed, in a gap).
    later[i]: the words that are seen from item i on.
    """

    def __init__(self, items: Sequence, longest: int | None = None, cut: bool = False):
        self.items, self.longest, self.cut = list(items), longest, cut
        self.later = [frozenset()]
        for item in reversed(self.items):
            self.later.append(self.later[-1] | {item} if isinstance(item, str) else self.later[-1])
        self.later.reverse()

    def steps(self, place: Place) -> list[tuple[str | None, Place]]:
        """What may be said next, a word or None for any, each with the place after it."""
        said, at, within = place
        found = [(HOLE, (said + 1, at, True))] if within else []
        at += within
        if at < len(self.items):
            item = self.items[at]
            found.append((HOLE, (said + 1, at, True)) if item is GAP else (item, (said + 1, at + 1, False)))
        if self.longest is None:
            return found
        return [step for step in found if step[1][0] + len(self.items) - step[1][1] - step[1][2] <= self.longest]

    def ends(self, place: Place) -> bool:
        """Whether a text that ends here fits."""
        _, at, within = place
        return at + within == len(self.items)


class Filler(Reading):
    """The voice that says what is seen and, where several words fit, the next of `choices`, or Fork."""

    def __init__(self, pattern: Pattern, place: Place, choices: Sequence[Step], used: Collection[str]):
        self.pattern, self.place, self.choices, self.used = pattern, place, iter(choices), set(used)
        self.probability = 1.0

    def pick(self, choice: Choice) -> str:
        """The next word. Raises Fork, Dead or Cut."""
        steps = self.steps(choice)
        if not steps:
            raise Cut if self.pattern.cut and self.pattern.ends(self.place) else Dead
        step = steps[0] if len(steps) == 1 else next(self.choices, None)
        if step is None:
            raise Fork(steps)
        self.probability *= step.probability
        self.place = step.place
        self.used.add(step.word)
        return step.word

    def say(self, words: str) -> None:
        """Words that stand here in any case: those that are seen are passed quickly."""
        for word in words.split(" "):
            said, at, within = self.place
            if not within and at < len(self.pattern.items) and self.pattern.items[at] == word:
                self.place = said + 1, at + 1, False
            else:
                self.pick(fixed(word))

    def steps(self, choice: Choice) -> list[Step]:
        """The words that are offered and fit; one stands for all that are alike."""
        found = []
        for wanted, place in self.pattern.steps(self.place):
            if wanted is HOLE:
                found += [Step(word, weight / choice.total, place) for word, weight in self.kinds(choice, place)]
            elif wanted in choice.words:
                found.append(Step(wanted, choice.weights[choice.words.index(wanted)] / choice.total, place))
        return found

    def kinds(self, choice: Choice, place: Place) -> Iterable[tuple[str, int]]:
        """A word of each kind that is offered, and the weight of all that are alike."""
        if len(choice.words) == 1:
            return [(choice.words[0], choice.total)]
        later, kinds = self.pattern.later[place[1]], {}
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


def tellings(pattern: Pattern, tale: Tale, place: Place) -> Iterator[tuple[Tale | None, float, Place]]:
    """Every way to tell the next sentence: the tale after it (None: it was cut), its probability, the place after it.

    Ways that are alike are one.
    """
    used, todo = set(how_things_stand(tale)), [()]
    while todo:
        choices = todo.pop()
        voice = Filler(pattern, place, choices, used)
        told = twin(tale, voice)
        try:
            told.sentence()
        except Fork as fork:
            todo += [(*choices, step) for step in fork.steps]
        except Dead:
            continue
        except Cut:
            yield None, voice.probability, voice.place
        else:
            yield told, voice.probability, voice.place


def chances(pattern: Pattern, tale: Tale, place: Place = (0, 0, False), most: int = 200_000) -> dict[int, float]:
    """The probability of what is seen behind a place, given the tale so far, by the length of the text in words.

    Raises TooMany when `most` sentences were told and some are still to tell.
    """
    found, alive, left = defaultdict(float), {place: {(): (1.0, tale)}}, most
    while alive:
        place = min(alive)
        for weight, before in alive.pop(place).values():
            for told, probability, after in tellings(pattern, before, place):
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


class Told:
    """A story whose floors are asked. words: it, to its end; cut: it may go on. left: nats of each, given all before.

    Raises ValueError for a world with other documents than stories, and for a text that it cannot write.
    """

    def __init__(self, words: Sequence[str], config: Config = WORLD, cut: bool = False, most: int = 200_000):
        if config.facts or config.sums or config.code or config.requests:
            raise ValueError(f"{config} has documents that are no stories: expected stories alone")
        self.words, self.cut, self.most = tuple(words), cut, most
        self.left = nats(join(self.words), config)
        pattern, start = Pattern(self.words, cut=cut), (0, 0, False)
        self._sentences = [(start, Tale(world_of(config), Filler(pattern, start, (), ())))]
        while len(self.words) > self._sentences[-1][0][1]:
            place, tale = self._sentences[-1]
            ((tale, _, place),) = tellings(pattern, tale, place)
            if tale is None:
                break
            self._sentences.append((place, tale))

    def masked(self, hidden: Collection[int], asked: Iterable[int] | None = None) -> list[float]:
        """Nats of each hidden word, or of those that are asked, given the words that are not hidden and the length.

        hidden: places of words, the first is 0. Raises ValueError for a word that is asked and not hidden, and TooMany.
        """
        hidden, asked = frozenset(hidden), list(hidden if asked is None else asked)
        if wrong := [at for at in asked if at not in hidden] or [at for at in hidden if not 0 <= at < len(self.words)]:
            raise ValueError(f"word {wrong[0]} is not hidden: expected words of {sorted(hidden)}, of {len(self.words)}")
        unknown = self.seen(hidden)
        return [self.seen(hidden - {at}) - unknown for at in asked]

    def two_sided(self, at: int) -> float:
        """Nats of one word, given all others."""
        return self.masked([at])[0]

    def filled(self, spans: Sequence[Span], law: Law | None = None, longest: int | None = None) -> float:
        """Nats of all words in spans (start, end), and of where each span ends, given the rest; spans do not touch.

        Without a law the reader knows the text's length, and each way to share the hidden words out among the spans is
        drawn as often as another. With it nobody knows the length, and law(n) is in proportion to the probability that
        a text of n words is cut so; it is 0 beyond n = longest. Raises ValueError for spans that are empty or touch,
        and TooMany.
        """
        items, end, n = [], -1, len(self.words)
        for start, stop in sorted(spans):
            if not end < start < stop <= n:
                raise ValueError(f"span {start, stop} of {n} words: expected some words, apart from others")
            items += [*self.words[max(end, 0) : start], GAP]
            end = stop
        place, tale = self._before(min(spans)[0])
        pattern = Pattern([*items, *self.words[max(end, 0) :]], longest if law else n, self.cut)
        found = chances(pattern, tale, place, self.most)
        total = math.fsum(p * law(length) for length, p in found.items()) / law(n) if law else found[n]
        return math.fsum(self.left[place[0] :]) + math.log(total)

    def seen(self, hidden: Collection[int]) -> float:
        """Minus the log of the probability that a text has this length and these words, but for the hidden ones."""
        items = [HOLE if at in hidden else word for at, word in enumerate(self.words)]
        place, tale = self._before(min(hidden, default=len(items) - 1))
        found = chances(Pattern(items, len(items), self.cut), tale, place, self.most)
        return math.fsum(self.left[: place[0]]) - math.log(found[len(items)])

    def _before(self, at: int) -> tuple[Place, Tale]:
        """Where the sentence of word `at` begins."""
        return [it for it in self._sentences if it[0][0] <= at][-1]
