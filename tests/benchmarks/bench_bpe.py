"""Lesson 01's byte-pair encoding against Hugging Face's tokenizers and tiktoken: what learning and encoding cost.

    .venv/bin/python tests/benchmarks/bench_bpe.py

Prints tables and the goals, and exits with status 1 if a goal is not met. Everything is done with GPT-2's pattern, and
splitting is part of it; on Python's documentation, where no other text is named. Texts that are one long word are short
beside Hugging Face's trainer, whose time grows with the square of a word's length; a megabyte is for ours alone. The
two rungs that recount would take minutes on all of the documentation: they learn a few merges from its beginning,
beside the last rung. A warm tokenizer has encoded the same text before and
remembers most of it, which tiktoken never does: on text of which half is new it is somewhere between cold and warm.
"""

import json
import math
import os
import random
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

os.environ |= {"RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}  # read when tokenizers is first used

import tiktoken
import tokenizers
from measure import Goal, cpu_seconds, median_ratio, print_table, report, resident_bytes
from tokenizers import models, pre_tokenizers, trainers

from shared.corpus import python_docs

sys.path.insert(0, str(Path(__file__).parents[2] / "01_byte_pair_smith"))
from bpe import GPT2, Tokenizer, learn, learn_by_recounting, learn_from_distinct, train

SIZES = (1024, 4096)  # tokens in the vocabulary
SLICE, MERGES = 50_000, 64  # characters and merges for the rungs that recount
SHARES = (4, 2, 1)  # a quarter, a half and all of the text
LEVEL = 1.1  # the two are level at 4,096 tokens: five runs gave medians from 0.97 to 1.04
GROWING = (512, 1024, 2048, 4096)  # tokens in the vocabulary
WORD, MEGABYTE = 8_000, 1_000_000  # bytes of other texts: beside the peer, and for ours alone

Pairs = list[tuple[int, int]]


def text_of(kind: str, n: int) -> str:
    """n bytes, or nearly: "prose" is the documentation; "one letter" and "DNA" are one word; "Chinese" is characters by
    Zipf's law in clauses of 5 to 25, and "Chinese, one word" without any sign between them."""
    draw = random.Random(0)
    if kind == "prose":
        return python_docs()[:n]
    if kind == "one letter":
        return "a" * n
    if kind == "DNA":
        return "".join(draw.choices("ACGT", k=n))
    characters = draw.choices([chr(0x4E00 + i) for i in range(4000)], [1 / (i + 1) for i in range(4000)], k=n // 3)
    if kind == "Chinese":
        at = 0
        while (at := at + draw.randint(5, 25)) < len(characters):
            characters[at] = "，" if draw.random() < 0.5 else "。"
    return "".join(characters)


KINDS = ("one letter", "DNA", "Chinese", "Chinese, one word")


def ours(text: str, vocab_size: int) -> Callable[[], Pairs]:
    """Learn with the last rung; call what comes back for the merges."""
    return partial(getattr, train(text, vocab_size), "merges")


def hugging_face(text: str, vocab_size: int) -> Callable[[], Pairs]:
    """Learn with Hugging Face's trainer, on one thread; call what comes back for the merges."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([text], trainer)
    return partial(_merges, tokenizer)


def _merges(tokenizer):
    ids = tokenizer.get_vocab()
    return [(ids[a], ids[b]) for a, b in json.loads(tokenizer.to_str())["model"]["merges"]]


def make_learning(way: Callable, vocab_size: int, n: int, kind: str = "prose") -> Callable[[], Callable[[], Pairs]]:
    """A call of `way` on n bytes of a text."""
    return partial(way, text_of(kind, n), vocab_size)


@dataclass(frozen=True)
class Learning:
    """One way of learning a vocabulary.

    seconds: CPU, the median. to_peer: time as a multiple of Hugging Face's, the median of the rounds' ratios.
    differing: merges that are not Hugging Face's. resident: bytes at the peak on top of the text, None where it was
    not measured. kind: of the text.
    """

    vocab_size: int
    way: str
    seconds: float
    to_peer: float
    differing: int
    resident: int | None = None
    kind: str = "prose"


def measure_learning(n: int, vocab_size: int, rounds: int, kind: str = "prose") -> list[Learning]:
    """Both ways on n bytes of a text; memory of prose only."""
    ways = (ours, hugging_face)
    calls = {way.__name__: make_learning(way, vocab_size, n, kind) for way in ways}
    seconds = cpu_seconds(calls, rounds)
    expected = calls["hugging_face"]()()
    return [
        Learning(
            vocab_size=vocab_size,
            way=way.__name__,
            seconds=statistics.median(seconds[way.__name__]),
            to_peer=median_ratio(seconds[way.__name__], seconds["hugging_face"]),
            differing=differences(calls[way.__name__]()(), expected),
            resident=resident_bytes(partial(make_learning, way, vocab_size), n) if kind == "prose" else None,
            kind=kind,
        )
        for way in ways
    ]


def differences(found: Sequence, expected: Sequence) -> int:
    """At how many places two sequences differ; what only one of them has differs."""
    same = sum(a == b for a, b in zip(found, expected, strict=False))
    return max(len(found), len(expected)) - same


def measure_rungs(n: int, n_merges: int, rounds: int) -> dict[str, tuple[float, float]]:
    """For each rung its CPU seconds, the median, and its time as a multiple of the last rung's."""
    text = python_docs()[:n]
    rungs = (learn_by_recounting, learn_from_distinct, learn)
    calls = {rung.__name__: partial(train, text, 256 + n_merges, learn=rung) for rung in rungs}
    seconds = cpu_seconds(calls, rounds)
    return {name: (statistics.median(each), median_ratio(each, seconds["learn"])) for name, each in seconds.items()}


@dataclass(frozen=True)
class Encoding:
    """One way of encoding. speed: bytes in a CPU second, the median.

    to_hugging_face, to_tiktoken: the speed as a multiple of Hugging Face's, cold, and of tiktoken's. differing: ids
    that are not tiktoken's.
    """

    way: str
    speed: float
    to_hugging_face: float
    to_tiktoken: float
    differing: int


def measure_encoding(n: int, vocab_size: int, rounds: int) -> list[Encoding]:
    """Ours, Hugging Face's and tiktoken's on the first n characters, from which the vocabulary was learnt.

    A cold tokenizer was never used: each call has one of its own, made beforehand. Hugging Face's fast way gives ids
    only, without their places in the text.
    """
    text = python_docs()[:n]
    warm = train(text, vocab_size)
    ranks = {token: i for i, token in enumerate(warm.vocab)}
    openai = tiktoken.Encoding("ours", pat_str=GPT2, mergeable_ranks=ranks, special_tokens={})
    saved = hugging_face(text, vocab_size).args[0].to_str()
    fresh, theirs, fast = (
        [make() for _ in range(rounds + 2)]
        for make in (partial(Tokenizer, warm.merges), *[partial(tokenizers.Tokenizer.from_str, saved)] * 2)
    )
    calls = {
        "ours, cold": lambda: fresh.pop().encode(text),
        "ours, warm": lambda: warm.encode(text),
        "hugging_face, cold": lambda: theirs.pop().encode(text).ids,
        "hugging_face, cold and fast": lambda: fast.pop().encode_batch_fast([text])[0].ids,
        "tiktoken": lambda: openai.encode_ordinary(text),
    }
    seconds = cpu_seconds(calls, rounds)
    expected = calls["tiktoken"]()
    return [
        Encoding(
            way=name,
            speed=len(text.encode()) / statistics.median(seconds[name]),
            to_hugging_face=median_ratio(seconds["hugging_face, cold"], seconds[name]),
            to_tiktoken=median_ratio(seconds["tiktoken"], seconds[name]),
            differing=differences(call(), expected),
        )
        for name, call in calls.items()
    ]


def measure_growth(n: int, sizes: Sequence[int], rounds: int) -> tuple[dict[int, float], dict[int, float]]:
    """CPU seconds of our learning, the median: by characters, with the largest vocabulary, and by vocabulary."""
    by_text = {n // share: make_learning(ours, max(sizes), n // share) for share in SHARES}
    by_size = {size: make_learning(ours, size, n) for size in sizes}
    return tuple(
        {size: statistics.median(each) for size, each in cpu_seconds(calls, rounds).items()}
        for calls in (by_text, by_size)
    )


def measure_kinds(n: int, vocab_size: int, rounds: int) -> dict[str, dict[int, float]]:
    """CPU seconds of our learning, the median, from a quarter, a half and all of n bytes, for each other text."""
    seconds = {}
    for kind in KINDS:
        calls = {n // share: make_learning(ours, vocab_size, n // share, kind) for share in SHARES}
        seconds[kind] = {size: statistics.median(each) for size, each in cpu_seconds(calls, rounds).items()}
    return seconds


def slope(seconds: dict[int, float]) -> float:
    """The exponent with which time grows with size: the slope of its logarithm, by least squares."""
    return statistics.linear_regression(*zip(*((math.log(n), math.log(s)) for n, s in seconds.items()), strict=True))[0]


def goals(learnings: Sequence[Learning], encodings: Sequence[Encoding]) -> list[Goal]:
    """What is promised: the same merges and ids, learning's time on any text, and the speed of encoding."""
    mine = [row for row in learnings if row.way == "ours"]
    times = [
        (kind, [row.to_peer for row in mine if row.kind == kind]) for kind in dict.fromkeys(row.kind for row in mine)
    ]
    encoding = {row.way: row for row in encodings}
    return [
        Goal("merges that are not Hugging Face's", sum(row.differing for row in mine), 0),
        Goal("ids that are not tiktoken's", sum(row.differing for row in encodings), 0),
        *(
            Goal(f"our learning's time as a multiple of Hugging Face's, {kind}", max(each), LEVEL)
            for kind, each in times
        ),
        Goal("our speed, cold, as a multiple of Hugging Face's", encoding["ours, cold"].to_hugging_face, 2, True),
        Goal("our speed, warm, as a multiple of tiktoken's", encoding["ours, warm"].to_tiktoken, 0.5, True),
    ]


def show_learning(rows: Sequence[Learning]) -> None:
    """Print the rows as a table; the x columns are multiples of Hugging Face's."""
    peers = {(row.kind, row.vocab_size): row for row in rows if row.way == "hugging_face"}
    print_table(
        ["text", "vocab", "way", "CPU ms", "x HF", "resident MB", "x HF", "other merges"],
        [
            [
                row.kind,
                str(row.vocab_size),
                row.way,
                f"{1e3 * row.seconds:.0f}",
                f"{row.to_peer:.2f}",
                *_memory(row.resident, peers[row.kind, row.vocab_size].resident),
                str(row.differing),
            ]
            for row in rows
        ],
    )


def _memory(size, base):
    return ["-", "-"] if size is None else [f"{size / 1e6:.1f}", f"{size / base:.2f}"]


def show_encoding(rows: Sequence[Encoding]) -> None:
    """Print the rows as a table; the x columns are multiples of speed."""
    print_table(
        ["way", "MB per CPU s", "x HF, cold", "x tiktoken", "other ids"],
        [
            [
                row.way,
                f"{row.speed / 1e6:.1f}",
                f"{row.to_hugging_face:.2f}",
                f"{row.to_tiktoken:.2f}",
                f"{row.differing}",
            ]
            for row in rows
        ],
    )


def main() -> int:
    """Measure and print everything; returns the exit status."""
    n = len(python_docs())
    print(f"Learning from {n / 1e3:.0f} kB, one thread")
    learnings = [row for size in SIZES for row in measure_learning(n, size, rounds=7)]
    show_learning(learnings)
    print(f"\nOther texts, {WORD / 1e3:.0f} kB each")
    others = [row for kind in KINDS for row in measure_learning(WORD, SIZES[0], 3, kind)]
    show_learning(others)
    print(f"\nOurs alone on {MEGABYTE / 1e6:.0f} MB, vocabulary of {SIZES[0]}")
    kinds = measure_kinds(MEGABYTE, SIZES[0], rounds=1)
    table = [[kind, f"{1e3 * max(each.values()):.0f}", f"{slope(each):.2f}"] for kind, each in kinds.items()]
    print_table(["text", "CPU ms", "exponent"], table)
    print(f"\nThe rungs: {MERGES} merges from the first {SLICE / 1e3:.0f} kB only")
    rungs = measure_rungs(SLICE, MERGES, rounds=3)
    table = [[name, f"{1e3 * seconds:.0f}", f"{multiple:.1f}"] for name, (seconds, multiple) in rungs.items()]
    print_table(["rung", "CPU ms", "x learn"], table)
    print("\nHow our learning grows")
    by_text, by_size = measure_growth(n, GROWING, rounds=5)
    for what, seconds in (("characters", by_text), ("vocab", by_size)):
        print_table([what, "CPU ms"], [[str(size), f"{1e3 * each:.0f}"] for size, each in seconds.items()])
        print(f"exponent {slope(seconds):.2f}")
    print(f"\nEncoding the same text, vocabulary of {SIZES[-1]}")
    encodings = measure_encoding(n, SIZES[-1], rounds=9)
    show_encoding(encodings)
    print()
    return report(goals([*learnings, *others], encodings))


if __name__ == "__main__":
    sys.exit(main())
