"""Each lesson's clinic against itself: its checks pass on the healthy helper, and catch every fault."""

import importlib
import re
from pathlib import Path

import pytest

from shared.clinic import examine, plant, repair

CLINICS = sorted(Path(__file__).parents[1].glob("[01][0-9]_*/*_clinic.py"))
HELPERS = [importlib.import_module(path.stem.removesuffix("_clinic")) for path in CLINICS]
FAULTS = [(helper, fault) for helper in HELPERS for fault in helper.FAULTS]
every_fault = pytest.mark.parametrize(
    ("helper", "fault"), FAULTS, ids=[f"{helper.__name__}: {fault.name}" for helper, fault in FAULTS]
)


def test_there_are_clinics_to_test():
    """A folder that moved would leave nothing to check."""
    assert {"attention", "bpe"} <= {helper.__name__ for helper in HELPERS}
    assert all(helper.FAULTS for helper in HELPERS)


@pytest.mark.parametrize("helper", HELPERS, ids=lambda helper: helper.__name__)
def test_every_check_passes_on_the_healthy_module(helper):
    """No check cries wolf."""
    assert examine(helper).healthy


@every_fault
def test_every_fault_is_caught_and_its_repair_heals(helper, fault):
    """Planting turns a check red; the healthy line put back turns all green."""
    patient = plant(helper, fault)
    assert examine(patient).failed
    assert examine(repair(patient, fault.becomes, fault.line)).healthy


@every_fault
def test_every_fault_has_a_chart(helper, fault):
    """A symptom, a hint, and a thread (or a word about why there is none)."""
    assert fault.symptom and fault.hints and re.search(r"[\w.-]+/[\w.-]+#\d+", fault.seen_in)
