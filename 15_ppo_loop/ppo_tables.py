"""What the tokens of some responses are told by a patient's helper, in tables: for lesson 15's evidence."""

import torch
from ppo_letters import END, LETTERS


def six_responses(helper, drawn, n):
    """Advantages and targets of six responses beside one of n tokens, whose rewards are near the mean."""
    ids, said, log_p = drawn
    if n:
        wide = max(ids.shape[1], n + 1)
        ids, said, log_p = (torch.nn.functional.pad(it, (0, wide - it.shape[1])) for it in (ids, said, log_p))
        more = torch.tensor([[END] * wide]), (torch.arange(wide) - 1 < n)[None], torch.full((1, wide), -1.5)
        more[1][0, 0] = False
        ids, said = torch.cat([ids, more[0]]), torch.cat([said, more[1]])
        log_p = torch.cat([log_p, more[2] * more[1]])
    scores = torch.tensor([2.0, 0.0, 1.0, 3.0, -1.0, 1.0, 1.0][: len(ids)])
    values = (0.5 + 0.05 * torch.arange(ids.shape[1])).repeat(len(ids), 1)
    worth_of = helper.by_gae(helper.Rollout(ids, said, log_p), scores, log_p, values, 0.1, helper.Settings())
    advantages, returns = (it[:6][said[:6]] for it in worth_of)
    means = {"mean of the advantages": advantages.mean(), "their deviation": advantages.std(correction=0)}
    means["largest of them"] = advantages.abs().max()
    return means | {"what the critic should say": returns.mean()}


def two_responses(helper):
    """What the tokens of two responses are told: the same values and scores for every patient."""
    ids = torch.tensor([[2, 3, 4, 1, 10, END, END, END, END], [7, 1, 5, 9, 8, 2, 6, 4, 3]])
    said = torch.tensor([[0, 1, 1, 1, 1, 1, 0, 0, 0], [0, 0, 1, 1, 1, 1, 1, 1, 1]], dtype=torch.bool)
    log_p = torch.tensor([[0.0, 1, 2, 1.5, 1, 0.5, 0, 0, 0], [0, 0, 2, 1, 1.5, 2, 2, 1, 2]]) * -said.float()
    reference = log_p - torch.tensor([0.0, 0.1, 0.4, -0.2, 0.3, 0.1, 0.2, 0.0, 0.4]) * said
    values = torch.tensor(
        [[0.4, 0.5, 0.6, 0.9, 0.8, 1.1, 0.7, 0.7, 0.7], [0.2, 0.2, 0.3, 0.5, 0.6, 0.6, 0.5, 0.4, 0.2]]
    )
    drawn, scores = helper.Rollout(ids, said, log_p), torch.tensor([2.0, -1.0])
    rewards = helper.token_rewards(scores, log_p, reference, said, 0.5)
    advantages = helper.gae(rewards, values, said, 1.0, 0.95)
    returns = helper.by_gae(drawn, scores, reference, values, 0.5, helper.Settings())[1]
    lines = ["two responses, of scores 2 and -1, to prompts of 1 token and 2; coefficient 0.5, gamma 1, lambda 0.95"]
    for b in range(2):
        lines.append(row("token", [LETTERS[i] for i in ids[b]], 8))
        k1 = log_p - reference
        for name, of in (("log p - reference log p", k1), ("reward", rewards), ("value", values)):
            lines.append(row(f"  {name}", two(of[b]), 8))
        for name, of in (("advantage", advantages), ("what the critic should say", returns)):
            lines.append(row(f"  {name}", two(of[b]), 8))
    return lines


def short(number):
    """A number as it is read."""
    return f"{number:.1e}" if 0 < abs(number) < 1e-3 else f"{number:.2f}"


def mean(numbers):
    """NaN of none."""
    numbers = list(numbers)
    return sum(numbers) / len(numbers) if numbers else float("nan")


def two(cells):
    """Numbers with two digits."""
    return [f"{it:.2f}" for it in cells]


def row(name, cells, width=10):
    """A line of a table."""
    return f"{name!s:<28}" + "".join(f"{cell!s:>{width}}" for cell in cells)
