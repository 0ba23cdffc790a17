"""Checks of lesson 15's three exercises. Each takes a module with the reader's functions."""

import itertools

import torch
from ppo_cases import draw

from shared.clinic import Check
from shared.clinic.check import difference


def _check_leave_one_out(m):
    for groups, size in ((1, 2), (3, 5), (4, 3)):
        scores = draw(groups * size)
        wanted = []
        for i in range(groups * size):
            first = i // size * size
            others = [scores[j] for j in range(first, first + size) if j != i]
            wanted.append(scores[i] - sum(others) / len(others))
        if gap := difference(m.leave_one_out(scores, size), torch.stack(wanted)):
            return f"{groups} groups of {size}: {gap}"


def _check_expected_best(m):
    for many, n in ((5, 1), (5, 2), (7, 3), (6, 6)):
        scores, values = draw(many), draw(many, seed=1)
        best = [max(some, key=lambda i: scores[i]) for some in itertools.combinations(range(many), n)]
        wanted = sum(float(values[i]) for i in best) / len(best)
        found = float(m.expected_best(scores.tolist(), values.tolist(), n))
        if not abs(found - wanted) < 1e-9:  # float64, at most 35 subsets
            return f"{many} responses, n = {n}: {found:.6f}, over all {len(best)} subsets it is {wanted:.6f}"


def _check_kl_loss(m):
    numbers, reference = draw(5).requires_grad_(), draw(5, seed=1)
    log_p, log_ref = numbers.log_softmax(0), reference.log_softmax(0)
    (wanted,) = torch.autograd.grad((log_p.exp() * (log_p - log_ref)).sum(), numbers, retain_graph=True)
    found = torch.zeros(5, dtype=numbers.dtype)
    for v in range(5):  # the token that is drawn, in a row with a prompt before and padding behind it
        said = torch.tensor([[False, True, False]])
        row, other = (torch.stack([log_p[0], it[v], log_p[1]])[None] for it in (log_p, log_ref))
        (gradient,) = torch.autograd.grad(m.kl_loss(row, other, said), numbers, retain_graph=True)
        found += log_p[v].exp().detach() * gradient
    if gap := difference(found, wanted):
        return f"the gradient expected over five tokens: {gap}, that of KL(policy || reference)"
    two = torch.tensor([[True, True, False], [True, False, False]])
    log_p, log_ref = -draw(2, 3).abs(), -draw(2, 3, seed=1).abs()
    one = [float(m.kl_loss(log_p, log_ref, two & (torch.arange(6).view(2, 3) == i))) for i in (0, 1, 3)]
    if abs(float(m.kl_loss(log_p, log_ref, two)) - sum(one) / 3) > 1e-9:
        return "three tokens: expected the mean over the tokens of all responses"


EXERCISES = [
    Check(
        "each response is measured against the mean of the others of its group",
        _check_leave_one_out,
        "Is the response itself in the mean?",
    ),
    Check(
        "the best of n has, on average, what all subsets of size n say",
        _check_expected_best,
        "In how many subsets is the i-th from below the best one?",
    ),
    Check(
        "a loss whose expected gradient is that of the divergence",
        _check_kl_loss,
        "Which of k1, k2, k3 has it? Does the reference get a gradient?",
    ),
]
