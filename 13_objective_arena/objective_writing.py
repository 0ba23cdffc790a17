"""Texts written by a model of each objective.

    words = words_only(vocabulary)
    generate(model, prompts, most, rules=[words])                       # causal: `shared.generation` as it is
    continue_prefix(model, prompts, most, vocabulary, rules=[words])    # prefix
    fill_spans(model, text, hidden, vocabulary, most)                   # span corruption
    fill_middle(model, before, after, most, vocabulary)                 # fill in the middle
    unmask(model, tokens, hidden, vocabulary, steps)                    # diffusion, and any masking objective
    gibbs(model, tokens, hidden, vocabulary, rounds)                    # masked

All but the last two write one token after another by the chain rule, so what they write has the model's own
probability. A masking model answers for each masked word by itself: several of its answers at once need not fit each
other. `unmask` lets it see what it has written so far, `gibbs` lets it write each word again and again.

Sources: Wang & Cho 2019 (arXiv 1902.04094) for Gibbs sampling; Nie et al. 2025 (LLaDA, 2502.09992) for unmasking, its
confident words first as in Chang et al. 2022 (MaskGIT, 2202.04200).
"""

import math
from collections.abc import Collection, Sequence

import torch
from objective_vocabulary import Vocabulary
from objectives import Batch, cut_out, hide, prefix, read
from torch import nn

from shared.generation import Rule, generate


def words_only(vocabulary: Vocabulary, allowed: Collection[int] = ()) -> Rule:
    """A rule: words alone are left, and the special ids that are `allowed`. A model has a logit for its mask and its
    padding, too, which no text may have."""

    def rule(logits: torch.Tensor, said: torch.Tensor) -> torch.Tensor:
        ids = torch.arange(logits.shape[-1])
        left = vocabulary.is_word(ids) | torch.isin(ids, torch.tensor(list(allowed), dtype=torch.long))
        return logits.masked_fill(~left, -math.inf)

    return rule


def continue_prefix(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    most: int,
    vocabulary: Vocabulary,
    *,
    lengths: Sequence[int] | None = None,
    generators: Sequence[torch.Generator] | None = None,
    **how,
) -> list[list[int]]:
    """Up to `most` new tokens for each prompt. The first of its tokens, as many as `lengths` says (None: all), see each
    other. how: `rules` and `stop`, as `shared.generation.generate` takes them. Text by text, each read whole at every
    step: what a prefix model has computed of the prefix could be kept in a cache, but this is the plain way."""
    lengths = [len(prompt) for prompt in prompts] if lengths is None else lengths
    generators = [None] * len(prompts) if generators is None else generators
    written = []
    for prompt, length, generator in zip(prompts, lengths, generators, strict=True):

        def logits(tokens, length=length):
            return _logits(model, prefix(tokens, vocabulary, torch.tensor([length])))

        written += generate(logits, [prompt], most, generators=[generator], **how)
    return written


def fill_spans(
    model: nn.Module,
    text: Sequence[int],
    hidden: Sequence[bool],
    most: int,
    vocabulary: Vocabulary,
    *,
    rules: Sequence[Rule] = (),
    generator: torch.Generator | None = None,
) -> list[int]:
    """The text with its hidden spans (runs of True) written anew, each as long as the model likes, up to `most` tokens
    in all, sentinels included; a span that it has not come to by then is empty. Only the next sentinel may be written.

    rules: run after that one. Raises ValueError if nothing is hidden.
    """
    kept, spans = cut_out(text, hidden, vocabulary)
    sentinels = [token for token in spans if token in vocabulary.sentinels]
    if len(sentinels) == 1:
        raise ValueError(f"no word of {len(text)} is hidden: there is nothing to fill")

    def next_sentinel(logits, said):
        written = sum(token in sentinels for token in said[0, len(kept) :].tolist())
        return words_only(vocabulary, [sentinels[written]])(logits, said)

    how = {"rules": [next_sentinel, *rules], "stop": [sentinels[-1]], "generators": [generator]}
    prompt = [*kept, sentinels[0]]
    (found,) = continue_prefix(model, [prompt], most, vocabulary, lengths=[len(kept)], **how)
    return put_together(kept, [sentinels[0], *found], vocabulary)


def put_together(kept: Sequence[int], spans: Sequence[int], vocabulary: Vocabulary) -> list[int]:
    """What `cut_out` has parted, whole again: each sentinel gives way to the words that stand after it in `spans`.

    put_together([5, s0, 8, s1], [s0, 6, 7, s1, 9, s2]) = [5, 6, 7, 8, 9]
    """
    found, last = {}, None
    for token in spans:
        if token in vocabulary.sentinels:
            last = found.setdefault(token, [])
        else:
            last.append(token)
    return [word for token in kept for word in (found.get(token, []) if token in vocabulary.sentinels else [token])]


def fill_middle(
    model: nn.Module,
    before: Sequence[int],
    after: Sequence[int],
    most: int,
    vocabulary: Vocabulary,
    *,
    suffix_first: bool = False,
    rules: Sequence[Rule] = (),
    generator: torch.Generator | None = None,
) -> list[int]:
    """Up to `most` tokens between two parts of a text, by a model of `fill_in_the_middle`; those before `end`.

    rules: run after one that leaves words and `end`.
    """
    p, s, m = vocabulary.marks
    prompt = [p, s, *after, m, *before] if suffix_first else [p, *before, s, *after, m]
    rules = [words_only(vocabulary, [vocabulary.end]), *rules]
    (found,) = generate(model, [prompt], most, rules=rules, stop=[vocabulary.end], generators=[generator])
    return [token for token in found if token != vocabulary.end]


@torch.no_grad()
def unmask(
    model: nn.Module,
    tokens: torch.Tensor,
    hidden: torch.Tensor,
    vocabulary: Vocabulary,
    steps: int,
    *,
    confident_first: bool = False,
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """The texts, (B, T), with the words at `hidden`, (B, T) bool, written in `steps` passes, as many in each as in the
    others. What is written stays, and is seen by later passes.

    Which words are written first is drawn; with `confident_first` those whose drawn word is likeliest. Drawn, and one
    at a time, a perfect model's texts have the true probabilities. In one pass each word does, and no pair of words;
    by confidence likely texts come too often. temperature: 0 takes the likeliest word. Raises ValueError for no steps.
    """
    if steps < 1:
        raise ValueError(f"steps is {steps}: expected 1 or more")
    masked = hidden & (tokens != vocabulary.padding)
    for step in range(steps):
        words, p = _answers(model, tokens, masked, vocabulary, temperature, generator)
        order = p if confident_first else torch.rand(tokens.shape, generator=generator)
        ranks = order.masked_fill(~masked, -1.0).argsort(dim=1, descending=True).argsort(dim=1)
        left = masked.sum(dim=1, keepdim=True)
        now = masked & (ranks < (left / (steps - step)).ceil())
        tokens, masked = torch.where(now, words, tokens), masked & ~now
    return tokens


@torch.no_grad()
def gibbs(
    model: nn.Module,
    tokens: torch.Tensor,
    hidden: torch.Tensor,
    vocabulary: Vocabulary,
    rounds: int,
    *,
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """The texts, (B, T), with the words at `hidden`, (B, T) bool, written one at a time in an order that is drawn, and
    in each further round masked again, one at a time, and written anew from all others. temperature: as in `unmask`.

    A first round is `unmask` with as many steps as there are words. Later ones mend what a model does better when it
    sees all other words, as in training at a low rate.
    """
    hidden = hidden & (tokens != vocabulary.padding)
    left = hidden  # still masked
    for _ in range(rounds):
        order = torch.rand(tokens.shape, generator=generator).masked_fill(~hidden, -1.0)
        ranks = order.argsort(dim=1, descending=True).argsort(dim=1)
        for rank in range(int(hidden.sum(dim=1).max())):
            now = hidden & (ranks == rank)
            words, _ = _answers(model, tokens, left | now, vocabulary, temperature, generator)
            tokens, left = torch.where(now, words, tokens), left & ~now
    return tokens


def _answers(
    model: nn.Module,
    tokens: torch.Tensor,
    masked: torch.Tensor,
    vocabulary: Vocabulary,
    temperature: float,
    generator: torch.Generator | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """A word drawn for each position while those `masked` are, and its probability: (B, T) each."""
    logits = words_only(vocabulary)(_logits(model, hide(tokens, masked, vocabulary)), tokens)
    if temperature == 0:
        p, words = logits.softmax(dim=-1).max(dim=-1)
        return words, p
    p = (logits / temperature).softmax(dim=-1)
    words = torch.multinomial(p.flatten(0, 1), 1, generator=generator).view_as(tokens)
    return words, p.gather(-1, words[..., None])[..., 0]


def _logits(model: nn.Module, batch: Batch) -> torch.Tensor:
    """What is read on the model's device, on the CPU, in float32 or better."""
    device = next(model.parameters()).device
    logits = read(model, Batch(*(part.to(device) for part in batch)))
    return logits.to("cpu", torch.promote_types(logits.dtype, torch.float32))
