"""shared/corpus.py: text becomes ids and back, and windows whose targets are one token later."""

import re
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.corpus import Corpus, python_docs, read

SENTENCE = "the cat sat on the mat, the dog did not. " * 20
unicode_text = st.text(st.characters(exclude_categories=["Cs"]))  # every character but lone surrogates
numbers = st.lists(st.integers(0, 127), min_size=4, max_size=60)


@pytest.fixture(scope="module")
def by_bytes() -> Corpus:
    return Corpus(SENTENCE)


def ascii_corpus(codes: list[int], held_out: float = 0.5) -> Corpus:
    return Corpus("".join(map(chr, codes)), held_out=held_out)


@settings(deadline=None, max_examples=40)
@given(unicode_text)
def test_bytes_are_utf8_and_decode_to_the_same_text(by_bytes, text):
    """For every text: the ids are its UTF-8 bytes as int64, and decoding them gives the text back."""
    ids = by_bytes.encode(text)
    assert ids.dtype == torch.int64
    assert ids.tolist() == [*text.encode("utf-8")]
    assert by_bytes.decode(ids) == text


@settings(deadline=None, max_examples=40)
@given(st.binary())
def test_bytes_that_are_not_utf8_decode_as_python_replaces_them(by_bytes, raw):
    """A model may draw any bytes: what is not UTF-8 becomes the replacement character, never an error."""
    assert by_bytes.decode(torch.tensor([*raw], dtype=torch.long)) == str(raw, "utf-8", "replace")


@settings(deadline=None, max_examples=40)
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=8), st.floats(0.3, 0.7))
def test_both_parts_together_are_the_text(text, share):
    """Nothing is lost or doubled at the cut, and no character is torn in two by it."""
    corpus = Corpus(text, held_out=share)
    first, last = corpus.decode(corpus.train), corpus.decode(corpus.held_out)
    assert first + last == text
    assert abs(len(last) - share * len(text)) <= 1  # rounding to a whole character


def test_the_held_out_share_is_the_last_part():
    """A tenth by default, or what is asked for, from the end; of it at most 64 windows."""
    corpus = Corpus("a" * 750 + "b" * 250, held_out=0.25)
    assert corpus.train.tolist() == [ord("a")] * 750 and corpus.held_out.tolist() == [ord("b")] * 250
    assert len(Corpus("a" * 1000).held_out) == 100
    assert len(Corpus("a" * 1000).held_out_windows(1)[0]) == 64
    assert Corpus(" ".join(f"word{i}" for i in range(3000)), unit="words").vocab_size == 1000


def test_byte_names_are_distinct_and_readable():
    """A printable byte is its own name; space and newline have a sign, the rest two hex digits."""
    names = Corpus(SENTENCE).names
    assert len(set(names)) == len(names) == Corpus(SENTENCE).vocab_size == 256
    assert [names[i] for i in (0, 9, 10, 31, 32, 33, 126, 127, 128, 255)] == (
        ["x00", "x09", "↵", "x1f", "␣", "!", "~", "x7f", "x80", "xff"]
    )
    assert "".join(names[33:127]) == "".join(map(chr, range(33, 127)))


def test_words_by_hand():
    """Words and signs are tokens, spaces are none, the most frequent come first, the rest is <unk>."""
    corpus = Corpus("b, a b a\tb  c!\n b_1 " + "b zebra ", unit="words", vocab_size=4, held_out=8 / 28)
    assert corpus.names == ["<unk>", "b", "a", ","]  # b 3, a 2, then the first of those seen once
    assert corpus.train.tolist() == [1, 3, 2, 1, 2, 1, 0, 0, 0]
    assert corpus.held_out.tolist() == [1, 0]
    assert corpus.decode(corpus.encode("a,b éa?")) == "a , b <unk> <unk>"


def test_vocabulary_never_sees_the_held_out_part():
    """A word that stands only in the held-out part has no id, however frequent it is there."""
    corpus = Corpus("one two " * 50 + "three " * 50, unit="words", held_out=300 / 700)
    assert corpus.names == ["<unk>", "one", "two"]
    assert corpus.held_out.tolist() == [0] * 50


@settings(deadline=None, max_examples=40)
@given(st.lists(st.sampled_from(["red", "green", "blue", ".", ",", "(", "12"]), min_size=8))
def test_known_words_come_back_joined_by_a_space(tokens):
    """With room for every word, words round-trip up to the spaces between them."""
    corpus = Corpus("red green blue . , ( 12 " * 9, unit="words")
    assert corpus.decode(corpus.encode("  ".join(tokens))) == " ".join(tokens)
    assert corpus.encode("  ".join(tokens)).dtype == torch.int64


@settings(deadline=None, max_examples=40)
@given(numbers, st.data())
def test_batch_is_windows_of_the_training_part(codes, data):
    """For every size: x stands in the training part, y is x one token later."""
    corpus = ascii_corpus(codes)
    context = data.draw(st.integers(1, len(corpus.train) - 1))
    x, y = corpus.batch(7, context)
    assert x.shape == y.shape == (7, context)
    assert torch.equal(x[:, 1:], y[:, :-1])
    windows = {tuple(window) for window in corpus.train.unfold(0, context + 1, 1).tolist()}
    assert {(*a, b[-1]) for a, b in zip(x.tolist(), y.tolist(), strict=True)} <= windows


def test_batch_draws_every_window_equally_often():
    """Six windows of one token, 6000 draws: each 1000 times, within five standard deviations (29 each)."""
    corpus = ascii_corpus([*range(14)])
    x, _ = corpus.batch(6000, 1, torch.Generator().manual_seed(0))
    counts = torch.bincount(x.flatten(), minlength=14)
    assert counts[6:].sum() == 0  # the last training token, 6, only ever follows
    assert (counts[:6] - 1000).abs().max() < 5 * (6000 * 1 / 6 * 5 / 6) ** 0.5


def test_batch_follows_its_generator(by_bytes):
    """The same seed gives the same windows."""
    first, again, other = (by_bytes.batch(8, 4, torch.Generator().manual_seed(seed))[0] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@settings(deadline=None, max_examples=40)
@given(numbers, st.data(), st.integers(1, 12))
def test_held_out_windows_do_not_overlap_and_are_spread(codes, data, most):
    """For every size: as many as asked or as fit, y one later than x, starts a context apart, gaps nearly equal."""
    corpus = ascii_corpus(codes)
    length = len(corpus.held_out)
    corpus.held_out = torch.arange(length)  # a token that says where it stands
    context = data.draw(st.integers(1, length - 1))
    x, y = corpus.held_out_windows(context, most)
    fit = (length - 1) // context  # windows whose last target still exists
    assert len(x) == min(most, fit)
    assert torch.equal(y, x + 1)
    assert torch.equal(x, x[:, :1] + torch.arange(context))
    assert int(y.max()) < length
    starts = x[:, 0] // context
    assert torch.equal(starts * context, x[:, 0])
    gaps = torch.diff(starts, append=torch.tensor([fit]))
    assert starts[0] == 0
    assert gaps.min() >= 1
    assert gaps.max() - gaps.min() <= 1


@pytest.mark.parametrize("context", [0, 20])
def test_context_that_does_not_fit_is_named(context):
    """A window needs a target after its last token: the error has the context and what is allowed."""
    corpus = ascii_corpus([1] * 40)
    for windows in (lambda: corpus.batch(2, context), lambda: corpus.held_out_windows(context)):
        with pytest.raises(ValueError, match=f"context is {context}: .* allows 1 to 19"):
            windows()
    assert corpus.batch(2, 19)[0].shape == (2, 19)
    assert corpus.held_out_windows(19)[0].shape == (1, 19)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"unit": "letters"}, 'unit is \'letters\': expected "bytes" or "words"'),
        ({"held_out": 0.0}, "held_out is 0.0: expected a share"),
        ({"held_out": 1.0}, "held_out is 1.0: expected a share"),
        ({"unit": "words", "vocab_size": 1}, "vocab_size is 1: it must hold <unk> and at least one word"),
        ({"text": "abc"}, "a text of 3 characters is too short to split at 0.1"),
        ({"text": "ab" * 9, "unit": "words"}, "a text of 18 characters is too short"),
    ],
)
def test_bad_arguments_are_named(arguments, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        Corpus(**{"text": SENTENCE} | arguments)


def test_two_tokens_on_each_side_are_enough():
    """The shortest text that splits: one window of one token on each side."""
    corpus = Corpus("abcd", held_out=0.5)
    x, y = corpus.held_out_windows(1)
    assert corpus.decode(x[0]) + corpus.decode(y[0]) == "cd"
    assert Corpus("a b c d", unit="words", vocab_size=2, held_out=0.5).names == ["<unk>", "a"]


def test_python_docs_is_long_english():
    """Hundreds of thousands of characters, with Python's own words in it."""
    text = python_docs()
    assert len(text) > 300_000 and text.count(" the ") > 1000 and 'The "assert" statement' in text


def test_python_without_its_documentation_is_told(monkeypatch):
    """Where pydoc_data is missing the error says what to use instead."""
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(ValueError, match=r"no pydoc_data: use corpus.read\(path\)"):
        python_docs()


def test_read_gives_the_file_as_it_is(tmp_path, monkeypatch):
    """A UTF-8 file, on a machine whose own encoding is another too; a path may be a string."""
    monkeypatch.setattr("io.text_encoding", lambda encoding, level=2: encoding or "latin-1")
    path = tmp_path / "text.txt"
    path.write_bytes("naïve ␣ 漢字\nend".encode())
    assert read(path) == read(str(path)) == "naïve ␣ 漢字\nend"


def test_unreadable_files_are_named(tmp_path, monkeypatch):
    """Missing (also a folder), empty, or in another encoding: the error has the path and the reason."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "latin.txt").write_bytes("caf\xe9 au lait".encode("latin-1"))
    for name, said in {
        "missing.txt": f"no file at missing.txt (looked in {tmp_path})",
        ".": "no file at .",
        "empty.txt": "empty.txt is empty",
        "latin.txt": "latin.txt is not UTF-8 at byte 3: save it as UTF-8 first",
    }.items():
        with pytest.raises(ValueError, match=re.escape(said)):
            read(name)
