"""Checks of `ppo.py`: preferences and the reward model."""

import math

import torch
from ppo_cases import FLOAT, LAST, LENGTHS, VOCABULARY, draw, gap, small_model, small_rewards, spoken, tokens

from shared.clinic import Check, refusal


def _check_preference(m):
    chosen, rejected = 3 * draw(7), 3 * draw(7, seed=1)
    wanted = sum(-math.log(1 / (1 + math.exp(float(b - a)))) for a, b in zip(chosen, rejected, strict=True)) / 7
    for shift in (0.0, 5.0):
        if found := gap(m.preference_loss(chosen + shift, rejected + shift), torch.tensor(wanted, dtype=FLOAT)):
            return f"7 pairs, {shift:g} added to all scores: {found}"
    one = torch.tensor([1.0], dtype=FLOAT)
    if found := gap(m.preference_loss(2 * one, one), torch.tensor(0.313262, dtype=FLOAT), tolerance=1e-6):
        return f"scores 2 and 1: {found}"


def _check_preference_gradient(m):
    of = [(3 * draw(7, seed=seed)).requires_grad_() for seed in (0, 1)]
    found = torch.autograd.grad(m.preference_loss(*of), of)
    with torch.no_grad():
        wrong = 1 / (1 + (of[0] - of[1]).exp()) / 7  # how far the chosen one's probability is from 1
    for name, one, sign in zip(("chosen", "rejected"), found, (-1, 1), strict=True):
        if told := gap(one, sign * wrong, "pair"):
            return f"gradient of the loss by the score of {name}, {told}"


def _check_preference_far(m):
    zero = torch.zeros(1)
    for score, wanted in ((-1e4, 1e4), (1e4, 0.0)):
        chosen = torch.tensor([score], requires_grad=True)
        loss = m.preference_loss(chosen, zero)
        if not abs(float(loss.detach()) - wanted) <= 1e-3:
            return f"scores {score:g} and 0: found {float(loss.detach()):g}, expected {wanted:g}"
        (gradient,) = torch.autograd.grad(loss, chosen)
        if not gradient.isfinite().all():
            return f"scores {score:g} and 0: the gradient is {float(gradient)}"


def _check_preference_refused(m):
    three, one = torch.zeros(3), torch.zeros(1)
    return refusal([("3 chosen and 1 rejected", "(3,)", lambda: m.preference_loss(three, one))])


def _check_new(m):
    for parts in ({}, {"tied": False}):
        lm = small_model(**parts)
        before = [it.clone() for it in lm.parameters()]
        model, ids = m.RewardModel(lm), tokens()
        if found := gap(model(ids, spoken()).detach(), torch.zeros(len(LENGTHS), dtype=FLOAT), "row"):
            return f"a new reward model, score of {found}"
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 1
        if not all(map(torch.equal, lm.parameters(), before)):
            return "the reward model's weights were changed, and those of the decoder that it was made of with them"
        if lm(ids).shape[-1] != VOCABULARY:
            return f"the decoder that it was made of has {lm(ids).shape[-1]} logits, expected {VOCABULARY}"


@torch.no_grad()
def _check_read(m):
    model, ids = small_rewards(m), tokens()
    wanted = torch.stack([model.trunk(ids[b : b + 1, : last + 1])[0, -1, 0] for b, last in enumerate(LAST)])
    if found := gap(model(ids, spoken()), wanted, "row"):
        return f"responses that end at columns {LAST}, score of {found}, that of the row alone up to its last token"
    if found := gap(model(tokens(12, seed=3).index_copy(1, torch.arange(9), ids), spoken(12)), wanted, "row"):
        return f"the same with 3 columns of other padding, score of {found}"
    model.shift.fill_(2.0)
    model.scale.fill_(0.5)
    if found := gap(model(ids, spoken()), (wanted - 2) / 0.5, "row"):
        return f"shift 2 and scale 0.5, score of {found}"


@torch.no_grad()
def _check_standardise(m):
    model, ids, said = small_rewards(m), tokens(), spoken()
    raw = model(ids, said)
    mean = raw.sum() / len(raw)
    std = (((raw - mean) ** 2).sum() / (len(raw) - 1)).sqrt()
    for times in ("once", "twice"):
        model.standardise(ids, said)
        if found := gap(model(ids, said), (raw - mean) / std, "row"):
            return f"standardised {times}, score of {found}"
    if found := gap(torch.stack([model.shift, model.scale]), torch.stack([mean, std]), "number"):
        return f"shift and scale, {found}"


def _check_standardise_refused(m):
    model, same = m.RewardModel(small_model()), "same score"
    one = small_rewards(m)
    return refusal(
        [
            ("a model that is not trained", same, lambda: model.standardise(tokens(), spoken())),
            ("one response", same, lambda: one.standardise(tokens()[:1], spoken()[:1])),
        ]
    )


def _check_reward_loss(m):
    model, ids, said = small_rewards(m), tokens()[:4], spoken()[:4]
    scores = model(ids, said).detach()
    wanted = sum(math.log(1 + math.exp(float(scores[i + 2] - scores[i]))) for i in range(2)) / 2
    if found := gap(m.reward_loss(model, ids, said).detach(), torch.tensor(wanted, dtype=FLOAT)):
        return f"rows 0 and 1 were chosen, 2 and 3 rejected: {found}"


def _check_last(m):
    for columns in (8, 9, 12):
        if (found := m.last_said(spoken(columns)).tolist()) != LAST:
            return f"responses that end at columns {LAST}, of {columns}: found {found}"
    empty = spoken()
    empty[3] = False
    return refusal([("a row without a response", "row 3", lambda: m.last_said(empty))])


REWARD_CHECKS = [
    Check(
        "the preference loss is minus the log of the probability that the chosen one wins",
        _check_preference,
        "Of which difference is it a function, and how many pairs are there?",
        about=["preference_loss"],
    ),
    Check(
        "it pushes the chosen score up and the rejected one down, each pair as far as the model is wrong",
        _check_preference_gradient,
        "By which of the two does the loss fall?",
        about=["preference_loss"],
    ),
    Check(
        "the preference loss is finite, however far the scores are apart",
        _check_preference_far,
        "What is the exponential of 10,000, and what is its logarithm?",
        about=["preference_loss"],
    ),
    Check("scores that are no pairs are refused", _check_preference_refused, about=["preference_loss"]),
    Check(
        "a new reward model gives every response 0, and its weights are its own",
        _check_new,
        "What is its head at first, and whose are the other weights?",
        about=["RewardModel"],
    ),
    Check(
        "a score is read at the last token of the response, whatever stands behind it",
        _check_read,
        "Which token has read the whole response, and nothing else?",
        about=["RewardModel.forward", "last_said"],
    ),
    Check(
        "standardised scores have mean 0 and standard deviation 1, and a second time changes nothing",
        _check_standardise,
        "Of which numbers are mean and deviation taken?",
        about=["RewardModel.standardise", "RewardModel.forward"],
    ),
    Check("scores without a deviation are not standardised", _check_standardise_refused, about=["RewardModel"]),
    Check(
        "the first half of the rows was chosen, the second rejected",
        _check_reward_loss,
        "Which row is compared with which?",
        about=["reward_loss"],
    ),
    Check(
        "a response's last token is found, and a row without a response is refused",
        _check_last,
        "What does argmax return where several are largest?",
        about=["last_said"],
    ),
]
