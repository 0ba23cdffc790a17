"""Other ways to a mixture: experts that choose tokens, a router that learns nothing, and a dense model made into one.

Sources: Zhou et al. 2022 (expert choice, arXiv 2202.09368); Roller et al. 2021 (hash layers, 2106.04426); Komatsuzaki
et al. 2022 (sparse upcycling, 2212.05055).
"""

import copy

import torch
from moe import MoE, Record, Routes, capacity, scores_of
from torch import nn
from torch.nn import functional as F

from shared.layers import FeedForward, SwiGLU


def expert_choice(scores: torch.Tensor, room: int) -> Routes:
    """Each expert takes the `room` tokens that want it most: even by construction. A token may get many experts, or
    none. scores: (N, E); the gates are the scores.

    scores = [[.9, .1], [.8, .2], [.3, .7]], room for 1: token 0 to expert 0, token 2 to expert 1
    """
    gates, tokens = scores.topk(min(room, len(scores)), dim=0)  # (room, E)
    experts = torch.arange(scores.shape[1], device=scores.device).expand_as(tokens)
    return Routes(tokens.flatten(), experts.flatten(), gates.flatten())


class ExpertChoice(MoE):
    """A mixture whose experts choose: N k / E tokens each, times `capacity_factor`, 1 if None.

    Whether a token is taken depends on all others, those after it too: see `leak`. What wants a token is not known of
    it alone, so such a layer cannot write token by token as it was trained.
    """

    def decide(self, x: torch.Tensor) -> Record:
        logits = self.router(x)
        scores = scores_of(logits, self.scores)
        factor = 1.0 if self.capacity_factor is None else self.capacity_factor
        routes = expert_choice(scores, capacity(len(x), self.k, len(self.experts), factor))
        return Record(logits, scores, routes, routes)


@torch.no_grad()
def leak(layer: nn.Module, x: torch.Tensor, later: torch.Tensor) -> torch.Tensor:
    """How much the output at each position changes if all tokens after it become others: (T,), 0 but for
    rounding where nothing peeks.

    x, later: (B, T, d); what comes after a position is from `later`, in every row. The largest change of a number.
    A gradient would not show it: a choice has none.
    """
    wanted, changes = layer(x), []
    for t in range(x.shape[1]):
        found = layer(torch.cat([x[:, : t + 1], later[:, t + 1 :]], dim=1))
        changes.append((found[:, t] - wanted[:, t]).abs().max())
    return torch.stack(changes)


class HashMoE(MoE):
    """A mixture without a router: the token's number says which expert it gets, with gate 1.

    table: (vocab_size,), the expert of each token of the vocabulary. The slot is given vectors: `tokens`, the numbers,
    must be set before each forward pass, and `hash_model` sees to it. Raises ValueError if they were not.
    """

    def __init__(self, d_model: int, *, table: torch.Tensor, n_experts: int, d_hidden: int, **how):
        super().__init__(d_model, n_experts=n_experts, k=1, d_hidden=d_hidden, **how)
        self.router = None
        self.register_buffer("table", table)
        self.tokens: torch.Tensor | None = None

    def decide(self, x: torch.Tensor) -> Record:
        if self.tokens is None or self.tokens.numel() != len(x):
            given = "none" if self.tokens is None else f"{self.tokens.numel()}"
            raise ValueError(f"{given} tokens for {len(x)} vectors: call `hash_model` on the model, then the model")
        chosen = self.table[self.tokens.flatten()]
        scores = F.one_hot(chosen, len(self.experts)).to(x.dtype)
        wanted = Routes(torch.arange(len(x), device=x.device), chosen, torch.ones_like(scores[:, 0]))
        return Record(scores, scores, wanted, self.within_capacity(wanted, len(x)))


def hash_model(model: nn.Module) -> nn.Module:
    """Let every `HashMoE` of a model know the tokens that the model is given. Returns the model."""

    def tell(told: nn.Module, given: tuple) -> None:  # told, not model: a copy has hooks of its own
        for layer in told.modules():
            if isinstance(layer, HashMoE):
                layer.tokens = given[0]

    model.register_forward_pre_hook(tell)
    return model


def balanced_table(counts: torch.Tensor, n_experts: int) -> torch.Tensor:
    """A table for `HashMoE` that evens the load: from the most frequent token on, each goes to the expert that has
    least so far. counts: (vocab_size,), how often each is met.

    balanced_table([5, 1, 3, 3], 2) = [0, 0, 1, 1] or its like: 6 and 6
    """
    load, table = torch.zeros(n_experts, dtype=counts.dtype), torch.zeros(len(counts), dtype=torch.long)
    for token in counts.argsort(descending=True, stable=True).tolist():
        table[token] = load.argmin()
        load[table[token]] += counts[token]
    return table


def freeze_routers(model: nn.Module) -> nn.Module:
    """A control: the routers stay as they were drawn. Returns the model."""
    for layer in model.modules():
        if isinstance(layer, MoE) and layer.router is not None:
            layer.router.weight.requires_grad_(False)
    return model


@torch.no_grad()
def upcycle(layer: FeedForward | SwiGLU, n_experts: int, k: int, **how) -> MoE:
    """A mixture of copies of a feed-forward layer, with a router as it is drawn.

    Its gates sum to 1, so at first it answers as the layer does. With k = 1 the one gate stays 1: only a penalty moves
    the router. how: what `MoE` takes besides.
    """
    gated = isinstance(layer, SwiGLU)
    up, (width, hidden) = layer.gate_up if gated else layer.up, layer.proj.weight.shape
    how |= {"gated": gated, "bias": up.bias is not None, "normalize": True}
    if not gated:
        how["approximate"] = layer.approximate
    mixture = MoE(width, n_experts=n_experts, k=k, d_hidden=hidden, **how).to(up.weight)
    for ours, theirs in ((mixture.experts.up, up), (mixture.experts.proj, layer.proj)):
        ours.weight.copy_(theirs.weight.repeat(n_experts, 1))
        if ours.bias is not None:
            ours.bias.copy_(theirs.bias.repeat(n_experts))
    return mixture


def upcycle_model(model: nn.Module, n_experts: int, k: int, **how) -> nn.Module:
    """A copy of a `TinyLM` with a mixture of copies in each block; the rest as it is."""
    model = copy.deepcopy(model)
    for block in model.blocks:
        block.feed_forward = upcycle(block.feed_forward, n_experts, k, **how)
    return model
