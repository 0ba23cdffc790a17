"""Texts for the checks of `objectives.py`, its objectives as functions of them, and what each must ask, by hand.

No two sizes are equal: 3 texts of 11, 8 and 5 words, no word twice in a text, in rows of 12; 23 words, of ids 7 to 29,
with special ids on both sides; a decoder of 2 layers, 3 heads and 12 numbers a token. Padding lies below the mask, so
that ids between the mask and the words can stand in a text.
"""

import math

import torch
from objective_vocabulary import Vocabulary, padded

from shared.tiny_lm import TinyLM

FLOAT = torch.float64
WORDS = range(7, 30)
VOCABULARY = Vocabulary(WORDS, padding=1, mask=2, end=5, marks=(3, 0, 31), sentinels=(30, 6, 33, 4))
MASK, PADDING, END = VOCABULARY.mask, VOCABULARY.padding, VOCABULARY.end
T = 12
TEXTS = [
    [9, 28, 14, 7, 22, 19, 11, 29, 16, 25, 12],
    [24, 13, 8, 27, 20, 10, 15, 21],
    [18, 26, 23, 17, 29],
]
LENGTHS = [4, 1, 5]  # of prefixes; the last is the whole text
CUTS = [[3, 7], [2, 2], [0, 4]]  # of middles; one is empty, one has no prefix
HIDDEN = [{0, 1, 4, 7, 8, 9}, {2, 3, 7}, {1}]
NEXT_TOKEN = ("causal", "prefix", "span_corruption", "fill_in_the_middle", "suffix_first")
MASKING = ("hide", "masked", "diffusion")


def seeded(seed=0):
    """A generator of its own."""
    return torch.Generator().manual_seed(seed)


def texts():
    """TEXTS in rows of T, (3, T), made anew: a fault may write to what it is given."""
    return padded([*TEXTS, [PADDING] * T], VOCABULARY)[:3]


def hidden_positions():
    """HIDDEN as (3, T) bool."""
    return torch.tensor([[t in row for t in range(T)] for row in HIDDEN])


def makers(m):
    """Each objective as a function of tokens, the same by chance whatever the tokens are."""
    lengths, cuts = torch.tensor(LENGTHS), torch.tensor(CUTS)
    return {
        "causal": lambda tokens: m.causal(tokens, VOCABULARY),
        "right_to_left": lambda tokens: m.right_to_left(tokens, VOCABULARY),
        "hide": lambda tokens: m.hide(tokens, hidden_positions(), VOCABULARY),
        "masked": lambda tokens: m.masked(tokens, VOCABULARY, 0.4, seeded(), 1.0, 0.0),
        "prefix": lambda tokens: m.prefix(tokens, VOCABULARY, lengths),
        "span_corruption": lambda tokens: m.span_corruption(tokens, hidden_positions(), VOCABULARY),
        "fill_in_the_middle": lambda tokens: m.fill_in_the_middle(tokens, cuts, VOCABULARY),
        "suffix_first": lambda tokens: m.fill_in_the_middle(tokens, cuts, VOCABULARY, suffix_first=True),
        "diffusion": lambda tokens: m.diffusion(tokens, VOCABULARY, seeded()),
    }


def small_model():
    """A decoder of large random weights in float64."""
    model = TinyLM(VOCABULARY.size, 24, 12, 2, 3).to(FLOAT)
    for seed, parameter in enumerate(model.parameters()):
        parameter.data = torch.randn(parameter.shape, generator=seeded(seed), dtype=FLOAT) * 0.5
    return model.requires_grad_(False)


def spans_by_hand(text, hidden):
    """A text with sentinels for hidden spans, and the spans."""
    kept, spans, n = [], [], -1
    for t, word in enumerate(text):
        if t not in hidden:
            kept.append(word)
            continue
        if t == 0 or t - 1 not in hidden:
            n += 1
            kept.append(VOCABULARY.sentinels[n])
            spans.append(VOCABULARY.sentinels[n])
        spans.append(word)
    return kept, [*spans, VOCABULARY.sentinels[n + 1]]


def middle_by_hand(text, start, stop, suffix_first):
    """A text whose middle was moved to its end."""
    p, s, m = VOCABULARY.marks
    before, middle, after = text[:start], text[start:stop], text[stop:]
    given = [p, s, *after, m, *before] if suffix_first else [p, *before, s, *after, m]
    return [*given, *middle, END]


def _asked(text, targets_at):
    """A row of targets: {position: token}, -100 elsewhere."""
    return [targets_at.get(t, -100) for t in range(len(text))]


def _shifted(text, first=0, never=()):
    return {t: text[t + 1] for t in range(first, len(text) - 1) if text[t + 1] not in never}


def batch_by_hand(name):
    """By hand: the rows of inputs, of targets, and who may see whom, as a function of row, query and key."""
    if name in ("fill_in_the_middle", "suffix_first"):
        rows = [middle_by_hand(text, *cut, name == "suffix_first") for text, cut in zip(TEXTS, CUTS, strict=True)]
        return rows, [_asked(row, _shifted(row, 0, VOCABULARY.marks)) for row in rows], lambda row, q, k: k <= q
    if name == "span_corruption":
        parts = [spans_by_hand(text, hidden) for text, hidden in zip(TEXTS, HIDDEN, strict=True)]
        rows, lengths = [kept + spans for kept, spans in parts], [len(kept) for kept, _ in parts]
    else:
        rows, lengths = TEXTS, LENGTHS
    match name:
        case "causal":
            return rows, [_asked(row, _shifted(row)) for row in rows], lambda row, q, k: k <= q
        case "right_to_left":
            targets = [_asked(row, {t: row[t - 1] for t in range(1, len(row))}) for row in rows]
            return rows, targets, lambda row, q, k: k >= q
        case "hide":
            inputs = [[MASK if t in HIDDEN[b] else word for t, word in enumerate(row)] for b, row in enumerate(rows)]
            targets = [_asked(row, {t: row[t] for t in HIDDEN[b]}) for b, row in enumerate(rows)]
            return inputs, targets, lambda row, q, k: True
        case "prefix" | "span_corruption":
            targets = [_asked(row, _shifted(row, n - 1)) for row, n in zip(rows, lengths, strict=True)]
            return rows, targets, lambda row, q, k: k <= q or k < lengths[row]


def first_place(wrong):
    """The indices of the first True of a mask."""
    return wrong.nonzero()[0].tolist()


def first_difference(found, wanted, axes, other="expected"):
    """None if two tensors of whole numbers are equal, else where they differ first, in words. other: what `wanted` is.

    first_difference([[7, 8]], [[7, -100]], "row position") = "row 0, position 1: found 8, expected IGNORE"
    """
    if found.shape != wanted.shape or found.dtype != wanted.dtype:
        return f"{found.dtype} {tuple(found.shape)}, expected {wanted.dtype} {tuple(wanted.shape)}"
    if (wrong := found != wanted).any():
        at = first_place(wrong)
        found, wanted = ("IGNORE" if it[tuple(at)] == -100 else it[tuple(at)].item() for it in (found, wanted))
        return f"{_place(axes, at)}found {found}, {other} {wanted}"


def largest_difference(found, wanted, axes="", tolerance=1e-9, other="expected"):
    """The same for floating-point numbers, where they differ most. No axes: two single numbers. NaN differs from all.

    tolerance: as that of `shared.clinic.difference`.
    """
    if found.shape != wanted.shape:
        return f"shape {tuple(found.shape)}, expected {tuple(wanted.shape)}"
    gaps = (found - wanted).abs().nan_to_num(nan=math.inf)
    if gaps.numel() and gaps.max() > tolerance:
        at = [int(i) for i in torch.unravel_index(gaps.argmax(), gaps.shape)]
        return f"{_place(axes, at)}found {found[tuple(at)]:.6g}, {other} {wanted[tuple(at)]:.6g}"


def _place(axes, at):
    """_place("row position", [1, 3]) = "row 1, position 3: "."""
    return ", ".join(f"{axis} {i}" for axis, i in zip(axes.split(), at, strict=True)) + ": " * bool(at)
