"""The sliding window: who may see whom, attention that computes no more than that, and a cache that keeps no more.

Shapes, everywhere in this file:

    q          (..., T, d)         queries
    k, v       (..., T, d)         keys and values of the same T tokens
    queries    (T,)                positions, counted from the text's first token
    keys       (S,)                positions too; -1 where there is no token
    windows    one entry a layer   how many tokens a query of the layer sees, itself included; None: all before it

The first `sinks` tokens of a text can be seen from everywhere, besides the window. Read it from the top: the rule, the
mask that it makes, attention block by block, layers of different windows, and the ring in which a cache of constant
size writes.

Sources: Child et al. 2019 (arXiv 1904.10509) and Beltagy et al. 2020 (2004.05150) for local attention; Rabe and Staats
2021 (2112.05682) for full attention in linear memory; Jiang et al. 2023 (2310.06825, Mistral 7B) for the rolling cache;
Xiao et al. 2023 (2309.17453) for sinks.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch.utils.checkpoint import checkpoint

from shared.rotary import RotaryAttention


def may_see(queries: torch.Tensor, keys: torch.Tensor, window: int | None, sinks: int = 0) -> torch.Tensor:
    """Which query may look at which key, by position: (T,), (S,) -> (T, S) bool.

    may_see(torch.tensor([5]), torch.tensor([0, 1, 2, 3, 4, 5, 6, -1]), window=2, sinks=1)
        = [[1, 0, 0, 0, 1, 1, 0, 0]]
    """
    distance = queries[:, None] - keys  # (T, S): 0 is the token itself
    past = (distance >= 0) & (keys >= 0)
    return past if window is None else past & ((distance < window) | (keys < sinks))


def band_mask(T: int, window: int | None, sinks: int = 0) -> torch.Tensor:
    """`may_see` among the tokens of one text: (T, T).

    band_mask(4, window=2) = [[1, 0, 0, 0],
                              [1, 1, 0, 0],
                              [0, 1, 1, 0],
                              [0, 0, 1, 1]]
    """
    _check(window, sinks, T=T)
    positions = torch.arange(T)
    return may_see(positions, positions, window, sinks)


def masked_attention(q, k, v, window: int | None = None, sinks: int = 0) -> torch.Tensor:
    """The same answer as `banded_attention`, by all T x T scores and a mask: (..., T, d)."""
    return _attend(q, k, v, band_mask(q.shape[-2], window, sinks).to(q.device))


def banded_attention(q, k, v, window: int | None = None, sinks: int = 0, *, block=128, recompute=False) -> torch.Tensor:
    """Attention that computes `block` queries at a time, with the keys that they may see: (..., T, d).

    No T x T tensor exists: a block's scores are (block, block + window + sinks) numbers, or (block, T) where window is
    None and every key is seen. recompute: keep no scores for the backward pass, compute them again there.
    Raises ValueError for sizes that are not whole numbers of 1 or more (sinks: 0 or more), and for keys and values of
    another length.
    """
    T = q.shape[-2]
    _check(window, sinks, block=block, T=T)
    if k.shape[-2] != T or v.shape[-2] != T:
        raise ValueError(f"{T} queries, {k.shape[-2]} keys, {v.shape[-2]} values: expected the same tokens in all")
    run = partial(checkpoint, _attend_block, use_reentrant=False) if recompute else _attend_block
    # from the last block to the first: it is the largest, and the others fit into the memory that it has left
    starts = range(0, T, block)[::-1]
    return torch.cat([run(q, k, v, slice(i, min(i + block, T)), window, sinks) for i in starts][::-1], dim=-2)


def _attend_block(q, k, v, rows: slice, window, sinks):
    """The answers of a block of queries: (..., block, d)."""
    queries, keys = torch.arange(rows.start, rows.stop), columns(rows.start, rows.stop, window, sinks)
    seen = may_see(queries, keys, window, sinks).to(q.device)
    return _attend(q[..., rows, :], k[..., keys, :], v[..., keys, :], seen)


def columns(start: int, stop: int, window: int | None, sinks: int = 0) -> torch.Tensor:
    """Positions of the keys that any of the queries start, ..., stop - 1 may see, each once, in order.

    columns(6, 8, window=3, sinks=1) = [0, 4, 5, 6, 7]
    """
    first = 0 if window is None else max(0, start - window + 1)  # what the block's first query sees, it sees last
    return torch.cat([torch.arange(min(sinks, first)), torch.arange(first, stop)])


def _attend(q, k, v, seen):
    """softmax(q k^T / sqrt(d)) v over what is seen; a query sees at least itself."""
    scores = (q @ k.mT / math.sqrt(q.shape[-1])).masked_fill(~seen, -math.inf)  # (..., T, S)
    return scores.softmax(dim=-1) @ v


def pairs(T: int, window: int | None = None, sinks: int = 0) -> int:
    """How many scores of T queries are not masked: the number of ones in `band_mask`, by formula.

    pairs(4) = 10, pairs(4, window=2) = 7
    """
    _check(window, sinks, T=T)
    if window is None or window >= T:
        return T * (T + 1) // 2
    sees_sinks = T - window  # the last so many queries are too far from token 0; one fewer from token 1, and so on
    return window * (window + 1) // 2 + sees_sinks * window + sum(max(0, sees_sinks - i) for i in range(sinks))


def reach(windows: Sequence[int | None]) -> float:
    """How many tokens, itself included, a position can know of after these layers: each adds its window less one.

    reach([16, 16]) = 31
    """
    for window in windows:
        _check(window, 0)
    return 1 + sum(math.inf if window is None else window - 1 for window in windows)


def layer_windows(n_layers: int, window: int, every: int | None = None) -> list[int | None]:
    """A window a layer; every `every`-th layer, counted from 1, is global (Gemma 3: every sixth).

    layer_windows(5, 16, every=3) = [16, 16, None, 16, 16]
    """
    _check(window, 0, n_layers=n_layers, every=1 if every is None else every)
    return [None if every is not None and layer % every == 0 else window for layer in range(1, n_layers + 1)]


class WindowAttention(RotaryAttention):
    """An attention layer of the house whose whole texts go through `banded_attention`. scope: its window.

    It reads from a `RingCache` of the same window and sinks; any other cache is a ValueError.
    """

    def __init__(self, d_model: int, n_heads: int, *, scope: int | None, sinks: int = 0, **how):
        super().__init__(d_model, n_heads, **how)
        _check(scope, sinks)
        self.scope, self.sinks = scope, sinks

    def forward(self, x, positions=None, cache=None):
        """(B, T, C) -> (B, T, C)."""
        if self.window is not None:
            raise ValueError(f"scope is {self.scope} and window, the house's own, {self.window}: set window to None")
        if self.scope is not None and "attend" in vars(self):  # where shared.hooks hang
            raise ValueError("hooks inside attention see no blocks: take `RotaryAttention` and `restrict`")
        mine, its = _scope(self.scope, self.sinks), getattr(cache, "scope", (None, 0))
        if cache is not None and mine != its:
            raise ValueError(f"window and sinks are {mine} in the layer and {its} in the cache: make it by `new_ring`")
        return super().forward(x, positions, cache)

    def attend(self, q, k, v, mask):
        """What each head has read. From a ring it reads all, or what the ring's mask says."""
        if mask is not None or q.shape[-2] != k.shape[-2]:
            return super().attend(q, k, v, mask)
        k, v = (x.repeat_interleave(self.n_heads // self.n_kv_heads, dim=1) for x in (k, v))  # (B, H, T, d)
        return banded_attention(q, k, v, self.scope, self.sinks)


def _scope(window: int | None, sinks: int) -> tuple[int | None, int]:
    return window, 0 if window is None else sinks


def restrict(windows: Sequence[int | None], sinks: int = 0) -> dict[str, Callable]:
    """Windows for a model that was made without: `with hooked(model, restrict(windows)): model(tokens)`.

    Both count columns: rows of a cache that are padded have no sinks, and a ring's columns lie in another order.
    """

    def mask(seen, layer):
        return seen & band_mask(seen.shape[-1], windows[layer], sinks)[-seen.shape[-2] :]

    return {"mask": mask}


def ring_slots(positions: torch.Tensor, window: int, sinks: int = 0) -> torch.Tensor:
    """The column of the ring in which a token is stored: the sinks first and for good, the others in turn behind them.

    ring_slots(torch.arange(8), window=3, sinks=1) = [0, 1, 2, 3, 1, 2, 3, 1]
    """
    return torch.where(positions < sinks, positions, sinks + (positions - sinks) % window)


def ring_positions(length: int, window: int, sinks: int = 0) -> torch.Tensor:
    """The position of the token that lies in each column after `length` tokens: (sinks + window,), -1 for none.

    ring_positions(6, window=3, sinks=1) = [0, 4, 5, 3]
    """
    slots = torch.arange(sinks + window)
    latest = length - 1 - (length - 1 - slots) % window  # the last token of those that are stored in this column
    held = torch.where(slots < sinks, slots, latest)
    return held.masked_fill((held >= length) | (held < slots), -1)


@dataclass(frozen=True)
class LayerPart:
    """One layer's part of a cache, for one pass. mask: (T, S), True where a query may look; None if it sees all."""

    cache: "RingCache"
    layer: int
    mask: torch.Tensor | None

    @property
    def scope(self) -> tuple[int | None, int]:
        """The layer's window and sinks."""
        return _scope(self.cache.windows[self.layer], self.cache.sinks)

    def extend(self, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Store new keys and values, (B, K, T, d) each; return all that a query of this pass may see, (B, K, S, d)."""
        stored = self.cache.keys[self.layer]
        if k.requires_grad or v.requires_grad:
            raise ValueError("keys or values want a gradient, which a ring cuts: run under torch.inference_mode()")
        if k.shape != v.shape or k.shape[:2] + k.shape[3:] != stored.shape[:2] + stored.shape[3:]:
            rows, heads, _, width = stored.shape
            wanted = f"{rows} rows, {heads} heads, {width} wide"
            raise ValueError(f"keys {tuple(k.shape)}, values {tuple(v.shape)}: expected {wanted}")
        return self.cache.store(self.layer, k, v)


class RingCache:
    """Keys and values of the first `sinks` tokens and of each layer's last `window`: memory that does not grow.

    windows: one a layer; a layer of None keeps `capacity` tokens, and then takes no more. All rows are equally long.
    keys, values: a tensor (B, K, columns, d) for each layer. turn: how a key is turned on by a number of positions, as
    `RotaryAttention.place` does it: the sinks are then read as if they stood right before the oldest token that is
    kept ("positions within the cache"); without it they keep their distance in the text. In a pass of T tokens that
    is the oldest one kept until then: they may be up to T - 1 farther, and a first pass turns none. A pass that breaks
    off has overwritten some layers' columns: begin anew.
    """

    def __init__(
        self, windows, batch, n_kv_heads, d_head, *, sinks=0, capacity=None, turn: Callable | None = None, dtype=None
    ):
        if None in windows and capacity is None:
            raise ValueError(f"windows are {list(windows)} and capacity is None: say how many tokens a None keeps")
        sizes = {"batch": batch, "n_kv_heads": n_kv_heads, "d_head": d_head, "layers": len(windows)}
        for window in (capacity, *windows):
            _check(window, sinks, **sizes)
        self.windows, self.sinks = list(windows), sinks
        self.rings = [(capacity, 0) if window is None else (window, sinks) for window in windows]
        shapes = [(batch, n_kv_heads, sum(ring), d_head) for ring in self.rings]
        self.keys, self.values = ([torch.empty(shape, dtype=dtype) for shape in shapes] for _ in "kv")
        self.unturned = [None] * len(shapes)  # the sinks' own keys, once they are turned
        self.turn, self.length = turn, 0

    @property
    def batch(self) -> int:
        """How many rows there are."""
        return len(self.keys[0])

    @property
    def nbytes(self) -> int:
        """The bytes of keys and values, whatever was read."""
        return sum(stored.nbytes for stored in (*self.keys, *self.values))

    def positions(self, T: int) -> torch.Tensor:
        """Where the next T tokens stand in the text: (T,)."""
        return torch.arange(self.length, self.length + T)

    def layers(self, T: int) -> list[LayerPart]:
        """Each layer's part for a pass over T new tokens, which `advance` ends. Raises ValueError if a layer without a
        window is full."""
        rings = zip(self.windows, self.rings, strict=True)
        if full := [ring for window, ring in rings if window is None and self.length + T > ring[0]]:
            raise ValueError(f"{self.length} tokens and {T} more: a layer without a window keeps {full[0][0]}")
        return [LayerPart(self, layer, self._mask(layer, T)) for layer in range(len(self.keys))]

    def advance(self, T: int) -> None:
        """Count T tokens, once all layers have stored them."""
        self.length += T

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows alone, in this order."""
        if not len(rows) or not all(0 <= row < self.batch for row in rows):
            raise ValueError(f"rows are {list(rows)}: expected one or more, each from 0 to {self.batch - 1}")
        for stored in (self.keys, self.values, self.unturned):
            stored[:] = [None if each is None else each[list(rows)] for each in stored]

    def store(self, layer: int, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Write T new columns; return what their queries may see: the ring itself, or a copy of it with the new columns
        behind, where the pass overwrites what it still sees."""
        T, filled = k.shape[2], self._filled(layer)
        if self._writes_first(layer, T):
            self.write(layer, k, v)
            self._close_gap(layer, T)
            return tuple(stored[layer][:, :, : self._filled(layer, T)] for stored in (self.keys, self.values))
        self._close_gap(layer, 0)
        both = ((self.keys, k), (self.values, v))
        seen = tuple(torch.cat([stored[layer][:, :, :filled], new], dim=2) for stored, new in both)
        self.write(layer, k, v)
        return seen

    def _writes_first(self, layer: int, T: int) -> bool:
        """Whether no query of the pass still sees what its writing takes away."""
        return T == 1 or self.length + T <= sum(self.rings[layer])

    def _filled(self, layer: int, T: int = 0) -> int:
        """How many columns hold a token once T more are written: the ring fills from its first column on."""
        return min(self.length + T, sum(self.rings[layer]))

    def write(self, layer: int, k: torch.Tensor, v: torch.Tensor) -> None:
        """Put new columns into their slots: of those that share a slot the last alone."""
        (window, sinks), positions = self.rings[layer], self.positions(k.shape[2])
        stays = (positions >= self.length + len(positions) - window) | (positions < sinks)
        slots = ring_slots(positions[stays], window, sinks)
        self.keys[layer][:, :, slots], self.values[layer][:, :, slots] = k[:, :, stays], v[:, :, stays]

    def _close_gap(self, layer: int, T: int) -> None:
        """Turn the sinks' keys on by as many positions as were dropped behind them, if T more tokens are written."""
        window, sinks = self.rings[layer]
        dropped = self.length + T - sinks - window
        if self.turn is None or dropped <= 0:
            return
        if self.unturned[layer] is None:
            self.unturned[layer] = self.keys[layer][:, :, :sinks].clone()
        self.keys[layer][:, :, :sinks] = self.turn(self.unturned[layer], torch.full((sinks,), dropped))

    def _mask(self, layer: int, T: int) -> torch.Tensor | None:
        """Who sees whom among T queries and what `store` returns."""
        if T == 1:
            return None  # all that the ring holds then
        window, sinks = self.rings[layer]
        new = self.positions(T)
        if self._writes_first(layer, T):
            return may_see(new, torch.arange(self.length + T), window, sinks)
        held = ring_positions(self.length, window, sinks)[: self._filled(layer)]
        return may_see(new, torch.cat([held, new]), window, sinks)


def new_ring(model, windows: Sequence[int | None], batch: int = 1, *, turned=False, **how) -> RingCache:
    """An empty `RingCache` for a `TinyLM`. turned: the sinks' positions are counted within the cache."""
    layer = model.blocks[0].attention
    if len(windows) != len(model.blocks):
        raise ValueError(f"{len(windows)} windows for {len(model.blocks)} layers: expected one for each")
    if any(block.attention.window is not None for block in model.blocks):
        raise ValueError("the model has windows of its own, which count columns: set `block.attention.window` to None")
    turn = layer.place if turned else None
    return RingCache(
        windows, batch, layer.n_kv_heads, layer.d_head, turn=turn, dtype=model.embedding.weight.dtype, **how
    )


def _check(window: int | None, sinks: int, **sizes: int) -> None:
    for name, size in (sizes if window is None else sizes | {"window": window}).items():
        if not isinstance(size, int) or size < 1:
            raise ValueError(f"{name} is {size!r}: expected a whole number, 1 or more")
    if not isinstance(sinks, int) or sinks < 0:
        raise ValueError(f"sinks is {sinks!r}: expected a whole number, 0 or more")
