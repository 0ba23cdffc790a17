"""A program around objectives.py: small decoders trained by each objective on the world's stories.

`train` makes one; its texts are the first words of stories, of uneven lengths. `gradients` reads a batch in parts.
`measure` and `bits_per_byte` tell what a model knows of texts. `write`, `fill` and `write_middle` let it write, and
`doubts` tells which words of a text it would not have written.
"""

import math
from itertools import cycle, islice

import objectives
import torch
from objective_world import MASK, MIDDLE, PAD, PREFIX, STOP, SUFFIX, names, vocabulary
from objective_world import batches as stories

from shared.generation import generate, greedy
from shared.tiny_lm import TinyLM
from shared.training import fit

VOCABULARY = vocabulary()
WIDTH, LAYERS, HEADS, CONTEXT = 32, 2, 2, 80
STEPS, TEXTS, LEARNING_RATE = 48, 16, 1e-2
LENGTHS = (48, 33, 21, 12)  # of the texts of a batch, in turn
RATE = 0.3  # of the words that are masked, or cut out in spans
MASK_SHARE, RANDOM_SHARE = 0.8, 0.1  # of these: what becomes a mask, and what any word
SUFFIX_FIRST = True  # where the middle is filled in


def texts(seed=0, n=TEXTS):
    """Endless batches of n texts, (n, T): the first words of stories, as many as LENGTHS says, then padding."""
    lengths = torch.tensor(LENGTHS).repeat(n)[:n, None]
    for rows in stories(seed, n):
        rows = rows[:, : max(LENGTHS)]
        yield rows.masked_fill(torch.arange(max(LENGTHS)) >= lengths, PAD)


def batch_of(name, tokens, generator=None, rate=RATE):
    """What an objective asks of texts."""
    match name:
        case "masked":
            return objectives.masked(tokens, VOCABULARY, rate, generator, MASK_SHARE, RANDOM_SHARE)
        case "prefix":
            lengths = objectives.draw_cuts(tokens, VOCABULARY, 1, generator)[:, 0]
            return objectives.prefix(tokens, VOCABULARY, lengths)
        case "spans":
            hidden = objectives.draw_spans(tokens, VOCABULARY, rate, generator=generator)
            return objectives.span_corruption(tokens, hidden, VOCABULARY)
        case "middle":
            cuts = objectives.draw_cuts(tokens, VOCABULARY, 2, generator)
            return objectives.fill_in_the_middle(tokens, cuts, VOCABULARY, SUFFIX_FIRST)
        case "diffusion":
            return objectives.diffusion(tokens, VOCABULARY, generator)
        case "causal" | "right_to_left":
            return getattr(objectives, name)(tokens, VOCABULARY)


def new_model(seed=0):
    """A small decoder."""
    torch.manual_seed(seed)
    return TinyLM(VOCABULARY.size, CONTEXT, WIDTH, LAYERS, HEADS)


def loss(model, *batch):
    """Nats of what a batch asks."""
    batch = objectives.Batch(*batch)
    return objectives.objective_loss(objectives.read(model, batch), batch)


def asked(name, seed=0, n=TEXTS, repeated=None, rate=RATE):
    """Endless batches of what an objective asks. repeated: the texts are as many batches, again and again (None: all
    are new)."""
    generator, tokens = torch.Generator().manual_seed(seed), texts(seed, n)
    tokens = tokens if repeated is None else cycle(islice(tokens, repeated))
    return (batch_of(name, it, generator, rate) for it in tokens)


def train(name, seed=0, steps=STEPS, **how):
    """A trained model, and the loss of each step. how: as `asked` takes it."""
    model, batches = new_model(seed), asked(name, seed, **how)
    return model, fit(model, lambda: next(batches), steps, LEARNING_RATE, loss=loss, label=None).loss


def gradients(model, batch, n=1):
    """The gradient of a batch's loss for each parameter, the batch being read in n parts."""
    model.zero_grad()
    asked = batch.weights.sum()
    for part in zip(*(each.chunk(n) for each in batch), strict=True):
        part = objectives.Batch(*part)
        (loss(model, *part) * part.weights.sum() / asked).backward()
    return [parameter.grad.clone() for parameter in model.parameters()]


def measure(model, name, tokens, size=TEXTS):
    """Nats of what an objective asks of texts, read `size` at a time."""
    generator = torch.Generator().manual_seed(0)
    return objectives.held_out_loss(model, [batch_of(name, part, generator) for part in tokens.split(size)])


def bits_per_byte(model, tokens):
    """What a causal model needs for a byte of texts whose words stand between spaces."""
    batch = batch_of("causal", tokens)
    nats = objectives.held_out_loss(model, [batch]) * batch.weights.sum().item()
    said = [names()[i] for row in tokens.tolist() for i in row[1:] if i != PAD]
    return nats / math.log(2) / sum(len(f" {word}".encode()) for word in said)


def write(model, prompt, most):
    """A text that a causal model goes on with, by the likeliest word each time."""
    return [*prompt, *generate(model, [prompt], most, rules=[greedy])[0]]


def middle_prompt(before, after):
    """What stands before the middle, as in training."""
    return [PREFIX, SUFFIX, *after, MIDDLE, *before] if SUFFIX_FIRST else [PREFIX, *before, SUFFIX, *after, MIDDLE]


def write_middle(model, before, after, most=12):
    """The likeliest words between two parts of a text."""
    return generate(model, [middle_prompt(before, after)], most, rules=[greedy], stop=[STOP])[0]


def word_logits(model, batch):
    """Logits of words; the others are never written."""
    logits = objectives.read(model, batch)
    return logits.masked_fill(~VOCABULARY.is_word(torch.arange(VOCABULARY.size)), -math.inf)


@torch.no_grad()
def fill(model, tokens, hidden, seed=0):
    """Texts whose words at `hidden` are masked, then drawn, from the left to the right, each given all others."""
    generator, tokens = torch.Generator().manual_seed(seed), tokens.masked_fill(hidden, MASK)
    for t in hidden.any(dim=0).nonzero()[:, 0].tolist():
        rows = hidden[:, t]
        batch = objectives.hide(tokens[rows], tokens[rows] == MASK, VOCABULARY)
        p = word_logits(model, batch)[:, t].softmax(dim=-1)
        tokens[rows, t] = torch.multinomial(p, 1, generator=generator)[:, 0]
    return tokens


@torch.no_grad()
def doubts(model, tokens):
    """How unlikely a masked model finds each word while it sees it, in nats: (B, T)."""
    batch = objectives.hide(tokens, torch.zeros_like(tokens, dtype=torch.bool), VOCABULARY)
    return -word_logits(model, batch).log_softmax(dim=-1).gather(-1, tokens[..., None])[..., 0]


if __name__ == "__main__":
    told = next(texts(1))
    for name in ("causal", "masked", "prefix", "spans", "middle", "diffusion"):
        model, losses = train(name)
        print(f"{name:<12}{losses[0]:.2f} nats at first, {losses[-1]:.2f} after {STEPS} steps")
