"""Lesson 10's decoding product, one new query over a long cache: grouped against repeated, expanded and PyTorch's own.

    .venv/bin/python tests/benchmarks/bench_gqa.py

Eight query heads of 64 share 8, 2 or 1 key and value heads, in float32, for one row and eight, over up to 8,192 tokens.
The cache has room for more, as a real one has. And MLA's layer, absorbed against written out. Exits with status 1 if a
goal is not met.
"""

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from measure import Goal, cpu_seconds, median_ratio, print_table, report
from torch.nn import functional as F

from shared.memory import peak_bytes

sys.path.insert(0, str(Path(__file__).parents[2] / "10_grouped_query"))
import gqa

H, D, SHARED, CONTEXTS, BATCHES, ROUNDS = 8, 64, (8, 2, 1), (512, 2048, 8192), (1, 8), 9
SPARE = 64  # columns of the cache that are not filled
WAYS = {"grouped": gqa.attend_grouped, "repeated": gqa.attend_repeated, "expanded": gqa.attend_expanded}


def enable_gqa(q, k, v, mask=None):
    """PyTorch's fused operation."""
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)


WAYS |= {"enable_gqa": enable_gqa}


@dataclass(frozen=True)
class Row:
    """One way, its CPU seconds in each round, and the bytes of tensors that it made at once."""

    batch: int
    context: int
    n_kv_heads: int
    way: str
    seconds: list[float]
    made: int

    @property
    def cache(self) -> int:
        """Bytes of the keys and values that are read."""
        return gqa.cache_bytes(self.context, 1, self.n_kv_heads, D, batch=self.batch, bytes_per_number=4)


def product(way, batch: int, context: int, n_kv_heads: int):
    """A call of one way over a cache of random numbers."""
    torch.manual_seed(0)
    room = torch.randn(2, batch, n_kv_heads, context + SPARE, D)
    q, (k, v) = torch.randn(batch, H, 1, D), room[:, :, :, :context]
    return partial(WAYS[way], q, k, v)


@torch.no_grad()
def measure(batch: int, context: int, rounds: int = ROUNDS) -> list[Row]:
    """All ways and numbers of heads over one context, in turn; short ones are called several times in a round."""
    calls = {(n, way): product(way, batch, context, n) for n in SHARED for way in WAYS}
    times = max(1, 65_536 // (batch * context))

    def several(call):
        for _ in range(times):
            call()

    seconds = cpu_seconds({key: partial(several, call) for key, call in calls.items()}, rounds)
    return [
        Row(batch, context, *key, [t / times for t in each], peak_bytes(calls[key])) for key, each in seconds.items()
    ]


@torch.no_grad()
def measure_latent(context: int, rounds: int = ROUNDS) -> dict[str, tuple[list[float], int]]:
    """MLA's reading of one token: eight heads of 64, a latent of 128. CPU seconds of each way, and bytes made."""
    torch.manual_seed(0)
    layer = gqa.LatentAttention(H * D, H, d_latent=128, d_rotary=32)
    given = (torch.randn(1, H, 1, D), torch.randn(1, context, 128), torch.randn(1, H, 1, context), None)
    ways = {"absorbed": layer.read_absorbed, "written out": layer.read_written_out}
    calls = {name: partial(way, *given) for name, way in ways.items()}
    seconds = cpu_seconds(calls, rounds)
    return {name: (seconds[name], peak_bytes(call)) for name, call in calls.items()}


def show(rows: list[Row]) -> None:
    """A line for each way: its time, how fast it reads the cache, what it makes, and ratios within rounds."""
    table = []
    for row in rows:
        base, own = (
            find(rows, row, n_kv_heads=n, way=way) for n, way in ((H, "enable_gqa"), (row.n_kv_heads, "grouped"))
        )
        fastest = min(row.seconds)
        cells = [str(row.batch), f"{row.context:,}", str(row.n_kv_heads), row.way, f"{1e3 * fastest:.2f}"]
        cells += [f"{row.cache / fastest / 1e9:.1f}", f"{row.cache / 2**20:.1f}", f"{row.made / 2**20:.1f}"]
        table.append([*cells, *(f"{median_ratio(row.seconds, it.seconds):.2f}" for it in (own, base))])
    head = ("rows", "tokens", "kv heads", "way", "ms", "GB/s", "cache MiB", "made MiB", "to grouped", "to 8 kv heads")
    print_table(head, table)


def find(rows: list[Row], like: Row, **other) -> Row:
    """The row that is like this one but for what is named."""
    wanted = {"batch": like.batch, "context": like.context, "n_kv_heads": like.n_kv_heads, "way": like.way} | other
    return next(row for row in rows if all(getattr(row, name) == value for name, value in wanted.items()))


def goals(rows: list[Row], latent: dict[str, tuple[list[float], int]]) -> list[Goal]:
    """At the longest context."""
    found = []
    for batch in BATCHES:
        own = {n: find(rows, rows[0], batch=batch, context=CONTEXTS[-1], n_kv_heads=n, way="grouped") for n in SHARED}
        for n in (2, 1):
            for way, limit in (("repeated", 0.5), ("expanded", 0.5), ("enable_gqa", 1.1)):
                words = f"rows {batch}, {n} kv heads: grouped, times the time of {way}"
                found.append(Goal(words, median_ratio(own[n].seconds, find(rows, own[n], way=way).seconds), limit))
            words = f"rows {batch}: grouped over {n} kv heads, times the time over 8"
            found.append(Goal(words, median_ratio(own[n].seconds, own[8].seconds), {2: 0.5, 1: 0.35}[n]))
    fast, slow = latent["absorbed"], latent["written out"]
    found.append(
        Goal("MLA absorbed, times the time of keys and values written out", median_ratio(fast[0], slow[0]), 0.5)
    )
    return found


def main() -> int:
    """All tables, then the goals."""
    rows = [row for batch in BATCHES for context in CONTEXTS for row in measure(batch, context)]
    show(rows)
    latent = measure_latent(CONTEXTS[-1])
    for name, (seconds, made) in latent.items():
        print(f"MLA, 8,192 tokens, {name}: {1e3 * min(seconds):.2f} ms, {made / 2**20:.1f} MiB made")
    return report(goals(rows, latent))


if __name__ == "__main__":
    sys.exit(main())
