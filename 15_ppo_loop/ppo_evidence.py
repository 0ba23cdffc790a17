"""What is seen of lesson 15's patients, made by running them: the log of a training, responses, what tokens were worth.
No answers.

Each function takes a patient's helper and caller and returns Evidence. What a table calls "in truth" is measured by
`ppo_seen`, not by the patient.
"""

import ppo_seen as seen
import torch
from matplotlib.figure import Figure
from ppo_letters import END, LETTERS, base_model, words, worth
from ppo_tables import mean, row, short, six_responses, two, two_responses

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
    return Evidence("\n".join([*lines, *two_responses(helper)]), _figure(log))


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
    lines.append(row("token of the response", ["responses", "expected", "worth", "error"]))
    rows = list(range(len(drawn.ids)))
    first = [int(said.nonzero()[0]) for said in drawn.said]
    worths = [worth(ids[said].tolist()) for ids, said in zip(drawn.ids, drawn.said, strict=True)]
    for t in (0, 1, 2, 4, 6):
        of = [b for b in rows if int(drawn.said[b].sum()) > t]
        pairs = [(float(values[b, first[b] + t]), worths[b]) for b in of]
        error = mean((one - other) ** 2 for one, other in pairs) ** 0.5
        lines.append(row(t, [len(of), *two([mean(it[0] for it in pairs), mean(it[1] for it in pairs), error])]))
    return Evidence("\n".join([*lines, "", *two_responses(helper)]))


def penalties(helper, caller):
    """Trainings at several coefficients of the penalty in the reward."""
    lines = ["trainings at several coefficients of the penalty: at the end, by their log and in truth"]
    lines.append(row("coefficient", ["score", "KL", "k1", *TRUTH], 9))
    for coefficient in (0.0, 0.1, 0.3, 1.0):
        policy, log = caller.train(coefficient=coefficient)
        cells = [log[-1][name] for name in ("score", "kl", "k1")]
        lines.append(row(coefficient, two([*cells, *seen.truth(policy.lm)]), 9))
    return Evidence("\n".join([*lines, "", *_responses(policy)]))


def shifted(helper, caller):
    """Trainings in which every score is larger by the same number."""
    lines = ["trainings with lambda 1 and no penalty, a number being added to every score: means of the last 4"]
    lines.append("iterations, what the critic expects of new responses, and the truth, without the number")
    names = ("score", "value_loss", "gradient", "clipped")
    lines.append(row("added", ["score", "critic's", "gradient", "clipped", "expected", *TRUTH], 10))
    for more in (0, 2, 5, 10):
        policy, log = caller.train(lambda drawn, more=more: caller.judge(drawn) + more, coefficient=0.0, lam=1.0)
        cells = [mean(each[name] for each in log[-4:]) for name in names]
        drawn = caller.draw(policy.lm, seen.asked(64))
        with torch.no_grad():
            expected = policy(drawn.ids)[1][drawn.said].mean()
        lines.append(row(more, two([*cells, expected, *seen.truth(policy.lm)]), 10))
    return Evidence(
        "\n".join([*lines, "", "critic's: its loss. gradient: the length of the decoder's, before clipping"])
    )


def in_losses(helper, caller):
    """Trainings with the divergence in the loss, at several coefficients."""
    lines = ["trainings without a penalty in the reward, the divergence in the loss instead: at the end, and in truth"]
    lines.append(row("coefficient in the loss", ["score", "KL", "k1", *TRUTH], 9))
    for coefficient in (0.0, 0.1, 0.3, 1.0):
        policy, log = caller.train(coefficient=0.0, in_loss=coefficient)
        cells = [log[-1][name] for name in ("score", "kl", "k1")]
        lines.append(row(coefficient, two([*cells, *seen.truth(policy.lm)]), 9))
    return Evidence("\n".join(lines))


def epochs(helper, caller):
    """Trainings with several numbers of epochs."""
    lines = ["trainings with several numbers of epochs: means over their iterations, and at the end in truth"]
    names = ("clipped", "gradient")
    lines.append(row("epochs", ["KL an it.", "clipped", "gradient", *TRUTH], 10))
    for n in (1, 2, 4, 8):
        policy, log = caller.train(epochs=n, iterations=8, coefficient=0.0)
        cells = [log[-1]["kl"] / (len(log) - 1), *(mean(each[name] for each in log) for name in names)]
        lines.append(row(n, two([*cells, *seen.truth(policy.lm)]), 10))
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
    lines.append(row("prompt and response", ["worth", "alone", "1 more", "3 more", "6 more"], 9))
    for asked, said in SAID:
        ids, n = [LETTERS.index(it) for it in asked + said], len(asked)
        cells = [worth(ids[n:]), *(_score(model, ids, n, more) for more in (0, 1, 3, 6))]
        lines.append(row(f"{asked} > {said}", two(cells), 9))
    lines += ["", "how often the better one of two responses has the higher score, by how many tokens they have"]
    of = caller.pairs(300, seed=5)
    with torch.no_grad():
        right = model(*of[:2]) > model(*of[2:])
    lengths = torch.stack([of[1].sum(1), of[3].sum(1)]).amax(0)
    lines.append(row("the longer one of the two", ["pairs", "right"], 9))
    for low, high in ((1, 4), (5, 8), (9, 10)):
        which = (lengths >= low) & (lengths <= high)
        lines.append(row(f"{low} to {high}", [int(which.sum()), f"{float(right[which].float().mean()):.2f}"], 9))
    return Evidence("\n".join([*lines, "", *_spread(model, caller)]))


def judged_training(helper, caller):
    """A reward model, and trainings by it."""
    model = caller.reward_model()
    lines = [*_spread(model, caller), "", "trainings by these scores: at the end, by their log and in truth"]
    lines.append(row("coefficient", ["score", "KL", "critic's", *TRUTH], 9))
    for coefficient in (0.0, 0.1, 0.3):
        policy, log = caller.train(caller.by_model(model), coefficient=coefficient)
        cells = [log[-1][name] for name in ("score", "kl", "value_loss")]
        lines.append(row(coefficient, two([*cells, *seen.truth(policy.lm)]), 9))
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
        lines.append(row(f"{words(asked)} > {words(ids[said])}", [f"{float(score):.2f}"]))
    return Evidence("\n".join(lines))


def plainly(helper, caller):
    """A training by the policy gradient alone."""
    policy, log = caller.train_plainly(iterations=91)
    lines = ["a training by the policy gradient, a step for each batch"]
    steps = range(0, len(log), 15)
    lines.append(row("iteration", steps, 8))
    for name, words_of in (("score", "score"), ("value", "what the critic expects"), ("loss", "the policy's loss")):
        lines.append(row(words_of, two(log[i][name] for i in steps), 8))
    return Evidence("\n".join([*lines, "", *_became(policy), "", *_responses(policy)]))


def first_steps(helper, caller):
    """Trainings of one step for each batch."""
    lines = ["trainings with one epoch of one part, so that each batch is used for one step"]
    for rate in (caller.RATE / 4, caller.RATE):
        policy, log = caller.train(epochs=1, minibatches=1, rate=rate, coefficient=0.0)
        steps = range(0, len(log), 2)
        lines += ["", row(f"rate {rate:g}, iteration", steps)]
        lines.append(row("the policy's loss", [f"{log[i]['loss']:.5f}" for i in steps]))
        lines.append(row("share out of the bounds", two(log[i]["clipped"] for i in steps)))
        lines.append(row("gradient's length", two(log[i]["gradient"] for i in steps)))
        lines += [row("score", two(log[i]["score"] for i in steps)), *_became(policy)]
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
    lines.append(row("response", ["exact", "k1", "k2", "k3"]))
    for b in range(10):
        lines.append(row(words(drawn.ids[b][drawn.said[b]]), two(it[b] for it in columns)))
    lines.append(row("mean of 256 responses", two(it.mean() for it in columns)))
    lines.append(row("their deviation", two(it.std() for it in columns)))
    return Evidence("\n".join(lines))


def fresh(helper, caller):
    """Trainings with few prompts an iteration, and the same policies on other prompts."""
    lines = [
        "trainings with 4 prompts an iteration: the mean score of the last 5 iterations, and on new prompts in truth"
    ]
    lines.append(row("iterations", ["score", *TRUTH], 9))
    for n in (5, 20, 40, 80):
        policy, log = caller.train(iterations=n, coefficient=0.0, n=4)
        score = mean(each["score"] for each in log[-5:])
        lines.append(row(n, two([score, *seen.truth(policy.lm)]), 9))
    return Evidence("\n".join([*lines, "", *_responses(policy, 16)]))


def batches(helper, caller):
    """What the same responses are told to be worth in several batches."""
    torch.manual_seed(0)
    drawn = caller.draw(base_model(), [[2], [3, 4], [5], [1, 9, 6], [7, 8], [2, 2]])
    lines = ["six responses; then with a seventh one, of so many tokens, in the batch: what the six are told"]
    lines.append(row("the seventh", ["none", 1, 4, 8, 16]))
    found = [six_responses(helper, drawn, n) for n in (0, 1, 4, 8, 16)]
    for name in ("mean of the advantages", "their deviation", "largest of them", "what the critic should say"):
        lines.append(row(name, two(each[name] for each in found)))
    return Evidence("\n".join([*lines, "", *two_responses(helper)]))


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
    lines.append(row("worth", ["responses", "mean", "deviation"]))
    for name, which in [(f"{n}", worths_of == n) for n in (-1, 0, 1, 2)] + [("all", worths_of == worths_of)]:
        if which.sum() > 1:
            lines.append(row(name, [int(which.sum()), *two([scores[which].mean(), scores[which].std()])]))
    return lines


def _log(log, names=tuple(LOGGED)):
    """Six iterations of a training's log."""
    steps = sorted({round(i * (len(log) - 1) / 5) for i in range(6)})
    lines = ["a training, by its log", row("iteration", steps)]
    return lines + [row(LOGGED[name], [short(log[i][name]) for i in steps]) for name in names]


def _became(policy):
    """What a policy's responses to new prompts are in truth."""
    lines = ["responses to 256 new prompts, in truth", row("", ["worth", "KL", "tokens", "end"])]
    lines.append(row("the base", two(seen.truth(base_model()))))
    return [*lines, row("the policy", two(seen.truth(policy.lm)))]


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
        axis.plot([each[name] for each in log], color=WORKING, marker="o", markersize=3, label="by the log")
        if name == "kl":
            axis.plot([each["k1"] for each in log], color=CONTROL, linestyle="--", label="by k1")
            axis.legend(fontsize=7)
        if name in ("ratio_gap", "clipped"):
            axis.axhline(0, color=FLOOR, linestyle="--", linewidth=0.8)
            axis.set_ylim(-0.01, max(0.1, *(1.1 * each[name] for each in log)))  # rounding is not to be seen
        axis.set_title(LOGGED[name], fontsize=9)
        axis.set_xlabel("iteration", fontsize=8)
    return figure
