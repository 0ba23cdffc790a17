"""shared/tracking.py: what a run records, where it goes, and that it survives how a notebook is left.

What wandb's Go process sends cannot be seen from Python; that offline mode opens no socket there was checked
once with strace. The tests here hold the Python side.
"""

import json
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from shared.tracking import track

ROOT = Path(__file__).parents[2]
BLOCK, HEAD = 32768, 7  # bytes; a chunk's head is crc (4), length (2), type (1)
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4  # chunk types

HALF_A_RUN = """
import signal, time
from shared.tracking import track
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job inherits it ignored
with track("half", {"lr": 0.5}) as run:
    for step in range(3):
        run.log(step=step)
    print("ready", flush=True)
    time.sleep(60)
"""


def records(path: Path) -> Iterator:
    """The records of a .wandb file: LevelDB's log format after a wandb header. Stops at a cut."""
    from wandb.proto import wandb_internal_pb2 as pb

    raw = path.read_bytes()
    if not raw:  # just made
        return
    assert raw[:7] == struct.pack("<4sHB", b":W&B", 0xBEE1, 0)
    at, data = 7, b""
    while at + HEAD <= len(raw):
        if BLOCK - at % BLOCK < HEAD:  # too little left in this block for a head: zeros
            at += BLOCK - at % BLOCK
            continue
        _crc, length, kind = struct.unpack("<IHB", raw[at : at + HEAD])
        chunk = raw[at + HEAD : at + HEAD + length]
        if kind not in (FULL, FIRST, MIDDLE, LAST) or len(chunk) < length:
            return
        at += HEAD + length
        data = chunk if kind in (FULL, FIRST) else data + chunk
        if kind in (FULL, LAST):
            yield pb.Record.FromString(data)


def items(pairs) -> dict:
    """Key and value of each pair, without wandb's own keys such as _step."""
    plain = {pair.key or "/".join(pair.nested_key): json.loads(pair.value_json) for pair in pairs}
    return {key: value for key, value in plain.items() if not key.startswith("_")}


def read(path: Path) -> SimpleNamespace:
    """Name, group, project, config, rows and exit code (None: never finished) of a run's file."""
    run = SimpleNamespace(rows=[], config={}, name=None, group=None, project=None, exit_code=None)
    for record in records(path):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run.name, run.group, run.project = record.run.display_name, record.run.run_group, record.run.project
            run.config |= items(record.run.config.update)
        elif kind == "history":
            run.rows.append(items(record.history.item))
        elif kind == "exit":
            run.exit_code = record.exit.exit_code
    return run


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("wandb/offline-run-*/run-*.wandb"))


def wait_for(path: Path, done: Callable[[SimpleNamespace], bool]) -> SimpleNamespace:
    """The run once `done(run)`, or as it is after 10 s: wandb's own process writes a moment behind ours."""
    deadline = time.monotonic() + 10
    while not done(run := read(path)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return run


def finished(path: Path) -> SimpleNamespace:
    return wait_for(path, lambda run: run.exit_code is not None)


def only_run(folder: Path) -> SimpleNamespace:
    (path,) = files(folder)
    return finished(path)


def clean_environment(folder: Path, **extra: str) -> dict[str, str]:
    """The environment without wandb's variables, and with an empty home."""
    home = folder / "home"
    home.mkdir(exist_ok=True)
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("WANDB_", "NETRC"))}
    return kept | {"HOME": str(home), "USERPROFILE": str(home), "PYTHONPATH": str(ROOT)} | extra


def python(code: str, folder: Path, **extra: str) -> subprocess.CompletedProcess:
    """Run `code` in a new interpreter in `folder`, with nobody at the keyboard."""
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=clean_environment(folder, **extra),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """An empty current folder, and an environment that says nothing to wandb."""
    for key in [key for key in os.environ if key.startswith("WANDB_")]:
        monkeypatch.delenv(key)
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def disabled(folder, monkeypatch) -> Path:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    return folder


@pytest.fixture
def calls(folder, monkeypatch) -> dict:
    """What wandb is called with, in place of calling it; it knows a key."""
    import wandb

    seen = {}
    sink = SimpleNamespace(log=lambda row: None, finish=lambda exit_code: None)
    monkeypatch.setattr(wandb, "setup", lambda settings: seen.update(setup=settings))
    monkeypatch.setattr(wandb, "login", lambda **arguments: seen.update(login=arguments) or True)
    monkeypatch.setattr(wandb, "init", lambda **arguments: seen.update(init=arguments) or sink)
    return seen


def test_run_reads_back_from_its_own_file(folder):
    """Offline is the default; name, group, project, config and every row are in wandb/ here, as in memory."""
    config = {"lr": 3e-3, "widths": [8, 16], "note": "ünïcode"}
    with track("04-scale-sweep", config, project="attention", group="scale") as run:
        for step in range(600):  # more than one block of the file
            run.log(loss=1 / (step + 1), step=step)
    stored = only_run(folder)
    assert (stored.name, stored.group, stored.project) == ("04-scale-sweep", "scale", "attention")
    assert stored.config == config
    assert len(stored.rows) == 600 and stored.rows == run.history
    assert run.history[1] == {"loss": 0.5, "step": 1}
    assert stored.exit_code == 0


def test_every_kind_of_number_becomes_a_plain_one(folder):
    """Tensors and NumPy scalars without dimensions are stored as int or float; NaN and infinity are kept."""
    numbers = {
        "int": (2, 2),
        "bool": (True, 1),
        "tensor": (torch.tensor(0.25, requires_grad=True), 0.25),
        "bfloat16": (torch.tensor(0.5, dtype=torch.bfloat16), 0.5),
        "float32": (np.float32(1.5), 1.5),
        "int64": (np.int64(3), 3),
        "array": (np.array(4.0), 4.0),
        "nan": (float("nan"), float("nan")),
        "inf": (-np.inf, float("-inf")),
        "self": (1, 1),
    }
    with track("numbers") as run:
        run.log(**{name: value for name, (value, _) in numbers.items()})
    plain = {name: repr(expected) for name, (_, expected) in numbers.items()}  # 4.0 is not 4, nan is nan
    (row,) = run.history
    assert {name: repr(value) for name, value in row.items()} == plain
    assert only_run(folder).rows == [pytest.approx(row, nan_ok=True)]


def test_wandb_dir_says_where_and_is_made(folder, monkeypatch):
    """WANDB_DIR gets the files, though it did not exist; the current folder gets none."""
    elsewhere = folder / "not" / "there yet"
    monkeypatch.setenv("WANDB_DIR", str(elsewhere))
    with track("elsewhere") as run:
        run.log(loss=1.0)
    assert only_run(elsewhere).rows == [{"loss": 1.0}]
    assert not (folder / "wandb").exists()


def test_nested_tracks_are_two_runs(folder):
    """A run inside a run has its own rows, and its end does not end the outer one."""
    with track("outer") as outer:
        outer.log(a=1)
        with track("inner") as inner:
            inner.log(b=2)
        outer.log(a=3)
    stored = {run.name: run.rows for run in map(finished, files(folder))}
    assert stored == {"outer": [{"a": 1}, {"a": 3}], "inner": [{"b": 2}]}
    assert (outer.history, inner.history) == (stored["outer"], stored["inner"])


def test_says_nothing_and_asks_the_network_nothing(tmp_path):
    """Offline: stdout and stderr stay empty, also for a reader whose home has wandb settings; Python looks up
    no name and connects to no other machine (the Go side is not seen here). Importing our module leaves wandb
    alone, and its crash reports are off before it is imported."""
    settings = tmp_path / "home" / ".config" / "wandb" / "settings"
    settings.parent.mkdir(parents=True)
    settings.write_text("[default]\nmode = online\nentity = somebody\n")
    code = """
import os, sys
import shared.tracking
if "wandb" in sys.modules: print("wandb was imported early")
def audit(event, arguments):
    if event == "import" and arguments[0] == "wandb" and os.environ.get("WANDB_ERROR_REPORTING") != "false":
        print("crash reports on")
    if event in ("socket.getaddrinfo", "socket.gethostbyname"):
        if arguments[0] not in ("localhost", "127.0.0.1"): print(event, arguments)
    if event in ("socket.connect", "socket.sendto"):  # a str or bytes address is a Unix socket's
        if isinstance(arguments[1], tuple) and arguments[1][0] != "127.0.0.1": print(event, arguments)
sys.addaudithook(audit)
with shared.tracking.track("quiet", {"lr": 1}) as run:
    run.log(loss=1.0)
"""
    done = python(code, tmp_path)
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)
    assert only_run(tmp_path).rows == [{"loss": 1.0}]


def test_disabled_writes_no_file_and_keeps_history(tmp_path):
    """WANDB_MODE=disabled leaves the folder, WANDB_DIR and the home empty; the rows are still in memory."""
    code = """
from shared.tracking import track
with track("none", {"lr": 1}) as run:
    run.log(loss=1.0)
assert run.history == [{"loss": 1.0}]
"""
    done = python(code, tmp_path, WANDB_MODE="disabled", WANDB_DIR=str(tmp_path / "runs"))
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)
    assert list(tmp_path.rglob("*")) == [tmp_path / "home"]


@pytest.mark.parametrize("mode", [None, "", "offline", "online", "disabled"])
def test_mode_of_the_environment_reaches_wandb(calls, monkeypatch, mode):
    """wandb.init gets WANDB_MODE, or offline where it is unset or empty; only an online run talks.

    The key is looked for without a question, and both ends of a run have a limit.
    """
    if mode is not None:
        monkeypatch.setenv("WANDB_MODE", mode)
    with track("any"):
        pass
    settings = calls["init"]["settings"]
    assert calls["init"]["mode"] == calls["setup"].mode == (mode or "offline")
    assert settings.silent == (mode != "online")
    assert calls.get("login", {}).get("prompt") is (False if mode == "online" else None)
    assert 0 < settings.init_timeout <= 60 and 0 < settings.finish_timeout <= 60


def test_online_without_a_key_fails_in_words(tmp_path, calls, monkeypatch):
    """With none that can be one, or with no key: a ValueError that says what to do; the block is not entered."""
    code = "from shared.tracking import track\nwith track('up'): print('entered')"
    done = python(code, tmp_path, WANDB_MODE="online", WANDB_API_KEY="short")
    assert (done.returncode, done.stdout) == (1, "")
    assert (
        done.stderr.strip().splitlines()[-1].startswith("ValueError: WANDB_MODE is 'online' but WANDB_API_KEY invalid")
    )
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setattr("wandb.login", lambda **arguments: False)
    said = "but wandb knows no key: run `wandb login` once in a terminal, or unset WANDB_MODE"
    with pytest.raises(ValueError, match=said), track("up"):
        pytest.fail("the block was entered")


@pytest.mark.parametrize("mode", ["Online", "dryrun"])
def test_bad_mode_is_named(folder, monkeypatch, mode):
    """A WANDB_MODE that is none of the three: the error has the value and the three; no file is made."""
    monkeypatch.setenv("WANDB_MODE", mode)
    said = f"WANDB_MODE is '{mode}': .* offline, online, disabled"
    with pytest.raises(ValueError, match=said), track("bad"):
        pytest.fail("the block was entered")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("value", "shown"),
    [("high", r"'high' \(str\)"), (None, "None"), (1j, "1j"), (torch.zeros(2, 3), r"Tensor of shape \(2, 3\)")],
)
def test_bad_metric_is_named(disabled, value, shown):
    """What is not one number: the error has the metric and the value; the row is dropped, the run goes on."""
    with track("bad") as run:
        with pytest.raises(ValueError, match=f"(?s)metric 'score' is .*{shown}"):
            run.log(loss=1.0, score=value)
        with pytest.raises(ValueError, match="'bad' was given an empty row"):
            run.log()
        run.log(loss=2.0)
    assert run.history == [{"loss": 2.0}]


@pytest.mark.parametrize("mode", ["offline", "disabled"])
def test_log_after_the_block_is_an_error_in_words(folder, monkeypatch, mode):
    """After the end the history stays, and log says that the row would be lost, in every mode."""
    monkeypatch.setenv("WANDB_MODE", mode)
    with track("over") as run:
        run.log(loss=1.0)
    with pytest.raises(ValueError, match="run 'over' has ended, so loss would not reach its file"):
        run.log(loss=2.0)
    assert run.history == [{"loss": 1.0}]


@pytest.mark.parametrize("error", [KeyError, KeyboardInterrupt, SystemExit])
def test_exception_finishes_the_run_and_goes_on(folder, capfd, error):
    """The exception reaches the caller, unprinted; the file is finished, marked failed, with its rows."""
    thrown = error("half-way")
    with pytest.raises(error) as caught, track("half") as run:
        run.log(loss=1.0)
        raise thrown
    assert caught.value is thrown
    stored = only_run(folder)
    assert stored.rows == run.history == [{"loss": 1.0}]
    assert stored.exit_code == 1
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no SIGINT to one process")
def test_interrupted_kernel_leaves_a_finished_run(tmp_path):
    """SIGINT to the whole process group, as Jupyter sends it: KeyboardInterrupt, every row in the file."""
    child = start_half_a_run(tmp_path, start_new_session=True)
    os.killpg(child.pid, signal.SIGINT)
    _, error = child.communicate(timeout=30)
    assert error.strip().endswith("KeyboardInterrupt")
    stored = only_run(tmp_path)
    assert stored.rows == [{"step": 0}, {"step": 1}, {"step": 2}]
    assert stored.config == {"lr": 0.5}
    assert stored.exit_code == 1


def test_killed_kernel_leaves_its_rows(tmp_path):
    """Rows reach the file while the run is open, well before wandb's own 15 s, so a kill leaves them."""
    child = start_half_a_run(tmp_path)
    (path,) = files(tmp_path)
    wait_for(path, lambda run: len(run.rows) == 3)
    child.kill()
    child.communicate(timeout=30)
    stored = read(path)
    assert stored.rows == [{"step": 0}, {"step": 1}, {"step": 2}]
    assert stored.config == {"lr": 0.5}
    assert stored.exit_code is None


def start_half_a_run(folder: Path, **options) -> subprocess.Popen:
    """A process that has logged three rows and now sleeps inside its run."""
    child = subprocess.Popen(
        [sys.executable, "-c", HALF_A_RUN],
        cwd=folder,
        env=clean_environment(folder),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )
    assert child.stdout.readline() == "ready\n"
    return child
