"""What a pass of a decoder computes and reads, counted; and what this machine can compute and read, measured.

    it = work(model, T=1, start=100)            # one new token behind 100: it.flops, it.bytes, it.intensity
    it.flops / matmul_peak(), it.bytes / read_peak()          # seconds that it takes at least: the larger of the two

Bytes are those that must come from memory at least once in a pass: every weight, and the stored keys and values. What a
layer hands to the next is small and stays in the processor's caches.

Sources: Williams, Waterman and Patterson 2009 for the roofline; Pope et al. 2022 (arXiv 2211.05102) for the counts.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Work:
    """Of one pass. flops: a multiplication and an addition are two. weight_bytes, cache_bytes: read from memory."""

    flops: float
    weight_bytes: float
    cache_bytes: float

    @property
    def bytes(self) -> float:
        """All that is read."""
        return self.weight_bytes + self.cache_bytes

    @property
    def intensity(self) -> float:
        """FLOPs for each byte."""
        return self.flops / self.bytes


def work(model: nn.Module, T: int, start: int = 0, batch: int = 1, last: int = 1) -> Work:
    """Of T new tokens in each of `batch` rows, behind `start` that are cached; `last`: how many positions get logits.

    model: a `TinyLM` whose attention is the house's. Norms, activations and angles are left out: they are a hundredth.
    """
    attention = model.blocks[0].attention
    layers, heads, d = len(model.blocks), attention.n_heads, attention.d_head
    seen = sum(start + i for i in range(1, T + 1))  # pairs of a new token and one that it looks at
    in_blocks = sum(it.in_features * it.out_features for block in model.blocks for it in matrices(block))
    head = model.vocab_size * model.embedding.embedding_dim
    flops = 2 * batch * (T * in_blocks + last * head) + 4 * batch * layers * heads * d * seen
    cache = cache_bytes(layers, batch, attention.n_kv_heads, start + T, d, model.embedding.weight.dtype)
    return Work(flops, weight_bytes(model), cache)


def matrices(module: nn.Module) -> list[nn.Module]:
    """Its matrix products: `nn.Linear`, and what takes its place and says `in_features` and `out_features`."""
    return [it for it in module.modules() if hasattr(it, "in_features")]


def weight_bytes(model: nn.Module) -> int:
    """Bytes of all weights that a pass reads: those of every layer and of the head. An embedding that is not the head
    is looked up, a row for each token, which is next to nothing."""
    head = model.embedding if model.head is None else model.head
    parts = [head, model.norm, *model.blocks]
    return sum(it.nbytes for part in parts for it in (*part.parameters(), *part.buffers()))


def cache_bytes(n_layers: int, batch: int, n_kv_heads: int, columns: int, d_head: int, dtype: torch.dtype) -> int:
    """Of keys and values: 2 x layers x rows x key/value heads x columns x width x bytes of a number."""
    return 2 * n_layers * batch * n_kv_heads * columns * d_head * dtype.itemsize


def lay_out(model: nn.Module) -> nn.Module:
    """The same matrices, each with its longer side contiguous in memory; no number changes.

    PyTorch's product with one vector takes another way through a matrix that lies otherwise, and one way reads faster.
    """
    for parameter in model.parameters():
        if parameter.ndim == 2 and parameter.shape[0] > parameter.shape[1]:
            parameter.data = parameter.data.t().contiguous().t()
    return model


def cpu_seconds(call: Callable[[], object], rounds: int = 5) -> float:
    """CPU seconds of one call, the fastest of some rounds: what else runs makes one slower. A call before warms up."""
    call()
    found = []
    for _ in range(rounds):
        start = time.process_time()
        call()
        found.append(time.process_time() - start)
    return min(found)


@torch.inference_mode()
def read_peak(mebibytes: int = 256) -> dict[str, float]:
    """Bytes a second that are read of a large matrix, by what reads it: its "sum"; its product with a vector if it lies
    by "rows" (each output's weights contiguous, as in `nn.Linear`), and if it lies by "columns" (each input's)."""
    matrix = torch.ones(mebibytes * 256, 1024)  # (outputs, inputs), 4 bytes a number
    x, y = torch.ones(1, 1024), torch.ones(1, len(matrix))
    ways = {"sum": matrix.sum, "rows": lambda: F.linear(x, matrix)}
    ways["columns"] = lambda: y @ matrix  # the product of its transpose with y
    return {name: matrix.nbytes / cpu_seconds(call) for name, call in ways.items()}


@torch.inference_mode()
def matmul_peak(n: int = 1024) -> float:
    """FLOPs a second of a product of two n x n matrices in float32."""
    a = torch.ones(n, n)
    return 2 * n**3 / cpu_seconds(lambda: a @ a)
