"""Muon: momentum whose update is made orthogonal, for matrices (Jordan et al. 2024, "Muon").

    optimizer = Muon(matrices, lr=0.01)

The gradient of a matrix is dominated by a few directions. Muon replaces its momentum U S V^T by nearly U V^T, so that
all directions move alike. torch.optim.Muon computes that in bfloat16, which many CPUs have no instruction for; this
one stays in the parameters' own type and takes matrices of one shape together.
"""

from collections.abc import Iterable

import torch

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # Jordan's quintic; see `orthogonal`


def orthogonal(matrices: torch.Tensor, rounds: int = 5) -> torch.Tensor:
    """Matrices (n, rows, columns) with their singular values brought near 1 and their directions kept.

    Five rounds bring values from 0.002 of the matrix's norm up to between 0.68 and 1.21; smaller ones stay below.
    """
    a, b, c = NEWTON_SCHULZ
    wide = matrices if matrices.shape[-2] <= matrices.shape[-1] else matrices.mT
    x = wide / (torch.linalg.matrix_norm(wide, keepdim=True) + 1e-7)
    for _ in range(rounds):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x if wide is matrices else x.mT


class Muon(torch.optim.Optimizer):
    """Nesterov momentum made orthogonal, with decoupled weight decay; parameters are matrices.

    lr: as for AdamW, since an update is scaled to the size that AdamW's would have, 0.2 a number (Liu et al. 2025,
    "Muon is scalable for LLM training"). Raises ValueError for a parameter that is no matrix.
    """

    def __init__(
        self,
        params: Iterable[torch.nn.Parameter],
        lr: float = 0.01,
        momentum: float = 0.95,
        weight_decay: float = 0.01,
    ):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.ndim != 2:
                    raise ValueError(f"a parameter has shape {tuple(parameter.shape)}: Muon takes matrices")

    @torch.no_grad()
    def step(self) -> None:
        """Move every parameter that has a gradient."""
        for group in self.param_groups:
            by_shape = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape.setdefault(parameter.shape, []).append(parameter)
            for shape, parameters in by_shape.items():
                updates = orthogonal(torch.stack([self._momentum(p, group["momentum"]) for p in parameters]))
                size = group["lr"] * 0.2 * max(shape) ** 0.5
                for parameter, update in zip(parameters, updates, strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"]).sub_(update, alpha=size)

    def _momentum(self, parameter: torch.Tensor, momentum: float) -> torch.Tensor:
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        mean = state["momentum"]
        mean.lerp_(parameter.grad, 1 - momentum)
        return parameter.grad.lerp(mean, momentum)
