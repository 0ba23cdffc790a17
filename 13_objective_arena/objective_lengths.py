"""What a story's length alone tells, in nats: who fills masks sees it, who writes word by word does not.

    length_nats(119)              # -log P(a row has 119 words)

A random order of the words costs, by the chain rule, -log P(words | length) in all: the left side's sum less this.
"""

import functools
import math
from collections import Counter
from itertools import islice

from objective_world import CONTEXT, WORLD

from shared.world import HELD_OUT, documents
from shared.world.words import split

STORIES = 5000


@functools.cache
def length_counts() -> Counter:
    """How many of `STORIES` stories, which are not those of `objective_world.held_out`, have each length in a row."""
    drawn = islice(documents(HELD_OUT + 1, WORLD), STORIES)
    return Counter(min(len(split(story.text)), CONTEXT) for story in drawn)


def length_nats(length: int) -> float:
    """Minus the log of the share of stories so long: counted, not exact, and each length to CONTEXT once more than it
    was seen, so that none is impossible. Raises ValueError for a length that no row has."""
    if not 1 <= length <= CONTEXT:
        raise ValueError(f"length is {length}: expected 1 to {CONTEXT} words")
    return -math.log((length_counts()[length] + 1) / (STORIES + CONTEXT))
