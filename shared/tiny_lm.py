"""A small GPT-style decoder whose parts are slots.

A lesson puts its own part in a slot and keeps the rest. Lesson 05 builds the same model line by line.

    model = TinyLM(vocab_size=256, context=64, d_model=64, n_layers=2, n_heads=4)
    logits = model(tokens)                  # (batch, time) -> (batch, time, vocab_size)

A slot takes any callable that returns a module:

    attention(d_model, n_heads)     (batch, time, d_model) -> the same shape, causal
    feed_forward(d_model)           (batch, time, d_model) -> the same shape
    norm(d_model)                   (batch, time, d_model) -> the same shape
    positions(context, d_model)     (batch, time, d_model) -> the same shape, positions added

A sub-layer calls its last matrix `proj`: it writes to the residual stream and starts smaller (see `_initialise`).

Source: Radford et al. 2019 (GPT-2), with pre-norm blocks and the output matrix tied to the embedding.
"""

import math
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F


class CausalAttention(nn.Module):
    """Multi-head causal self-attention by PyTorch's own fused operation. Lesson 04 writes it by hand."""

    def __init__(self, d_model: int, n_heads: int):
        super().__init__()
        if d_model % n_heads:
            raise ValueError(f"d_model {d_model} does not divide into {n_heads} heads: choose a multiple of {n_heads}")
        self.n_heads = n_heads
        self.qkv = nn.Linear(d_model, 3 * d_model)
        self.proj = nn.Linear(d_model, d_model)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        B, T, C = x.shape
        qkv = self.qkv(x).view(B, T, 3, self.n_heads, C // self.n_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, H, T, C // H)
        y = F.scaled_dot_product_attention(self.place(q), self.place(k), v, is_causal=True)
        return self.proj(y.transpose(1, 2).reshape(B, T, C))

    def place(self, x: torch.Tensor) -> torch.Tensor:
        """Queries or keys, (B, H, T, d), with positions put in: none here, the slot `positions` has added them."""
        return x


class FeedForward(nn.Module):
    """Two matrices with a GELU between them, four times as wide inside."""

    def __init__(self, d_model: int):
        super().__init__()
        self.up = nn.Linear(d_model, 4 * d_model)
        self.proj = nn.Linear(4 * d_model, d_model)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.proj(F.gelu(self.up(x)))


class LearnedPositions(nn.Module):
    """One learned vector for each position, added to the token's vector."""

    def __init__(self, context: int, d_model: int):
        super().__init__()
        self.table = nn.Embedding(context, d_model)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.table.weight[: x.shape[1]]


class Block(nn.Module):
    """x + attention(norm(x)), then x + feed_forward(norm(x))."""

    def __init__(self, attention: nn.Module, feed_forward: nn.Module, norms: list[nn.Module]):
        super().__init__()
        self.attention, self.feed_forward = attention, feed_forward
        self.norm_1, self.norm_2 = norms

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.norm_1(x))
        return x + self.feed_forward(self.norm_2(x))


class TinyLM(nn.Module):
    """A decoder-only language model with slots; see the module's docstring for what a slot takes.

    vocab_size, context (longest input, in tokens), d_model, n_layers, n_heads: whole numbers, at least 1.
    Raises ValueError for sizes that cannot work and, in `forward`, for shapes that do not fit; a token outside the
    vocabulary is torch's IndexError.
    """

    def __init__(
        self,
        vocab_size: int,
        context: int,
        d_model: int = 64,
        n_layers: int = 2,
        n_heads: int = 4,
        *,
        attention: Callable[[int, int], nn.Module] = CausalAttention,
        feed_forward: Callable[[int], nn.Module] = FeedForward,
        norm: Callable[[int], nn.Module] = nn.LayerNorm,
        positions: Callable[[int, int], nn.Module] = LearnedPositions,
    ):
        super().__init__()
        sizes = {"vocab_size": vocab_size, "context": context, "d_model": d_model, "n_layers": n_layers}
        for name, size in (sizes | {"n_heads": n_heads}).items():
            if size < 1:
                raise ValueError(f"{name} is {size}: it must be at least 1")
        self.vocab_size, self.context = vocab_size, context
        self.embedding = nn.Embedding(vocab_size, d_model)
        self.positions = positions(context, d_model)
        self.blocks = nn.ModuleList(
            Block(attention(d_model, n_heads), feed_forward(d_model), [norm(d_model), norm(d_model)])
            for _ in range(n_layers)
        )
        self.norm = norm(d_model)
        self._initialise()

    def _initialise(self) -> None:
        """Matrices from N(0, 0.02), those that write to the residual stream smaller by sqrt(2 n_layers); biases 0."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                writes = name.endswith(".proj")
                std = 0.02 / math.sqrt(2 * len(self.blocks)) if writes else 0.02
                nn.init.normal_(module.weight, std=std)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits of the next token at every position: (batch, time) whole numbers -> (batch, time, vocab_size)."""
        if tokens.ndim != 2 or not 1 <= tokens.shape[1] <= self.context:
            raise ValueError(f"tokens have shape {tuple(tokens.shape)}: expected (batch, 1 to {self.context})")
        x = self.positions(self.embedding(tokens))
        for block in self.blocks:
            x = block(x)
        return F.linear(self.norm(x), self.embedding.weight)  # tied: the embedding read backwards

    @torch.no_grad()
    def generate(self, tokens: torch.Tensor, n: int, generator: torch.Generator | None = None) -> torch.Tensor:
        """Draw n more tokens one at a time from the model's own distribution: (batch, time) -> (batch, time + n)."""
        for _ in range(n):
            logits = self(tokens[:, -self.context :])[:, -1]
            following = torch.multinomial(logits.softmax(-1), 1, generator=generator)
            tokens = torch.cat([tokens, following], dim=1)
        return tokens
