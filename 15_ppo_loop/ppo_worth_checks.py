"""Checks of `ppo.py`: what a token is worth. Rewards, advantages, means over tokens, whitening."""

import torch
from ppo_cases import (
    COLUMNS,
    FLOAT,
    GAMMA,
    LAM,
    LAST,
    LENGTHS,
    PLACES,
    gap,
    mean_by_hand,
    numbers,
    on_responses,
    spoken,
    table,
    tokens,
)

from shared.clinic import Check

SCORES = torch.tensor([5.0, -2.0, 0.5, 3.0, -4.0], dtype=FLOAT)
COEFFICIENT = 0.3


def _check_rewards(m):
    log_p, reference, scores = -numbers().exp(), -numbers(1).exp(), SCORES.clone()
    found = m.token_rewards(scores, log_p, reference, spoken(), COEFFICIENT)
    wanted = table(lambda b, t: -COEFFICIENT * (log_p[b, t] - reference[b, t]) + scores[b] * (t == LAST[b]))
    if told := gap(found, wanted, "row column"):
        return f"scores {scores.tolist()}, coefficient {COEFFICIENT}, reward in {told}"


def _check_rewards_sum(m):
    log_p, reference = -numbers(2).exp(), -numbers(3).exp()
    for coefficient in (0.0, COEFFICIENT):
        found = m.token_rewards(SCORES.clone(), log_p, reference, spoken(), coefficient)
        k1 = on_responses(log_p - reference).sum(1)
        if told := gap(found.sum(1), SCORES - coefficient * k1, "row"):
            return f"coefficient {coefficient}, the sum of all rewards of {told}, score less coefficient times the k1s"


def _td(rewards, values, b, t, gamma):
    following = values[b, t + 1] if t < LAST[b] else 0.0
    return rewards[b, t] + gamma * following - values[b, t]


def _by_double_sum(rewards, values, gamma, lam):
    """A_t = sum over l of (gamma lam)^l delta_(t + l), to the end of the response."""

    def advantage(b, t):
        return sum((gamma * lam) ** (s - t) * _td(rewards, values, b, s, gamma) for s in range(t, LAST[b] + 1))

    return table(advantage)


def _check_gae(m):
    rewards, values = numbers(), numbers(1)
    for gamma, lam in ((GAMMA, LAM), (0.5, 1.0), (1.0, 0.8)):
        found = m.gae(rewards.clone(), values.clone(), spoken(), gamma, lam)
        if told := gap(found, _by_double_sum(rewards, values, gamma, lam), "row column"):
            return f"gamma {gamma}, lambda {lam}, advantage in {told}"
    if told := gap(m.gae(rewards, values, spoken()), _by_double_sum(rewards, values, 1.0, 0.95), "row column"):
        return f"gamma and lambda not given, 1 and .95, advantage in {told}"


def _check_gae_ends(m):
    rewards, values = numbers(2), numbers(3)
    found = m.gae(rewards, values, spoken(), GAMMA, 0.0)
    if told := gap(found, table(lambda b, t: _td(rewards, values, b, t, GAMMA)), "row column"):
        return f"lambda 0, gamma {GAMMA}, advantage in {told}, reward and gamma times the next value, less the value"
    found = m.gae(rewards, values, spoken(), 1.0, 1.0)
    wanted = table(lambda b, t: rewards[b, t : LAST[b] + 1].sum() - values[b, t])
    if told := gap(found, wanted, "row column"):
        return f"lambda and gamma 1, advantage in {told}, the sum of the rewards from there, less the value"


def _check_gae_apart(m):
    rewards, values = numbers(4), numbers(5)
    found = m.gae(rewards, values, spoken(), GAMMA, LAM)
    elsewhere = ~spoken()
    for what, of in (("rewards", (1, 0)), ("values", (0, 1))):
        changed = [torch.where(elsewhere & bool(its), x + 100, x) for x, its in zip((rewards, values), of, strict=True)]
        if told := gap(m.gae(*changed, spoken(), GAMMA, LAM), found, "row column", other="before"):
            return f"other {what} at prompts and padding: advantage in {told}"
    for b, last in enumerate(LAST):
        alone = m.gae(*(x[b : b + 1, : last + 1] for x in (rewards, values, spoken())), GAMMA, LAM)
        if told := gap(alone[0], found[b, : last + 1], "column", other="in the batch"):
            return f"row {b} alone, without padding: advantage in {told}"


def _check_mean(m):
    x = numbers()
    for columns in (COLUMNS, 12):
        wide = torch.nn.functional.pad(x, (0, columns - COLUMNS), value=50.0)
        if told := gap(m.masked_mean(wide, spoken(columns)), mean_by_hand(lambda b, t: x[b, t])):
            return f"{len(PLACES)} tokens of {len(LENGTHS)} responses, {columns} columns: {told}"


def _check_whiten(m):
    x = 3 * numbers() + 7
    mean = mean_by_hand(lambda b, t: x[b, t])
    std = mean_by_hand(lambda b, t: (x[b, t] - mean) ** 2) ** 0.5
    wanted = table(lambda b, t: (x[b, t] - mean) / std)
    for columns in (COLUMNS, 12):
        wide = torch.nn.functional.pad(x, (0, columns - COLUMNS), value=50.0)
        found = m.whiten(wide, spoken(columns))
        # 1e-8 added to a variance of about 9 changes a number by a part in 1e9
        if told := gap(found[:, :COLUMNS], wanted, "row column", tolerance=1e-8):
            return f"{columns} columns, {told}"
        if found[:, COLUMNS:].any():
            return f"{columns} columns: padding is not 0"


def _check_whiten_equal(m):
    one = torch.zeros_like(spoken())
    one[2, 4] = True
    for what, x, said in (
        ("equal numbers", torch.full((len(LENGTHS), COLUMNS), 0.7, dtype=FLOAT), spoken()),
        ("one token", numbers(), one),
    ):
        found = m.whiten(x, said)
        # what rounding leaves of a difference, under 1e-15, is divided by the root of 1e-8
        if told := gap(found, torch.zeros_like(x), "row column", tolerance=1e-10):
            return f"{what}: {told}"


class _Given:
    """What `by_gae` reads of settings."""

    gamma, lam = GAMMA, LAM


def _by_gae(m, rows=slice(None)):
    log_p, reference, values = on_responses(-numbers().exp()), on_responses(-numbers(1).exp()), numbers(2)
    drawn = m.Rollout(tokens()[rows], spoken()[rows], log_p[rows])
    return m.by_gae(drawn, SCORES[rows], reference[rows], values[rows], COEFFICIENT, _Given)


def _check_by_gae(m):
    log_p, reference, values = on_responses(-numbers().exp()), on_responses(-numbers(1).exp()), numbers(2)
    rewards = table(lambda b, t: -COEFFICIENT * (log_p[b, t] - reference[b, t]) + SCORES[b] * (t == LAST[b]))
    advantages, returns = _by_gae(m)
    raw = _by_double_sum(rewards, values, GAMMA, LAM)
    if told := gap(returns, raw + on_responses(values), "row column"):
        return f"what the critic should have said in {told}, the advantage and what it said"
    mean = mean_by_hand(lambda b, t: raw[b, t])
    std = mean_by_hand(lambda b, t: (raw[b, t] - mean) ** 2) ** 0.5
    if told := gap(advantages, table(lambda b, t: (raw[b, t] - mean) / std), "row column", tolerance=1e-7):
        return f"whitened advantage in {told}"


def _check_by_gae_apart(m):
    whole = _by_gae(m)[1]
    for b in range(len(LENGTHS)):
        alone = _by_gae(m, slice(b, b + 1))[1]
        if told := gap(alone[0], whole[b], "column", other="in a batch"):
            return f"row {b} alone: what the critic should have said in {told}"


WORTH_CHECKS = [
    Check(
        "a token is rewarded by its penalty, the last one by the score besides, and nothing else is",
        _check_rewards,
        "Which token is the response's last, and when should a reward fall?",
        about=["token_rewards", "last_said"],
    ),
    Check(
        "the rewards of a response sum to its score less the penalties",
        _check_rewards_sum,
        "What is lost on the way, or counted twice?",
        about=["token_rewards"],
    ),
    Check(
        "an advantage is the sum of all later differences, each weighted less by gamma lambda",
        _check_gae,
        "Which value follows a token's, and by what is the next advantage multiplied?",
        about=["gae"],
    ),
    Check(
        "with lambda 0 an advantage is one difference, with 1 all rewards to come less the value",
        _check_gae_ends,
        "What follows a response's last token?",
        about=["gae"],
    ),
    Check(
        "prompts, padding and neighbours change no advantage",
        _check_gae_apart,
        "What is carried from one column to the one before it, and when must it not be?",
        about=["gae"],
    ),
    Check("a mean is over the tokens of all responses", _check_mean, "How many are there?", about=["masked_mean"]),
    Check(
        "whitened numbers have mean 0 and deviation 1 over the tokens of the responses",
        _check_whiten,
        "Which numbers have a part in the mean, and which in the variance?",
        about=["whiten", "masked_mean"],
    ),
    Check(
        "equal numbers, and one alone, are whitened to 0",
        _check_whiten_equal,
        "What is the deviation of equal numbers, and what is divided by it?",
        about=["whiten"],
    ),
    Check(
        "PPO's advantages are whitened, and the critic learns advantage and value as they were before",
        _check_by_gae,
        "In which unit are the rewards, and in which the critic's targets?",
        about=["by_gae", "token_rewards", "gae", "whiten"],
    ),
    Check(
        "what the critic should have said of a response does not depend on the other responses",
        _check_by_gae_apart,
        "What does a response know of its neighbours?",
        about=["by_gae", "gae"],
    ),
]
