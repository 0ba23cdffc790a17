"""A sweep's finished jobs as runs of Weights & Biases, one a job, in a group of the sweep's name."""

from collections.abc import Iterator

from shared.sweeps.sweep import Sweep
from shared.tracking import track

LONGEST = 100  # letters of a run's name


def log_run(sweep: Sweep, row: dict) -> None:
    """Log a row: the job is the run's config, the result its numbers. A list of numbers is a curve: one a step."""
    job = sweep.job_of(row)
    result = {name: value for name, value in row.items() if name not in job}
    curves = dict(series(result))
    name = ", ".join(f"{name} {value}" for name, value in job.items())[:LONGEST]
    with track(name, job, group=sweep.name) as run:
        for step in range(max(map(len, curves.values()), default=0)):
            run.log(**{name: curve[step] for name, curve in curves.items() if step < len(curve)})


def series(value, name: str = "") -> Iterator[tuple[str, list]]:
    """The numbers and lists of numbers of a result, by name: of {"loss": {"RoPE": 2.5}} ("loss/RoPE", [2.5])."""
    if isinstance(value, dict):
        for part, inner in value.items():
            yield from series(inner, f"{name}/{part}" if name else part)
    elif isinstance(value, int | float):
        yield name, [value]
    elif isinstance(value, list) and all(isinstance(it, int | float) for it in value):
        yield name, value
