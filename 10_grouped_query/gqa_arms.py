"""A real model's keys and values made otherwise, layer by layer, as hooks: what `real_gqa_sweep` tries.

    hooks = remade(ranked(1, 64), "kv")                 # all keys and values from other rows of the fused matrix
    with hooked(model, hooks): ...

A maker takes a layer and its moments and returns rows for its keys, (K, d, C), and its values; other keys and values of
the same shapes, so that one hook serves all, whatever could be stored in their place.
"""

import functools
from collections.abc import Callable, Container, Iterable
from functools import partial

import torch
from gqa import pool
from gqa_merge import Moments, basis, complex_pairs, key_basis, real_pairs, value_basis
from gqa_real import fitted_moments, fitting_text, model_and_tokenizer
from torch import nn
from torch.nn import functional as F

from shared.hooks import Hook, look
from shared.rotary import rotate

FAST = 16  # pairs, of 32, that turn once in fewer than 2,000 tokens
Rows = tuple[torch.Tensor, torch.Tensor]  # of a layer's keys, (K, d, C), and of its values
Make = Callable[[nn.Module, Moments], Rows]


def rows_of(layer: nn.Module) -> Rows:
    """Those that a layer has."""
    heads = layer.qkv.weight.unflatten(0, (-1, layer.d_head))
    return heads[layer.n_heads :].split(layer.n_kv_heads)


def index_of(layer: nn.Module) -> int:
    """The layer's number in the real model."""
    return [block.attention for block in model_and_tokenizer()[0].blocks].index(layer)


# Three heads made one


def each_by(how: Callable[[torch.Tensor], torch.Tensor]) -> Make:
    """Keys and values alike: three heads' rows -> one head's, which takes the place of each."""
    return lambda layer, found: tuple(how(heads).expand_as(heads) for heads in rows_of(layer))


def random(layer: nn.Module, found: Moments) -> Rows:
    """Random numbers of the same spread."""
    generator = torch.Generator().manual_seed(index_of(layer))
    return each_by(lambda heads: pool(heads, 1, "random", generator))(layer, found)


def aligned(layer: nn.Module, found: Moments) -> Rows:
    """The mean, after each head was turned to fit the others. A head's numbers may be turned by any rotation, and each
    pair of its keys by any angle, if the output's or the queries' matrix turns them back: no two heads agree on one."""
    k, v = (heads.double() for heads in rows_of(layer))
    K, d, _ = v.shape
    turns = align(found.values.unflatten(0, (K, d)).unflatten(2, (K, d)).transpose(1, 2))  # (K, d, d)
    v = turns @ (turns.mT @ v).mean(dim=0)
    pairs = complex_pairs(k, 1)  # (K, d / 2, C)
    angles = torch.stack([align(pair[:, :, None, None])[:, 0, 0] for pair in found.keys], dim=1)[..., None]
    return real_pairs(angles * (angles.conj() * pairs).mean(dim=0), 1).float(), v.float()


def align(moment: torch.Tensor, rounds: int = 20) -> torch.Tensor:
    """Orthogonal (unitary) turns U, (K, d, d), for which the U_j^H x_j differ least, from the mean of x_i x_j^H,
    (K, K, d, d): each in turn to fit the sum of the others (generalised Procrustes: Gower 1975)."""
    K, d = len(moment), moment.shape[-1]
    turns = torch.eye(d).to(moment).repeat(K, 1, 1)
    for _ in range(rounds):
        for j in range(K):
            others = sum(moment[j, i] @ turns[i] for i in range(K) if i != j)
            left, _, right = torch.linalg.svd(others)
            turns[j] = left @ right
    return turns


def ranked(key_rank: int | None, value_rank: int | None) -> Make:
    """Principal components, as `gqa_merge.low_rank` has them: a pair's keys from `key_rank` complex numbers, all values
    from `value_rank` numbers."""

    def make(layer, found):
        every = slice(0, layer.n_kv_heads)
        k, v = rows_of(layer)
        if key_rank is not None:
            down, up = key_basis(found, every, key_rank)
            k = real_pairs(torch.einsum("pjk,kpc->jpc", up @ down, complex_pairs(k.double(), 1)), 1).float()
        if value_rank is not None:
            down, up = value_basis(layer, found, every, value_rank)
            v = (up @ down @ v.flatten(0, 1).double()).view_as(v).float()
        return k, v

    return make


def fitted_to(text: str, make: Make) -> Make:
    """The same from another text's moments: a kind of `gqa_real.fitting_text`."""
    return lambda layer, found: make(layer, fitted_moments(text)[index_of(layer)])


# One latent for keys and values


def joint(rank: int, slow_only: bool = False) -> Make:
    """Keys before rotation and values from one latent of `rank` numbers. slow_only: of the keys only the slow pairs;
    the fast ones from one complex number each, which can be cached after rotation."""

    def make(layer, found):
        k, v = rows_of(layer)
        K, d, C = k.shape
        numbers = slow(d).repeat(K) if slow_only else torch.ones(K * d, dtype=torch.bool)
        chosen = torch.cat([numbers, torch.ones(K * d, dtype=torch.bool)])
        rows = torch.cat([k, v]).flatten(0, 1).double()  # (2 K d, C)
        moment, metric = joint_moment(layer), joint_metric(layer, found)
        down, up = basis(moment[chosen][:, chosen], metric[chosen][:, chosen], rank)
        rows[chosen] = up @ (down @ rows[chosen])
        fast = ranked(1, None)(layer, found)[0].flatten(0, 1)
        rows[: K * d] = torch.where(numbers[:, None], rows[: K * d], fast)
        return rows.float().view(2, K, d, C).unbind()

    return make


def apart(key_rank: int, value_rank: int) -> Make:
    """Keys before rotation and values, each from a latent of its own."""

    def make(layer, found):
        moment, metric, made = joint_moment(layer), joint_metric(layer, found), []
        for i, (rows, rank) in enumerate(zip(rows_of(layer), (key_rank, value_rank), strict=True)):
            n = len(moment) // 2
            here = slice(i * n, (i + 1) * n)
            down, up = basis(moment[here, here], metric[here, here], rank)
            made.append((up @ (down @ rows.flatten(0, 1).double())).float().view_as(rows))
        return tuple(made)

    return make


def slow(d: int) -> torch.Tensor:
    """Which numbers of a head belong to pairs that turn slowly: (d,)."""
    return torch.arange(d) % (d // 2) >= FAST


def joint_moment(layer: nn.Module) -> torch.Tensor:
    """Mean products of keys before rotation and values, (2 K d, 2 K d), from those of what the layer is given."""
    rows = torch.cat(rows_of(layer)).flatten(0, 1).double()
    return rows @ given_moments()[index_of(layer)] @ rows.T


@functools.cache
def given_moments() -> list[torch.Tensor]:
    """Of each layer the mean products of what its attention is given, (C, C), on the text that fits."""
    found = 0
    for part in fitting_text().split(2):
        seen = look(model_and_tokenizer()[0], part, ["norm_1"], last=1)["norm_1"]
        flat = torch.stack(seen).flatten(1, 2)  # (layers, tokens, C)
        found = found + flat.mT @ flat / fitting_text().numel()
    return list(found.double())


def joint_metric(layer: nn.Module, found: Moments) -> torch.Tensor:
    """How errors count: of keys by the queries that meet them, of values by what they write; each as a share of what
    there is, so that none outweighs the other."""
    K, d = layer.n_kv_heads, layer.d_head
    queries = found.queries.unflatten(0, (K, -1)).sum(dim=1).repeat(1, 2).flatten()  # (K d,)
    out = layer.proj.weight.double().unflatten(1, (K, -1, d))
    written = torch.block_diag(*torch.einsum("ckgi,ckgj->kij", out, out))
    moment = joint_moment(layer)
    k, v = moment[: K * d, : K * d], moment[K * d :, K * d :]
    return torch.block_diag(torch.diag(queries) / (queries * k.diagonal()).sum(), written / (written * v).sum())


# Hooks


def remade(make: Make, what: str = "kv", layers: Iterable[int] | None = None, first: bool = False) -> dict[str, Hook]:
    """Keys ("k"), values ("v") or both from other rows, in some layers or all. first: token 0 keeps its own."""
    model, found, given = model_and_tokenizer()[0], fitted_moments(), {}
    rows = {at: make(model.blocks[at].attention, found[at]) for at in layers or range(len(found))}

    def keep(h, layer):
        given[layer] = h

    def put(x, layer, which):
        if layer not in rows:
            return None
        made = F.linear(given[layer], rows[layer][which].flatten(0, 1)).unflatten(-1, rows[layer][which].shape[:2])
        made = made.transpose(1, 2)  # (B, K, T, d)
        if which == 0:
            made = model.blocks[layer].attention.place(made)
        return torch.cat([x[:, :, :1], made[:, :, 1:]], dim=2) if first else made

    changes = {"k": lambda x, layer: put(x, layer, 0), "v": lambda x, layer: put(x, layer, 1)}
    return {"norm_1": keep} | {name: changes[name] for name in what}


def unturned(*names: str, of: Callable[[int], torch.Tensor] = lambda d: torch.ones(d, dtype=torch.bool)) -> dict:
    """Queries, keys or both without their rotation, in all numbers or those that are True."""
    base = model_and_tokenizer()[0].blocks[0].attention.rotary_base

    def back(x, layer):
        return torch.where(of(x.shape[-1]), rotate(x, base, -torch.arange(x.shape[2])), x)

    return dict.fromkeys(names, back)


def chained(one: dict[str, Hook], other: dict[str, Hook]) -> dict[str, Hook]:
    """Hooks after hooks."""

    def both(name):
        def change(x, layer):
            changed = one[name](x, layer)
            return other[name](x if changed is None else changed, layer)

        return change

    return one | {name: both(name) if name in one else hook for name, hook in other.items()}


def across(how: str, what: str, pairs: Container[int] | None = None) -> dict[str, Hook]:
    """Layer 2 i + 1 reads what layer 2 i has, for some i or all. how: "copied", or "fitted", by the map that fits
    best."""
    kept, maps = {}, fitted_maps() if how == "fitted" else {}

    def change(x, layer, name):
        kept[name, layer] = x
        if layer % 2 == 0 or (pairs is not None and layer // 2 not in pairs):
            return None
        before = kept[name, layer - 1]
        return mapped(before, maps[name][layer // 2], name) if maps else before

    return {name: partial(change, name=name) for name in what}


def vectors(x: torch.Tensor, name: str) -> torch.Tensor:
    """Keys by pair, complex: (d / 2, tokens, K). Values of all heads: (1, tokens, K d)."""
    if name == "k":
        return complex_pairs(x).permute(3, 0, 2, 1).flatten(1, 2)
    return x.transpose(1, 2).flatten(2).flatten(0, 1)[None]


def mapped(x: torch.Tensor, matrix: torch.Tensor, name: str) -> torch.Tensor:
    """Keys or values (B, K, T, d) by a map of their `vectors`."""
    B, K, T, d = x.shape
    y = vectors(x, name) @ matrix.mT
    if name == "k":
        return real_pairs(y.unflatten(1, (B, T)).permute(1, 3, 2, 0))
    return y.view(B, T, K, d).transpose(1, 2)


@functools.cache
def fitted_maps() -> dict[str, list[torch.Tensor]]:
    """For each pair of layers the least-squares map from the first one's keys, and values, to the second one's."""
    sums = {"k": [], "v": []}
    for part in fitting_text().split(2):
        seen = look(model_and_tokenizer()[0], part, ["k", "v"], last=1)
        for name, found in sums.items():
            found.append([_products(*pair, name) for pair in zip(seen[name][::2], seen[name][1::2], strict=True)])
    return {name: [_solved(sum(parts)) for parts in zip(*found, strict=True)] for name, found in sums.items()}


def _products(one: torch.Tensor, other: torch.Tensor, name: str) -> torch.Tensor:
    """Of one layer's vectors with themselves, and of another layer's with them: (2, ..., n, n)."""
    one, other = (vectors(x.double(), name) for x in (one, other))
    return torch.stack([one.mT @ one.conj(), other.mT @ one.conj()])


def _solved(products: torch.Tensor) -> torch.Tensor:
    own, both = products
    matrix = torch.linalg.solve(own, both, left=False)  # matrix @ own = both
    return matrix.to(torch.complex64 if matrix.is_complex() else torch.float32)
