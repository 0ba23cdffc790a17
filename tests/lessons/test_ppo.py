"""Lesson 15: rewards, advantages and losses against exact expectations over all texts, stable-baselines3's GAE and
autograd. (Its clinic: test_clinics.py.)"""

import copy
import itertools
import math

import ppo
import ppo_training
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from small_models import EXACT, FLOAT, draw
from torch.autograd import gradcheck
from torch.nn import functional as F

from shared.clinic import checks, examine, graft
from shared.generation import seeded
from shared.tiny_lm import TinyLM

WORDS, LENGTH = 3, 3  # of the texts that are all enumerated: token 0 is the prompt, 27 responses follow


def small_model(vocabulary=WORDS, seed=0):
    """Large random weights, float64."""
    model = TinyLM(vocabulary, 12, 8, 2, 2).to(FLOAT)
    for i, parameter in enumerate(model.parameters()):
        parameter.data = draw(*parameter.shape, seed=100 * seed + i) * 0.4
    return model


def all_texts():
    """Every response of LENGTH tokens, its prompt before it, (27, 4), and said."""
    ids = torch.tensor([[0, *rest] for rest in itertools.product(range(WORDS), repeat=LENGTH)])
    said = torch.ones_like(ids, dtype=torch.bool)
    said[:, 0] = False
    return ids, said


def gradients(loss, model):
    """By all parameters, in one row. The graph is kept."""
    found = torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)
    return torch.cat([it.flatten() for it in found])


@pytest.mark.parametrize("coefficient", [0.0, 0.7])
def test_the_policy_gradient_is_that_of_what_is_expected(coefficient):
    """On average over all texts: of the expected score less coefficient times KL, whatever the critic says. So is that
    of the clipped loss at the first step."""
    lm, reference, (ids, said) = small_model(), small_model(seed=1), all_texts()
    scores, guesses = 3 * draw(len(ids)), 2 * draw(3, WORDS, WORDS, seed=1)
    critic = torch.stack(
        [0 * scores, guesses[0, 0, 0].expand(27), guesses[1, 0][ids[:, 1]], guesses[2][*ids.T[1:3]]], 1
    )

    log_p, log_q = (ppo.token_log_p(each(ids), ids) for each in (lm, reference))
    whole, other = (log_p * said).sum(1), (log_q.detach() * said).sum(1)
    expected = (whole.exp() * (scores - coefficient * (whole - other))).sum()

    fixed = log_p.detach() * said
    rewards = ppo.token_rewards(scores, fixed, log_q.detach() * said, said, coefficient)
    advantages = ppo.gae(rewards, critic, said, gamma=1.0, lam=1.0)
    weighed = advantages * whole.exp().detach()[:, None] * said.sum()  # the losses are means over tokens
    for loss in (
        ppo.policy_gradient_loss(log_p, weighed, said),
        ppo.clipped_loss(log_p, fixed, weighed, said),
    ):
        torch.testing.assert_close(-gradients(loss, lm), gradients(expected, lm), **EXACT)


@torch.no_grad()
def test_the_exact_kl_sums_to_that_of_the_texts():
    lm, reference, (ids, said) = small_model(), small_model(seed=1), all_texts()
    log_p, log_q = ((ppo.token_log_p(each(ids), ids) * said).sum(1) for each in (lm, reference))
    nats = (ppo.exact_kl(lm(ids), reference(ids)) * said).sum(1)
    torch.testing.assert_close((log_p.exp() * nats).sum(), (log_p.exp() * (log_p - log_q)).sum(), **EXACT)


def test_of_which_divergence_each_estimate_has_the_gradient():
    """As losses, on average over what the policy draws: k1 of none, k2 of KL(policy || reference), k3 of the other."""
    logits, log_q = draw(7).requires_grad_(), draw(7, seed=1).log_softmax(0)
    log_p = logits.log_softmax(0)
    wanted = [0 * log_p.sum(), (log_p.exp() * (log_p - log_q)).sum(), (log_q.exp() * (log_q - log_p)).sum()]
    for estimate, kl in zip(ppo.kl_estimates(log_p, log_q), wanted, strict=True):
        (found,) = torch.autograd.grad((log_p.exp().detach() * estimate).sum(), logits, retain_graph=True)
        (right,) = torch.autograd.grad(kl, logits, retain_graph=True)
        torch.testing.assert_close(found, right, **EXACT)


@pytest.mark.parametrize("size", [0.2, 2.0])
def test_the_estimates_by_many_draws(size):
    """k1 and k3 are within five standard errors of the exact KL. k2 is within a tenth of it if the policies are near
    each other, and then k2 and k3 vary less than k1; if they are far apart k2 is not, and k3 varies more."""
    log_p, log_q = ((size * draw(40, seed=seed)).log_softmax(0) for seed in (0, 1))
    drawn = torch.multinomial(log_p.exp(), 200_000, replacement=True, generator=torch.Generator().manual_seed(0))
    kl = F.kl_div(log_q, log_p, reduction="sum", log_target=True)  # PyTorch's: its second argument draws
    k1, k2, k3 = ppo.kl_estimates(log_p[drawn], log_q[drawn])
    for estimate in (k1, k3):
        assert (estimate.mean() - kl).abs() < 5 * estimate.std() / len(drawn) ** 0.5
    assert (abs(float(k2.mean() / kl) - 1) < 0.1) == (size < 1)
    assert (k2.std() < k1.std() and k3.std() < k1.std()) == (size < 1)


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.7), (0.99, 0.0), (0.8, 1.0)])
def test_advantages_are_stable_baselines3s(gamma, lam):
    """Theirs has all episodes one after the other, ours one in each row. They are float32."""
    buffers = pytest.importorskip("stable_baselines3.common.buffers")
    spaces = pytest.importorskip("gymnasium.spaces")
    lengths, T = [3, 7, 1, 5], 9
    said = torch.tensor([[1 <= t <= n for t in range(T)] for n in lengths])
    rewards, values = draw(len(lengths), T).float(), draw(len(lengths), T, seed=1).float()
    theirs = buffers.RolloutBuffer(
        int(said.sum()), spaces.Discrete(2), spaces.Discrete(2), device="cpu", gae_lambda=lam, gamma=gamma
    )
    theirs.rewards[:, 0], theirs.values[:, 0] = rewards[said].numpy(), values[said].numpy()
    theirs.episode_starts[:, 0] = [t == 0 for n in lengths for t in range(n)]
    theirs.compute_returns_and_advantage(torch.tensor([50.0]), torch.tensor([True]).numpy())
    found = ppo.gae(rewards, values, said, gamma, lam)
    float32 = {"atol": 1e-5, "rtol": 0}  # rounds at 1e-7; seven terms of size 1 to 3
    torch.testing.assert_close(found[said], torch.from_numpy(theirs.advantages[:, 0]), **float32)
    torch.testing.assert_close((found + values)[said], torch.from_numpy(theirs.returns[:, 0]), **float32)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 999))
def test_gradients_are_those_of_small_differences(seed):
    """Of each loss by what is learnt, at random points."""
    log_p, old, advantages, values, returns = (draw(3, 4, seed=5 * seed + i) for i in range(5))
    said = draw(3, 4, seed=seed + 7) > -1
    said[0, 0] = True
    for loss, x in (
        (lambda x: ppo.policy_gradient_loss(x, advantages, said), log_p),
        (lambda x: ppo.clipped_loss(x, old, advantages, said), log_p),
        (lambda x: ppo.value_loss(x, old, returns, said, 0.3), values),
        (lambda x: ppo.preference_loss(x[:, 0], x[:, 1]), values),
        (lambda x: ppo.masked_mean(ppo.kl_estimates(x, old)[2], said), log_p),
        (lambda x: (ppo.token_log_p(x[None], torch.tensor([[1, 3, 0]])) ** 2).sum(), log_p),
        (lambda x: (ppo.exact_kl(x[None], old[None]) ** 2).sum(), log_p),
    ):
        assert gradcheck(loss, x.clone().requires_grad_())


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 99), n=st.integers(1, 6))
def test_a_preference_is_a_coin_whose_logit_is_the_difference(seed, n):
    """PyTorch's binary cross entropy of "the chosen one is better"."""
    chosen, rejected = 10 * draw(n, seed=seed), 10 * draw(n, seed=seed + 1)
    wanted = F.binary_cross_entropy_with_logits(chosen - rejected, torch.ones(n, dtype=FLOAT))
    torch.testing.assert_close(ppo.preference_loss(chosen, rejected), wanted, **EXACT)


@torch.no_grad()
def test_tokens_are_drawn_as_often_as_they_are_likely():
    lm = small_model(vocabulary=11)
    drawn = ppo.rollout(lm, [[3, 1]] * 4000, 1, (), generators=seeded(range(4000)))
    p = lm(torch.tensor([[3, 1]]))[0, -1].softmax(0)
    assert chisquare(torch.bincount(drawn.ids[:, 2], minlength=11), 4000 * p).pvalue > 1e-4


@pytest.mark.parametrize(("dtype", "wanted"), [(FLOAT, FLOAT), (torch.float32,) * 2, (torch.bfloat16, torch.float32)])
def test_a_rollouts_log_probabilities_are_as_exact_as_they_are_drawn(dtype, wanted):
    drawn = ppo.rollout(small_model().to(dtype), [[0], [1, 2]], 3, (), generators=seeded(range(2)))
    assert drawn.log_p.dtype == wanted and drawn.ids.dtype == torch.long and drawn.said.dtype == torch.bool


ARMS = torch.tensor([0.0, 1.0, 2.0, -1.0, 0.5, 1.5])


def pull(coefficient, rate, iterations, seed=0):
    """A bandit: the response to the prompt [0] is one of six tokens, and its score stands in ARMS. Returns the
    probabilities of the reference and of the policy, and the history."""
    torch.manual_seed(seed)
    lm = TinyLM(len(ARMS), 3, 8, 1, 2)
    lm.embedding.weight.data *= 20  # the reference has its likes
    reference = copy.deepcopy(lm)
    how = ppo.Settings(rate, coefficient, iterations=iterations, most=1, stop=(), epochs=1, minibatches=1)
    prompts = itertools.repeat([[0]] * 128)
    history = ppo_training.train(
        ppo.ActorCritic(lm), reference, lambda drawn: ARMS[drawn.ids[:, 1]], prompts, how, label=None
    )
    with torch.no_grad():
        return *(it(torch.tensor([[0]]))[0, -1].softmax(0) for it in (reference, lm)), history


def test_a_bandit_is_solved():
    """The best arm is pulled nearly always."""
    _, p, history = pull(0.0, 1e-2, 60)
    assert p[2] > 0.95 and history.rows[-1]["score"] > 1.9 and not history.stopped


def test_with_a_penalty_the_optimum_is_the_tilted_reference():
    """Of score less coefficient times KL the optimum is reference times exp(score / coefficient), normalised (Ziegler
    et al. 2019, eq. 3)."""
    q, p, history = pull(1.0, 5e-3, 80)
    wanted = (q.log() + ARMS).softmax(0)
    apart = [float((it - wanted).abs().sum() / 2) for it in (q, p)]
    assert apart[0] > 0.2 and apart[1] < 0.03  # five seeds: .002 to .009
    kl = float((wanted * (wanted / q).log()).sum())
    assert history.rows[-1]["kl"] == pytest.approx(kl, abs=0.05)


def by_cross_entropy(logits, ids):
    return F.pad(-F.cross_entropy(logits[:, :-1].mT, ids[:, 1:], reduction="none"), (1, 0))


def gae_by_a_matrix(rewards, values, said, gamma=1.0, lam=0.95):
    """Every delta times the weight that it has in every advantage."""
    mine = values * said
    delta = (rewards + gamma * F.pad(mine[:, 1:], (0, 1)) - mine) * said
    t = torch.arange(rewards.shape[1])
    ahead = t[None] - t[:, None]
    weights = torch.where(ahead >= 0, torch.tensor(gamma * lam, dtype=rewards.dtype) ** ahead.clamp(min=0), 0.0)
    return (delta @ weights.mT) * said


def larger_of_two_losses(log_p, old_log_p, advantages, said, clip=0.2):
    ratio, advantages = (log_p - old_log_p.detach()).exp(), advantages.detach()
    losses = torch.stack([-advantages * ratio, -advantages * ratio.clamp(1 - clip, 1 + clip)]).amax(0)
    return losses[said].mean()


def whiten_the_chosen(x, said):
    mine = x[said]
    done = (mine - mine.mean()) / (mine.var(correction=0) + 1e-8).sqrt()
    return torch.zeros_like(x).masked_scatter(said, done)


def rewards_by_scatter(scores, log_p, reference_log_p, said, coefficient):
    rewards = torch.where(said, coefficient * (reference_log_p - log_p), 0.0)
    last = said.shape[1] - 1 - said.flip(1).int().argmax(1, keepdim=True)
    return rewards.scatter_add(1, last, scores[:, None])


UNUSUAL = {
    "token_log_p": by_cross_entropy,
    "gae": gae_by_a_matrix,
    "clipped_loss": larger_of_two_losses,
    "whiten": whiten_the_chosen,
    "token_rewards": rewards_by_scatter,
}


@pytest.mark.parametrize("name", UNUSUAL)
def test_a_right_function_that_is_written_otherwise_passes(name):
    assert examine(graft(ppo, **{name: UNUSUAL[name]}), checks(ppo)).passes


def test_a_number_that_is_not_finite_ends_the_training_and_says_where():
    policy, reference = ppo.ActorCritic(small_model().float()), small_model().float()
    scores = iter([1.0, math.nan])
    history = ppo_training.train(
        policy,
        reference,
        lambda drawn: torch.linspace(0, 1, len(drawn.ids)) * next(scores),
        itertools.repeat([[0], [1, 2], [2]]),
        ppo.Settings(most=3, stop=(), iterations=5),
        label=None,
    )
    assert len(history.rows) == 2 and "iteration 1" in history.stopped and "score" in history.stopped
    assert ppo_training.LOOK_AT in history.stopped


def test_an_interrupt_leaves_what_is_there():
    def score(drawn):
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(drawn)
        return torch.zeros(len(drawn.ids))

    seen, policy = [], ppo.ActorCritic(small_model().float())
    history = ppo_training.train(
        policy,
        small_model().float(),
        score,
        itertools.repeat([[0]]),
        ppo.Settings(most=3, stop=(), iterations=5),
        label=None,
    )
    assert len(history.rows) == 2 and "after 2 of 5" in history.stopped
