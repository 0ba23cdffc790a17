"""shared/clinic: copies with a changed line, functions in place of others, properties, patients in a notebook."""

import importlib
import inspect
import re
import sys
import traceback
from pathlib import Path
from types import ModuleType

import numpy
import pytest
import torch

from shared.clinic import (
    Change,
    Check,
    Evidence,
    Examination,
    Fault,
    admit,
    answer,
    catches,
    copies,
    difference,
    examine,
    graft,
    hint,
    holds_on,
    plant,
    refusal,
    repair,
    source,
    treat,
    try_out,
)
from shared.clinic.copies import bare

TOY = '''"""A toy lesson."""

from dataclasses import dataclass

LINES = ["return a + b", "# no comment"]  # a comment

# what follows adds


def add(a, b):
    """The sum."""

    return a + b  # of two


def twice(a):
    return add(a, a)


@dataclass
class Counter:
    """Counts."""

    step: int = 1

    def after(self, n):
        """Steps."""
        total = 0
        for _ in range(n):
            # one more
            total = total + self.step
        return total

    def nothing(self):
        """Nothing."""


def again():
    return None


def once_more():
    return None
'''
BARE = """from dataclasses import dataclass

LINES = ["return a + b", "# no comment"]


def add(a, b):
    return a + b


def twice(a):
    return add(a, a)


@dataclass
class Counter:
    step: int = 1

    def after(self, n):
        total = 0
        for _ in range(n):
            total = total + self.step
        return total

    def nothing(self):
        ...


def again():
    return None


def once_more():
    return None
"""
CALLER = """import toy

RATE = 2


def run():
    return toy.add(RATE, 3)
"""
CHECKS = """from shared.clinic import Check

CHECKS = [
    Check("sums are right", lambda m: None if m.add(2, 3) == 5 else f"2 + 3 is {m.add(2, 3)}", "Plus?", about=["add"]),
    Check("twice is right", lambda m: None if m.twice(2) == 4 else f"twice 2 is {m.twice(2)}", about=["twice"]),
]
EXERCISES = []
"""
FAULTS = """from shared.clinic import Change, Evidence, Fault

FAULTS = [
    Fault("a wrong sign", [Change("return a + b", "return a - b")], "it hurts", ["far", "near"], "nobody/nothing#1",
          lambda helper, caller: Evidence(f"run() gives {caller.run()}")),
    Fault("a wrong rate", [Change("RATE = 2", "RATE = 3", in_caller=True)], "it aches", ["far"], "nobody/nothing#2",
          holds=lambda helper, caller: caller.run() == 5),
]
"""
ADD = Change("return a + b", "return a - b")


@pytest.fixture
def toy(tmp_path, monkeypatch) -> ModuleType:
    """A lesson's helper with all that stands beside it; no copy of a test outlives it."""
    for kind, text in (("", TOY), ("_caller", CALLER), ("_checks", CHECKS), ("_faults", FAULTS)):
        (tmp_path / f"toy{kind}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield importlib.import_module("toy")
    for left in set(sys.modules) - before:
        del sys.modules[left]


def test_a_copy_has_no_comments_and_no_docstrings(toy):
    """Even so it reads as if somebody had written it, strings keep their signs, and twice is as once."""
    copy, _ = copies(toy)
    assert source(copy) == bare(source(copy)) == BARE
    assert copy.LINES == toy.LINES and copy.Counter(2).after(3) == 6


def test_changes_reach_helper_and_caller_and_nothing_else(toy, tmp_path):
    """The caller's copy calls the helper's copy; modules, files and what is importable stay as they were."""
    helper, caller = copies(toy, [ADD, Change("RATE = 2", "RATE = 7", in_caller=True)])
    assert (helper.add(2, 3), helper.twice(2), caller.run()) == (-1, 0, 4)
    assert source(helper) == BARE.replace("return a + b\n", "return a - b\n")
    assert sys.modules["toy"] is toy and toy.add(2, 3) == 5 and (tmp_path / "toy.py").read_text() == TOY
    assert importlib.import_module("toy_caller").run() == 5


def test_several_lines_may_change_and_a_line_may_go(toy):
    """Indentation is that of the place; an empty text takes the line out; comments in what is quoted do not count."""
    block = Change(
        """
        for _ in range(n):
            total = total + self.step  # here
        """,
        "total = n * self.step",
    )
    assert plant(toy, fault(block)).Counter(2).after(3) == 6
    assert "        total = n * self.step\n        return total" in source(plant(toy, fault(block)))
    assert plant(toy, fault(Change("total = total + self.step", "pass"))).Counter(2).after(3) == 0
    assert plant(toy, fault(Change('LINES = ["return a + b", "# no comment"]', ""))).add(1, 1) == 2


def fault(*changes: Change, name="a slip") -> Fault:
    return Fault(name, changes, symptom="it hurts", hints=["far"], seen_in="nobody/nothing#1")


@pytest.mark.parametrize(
    ("line", "becomes", "said"),
    [
        ("return None", "return 0", "'return None' stands 2 times in toy, not once"),
        ("a + b", "a - b", "'a + b' stands 0 times"),
        ("return a + b", "    return a + b", "'return a + b' becomes itself"),
    ],
)
def test_lines_that_cannot_be_changed_are_named(toy, line, becomes, said):
    with pytest.raises(ValueError, match=f"^fault 'a slip': .*{re.escape(said)}"):
        plant(toy, fault(Change(line, becomes)))
    with pytest.raises(ValueError, match=re.escape(said)):
        repair(toy, line, becomes)


def test_inspect_and_tracebacks_show_the_copys_own_source(toy):
    patient = plant(toy, fault(Change("return a + b", "return a / (b - b)")))
    assert inspect.getsource(patient.add) == "def add(a, b):\n    return a / (b - b)\n"
    with pytest.raises(ZeroDivisionError) as caught:
        patient.twice(1)
    last = traceback.extract_tb(caught.value.__traceback__)[-1]
    assert (last.line, last.filename) == ("return a / (b - b)", patient.__file__)


def test_a_patient_can_be_repaired_line_by_line(toy):
    both = plant(toy, fault(ADD, Change("total = total + self.step", "total = self.step")))
    one = repair(both, "return a - b", "return a + b")
    assert (one.add(2, 3), one.Counter(2).after(3), both.add(2, 3)) == (5, 2, -1)
    assert source(repair(one, "total = self.step", "total = total + self.step")) == BARE


def test_an_edited_file_is_seen(toy):
    """Edited and reloaded: copies are made from the new text."""
    Path(toy.__file__).write_text(TOY.replace("return a + b  ", "return a + b + 0  "))
    importlib.reload(toy)
    assert "return a + b + 0" in source(copies(toy)[0])


def test_examine_prints_numbers_and_keeps_its_questions(toy, capsys):
    """A line for each check; a question only where it is asked for; passing is not called healthy."""
    assert examine(toy).passes
    assert capsys.readouterr().out == "  ok    sums are right\n  ok    twice is right\n2 of 2 checks pass\n"
    patient = plant(toy, fault(ADD))
    result = examine(patient, failures_only=True)
    assert result.failed == {"sums are right": "2 + 3 is -1", "twice is right": "twice 2 is 0"}
    assert "Plus?" not in capsys.readouterr().out
    examine(patient, questions=True)
    assert "        2 + 3 is -1\n        Plus?\n" in capsys.readouterr().out


def test_a_check_that_raises_or_says_nothing_has_failed(toy, capsys):
    """Also one that recurses without end. The error's name and first line; the checks after it are still run."""

    def endless(module):
        return endless(module)

    def raises(module):
        raise ValueError("no such thing\nsecond line")

    result = examine(
        toy, [Check("a", raises), Check("b", endless), Check("c", lambda m: ""), Check("d", lambda m: None)]
    )
    assert result.passed == ["d"] and result.failed["a"] == "ValueError: no such thing" and result.failed["c"] == ""
    assert result.failed["b"].startswith("RecursionError")
    assert not Examination().passes
    with pytest.raises(ValueError, match="proves nothing"):
        examine(toy, [])

    def interrupted(module):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        examine(toy, [Check("slow", interrupted)])


def test_graft_puts_functions_in_place_of_the_helpers_own(toy):
    """Inner calls use them, methods too, and the helper stays as it is."""

    def add(a, b):
        return 10 * a + b

    grafted = graft(toy, add, **{"Counter.after": lambda self, n: n})
    assert (grafted.twice(2), grafted.Counter().after(5)) == (22, 5)
    assert (toy.twice(2), toy.Counter().after(5)) == (4, 5) and grafted is not toy
    with pytest.raises(ValueError, match="toy has no function ad: did you mean add"):
        graft(toy, ad=add)
    with pytest.raises(ValueError, match=r"toy has no function Counter\.before"):
        graft(toy, **{"Counter.before": add})


def test_try_out_runs_the_checks_about_a_function(toy, capsys):
    """Right, wrong, and the stub that is not written yet, which lets a notebook run on."""

    def add(a, b):
        return a - b

    assert list(try_out(toy, add).failed) == ["sums are right"]
    assert "Plus?" not in capsys.readouterr().out
    assert not try_out(toy, add, questions=True).passes and "Plus?" in capsys.readouterr().out
    assert try_out(toy, lambda a: 2 * a, "twice").passed == ["twice is right"]
    capsys.readouterr()

    def unwritten(a, b):
        raise NotImplementedError("write me")

    said = {
        unwritten: "add is not written yet",
        lambda a, b: ...: "add is not written yet",
        lambda a, b: None: "add returned nothing: is its `return` missing?",
        lambda a, b: unwritten(a, b): "add calls unwritten, a stub",
    }
    for stub, words in said.items():
        assert try_out(toy, stub, "add") is None
        assert capsys.readouterr().out == words + "\n"
    with pytest.raises(ValueError, match="toy has no function unwritten"):
        try_out(toy, unwritten)


def test_catches_wants_the_healthy_right_and_the_patient_wrong(toy, capsys):
    """True or None is yes, all else no; one that raises has failed."""
    patient = plant(toy, fault(ADD))
    assert catches(lambda m: m.add(2, 3) == 5, toy, patient)
    assert capsys.readouterr().out == "on the healthy one it holds\non the patient it fails: the property says False\n"
    assert not catches(lambda m: None, toy, patient)
    assert not catches(lambda m: f"found {m.add(1, 1)}", toy, patient)
    assert holds_on(lambda a, b: 1 / 0, (toy, patient)) == "ZeroDivisionError: division by zero"
    for yes, no in ((torch.tensor(True), torch.tensor(False)), (numpy.bool_(True), numpy.bool_(False)), (1, 0)):
        assert holds_on(lambda _, it=yes: it, toy) is None
        assert holds_on(lambda _, it=no: it, toy) is not None
    assert catches(lambda a, b: b.add(1, 1) == 2, (toy, toy), (toy, patient))


def test_a_patient_shows_its_symptom_and_nothing_more_until_it_is_asked(toy, capsys):
    """Evidence at once; checks, hints one by one, answer when they are asked for."""
    patient = admit(toy, 1)
    assert patient.add(2, 3) == -1
    assert capsys.readouterr().out == "Symptom: it hurts\nrun() gives -1\n"
    hint(patient)
    hint(patient)
    hint(patient)
    assert capsys.readouterr().out == "Hint 1 of 2: far\nHint 2 of 2: near\nThere are no more hints.\n"
    treat(patient, line="", becomes="return a + b")
    assert capsys.readouterr().out == ""
    treat(patient, line="return a - b", becomes="return a + b")
    assert capsys.readouterr().out == "2 of 2 checks pass\n"
    answer(patient)
    assert capsys.readouterr().out == (
        "a wrong sign\nis\n    return a - b\nshould be\n    return a + b\nnobody/nothing#1\n"
    )
    assert repr([fault(ADD, name="wrong sign")]) == "[Symptom: it hurts]"
    for number in (0, 3):
        with pytest.raises(ValueError, match=f"no patient {number}: toy has 1 to 2"):
            admit(toy, number)
    with pytest.raises(ValueError, match="is no patient"):
        hint(toy)


def test_a_helper_without_checks_or_faults_is_named(toy, tmp_path):
    (tmp_path / "toy_checks.py").unlink()
    (tmp_path / "toy_faults.py").unlink()
    with pytest.raises(ValueError, match=r"toy has no checks .* proves nothing"):
        examine(toy)
    with pytest.raises(ValueError, match="toy has no faults"):
        admit(toy, 1)


def test_evidence_is_written_to_files(tmp_path):
    from matplotlib.figure import Figure

    files = Evidence("words", Figure()).save(tmp_path)
    assert [file.name for file in files] == ["evidence.txt", "evidence.png"]
    assert files[0].read_text() == "words\n" and files[1].read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ([1.0, 2.0 + 1e-10], None),
        ([1.0, 2.5], "found 2.5 at [1], expected 2"),
        ([float("nan"), 2.0], "found nan at [0], expected 1"),
        ([[1.0, 2.0]], "shape (1, 2), expected (2,)"),
    ],
)
def test_difference(found, words):
    """In words, at the place where it is largest."""
    wanted = torch.tensor([1.0, 2.0], dtype=torch.float64)
    assert difference(torch.tensor(found, dtype=torch.float64), wanted) == words


def complain():
    """A call that is refused."""
    raise ValueError("k is 0")


@pytest.mark.parametrize(
    ("call", "words", "found"),
    [
        (complain, "k is 0", None),
        (complain, "p is", "given k = 0 it said 'k is 0': expected the words 'p is' in it"),
        (dict, "k is 0", "k = 0 was taken without a word, expected a ValueError"),
    ],
)
def test_refusal(call, words, found):
    """Refused by name; refused otherwise; taken. Any other error is not a refusal."""
    assert refusal([("k = 0", words, call)]) == found
    with pytest.raises(ZeroDivisionError):
        refusal([("k = 0", words, lambda: 1 / 0)])
