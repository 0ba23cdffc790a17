"""Run a list of jobs in other processes, one thread each; a job that fails, or kills its process, stops no other.
A job whose process is killed is run again, TRIES times in all.

    for job, outcome in in_processes(partial(attempt, run), jobs, workers=2):
        outcome        # {"row": {...}, "seconds": 1.2, "made": {...}}, or {"error": "what went wrong"}

Whatever yields such pairs, in any order, can take the place of `in_processes` in a sweep, as `on_ray` does.
"""

import json
import multiprocessing
import signal
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection, wait

import torch

from shared.provenance import provenance

SPAWN = multiprocessing.get_context("spawn")  # a fresh Python, on every system
TRIES = 3  # for a job whose process dies: it may not be the job's fault


def attempt(run: Callable[[dict], dict], job: dict, device: str = "cpu") -> dict:
    """What came of run(job): the row to store, its seconds and where it was made; or the error, as text. device: "cpu",
    or "cuda" for what is measured there.

    A row is the job's fields and the result's. It is an error if they share a name, or if the result is not JSON
    (a tensor, or a number that is not finite: say None).
    """
    start = time.monotonic()
    try:
        result = run(job)
        if shared := job.keys() & result.keys():
            raise ValueError(f"the result has fields of the job: {sorted(shared)}; give them other names")
        row = json.loads(json.dumps(job | result, allow_nan=False))
    except Exception:
        return {"error": traceback.format_exc().strip()}
    return {"row": row, "seconds": round(time.monotonic() - start, 2), "made": provenance(device)}


def in_processes(call: Callable[[dict], dict], jobs: list[dict], workers: int) -> Iterator[tuple[dict, dict]]:
    """Yield (job, call(job)) as the jobs are done, at most `workers` of them at a time.

    call: a function that a fresh Python can import. A process that dies is replaced, and its job is the next to run; an
    {"error": ...} if that was its last try. A worker waits until its last job was taken. Leaving the loop, by Ctrl-C
    too, ends the processes.
    """
    waiting, busy = deque((job, 1) for job in jobs), {}  # (job, which try); busy: connection -> (process, job, try)
    try:
        for _ in range(min(workers, len(jobs))):
            _hand_out(waiting, busy, *_start(call))
        while busy:
            for pipe in wait(list(busy)):
                process, job, tried = busy.pop(pipe)
                outcome = _received(pipe, process)
                if outcome is None and tried < TRIES:
                    waiting.appendleft((job, tried + 1))
                else:
                    yield job, outcome or {"error": f"its process ended {tried} times, exit status {process.exitcode}"}
                if not waiting:
                    pipe.close()
                elif process.is_alive():
                    _hand_out(waiting, busy, pipe, process)
                else:
                    _hand_out(waiting, busy, *_start(call))
    finally:
        for process, *_ in busy.values():
            process.terminate()
            process.join()


def _start(call: Callable[[dict], dict]) -> tuple[Connection, multiprocessing.Process]:
    """A process that waits for jobs, and our end of the connection to it."""
    ours, theirs = SPAWN.Pipe()
    process = SPAWN.Process(target=_work, args=(theirs, call), daemon=True)
    process.start()
    theirs.close()  # so that ours ends when the process does
    return ours, process


def _hand_out(waiting: deque, busy: dict, pipe: Connection, process: multiprocessing.Process) -> None:
    """Send the next job that waits."""
    job, tried = waiting.popleft()
    busy[pipe] = process, job, tried
    with suppress(ConnectionError):  # a process that has just died is noticed when its answer is looked for
        pipe.send(job)


def _received(pipe: Connection, process: multiprocessing.Process) -> dict | None:
    """What came of the job that the process had; None if the process ended before that."""
    try:
        return pipe.recv()
    except (EOFError, ConnectionError):
        process.join()
        return None


def _work(pipe: Connection, call: Callable[[dict], dict]) -> None:
    """A worker: jobs in, outcomes out, until nobody is at the other end. Ctrl-C is for the process that started it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    try:
        while True:
            pipe.send(call(pipe.recv()))
    except (EOFError, ConnectionError):
        return
