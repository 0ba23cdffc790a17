"""The clinic: write a function and have it examined; find out what ails a program from what it does.

A lesson's helper, say `attention.py`, has three files beside it. `attention_checks.py` holds CHECKS, properties that a
right implementation has, and EXERCISES. `attention_faults.py` holds FAULTS: what really went wrong somewhere, with the
answers; it is the only spoiler. `attention_caller.py`, where there is one, is a small program that uses the helper, and
`attention_evidence.py` shows what is seen of a patient. Checks, faults and caller are found by their names: importing a
helper brings none of them.

    examine(attention)                          # a line for each check
    try_out(attention, softmax)                 # your function in place of the helper's, under the checks about it
    patient = admit(attention, 3)               # a copy with a fault, its symptom and evidence
    examine(patient); hint(patient); treat(patient, line="...", becomes="..."); answer(patient)
    catches(holds, attention, patient)          # a property of yours tells the patient from the healthy one

In a terminal, with your own editor: `python -m shared.clinic`.
"""

from shared.clinic.check import Check, Examination, difference, examine, refusal
from shared.clinic.copies import copies, repair, source
from shared.clinic.evidence import Evidence
from shared.clinic.fault import Change, Fault, catches, holds_on, plant
from shared.clinic.files import checks, exercises, faults
from shared.clinic.notebook import admit, answer, hint, treat
from shared.clinic.writing import graft, try_out

__all__ = [
    "Change",
    "Check",
    "Evidence",
    "Examination",
    "Fault",
    "admit",
    "answer",
    "catches",
    "checks",
    "copies",
    "difference",
    "examine",
    "exercises",
    "faults",
    "graft",
    "hint",
    "holds_on",
    "plant",
    "refusal",
    "repair",
    "source",
    "treat",
    "try_out",
]
