"""Merge the key and value heads of a trained model by principal components, better than their mean does.

    found = moments(model, tokens)                      # what its keys and values are like, on some text
    small = merge_model(model, found, 1)                # a `TinyLM` with one key and value head
    other = low_rank(model, found, value_rank=128)      # as if values were cached as 128 numbers for all heads

A key or value that is to be cached is a linear map of the K that there are, and each is made again from it by another
one. That second map is folded into the queries' or the output's matrix, so it costs nothing when the model runs. For
keys it must commute with the rotation of their positions: pair i of a head, numbers i and i + d / 2, is one complex
number, which rotation multiplies by a number of size 1. Maps that mix the *heads* of one pair by complex factors
commute with it.

Principal components for a latent of the values: DeepSeek-AI 2024 (arXiv 2405.04434) trains one; Meng et al. 2025
(TransMLA, 2502.07864) convert a trained model by them.
"""

import copy
from dataclasses import dataclass

import torch
from gqa import replace_qkv
from torch import nn

from shared.hooks import look


@dataclass(frozen=True)
class Moments:
    """Mean products of one layer's queries, keys and values over tokens, in float64.

    queries (H, d / 2): the mean square size of each pair. keys (d / 2, K, K): of each pair, of each two heads; complex,
    and the same before and after rotation. values (K d, K d).
    """

    queries: torch.Tensor
    keys: torch.Tensor
    values: torch.Tensor


def complex_pairs(x: torch.Tensor, dim: int = -1) -> torch.Tensor:
    """Pairs that rotation turns, i and i + d / 2, as complex numbers: d -> d / 2 along `dim`."""
    return torch.complex(*x.chunk(2, dim=dim))


def real_pairs(x: torch.Tensor, dim: int = -1) -> torch.Tensor:
    """The way back."""
    return torch.cat([x.real, x.imag], dim=dim)


def moments(model: nn.Module, tokens: torch.Tensor) -> list[Moments]:
    """Of each layer, over all tokens (B, T) of some text."""
    seen = look(model, tokens, ["q", "k", "v"])
    return [_moments(*(x.double() for x in layer)) for layer in zip(seen["q"], seen["k"], seen["v"], strict=True)]


def _moments(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> Moments:
    n = k.shape[0] * k.shape[2]
    pairs = complex_pairs(k)  # (B, K, T, d / 2)
    values = v.transpose(1, 2).flatten(2).flatten(0, 1)  # (B T, K d)
    return Moments(
        queries=complex_pairs(q).abs().square().mean(dim=(0, 2)),
        keys=torch.einsum("bjtp,bktp->pjk", pairs, pairs.conj()) / n,
        values=values.T @ values / n,
    )


def basis(moment: torch.Tensor, metric: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The best way through `rank` numbers: down (..., rank, n) and up (..., n, rank), so that up @ down @ x is near x.

    moment: (..., n, n), the mean of x x^H. metric: (..., n, n), how errors count: the mean of e^H metric e is smallest.
    Principal components of root(metric) x. Raises ValueError for a rank that is not from 1 to n.
    """
    n = moment.shape[-1]
    if not 1 <= rank <= n:
        raise ValueError(f"rank is {rank}: expected 1 to {n}")
    squares, axes = torch.linalg.eigh(metric)
    size = squares.clamp(min=0).sqrt()
    seen = size > 1e-7 * size.amax(dim=-1, keepdim=True)  # errors along the others do not count at all
    inverse = torch.where(seen, 1 / size.where(seen, 1), 0)
    root, back = ((axes * it[..., None, :]) @ axes.mH for it in (size.where(seen, 0), inverse))
    _, components = torch.linalg.eigh(root @ moment.to(root) @ root)  # from the least to the most
    most = components[..., n - rank :]
    return most.mH @ root, back @ most


def key_basis(found: Moments, heads: slice, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """For some of the key heads: down (d / 2, rank, n) and up (d / 2, n, rank), complex. An error counts as much as the
    queries that meet it are large."""
    K = found.keys.shape[-1]
    energy = found.queries.unflatten(0, (K, -1)).sum(dim=1)[heads]  # (n, d / 2)
    return basis(found.keys[:, heads, heads], torch.diag_embed(energy.T).to(found.keys), rank)


def value_basis(layer: nn.Module, found: Moments, heads: slice, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """For some of the value heads: down (rank, n d) and up (n d, rank). An error counts by what it writes."""
    K, d = layer.n_kv_heads, layer.d_head
    out = layer.proj.weight.double().unflatten(1, (K, -1, d))  # (C, K, G, d)
    each = torch.einsum("ckgi,ckgj->kij", out, out)[heads]  # (n, d, d)
    numbers = slice(heads.start * d, heads.stop * d)
    return basis(found.values[numbers, numbers], torch.block_diag(*each), rank)


@torch.no_grad()
def low_rank(
    model: nn.Module, found: list[Moments], *, key_rank: int | None = None, value_rank: int | None = None
) -> nn.Module:
    """A copy whose shapes stay, and whose keys and values could be cached as fewer numbers for all heads together.

    key_rank: of each pair, complex numbers (K if None). value_rank: numbers (K d if None). In a layer a token's cache
    would hold key_rank * d + value_rank numbers in place of 2 K d.
    """
    model = copy.deepcopy(model)
    for block, it in zip(model.blocks, found, strict=True):
        layer = block.attention
        q, k, v = _matrices(layer)
        every = slice(0, layer.n_kv_heads)
        if key_rank is not None:
            down, up = key_basis(it, every, key_rank)
            k = real_pairs(torch.einsum("pjk,kpc->jpc", up @ down, complex_pairs(k, 1)), 1)
        if value_rank is not None:
            down, up = value_basis(layer, it, every, value_rank)
            v = (up @ down @ v.flatten(0, 1)).view_as(v)
        _put(layer, layer.n_kv_heads, q, k, v)
    return model


@torch.no_grad()
def merge_model(model: nn.Module, found: list[Moments], n_kv_heads: int) -> nn.Module:
    """A copy with fewer key and value heads, n_kv_heads, for groups of those that it has: a plain `TinyLM`.

    Raises ValueError for a number that does not divide its key and value heads.
    """
    model = copy.deepcopy(model)
    for block, it in zip(model.blocks, found, strict=True):
        _merge_layer(block.attention, it, n_kv_heads)
    return model


def _merge_layer(layer: nn.Module, found: Moments, n: int) -> None:
    K, d = layer.n_kv_heads, layer.d_head
    if n < 1 or K % n:
        raise ValueError(f"{K} key heads to {n}: expected a divisor of {K}")
    if found.queries.shape != (layer.n_heads, d // 2) or found.keys.shape[1] != K:
        sizes = f"{tuple(found.queries.shape)} and {found.keys.shape[1]} key heads"
        raise ValueError(
            f"moments of queries {sizes}, the layer has {layer.n_heads} and {K}: are they another model's?"
        )
    q, k, v = _matrices(layer)  # (H, d, C), (K, d, C), (K, d, C)
    q, keys, out = complex_pairs(q, 1), complex_pairs(k, 1), layer.proj.weight.double().unflatten(1, (K, -1, d))
    new_q, new_k, new_v, new_out = [], [], [], []
    for group in range(n):
        heads = slice(group * (K // n), (group + 1) * (K // n))
        down, up = key_basis(found, heads, 1)  # (d / 2, 1, n), (d / 2, n, 1)
        new_k.append(torch.einsum("pk,kpc->pc", down[:, 0], keys[heads]))
        turned = up[:, :, 0].conj().T[:, None, :, None]  # (n, 1, d / 2, 1): folded into the queries that meet each head
        new_q.append((q.unflatten(0, (K, -1))[heads] * turned).flatten(0, 1))
        down, up = value_basis(layer, found, heads, d)  # (d, n d), (n d, d)
        new_v.append(down @ v[heads].flatten(0, 1))
        new_out.append(torch.einsum("cngi,nij->cngj", out[:, heads], up.unflatten(0, (-1, d))))
    layer.proj.weight.copy_(torch.cat(new_out, dim=1).flatten(1))
    _put(layer, n, real_pairs(torch.cat(new_q), 1), real_pairs(torch.stack(new_k), 1), torch.stack(new_v))


def _matrices(layer: nn.Module) -> list[torch.Tensor]:
    """Rows of the query, key and value heads in float64, (heads, d, C); a bias is one column more."""
    bias = [] if layer.qkv.bias is None else [layer.qkv.bias[:, None]]
    rows = torch.cat([layer.qkv.weight, *bias], dim=1).double().unflatten(0, (-1, layer.d_head))
    return rows.split_with_sizes([layer.n_heads, layer.n_kv_heads, layer.n_kv_heads])


def _put(layer: nn.Module, n_kv_heads: int, *matrices: torch.Tensor) -> None:
    """The way back."""
    rows = torch.cat(matrices).flatten(0, 1).to(layer.qkv.weight)
    C = layer.qkv.in_features
    bias = None if layer.qkv.bias is None else rows[:, C].contiguous()
    replace_qkv(layer, n_kv_heads, rows[:, :C].contiguous(), bias)
