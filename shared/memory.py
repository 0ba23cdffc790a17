"""How many bytes of tensors a piece of code holds at once, counted and not asked of the operating system.

    peak_bytes(lambda: attention(q, k, v))

The count is exact and the same on every machine. It sees each tensor that a PyTorch operation returns to Python; it
does not see scratch memory inside one operation (a fused kernel's), nor what `function` was given.
"""

import weakref
from collections.abc import Callable

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def peak_bytes(function: Callable[[], object]) -> int:
    """The largest number of bytes, over the run of `function`, in tensors that were made in it and still alive."""
    meter = _Meter()
    with meter:
        function()
    return meter.peak


class _Meter(TorchDispatchMode):
    """Adds a storage's bytes when an operation first returns it, takes them off when it is freed."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self.known = set()  # addresses of the storages that are alive

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        self._note((args, kwargs), counts=False)  # what comes from outside is none of ours
        result = operation(*args, **(kwargs or {}))
        self._note(result, counts=True)
        self.peak = max(self.peak, self.now)
        return result

    def _note(self, tree: object, counts: bool) -> None:
        for leaf in tree_leaves(tree):
            if not isinstance(leaf, torch.Tensor):
                continue
            storage = leaf.untyped_storage()
            if storage._cdata not in self.known:
                size = storage.nbytes() if counts else 0
                self.now += size
                self.known.add(storage._cdata)
                weakref.finalize(storage, self._freed, storage._cdata, size)

    def _freed(self, address: int, size: int) -> None:
        self.now -= size
        self.known.discard(address)  # the next storage may get this address
