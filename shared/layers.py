"""The parts of a decoder that `shared.tiny_lm` puts together: attention, feed-forward, learned positions, blocks.

A part that knows where its tokens stand takes `positions`, whole numbers (time,) or (batch, time), None for 0, 1, 2 and
so on; one that reads and fills a `shared.cache.KVCache` takes `cache`, its own layer of it. A block hands both on.
"""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from shared.cache import CacheLayer


class CausalAttention(nn.Module):
    """Multi-head causal self-attention by PyTorch's own fused operation. Lesson 04 writes it by hand.

    n_kv_heads: each key and value head serves n_heads / n_kv_heads query heads (Ainslie et al. 2023, arXiv 2305.13245);
    as many as n_heads if None. `qkv` has the rows of all query heads, then the key heads, then the value heads.
    window: how many tokens one sees, itself among them (Jiang et al. 2023, Mistral, arXiv 2310.06825); None: all before
    it. It may be set later, counts columns whatever `positions` say, and is a mask only: it costs what the whole text
    costs, and a cache keeps all of it. Raises ValueError for sizes that do not divide and for a window below 1.
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        *,
        n_kv_heads: int | None = None,
        bias: bool = True,
        window: int | None = None,
    ):
        super().__init__()
        n_kv_heads = n_heads if n_kv_heads is None else n_kv_heads
        if d_model % n_heads:
            raise ValueError(f"d_model {d_model} does not divide into {n_heads} heads: choose a multiple of {n_heads}")
        if n_kv_heads < 1 or n_heads % n_kv_heads:
            raise ValueError(f"n_kv_heads is {n_kv_heads}: expected a divisor of the {n_heads} query heads")
        self.n_heads, self.n_kv_heads, self.d_head, self.window = n_heads, n_kv_heads, d_model // n_heads, window
        self.qkv = nn.Linear(d_model, (n_heads + 2 * n_kv_heads) * self.d_head, bias=bias)
        self.proj = nn.Linear(d_model, d_model, bias=bias)

    def forward(
        self, x: torch.Tensor, positions: torch.Tensor | None = None, cache: CacheLayer | None = None
    ) -> torch.Tensor:
        B, T, C = x.shape
        heads = self.qkv(x).view(B, T, -1, self.d_head).transpose(1, 2)  # (B, H + 2 K, T, d)
        qk, v = heads.split_with_sizes([self.n_heads + self.n_kv_heads, self.n_kv_heads], dim=1)
        q, k = self.place(qk, positions).split_with_sizes([self.n_heads, self.n_kv_heads], dim=1)
        mask = None
        if cache is not None:
            mask = cache.mask
            k, v = cache.extend(k, v)  # (B, K, all tokens so far, d)
        y = self.attend(q, k, v, self._within_window(mask, T, k.shape[-2], x.device))
        return self.proj(y.transpose(1, 2).reshape(B, T, C))

    @property
    def window(self) -> int | None:
        """How many tokens one sees, itself among them; None: all before it."""
        return self._window

    @window.setter
    def window(self, window: int | None) -> None:
        if window is not None and window < 1:
            raise ValueError(f"window is {window}: a token sees itself, so expected 1 or more, or None for all before")
        self._window = window

    def _within_window(self, mask: torch.Tensor | None, T: int, S: int, device) -> torch.Tensor | None:
        """`mask` of the last T of S tokens, and the window; as it was where the window holds all S."""
        if self.window is None or self.window >= S:
            return mask
        near = torch.ones(T, S, dtype=torch.bool, device=device).tril(S - T).triu(S - T - self.window + 1)
        return near if mask is None else near & mask

    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """What each head has read: q (B, H, T, d), k and v (B, K, S, d) -> (B, H, T, d).

        mask: True where a query may look, as `shared.cache.CacheLayer` has it.
        """
        causal = mask is None and q.shape[-2] > 1  # without a mask one token sees all that the cache holds
        grouped = self.n_kv_heads != self.n_heads
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, enable_gqa=grouped)

    def place(self, x: torch.Tensor, positions: torch.Tensor | None = None) -> torch.Tensor:
        """Queries and keys, (B, heads, T, d), with positions put in: none here, the slot `positions` has added them."""
        return x


class FeedForward(nn.Module):
    """Two matrices with a GELU between them, four times as wide inside. approximate: "none", or "tanh" (GPT-2's)."""

    def __init__(self, d_model: int, *, approximate: str = "none"):
        super().__init__()
        self.up = nn.Linear(d_model, 4 * d_model)
        self.proj = nn.Linear(4 * d_model, d_model)
        self.approximate = approximate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.proj(F.gelu(self.up(x), approximate=self.approximate))


class SwiGLU(nn.Module):
    """Llama's feed-forward, d_hidden wide inside: silu(gate) * up, then back (Shazeer 2020, arXiv 2002.05202).

    `gate_up` has the rows of the gate, then those of up: one large product is faster than two.
    """

    def __init__(self, d_model: int, d_hidden: int, *, bias: bool = False):
        super().__init__()
        self.gate_up = nn.Linear(d_model, 2 * d_hidden, bias=bias)
        self.proj = nn.Linear(d_hidden, d_model, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.proj(F.silu(gate) * up)


class LearnedPositions(nn.Module):
    """One learned vector for each position below `context`, added to the token's vector."""

    def __init__(self, context: int, d_model: int):
        super().__init__()
        self.table = nn.Embedding(context, d_model)

    def forward(self, x: torch.Tensor, positions: torch.Tensor | None = None) -> torch.Tensor:
        if positions is None:
            return x + self.table.weight[: x.shape[1]]
        return x + self.table(positions.to(x.device))


class NoPositions(nn.Module):
    """Adds nothing: for attention that puts positions in itself, or for a decoder without any."""

    def forward(self, x: torch.Tensor, positions: torch.Tensor | None = None) -> torch.Tensor:
        return x


class PreNorm(nn.Module):
    """x + f(norm(x)): the norm in the branch, as GPT-2 and Llama have it. norm() makes one of the stream's width."""

    def __init__(self, attention: nn.Module, feed_forward: nn.Module, norm: Callable[[], nn.Module]):
        super().__init__()
        self.attention, self.feed_forward = attention, feed_forward
        self.norm_1, self.norm_2 = norm(), norm()

    def forward(self, x: torch.Tensor, **where) -> torch.Tensor:
        """where: `positions` and `cache`, as the attention takes them."""
        x = x + self.attention(self.norm_1(x), **where)
        return x + self.feed_forward(self.norm_2(x))


class PostNorm(PreNorm):
    """norm(x + f(x)): the norm on the stream, as in Vaswani et al. 2017 (arXiv 1706.03762)."""

    ends_in_norm = True  # so the decoder needs none after the last block

    def forward(self, x: torch.Tensor, **where) -> torch.Tensor:
        x = self.norm_1(x + self.attention(x, **where))
        return self.norm_2(x + self.feed_forward(x))


class SandwichNorm(PreNorm):
    """x + norm(f(norm(x))): a norm before and after, both in the branch (Ding et al. 2021, arXiv 2105.13290)."""

    def __init__(self, attention: nn.Module, feed_forward: nn.Module, norm: Callable[[], nn.Module]):
        super().__init__(attention, feed_forward, norm)
        self.norm_3, self.norm_4 = norm(), norm()

    def forward(self, x: torch.Tensor, **where) -> torch.Tensor:
        x = x + self.norm_3(self.attention(self.norm_1(x), **where))
        return x + self.norm_4(self.feed_forward(self.norm_2(x)))
