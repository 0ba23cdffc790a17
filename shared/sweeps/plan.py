"""What a sweep has left to do, and how long that may take by what is stored.

x: 4 jobs, 2 done, 2 left
2 with arm "b"; steps 100, 300
cost left: 400 of 800
about 3 min of one worker, as 2 runs of x took 3 min on a slow one, 1 thread; by 8 at a time 100 s
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from shared.sweeps.files import current_record, finished, is_current, machine, stored_record
from shared.sweeps.sweep import Sweep, key

MOST = 12  # values of a field that are shown


class Pace(NamedTuple):
    """How long runs on one machine took. seconds: of all of them; cost: theirs, in the sweep's unit."""

    runs: int
    seconds: float
    cost: float


def left(sweep: Sweep) -> list[dict]:
    """The jobs that are not done by today's code."""
    done = {sweep.key_of(row) for row in current_record(sweep)["rows"]} | finished(sweep).keys()
    return [job for job in sweep.jobs if key(job) not in done]


def plan(sweep: Sweep, workers: int, others: Iterable[Sweep] = ()) -> Iterator[str]:
    """Lines: the jobs, their cost, and the time of the workers.

    others: sweeps with the same unit of cost, whose pace is taken where this one has no run stored.
    """
    jobs = left(sweep)
    yield f"{sweep.name}: {len(sweep.jobs)} jobs, {len(sweep.jobs) - len(jobs)} done, {len(jobs)} left"
    if sweep.results.exists() and not is_current(sweep):
        yield "the stored rows were made by other code and are run again (--verify keeps them if a sample agrees)"
    if not jobs:
        return
    yield from kinds(jobs)
    cost = sum(map(sweep.cost, jobs))
    yield f"cost left: {cost:.3g} of {sum(map(sweep.cost, sweep.jobs)):.3g}"
    known = next(filter(lambda it: paces(it), [sweep, *others]), sweep)
    for where, pace in paces(known).items():
        one = cost * pace.seconds / pace.cost
        yield (
            f"about {duration(one)} of one worker, as {pace.runs} runs of {known.name} took {duration(pace.seconds)} "
            f"on {where}; by {workers} at a time {duration(one / min(workers, len(jobs)))}"
        )


def kinds(jobs: Iterable[dict]) -> Iterator[str]:
    """A line for jobs that have the same fields: how many, and each field with its values."""
    groups = {}
    for job in jobs:
        groups.setdefault(tuple(job), []).append(job)
    for names, group in groups.items():
        yield f"{len(group)} with " + "; ".join(f"{name} {_values([job[name] for job in group])}" for name in names)


def _values(values: Sequence) -> str:
    """Different values, in their order; of many the first ones and the last."""
    shown = [*dict.fromkeys(map(json.dumps, values))]
    if len(shown) > MOST:
        shown = [*shown[: MOST - 2], f"... ({len(shown)} values)", shown[-1]]
    return ", ".join(shown)


def paces(sweep: Sweep) -> dict[str, Pace]:
    """Of each machine that made stored runs of the sweep's jobs, whatever their code: how long these took."""
    record = stored_record(sweep) if sweep.results.exists() else {"made": [], "rows": []}
    rows, jobs, found = iter(record["rows"]), {key(job): job for job in sweep.jobs}, {}
    groups = [(made, made["seconds"], [*map(sweep.key_of, islice(rows, made["rows"]))]) for made in record["made"]]
    groups += [(outcome["made"], outcome["seconds"], [name]) for name, outcome in finished(sweep).items()]
    for made, seconds, names in groups:
        if jobs.keys() >= {*names}:  # else some of these runs are of other jobs, whose cost is not known
            before = found.get(machine(made), Pace(0, 0.0, 0.0))
            more = len(names), seconds, sum(sweep.cost(jobs[name]) for name in names)
            found[machine(made)] = Pace(*map(sum, zip(before, more, strict=True)))
    return found


def duration(seconds: float) -> str:
    """A time in the unit that suits it: 94 s, 12 min, 3.4 h."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 2 * 3600 else f"{seconds / 3600:,.1f} h"
