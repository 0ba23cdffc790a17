"""The arms of this lesson's sweeps: what evens a mixture's load, and what stands beside it.

none            nothing
aux 0.01        Switch's auxiliary loss times 0.01, in each layer
sigmoid         nothing; the scores are sigmoids, as those of the bias are: its control
bias 0.01       DeepSeek's bias on sigmoids, moved by 0.01 a step
hash            the token's number says which expert; the table evens what the training text has
frozen          the router stays as it was drawn
choice          experts choose their tokens; whether one is taken depends on later ones: its loss is none to compare
dense active    one feed-forward with as many hidden units as a token's k experts have
dense total     one with as many as all experts have
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from moe import MoE, Record, penalty, rebalance
from moe_variants import ExpertChoice, HashMoE, freeze_routers, hash_model
from torch import nn
from torch.nn import functional as F

from shared.layers import SwiGLU
from shared.training import next_token_loss


@dataclass(frozen=True)
class Arm:
    """aux: the coefficient of `balance_loss`. bias: by how much `rebalance` moves. scores: as `MoE` has them. layer:
    what takes the feed-forward slot. frozen: the router is not trained."""

    aux: float = 0.0
    bias: float = 0.0
    scores: str = "softmax"
    layer: str = "mixture"
    frozen: bool = False


AUX = (0.001, 0.01, 0.1, 1.0)
BIAS = (0.001, 0.01, 0.1)
ARMS = {"none": Arm()} | {f"aux {it:g}": Arm(aux=it) for it in AUX}
ARMS |= {"sigmoid": Arm(scores="sigmoid")} | {f"bias {it:g}": Arm(bias=it, scores="sigmoid") for it in BIAS}
ARMS |= {"hash": Arm(layer="hash"), "frozen": Arm(frozen=True), "choice": Arm(layer="choice")}
ARMS |= {name: Arm(layer=name) for name in ("dense active", "dense total")}


class Shifted(MoE):
    """A mixture whose router, and no expert, is given x + shift. shift: (d_model,), the same for every token."""

    def __init__(self, d_model: int, *, shift: torch.Tensor, **how):
        super().__init__(d_model, **how)
        self.register_buffer("shift", shift)

    def decide(self, x: torch.Tensor) -> Record:
        return super().decide(x + self.shift)


def slot(
    arm: Arm,
    n_experts: int,
    k: int,
    d_hidden: int,
    shift: torch.Tensor | None = None,
    table: torch.Tensor | None = None,
) -> Callable[[int], nn.Module]:
    """What an arm puts into a decoder's feed-forward slot. d_hidden: of one expert. shift: see `Shifted`; None for
    none. table: of `HashMoE`."""
    how = {"n_experts": n_experts, "k": k, "d_hidden": d_hidden}
    match arm.layer:
        case "dense active":
            return partial(SwiGLU, d_hidden=k * d_hidden)
        case "dense total":
            return partial(SwiGLU, d_hidden=n_experts * d_hidden)
        case "hash":
            return partial(HashMoE, table=table, n_experts=n_experts, d_hidden=d_hidden)
        case "choice":
            return partial(ExpertChoice, **how)
    kind = MoE if shift is None else partial(Shifted, shift=shift)
    return partial(kind, scores=arm.scores, **how)


def ready(arm: Arm, model: nn.Module) -> nn.Module:
    """What an arm does to a model before its training. Returns the model."""
    if arm.frozen:
        freeze_routers(model)
    return hash_model(model) if arm.layer == "hash" else model


def loss_of(arm: Arm, task_loss: Callable[..., torch.Tensor] = next_token_loss) -> Callable[..., torch.Tensor]:
    """What an arm trains on, for `fit`: the task's loss and what evens the load."""

    def loss(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        value = task_loss(model, x, y)
        if arm.aux:
            value = value + penalty(model, arm.aux)
        if arm.bias:
            rebalance(model, arm.bias)
        return value

    return loss


def imitation_loss(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The mean square of what a layer misses of another's answers, x and y (N, d)."""
    return F.mse_loss(model(x), y)
