"""What each objective writes, on the same held-out texts: a middle, and whole stories that the world's judge reads.

    middle(model, arm, 64)      # twelve words, each time the likeliest
    written(model, arm, 16)     # whole stories, drawn

A middle: from the left, from the right, or from both sides, as an objective can; who fills masks writes the word first
that it is surest of. Whole stories: by the chain rule where an objective has one; by a span or a middle that is the
whole story but for its ends where it fills; by unmasking one word after another, in a random order, where it fills
masks. Then the lengths are those of true stories.
"""

from collections.abc import Callable

import torch
from objective_arms import VOCABULARY, Arm
from objective_own_floors import hidden_in, lengths
from objective_world import WORLD, held_out, ids, words_of
from objective_writing import continue_prefix, fill_middle, fill_spans, unmask, words_only
from objectives import read, right_to_left
from torch import nn

from shared.generation import generate, greedy, seeded
from shared.world import END, judge
from shared.world.words import join

SPAN, LONGEST = 12, 158  # words of a middle; of a story without its ends
FIRST, LAST = "Once", END  # words that every story has


# A middle


def middle(model: nn.Module, arm: Arm, n: int) -> dict[str, float]:
    """The share of words that are right, each at its place, and of texts without a sentence that breaks a rule."""
    tokens = held_out(n)
    hidden = hidden_in(f"middle {SPAN}", tokens)
    right, sound = 0, 0
    filled = _fill_masks(model, tokens, hidden) if arm.writes == "masks" else None
    for i, length in enumerate(lengths(tokens)):
        text, gone = tokens[i, :length].tolist(), hidden[i, :length].tolist()
        start = gone.index(True)
        before, after = text[:start], text[start + SPAN :]
        found = filled[i] if filled else FILLS[arm.writes](model, before, after)
        right += sum(a == b for a, b in zip(found, text[start : start + SPAN], strict=False))
        sound += is_sound([*before, *found, *after])
    return {"hit": round(right / n / SPAN, 4), "sound": round(sound / n, 4)}


def is_sound(text: list[int]) -> bool:
    """No sentence breaks a rule."""
    return all(sentence.consistent for sentence in judge(join(words_of(text)), WORLD).sentences)


def _fill_masks(model, tokens, hidden):
    how = {"confident_first": True, "temperature": 0.0}
    filled = unmask(model, tokens, hidden, VOCABULARY, SPAN, **how)
    return [row[gone].tolist() for row, gone in zip(filled, hidden, strict=True)]


def _fill_left(model, before, after):
    (found,) = generate(model, [before], SPAN, rules=[words_only(VOCABULARY), greedy])
    return found


def _fill_prefix(model, before, after):
    (found,) = continue_prefix(model, [before], SPAN, VOCABULARY, rules=[words_only(VOCABULARY), greedy])
    return found


def _fill_right(model, before, after):
    (found,) = generate(backwards(model), [after[::-1]], SPAN, rules=[words_only(VOCABULARY), greedy])
    return found[::-1]


def _fill_spans(model, before, after):
    hidden = [False] * len(before) + [True] * SPAN + [False] * len(after)
    text = [*before, *[VOCABULARY.words[0]] * SPAN, *after]
    found = fill_spans(model, text, hidden, SPAN + 1, VOCABULARY, rules=[greedy])
    return found[len(before) : len(found) - len(after)]


def _fill_middle(model, before, after):
    return fill_middle(model, before, after, SPAN + 1, VOCABULARY, rules=[greedy])


FILLS = {
    "left": _fill_left,
    "prefix": _fill_prefix,
    "right": _fill_right,
    "spans": _fill_spans,
    "middle": _fill_middle,
}


def backwards(model: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    """A model that reads from the right, as one that `generate` takes: texts turned round."""
    return lambda x: read(model, right_to_left(x.flip(1), VOCABULARY)).flip(1)


# Whole stories


def written(model: nn.Module, arm: Arm, n: int) -> dict[str, float]:
    """Shares: of sentences that are consistent, of stories that come to their end, of stories without a fault; and the
    mean number of words."""
    texts = WRITES[arm.writes](model, n)
    found = [judge(join(words_of(text)), WORLD) for text in texts]
    sentences = [sentence for it in found for sentence in it.sentences if sentence.finished]
    shares = {
        "consistent": sum(it.consistent for it in sentences) / max(1, len(sentences)),
        "finished": sum(it.finished for it in found) / n,
        "flawless": sum(it.flawless for it in found) / n,
        "words": sum(map(len, texts)) / n,
    }
    return {name: round(value, 4) for name, value in shares.items()}


def _write_left(model, n):
    prompts, how = [[ids()[FIRST]]] * n, {"rules": [words_only(VOCABULARY)], "stop": [ids()[LAST]]}
    return [[*prompts[0], *found] for found in generate(model, prompts, LONGEST, generators=seeded(range(n)), **how)]


def _write_right(model, n):
    prompts, how = [[ids()[LAST]]] * n, {"rules": [words_only(VOCABULARY)], "stop": [ids()[FIRST]]}
    found = generate(backwards(model), prompts, LONGEST, generators=seeded(range(n)), **how)
    return [[*prompts[0], *it][::-1] for it in found]


def _write_masks(model, n):
    tokens = held_out(n)
    hidden = VOCABULARY.is_word(tokens)
    for row, length in zip(hidden, lengths(tokens), strict=True):
        row[[0, length - 1]] = False
    steps = int(hidden.sum(dim=1).max())
    found = unmask(model, tokens, hidden, VOCABULARY, steps, generator=torch.Generator().manual_seed(0))
    return [row[:length].tolist() for row, length in zip(found, lengths(tokens), strict=True)]


def _write_spans(model, n):
    """One span between the ends."""
    text, hidden = [ids()[FIRST], VOCABULARY.words[0], ids()[LAST]], [False, True, False]
    return [fill_spans(model, text, hidden, LONGEST, VOCABULARY, generator=it) for it in seeded(range(n))]


def _write_middle(model, n):
    first, last = [ids()[FIRST]], [ids()[LAST]]
    found = (fill_middle(model, first, last, LONGEST, VOCABULARY, generator=it) for it in seeded(range(n)))
    return [[*first, *it, *last] for it in found]


WRITES = {
    "left": _write_left,
    "prefix": _write_left,  # a prefix of one word: the mask is causal
    "right": _write_right,
    "masks": _write_masks,
    "spans": _write_spans,
    "middle": _write_middle,
}
