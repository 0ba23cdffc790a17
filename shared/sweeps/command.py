"""A sweep's command line: see what is left to do, start it or go on, try it, or verify what is stored."""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from functools import partial

from shared.sweeps.again import differences, sample, values
from shared.sweeps.files import collect, keep, store, stored_record
from shared.sweeps.plan import duration, left, plan
from shared.sweeps.sweep import Sweep, key
from shared.sweeps.workers import attempt, in_processes

STOPPED = 130  # the shell's exit status for what Ctrl-C ended


def main(sweep: Sweep | dict[str, Sweep], over: Callable = in_processes) -> int:
    """Do what the command line asks. Returns the exit status: 0, or 1 if a job failed or differs, or STOPPED.

    sweep: one, or a script's grids by name, of which --grid chooses; without it, --dry-run, --quick and --verify take
    all in turn. over: runs jobs as `shared.sweeps.workers.in_processes` does. Raises ValueError if two grids have one
    name, and so one file.
    """
    grids = sweep if isinstance(sweep, dict) else {"": sweep}
    if len({it.name for it in grids.values()}) < len(grids):
        raise ValueError(f"grids {list(grids)} have names {[it.name for it in grids.values()]}: expected each once")
    asked = _asked(grids)
    chosen = [grids[asked.grid]] if asked.grid else list(grids.values())
    try:
        return max(_do(it, asked, over, list(grids.values())) for it in chosen)
    except KeyboardInterrupt:
        print("\nstopped; what is finished is kept: start again to go on")
        return STOPPED


def _asked(grids: dict[str, Sweep]) -> argparse.Namespace:
    """What the command line says, if it can be done."""
    jobs = " or ".join(f"{len(it.jobs)} jobs, stored in {it.results.name}" for it in grids.values())
    parser = argparse.ArgumentParser(description=jobs)
    parser.set_defaults(grid="")
    if len(grids) > 1:
        parser.add_argument("--grid", choices=grids, help="which jobs: to start, one must be named")
    where, what = parser.add_mutually_exclusive_group(), parser.add_mutually_exclusive_group()
    where.add_argument("--workers", type=int, default=1, metavar="N", help="processes here, one thread each (1)")
    where.add_argument("--ray", nargs="?", const="local", metavar="ADDRESS", help="on Ray: here, or a cluster's")
    what.add_argument("--dry-run", action="store_true", help="say what is left and how long it may take")
    what.add_argument("--quick", action="store_true", help="try the whole path in seconds and write nothing")
    what.add_argument("--verify", type=int, nargs="?", const=8, metavar="N", help="run N stored jobs again (8)")
    parser.add_argument("--track", action="store_true", help="log each finished job to Weights & Biases")
    asked = parser.parse_args()
    if min(asked.workers, 1 if asked.verify is None else asked.verify) < 1:
        parser.error("--workers and --verify: expected at least 1")
    starts = not (asked.dry_run or asked.quick or asked.verify)
    if len(grids) > 1 and starts and not asked.grid:
        parser.error(f"--grid: expected one of {', '.join(grids)}")
    if asked.track and not starts:
        parser.error("--track: only what is started is logged")
    return asked


def _do(sweep: Sweep, asked: argparse.Namespace, over: Callable, grids: list[Sweep]) -> int:
    """Do with one sweep what the command line asks. Returns the exit status."""
    if asked.quick:
        return try_out(sweep)
    with _pool(sweep, asked, over) as (over, workers):
        if asked.verify:
            return verify(sweep, asked.verify, workers, over)
        print(*plan(sweep, workers, grids), sep="\n")
        return 0 if asked.dry_run else start(sweep, workers, over, asked.track)


def _pool(sweep: Sweep, asked: argparse.Namespace, over: Callable) -> AbstractContextManager[tuple[Callable, int]]:
    """What runs jobs, and how many at a time."""
    if asked.ray is None:
        return nullcontext((over, asked.workers))
    from shared.sweeps import on_ray  # Ray may not be installed

    if asked.dry_run and asked.ray == "local":
        return nullcontext((over, on_ray.workers_here(sweep)))
    return on_ray.joined(sweep, asked.ray)


def try_out(sweep: Sweep) -> int:
    """Run the quick jobs here, print their rows and write nothing. Returns the exit status."""
    outcomes = [attempt(sweep.run, job, sweep.device) for job in sweep.quick]
    for job, outcome in zip(sweep.quick, outcomes, strict=True):
        if "error" in outcome:
            _report("FAILED", job, outcome["error"])
    rows = [outcome["row"] for outcome in outcomes if "row" in outcome]
    print(json.dumps(rows))
    return int(len(rows) < len(outcomes))


def start(sweep: Sweep, workers: int = 1, over: Callable = in_processes, track: bool = False) -> int:
    """Run the jobs that are not done, and store all rows when none is left. Returns the exit status.

    track: log each to Weights & Biases, too; what cannot be logged is reported, and kept like the others.
    """
    todo, failed = left(sweep), 0
    for job, outcome in _outcomes(sweep, todo, workers, over):
        if "error" in outcome:
            failed += 1
            _report("FAILED", job, outcome["error"])
        else:
            keep(sweep, job, outcome)
            if track:
                _log(sweep, outcome["row"])
    if failed:
        print(f"{failed} of {len(todo)} jobs failed; the others are kept: start again to run only these")
        return 1
    collect(sweep)
    return 0


def verify(sweep: Sweep, n: int, workers: int = 1, over: Callable = in_processes) -> int:
    """Run n of the stored jobs again; if all agree, let the stored rows stand for today's code. Returns the status.

    How it went is stored as `verified`; its `not_tried` lists the values that no job of the sample has. Raises
    ValueError if nothing is stored.
    """
    record, code = stored_record(sweep), sweep.code  # the code that the workers are about to load
    rows = {sweep.key_of(row): row for row in record["rows"]}
    known = [job for job in sweep.jobs if key(job) in rows]
    chosen, failed, largest, made = sample(filter(sweep.comparable, known), n, sweep.cost), 0, {}, {}
    print(f"{sweep.name}: {len(chosen)} of {len(rows)} stored runs again")
    for job, outcome in _outcomes(sweep, chosen, workers, over):
        row, again, made = rows[key(job)], outcome.get("row", {}), outcome.get("made", made)
        apart = differences(row, again, job)
        if "error" in outcome or any(gap > sweep.tolerance.get(name, 0.0) for name, gap in apart.items()):
            failed += 1
            _report("DIFFERENT", row, outcome.get("error", json.dumps(again)))
        largest |= {name: max(round(gap, 6), largest.get(name, 0.0)) for name, gap in apart.items()}
    print("largest difference: " + ", ".join(f"{name} {gap:.2g}" for name, gap in sorted(largest.items())))
    if failed or not chosen:
        print(f"{failed} of {len(chosen)} differ by more than {sweep.tolerance}, or failed: start it to run all again")
        return 1
    not_tried = [f"{name} {value}" for name, value in sorted(values(known) - values(chosen))]
    verified = {
        "code": code,
        "jobs": len(chosen),
        "largest_difference": dict(sorted(largest.items())),
        "not_tried": not_tried,
    } | made
    store(sweep, record | {"code": code, "verified": verified})
    return 0


def _outcomes(sweep: Sweep, jobs: list[dict], workers: int, over: Callable) -> Iterator[tuple[dict, dict]]:
    """What comes of the jobs, and a line of progress."""
    begun, through, whole = time.monotonic(), 0.0, sum(map(sweep.cost, jobs))
    with closing(over(partial(attempt, sweep.run, device=sweep.device), jobs, workers)) as outcomes:
        for done, (job, outcome) in enumerate(outcomes, 1):
            yield job, outcome
            through += sweep.cost(job)
            to_go = duration((time.monotonic() - begun) * (whole / through - 1))
            print(f"\r{done}/{len(jobs)} jobs, {to_go} left   ", end="" if done < len(jobs) else "\n", flush=True)


def _log(sweep: Sweep, row: dict) -> None:
    """Log a row to Weights & Biases."""
    from shared.sweeps.tracked import log_run  # not before it is asked for

    try:
        log_run(sweep, row)
    except (OSError, ValueError) as error:
        _report("NOT TRACKED", sweep.job_of(row), str(error))


def _report(what: str, job: dict, words: str) -> None:
    """Say what is wrong with a job, below the line of progress."""
    print(f"\n{what} {json.dumps(job)}\n{words}")
