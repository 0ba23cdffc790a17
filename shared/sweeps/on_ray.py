"""Run a sweep's jobs on Ray: on one of this machine's own, or on all CPUs or GPUs of a cluster.

    with joined(sweep, "auto") as (over, workers):     # "local": start one, which ends with the block
        for job, outcome in over(call, jobs, workers):  # as `workers.in_processes` does

Workers get the code as it is now, not what may be installed where they run: all of `shared`, the Python files of the
script's folder and the sweep's `files`, which they find where the script looks for them. Packages, Python itself and
the real model must be installed on each machine. A job has one CPU and one thread, and a GPU if the sweep measures one.
"""

import io
import os
import pickle
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType

import torch

from shared.lessons import ROOT
from shared.sweeps.sweep import Sweep
from shared.sweeps.workers import TRIES

INSTALL = "Ray is not installed: pip install -e '.[cluster]' in the repository's root installs it"
SETTINGS = {  # nothing is reported to Ray's makers; no warning; no line of a worker's or a node's between ours
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",
}
STORE = 100 * 2**20  # bytes for what jobs return: rows are small
NOT_SHIPPED = shutil.ignore_patterns("__pycache__", "*.png", "*.gif")


def workers_here(sweep: Sweep) -> int:
    """How many jobs a Ray of this machine's own would run at a time."""
    return torch.cuda.device_count() if sweep.device == "cuda" else os.cpu_count()


def ray_module() -> ModuleType:
    """Ray, told to be quiet. Exits with what to install if it is missing."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ModuleNotFoundError:
        sys.exit(INSTALL)
    return ray


@contextmanager
def joined(sweep: Sweep, address: str) -> Iterator[tuple[Callable, int]]:
    """Join a Ray for as long as the block lasts: what runs jobs there, and how many run at a time.

    Leaving the block, by Ctrl-C too, ends the jobs that run. Exits in one line if that Ray cannot be joined, or if it
    has no CPU, or no GPU for a sweep that measures one.
    """
    ray = ray_module()
    own = {"object_store_memory": STORE, "include_dashboard": False} if address == "local" else {}
    hidden = {} if sweep.device == "cuda" else {"CUDA_VISIBLE_DEVICES": ""}  # the driver's device is the worker's
    with tempfile.TemporaryDirectory() as folder:
        ship(sweep, Path(folder))
        environment = {"working_dir": folder, "env_vars": hidden}
        try:
            ray.init(address, runtime_env=environment, log_to_driver=False, logging_level="ERROR", **own)
        except Exception as error:  # no Ray there, or another version of it, or too slow a start
            sys.exit(f"Ray at {address!r} cannot be joined: {' '.join(str(error).split())}")
        try:
            kind = "GPU" if sweep.device == "cuda" else "CPU"
            workers = int(ray.cluster_resources().get(kind, 0))
            if workers < 1:
                sys.exit(f"the Ray at {address!r} has no {kind}: start a node that has one (ray start --address=...)")
            yield partial(_outcomes, ray, sweep), workers
        finally:
            ray.shutdown()


def ship(sweep: Sweep, folder: Path) -> None:
    """Copy into a folder what a sweep's jobs need, the script at its top. Exits for a file that lies elsewhere."""
    home = Path(sweep.script).resolve().parent
    shutil.copytree(ROOT / "shared", folder / "shared", ignore=NOT_SHIPPED)
    for path in [*home.glob("*.py"), *(Path(file).resolve() for file in sweep.files)]:
        if base := next((base for base in (home, ROOT) if path.is_relative_to(base)), None):
            target = folder / path.relative_to(base)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        else:
            sys.exit(f"{path} cannot be sent to Ray's workers: a sweep's `files` must lie in its folder or in `shared`")


def _outcomes(ray: ModuleType, sweep: Sweep, call: Callable[[dict], dict], jobs: list[dict], _: int) -> Iterator:
    """Yield (job, call(job)) as the jobs are done. A job whose worker or node dies is run again, TRIES times in all."""
    options = {"num_cpus": 1, "num_gpus": int(sweep.device == "cuda"), "max_retries": 0}
    run = partial(ray.remote(**options)(_run).remote, Path(sweep.script).stem, pickle.dumps(call))
    running = {run(job): (job, 1) for job in jobs}  # (job, which try)
    while running:
        (done,), _ = ray.wait(list(running))
        job, tried = running.pop(done)
        try:
            outcome = ray.get(done)
        except ray.exceptions.RayTaskError as error:  # the script could not be loaded, say
            outcome = {"error": str(error)}
        except ray.exceptions.RayError as error:
            if tried < TRIES:
                running[run(job)] = job, tried + 1
                continue
            why = str(error).strip().partition("\n")[0]
            outcome = {"error": f"its worker ended {tried} times, at last: {why}"}
        yield job, outcome


def _run(script: str, call: bytes, job: dict) -> dict:
    """In a worker: load the call and do it, with one thread."""
    torch.set_num_threads(1)
    return _Unpickler(script, call).load()(job)


class _Unpickler(pickle.Unpickler):
    """Finds what the driver had in the script, its `__main__`, in the script as it was shipped."""

    def __init__(self, script: str, pickled: bytes):
        super().__init__(io.BytesIO(pickled))
        self.script = script

    def find_class(self, module: str, name: str):
        return super().find_class(self.script if module == "__main__" else module, name)
