"""How fast the story world writes, and how fast its model is loaded: CPU seconds on one core.

    .venv/bin/python tests/benchmarks/bench_world.py

There is no peer that writes text of known entropy; beside it stands the least that any generator in Python must do,
drawing as many words from one fixed list and joining them. Exits with status 1 if the goal is not met.
"""

import sys
import time
from random import Random

from measure import Goal, cpu_seconds, median_ratio, print_table, report

from shared.story_model import load_story_lm
from shared.world import STORY, VOCABULARY, split, stories

GOAL_SECONDS, GOAL_STORIES, GOAL_LOADING = 20, 100_000, 0.5


def least(n: int, length: int) -> list[str]:
    """n texts of `length` words, all drawn from the vocabulary."""
    random = Random(0).random
    return [" ".join([VOCABULARY[int(random() * 1000)] for _ in range(length)]) for _ in range(n)]


def measure(n: int, rounds: int) -> tuple[float, float]:
    """CPU seconds for 100,000 stories, the median of the rounds, and how many times the least that is."""
    length = len(split("".join(story.text for story in stories(200, 0, STORY)))) // 200
    candidates = {"world": lambda: stories(n, 1, STORY), "least": lambda: least(n, length)}
    seconds = cpu_seconds(candidates, rounds)
    median = sorted(seconds["world"])[rounds // 2]
    return median * GOAL_STORIES / n, median_ratio(seconds["world"], seconds["least"])


def main() -> int:
    """Measure and report."""
    start = time.process_time()
    load_story_lm()
    loading = time.process_time() - start  # the first time, when libraries load what they put off
    seconds, ratio = measure(n=10_000, rounds=5)
    rate = f"{GOAL_STORIES / seconds:,.0f}"
    print_table(("stories a CPU second", "times the least"), [(rate, f"{ratio:.1f}")])
    goals = [Goal(f"CPU seconds for {GOAL_STORIES:,} stories", seconds, GOAL_SECONDS)]
    return report([*goals, Goal("CPU seconds to load the story model", loading, GOAL_LOADING)])


if __name__ == "__main__":
    sys.exit(main())
