"""Checks of `instruct.py`: packing, and how packed rows are read."""

import torch
from instruct_cases import (
    IGNORE,
    NONE,
    PACKED,
    ROW,
    VOCABULARY,
    batch_by_hand,
    begun,
    conversations,
    first_difference,
    largest_difference,
    packed,
    small_model,
)
from torch import nn

from shared.clinic import Check, refusal


def _batches_differ(found, wanted):
    for part, one, other in zip(wanted._fields, found, wanted, strict=True):
        if gap := first_difference(one, other, "row position"):
            return f"{part}, {gap}"


def _check_pack(m):
    for padding in (3, 0):
        template = begun(m)._replace(padding=padding)
        if gap := _batches_differ(m.pack(conversations(m), ROW, template), packed(m, padding=padding)):
            return f"conversations of 7, 4, 2, 1, 3 and 9 inputs in rows of {ROW}, {gap}"
        if gap := _batches_differ(
            m.pack(conversations(m), 11, template), packed(m, [[0, 1], [2, 3, 4], [5]], 11, padding)
        ):
            return f"conversations of 7, 4, 2, 1, 3 and 9 inputs in rows of 11, {gap}"


def _check_pad(m):
    for padding in (3, 0):
        template, n = begun(m)._replace(padding=padding), range(6)
        wanted = packed(m, [[i] for i in n], 9, padding)
        if gap := _batches_differ(m.pad(conversations(m), template), wanted):
            return f"conversations of 7, 4, 2, 1, 3 and 9 inputs, {gap}"
        if gap := _batches_differ(m.pad(conversations(m)[1:3], template), packed(m, [[1], [2]], 4, padding)):
            return f"conversations of 4 and 2 inputs, {gap}"


def _check_padding_is_not_asked(m):
    """Also where padding is the stop, which is asked for once in each conversation."""
    template = begun(m)
    talk = m.render([("user", [7, 8]), ("assistant", [9])], template)
    other = m.render([("user", [7]), ("assistant", [9, 10, 11, 12])], template)
    for name, batch in (("pack", m.pack([talk, other], 16, template)), ("pad", m.pad([talk, other], template))):
        stops = int((batch.targets == template.stop).sum())
        if stops != 2:
            return f"{name}, two conversations, a stop that is the padding, too: {stops} targets are it, expected 2"
        if (wrong := (batch.documents == NONE) & (batch.targets != IGNORE)).any():
            row, at = wrong.nonzero()[0].tolist()
            return f"{name}, row {row}, position {at}, padding: found target {int(batch.targets[row, at])}"


def _check_pack_refused(m):
    return refusal(
        [
            ("9 inputs for rows of 8", "conversation 5 has 9", lambda: m.pack(conversations(m), 8, begun(m))),
            ("7 inputs for rows of 6", "conversation 0 has 7", lambda: m.pack(conversations(m)[:2], 6, begun(m))),
        ]
    )


DOCUMENTS = [[0, 0, 0, 1, 1, 2, NONE], [0, 1, 1, 1, 1, 1, 1], [0, 0, NONE, NONE, NONE, NONE, NONE]]


def _check_packing_mask(m):
    for documents in (DOCUMENTS, DOCUMENTS[1:2], [[0, 0, 1, NONE]], [[NONE]], [[0], [0]]):
        wanted = [
            [[q == k or (k < q and row[q] == row[k] != NONE) for k in range(len(row))] for q in range(len(row))]
            for row in documents
        ]
        found = m.packing_mask(torch.tensor(documents))
        if gap := first_difference(found, torch.tensor(wanted), "row query key"):
            return f"documents {documents}, {gap}"


def _alone(model, conversation):
    """The logits of a conversation that is read by itself, (T, V)."""
    return model(torch.tensor([conversation[0][:-1]]))[0]


def _places(which, of):
    """Where each conversation stands in packed rows: row, slice, index."""
    for row, members in enumerate(which):
        at = 0
        for i in members:
            n = len(of[i][0]) - 1
            yield row, slice(at, at + n), i
            at += n


@torch.no_grad()
def _check_read(m):
    model, of = small_model(), conversations(m)
    for name, which in (
        ("side by side", PACKED),
        ("two in a row", [[0, 2], [1, 4], [3], [5]]),
        ("one in a row", [[i] for i in range(6)]),
        ("all in one row", [range(6)]),
    ):
        batch = packed(m, which, 26 if len(which) == 1 else ROW)
        logits = m.read(model, batch)
        for row, place, i in _places(which, of):
            if gap := largest_difference(logits[row, place], _alone(model, of[i]), "position logit", other="alone"):
                return f"{name}, conversation {i}, and the same in a row of its own, {gap}"
        if not logits.isfinite().all():
            row, at, _ = (~logits.isfinite()).nonzero()[0].tolist()
            return f"{name}, row {row}, position {at}: a logit is not finite"


@torch.no_grad()
def _check_neighbours(m):
    """Another conversation in the place of the first of each row."""
    model, of = small_model(), conversations(m)
    other = [m.Conversation([28 - token for token in ids], answer) for ids, answer in of]
    before = m.read(model, packed(m))
    rows = [[(other if place == 0 else of)[i] for place, i in enumerate(row)] for row in PACKED]
    after = m.read(model, batch_by_hand(m, rows, ROW, 3))
    for row, place, i in _places(PACKED, of):
        if place.start and (
            gap := largest_difference(after[row, place], before[row, place], "position logit", other="before")
        ):
            return f"the first conversation of row {row} was changed; logits of conversation {i} behind it, {gap}"


class _Plain(nn.Module):
    """A model that takes ids and nothing else: what it has read so far, summed."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(VOCABULARY, VOCABULARY)

    def forward(self, tokens):
        return self.table(tokens).cumsum(dim=1)


@torch.no_grad()
def _check_read_plain(m):
    model, of = _Plain(), conversations(m)
    logits = m.read(model, packed(m, [[i] for i in range(6)]))
    for row, place, i in _places([[i] for i in range(6)], of):
        if gap := largest_difference(logits[row, place], _alone(model, of[i]), "position logit", 0, other="alone"):
            return f"conversation {i} in a row of its own with padding behind it, {gap}"


@torch.no_grad()
def _check_hooks_are_gone(m):
    model, tokens = small_model(), torch.tensor([[9, 8, 14, 20]])
    before = model(tokens)
    m.read(model, packed(m))
    if gap := largest_difference(model(tokens), before, "row position logit", 0, other="before"):
        return f"the model itself, after it read packed rows, {gap}"


PACK_CHECKS = [
    Check(
        "pack puts each conversation into the first row that has room",
        _check_pack,
        "In which row does each conversation stand, from where on, and what is known of each of its tokens?",
        about=["pack"],
    ),
    Check(
        "pad puts each conversation into a row of its own, as long as the longest",
        _check_pad,
        "How long is a row, and what stands behind a conversation?",
        about=["pad"],
    ),
    Check(
        "padding is not asked for, and a stop is, even where they are one token",
        _check_padding_is_not_asked,
        "By what is it known that a position is padding?",
        about=["pack", "pad"],
    ),
    Check("a conversation that is longer than a row is refused", _check_pack_refused, about=["pack"]),
    Check(
        "in packed rows a token sees itself and what stands before it in its conversation",
        _check_packing_mask,
        "Which keys are of the query's conversation, which stand before it, and what may padding see?",
        about=["packing_mask"],
    ),
    Check(
        "packed or padded, a conversation is read as if it stood alone",
        _check_read,
        "What would a conversation in a row of its own see, and at which positions would its tokens stand?",
        about=["packing_mask", "read"],
    ),
    Check(
        "another conversation before it changes nothing",
        _check_neighbours,
        "Through what could a token know of another conversation?",
        about=["packing_mask", "read"],
    ),
    Check(
        "rows of one conversation can be read by any causal model",
        _check_read_plain,
        "What does a model need to be told, if there is one conversation in a row?",
        about=["read"],
    ),
    Check("the model is as before when it has read packed rows", _check_hooks_are_gone, about=["read"]),
]
