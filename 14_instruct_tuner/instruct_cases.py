"""Templates, conversations and a model for the checks of `instruct.py`, and what must come of them, by hand.

No two sizes are equal where one could stand for the other: a vocabulary of 29, a decoder of 2 layers, 3 heads and 12
numbers a token with learned positions, conversations of 8, 5, 3, 2, 4 and 10 tokens in rows of 9. Everything is made
anew: a fault may write to what it is given.
"""

import math

import torch

from shared.tiny_lm import TinyLM

FLOAT = torch.float64
IGNORE, NONE = -100, -1
VOCABULARY, ROW = 29, 9


def begun(m):
    """A template that begins with a token which is its stop and its padding, too; a user's turn has no end."""
    return m.Template([0], {"user": [1], "assistant": [2]}, {"user": [], "assistant": [0]}, 0, 0)


def chat(m):
    """As SmolLM2's: "<|im_start|>user\\n", and a "\\n" behind the stop. It does not begin with anything."""
    opens = {"system": [1, 5, 4], "user": [1, 6, 4], "assistant": [1, 7, 4]}
    return m.Template([], opens, {role: [2, 4] for role in opens}, 2, 3)


def lengthy(m):
    """A template that begins with two tokens and whose stop stands in the middle of the assistant's end."""
    opens = {"system": [4], "user": [5, 6], "assistant": [5, 7]}
    return m.Template([3, 8], opens, {"system": [9], "user": [], "assistant": [10, 11, 12]}, 11, 13)


TALKS = [  # template, messages, its tokens, and 1 for each that the assistant has to write
    (begun, [("user", [7, 8]), ("assistant", [9])], [0, 1, 7, 8, 2, 9, 0], "0000011"),
    (
        begun,
        [("user", [7]), ("assistant", [9, 10, 11]), ("user", [12, 13]), ("assistant", [])],
        [0, 1, 7, 2, 9, 10, 11, 0, 1, 12, 13, 2, 0],
        "0000111100001",
    ),
    (
        chat,
        [("system", [20, 4, 21]), ("user", [22]), ("assistant", [23, 24])],
        [1, 5, 4, 20, 4, 21, 2, 4, 1, 6, 4, 22, 2, 4, 1, 7, 4, 23, 24, 2, 4],
        "000000000000000001110",
    ),
    (
        chat,
        [("user", [22, 22]), ("assistant", []), ("user", [25]), ("assistant", [26, 23, 26])],
        [1, 6, 4, 22, 22, 2, 4, 1, 7, 4, 2, 4, 1, 6, 4, 25, 2, 4, 1, 7, 4, 26, 23, 26, 2, 4],
        "00000000001000000000011110",
    ),
    (
        lengthy,
        [("user", [20, 6, 7]), ("assistant", [21, 12])],
        [3, 8, 5, 6, 20, 6, 7, 5, 7, 21, 12, 10, 11, 12],
        "00000000011110",
    ),
    (
        lengthy,
        [("system", [22]), ("assistant", [23]), ("system", [])],
        [3, 8, 4, 22, 9, 5, 7, 23, 10, 11, 12, 4, 9],
        "0000000111000",
    ),
]


def talks(m):
    """TALKS as template, messages, tokens, answer; what each starts with is copied."""
    for template, messages, ids, answer in TALKS:
        yield template(m), [(role, list(said)) for role, said in messages], list(ids), [it == "1" for it in answer]


def conversations(m):
    """Six, of 7, 4, 2, 1, 3 and 9 inputs. The fourth has no target, the last one in its midst."""
    sizes = [(8, {6, 7}), (5, {2, 3, 4}), (3, {2}), (2, set()), (4, {3}), (10, {3, 4, 9})]
    ids = [[8 + (5 * i + 3 * t) % 21 for t in range(size)] for i, (size, _) in enumerate(sizes)]
    return [m.Conversation(row, [t in its for t in range(size)]) for row, (size, its) in zip(ids, sizes, strict=True)]


PACKED = [[0, 2], [1, 3, 4], [5]]  # which of them share a row of 9, each in the first that has room


def batch_by_hand(m, rows, length, padding):
    """Rows of conversations as a Batch: a row is a list of them."""
    wanted = []
    for row in rows:
        cells = []
        for i, (ids, answer) in enumerate(row):
            for t in range(len(ids) - 1):
                cells.append((ids[t], ids[t + 1] if answer[t + 1] else IGNORE, i, t))
        cells += [(padding, IGNORE, NONE, 0)] * (length - len(cells))
        wanted.append(cells)
    return m.Batch(*torch.tensor(wanted).unbind(dim=-1))


def packed(m, which=PACKED, length=ROW, padding=3):
    """`conversations` in rows, by hand."""
    of = conversations(m)
    return batch_by_hand(m, [[of[i] for i in row] for row in which], length, padding)


def seeded(seed=0):
    """A generator of its own."""
    return torch.Generator().manual_seed(seed)


def draw(*shape, seed=0):
    """Numbers of size 1, float64."""
    return torch.randn(shape, generator=seeded(seed), dtype=FLOAT)


def small_model(**parts):
    """A decoder of large random weights in float64."""
    model = TinyLM(VOCABULARY, 40, 12, 2, 3, **parts).to(FLOAT)
    for seed, parameter in enumerate(model.parameters()):
        parameter.data = draw(*parameter.shape, seed=seed) * 0.5
    return model


def list_difference(found, wanted, axis="position"):
    """None if two lists of whole numbers are equal, else where they differ first, in words."""
    found, wanted = [int(it) for it in found], [int(it) for it in wanted]
    for i, (one, other) in enumerate(zip(found, wanted, strict=False)):
        if one != other:
            return f"{axis} {i}: found {_sign(one)}, expected {_sign(other)}"
    if len(found) != len(wanted):
        return f"found {len(found)} of them, expected {len(wanted)}"


def first_difference(found, wanted, axes):
    """The same for tensors, whose kind of number counts, too. axes: what each is called, "row position"."""
    if found.shape != wanted.shape or found.dtype != wanted.dtype:
        return f"{found.dtype} {tuple(found.shape)}, expected {wanted.dtype} {tuple(wanted.shape)}"
    if (wrong := found != wanted).any():
        at = tuple(wrong.nonzero()[0].tolist())
        return f"{_place(axes, at)}found {_sign(found[at].item())}, expected {_sign(wanted[at].item())}"


def largest_difference(found, wanted, axes="", tolerance=1e-9, other="expected"):
    """The same for floating-point numbers, where they differ most. NaN differs from all. No axes: two single numbers.

    tolerance: as that of `shared.clinic.difference`. other: what `wanted` is.
    """
    if found.shape != wanted.shape:
        return f"shape {tuple(found.shape)}, expected {tuple(wanted.shape)}"
    gaps = (found - wanted).abs().nan_to_num(nan=math.inf)
    if gaps.numel() and gaps.max() > tolerance:
        at = tuple(int(i) for i in torch.unravel_index(gaps.argmax(), gaps.shape))
        digits = 6 if f"{found[at]:.6g}" != f"{wanted[at]:.6g}" else 12
        return f"{_place(axes, at)}found {found[at]:.{digits}g}, {other} {wanted[at]:.{digits}g}"


def _place(axes, at):
    return ", ".join(f"{axis} {i}" for axis, i in zip(axes.split(), at, strict=True)) + ": " * bool(at)


def _sign(number):
    return "IGNORE" if number == IGNORE else number
