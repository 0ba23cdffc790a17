"""Pretraining objectives for one body. An objective only makes inputs, who sees whom, targets and weights:

    batch = masked(tokens, vocabulary, rate=0.15, generator=generator)
    logits = read(model, batch)                 # any decoder with the slots of `shared.tiny_lm`
    loss = objective_loss(logits, batch)

Shapes, everywhere in this file:

    tokens      (B, T)          whole texts, each filled up on the right with `vocabulary.padding`
    inputs      (B, T)          what the body is given
    targets     (B, T)          what position t is asked for; IGNORE where it is asked nothing
    seen        (B, T, T)       True where a query (row) may look at a key (column)
    weights     (B, T)          how much the loss at a position counts; 0 where nothing is asked
    logits      (B, T, V)

Read it from the top: masks, `ask`, the objectives, the loss. There are two kinds of objective: a *next-token* one asks
position t for token t + 1, which it must not see; a *masking* one asks position t for token t, which the inputs hide.
How texts are written by each objective is in `objective_writing`.

Sources: Devlin et al. 2018 (BERT, arXiv 1810.04805); Raffel et al. 2019 (T5, 1910.10683) for spans and the prefix;
Bavarian et al. 2022 (2207.14255) for the middle; Nie et al. 2025 (LLaDA, 2502.09992) for diffusion.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from objective_vocabulary import Vocabulary, by_chance, check_share, padded, rows_of
from torch import nn
from torch.nn import functional as F

from shared.hooks import hooked

IGNORE = -100  # PyTorch's own sign for "no target here"


class Batch(NamedTuple):
    """What an objective asks; see the module's docstring for the shapes."""

    inputs: torch.Tensor
    targets: torch.Tensor
    seen: torch.Tensor
    weights: torch.Tensor


def sees_left(T: int) -> torch.Tensor:
    """Who sees whom in a causal objective: each position itself and all before it, (1, T, T).

    sees_left(2) = [[[1, 0], [1, 1]]]
    """
    return torch.ones(1, T, T, dtype=torch.bool).tril()


def sees_all(T: int) -> torch.Tensor:
    """Each position sees every other, (1, T, T)."""
    return torch.ones(1, T, T, dtype=torch.bool)


def sees_prefix(lengths: torch.Tensor, T: int) -> torch.Tensor:
    """All see the first `lengths` (B,) positions, and each position itself and all before it, (B, T, T).

    sees_prefix([2], 3) = [[[1, 1, 0], [1, 1, 0], [1, 1, 1]]]
    """
    return sees_left(T) | (torch.arange(T) < lengths[:, None, None])


def ask(
    inputs: torch.Tensor,
    targets: torch.Tensor,
    seen: torch.Tensor,
    vocabulary: Vocabulary,
    asked: torch.Tensor | None = None,
) -> Batch:
    """A batch that asks for the targets at the positions `asked` (None: all), each of weight 1.

    Padding is never asked, never a target, and seen by itself alone: a softmax over nothing would be NaN.
    Raises ValueError for padding before a token.
    """
    real = inputs != vocabulary.padding
    if (wrong := real[:, 1:] & ~real[:, :-1]).any():
        raise ValueError(f"row {int(wrong.nonzero()[0, 0])} has padding before a token: expected it on the right only")
    right = real & (targets != vocabulary.padding)
    asked = right if asked is None else right & asked
    seen = seen & real[:, None, :] | torch.eye(inputs.shape[1], dtype=torch.bool)
    return Batch(inputs, targets.masked_fill(~asked, IGNORE), seen, asked.float())


def next_tokens(tokens: torch.Tensor, vocabulary: Vocabulary) -> torch.Tensor:
    """What follows each position, (B, T); padding after the last.

    next_tokens([[7, 8, 9]]) = [[8, 9, padding]]
    """
    return F.pad(tokens[:, 1:], (0, 1), value=vocabulary.padding)


def causal(tokens: torch.Tensor, vocabulary: Vocabulary) -> Batch:
    """Each position sees itself and all before it, and is asked for the next token. The first token is not asked for.

    causal([[7, 8, 9]]): inputs [[7, 8, 9]], targets [[8, 9, IGNORE]], seen as `sees_left(3)`
    """
    return ask(tokens, next_tokens(tokens, vocabulary), sees_left(tokens.shape[1]), vocabulary)


def right_to_left(tokens: torch.Tensor, vocabulary: Vocabulary) -> Batch:
    """The mirror image of causal, a control: each position sees itself and all after it, and is asked for the one
    before.

    right_to_left([[7, 8, 9]]): inputs [[7, 8, 9]], targets [[IGNORE, 7, 8]]
    """
    before = F.pad(tokens[:, :-1], (1, 0), value=vocabulary.padding)
    return ask(tokens, before, sees_left(tokens.shape[1]).mT, vocabulary)


def ask_share(batch: Batch, share: float, generator: torch.Generator | None = None) -> Batch:
    """The same batch, asked at a share of its positions only, drawn one by one: a control for how many targets an
    objective has."""
    kept = by_chance("share", share, batch.targets.shape, generator)
    return batch._replace(targets=batch.targets.masked_fill(~kept, IGNORE), weights=batch.weights * kept)


def hide(tokens: torch.Tensor, hidden: torch.Tensor, vocabulary: Vocabulary) -> Batch:
    """Every position sees every other; the words at `hidden`, (B, T) bool, are masks, and are asked for.

    hide([[7, 8, 9]], [[0, 1, 0]]): inputs [[7, mask, 9]], targets [[IGNORE, 8, IGNORE]]
    """
    hidden = hidden & (tokens != vocabulary.padding)
    inputs = tokens.masked_fill(hidden, vocabulary.mask)
    return ask(inputs, tokens, sees_all(tokens.shape[1]), vocabulary, hidden)


def masked(
    tokens: torch.Tensor,
    vocabulary: Vocabulary,
    rate: float,
    generator: torch.Generator | None = None,
    mask_share: float = 0.8,
    random_share: float = 0.1,
) -> Batch:
    """BERT's: each word is chosen with probability `rate`, and asked for. All see all.

    Of the chosen words `mask_share` become a mask, `random_share` any word (the same one by chance too), and the rest
    stay as they are. mask_share 1 and random_share 0 is plain masking. Special tokens are never chosen, never drawn.

    masked([[7, 8, 9]], rate=1), where chance chose mask, word 3 and stay: inputs [[mask, 3, 9]], targets [[7, 8, 9]]
    """
    chosen = vocabulary.is_word(tokens) & by_chance("rate", rate, tokens.shape, generator)
    fate = torch.rand(tokens.shape, generator=generator)
    first, after_last = vocabulary.words.start, vocabulary.words.stop
    drawn = torch.randint(first, after_last, tokens.shape, generator=generator)
    inputs = torch.where(chosen & (fate < mask_share + random_share), drawn, tokens)
    inputs = torch.where(chosen & (fate < mask_share), vocabulary.mask, inputs)
    return ask(inputs, tokens, sees_all(tokens.shape[1]), vocabulary, chosen)


def prefix(tokens: torch.Tensor, vocabulary: Vocabulary, lengths: torch.Tensor) -> Batch:
    """The first `lengths` (B,) tokens of each text are seen by all, and nothing in them is asked for; what follows is
    causal. The prefix's last position is asked for the first token after it.

    prefix([[6, 7, 8, 9]], lengths=[2]): inputs [[6, 7, 8, 9]], targets [[IGNORE, 8, 9, IGNORE]]
    Raises ValueError for a prefix of no token.
    """
    if (lengths < 1).any():
        raise ValueError(f"prefixes of {lengths.tolist()} tokens: expected 1 or more, for the last one is asked")
    T = tokens.shape[1]
    after = torch.arange(T) >= lengths[:, None] - 1
    return ask(tokens, next_tokens(tokens, vocabulary), sees_prefix(lengths, T), vocabulary, after)


def cut_out(words: Sequence[int], hidden: Sequence[bool], vocabulary: Vocabulary) -> tuple[list[int], list[int]]:
    """A text with a sentinel for each hidden span (a run of True), and the spans, each after its sentinel; one more
    sentinel ends them.

    cut_out([5, 6, 7, 8, 9], [0, 1, 1, 0, 1]) = [5, s0, 8, s1], [s0, 6, 7, s1, 9, s2]
    """
    kept, spans, n = [], [], 0
    for i, (word, gone) in enumerate(zip(words, hidden, strict=True)):
        if gone and not (i and hidden[i - 1]):
            kept.append(vocabulary.sentinel(n))
            spans.append(vocabulary.sentinel(n))
            n += 1
        (spans if gone else kept).append(word)
    return kept, [*spans, vocabulary.sentinel(n)]


def span_corruption(tokens: torch.Tensor, hidden: torch.Tensor, vocabulary: Vocabulary) -> Batch:
    """T5's, in one body: the text without its hidden spans is the prefix, and the spans follow. hidden: (B, T) bool.

    Rows are longer than the texts: n spans add 2 n + 1 tokens. As in T5 sentinels are asked for too; the first is
    always the same, the others tell where a span ends.
    """
    texts, lengths = [], []
    for row, gone in zip(rows_of(tokens, vocabulary), hidden.tolist(), strict=True):
        kept, spans = cut_out(row, gone[: len(row)], vocabulary)
        texts.append(kept + spans)
        lengths.append(len(kept))
    return prefix(padded(texts, vocabulary), vocabulary, torch.tensor(lengths))


def fill_in_the_middle(
    tokens: torch.Tensor, cuts: torch.Tensor, vocabulary: Vocabulary, suffix_first: bool = False
) -> Batch:
    """A text whose middle, from cuts[:, 0] up to cuts[:, 1], was moved to its end; all is causal. cuts: (B, 2).

    Rows are four tokens longer than the texts. The marks are given, never asked for; `end` is asked for.

    cuts [[1, 3]] of [[6, 7, 8, 9]]:    P 6 S 9 M 7 8 end       prefix, suffix, middle (PSM)
    suffix_first:                       P S 9 M 6 7 8 end       suffix, prefix, middle (SPM)
    Raises ValueError for cuts that are not in order, or outside the text.
    """
    p, s, m = vocabulary.marks
    texts = []
    for row, (start, stop) in zip(rows_of(tokens, vocabulary), cuts.tolist(), strict=True):
        if not 0 <= start <= stop <= len(row):
            raise ValueError(f"cuts at {start} and {stop} of {len(row)} tokens: expected 0 <= first <= second <= these")
        before, middle, after = row[:start], row[start:stop], row[stop:]
        given = [p, s, *after, m, *before] if suffix_first else [p, *before, s, *after, m]
        texts.append([*given, *middle, vocabulary.end])
    moved = padded(texts, vocabulary)
    targets = next_tokens(moved, vocabulary)
    asked = ~torch.isin(targets, torch.tensor(vocabulary.marks))
    return ask(moved, targets, sees_left(moved.shape[1]), vocabulary, asked)


def diffusion(tokens: torch.Tensor, vocabulary: Vocabulary, generator: torch.Generator | None = None) -> Batch:
    """Masked diffusion: for each text a number n from 1 to its L words, all alike; n words, drawn at random, are masks
    and are asked for, with weight 1 / rate = L / n. All see all.

    Texts weigh as their lengths, whatever n is. The mean loss is then no less than -log p(text) per word, for the p of
    writing in a random order. LLaDA trains with a rate drawn first and each word masked by itself; this form, by which
    it measures, has the same mean and less noise.

    diffusion([[7, 8, 9]]), where chance chose n = 2 and the last two: inputs [[7, mask, mask]], weights [[0, 1.5, 1.5]]
    """
    words = vocabulary.is_word(tokens)
    lengths = words.sum(dim=1, keepdim=True)  # (B, 1)
    n = 1 + (torch.rand(lengths.shape, generator=generator, dtype=torch.float64) * lengths).long()
    order = torch.rand(tokens.shape, generator=generator).masked_fill(~words, 2.0)  # words come first
    batch = hide(tokens, words & (order.argsort(dim=1).argsort(dim=1) < n), vocabulary)
    return batch._replace(weights=batch.weights * lengths / n)


def draw_spans(
    tokens: torch.Tensor,
    vocabulary: Vocabulary,
    rate: float = 0.15,
    mean_length: float = 3.0,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """Which words are hidden, (B, T) bool: in each text a share `rate` of its words, at least one, in spans of
    `mean_length` on average. All ways to part the hidden words into spans, and to lay these, are equally likely.

    Spans never touch. (T5's own drawing, else the same, ends each text in a hidden span, unless it rolls the result.)
    """
    check_share("rate", rate)
    hidden = torch.zeros(tokens.shape, dtype=torch.bool)
    for row, is_word in zip(hidden, vocabulary.is_word(tokens), strict=True):
        words = is_word.nonzero()[:, 0]
        n = max(1, round(rate * len(words)))
        spans = max(1, min(round(n / mean_length), n, len(words) - n + 1))
        ends = torch.randperm(n - 1, generator=generator)[: spans - 1].sort().values + 1
        sizes = torch.tensor([0, *ends, n]).diff()
        gaps = torch.randperm(len(words) - n + 1, generator=generator)[:spans].sort().values
        starts = gaps + sizes.cumsum(0) - sizes  # the kept words before a span, and the hidden ones
        for start, size in zip(starts.tolist(), sizes.tolist(), strict=True):
            row[words[start : start + size]] = True
    return hidden


def draw_cuts(
    tokens: torch.Tensor, vocabulary: Vocabulary, n: int, generator: torch.Generator | None = None
) -> torch.Tensor:
    """Where to cut each text, (B, n), in order: each cut from 1 to its length - 1, all alike; two may be the same.

    One cut makes the lengths of prefixes, draw_cuts(...)[:, 0]; two a middle, which may be empty.
    """
    lengths = (tokens != vocabulary.padding).sum(dim=1, keepdim=True)
    drawn = torch.rand(len(tokens), n, generator=generator, dtype=torch.float64)
    return 1 + (drawn * (lengths - 1)).long().sort(dim=1).values


def read(model: nn.Module, batch: Batch) -> torch.Tensor:
    """The body's logits, (B, T, V): `model` is any `TinyLM`, whose own mask gives way to `batch.seen`."""
    seen = batch.seen[:, None]  # (B, 1, T, T): the same for all heads
    with hooked(model, {"mask": lambda mask, layer: seen}):
        return model(batch.inputs)


def losses(logits: torch.Tensor, batch: Batch) -> torch.Tensor:
    """The cross entropy at each position, (B, T), in nats; 0 where nothing is asked. In float32 or better."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    each = F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), ignore_index=IGNORE, reduction="none")
    return each.view_as(batch.targets)


def objective_loss(logits: torch.Tensor, batch: Batch) -> torch.Tensor:
    """The weighted mean of the losses over all that is asked in the whole batch, in nats.

    Losses 1, 2 and 6 in one row and 4 in another, all of weight 1: 13 / 4. If nothing is asked it is 0, with a gradient
    of 0: at a low rate chance may choose no word of a small batch, and such a step should change nothing.
    """
    total = batch.weights.sum()
    return (losses(logits, batch) * batch.weights).sum() / torch.where(total > 0, total, 1.0)


def training_loss(model: nn.Module, *batch: torch.Tensor) -> torch.Tensor:
    """For `shared.training.fit`: fit(model, lambda: causal(...), loss=training_loss, ...)."""
    return objective_loss(read(model, Batch(*batch)), Batch(*batch))


@torch.no_grad()
def held_out_loss(model: nn.Module, batches: Iterable[Batch]) -> float:
    """The mean over all that is asked in all batches, whatever their sizes, in nats. The model is in eval mode.

    Raises ValueError if nothing is asked.
    """
    was_training, total, weight = model.training, 0.0, 0.0
    device = next(model.parameters()).device
    model.eval()
    for batch in batches:
        batch = Batch(*(part.to(device) for part in batch))
        total += float((losses(read(model, batch), batch) * batch.weights).sum())
        weight += float(batch.weights.sum())
    model.train(was_training)
    if not weight:
        raise ValueError("nothing is asked in these batches: there is no mean")
    return total / weight
