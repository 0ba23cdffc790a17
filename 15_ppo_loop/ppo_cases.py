"""Prompts, responses and a model for the checks of `ppo.py`, and small functions by hand.

No two sizes are equal where one could stand for the other: a vocabulary of 13, a decoder of 2 layers, 3 heads and 12
numbers a token, five rows of 9 columns. Prompts and responses differ in length, one response is a single token, and
behind each row there is padding. Everything is made anew: a fault may write to what it is given.
"""

import math

import torch

from shared.hooks import look
from shared.tiny_lm import TinyLM

FLOAT = torch.float64
VOCABULARY, COLUMNS = 13, 9
LENGTHS = [(2, 3), (1, 7), (4, 1), (3, 5), (2, 4)]  # of prompt and response
GAMMA, LAM, CLIP = 0.9, 0.7, 0.3
PLACES = [(b, t) for b, (prompt, n) in enumerate(LENGTHS) for t in range(prompt, prompt + n)]
LAST = [prompt + n - 1 for prompt, n in LENGTHS]


def seeded(seed=0):
    """A generator of its own."""
    return torch.Generator().manual_seed(seed)


def draw(*shape, seed=0):
    """Numbers of size 1, float64."""
    return torch.randn(shape, generator=seeded(seed), dtype=FLOAT)


def spoken(columns=COLUMNS):
    """(5, columns): True at the tokens of the responses."""
    said = torch.zeros(len(LENGTHS), columns, dtype=torch.bool)
    for b, t in PLACES:
        said[b, t] = True
    return said


def tokens(columns=COLUMNS, seed=0):
    """(5, columns) of the vocabulary, padding included: no function may read what stands there."""
    return torch.randint(VOCABULARY, (len(LENGTHS), columns), generator=seeded(seed))


def numbers(seed=0):
    """(5, 9) of size 1, at prompts and padding, too."""
    return draw(len(LENGTHS), COLUMNS, seed=seed)


def on_responses(x):
    """The numbers of the responses' tokens, 0 elsewhere."""
    return torch.where(spoken(x.shape[1]), x, torch.zeros_like(x))


def small_model(vocabulary=VOCABULARY, seed=0, **parts):
    """A decoder of large random weights in float64."""
    model = TinyLM(vocabulary, 24, 12, 2, 3, **parts).to(FLOAT)
    for i, parameter in enumerate(model.parameters()):
        parameter.data = draw(*parameter.shape, seed=100 * seed + i) * 0.5
    return model


def small_policy(m, seed=0):
    """A decoder with a critic of large random weights."""
    policy = m.ActorCritic(small_model(seed=seed))
    with torch.no_grad():
        policy.critic.weight.copy_(draw(1, 12, seed=51))
        policy.critic.bias.copy_(draw(1, seed=52))
    return policy


def small_rewards(m, seed=0):
    """A reward model whose head is not 0."""
    model = m.RewardModel(small_model(seed=seed))
    with torch.no_grad():
        model.trunk.head.weight.copy_(draw(1, 12, seed=53))
    return model


def log_p_by_hand(lm, ids, b, t):
    """The log-probability of token t of row b: the row's first t tokens are read, and nothing else."""
    logits = lm(ids[b : b + 1, :t])[0, -1]
    return logits[ids[b, t]] - logits.logsumexp(0)


def value_by_hand(policy, ids, b, t):
    """What the critic expects before token t of row b."""
    state = look(policy.lm, ids[b : b + 1, :t], ["norm"])["norm"][0][0, -1]
    return state @ policy.critic.weight[0] + policy.critic.bias[0]


def table(of):
    """A (5, 9) table of numbers by place, 0 elsewhere. of: takes row and column of a response's token."""
    found = torch.zeros(len(LENGTHS), COLUMNS, dtype=FLOAT)
    for b, t in PLACES:
        found[b, t] = of(b, t)
    return found


def mean_by_hand(of):
    """The mean over the tokens of all responses."""
    return sum(of(b, t) for b, t in PLACES) / len(PLACES)


def gap(found, wanted, axes="", tolerance=1e-9, other="expected"):
    """None if two tensors of numbers are equal, else where they differ most, in words. NaN differs from all.

    axes: what each is called, "row column"; none for two single numbers. tolerance: the default is for float64, which
    rounds at 1e-16, and sums of under a thousand terms of size 1 to 100. other: what `wanted` is.
    """
    found, wanted = torch.as_tensor(found), torch.as_tensor(wanted)
    if found.shape != wanted.shape:
        return f"shape {tuple(found.shape)}, expected {tuple(wanted.shape)}"
    gaps = (found - wanted).abs().to(FLOAT).nan_to_num(nan=math.inf)
    if gaps.numel() and gaps.max() > tolerance:
        at = tuple(int(i) for i in torch.unravel_index(gaps.argmax(), gaps.shape))
        digits = 6 if f"{found[at]:.6g}" != f"{wanted[at]:.6g}" else 12
        place = ", ".join(f"{axis} {i}" for axis, i in zip(axes.split(), at, strict=True)) + ": " * bool(at)
        return f"{place}found {found[at]:.{digits}g}, {other} {wanted[at]:.{digits}g}"


def gradients(loss, of):
    """The gradient of a loss for each tensor; None where it has none, or 0 everywhere."""
    if not loss.requires_grad:
        return [None for _ in of]
    found = torch.autograd.grad(loss, of, allow_unused=True, retain_graph=True)
    return [it if it is not None and it.any() else None for it in found]
