"""Grouped-query attention: many query heads share few key and value heads, and a cache holds only those.

Shapes, everywhere in this file:

    q      (B, H, T, d)          H query heads of T new tokens, each d wide
    k, v   (B, K, S, d)          K key and value heads of the S tokens so far; each serves G = H / K query heads
    mask   (T, S) or (B, 1, T, S), True where a query may look; None for causal

K = H is multi-head attention (MHA), K = 1 multi-query attention (MQA), all between is grouped (GQA). Query heads that
share stand one after another: 0 .. G - 1 read key head 0, the next G read key head 1. Multi-head latent attention (MLA)
shares one narrow vector among all heads and makes keys and values of it, or, absorbed, never makes them.

Sources: Shazeer 2019 (arXiv 1911.02150) for MQA; Ainslie et al. 2023 (2305.13245) for GQA and the conversion by mean
pooling; DeepSeek-AI 2024 (2405.04434) for MLA.
"""

import copy
import math
from collections.abc import Callable

import torch
from torch import nn

from shared.cache import CacheLayer
from shared.rotary import RotaryAttention, rotate


def kv_head_of(query_head: int, n_heads: int, n_kv_heads: int) -> int:
    """Which key and value head a query head reads.

    [kv_head_of(h, 6, 2) for h in range(6)] = [0, 0, 0, 1, 1, 1]
    """
    return query_head // (n_heads // n_kv_heads)


def grouped_product(x: torch.Tensor, shared: torch.Tensor) -> torch.Tensor:
    """Each head's matrix times the one that its group shares, which is not copied: (B, H, T, m), (B, K, m, n) ->
    (B, H, T, n). With keys, `shared` is (B, K, d, S); with values (B, K, S, d).

    x = [[[[1, 2]], [[3, 4]]]]         two heads, one token: (1, 2, 1, 2)
    shared = [[[[1], [10]]]]           one matrix for both:  (1, 1, 2, 1)
    grouped_product(x, shared) = [[[[21]], [[43]]]]
    """
    B, H, T, m = x.shape
    K = shared.shape[1]
    rows = x.reshape(B, K, H // K * T, m)  # the heads of a group are rows of one matrix
    return (rows @ shared).view(B, H, T, shared.shape[-1])


def weights_of(scores: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """Where each query looks: (B, H, T, S) -> the same, rows that sum to 1 over what it may see."""
    T, S = scores.shape[-2:]
    if mask is None and T > 1:
        mask = torch.ones(T, S, dtype=torch.bool, device=scores.device).tril(S - T)  # the last query sees all
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    return scores.softmax(dim=-1)


def scaled(q: torch.Tensor) -> torch.Tensor:
    """Queries over the root of their width: few numbers, where the scores are as many as the cache has columns."""
    return q / math.sqrt(q.shape[-1])


Attend = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]


def attend_grouped(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """What each head has read, (B, H, T, d). Copies neither keys nor values."""
    _check_shapes(q, k, v, mask)
    weights = weights_of(grouped_product(scaled(q), k.mT), mask)  # (B, H, T, S)
    return grouped_product(weights, v)


def attend_repeated(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """The same. Copies every key and value G times: 2 B H S d numbers, as many as a cache without sharing holds."""
    _check_shapes(q, k, v, mask)
    G = q.shape[1] // k.shape[1]
    k, v = (x.repeat_interleave(G, dim=1) for x in (k, v))  # (B, H, S, d)
    return weights_of(scaled(q) @ k.mT, mask) @ v


def attend_expanded(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """The same. `expand` makes a view, but a batched product wants its matrices at equal steps in memory: of more than
    one row or key head it makes copies as `attend_repeated` does, first of the keys, then of the values."""
    _check_shapes(q, k, v, mask)
    K = k.shape[1]
    q = scaled(q).unflatten(1, (K, -1))  # (B, K, G, T, d)
    k, v = (x[:, :, None].expand(-1, -1, q.shape[2], -1, -1) for x in (k, v))  # (B, K, G, S, d)
    weights = weights_of((q @ k.mT).flatten(1, 2), mask)  # (B, H, T, S)
    return (weights.unflatten(1, (K, -1)) @ v).flatten(1, 2)


def _check_shapes(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None) -> None:
    (B, H, T, _), (texts, K, S, _) = q.shape, k.shape
    if H % K or v.shape != k.shape:
        found = f"{H} query heads, {K} key heads {tuple(k.shape)}, values {tuple(v.shape)}"
        raise ValueError(f"{found}: expected key heads that divide the query heads, and values shaped as keys")
    if texts != B or (mask is None and T > S):
        found = f"{B} texts of {T} queries, {texts} texts of {S} keys"
        raise ValueError(f"{found}: expected as many texts, and without a mask no more queries than keys")


def split_heads(x: torch.Tensor, n_heads: int, n_kv_heads: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What the fused matrix gives, (B, T, (H + 2 K) d): first all query heads, then key heads, then value heads ->
    (B, H, T, d), (B, K, T, d), (B, K, T, d)."""
    heads = x.unflatten(-1, (n_heads + 2 * n_kv_heads, -1)).transpose(1, 2)  # (B, H + 2 K, T, d)
    return heads.split_with_sizes([n_heads, n_kv_heads, n_kv_heads], dim=1)


def _width_of_head(d_model: int, n_heads: int, chosen: int | None) -> int:
    if chosen is None and d_model % n_heads:
        raise ValueError(f"d_model {d_model} does not divide into {n_heads} heads: choose how wide a head is")
    return d_model // n_heads if chosen is None else chosen


class GroupedAttention(RotaryAttention):
    """Causal self-attention with rotary positions: `n_kv_heads` goes from n_heads (MHA) over all divisors to 1 (MQA).

    d_head: how wide a head is, d_model / n_heads if None. attend: one of the three ways above. Raises ValueError for
    sizes that do not divide.
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        *,
        n_kv_heads: int | None = None,
        d_head: int | None = None,
        bias: bool = True,
        rotary_base: float = 10_000.0,
        attend: Attend = attend_grouped,
    ):
        width = n_heads * _width_of_head(d_model, n_heads, d_head)
        super().__init__(width, n_heads, n_kv_heads=n_kv_heads, bias=bias, rotary_base=rotary_base)
        self.qkv = nn.Linear(d_model, self.qkv.out_features, bias=bias)
        self.proj = nn.Linear(width, d_model, bias=bias)
        self.way = attend

    def forward(
        self, x: torch.Tensor, positions: torch.Tensor | None = None, cache: CacheLayer | None = None
    ) -> torch.Tensor:
        """(B, T, d_model) -> (B, T, d_model). positions, cache: as `shared.layers` has them."""
        q, k, v = split_heads(self.qkv(x), self.n_heads, self.n_kv_heads)
        q, k = self.place(q, positions), self.place(k, positions)
        mask = None
        if cache is not None:
            mask = cache.mask
            k, v = cache.extend(k, v)  # (B, K, S, d): K heads are stored, never H
        return self.proj(self.attend(q, k, v, mask).transpose(1, 2).flatten(2))

    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """What each head has read: (B, H, T, d)."""
        return self.way(q, k, v, mask)


def pool(
    heads: torch.Tensor, n_kv_heads: int, how: str = "mean", generator: torch.Generator | None = None
) -> torch.Tensor:
    """Fewer key heads, or value heads, from many: (K, ...) -> (n_kv_heads, ...).

    how: "mean" of each group's heads, its "first", or "random" numbers of the same spread as the heads have.

    pool([[1], [3], [10], [20]], 2) = [[2], [15]];  "first": [[1], [10]]
    """
    K = len(heads)
    if n_kv_heads < 1 or K % n_kv_heads:
        raise ValueError(f"{K} heads to {n_kv_heads}: expected a divisor of {K}")
    groups = heads.unflatten(0, (n_kv_heads, K // n_kv_heads))
    match how:
        case "mean":
            return groups.mean(dim=1)
        case "first":
            return groups[:, 0].clone()
        case "random":
            drawn = torch.randn(groups[:, 0].shape, generator=generator)
            return drawn.to(heads) * heads.std()
    raise ValueError(f"how is {how!r}: expected 'mean', 'first' or 'random'")


def pool_qkv(
    matrix: torch.Tensor,
    n_heads: int,
    d_head: int,
    n_kv_heads: int,
    how: str = "mean",
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """The fused matrix, or its bias, with `n_kv_heads` in place of its K: ((H + 2 K) d, ...) -> ((H + 2 n) d, ...).

    Query heads stay. Rows as `split_heads` has them.
    """
    heads = matrix.unflatten(0, (-1, d_head))  # (H + 2 K, d, ...)
    K = (len(heads) - n_heads) // 2
    q, k, v = heads.split_with_sizes([n_heads, K, K])
    k, v = (pool(x, n_kv_heads, how, generator) for x in (k, v))
    return torch.cat([q, k, v]).flatten(0, 1)


@torch.no_grad()
def pool_model(
    model: nn.Module, n_kv_heads: int, how: str = "mean", generator: torch.Generator | None = None
) -> nn.Module:
    """A copy of a trained `TinyLM` with fewer key and value heads in every layer, as Ainslie et al. convert one.

    Its caches (`new_cache`) are as much smaller. It wants some training more ("up-training") to be of use.
    """
    model = copy.deepcopy(model)
    for block in model.blocks:
        layer = block.attention
        sizes = (layer.n_heads, layer.d_head, n_kv_heads, how, generator)
        old = layer.qkv
        bias = None if old.bias is None else pool_qkv(old.bias, *sizes)
        replace_qkv(layer, n_kv_heads, pool_qkv(old.weight, *sizes), bias)
    return model


def replace_qkv(layer: nn.Module, n_kv_heads: int, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
    """Give a layer another fused matrix, rows as `split_heads` has them, and as many key and value heads."""
    trained, bias_trained = (part is not None and part.requires_grad for part in (layer.qkv.weight, layer.qkv.bias))
    layer.qkv = nn.Linear(*weight.T.shape, bias=bias is not None, device="meta")
    layer.qkv.weight = nn.Parameter(weight, trained)
    if bias is not None:
        layer.qkv.bias = nn.Parameter(bias, bias_trained)
    layer.n_kv_heads = n_kv_heads


def cache_bytes(
    tokens: int, n_layers: int, n_kv_heads: int, d_head: int, *, batch: int = 1, bytes_per_number: int = 2
) -> int:
    """Bytes of the keys and values of `batch` texts of `tokens` each. The query heads do not matter.

    cache_bytes(1, n_layers=30, n_kv_heads=3, d_head=64, bytes_per_number=4) = 46080
    """
    return 2 * n_layers * batch * tokens * n_kv_heads * d_head * bytes_per_number


def absorbed_product(q: torch.Tensor, up: torch.Tensor, latent: torch.Tensor) -> torch.Tensor:
    """Queries times keys that are never made: q (B, H, T, d), up (H, d, r), latent (B, S, r) -> (B, H, T, S).

    A head's key is up[h] @ latent[s], so q . (up l) = (up^T q) . l: the query is moved into the latent's space, where
    all heads share one "key" r wide.

    q = [[[[1, 2]]]], up = [[[1], [10]]], latent = [[[3], [5]]]        d = 2, r = 1, two tokens
    absorbed_product(q, up, latent) = [[[[63, 105]]]]
    """
    return grouped_product(q @ up, latent[:, None].mT)


class LatentAttention(nn.Module):
    """Multi-head latent attention, for `TinyLM`: what is stored of a token is one latent and one rotary key, for all
    heads together. d_latent + d_rotary numbers, an even count.

    Keys and values are made from the latent by `up`, for each head d_content wide (d_model / n_heads if None). Rotation
    does not pass through a product, so position has numbers of its own, d_rotary of them. absorbed: read the latent as
    it is; else make all keys and values first. Both give the same.
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        *,
        d_latent: int,
        d_rotary: int,
        d_content: int | None = None,
        rotary_base: float = 10_000.0,
        absorbed: bool = True,
    ):
        super().__init__()
        d_content = _width_of_head(d_model, n_heads, d_content)
        if d_rotary % 2 or d_latent % 2:
            raise ValueError(f"d_latent is {d_latent}, d_rotary {d_rotary}: expected even numbers")
        self.n_heads, self.d_latent, self.d_rotary, self.d_content = n_heads, d_latent, d_rotary, d_content
        # the house's cache stores two tensors of equal width: half of what is stored lies in each
        self.n_kv_heads, self.d_head = 1, (d_latent + d_rotary) // 2
        self.rotary_base, self.absorbed = rotary_base, absorbed
        self.query = nn.Linear(d_model, n_heads * (d_content + d_rotary), bias=False)
        self.down = nn.Linear(d_model, d_latent + d_rotary, bias=False)
        self.norm = nn.RMSNorm(d_latent, eps=1e-6)
        self.up = nn.Linear(d_latent, n_heads * 2 * d_content, bias=False)
        self.proj = nn.Linear(n_heads * d_content, d_model, bias=False)

    def forward(
        self, x: torch.Tensor, positions: torch.Tensor | None = None, cache: CacheLayer | None = None
    ) -> torch.Tensor:
        """(B, T, d_model) -> (B, T, d_model)."""
        q = scaled(self.query(x).unflatten(-1, (self.n_heads, -1)).transpose(1, 2))  # (B, H, T, content + rotary)
        content, turned = q.split_with_sizes([self.d_content, self.d_rotary], dim=-1)
        turned = rotate(turned, self.rotary_base, positions)
        stored, mask = self.compress(x, positions), None  # (B, 1, T, d_latent + d_rotary)
        if cache is not None:
            mask = cache.mask
            stored = torch.cat(cache.extend(*stored.chunk(2, dim=-1)), dim=-1)
        latent, key = stored.split_with_sizes([self.d_latent, self.d_rotary], dim=-1)  # (B, 1, S, r), (B, 1, S, dr)
        read = self.read_absorbed if self.absorbed else self.read_written_out
        y = read(content, latent[:, 0], grouped_product(turned, key.mT), mask)  # (B, H, T, d_content)
        return self.proj(y.transpose(1, 2).flatten(2))

    def compress(self, x: torch.Tensor, positions: torch.Tensor | None) -> torch.Tensor:
        """All that is stored of each token: its latent, normed, and its key, turned. (B, 1, T, d_latent + d_rotary)."""
        latent, key = self.down(x)[:, None].split_with_sizes([self.d_latent, self.d_rotary], dim=-1)
        return torch.cat([self.norm(latent), rotate(key, self.rotary_base, positions)], dim=-1)

    def ups(self) -> tuple[torch.Tensor, torch.Tensor]:
        """What makes each head's keys, and its values, of a latent: (H, d_content, d_latent) each."""
        return self.up.weight.unflatten(0, (self.n_heads, 2, -1)).unbind(dim=1)

    def read_written_out(
        self, q: torch.Tensor, latent: torch.Tensor, by_position: torch.Tensor, mask: torch.Tensor | None
    ) -> torch.Tensor:
        """Keys and values made for every token and head. q (B, H, T, d), latent (B, S, r), by_position (B, H, T, S):
        what the rotary keys add to the scores."""
        k, v = (latent[:, None] @ up.mT for up in self.ups())  # (B, H, S, d)
        return weights_of(q @ k.mT + by_position, mask) @ v

    def read_absorbed(
        self, q: torch.Tensor, latent: torch.Tensor, by_position: torch.Tensor, mask: torch.Tensor | None
    ) -> torch.Tensor:
        """The same with neither made: queries go into the latent's space, and only what is read comes out of it."""
        up_k, up_v = self.ups()
        weights = weights_of(absorbed_product(q, up_k, latent) + by_position, mask)
        return grouped_product(weights, latent[:, None]) @ up_v.mT  # (B, H, T, r) @ (H, r, d)
