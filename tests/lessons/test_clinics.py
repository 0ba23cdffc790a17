"""Each lesson's clinic against itself: the healthy helper passes, each fault is caught and can be healed."""

import ast
import importlib
import os
import re
import subprocess
import sys
from dataclasses import replace

import pytest

from shared.clinic import checks, copies, examine, exercises, faults, holds_on, repair, source
from shared.clinic.case import cases
from shared.clinic.copies import bare, changed, load
from shared.clinic.fault import subjects
from shared.lessons import LESSONS, lesson

BUILT = [it for it in LESSONS if it.built]
HELPERS = [importlib.import_module(it.helper) for it in BUILT]
FAULTS = [(helper, fault) for helper in HELPERS for fault in faults(helper)]
every_helper = pytest.mark.parametrize("helper", HELPERS, ids=lambda helper: helper.__name__)
every_fault = pytest.mark.parametrize(
    ("helper", "fault"), FAULTS, ids=[f"{helper.__name__}: {fault.name[:60]}" for helper, fault in FAULTS]
)


def sick(helper, caller, holds):
    """What tells a patient from a healthy one: a check, or its own property."""
    modules = [module for module in (helper, caller) if module is not None]
    if holds is not None and holds_on(holds, modules) is not None:
        return True
    return any(holds_on(check.test, helper) is not None for check in checks(helper))  # up to the first that fails


@every_helper
def test_the_healthy_files_are_healthy(helper):
    """No check and no property cries wolf, without comments and docstrings either."""
    files = [module for module in copies(helper) if module is not None]
    assert examine(files[0]).passes
    for holds in {fault.holds for fault in faults(helper) if fault.holds}:
        assert holds_on(holds, files) is None


@every_fault
def test_every_fault_is_caught_and_its_repair_heals(helper, fault):
    """By a check, or by the property that is declared with it; with its changes undone the files are the healthy ones.

    Of two faults either alone is caught as well. A fault without a change is a healthy patient, and passes for one.
    """
    patient, caller = subjects(helper, fault)
    assert sick(patient, caller, fault.holds) == bool(fault.changes)
    for change in fault.changes if len(fault.changes) > 1 else []:
        assert sick(*subjects(helper, replace(fault, changes=[change])), fault.holds)
    undone = {patient: source(patient), caller: source(caller) if caller else ""}
    for change in fault.changes:
        file = caller if change.in_caller else patient
        undone[file] = changed(undone[file], [replace(change, line=change.becomes, becomes=change.line)], file.__name__)
    assert list(undone.values()) == [bare(source(file)) if file else "" for file in copies(helper)]


@every_fault
def test_every_fault_has_a_chart(helper, fault):
    """A symptom, hints, and a thread or a word about why there is none. The symptom does not tell the answer."""
    assert fault.symptom and fault.hints
    assert re.search(r"[\w.-]+/[\w.-]+#\d+|no thread", fault.seen_in)
    assert fault.name not in fault.symptom


@every_fault
def test_planted_lines_look_natural(helper, fault):
    """Nothing that nobody would write: no linter's marks, no comments, two statements on a line, lone walrus."""
    healthy = "".join(source(file) for file in copies(helper) if file)
    for change in fault.changes:
        assert "#" not in change.becomes and "noqa" not in change.becomes
        assert all(len(line.strip()) <= 116 for line in change.becomes.split("\n"))
        assert ":=" not in change.becomes or ":=" in healthy
        assert not re.search(r";\s*\S", change.becomes)


@every_helper
def test_no_two_faults_are_one(helper):
    told = [fault.changes or fault.symptom for fault in faults(helper)]
    assert all(told.count(each) == 1 for each in told)


@every_helper
def test_messages_ask_nothing(helper):
    """A check's message states what was found; what to look at is its question, for those who ask."""
    path = sys.modules[checks(helper)[0].test.__module__].__file__
    with open(path, encoding="utf-8") as file:
        tree = ast.parse(file.read())
    returned = [node.value for node in ast.walk(tree) if isinstance(node, ast.Return) and node.value is not None]
    texts = [part.value for node in returned for part in ast.walk(node) if isinstance(part, ast.Constant)]
    assert not [text for text in texts if isinstance(text, str) and re.search(r"\?\s*$", text)]
    for check in [*checks(helper), *exercises(helper)]:
        names = {name.partition(".")[0] for name in check.about}
        assert names <= set(dir(helper)), f"{check.name}: about what the helper does not have"


def test_lesson_04_has_patients_of_all_kinds():
    """Lines, callers, what passes every check, nothing, two at once; and each shows something."""
    helper = importlib.import_module("attention")
    kinds = {(len(it.changes), *{change.in_caller for change in it.changes}, bool(it.holds)) for it in faults(helper)}
    assert {(0, False), (1, False, False), (1, False, True), (1, True, True), (2, False, True, True)} <= kinds
    assert all(it.evidence for it in faults(helper))


def evidence_functions():
    """Each function that makes evidence, with the first fault that uses it."""
    return {it.evidence: (helper, it) for helper, it in reversed(FAULTS) if it.evidence}.values()


@pytest.mark.parametrize(("helper", "fault"), evidence_functions(), ids=lambda it: getattr(it, "symptom", "")[:40])
def test_evidence_is_made(helper, fault):
    seen = fault.evidence(*subjects(helper, fault))
    assert seen.text or seen.figure is not None


def test_importing_a_helper_brings_no_answers():
    """Neither checks nor faults, nor what they need, come with the helpers that notebooks import."""
    unwanted = "[name for name in sys.modules if 'IPython' in name or name.endswith(('_checks', '_faults'))]"
    code = f"import sys, {', '.join(it.helper for it in BUILT)}; print({unwanted})"
    paths = os.pathsep.join(map(str, [*(it.path.parent for it in BUILT), *sys.path]))
    run = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"


REPAIRS = [  # lesson 04: a patient, a line of its files (as it is there), what it becomes, and whether that heals
    (1, "scores = scores * mask", "scores = torch.where(mask, scores, -math.inf)", True),
    (5, "lowest = -5e4", "lowest = -1e30", True),
    (5, "lowest = -5e4", "lowest = -5e5", False),
    (6, "return keys <= queries[:, None] + 1", "return keys < queries[:, None] + 1", True),
    (7, "lr=LEARNING_RATE)", "lr=LEARNING_RATE, eps=1e-4)", True),
    (7, "lr=LEARNING_RATE)", "lr=LEARNING_RATE, eps=1e-6)", False),
    (7, "torch.float16", "torch.bfloat16", True),
    (12, "logits.reshape(len(ids), EQUALS + 1, -1)", "logits.permute(0, 2, 1)", True),
    (13, "nn.init.zeros_(self.query.weight)", "", True),
    (13, "nn.init.zeros_(self.key.weight)", "", True),
    (15, "queries[:, None] + 1", "queries[:, None]", False),
    (16, "amax(dim=-1, keepdim=True)", "amax(dim=-1, keepdim=True).nan_to_num(neginf=0.0)", True),
    (18, "columns.start >= t_k:", "columns.start > queries[-1]:", True),
    (22, "SCALE = (D_MODEL / N_HEADS) ** 0.5", "SCALE = 0.3", True),
]


@pytest.mark.parametrize(("number", "line", "becomes", "heals"), REPAIRS)
def test_a_repair_is_judged_by_what_it_does(tmp_path, capsys, number, line, becomes, heals):
    """A right repair need not be the one in the answer; half a repair passes the checks and does not heal."""
    case = cases(lesson("04"), tmp_path)[number - 1]
    texts = case.texts()
    assert any(line in text for text in texts.values())
    modules = load(case.module, *(text.replace(line, becomes) for text in texts.values()))
    result, lacking = case.examined(modules, questions=False)
    assert result.passes and (not lacking) == heals


def test_repair_mends_a_patient_of_one_line():
    """What a notebook's `treat` does, once."""
    helper = importlib.import_module("attention")
    fault = next(it for it in faults(helper) if len(it.changes) == 1 and not it.holds)
    patient, _ = subjects(helper, fault)
    assert examine(repair(patient, fault.changes[0].becomes, fault.changes[0].line)).passes
