"""Keys and values that a decoder has computed once and reads again: one preallocated cache for all its layers.

    cache = model.new_cache(batch=2, capacity=100)
    logits = model(prompt, cache)                       # (2, time, vocabulary); cache.length is now `time`
    logits = model(next_tokens, cache)                  # (2, 1, vocabulary): only the new tokens are computed
    cache.step_back(1)                                  # forget the last token of every row
    cache.keep([1])                                     # go on with row 1 alone

What is stored is never moved or copied by a later token. Columns are counted from the left for all rows together. Rows
of different length are padded on the left: a row's first `padding` columns hold no token, nothing attends to them, and
its positions are counted from its own first token.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class CacheLayer:
    """One layer's part of a cache, for one pass over T new tokens.

    keys, values: (B, K, capacity, d), of which `start` columns are filled. mask: (B, 1, T, start + T), True where a
    new token may look; None if the T tokens are alone and causal, or T is 1 and it may look at everything.
    """

    keys: torch.Tensor
    values: torch.Tensor
    start: int
    mask: torch.Tensor | None

    def extend(self, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Store the new tokens' keys and values, each (B, K, T, d); return all so far, each (B, K, start + T, d).

        Raises ValueError for another shape or type than the cache was made for, and for tensors with a gradient.
        """
        stop = self.start + k.shape[-2]
        wanted = self.keys[:, :, self.start : stop]
        for name, new in (("keys", k), ("values", v)):
            if new.shape != wanted.shape or new.dtype != wanted.dtype:
                found, room = f"{tuple(new.shape)} {new.dtype}", f"{tuple(wanted.shape)} {wanted.dtype}"
                raise ValueError(f"{name} are {found}, the cache has room for {room}: is it another model's?")
            if new.requires_grad:
                raise ValueError(
                    f"the {name} want a gradient, which a cache cuts: call the model under torch.no_grad()"
                )
        wanted.copy_(k)
        self.values[:, :, self.start : stop] = v
        return self.keys[:, :, :stop], self.values[:, :, :stop]


class KVCache:
    """Room for the keys and values of `capacity` tokens a row, of which `length` columns are filled.

    padding: (batch,) whole numbers, how many of each row's first columns hold no token (default: none).
    Raises ValueError for sizes below 1 and a padding that does not fit.
    """

    def __init__(
        self,
        n_layers: int,
        batch: int,
        n_kv_heads: int,
        capacity: int,
        d_head: int,
        *,
        padding: torch.Tensor | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ):
        shape = (n_layers, batch, n_kv_heads, capacity, d_head)
        if min(shape) < 1:
            raise ValueError(f"layers, rows, heads, capacity and width are {shape}: expected each to be 1 or more")
        padding = torch.zeros(batch, dtype=torch.long) if padding is None else padding.cpu()
        if padding.shape != (batch,) or padding.is_floating_point() or padding.min() < 0:
            raise ValueError(f"padding is {padding.tolist()}: expected {batch} whole numbers, 0 or more")
        self.keys, self.values = (torch.empty(shape, dtype=dtype, device=device) for _ in range(2))
        self.padding, self.length = padding, 0

    @property
    def batch(self) -> int:
        """How many rows there are now."""
        return len(self.padding)

    @property
    def capacity(self) -> int:
        """How many tokens a row has room for."""
        return self.keys.shape[3]

    def positions(self, T: int) -> torch.Tensor:
        """Where the next T tokens stand, (T,); (B, T) if a row is padded, each counted from the row's first token."""
        columns = torch.arange(self.length, self.length + T)
        return (columns - self.padding[:, None]).clamp(min=0) if self.padding.any() else columns

    def layers(self, T: int) -> list[CacheLayer]:
        """Each layer's part, for a pass over T new tokens that `advance` ends. Raises ValueError if they do not fit."""
        if self.length + T > self.capacity:
            held = f"{self.length} of {self.capacity}"
            raise ValueError(f"{T} more tokens do not fit, the cache holds {held}: make it larger, or step back")
        mask, B = self._mask(T), self.batch
        parts = zip(self.keys[:, :B], self.values[:, :B], strict=True)
        return [CacheLayer(keys, values, self.length, mask) for keys, values in parts]

    def advance(self, T: int) -> None:
        """Count T tokens that every layer has stored."""
        self.length += T

    def _mask(self, T: int) -> torch.Tensor | None:
        if not self.padding.any() and (T == 1 or not self.length):
            return None
        columns = torch.arange(self.length + T)
        new = columns[self.length :, None]  # (T, 1)
        seen = (columns <= new) & (columns >= self.padding[:, None, None, None])  # (B, 1, T, length + T)
        return (seen | (columns == new)).to(self.keys.device)  # padding sees itself: a row of nothing would be NaN

    def step_back(self, n: int) -> None:
        """Forget the last n columns of every row. Raises ValueError if there are fewer."""
        if not 0 <= n <= self.length:
            raise ValueError(f"n is {n}: expected 0 to {self.length}, the columns that are filled")
        self.length -= n

    def keep(self, rows: Sequence[int] | torch.Tensor) -> None:
        """Go on with these rows, in this order; one may come twice, if there is room as for the first batch.

        Raises ValueError for rows that there are not, and for more rows than the cache was made for.
        """
        rows = torch.as_tensor(rows, device="cpu")
        n, most = len(rows), self.keys.shape[1]
        if rows.dtype != torch.long or n > most or not ((rows >= 0) & (rows < self.batch)).all():
            wanted = f"up to {most} numbers from 0 to {self.batch - 1}"
            raise ValueError(f"rows are {rows.tolist()}: expected {wanted}")
        moved = (rows != torch.arange(n)).nonzero()[:, 0]  # the others lie where they are to lie
        for stored in (self.keys, self.values):
            stored[:, moved, :, : self.length] = stored[:, rows[moved], :, : self.length]
        self.padding = self.padding[rows]
