"""A program around ppo.py: a base model of `ppo_letters` learns to say what is worth more.

`train` is the loop: draw, score, improve. A response is scored by the program's own `judge`, or by a `reward_model`
that was trained on pairs. `train_plainly` takes one step by the policy gradient for each batch, and lets the critic
learn with it.
"""

import copy
import random

import ppo
import ppo_letters as letters
import torch

from shared.training import fit

MOST, PROMPTS = 10, 32  # tokens of a response, and prompts of an iteration
RATE, EPOCHS, ITERATIONS = 5e-3, 2, 12
COEFFICIENT, TARGET = 0.1, 2.0  # of the penalty, and nats a response
PAIRS = 256


def prompts(seed=0, n=PROMPTS):
    """Endless lists of n prompts."""
    draw = random.Random(seed)
    while True:
        yield [letters.prompt(draw) for _ in range(n)]


def new_policy():
    """The base, and a critic that knows nothing."""
    return ppo.ActorCritic(letters.base_model())


def draw(lm, asked):
    """Responses to prompts."""
    return ppo.rollout(lm, asked, MOST, [letters.END])


def responses(drawn):
    """The tokens of each response."""
    return [ids[said].tolist() for ids, said in zip(drawn.ids, drawn.said, strict=True)]


def judge(drawn):
    """What each response is worth, (B,)."""
    return torch.tensor([letters.worth(said) for said in responses(drawn)])


def pairs(n=PAIRS, seed=1):
    """Responses of the base, and for each of them another one that is worth less: ids, said, ids, said."""
    asked = next(prompts(seed, n))
    drawn = draw(letters.base_model(), asked + asked)
    one, other = judge(drawn).chunk(2)
    rows = torch.arange(n)
    better, worse = torch.where(one > other, rows, rows + n), torch.where(one > other, rows + n, rows)
    better, worse = better[one != other], worse[one != other]
    return drawn.ids[better], drawn.said[better], drawn.ids[worse], drawn.said[worse]


def reward_model(seed=0, steps=100):
    """A reward model that was trained on pairs, and whose scores are standardised."""
    torch.manual_seed(seed)
    of = pairs()

    def batch():
        rows = torch.randint(len(of[0]), (16,))
        chosen, chosen_said, rejected, rejected_said = (each[rows] for each in of)
        return torch.cat([chosen, rejected]), torch.cat([chosen_said, rejected_said])

    model = ppo.RewardModel(letters.base_model())
    fit(model, batch, steps, 5e-3, loss=ppo.reward_loss, label=None)
    model.standardise(torch.cat(of[::2]), torch.cat(of[1::2]))
    return model


def by_model(model):
    """A score that is a reward model's."""
    return lambda drawn: model(drawn.ids, drawn.said)


def settings(**how):
    """The program's settings, some of them others."""
    usual = {"rate": RATE, "coefficient": COEFFICIENT, "iterations": ITERATIONS, "most": MOST, "epochs": EPOCHS}
    return ppo.Settings(**(usual | how))


def train(score=judge, seed=0, n=PROMPTS, **how):
    """A trained policy, and numbers for each iteration, which has n prompts. how: settings."""
    torch.manual_seed(seed)
    its, policy, drawn_from = settings(**how), new_policy(), prompts(seed, n)
    reference = copy.deepcopy(policy.lm)
    optimizer = torch.optim.AdamW(policy.parameters(), its.rate, betas=(0.9, 0.95), weight_decay=0.0)
    coefficient, log = its.coefficient, []
    for _ in range(its.iterations):
        asked = next(drawn_from)
        drawn = draw(policy.lm, asked)
        with torch.no_grad():
            scores, (logits, values), reference_logits = score(drawn), policy(drawn.ids), reference(drawn.ids)
        reference_log_p = ppo.token_log_p(reference_logits, drawn.ids) * drawn.said
        kl = float((ppo.exact_kl(logits, reference_logits) * drawn.said).sum(1).mean())
        k1 = float(ppo.kl_estimates(drawn.log_p, reference_log_p)[0].sum(1).mean())
        worth = ppo.by_gae(drawn, scores, reference_log_p, values, coefficient, its)
        numbers = ppo.improve(policy, optimizer, ppo.Batch(*drawn, reference_log_p, values, *worth), its)
        length = float(drawn.said.sum(1).float().mean())
        log.append({"score": float(scores.mean()), "kl": kl, "k1": k1, "length": length, "coefficient": coefficient})
        log[-1] |= numbers
        if its.target is not None:
            coefficient = ppo.adapted(coefficient, kl, its.target)
    return policy, log


def train_plainly(seed=0, iterations=30, rate=RATE):
    """The same by the policy gradient, a step for each batch. The critic is read as it learns."""
    torch.manual_seed(seed)
    policy, drawn_from, log = new_policy(), prompts(seed), []
    optimizer = torch.optim.AdamW(policy.parameters(), rate, betas=(0.9, 0.95), weight_decay=0.0)
    for _ in range(iterations):
        drawn = draw(policy.lm, next(drawn_from))
        scores, (logits, values) = judge(drawn), policy(drawn.ids)
        log_p = ppo.token_log_p(logits, drawn.ids) * drawn.said
        rewards = ppo.token_rewards(scores, log_p.detach(), log_p.detach(), drawn.said, 0.0)
        advantages = ppo.gae(rewards, values, drawn.said)
        returns = (advantages + values).detach()
        loss = ppo.policy_gradient_loss(log_p, advantages, drawn.said)
        critic = ppo.value_loss(values, values.detach(), returns, drawn.said, float("inf"))
        optimizer.zero_grad(set_to_none=True)
        (loss + critic).backward()
        optimizer.step()
        expected = float(ppo.masked_mean(values.detach(), drawn.said))
        log.append({"score": float(scores.mean()), "value": expected, "loss": float(loss.detach())})
    return policy, log


if __name__ == "__main__":
    for coefficient in (0.0, COEFFICIENT):
        policy, log = train(coefficient=coefficient)
        first, last = log[0], log[-1]
        print(f"coefficient {coefficient}: score {first['score']:.2f}, then {last['score']:.2f}, KL {last['kl']:.2f}")
        print("  " + " ".join(letters.words(said) for said in responses(draw(policy.lm, next(prompts(9, 12))))))
