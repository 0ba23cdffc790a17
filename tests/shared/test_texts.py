"""shared/texts: each text is there, whole, long enough to measure on, and like no other."""

import itertools
import re
from pathlib import Path

import pytest

import shared.texts
from shared.texts import OWN, texts

TEXTS = texts()


def test_ours_come_first_and_none_lies_about_unnamed():
    assert list(TEXTS) == [*OWN, "docs", "code"]
    folder = Path(shared.texts.__file__).parent
    assert sorted(path.stem for path in folder.glob("*.txt")) == sorted(OWN)


@pytest.mark.parametrize("name", OWN)
def test_ours_are_prose_in_ascii(name):
    """So that they are the same bytes everywhere; 2,600 characters are at least 512 tokens, as a token is about 4.5."""
    text = TEXTS[name]
    assert text.isascii() and text.replace("\n", "").isprintable()
    assert 2600 <= len(text) <= 3500
    assert len(text.split("\n\n")) >= 5 and text.strip() + "\n" == text


def test_what_comes_with_python_is_long_and_what_it_is_said_to_be():
    assert len(TEXTS["docs"]) == len(TEXTS["code"]) == 40_000
    assert TEXTS["docs"].count(" the ") > 200 and TEXTS["docs"].startswith("Objects, values and types\n")
    assert TEXTS["code"].count("    def ") > 50 and TEXTS["code"].startswith("class OptParseError")


def runs(text, n=8):
    """All runs of n words."""
    words = re.findall(r"\w+", text)
    return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}


def test_no_two_are_alike():
    """No run of eight words is in two of them."""
    for one, other in itertools.combinations(TEXTS, 2):
        assert not runs(TEXTS[one]) & runs(TEXTS[other]), (one, other)
