"""Arms that are timed in turn in one process, and what this machine can read and compute in the same minutes.

    row = measure([Arm({"width": 64}, {"flops": 1e6}, step), ...], rounds=5)
    for arm in flat(job | row): ...          # {"width": 64, "flops": 1e6, "seconds": [0.01, ...], "read": 1.5e10, ...}

A ratio of two arms is taken within a round, and the rounds give its spread.
"""

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from kv_work import cpu_seconds, matmul_peak, read_peak
from torch.utils._python_dispatch import TorchDispatchMode

FURTHER = itertools.count()  # one for all arms: none meets the angles of another
TURN = 0.3  # CPU seconds of an arm's turn: the clock's own microsecond is nothing beside them
DISTURBED, TRIES = 1.1, 4  # alone on the machine, reading varies by a few per cent


@dataclass(frozen=True)
class Arm:
    """What is timed. names: what tells it from the others. counts: what is known of it exactly. step: one call. reset:
    undoes what the step has stored, untimed."""

    names: dict
    counts: dict
    step: Callable[[], object]
    reset: Callable[[], object] = lambda: None

    def seconds(self) -> float:
        """CPU seconds of one step, which is then undone."""
        start = time.process_time()
        self.step()
        passed = time.process_time() - start
        self.reset()
        return passed


def passes(model, tokens: torch.Tensor, cache, last: int = 1) -> Callable[[], torch.Tensor]:
    """A step: the pass over new tokens, (B, T), behind a cache. Each time they stand one position further, as when a
    text is generated: the house remembers the angles of the last positions, whoever had them."""
    positions = cache.positions(tokens.shape[1])
    return lambda: model(tokens, cache, positions + next(FURTHER), last)


@torch.inference_mode()
def measure(arms: Sequence[Arm], rounds: int) -> dict:
    """What a sweep stores of some arms, in their order: names, counts (and how many operations a step has), seconds,
    one for each round; and the machine's peaks before and after them, bytes and FLOPs a second."""
    before = peaks()
    found = in_turn(arms, rounds)
    after = peaks()
    return {
        "arms": [arm.names for arm in arms],
        "counts": [arm.counts | {"operations": operations(arm)} for arm in arms],
        "seconds": [[significant(one) for one in each] for each in found],
        "peaks": {name: [significant(before[name]), significant(after[name])] for name in before},
    }


def in_turn(arms: Sequence[Arm], rounds: int) -> list[list[float]]:
    """CPU seconds of a step of each arm in each round, the fastest of its turn: what else runs makes a step slower, and
    never faster. A turn begins with a step that is not counted: it brings back to the processor's caches what the arms
    before have driven out.

    Another program that reads memory slows all arms. So a round is measured anew if reading was over `DISTURBED` times
    as slow just before or after it as it was at best; after `TRIES` times as many rounds it is kept as it is.
    """
    if rounds < 1:
        raise ValueError(f"rounds is {rounds}: expected 1 or more")
    first = [min(arm.seconds() for _ in range(2)) for arm in arms]
    calls = [max(1, round(TURN / max(seconds, 1e-6))) for seconds in first]
    kept, readings = [], [reading()]
    for left in range(TRIES * rounds, 0, -1):
        found = [turn(arm, n) for arm, n in zip(arms, calls, strict=True)]
        readings.append(reading())
        if max(readings[-2:]) <= DISTURBED * min(readings) or left <= rounds - len(kept):
            kept.append(found)
        if len(kept) == rounds:
            break
    return [list(each) for each in zip(*kept, strict=True)]


def turn(arm: Arm, calls: int) -> float:
    """Seconds of one step, the fastest of some after one that is not counted."""
    arm.seconds()
    return min(arm.seconds() for _ in range(calls))


def reading() -> float:
    """CPU seconds in which 64 MiB are read."""
    matrix, x = torch.ones(2**14, 1024), torch.ones(1024)
    return cpu_seconds(lambda: matrix @ x)


def peaks() -> dict[str, float]:
    """Bytes a second that are read, by what reads them; FLOPs a second of a large product."""
    return read_peak() | {"matmul": matmul_peak()}


def operations(arm: Arm) -> int:
    """How many operations PyTorch hands out in a step."""
    with _Counter() as counter:
        arm.step()
    arm.reset()
    return counter.found


class _Counter(TorchDispatchMode):
    found = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        self.found += 1
        return operation(*args, **(kwargs or {}))


def significant(number: float) -> float:
    """Four digits of a number: more are noise."""
    return float(f"{number:.4g}")


def flat(row: dict) -> list[dict]:
    """A dict for each arm of a stored row: the job's fields, names, counts, seconds by round, and the peaks: read, the
    fastest way, and matmul, each the better of before and after."""
    job = {name: value for name, value in row.items() if name not in ("arms", "counts", "seconds", "peaks")}
    best = {name: max(found) for name, found in row["peaks"].items()}
    job |= {"matmul": best.pop("matmul"), "read": max(best.values())}
    arms = zip(row["arms"], row["counts"], row["seconds"], strict=True)
    return [job | names | counts | {"seconds": seconds} for names, counts, seconds in arms]
