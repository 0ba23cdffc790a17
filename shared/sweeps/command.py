"""A sweep's command line: start it or go on, try it, or verify what is stored."""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial

from shared.sweeps.again import differences, sample, values
from shared.sweeps.files import collect, current_record, finished, is_current, keep, store, stored_record
from shared.sweeps.sweep import Sweep, key
from shared.sweeps.workers import attempt, in_processes

STOPPED = 130  # the shell's exit status for what Ctrl-C ended


def main(sweep: Sweep, over: Callable = in_processes) -> int:
    """Do what the command line asks. Returns the exit status: 0, or 1 if a job failed or differs, or STOPPED.

    over: runs jobs as `shared.sweeps.workers.in_processes` does.
    """
    parser = argparse.ArgumentParser(description=f"{len(sweep.jobs)} jobs, stored in {sweep.results.name}")
    parser.add_argument("--workers", type=int, default=1, help="processes, one thread each")
    parser.add_argument("--quick", action="store_true", help="try the whole path in seconds and write nothing")
    parser.add_argument("--verify", type=int, nargs="?", const=8, metavar="N", help="run N stored jobs again (8)")
    asked = parser.parse_args()
    if min(asked.workers, 1 if asked.verify is None else asked.verify) < 1:
        parser.error("--workers and --verify: expected at least 1")
    try:
        if asked.quick:
            return try_out(sweep)
        return verify(sweep, asked.verify, asked.workers, over) if asked.verify else start(sweep, asked.workers, over)
    except KeyboardInterrupt:
        print("\nstopped; what is finished is kept: start again to go on")
        return STOPPED


def try_out(sweep: Sweep) -> int:
    """Run the quick jobs here, print their rows and write nothing. Returns the exit status."""
    outcomes = [attempt(sweep.run, job, sweep.device) for job in sweep.quick]
    for job, outcome in zip(sweep.quick, outcomes, strict=True):
        if "error" in outcome:
            _report("FAILED", job, outcome["error"])
    rows = [outcome["row"] for outcome in outcomes if "row" in outcome]
    print(json.dumps(rows))
    return int(len(rows) < len(outcomes))


def start(sweep: Sweep, workers: int = 1, over: Callable = in_processes) -> int:
    """Run the jobs that are not done, and store all rows when none is left. Returns the exit status."""
    done = {sweep.key_of(row) for row in current_record(sweep)["rows"]} | finished(sweep).keys()
    todo = [job for job in sweep.jobs if key(job) not in done]
    print(f"{sweep.name}: {len(sweep.jobs) - len(todo)} of {len(sweep.jobs)} jobs are done")
    if sweep.results.exists() and not is_current(sweep):
        print("the stored rows were made by other code and are run again (--verify keeps them if a sample agrees)")
    failed = 0
    for job, outcome in _outcomes(sweep, todo, workers, over):
        if "error" in outcome:
            failed += 1
            _report("FAILED", job, outcome["error"])
        else:
            keep(sweep, job, outcome)
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
            left = (time.monotonic() - begun) * (whole / through - 1)
            print(f"\r{done}/{len(jobs)} jobs, {left:.0f} s left   ", end="" if done < len(jobs) else "\n", flush=True)


def _report(what: str, job: dict, words: str) -> None:
    """Say what is wrong with a job, below the line of progress."""
    print(f"\n{what} {json.dumps(job)}\n{words}")
