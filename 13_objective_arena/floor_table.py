"""The floors that `floor_sweep` stored, as one table: what each objective leaves open, in nats per target.

    rows, how = stored(floor_sweep.SWEEP.results)
    floors(rows)["two sides"]          # Floor(nats=0.157, error=0.003, targets=30289)

"from the right" is the left side's floor, by the chain rule, and no measurement; "random order", the floor of masked
diffusion's bound, is the same less what the length tells. Each is of the stories in `objective_world.held_out`: what a
model's loss on other stories, or other masks, is compared with has the error besides.
"""

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
from objective_lengths import length_nats

Rows = Iterable[Mapping]


class Floor(NamedTuple):
    """nats per target, the standard error over texts, and how many targets there were."""

    nats: float
    error: float
    targets: int


def floors(rows: Rows) -> dict[str, Floor]:
    """By objective. Raises ValueError without rows of "left"."""
    rows = list(rows)
    found = {part: ratio(*columns(rows, part)) for part in dict.fromkeys(row["part"] for row in rows)}
    nats, asked = columns(rows, "left")
    length = np.array([length_nats(int(n)) for n in asked])
    return found | {"from the right": found["left"], "random order": ratio(nats - length, asked)}


def columns(rows: Rows, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Of each text the nats in all and the number of targets, in the order of the texts. Raises ValueError for a part
    that no row has."""
    chosen = sorted((row for row in rows if row["part"] == part), key=lambda row: row["first"])
    if not chosen:
        raise ValueError(f"no row of {part!r}: run the sweep")
    return tuple(np.concatenate([row[name] for row in chosen]).astype(float) for name in ("nats", "asked"))


def ratio(nats: np.ndarray, asked: np.ndarray) -> Floor:
    """Nats per target over all texts, whose numbers of targets differ."""
    mean = nats.sum() / asked.sum()
    error = (nats - mean * asked).std(ddof=1) / math.sqrt(len(nats)) / asked.mean()
    return Floor(float(mean), float(error), int(asked.sum()))
