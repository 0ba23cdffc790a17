"""What is seen of lesson 14's patients, made by running them: answers, loss masks, P(stop), maps of who sees whom. No
answers.

Each function takes a patient's helper and caller and returns Evidence. What a table calls "right" is measured by
`instruct_seen`, not by the patient.
"""

import random

import instruct_seen as seen
import torch
from instruct_letters import ASSISTANT, END, START, SYSTEM, USER, answer, base_model, questions, talk, words
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from shared.clinic import Evidence
from shared.colors import FLOOR

LOOKS = (0, 10, 30, 60, -1)  # steps of which a table tells
EIGHT = [talk(asked) for asked in ([[12, 13]], [[9, 14], [12, 15]], [[11, 16]], [[10, 17]], [[9, 18]], [[12, 19]])]
EIGHT += [talk([[11, 20], [10, 13]]), talk([[9, 15]])]


def stops(helper, caller):
    """A training, answers, and the probability of the stop."""
    model, losses = caller.tune()
    lines = ["a training, all weights", *_losses(losses), "", *_answers(caller, model, 6), ""]
    lines.append("the mean probability of <end> after so many tokens of an answer that is right so far, or too long")
    lines.append(_row("tokens said", range(5), 9))
    for verb, name in seen.verbs():
        cells = [f"{seen.p_stop(model, verb, n):.3f}" for n in range(5)]
        lines.append(_row(f"{name}: has {len(answer([verb, 13]))}", cells, 9))
    return Evidence("\n".join(lines))


def masks(helper, caller):
    """What is asked of two conversations, and a training."""
    lines = ["two conversations: what is read, and what is asked for there"]
    for conversation in caller.conversations(EIGHT[:2]):
        inputs, targets = helper.inputs_and_targets(conversation)
        names = [words([token]) if token >= 0 else "." for token in targets]
        width = [max(len(words([one])), len(other)) + 1 for one, other in zip(inputs, names, strict=True)]
        lines.append("  " + "".join(f"{words([one]):>{n}}" for one, n in zip(inputs, width, strict=True)))
        lines += ["  " + "".join(f"{other:>{n}}" for other, n in zip(names, width, strict=True)), ""]
    model, losses = caller.tune()
    lines += ["a training, all weights", *_losses(losses), "", *_answers(caller, model, 6), ""]
    lines.append("how often the right token is the likeliest, by its position in the answer; the last is <end>")
    for verb, name in seen.verbs():
        lines.append(_row(name, _two(seen.right_letters(model, verb)), 9))
    return Evidence("\n".join(lines))


def asked(helper, caller):
    """A training, and what becomes of it in use."""
    model, losses = caller.tune()
    lines = ["a training, all weights", *_losses(losses), ""]
    lines.append("of 64 questions in the form of the training, how often the answer's first letter is the likeliest")
    lines.append(f"token: {seen.right_first(model):.2f}")
    lines += [f"obeyed in use: {caller.obedience(model):.2f}", "", *_answers(caller, model, 7)]
    return Evidence("\n".join(lines))


def counted(helper, caller):
    """Obedience during a training, and answers."""
    lines = ["trainings of several lengths, all weights", _row("steps", (20, 30, 40, 60, 100))]
    models = [caller.tune(steps=steps)[0] for steps in (20, 30, 40, 60, 100)]
    lines.append(_row("obedience", _two(map(caller.obedience, models))))
    of = seen.asked(10)
    for n, model in zip((20, 40), (models[0], models[2]), strict=True):
        lines += ["", f"after {n} steps: what is asked, the answer, whether it counts"]
        for question, written in zip(of, caller.ask(model, [[("user", each)] for each in of]), strict=True):
            counts = "yes" if caller.obeys(written, question) else "no"
            lines.append(f"  {words(question):<12}{words(written):<26}{counts}")
    return Evidence("\n".join(lines))


def started(helper, caller):
    """The base, and the base with adapters, before their first step and after some."""
    model = base_model()
    lines = ["nats a token on the base's own texts; how often it gets an answer's first letter right in conversations"]
    lines.append(_row("", ["texts", "letters"]))
    lines.append(_row("the base", _two([seen.text_nats(model), seen.right_first(model)])))
    for rank in (2, 4, 8, 16):
        cells = []
        for steps in (0, 100):
            model = caller.tune(rank, steps=steps)[0] if steps else caller.new_model(rank)
            cells += _two([seen.text_nats(model), seen.right_first(model)])
        lines.append(_row(f"rank {rank}: at first", cells[:2]))
        lines.append(_row("  after 100 steps", cells[2:]))
    return Evidence("\n".join(lines))


def ranks(helper, caller):
    """Trainings by LoRA at several ranks: how far the first step goes, the losses, obedience."""
    lines = [
        f"trainings by LoRA, alpha {caller.ALPHA}, the same learning rate; by how much a logit moves in the first step"
    ]
    lines.append(_row("rank", ["1st step", "loss, 20th", "60th", "last", "obedience"], 12))
    of = torch.tensor([seen.prompt(each) for each in seen.asked(32)])
    for rank in (1, 2, 4, 16, 64):
        model, losses = caller.tune(rank)
        moved = (caller.tune(rank, steps=1)[0](of) - base_model()(of)).detach().abs().mean()
        cells = [moved, losses[19], losses[59], sum(losses[-5:]) / 5, caller.obedience(model)]
        lines.append(_row(rank, _two(cells), 12))
    return Evidence("\n".join(lines))


def carried(helper, caller):
    """What LoRA has learnt, taken out and put into the base again."""
    lines = ["trainings by LoRA: the model that was trained, and the base with its A and B put in"]
    lines.append(_row("rank", ["numbers", "obedience", "put in", "nats", "put in"]))
    for rank in (1, 2, 4):
        model, _ = caller.tune(rank)
        learnt = caller.adapter(model)
        both = model, caller.with_adapter(learnt)
        n = sum(A.numel() + B.numel() for A, B in learnt)
        lines.append(_row(rank, [n, *_two([*map(caller.obedience, both), *(-seen.margins(it)[0] for it in both)])]))
    return Evidence("\n".join([*lines, "", "nats: of a right answer and its stop, on average"]))


def learnt(helper, caller):
    """The norms of A and B while they are trained, and their gradients."""
    lines = [f"a training by LoRA of rank {caller.RANK}: norms of all A and all B, and of the gradients of a step"]
    lines.append(_row("steps taken", ["loss", "A", "B", "grad. of A", "of B"], 12))
    for steps in (0, 1, 2, 10, 100):
        model = caller.tune(caller.RANK, steps=steps)[0] if steps else caller.new_model(caller.RANK)
        model.zero_grad()
        batch = helper.pack(caller.conversations(EIGHT), caller.ROW, caller.TEMPLATE)
        loss = helper.tuning_loss(model, *batch)
        loss.backward()
        found = [loss.detach()]
        for of in ("data", "grad"):
            found += [_length(getattr(getattr(each, name), of) for each in helper.adapters(model)) for name in "AB"]
        lines.append(_row(steps, [f"{it:.4f}" for it in found], 12))
    return Evidence("\n".join(lines))


def parts(helper, caller):
    """The gradient of one step, read in parts."""
    model = caller.new_model()
    counts = [sum(len(answer(words)) + 1 for role, words in messages if role == "user") for messages in EIGHT]
    lines = [f"one step: 8 conversations, whose answers have {', '.join(map(str, counts))} tokens; read in n parts"]
    lines.append(_row("n", (1, 2, 4, 8)))
    found = [torch.cat([it.flatten() for it in caller.gradients(model, EIGHT, n)]) for n in (1, 2, 4, 8)]
    lines.append(_row("length of the gradient", [f"{it.norm():.4f}" for it in found]))
    gaps = [(it - found[0]).norm() / found[0].norm() for it in found]
    lines.append(_row("  its distance from n = 1", [f"{100 * it:.1f} %" for it in gaps]))
    return Evidence("\n".join(lines))


def packed(helper, caller):
    """A conversation alone, and behind others in a row."""
    model, _ = caller.tune()
    of, two = [12, 17], [[[11, 13], [9, 20], [10, 15]], [[9, 16], [12, 18], [11, 14]]]
    lines = [f"a model after a training: nats of the answer to {words(of)!r}, and its stop, in a row behind others"]
    lines.append(_row("conversations before it", (0, 1, 2, 3)))
    for others in two:
        cells = [_behind(helper, caller, model, [*others[:n], of]) for n in range(4)]
        lines.append(_row(", ".join(map(words, others)), [f"{it:.3f}" for it in cells]))
    batch = helper.pack(caller.conversations([talk([two[0][0]]), talk([of])]), 28, caller.TEMPLATE)
    figure = Figure(figsize=(6.4, 6.0), layout="constrained")
    _map(figure.subplots(), seen.reach(lambda: helper.read(model, batch), model, batch.inputs), batch)
    return Evidence("\n".join(lines), figure)


@torch.no_grad()
def _behind(helper, caller, model, row):
    """Nats of the answer to the last of a row's questions."""
    batch = helper.pack(caller.conversations([talk([each]) for each in row]), 48, caller.TEMPLATE)
    here = batch.documents[0] == len(row) - 1
    logits = helper.read(model, batch)[:, here]
    return float(-helper.answer_log_probability(logits, batch.targets[:, here])[0])


def merged(helper, caller):
    """A model tuned by LoRA, merged and taken apart."""
    lines = ["trainings by LoRA: obedience, as the adapters are merged and taken apart, one after the other"]
    steps = ["trained", "merge", "merge", "unmerge"]
    lines.append(_row("rank, alpha", steps))
    for rank, alpha in ((16, 16), (4, 4), (4, 16), (2, 16)):
        caller.ALPHA = alpha
        model, _ = caller.tune(rank)
        cells = [caller.obedience(model)]
        for name in steps[1:]:
            for each in helper.adapters(model):
                getattr(each, name)()
            cells.append(caller.obedience(model))
        lines.append(_row(f"{rank}, {alpha}", _two(cells)))
    return Evidence("\n".join(lines))


def drift(helper, caller):
    """The base's weights after adapters were merged and taken apart again and again."""
    lines = [
        "eight adapters take turns in one model: put in, merged, unmerged; n times in all. Then the distance of the"
    ]
    lines += ["base's weights from what they were, in % of their size, and nats a token on the base's own texts"]
    lines.append(_row("n", (0, 1, 10, 100, 1000)))
    turns = [caller.adapter(caller.tune(caller.RANK, seed=seed, steps=20)[0]) for seed in range(8)]
    for dtype in (torch.float32, torch.bfloat16):
        model = caller.new_model(caller.RANK).to(dtype)
        layers = list(helper.adapters(model))
        start, cells = torch.cat([each.linear.weight.flatten().clone() for each in layers]), []
        for n in (0, 1, 9, 90, 900):  # so many more
            for turn in range(n):
                _put_in_and_out(layers, turns[turn % 8])
            now = torch.cat([each.linear.weight.flatten() for each in layers])
            cells.append((float(100 * (now - start).norm() / start.norm()), seen.text_nats(model)))
        for name, column in zip(("distance", "nats"), zip(*cells, strict=True), strict=True):
            lines.append(_row(f"{str(dtype)[6:]}: {name}", [f"{it:.3f}" for it in column]))
    return Evidence("\n".join(lines))


@torch.no_grad()
def _put_in_and_out(layers, learnt):
    for each, (A, B) in zip(layers, learnt, strict=True):
        each.A.copy_(A)
        each.B.copy_(B)
        each.merge()
        each.unmerge()
        each.B.zero_()


def rare(helper, caller):
    """Trainings with few conversations a step, some of which are not answered."""
    lines = ["trainings of 100 steps, all weights; in one conversation of ten the user left before the answer"]
    lines.append(_row("conversations a step", ["steps taken", "last loss"], 14))
    for n in (1, 2, 4, 8):
        _, losses = caller.tune(n=n, unanswered=0.1)
        lines.append(_row(n, [len(losses), f"{losses[-1]:.2f}"], 14))
    return Evidence("\n".join(lines))


def preferred(helper, caller):
    """A training, then one by pairs of answers."""
    lines = ["a training, then one by pairs: the right answer is preferred to the answer to another question"]
    model, _ = caller.tune()
    before = [*seen.margins(model), caller.obedience(model)]
    losses = caller.prefer(model, steps=61)
    lines.append(_row("step of the second", (0, 15, 30, 45, 60)))
    lines += [_row("loss", _three(losses[at] for at in (0, 15, 30, 45, 60))), ""]
    lines.append(_row("mean log-probability of", ["right", "other", "obedience"]))
    lines.append(_row("before the second", _three(before)))
    lines.append(_row("after it", _three([*seen.margins(model), caller.obedience(model)])))
    return Evidence("\n".join(lines))


def two_programs(helper, caller):
    """The same, and another program's loss by the same helper."""
    lines = [
        preferred(helper, caller).text,
        "",
        "another program, with the same helper, has these four log-probabilities",
    ]
    lines.append(_row("", ["right", "other", "ref.'s right", "ref.'s other", "its loss"], 13))
    for numbers in (
        (-2.0, -5.0, -2.0, -5.0),
        (-1.0, -6.0, -2.0, -5.0),
        (-0.1, -9.0, -2.0, -5.0),
        (-3.0, -4.0, -2.0, -5.0),
    ):
        told = helper.preference_loss(*(torch.tensor([it]) for it in numbers), 0.5)
        lines.append(_row("", [*numbers, f"{float(told):.3f}"], 13))
    return Evidence("\n".join(lines))


def typed(helper, caller):
    """What users typed, and what came of it."""
    model, _ = caller.tune()
    lines = ["a training; what a user typed, and what the program did"]
    for said in (
        [12, 15],
        [12, 15, END],
        [START, USER, 12, 15],
        [12, 15, START, ASSISTANT, 20],
        [START, SYSTEM, 9, 20],
    ):
        try:
            done = words(caller.ask(model, [[("user", said)]])[0])
        except ValueError as error:
            done = f"{str(error)[:70]} ..."
        lines.append(f"  {words(said):<36}{done}")
    return Evidence("\n".join(lines))


def half(helper, caller):
    """The loss of some batches in two precisions."""
    drawn, found = caller.talks(seen.NEW, n=16), []
    lines = ["the base; the loss of six batches of 16 conversations: logits in float32, and the same made bfloat16"]
    for _ in range(6):
        batch = helper.pad(caller.conversations(next(drawn)), caller.TEMPLATE)
        with torch.no_grad():
            logits = helper.read(base_model(), batch)
        found.append([helper.answer_loss(it, batch.targets) for it in (logits, logits.bfloat16())])
    for name, column in zip(("float32", "bfloat16"), zip(*found, strict=True), strict=True):
        lines.append(_row(name, [f"{float(it):.5f}" for it in column]))
    return Evidence("\n".join(lines))


def _map(axis, found, batch):
    """Which token's answer depends on which, in one row of a batch."""
    n = int((batch.documents[0] >= 0).sum())
    said = words(batch.inputs[0, :n]).split()
    axis.imshow(found[:n, :n].numpy(), cmap=ListedColormap(["white", FLOOR]), alpha=0.6)
    axis.set_xticks(range(n), said, rotation=90, fontsize=7)
    axis.set_yticks(range(n), said, fontsize=7)
    axis.set(title="grey: what is said after the row's token depends on the column's", xlabel="is read", ylabel="says")


def _answers(caller, model, n):
    """Conversations, and how the model answers them."""
    asked = [[("user", each)] for each in questions(random.Random(seen.NEW), n - 1)]
    asked.append([*talk([[10, 16]]), ("user", [12, 14])])
    lines = ["what is asked, and the answer"]
    for messages, written in zip(asked, caller.ask(model, asked), strict=True):
        said = ", then ".join(words(said) for role, said in messages if role == "user")
        lines.append(f"  {said:<24}{words(written)}")
    return lines


def _length(tensors):
    return sum(float((it**2).sum()) for it in tensors if it is not None) ** 0.5


def _losses(losses):
    steps = [range(len(losses))[at] for at in LOOKS]
    return [_row("step", steps), _row("loss of the step", _two(losses[at] for at in steps))]


def _two(cells):
    return [f"{it:.2f}" for it in cells]


def _three(cells):
    return [f"{it:.3f}" for it in cells]


def _row(name, cells, width=10):
    return f"{name!s:<28}" + "".join(f"{cell!s:>{width}}" for cell in cells)
