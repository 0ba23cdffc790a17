"""Checks of `ppo.py`: the epochs over one batch, held against the same steps by hand."""

import copy

import torch
from ppo_cases import (
    CLIP,
    FLOAT,
    LENGTHS,
    draw,
    gap,
    numbers,
    on_responses,
    small_policy,
    spoken,
    tokens,
)

from shared.clinic import Check
from shared.generation import seeded
from shared.hooks import look

RATE, VALUE_CLIP = 0.05, 0.4


@torch.no_grad()
def _batch(m, policy, size=1.0, away=0.2):
    """A batch that the policy could have drawn. size: of advantages and returns. away: of the log-probabilities that
    are stored, from those that the policy has."""
    ids = tokens()
    log_p = m.token_log_p(policy.lm(ids), ids)
    old = on_responses(log_p + away * numbers(1))
    reference, values = on_responses(log_p + numbers(2)), on_responses(policy(ids)[1] + 0.5 * numbers(3))
    advantages, returns = on_responses(size * numbers(4)), on_responses(values + size * numbers(5))
    return m.Batch(ids, spoken(), old, reference, values, advantages, returns)


def _improve(m, policy, batch, **how):
    """What `improve` returns, and the rows that were read for each step. By plain gradient descent."""
    read, optimizer = [], torch.optim.SGD(policy.parameters(), RATE)
    rows = {tuple(row): b for b, row in enumerate(batch.ids.tolist())}
    hook = policy.register_forward_pre_hook(lambda _, given: read.append([rows[tuple(r)] for r in given[0].tolist()]))
    with torch.random.fork_rng():
        torch.manual_seed(3)
        found = m.improve(policy, optimizer, batch, m.Settings(clip=CLIP, value_clip=VALUE_CLIP, **how))
    hook.remove()
    return found, read


def _step_by_hand(policy, batch, rows, in_loss):
    """One step on some rows, token by token. Returns the numbers of the step: largest |ratio - 1|, share outside the
    bounds, loss, critic's loss, length of the decoder's gradient."""
    losses, critic, k3, away = [], [], [], []
    for b in rows:
        last = int(batch.said[b].nonzero()[-1, 0])
        log_ps = policy.lm(batch.ids[b : b + 1, :last])[0].log_softmax(-1)  # of token t at t - 1
        states = look(policy.lm, batch.ids[b : b + 1, :last], ["norm"])["norm"][0][0]
        for t in batch.said[b].nonzero()[:, 0].tolist():
            of = {name: getattr(batch, name)[b, t] for name in batch._fields[2:]}
            log_p = log_ps[t - 1, batch.ids[b, t]]
            value = states[t - 1] @ policy.critic.weight[0] + policy.critic.bias[0]
            ratio = (log_p - of["log_p"]).exp()
            both = ratio * of["advantages"], ratio.clip(1 - CLIP, 1 + CLIP) * of["advantages"]
            losses.append(-torch.minimum(*both))
            near = of["values"] + (value - of["values"]).clip(-VALUE_CLIP, VALUE_CLIP)
            critic.append(torch.maximum((value - of["returns"]) ** 2, (near - of["returns"]) ** 2) / 2)
            log_r = of["reference_log_p"] - log_p
            k3.append(log_r.exp() - 1 - log_r)
            away.append(abs(float(ratio.detach()) - 1))
    loss, critic, k3 = (sum(each) / len(each) for each in (losses, critic, k3))
    norm = _descend(policy, loss + in_loss * k3, critic)
    return max(away), sum(it > CLIP for it in away) / len(away), float(loss.detach()), float(critic.detach()), norm


def _descend(policy, loss, critic):
    """Both gradients, the decoder's of length 1 at most. Returns its length before."""
    decoder, head = list(policy.lm.parameters()), list(policy.critic.parameters())
    steps = torch.autograd.grad(loss, decoder), torch.autograd.grad(critic, head)
    norm = float(sum((it**2).sum() for it in steps[0]) ** 0.5)
    with torch.no_grad():
        for parameter, step in zip(decoder, steps[0], strict=True):
            parameter -= RATE * step / max(1.0, norm)
        for parameter, step in zip(head, steps[1], strict=True):
            parameter -= RATE * step
    return norm


NUMBERS = ("ratio_gap", "clipped", "loss", "value_loss", "gradient")


def _check_steps(m):
    for size, in_loss, epochs, minibatches in ((3.0, 0.7, 2, 2), (0.1, 0.0, 1, 1), (0.1, 0.05, 1, 2)):
        policy = small_policy(m)
        twin, batch = copy.deepcopy(policy), _batch(m, policy, size)
        how = {"in_loss": in_loss, "epochs": epochs, "minibatches": minibatches}
        found, read = _improve(m, policy, batch, **how)
        if told := _not_every_row(read, epochs, minibatches):
            return f"{how}: {told}"
        steps = [_step_by_hand(twin, batch, rows, in_loss) for rows in read]
        wanted = [steps[0][0], *(sum(column) / len(steps) for column in list(zip(*steps, strict=True))[1:])]
        for name, number in zip(NUMBERS, wanted, strict=True):
            # the bound on the gradient's length is taken with 1e-6 added to the length
            if not abs(found[name] - number) <= 1e-5 * max(1, abs(number)):
                return f"{how}: {name} is {found[name]:.6g}, expected {number:.6g}"
        for (name, one), other in zip(policy.named_parameters(), twin.parameters(), strict=True):
            distance = float((one - other).detach().norm())
            if not distance <= 1e-5:
                return f"{how}: after {len(read)} steps {name} is {distance:.2g} away from that of the steps by hand"


def _not_every_row(read, epochs, minibatches):
    """Each epoch reads each row once, in so many parts."""
    if len(read) != epochs * minibatches:
        return f"{len(read)} steps, expected {epochs * minibatches}"
    for epoch in range(epochs):
        parts = read[epoch * minibatches : (epoch + 1) * minibatches]
        if (found := sorted(row for part in parts for row in part)) != list(range(len(LENGTHS))):
            return f"epoch {epoch} reads rows {found}, expected each of the {len(LENGTHS)} once"


def _check_order(m):
    policy = small_policy(m)
    _, read = _improve(m, policy, _batch(m, policy), epochs=6, minibatches=1)
    if all(rows == read[0] for rows in read):
        return f"six epochs read the rows in the order {read[0]} each time, expected another one in some"


@torch.no_grad()
def _own(m, policy):
    """A batch that the policy has just drawn, with large advantages."""
    drawn = m.rollout(policy.lm, [[3, 1], [7], [5, 2, 8, 4]] * 2, 5, (0, 4), generators=seeded(range(6)))
    shape = drawn.ids.shape
    reference, values = drawn.log_p - 0.1 * drawn.said, policy(drawn.ids)[1] * drawn.said
    worth = [draw(*shape, seed=seed) * drawn.said for seed in (1, 2)]
    return m.Batch(drawn.ids, drawn.said, drawn.log_p, reference, values, *worth)


def _check_gap(m):
    policy = small_policy(m)
    batch = _own(m, policy)
    settings = m.Settings(epochs=1, minibatches=1)
    optimizer = torch.optim.SGD(policy.parameters(), 0.1)
    first, second = (m.improve(policy, optimizer, batch, settings)["ratio_gap"] for _ in range(2))
    if not first <= 1e-9:
        return f"a batch just drawn: the largest distance of a ratio from 1 is {first:.3g} before the first step"
    if not second >= 1e-4:
        return (
            f"the same batch after a step: the largest distance of a ratio from 1 is {second:.3g}, as if none was taken"
        )


def _check_left(m):
    policy = small_policy(m)
    batch = _batch(m, policy)
    before = [it.clone() for it in batch]
    _improve(m, policy, batch, epochs=2, minibatches=2, in_loss=0.2)
    for name, one, other in zip(batch._fields, batch, before, strict=True):
        if not torch.equal(one, other):
            return f"two epochs changed the batch's {name}"


def _check_far_reference(m):
    policy = small_policy(m)
    batch = _batch(m, policy)
    far = batch._replace(reference_log_p=on_responses(torch.full_like(batch.log_p, 800.0)))  # exp overflows at 710
    found, _ = _improve(m, policy, far, epochs=1, minibatches=1)
    plain = small_policy(m)
    wanted, _ = _improve(m, plain, batch, epochs=1, minibatches=1)
    for name in NUMBERS:
        if not abs(found[name] - wanted[name]) <= 1e-9:
            return f"a reference far away, no k3 in the loss: {name} is {found[name]:g}, expected {wanted[name]:g}"
    for (name, one), other in zip(policy.named_parameters(), plain.parameters(), strict=True):
        if told := gap(one.detach().norm(), other.detach().norm()):
            return f"a reference far away, no k3 in the loss: length of {name}, {told}"


def _check_prompts_apart(m):
    """What is stored of prompts and padding is not read."""
    policies = small_policy(m), small_policy(m)
    batch = _batch(m, policies[0])
    elsewhere = torch.where(spoken(), 0.0, torch.tensor(3.0, dtype=FLOAT))
    more = {name: getattr(batch, name) + elsewhere for name in ("values", "advantages", "returns")}
    of = zip(policies, (batch, batch._replace(**more)), strict=True)
    before, after = (_improve(m, policy, its, epochs=1, minibatches=1)[0] for policy, its in of)
    for name in NUMBERS:
        if not abs(before[name] - after[name]) <= 1e-9:
            given = "3 added to values, advantages and returns outside the responses"
            return f"{given}: {name} is {after[name]:.6g}, before {before[name]:.6g}"


LOOP_CHECKS = [
    Check(
        "epochs over a batch are the steps that a calculation by hand takes, and their numbers are told",
        _check_steps,
        "Of which tokens, which policy and which step is each number?",
        about=["improve", "clipped_loss", "value_loss", "kl_estimates", "token_log_p"],
    ),
    Check("each epoch reads the rows in an order of its own", _check_order, about=["improve"]),
    Check(
        "before the first step on what was just drawn every ratio is 1, and after it no longer",
        _check_gap,
        "Which policy drew, and which one is trained?",
        about=["improve", "rollout", "token_log_p"],
    ),
    Check("a batch is left as it was", _check_left, about=["improve"]),
    Check("a reference counts in the loss only if it is asked for", _check_far_reference, about=["improve"]),
    Check("what stands outside the responses is not read", _check_prompts_apart, about=["improve"]),
]
