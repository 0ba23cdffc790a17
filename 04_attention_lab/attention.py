"""Attention from the sum up: the loop, the tensor form, the backward pass by hand, many heads, and tiles.

Shapes, everywhere in this file:

    q  (..., T_q, d_k)     what each token looks for
    k  (..., T_k, d_k)     what each token offers
    v  (..., T_k, d_v)     what each token hands over
    mask                   bool, broadcastable to (..., T_q, T_k); True means "may attend"
    scale                  a number that multiplies the scores; None means 1 / sqrt(d_k)

Read it from the top: softmax, mask, the loop that defines attention, its tensor form with the backward pass, the same
by tiles, and the layer with its heads. Half precision is computed in float32. A query that may attend to nothing gets
zeros.

Sources: Vaswani et al. 2017 (arXiv 1706.03762) for attention; Milakov and Gimelshein 2018 (1805.02867) for the online
softmax; Dao et al. 2022 (2205.14135) and Dao 2023 (2307.08691) for tiles and their backward pass.
"""

import math

import torch
from torch import nn


def softmax(scores: torch.Tensor) -> torch.Tensor:
    """Weights along the last axis: (..., n) -> (..., n). Each row sums to 1; a row of -inf alone gives zeros.

    exp overflows float32 above 88, so the row's largest score is taken off first: the factor exp(-largest) cancels.
    """
    largest = scores.amax(dim=-1, keepdim=True).clamp(min=torch.finfo(scores.dtype).min)
    weights = torch.exp(scores - largest)
    total = weights.sum(dim=-1, keepdim=True)
    return weights / total.clamp(min=torch.finfo(scores.dtype).tiny)


def softmax_backward(weights: torch.Tensor, d_weights: torch.Tensor) -> torch.Tensor:
    """The scores' gradient from the weights' gradient, both (..., n): the Jacobian diag(p) - p p^T times d_weights.

    The Jacobian is n x n for each row; the product needs only the row's mean of d_weights, weighted by p.
    """
    mean = (weights * d_weights).sum(dim=-1, keepdim=True)
    return weights * (d_weights - mean)


def causal_mask(t_q: int, t_k: int | None = None, device=None) -> torch.Tensor:
    """True where a query may attend: to itself and to what came before. (t_q, t_k); the last query is at the last key.

    causal_mask(3) = [[1, 0, 0],
                      [1, 1, 0],
                      [1, 1, 1]]

    Raises ValueError for sizes that are not whole numbers, 1 or more.
    """
    t_k = t_q if t_k is None else t_k
    _check_sizes(queries=t_q, keys=t_k)
    queries = torch.arange(t_k - t_q, t_k, device=device)  # positions, counted from the first key
    keys = torch.arange(t_k, device=device)
    return keys <= queries[:, None]


@torch.no_grad()
def attention_loop(q, k, v, mask=None, scale=None) -> torch.Tensor:
    """The specification, slow and readable: one query and one key at a time, plain sums. Returns (..., T_q, d_v)."""
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    mask = torch.ones(q.shape[-2], k.shape[-2]) > 0 if mask is None else mask
    mask = mask.expand(*q.shape[:-1], k.shape[-2])
    if q.ndim > 2:
        return torch.stack([attention_loop(*parts, scale) for parts in zip(q, k, v, mask, strict=True)])
    out = v.new_zeros(len(q), v.shape[-1])
    for i in range(len(q)):
        allowed = [j for j in range(len(k)) if mask[i, j]]
        scores = [scale * sum(q[i, c].item() * k[j, c].item() for c in range(q.shape[1])) for j in allowed]
        largest = max(scores, default=0.0)
        weights = [math.exp(score - largest) for score in scores]
        for j, weight in zip(allowed, weights, strict=True):
            out[i] += weight / sum(weights) * v[j]
    return out


def attention_weights(q, k, mask=None, scale=None) -> torch.Tensor:
    """How much each query takes from each key: (..., T_q, T_k).

    Raises ValueError for a mask that is not boolean: numbers would be inverted bit by bit.
    """
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    scores = q @ k.mT * scale  # (..., T_q, d_k) @ (..., d_k, T_k) -> (..., T_q, T_k)
    if mask is not None:
        _check_mask(mask)
        scores = scores.masked_fill(~mask, -math.inf)
    return softmax(scores)


class _Attention(torch.autograd.Function):
    """Attention with its backward pass written out; lesson 04 derives each line.

    The weights are computed again from what was given: with stored ones a second derivative would be wrong.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(q, k, v, mask, scale):
        return attention_weights(q, k, mask, scale) @ v  # (..., T_q, T_k) @ (..., T_k, d_v) -> (..., T_q, d_v)

    @staticmethod
    def setup_context(ctx, inputs, output):
        q, k, v, mask, ctx.scale = inputs
        ctx.save_for_backward(q, k, v, mask)

    @staticmethod
    def backward(ctx, d_out):
        q, k, v, mask = ctx.saved_tensors
        weights = attention_weights(q, k, mask, ctx.scale)  # (..., T_q, T_k)
        d_v = weights.mT @ d_out  # (..., T_k, d_v)
        d_weights = d_out @ v.mT  # (..., T_q, T_k)
        d_scores = softmax_backward(weights, d_weights)
        d_q = d_scores @ k * ctx.scale
        d_k = d_scores.mT @ q * ctx.scale
        return d_q, d_k, d_v, None, None


def attention(q, k, v, mask=None, scale=None) -> torch.Tensor:
    """softmax(q k^T scale) v, with the backward pass above: (..., T_q, d_v).

    Raises ValueError for a mask that is not boolean, and for a scale that is a tensor: it would get no gradient.
    """
    scale = _checked_scale(q, scale)
    with torch.autocast(q.device.type, enabled=False):  # it would take the scores back to half precision
        out = _Attention.apply(*_at_least_float32(q, k, v), mask, scale)
    return out.to(v.dtype)


def online_step(largest, total, mixed, scores, values):
    """One step of the online softmax: what a row knows after some keys, brought up to date with a tile of more keys.

    largest (..., T_q, 1): the largest score so far. total (..., T_q, 1): the sum of exp(score - largest). mixed
    (..., T_q, d_v): the sum of exp(score - largest) times value. scores (..., T_q, tile) and values (..., tile, d_v)
    are new. Returns the three. Before the first key they are the lowest finite number, 0 and 0.
    """
    new_largest = torch.maximum(largest, scores.amax(dim=-1, keepdim=True))
    shrink = torch.exp(largest - new_largest)  # what was summed so far was measured from the old largest
    weights = torch.exp(scores - new_largest)
    total = total * shrink + weights.sum(dim=-1, keepdim=True)
    mixed = mixed * shrink + weights @ values
    return new_largest, total, mixed


class _TiledAttention(torch.autograd.Function):
    """FlashAttention's arithmetic: forward and backward by tiles of scores, none of which is kept."""

    @staticmethod
    def forward(ctx, q, k, v, mask, scale, causal, tile):
        lowest = torch.finfo(q.dtype).min
        out, log_total = q.new_zeros(*q.shape[:-1], v.shape[-1]), q.new_zeros(*q.shape[:-1], 1)
        for rows in _slices(q.shape[-2], tile):
            largest = q.new_full((*q.shape[:-2], rows.stop - rows.start, 1), lowest)
            total, mixed = torch.zeros_like(largest), torch.zeros_like(out[..., rows, :])
            for columns, scores in _score_tiles(q, k, mask, scale, causal, tile, rows):
                largest, total, mixed = online_step(largest, total, mixed, scores, v[..., columns, :])
            out[..., rows, :] = mixed / total.clamp(min=torch.finfo(q.dtype).tiny)
            log_total[..., rows, :] = torch.where(total > 0, largest + total.log(), math.inf)
        ctx.save_for_backward(q, k, v, mask, out, log_total)
        ctx.settings = scale, causal, tile
        return out

    @staticmethod
    def backward(ctx, d_out):
        if torch.is_grad_enabled():
            raise RuntimeError("attention_tiled has one derivative: for a second one take attention")
        q, k, v, mask, out, log_total = ctx.saved_tensors
        scale, causal, tile = ctx.settings
        d_q, d_k, d_v = torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
        mean = (d_out * out).sum(dim=-1, keepdim=True)  # the row's mean of d_weights, without the weights
        for rows in _slices(q.shape[-2], tile):
            for columns, scores in _score_tiles(q, k, mask, scale, causal, tile, rows):
                weights = torch.exp(scores - log_total[..., rows, :])  # computed again, not kept
                d_weights = d_out[..., rows, :] @ v[..., columns, :].mT
                d_scores = weights * (d_weights - mean[..., rows, :])
                d_v[..., columns, :] += weights.mT @ d_out[..., rows, :]
                d_q[..., rows, :] += d_scores @ k[..., columns, :] * scale
                d_k[..., columns, :] += d_scores.mT @ q[..., rows, :] * scale
        return d_q, d_k, d_v, None, None, None, None


def attention_tiled(q, k, v, mask=None, scale=None, *, causal=False, tile=128) -> torch.Tensor:
    """The same answer and gradient from tile x tile blocks of scores: no T_q x T_k matrix exists. (..., T_q, d_v).

    causal=True makes the mask block by block and leaves out blocks that lie in the future. Raises ValueError as
    `attention` does, and for a tile that is not a whole number, 1 or more; RuntimeError for a second derivative.
    """
    _check_sizes(tile=tile)
    scale = _checked_scale(q, scale)
    if mask is not None:
        _check_mask(mask)
        mask = mask.expand(*q.shape[:-1], k.shape[-2])  # a view: takes no memory
    with torch.autocast(q.device.type, enabled=False):
        out = _TiledAttention.apply(*_at_least_float32(q, k, v), mask, scale, causal, tile)
    return out.to(v.dtype)


def _slices(n, tile):
    return [slice(start, min(start + tile, n)) for start in range(0, n, tile)]


def _score_tiles(q, k, mask, scale, causal, tile, rows):
    """For a tile of queries: the keys' slice and the masked scores (..., tile, tile), for each tile of keys in turn."""
    t_q, t_k = q.shape[-2], k.shape[-2]
    queries = torch.arange(rows.start, rows.stop, device=q.device) + (t_k - t_q)
    for columns in _slices(t_k, tile):
        if causal and columns.start > t_k - t_q + rows.stop - 1:
            return  # from here on all keys lie in the future
        scores = q[..., rows, :] @ k[..., columns, :].mT * scale
        if mask is not None:
            scores = scores.masked_fill(~mask[..., rows, columns], -math.inf)
        if causal:
            keys = torch.arange(columns.start, columns.stop, device=q.device)
            scores = scores.masked_fill(keys > queries[:, None], -math.inf)
        yield columns, scores


class MultiHeadAttention(nn.Module):
    """Several attentions side by side, each in its own slice of the width, then one output projection.

    d_model: width of the input and the output. n_heads: how many heads; without `d_head` they share d_model evenly.
    causal: a token attends to itself and the past. scale: as above. qk_norm: divide each query and key by its root mean
    square, with a learned gain for each channel, before the scores (Henry et al. 2020, arXiv 2010.04245, with RMS).
    The matrices are `query`, `key` and `value` (W_Q, W_K, W_V), each d_model to n_heads * d_head, and `proj` back.
    Raises ValueError for sizes that do not divide, and for padding that is not bool (B, T).
    """

    def __init__(self, d_model, n_heads, *, d_head=None, causal=True, scale=None, qk_norm=False):
        super().__init__()
        if d_head is None and d_model % n_heads:
            raise ValueError(f"d_model {d_model} does not divide into {n_heads} heads: change one, or give d_head")
        self.n_heads, self.causal = n_heads, causal
        self.d_head = d_model // n_heads if d_head is None else d_head
        self.scale = 1 / math.sqrt(self.d_head) if scale is None else scale
        self.query, self.key, self.value = (nn.Linear(d_model, n_heads * self.d_head, bias=False) for _ in range(3))
        self.proj = nn.Linear(n_heads * self.d_head, d_model, bias=False)
        self.q_norm = nn.RMSNorm(self.d_head) if qk_norm else nn.Identity()
        self.k_norm = nn.RMSNorm(self.d_head) if qk_norm else nn.Identity()

    def heads(self, x):
        """Queries, keys and values of every head: (B, T, d_model) -> three of (B, H, T, d_head)."""
        B, T, _ = x.shape
        # (B, T, H * d_head) -> (B, T, H, d_head) -> (B, H, T, d_head)
        split = [matrix(x).view(B, T, self.n_heads, self.d_head) for matrix in (self.query, self.key, self.value)]
        q, k, v = (part.transpose(1, 2) for part in split)
        return self.q_norm(q), self.k_norm(k), v

    def mask(self, x, padding=None):
        """Which pairs are allowed: None, or broadcastable to (B, H, T, T). padding: (B, T), True is a token."""
        mask = causal_mask(x.shape[1], device=x.device) if self.causal else None
        if padding is None:
            return mask
        if padding.dtype != torch.bool or padding.shape != x.shape[:2]:
            raise ValueError(f"padding is {padding.dtype} {tuple(padding.shape)}: expected bool {tuple(x.shape[:2])}")
        real = padding[:, None, None, :]  # (B, 1, 1, T): no query attends to a padded key
        return real if mask is None else real & mask

    def weights(self, x, padding=None):
        """Each head's attention map: (B, T, d_model) -> (B, H, T, T)."""
        q, k, _ = self.heads(x)
        return attention_weights(*_at_least_float32(q, k), self.mask(x, padding), self.scale)

    def forward(self, x, padding=None):
        """(B, T, d_model) -> (B, T, d_model). padding: (B, T) bool, True where there is a token."""
        q, k, v = self.heads(x)
        y = attention(q, k, v, self.mask(x, padding), self.scale)
        # (B, H, T, d_head) -> (B, T, H, d_head) -> (B, T, H * d_head)
        y = y.transpose(1, 2).flatten(2)
        return self.proj(y)


def _at_least_float32(*tensors):
    """In half precision a score of 60 is off by 0.1, and a long sum of small numbers loses its digits."""
    return [tensor.to(torch.promote_types(tensor.dtype, torch.float32)) for tensor in tensors]


def _checked_scale(q, scale):
    if isinstance(scale, torch.Tensor):
        raise ValueError("scale is a tensor: expected a number; to learn one, multiply q by it")
    return 1 / math.sqrt(q.shape[-1]) if scale is None else scale


def _check_mask(mask):
    if mask.dtype != torch.bool:
        raise ValueError(f"the mask is {mask.dtype}: expected bool, True where a query may attend")


def _check_sizes(**sizes):
    for name, size in sizes.items():
        if not isinstance(size, int) or size < 1:
            raise ValueError(f"{name} is {size!r}: expected a whole number, 1 or more")
