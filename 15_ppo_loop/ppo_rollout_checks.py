"""Checks of `ppo.py`: rollouts, log-probabilities, the critic, and the divergence."""

import itertools
import math

import torch
from ppo_cases import (
    COLUMNS,
    FLOAT,
    LENGTHS,
    VOCABULARY,
    draw,
    gap,
    gradients,
    log_p_by_hand,
    small_model,
    small_policy,
    tokens,
    value_by_hand,
)

from shared.clinic import Check
from shared.generation import seeded
from shared.hooks import hooked

PROMPTS = [[3, 1], [7], [5, 2, 8, 4], [6, 6, 9]] * 4
STOP, MOST, PADDING = (0, 4, 11), 6, 12


@torch.no_grad()
def _check_token_log_p(m):
    lm, ids = small_model(), tokens()
    found = m.token_log_p(lm(ids), ids)
    wanted = torch.zeros(len(LENGTHS), COLUMNS, dtype=FLOAT)
    for b in range(len(LENGTHS)):
        for t in range(1, COLUMNS):
            wanted[b, t] = log_p_by_hand(lm, ids, b, t)
    if told := gap(found, wanted, "row column"):
        return f"log-probability of the token in {told}; those of a prompt and of padding count here"


@torch.no_grad()
def _check_probabilities(m):
    lm = small_model(vocabulary=3)
    for n in (2, 3):
        ids = torch.tensor([[1, *rest] for rest in itertools.product(range(3), repeat=n)])
        whole = float(m.token_log_p(lm(ids), ids).sum(1).exp().sum())
        if not abs(whole - 1) <= 1e-9:
            return f"the probabilities of all {len(ids)} texts of {n} tokens that follow token 1: sum {whole:.6g}"


def _rollout(m, lm, stop=STOP, seed=0, most=MOST, prompts=PROMPTS):
    generators = seeded(range(seed, seed + len(prompts)))
    return m.rollout(lm, prompts, most, stop, generators=generators, padding=PADDING)


def _row_by_hand(ids, prompt, stop, most):
    """Where a row's response ends: behind its first stop, or after `most` tokens."""
    response = ids[len(prompt) : len(prompt) + most]
    ends = [t + 1 for t, token in enumerate(response) if token in stop]
    return len(prompt) + (ends[0] if ends else most)


def _check_rollout(m):
    lm = small_model()
    for stop in (STOP, (), (VOCABULARY - 1, *range(7))):
        drawn, ends = _rollout(m, lm, stop), []
        for b, (prompt, row, said) in enumerate(zip(PROMPTS, drawn.ids.tolist(), drawn.said.tolist(), strict=True)):
            ends.append(_row_by_hand(row, prompt, stop, MOST))
            given = f"stops {stop}, up to {MOST} tokens, row {b}: {row}"
            if row[: len(prompt)] != prompt:
                return f"{given}, expected to begin with {prompt}"
            wanted = [len(prompt) <= t < ends[b] for t in range(len(row))]
            if said != wanted:
                return f"{given}: said is {_bits(said)}, expected {_bits(wanted)}"
            if any(token != PADDING for token in row[ends[b] :]):
                return f"{given}: behind column {ends[b] - 1} expected padding, {PADDING}"
            if drawn.log_p[b][~drawn.said[b]].any():
                return f"{given}: log-probabilities {drawn.log_p[b].tolist()}, expected 0 outside the response"
        if drawn.ids.shape[1] != max(ends):
            return f"stops {stop}: {drawn.ids.shape[1]} columns, expected {max(ends)}, those of the longest row"


def _bits(row):
    return "".join(str(int(it)) for it in row)


def _check_stop_at_once(m):
    lm = small_model()
    with hooked(lm, {"logits": lambda x, layer: torch.zeros_like(x).index_fill(-1, torch.tensor(4), 99.0)}):
        drawn = _rollout(m, lm)
    if (found := drawn.said.sum(1).tolist()) != [1] * len(PROMPTS):
        return f"a model that says its stop at once: responses of {found} tokens, expected 1 each, the stop"


@torch.no_grad()
def _check_rollout_log_p(m):
    lm = small_model()
    drawn = _rollout(m, lm, seed=40)
    for b, t in drawn.said.nonzero().tolist():
        if told := gap(drawn.log_p[b, t], log_p_by_hand(lm, drawn.ids, b, t)):
            return f"row {b}, column {t}, token {int(drawn.ids[b, t])}: log-probability when it was drawn, {told}"


def _check_alone(m):
    lm = small_model()
    whole = _rollout(m, lm)
    for b in (1, 6, 11):
        (ids, said, _) = m.rollout(lm, [PROMPTS[b]], MOST, STOP, generators=seeded([b]), padding=PADDING)
        n = ids.shape[1]
        if ids[0].tolist() != whole.ids[b, :n].tolist() or whole.said[b].sum() != said.sum():
            return f"row {b} with its own generator: {ids[0].tolist()} alone, {whole.ids[b].tolist()} in a batch"


@torch.no_grad()
def _check_values(m):
    policy, ids = small_policy(m), tokens()
    logits, values = policy(ids)
    if told := gap(logits, policy.lm(ids), "row column token"):
        return f"logits, {told}, the decoder's own"
    wanted = torch.zeros(len(LENGTHS), COLUMNS, dtype=FLOAT)
    for b in range(len(LENGTHS)):
        for t in range(1, COLUMNS):
            wanted[b, t] = value_by_hand(policy, ids, b, t)
    if told := gap(values, wanted, "row column"):
        return f"value, {told}"


@torch.no_grad()
def _check_before(m):
    policy, ids = small_policy(m), tokens()
    before = policy(ids)[1]
    for t in (2, 5, 8):
        changed = ids.clone()
        changed[:, t] = (ids[:, t] + 1) % VOCABULARY
        after = policy(changed)[1]
        if told := gap(after[:, : t + 1], before[:, : t + 1], "row column", other="before"):
            return f"another token in column {t}: value, {told}"
        if t + 1 < COLUMNS and not (after[:, t + 1] != before[:, t + 1]).all():
            return f"another token in column {t}: the value in column {t + 1} is what it was"


def _check_new_critic(m):
    lm = small_model()
    policy = m.ActorCritic(lm)
    if policy.lm is not lm:
        return "the policy is a copy of the decoder, expected the decoder itself"
    if told := gap(policy(tokens())[1].detach(), torch.zeros(len(LENGTHS), COLUMNS, dtype=FLOAT), "row column"):
        return f"a new critic's value, {told}"


def _check_critic_apart(m):
    policy = small_policy(m)
    logits, values = policy(tokens())
    decoder, critic = list(policy.lm.parameters()), list(policy.critic.parameters())
    if reached := sum(it is not None for it in gradients((values**2).sum(), decoder)):
        return f"the gradient of the values reaches {reached} of the decoder's {len(decoder)} parameters, expected none"
    if None in gradients((values**2).sum(), critic):
        return "the gradient of the values does not reach the critic"
    if any(it is not None for it in gradients(logits.log_softmax(-1)[..., 0].sum(), critic)):
        return "the gradient of the log-probabilities reaches the critic, expected none"
    if None in gradients(logits.log_softmax(-1)[..., 0].sum(), decoder):
        return "the gradient of the log-probabilities does not reach all of the decoder"


def _distributions(seed):
    """Log-probabilities of two distributions over the vocabulary, and the divergence of the first from the second."""
    log_p, log_q = draw(VOCABULARY, seed=seed).log_softmax(0), draw(VOCABULARY, seed=seed + 50).log_softmax(0)
    return log_p, log_q, sum(math.exp(p) * (p - q) for p, q in zip(log_p.tolist(), log_q.tolist(), strict=True))


def _check_estimates(m):
    half, quarter = (torch.tensor([p], dtype=FLOAT).log() for p in (0.5, 0.25))
    wanted = [math.log(2), math.log(2) ** 2 / 2, -0.5 + math.log(2)]
    for name, found, number in zip(("k1", "k2", "k3"), m.kl_estimates(half, quarter), wanted, strict=True):
        if told := gap(found[0], torch.tensor(number, dtype=FLOAT)):
            return f"probabilities .5 and .25: {name}, {told}"
    for seed in range(3):
        log_p, log_q, kl = _distributions(seed)
        estimates = m.kl_estimates(log_p, log_q)
        for name, estimate in (("k1", estimates[0]), ("k3", estimates[2])):
            mean = (log_p.exp() * estimate).sum()
            if told := gap(mean, torch.tensor(kl, dtype=FLOAT)):
                return f"the mean of {name} over all {VOCABULARY} tokens, each as often as it is drawn: {told}, the KL"
        if (low := float(torch.stack(estimates[1:]).min())) < 0:
            return f"the least of k2 and k3 is {low:.4g}, expected 0 or more"


@torch.no_grad()
def _check_exact(m):
    policy, other, ids = small_model(), small_model(seed=1), tokens()
    found = m.exact_kl(policy(ids), other(ids))
    wanted = torch.zeros(len(LENGTHS), COLUMNS, dtype=FLOAT)
    for b in range(len(LENGTHS)):
        for t in range(1, COLUMNS):
            log_p, log_q = (it(ids[b : b + 1, :t])[0, -1].log_softmax(0) for it in (policy, other))
            wanted[b, t] = (log_p.exp() * (log_p - log_q)).sum()
    if told := gap(found, wanted, "row column"):
        return f"KL(policy || reference) of what the token was drawn from, {told}"
    if told := gap(m.exact_kl(policy(ids), policy(ids)), torch.zeros_like(found), "row column"):
        return f"of a model from itself, {told}"


ROLLOUT_CHECKS = [
    Check(
        "a token's log-probability is that of the token, given those before it",
        _check_token_log_p,
        "At which position do the logits stand that a token is drawn from?",
        about=["token_log_p"],
    ),
    Check(
        "the probabilities of all texts of a length sum to one",
        _check_probabilities,
        "At which position do the logits stand that a token is drawn from, and over what is the softmax?",
        about=["token_log_p"],
    ),
    Check(
        "a rollout is prompt, response with its stop, and padding; said marks the response",
        _check_rollout,
        "Where does each row's response begin, and which is its last token?",
        about=["rollout"],
    ),
    Check("a response may be the stop alone", _check_stop_at_once, about=["rollout"]),
    Check(
        "the log-probabilities of a rollout are those that the policy gives when it reads the row anew",
        _check_rollout_log_p,
        "From which distribution was the token drawn, and of which is the log-probability?",
        about=["rollout"],
    ),
    Check(
        "a row draws the same response alone and in a batch",
        _check_alone,
        "Whose generator is it?",
        about=["rollout"],
    ),
    Check(
        "logits are the decoder's, values are read by the critic before each token",
        _check_values,
        "Which state has read the tokens before this one, and not this one?",
        about=["ActorCritic.forward"],
    ),
    Check(
        "a token changes the values behind it alone",
        _check_before,
        "What does the critic know when the token is drawn?",
        about=["ActorCritic.forward"],
    ),
    Check("a new critic expects 0, and the decoder is no copy", _check_new_critic, about=["ActorCritic"]),
    Check(
        "the critic's gradient does not reach the decoder",
        _check_critic_apart,
        "What should a wrong expectation change?",
        about=["ActorCritic.forward"],
    ),
    Check(
        "k1 and k3 are right on average, and k2 and k3 never negative",
        _check_estimates,
        "By whose probabilities are the tokens drawn, and which ratio is r?",
        about=["kl_estimates"],
    ),
    Check(
        "the exact KL is that of what each token was drawn from",
        _check_exact,
        "By whose probabilities is it a mean, and at which position do the logits stand?",
        about=["exact_kl"],
    ),
]
