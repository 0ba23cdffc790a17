"""shared/sweeps/on_ray.py on a real Ray of two nodes: what is killed or stopped is run again, and nothing is lost.

The nodes are processes of this machine that start without a dashboard or a report to Ray's makers. Their sockets need
a path of at most 107 letters, which `tmp_path` has not: their folder is a short one in /tmp, and goes with them.
"""

import importlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from shared.lessons import ROOT
from shared.sweeps import Sweep, main, on_ray, start
from shared.sweeps.command import STOPPED
from shared.sweeps.on_ray import INSTALL, joined, ray_module, ship

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Ray's makers do not test clusters on Windows")

TOY = """
import os, signal, sys, threading, time
from pathlib import Path
import helper
import shared
from shared.sweeps import Sweep, main

FOLDER = Path({folder!r})  # a worker runs a copy of this file elsewhere

def on_a_doomed_node(job):
    '''The first job there waits for the node's end; the others, elsewhere, for the first one.'''
    import ray
    if ray.get_runtime_context().get_node_id() == (FOLDER / "doomed").read_text():
        (FOLDER / "blocked").write_text(str(job["i"]))
        threading.Event().wait()
    while not (FOLDER / "blocked").exists():
        time.sleep(0.01)

def run(job):
    with (FOLDER / "ran").open("a") as file:
        file.write(f"{{job['i']}} ")
    (FOLDER / "from").write_text(" ".join([__file__, helper.__file__, shared.__file__]))
    if (FOLDER / "doomed").exists():
        on_a_doomed_node(job)
    order = FOLDER / f"job_{{job['i']}}"
    how = order.read_text() if order.exists() else ""
    if how == "raise":
        raise ArithmeticError("no such square")
    if how == "die once":
        order.unlink()
    if how.startswith("die"):
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "interrupt":  # Ctrl-C in the driver's terminal
        (FOLDER / "worker").write_text(str(os.getpid()))
        os.kill(int((FOLDER / "driver").read_text()), signal.SIGINT)
        threading.Event().wait()
    return {{"square": helper.square(job["i"])}}

SWEEP = Sweep(__file__, "toy", run, jobs=[{{"i": i}} for i in range(6)], quick=[])
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job inherits it ignored
    (FOLDER / "driver").write_text(str(os.getpid()))
    sys.exit(main(SWEEP))
"""
HELPER = "def square(i):\n    return i**2\n"
ROWS = [{"i": i, "square": i**2} for i in range(6)]
SMALL = {"num_cpus": 1, "num_gpus": 0, "object_store_memory": 80 * 2**20, "include_dashboard": False}


class Toy:
    """A sweep in a folder of its own. orders: what becomes of a job."""

    def __init__(self, folder, orders):
        self.folder, self.script = folder, folder / "toy_sweep.py"
        self.script.write_text(TOY.format(folder=str(folder)))
        (folder / "helper.py").write_text(HELPER)
        for i, how in orders.items():
            (folder / f"job_{i}").write_text(how)

    @property
    def sweep(self):
        """As a fresh import sees it."""
        for name in ("toy_sweep", "helper"):
            sys.modules.pop(name, None)
        return importlib.import_module("toy_sweep").SWEEP

    @property
    def ran(self):
        """How often each job began, since the last look."""
        path = self.folder / "ran"
        found = path.read_text().split() if path.exists() else []
        path.unlink(missing_ok=True)
        return Counter(map(int, found))

    @property
    def kept(self):
        """The rows in the folder of finished jobs."""
        files = (self.folder / "results" / "toy.jobs").glob("*.json")
        return sorted((json.loads(path.read_text())["row"] for path in files), key=lambda row: row["i"])

    @property
    def rows(self):
        """The rows of the results file."""
        record = json.loads((self.folder / "results" / "toy.json").read_text())
        assert sum(made["rows"] for made in record["made"]) == len(record["rows"])
        assert {(made["code"], made["threads"]) for made in record["made"]} == {(self.sweep.code, 1)}
        return sorted(record["rows"], key=lambda row: row["i"])

    def command(self, *arguments):
        """The exit status of the command line in a process of its own, and all that it printed."""
        command = [sys.executable, str(self.script), *arguments]
        settings = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, env=settings, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        return done.returncode, done.stdout


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """Makes a sweep that can be imported."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield lambda orders: Toy(tmp_path, orders)
    for name in ("toy_sweep", "helper"):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def cluster():
    """A Ray of one node, with one CPU."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tempfile.mkdtemp(prefix="r", dir="/tmp")
        patch.setenv("RAY_TMPDIR", folder)
        patch.setenv("RAY_enable_worker_prestart", "0")  # each worker is a Python that imports torch
        patch.setenv("RAY_prestart_worker_first_driver", "0")
        patch.setenv("RAY_worker_niceness", "0")  # else other tests on this machine go first
        patch.setenv("RAY_worker_register_timeout_seconds", "600")  # and where they do, a worker is not given up
        ray_module()
        from ray.cluster_utils import Cluster

        it = Cluster(initialize_head=True, head_node_args=SMALL)
        yield it
        it.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def test_what_dies_is_run_again(toy, cluster, monkeypatch, capsys):
    """Of six jobs one raises, one kills its worker once and one each time; and half-way a node is killed with its job.

    Four are kept, once; the two others are named, one of them after all its tries. The script ran from a copy.
    """
    monkeypatch.setattr(on_ray, "TRIES", 2)
    toy = toy({1: "raise", 4: "die once", 5: "die"})  # the node's job, 0 or 1, is run again, too
    node = cluster.add_node(**SMALL)
    (toy.folder / "doomed").write_text(node.node_id)
    sweep = toy.sweep
    with joined(sweep, cluster.address) as (over, workers):

        def until_a_node_dies(call, jobs, workers):
            for n, pair in enumerate(over(call, jobs, workers)):
                yield pair
                if n == 1:
                    cluster.remove_node(node, allow_graceful=False)

        assert workers == 2 and start(sweep, workers, until_a_node_dies) == 1
    said = capsys.readouterr().out
    assert 'FAILED {"i": 1}' in said and "ArithmeticError: no such square" in said
    assert 'FAILED {"i": 5}' in said and "its worker ended 2 times" in said and "2 of 6 jobs failed" in said
    blocked = int((toy.folder / "blocked").read_text())
    assert toy.ran == Counter({0: 1, 1: 1, 2: 1, 3: 1, 4: 2, 5: 2}) + Counter([blocked])
    assert toy.kept == [ROWS[i] for i in (0, 2, 3, 4)]
    where = [Path(path) for path in (toy.folder / "from").read_text().split()]
    assert [path.name for path in where] == ["toy_sweep.py", "helper.py", "__init__.py"]
    assert where[0].parent == where[1].parent == where[2].parent.parent not in (toy.folder, ROOT)


def test_stopped_and_resumed(toy, cluster):
    """Ctrl-C while a job runs ends it and keeps what is done; the second start runs the rest. Ray itself is silent."""
    toy = toy({2: "interrupt"})
    status, said = toy.command("--ray", cluster.address)
    assert status == STOPPED and "start again to go on" in said, said
    assert ended(int((toy.folder / "worker").read_text()))
    first, kept = toy.ran, toy.kept
    assert first[2] == 1 and {row["i"] for row in kept} <= first.keys() - {2}
    lines = [part for line in said.splitlines() for part in line.split("\r") if part]
    ours = ("toy: 6 jobs, 0 done", "6 with i 0, 1", "cost left: 6 of 6", "stopped; what is finished")
    assert all(line.startswith(ours) or " jobs, " in line for line in lines), said
    (toy.folder / "job_2").unlink()
    with joined(toy.sweep, cluster.address) as (over, workers):
        assert workers == 1 and start(toy.sweep, workers, over) == 0
    assert toy.ran == Counter(row["i"] for row in ROWS if row not in kept)
    assert toy.rows == ROWS and toy.kept == []


def ended(pid):
    """Whether a process ends: it may take a moment."""
    for _ in range(300):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


def test_no_gpu_is_said(toy, cluster):
    """Instead of waiting for one for ever."""
    with (
        pytest.raises(SystemExit, match="has no GPU: start a node that has one"),
        joined(replace(toy({}).sweep, device="cuda"), cluster.address),
    ):
        pytest.fail("there is none")


def test_without_ray_one_line_says_what_to_install(toy, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setattr(sys, "argv", ["toy_sweep.py", "--ray"])
    with pytest.raises(SystemExit) as refused:
        main(toy({}).sweep)
    assert refused.value.code == INSTALL and "\n" not in INSTALL


def test_the_tests_use_the_ray_that_is_offered():
    """One version, in pyproject.toml's extra `cluster` and in requirements-dev.txt."""
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    pinned = (ROOT / "requirements-dev.txt").read_text(encoding="utf-8").splitlines()
    assert [line for line in pinned if line.startswith("ray")] == extra["cluster"]
    assert "'.[cluster]'" in INSTALL


def test_files_are_sent_where_the_script_looks_for_them(tmp_path):
    """From its folder and from `shared`; nothing else of the folder but Python. Elsewhere, they are refused."""
    home, sent = tmp_path / "home", tmp_path / "sent"
    for name in ("x_sweep.py", "beside.py", "results/read.json", "results/other.json", "wandb/run.py"):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(name)
    files = [home / "results" / "read.json", ROOT / "shared" / "texts" / "fable.txt"]
    sweep = Sweep(str(home / "x_sweep.py"), "x", dict, jobs=[], quick=[], files=files)
    ship(sweep, sent)
    found = {path.relative_to(sent).as_posix() for path in sent.rglob("*") if path.is_file()}
    assert {name for name in found if not name.startswith("shared/")} == {
        "x_sweep.py",
        "beside.py",
        "results/read.json",
    }
    assert {"shared/texts/fable.txt", "shared/sweeps/on_ray.py", "shared/__init__.py"} <= found
    (tmp_path / "far").write_text("")
    with pytest.raises(SystemExit, match=r"far cannot be sent to Ray's workers"):
        ship(replace(sweep, files=[tmp_path / "far"]), tmp_path / "again")
