"""Measures of lesson 14's patients that ask nothing of their helper and caller: what is measured here is what is true.

A conversation in the form that a model should have been trained on is written here by hand.
"""

import random
from contextlib import contextmanager

import torch
from instruct_letters import ASSISTANT, BEGIN, END, START, USER, VERBS, answer, lines, questions
from torch.nn import functional as F

from shared.hooks import hooked

NEW = 999  # the seed of what no patient has read


def asked(n=64):
    """Questions at random, (n, 2)."""
    return questions(random.Random(NEW), n)


def prompt(question):
    """A question in the form of the template, and the assistant's turn opened."""
    return [BEGIN, START, USER, *question, END, START, ASSISTANT]


def after(model, question, said):
    """The probabilities of all tokens after an answer has begun with these."""
    with torch.no_grad():
        return model(torch.tensor([[*prompt(question), *said]]))[0, -1].softmax(-1)


def p_stop(model, verb, length):
    """The mean probability of the stop where the assistant has said so many tokens of a verb's answers."""
    of = [question for question in asked(128) if question[0] == verb]
    of = {tuple(question): (answer(question) * 4)[:length] for question in of}
    return sum(float(after(model, list(question), said)[END]) for question, said in of.items()) / len(of)


def right_first(model, n=64):
    """The share of questions after which the answer's first letter is the likeliest token."""
    return sum(int(after(model, each, []).argmax()) == answer(each)[0] for each in asked(n)) / n


def right_letters(model, verb):
    """For each letter of a verb's answers, and the stop: how often it is the likeliest after the ones before it."""
    of, found = [question for question in asked(128) if question[0] == verb], []
    for at in range(len(answer(of[0])) + 1):
        whole = [([*answer(question), END], question) for question in of]
        found.append(sum(int(after(model, each, said[:at]).argmax()) == said[at] for said, each in whole) / len(of))
    return found


@torch.no_grad()
def nats(model, question, said):
    """Nats of an answer and its stop after a question."""
    before, said = prompt(question), [*said, END]
    logits = model(torch.tensor([[*before, *said[:-1]]]))[0, len(before) - 1 :]
    return float(F.cross_entropy(logits, torch.tensor(said), reduction="sum"))


def margins(model, n=64):
    """Mean log-probability of the right answers to questions, and of answers to other questions."""
    of = asked(2 * n)
    right = [-nats(model, each, answer(each)) for each in of[:n]]
    wrong = [-nats(model, each, answer(other)) for each, other in zip(of[:n], of[n:], strict=True)]
    return sum(right) / n, sum(wrong) / n


@torch.no_grad()
def text_nats(model):
    """Nats a token on the base's own kind of text."""
    inputs, targets = lines(random.Random(NEW), 32, 24)
    return float(F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten()))


def verbs():
    """The ids of all verbs, with their names."""
    return [(9 + i, name) for i, name in enumerate(VERBS)]


def reach(read, model, inputs):
    """Whether a change of the input at each key would change the logits at each query, (T, T), by gradient.

    read: makes logits (1, T, V) of the model. inputs: (1, T)."""
    kept, rows = {}, []

    def keep(x, layer):
        kept["x"] = x.detach().requires_grad_()
        return kept["x"]

    with hooked(model, {"embedding": keep}):
        logits = read()
    for query in range(inputs.shape[1]):
        weighed = (logits[0, query] * torch.arange(1, logits.shape[-1] + 1)).sum()
        (gradient,) = torch.autograd.grad(weighed, kept["x"], retain_graph=True)
        rows.append(gradient[0].abs().sum(dim=-1) > 0)
    return torch.stack(rows)


@contextmanager
def saying(model, token):
    """Within it, the model says this token, whatever it reads."""

    def say(logits, layer):
        return torch.zeros_like(logits).index_fill(-1, torch.tensor(token), 50.0)

    with hooked(model, {"logits": say}):
        yield
