"""Train the story model: python -m shared.story_model.pretrain

Writes shared/story_model/weights/story_lm.safetensors and its record, story_lm.json. Takes about two hours on two
cores, uses a GPU where there is one, and goes on where it was if it was interrupted: it keeps its state beside the
weights, in story_lm.partial.

The text is drawn anew for every step and never repeats, so there is nothing to overfit. Seeds from HELD_OUT up are
never trained on.
"""

import argparse
import hashlib
import json
import time
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from shared.provenance import provenance
from shared.story_model.checkpoint import WEIGHTS, load_story_lm, measure, new_story_lm, record, vocabulary_sha256
from shared.story_model.muon import Muon
from shared.training import next_token_loss
from shared.world import BASE, rows

ROWS, STORIES = 256, 2000  # what the record is measured on: 200 stories stray by 0.8 % of consistent sentences
MOST_STEPS = 10**6  # a seed's own range of seeds for its steps' texts; all stay below HELD_OUT


@dataclass(frozen=True)
class Plan:
    """The model's sizes and the training's. rate: Muon's peak, for blocks' matrices; adam_rate: AdamW's, for the rest.

    The rate rises over `warmup` steps, stays, and falls in a straight line to 0 over the last `decay` of all steps, in
    which a batch has twice as many rows: many small steps first, then fewer noisy ones.
    """

    d_model: int = 128
    n_layers: int = 4
    n_heads: int = 4
    context: int = 192
    batch: int = 8
    steps: int = 36_000
    rate: float = 0.002
    adam_rate: float = 0.003
    warmup: int = 100
    decay: float = 0.5
    seed: int = 0

    @property
    def model(self) -> dict[str, int]:
        """What `new_story_lm` takes."""
        return {name: getattr(self, name) for name in ("context", "d_model", "n_layers", "n_heads")}

    def rows(self, step: int) -> int:
        """How many rows the batch of a step has."""
        return self.batch if step < self.steps * (1 - self.decay) else 2 * self.batch

    def share(self, step: int) -> float:
        """The share of the peak rate at a step."""
        return min(1.0, (step + 1) / self.warmup, (self.steps - step) / (self.steps * self.decay))


class Training:
    """A model on its way, with all that is needed to go on after an interruption."""

    def __init__(self, plan: Plan, device: str):
        torch.manual_seed(plan.seed)
        self.plan, self.device, self.step, self.seconds = plan, device, 0, 0.0
        self.losses, self.curve = [], []  # since the last look; what the looks found
        self.model = new_story_lm(**plan.model).to(device)
        matrices = [p for name, p in self.model.named_parameters() if _is_hidden_matrix(name, p)]
        rest = [p for name, p in self.model.named_parameters() if not _is_hidden_matrix(name, p)]
        adam = torch.optim.AdamW(rest, lr=plan.adam_rate, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
        self.optimizers = [(Muon(matrices, lr=plan.rate), plan.rate), (adam, plan.adam_rate)]

    def advance(self) -> float:
        """One step on text drawn for it alone; returns its loss."""
        plan = self.plan
        stream = rows(plan.context, plan.seed * MOST_STEPS + self.step, BASE)
        both = torch.stack(list(islice(stream, plan.rows(self.step)))).to(self.device)
        loss = next_token_loss(self.model.train(), both[:, :-1], both[:, 1:])
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer, rate in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate * plan.share(self.step)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.step += 1
        return loss.item()

    @property
    def looked(self) -> bool:
        """The model was measured as it is now."""
        return bool(self.curve) and self.curve[-1]["step"] == self.step

    def look(self) -> None:
        """Measure the model, and say and keep what was found."""
        found = measure(self.model, 32, 32)
        train_loss = sum(self.losses) / max(1, len(self.losses))
        self.curve.append({"step": self.step, "train": train_loss} | found)
        self.losses = []
        print(
            f"step {self.step}/{self.plan.steps}, {self.seconds:.0f} s: {found['excess']:.3f} nats above the floor, "
            f"{found['consistent']:.0%} of sentences consistent",
            flush=True,
        )

    def save(self, path: Path) -> None:
        """Write all of it, so that a power cut leaves the old file or the new one."""
        states = [optimizer.state_dict() for optimizer, _ in self.optimizers]
        kept = {"plan": asdict(self.plan), "model": self.model.state_dict(), "optimizers": states}
        kept |= {"step": self.step, "seconds": self.seconds, "losses": self.losses, "curve": self.curve}
        torch.save(kept, path.with_suffix(".new"))
        path.with_suffix(".new").replace(path)

    def resume(self, path: Path) -> None:
        """Go on from what `save` wrote, if need be to another number of steps. Raises ValueError for another plan."""
        kept = torch.load(path, map_location=self.device, weights_only=True)
        if kept["step"] > self.plan.steps or kept["plan"] | {"steps": self.plan.steps} != asdict(self.plan):
            raise ValueError(f"{path} is of another plan, {kept['plan']}: delete it to begin anew")
        self.model.load_state_dict(kept["model"])
        for (optimizer, _), state in zip(self.optimizers, kept["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        self.step, self.seconds, self.losses, self.curve = (
            kept[name] for name in ("step", "seconds", "losses", "curve")
        )


def _is_hidden_matrix(name: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim == 2 and name.startswith("blocks")


def train(plan: Plan, weights: Path, device: str, look_every: int = 1000) -> Training:
    """Train to the end of the plan, saving and measuring on the way; resumes what lies beside the weights."""
    partial, training = weights.with_suffix(".partial"), Training(plan, device)
    if partial.exists():
        training.resume(partial)
        print(f"going on from step {training.step}", flush=True)
    started = time.monotonic() - training.seconds
    while training.step < plan.steps or not training.looked:
        if training.step and not training.looked and (training.step % look_every == 0 or training.step == plan.steps):
            training.save(partial)
            training.look()
            training.save(partial)
        else:
            training.losses.append(training.advance())
            training.seconds = time.monotonic() - started
    return training


def write(training: Training, weights: Path) -> None:
    """Measure at length, and write the weights and their record."""
    plan, model = training.plan, training.model.cpu()
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, weights)
    found = {
        "model": plan.model,
        "parameters": sum(p.numel() for p in model.parameters()),
        **measure(model, ROWS, STORIES),
        "plan": asdict(plan),
        "world": asdict(BASE),
        "tokens": plan.context * sum(plan.rows(step) for step in range(plan.steps)),
        "seconds": round(training.seconds),
        **provenance(training.device),
        "vocabulary": vocabulary_sha256(),
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "curve": training.curve,
    }
    keep(weights, found)


def keep(weights: Path, found: dict) -> None:
    """Write the record beside the weights."""
    weights.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Train by the plan and write the files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=Plan.steps, help="fewer for a trial")
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="where the weights go")
    parser.add_argument("--measure", action="store_true", help="only measure what is there again, and renew its record")
    given = parser.parse_args()
    if given.measure:
        keep(given.out, record(given.out) | measure(load_story_lm(given.out), ROWS, STORIES))
        return
    device = "cuda" if torch.cuda.is_available() else "cpu"
    training = train(Plan(steps=given.steps), given.out, device)
    write(training, given.out)
    given.out.with_suffix(".partial").unlink()
    found = record(given.out)
    print(f"wrote {given.out}: {found['excess']:.4f} nats above the floor, {found['consistent']:.1%} consistent")


if __name__ == "__main__":
    main()
