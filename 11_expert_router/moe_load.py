"""How even a mixture's load is, and what its choice tells of a token: the measures of this lesson's sweeps.

    shares = load_shares(layer.record)                         # (E,): of all routes, by expert
    largest(shares), evenness(shares), dead(shares)
    counts = joint(domains[routes.tokens], routes.experts)     # how often each domain went to each expert
    information(counts)                                        # nats that the expert tells of the domain
    by_token(domains, tokens, routes)                          # the same, had the router seen the token alone

Counts of N pairs in A rows and B columns say about (A - 1) (B - 1) / 2 N nats too much, by chance (Miller 1955).
"""

import math

import torch
from moe import MoE, Record, Routes, load
from torch.nn import functional as F

DEAD = 0.01  # of an even share: with less an expert counts as dead


def load_shares(record: Record) -> torch.Tensor:
    """What share of the routes, as they were wanted, each expert has: (E,)."""
    counts = load(record.wanted, record.scores.shape[1])
    return counts / counts.sum()


def largest(shares: torch.Tensor) -> float:
    """The share of the expert that has most: 1 / E if even, 1 / k if it is among every token's k."""
    return shares.max().item()


def evenness(shares: torch.Tensor) -> float:
    """The entropy of the load as a part of the most that it can be, log E: 1 if even, 0 if one expert has all."""
    return max(0.0, -torch.special.xlogy(shares, shares).sum().item() / math.log(len(shares)))


def dead(shares: torch.Tensor) -> int:
    """How many experts have less than a hundredth of an even share."""
    return int((shares < DEAD / len(shares)).sum())


def load_of(layer: MoE) -> dict[str, float]:
    """The three of them, of a layer's last forward pass."""
    shares = load_shares(layer.record)
    return {"largest": round(largest(shares), 4), "evenness": round(evenness(shares), 4), "dead": dead(shares)}


def joint(a: torch.Tensor, b: torch.Tensor, sizes: tuple[int, int]) -> torch.Tensor:
    """How often each pair of whole numbers occurs: a, b (R,) -> `sizes`, float64."""
    return torch.bincount(a * sizes[1] + b, minlength=sizes[0] * sizes[1]).view(sizes).double()


def information(counts: torch.Tensor) -> float:
    """The mutual information of rows and columns, nats. counts: (A, B), not below 0.

    [[1, 0], [0, 1]] -> log 2; [[1, 1], [1, 1]] -> 0
    """
    p = counts / counts.sum()
    rows, columns, both = (-torch.special.xlogy(x, x).sum() for x in (p.sum(dim=1), p.sum(dim=0), p))
    return (rows + columns - both).item()


def by_token(domains: torch.Tensor, tokens: torch.Tensor, routes: Routes, sizes: tuple[int, int, int]) -> float:
    """Nats that the expert would tell of the domain if each route's expert were drawn anew among those that its token
    got: what a router can tell that sees the token, and not what stands before it.

    domains, tokens: (N,). sizes: how many domains, tokens of the vocabulary, and experts there are.
    """
    n_domains, n_tokens, n_experts = sizes
    mine = tokens[routes.tokens]
    experts = joint(mine, routes.experts, (n_tokens, n_experts))
    drawn = experts / experts.sum(dim=1, keepdim=True).clamp(min=1)  # (tokens, E)
    return information(joint(domains[routes.tokens], mine, (n_domains, n_tokens)) @ drawn)


def told(domains: torch.Tensor, tokens: torch.Tensor, record: Record, sizes: tuple[int, int]) -> dict[str, float]:
    """What a layer's choice tells, nats: of the domain, of the token, and of the domain by the token alone.

    domains, tokens: (N,), of the layer's last forward pass. sizes: how many domains and tokens there are.
    """
    routes, n_experts = record.wanted, record.scores.shape[1]
    found = {
        "domain": information(joint(domains[routes.tokens], routes.experts, (sizes[0], n_experts))),
        "token": information(joint(tokens[routes.tokens], routes.experts, (sizes[1], n_experts))),
        "domain_by_token": by_token(domains, tokens, routes, (*sizes, n_experts)),
    }
    return {name: round(nats, 4) for name, nats in found.items()}


def mean_cosine(x: torch.Tensor) -> float:
    """The mean cosine between two different vectors of (N, d): 0 if they point everywhere alike."""
    N, total = len(x), F.normalize(x.double(), dim=-1).sum(dim=0)
    return ((total @ total).item() - N) / (N * (N - 1))
