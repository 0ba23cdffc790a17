"""The faults of lesson 15: what ails each patient of its clinic, and its answer. Reading on spoils it.

Kinds: a line of the helper, of its caller, or a setting; two at once; nothing at all; and faults that pass every check,
each with the property that catches it.
"""

import itertools

import ppo_evidence as evidence
import ppo_seen as seen
import torch
from ppo_letters import END, LETTERS, base_model

from shared.clinic import Change, Fault


def _draws_as_the_policy(helper, caller):
    """The first tokens of 16,000 responses to a prompt come as often as the policy's probabilities say."""
    lm = base_model()
    torch.manual_seed(0)
    drawn = caller.draw(lm, [[3]] * 16000)
    with torch.no_grad():
        p = lm(torch.tensor([[3]]))[0, -1].softmax(0)
    found = torch.bincount(drawn.ids[:, 1], minlength=len(LETTERS)) / 16000
    distance = (found - p) / (p * (1 - p) / 16000).sqrt()  # in standard errors
    token = int(distance.abs().argmax())
    if abs(distance[token]) > 5:
        told = f"{float(found[token]):.3f} of the time, its probability is {float(p[token]):.3f}"
        return f"after 'c': {LETTERS[token]!r} is drawn {told}"


def _the_reference_stays(helper, caller):
    """The divergence that is logged is that from the base."""
    policy, log = caller.train(iterations=5, coefficient=0.0)
    true = seen.truth(policy.lm)[1]
    if not log[-1]["kl"] > true / 4:
        return f"after 5 iterations the policy is {true:.2f} nats from the base, the log says {log[-1]['kl']:.4f}"


def _a_new_iteration_has_new_prompts(helper, caller):
    """The prompts of one iteration are not those of the one before."""
    drawn = caller.prompts(0)
    first, second = next(drawn), next(drawn)
    if first == second:
        return f"the prompts of two iterations begin with {first[:3]} and {second[:3]}: all {len(first)} are the same"


def _scores_of_the_base_have_deviation_one(helper, caller):
    """A reward model's scores of the base's responses have a mean near 0 and a deviation near 1."""
    model = caller.reward_model()
    drawn = caller.draw(base_model(), seen.asked(512))
    with torch.no_grad():
        scores = model(drawn.ids, drawn.said)
    if not (abs(float(scores.mean())) < 0.4 and 0.7 < float(scores.std()) < 1.4):
        return (
            f"scores of 512 responses of the base: mean {float(scores.mean()):.2f}, deviation {float(scores.std()):.2f}"
        )


def _a_score_is_of_the_response(helper, caller):
    """The same responses to other prompts are worth the same."""
    said = torch.tensor([[False, False, True, True, True, False]] * 3)
    ids = torch.tensor([[2, 3, 4, 6, END, END], [1, 5, 4, 6, END, END], [9, 1, 4, 6, END, END]])
    found = caller.judge(helper.Rollout(ids, said, torch.zeros(3, 6))).tolist()
    if len(set(found)) > 1:
        return f"the response 'df.' to the prompts 'bc', 'ae' and 'ia' has the scores {found}"


def _the_coefficient_follows_the_divergence(helper, caller):
    """Each iteration's coefficient is what the one before, its divergence and the target make of it."""
    for start, target in ((0.01, 0.2), (3.0, 50.0)):
        _, log = caller.train(coefficient=start, target=target, iterations=6)
        for i, (now, then) in enumerate(itertools.pairwise(log)):
            wanted = helper.adapted(now["coefficient"], now["kl"], target)
            if abs(then["coefficient"] - wanted) > 1e-6 * wanted:  # the same numbers, in another order at most
                told = f"coefficient {start}, target {target}: after iteration {i} the KL is {now['kl']:.2f}"
                return f"{told}, and the coefficient {then['coefficient']:.4g}, expected {wanted:.4g}"


def _an_iteration_stays_near(helper, caller):
    """In one iteration the policy does not go far from what drew the responses."""
    before = caller.new_policy().lm
    for seed in (0, 1):
        policy, _ = caller.train(seed=seed, iterations=1)
        prompts = seen.asked(128)
        moved = seen.divergence(policy.lm, prompts, seen.said(policy.lm, prompts), before)
        if sum(moved) / len(moved) > 1.0:
            return (
                f"one iteration, seed {seed}: the policy is {sum(moved) / len(moved):.2f} nats from the one that drew"
            )


FAULTS = [
    Fault(
        name="a token's log-probability is read at the token itself: its logits are those of the next one",
        changes=[
            Change(
                "log_p = logits[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]",
                "log_p = logits[:, 1:].log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]",
            )
        ],
        symptom="It trains without an error, and its score does not rise.",
        hints=[
            "Which numbers of the log can be foretold before anything is learnt?",
            "Two passes give a token's log-probability. Do they agree?",
        ],
        seen_in="AI-Hypercomputer/maxtext#2103 and lucidrains/PaLM-rlhf-pytorch#31: log-probabilities were one "
        "position off; reported there.",
        evidence=evidence.curves,
        example=True,
    ),
    Fault(
        name="the policy's loss has a gradient by the advantages: the critic raises its values to make the loss small",
        changes=[
            Change(
                "return -masked_mean(log_p * advantages.detach(), said)",
                "return -masked_mean(log_p * advantages, said)",
            )
        ],
        symptom="The critic expects more of a response than any has been worth.",
        hints=["By what is the critic trained?", "Which losses fall if a value rises?"],
        seen_in="Farama-Foundation/Gymnasium#1494: an example's advantages carried a gradient; fixed there.",
        evidence=evidence.plainly,
    ),
    Fault(
        name="the old log-probabilities are made anew for each step: the ratio is always 1, and nothing is clipped",
        changes=[
            Change(
                "log_p = token_log_p(logits, part.ids) * part.said",
                """
                log_p = token_log_p(logits, part.ids) * part.said
                part = part._replace(log_p=log_p.detach())
                """,
            )
        ],
        symptom="The more epochs, the further it runs from its reference.",
        hints=["What is to hold it back within a batch?", "Which policy is compared with which?"],
        seen_in="tensorforce/tensorforce#312: the ratio was 1 at every step; reported there.",
        evidence=evidence.epochs,
    ),
    Fault(
        name="nothing: the patient is healthy. Advantages have mean 0 and ratios are 1, so the loss is 0; its gradient "
        "is not",
        changes=[],
        symptom="The loss is 0 at every step. What is there to be learnt from?",
        hints=["What are the mean of the advantages, and the ratio, before a step?", "Of what is a gradient made?"],
        seen_in="no thread of this: planted because a loss of 0 looks like a training that is broken.",
        evidence=evidence.first_steps,
    ),
    Fault(
        name="the penalty has the wrong sign: what the reference finds unlikely is rewarded",
        changes=[
            Change(
                "penalty = -coefficient * (log_p - reference_log_p)",
                "penalty = coefficient * (log_p - reference_log_p)",
            )
        ],
        symptom="A penalty was to keep it near its reference. What it says does not look like it.",
        hints=["What does a larger coefficient do?", "What is a token rewarded with that the reference would not say?"],
        seen_in="qiancheng0/ToolRL#52: a KL term with the wrong sign, and the collapse of a policy; reported there.",
        evidence=evidence.penalties,
    ),
    Fault(
        name="responses are drawn at temperature 0.7, and their log-probabilities are of that distribution, too: it is "
        "another policy than the one that is trained",
        changes=[
            Change(
                "for step in stream(lm, prompts, most, stop=stop, generators=generators):",
                """
                cool = [lambda logits, said: logits / 0.7]
                for step in stream(lm, prompts, most, rules=cool, stop=stop, generators=generators):
                """,
            )
        ],
        symptom="Its responses become longer and longer, and fewer of them end.",
        hints=["Which number of the log should be 0, and is not?", "From what was each token drawn?"],
        seen_in="CarperAI/trlx#107 and huggingface/trl#454: ratios other than 1 at the first step, and why; discussed "
        "there.",
        evidence=evidence.curves,
    ),
    Fault(
        name="responses are drawn at temperature 0.7, and their log-probabilities read again without it: they are not "
        "the policy's own, and estimates of the divergence are of nothing",
        changes=[
            Change(
                "return ppo.rollout(lm, asked, MOST, [letters.END])",
                """
                cool = copy.deepcopy(lm)
                for parameter in cool.norm.parameters():
                    parameter.data /= 0.7
                drawn = ppo.rollout(cool, asked, MOST, [letters.END])
                with torch.no_grad():
                    return drawn._replace(log_p=ppo.token_log_p(lm(drawn.ids), drawn.ids) * drawn.said)
                """,
                in_caller=True,
            )
        ],
        symptom="Its log looks well from first to last. In use it is worse than that.",
        hints=["What differs between log and truth?", "How often is a token drawn whose probability is .2?"],
        seen_in="huggingface/trl#235: settings of the generation that were not those of the training, seen by a "
        "negative divergence; a warning was added.",
        evidence=evidence.curves,
        holds=_draws_as_the_policy,
    ),
    Fault(
        name="advantages are whitened over prompts and padding, too",
        changes=[
            Change(
                """
                x = (x - masked_mean(x, said)) * said
                variance = masked_mean(x**2, said)
                return x * (variance + 1e-8).rsqrt()
                """,
                """
                x = x - x.mean()
                variance = x.var(correction=0)
                return x * (variance + 1e-8).rsqrt() * said
                """,
            )
        ],
        symptom="What a response is told depends on its neighbours in the batch.",
        hints=["Is it what the neighbours say, or how long they are?", "How many numbers is each mean over?"],
        seen_in="natolambert/rlhf-book#216 and alibaba/ROLL#475: means and deviations over padding; fixed there.",
        evidence=evidence.batches,
    ),
    Fault(
        name="the score falls on the first padding, where there is one, and is lost: only responses that did not end "
        "are told theirs",
        changes=[
            Change(
                """
                last = F.one_hot(last_said(said), said.shape[1])
                return (penalty + scores[:, None] * last) * said
                """,
                """
                last = F.one_hot((last_said(said) + 1).clamp(max=said.shape[1] - 1), said.shape[1])
                return penalty * said + scores[:, None] * last
                """,
            )
        ],
        symptom="It goes on and on, and its score does not rise.",
        hints=["Which responses learn anything?", "Add up what the tokens of a response are rewarded with."],
        seen_in="huggingface/trl#1893: whether the reward belongs one token further on; disputed there. "
        "EleutherAI/gpt-neox#1285: a reward model's mask was off by one; fixed there.",
        evidence=evidence.longer,
    ),
    Fault(
        name="the critic's values are kept near the returns, and the smaller error counts: far from them it learns "
        "nothing",
        changes=[
            Change(
                """
                near = old_values + (values - old_values).clamp(-clip, clip)
                return masked_mean(torch.maximum((values - returns) ** 2, (near - returns) ** 2), said) / 2
                """,
                """
                near = returns + (values - returns).clamp(-clip, clip)
                return masked_mean(torch.minimum((values - returns) ** 2, (near - returns) ** 2), said) / 2
                """,
            )
        ],
        symptom="The critic's loss is low, and the critic is not good.",
        hints=["How far is it off where it is worst?", "What is the derivative of the loss there?"],
        seen_in="ray-project/ray#22171: a clipped critic's loss without a gradient; fixed there. openai/baselines#91: "
        "why the larger one counts; asked there.",
        evidence=evidence.shifted,
    ),
    Fault(
        name="all responses are put in one row to save padding: the advantages of one run on into the one before it",
        changes=[
            Change(
                "advantages = gae(rewards, values, drawn.said, settings.gamma, settings.lam)",
                """
                said, advantages = drawn.said, torch.zeros_like(rewards)
                row = rewards[said][None], values[said][None], said[said][None]
                advantages[said] = gae(*row, settings.gamma, settings.lam)[0]
                """,
            )
        ],
        symptom="The critic is told more than a response was worth, or less, and by no rule.",
        hints=["Which of the numbers depend on the neighbours?", "What stands behind the last token of a response?"],
        seen_in="DLR-RM/stable-baselines3#105: the wrong ends of episodes spoiled returns and advantages; fixed there.",
        evidence=evidence.batches,
    ),
    Fault(
        name="the reference is the policy itself, and moves with it: the divergence is always 0, the penalty as well",
        changes=[
            Change(
                "reference = copy.deepcopy(policy.lm)",
                "reference = copy.copy(policy.lm)",
                in_caller=True,
            )
        ],
        symptom="A penalty was to keep it near its reference. By its log it has never left it.",
        hints=["What does the log say of the KL, and what is it in truth?", "Where are the weights of a copy?"],
        seen_in="huggingface/trl#1104: whether the reference must be frozen; asked there.",
        evidence=evidence.penalties,
        holds=_the_reference_stays,
    ),
    Fault(
        name="k1 stands in the loss in place of k3: its gradient is 0 on average, whatever the reference says",
        changes=[
            Change(
                """
                k3 = masked_mean(kl_estimates(log_p, part.reference_log_p)[2], part.said)
                whole = whole + settings.in_loss * k3
                """,
                """
                k1 = masked_mean(kl_estimates(log_p, part.reference_log_p)[0], part.said)
                whole = whole + settings.in_loss * k1
                """,
            )
        ],
        symptom="The divergence is in the loss, and does not become smaller by it.",
        hints=["What does a larger coefficient do?", "What is the derivative of that term by a log-probability?"],
        seen_in="NVIDIA-NeMo/RL#2506 and allenai/open-instruct#535: a KL term in the loss had the wrong gradient; "
        "fixed there.",
        evidence=evidence.in_losses,
    ),
    Fault(
        name="a value is set before it is used: each token's own value follows it, and the critic drops out",
        changes=[
            Change(
                """
                delta = rewards[:, t] + gamma * next_value - values[:, t]
                next_advantage = (delta + gamma * lam * next_advantage) * said[:, t]
                next_value = values[:, t] * said[:, t]
                """,
                """
                next_value = values[:, t] * said[:, t]
                delta = rewards[:, t] + gamma * next_value - values[:, t]
                next_advantage = (delta + gamma * lam * next_advantage) * said[:, t]
                """,
            )
        ],
        symptom="The longer it is trained, the worse the critic is.",
        hints=["What should it say of a response's last token?", "Which value is compared with which?"],
        seen_in="DLR-RM/stable-baselines3#185 and hill-a/stable-baselines#385: advantages were off by one step; fixed "
        "there.",
        evidence=evidence.critic,
    ),
    Fault(
        name="a response's last token is followed by the value of the padding behind it",
        changes=[
            Change("next_value = values[:, t] * said[:, t]", "next_value = values[:, t]"),
        ],
        symptom="The critic's targets are not what the responses were worth.",
        hints=["At which tokens are they too high or too low?", "What is to come after the last token?"],
        seen_in="hill-a/stable-baselines#385: what follows an episode's end had a part in it; fixed there.",
        evidence=evidence.critic,
    ),
    Fault(
        name="the reward model is read at the last column, padding or not",
        changes=[
            Change(
                "return (number.gather(1, last_said(said)[:, None])[:, 0] - self.shift) / self.scale",
                "return (number[:, -1] - self.shift) / self.scale",
            )
        ],
        symptom="A reward model learnt from good pairs. Its scores are hard to understand.",
        hints=["Does a score belong to a response?", "Which token does the reward model read last?"],
        seen_in="EleutherAI/gpt-neox#1285: a reward model was trained at tokens that are masked; fixed there.",
        evidence=evidence.judged,
    ),
    Fault(
        name="the larger one of ratio and bounded ratio counts: nothing holds a good token back, and a bad one is not "
        "pushed back",
        changes=[
            Change(
                "return -masked_mean(torch.minimum(ratio * advantages, bounded), said)",
                "return -masked_mean(torch.maximum(ratio * advantages, bounded), said)",
            )
        ],
        symptom="With one epoch it learns as it should. With many it does not.",
        hints=["What does the log say of the bounds?", "Ratio 2, advantage 1: what is lost, what is gained?"],
        seen_in="ray-project/ray#2233: what differs between PPO's losses; asked there.",
        evidence=evidence.epochs,
    ),
    Fault(
        name="the critic's gradient reaches the decoder: large errors of the critic change what is said",
        changes=[
            Change(
                "values = self.critic(states[0].detach())[:, :-1, 0]",
                "values = self.critic(states[0])[:, :-1, 0]",
            )
        ],
        symptom="To every score the same number was added. Since then it learns less.",
        hints=["Which of the two losses knows of the number?", "Which losses can change the decoder?"],
        seen_in="no thread: planted because policy and critic share a decoder in many programs, and need not.",
        evidence=evidence.shifted,
    ),
    Fault(
        name="the critic's targets are made of whitened advantages: their unit is another one than that of the rewards",
        changes=[
            Change(
                """
                advantages = gae(rewards, values, drawn.said, settings.gamma, settings.lam)
                return whiten(advantages, drawn.said), (advantages + values) * drawn.said
                """,
                """
                advantages = whiten(gae(rewards, values, drawn.said, settings.gamma, settings.lam), drawn.said)
                return advantages, (advantages + values) * drawn.said
                """,
            )
        ],
        symptom="The critic has been trained for long, and its loss does not fall.",
        hints=["What does it learn to say, and what should it?", "In which unit are its targets?"],
        seen_in="vwxyzjn/cleanrl#337 is a cousin: returns were made of what was not there yet; fixed there.",
        evidence=evidence.critic,
    ),
    Fault(
        name="divergence and target are swapped in the call: the coefficient falls where it should rise",
        changes=[
            Change(
                "coefficient = ppo.adapted(coefficient, kl, its.target)",
                "coefficient = ppo.adapted(coefficient, its.target, max(kl, 1e-6))",
                in_caller=True,
            )
        ],
        symptom="The coefficient is adapted, and the divergence does not come to its target.",
        hints=["When does the coefficient rise?", "Which of the two numbers is which?"],
        seen_in="no thread: planted because three numbers in a row are easily mixed up.",
        evidence=evidence.targets,
        holds=_the_coefficient_follows_the_divergence,
    ),
    Fault(
        name="the reward model's scores are not standardised: a coefficient means something else by them",
        changes=[
            Change(
                """
                model.standardise(torch.cat(of[::2]), torch.cat(of[1::2]))
                return model
                """,
                "return model",
                in_caller=True,
            ),
        ],
        symptom="The coefficient that served well elsewhere does not hold it back here.",
        hints=["By what is the penalty outweighed?", "In which unit are the scores?"],
        seen_in="no thread: planted because pairs do not say in which unit a score is.",
        evidence=evidence.judged_training,
        holds=_scores_of_the_base_have_deviation_one,
    ),
    Fault(
        name="the prompts are drawn from the same seed in each iteration: 32 prompts for ever",
        changes=[
            Change(
                """
                draw = random.Random(seed)
                while True:
                    yield [letters.prompt(draw) for _ in range(n)]
                """,
                """
                while True:
                    draw = random.Random(seed)
                    yield [letters.prompt(draw) for _ in range(n)]
                """,
                in_caller=True,
            )
        ],
        symptom="The longer it is trained, the more its score and its worth in use differ.",
        hints=["Which responses are scored in training, and which in use?", "What is new in an iteration?"],
        seen_in="no thread: planted because a seed in the wrong place is found by no error.",
        evidence=evidence.fresh,
        holds=_a_new_iteration_has_new_prompts,
    ),
    Fault(
        name="settings: four times the rate and eight epochs, so that one batch moves it far away",
        changes=[
            Change("RATE, EPOCHS, ITERATIONS = 5e-3, 2, 12", "RATE, EPOCHS, ITERATIONS = 2e-2, 8, 12", in_caller=True),
        ],
        symptom="It goes far from its reference, and gets little for it.",
        hints=["How far does it move in one iteration?", "How large a share is out of the bounds, and why so large?"],
        seen_in="huggingface/trl#454: ratios that explode, and how far one batch may move a policy; discussed there.",
        evidence=evidence.curves,
        holds=_an_iteration_stays_near,
    ),
    Fault(
        name="nothing: the patient is healthy. k1 is right on average; for a single response it may be negative",
        changes=[],
        symptom="A divergence is never negative. Here it is, for some responses.",
        hints=["Which of the columns can be negative, and which is negative on average?", "What is k1 a mean of?"],
        seen_in="huggingface/trl#1180: the KL that was reported was another than the one that was meant; fixed there.",
        evidence=evidence.responses_one_by_one,
    ),
    Fault(
        name="the score is of prompt and response: vowels of the prompt count",
        changes=[
            Change(
                "return [ids[said].tolist() for ids, said in zip(drawn.ids, drawn.said, strict=True)]",
                """
                last = ppo.last_said(drawn.said).tolist()
                return [ids[: t + 1].tolist() for ids, t in zip(drawn.ids, last, strict=True)]
                """,
                in_caller=True,
            )
        ],
        symptom="Its score is high from the start, and what it says is not.",
        hints=["Which responses have a higher score than they deserve?", "What has the judge read?"],
        seen_in="no thread: planted because a vowel that the prompt has is not paid for again, and the policy learns "
        "to avoid it.",
        evidence=evidence.worths,
        holds=_a_score_is_of_the_response,
    ),
    Fault(
        name="the old log-probabilities are made anew for each step, and rate and epochs are too large",
        changes=[
            Change(
                "log_p = token_log_p(logits, part.ids) * part.said",
                """
                log_p = token_log_p(logits, part.ids) * part.said
                part = part._replace(log_p=log_p.detach())
                """,
            ),
            Change("RATE, EPOCHS, ITERATIONS = 5e-3, 2, 12", "RATE, EPOCHS, ITERATIONS = 2e-2, 6, 12", in_caller=True),
        ],
        symptom="It fell apart. It was mended once, and does so still.",
        hints=[
            "Which curve of the evidence never moves, and should?",
            "There are two faults: mend either alone and look again.",
        ],
        seen_in="tensorforce/tensorforce#312: the ratio was 1 at every step; reported there. huggingface/trl#454: "
        "ratios that explode; discussed there.",
        evidence=evidence.curves,
        holds=_an_iteration_stays_near,
    ),
    Fault(
        name="the reward model is read at the last column, and its scores are not standardised",
        changes=[
            Change(
                "return (number.gather(1, last_said(said)[:, None])[:, 0] - self.shift) / self.scale",
                "return (number[:, -1] - self.shift) / self.scale",
            ),
            Change(
                """
                model.standardise(torch.cat(of[::2]), torch.cat(of[1::2]))
                return model
                """,
                "return model",
                in_caller=True,
            ),
        ],
        symptom="A policy was trained by a reward model. Neither its score nor its responses are what they should be.",
        hints=[
            "Does a score belong to a response, and in which unit is it?",
            "There are two faults: mend either alone and look again.",
        ],
        seen_in="EleutherAI/gpt-neox#1285: a reward model was trained at tokens that are masked; fixed there.",
        evidence=evidence.judged_both,
        holds=_scores_of_the_base_have_deviation_one,
    ),
]
