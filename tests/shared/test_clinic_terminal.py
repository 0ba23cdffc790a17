"""python -m shared.clinic: no edit is lost, every slip is a sentence, and what is healed is told from what passes."""

import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import shared.lessons
from shared.clinic import replies, terminal

ROOT = Path(__file__).parents[2]
HELPER = '''"""Adds."""


def add(a, b):
    """The sum."""
    return a + b
'''
CALLER = """import attention

RATE = 2


def run():
    return attention.add(RATE, 3)
"""
CHECKS = """from shared.clinic import Check

CHECKS = [Check("2 and 3 are right", lambda m: None if m.add(2, 3) == 5 else f"2 + 3 ≈ {m.add(2, 3)}", "Plus?")]
"""
FAULTS = """from shared.clinic import Change, Evidence, Fault


def seen(helper, caller):
    return Evidence(f"√ run() ≈ {caller.run()}")


def right(helper, caller):
    return caller.run() == 5


def negative(helper, caller):
    return helper.add(-2, 1) == -1


SIGN, ABS = Change("return a + b", "return a - b"), Change("return a + b", "return abs(a) + b")
RATE = Change("RATE = 2", "RATE = 3", in_caller=True)
FAULTS = [
    Fault("a wrong sign", [SIGN], "It hurts.", ["far", "near"], "no thread", seen),
    Fault("a wrong rate", [RATE], "It aches.", ["far"], "no thread", seen, right),
    Fault("nothing", [], "Is it ill?", ["far"], "no thread", seen),
    Fault("loses the sign", [ABS], "It lies.", ["far"], "no thread", seen, negative),
]
"""
FILES = {
    "attention.py": HELPER,
    "attention_caller.py": CALLER,
    "attention_checks.py": CHECKS,
    "attention_faults.py": FAULTS,
}


def lay(root: Path) -> Path:
    """A lesson 04 of a few lines."""
    folder = root / "04_attention_lab"
    folder.mkdir()
    for name, text in {**FILES, "attention_vis.ipynb": "{}"}.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def say(tmp_path, monkeypatch, capsys):
    """Calls the program with words, and gives its exit status and what it printed."""
    lay(tmp_path)
    ours = {name: sys.modules.pop(name) for name in list(sys.modules) if name.startswith("attention")}
    monkeypatch.setattr(shared.lessons, "ROOT", tmp_path)
    for module in (replies, terminal):
        monkeypatch.setattr(module, "HOME", tmp_path / "scratch" / "clinic")
    monkeypatch.chdir(tmp_path)
    importlib.invalidate_caches()

    def call(words: str) -> tuple[int, str]:
        status = terminal.main(words.split())
        return status, capsys.readouterr().out

    yield call
    for name in [name for name in sys.modules if name.startswith("attention")]:
        del sys.modules[name]
    sys.modules.update(ours)


def at(number: int, name="attention.py") -> Path:
    return Path("scratch/clinic") / f"04-{number}" / name


def edit(number: int, old: str, new: str, name="attention.py") -> None:
    text = at(number, name).read_text()
    assert old in text
    at(number, name).write_text(text.replace(old, new))


def progress(number: int) -> dict:
    return json.loads(Path("scratch/clinic/progress.json").read_text())["patients"][f"04-{number}"]


def test_from_symptom_to_healed(say):
    """Symptom and evidence first; checks, hints, answer as they are asked for; the lesson's files are left alone."""
    status, told = say("04 1")
    assert status == 0 and "It hurts." in told and "run() ≈ -1" in told
    assert "sign" not in told and "far" not in told and "FAIL" not in told
    assert '"""' not in at(1).read_text() and "import attention\n" in at(1, "attention_caller.py").read_text()
    assert "run() ≈ -1" in at(1, "evidence.txt").read_text(encoding="utf-8")
    told = say("--check")[1]
    assert "2 + 3 ≈ -1" in told and "Plus?" not in told and "Nothing has been changed yet." in told
    assert "Plus?" in say("--check --hint")[1]
    assert [say("--hint")[1] for _ in range(3)][:2] == ["Hint 1 of 2: far\n", "Hint 2 of 2: near\n"]
    assert "No: something is wrong" in say("--healthy")[1]
    edit(1, "a - b", "a + b")
    told = say("--check")[1]
    assert "1 of 1 checks pass" in told and "Healed. It was: a wrong sign" in told
    assert progress(1) == {"hints": 2, "wrong": 1, "healed": True, "caught": False, "answered": False}
    assert "[healed, 2 hints]" in say("04")[1]
    assert Path("04_attention_lab/attention.py").read_text() == HELPER


def test_an_edited_copy_is_never_overwritten_unless_it_is_said(say):
    say("04 1")
    edit(1, "a - b", "a * b")
    told = say("04 1")[1]
    assert "as you left it" in told and "a * b" in at(1).read_text()
    at(1, "attention_caller.py").unlink()
    status, told = say("--check")
    assert status == 2 and "attention_caller.py is not in scratch" in told
    say("04 1")
    assert at(1, "attention_caller.py").exists() and "a * b" in at(1).read_text()
    at(1, "property.py").write_text("mine")
    say("--again")
    assert "a - b" in at(1).read_text() and at(1, "property.py").read_text() == "mine"


def test_the_caller_can_be_sick_and_passing_is_not_healed(say):
    """All checks pass from the start; only the right change closes the case."""
    say("04 2")
    told = say("--check")[1]
    assert "1 of 1 checks pass\nNothing has been changed yet." in told and "--healthy" in told
    edit(2, "a + b", "b + a")
    told = say("--check")[1]
    assert "the symptom is still there" in told and "--healthy" not in told and not progress_healed(2)
    edit(2, "RATE = 3", "RATE = 2", "attention_caller.py")
    assert "Healed. It was: a wrong rate" in say("--check")[1]


def progress_healed(number: int) -> bool:
    stored = json.loads(Path("scratch/clinic/progress.json").read_text())["patients"]
    return stored.get(f"04-{number}", {}).get("healed", False)


def test_a_healthy_patient_is_closed_by_saying_so(say):
    """An edit that changes nothing does not heal it, and does not say that it was healthy."""
    say("04 3")
    assert "--healthy" in say("--check")[1]
    edit(3, "a + b", "b + a")
    told = say("--check")[1]
    assert "the symptom is still there" in told and "--healthy" not in told
    edit(3, "RATE = 2", "RATE = 1", "attention_caller.py")
    assert "something else is not as in a healthy copy" in say("--check")[1]
    assert "Right: nothing" in say("--healthy")[1] and progress(3)["healed"]


def test_a_property_of_the_readers_catches_what_no_check_sees(say):
    """Unwritten, wrong on the healthy file, blind, broken, right."""
    say("04 4")
    assert "property.py is not written yet." in say("--property")[1]
    for body, words in (
        ("return attention.add(1, 1) == 3", "on the healthy one it fails"),
        ("return attention.add(1, 1) == 2", "on the patient it holds, too"),
        ("return nowhere", "on the healthy one it fails: NameError"),
    ):
        at(4, "property.py").write_text(f"def holds(attention, caller):\n    {body}\n")
        told = say("--property")[1]
        assert words in told and "Caught." not in told
    at(4, "property.py").write_text("def holds(attention, caller):\n    return attention.add(-1, 1) == 0\n")
    assert "Caught." in say("--property")[1] and progress(4)["caught"]
    at(4, "property.py").write_text("x = 1\n")
    assert say("--property") == (2, "property.py has no function `holds`: it is the one that is called\n")
    at(4, "property.py").write_text("def holds(attention):\n    return True\n")
    told = "`holds` in property.py is called with 2 arguments: attention, attention_caller\n"
    assert say("--property") == (2, told)
    edit(4, "abs(a) + b", "a + b")
    assert "Healed." in say("--check")[1]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("return a - b", "return (a - b", "attention.py is no Python"),
        ("def add", "1 / 0\ndef add", "attention.py stops when it is imported: ZeroDivisionError"),
        ("def add", "raise SystemExit\ndef add", "attention.py stops when it is imported: SystemExit"),
        ("return a - b", "return add(a, b)", "RecursionError"),
        ("def add(a, b)", "def plus(a, b)", "AttributeError"),
    ],
)
def test_a_slip_in_the_copy_is_a_sentence(say, old, new, words):
    say("04 1")
    edit(1, old, new)
    told = say("--check")[1]
    assert words in told and "Traceback" not in told
    assert new in at(1).read_text()


@pytest.mark.parametrize(
    ("slip", "words"),
    [
        ("RATE = = 2", "attention_caller.py is no Python"),
        ("RATE = 1 / 0", "attention_caller.py stops when it is imported: ZeroDivisionError"),
        ("RATE = 'ü'", "attention_caller.py is not UTF-8, at byte 26: save it as UTF-8"),
    ],
)
def test_a_slip_in_the_caller_is_told_from_one_in_the_helper(say, slip, words):
    say("04 1")
    path = at(1, "attention_caller.py")
    path.write_bytes(path.read_text().replace("RATE = 2", slip).encode("latin-1"))
    assert words in say("--check")[1]


def test_a_check_that_is_stopped_is_named(say):
    say("04 1")
    edit(1, "return a - b", "raise KeyboardInterrupt")
    status, told = say("--check")
    assert status == 130 and "Stopped in the check: 2 and 3 are right" in told


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("99", "no lesson '99': there is 04"),
        ("attenton 3", "no lesson 'attenton'"),
        ("04 9", "no patient '9' in lesson 04: there are 1 to 4"),
        ("04 one", "no patient 'one'"),
        ("04 -1", "no patient '-1' in lesson 04"),
        ("04 1 2", "more than a lesson and a patient"),
        ("--check", "which patient?"),
        ("04 --hint", "Give its number, too"),
        ("04 2 --check", "has no files yet"),
    ],
)
def test_what_is_mistyped_is_named(say, line, words):
    status, told = say(line)
    assert status == 2 and words in told


def test_patients_are_drawn_by_chance_from_those_that_are_open(say):
    """Also by the helper's name; the list goes by symptom."""
    told = say("attention")[1]
    assert all(words in told for words in ("It hurts.", "It aches.", "Is it ill?", "It lies.")) and "sign" not in told
    say("4 1")
    say("--answer")
    drawn = {say("attention any")[1].split(" of ")[0] for _ in range(40)}
    assert drawn == {"Patient 2", "Patient 3", "Patient 4"}


def test_a_spoilt_record_is_put_aside(say):
    """It is small and can be lost; the reader's edits cannot."""
    say("04 1")
    edit(1, "a - b", "a * b")
    Path("scratch/clinic/progress.json").write_text("{ no json")
    status, told = say("04 1")
    assert status == 0 and "put aside" in told and "a * b" in at(1).read_text()
    assert Path("scratch/clinic/progress.unreadable").read_text() == "{ no json"


def test_from_a_terminal_in_a_fresh_copy(tmp_path):
    """From the root and from the lesson's folder, on a console without our signs; the tree stays as it was."""
    shutil.copytree(ROOT / "shared", tmp_path / "shared", ignore=shutil.ignore_patterns("weights", "__pycache__"))
    folder = lay(tmp_path)
    environment = os.environ | {
        "PYTHONPATH": str(tmp_path), "PYTHONIOENCODING": "cp1252", "PYTHONDONTWRITEBYTECODE": "1", "LC_ALL": "C"
    }  # fmt: skip

    def run(*words, cwd=tmp_path):
        return subprocess.run(
            [sys.executable, "-m", "shared.clinic", *words], cwd=cwd, env=environment, capture_output=True, check=False
        )

    first = run("04", "1")
    assert first.returncode == 0 and not first.stderr and b"? run()" in first.stdout
    second = run("--check", cwd=folder)
    assert second.returncode == 0 and not second.stderr and b"Nothing has been changed yet." in second.stdout
    third = run("40", cwd=folder)
    assert third.returncode == 2 and not third.stderr
    assert sorted(path.name for path in folder.iterdir()) == sorted([*FILES, "attention_vis.ipynb"])
