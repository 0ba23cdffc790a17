"""A sweep: jobs, and how one is run."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from shared.provenance import code_hash


@dataclass(frozen=True)
class Sweep:
    """A list of jobs, and how to run one.

    script: the file that defines the sweep. name: its rows stand in results/<name>.json beside the script. run: takes a
    job and returns its result, both dicts of what JSON knows, with different names; a function that a fresh Python can
    import. quick: jobs of seconds that try the whole path. cost: a job's share of the time, in any unit. comparable:
    the jobs that --verify may run again, cheap ones whose result does not hang on rounding. tolerance: by how much the
    numbers of a result's fields may differ then (default 0). settings: what else the file says. files: what the script
    reads, besides code. device: "cuda" for what is measured on a GPU. Raises ValueError if two jobs are equal.
    """

    script: str
    name: str
    run: Callable[[dict], dict]
    jobs: list[dict]
    quick: list[dict]
    cost: Callable[[dict], float] = lambda job: 1.0
    comparable: Callable[[dict], bool] = lambda job: True
    tolerance: dict[str, float] = field(default_factory=dict)
    settings: dict = field(default_factory=dict)
    files: Sequence[Path] = ()
    device: str = "cpu"

    def __post_init__(self):
        seen = set()
        for job in self.jobs:
            if key(job) in seen:
                raise ValueError(f"two jobs of sweep {self.name!r} are equal: {job}; expected each once")
            seen.add(key(job))

    @property
    def results(self) -> Path:
        """The file of all rows."""
        return Path(self.script).resolve().parent / "results" / f"{self.name}.json"

    @property
    def underway(self) -> Path:
        """The folder of finished jobs, as long as others are not."""
        return self.results.with_suffix(".jobs")

    @cached_property
    def code(self) -> str:
        """The hash of today's code."""
        return code_hash(Path(self.script), self.files)

    @cached_property
    def fields(self) -> set[str]:
        """The names that jobs have."""
        return {name for job in self.jobs for name in job}

    def job_of(self, row: dict) -> dict:
        """The job that a row is of."""
        return {name: value for name, value in row.items() if name in self.fields}

    def key_of(self, row: dict) -> str:
        """The key of the job that a row is of."""
        return key(self.job_of(row))


def key(job: dict) -> str:
    """A name for a job, the same for equal ones (1 and 1.0, too). Raises ValueError for what JSON does not know."""
    try:
        same = json.loads(json.dumps(job, allow_nan=False), parse_int=float)
    except (TypeError, ValueError) as error:
        raise ValueError(f"job {job} cannot be stored as JSON: {error}") from error
    return hashlib.sha256(json.dumps(same, sort_keys=True).encode()).hexdigest()[:16]
