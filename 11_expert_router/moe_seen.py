"""Measures of lesson 11's patients: loads, which are counted here and not by the patient, and small experiments."""

import torch
from torch.nn import functional as F

from shared.mixture import Mixture

SLOW = (0, 250, 500, 1000, 1500)  # steps of which slow moves of a bias are told


def layers(model):
    """The mixtures of a model, whichever copy of the helper they are of."""
    return [block.feed_forward for block in model.blocks]


def counts(record, real=None):
    """How many routes each expert was wanted for, (E,), over real tokens."""
    experts, E = record.wanted.experts, record.scores.shape[1]
    return torch.bincount(experts if real is None else experts[real.flatten()[record.wanted.tokens]], minlength=E)


def shares(record, real=None):
    """The same over their sum."""
    found = counts(record, real)
    return found / found.sum()


def largest(model, real=None):
    """The largest share of an expert in any layer."""
    return max(float(shares(layer.record, real).max()) for layer in layers(model))


def padded_step(caller, ids, real, n):
    """The loss of a step of texts that are filled up by n tokens more, the bias after it and the load of all tokens."""
    model = caller.new_model()
    ids, real = F.pad(ids, (0, n), value=caller.STOP), F.pad(real, (0, n), value=False)
    told = caller.loss(model, ids, real).item()
    return told, layers(model)[0].bias.clone(), counts(layers(model)[0].record)


def crowd(helper, n, k):
    """Room for routes of an expert, and the most that an expert has of those wanted and of those left: n tokens."""
    torch.manual_seed(0)
    layer = helper.MoE(16, n_experts=5, k=k, d_hidden=8, capacity_factor=1.0)
    layer(torch.randn(n, 16) + 1)
    parts = (layer.record.wanted, layer.record.routes)
    return -(-n * k // 5), *(int(torch.bincount(part.experts).max()) for part in parts)


@torch.no_grad()
def file_gap(caller, E, k):
    """The largest gap of a layer of E experts, read from tensors, from the house's own, over the largest output."""
    torch.manual_seed(E)
    house = Mixture(16, n_experts=E, k=k, d_hidden=24)
    tensors = {"gate.weight": house.router.weight}
    for number, expert in enumerate(house.experts):
        w1, w3 = expert.gate_up.weight.chunk(2)
        parts = {"w1": w1, "w2": expert.proj.weight, "w3": w3}
        tensors |= {f"experts.{number}.{name}.weight": part for name, part in parts.items()}
    x = torch.randn(50, 16) * 3
    wanted, layer = house(x), caller.from_files(tensors, k)
    layer.normalize = True  # theirs divide by the sum whatever k is
    return float((layer(x) - wanted).abs().max() / wanted.abs().max())


@torch.no_grad()
def slow_moves(helper, make):
    """The largest share and the largest bias of a layer after SLOW steps, in which its bias alone is moved."""
    torch.manual_seed(0)
    layer = helper.MoE(16, n_experts=8, k=1, d_hidden=8)
    layer.router.weight.mul_(3)
    layer = make(layer)
    x, found = (torch.randn(200, 16) + 2).to(layer.router.weight.dtype), []
    for step in range(SLOW[-1] + 1):
        layer.record = layer.decide(x)
        if step in SLOW:
            found.append((float(shares(layer.record).max()), float(layer.bias.abs().max())))
        helper.rebalance(layer, 0.0005)
    return zip(*found, strict=True)


@torch.no_grad()
def seconds(helper, steps):
    """The largest share of first choices and of all after some moves of the bias by 0.01, of a layer in which seven
    experts are the first choice of as many tokens each, and the eighth is everybody's second."""
    layer, x, found = helper.MoE(8, n_experts=8, k=2, d_hidden=8), torch.eye(8)[:7].repeat(20, 1), []
    layer.router.weight.copy_(torch.eye(8) * 3)
    layer.router.weight[7] = 2
    x = x + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    for step in range(steps[-1] + 1):
        layer.record = layer.decide(x)
        if step in steps:
            first = torch.bincount(layer.record.wanted.experts[: len(x)], minlength=8) / len(x)
            found.append((float(first.max()), float(shares(layer.record).max()), float(layer.bias[7])))
        helper.rebalance(layer, 0.01)
    return zip(*found, strict=True)
