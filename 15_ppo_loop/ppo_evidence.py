"""What is seen of lesson 15's patients, made by running them: the log of a training, responses, what tokens were worth.
No answers.

Each function takes a patient's helper and caller and returns Evidence. What a table calls "in truth" is measured by
`ppo_seen`, not by the patient.
"""

import ppo_seen as seen
import torch
from matplotlib.figure import Figure
from ppo_letters import END, LETTERS, base_model, words, worth

from shared.clinic import Evidence
from shared.colors import CONTROL, FLOOR, WORKING

LOGGED = {
    "score": "score",
    "kl": "KL, nats a response",
    "k1": "the same by k1",
    "length": "tokens a response",
    "coefficient": "coefficient",
    "ratio_gap": "largest |ratio - 1| before",
    "clipped": "share out of the bounds",
    "value_loss": "critic's loss",
    "gradient": "gradient's length",
}
TRUTH = ["worth", "KL", "tokens", "end"]


def curves(helper, caller):
    """A training: its log, what became of it, and responses."""
    policy, log = caller.train()
    return Evidence("\n".join([*_log(log), "", *_became(policy), "", *_responses(policy)]), _figure(log))


def longer(helper, caller):
    """The same, and what is seen of responses that end and of those that do not."""
    policy, log = caller.train()
    lines = [*_log(log, ("score", "kl", "length", "value_loss")), "", *_became(policy), "", *_responses(policy), ""]
    return Evidence("\n".join([*lines, *_tokens(helper, caller)]), _figure(log))


def critic(helper, caller):
    """A training, and the critic beside what came of the responses."""
    policy, log = caller.train(coefficient=0.0, iterations=20)
    lines = [*_log(log, ("score", "value_loss", "kl")), "", *_became(policy), ""]
    drawn = caller.draw(policy.lm, seen.asked(64))
    with torch.no_grad():
        values = policy(drawn.ids)[1]
    lines.append(
        "64 responses of the policy: what the critic expects before a token, and what they were worth in truth"
    )
    lines.append(_row("token of the response", ["responses", "expected", "worth", "error"]))
    rows = list(range(len(drawn.ids)))
    first = [int(said.nonzero()[0]) for said in drawn.said]
    worths = [worth(ids[said].tolist()) for ids, said in zip(drawn.ids, drawn.said, strict=True)]
    for t in (0, 1, 2, 4, 6):
        of = [b for b in rows if int(drawn.said[b].sum()) > t]
        pairs = [(float(values[b, first[b] + t]), worths[b]) for b in of]
        error = _mean((one - other) ** 2 for one, other in pairs) ** 0.5
        lines.append(_row(t, [len(of), *_two([_mean(it[0] for it in pairs), _mean(it[1] for it in pairs), error])]))
    return Evidence("\n".join([*lines, "", *_tokens(helper, caller)]))


def penalties(helper, caller):
    """Trainings at several coefficients of the penalty in the reward."""
    lines = ["trainings at several coefficients of the penalty: at the end, by their log and in truth"]
    lines.append(_row("coefficient", ["score", "KL", "k1", *TRUTH], 9))
    for coefficient in (0.0, 0.1, 0.3, 1.0):
        policy, log = caller.train(coefficient=coefficient)
        cells = [log[-1][name] for name in ("score", "kl", "k1")]
        lines.append(_row(coefficient, _two([*cells, *seen.truth(policy.lm)]), 9))
    return Evidence("\n".join([*lines, "", *_responses(policy)]))


def shifted(helper, caller):
    """Trainings in which every score is larger by the same number."""
    lines = ["trainings with lambda 1 and no penalty, a number being added to every score: means of the last 4"]
    lines.append("iterations, what the critic expects of new responses, and the truth, without the number")
    names = ("score", "value_loss", "gradient", "clipped")
    lines.append(_row("added", ["score", "critic's", "gradient", "clipped", "expected", *TRUTH], 10))
    for more in (0, 2, 5, 10):
        policy, log = caller.train(lambda drawn, more=more: caller.judge(drawn) + more, coefficient=0.0, lam=1.0)
        cells = [_mean(row[name] for row in log[-4:]) for name in names]
        drawn = caller.draw(policy.lm, seen.asked(64))
        with torch.no_grad():
            expected = policy(drawn.ids)[1][drawn.said].mean()
        lines.append(_row(more, _two([*cells, expected, *seen.truth(policy.lm)]), 10))
    return Evidence(
        "\n".join([*lines, "", "critic's: its loss. gradient: the length of the decoder's, before clipping"])
    )


def in_losses(helper, caller):
    """Trainings with the divergence in the loss, at several coefficients."""
    lines = ["trainings without a penalty in the reward, the divergence in the loss instead: at the end, and in truth"]
    lines.append(_row("coefficient in the loss", ["score", "KL", "k1", *TRUTH], 9))
    for coefficient in (0.0, 0.1, 0.3, 1.0):
        policy, log = caller.train(coefficient=0.0, in_loss=coefficient)
        cells = [log[-1][name] for name in ("score", "kl", "k1")]
        lines.append(_row(coefficient, _two([*cells, *seen.truth(policy.lm)]), 9))
    return Evidence("\n".join(lines))


def epochs(helper, caller):
    """Trainings with several numbers of epochs."""
    lines = ["trainings with several numbers of epochs: means over their iterations, and at the end in truth"]
    names = ("clipped", "gradient")
    lines.append(_row("epochs", ["KL an it.", "clipped", "gradient", *TRUTH], 10))
    for n in (1, 2, 4, 8):
        policy, log = caller.train(epochs=n, iterations=8, coefficient=0.0)
        cells = [log[-1]["kl"] / (len(log) - 1), *(_mean(row[name] for row in log) for name in names)]
        lines.append(_row(n, _two([*cells, *seen.truth(policy.lm)]), 10))
    _, log = caller.train(epochs=4, coefficient=0.0)
    lines += ["", "4 epochs", *_log(log, ("score", "kl", "ratio_gap", "clipped", "value_loss"))[1:]]
    return Evidence("\n".join(lines), _figure(log))


def targets(helper, caller):
    """Trainings whose coefficient is adapted."""
    lines = [f"trainings whose coefficient is adapted to a KL of {caller.TARGET} nats a response"]
    for start in (0.05, 0.5):
        policy, log = caller.train(coefficient=start, target=caller.TARGET, iterations=20)
        lines += ["", f"from {start}", *_log(log, ("coefficient", "kl", "score"))[1:], *_became(policy)]
    return Evidence("\n".join(lines), _figure(log))


def judged(helper, caller):
    """A reward model, asked for scores."""
    model = caller.reward_model()
    lines = ["a reward model: scores of responses, by themselves and with padding behind them"]
    lines.append(_row("prompt and response", ["worth", "alone", "1 more", "3 more", "6 more"], 9))
    for asked, said in SAID:
        ids, n = [LETTERS.index(it) for it in asked + said], len(asked)
        cells = [worth(ids[n:]), *(_score(model, ids, n, more) for more in (0, 1, 3, 6))]
        lines.append(_row(f"{asked} > {said}", _two(cells), 9))
    lines += ["", "how often the better one of two responses has the higher score, by how many tokens they have"]
    of = caller.pairs(300, seed=5)
    with torch.no_grad():
        right = model(*of[:2]) > model(*of[2:])
    lengths = torch.stack([of[1].sum(1), of[3].sum(1)]).amax(0)
    lines.append(_row("the longer one of the two", ["pairs", "right"], 9))
    for low, high in ((1, 4), (5, 8), (9, 10)):
        which = (lengths >= low) & (lengths <= high)
        lines.append(_row(f"{low} to {high}", [int(which.sum()), f"{float(right[which].float().mean()):.2f}"], 9))
    return Evidence("\n".join([*lines, "", *_spread(model, caller)]))


def judged_training(helper, caller):
    """A reward model, and trainings by it."""
    model = caller.reward_model()
    lines = [*_spread(model, caller), "", "trainings by these scores: at the end, by their log and in truth"]
    lines.append(_row("coefficient", ["score", "KL", "critic's", *TRUTH], 9))
    for coefficient in (0.0, 0.1, 0.3):
        policy, log = caller.train(caller.by_model(model), coefficient=coefficient)
        cells = [log[-1][name] for name in ("score", "kl", "value_loss")]
        lines.append(_row(coefficient, _two([*cells, *seen.truth(policy.lm)]), 9))
    return Evidence("\n".join([*lines, "", *_responses(policy)]))


def judged_both(helper, caller):
    """A reward model's scores, and trainings by it."""
    return Evidence("\n\n".join([judged(helper, caller).text, judged_training(helper, caller).text]))


def worths(helper, caller):
    """A training, and the scores of responses."""
    policy, log = caller.train()
    prompts = seen.asked(10)
    drawn = caller.draw(policy.lm, prompts)
    lines = [*_log(log, ("score", "kl", "length")), "", *_became(policy), "", "prompts, responses and their scores"]
    for asked, score, said, ids in zip(prompts, caller.judge(drawn), drawn.said, drawn.ids, strict=True):
        lines.append(_row(f"{words(asked)} > {words(ids[said])}", [f"{float(score):.2f}"]))
    return Evidence("\n".join(lines))


def plainly(helper, caller):
    """A training by the policy gradient alone."""
    policy, log = caller.train_plainly(iterations=91)
    lines = ["a training by the policy gradient, a step for each batch"]
    steps = range(0, len(log), 15)
    lines.append(_row("iteration", steps, 8))
    for name, words_of in (("score", "score"), ("value", "what the critic expects"), ("loss", "the policy's loss")):
        lines.append(_row(words_of, _two(log[i][name] for i in steps), 8))
    return Evidence("\n".join([*lines, "", *_became(policy), "", *_responses(policy)]))


def first_steps(helper, caller):
    """Trainings of one step for each batch."""
    lines = ["trainings with one epoch of one part, so that each batch is used for one step"]
    for rate in (caller.RATE / 4, caller.RATE):
        policy, log = caller.train(epochs=1, minibatches=1, rate=rate, coefficient=0.0)
        steps = range(0, len(log), 2)
        lines += ["", _row(f"rate {rate:g}, iteration", steps)]
        lines.append(_row("the policy's loss", [f"{log[i]['loss']:.5f}" for i in steps]))
        lines.append(_row("share out of the bounds", _two(log[i]["clipped"] for i in steps)))
        lines.append(_row("gradient's length", _two(log[i]["gradient"] for i in steps)))
        lines += [_row("score", _two(log[i]["score"] for i in steps)), *_became(policy)]
    return Evidence("\n".join(lines))


def responses_one_by_one(helper, caller):
    """The estimates of the divergence for single responses."""
    policy, _ = caller.train(iterations=3)
    drawn, reference = caller.draw(policy.lm, seen.asked(256)), base_model()
    with torch.no_grad():
        logits = policy.lm(drawn.ids), reference(drawn.ids)
    exact = (helper.exact_kl(*logits) * drawn.said).sum(1)
    estimates = helper.kl_estimates(drawn.log_p, helper.token_log_p(logits[1], drawn.ids) * drawn.said)
    columns = [exact, *((it * drawn.said).sum(1) for it in estimates)]
    lines = ["responses of a policy, and estimates of its divergence from the base, in nats"]
    lines.append(_row("response", ["exact", "k1", "k2", "k3"]))
    for b in range(10):
        lines.append(_row(words(drawn.ids[b][drawn.said[b]]), _two(it[b] for it in columns)))
    lines.append(_row("mean of 256 responses", _two(it.mean() for it in columns)))
    lines.append(_row("their deviation", _two(it.std() for it in columns)))
    return Evidence("\n".join(lines))


def fresh(helper, caller):
    """Trainings with few prompts an iteration, and the same policies on other prompts."""
    lines = [
        "trainings with 4 prompts an iteration: the mean score of the last 5 iterations, and on new prompts in truth"
    ]
    lines.append(_row("iterations", ["score", *TRUTH], 9))
    for n in (5, 20, 40, 80):
        policy, log = caller.train(iterations=n, coefficient=0.0, n=4)
        score = _mean(row["score"] for row in log[-5:])
        lines.append(_row(n, _two([score, *seen.truth(policy.lm)]), 9))
    return Evidence("\n".join([*lines, "", *_responses(policy, 16)]))


def batches(helper, caller):
    """What the same responses are told to be worth in several batches."""
    torch.manual_seed(0)
    drawn = caller.draw(base_model(), [[2], [3, 4], [5], [1, 9, 6], [7, 8], [2, 2]])
    lines = ["six responses; then with a seventh one, of so many tokens, in the batch: what the six are told"]
    lines.append(_row("the seventh", ["none", 1, 4, 8, 16]))
    found = [_told(helper, drawn, n) for n in (0, 1, 4, 8, 16)]
    for name in ("mean of the advantages", "their deviation", "largest of them", "what the critic should say"):
        lines.append(_row(name, _two(each[name] for each in found)))
    return Evidence("\n".join([*lines, "", *_tokens(helper, caller)]))


def _told(helper, drawn, n):
    """Advantages and targets of six responses beside one of n tokens, whose rewards are near the mean."""
    ids, said, log_p = drawn
    if n:
        wide = max(ids.shape[1], n + 1)
        ids, said, log_p = (torch.nn.functional.pad(it, (0, wide - it.shape[1])) for it in (ids, said, log_p))
        more = torch.tensor([[END] * wide]), (torch.arange(wide) - 1 < n)[None], torch.full((1, wide), -1.5)
        more[1][0, 0] = False
        ids, said = torch.cat([ids, more[0]]), torch.cat([said, more[1]])
        log_p = torch.cat([log_p, more[2] * more[1]])
    scores = torch.tensor([2.0, 0.0, 1.0, 3.0, -1.0, 1.0, 1.0][: len(ids)])
    values = torch.linspace(0.5, 1.0, ids.shape[1]).expand(ids.shape) * 1.0
    worth_of = helper.by_gae(helper.Rollout(ids, said, log_p), scores, log_p, values, 0.1, helper.Settings())
    advantages, returns = (it[:6][said[:6]] for it in worth_of)
    means = {"mean of the advantages": advantages.mean(), "their deviation": advantages.std(correction=0)}
    means["largest of them"] = advantages.abs().max()
    return means | {"what the critic should say": returns.mean()}


def _tokens(helper, caller):
    """What the tokens of two responses are told: the same values and scores for every patient."""
    ids = torch.tensor([[2, 3, 4, 1, 10, END, END, END, END], [7, 1, 5, 9, 8, 2, 6, 4, 3]])
    said = torch.tensor([[0, 1, 1, 1, 1, 1, 0, 0, 0], [0, 0, 1, 1, 1, 1, 1, 1, 1]], dtype=torch.bool)
    log_p = torch.tensor([[0.0, 1, 2, 1.5, 1, 0.5, 0, 0, 0], [0, 0, 2, 1, 1.5, 2, 2, 1, 2]]) * -said.float()
    reference = log_p - torch.tensor([0.0, 0.1, 0.4, -0.2, 0.3, 0.1, 0.2, 0.0, 0.4]) * said
    values = torch.tensor(
        [[0.4, 0.5, 0.6, 0.9, 0.8, 1.1, 0.7, 0.7, 0.7], [0.2, 0.2, 0.3, 0.5, 0.6, 0.6, 0.5, 0.4, 0.2]]
    )
    drawn, scores = helper.Rollout(ids, said, log_p), torch.tensor([2.0, -1.0])
    rewards = helper.token_rewards(scores, log_p, reference, said, 0.5)
    advantages = helper.gae(rewards, values, said, 1.0, 0.95)
    returns = helper.by_gae(drawn, scores, reference, values, 0.5, helper.Settings())[1]
    lines = ["two responses, of scores 2 and -1, to prompts of 1 token and 2; coefficient 0.5, gamma 1, lambda 0.95"]
    for b in range(2):
        lines.append(_row("token", [LETTERS[i] for i in ids[b]], 8))
        k1 = log_p - reference
        for name, of in (("log p - reference log p", k1), ("reward", rewards), ("value", values)):
            lines.append(_row(f"  {name}", _two(of[b]), 8))
        for name, of in (("advantage", advantages), ("what the critic should say", returns)):
            lines.append(_row(f"  {name}", _two(of[b]), 8))
    return lines


SAID = [("b", "cd."), ("b", "aei."), ("jf", "bcdfgh."), ("jf", "abcdefghij"), ("c", "a."), ("dd", "."), ("h", "ei.")]


@torch.no_grad()
def _score(model, ids, n, more):
    said = [False] * n + [True] * (len(ids) - n) + [False] * more
    return float(model(torch.tensor([ids + [END] * more]), torch.tensor([said])))


def _spread(model, caller):
    """How a reward model's scores lie."""
    drawn = caller.draw(base_model(), seen.asked(256))
    with torch.no_grad():
        scores = model(drawn.ids, drawn.said)
    lines = ["scores of 256 responses of the base to new prompts, by what they are worth in truth"]
    worths_of = torch.tensor([worth(ids[said].tolist()) for ids, said in zip(drawn.ids, drawn.said, strict=True)])
    lines.append(_row("worth", ["responses", "mean", "deviation"]))
    for name, which in [(f"{n}", worths_of == n) for n in (-1, 0, 1, 2)] + [("all", worths_of == worths_of)]:
        if which.sum() > 1:
            lines.append(_row(name, [int(which.sum()), *_two([scores[which].mean(), scores[which].std()])]))
    return lines


def _log(log, names=tuple(LOGGED)):
    """Six iterations of a training's log."""
    steps = sorted({round(i * (len(log) - 1) / 5) for i in range(6)})
    lines = ["a training, by its log", _row("iteration", steps)]
    return lines + [_row(LOGGED[name], [_short(log[i][name]) for i in steps]) for name in names]


def _became(policy):
    """What a policy's responses to new prompts are in truth."""
    lines = ["responses to 256 new prompts, in truth", _row("", ["worth", "KL", "tokens", "end"])]
    lines.append(_row("the base", _two(seen.truth(base_model()))))
    return [*lines, _row("the policy", _two(seen.truth(policy.lm)))]


def _responses(policy, n=8):
    """A few, before and after."""
    prompts = seen.asked(n)
    both = [seen.said(lm, prompts) for lm in (base_model(), policy.lm)]
    lines = ["prompt, what the base says, what the policy says (of several, the last one)"]
    return lines + [
        f"  {words(it):<6}{words(one):<14}{words(other)}" for it, one, other in zip(prompts, *both, strict=True)
    ]


def _figure(log):
    """Four curves of a training's log."""
    figure = Figure(figsize=(7.2, 4.4), layout="constrained")
    axes = figure.subplots(2, 2)
    for axis, name in zip(axes.flat, ("score", "kl", "ratio_gap", "clipped"), strict=True):
        axis.plot([row[name] for row in log], color=WORKING, marker="o", markersize=3, label="by the log")
        if name == "kl":
            axis.plot([row["k1"] for row in log], color=CONTROL, linestyle="--", label="by k1")
            axis.legend(fontsize=7)
        if name in ("ratio_gap", "clipped"):
            axis.axhline(0, color=FLOOR, linestyle="--", linewidth=0.8)
            axis.set_ylim(-0.01, max(0.1, *(1.1 * row[name] for row in log)))  # rounding is not to be seen
        axis.set_title(LOGGED[name], fontsize=9)
        axis.set_xlabel("iteration", fontsize=8)
    return figure


def _short(number):
    return f"{number:.1e}" if 0 < abs(number) < 1e-3 else f"{number:.2f}"


def _mean(numbers):
    numbers = list(numbers)
    return sum(numbers) / len(numbers) if numbers else float("nan")


def _two(cells):
    return [f"{it:.2f}" for it in cells]


def _row(name, cells, width=10):
    return f"{name!s:<28}" + "".join(f"{cell!s:>{width}}" for cell in cells)
