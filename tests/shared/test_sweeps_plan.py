"""What a sweep's command line says before it starts, which of a script's grids it takes, and what it logs."""

import json
import sys
from dataclasses import replace

import pytest

from shared.sweeps import Sweep, main, start
from shared.sweeps.plan import MOST, Pace, duration, kinds, paces, plan
from shared.sweeps.tracked import log_run, series

JOBS = [{"arm": arm, "steps": steps} for steps in (100, 300) for arm in ("a", "b")]
MADE = {"hardware": "a slow one", "threads": 1, "versions": {}, "date": "2026-01-01"}


def here(call, jobs, workers):
    """Runs jobs in this process."""
    for job in jobs:
        yield job, call(job)


def run(job):
    return {"loss": 1 / job["steps"]}


@pytest.fixture
def sweep(tmp_path):
    """Two arms, two lengths of training; a step costs 1."""
    (tmp_path / "x_sweep.py").write_text("")
    return Sweep(str(tmp_path / "x_sweep.py"), "x", run, JOBS, quick=JOBS[:1], cost=lambda job: job["steps"])


def store(sweep, *groups, code=None):
    """Store rows: (machine, seconds, jobs) a making."""
    sweep.results.parent.mkdir(exist_ok=True)
    made = [MADE | {"hardware": name, "seconds": seconds, "rows": len(jobs)} for name, seconds, jobs in groups]
    rows = [job | {"loss": 1.0} for *_, jobs in groups for job in jobs]
    record = {"command": "", "code": code or sweep.code, "made": made, "rows": rows}
    sweep.results.write_text(json.dumps(record))


def command(monkeypatch, sweep, *arguments):
    monkeypatch.setattr(sys, "argv", ["x_sweep.py", *arguments])
    return main(sweep, over=here)


def test_a_dry_run_tells_what_is_left_and_starts_nothing(sweep, monkeypatch, capsys):
    """Two of four jobs are stored: 400 steps took 200 s on one machine, so 400 more take 200 s, or 100 s for two."""
    store(sweep, ("a slow one", 200, [JOBS[0], JOBS[2]]))
    before = sweep.results.read_bytes()
    assert command(monkeypatch, replace(sweep, run=None), "--dry-run", "--workers", "8") == 0
    assert capsys.readouterr().out.splitlines() == [
        "x: 4 jobs, 2 done, 2 left",
        '2 with arm "b"; steps 100, 300',
        "cost left: 400 of 800",
        "about 3 min of one worker, as 2 runs of x took 3 min on a slow one, 1 thread; by 8 at a time 100 s",
    ]
    assert sweep.results.read_bytes() == before and not sweep.underway.exists()


def test_a_start_says_the_same_first(sweep, monkeypatch, capsys):
    assert command(monkeypatch, sweep) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == ["x: 4 jobs, 0 done, 4 left", '4 with arm "a", "b"; steps 100, 300', "cost left: 800 of 800"]
    assert lines[-1] == "4/4 jobs, 0 s left   "
    assert [*plan(sweep, 1)] == ["x: 4 jobs, 4 done, 0 left"]


def test_what_other_code_made_tells_the_pace_and_is_run_again(sweep):
    """Of each machine for itself; a making with runs of other jobs, whose cost is unknown, tells none."""
    store(sweep, ("a", 40, JOBS[:1]), ("b", 30, JOBS[1:3]), ("a", 60, JOBS[3:]), ("c", 1, [{"arm": "z"}]), code="old")
    assert paces(sweep) == {"a, 1 thread": Pace(2, 100, 400), "b, 1 thread": Pace(2, 30, 400)}
    lines = [*plan(sweep, 1)]
    assert lines[0] == "x: 4 jobs, 0 done, 4 left" and "made by other code" in lines[1]
    assert [line.split(" of")[0] for line in lines[-2:]] == ["about 3 min", "about 60 s"]


def test_what_is_finished_tells_the_pace_too(sweep):
    def stopped(call, jobs, workers):
        for n, pair in enumerate(here(call, jobs, workers)):
            yield pair if n < 3 else (pair[0], {"error": "stopped"})

    start(sweep, over=stopped)
    assert [(pace.runs, pace.cost) for pace in paces(sweep).values()] == [(3, 500)]


def test_another_grid_tells_the_pace_where_none_is_stored(sweep):
    store(sweep, ("a slow one", 80, JOBS))
    full = replace(sweep, name="full", jobs=[*JOBS, {"arm": "a", "steps": 19_200}])
    assert "as 4 runs of x took 80 s" in [*plan(full, 1, [sweep, full])][-1]
    assert [*plan(full, 1)][-1].startswith("cost left")


def test_kinds_of_jobs():
    """By their fields; of many values the first and the last."""
    jobs = [{"world": True}, *({"seed": n, "rate": None} for n in range(MOST + 1))]
    first = ", ".join(map(str, range(MOST - 2)))
    assert [*kinds(jobs)] == ["1 with world true", f"13 with seed {first}, ... (13 values), 12; rate null"]


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "0 s"), (119.4, "119 s"), (120, "2 min"), (7199, "120 min"), (12_240, "3.4 h")]
)
def test_duration(seconds, words):
    assert duration(seconds) == words


@pytest.fixture
def grids(sweep):
    return {"small": replace(sweep, name="x_small", jobs=JOBS[:1]), "full": replace(sweep, name="x_full")}


def test_a_script_with_grids(grids, monkeypatch, capsys):
    """A start names one; what starts nothing takes all in turn."""
    assert command(monkeypatch, grids, "--grid", "small") == 0
    assert grids["small"].results.exists() and not grids["full"].results.exists()
    assert command(monkeypatch, grids, "--dry-run") == 0
    said = capsys.readouterr().out
    assert "x_small: 1 jobs, 1 done" in said and "x_full: 4 jobs, 0 done" in said and "1 runs of x_small" in said
    assert command(monkeypatch, grids, "--quick", "--grid", "full") == 0
    for arguments in ([], ["--grid", "large"], ["--workers", "2"]):
        with pytest.raises(SystemExit):
            command(monkeypatch, grids, *arguments)
    with pytest.raises(ValueError, match=r"\['x_full', 'x_full'\]: expected each once"):
        command(monkeypatch, dict.fromkeys(grids, grids["full"]), "--dry-run")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--grid", "small"],
        ["--workers", "2", "--ray"],
        ["--dry-run", "--quick"],
        ["--verify", "--dry-run"],
        ["--quick", "--track"],
    ],
)
def test_what_excludes_each_other_is_refused(sweep, monkeypatch, arguments):
    """A script with one grid has no --grid."""
    with pytest.raises(SystemExit) as refused:
        command(monkeypatch, sweep, *arguments)
    assert refused.value.code == 2


def test_numbers_and_curves_of_a_result():
    result = {"loss": 2.5, "curve": [3, 2.5], "arms": {"a": 1, "b": {"c": [0.5]}}, "word": "x", "mixed": [1, None]}
    assert dict(series(result)) == {"loss": [2.5], "curve": [3, 2.5], "arms/a": [1], "arms/b/c": [0.5]}


class Log:
    """In place of `track`: what it was given, and what was logged."""

    def __init__(self):
        self.runs = []

    def __call__(self, name, config, group):
        self.runs.append((name, config, group, []))
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return False

    def log(self, **row):
        self.runs[-1][-1].append(row)


def test_each_finished_job_is_a_run_of_one_group(sweep, monkeypatch):
    log = Log()
    monkeypatch.setattr("shared.sweeps.tracked.track", log)
    assert command(monkeypatch, sweep, "--track") == 0
    assert log.runs == [
        (f"arm {job['arm']}, steps {job['steps']}", job, "x", [{"loss": 1 / job["steps"]}]) for job in JOBS
    ]
    log_run(sweep, JOBS[0] | {"loss": 2.0, "curve": [3, 2, 1]})
    assert log.runs[-1][-1] == [{"loss": 2.0, "curve": 3}, {"curve": 2}, {"curve": 1}]


def test_what_cannot_be_logged_is_reported_and_kept(sweep, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_MODE", "no such mode")
    assert command(monkeypatch, sweep, "--track") == 0
    said = capsys.readouterr().out
    assert said.count("NOT TRACKED") == 4 and "WANDB_MODE is 'no such mode'" in said
    assert len(json.loads(sweep.results.read_text())["rows"]) == 4
