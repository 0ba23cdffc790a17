"""Reinforcement learning from preferences: a reward model, the policy gradient, GAE, and PPO's loop.

    drawn = rollout(policy.lm, prompts, most=64, stop=[end])            # what the policy writes, token by token
    scores = reward_model(drawn.ids, drawn.said)                        # (B,): one number for a whole response
    rewards = token_rewards(scores, drawn.log_p, reference_log_p, drawn.said, coefficient)      # (B, T)
    advantages = gae(rewards, values, drawn.said)                       # (B, T)
    improve(policy, optimizer, Batch(...), settings)                    # PPO's losses; `ppo_training.train` is the loop

What is said of tokens is (B, T) and stands at the token's own place: column t of `log_p` is the log-probability of
token t given those before it, column t of `values` is what the critic expected before token t was drawn. A row is a
prompt, its response and padding behind; `said` is True at the tokens of the response, its stop among them.

Sources: Christiano et al. 2017 (arXiv 1706.03741); Schulman et al. 2016 (GAE, 1506.02438) and 2017 (PPO, 1707.06347);
Ziegler et al. 2019 (the penalty in the reward, 1909.08593); Ouyang et al. 2022 (InstructGPT, 2203.02155).
"""

import copy
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from shared.generation import stream
from shared.hooks import hooked
from shared.tiny_lm import TinyLM


class Rollout(NamedTuple):
    """Responses as they were drawn. ids: (B, T), padded behind. said: (B, T), True at a response's tokens. log_p:
    (B, T), of each token of a response under the policy that drew it; 0 elsewhere."""

    ids: torch.Tensor
    said: torch.Tensor
    log_p: torch.Tensor


# ---- preferences and the reward model


def preference_loss(chosen: torch.Tensor, rejected: torch.Tensor) -> torch.Tensor:
    """-log sigmoid(chosen - rejected), the mean over pairs (Bradley and Terry 1952). chosen, rejected: (n,) scores.

    Scores 2 and 1: -log sigmoid(1) = 0.313; equal scores: log 2 = 0.693. Raises ValueError if they are no pairs.
    """
    if chosen.shape != rejected.shape:
        raise ValueError(f"{tuple(chosen.shape)} chosen and {tuple(rejected.shape)} rejected: expected pairs")
    return -F.logsigmoid(chosen - rejected).mean()


class RewardModel(nn.Module):
    """A decoder whose head is one number, read at the last token of the response.

    lm: its weights are copied. shift, scale: the score is (number - shift) / scale; `standardise` sets them.
    """

    def __init__(self, lm: TinyLM):
        super().__init__()
        self.trunk = copy.deepcopy(lm)
        like = lm.embedding.weight
        self.trunk.head = nn.Linear(like.shape[1], 1, bias=False, dtype=like.dtype, device=like.device)
        nn.init.zeros_(self.trunk.head.weight)
        for name in ("shift", "scale"):
            self.register_buffer(name, torch.tensor(float(name == "scale"), dtype=like.dtype, device=like.device))

    def forward(self, ids: torch.Tensor, said: torch.Tensor) -> torch.Tensor:
        """A score for each response, (B,). ids, said: (B, T)."""
        number = self.trunk(ids)[..., 0]  # (B, T)
        return (number.gather(1, last_said(said)[:, None])[:, 0] - self.shift) / self.scale

    @torch.no_grad()
    def standardise(self, ids: torch.Tensor, said: torch.Tensor) -> None:
        """Set shift and scale so that these responses have scores of mean 0 and standard deviation 1.

        Raises ValueError if all of them have the same score.
        """
        number = self(ids, said) * self.scale + self.shift
        if not (number != number[0]).any():
            raise ValueError(f"{len(number)} responses of the same score: expected different ones (is it trained?)")
        self.shift.copy_(number.mean())
        self.scale.copy_(number.std())


def reward_loss(model: RewardModel, ids: torch.Tensor, said: torch.Tensor) -> torch.Tensor:
    """For `shared.training.fit`: the first half of the rows are the chosen responses, the second half the rejected."""
    return preference_loss(*model(ids, said).chunk(2))


def last_said(said: torch.Tensor) -> torch.Tensor:
    """The place of each response's last token, (B,). Raises ValueError for a row without a response."""
    if not said.any(1).all():
        raise ValueError(f"row {int((~said.any(1)).nonzero()[0])} has no response: expected a token or more in each")
    places = torch.arange(said.shape[1], device=said.device)
    return (places * said).argmax(1)


# ---- rollouts


def rollout(
    lm: TinyLM,
    prompts: Sequence[Sequence[int]],
    most: int,
    stop: Collection[int],
    generators: Sequence[torch.Generator] | None = None,
    padding: int = 0,
) -> Rollout:
    """Draw a response of up to `most` tokens to each prompt, at temperature 1, with the log-probability of each token.

    A response ends with a token of `stop`, which belongs to it, or after `most` tokens. Raises what `stream` raises.
    """
    written, log_p = [list(prompt) for prompt in prompts], [[0.0] * len(prompt) for prompt in prompts]
    for step in stream(lm, prompts, most, stop=stop, generators=generators):
        for row, token, its in zip(step.rows, step.tokens.tolist(), step.log_p.tolist(), strict=True):
            written[row].append(token)
            log_p[row].append(its)
    T, like = max(map(len, written)), lm.embedding.weight
    ids = [row + [padding] * (T - len(row)) for row in written]
    said = [
        [False] * len(prompt) + [True] * (len(row) - len(prompt)) + [False] * (T - len(row))
        for prompt, row in zip(prompts, written, strict=True)
    ]
    log_p = [row + [0.0] * (T - len(row)) for row in log_p]
    precision = torch.promote_types(like.dtype, torch.float32)  # as `stream` draws
    ids, said = torch.tensor(ids, device=like.device), torch.tensor(said, device=like.device)
    return Rollout(ids, said, torch.tensor(log_p, dtype=precision, device=like.device))


def token_log_p(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """The log-probability of each token given those before it, (B, T); 0 for the first. logits: (B, T, V), ids: (B, T).

    The logits that token t was drawn from stand at t - 1.
    """
    log_p = logits[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]  # (B, T - 1)
    return F.pad(log_p, (1, 0))


class ActorCritic(nn.Module):
    """A policy, `lm`, with a critic on top: a linear map from the last norm's output to one number, at first 0.

    The critic's loss does not reach the decoder: with a large penalty its gradient would swamp the policy's.
    """

    def __init__(self, lm: TinyLM):
        super().__init__()
        like = lm.embedding.weight
        self.lm = lm
        self.critic = nn.Linear(like.shape[1], 1, dtype=like.dtype, device=like.device)
        nn.init.zeros_(self.critic.weight)
        nn.init.zeros_(self.critic.bias)

    def forward(self, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """logits (B, T, V), and values (B, T): column t is read before token t, column 0 is 0."""
        states = []
        with hooked(self.lm, {"norm": lambda x, layer: states.append(x)}):
            logits = self.lm(ids)
        values = self.critic(states[0].detach())[:, :-1, 0]  # (B, T - 1)
        return logits, F.pad(values, (1, 0))


# ---- what a token is worth


def kl_estimates(log_p: torch.Tensor, reference_log_p: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Schulman's k1, k2, k3 (2020, "Approximating KL Divergence") of KL(policy || reference), for tokens that the
    policy drew. With r = reference / policy: -log r, (log r)^2 / 2, r - 1 - log r.

    Probabilities .5 and .25: r = .5, so .693, .240, .193.
    """
    log_r = reference_log_p - log_p
    return -log_r, log_r**2 / 2, log_r.exp() - 1 - log_r


def exact_kl(logits: torch.Tensor, reference_logits: torch.Tensor) -> torch.Tensor:
    """KL(policy || reference) of what each token was drawn from, over the whole vocabulary, (B, T); 0 for the first."""
    log_p, reference = logits[:, :-1].log_softmax(-1), reference_logits[:, :-1].log_softmax(-1)
    return F.pad((log_p.exp() * (log_p - reference)).sum(-1), (1, 0))


def token_rewards(
    scores: torch.Tensor, log_p: torch.Tensor, reference_log_p: torch.Tensor, said: torch.Tensor, coefficient: float
) -> torch.Tensor:
    """-coefficient (log_p - reference_log_p) at each token of a response, its score besides at the last; 0 elsewhere.

    Log-probabilities -1 and -2 under the policy, -3 and -1 under the reference, a score of 5, a coefficient of .1:
    -.1 * 2 = -.2 and -.1 * -1 + 5 = 5.1. The sum over a row is its score less coefficient times the sum of its k1.
    """
    penalty = -coefficient * (log_p - reference_log_p)
    last = F.one_hot(last_said(said), said.shape[1])
    return (penalty + scores[:, None] * last) * said


def gae(
    rewards: torch.Tensor, values: torch.Tensor, said: torch.Tensor, gamma: float = 1.0, lam: float = 0.95
) -> torch.Tensor:
    """Generalised advantage estimation (Schulman et al. 2016), (B, T): A_t = delta_t + gamma lam A_(t+1), where
    delta_t = reward_t + gamma value_(t+1) - value_t. Behind a response's last token value and advantage are 0.

    Rewards 0 and 1, values .5 and .2, gamma 1, lam .5: delta = -.3 and .8, so A = -.3 + .5 * .8 = .1 and .8.
    """
    advantages = torch.zeros_like(rewards)
    next_value = next_advantage = torch.zeros_like(rewards[:, 0])  # (B,)
    for t in reversed(range(rewards.shape[1])):
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        next_advantage = (delta + gamma * lam * next_advantage) * said[:, t]
        next_value = values[:, t] * said[:, t]
        advantages[:, t] = next_advantage
    return advantages


def masked_mean(x: torch.Tensor, said: torch.Tensor) -> torch.Tensor:
    """The mean over the tokens of all responses."""
    return (x * said).sum() / said.sum()


def whiten(x: torch.Tensor, said: torch.Tensor) -> torch.Tensor:
    """Mean 0 and standard deviation 1 over the tokens of all responses, 0 elsewhere; equal numbers become 0."""
    x = (x - masked_mean(x, said)) * said
    variance = masked_mean(x**2, said)
    return x * (variance + 1e-8).rsqrt()


# ---- losses


def policy_gradient_loss(log_p: torch.Tensor, advantages: torch.Tensor, said: torch.Tensor) -> torch.Tensor:
    """REINFORCE (Williams 1992): its gradient is minus the mean of advantage times the gradient of log_p."""
    return -masked_mean(log_p * advantages.detach(), said)


def clipped_loss(
    log_p: torch.Tensor, old_log_p: torch.Tensor, advantages: torch.Tensor, said: torch.Tensor, clip: float = 0.2
) -> torch.Tensor:
    """PPO's: minus the mean of min(r A, clamp(r, 1 - clip, 1 + clip) A), where r = policy / the policy that drew.

    One token, r = 1.5, clip .2: with A = 1 the loss is -1.2, without a gradient; with A = -1 it is 1.5.
    """
    ratio, advantages = (log_p - old_log_p.detach()).exp(), advantages.detach()
    bounded = ratio.clamp(1 - clip, 1 + clip) * advantages
    return -masked_mean(torch.minimum(ratio * advantages, bounded), said)


def value_loss(
    values: torch.Tensor, old_values: torch.Tensor, returns: torch.Tensor, said: torch.Tensor, clip: float
) -> torch.Tensor:
    """Half the mean of the larger squared error: of the values, or of them kept within clip of the old ones."""
    old_values, returns = old_values.detach(), returns.detach()
    near = old_values + (values - old_values).clamp(-clip, clip)
    return masked_mean(torch.maximum((values - returns) ** 2, (near - returns) ** 2), said) / 2


def adapted(coefficient: float, kl: float, target: float, most: float = 0.2, speed: float = 0.5) -> float:
    """The penalty's coefficient for the next iteration: more if the divergence was above its target, less if below.

    Ziegler et al. 2019, section 2.2: coefficient (1 + speed * (kl / target - 1)), the inner bracket within -most and
    most (their speed: 0.1).
    """
    return coefficient * (1 + speed * min(max(kl / target - 1, -most), most))


# ---- the loop


@dataclass(frozen=True)
class Settings:
    """How a policy is trained. rate: of AdamW (betas .9 and .95, no weight decay; gradients clipped at norm 1).
    coefficient: of the penalty in the reward. target: the divergence of a response, in nats, that the coefficient is
    adapted to; None: it stays. in_loss: the coefficient of k3 in the loss, as in GRPO. iterations: how often new
    responses are drawn. most: their tokens. stop: the tokens that end one. epochs, minibatches: of an iteration. gamma,
    lam: of GAE. clip, value_clip: of ratio and value. Raises ValueError for numbers that would silently do harm.
    """

    rate: float = 1e-3
    coefficient: float = 0.0
    target: float | None = None
    in_loss: float = 0.0
    iterations: int = 24
    most: int = 64
    stop: tuple[int, ...] = (0,)
    epochs: int = 2
    minibatches: int = 2
    gamma: float = 1.0
    lam: float = 0.95
    clip: float = 0.2
    value_clip: float = 1.0

    def __post_init__(self):
        for name in ("coefficient", "in_loss", "clip", "value_clip"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}: expected 0 or more")
        if min(self.epochs, self.minibatches) < 1:
            raise ValueError(f"epochs {self.epochs}, minibatches {self.minibatches}: expected 1 or more of each")
        if self.target is not None and not (self.target > 0 and self.coefficient > 0):
            given = f"target {self.target} and coefficient {self.coefficient}"
            raise ValueError(f"{given}: expected both above 0 (a coefficient of 0 stays 0)")


class Batch(NamedTuple):
    """What an iteration learns from, each (B, T): a rollout, what the reference and the critic say of it, and what its
    tokens were worth. returns: what the critic should have said."""

    ids: torch.Tensor
    said: torch.Tensor
    log_p: torch.Tensor
    reference_log_p: torch.Tensor
    values: torch.Tensor
    advantages: torch.Tensor
    returns: torch.Tensor


def by_gae(drawn: Rollout, scores, reference_log_p, values, coefficient: float, settings: Settings):
    """PPO's advantages, whitened, and the critic's targets, both (B, T)."""
    rewards = token_rewards(scores, drawn.log_p, reference_log_p, drawn.said, coefficient)
    advantages = gae(rewards, values, drawn.said, settings.gamma, settings.lam)
    return whiten(advantages, drawn.said), (advantages + values) * drawn.said


def improve(policy: ActorCritic, optimizer: torch.optim.Optimizer, batch: Batch, settings: Settings) -> dict:
    """Epochs over one batch, in minibatches. Returns `ratio_gap`, how far a token's ratio is from 1 before the
    first step, rounding if all is well; the means of `clipped`, the share of tokens whose ratio is outside the bounds,
    and of `loss`, `value_loss` and `gradient`, its norm before clipping."""
    seen = []
    for _ in range(settings.epochs):
        for rows in torch.randperm(len(batch.ids)).chunk(settings.minibatches):
            part = Batch(*(each[rows] for each in batch))
            logits, values = policy(part.ids)
            log_p = token_log_p(logits, part.ids) * part.said  # of prompts, an exponential below could overflow
            loss = clipped_loss(log_p, part.log_p, part.advantages, part.said, settings.clip)
            critic = value_loss(values, part.values, part.returns, part.said, settings.value_clip)
            whole = loss + critic
            if settings.in_loss:  # 0 times an exponential that overflowed would be NaN
                k3 = masked_mean(kl_estimates(log_p, part.reference_log_p)[2], part.said)
                whole = whole + settings.in_loss * k3
            optimizer.zero_grad(set_to_none=True)
            whole.backward()
            gradient = nn.utils.clip_grad_norm_(policy.lm.parameters(), 1.0)
            optimizer.step()
            away = ((log_p - part.log_p).detach().exp() - 1) * part.said  # (B, T): the ratio less 1
            clipped = masked_mean((away.abs() > settings.clip).float(), part.said)
            numbers = torch.stack([away.abs().max(), clipped, loss.detach(), critic.detach(), gradient])
            seen.append(numbers.tolist())
    means = [sum(column) / len(seen) for column in zip(*seen, strict=True)]
    names = ("clipped", "loss", "value_loss", "gradient")
    return {"ratio_gap": seen[0][0]} | dict(zip(names, means[1:], strict=True))
