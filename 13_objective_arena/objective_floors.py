"""Exact floors of the story world for objectives that read more than the left side: no model's expected loss is lower.

    told = Told(split(story.text))
    told.left                                  # nats of each word, given all before it
    told.two_sided(20)                         # nats of word 20, given all others
    told.masked([3, 20, 41])                   # nats of each of these, given all but these three
    told.filled([(10, 13), (40, 42)])          # nats of all in two spans, given the rest; where they end is not known

A hidden word's probability is P(what is seen, and the word) / P(what is seen), and `objective_fillings` has both.

Exact: the left side, for any text; two sides; masks while not too many words are hidden, 40 % as a rule; spans, ends
included; a middle of unknown length if it is known to have at most some ten words. Exact by the chain rule, for whole
texts in sum alone: from the right, which is the left side's sum; words in a random order, and so masked diffusion's
bound, which is the left side's sum less -log P(length), since who fills masks sees the length (`objective_lengths`).
Not computed: a single word from the right, unless it is near a text's start; a long middle; BERT's 80/10/10, where a
word that is seen may be a wrong one.
"""

import math
from collections.abc import Callable, Collection, Iterable, Sequence

from objective_fillings import GAP, HOLE, Filler, Pattern, Reach, chances, tellings
from objective_world import WORLD

from shared.world import Config, nats
from shared.world.people import world_of
from shared.world.tales import Tale
from shared.world.words import join

Span, Law = tuple[int, int], Callable[[int], float]


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
            reach, tale = self._sentences[-1]
            ((tale, _, reach),) = tellings(pattern, tale, reach)
            if tale is None:
                break
            self._sentences.append((reach, tale))

    def masked(self, hidden: Collection[int], asked: Iterable[int] | None = None) -> list[float]:
        """Nats of each hidden word, or of those that are asked, given the words that are not hidden and the length.

        hidden: positions, the first is 0. Raises ValueError for a word that is asked and not hidden, and TooMany.
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
        reach, tale = self._before(min(spans)[0])
        pattern = Pattern([*items, *self.words[max(end, 0) :]], longest if law else n, self.cut)
        found = chances(pattern, tale, reach, self.most)
        total = math.fsum(p * law(length) for length, p in found.items()) / law(n) if law else found[n]
        return math.fsum(self.left[reach[0] :]) + math.log(total)

    def seen(self, hidden: Collection[int]) -> float:
        """Minus the log of the probability that a text has this length and these words, but for the hidden ones."""
        items = [HOLE if at in hidden else word for at, word in enumerate(self.words)]
        reach, tale = self._before(min(hidden, default=len(items) - 1))
        found = chances(Pattern(items, len(items), self.cut), tale, reach, self.most)
        return math.fsum(self.left[: reach[0]]) - math.log(found[len(items)])

    def _before(self, at: int) -> tuple[Reach, Tale]:
        """Where the sentence of word `at` begins."""
        return [it for it in self._sentences if it[0][0] <= at][-1]
