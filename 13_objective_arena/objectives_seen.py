"""Measures of lesson 13's patients, made with the healthy `objectives`: what is asked here is what should be asked."""

from contextlib import contextmanager

import objectives
import torch
from torch.nn import functional as F

from shared.hooks import hooked

NEW = 999  # the seed of texts that no patient has read


def held_out(caller, n=16):
    """Texts that no patient has read, (n, T)."""
    return next(caller.texts(NEW, n))


def drawn(tokens, caller, share, seed=0):
    """True at a share of the words, (B, T)."""
    chance = torch.rand(tokens.shape, generator=torch.Generator().manual_seed(seed))
    return (chance < share) & caller.VOCABULARY.is_word(tokens)


def nats(logits, targets):
    """The loss at each position, (B, T)."""
    return F.cross_entropy(logits.transpose(1, 2), targets, reduction="none")


@torch.no_grad()
def masked_nats(caller, model, tokens, hidden):
    """Nats of the words that are masked, and of those that are seen: two means."""
    found = nats(objectives.read(model, objectives.hide(tokens, hidden, caller.VOCABULARY)), tokens)
    return float(found[hidden].mean()), float(found[caller.VOCABULARY.is_word(tokens) & ~hidden].mean())


@torch.no_grad()
def word_after(caller, model, text, n):
    """The likeliest word after the first n of a text, by the left alone, and its probability."""
    p = objectives.read(model, objectives.causal(text[None, :n], caller.VOCABULARY))[0, -1].softmax(-1)
    return int(p.argmax()), float(p.max())


@torch.no_grad()
def after_prefix(helper, caller, model, tokens, start, words):
    """What a model says of each of the words after a prefix of `start`, where the text goes on and where it ends before
    that word: the mean gap of the word's own nats, and the largest gap of any word's."""
    lengths = torch.full((len(tokens),), start)
    whole = helper.read(model, helper.prefix(tokens, caller.VOCABULARY, lengths)).log_softmax(dim=-1)
    found = []
    for t in range(start, start + words):
        part = helper.read(model, helper.prefix(tokens[:, :t], caller.VOCABULARY, lengths))[:, -1].log_softmax(dim=-1)
        gap = (whole[:, t - 1] - part).abs()
        found.append((float(gap.gather(1, tokens[:, t, None]).mean()), float(gap.max())))
    return zip(*found, strict=True)


@torch.no_grad()
def gaps(caller, model, tokens, hidden):
    """For each gap of the texts, first to last: nats of its words, and how many they are."""
    vocabulary, found = caller.VOCABULARY, {}
    for row, gone in zip(tokens, hidden, strict=True):
        batch = objectives.span_corruption(row[None], gone[None], vocabulary)
        told, number = objectives.losses(objectives.read(model, batch), batch)[0].tolist(), -1
        for target, each in zip(batch.targets[0].tolist(), told, strict=True):
            number += target in vocabulary.sentinels
            if target in vocabulary.words:
                found.setdefault(number, []).append(each)
    return [(sum(found[n]) / len(found[n]), len(found[n])) for n in sorted(found)]


@torch.no_grad()
def answers(helper, caller, model, tokens, lengths):
    """What a model says of every id at every position of texts with prefixes, in nats: (B, T, V)."""
    return helper.read(model, helper.prefix(tokens, caller.VOCABULARY, lengths)).log_softmax(dim=-1)


def fates(helper, vocabulary, mask_share, random_share, n=40000):
    """Of n words, all chosen: the shares that became a mask, another word, stayed as they are, another special id."""
    words = vocabulary.words
    tokens = torch.randint(words.start, words.stop, (n // 40, 40), generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    found = helper.masked(tokens, vocabulary, 1.0, generator, mask_share, random_share).inputs
    same, word = found == tokens, vocabulary.is_word(found)
    kinds = (found == vocabulary.mask, word & ~same, same, ~word & (found != vocabulary.mask))
    return [float(it.float().mean()) for it in kinds]


def swapped(caller, tokens, share=0.06):
    """Texts with some words replaced by other words, and where."""
    places = drawn(tokens, caller, share)
    generator, words = torch.Generator().manual_seed(1), caller.VOCABULARY.words
    other = torch.randint(words.start, words.stop, tokens.shape, generator=generator)
    return torch.where(places, other, tokens), places & (other != tokens)


def named(doubts, wrong, right):
    """Of as many words as are wrong, the most doubted: how many they are, and how many of them are right."""
    n = int(wrong.sum())
    least = doubts[wrong | right].topk(n).values.min()
    return n, int((doubts[right] >= least).sum())


def uniform(model):
    """The model, all of whose answers are alike."""
    for parameter in model.parameters():
        parameter.data.zero_()
    return model


@contextmanager
def answering(model, logits):
    """Within it, the model answers with these logits, whatever it reads."""
    with hooked(model, {"logits": lambda found, layer: logits}):
        yield
