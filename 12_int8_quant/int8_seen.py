"""Maps of one text for pictures: the largest numbers by layer and token, and what one scale for all tokens leaves.

Matrices are named as in `int8_arms.KINDS`; a list has a number for each layer.
"""

import torch
from int8 import absmax_scale, quantize, round_trip, sqnr
from int8_arms import KINDS
from int8_model import watch
from int8_real import rounded, whole

from shared.hooks import look

FIRST_TOKENS = 16
BY = {"tensor": "tensor", "token": "row", "channel": "column"}


def kind_of(name: str) -> str:
    """Of a linear layer's name."""
    return next(kind for kind, it in KINDS.items() if name.endswith(it))


def by_kind(x: torch.Tensor, measure) -> dict[str, list[float]]:
    """measure(x) of each linear layer's input, (1, T, in), for a text (T,)."""
    found = {kind: [] for kind in KINDS}
    watch(whole(), [x[None]], lambda name, given: found[kind_of(name)].append(round(float(measure(given)), 4)))
    return found


def numbers(x: torch.Tensor) -> dict:
    """The largest |x| of each input: of the first token, of the others, and the others' root mean square."""
    return {
        "first": by_kind(x, lambda given: given[:, 0].abs().max()),
        "others": by_kind(x, lambda given: given[:, 1:].abs().max()),
        "rms": by_kind(x, lambda given: given[:, 1:].square().mean().sqrt()),
    }


def stream(x: torch.Tensor) -> dict:
    """The residual stream's largest |number|: a list for the embedding and one for each block, of the first tokens."""
    seen = look(whole(), x[None], ["embedding", "block"])
    maps = [each[0, :FIRST_TOKENS].abs().amax(dim=-1) for each in seen["embedding"] + seen["block"]]
    return {"stream": rounded(torch.stack(maps), 2)}


def codes(x: torch.Tensor) -> dict:
    """Of all tokens but the first: the share of codes that are 0 under each scale, and signal to noise in dB. "tensor"
    has the first token in its scale."""
    zeros = {
        name: by_kind(x, lambda given, by=by: (quantize(given, absmax_scale(given, by))[:, 1:] == 0).float().mean())
        for name, by in BY.items()
    }
    noise = {
        name: by_kind(x, lambda given, by=by: sqnr(given[:, 1:], round_trip(given, by)[:, 1:]))
        for name, by in BY.items()
    }
    return {"zeros": zeros, "sqnr": noise}


MAPS = {"numbers": numbers, "stream": stream, "codes": codes}
