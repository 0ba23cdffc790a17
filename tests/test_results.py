"""shared/results.py: what a sweep stores, and what it says of how it was made."""

import json
import sys

import pytest
import torch

from shared import results

DOC = "Two runs of nothing: python toy_sweep.py\n\nAnd more."


@pytest.fixture
def toy(monkeypatch, tmp_path):
    """A sweep's command line, by its arguments: the file that it would write."""
    threads = torch.get_num_threads()

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["toy_sweep.py", *arguments])
        path = tmp_path / "results" / "toy.json"
        rows = [{"seed": seed, "loss": 2.5 + seed} for seed in range(3)]
        results.sweep_command(DOC, path, whole=lambda: rows, quick=lambda: rows[:1], steps=7)
        return path

    yield run
    torch.set_num_threads(threads)


def test_a_sweep_is_stored(toy, capsys):
    """Settings, command, provenance and the rows, each on a line of its own."""
    path = toy()
    record = json.loads(path.read_text())
    assert record["rows"] == [{"seed": 0, "loss": 2.5}, {"seed": 1, "loss": 3.5}, {"seed": 2, "loss": 4.5}]
    assert (record["steps"], record["command"], record["threads"]) == (7, "python toy_sweep.py", 1)
    assert record.keys() == {"rows", "steps", "command", "seconds"} | results.provenance().keys()
    assert len(path.read_text().splitlines()) == 3 + 2
    assert "toy.json" in capsys.readouterr().out


def test_a_quick_try_writes_nothing(toy, capsys):
    path = toy("--quick")
    assert not path.exists()
    assert json.loads(capsys.readouterr().out) == [{"seed": 0, "loss": 2.5}]


def test_provenance():
    found = results.provenance()
    assert found["hardware"] and found["versions"]["torch"] == torch.__version__
    assert found["threads"] == torch.get_num_threads() and found["date"].count("-") == 2
