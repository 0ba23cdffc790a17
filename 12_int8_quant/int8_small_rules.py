"""What the small world must show, written before the seeds that judge were run; bounds are a pilot's of other seeds.

    rows, _ = stored(int8_sweep.SWEEP.results)
    more(rows, "both by tensor", task="channels", size=100)         # nats lost, a number for each seed
    supports(rows), limits(rows), further(rows)                     # `shared.finding.Finding`s, for a verdict

A loss of several nats differs between seeds by as much as itself, so large ones are judged by their power of ten, and
what is left of them by its share.
"""

import math

from int8_sweep import ARMS, CHANNELS

from shared.finding import Finding

SIZE = 100  # at which cures are judged
LARGE = "an outlier is many times as large as the rest (a channel over 30 times)"
ACTIVATIONS = "activations are rounded, not weights alone"
SHARED = "outliers share a scale with the rest"
UNCURED = "nothing splits them off, moves or rotates them"


def more(rows: list[dict], arm: str, **job) -> list[float]:
    """Nats that an arm loses more than the float model, by seed. job: task and size; where it is not said, setting is
    "trained", text "stories" and n, of channels, 4. Raises ValueError where nothing such is stored."""
    wanted = {"setting": "trained", "text": "stories"} | ({"n": CHANNELS} if job["task"] == "channels" else {}) | job
    found = {row["seed"]: row["more"][arm] for row in rows if "more" in row and wanted.items() <= row.items()}
    if not found:
        raise ValueError(f"no rows of {wanted}: which are stored?")
    return [found[seed] for seed in sorted(found)]


def power(rows: list[dict], arm: str, **job) -> list[float]:
    """The same as a power of ten."""
    return [math.log10(max(it, 1e-6)) for it in more(rows, arm, **job)]


def share(rows: list[dict], arm: str, of: str, **job) -> list[float]:
    """What an arm loses as a share of what another loses, by seed."""
    return [a / max(b, 1e-6) for a, b in zip(more(rows, arm, **job), more(rows, of, **job), strict=True)]


def worst(rows: list[dict], **job) -> list[float]:
    """The largest change of all arms, of either sign, by seed."""
    return [max(map(abs, each)) for each in zip(*(more(rows, arm, **job) for arm in ARMS), strict=True)]


def supports(rows: list[dict]) -> list[Finding]:
    """What must be so for "outliers destroy precision" to hold here."""
    channels, token = {"task": "channels", "size": SIZE}, {"task": "token", "size": SIZE}
    tensor, inputs = "both by tensor", "inputs by tensor"
    return [
        Finding("4 channels x 100, W8A8 by tensor: nats lost, power of ten", power(rows, tensor, **channels), 0),
        Finding("inputs alone: nats lost, power of ten", power(rows, inputs, **channels), 0),
        Finding(
            "as many random channels in float: share of that loss which is left",
            share(rows, "inputs, random in float", inputs, **channels),
            at_least=0.5,
        ),
        Finding("one token x 100, by tensor: nats lost, power of ten", power(rows, tensor, **token), 0),
        Finding(
            "another kind of text, 4 channels: nats lost, power of ten",
            power(rows, tensor, text="facts", **channels),
            0,
        ),
        Finding(
            "a small Llama, 2 channels: nats lost, power of ten",
            power(rows, tensor, setting="llama", n=2, **channels),
            at_least=-0.5,
        ),
    ]


def limits(rows: list[dict]) -> list[Finding]:
    """Where it stops being so."""
    channels, token = {"task": "channels", "size": SIZE}, {"task": "token", "size": SIZE}
    inputs, thirty = "inputs by tensor", {"task": "channels", "size": 30}

    def lost(words, arm, at_most, when, **job):
        return Finding(f"{words}: nats lost", more(rows, arm, **job), at_most=at_most, when=when)

    return [
        Finding(
            "nothing planted: the largest change of all arms, nats",
            worst(rows, task="channels", size=1),
            at_most=0.0015,
            when=LARGE,
            possible=(0, math.inf),
        ),
        lost("4 channels x 30, by tensor", "both by tensor", 0.1, LARGE, **thirty),
        lost("weights alone, by row", "weights by row", 0.005, ACTIVATIONS, **channels),
        lost("a scale for each channel", "inputs by channel", 0.002, SHARED, **channels),
        Finding(
            "the planted channels in float: share of the loss which is left",
            share(rows, "inputs, planted in float", inputs, **channels),
            at_most=0.01,
            when=SHARED,
        ),
        lost("LLM.int8() at 6", "both, split at 6", 0.005, UNCURED, **channels),
        lost("SmoothQuant 0.5", "both, SmoothQuant 0.5", 0.002, UNCURED, **channels),
        lost("a Hadamard rotation", "both, Hadamard", 0.02, UNCURED, **channels),
        lost("a large token, by token", "both by token", 0.002, SHARED, **token),
        Finding(
            "that token in float: share of the loss which is left",
            share(rows, "inputs, planted in float", inputs, **token),
            at_most=0.01,
            when=SHARED,
        ),
    ]


def further(rows: list[dict]) -> list[Finding]:
    """What is said beside the verdict."""
    channels, token = {"task": "channels", "size": SIZE}, {"task": "token", "size": SIZE}
    tensor = "both by tensor"

    def left(words, arm, job, **bound):
        return Finding(f"{words}: share of the loss by tensor which is left", share(rows, arm, tensor, **job), **bound)

    return [
        left("4 channels, by token", "both by token", channels, at_most=0.2),
        left("4 channels, a zero point", "both with zero point", channels, at_least=0.3),
        left("one token, Hadamard", "both, Hadamard", token, at_least=0.4),
        left("one token, SmoothQuant 0.5", "both, SmoothQuant 0.5", token, at_least=0.6),
        left("one token, a random token in float", "inputs, random in float", token, at_least=0.6),
        Finding("4 channels x 10, by tensor: nats lost", more(rows, tensor, task="channels", size=10), at_most=0.005),
        Finding(
            "1 channel x 100, by tensor: nats lost, power of ten", power(rows, tensor, n=1, **channels), at_least=-0.3
        ),
        Finding("16 channels x 100, by tensor: nats lost, power of ten", power(rows, tensor, n=16, **channels), 0),
    ]
