"""E feed-forward networks of one shape, whose matrices lie one below the other, and their grouped product.

rows        (R, d)      inputs sorted by expert: first those of expert 0
counts      (E,)        how many rows each expert has; they may be none
"""

import torch
from torch import nn
from torch.nn import functional as F


def grouped_product(rows: torch.Tensor, matrices: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Rows that are sorted by expert, each times its own expert's matrix: (R, m), (E, n, m) -> (R, n).

    counts: (E,), how many rows each expert has; they may be none.

    rows = [[1], [2], [3]], matrices = [[[10]], [[100]]], counts = [1, 2]
    grouped_product(rows, matrices, counts) = [[10], [200], [300]]
    """
    step = 16 // rows.element_size()  # PyTorch's fused operation wants rows of whole 16 bytes, and knows no float64
    if rows.dtype != torch.float64 and all(n % step == 0 for n in matrices.shape[1:]):
        return F.grouped_mm(rows, matrices.mT, offs=counts.cumsum(dim=0).int())
    parts = rows.split(counts.tolist())
    return torch.cat([part @ matrix.mT for part, matrix in zip(parts, matrices, strict=True)])


class Experts(nn.Module):
    """E feed-forward networks of one shape. gated: `shared.layers.SwiGLU`; else `FeedForward`, with its `approximate`.

    Matrices lie one below the other, so that a decoder gives them the first weights that it gives a single one:
    `up` (E * wide, d_model), where a gated expert's rows are those of its gate, then those of up, and wide is twice
    d_hidden; `proj` (E * d_model, d_hidden).
    """

    def __init__(
        self,
        n_experts: int,
        d_model: int,
        d_hidden: int,
        *,
        gated: bool = True,
        bias: bool = False,
        approximate: str = "none",
    ):
        super().__init__()
        self.n_experts, self.gated, self.approximate = n_experts, gated, approximate
        self.up = nn.Linear(d_model, n_experts * d_hidden * (2 if gated else 1), bias=bias)
        self.proj = nn.Linear(d_hidden, n_experts * d_model, bias=bias)

    def __len__(self) -> int:
        return self.n_experts

    def stacked(self) -> list[torch.Tensor | None]:
        """Matrices and biases of `up` and of `proj` by expert: (E, wide, d), (E, wide), (E, d, d_hidden), (E, d)."""
        parts = [part for layer in (self.up, self.proj) for part in (layer.weight, layer.bias)]
        return [None if part is None else part.unflatten(0, (self.n_experts, -1)) for part in parts]

    def activate(self, hidden: torch.Tensor) -> torch.Tensor:
        """What stands between the matrices: (..., wide) -> (..., d_hidden)."""
        if not self.gated:
            return F.gelu(hidden, approximate=self.approximate)
        gate, up = hidden.chunk(2, dim=-1)
        return F.silu(gate) * up

    def one(self, expert: int, x: torch.Tensor) -> torch.Tensor:
        """What one expert answers, (n, d) -> (n, d)."""
        up, up_bias, proj, proj_bias = (None if part is None else part[expert] for part in self.stacked())
        return F.linear(self.activate(F.linear(x, up, up_bias)), proj, proj_bias)

    def every(self, x: torch.Tensor) -> torch.Tensor:
        """What every expert answers to every token, (N, d) -> (N, E, d)."""
        _, _, proj, proj_bias = self.stacked()
        hidden = self.activate(self.up(x).unflatten(-1, (self.n_experts, -1)))  # (N, E, d_hidden)
        answers = torch.einsum("neh,edh->ned", hidden, proj)
        return answers if proj_bias is None else answers + proj_bias

    def grouped(self, rows: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        """What each expert answers to its own rows, which are sorted by expert: (R, d), (E,) -> (R, d)."""
        up, up_bias, proj, proj_bias = self.stacked()
        hidden = grouped_product(rows, up, counts)
        if up_bias is not None:
            hidden = hidden + up_bias.repeat_interleave(counts, dim=0)
        answers = grouped_product(self.activate(hidden), proj, counts)
        return answers if proj_bias is None else answers + proj_bias.repeat_interleave(counts, dim=0)
