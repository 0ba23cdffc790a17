"""Groups with a scale and a minimum: a matrix in 4 bits as the real model's file stores it, and a cache in 8, 4 or 3.

    small = convert(model, lambda name, linear: FourBitLinear(linear))
    cache = rounded_cache(model, batch=1, capacity=300, key_bits=4, value_bits=4)
    logits = model(tokens, cache)

A group of GGUF's Q4_1 is 20 bytes: scale and minimum in float16, and 32 codes, two to a byte. A number is scale * code
+ minimum, in float32. The group's lowest number has code 0 and its highest 15, so that a matrix which was read from
such a file gives scale and codes back exactly.

Source for the cache: Liu et al. 2024 (KIVI, arXiv 2402.02750): a key's channel has its own size, whatever the token, so
scales go by channel, over a group of tokens; a value's has not, so scales go by token. Tokens of the last group, which
is not full yet, stay in float.
"""

import torch
from int8 import from_groups, to_groups
from torch import nn

from shared.cache import KVCache

SIZE = 32  # numbers of a group, and tokens of one in the cache


def pack(codes: torch.Tensor) -> torch.Tensor:
    """Two codes of 4 bits to a byte: (..., n) uint8 -> (..., n / 2). The first half has the low bits, as in GGUF.

    pack([1, 2, 3, 4]) = [0x31, 0x42]
    """
    first, second = codes.chunk(2, dim=-1)
    return first | second << 4


def unpack(packed: torch.Tensor) -> torch.Tensor:
    """The way back: (..., n / 2) -> (..., n)."""
    return torch.cat([packed & 15, packed >> 4], dim=-1)


class FourBitLinear(nn.Module):
    """Weight only, 4 bits: 20 bytes for 32 numbers, multiplied out at each call for a product in float.

    It takes the place of an `nn.Linear`. Raises ValueError for rows that groups of 32 do not divide, and for numbers
    beyond float16, in which scale and minimum are stored.
    """

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        codes, *numbers = to_groups(linear.weight.detach(), SIZE, bits=4)
        stored = [it.half() for it in numbers]
        if not all(it.isfinite().all() for it in stored):
            raise ValueError(f"weights up to {linear.weight.abs().max():.3g}: expected below 65,504, float16's largest")
        self.register_buffer("codes", pack(codes))  # (out, groups, 16)
        self.register_buffer("scale", stored[0])  # (out, groups, 1)
        self.register_buffer("low", stored[1])
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach())

    def matrix(self) -> torch.Tensor:
        """The matrix that is stored, float32: (out, in)."""
        return from_groups(unpack(self.codes), self.scale.float(), self.low.float())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., in_features) -> (..., out_features)."""
        y = x @ self.matrix().to(x.dtype).mT
        return y if self.bias is None else y + self.bias


def round_groups(x: torch.Tensor, bits: int, size: int = SIZE, dim: int = -1) -> torch.Tensor:
    """Numbers to codes and back, groups of `size` neighbours along a dimension: the same shape and type."""
    turned = x.movedim(dim, -1)
    return from_groups(*to_groups(turned, size, bits)).movedim(-1, dim).to(x.dtype)


class RoundedCache(KVCache):
    """A cache that rounds what it holds: what a query reads of tokens before the last full group is what is left of it.

    key_bits, value_bits: 2 to 8, None for float. keys_by: "channel" (over 32 tokens) or "token" (over 32 numbers of a
    head); values_by too. What is rounded is kept in float here; `stored_bytes` says what codes would take. Tokens are
    rounded once their group is full, at the end of a pass: those of the pass itself read each other in float.
    """

    def __init__(self, *sizes, key_bits=None, value_bits=None, keys_by="channel", values_by="token", **how):
        super().__init__(*sizes, **how)
        for by in (keys_by, values_by):
            if by not in ("channel", "token"):
                raise ValueError(f"a scale by {by!r}: expected 'channel' or 'token'")
        if self.keys.shape[-1] % SIZE and "token" in (keys_by, values_by):
            raise ValueError(f"heads {self.keys.shape[-1]} wide: expected a multiple of {SIZE} for scales by token")
        self.rules = [(self.keys, key_bits, keys_by), (self.values, value_bits, values_by)]
        self.rounded = 0

    def advance(self, T: int) -> None:
        """Count T tokens, and round the groups that they have filled."""
        super().advance(T)
        full = self.length // SIZE * SIZE
        for stored, bits, by in self.rules:
            if bits is not None and full > self.rounded:
                new = stored[:, : self.batch, :, self.rounded : full]  # (layers, B, K, tokens, d)
                new.copy_(round_groups(new, bits, dim=-2 if by == "channel" else -1))
        self.rounded = full

    def step_back(self, n: int) -> None:
        """Forget the last n columns. What was rounded of those that stay remains so."""
        super().step_back(n)
        self.rounded = min(self.rounded, self.length // SIZE * SIZE)

    def stored_bytes(self) -> int:
        """What the filled columns would take: codes, a float16 scale and minimum for each group, the rest in float."""
        total = 0
        for stored, bits, _ in self.rules:
            one = stored[:, : self.batch, :, 0].numel()  # numbers of a column
            in_codes = 0 if bits is None else one * self.rounded
            total += in_codes * (bits or 0) // 8 + in_codes // SIZE * 4
            total += (one * self.length - in_codes) * stored.element_size()
        return total


def rounded_cache(model: nn.Module, batch: int, capacity: int, **how) -> RoundedCache:
    """An empty one for a `TinyLM`; how: what `RoundedCache` takes."""
    like = model.new_cache(batch, capacity)
    layers, _, heads, _, width = like.keys.shape
    return RoundedCache(layers, batch, heads, capacity, width, dtype=like.keys.dtype, device=like.keys.device, **how)
