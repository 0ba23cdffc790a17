"""Train many small models of one shape at once: seeds, learning rates and arms side by side, in one batched model.

A deep thin network spends its time starting operations, not computing. Ten of them stacked start as many operations
as one.

    models = [TinyLM(...) for seed in seeds(3)]
    batch = batches(lambda generator: corpus.batch(8, 32, generator), seeds(3))
    losses = fit_many(models, batch, steps=200, lrs=[3e-3] * 3)     # (models, steps); the models are trained in place
"""

from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.func import functional_call, stack_module_state
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from shared.training import progress, schedule


def fit_many(
    models: Sequence[nn.Module],
    batch: Callable[[], tuple[torch.Tensor, torch.Tensor]],
    steps: int,
    lrs: Sequence[float],
    *,
    warmups: Sequence[int] | None = None,
    weight_decay: float = 0.1,
    clip: float = 1.0,
    label: str | None = "training",
) -> torch.Tensor:
    """Train each model in place as `shared.training.fit` would alone, all in one pass; return the loss of each step.

    models: of the same class and shapes; what differs between them must be a parameter or a buffer. batch: returns x
    and y, (models, batch, time) whole numbers, once a step. lrs: each model's peak rate; warmups: steps in which it
    rises (default a tenth of all), then a cosine to a tenth. clip: the largest gradient norm let through, each model's
    own. Returns nats per token, (models, steps), before each step; a model that diverges has NaN from then on and
    disturbs no other. Raises ValueError for numbers that do not fit the models.
    """
    warmups = [max(1, steps // 10)] * len(models) if warmups is None else warmups
    if not len(models) == len(lrs) == len(warmups) > 0:
        raise ValueError(f"{len(models)} models, {len(lrs)} rates, {len(warmups)} warm-ups: expected one for each")
    weights, buffers = stack_module_state(list(models))
    forward = torch.vmap(lambda w, b, x: functional_call(models[0], (w, b), (x,)))
    directions = {name: torch.zeros_like(weight, requires_grad=False) for name, weight in weights.items()}
    adam = torch.optim.Adam(directions.values(), lr=1.0, betas=(0.9, 0.95), fused=True)
    losses = torch.empty(len(models), steps)
    for step in progress(range(steps), label):
        x, y = batch()
        with sdpa_kernel(SDPBackend.MATH):  # the fused attention cannot be stacked
            value = _losses(forward(weights, buffers, x), y)
        losses[:, step] = value.detach()
        gradients = torch.autograd.grad(value.sum(), list(weights.values()))
        for direction, gradient in zip(directions.values(), _clipped(gradients, clip), strict=True):
            direction.zero_().grad = gradient
        adam.step()  # at rate 1 and from zero, so that each model can take it at its own rate
        rates = torch.tensor([lr * schedule(step, steps, warmup) for lr, warmup in zip(lrs, warmups, strict=True)])
        with torch.no_grad():
            for name, weight in weights.items():
                matrix = weight.ndim >= 3  # a matrix for each model
                decay = weight_decay * weight if matrix else 0
                weight += _for_each(rates, weight) * (directions[name] - decay)
    with torch.no_grad():
        for i, model in enumerate(models):
            for name, parameter in model.named_parameters():
                parameter.copy_(weights[name][i])
            for name, buffer in model.named_buffers():
                buffer.copy_(buffers[name][i])  # what the model remembered, such as BatchNorm's means
    return losses


def batches(
    draw: Callable[[torch.Generator], tuple[torch.Tensor, torch.Tensor]], which_seed: Sequence[int]
) -> Callable[[], tuple[torch.Tensor, torch.Tensor]]:
    """A `batch` for `fit_many`: draw(generator) returns x and y for one model, each seed has a generator of its own.

    which_seed: each model's seed; models with the same seed see the same text.
    """
    generators = {seed: torch.Generator().manual_seed(seed) for seed in which_seed}

    def batch():
        drawn = {seed: draw(generator) for seed, generator in generators.items()}
        x, y = zip(*(drawn[seed] for seed in which_seed), strict=True)
        return torch.stack(x), torch.stack(y)

    return batch


def _losses(logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Mean cross entropy of each model: logits (models, batch, time, vocabulary), y (models, batch, time)."""
    each = F.cross_entropy(logits.flatten(0, 2), y.flatten(), reduction="none")  # 0 where y is -100
    return each.view(len(y), -1).sum(dim=1) / (y != -100).flatten(1).sum(dim=1)


def _clipped(gradients: Sequence[torch.Tensor], most: float) -> list[torch.Tensor]:
    """Each model's gradients, all its tensors together, made no longer than `most`."""
    squares = [gradient.square().reshape(len(gradient), -1).sum(dim=1) for gradient in gradients]
    norms = torch.stack(squares).sum(dim=0).sqrt()
    shares = (most / (norms + 1e-6)).clamp(max=1.0)
    # contiguous: the fused Adam reads a gradient in the order in which it lies in memory
    return [(gradient * _for_each(shares, gradient)).contiguous() for gradient in gradients]


def _for_each(numbers: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A number for each model, (models,), in a shape that multiplies (models, ...)."""
    return numbers.view(-1, *[1] * (like.ndim - 1))
