"""Telling 32 stories by `shared.generation` against the loop that it replaced, which reads all again for each word.

    .venv/bin/python tests/benchmarks/bench_generation.py

Both draw row i by a generator begun with the same seed and drop a story that has ended, so that they tell the same
stories; how many differ is told. A story may: the cache sums in another order, and a draw that falls within a rounding
of two words takes the other one. Exits with status 1 if a goal is not met.
"""

import statistics
import sys
from collections.abc import Callable

import torch
from measure import Goal, cpu_seconds, median_ratio, print_table, report

from shared.generation import generate, seeded
from shared.story_model import load_story_lm
from shared.tiny_lm import TinyLM
from shared.world.words import END, ID, encode

N_STORIES, ROUNDS = 32, 3
BEGINNING = [ID[END], *encode("Once")]


def by_the_shared_loop(model: TinyLM, n: int, most: int) -> list[list[int]]:
    """n stories, the words after the beginning, `most` at most."""
    return generate(model, [BEGINNING] * n, most, stop=[ID[END]], generators=seeded(range(n)))


@torch.no_grad()
def by_the_loop_before(model: TinyLM, n: int, most: int) -> list[list[int]]:
    """The same by the dashboard's loop as it was: no cache."""
    rows, generators = torch.tensor([BEGINNING] * n), [torch.Generator().manual_seed(i) for i in range(n)]
    told, still = [[]] * n, list(range(n))
    for step in range(most):
        p = model(rows)[:, -1].softmax(-1)
        drawn = [torch.multinomial(p[i : i + 1], 1, generator=generators[row]) for i, row in enumerate(still)]
        rows = torch.cat([rows, torch.cat(drawn)], dim=1)
        ended = (rows[:, -1] == ID[END]) | (step == most - 1)
        for row, i in zip(rows[ended], [i for i, over in zip(still, ended, strict=True) if over], strict=True):
            told[i] = row[len(BEGINNING) :].tolist()
        rows, still = rows[~ended], [i for i, over in zip(still, ended, strict=True) if not over]
        if not still:
            break
    return told


def measure(model: TinyLM, n: int, most: int, rounds: int) -> tuple[dict[str, list[float]], int]:
    """CPU seconds of n stories in each round by both loops, and how many stories differ."""
    told: dict[str, list[list[int]]] = {}

    def keeping(name: str, tell: Callable) -> Callable[[], None]:
        return lambda: told.__setitem__(name, tell(model, n, most))

    ways = {"shared loop": by_the_shared_loop, "loop before": by_the_loop_before}
    seconds = cpu_seconds({name: keeping(name, tell) for name, tell in ways.items()}, rounds)
    pairs = zip(*told.values(), strict=True)
    return seconds, sum(ours != theirs for ours, theirs in pairs)


def goals(seconds: dict[str, list[float]], differing: int) -> list[Goal]:
    """Four times faster, and at most one story in 32 another."""
    faster = median_ratio(seconds["loop before"], seconds["shared loop"])
    return [
        Goal("the shared loop's speed as a multiple of the loop before", faster, 4, at_least=True),
        Goal("stories that differ", differing, 1),
    ]


def main() -> int:
    """Measure and print everything; returns the exit status."""
    model = load_story_lm()
    seconds, differing = measure(model, N_STORIES, model.context - len(BEGINNING), ROUNDS)
    print(f"{N_STORIES} stories of up to {model.context - len(BEGINNING)} words, float32, one thread")
    rows = [[name, f"{statistics.median(each):.2f}"] for name, each in seconds.items()]
    print_table(["way", "CPU s, median"], rows)
    return report(goals(seconds, differing))


if __name__ == "__main__":
    sys.exit(main())
