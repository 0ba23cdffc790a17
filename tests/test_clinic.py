"""shared/clinic.py: one line changes and nothing else, the patient is read and repaired, the card keeps its answer."""

import importlib
import inspect
import linecache
import re
import sys
import traceback
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType

import pytest
import torch

from shared.clinic import Check, Examination, Fault, admit, difference, examine, plant, refusal, repair, source, treat

TOY = '''"""A toy lesson."""

from dataclasses import dataclass

LINES = [
    "return a + b",
    "total = total + self.step",
]


def add(a, b):
    """The sum."""
    return a + b


@dataclass
class Counter:
    """Counts."""

    step: int = 1

    def after(self, n):
        total = 0
        for _ in range(n):
            total = total + self.step
        return total


def divide(a, b):
    if b:
        return a / b
    return None


def again():
    return None
'''
ADD = ("return a + b", "return a - b")
COUNT = ("total = total + self.step", "total = self.step")


def fault(line: str, becomes: str, name: str = "the fault") -> Fault:
    return Fault(name, line, becomes, symptom="it hurts", hints=["far", "near"], seen_in="nobody/nothing#1")


@pytest.fixture
def toy(tmp_path, monkeypatch, request) -> ModuleType:
    """A lesson's helper as a file that was imported; no patient of a test outlives it."""
    name = "toy_helper"
    (tmp_path / f"{name}.py").write_text(TOY)
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield importlib.import_module(name)
    for left in set(sys.modules) - before:
        del sys.modules[left]


def changed_lines(module: ModuleType, patient: ModuleType) -> list[tuple[int, str, str]]:
    """Number, old and new text of the lines in which two sources of one length differ."""
    old, new = source(module).split("\n"), source(patient).split("\n")
    pairs = zip(old, new, strict=True)
    return [(i, a, b) for i, (a, b) in enumerate(pairs, 1) if a != b]


def test_planting_changes_that_line_and_nothing_else(toy):
    """The source differs in one line, indentation kept; behaviour changes there only."""
    patient = plant(toy, fault(*COUNT))
    (change,) = changed_lines(toy, patient)
    assert change[1:] == (" " * 12 + COUNT[0], " " * 12 + COUNT[1])
    assert patient.Counter(2).after(3) == 2
    assert patient.add(2, 3) == 5
    assert patient.__doc__ == "A toy lesson."


def test_the_original_is_left_alone(toy, tmp_path):
    """Neither the module, nor what it holds, nor its file changes."""
    before = dict(vars(toy))
    plant(toy, fault(*ADD))
    assert vars(toy) == before
    assert toy.add(2, 3) == 5
    assert sys.modules["toy_helper"] is toy
    assert Path(toy.__file__).read_text() == TOY == source(toy)
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["toy_helper.py"]


def test_a_line_in_a_list_as_a_string_does_not_count(toy):
    """The helper's own list of faults holds the line too, as text: that stays, and is not a second place."""
    patient = plant(toy, fault(*ADD))
    assert patient.LINES == toy.LINES
    assert (patient.add(2, 3), toy.add(2, 3)) == (-1, 5)


def test_spaces_around_the_line_do_not_matter(toy):
    """A fault may quote its lines with their indentation, or another; the source keeps its own."""
    patient = plant(toy, fault("        return a + b  ", "\treturn a - b\n"))
    assert [change[2] for change in changed_lines(toy, patient)] == ["    return a - b"]


@pytest.mark.parametrize(
    ("line", "becomes", "said"),
    [
        ("return None", "return 0", "'return None' stands 2 times in toy_helper, not once"),
        ("return a * b", "return 0", "'return a * b' stands 0 times in toy_helper, not once"),
        ("a + b", "a - b", "'a + b' stands 0 times"),
        ("return a + b", "    return a + b", "'return a + b' becomes itself"),
    ],
)
def test_lines_that_cannot_be_planted_are_named(toy, line, becomes, said):
    """Twice, never, only a part of a line, or unchanged: the error names the fault, or says it was a repair."""
    with pytest.raises(ValueError, match=f"^fault 'a slip': .*{re.escape(said)}"):
        plant(toy, fault(line, becomes, name="a slip"))
    with pytest.raises(ValueError, match=f"^repair: .*{re.escape(said)}"):
        repair(toy, line, becomes)


def test_every_patient_is_a_module_of_its_own(toy):
    """Two of one fault share nothing, have their own names, and can be found by them."""
    one, two = plant(toy, fault(*ADD)), plant(toy, fault(*ADD))
    assert one is not two
    assert one.__name__ != two.__name__
    assert one.__file__ != two.__file__
    assert sys.modules[one.__name__] is one
    assert one.__name__.startswith("toy_helper_patient_")
    assert one.Counter is not two.Counter
    assert one.Counter.__module__ == one.__name__
    one.LINES.clear()
    assert two.LINES == toy.LINES != []


def test_inspect_shows_the_patients_own_source(toy):
    """Functions, classes, methods and the module: the planted lines, not those of the file."""
    patient = plant(plant(toy, fault(*ADD)), fault(*COUNT))
    assert inspect.getsource(patient.add) == 'def add(a, b):\n    """The sum."""\n    return a - b\n'
    assert "            total = self.step\n" in inspect.getsource(patient.Counter)
    assert inspect.getsource(patient.Counter).startswith("@dataclass\nclass Counter:\n")
    assert inspect.getsource(patient.Counter.after).splitlines()[3] == "            total = self.step"
    assert inspect.getsource(patient) == source(patient)
    assert ADD[1] in source(patient)
    assert inspect.getsource(toy.add).endswith("return a + b\n")


def test_traceback_shows_the_planted_line(toy):
    """The line that broke, with its number, also after linecache has looked for files that changed."""
    patient = plant(toy, fault("return a / b", "return a / 0"))
    linecache.checkcache()
    with pytest.raises(ZeroDivisionError) as caught:
        patient.divide(1, 2)
    last = traceback.extract_tb(caught.value.__traceback__)[-1]
    number = 1 + TOY.split("\n").index("        return a / b")
    assert (last.line, last.lineno, last.name) == ("return a / 0", number, "divide")
    assert last.filename == patient.__file__


def test_repair_heals_a_patient(toy):
    """The bad line put right: the source and the behaviour of the healthy module; the patient stays ill."""
    patient = plant(toy, fault(*ADD))
    healed = repair(patient, ADD[1], "    " + ADD[0])
    assert source(healed) == TOY
    assert (healed.add(2, 3), patient.add(2, 3)) == (5, -1)


def test_a_patient_of_a_patient_can_be_repaired(toy):
    """Two faults, repaired one by one in the order they came; names do not grow."""
    both = plant(plant(toy, fault(*ADD)), fault(*COUNT))
    assert (both.add(2, 3), both.Counter(2).after(3)) == (-1, 2)
    one = repair(both, ADD[1], ADD[0])
    assert (one.add(2, 3), one.Counter(2).after(3)) == (5, 2)
    none = repair(one, COUNT[1], COUNT[0])
    assert source(none) == TOY
    assert re.fullmatch(r"toy_helper_patient_\d+", none.__name__)
    with pytest.raises(ValueError, match=f"stands 0 times in {none.__name__}"):
        repair(none, COUNT[1], COUNT[0])


def test_a_repair_that_is_no_python_says_where(toy):
    """A reader's slip is a SyntaxError that shows the line as it was typed."""
    with pytest.raises(SyntaxError) as caught:
        repair(toy, ADD[0], "return (a + b")
    assert caught.value.text.strip() == "return (a + b"


def test_an_edited_file_is_seen(toy):
    """Edited, saved and reloaded: source, plant and inspect work on the new text."""
    source(toy)
    path = Path(toy.__file__)
    path.write_text(TOY.replace("return a + b\n", "return a + b + 0\n"))
    importlib.reload(toy)
    assert "return a + b + 0" in source(toy)
    assert plant(toy, fault("return a + b + 0", "return a")).add(2, 3) == 2
    with pytest.raises(ValueError, match="stands 0 times"):
        plant(toy, fault(*ADD))


def sums_right(module: ModuleType) -> str | None:
    found = module.add(2, 3)
    return None if found == 5 else f"2 + 3 gives {found}: look at the sign"


def raises(module: ModuleType) -> str | None:
    raise ValueError("no such thing\nsecond line")


SUM, RAISES = Check("sums are right", sums_right), Check("it runs", raises)
FINE, ILL = Check("all is well", lambda module: None), Check("never holds", lambda module: "")


def test_examine_prints_a_line_a_check(toy, capsys):
    """A healthy module: each name behind ok, and the count."""
    result = examine(toy, [SUM, FINE])
    assert capsys.readouterr().out == "  ok    sums are right\n  ok    all is well\n2 of 2 checks pass: healthy\n"
    assert (result.passed, result.failed, result.healthy) == (["sums are right", "all is well"], {}, True)


def test_examine_says_what_was_found(toy, capsys):
    """An ill one: FAIL, the message below, no "healthy"; the other checks are still run."""
    result = examine(plant(toy, fault(*ADD)), [SUM, FINE])
    assert capsys.readouterr().out == (
        "  FAIL  sums are right\n        2 + 3 gives -1: look at the sign\n  ok    all is well\n1 of 2 checks pass\n"
    )
    assert (result.passed, result.healthy) == (["all is well"], False)
    assert result.failed == {"sums are right": "2 + 3 gives -1: look at the sign"}


def test_failures_only_leaves_the_good_lines_out(toy, capsys):
    result = examine(plant(toy, fault(*ADD)), [FINE, SUM], failures_only=True)
    assert capsys.readouterr().out == (
        "  FAIL  sums are right\n        2 + 3 gives -1: look at the sign\n1 of 2 checks pass\n"
    )
    assert result.passed == ["all is well"]


def test_a_check_that_raises_has_failed(toy, capsys):
    """The error's name and the first line of its message; the checks after it are still run."""
    result = examine(toy, [RAISES, SUM])
    assert (result.passed, result.failed) == (["sums are right"], {"it runs": "ValueError: no such thing"})
    assert capsys.readouterr().out == (
        "  FAIL  it runs\n        ValueError: no such thing\n  ok    sums are right\n1 of 2 checks pass\n"
    )


def test_an_empty_message_is_still_a_failure(toy):
    assert not examine(toy, [ILL]).healthy


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_the_stop_button_stops_an_examination(toy, error):
    """What is no Exception goes through: a reader can interrupt a slow check."""

    def interrupted(module):
        raise error

    with pytest.raises(error):
        examine(toy, [Check("slow", interrupted)])


def test_the_modules_own_checks_are_the_default(toy):
    """A patient is examined by its own CHECKS, so they may be part of the helper's source."""
    toy.CHECKS = [SUM]
    assert examine(toy).passed == ["sums are right"]
    assert examine(toy, [FINE]).passed == ["all is well"]


@pytest.mark.parametrize("given", [None, []])
def test_no_checks_prove_nothing(toy, given):
    toy.CHECKS = []
    with pytest.raises(ValueError, match="toy_helper has no checks: an examination that looks at nothing"):
        examine(toy, given)


def test_healthy_needs_a_check_that_passed():
    """Nothing looked at is not health, one failure spoils it, and two results share no list."""
    assert not Examination().healthy
    assert Examination(passed=["a"]).healthy
    assert not Examination(passed=["a"], failed={"b": "why"}).healthy
    assert not Examination(failed={"b": "why"}).healthy
    assert Examination().passed is not Examination().passed


class Card(HTMLParser):
    """Reads a card: the text in the open, the text of each fold, and every tag."""

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.tags, self.stack, self.texts = [], [], {}
        self.folds = 0
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        assert not attributes  # nothing that opens a fold, and no style of its own
        self.tags.append(tag)
        self.stack.append(tag)
        self.folds += tag == "details"

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        fold = self.folds if "details" in self.stack else 0
        kind = "summary" if "summary" in self.stack else "body"
        self.texts[fold, kind] = self.texts.get((fold, kind), "") + data


NASTY = Fault(
    name="<b>less & more</b>",
    line="if a < b and c > d: x = 'é' & \"q\"",
    becomes="if a <= b: <script>alert(1)</script>",
    symptom="</details> 1 < 2 & <i>it</i>",
    hints=["look at <pre>", "a & b"],
    seen_in="owner/repo#1 <img src=x>",
)


def test_card_folds_hints_and_answer():
    """The symptom in the open; each hint and the answer in a closed fold of its own, one after the other."""
    card = Card(NASTY._repr_html_())
    assert not card.stack
    assert card.texts == {
        (0, "body"): "Symptom. " + NASTY.symptom,
        (1, "summary"): "Hint 1",
        (1, "body"): NASTY.hints[0],
        (2, "summary"): "Hint 2",
        (2, "body"): NASTY.hints[1],
        (3, "summary"): "The answer",
        (3, "body"): f"{NASTY.name}is         {NASTY.becomes}\nshould be  {NASTY.line}{NASTY.seen_in}",
    }


def test_card_is_escaped():
    """What a fault says is text: no tag comes from it, whatever signs it holds."""
    card = Card(NASTY._repr_html_())
    assert set(card.tags) == {"b", "details", "summary", "pre"}
    assert (card.tags.count("details"), card.tags.count("pre"), card.tags.count("b")) == (3, 1, 2)


def test_repr_does_not_give_the_answer_away():
    """Without HTML, in a list too: the symptom, and nothing of name, lines, hints or source."""
    told = repr(fault(*ADD, name="wrong sign"))
    assert told == str(fault(*ADD, name="wrong sign")) == "Symptom: it hurts"
    assert repr([fault(*ADD)]) == "[Symptom: it hurts]"


WARD = """

from shared.clinic import Check, Fault

CHECKS = [Check("sums are right", lambda module: None if module.add(2, 3) == 5 else "look at the sign")]
FAULTS = [
    Fault("no sum", "total = total + self.step", "total = self.step", "it aches", ["far"], "nobody/nothing#1"),
    Fault("wrong sign", "return a + b", "return a - b", "it hurts", ["far"], "nobody/nothing#2"),
]
"""


@pytest.fixture
def ward(toy, tmp_path) -> ModuleType:
    """A helper with checks and faults in its own source, as a lesson's has them."""
    (tmp_path / "toy_ward.py").write_text(TOY + WARD)
    return importlib.import_module("toy_ward")


def test_admit_plants_examines_and_shows_the_card(ward, capsys):
    """Faults are counted from 1; what comes back is the patient, and the failing check and the symptom are printed."""
    patient = admit(ward, 2)
    assert patient.add(2, 3) == -1 and ward.add(2, 3) == 5
    told = capsys.readouterr().out
    assert "FAIL" in told and "Symptom: it hurts" in told and "nobody/nothing#2" not in told


def test_treat_examines_the_repaired_patient(ward, capsys):
    """The right line heals, another one does not, an empty one does nothing."""
    patient = plant(ward, ward.FAULTS[1])
    treat(patient, line="return a - b", becomes="return a + b")
    assert capsys.readouterr().out == "1 of 1 checks pass: healthy\n"
    treat(patient, line="return a - b", becomes="return a * b")
    assert "FAIL" in capsys.readouterr().out
    treat(patient, line="", becomes="return a + b")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ([1.0, 2.0], None),
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
        (complain, "p is", "given k = 0 it said 'k is 0', which does not name it"),
        (dict, "k is 0", "k = 0 was taken without a word, expected a ValueError"),
    ],
)
def test_refusal(call, words, found):
    """Refused by name; refused otherwise; taken. Any other error is not a refusal."""
    assert refusal([("k = 0", words, call)]) == found
    with pytest.raises(ZeroDivisionError):
        refusal([("k = 0", words, lambda: 1 / 0)])
