"""A mixture of experts as Mixtral has it, one expert after the other. Lesson 11 writes faster ways and the router's
losses, and is held equal to this one.

Source: Jiang et al. 2024 (Mixtral of Experts, arXiv 2401.04088).
"""

import torch
from torch import nn

from shared.layers import SwiGLU


class Mixture(nn.Module):
    """For a decoder's feed-forward slot: each token gets k of n_experts SwiGLU networks, each d_hidden wide.

    Their answers are summed, each times the softmax of the router's k largest logits, in float32 or better. Raises
    ValueError for a k that is not from 1 to n_experts.
    """

    def __init__(self, d_model: int, *, n_experts: int, k: int, d_hidden: int):
        super().__init__()
        if not 1 <= k <= n_experts:
            raise ValueError(f"k is {k} of {n_experts} experts: expected 1 to as many")
        self.k = k
        self.router = nn.Linear(d_model, n_experts, bias=False)
        self.experts = nn.ModuleList(SwiGLU(d_model, d_hidden) for _ in range(n_experts))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., d_model) -> the same shape."""
        logits, chosen = self.router(x).topk(self.k, dim=-1)  # (..., k)
        gates = logits.to(torch.promote_types(x.dtype, torch.float32)).softmax(dim=-1)
        y = torch.zeros_like(x)
        for number, expert in enumerate(self.experts):
            mine = (chosen == number).any(dim=-1)  # (...)
            gate = gates[mine].where(chosen[mine] == number, 0).sum(dim=-1, keepdim=True)
            y[mine] += (gate * expert(x[mine])).to(x.dtype)
        return y
