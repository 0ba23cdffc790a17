"""shared/sweeps: what is killed, stopped or fails loses nothing and does nothing twice; what is stored is true."""

import importlib
import json
import math
import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from shared.lessons import LESSONS, ROOT
from shared.provenance import code_files, provenance
from shared.smollm2 import INSTALL, is_installed
from shared.sweeps import Sweep, best_rate, is_current, main, start, stored
from shared.sweeps.again import difference, sample, values
from shared.sweeps.command import STOPPED, verify
from shared.sweeps.plan import plan
from shared.sweeps.sweep import key

TOY = """
import os, signal, sys, threading
from pathlib import Path
from shared.sweeps import Sweep, main

def run(job):
    with Path(__file__).with_name("ran").open("a") as file:
        file.write(f"{job['i']} ")
    how = os.environ.get(f"JOB_{job['i']}")
    if how == "kill":
        os.kill(os.getppid(), getattr(signal, "SIGKILL", signal.SIGTERM))
    if how == "interrupt":  # as in a terminal, where Ctrl-C goes to all: the job itself must not see it
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getppid(), signal.SIGINT)
        threading.Event().wait()
    if how == "raise":
        raise ArithmeticError("no such square")
    if how == "exit" or how == "exit once" and Path(__file__).with_name("ran").read_text().split().count("2") < 2:
        os._exit(3)
    return {"square": job["i"] ** 2}

SWEEP = Sweep(__file__, "toy", run, jobs=[{"i": i} for i in range(5)], quick=[{"i": 7}], settings={"n": 5})
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job inherits it ignored
    sys.exit(main(SWEEP))
"""
ROWS = [{"i": i, "square": i**2} for i in range(5)]


def here(call, jobs, workers):
    """Another way to run jobs than in processes: the seam at which Ray fits."""
    for job in jobs:
        yield job, call(job)


class Toy:
    """A sweep in a folder of its own."""

    def __init__(self, folder):
        self.folder, self.script = folder, folder / "toy_sweep.py"
        self.script.write_text(TOY)

    @property
    def sweep(self):
        """As a fresh import sees it."""
        sys.modules.pop("toy_sweep", None)
        return importlib.import_module("toy_sweep").SWEEP

    @property
    def ran(self):
        """The jobs that began, since the last look."""
        path = self.folder / "ran"
        found = path.read_text().split() if path.exists() else []
        path.unlink(missing_ok=True)
        return [int(i) for i in found]

    def command(self, **jobs):
        """The exit status of the command line in a process of its own, and what it printed."""
        settings = os.environ | {"PYTHONPATH": str(ROOT)} | jobs
        done = subprocess.run([sys.executable, str(self.script)], env=settings, capture_output=True, text=True)
        return done.returncode, done.stdout

    @property
    def record(self):
        """The results file."""
        return json.loads((self.folder / "results" / "toy.json").read_text())

    @property
    def underway(self):
        """The files that lie in the folder of finished jobs."""
        return sorted(path.name for path in (self.folder / "results" / "toy.jobs").glob("*"))


@pytest.fixture
def toy(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # a script is edited within a second
    yield Toy(tmp_path)
    sys.modules.pop("toy_sweep", None)


def test_killed_and_resumed(toy):
    """kill -9 in job 3 of 0 to 4: three are kept, the second start runs two, all five are stored, once."""
    assert toy.command(JOB_3="kill")[0] != 0
    assert toy.ran == [0, 1, 2, 3] and len(toy.underway) == 3
    assert start(toy.sweep, over=here) == 0
    assert toy.ran == [3, 4] and toy.record["rows"] == ROWS and toy.underway == []
    assert {made["code"] for made in toy.record["made"]} == {toy.record["code"]} == {toy.sweep.code}
    assert (toy.record["command"], toy.record["n"]) == ("python toy_sweep.py", 5)


@pytest.mark.skipif(sys.platform == "win32", reason="a process cannot send Ctrl-C to another")
def test_interrupted_and_resumed(toy):
    """Ctrl-C while job 2 runs: it ends the worker, says so, and keeps jobs 0 and 1."""
    status, said = toy.command(JOB_2="interrupt")
    assert status == STOPPED and "start again to go on" in said and "2/5 jobs" in said
    assert toy.ran == [0, 1, 2] and len(toy.underway) == 2
    assert start(toy.sweep, over=here) == 0
    assert toy.ran == [2, 3, 4] and toy.record["rows"] == ROWS


def test_a_job_that_fails_stops_no_other(toy, monkeypatch, capsys):
    """One raises, one takes its process with it, each time: both are named, three are kept, the status is 1."""
    monkeypatch.setenv("JOB_1", "raise")
    monkeypatch.setenv("JOB_2", "exit")
    assert start(toy.sweep, workers=2) == 1
    said = capsys.readouterr().out
    assert 'FAILED {"i": 1}' in said and "ArithmeticError: no such square" in said
    assert 'FAILED {"i": 2}' in said and "ended 3 times, exit status 3" in said and "2 of 5 jobs failed" in said
    assert sorted(toy.ran) == [0, 1, 2, 2, 2, 3, 4] and len(toy.underway) == 3 and not toy.sweep.results.exists()
    monkeypatch.delenv("JOB_1")
    monkeypatch.delenv("JOB_2")
    assert start(toy.sweep, over=here) == 0
    assert toy.ran == [1, 2] and sorted(toy.record["rows"], key=lambda row: row["i"]) == ROWS
    assert sum(made["rows"] for made in toy.record["made"]) == 5 and toy.record["made"][0]["threads"] == 1


def test_the_job_of_a_process_that_died_is_run_again(toy, monkeypatch):
    monkeypatch.setenv("JOB_2", "exit once")
    assert start(toy.sweep, workers=2) == 0
    assert sorted(toy.ran) == [0, 1, 2, 2, 3, 4]
    assert sorted(toy.record["rows"], key=lambda row: row["i"]) == ROWS


@pytest.mark.parametrize("result", [{"i": 1}, {"loss": math.nan}, {"loss": torch.ones(1)}, None])
def test_a_result_that_cannot_be_stored_is_a_failure(tmp_path, result, capsys):
    sweep = Sweep(str(tmp_path / "x.py"), "x", lambda job: result, jobs=[{"i": 1}], quick=[])
    (tmp_path / "x.py").write_text("")
    assert start(sweep, over=here) == 1
    assert 'FAILED {"i": 1}' in capsys.readouterr().out


def test_killed_after_all_was_stored(toy):
    """The folder of finished jobs is still there: nothing runs, and no row is stored twice."""
    start(toy.sweep, over=here)
    record, sweep = toy.record, toy.sweep
    sweep.underway.mkdir()
    for row in record["rows"]:
        outcome = {"row": row, "seconds": 1, "made": {"code": sweep.code}}
        (sweep.underway / f"{sweep.key_of(row)}.json").write_text(json.dumps(outcome))
    assert toy.ran and start(toy.sweep, over=here) == 0
    assert toy.ran == [] and toy.record == record and not sweep.underway.exists()


def test_only_new_jobs_run(toy):
    """Two more of the same code: the stored rows stay, in front, and each making says how many rows are its own."""
    start(toy.sweep, over=here)
    more = replace(toy.sweep, jobs=[{"i": i} for i in (6, 4, 5, 0)])
    assert toy.ran and start(more, over=here) == 0
    assert toy.ran == [6, 5]
    assert toy.record["rows"] == [*ROWS, {"i": 6, "square": 36}, {"i": 5, "square": 25}]
    assert [made["rows"] for made in toy.record["made"]] == [5, 2]


def test_other_code_is_run_again(toy, monkeypatch):
    """What was finished or stored before the code changed is not mixed with what comes after; a comment is free."""
    monkeypatch.setenv("JOB_4", "raise")
    start(toy.sweep, over=here)
    toy.script.write_text(TOY.replace("** 2", "** 3"))
    monkeypatch.delenv("JOB_4")
    assert len(toy.underway) == 4 and toy.ran and start(toy.sweep, over=here) == 0
    assert toy.ran == [0, 1, 2, 3, 4] and toy.record["rows"][3] == {"i": 3, "square": 27}
    toy.script.write_text(TOY.replace("** 2}", "** 3}  # the cube"))
    assert is_current(toy.sweep) and start(toy.sweep, over=here) == 0 and toy.ran == []
    toy.script.write_text(TOY)
    assert not is_current(toy.sweep)
    assert any("made by other code" in line for line in plan(toy.sweep, workers=1))
    assert start(toy.sweep, over=here) == 0 and toy.ran == [0, 1, 2, 3, 4] and toy.record["rows"] == ROWS


def test_verified(toy, capsys):
    """Other code with the same results: the stamp is renewed and says what is known; rows and making stay."""
    with pytest.raises(ValueError, match="run the sweep first"):
        verify(toy.sweep, 3, over=here)
    start(toy.sweep, over=here)
    before, made = toy.record, toy.ran
    toy.script.write_text(TOY.replace("** 2", "* job['i']"))
    assert verify(toy.sweep, 3, over=here) == 0
    tried = toy.ran
    assert len(tried) == 3 < len(made) and is_current(toy.sweep)
    verified = toy.record["verified"]
    assert (verified["jobs"], verified["largest_difference"]) == (3, {"square": 0.0})
    assert verified["not_tried"] == [f"i {i}" for i in sorted(set(range(5)) - set(tried))]
    assert verified["code"] == toy.sweep.code != before["code"] == toy.record["made"][0]["code"]
    assert (toy.record["rows"], toy.record["made"]) == (before["rows"], before["made"])


@pytest.mark.parametrize(("tolerance", "status"), [(0.5, 0), (0.4, 1)])
def test_what_differs_is_not_verified(toy, tolerance, status, capsys):
    """By half: within the tolerance or not. If not, the file stays as it was, and the job is named."""
    start(toy.sweep, over=here)
    before = toy.sweep.results.read_bytes()
    toy.script.write_text(TOY.replace("** 2}", "** 2 + 0.5}"))
    assert verify(replace(toy.sweep, tolerance={"square": tolerance}), 5, over=here) == status
    assert (toy.sweep.results.read_bytes() == before) == bool(status)
    assert ('DIFFERENT {"i": 4, "square": 16}' in capsys.readouterr().out) == bool(status)


def test_what_fails_is_not_verified(toy, monkeypatch, capsys):
    start(toy.sweep, over=here)
    monkeypatch.setenv("JOB_2", "raise")
    assert verify(toy.sweep, 5, over=here) == 1
    assert "no such square" in capsys.readouterr().out and "verified" not in toy.record


def test_a_write_that_is_cut_leaves_the_old_file(toy, monkeypatch):
    """Here before the bytes reached the disk."""
    start(toy.sweep, over=here)
    before = toy.sweep.results.read_bytes()

    def full(_):
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space left"):
        verify(toy.sweep, 1, over=here)
    assert toy.sweep.results.read_bytes() == before


def test_a_quick_try_writes_nothing(toy, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["toy_sweep.py", "--quick"])
    assert main(toy.sweep) == 0
    assert json.loads(capsys.readouterr().out) == [{"i": 7, "square": 49}]
    assert not toy.sweep.results.parent.exists()
    monkeypatch.setenv("JOB_7", "raise")
    assert main(toy.sweep) == 1


@pytest.mark.parametrize("arguments", [["--workers", "0"], ["--verify", "0"], ["--verify", "-1"]])
def test_numbers_that_cannot_work_are_refused(toy, monkeypatch, arguments):
    monkeypatch.setattr(sys, "argv", ["toy_sweep.py", *arguments])
    with pytest.raises(SystemExit):
        main(toy.sweep)


@pytest.mark.parametrize("twice", [{"rate": 1, "arm": "a"}, {"arm": "a", "rate": 1.0}])
def test_equal_jobs_are_refused(twice):
    with pytest.raises(ValueError, match="two jobs of sweep 'x' are equal"):
        Sweep(__file__, "x", dict, jobs=[{"arm": "a", "rate": 1}, {"arm": "b", "rate": 1}, twice], quick=[])


@pytest.mark.parametrize("bad", [math.nan, torch.ones(1), {1, 2}])
def test_jobs_that_cannot_be_stored_are_refused(bad):
    with pytest.raises(ValueError, match="cannot be stored as JSON"):
        Sweep(__file__, "x", dict, jobs=[{"rate": bad}], quick=[])


def test_how_it_was_made(toy):
    start(toy.sweep, over=here)
    rows, how = stored(toy.sweep.results)
    assert rows == ROWS
    threads = torch.get_num_threads()
    assert how.startswith("python toy_sweep.py: 5 runs, 0 minutes on ")
    assert f"{threads} thread" in how and how.endswith(provenance()["date"])


def test_what_is_measured_on_a_gpu_says_on_which(toy, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    start(replace(toy.sweep, device="cuda"), over=here)
    assert [made["hardware"] for made in toy.record["made"]] == ["a GPU"]


def test_a_sample_shows_each_value_it_can():
    """As many jobs as a field has values show them all; the others are cheap, and by chance."""
    jobs = [{"layers": n, "rate": rate, "seed": s} for n in (6, 1, 2) for rate in (1, 2, 3, 4, 5) for s in range(3)]
    random.seed(0)
    chosen = sample(jobs, 5, cost=lambda job: job["layers"])
    assert values(chosen) == values(jobs) and sorted(job["layers"] for job in chosen) == [1, 1, 1, 2, 6]
    assert chosen != sample(jobs, 5, cost=lambda job: job["layers"])
    assert len(sample(jobs, 99, cost=len)) == len(jobs) and sample([], 4, cost=len) == []


def test_only_what_can_be_compared_is_run_again(toy, capsys):
    start(toy.sweep, over=here)
    assert toy.ran and verify(replace(toy.sweep, comparable=lambda job: job["i"] in (1, 3)), 4, over=here) == 0
    assert sorted(toy.ran) == [1, 3] and toy.record["verified"]["not_tried"] == ["i 0", "i 2", "i 4"]
    before = toy.sweep.results.read_bytes()
    assert verify(replace(toy.sweep, comparable=lambda job: False), 4, over=here) == 1
    assert toy.sweep.results.read_bytes() == before


@pytest.mark.parametrize(
    ("one", "other", "apart"),
    [
        (1, 1.25, 0.25),
        ({"a": [1.0, 2.0]}, {"a": [1.5, 4.0]}, 2.0),
        ([None, "x"], [None, "x"], 0.0),
        (None, 1.0, math.inf),
        ([1.0], [1.0, 2.0], math.inf),
        ({"a": 1}, {"b": 1}, math.inf),
        ("x", "y", math.inf),
    ],
)
def test_difference(one, other, apart):
    assert difference(one, other) == difference(other, one) == apart


SWEEPS = [path for lesson in LESSONS for path in sorted((ROOT / lesson.folder).glob("*_sweep.py"))]


@pytest.fixture(params=SWEEPS, ids=lambda path: path.stem)
def sweeps(request):
    """A lesson's sweep, or all grids of its script."""
    script = vars(importlib.import_module(request.param.stem))
    return [*script["GRIDS"].values()] if "GRIDS" in script else [script["SWEEP"]]


def test_there_are_sweeps():
    assert len(SWEEPS) >= 4


def test_a_lessons_rows_are_those_of_its_jobs(sweeps):
    """Each job once, each row within what a making says it made."""
    for sweep in sweeps:
        record = json.loads(sweep.results.read_text(encoding="utf-8"))
        assert sorted(map(sweep.key_of, record["rows"])) == sorted(map(key, sweep.jobs))
        assert sum(made["rows"] for made in record["made"]) == len(sweep.jobs)
        known = {"code", "seconds", "date", "versions", "threads", "hardware"}
        assert all(known <= made.keys() for made in record["made"])


def test_a_lessons_rows_are_of_todays_code(sweeps):
    for sweep in sweeps:
        assert is_current(sweep), (
            f"{sweep.results.name} was made by other code. `make verify` runs a sample again: if it agrees, the rows "
            f"stay; if not, run {sweep.script}"
        )


def test_a_lessons_sweep_runs(sweeps, monkeypatch, capsys):
    """The whole path in seconds, all arms; finite numbers; nothing written."""
    monkeypatch.setattr(sys, "argv", ["sweep.py", "--quick"])
    for sweep in sweeps:
        if ROOT / "shared" / "smollm2.py" in code_files(Path(sweep.script)) and not is_installed():
            pytest.skip(f"the real model is not installed: {INSTALL}")
        before = sweep.results.read_bytes()
        assert main(sweep) == 0
        rows = json.loads(capsys.readouterr().out)
        assert len(rows) == len(sweep.quick) and not sweep.underway.exists()
        for job in sweep.quick:
            assert any(real.keys() <= job.keys() for real in sweep.jobs)
        assert sweep.results.read_bytes() == before


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([[3, 1, 2], [3, 2, 2]], (1e-2, 1.5, False)),
        ([[3, 2, 1], [3, 2, 1]], (1e-1, 1.0, True)),
        ([[1, 2, 3]], (1e-3, 1.0, True)),
        ([[3, 2, 0], [3, 2, math.nan]], (1e-2, 2.0, False)),
        ([[3, 2, 0], [3, 2, -math.inf]], (1e-2, 2.0, False)),
    ],
)
def test_the_best_rate(losses, expected):
    """By the mean over seeds; a rate that diverges once is out, and bounds the one below it."""
    assert best_rate(torch.tensor(losses), [1e-3, 1e-2, 1e-1]) == expected
    assert best_rate(torch.tensor(losses).flip(1), [1e-1, 1e-2, 1e-3]) == expected


def test_no_best_rate():
    with pytest.raises(ValueError, match=r"each of the rates \[0.1, 0.2\] a seed diverged"):
        best_rate(torch.tensor([[math.nan, 1], [1, math.nan]]), [0.1, 0.2])
    for shape in ((3,), (3, 2), (2, 3, 1)):
        with pytest.raises(ValueError, match=r"expected \(seeds, rates\)"):
            best_rate(torch.zeros(shape), [1, 2, 3])
