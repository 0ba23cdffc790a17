"""A real model whose three key and value heads became one, trained some more: python real_uptrain_sweep.py

Writes results/real_uptrain.json, which the notebook shows; about 13 minutes on one core. In SmolLM2-135M-Instruct only
the rows that make keys and values are trained, by `shared.training.fit`: AdamW with betas 0.9 and 0.95, no weight
decay, gradients clipped at 1, a tenth of the steps to warm up and a cosine down to a tenth. A step is one window of 256
tokens.

    control     nothing is merged
    mean        the mean of the heads
    pca         principal components, as `merge_model` merges

Two training lengths, the second four times the first. An arm's best rate is that with the lowest loss of `VALIDATE`.
"""

import copy
import sys

import torch
from gqa import pool_model
from gqa_merge import merge_model
from gqa_real import (
    FITTED,
    TOKENS,
    VALIDATE,
    WINDOW,
    beginnings,
    documentation,
    fitted_moments,
    judged_copy,
    judged_loss,
    losses,
    model_and_tokenizer,
    rounded,
)
from torch import nn

from shared.sweeps import Sweep, main
from shared.texts import FILES
from shared.training import fit

ARMS = {
    "control": copy.deepcopy,
    "mean": lambda model: pool_model(model, 1),
    "pca": lambda model: merge_model(model, fitted_moments(), 1),
}
DOCS = 32  # windows of the documentation: no run reads all
STEPS = (6, 24)
RATES = {
    "control": (1e-3, 3e-3),
    "mean": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2),
    "pca": (3e-3, 1e-2, 3e-2),
}  # the control's third is 0


def run(job: dict) -> dict:
    """job: arm, rate (0 for none), steps. Nats of the texts that judge and of those that validate, and of copies."""
    model = ARMS[job["arm"]](model_and_tokenizer()[0])
    if job["steps"]:
        train(model, job["rate"], job["steps"])
    validated = losses(model, {}, beginnings(VALIDATE, TOKENS))
    return judged_loss(model, {}) | judged_copy(model, {}) | {"validate": rounded(validated)}


def train(model: nn.Module, rate: float, steps: int) -> None:
    """Train the rows of keys and values, in place."""
    model.requires_grad_(False)
    for block in model.blocks:
        only_keys_and_values(block.attention)
    generator = torch.Generator().manual_seed(0)
    history = fit(model, lambda: window(generator), steps, rate, weight_decay=0.0, label=None)
    model.eval()
    if history.stopped:
        raise ValueError(history.stopped)


def only_keys_and_values(layer: nn.Module) -> None:
    """Let the fused matrix be trained, but for its queries' rows, whose gradient is set to zero."""
    queries = layer.n_heads * layer.d_head
    layer.qkv.weight.requires_grad_(True)
    layer.qkv.weight.register_hook(lambda g: torch.cat([torch.zeros_like(g[:queries]), g[queries:]]))


def window(generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens, by chance, and those that follow each: (1, TOKENS) twice. Every other time, on average, of the texts that
    fit; else of the documentation."""
    kinds = beginnings(FITTED, WINDOW), documentation(DOCS)
    text = kinds[drawn(len(kinds), generator)]
    row, start = text[drawn(len(text), generator)], drawn(WINDOW - TOKENS, generator)
    return row[None, start : start + TOKENS], row[None, start + 1 : start + TOKENS + 1]


def drawn(n: int, generator: torch.Generator) -> int:
    """A whole number below n."""
    return torch.randint(n, (1,), generator=generator).item()


JOBS = [(arm, 0.0, 0) for arm in ARMS]
JOBS += [(arm, rate, steps) for steps in STEPS for arm in ARMS for rate in RATES[arm]]

SWEEP = Sweep(
    __file__,
    "real_uptrain",
    run,
    jobs=[dict(zip(("arm", "rate", "steps"), job, strict=True)) for job in JOBS],
    quick=[{"arm": "pca", "rate": 1e-3, "steps": 1}],
    cost=lambda job: 8 + job["steps"],
    comparable=lambda job: job["steps"] <= STEPS[0],
    tolerance={"loss": 0.02, "random": 0.05, "text": 0.05, "validate": 0.02},
    settings={"fitted": FITTED, "validate": VALIDATE},
    files=FILES,
)

if __name__ == "__main__":
    sys.exit(main(SWEEP))
