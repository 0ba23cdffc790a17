"""Attention from the sum up: the loop, the tensor form, the backward pass by hand, many heads, and tiles.

Shapes, everywhere in this file:

    q  (..., T_q, d_k)     what each token looks for
    k  (..., T_k, d_k)     what each token offers
    v  (..., T_k, d_v)     what each token hands over
    mask                   bool, broadcastable to (..., T_q, T_k); True means "may attend"
    scale                  a number the scores are multiplied by; None means 1 / sqrt(d_k)

Every public function raises ValueError, in words, for tensors that do not fit together, empty sequences, masks that
are not boolean, and values that are not finite. Tensors may have any number of leading axes, the same for q, k and v.

Sources: Vaswani et al. 2017 (arXiv 1706.03762) for attention; Milakov and Gimelshein 2018 (1805.02867) for the online
softmax; Dao et al. 2022 (2205.14135) for tiles.
"""

import math

import attention_clinic
import torch
from torch import nn

CHECKS = attention_clinic.CHECKS  # what a right implementation must do
FAULTS = attention_clinic.FAULTS  # one-line bugs for this file, with their answers: try the clinic first


def softmax(scores: torch.Tensor) -> torch.Tensor:
    """Weights along the last axis: (..., n) -> (..., n), each row sums to 1; a row that is all -inf gives zeros.

    exp overflows float32 above 88, so the row's largest score is taken off first: the factor exp(-largest) cancels.
    """
    if not scores.is_floating_point() or scores.ndim == 0 or 0 in scores.shape:
        raise ValueError(f"scores are {scores.dtype} {tuple(scores.shape)}: expected floats in rows that are not empty")
    scores, given = _at_least_float32(scores), scores.dtype
    lowest, tiny = torch.finfo(scores.dtype).min, torch.finfo(scores.dtype).tiny
    largest = scores.amax(dim=-1, keepdim=True).clamp(min=lowest)
    _check_largest(largest)
    weights = torch.exp(scores - largest)
    return (weights / weights.sum(dim=-1, keepdim=True).clamp(min=tiny)).to(given)


def causal_mask(t_q: int, t_k: int | None = None, device=None) -> torch.Tensor:
    """True where a query may look: at itself and at what came before. (t_q, t_k), the last query sees the last key.

    causal_mask(3) = [[1, 0, 0],
                      [1, 1, 0],
                      [1, 1, 1]]
    """
    t_k = t_q if t_k is None else t_k
    if min(t_q, t_k) < 1:
        raise ValueError(f"a mask for {t_q} queries and {t_k} keys: there must be at least one of each")
    queries, keys = _positions(t_q, t_k, device)
    return keys <= queries[:, None]


@torch.no_grad()
def attention_loop(q, k, v, mask=None, scale=None) -> torch.Tensor:
    """The specification, slow and readable: one query and one key at a time, plain sums. Returns (..., T_q, d_v)."""
    scale = _checked_scale(q, k, v, mask, scale)
    if q.ndim > 2:
        masks = [None] * len(q) if mask is None else mask.expand(*q.shape[:-1], k.shape[-2])
        return torch.stack([attention_loop(*parts, scale) for parts in zip(q, k, v, masks, strict=True)])
    out = v.new_zeros(len(q), v.shape[-1])
    mask = torch.ones(len(q), len(k)) > 0 if mask is None else mask.expand(len(q), len(k))
    for i in range(len(q)):
        allowed = [j for j in range(len(k)) if mask[i, j]]
        scores = [scale * sum(q[i, c].item() * k[j, c].item() for c in range(q.shape[1])) for j in allowed]
        largest = max(scores, default=0.0)
        weights = [math.exp(score - largest) for score in scores]
        total = sum(weights)
        for j, weight in zip(allowed, weights, strict=True):
            out[i] += weight / total * v[j]
    return out


def attention_weights(q, k, mask=None, scale=None) -> torch.Tensor:
    """How much each query takes from each key: (..., T_q, T_k)."""
    scale = _checked_scale(q, k, k, mask, scale)
    return _weights(q, k, mask, scale)


def _weights(q, k, mask, scale):
    # (..., T_q, d_k) times (..., d_k, T_k) is (..., T_q, T_k)
    scores = q @ k.mT * scale
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    return softmax(scores)


class _Attention(torch.autograd.Function):
    """Attention with its backward pass written out; lesson 04 derives each line."""

    @staticmethod
    def forward(ctx, q, k, v, mask, scale):
        weights = _weights(q, k, mask, scale)
        ctx.save_for_backward(q, k, v, weights)
        ctx.scale = scale
        return weights @ v  # (..., T_q, d_v)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, d_out):
        q, k, v, weights = ctx.saved_tensors
        d_v = weights.mT @ d_out
        d_weights = d_out @ v.mT  # (..., T_q, T_k)
        # the softmax's Jacobian, diag(p) - p p^T, times d_weights, without ever building the Jacobian
        d_scores = weights * (d_weights - (weights * d_weights).sum(dim=-1, keepdim=True))
        d_q = d_scores @ k * ctx.scale
        d_k = d_scores.mT @ q * ctx.scale
        return d_q, d_k, d_v, None, None


def attention(q, k, v, mask=None, scale=None) -> torch.Tensor:
    """softmax(q k^T scale) v with the backward pass above: (..., T_q, d_v)."""
    scale = _checked_scale(q, k, v, mask, scale)
    return _Attention.apply(q, k, v, mask, scale)


def attention_tiled(q, k, v, mask=None, scale=None, *, causal=False, tile=128) -> torch.Tensor:
    """The same answer from tile x tile blocks of scores: no T_q x T_k matrix ever exists. (..., T_q, d_v).

    Each row keeps three running things: the largest score so far, the sum of exp(score - largest), and the weighted
    sum of values. When a block brings a larger score, what was summed before shrinks by exp(old - new). That is all
    of the online softmax. causal=True makes the mask block by block and leaves out blocks that lie in the future.
    The sums are kept in float32 at least. Autograd works through it, but then keeps every tile.
    """
    scale = _checked_scale(q, k, v, mask, scale)
    if tile < 1:
        raise ValueError(f"tile is {tile}: it must be at least 1")
    t_q, t_k, wide = q.shape[-2], k.shape[-2], torch.promote_types(q.dtype, torch.float32)
    lowest, tiny = torch.finfo(wide).min, torch.finfo(wide).tiny
    queries, keys = _positions(t_q, t_k, q.device)
    if mask is not None:
        mask = mask.expand(*q.shape[:-1], t_k)  # a view: takes no memory
    out = q.new_zeros(*q.shape[:-1], v.shape[-1])
    for i in range(0, t_q, tile):
        rows = slice(i, i + tile)
        largest = q.new_full((*q.shape[:-2], len(queries[rows]), 1), lowest, dtype=wide)
        total, mixed = torch.zeros_like(largest), torch.zeros_like(largest)
        for j in range(0, t_k, tile):
            columns = slice(j, j + tile)
            if causal and keys[j] > queries[rows][-1]:
                break
            scores = _at_least_float32(q[..., rows, :] @ k[..., columns, :].mT * scale)  # (..., tile, tile)
            if mask is not None:
                scores = scores.masked_fill(~mask[..., rows, columns], -math.inf)
            if causal and keys[columns][-1] > queries[rows][0]:  # the block crosses the diagonal
                scores = scores.masked_fill(keys[columns] > queries[rows, None], -math.inf)
            new_largest = torch.maximum(largest, scores.amax(dim=-1, keepdim=True))
            _check_largest(new_largest)
            shrink = torch.exp(largest - new_largest)
            weights = torch.exp(scores - new_largest)
            total = total * shrink + weights.sum(dim=-1, keepdim=True)
            mixed = mixed * shrink + weights @ _at_least_float32(v[..., columns, :])
            largest = new_largest
        out[..., rows, :] = (mixed / total.clamp(min=tiny)).to(out.dtype)
    return out


class MultiHeadAttention(nn.Module):
    """Several attentions side by side, each in its own slice of the width, then one output projection.

    d_model: width of the input and the output. n_heads: how many heads; without `d_head` they share d_model evenly.
    causal: a token sees itself and the past. scale: as above. qk_norm: divide each query and key by its root mean
    square, with a learned gain for each channel, before the scores (Henry et al. 2020, arXiv 2010.04245, with RMS).
    The matrices are `query`, `key` and `value` (W_Q, W_K, W_V), each d_model to n_heads * d_head, and `proj` back.
    """

    def __init__(self, d_model, n_heads, *, d_head=None, causal=True, scale=None, qk_norm=False):
        super().__init__()
        if min(d_model, n_heads) < 1 or (d_head < 1 if d_head is not None else d_model % n_heads):
            raise ValueError(f"d_model {d_model} does not divide into {n_heads} heads (d_head is {d_head}): change one")
        self.n_heads, self.causal = n_heads, causal
        self.d_head = d_model // n_heads if d_head is None else d_head
        self.scale = 1 / math.sqrt(self.d_head) if scale is None else scale
        self.query, self.key, self.value = (nn.Linear(d_model, n_heads * self.d_head, bias=False) for _ in range(3))
        self.proj = nn.Linear(n_heads * self.d_head, d_model, bias=False)
        self.q_norm = nn.RMSNorm(self.d_head) if qk_norm else nn.Identity()
        self.k_norm = nn.RMSNorm(self.d_head) if qk_norm else nn.Identity()

    def heads(self, x):
        """Queries, keys and values of every head: (B, T, d_model) -> three of (B, H, T, d_head)."""
        if x.ndim != 3 or x.shape[-1] != self.query.in_features:
            raise ValueError(f"x has shape {tuple(x.shape)}: expected (batch, tokens, {self.query.in_features})")
        B, T, _ = x.shape
        # (B, T, H * d_head) -> (B, T, H, d_head) -> (B, H, T, d_head)
        split = [matrix(x).view(B, T, self.n_heads, self.d_head) for matrix in (self.query, self.key, self.value)]
        q, k, v = (part.transpose(1, 2).contiguous() for part in split)
        return self.q_norm(q), self.k_norm(k), v

    def mask(self, x, padding=None):
        """Who may attend to whom: None, or broadcastable to (B, H, T, T). padding: (B, T) bool, True is a token."""
        mask = causal_mask(x.shape[1], device=x.device) if self.causal else None
        if padding is None:
            return mask
        if padding.dtype != torch.bool or padding.shape != x.shape[:2]:
            raise ValueError(f"padding is {padding.dtype} {tuple(padding.shape)}: expected bool {tuple(x.shape[:2])}")
        real = padding[:, None, None, :]  # (B, 1, 1, T): no query looks at a padded key
        return real if mask is None else real & mask

    def weights(self, x, padding=None):
        """Each head's attention map: (B, T, d_model) -> (B, H, T, T)."""
        q, k, _ = self.heads(x)
        return attention_weights(q, k, self.mask(x, padding), self.scale)

    def forward(self, x, padding=None):
        """(B, T, d_model) -> (B, T, d_model). padding: (B, T) bool, True where there is a token."""
        q, k, v = self.heads(x)
        y = attention(q, k, v, self.mask(x, padding), self.scale)
        # (B, H, T, d_head) -> (B, T, H, d_head) -> (B, T, H * d_head)
        y = y.transpose(1, 2).flatten(2)
        return self.proj(y)


def _positions(t_q, t_k, device=None):
    """Where queries and keys stand, counted from the first key: the last query stands at the last key."""
    return torch.arange(t_q, device=device) + (t_k - t_q), torch.arange(t_k, device=device)


def _at_least_float32(tensor):
    """The tensor, in float32 if it was in half precision: a long sum of small numbers loses its digits there."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _check_largest(largest):
    """Refuse rows whose scores overflowed, or were never numbers."""
    if not (largest < math.inf).all():
        raise ValueError("a row's largest score is NaN or +inf: its weights are not defined")


def _checked_scale(q, k, v, mask, scale):
    """The scale to use, once the tensors are known to fit together."""
    if scale is not None and not (isinstance(scale, int | float) and math.isfinite(scale)):
        raise ValueError(f"scale is {scale!r}: expected a finite number, or None for 1 / sqrt(d_k)")
    for name, tensor in (("q", q), ("k", k), ("v", v)):
        if not isinstance(tensor, torch.Tensor):
            raise ValueError(f"{name} is a {type(tensor).__name__}: expected a torch tensor")
        shape = tuple(tensor.shape)
        if tensor.ndim < 2 or 0 in shape:
            raise ValueError(f"{name} has shape {shape}: expected (..., tokens, width) with nothing empty")
        if not tensor.is_floating_point() or tensor.dtype != q.dtype:
            raise ValueError(f"{name} is {tensor.dtype} and q {q.dtype}: expected one floating-point type")
        if tensor.shape[:-2] != q.shape[:-2]:
            raise ValueError(f"{name} has shape {shape}, q {tuple(q.shape)}: all but the last two must be equal")
        if not tensor.detach().sum().isfinite() and not (finite := torch.isfinite(tensor)).all():
            place = (~finite).nonzero()[0].tolist()
            raise ValueError(f"{name} holds {tensor[tuple(place)].item()} at {place}: find where it came from")
    if q.shape[-1] != k.shape[-1]:
        raise ValueError(f"queries are {q.shape[-1]} wide and keys {k.shape[-1]}: a dot product needs equal widths")
    if k.shape[-2] != v.shape[-2]:
        raise ValueError(f"{k.shape[-2]} keys but {v.shape[-2]} values: each key needs one value")
    if mask is not None:
        wanted = (*q.shape[:-1], k.shape[-2])
        kind = getattr(mask, "dtype", type(mask).__name__)
        if kind != torch.bool:
            raise ValueError(f"the mask is {kind}: expected a bool tensor, True where a query may attend")
        sizes = zip(reversed(mask.shape), reversed(wanted), strict=False)
        if mask.ndim > len(wanted) or any(m not in (1, w) for m, w in sizes):
            raise ValueError(f"the mask has shape {tuple(mask.shape)}: expected one that broadcasts to {wanted}")
    return 1 / math.sqrt(q.shape[-1]) if scale is None else scale
