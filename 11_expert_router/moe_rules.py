"""What this lesson's sweeps must show, written before the seeds that judge were run; bounds are by other seeds' pilot.

    small, _ = stored(moe_sweep.SWEEP.results)
    real, _ = stored(real_moe_sweep.SWEEP.results)
    overload(small, task="small", arm="none", steps=600)       # how many even shares one expert has, by seed
    supports(small, real), against(small, real), limits(small, real), further(small, real)     # `Finding`s

A model's mixtures are judged together, by their worse layer: which of two layers is the uneven one is up to the seed.
"""

from collections.abc import Callable

JUDGES = 10  # seeds from here up
PLAIN = {"n_experts": 8, "k": 1}


def by_seed(rows: list[dict], what: Callable[[dict], float], **job) -> list[float]:
    """A number for each seed that judges. job: n_experts is 8 and k is 1 where it is not said, and dose 0 of a small
    model. Raises ValueError where nothing such is stored, or a seed twice."""
    wanted = PLAIN | ({"dose": 0.0} if job.get("task") == "small" else {}) | job
    mine = [row for row in rows if row["seed"] >= JUDGES and wanted.items() <= row.items()]
    found = {row["seed"]: what(row) for row in mine}
    if not found or len(found) < len(mine):
        raise ValueError(f"{len(mine)} rows of {len(found)} seeds of {wanted}: which are stored?")
    return [found[seed] for seed in sorted(found)]


def layers(row: dict, name: str) -> list[float]:
    """A row's number of each layer; the real model's rows are of one."""
    return row[name] if isinstance(row[name], list) else [row[name]]


def overload(rows: list[dict], **job) -> list[float]:
    """How many even shares the fullest expert has, in the worse layer: 1 if even, E / k if the same k have all."""
    return by_seed(rows, lambda row: row["n_experts"] * max(layers(row, "largest")), **job)


def dead(rows: list[dict], **job) -> list[float]:
    """The share of all layers' experts that are dead."""
    return by_seed(rows, lambda row: sum(layers(row, "dead")) / len(layers(row, "dead")) / row["n_experts"], **job)


def mean(rows: list[dict], name: str, **job) -> list[float]:
    """Of a number that each layer has, the mean of the layers."""
    return by_seed(rows, lambda row: sum(layers(row, name)) / len(layers(row, name)), **job)


def more(rows: list[dict], arm: str, than: str, **job) -> list[float]:
    """By how much an arm's loss is higher than another's, seed by seed."""
    one, other = (by_seed(rows, lambda row: row["loss"], arm=name, **job) for name in (arm, than))
    return [a - b for a, b in zip(one, other, strict=True)]
