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
def sides(helper, caller, model, tokens, name):
    """Nats that an objective asks for at each position, with all words as they are, and with other words at all
    positions that it must not see: of those next to the middle of whole texts."""
    t = tokens.shape[1] // 2
    other = torch.roll(tokens, 1, dims=0)
    if name == "right_to_left":
        changed, wanted = torch.cat([other[:, :t], tokens[:, t:]], dim=1), tokens[:, t - 1]
    else:
        changed, wanted = torch.cat([tokens[:, : t + 1], other[:, t + 1 :]], dim=1), tokens[:, t + 1]
    make = getattr(helper, name)
    logits = (helper.read(model, make(it, caller.VOCABULARY))[:, t] for it in (tokens, changed))
    return [float(F.cross_entropy(it, wanted)) for it in logits]


def fates(helper, vocabulary, mask_share, random_share, n=40000):
    """Of n words, all chosen: the shares that became a mask, another word, stayed as they are, another special id."""
    words = vocabulary.words
    tokens = torch.randint(words.start, words.stop, (n // 40, 40), generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    found = helper.masked(tokens, vocabulary, 1.0, generator, mask_share, random_share).inputs
    same, word = found == tokens, vocabulary.is_word(found)
    kinds = (found == vocabulary.mask, word & ~same, same, ~word & (found != vocabulary.mask))
    return [float(it.float().mean()) for it in kinds]


@torch.no_grad()
def middle_nats(caller, model, row, start, stop):
    """Nats of a middle's words after the caller's prompt, and where the helper of the same patient puts it."""
    before, middle, after = row[:start], row[start:stop], row[stop:]
    prompts = caller.middle_prompt(before, after), [caller.PREFIX, caller.SUFFIX, *after, caller.MIDDLE, *before]
    found = []
    for prompt in prompts:
        logits = model(torch.tensor([[*prompt, *middle]]))[0, len(prompt) - 1 : -1]
        found.append(float(F.cross_entropy(logits, torch.tensor(middle))))
    return found


def swapped(caller, tokens, share=0.06):
    """Texts with some words replaced by other words, and where."""
    places = drawn(tokens, caller, share)
    generator, words = torch.Generator().manual_seed(1), caller.VOCABULARY.words
    other = torch.randint(words.start, words.stop, tokens.shape, generator=generator)
    return torch.where(places, other, tokens), places & (other != tokens)


def spotted(doubts, wrong, right):
    """How often a wrong word is doubted more than a right one: 1/2 is by chance."""
    return float((doubts[wrong][:, None] > doubts[right]).float().mean())


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
