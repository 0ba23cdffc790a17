"""What else is done with a reward: REINFORCE, with a baseline, RLOO and GRPO; and DPO, which needs none.

`by_return`, `by_baseline`, `by_leaving_one_out` and `by_group` take the place of `ppo.by_gae`: what a token was worth.
None of them has a critic, so that its targets are what it says.

Sources: Williams 1992 (REINFORCE); Ahmadian et al. 2024 (RLOO, arXiv 2402.14740); Shao et al. 2024 (GRPO, 2402.03300);
Rafailov et al. 2023 (DPO, 2305.18290).
"""

from collections.abc import Iterator

import torch
from ppo import Rollout, Settings, token_log_p, token_rewards
from torch import nn
from torch.nn import functional as F

GROUP = 8  # responses to one prompt, for those who compare them


def by_return(drawn: Rollout, scores, reference_log_p, values, coefficient: float, settings: Settings):
    """REINFORCE: a token is worth all rewards from its own on, (B, T)."""
    rewards = token_rewards(scores, drawn.log_p, reference_log_p, drawn.said, coefficient)
    return rewards.flip(1).cumsum(1).flip(1) * drawn.said, values


def by_baseline(drawn: Rollout, scores, reference_log_p, values, coefficient: float, settings: Settings):
    """The same, less the mean over the batch of what a whole response brings."""
    rewards = token_rewards(scores, drawn.log_p, reference_log_p, drawn.said, coefficient)
    later = rewards.flip(1).cumsum(1).flip(1)
    return (later - rewards.sum(1).mean()) * drawn.said, values


def by_leaving_one_out(drawn: Rollout, scores, reference_log_p, values, coefficient: float, settings: Settings):
    """RLOO: each token of a response is worth what the response brings less the mean of the others to its prompt."""
    brings = token_rewards(scores, drawn.log_p, reference_log_p, drawn.said, coefficient).sum(1).view(-1, GROUP)
    others = (brings.sum(1, keepdim=True) - brings) / (GROUP - 1)
    return (brings - others).view(-1, 1) * drawn.said, values


def by_group(drawn: Rollout, scores, reference_log_p, values, coefficient: float, settings: Settings):
    """GRPO: its score less the group's mean, over the group's standard deviation. The penalty stands in the loss, as k3
    (`Settings.in_loss`)."""
    groups = scores.view(-1, GROUP)
    better = (groups - groups.mean(1, keepdim=True)) / (groups.std(1, keepdim=True) + 1e-4)
    return better.view(-1, 1) * drawn.said, values


def in_groups(prompts: Iterator[list[list[int]]]) -> Iterator[list[list[int]]]:
    """Each time as many prompts as before, but only every eighth, eight times over."""
    for given in prompts:
        yield [prompt for prompt in given[: len(given) // GROUP] for _ in range(GROUP)]


def dpo_loss(log_p: torch.Tensor, reference_log_p: torch.Tensor, beta: float) -> torch.Tensor:
    """-log sigmoid(beta * (margin of the chosen - margin of the rejected)), where a margin is the log-probability of a
    whole response less the reference's. log_p, reference_log_p: (2 n,), all chosen responses, then all rejected."""
    chosen, rejected = (log_p - reference_log_p).chunk(2)
    return F.softplus(-beta * (chosen - rejected)).mean()


def response_log_p(lm: nn.Module, ids: torch.Tensor, said: torch.Tensor) -> torch.Tensor:
    """The log-probability of each whole response, (B,)."""
    return (token_log_p(lm(ids), ids) * said).sum(1)
