"""shared/verdict.py: the word follows from the rules, the block reads back, measured numbers are not compared."""

import math
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nbval.plugin import get_sanitize_patterns

from shared.verdict import Finding, Verdict, read_verdict, verdict

RULES = Path(__file__).parent / "nbval_sanitize.cfg"
MET, MISSED = Finding("is met", 2.0, at_least=1.0), Finding("is missed", 0.5, at_least=1.0)
line_of_text = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1)


def decide(supports, limits, **changes) -> Verdict:
    arguments = {"lesson": "04", "claim": "It works.", "when": "it is cold", "seeds": 3, "minutes": 1}
    return verdict(supports=supports, limits=limits, **arguments | changes)


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


def test_finding_without_a_bound_is_refused():
    with pytest.raises(ValueError, match=r"'speed, x' has no bound: give at_least or at_most"):
        Finding("speed, x", 3.0)


@pytest.mark.parametrize(
    ("bounds", "rule"),
    [
        ({"at_least": 0.8}, "at least 0.8"),
        ({"at_most": 2.0}, "at most 2"),
        ({"at_least": -1, "at_most": 1e-6}, "at least -1 and at most 1e-06"),
        ({"at_least": 0.0}, "at least 0"),
    ],
)
def test_rule_in_words(bounds, rule):
    assert Finding("x", 1.0, **bounds).rule == rule


@pytest.mark.parametrize(
    ("supports", "limits", "word", "condition"),
    [
        ([MET], [], "HOLDS", ""),
        ([MET, MET], [MISSED, MISSED], "HOLDS", ""),
        ([MET], [MET], "HOLDS WHEN", "it is cold"),
        ([MET], [MISSED, MET], "HOLDS WHEN", "it is cold"),
        ([MISSED], [], "FAILS", "is missed"),
        ([MET, MISSED], [MET], "FAILS", "is missed"),
        ([MISSED, MET, Finding("so is this", math.nan, at_most=1)], [], "FAILS", "is missed; so is this"),
    ],
)
def test_word_follows_from_the_rules(supports, limits, word, condition):
    """A support that is missed fails the claim, before any limit; else a limit that is met bounds it."""
    assert decide(supports, limits) == Verdict("04", "It works.", word, condition, 3, 1)


@pytest.mark.parametrize(
    ("word", "when", "sentence"),
    [("HOLDS", "", "HOLDS"), ("HOLDS WHEN", "it is cold", "HOLDS WHEN it is cold"), ("FAILS", "a; b", "FAILS: a; b")],
)
def test_sentence_reads_as_one(word, when, sentence):
    assert Verdict("04", "x", word, when, 3, 1).sentence == sentence


def test_a_claim_without_support_has_no_verdict():
    with pytest.raises(ValueError, match="no supports"):
        decide([], [MET])


def test_block_by_hand(capsys):
    """The docstring's own example and a limit of another width, sign by sign."""
    verdict(
        lesson="04",
        claim="Scaling factors prevent softmax saturation.",
        supports=[Finding("entropy, share of ln n", 0.886, at_least=0.8)],
        limits=[Finding("growth", 5.12, at_least=2.0, at_most=100), Finding("drift", -1e-7, at_most=-1.5)],
        when="queries and keys are independent",
        seeds=3,
        minutes=1.5,
    )
    assert capsys.readouterr().out == (
        "┌ 04 ─ Scaling factors prevent softmax saturation.\n"
        "│ HOLDS WHEN queries and keys are independent\n"
        "│\n"
        "│ for   yes entropy, share of ln n at least 0.8                 ≈ 0.89\n"
        "│ limit yes growth                 at least 2 and at most 100   ≈ 5.1\n"
        "│ limit no  drift                  at most -1.5                 ≈ -1e-07\n"
        "└ 3 seeds · about 1.5 min on a laptop\n"
    )


AWKWARD = [
    "Plain.",
    "Colons: two: of them",
    "\"Quotes\", 'both', and ─ │ └ ≈ 3",
    "HOLDS WHEN: it FAILS",
    ": starts with one",
    " spaces at both ends ",
    "Ünïcode 漢字 \\n {x} %s",
]


@pytest.mark.parametrize("text", AWKWARD)
@pytest.mark.parametrize("outcome", ["HOLDS", "HOLDS WHEN", "FAILS"])
def test_block_reads_back(capsys, outcome, text):
    """What was printed, read from the midst of a notebook's output, is the verdict that was returned."""
    bad = [Finding(text, 0.0, at_least=1)] if outcome == "FAILS" else []
    limits = [MET] if outcome == "HOLDS WHEN" else [MISSED]
    given_back = decide([MET, *bad], limits, claim=text, when=text, minutes=2.5, seeds=12, lesson="16")
    assert given_back.word == outcome
    assert read_verdict("before\n" + capsys.readouterr().out + "after\n") == given_back


@settings(deadline=None)
@given(line_of_text, line_of_text, st.integers(1, 99), st.sampled_from(["", "HOLDS WHEN", "FAILS"]))
def test_any_line_of_text_reads_back(claim, when, seeds, outcome):
    """For every claim and condition of one line, in each of the three words."""
    lines = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("builtins.print", lambda text: lines.append(text))
        supports = [Finding(when, 0.0, at_least=1)] if outcome == "FAILS" else [MET]
        stated = decide(supports, [MET] if outcome == "HOLDS WHEN" else [], claim=claim, when=when, seeds=seeds)
    assert read_verdict("\n".join(lines)) == stated


@pytest.mark.parametrize(
    "text", ["", "nothing here\n", "┌ 04 ─ It works.\n│ HOLDS\n", "┌ 04 ─ It works.\n│ MAYBE\n│\n└ 3 seeds"]
)
def test_no_block_is_none(text):
    assert read_verdict(text) is None


def test_a_torn_block_is_none(capsys):
    """Any line of it missing: the block is not read as something else."""
    decide([MET], [])
    lines = capsys.readouterr().out.splitlines(keepends=True)
    assert len(lines) == 5
    for i in (0, 1, 4):
        assert read_verdict("".join(lines[:i] + lines[i + 1 :])) is None


def block(capsys, *numbers: float, at_least: float = 1, seeds: int = 3) -> str:
    """A block that measured these numbers; the first two support the claim, the last bounds it."""
    a, b, c = numbers
    supports = [Finding("first", a, at_least=at_least), Finding("second", b, at_most=1e9)]
    decide(supports, [Finding("third", c, at_least=0, at_most=5)], seeds=seeds)
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ((1.0, 2.0, 3.0), (1.5, 2.04, 0.123)),
        ((1.5, 1e-12, 1.0), (1234567.0, -4.56, 2.0)),
        ((math.inf, -math.inf, 0.5), (2.0, 1.0, 0.25)),
        ((2e30, -3e-30, 1e-300), (1.0, 0.0, 5.0)),
        ((2.0, -math.inf, 7.0), (4.0, 6.0, math.inf)),
        ((2.0, 5.0, -0.5), (4.0, 6.0, 77777.0)),
    ],
)
def test_blocks_that_differ_in_measured_numbers_compare_equal(capsys, ours, theirs):
    """Of any width, sign or exponent, infinite or none, as long as each rule is met as before."""
    one, two = block(capsys, *ours), block(capsys, *theirs)
    assert one != two
    assert sanitised(one) == sanitised(two)
    assert "≈ measured\n" in sanitised(one)
    assert "seeds · about 1 min" in sanitised(one)


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
def test_blocks_that_differ_in_a_rule_or_an_answer_do_not(capsys, numbers, options):
    assert sanitised(block(capsys, 2.0, 5.0, 3.0)) != sanitised(block(capsys, *numbers, **options))


def test_only_the_number_behind_the_sign_is_left_out():
    """Numbers elsewhere and words behind a measured number are compared."""
    assert sanitised("12 seeds, loss ≈ 1.25 nats, 3 ≈3e-5 x, about ≈ -inf") == (
        "12 seeds, loss ≈ measured nats, 3 ≈ measured x, about ≈ measured"
    )
    assert sanitised("≈ none") == "≈ none"


@pytest.mark.parametrize("change", [{"lesson": "4"}, {"claim": "two\nlines"}, {"when": "two\nlines"}])
def test_what_could_not_be_read_back_is_refused(change):
    """The README is written from the block, so the block must be readable."""
    given = {"lesson": "04", "claim": "it is so", "limits": [], "when": "", "seeds": 3, "minutes": 1}
    with pytest.raises(ValueError, match=r"two digits|line break"):
        verdict(supports=[Finding("x", 1.0, at_least=0.5)], **given | change)


def test_a_limit_that_was_not_measured_is_refused():
    """NaN would otherwise count as "the claim has no limit there"."""
    with pytest.raises(ValueError, match="not a number"):
        verdict("04", "x", [Finding("a", 1.0, at_least=0)], [Finding("b", math.nan, at_least=0)], "", 3, 1)
