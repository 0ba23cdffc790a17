"""shared/verdict.py: the word follows from the rules, and what is stored is the same on any machine."""

import io
import json
import math
import re
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nbval.plugin import get_sanitize_patterns

from shared.verdict import MIME, Finding, Verdict, read_verdict, verdict

ROOT = Path(__file__).parents[2]
RULES = ROOT / "tests" / "nbval_sanitize.cfg"
MET, MISSED = Finding("is met", 2.0, at_least=1.0), Finding("is missed", 0.5, at_least=1.0)


def decide(supports=(MET,), limits=(), **changes) -> Verdict:
    arguments = {"lesson": "04", "claim": "It works.", "seeds": 3, "minutes": 1}
    return verdict(supports=supports, limits=limits, **arguments | changes)


def limit(value, when):
    """A limit that is met from 1 on."""
    return Finding(f"limit of {when}", value, at_least=1, when=when)


def sanitised(text: str) -> str:
    """The text as nbval compares it, by nbval's own reading of our file of rules."""
    for pattern, replacement in get_sanitize_patterns(RULES.read_text()):
        text = re.sub(pattern, replacement, text)
    return text


@pytest.mark.parametrize(
    ("bounds", "met", "missed"),
    [
        ({"at_least": 1.0}, [1.0, 1.5, math.inf], [0.999, -math.inf, math.nan]),
        ({"at_most": 1.0}, [1.0, 0.5, -math.inf], [1.001, math.inf, math.nan]),
        ({"at_least": -1.0, "at_most": 1.0}, [-1.0, 0.0, 1.0], [-1.001, 1.001, math.nan, math.inf]),
        ({"at_least": 0}, [0.0, 1], [-1e-12]),
        ({"at_most": 0}, [0.0, -1], [1e-12]),
    ],
)
def test_finding_keeps_its_bounds_or_not(bounds, met, missed):
    """Bounds belong to what is allowed; zero is a bound; NaN keeps none."""
    assert [Finding("x", value, **bounds).met for value in met] == [True] * len(met)
    assert [Finding("x", value, **bounds).met for value in missed] == [False] * len(missed)


@pytest.mark.parametrize(
    ("values", "bounds", "met"),
    [
        ([1.0, 2.0, 3.0], {"at_least": -1.0}, True),  # mean 2, spread 2: 2 - 1.5 x 2 = -1, just enough
        ([1.0, 2.0, 3.0], {"at_least": -0.99}, False),
        ([1.0, 2.0, 3.0], {"at_most": 5.0}, True),
        ([1.0, 2.0, 3.0], {"at_most": 4.99}, False),
        ([1.0, 2.0, 3.0], {"at_least": -2, "at_most": 4}, False),
        ([4.0, 4.0], {"at_least": 4.0}, True),
        ([4.0, math.nan], {"at_least": 0}, False),
        ([math.inf, 1.0], {"at_least": 0}, False),  # no spread can be said
    ],
)
def test_the_mean_of_several_runs_keeps_its_bound_by_a_margin(values, bounds, met):
    assert Finding("x", values, **bounds).met == met


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=9), st.floats(-1e6, 1e6))
def test_if_several_runs_keep_a_bound_each_of_them_does(values, bound):
    """1e-6 is far above what the mean of nine numbers up to 1e6 loses to rounding: 9 x 1e6 x 1.2e-16."""
    assert not Finding("x", values, at_least=bound).met or min(values) >= bound - 1e-6


@pytest.mark.parametrize(
    ("bounds", "says"),
    [
        ({}, "has no bound: give at_least or at_most"),
        ({"at_least": 0, "possible": (0, 1)}, "at least 0, cannot fail: it is never outside 0 to 1"),
        ({"at_most": 1, "possible": (0, 1)}, "at most 1, cannot fail"),
        ({"at_least": -2, "at_most": 3, "possible": (0, 1)}, "at least -2 and at most 3, cannot fail"),
        ({"at_least": -math.inf}, "cannot fail"),
        ({"at_least": 1.1, "possible": (0, 1)}, "cannot be met"),
        ({"at_most": -0.1, "possible": (0, math.inf)}, "cannot be met"),
        ({"at_least": 1, "at_most": 0.5}, "cannot be met"),
    ],
)
def test_a_finding_that_nothing_could_contradict_is_refused(bounds, says):
    with pytest.raises(ValueError, match=says):
        Finding("share", 0.5, **bounds)


def test_bounds_within_what_is_possible_are_taken():
    assert Finding("share", 0.5, at_least=0.4, possible=(0, 1)).met
    assert Finding("share", 1.0, at_least=1, possible=(0, 1)).met
    assert not Finding("words", 3, at_most=0, possible=(0, math.inf)).met


@pytest.mark.parametrize("values", [[], [1.0], [[1.0, 2.0]]])
def test_runs_are_two_or_more_numbers(values):
    with pytest.raises(ValueError, match="one number, or one for each run"):
        Finding("x", values, at_least=0)


HOT, COLD = "it is hot", "it is cold"


@pytest.mark.parametrize(
    ("supports", "limits", "against", "word", "condition"),
    [
        ([MET], [], [], "HOLDS", ""),
        ([MET, MET], [limit(0, HOT), limit(0, COLD)], [MISSED], "HOLDS", ""),
        ([MET], [limit(1, HOT), limit(0, COLD)], [], "HOLDS WHEN", HOT),
        ([MET], [limit(0, HOT), limit(1, COLD)], [], "HOLDS WHEN", COLD),
        ([MET], [limit(1, HOT), limit(1, COLD), limit(2, HOT)], [], "HOLDS WHEN", f"{HOT}, and {COLD}"),
        ([MISSED], [], [], "FAILS", "is missed"),
        ([MET, MISSED], [limit(1, HOT)], [], "FAILS", "is missed"),
        ([MISSED, MET, Finding("so is this", math.nan, at_most=1)], [], [], "FAILS", "is missed; so is this"),
        ([MET], [limit(1, HOT)], [MET], "FAILS", "is met"),
        ([MET], [], [Finding("x", 3, at_least=1, because="the reverse is so")], "FAILS", "the reverse is so"),
        ([Finding("x", 0, at_least=1, because="nothing is left")], [], [MET], "FAILS", "nothing is left; is met"),
    ],
)
def test_word_follows_from_the_rules(supports, limits, against, word, condition):
    """What was missed, or speaks against the claim, fails it; else the limits that were met bound it, and no others."""
    given_back = decide(supports, limits, against=against)
    assert (given_back.word, given_back.when) == (word, condition)


def test_one_condition_for_all_limits():
    """As a notebook without clauses gives it."""
    assert decide([MET], [MISSED, MET], when=COLD).sentence == f"HOLDS WHEN {COLD}"
    assert decide([MET], [MISSED], when=COLD).sentence == "HOLDS"
    assert decide([MISSED], [MET], when=COLD).sentence == "FAILS: is missed"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"supports": []}, "no supports"),
        ({"limits": [MET]}, "'is met' has no condition"),
        ({"limits": [limit(1, HOT), MISSED]}, "'is missed' has no condition"),
        ({"limits": [limit(1, HOT)], "when": COLD}, "has two conditions"),
        ({"supports": [limit(1, HOT)]}, "`when` is for limits"),
        ({"against": [limit(1, HOT)]}, "`when` is for limits"),
        ({"limits": [Finding("x", 1, at_least=0, when=HOT, because=COLD)]}, "`because` for what the claim can fail"),
        ({"limits": [limit(math.nan, HOT)]}, "not a number"),
        ({"against": [Finding("x", [1, math.nan], at_least=0)]}, "not a number"),
        ({"lesson": "4"}, "two digits"),
        ({"claim": "two\nlines"}, "line break"),
        ({"limits": [limit(1, "two\nlines")]}, "line break"),
        ({"settings": ["two\nlines"]}, "line break"),
    ],
)
def test_what_would_be_read_wrongly_is_refused(changes, says):
    with pytest.raises(ValueError, match=says):
        decide(**changes)


def test_box_by_hand(capsys):
    """A number and several, of other widths, sign by sign."""
    verdict(
        lesson="04",
        claim="Scaling factors prevent softmax saturation.",
        supports=[Finding("entropy, share of ln n", [0.88, 0.886, 0.9], at_least=0.8)],
        limits=[
            Finding("growth", 5.12, at_least=2.0, at_most=100, when="it is early"),
            Finding("drift", -1e-7, at_most=-1.5, when="never"),
        ],
        against=[Finding("loss with minus without", 0.2, at_least=0.5)],
        seeds=3,
        minutes=1.5,
        lengths=[400, 1600],
        settings=["the copying task", "SmolLM2-135M"],
    )
    assert capsys.readouterr().out == (
        "┌ 04 ─ Scaling factors prevent softmax saturation.\n"
        "│ HOLDS WHEN it is early\n"
        "│\n"
        "│ for     yes entropy, share of ln n   at least 0.8, by 1.5 spreads  ≈ 0.89, mean of 3, spread ≈ 0.02\n"
        "│ against no  loss with minus without  at least 0.5                  ≈ 0.2\n"
        "│ limit   yes growth                   at least 2 and at most 100    ≈ 5.1\n"
        "│ limit   no  drift                    at most -1.5                  ≈ -1e-07\n"
        "└ 3 seeds · 400 and 1,600 steps · the copying task, SmolLM2-135M · about 1.5 min on a laptop\n"
    )


@pytest.mark.parametrize(
    ("tried", "extent"),
    [
        ({}, "3 seeds · one training length · one setting"),
        ({"lengths": [100], "settings": ["width 24"]}, "3 seeds · one training length · one setting"),
        ({"lengths": [], "settings": ["a", "b"], "runs": "rounds"}, "3 rounds · nothing trained · a, b"),
        ({"lengths": [100, 399]}, "3 seeds · 100 and 399 steps, less than four times apart · one setting"),
        ({"lengths": [100, 400]}, "3 seeds · 100 and 400 steps · one setting"),
    ],
)
def test_what_was_tried_in_one_way_only_is_said(tried, extent, capsys):
    assert decide(**tried).extent == extent
    assert extent in capsys.readouterr().out


@pytest.fixture
def outputs(monkeypatch):
    """What a notebook would store: displayed bundles, once through JSON."""
    stored = []
    monkeypatch.setattr("shared.verdict.get_ipython", object)
    monkeypatch.setattr(
        "shared.verdict.display",
        lambda bundle, raw: stored.append({"output_type": "display_data", "data": json.loads(json.dumps(bundle))}),
    )
    return stored


AWKWARD = ["\"Quotes\", 'both', and ─ │ └ ≈ 3", "HOLDS WHEN: it FAILS", ": starts with one", "Ünïcode 漢字 \\n {x} %s"]


@pytest.mark.parametrize("text", AWKWARD)
@pytest.mark.parametrize("word", ["HOLDS", "HOLDS WHEN", "FAILS"])
def test_the_stored_data_read_back(outputs, word, text):
    """Among other outputs; the box stands beside them for readers."""
    supports = [Finding(text, 0.0, at_least=1)] if word == "FAILS" else [MET]
    limits = [limit(1 if word == "HOLDS WHEN" else 0, text)]
    given_back = decide(supports, limits, claim=text, lengths=(1, 4), settings=(text, "b"))
    assert given_back.word == word
    others = [{"output_type": "stream", "text": "x"}, {"output_type": "display_data", "data": {"text/plain": "x"}}]
    assert read_verdict([*others, *outputs]) == given_back
    assert outputs[0]["data"]["text/plain"].startswith(f"┌ 04 ─ {text}\n│ {given_back.sentence}\n")


def test_no_verdict_and_two(outputs):
    assert read_verdict([]) is None
    assert read_verdict([{"output_type": "stream", "text": "┌ 04 ─ It works."}]) is None
    decide(), decide()
    with pytest.raises(ValueError, match="2 verdicts"):
        read_verdict(outputs)


def stored(outputs, *numbers, at_least=1, seeds=3) -> tuple[str, dict]:
    """The box as nbval compares it, and the data, of a verdict that measured these numbers."""
    a, b, c = numbers
    supports = [Finding("first", a, at_least=at_least), Finding("second", b, at_most=1e9)]
    decide(supports, [Finding("third", c, at_least=0, at_most=5, when=COLD)], seeds=seeds)
    return sanitised(outputs[-1]["data"]["text/plain"]), outputs[-1]["data"][MIME]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ((1.0, 2.0, 3.0), (1.5, 2.04, 0.123)),
        ((1.5, 1e-12, 1.0), (1234567.0, -4.56, 2.0)),
        ((math.inf, -math.inf, 0.5), (2.0, 1.0, 0.25)),
        ((2e30, -3e-30, 1e-300), (1.0, 0.0, 5.0)),
        ((2.0, -math.inf, 7.0), (4.0, 6.0, math.inf)),
        ((2.0, 5.0, -0.5), (4.0, 6.0, 77777.0)),
        (([2.0, 2.1], 5.0, 3.0), ([30.0, 40.0], 5.5, 3.25)),
    ],
)
def test_verdicts_that_differ_in_measured_numbers_compare_equal(outputs, ours, theirs):
    """Of any width, sign or exponent, infinite or none, as long as each rule is met as before."""
    one, two = stored(outputs, *ours), stored(outputs, *theirs)
    assert outputs[0]["data"]["text/plain"] != outputs[1]["data"]["text/plain"]
    assert one == two
    assert "≈ measured" in one[0] and "about 1 min" in one[0]


@pytest.mark.parametrize(
    ("numbers", "options"),
    [
        ((2.0, 5.0, 6.0), {}),  # the limit no longer met: yes/no and the word
        ((0.5, 5.0, 3.0), {}),  # the support missed
        ((2.0, 2e9, 3.0), {}),
        ((2.0, 5.0, 3.0), {"at_least": 1.25}),  # a rule
        ((2.0, 5.0, 3.0), {"seeds": 4}),
    ],
)
def test_verdicts_that_differ_in_a_rule_or_an_answer_do_not(outputs, numbers, options):
    for one, two in zip(stored(outputs, 2.0, 5.0, 3.0), stored(outputs, *numbers, **options), strict=True):
        assert one != two


def test_only_the_number_behind_the_sign_is_left_out():
    """Numbers elsewhere and words behind a measured number are compared."""
    assert sanitised("12 seeds, loss ≈ 1.25 nats, 3 ≈3e-5 x, about ≈ -inf") == (
        "12 seeds, loss ≈ measured nats, 3 ≈ measured x, about ≈ measured"
    )
    assert sanitised("≈ none") == "≈ none"


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "cp437", "utf-8"])
def test_a_console_that_lacks_the_signs_gets_others(encoding, monkeypatch):
    """A script's verdict is printed on every console, with what the console has."""
    console = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", console)
    decide(claim="Ünïcode 漢字")
    console.flush()
    box = console.buffer.getvalue().decode(encoding)
    assert box.splitlines()[1][2:] == "HOLDS" and "2" in box
    if encoding == "utf-8":
        assert box.startswith("┌ 04 ─ Ünïcode 漢字")
    else:
        assert box.startswith("+ 04 - ") and "~ 2" in box
