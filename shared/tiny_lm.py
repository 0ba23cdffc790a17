"""A decoder whose parts are slots: GPT-2 as it comes, Llama with other parts. Lesson 05 builds it line by line.

    model = TinyLM(vocab_size=256, context=64, d_model=64, n_layers=2, n_heads=4)
    logits = model(tokens)                  # (batch, time) -> (batch, time, vocab_size)

A slot takes any callable that returns a module; those of `shared.layers` and `shared.rotary` fit:

    attention(d_model, n_heads)             (batch, time, d_model) -> the same shape, causal
    feed_forward(d_model)                   (batch, time, d_model) -> the same shape
    norm(d_model)                           (batch, time, d_model) -> the same shape
    positions(context, d_model)             (batch, time, d_model) -> the same shape, positions added
    block(attention, feed_forward, norm)    (batch, time, d_model) -> the same shape; norm() makes one

A sub-layer calls its last matrix `proj`: it writes to the residual stream and starts smaller (see `_initialise`). Parts
that only take x are enough for whole texts. To read on from a cache, or at positions of one's own, the part in the slot
`positions` also takes `positions`, a block and its `attention` take `positions` and `cache`, and the attention says how
many `n_kv_heads` it has and how wide each is, `d_head`.

Source: Radford et al. 2019 (GPT-2), with pre-norm blocks and the output matrix tied to the embedding.
"""

import functools
import inspect
import math
from collections.abc import Callable
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from shared.cache import KVCache
from shared.layers import CausalAttention, FeedForward, LearnedPositions, PreNorm


class TinyLM(nn.Module):
    """A decoder-only language model with slots; see the module's docstring for what a slot takes.

    vocab_size, context (longest input, in tokens), d_model, n_layers, n_heads: whole numbers, at least 1. tied: the
    head is the embedding's own matrix, else `head`, another one. After blocks whose `ends_in_norm` is True there is no
    last norm. Raises ValueError for sizes that cannot work and, in `forward`, for shapes that do not fit and for
    tokens outside the vocabulary.
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
        block: Callable[[nn.Module, nn.Module, Callable[[], nn.Module]], nn.Module] = PreNorm,
        tied: bool = True,
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
            block(attention(d_model, n_heads), feed_forward(d_model), partial(norm, d_model)) for _ in range(n_layers)
        )
        self.norm = nn.Identity() if getattr(self.blocks[-1], "ends_in_norm", False) else norm(d_model)
        self.head = None if tied else nn.Linear(d_model, vocab_size, bias=False)
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

    def forward(
        self,
        tokens: torch.Tensor,
        cache: KVCache | None = None,
        positions: torch.Tensor | None = None,
        last: int | None = None,
    ) -> torch.Tensor:
        """Logits of the next token at every position: (batch, time) whole numbers -> (batch, time, vocab_size).

        cache: holds what came before these tokens, and afterwards these too. positions: where the tokens stand, (time,)
        or (batch, time), if not one after the other from the start, or from where the cache ends. last: after this many
        last positions only, (batch, last, vocab_size): of a long text the logits cost more than a layer. Raises
        ValueError for a cache of other sizes or too full, and for parts that take no cache or no positions.
        """
        self._check(tokens, cache, positions, last)
        T = tokens.shape[1]
        if cache is not None and positions is None:
            positions = cache.positions(T)
        where = {} if positions is None else {"positions": positions}
        layers = [{}] * len(self.blocks) if cache is None else [{"cache": layer} for layer in cache.layers(T)]
        x = self.positions(self._embed(tokens), **where)
        for block, layer in zip(self.blocks, layers, strict=True):
            x = block(x, **where, **layer)
        if cache is not None:
            cache.advance(T)
        if last is not None:
            x = x[:, T - last :]
        x = self.norm(x)
        return F.linear(x, self.embedding.weight) if self.head is None else self.head(x)

    def _embed(self, tokens: torch.Tensor) -> torch.Tensor:
        try:
            return self.embedding(tokens)
        except IndexError as error:
            wrong = next(token for token in tokens.flatten().tolist() if not 0 <= token < self.vocab_size)
            raise ValueError(f"token {wrong} is outside the vocabulary: expected 0 to {self.vocab_size - 1}") from error

    def new_cache(self, batch: int, capacity: int | None = None, padding: torch.Tensor | None = None) -> KVCache:
        """An empty cache for `batch` rows of up to `capacity` tokens (default: the context); padding as in `KVCache`.

        Raises ValueError for more room than the context, and if a part takes no cache.
        """
        capacity = self.context if capacity is None else capacity
        if capacity > self.context:
            raise ValueError(f"capacity is {capacity}: the model's context is {self.context}")
        self._check_parts()
        attention, like = self.blocks[0].attention, self.embedding.weight
        sizes = (len(self.blocks), batch, attention.n_kv_heads, capacity, attention.d_head)
        return KVCache(*sizes, padding=padding, dtype=like.dtype, device=like.device)

    @property
    def takes_cache(self) -> bool:
        """Whether every part takes what a cache needs."""
        return not self._plain_parts()

    def _plain_parts(self) -> list[str]:
        """The kinds of parts that do not take all that a cache needs."""
        parts = [(self.positions, {"positions"})]
        parts += [(part, {"positions", "cache"}) for block in self.blocks for part in (block, block.attention)]
        return sorted({type(part).__name__ for part, names in parts if not names <= _parameters(type(part))})

    def _check_parts(self) -> None:
        if plain := self._plain_parts():
            reason = "forward takes not both `positions` and `cache`, so the model reads whole texts only"
            raise ValueError(f"{', '.join(plain)}: {reason}")

    def _check(
        self, tokens: torch.Tensor, cache: KVCache | None, positions: torch.Tensor | None, last: int | None
    ) -> None:
        if tokens.ndim != 2 or not 1 <= tokens.shape[1] <= self.context:
            raise ValueError(f"tokens have shape {tuple(tokens.shape)}: expected (batch, 1 to {self.context})")
        if last is not None and not 1 <= last <= tokens.shape[1]:
            raise ValueError(f"last is {last}: expected 1 to {tokens.shape[1]}, or None for all positions")
        if cache is not None or positions is not None:
            self._check_parts()
        if cache is not None and (found := (len(cache.keys), cache.batch)) != (len(self.blocks), len(tokens)):
            here = f"the model and the tokens {len(self.blocks)} and {len(tokens)}"
            raise ValueError(f"the cache has {found[0]} layers and {found[1]} rows, {here}: make one with `new_cache`")
        if positions is not None and positions.shape not in (tokens.shape[1:], tokens.shape):
            shapes = f"{tuple(tokens.shape[1:])} or {tuple(tokens.shape)}"
            raise ValueError(f"positions have shape {tuple(positions.shape)}: expected {shapes}")


@functools.cache
def _parameters(kind: type[nn.Module]) -> set[str]:
    """What `forward` takes; what takes any name takes both of ours."""
    found = inspect.signature(kind.forward).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in found.values())
    return {*found, *(("positions", "cache") if takes_any else ())}
