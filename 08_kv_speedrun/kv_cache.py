"""The key/value cache: generation that recomputes, a cache that grows, one that has room, and one made of pages.

Shapes, everywhere in this file:

    tokens (B, T)                the T tokens of each row that are new in this pass
    q      (B, H, T, d)          queries of the new tokens
    k, v   (B, K, T, d)          their keys and values; each serves H / K query heads
    keys, values (B, K, S, d)    all so far: `length` columns that were stored, and the T new ones

A cache counts columns (where a key is stored) and positions (how many tokens of its row came before): they differ in a
padded row and after an eviction. `TinyLM` asks for `positions(T)`, hands each layer a part of `layers(T)`, and ends the
pass by `advance(T)`.

Sources: Shazeer 2019 (arXiv 1911.02150) for what a decoder's step reads; Kwon et al. 2023 (2309.06180) for pages.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import nn


def chunk_mask(start: int, T: int) -> torch.Tensor:
    """True where a new token may look: (T, start + T). The first new token stands in column `start`.

    chunk_mask(2, 3) = [[1, 1, 1, 0, 0],
                        [1, 1, 1, 1, 0],
                        [1, 1, 1, 1, 1]]
    """
    columns = torch.arange(start + T)
    return columns <= columns[start:, None]


def cached_step(layer, x: torch.Tensor, positions: torch.Tensor, cache) -> torch.Tensor:
    """Attention of T new tokens, whose keys and values are stored on the way: (B, T, C) -> (B, T, C).

    layer: a `CausalAttention` of the house. positions: (T,) or (B, T). cache: one layer's part of a cache.
    """
    q, k, v = heads(layer, x)  # (B, H, T, d), (B, K, T, d), (B, K, T, d)
    q, k = layer.place(q, positions), layer.place(k, positions)
    keys, values = cache.extend(k, v)  # (B, K, S, d): the old columns are read, not computed
    y = layer.attend(q, keys, values, cache.mask)  # (B, H, T, d)
    return layer.proj(y.transpose(1, 2).flatten(2))  # (B, T, C)


def heads(layer, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Queries, keys and values of the new tokens, heads before tokens."""
    split = layer.qkv(x).unflatten(-1, (-1, layer.d_head)).transpose(1, 2)  # (B, H + 2 K, T, d)
    return split.split_with_sizes([layer.n_heads, layer.n_kv_heads, layer.n_kv_heads], dim=1)


class CachedAttention(nn.Module):
    """An attention layer of the house that runs by `cached_step` where it is given a cache."""

    def __init__(self, layer):
        super().__init__()
        if layer.window is not None:
            raise ValueError(f"the layer has a window of {layer.window}, and `cached_step` sees all: set it to None")
        self.layer, self.n_heads, self.n_kv_heads, self.d_head = layer, layer.n_heads, layer.n_kv_heads, layer.d_head

    def forward(self, x, positions=None, cache=None):
        """(B, T, C) -> (B, T, C)."""
        return self.layer(x, positions) if cache is None else cached_step(self.layer, x, positions, cache)


def by_cached_step(model: nn.Module) -> nn.Module:
    """The same `TinyLM`, its attention run by `cached_step`."""
    for block in model.blocks:
        block.attention = CachedAttention(block.attention)
    return model


@dataclass(frozen=True)
class LayerPart:
    """One layer's part of a cache, for one pass. mask: broadcastable to (B, H, T, S); None if all may be seen."""

    cache: "Cache"
    layer: int
    mask: torch.Tensor | None

    def extend(self, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Store the new keys and values, (B, K, T, d) each; return all so far, (B, K, S, d) each."""
        if k.requires_grad or v.requires_grad:
            raise ValueError("keys or values want a gradient, which a cache cuts: run under torch.inference_mode()")
        expected = (self.cache.batch, self.cache.n_kv_heads, self.cache.d_head, self.cache.keys[0].dtype)
        if k.shape != v.shape or (len(k), k.shape[1], k.shape[3], k.dtype) != expected:
            wanted = "{} rows, {} heads, {} wide, {}".format(*expected)
            raise ValueError(f"keys {tuple(k.shape)} {k.dtype}, values {tuple(v.shape)}: expected {wanted}")
        return self.cache.store(self.layer, k, v)


class Cache:
    """What the next two share. padding: (batch,) how many of each row's first columns hold no token."""

    def __init__(self, n_layers, batch, n_kv_heads, d_head, *, padding=None):
        sizes = {"layers": n_layers, "rows": batch, "heads": n_kv_heads, "width": d_head}
        if wrong := {name: size for name, size in sizes.items() if size < 1}:
            raise ValueError(f"a cache of {wrong}: expected 1 or more of each")
        self.padding = torch.zeros(batch, dtype=torch.long) if padding is None else torch.as_tensor(padding)
        if self.padding.shape != (batch,) or self.padding.is_floating_point() or self.padding.min() < 0:
            raise ValueError(f"padding is {self.padding.tolist()}: expected {batch} whole numbers, 0 or more")
        self.n_kv_heads, self.d_head, self.length, self.evicted = n_kv_heads, d_head, 0, 0

    @property
    def batch(self) -> int:
        """How many rows there are now."""
        return len(self.padding)

    def positions(self, T: int) -> torch.Tensor:
        """Where the next T tokens stand in their row, evicted ones counted: (T,), or (B, T) if a row is padded."""
        columns = torch.arange(self.length, self.length + T) + self.evicted
        return (columns - self.padding[:, None]).clamp(min=0) if self.padding.any() else columns

    def layers(self, T: int) -> list[LayerPart]:
        """Each layer's part for a pass over T new tokens, which `advance` ends."""
        self.make_room(T)
        mask = self.mask(T)
        return [LayerPart(self, layer, mask) for layer in range(len(self.keys))]

    def make_room(self, T: int) -> None:
        """Raises ValueError, before anything is written, if T more columns do not fit."""

    def mask(self, T: int) -> torch.Tensor | None:
        """`chunk_mask` for every row, its padding hidden. A padded column sees itself: nothing at all may be NaN."""
        if T == 1 and not self.padding.any():
            return None
        seen, columns = chunk_mask(self.length, T), torch.arange(self.length + T)
        token = columns + self.evicted >= self.padding[:, None]  # (B, S)
        itself = columns == columns[self.length :, None]  # (T, S)
        return (seen & token[:, None] | itself)[:, None]  # (B, 1, T, S)

    def advance(self, T: int) -> None:
        """Count T columns, once all layers have stored them."""
        self.length += T

    def step_back(self, n: int) -> None:
        """Forget the last n columns of every row."""
        _check_filled(n, self.length)
        self.length -= n


class ConcatCache(Cache):
    """Grows by `torch.cat`: each step copies all that was stored."""

    def __init__(self, n_layers, batch, n_kv_heads, d_head, *, padding=None, dtype=None):
        super().__init__(n_layers, batch, n_kv_heads, d_head, padding=padding)
        self.keys, self.values = ([torch.empty(batch, n_kv_heads, 0, d_head, dtype=dtype)] * n_layers for _ in range(2))

    def store(self, layer, k, v):
        """(B, K, length, d) and (B, K, T, d) -> (B, K, length + T, d), a new tensor."""
        for stored, new in ((self.keys, k), (self.values, v)):
            stored[layer] = torch.cat([stored[layer][:, :, : self.length], new], dim=2)
        return self.keys[layer], self.values[layer]

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows alone, in this order."""
        rows = _checked_rows(rows, self.batch)
        self.keys, self.values = ([it[rows] for it in stored] for stored in (self.keys, self.values))
        self.padding = self.padding[rows]


class PreallocatedCache(Cache):
    """Room for `capacity` columns, made once: a new column is written into its place, and nothing moves."""

    def __init__(self, n_layers, batch, n_kv_heads, capacity, d_head, *, padding=None, dtype=None):
        super().__init__(n_layers, batch, n_kv_heads, d_head, padding=padding)
        if capacity < 1:
            raise ValueError(f"capacity is {capacity}: expected room for 1 column or more")
        shape = (n_layers, batch, n_kv_heads, capacity, d_head)
        self.keys, self.values = (torch.empty(shape, dtype=dtype) for _ in range(2))
        self.capacity = capacity

    def make_room(self, T):
        if self.length + T > self.capacity:
            held = f"{self.length} of {self.capacity}"
            raise ValueError(f"{T} more columns do not fit, {held} are filled: make the cache larger, or step back")

    def store(self, layer, k, v):
        """Write T columns; return views of the first length + T."""
        stop = self.length + k.shape[2]
        self.keys[layer, :, :, self.length : stop] = k
        self.values[layer, :, :, self.length : stop] = v
        return self.keys[layer, :, :, :stop], self.values[layer, :, :, :stop]

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows alone, in this order."""
        rows = _checked_rows(rows, self.batch)
        self.keys, self.values = self.keys[:, rows], self.values[:, rows]
        self.padding = self.padding[rows]

    def evict(self, n: int) -> None:
        """Drop the n oldest columns of every row; the others move up and keep their positions; those go on."""
        _check_filled(n, self.length)
        for stored in (self.keys, self.values):
            stored[:, :, :, : self.length - n] = stored[:, :, :, n : self.length].clone()
        self.length, self.evicted = self.length - n, self.evicted + n


def _check_filled(n: int, length: int) -> None:
    if not 0 <= n <= length:
        raise ValueError(f"n is {n}: expected 0 to {length}, the columns that are filled")


def _checked_rows(rows: Sequence[int], batch: int) -> list[int]:
    if not len(rows) or not all(0 <= row < batch for row in rows):
        raise ValueError(f"rows are {list(rows)}: expected one or more, each from 0 to {batch - 1}")
    return list(rows)


class PagePool:
    """Memory in pages of `page` columns, handed out one by one: keys, values (layers, pages * page, K, d).

    users: how many requests hold each page; 0 is free.
    """

    def __init__(self, n_layers, n_pages, page, n_kv_heads, d_head, *, dtype=None):
        if min(n_layers, n_pages, page, n_kv_heads, d_head) < 1:
            raise ValueError(f"layers, pages, columns, heads, width: {(n_layers, n_pages, page, n_kv_heads, d_head)}")
        self.page, self.users = page, [0] * n_pages
        self.keys, self.values = (torch.zeros(n_layers, n_pages * page, n_kv_heads, d_head, dtype=dtype) for _ in "kv")

    @property
    def free(self) -> int:
        """How many pages nobody holds."""
        return self.users.count(0)

    def take(self) -> int:
        """A free page, now held once. Raises ValueError if there is none."""
        if not self.free:
            raise ValueError(f"all {len(self.users)} pages are in use: let a request end, or make the pool larger")
        number = self.users.index(0)
        self.users[number] = 1
        return number

    def give_back(self, number: int) -> None:
        """One request less holds the page. Raises ValueError for a page that nobody holds."""
        if not self.users[number]:
            raise ValueError(f"page {number} is free already: it was given back twice")
        self.users[number] -= 1


def slots(table: Sequence[int], columns: torch.Tensor, page: int) -> torch.Tensor:
    """Where columns of a request lie in the pool: its pages are `table`, in order, of `page` columns each.

    slots([7, 2], torch.tensor([0, 3, 4]), page=4) = [28, 31, 8]
    """
    return torch.as_tensor(table)[columns // page] * page + columns % page


@dataclass
class Request:
    """One text in a pool: the pages that hold its columns, in order, and how many columns are filled."""

    pool: PagePool
    table: list[int] = field(default_factory=list)
    length: int = 0

    def make_room(self, T: int) -> None:
        """Take pages for T more columns; a page that is written to and shared is copied first. All or nothing."""
        page, users = self.pool.page, self.pool.users
        at = self.length // page  # in the table, the page that the next column is written to
        shared = self.length % page > 0 and users[self.table[at]] > 1
        missing = -(-(self.length + T) // page) - len(self.table)
        if (need := missing + shared) > self.pool.free:
            raise ValueError(f"{need} pages are needed and {self.pool.free} free: let a request end first")
        if shared:
            old, new = self.table[at], self.pool.take()
            for stored in (self.pool.keys, self.pool.values):
                stored[:, new * page : (new + 1) * page] = stored[:, old * page : (old + 1) * page]
            self.pool.give_back(old)
            self.table[at] = new
        self.table += [self.pool.take() for _ in range(missing)]

    def fork(self) -> "Request":
        """Another request that begins with the same columns: it shares the pages, and nothing is copied."""
        self.step_back(0)  # a pass that broke off may have left pages behind the last column
        for number in self.table:
            self.pool.users[number] += 1
        return Request(self.pool, list(self.table), self.length)

    def step_back(self, n: int) -> None:
        """Forget the last n columns; give back the pages that are empty then."""
        _check_filled(n, self.length)
        self.length -= n
        while len(self.table) > -(-self.length // self.pool.page):
            self.pool.give_back(self.table.pop())


class PagedCache:
    """Requests of one pool, for passes over all of them at once. They may differ in length; none is padded."""

    def __init__(self, requests: Sequence[Request]):
        if len({id(it.pool) for it in requests}) != 1 or len({id(it) for it in requests}) < len(requests):
            raise ValueError(f"{len(requests)} requests: expected one or more, each once, all of one pool")
        self.requests, self.pool = list(requests), requests[0].pool
        self.keys, self.values = self.pool.keys, self.pool.values
        self.n_kv_heads, self.d_head = self.keys.shape[2:]

    @property
    def batch(self) -> int:
        """How many requests there are."""
        return len(self.requests)

    def positions(self, T: int) -> torch.Tensor:
        """Where the next T tokens of each request stand: (B, T); also the columns that they are stored in."""
        return torch.tensor([it.length for it in self.requests])[:, None] + torch.arange(T)

    def layers(self, T: int) -> list[LayerPart]:
        """Each layer's part for a pass over T new tokens of each request, which `advance` ends."""
        try:
            for request in self.requests:
                request.make_room(T)
        except ValueError:
            for request in self.requests:
                request.step_back(0)  # gives back what was taken
            raise
        new, page = self.positions(T), self.pool.page
        columns = torch.arange(int(new.max()) + 1)
        rows = [(it.table, row) for it, row in zip(self.requests, new, strict=True)]
        self._write = torch.stack([slots(table, row, page) for table, row in rows])  # (B, T)
        # (B, S); behind its end a request's last column stands again, hidden
        self._read = torch.stack([slots(table, columns.clamp(max=int(row[-1])), page) for table, row in rows])
        seen = columns <= new[:, :, None]  # (B, T, S)
        mask = None if T == self.batch == 1 else seen[:, None]
        return [LayerPart(self, layer, mask) for layer in range(len(self.keys))]

    def store(self, layer, k, v):
        """Write each new column into its page; gather all columns of each request: (B, K, S, d)."""
        for stored, new in ((self.keys, k), (self.values, v)):
            stored[layer, self._write] = new.transpose(1, 2)  # (B, T, K, d)
        return tuple(stored[layer, self._read].transpose(1, 2) for stored in (self.keys, self.values))

    def advance(self, T: int) -> None:
        """Count T columns of each request, once all layers have stored them."""
        for request in self.requests:
            request.length += T

    def step_back(self, n: int) -> None:
        """Forget the last n columns of every request."""
        for request in self.requests:
            request.step_back(n)

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these requests; the others end, and their pages are free."""
        kept = PagedCache([self.requests[row] for row in _checked_rows(rows, self.batch)]).requests
        for request in self.requests:
            if all(request is not it for it in kept):
                request.step_back(request.length)
        self.requests = kept
