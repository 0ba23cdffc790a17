"""A small mixture that learns to answer as a feed-forward layer of the real model does, on that layer's own inputs.

Are a real model's states such that experts collapse by themselves? The mixture is given what the layer is given, and
trained on what the layer answers; its router is given the same, or the same less the mean over all tokens, or, as a
control, less a random vector of the mean's length. Texts are of three kinds: our own prose, Python's documentation, and
code. The first token of each window is left out: what a layer answers there is up to a thousand times as large as
elsewhere.
"""

import functools
from typing import NamedTuple

import torch
from moe import MoE, mixtures
from moe_arms import ARMS, imitation_loss, loss_of, ready, slot
from moe_load import load_of, mean_cosine, told
from torch import nn

from shared.hooks import look
from shared.smollm2 import load_smollm2
from shared.texts import OWN, texts
from shared.training import fit

LAYERS = (3, 11, 20)
KINDS = ("own", "docs", "code")
WINDOW = 256  # tokens
WINDOWS = (16, 4)  # of each kind, to train on and to judge by
BATCH = 256  # tokens a step
D_HIDDEN = 32  # of one expert
AS_IS, LESS_MEAN, LESS_RANDOM = "as it is", "less its mean", "less a random vector"  # what a router is given
SEEN = ("norm_2", "feed_forward")


class States(NamedTuple):
    """What a layer is given and what it answers, (N, d) each, the kind and the number of each token, (N,)."""

    x: torch.Tensor
    y: torch.Tensor
    kinds: torch.Tensor
    tokens: torch.Tensor

    def part(self, which: torch.Tensor | slice) -> "States":
        return States(*(each[which] for each in self))


@functools.cache
def windows(n: int) -> torch.Tensor:
    """Tokens of each kind's n windows: (kinds, n, WINDOW). Of our own, two of each of n / 2 texts."""
    tokenizer, all_texts = load_smollm2()[1], texts()

    def cut(name: str, n: int) -> torch.Tensor:
        return torch.tensor(tokenizer.encode(all_texts[name]))[: n * WINDOW].view(n, WINDOW)

    return torch.stack([torch.cat([cut(name, 2) for name in OWN[: n // 2]]), cut("docs", n), cut("code", n)])


@functools.cache
def states(n_trained: int, n_judged: int) -> dict[int, tuple[States, States]]:
    """By layer, what to train on and what to judge by: so many windows of each kind. What the layer is given and what
    it answers are each divided by one number, the root of the mean square of what is trained on: all layers' are of
    size 1."""
    n = n_trained + n_judged
    model, rows, found = load_smollm2()[0], windows(n).flatten(0, 1), {}
    seen = [_seen(model, part) for part in rows.split(4)]
    kinds = torch.arange(len(KINDS)).repeat_interleave(n)[:, None].expand_as(rows)
    judged = torch.arange(len(rows)) % n >= n_trained
    for at, layer in enumerate(LAYERS):
        x, y = (torch.cat([part[name][at] for part in seen]) for name in SEEN)
        parts = [
            States(*(each[which, 1:].flatten(0, 1) for each in (x, y, kinds, rows))) for which in (~judged, judged)
        ]
        sizes = [each.square().mean().sqrt() for each in parts[0][:2]]
        found[layer] = tuple(part._replace(x=part.x / sizes[0], y=part.y / sizes[1]) for part in parts)
    return found


def _seen(model: nn.Module, rows: torch.Tensor) -> dict[str, list[torch.Tensor]]:
    """Of `LAYERS` alone: of all thirty, the texts would fill the memory."""
    return {name: [layers[at] for at in LAYERS] for name, layers in look(model, rows, SEEN, last=1).items()}


def shift_of(job: dict, x: torch.Tensor) -> torch.Tensor | None:
    """What is added to what the router is given, (d,); None for nothing. The random vector is another for each seed."""
    mean = x.mean(dim=0)
    if job["given"] == LESS_RANDOM:
        random = torch.randn(len(mean), generator=torch.Generator().manual_seed(job["seed"]))
        return -random * mean.norm() / random.norm()
    return -mean if job["given"] == LESS_MEAN else None


def new_mixture(job: dict, x: torch.Tensor) -> nn.Module:
    """A job's mixture, or what is dense in its place, its matrices drawn from N(0, 1 / fan-in). x: (N, d), what it will
    be given."""
    torch.manual_seed(job["seed"])
    arm = ARMS[job["arm"]]
    mixture = slot(arm, job["n_experts"], job["k"], D_HIDDEN, shift_of(job, x))(x.shape[1])
    for matrix in mixture.parameters():
        nn.init.normal_(matrix, std=matrix.shape[1] ** -0.5)
    return ready(arm, mixture)


def imitate(job: dict) -> dict:
    """Train a mixture and judge it. job: layer, arm, n_experts, k, given, rate, steps, seed, and windows if they are
    others than `WINDOWS`.

    loss: see `missed`, on the texts that judge.
    """
    trained, judges = states(*job.get("windows", WINDOWS))[job["layer"]]
    mixture, generator = new_mixture(job, trained.x), torch.Generator().manual_seed(job["seed"])

    def batch():
        which = torch.randint(len(trained.x), (BATCH,), generator=generator)
        return trained.x[which], trained.y[which]

    dense = "dense" in job["arm"]
    how = {"loss": loss_of(ARMS[job["arm"]], imitation_loss), "watch": lambda: {} if dense else load_of(mixture)}
    history = fit(mixture, batch, job["steps"], job["rate"], label=None, **how)
    if history.stopped:
        return {"loss": None}
    if dense:
        return {"loss": missed(mixture, judges)}
    seen = {f"{name}_by_step": [it[name] for it in history.watched] for name in ("largest", "evenness", "dead")}
    return judged(mixture, judges) | seen


@torch.no_grad()
def missed(model: nn.Module, judges: States) -> float:
    """The mean square of what a model misses, as a part of the answers' variance."""
    return round(((model(judges.x) - judges.y).square().mean() / judges.y.var(dim=0, correction=0).mean()).item(), 5)


@torch.no_grad()
def judged(mixture: MoE, judges: States) -> dict:
    """The loss, the load, the mean cosine between what the router is given of two tokens, and what its choice tells."""
    found = {"loss": missed(mixture, judges)}
    cosine = mean_cosine(judges.x + getattr(mixture, "shift", 0))
    sizes = (len(KINDS), int(judges.tokens.max()) + 1)
    found |= {"cosine": round(cosine, 4)}
    (layer,) = mixtures(mixture)
    return found | load_of(layer) | told(judges.kinds, judges.tokens, layer.record, sizes)
