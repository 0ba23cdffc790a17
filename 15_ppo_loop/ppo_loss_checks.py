"""Checks of `ppo.py`: the losses of policy and critic, and the coefficient."""

import math

import torch
from ppo_cases import CLIP, FLOAT, PLACES, gap, gradients, mean_by_hand, numbers, on_responses, spoken, table

from shared.clinic import Check, refusal


def _of(*seeds):
    return [numbers(seed).requires_grad_() for seed in seeds]


def _check_policy_gradient(m):
    log_p, advantages = _of(0, 1)
    loss = m.policy_gradient_loss(log_p, advantages, spoken())
    wanted = -mean_by_hand(lambda b, t: log_p[b, t] * advantages[b, t])
    if told := gap(loss.detach(), wanted.detach()):
        return f"{len(PLACES)} tokens: {told}"
    found = gradients(loss, [log_p])[0]
    wanted = -on_responses(advantages.detach()) / len(PLACES)
    if found is None or (told := gap(found, wanted, "row column")):
        return f"gradient by the log-probability in {told if found is not None else 'every place: none'}"
    if gradients(m.policy_gradient_loss(log_p, advantages, spoken()), [advantages])[0] is not None:
        return "the loss has a gradient by the advantages, expected none"


def _at(numbers_of):
    """One response of as many tokens."""
    return torch.tensor([numbers_of], dtype=FLOAT), torch.ones(1, len(numbers_of), dtype=torch.bool)


RATIOS = [0.5, 0.69, 0.71, 1.0, 1.29, 1.31, 2.0]  # the bounds are .7 and 1.3


def _check_clipped(m):
    ratios, said = _at(RATIOS)
    for advantage in (2.0, -2.0):
        advantages, old = torch.full_like(ratios, advantage), torch.full_like(ratios, -1.5)
        for i, ratio in enumerate(RATIOS):
            one = torch.zeros_like(said)
            one[0, i] = True
            kept = min(max(ratio, 1 - CLIP), 1 + CLIP)
            wanted = -min(ratio * advantage, kept * advantage)
            found = m.clipped_loss(ratios.log() + old, old, advantages, one, CLIP)
            if told := gap(found, torch.tensor(wanted, dtype=FLOAT)):
                return f"ratio {ratio}, advantage {advantage:g}, clip {CLIP}: {told}"
    whole = m.clipped_loss(ratios.log() + old, old, advantages, said)  # 0.2 if not given
    terms = [max(2 * ratio, 2 * min(max(ratio, 0.8), 1.2)) for ratio in RATIOS]
    if told := gap(whole, torch.tensor(sum(terms) / len(terms), dtype=FLOAT)):
        return f"ratios {RATIOS}, advantages -2, clip not given, 0.2: {told}"


def _check_clipped_gradient(m):
    """Where nothing more is to be gained the gradient is 0; else it is minus ratio times advantage."""
    ratios, said = _at(RATIOS)
    for advantage in (2.0, -2.0):
        log_p = ratios.log().requires_grad_()
        old, advantages = torch.zeros_like(ratios), torch.full_like(ratios, advantage)
        (found,) = torch.autograd.grad(m.clipped_loss(log_p, old, advantages, said, CLIP), log_p)
        for i, ratio in enumerate(RATIOS):
            done = ratio > 1 + CLIP if advantage > 0 else ratio < 1 - CLIP
            wanted = 0.0 if done else -ratio * advantage / len(RATIOS)
            if told := gap(found[0, i], torch.tensor(wanted, dtype=FLOAT)):
                return f"ratio {ratio}, advantage {advantage:g}, clip {CLIP}: gradient by the log-probability, {told}"


def _check_first_epoch(m):
    log_p, advantages = _of(0, 1)
    found = gradients(m.clipped_loss(log_p, log_p.detach(), advantages, spoken(), CLIP), [log_p])[0]
    wanted = -on_responses(advantages.detach()) / len(PLACES)
    if found is None:
        return "the policy that drew: no gradient, expected the policy gradient"
    if told := gap(found, wanted, "row column"):
        return f"the policy that drew: gradient by the log-probability in {told}, that of the policy gradient"


def _check_constants(m):
    log_p, old, advantages = _of(0, 1, 2)
    loss = m.clipped_loss(0.1 * log_p, 0.1 * old, advantages, spoken(), CLIP)
    for name, found in zip(("old log-probabilities", "advantages"), gradients(loss, [old, advantages]), strict=True):
        if found is not None:
            return f"the loss has a gradient by the {name}, expected none"


def _check_value(m):
    values, old, returns = numbers(), numbers(1), numbers(2)
    for clip in (0.5, 2.0):

        def error(b, t, clip=clip):
            near = min(max(float(values[b, t]), float(old[b, t]) - clip), float(old[b, t]) + clip)
            return max((values[b, t] - returns[b, t]) ** 2, (near - returns[b, t]) ** 2)

        if told := gap(m.value_loss(values, old, returns, spoken(), clip), mean_by_hand(error) / 2):
            return f"clip {clip}: {told}"


def _check_value_plain(m):
    values, old, returns = numbers(3), numbers(4), numbers(5)
    plain = mean_by_hand(lambda b, t: (values[b, t] - returns[b, t]) ** 2) / 2
    if told := gap(m.value_loss(values, old, returns, spoken(), math.inf), plain):
        return f"without bounds: {told}, half the mean squared error"
    for b, t in PLACES:
        one = torch.zeros_like(spoken())
        one[b, t] = True
        found, least = m.value_loss(values, old, returns, one, 0.4), (values[b, t] - returns[b, t]) ** 2 / 2
        if not found >= least - 1e-9:
            of = f"value {values[b, t]:.3f}, before {old[b, t]:.3f}, return {returns[b, t]:.3f}"
            return f"{of}, clip 0.4: found {found:.4f}, expected at least {least:.4f}, that without bounds"


def _check_value_constants(m):
    values, old, returns = _of(0, 1, 2)
    loss = m.value_loss(values, old, returns, spoken(), 0.5)
    for name, found in zip(("old values", "returns"), gradients(loss, [old, returns]), strict=True):
        if found is not None:
            return f"the loss has a gradient by the {name}, expected none"
    found = gradients(m.value_loss(values, old, returns, spoken(), math.inf), [values])[0]
    wanted = table(lambda b, t: (values[b, t] - returns[b, t]).detach() / len(PLACES))
    if found is None or (told := gap(found, wanted, "row column")):
        return f"without bounds, gradient by the value in {told if found is not None else 'every place: none'}"


def _check_adapted(m):
    for kl, target, how, wanted in (
        (6.0, 6.0, {}, 1.0),
        (6.6, 6.0, {}, 1.05),
        (5.4, 6.0, {}, 0.95),
        (600.0, 6.0, {}, 1.1),
        (0.0, 6.0, {}, 0.9),
        (9.0, 6.0, {"most": 0.7, "speed": 0.3}, 1.15),
        (60.0, 6.0, {"most": 0.7, "speed": 0.3}, 1.21),
        (0.6, 6.0, {"most": 0.7, "speed": 0.3}, 0.79),
    ):
        found = m.adapted(0.4, kl, target, **how)
        if not abs(found - 0.4 * wanted) <= 1e-9:
            given = f"coefficient 0.4, divergence {kl}, target {target}, {how}"
            return f"{given}: found {found:.6g}, expected {0.4 * wanted:g}"


def _check_settings(m):
    cases = [(f"{name} -1", name, lambda name=name: m.Settings(**{name: -1.0})) for name in ("coefficient", "in_loss")]
    cases += [(f"{name} -1", name, lambda name=name: m.Settings(**{name: -1.0})) for name in ("clip", "value_clip")]
    cases += [(f"{name} 0", name, lambda name=name: m.Settings(**{name: 0})) for name in ("epochs", "minibatches")]
    cases.append(("a target of 0", "target 0", lambda: m.Settings(target=0.0, coefficient=0.1)))
    cases.append(("a target and no coefficient", "coefficient 0", lambda: m.Settings(target=6.0)))
    m.Settings(coefficient=0.0, in_loss=0.0, clip=0.0, value_clip=0.0, epochs=1, minibatches=1)
    m.Settings(target=0.5, coefficient=0.01)
    return refusal(cases)


def _check_usual(m):
    usual = {"coefficient": 0, "target": None, "in_loss": 0, "gamma": 1, "lam": 0.95, "clip": 0.2, "value_clip": 1}
    usual |= {"epochs": 2, "minibatches": 2}
    for name, wanted in usual.items():
        if (found := getattr(m.Settings(), name)) != wanted:
            return f"{name} is {found} if it is not given, expected {wanted}"


LOSS_CHECKS = [
    Check(
        "the policy gradient is minus the mean of advantage times the gradient of the log-probability",
        _check_policy_gradient,
        "Which of the two numbers is to be learnt, and over how many tokens is the mean?",
        about=["policy_gradient_loss"],
    ),
    Check(
        "the clipped loss is the worse of what the ratio gives and what the bounds leave of it",
        _check_clipped,
        "Of the two products, which is taken if the advantage is positive, and which if it is negative?",
        about=["clipped_loss"],
    ),
    Check(
        "what has gone far enough is not pushed further, and what has gone the wrong way is pushed back",
        _check_clipped_gradient,
        "In which direction does each sign of the advantage push, and where does it end?",
        about=["clipped_loss"],
    ),
    Check(
        "at ratio 1 the gradient is the policy gradient",
        _check_first_epoch,
        "What is the derivative of the ratio by the log-probability, at ratio 1?",
        about=["clipped_loss"],
    ),
    Check(
        "advantages and old log-probabilities are constants of the loss",
        _check_constants,
        "Of what should the loss be a function?",
        about=["clipped_loss"],
    ),
    Check(
        "the critic's loss is half the mean of the larger of two squared errors",
        _check_value,
        "Around what are the values kept, and which of the two errors counts?",
        about=["value_loss"],
    ),
    Check(
        "bounds only ever make the critic's loss larger, and without them it is half the mean squared error",
        _check_value_plain,
        "Which of the two errors counts?",
        about=["value_loss"],
    ),
    Check(
        "old values and returns are constants of the critic's loss",
        _check_value_constants,
        "Of what should the loss be a function?",
        about=["value_loss"],
    ),
    Check(
        "the coefficient rises where the divergence is above its target, and falls below it, within bounds",
        _check_adapted,
        "What is divided by what?",
        about=["adapted"],
    ),
    Check("unless it is asked for, there is no penalty, and all else is as usual", _check_usual, about=["Settings"]),
    Check("settings that would silently do harm are refused", _check_settings, about=["Settings"]),
]
