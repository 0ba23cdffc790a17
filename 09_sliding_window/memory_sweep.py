"""What attention takes by the length of a text, in bytes and in seconds: python memory_sweep.py

Writes results/memory.json, which the notebook shows; about 10 minutes on one core. Attention alone, without a model:
random queries, keys and values of one text. "forward" computes the answer; "training" its gradients, too.

Bytes are the most that is held at once besides what is given, twice: "counted", of the tensors that operations return
(exact, and the same on every machine), and "resident", what the system gives (scratch inside an operation, too).
Seconds are CPU seconds of one thread, all arms in turn in each round.
"""

import ctypes
import gc
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch.nn import functional as F
from window import RingCache, banded_attention, columns, layer_windows, masked_attention, pairs

from shared.cache import KVCache
from shared.memory import peak_bytes
from shared.sweeps import Sweep, main

LENGTHS = [512, 1024, 2048, 4096, 8192]
FITTED = 1024  # exponents are of this length and longer ones: four windows of 256
SETTINGS = {  # how many heads, how wide each, the window, and how many queries a block has
    "one head": {"heads": 1, "d": 32, "window": 256, "block": 128},
    "four heads": {"heads": 4, "d": 64, "window": 512, "block": 128},
    "small blocks": {"heads": 1, "d": 32, "window": 256, "block": 32},
    "large blocks": {"heads": 1, "d": 32, "window": 256, "block": 512},
    "narrow": {"heads": 1, "d": 32, "window": 32, "block": 128},
}
TIMED = {"one head": (8192, 5), "four heads": (4096, 3)}  # up to which length, in how many rounds
ALL_SCORES = ("all scores", "all scores, band mask", "PyTorch, band mask")
MOST_SCORES = 2**26  # 8,192 x 8,192: what makes all scores is left out where they are more
LAYERS, KV_HEADS, D_CACHE, WINDOW = 6, 4, 64, 256  # of the caches
PEAK_RESET = Path("/proc/self/clear_refs")  # Linux: writing 5 here sets the peak, VmHWM, back to what is resident now
TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4  # options of glibc's mallopt
AT_LEAST = 65_536  # pieces of so many bytes are given back when they are freed
TURN, LONG = 0.1, 1.0  # CPU seconds of an arm's turn


def arms(heads: int, d: int, window: int, block: int) -> dict[str, Callable]:
    """Each way of attention: q, k, v -> the answer."""
    blocks, again = partial(banded_attention, block=block), partial(banded_attention, block=block, recompute=True)
    fused = F.scaled_dot_product_attention
    return {
        "all scores": masked_attention,
        "all scores, band mask": partial(masked_attention, window=window),
        "blocks, every key": blocks,
        "blocks, band": partial(blocks, window=window),
        "blocks, every key, recomputed": again,
        "blocks, band, recomputed": partial(again, window=window),
        "PyTorch, every key": partial(fused, is_causal=True),
        "PyTorch, band mask": lambda q, k, v: fused(q, k, v, attn_mask=lean_mask(q.shape[-2], window)),
    }


def lean_mask(n: int, window: int) -> torch.Tensor:
    """`window.band_mask` by one byte for a pair, and no more while it is made: (n, n)."""
    return torch.ones(n, n, dtype=torch.bool).triu_(1 - window).tril_()


def chosen(setting: str, training: bool, n: int) -> list[str]:
    """The arms of a job: recomputing is for training, all scores are for what memory holds, and what has no blocks is
    for the first two settings."""
    too_many = SETTINGS[setting]["heads"] * n * n > MOST_SCORES
    return [
        name
        for name in arms(**SETTINGS[setting])
        if (training or "recomputed" not in name)
        and (setting in TIMED or "blocks" in name)
        and not (too_many and name in ALL_SCORES)
    ]


def call_of(setting: str, arm: str, training: bool, n: int) -> Callable[[], object]:
    """One pass of an arm over a random text of n tokens."""
    it = SETTINGS[setting]
    generator = torch.Generator().manual_seed(0)
    q, k, v, given = (torch.randn(1, it["heads"], n, it["d"], generator=generator) for _ in range(4))
    attend = arms(**it)[arm]
    if not training:
        return lambda: attend(q, k, v)
    inputs = [x.requires_grad_() for x in (q, k, v)]
    return lambda: torch.autograd.grad(attend(*inputs), inputs, given)


def products(arm: str, n: int, window: int, block: int) -> int | None:
    """How many products of a query and a key a head computes, masked ones too; None for PyTorch's own, which does not
    say."""
    if arm.startswith("PyTorch"):
        return None
    if arm in ALL_SCORES:
        return n * n
    scope = window if "band" in arm else None
    stops = [(start, min(start + block, n)) for start in range(0, n, block)]
    return sum((stop - start) * len(columns(start, stop, scope)) for start, stop in stops)


def run(job: dict) -> dict:
    """What a job measures, each in a process of its own. job: part, and what the part needs."""
    return PARTS[job["part"]](**{name: value for name, value in job.items() if name != "part"})


def _bytes(setting: str, training: bool, n: int) -> dict:
    """Of each arm: bytes "counted" and "resident" (None where the system does not say), and "products"; of the
    setting: how many pairs there are "to_see", in all and in the band."""
    it, names = SETTINGS[setting], chosen(setting, training, n)
    peak_bytes(partial(torch.zeros, 1))  # loads code for seconds: here once, not in each process
    found = {name: in_child(_bytes_here, setting, name, training, n) for name in names}
    return {
        "counted": {name: each[0] for name, each in found.items()},
        "resident": {name: each[1] for name, each in found.items()},
        "products": {name: products(name, n, it["window"], it["block"]) for name in names},
        "to_see": [pairs(n), pairs(n, it["window"])],
    }


def _bytes_here(setting: str, arm: str, training: bool, n: int) -> list[int | None]:
    give_back_at_once()
    call_of(setting, arm, training, 64)()  # a first call takes memory for good
    call = call_of(setting, arm, training, n)
    return [peak_bytes(call), resident_peak(call)]


def _seconds(setting: str, training: bool, n: int, rounds: int) -> dict:
    return {"seconds": in_child(_seconds_here, setting, training, n, rounds)}


def _seconds_here(setting: str, training: bool, n: int, rounds: int) -> dict[str, list[float]]:
    names = chosen(setting, training, n)
    for name in names:
        call_of(setting, name, training, 64)()  # a first call loads code
    return in_turn({name: call_of(setting, name, training, n) for name in names}, rounds)


def _system(n: int) -> dict:
    """Of each arm's forward pass, one head: CPU seconds of its own, and of the system, which hands out memory and
    clears it; "as it is", and where what was freed is "kept" for the next call."""
    return {how: in_child(_system_here, n, how) for how in ("as it is", "kept")}


def _system_here(n: int, how: str) -> dict[str, list[float]]:
    if how == "kept":
        keep_what_is_freed()
    return {name: own_and_system(call_of("one head", name, False, n)) for name in chosen("one head", False, n)}


def own_and_system(call: Callable) -> list[float]:
    """CPU seconds of one call, the mean over as many as take `LONG`: the system counts in hundredths."""
    times = max(1, round(LONG / max(seconds_of(call), seconds_of(call))))
    before = os.times()
    for _ in range(times):
        call()
    after = os.times()
    return [round((after[i] - before[i]) / times, 6) for i in (0, 1)]


def _cache(n: int, rounds: int) -> dict:
    """Bytes of three caches for a text of n tokens, and CPU seconds in which one more token is read behind them."""
    return in_child(_cache_here, n, rounds)


def _cache_here(n: int, rounds: int) -> dict:
    found = caches(n)
    steps = {name: partial(step, cache) for name, cache in found.items()}
    return {"nbytes": {name: cache_bytes(cache) for name, cache in found.items()}, "seconds": in_turn(steps, rounds)}


def caches(n: int) -> dict:
    """For n tokens, all read but one: what keeps them all, windows, and windows with one global layer of six."""
    sizes = {"batch": 1, "n_kv_heads": KV_HEADS, "d_head": D_CACHE}
    mixed = layer_windows(LAYERS, WINDOW, every=LAYERS)
    found = {
        "growing": KVCache(LAYERS, 1, KV_HEADS, n, D_CACHE),
        "ring": RingCache([WINDOW] * LAYERS, **sizes),
        "five of six local": RingCache(mixed, capacity=n, **sizes),
    }
    for cache in found.values():
        for stored in (*cache.keys, *cache.values):
            stored.normal_()
        cache.length = n - 1
    return found


def cache_bytes(cache) -> int:
    """Of all keys and values."""
    return sum(stored.nbytes for stored in (*cache.keys, *cache.values))


def step(cache) -> None:
    """One token is stored in each layer and reads what is there; it is not counted, so each step is the same."""
    q = k = v = torch.ones(1, KV_HEADS, 1, D_CACHE)
    for layer in cache.layers(1):
        F.scaled_dot_product_attention(q, *layer.extend(k, v))


def in_turn(calls: dict[str, Callable], rounds: int) -> dict[str, list[float]]:
    """CPU seconds of one call of each in each round: the fastest of its turn, since what else runs makes a call slower
    and never faster."""
    found = {name: [] for name in calls}
    times = {name: max(1, round(TURN / seconds_of(call))) for name, call in calls.items()}
    for _ in range(rounds):
        for name, call in calls.items():
            if times[name] > 1:
                call()  # brings back what the arms before have driven out of the processor's caches
            found[name].append(float(f"{min(seconds_of(call) for _ in range(times[name])):.4g}"))
    return found


def seconds_of(call: Callable) -> float:
    """CPU seconds of one call."""
    start = time.process_time()
    call()
    return max(1e-6, time.process_time() - start)


def give_back_at_once() -> None:
    """From here on no memory that is freed is kept for later, but for small pieces. Else a call is served from what
    others have freed, or in pieces that do not fit: what is resident is then half or twice of what is needed."""
    if os.access(PEAK_RESET, os.W_OK):
        ctypes.CDLL(None).mallopt(MMAP_THRESHOLD, AT_LEAST)


def keep_what_is_freed() -> None:
    """From here on what is freed serves what comes next, and the system is not asked again."""
    if os.access(PEAK_RESET, os.W_OK):
        for option, value in ((MMAP_THRESHOLD, 2**30), (TRIM_THRESHOLD, 2**31 - 1), (MMAP_MAX, 0)):
            ctypes.CDLL(None).mallopt(option, value)


def resident_peak(call: Callable) -> int | None:
    """Bytes of memory that one call takes at its peak on top of what was there before, if `give_back_at_once` was
    called before all else. None where the system does not count (it takes Linux)."""
    if not os.access(PEAK_RESET, os.W_OK):
        return None
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    PEAK_RESET.write_text("5")
    before = _status_bytes("VmRSS")
    call()
    return _status_bytes("VmHWM") - before


def _status_bytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(f"{name}:")))


def in_child(call: Callable, *given):
    """What `call(*given)`, which JSON must know, returns in a process that is split off and has done nothing else; here
    where the system cannot split one off."""
    if not hasattr(os, "fork"):
        return call(*given)
    answer, ours = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(ours, json.dumps(call(*given)).encode())
        finally:
            os._exit(0)
    os.close(ours)
    with open(answer, encoding="utf-8") as file:
        text = file.read()
    os.waitpid(child, 0)
    if not text:
        raise RuntimeError(f"{call.__name__}{given} failed in its process: its error stands above")
    return json.loads(text)


def exponent(sizes: Sequence[float], found: Sequence[float]) -> tuple[float, float]:
    """The slope of a line through log(found) over log(sizes), by least squares, and its standard error.

    exponent([1, 2, 4], [3, 12, 48]) = (2, 0)
    """
    if len(sizes) < 3 or len(sizes) != len(found):
        raise ValueError(f"{len(sizes)} sizes and {len(found)} values: expected as many, and three or more")
    x, y = (torch.tensor(each, dtype=torch.float64).log() for each in (sizes, found))
    x = x - x.mean()
    slope = (x @ y / (x @ x)).item()
    rest = y - y.mean() - slope * x
    return slope, math.sqrt((rest @ rest / (len(sizes) - 2) / (x @ x)).item())


def exponents(rows: Sequence[dict], field: str, setting: str, training: bool) -> dict[str, tuple[float, float]]:
    """For each arm: the exponent of "counted", "resident" or "seconds" (the rounds' median) over lengths from FITTED
    on, with its standard error. rows: as stored."""
    here = [row for row in rows if row.get("setting") == setting and row["training"] == training and field in row]
    here = sorted((row for row in here if row["n"] >= FITTED), key=lambda row: row["n"])
    found = {}
    for arm in here[0][field]:
        values = {row["n"]: row[field][arm] for row in here if arm in row[field]}
        if len(values) >= 3:
            found[arm] = exponent(list(values), [statistics.median(_listed(value)) for value in values.values()])
    return found


def _listed(value) -> list:
    return value if isinstance(value, list) else [value]


PARTS = {"bytes": _bytes, "seconds": _seconds, "system": _system, "cache": _cache}
JOBS = [
    {"part": "bytes", "setting": setting, "training": training, "n": n}
    for setting in SETTINGS
    for training in (False, True)
    for n in LENGTHS
]
JOBS += [{"part": "cache", "n": n, "rounds": 7} for n in LENGTHS]
JOBS += [{"part": "system", "n": n} for n in LENGTHS if n <= 4096]
JOBS += [
    {"part": "seconds", "setting": setting, "training": training, "n": n, "rounds": rounds}
    for setting, (longest, rounds) in TIMED.items()
    for training in (False, True)
    for n in LENGTHS
    if n <= longest
]

SWEEP = Sweep(
    __file__,
    "memory",
    run,
    jobs=JOBS,
    quick=[
        {"part": "bytes", "setting": "narrow", "training": True, "n": 128},
        {"part": "seconds", "setting": "narrow", "training": False, "n": 128, "rounds": 2},
        {"part": "cache", "n": 300, "rounds": 2},
        {"part": "system", "n": 64},
    ],
    cost=lambda job: (job["n"] / 1024) ** 2 * job.get("rounds", 2) * (4 if job.get("setting") == "four heads" else 1),
    comparable=lambda job: job["part"] not in ("seconds", "system") and job["n"] <= 4096,
    tolerance={"seconds": math.inf, "resident": math.inf},  # no two runs agree in these; in counts they must
)

if __name__ == "__main__":
    sys.exit(main(SWEEP))
