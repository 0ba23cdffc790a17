"""A small mixture of experts of large random weights, for tests that hold two ways of computing equal."""

import moe
from small_models import FLOAT, draw
from torch import nn


def filled(module: nn.Module) -> nn.Module:
    """The same module with large random weights in float64."""
    module = module.to(FLOAT)
    for seed, parameter in enumerate(module.parameters()):
        parameter.data = draw(*parameter.shape, seed=seed) * 0.5
    return module


def layer(d: int = 8, **how) -> moe.MoE:
    """Two of six experts, each 12 wide, and what else is given."""
    return filled(moe.MoE(d, **{"n_experts": 6, "k": 2, "d_hidden": 12} | how))
