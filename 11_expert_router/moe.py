"""A mixture of experts: a router sends each token to k of E feed-forward networks, and adds up what they answer.

Shapes, everywhere in this file; the tokens of all texts stand in one row, N of them:

    x           (N, d)      what the feed-forward slot is given
    logits      (N, E)      the router's, float32 or better
    scores      (N, E)      their softmax, or sigmoid
    gates       (N, k)      by what the answers of a token's experts are multiplied
    chosen      (N, k)      which experts these are, the best first
    Routes      (R,) each   the same as a list of routes: a token, an expert, a gate. R = N k if none is dropped

Read it from the top: scores and the choice, capacity, load and what evens it, three dispatches with equal outputs, and
the layer that takes a decoder's feed-forward slot. The experts themselves are in `moe_experts`.

Sources: Shazeer et al. 2017 (arXiv 1701.06538); Lepikhin et al. 2020 (GShard, 2006.16668) for capacity; Fedus et al.
2021 (Switch, 2101.03961) for one expert and the auxiliary loss; Zoph et al. 2022 (ST-MoE, 2202.08906) for the z-loss;
Jiang et al. 2024 (Mixtral, 2401.04088); Dai et al. 2024 (DeepSeekMoE, 2401.06066) for shared experts; Wang et al. 2024
(2408.15664) for the bias without a loss.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from moe_experts import Experts
from torch import nn
from torch.nn import functional as F


def scores_of(logits: torch.Tensor, kind: str = "softmax") -> torch.Tensor:
    """How much each token wants each expert, (N, E): "softmax" over experts, or "sigmoid", each by itself.

    In float32 or better: bfloat16 has two to three digits, and two near experts would tie. DeepSeek-V3 has the sigmoid.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if kind not in ("softmax", "sigmoid"):
        raise ValueError(f"scores are {kind!r}: expected 'softmax' or 'sigmoid'")
    return logits.softmax(dim=-1) if kind == "softmax" else logits.sigmoid()


def top_k(
    scores: torch.Tensor, k: int, normalize: bool | None = None, bias: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gates and chosen experts, (N, k) each, the best first.

    normalize: a token's gates are divided by their sum; None: if k > 1. A single gate would become 1 whatever the
    router says, which then gets no gradient: Switch keeps the score. bias: (E,), added for the choice only.

    scores = [[0.1, 0.6, 0.3]]
    top_k(scores, 2) = [[2/3, 1/3]], [[1, 2]]
    top_k(scores, 1) = [[0.6]], [[1]]
    top_k(scores, 1, bias=[0.6, 0, 0]) = [[0.1]], [[0]]
    Raises ValueError for a k that is not from 1 to E.
    """
    if not 1 <= k <= scores.shape[-1]:
        raise ValueError(f"k is {k} of {scores.shape[-1]} experts: expected 1 to as many")
    wanted = scores if bias is None else scores + bias
    chosen = wanted.topk(k, dim=-1).indices
    gates = scores.gather(-1, chosen)
    if k > 1 if normalize is None else normalize:
        gates = gates / gates.sum(dim=-1, keepdim=True)
    return gates, chosen


class Routes(NamedTuple):
    """Which tokens go to which experts: `tokens`, `experts` and `gates`, (R,) each. A token has any number of routes.

    In order of arrival: who comes first gets room.
    """

    tokens: torch.Tensor
    experts: torch.Tensor
    gates: torch.Tensor


def routes_of(gates: torch.Tensor, chosen: torch.Tensor) -> Routes:
    """The list of all choices, (N k,) each: the first choices of all tokens, then the second ones (GShard).

    routes_of([[.7, .3], [.6, .4]], [[4, 5], [5, 1]]) = Routes([0, 1, 0, 1], [4, 5, 5, 1], [.7, .6, .3, .4])
    """
    N, k = chosen.shape
    return Routes(torch.arange(N, device=chosen.device).repeat(k), chosen.T.flatten(), gates.T.flatten())


def capacity(n_tokens: int, k: int, n_experts: int, factor: float) -> int:
    """How many routes an expert takes: `factor` times its even share of all, rounded up.

    capacity(100, k=1, n_experts=8, factor=1.25) = 16
    """
    return math.ceil(factor * n_tokens * k / n_experts)


def limit(routes: Routes, n_experts: int, room: int) -> Routes:
    """The routes that are left where each expert takes the first `room` that arrive. What is dropped adds nothing: the
    token passes by on the residual stream.

    Experts [0, 1, 0, 0] with room for 2: the last route is dropped.
    """
    arrived = F.one_hot(routes.experts, n_experts).cumsum(dim=0)  # (R, E): how many each has got by then
    places = arrived.gather(1, routes.experts[:, None])[:, 0]  # from 1
    return Routes(*(part[places <= room] for part in routes))


def load(routes: Routes, n_experts: int, real: torch.Tensor | None = None) -> torch.Tensor:
    """How many routes each expert has, (E,). real: True where a token is no padding, in any shape of N."""
    experts = routes.experts if real is None else routes.experts[real.flatten()[routes.tokens]]
    return torch.bincount(experts, minlength=n_experts)


def balance_loss(scores: torch.Tensor, routes: Routes, real: torch.Tensor | None = None) -> torch.Tensor:
    """Switch's auxiliary loss before its coefficient: E times the sum over experts of

        the share of routes that an expert has  *  the mean probability that it has.

    Only the second has a gradient. 1 where all is even, E where one expert has all. routes: as the router wants them,
    none dropped. real: as in `load`.

    scores = [[.9, .1], [.6, .4]], both tokens to expert 0:  2 (1 * .75 + 0 * .25) = 1.5
    """
    E = scores.shape[-1]
    probabilities = _of_real(scores, real)
    probabilities = probabilities / probabilities.sum(dim=-1, keepdim=True)  # a softmax's already are
    counts = load(routes, E, real).to(scores)
    return E * (counts / counts.sum()) @ probabilities.mean(dim=0)


def z_loss(logits: torch.Tensor, real: torch.Tensor | None = None) -> torch.Tensor:
    """The mean square of the logits' log-sum-exp: it keeps them small, where float32 rounds less. Balance it does not.

    z_loss([[0, 0]]) = log(2)^2
    """
    return _of_real(logits, real).logsumexp(dim=-1).square().mean()


def _of_real(x: torch.Tensor, real: torch.Tensor | None) -> torch.Tensor:
    """The rows of the tokens that are no padding."""
    if real is None:
        return x
    if real.dtype != torch.bool or real.numel() != len(x) or not real.any():
        found = f"{real.dtype}, {tuple(real.shape)}, {int(real.sum())} of them not zero"
        raise ValueError(f"real is {found}: expected {len(x)} of bool, True for at least one token")
    return x[real.flatten()]


def moved_bias(bias: torch.Tensor, counts: torch.Tensor, rate: float) -> torch.Tensor:
    """The bias after a training step: up by `rate` for experts with less than the mean load, down for those with more.

    moved_bias([0, 0, 0], counts=[9, 3, 0], rate=.1) = [-.1, .1, .1]
    """
    counts = counts.to(bias)
    return bias + rate * (counts.mean() - counts).sign()


Dispatch = Callable[[torch.Tensor, Routes, Experts], torch.Tensor]


def dispatch_loop(x: torch.Tensor, routes: Routes, experts: Experts) -> torch.Tensor:
    """For each token the sum of its experts' answers, each times its gate: (N, d). Expert by expert."""
    y = torch.zeros_like(x, dtype=routes.gates.dtype)
    for expert in range(len(experts)):
        mine = routes.experts == expert
        tokens, gates = routes.tokens[mine], routes.gates[mine]
        y = y.index_add(0, tokens, gates[:, None] * experts.one(expert, x[tokens]))
    return y.to(x.dtype)


def dispatch_masked(x: torch.Tensor, routes: Routes, experts: Experts) -> torch.Tensor:
    """The same. Every expert answers every token, E / k times the work, and most gates are 0."""
    gates = routes.gates.new_zeros(len(x), len(experts))
    gates = gates.index_put((routes.tokens, routes.experts), routes.gates, accumulate=True)
    return torch.einsum("ne,ned->nd", gates, experts.every(x).to(gates.dtype)).to(x.dtype)


def dispatch_grouped(x: torch.Tensor, routes: Routes, experts: Experts) -> torch.Tensor:
    """The same, and the fast one: routes are sorted by expert, each expert gets one block of rows, and the answers are
    added where they belong."""
    order = routes.experts.argsort(stable=True)
    tokens, gates = routes.tokens[order], routes.gates[order]
    rows = x.index_select(0, tokens)  # x[tokens] has a slow gradient
    answers = experts.grouped(rows, load(routes, len(experts)))
    y = torch.zeros_like(x, dtype=gates.dtype).index_add(0, tokens, gates[:, None] * answers)
    return y.to(x.dtype)


class Router(nn.Linear):
    """The router: one row of weights for each expert, no bias, its products in float32 or better."""

    def __init__(self, d_model: int, n_experts: int):
        super().__init__(d_model, n_experts, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, d) -> logits (N, E)."""
        precise = torch.promote_types(x.dtype, torch.float32)
        return F.linear(x.to(precise), self.weight.to(precise))


@dataclass(frozen=True)
class Record:
    """What a layer decided in its last forward pass, with gradients: logits and scores (N, E), the routes as they were
    wanted, and those that were left by the capacity."""

    logits: torch.Tensor
    scores: torch.Tensor
    wanted: Routes
    routes: Routes


class MoE(nn.Module):
    """A mixture of experts for a decoder's feed-forward slot: `feed_forward=partial(MoE, n_experts=8, ...)`.

    n_experts, k, normalize, scores: as above. d_hidden, gated, bias, approximate: as `Experts` has them, each expert
    d_hidden wide. n_shared: as many experts more that answer every token, without a gate; together they are one,
    n_shared times as wide. capacity_factor: see `capacity`; None: no route is dropped. dispatch: one of the three.
    The state `bias` is added for the choice only; `rebalance` moves it. `record` is what the last forward pass decided;
    a copy of the layer has none. Raises ValueError for numbers that cannot work.
    """

    def __init__(
        self,
        d_model: int,
        *,
        n_experts: int,
        k: int,
        d_hidden: int,
        normalize: bool | None = None,
        scores: str = "softmax",
        n_shared: int = 0,
        capacity_factor: float | None = None,
        dispatch: Dispatch = dispatch_grouped,
        **how,
    ):
        super().__init__()
        if not 1 <= k <= n_experts or n_shared < 0:
            found = f"k is {k} of {n_experts} experts, n_shared {n_shared}"
            raise ValueError(f"{found}: expected a k from 1 to n_experts, n_shared not below 0")
        if capacity_factor is not None and not capacity_factor > 0:
            raise ValueError(f"capacity_factor is {capacity_factor}: expected a number above 0, or None")
        self.k, self.normalize, self.scores = k, normalize, scores
        self.capacity_factor, self.dispatch = capacity_factor, dispatch
        self.router = Router(d_model, n_experts)
        self.experts = Experts(n_experts, d_model, d_hidden, **how)
        self.shared = Experts(1, d_model, n_shared * d_hidden, **how) if n_shared else None
        self.register_buffer("bias", torch.zeros(n_experts))
        self.record: Record | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., d_model) -> the same shape."""
        rows = x.reshape(-1, x.shape[-1])  # (N, d)
        self.record = self.decide(rows)
        y = self.dispatch(rows, self.record.routes, self.experts)
        if self.shared is not None:
            y = y + self.shared.one(0, rows)
        return y.view_as(x)

    def decide(self, x: torch.Tensor) -> Record:
        """Which experts each token gets: x (N, d)."""
        logits = self.router(x)
        scores = scores_of(logits, self.scores)
        wanted = routes_of(*top_k(scores, self.k, self.normalize, self.bias))
        return Record(logits, scores, wanted, self.within_capacity(wanted, len(x)))

    def within_capacity(self, wanted: Routes, n_tokens: int) -> Routes:
        """The routes that there is room for."""
        if self.capacity_factor is None:
            return wanted
        room = capacity(n_tokens, self.k, len(self.experts), self.capacity_factor)
        return limit(wanted, len(self.experts), room)

    def __getstate__(self) -> dict:
        return vars(self) | {"record": None}  # what has a gradient cannot be copied


def mixtures(model: nn.Module) -> list[MoE]:
    """The layers of a model that are mixtures, from the first. Raises ValueError where there is none, or where one has
    no record."""
    found = [module for module in model.modules() if isinstance(module, MoE)]
    if not found or any(layer.record is None for layer in found):
        raise ValueError(f"{len(found)} mixtures of experts in the model: expected 1 or more, after a forward pass")
    return found


def penalty(model: nn.Module, balance: float, z: float = 0.0, real: torch.Tensor | None = None) -> torch.Tensor:
    """What is added to the loss after a forward pass: the coefficients times each layer's `balance_loss` and `z_loss`,
    summed. Layers are not put together first: two that collapse on different experts would look even."""
    records = [layer.record for layer in mixtures(model)]
    balances = [balance_loss(record.scores, record.wanted, real) for record in records]
    return sum(balances) * balance + sum(z_loss(record.logits, real) for record in records) * z


@torch.no_grad()
def rebalance(model: nn.Module, rate: float, real: torch.Tensor | None = None) -> None:
    """Move each layer's bias by what its last forward pass wanted: once for each training step."""
    for layer in mixtures(model):
        counts = load(layer.record.wanted, len(layer.experts), real)
        layer.bias.copy_(moved_bias(layer.bias, counts, rate))
