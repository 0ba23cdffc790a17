"""Lesson 01's look at a real vocabulary: against the library, Unicode's own tables, and by hand."""

import random
import unicodedata
from itertools import pairwise

import numpy as np
import pytest
import real_scripts
import real_vocabulary as rv
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.gguf_tokenizer import read_tokenizer
from shared.texts import texts

pytestmark = pytest.mark.usefixtures("smollm2_path")
TEXT = "It's 12 o'clock;  she 'd read naïve 日本 tales.\n\n    for i in range(10):\n"
words = st.text(st.characters(exclude_categories=["Cs", "Cc", "Cn"], max_codepoint=0xFFFF), max_size=30)


@pytest.fixture(scope="module")
def tokenizer(smollm2_path):
    return read_tokenizer(smollm2_path)


@settings(max_examples=25, deadline=None)
@given(words)
def test_a_cut_by_rank_is_the_librarys_and_every_cut_is_the_text(tokenizer, text):
    assert rv.cut(text, "by rank") == tokenizer.encode(text)
    for how in rv.CUTS:
        assert tokenizer.decode(rv.cut(text, how, seed=3)) == text


def test_each_way_to_cut(tokenizer):
    prose = texts()["letter"][:500]
    assert len(rv.cut(prose, "longest")) == len(rv.cut(prose, "by rank")) + 1
    for piece in rv.pieces(TEXT):
        at = 0
        for part in rv.longest(piece):
            longer = (piece[at:end] for end in range(at + len(part) + 1, len(piece) + 1))
            assert piece[at:].startswith(part) and not any(it in rv.token_ids() for it in longer)
            at += len(part)
    assert rv.apart(b" tales") == [b" ", b"t", b"ales"] or rv.apart(b" tales") == [b" ", b"tales"]
    assert rv.apart(b" ") == [b" "] and rv.apart(b"tales") == rv.merged(b"tales")
    assert rv.characters("naïve".encode()) == [b"n", b"a", "ï".encode(), b"v", b"e"]
    with pytest.raises(ValueError, match="how is 'shortest'"):
        rv.cut(TEXT, "shortest")
    with pytest.raises(ValueError, match=r"byte b'\\x04' of the text has no token"):
        rv.cut("a\x04b", "by rank")


def test_dropout_leaves_out_merges_by_chance():
    rng, piece = random.Random(0), b" understanding"
    assert len(rv.merged(piece, 0.999, rng)) > 10
    lengths = [np.mean([len(rv.merged(piece, drop, rng)) for _ in range(200)]) for drop in (0.0, 0.05, 0.1, 0.5)]
    assert lengths[0] == 1 and all(a < b for a, b in pairwise(lengths))
    one = rv.merged(b"ab" * 2, 0.5, random.Random(1))
    assert one == rv.merged(b"ab" * 2, 0.5, random.Random(1))
    for bad in ({"drop": 1.0, "rng": rng}, {"drop": -0.1, "rng": rng}, {"drop": 0.1}):
        with pytest.raises(ValueError, match="expected 0 to below 1"):
            rv.merged(piece, **bad)


def test_bytes_without_a_token():
    every = {byte for code in range(0x110000) if not 0xD800 <= code < 0xE000 for byte in chr(code).encode()}
    assert {byte for byte in range(256) if rv.in_utf8(byte)} == every
    lacking = rv.without_token()
    assert len(lacking) == 21 and [byte for byte in lacking if byte in every] == [4, 6, 19, 20, 22, 29, 0xF1, 0xF2]
    assert rv.library_reads("a\x04b") == "ab" and rv.library_reads(TEXT) == TEXT


def test_a_merge_list_is_nested(tokenizer):
    text = texts()["letter"][:2000]
    whole, none, some = rv.first_merges(len(rv.vocabulary().merges)), rv.first_merges(0), rv.first_merges(3000)
    assert [whole.vocab[i] for i in whole.encode(text)] == [tokenizer.vocab[i] for i in tokenizer.encode(text)]
    assert rv.bytes_per_token(none.encode, text) == 1
    assert [whole.vocab[i] for i in some.encode(text)] == [some.vocab[i] for i in some.encode(text)]
    assert 1 < rv.bytes_per_token(some.encode, text) < rv.bytes_per_token(tokenizer.encode, text)
    with pytest.raises(ValueError, match="n is 48901: expected 0 to 48900"):
        rv.first_merges(48901)


def test_kinds_of_tokens():
    counted = rv.kinds()
    assert counted.total() == 49152 and counted[rv.CONTROL] == 17 and counted["a digit"] == 17
    kinds = {b" the": "a word with the space before it", b"the": "letters without a space", b"7": "a digit"}
    kinds |= {b"\n\n": "white space", b" (": "other signs", b"'s": "a contraction's end", b"\xe2\x80": rv.PART}
    assert {token: rv.kind(token) for token in kinds} == kinds
    assert rv.scripts().most_common(1)[0][0] == "Latin"
    assert not [token for token in rv.token_ids() if rv.kind(token) == "a digit" and len(token.decode()) > 1]


@settings(max_examples=60, deadline=None)
@given(st.text(" \n\t'aé1²—-sd", max_size=40))
def test_no_letter_stands_behind_a_lone_space(text):
    """The pattern gives a space to the word behind it, so it stays alone only before what takes none."""
    for token, follower in pairwise(part for piece in rv.pieces(text) for part in rv.merged(piece)):
        assert token != b" " or not regex.match(r"\p{L}", follower.decode("utf-8", "ignore"))
    assert rv.after_a_lone_space("a 1  b").items() >= {("a digit", 1), ("white space", 1)}


def test_scaffolding_is_made_and_never_left(tokenizer):
    text = " struggling" * 30
    made = {tokenizer.vocab[i] for i in rv.scaffolding(text)}
    assert made and b" struggling" not in made and all(it in b" struggling" and len(it) > 1 for it in made)
    assert not {tokenizer.vocab[i] for i in rv.scaffolding(text + "".join(f"{it.decode()}1" for it in made))} & made
    assert not rv.scaffolding(" struggling" * 29)


# Scripts


def test_the_price_of_a_script():
    prices = {language: real_scripts.price(text) for language, text in real_scripts.PARALLEL.items()}
    for language, text in real_scripts.PARALLEL.items():
        price, marks = prices[language], sum(unicodedata.category(c)[0] == "M" for c in text)
        assert price.tokens >= price.pieces >= price.marked_pieces >= price.words
        assert (price.pieces > price.marked_pieces) == (marks > 0)
        assert price.marked_tokens == price.tokens  # training has cut there: no merge is left that could join them
        assert text.count(".") + text.count("।") == 8
    assert real_scripts.with_a_mark() == []
    assert real_scripts.price("it's").pieces == 2


def test_apostrophes():
    found = real_scripts.apostrophes("it's")
    assert found == {"'": [b" it", b"'s"], "capitals": [b" IT", b"'", b"S"], "’": [b" it", "’".encode(), b"s"]}
