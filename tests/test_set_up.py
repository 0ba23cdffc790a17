"""tools/set_up.py: what is wrong with a Python or a .venv is said in words, and a .venv of another is made anew."""

import ast
import importlib.util
import os
import sys
from pathlib import Path

import pytest

FILE = Path(__file__).resolve().parent.parent / "tools" / "set_up.py"
HERE = sys.version_info[:2]
RUNS, OLD, OTHER, NO_PIP = (
    f"#!/bin/sh\n[ \"$2\" = 'import pip' ] && exit {status}\necho {version}\n"
    for status, version in ((0, "{} {}".format(*HERE)), (0, "3 10"), (0, "3 99"), (1, "{} {}".format(*HERE)))
)
pytestmark = pytest.mark.skipif(os.name == "nt", reason="the Makefile, which runs it, is not for Windows")


@pytest.fixture
def set_up(tmp_path, monkeypatch):
    """The script, for a .venv in a folder of its own; commands that would be run are listed in `.ran`."""
    spec = importlib.util.spec_from_file_location("set_up", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.VENV, module.PYTHON = str(tmp_path / ".venv"), str(tmp_path / ".venv" / "bin" / "python")
    module.ran = []
    run = module.subprocess.call

    def note(command, **options):
        if "venv" in command:
            module.ran.append(command)
            return 0
        return run(command, **options)

    monkeypatch.setattr(module.subprocess, "call", note)
    return module


def venv(set_up, python):
    """A .venv whose Python is a script."""
    path = Path(set_up.PYTHON)
    path.parent.mkdir(parents=True)
    path.write_text(python, encoding="utf-8")
    path.chmod(0o755)


@pytest.mark.parametrize("there", [True, False])
def test_a_python_that_is_too_old_is_named(set_up, there):
    """Also where there is a .venv that does not run, which then stays."""
    if there:
        venv(set_up, "broken")
    with pytest.raises(SystemExit, match=r"need Python 3\.11 or newer, and .* is Python 3\.10"):
        set_up.make_venv(False, here=(3, 10))
    assert not set_up.ran and Path(set_up.VENV).exists() == there


@pytest.mark.parametrize(
    ("python", "named", "why"),
    [
        ("broken", False, "does not run"),
        (NO_PIP, False, "has no pip"),
        (OLD, False, "is of Python 3.10"),
        (OTHER, True, "is of Python 3.99"),
    ],
)
def test_a_venv_that_cannot_be_used_is_made_anew(set_up, capsys, python, named, why):
    venv(set_up, python)
    set_up.make_venv(named)
    assert f".venv {why}: it is made anew with Python {HERE[0]}.{HERE[1]}" in capsys.readouterr().out
    assert set_up.ran and not Path(set_up.VENV).exists()


@pytest.mark.parametrize(("python", "named"), [(RUNS, True), (RUNS, False), (OTHER, False)])
def test_a_venv_that_runs_is_kept(set_up, python, named):
    """Of another Python too, unless the reader named this one."""
    venv(set_up, python)
    set_up.make_venv(named)
    assert not set_up.ran and Path(set_up.PYTHON).exists()


def test_an_old_python_can_read_it():
    """No syntax that Python 3.5 lacks: f-strings above all."""
    tree = ast.parse(FILE.read_text(encoding="utf-8"), feature_version=(3, 5))
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr | ast.NamedExpr | ast.AnnAssign)]
