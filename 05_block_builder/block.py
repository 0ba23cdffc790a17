"""A decoder from parts, in PyTorch and once more with its backward pass by hand.

    model = Decoder(vocab_size=256, context=64, d_model=64, n_layers=2, n_heads=4)
    next_token_loss(model(tokens), tokens)                     # tokens (batch, time)
    ledger(model, tokens)                                      # who wrote what to the residual stream

    weights = dict(model.named_parameters())
    loss, gradients = loss_and_gradients(weights, tokens, n_heads=4)   # no autograd in here

The default parts make a GPT-2; `Attention(n_kv_heads=, rotary_base=, bias=False)`, `SwiGLU`, RMSNorm and no positions
make a Llama (`block_hf.load_hf` sets them). Weights have the names that `shared.tiny_lm` gives them.

Sources: Radford et al. 2019 (GPT-2), Touvron et al. 2023 (Llama, arXiv 2302.13971), He et al. 2016 (identity
mappings, 1603.05027).
"""

import math
from collections.abc import Callable
from contextlib import ExitStack

import torch
from torch import nn
from torch.nn import functional as F

from shared.rotary import rotate


class Attention(nn.Module):
    """Causal self-attention: (batch, time, d_model) -> the same shape.

    n_kv_heads: keys and values are shared by n_heads / n_kv_heads queries each (default: not shared). rotary_base:
    turn queries and keys by their positions (default: do not). Raises ValueError for sizes below 1 or that do not
    divide, and for heads of an odd width that are to be turned: a rotation takes pairs.
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        *,
        n_kv_heads: int | None = None,
        rotary_base: float | None = None,
        bias: bool = True,
    ):
        super().__init__()
        n_kv_heads = n_heads if n_kv_heads is None else n_kv_heads
        if min(d_model, n_heads, n_kv_heads) < 1 or d_model % n_heads or n_heads % n_kv_heads:
            sizes = f"{d_model} numbers, {n_heads} heads, {n_kv_heads} for keys"
            raise ValueError(f"{sizes}: each must be 1 or more and divide the one before it")
        if rotary_base is not None and d_model // n_heads % 2:
            raise ValueError(f"heads {d_model // n_heads} wide are to be rotated in pairs: expected an even width")
        self.n_heads, self.n_kv_heads, self.d_head = n_heads, n_kv_heads, d_model // n_heads
        self.rotary_base = rotary_base
        self.qkv = nn.Linear(d_model, (n_heads + 2 * n_kv_heads) * self.d_head, bias=bias)
        self.proj = nn.Linear(d_model, d_model, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        B, T, C = x.shape
        heads = self.qkv(x).view(B, T, -1, self.d_head).transpose(1, 2)  # (B, H + 2 K, T, d)
        q, k, v = heads.split([self.n_heads, self.n_kv_heads, self.n_kv_heads], dim=1)
        if self.rotary_base is not None:
            q, k = rotate(q, self.rotary_base), rotate(k, self.rotary_base)
        k, v = (part.repeat_interleave(self.n_heads // self.n_kv_heads, dim=1) for part in (k, v))  # (B, H, T, d)
        y = self.weights(q @ k.mT / math.sqrt(self.d_head)) @ v
        return self.proj(y.transpose(1, 2).reshape(B, T, C))

    def weights(self, scores: torch.Tensor) -> torch.Tensor:
        """Scores (B, H, T, T) to weights: none on the future, each row sums to one."""
        future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        return scores.masked_fill(future, -math.inf).softmax(dim=-1)


class FeedForward(nn.Module):
    """Two matrices with a GELU between them, four times as wide inside. approximate: "none" or "tanh" (GPT-2's)."""

    def __init__(self, d_model: int, *, approximate: str = "none"):
        super().__init__()
        self.up, self.proj = nn.Linear(d_model, 4 * d_model), nn.Linear(4 * d_model, d_model)
        self.approximate = approximate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.proj(F.gelu(self.up(x), approximate=self.approximate))


class SwiGLU(nn.Module):
    """Llama's feed-forward: silu(gate) * up, then back, d_hidden wide inside (Shazeer 2020, arXiv 2002.05202)."""

    def __init__(self, d_model: int, d_hidden: int, *, bias: bool = False):
        super().__init__()
        self.gate, self.up = (nn.Linear(d_model, d_hidden, bias=bias) for _ in range(2))
        self.proj = nn.Linear(d_hidden, d_model, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.proj(F.silu(self.gate(x)) * self.up(x))


class LearnedPositions(nn.Module):
    """One learned vector for each position, added to the token's vector."""

    def __init__(self, context: int, d_model: int):
        super().__init__()
        self.table = nn.Embedding(context, d_model)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.table.weight[: x.shape[1]]


class Block(nn.Module):
    """x + attention(norm(x)), then h + feed_forward(norm(h)).

    skip: what the stream is multiplied by on its way past each of the two: 1, or some other number to see what breaks.
    It is a setting, as n_heads is: not saved with the weights.
    """

    def __init__(
        self, attention: nn.Module, feed_forward: nn.Module, norms: list[nn.Module], dropout: float, skip: float
    ):
        super().__init__()
        self.attention, self.feed_forward = attention, feed_forward
        self.norm_1, self.norm_2 = norms
        self.dropout = dropout
        self.register_buffer("skip", torch.tensor(float(skip)), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.skip * x + self.drop(self.attention(self.norm_1(x)))
        return self.skip * h + self.drop(self.feed_forward(self.norm_2(h)))

    def drop(self, x: torch.Tensor) -> torch.Tensor:
        """Numbers left out at random, while training."""
        return F.dropout(x, self.dropout, self.training)


class Decoder(nn.Module):
    """Embedding, positions, blocks, a last norm, and the head: the logits of the next token at every position.

    Slots take callables, as in `shared.tiny_lm`: attention(d_model, n_heads), feed_forward(d_model), norm(d_model),
    positions(context, d_model). tied: the head is the embedding's own matrix. Raises ValueError for sizes below 1 and,
    when called, for tokens of a shape that does not fit; a token outside the vocabulary is torch's IndexError.
    """

    def __init__(
        self,
        vocab_size: int,
        context: int,
        d_model: int = 64,
        n_layers: int = 2,
        n_heads: int = 4,
        *,
        attention: Callable[[int, int], nn.Module] = Attention,
        feed_forward: Callable[[int], nn.Module] = FeedForward,
        norm: Callable[[int], nn.Module] = nn.LayerNorm,
        positions: Callable[[int, int], nn.Module] = LearnedPositions,
        tied: bool = True,
        dropout: float = 0.0,
        skip: float = 1.0,
    ):
        super().__init__()
        if min(vocab_size, context, d_model, n_layers, n_heads) < 1:
            sizes = f"vocabulary {vocab_size}, context {context}, d_model {d_model}, {n_layers} layers, {n_heads} heads"
            raise ValueError(f"{sizes}: expected each to be 1 or more")
        self.context = context
        self.embedding = nn.Embedding(vocab_size, d_model)
        self.positions = positions(context, d_model)
        self.blocks = nn.ModuleList(
            Block(attention(d_model, n_heads), feed_forward(d_model), [norm(d_model), norm(d_model)], dropout, skip)
            for _ in range(n_layers)
        )
        self.norm = norm(d_model)
        self.head = nn.Linear(d_model, vocab_size, bias=False)
        if tied:
            self.head.weight = self.embedding.weight
        self._initialise()

    def _initialise(self) -> None:
        """Matrices from N(0, 0.02), those that write to the stream smaller by sqrt(2 n_layers); biases 0."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                writes = name.endswith(".proj")
                std = 0.02 / math.sqrt(2 * len(self.blocks)) if writes else 0.02
                nn.init.normal_(module.weight, std=std)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(batch, time) whole numbers -> (batch, time, vocab_size)."""
        if tokens.ndim != 2 or not 1 <= tokens.shape[1] <= self.context:
            raise ValueError(f"tokens have shape {tuple(tokens.shape)}: expected (batch, 1 to {self.context})")
        x = self.positions(self.embedding(tokens))  # (B, T, C), the stream
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def next_token_loss(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Mean cross entropy, in nats, of each token under the logits before it. logits (B, T, V), tokens (B, T).

    Raises ValueError without a next token: T below 2, or an empty batch.
    """
    if not len(tokens) or tokens.shape[1] < 2:
        raise ValueError(f"tokens have shape {tuple(tokens.shape)}: expected a text or more, of 2 tokens or more")
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())


@torch.no_grad()
def ledger(model: nn.Module, tokens: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Who writes what to the residual stream: {writer: (B, T, C)} in the order of writing, and the stream at the end.

    With skips of 1 and no dropout the entries add up to the stream. Works on a `Decoder` and on a `TinyLM`.
    """
    entries, end = {}, []
    with ExitStack() as hooks:
        for name, part in model.named_modules():
            if name == "embedding" or name.endswith((".attention", ".feed_forward")):
                note = lambda _, __, out, name=name: entries.__setitem__(name, out)  # noqa: E731
                hooks.callback(part.register_forward_hook(note).remove)
        note = lambda _, inputs, out: entries.__setitem__("positions", out - inputs[0])  # noqa: E731
        hooks.callback(model.positions.register_forward_hook(note).remove)
        hooks.callback(model.norm.register_forward_pre_hook(lambda _, inputs: end.append(inputs[0])).remove)
        model(tokens)
    return entries, end[0]


# The same model once more, by hand. Each part returns its output and `back`, which takes the gradient of the output,
# adds the gradients of the part's weights to `g`, and returns the gradient of its input. w: {name: weight}.


def linear(w, name, x):
    """x (B, T, in) times the matrix (out, in), plus the bias: (B, T, out)."""

    def back(dy, g):
        add(g, f"{name}.weight", dy.flatten(0, 1).T @ x.flatten(0, 1))  # (out, B T) @ (B T, in)
        add(g, f"{name}.bias", dy.sum(dim=(0, 1)))
        return dy @ w[f"{name}.weight"]

    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"], back


def add(g, name, gradient):
    """A weight that is used twice gets both gradients."""
    g[name] = g[name] + gradient if name in g else gradient


def layer_norm(w, name, x, eps=1e-5):
    """Each token's numbers less their mean, over their deviation, times the gain, plus the bias: (B, T, C)."""
    centred = x - x.mean(dim=-1, keepdim=True)
    scale = (centred.square().mean(dim=-1, keepdim=True) + eps).rsqrt()
    unit = centred * scale

    def back(dy, g):
        add(g, f"{name}.weight", (dy * unit).sum(dim=(0, 1)))
        add(g, f"{name}.bias", dy.sum(dim=(0, 1)))
        d = dy * w[f"{name}.weight"]
        return scale * (d - d.mean(dim=-1, keepdim=True) - unit * (d * unit).mean(dim=-1, keepdim=True))

    return unit * w[f"{name}.weight"] + w[f"{name}.bias"], back


def attention(w, name, x, n_heads):
    """Causal self-attention, (B, T, C)."""
    (B, T, C), d = x.shape, x.shape[-1] // n_heads
    qkv, back_qkv = linear(w, f"{name}.qkv", x)
    q, k, v = qkv.view(B, T, 3, n_heads, d).permute(2, 0, 3, 1, 4)  # each (B, H, T, d)
    future = torch.ones(T, T, dtype=torch.bool, device=x.device).triu(1)
    p = (q @ k.mT / math.sqrt(d)).masked_fill(future, -math.inf).softmax(dim=-1)  # (B, H, T, T)
    y, back_proj = linear(w, f"{name}.proj", (p @ v).transpose(1, 2).reshape(B, T, C))

    def back(dy, g):
        dmixed = back_proj(dy, g).view(B, T, n_heads, d).transpose(1, 2)  # (B, H, T, d)
        dp = dmixed @ v.mT
        dscores = p * (dp - (dp * p).sum(dim=-1, keepdim=True)) / math.sqrt(d)  # through the softmax
        dq, dk, dv = dscores @ k, dscores.mT @ q, p.mT @ dmixed
        dqkv = torch.stack([dq, dk, dv]).permute(1, 3, 0, 2, 4).reshape(B, T, 3 * C)
        return back_qkv(dqkv, g)

    return y, back


def feed_forward(w, name, x):
    """Up, GELU, down: (B, T, C)."""
    h, back_up = linear(w, f"{name}.up", x)
    below = 0.5 * (1 + torch.erf(h / math.sqrt(2)))  # the share of a normal distribution below h
    y, back_proj = linear(w, f"{name}.proj", h * below)

    def back(dy, g):
        density = torch.exp(-h.square() / 2) / math.sqrt(2 * math.pi)
        return back_up(back_proj(dy, g) * (below + h * density), g)

    return y, back


def block(w, name, x, n_heads):
    """Both sub-layers with their skips: (B, T, C)."""
    n, back_norm_1 = layer_norm(w, f"{name}.norm_1", x)
    a, back_attention = attention(w, f"{name}.attention", n, n_heads)
    h = x + a
    n, back_norm_2 = layer_norm(w, f"{name}.norm_2", h)
    f, back_feed_forward = feed_forward(w, f"{name}.feed_forward", n)

    def back(dy, g):
        dh = dy + back_norm_2(back_feed_forward(dy, g), g)  # past the feed-forward, and through it
        return dh + back_norm_1(back_attention(dh, g), g)

    return h + f, back


def cross_entropy(logits, targets):
    """The mean over all positions, in nats. logits (B, T, V), targets (B, T)."""
    log_p = logits.log_softmax(dim=-1)
    hit = F.one_hot(targets, logits.shape[-1])

    def back():
        return (log_p.exp() - hit) / targets.numel()

    return -(log_p * hit).sum() / targets.numel(), back


@torch.no_grad()
def loss_and_gradients(weights, tokens, n_heads):
    """`next_token_loss` of a Decoder with default parts, and its gradient by every weight, without autograd.

    weights: {name: tensor} as in `named_parameters`. tokens: (B, T), T from 2 to the context and one more, for the last
    is only a target. Returns a number and {name: gradient}. Raises ValueError for an untied head or another shape.
    """
    longest = len(weights["positions.table.weight"]) + 1
    if "head.weight" in weights:
        raise ValueError("a 'head.weight' of its own: expected tied weights, the embedding's matrix as the head")
    if tokens.ndim != 2 or not len(tokens) or not 2 <= tokens.shape[1] <= longest:
        raise ValueError(f"tokens have shape {tuple(tokens.shape)}: expected (batch, 2 to {longest})")
    w, g, x = weights, {}, tokens[:, :-1]
    stream = w["embedding.weight"][x] + w["positions.table.weight"][: x.shape[1]]
    backs = []
    for i in range(len({name.split(".")[1] for name in w if name.startswith("blocks.")})):
        stream, back = block(w, f"blocks.{i}", stream, n_heads)
        backs.append(back)
    n, back_norm = layer_norm(w, "norm", stream)
    loss, back_loss = cross_entropy(n @ w["embedding.weight"].T, tokens[:, 1:])

    dlogits = back_loss()  # (B, T, V)
    add(g, "embedding.weight", dlogits.flatten(0, 1).T @ n.flatten(0, 1))  # as the head
    d = back_norm(dlogits @ w["embedding.weight"], g)
    for back in reversed(backs):
        d = back(d, g)
    table = torch.zeros_like(w["positions.table.weight"])
    table[: x.shape[1]] = d.sum(dim=0)
    add(g, "positions.table.weight", table)
    words = torch.zeros_like(w["embedding.weight"]).index_add_(0, x.flatten(), d.flatten(0, 1))
    add(g, "embedding.weight", words)  # as the embedding
    return loss.item(), g
