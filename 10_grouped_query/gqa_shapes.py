"""Published models' shapes: what their caches hold, and how much of all memory that is.

LLAMA_3_1_8B.cached(n_kv_heads=32)          # numbers of a token, if its heads were not shared
saved(LLAMA_3_1_8B, tokens=8192, batch=16)  # share of all bytes that sharing saves: .61
"""

from dataclasses import dataclass

from gqa import cache_bytes


@dataclass(frozen=True)
class Shape:
    """A published model. weights: how many. latent: numbers of a token and layer that MLA stores, in place of heads.

    context: tokens that it was trained for. source: where the sizes stand.
    """

    name: str
    weights: float
    n_layers: int
    n_heads: int
    n_kv_heads: int
    d_head: int
    context: int
    source: str
    latent: int = 0

    def cached(self, n_kv_heads: int | None = None) -> int:
        """Numbers of a token, in all layers; n_kv_heads: if it had so many in place of its own way of sharing."""
        if n_kv_heads is None and self.latent:
            return self.n_layers * self.latent
        heads = self.n_kv_heads if n_kv_heads is None else n_kv_heads
        return cache_bytes(1, self.n_layers, heads, self.d_head, bytes_per_number=1)


def share(shape: Shape, tokens: float, batch: float, n_kv_heads: int | None = None) -> float:
    """The cache's share of weights and cache together; both of the same number type."""
    cache = tokens * batch * shape.cached(n_kv_heads)
    return cache / (cache + shape.weights)


def saved(shape: Shape, tokens: float, batch: float) -> float:
    """The share of all bytes, weights and cache, that sharing saves, beside a key head for each query head.

    The weights count as equally many: a model that shares puts what it saves in the matrices of keys and values into
    its feed-forward, as Llama 2 does.
    """
    without = shape.weights + tokens * batch * shape.cached(shape.n_heads)
    return tokens * batch * (shape.cached(shape.n_heads) - shape.cached()) / without


def crossing(shape: Shape, n_kv_heads: int | None = None) -> float:
    """How many tokens, of all rows together, take as many bytes as the weights."""
    return shape.weights / shape.cached(n_kv_heads)


GPT_2_XL = Shape("GPT-2 XL", 1_557_611_200, 48, 25, 25, 64, 1024, "Radford et al. 2019")
LLAMA_2_7B = Shape("Llama 2 7B", 6_738_415_616, 32, 32, 32, 128, 4096, "arXiv 2307.09288")
LLAMA_2_70B = Shape("Llama 2 70B", 68_976_648_192, 80, 64, 8, 128, 4096, "arXiv 2307.09288")
LLAMA_3_1_8B = Shape("Llama 3.1 8B", 8_030_261_248, 32, 32, 8, 128, 131_072, "arXiv 2407.21783, table 3")
LLAMA_3_1_405B = Shape("Llama 3.1 405B", 405_853_388_800, 126, 128, 8, 128, 131_072, "arXiv 2407.21783, table 3")
PALM_540B = Shape("PaLM 540B", 540.35e9, 118, 48, 1, 256, 2048, "arXiv 2204.02311, table 1")
DEEPSEEK_V3 = Shape("DeepSeek-V3", 671e9, 61, 128, 128, 128, 131_072, "arXiv 2412.19437, section 4.2", latent=576)
SMOLLM2_135M = Shape("SmolLM2-135M", 134_515_008, 30, 9, 3, 64, 8192, "its own file")
SHAPES = (SMOLLM2_135M, GPT_2_XL, LLAMA_2_7B, LLAMA_3_1_8B, LLAMA_2_70B, LLAMA_3_1_405B, PALM_540B, DEEPSEEK_V3)
