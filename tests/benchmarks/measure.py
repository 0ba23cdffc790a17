"""How the benchmarks measure: CPU seconds side by side, the memory of one call, and goals that are met or not.

A clock on a machine that does other work misleads, so time is CPU seconds of one thread, the candidates take turns,
and what counts is a ratio within a round: whatever slows the machine then slows all of them.
"""

import ctypes
import gc
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import torch

PEAK_RESET = Path("/proc/self/clear_refs")  # Linux: writing 5 here sets the peak, VmHWM, back to what is resident now


@contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch computes in one thread inside, and in as many as before afterwards."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def cpu_seconds(candidates: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """CPU seconds of one call of each candidate in each round, in one thread; one round before them warms up."""
    seconds = {name: [] for name in candidates}
    with one_thread():
        for candidate in candidates.values():
            candidate()
        for _ in range(rounds):
            for name, candidate in candidates.items():
                start = time.process_time()
                candidate()
                seconds[name].append(time.process_time() - start)
    return seconds


def median_ratio(seconds: Sequence[float], base: Sequence[float]) -> float:
    """The median over rounds of seconds / base, both of the same round."""
    return statistics.median(a / b for a, b in zip(seconds, base, strict=True))


def resident_bytes(make: Callable[[int], Callable[[], object]], n: int, warm_up: int = 64) -> int | None:
    """Resident memory, in bytes, that one call of `make(n)` takes at its peak on top of what was there before it.

    Measured in a fresh process, which calls `make(warm_up)` once first: a library's first call loads code. `make` is
    pickled, so it must be a function of a module. None where the system does not count (it takes Linux).
    """
    if not os.access(PEAK_RESET, os.W_OK):
        return None
    return in_fresh_process(_resident_bytes_here, make, n, warm_up)


def in_fresh_process(call: Callable, *given):
    """What a function of a module returns in a Python of its own, which has loaded that module and no other work."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as child:
        return child.submit(call, *given).result()


def peak_so_far() -> int | None:
    """Resident memory, in bytes, that this process has taken at its peak, Python and libraries too. None where the
    system does not count (it takes Linux)."""
    return _status_bytes("VmHWM") if os.access(PEAK_RESET, os.W_OK) else None


def _resident_bytes_here(make, n, warm_up):
    with one_thread():
        make(warm_up)()
        call = make(n)
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)  # give freed memory back, or the call is served from it and nothing shows
        PEAK_RESET.write_text("5")
        before = _status_bytes("VmRSS")
        call()
        return _status_bytes("VmHWM") - before


def _status_bytes(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    kibibytes = next(line.split()[1] for line in lines if line.startswith(f"{name}:"))
    return int(kibibytes) * 1024


@dataclass(frozen=True)
class Goal:
    """What was measured and the limit it is held to, which counts as met; NaN meets nothing."""

    words: str
    value: float
    limit: float
    at_least: bool = False

    @property
    def met(self) -> bool:
        """Whether the value is at most the limit (at least, for a goal that is `at_least`)."""
        return self.value >= self.limit if self.at_least else self.value <= self.limit


def report(goals: Sequence[Goal]) -> int:
    """Print each goal with met or NOT MET; returns the exit status, 0 if all are met and else 1."""
    for goal in goals:
        bound = "at least" if goal.at_least else "at most"
        print(f"{'met' if goal.met else 'NOT MET':8}{goal.words}: {goal.value:.3g}, goal {bound} {goal.limit:g}")
    return int(not all(goal.met for goal in goals))


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under their heads in columns as wide as they need, all set to the right."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in (head, *rows):
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))
