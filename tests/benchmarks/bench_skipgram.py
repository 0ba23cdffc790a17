"""Lesson 02's skip-gram with negative sampling against gensim's Word2Vec: words a second, and what was learnt.

    .venv/bin/python tests/benchmarks/bench_skipgram.py

Prints a table and the goals, and exits with status 1 if a goal is not met. Both learn from the same sentences of the
story world with the same width, window, negatives, sub-sampling and number of epochs, gensim with one worker; the score
is the share of words whose nearest word is of the same kind. gensim's inner loop is compiled C that moves a vector
after each pair; ours is PyTorch on batches of pairs.
"""

import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from gensim.models import Word2Vec
from measure import Goal, cpu_seconds, median_ratio, one_thread, print_table, report

from shared.world import Config, split, stories
from shared.world.words import KIND

sys.path.insert(0, str(Path(__file__).parents[2] / "02_meaning_space"))
from skipgram import cosine, purity, train

WIDTH, WINDOW, NEGATIVES, EPOCHS, SAMPLE = 24, 5, 5, 3, 1e-3
DOCUMENTS, SEEDS, ROUNDS = 4000, 3, 5
NO_KINDS = ("word", "sign", "verb", "pronoun", "owner", "age", "special")  # words that are no members of a kind
SLOWER, WORSE = 8.0, 0.02  # what PyTorch may cost against C; 1.5 times the spread of a score over eight seeds

Sentences = list[list[str]]


def text(n: int, seed: int) -> Sentences:
    """Sentences of n documents of a story world."""
    lines = "".join(story.text for story in stories(n, seed, Config(story=1, facts=8))).replace("?", ".").split(".")
    return [words for words in (split(line.strip()) for line in lines) if words]


def ours(sentences: Sentences, epochs: int, seed: int) -> tuple[list[str], torch.Tensor]:
    """The words, and lesson 02's vectors of them."""
    words = sorted({word for sentence in sentences for word in sentence})
    ids = {word: i for i, word in enumerate(words)}
    rows = [torch.tensor([ids[word] for word in sentence]) for sentence in sentences]
    settings = {"window": WINDOW, "k": NEGATIVES, "epochs": epochs, "threshold": SAMPLE, "seed": seed}
    return words, train(rows, len(words), WIDTH, **settings)[0]


def gensim(sentences: Sentences, epochs: int, seed: int) -> tuple[list[str], torch.Tensor]:
    """The words, and gensim's vectors of them."""
    settings = {"window": WINDOW, "negative": NEGATIVES, "epochs": epochs, "sample": SAMPLE, "seed": seed + 1}
    model = Word2Vec(sentences, vector_size=WIDTH, min_count=1, sg=1, workers=1, **settings)
    return model.wv.index_to_key, torch.from_numpy(model.wv.vectors.copy())


def score(words: Sequence[str], vectors: torch.Tensor) -> float:
    """The share of words whose nearest is of their kind, by the story world's own lists."""
    members = [i for i, word in enumerate(words) if KIND[word] not in NO_KINDS]
    names = sorted({KIND[words[i]] for i in members})
    kinds = torch.tensor([names.index(KIND[words[i]]) for i in members])
    return purity(cosine(vectors[members], vectors[members]), kinds)


@dataclass(frozen=True)
class Row:
    """One trainer. speed: words in a CPU second, the median. slower: time in gensim's. scores: one for each seed."""

    name: str
    speed: float
    slower: float
    scores: tuple[float, ...]


def measure(n: int, epochs: int, seeds: int, rounds: int) -> list[Row]:
    """Both trainers on n documents."""
    sentences = text(n, 0)
    n_words = epochs * sum(map(len, sentences))
    trainers = {"ours": ours, "gensim": gensim}
    seconds = cpu_seconds({name: partial(way, sentences, epochs, 0) for name, way in trainers.items()}, rounds)
    with one_thread():
        scores = {
            name: tuple(score(*way(text(n, seed), epochs, seed)) for seed in range(seeds))
            for name, way in trainers.items()
        }
    return [
        Row(
            name,
            n_words / statistics.median(seconds[name]),
            median_ratio(seconds[name], seconds["gensim"]),
            scores[name],
        )
        for name in trainers
    ]


def goals(rows: Sequence[Row]) -> list[Goal]:
    """What must hold of the two rows."""
    our, their = rows
    gap = statistics.mean(our.scores) - statistics.mean(their.scores)
    return [
        Goal("CPU time as a multiple of gensim's", our.slower, SLOWER),
        Goal("gensim's share of kinds known minus ours", -gap, WORSE),
    ]


def show(rows: Sequence[Row]) -> None:
    """Print the table."""
    head = ("trainer", "words a CPU second", "x gensim's time", "kinds known, by seed")
    lines = [
        (row.name, f"{row.speed:,.0f}", f"{row.slower:.2f}", " ".join(f"{share:.1%}" for share in row.scores))
        for row in rows
    ]
    print_table(head, lines)


def main() -> int:
    """Measure, print, decide."""
    rows = measure(DOCUMENTS, EPOCHS, SEEDS, ROUNDS)
    show(rows)
    return report(goals(rows))


if __name__ == "__main__":
    sys.exit(main())
