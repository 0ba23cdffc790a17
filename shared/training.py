"""Training in one call, with the habits every lesson keeps: seeds, warm-up, clipping, plain progress, a log.

for seed in seeds(3):
    torch.manual_seed(seed)
    model = TinyLM(...)
    history = fit(model, lambda: corpus.batch(16, 64, g), steps=200, lr=3e-3)
    evaluate(model, *corpus.held_out_windows(64)).nats
"""

import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.nn import functional as F

Batch = tuple[torch.Tensor, ...]


def seeds(n: int) -> list[int]:
    """n seeds: 0, 1, ... shifted by the environment's HARDWAY_SEED, so that a verdict can be tried on fresh draws."""
    shift = os.environ.get("HARDWAY_SEED", "0")
    try:
        first = int(shift)
    except ValueError as error:
        raise ValueError(f"HARDWAY_SEED is {shift!r}: expected a whole number such as 100") from error
    return list(range(first, first + n))


def next_token_loss(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Mean cross entropy of y under the model's logits at x, in nats per token. x, y: (batch, time)."""
    return F.cross_entropy(model(x).flatten(0, 1), y.flatten())


def initialise_by_fan_in(model: nn.Module, small_branches: bool = True) -> None:
    """Another start, for thin models, which 0.02 puts to sleep: the blocks' matrices from N(0, 1 / fan-in), so that at
    any width signals keep their size; the embedding from N(0, 0.2).

    small_branches: what writes to the residual stream (`proj`) starts smaller by sqrt(2 n_layers).
    """
    nn.init.normal_(model.embedding.weight, std=0.2)
    for name, matrix in model.blocks.named_parameters():
        if matrix.ndim == 2:
            smaller = math.sqrt(2 * len(model.blocks)) if small_branches and name.endswith("proj.weight") else 1
            nn.init.normal_(matrix, std=1 / smaller / math.sqrt(matrix.shape[1]))


@dataclass
class History:
    """What a training run left behind: a value for each step taken.

    loss: nats per token before the step. lr: the step's learning rate. gradient_norm: before clipping.
    watched: what `watch` returned, one dict (with its step) a look. stopped: empty, or why the run ended early.
    """

    loss: list[float] = field(default_factory=list)
    lr: list[float] = field(default_factory=list)
    gradient_norm: list[float] = field(default_factory=list)
    watched: list[dict[str, float]] = field(default_factory=list)
    stopped: str = ""


def fit(
    model: nn.Module,
    batch: Callable[[], Batch],
    steps: int,
    lr: float,
    *,
    loss: Callable[..., torch.Tensor] = next_token_loss,
    warmup: int | None = None,
    weight_decay: float = 0.1,
    clip: float = 1.0,
    watch: Callable[[], dict[str, float]] | None = None,
    watch_every: int = 10,
    lr_scale: dict[str, float] | None = None,
    run=None,
    label: str | None = "training",
) -> History:
    """Train `model` in place by AdamW and return the history.

    batch: called once a step, returns the tensors that `loss(model, *tensors)` takes. lr: the peak; it rises over
    `warmup` steps (default a tenth of all) and falls along a cosine to a tenth of the peak. weight_decay: on
    matrices only. clip: the largest gradient norm let through. watch: called every `watch_every` steps and after
    the last, returns numbers to keep. lr_scale: multiples of the rate for parameters by name. run: a run of
    `shared.tracking.track`, which logs each step. label: the words before the progress line; None prints nothing.

    Interrupting it (Ctrl-C, the notebook's stop button) returns what is there, and so does a loss or a gradient
    that is not finite: `History.stopped` says which. Raises ValueError for numbers or names that cannot work.
    """
    warmup = max(1, steps // 10) if warmup is None else warmup
    if min(steps, watch_every) < 1 or warmup < 0 or not 0 < lr < math.inf:
        raise ValueError(
            f"steps {steps}, watch_every {watch_every}, warmup {warmup}, lr {lr}: expected numbers above 0"
        )
    optimizer = adamw(model, lr, weight_decay, lr_scale)
    history = History()
    device = next(model.parameters()).device
    model.train()
    try:
        for step in progress(range(steps), label):
            rate = lr * schedule(step, steps, warmup)
            for group in optimizer.param_groups:
                group["lr"] = rate * group["lr_scale"]
            optimizer.zero_grad(set_to_none=True)
            value = loss(model, *(tensor.to(device) for tensor in batch()))
            value.backward()
            norm = nn.utils.clip_grad_norm_(model.parameters(), clip)
            row = {"step": step, "loss": value.item(), "lr": rate, "gradient_norm": norm.item()}
            for name in ("loss", "lr", "gradient_norm"):
                getattr(history, name).append(row[name])
            if not (math.isfinite(row["loss"]) and math.isfinite(row["gradient_norm"])):
                history.stopped = f"diverged at step {step}: loss {row['loss']}, gradient {row['gradient_norm']}"
                break
            optimizer.step()
            if watch is not None and (step % watch_every == 0 or step == steps - 1):
                history.watched.append({"step": step} | watch())
                row = history.watched[-1] | row
            if run is not None:
                run.log(**row)
    except KeyboardInterrupt:
        history.stopped = f"interrupted after {len(history.loss)} of {steps} steps"
    if label and history.stopped:
        print(history.stopped)
    return history


def adamw(
    model: nn.Module, lr: float, weight_decay: float, lr_scale: dict[str, float] | None = None
) -> torch.optim.AdamW:
    """AdamW with betas 0.9 and 0.95, decay on matrices and none on vectors (biases, norms).

    lr_scale: multiples of the rate for parameters by name, which leave what is decayed in a step as it was.
    Raises ValueError for a name that the model does not have.
    """
    lr_scale = lr_scale or {}
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if unknown := lr_scale.keys() - parameters:
        raise ValueError(f"no parameter called {sorted(unknown)}: there are {sorted(parameters)}")
    groups = {}
    for name, parameter in parameters.items():
        groups.setdefault((parameter.ndim >= 2, lr_scale.get(name, 1.0)), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": group, "lr": lr * scale, "lr_scale": scale, "weight_decay": weight_decay / scale * matrices}
            for (matrices, scale), group in groups.items()
        ],
        lr=lr,
        betas=(0.9, 0.95),
        fused=True,
    )


def schedule(step: int, steps: int, warmup: int) -> float:
    """The share of the peak learning rate at a step: a straight rise, then a cosine from 1 to 0.1."""
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return 0.1 + 0.45 * (1 + math.cos(math.pi * done))


@dataclass(frozen=True)
class Evaluation:
    """A loss on held-out text: nats per token, its standard error over the windows, and the text's floor if known."""

    nats: float
    error: float
    floor: float | None = None

    @property
    def above_floor(self) -> float:
        """How far from perfect, in nats per token. Raises ValueError where the floor is not known."""
        if self.floor is None:
            raise ValueError("no floor is known for this text: pass floor= to evaluate")
        return self.nats - self.floor


@torch.no_grad()
def evaluate(
    model: nn.Module, x: torch.Tensor, y: torch.Tensor, floor: float | None = None, batch_size: int = 64
) -> Evaluation:
    """The model's mean loss on windows x with next tokens y, both (windows, time). floor: the text's entropy.

    Targets of -100 do not count, as in `next_token_loss`: the loss is the mean over all that do. Its standard error is
    that of a ratio, the windows' losses to their counts (Cochran 1977, Sampling Techniques). Raises ValueError
    for fewer than two windows with a target, which have no standard error.
    """
    counts = (y != -100).sum(dim=1).cpu().double()
    if (counts > 0).sum() < 2:
        raise ValueError(f"{int((counts > 0).sum())} windows have a target: a standard error needs at least 2")
    device, was_training = next(model.parameters()).device, model.training
    model.eval()
    sums = []  # a window's loss, over all its targets
    for part_x, part_y in zip(x.split(batch_size), y.split(batch_size), strict=True):
        logits = model(part_x.to(device))
        losses = F.cross_entropy(logits.flatten(0, 1), part_y.to(device).flatten(), reduction="none")
        sums.append(losses.view(part_y.shape).cpu().double().sum(dim=1))
    model.train(was_training)
    sums, counts = torch.cat(sums)[counts > 0], counts[counts > 0]
    nats = (sums.sum() / counts.sum()).item()
    error = (sums - nats * counts).std(correction=1).item() / counts.mean().item() / math.sqrt(len(counts))
    return Evaluation(nats, error, floor)


def progress(items: Iterable, label: str | None) -> Iterator:
    """Yield the items and keep one line of plain text up to date: how many are done, and the time left.

    What stays when it is through does not depend on the clock, so that a stored notebook can be compared.
    """
    items, through = list(items), 0
    start = shown = time.monotonic()
    try:
        for done, item in enumerate(items):
            now = time.monotonic()
            if label and done and now - shown > 0.5:
                left = (now - start) / done * (len(items) - done)
                print(f"\r{label} {done}/{len(items)}, {left:.0f} s left   ", end="", flush=True)
                shown = now
            yield item
            through = done + 1
    finally:  # also where the loop was left early
        if label:
            print(f"\r{label} {through}/{len(items)}" + " " * 16)
