"""A program around instruct.py: a base model of `instruct_letters` is tuned to obey, whole or by LoRA, and is asked.

`conversations` are what is trained on. `tune` makes a model that obeys, `ask` lets it answer, `obedience` counts.
`gradients` reads a step in parts. `adapter` takes out what LoRA has learnt, `with_adapter` puts it into the base.
`prefer` trains by pairs of answers.
"""

import copy
import random

import instruct
import instruct_letters as letters
import torch
from instruct_letters import answer, questions

from shared.generation import generate, greedy
from shared.training import fit

TEMPLATE = instruct.Template(
    begin=[letters.BEGIN],
    opens={
        "system": [letters.START, letters.SYSTEM],
        "user": [letters.START, letters.USER],
        "assistant": [letters.START, letters.ASSISTANT],
    },
    closes={"system": [letters.END], "user": [letters.END], "assistant": [letters.END]},
    stop=letters.END,
    padding=letters.END,
)
STOP = letters.END  # an answer is over there
STEPS, TALKS, LEARNING_RATE = 100, 8, 1e-2
LONGEST, ROW = 32, 48  # tokens of a conversation, and of a row of several
RANK, ALPHA = 4, 16
BETA = 0.3


def talks(seed=0, n=TALKS, unanswered=0.0):
    """Endless lists of n conversations of one question or two. unanswered: the share of which the answer is missing."""
    draw = random.Random(seed)
    while True:
        of = [letters.talk(questions(draw, draw.choice((1, 2)))) for _ in range(n)]
        yield [messages[:1] if draw.random() < unanswered else messages for messages in of]


def conversations(messages):
    """Conversations as they are trained on. What is longer than LONGEST is cut."""
    rendered = [instruct.render(each, TEMPLATE) for each in messages]
    return [instruct.Conversation(ids[:LONGEST], its[:LONGEST]) for ids, its in rendered]


def new_model(rank=None):
    """The base, or the base with adapters."""
    model = letters.base_model()
    if rank is not None:
        instruct.add_lora(model, rank, ALPHA)
    return model


def tune(rank=None, seed=0, steps=STEPS, **which):
    """A tuned model, whole or by LoRA of a rank, and the loss of each step. which: as `talks` takes it."""
    model, drawn = new_model(rank), talks(seed, **which)
    batches = (instruct.pack(conversations(each), ROW, TEMPLATE) for each in drawn)
    return model, fit(model, lambda: next(batches), steps, LEARNING_RATE, loss=instruct.tuning_loss, label=None).loss


def prompt(messages):
    """What the model reads before it answers."""
    return instruct.render(messages, TEMPLATE, reply=True).ids


def ask(model, messages, most=10):
    """The model's answers to conversations that end with a question, each with its stop."""
    return generate(model, [prompt(each) for each in messages], most, rules=[greedy], stop=[STOP])


def obeys(written, question):
    """Whether the answer is what was asked for."""
    return written == [*answer(question), letters.END]


def obedience(model, n=64, seed=1):
    """The share of questions that are obeyed."""
    asked = questions(random.Random(seed), n)
    written = ask(model, [[("user", question)] for question in asked])
    return sum(map(obeys, written, asked)) / n


def gradients(model, messages, parts):
    """The gradient of one step for each parameter, its conversations being read in parts."""
    model.zero_grad()
    of = conversations(messages)
    size = len(of) // parts
    instruct.backward_in_parts(model, [instruct.pad(of[i : i + size], TEMPLATE) for i in range(0, len(of), size)])
    return [parameter.grad.clone() for parameter in model.parameters()]


def adapter(model):
    """What LoRA has learnt: A and B of each adapter."""
    return [(each.A.detach().clone(), each.B.detach().clone()) for each in instruct.adapters(model)]


def with_adapter(learnt):
    """The base, with what LoRA has learnt elsewhere."""
    model = new_model(len(learnt[0][0]))
    with torch.no_grad():
        for each, (A, B) in zip(instruct.adapters(model), learnt, strict=True):
            each.A.copy_(A)
            each.B.copy_(B)
    return model


def pairs(seed=0, n=TALKS):
    """Endless pairs of batches: questions with the right answers, and with others."""
    draw = random.Random(seed)
    while True:
        asked = questions(draw, n)
        right = [answer(question) for question in asked]
        wrong = [answer(other) for other in questions(draw, n)]
        yield [_said(asked, right), _said(asked, wrong)]


def _said(asked, answers):
    said = zip(asked, answers, strict=True)
    return instruct.pad(conversations([[("user", one), ("assistant", other)] for one, other in said]), TEMPLATE)


def log_probability(model, batch):
    """Of each answer of a batch, in nats."""
    return instruct.answer_log_probability(instruct.read(model, batch), batch.targets)


def prefer(model, seed=0, steps=30):
    """Train a model in place by pairs of answers. Returns the loss of each step."""
    reference, drawn = copy.deepcopy(model), pairs(seed)

    def loss(model, *parts):
        batches = instruct.Batch(*parts[:4]), instruct.Batch(*parts[4:])
        with torch.no_grad():
            before = [log_probability(reference, batch) for batch in batches]
        chosen, rejected = (log_probability(model, batch) for batch in batches)
        return instruct.preference_loss(chosen, rejected, *before, BETA)

    def both():
        chosen, rejected = next(drawn)
        return (*chosen, *rejected)

    return fit(model, both, steps, LEARNING_RATE / 10, loss=loss, label=None).loss


if __name__ == "__main__":
    print(f"the base obeys {obedience(new_model()):.0%}")
    for rank in (None, RANK):
        model, losses = tune(rank)
        print(f"rank {rank}: {losses[0]:.2f} nats at first, {losses[-1]:.2f} at last, obeys {obedience(model):.0%}")
