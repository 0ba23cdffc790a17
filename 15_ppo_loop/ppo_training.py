"""The loop of reinforcement learning: draw, score, improve.

history = train(policy, reference, score, prompts, settings)
history.rows[-1]["score"], history.rows[-1]["kl"], history.stopped
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from ppo import ActorCritic, Batch, Rollout, Settings, adapted, by_gae, exact_kl, improve, rollout, token_log_p

from shared.tiny_lm import TinyLM
from shared.training import progress

LOOK_AT = (
    "Look at ratio_gap (near 0, or rollout and update read a token differently), then at which "
    "number grew first: kl (penalty too small), value_loss (rewards too large for the critic), gradient (rate too high)"
)


@dataclass
class History:
    """What a training left behind: numbers for each iteration, and why it stopped early, if it did."""

    rows: list[dict] = field(default_factory=list)
    stopped: str = ""


def train(
    policy: ActorCritic,
    reference: TinyLM,
    score: Callable[[Rollout], torch.Tensor],
    prompts: Iterator[list[list[int]]],
    settings: Settings,
    credit: Callable = by_gae,
    watch: Callable[[Rollout], dict] | None = None,
    label: str | None = "training",
) -> History:
    """Train `policy` in place: draw responses to the next prompts, score them, improve; once an iteration.

    reference: what the policy must stay near. score: a rollout to a number for each response, (B,). credit: what a
    token was worth, as `by_gae` tells it. watch: returns numbers to keep of a rollout. label: the words before the
    progress line; None prints nothing. A row of the history has the iteration's mean `score`, `kl` (nats a response,
    exact), `length` (tokens), `coefficient`, what `improve` returns and what `watch` does. A number that is not finite
    ends the training, and so does an interrupt: `History.stopped` says where, and what to look at.
    """
    optimizer = torch.optim.AdamW(policy.parameters(), settings.rate, betas=(0.9, 0.95), weight_decay=0.0)
    coefficient, history = settings.coefficient, History()
    try:
        for i in progress(range(settings.iterations), label):
            drawn = rollout(policy.lm, next(prompts), settings.most, settings.stop)
            with torch.no_grad():
                scores, (logits, values), reference_logits = score(drawn), policy(drawn.ids), reference(drawn.ids)
            kl = (exact_kl(logits, reference_logits) * drawn.said).sum(1).mean().item()
            reference_log_p = token_log_p(reference_logits, drawn.ids) * drawn.said
            worth = credit(drawn, scores, reference_log_p, values, coefficient, settings)
            row = {"iteration": i, "score": scores.mean().item(), "kl": kl, "coefficient": coefficient}
            row |= {"length": drawn.said.sum(1).float().mean().item()} | (watch(drawn) if watch is not None else {})
            row |= improve(policy, optimizer, Batch(*drawn, reference_log_p, values, *worth), settings)
            history.rows.append(row)
            if broken := [name for name, number in row.items() if not math.isfinite(number)]:
                history.stopped = f"diverged in iteration {i}: {', '.join(broken)} not finite. {LOOK_AT}"
                break
            if settings.target is not None:
                coefficient = adapted(coefficient, kl, settings.target)
    except KeyboardInterrupt:
        history.stopped = f"interrupted after {len(history.rows)} of {settings.iterations} iterations"
    if label and history.stopped:
        print(history.stopped)
    return history
