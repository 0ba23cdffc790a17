"""Lesson 01: byte-pair encoding against Hugging Face's tokenizers and tiktoken. (Its clinic: test_clinics.py.)"""

import base64
import functools
import json
import random
import re
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import bpe
import bpe_drift
import bpe_files
import pytest
import regex
import tiktoken
import tokenizers
import torch
from bpe_checks import EXERCISES, PROSE
from folded import solutions
from hypothesis import given, settings
from hypothesis import strategies as st
from tiktoken_ext import openai_public
from tokenizers import Regex, models, pre_tokenizers, trainers

from shared.clinic import holds_on, try_out
from shared.corpus import python_docs

PUBLISHED = {  # as first published; tiktoken 0.14 has a faster cl100k, which at the end of a text takes "\n " as one
    bpe.GPT2: r"'s|'t|'re|'ve|'m|'ll|'d| ?[\p{L}]+| ?[\p{N}]+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    bpe.GPT4: r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+",
    bpe.GPT4O: bpe.GPT4O,  # which a test compares with tiktoken's own
}
MIXED = [  # other scripts, emoji that are several characters, white space of every kind, a long word
    PROSE,
    "Größe, naïve façade; Ελληνικά και Русский, עברית, العربية ١٢٣٤, हिन्दी १२३ और ไทย, 日本語と中文、한국어. " * 3,
    "👍🏽👩‍👩‍👧‍👦🇩🇪🙂 e\u0301e\u0301 a\u0308\u0323 \u200b\u200d\ufeff ½ ² Ⅷ ǆ ß ſ 'ſ " * 3,
    " a  b   c    d     e" + " " * 90 + "f\n\n\n\n  g\t\t\th \r\n \r\n\x1c \x85\u00a0\u3000\u2028x  " * 3,
    "I'll we'LL he's 'S DON'T don't 'tis ''' l'l ' s '' 12345 1234567 x1y22z333 --- ... !!!\n!!\r\n?? " * 3,
    "HTTPServer's ABc ǅabc 日A本b AB'll //x !/\n/ /usr/lib Ωμέγα İi नमस्ते'S ʰA " * 3,
    "aaaaaaa aaaa aaaaaaaaaaa abababab babab ababababab ---------- ================\n" * 3,
    "".join(random.Random(0).choices("abcd", k=3 * bpe.LONG)),
]
known = st.characters(exclude_categories=["Cs", "Cn"])  # what is unassigned is a letter to some libraries already
few = st.text("ab", max_size=12) | st.text("abc ", max_size=30)
signs = st.text(" \n\t\r\x1c\x1f\x85\u00a0\u3000abAS1²'lsé\u0301\u0308.!-_/🙂日ǅʰ", max_size=40)
checked = functools.partial(settings, deadline=None)
NAMES = {"GPT2": bpe.GPT2, "GPT4": bpe.GPT4, "GPT4O": bpe.GPT4O}
published = pytest.mark.parametrize("pattern", NAMES.values(), ids=NAMES)
any_pattern = pytest.mark.parametrize("pattern", [*NAMES.values(), None], ids=[*NAMES, "None"])


def splitter(pattern):
    """Hugging Face's pre-tokeniser for one of our patterns, or for none."""
    whole = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern == bpe.GPT2)
    if pattern in (bpe.GPT2, None):
        return whole
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(PUBLISHED[pattern]), "isolated"), whole])


def hugging_face(texts, vocab_size, pattern=bpe.GPT2):
    """Hugging Face's tokenizer, trained on the texts."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = splitter(pattern)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def merges_of(theirs):
    """The merges of a Hugging Face tokenizer as pairs of its ids."""
    ids = theirs.get_vocab()
    return [(ids[a], ids[b]) for a, b in json.loads(theirs.to_str())["model"]["merges"]]


@functools.cache
def openai(ours):
    """tiktoken with our merges, pattern and specials."""
    ranks = {token: i for i, token in enumerate(ours.vocab[: 256 + len(ours.merges)])}
    published = PUBLISHED[ours.pattern]
    return tiktoken.Encoding("ours", pat_str=published, mergeable_ranks=ranks, special_tokens=ours.specials)


@functools.cache
def trained(pattern=bpe.GPT2, specials=()):
    """A tokenizer with 300 merges from PROSE and MIXED."""
    return bpe.train(MIXED, 556, pattern, specials)


@functools.cache
def joining(alphabet, pattern=bpe.GPT2, specials=()):
    """A tokenizer whose 400 merges join any letters, learnt without a pattern: a wrong split shows in its ids."""
    text = "".join(random.Random(0).choices(alphabet, k=6000))
    return bpe.Tokenizer(bpe.train(text, 656, pattern=None).merges, pattern, specials)


@published
def test_merges_and_ids_are_hugging_faces(pattern):
    """The same pairs in the same order, and the same ids, of texts that were learnt from and of others."""
    for texts in ([python_docs()[:50_000]], MIXED):
        ours, theirs = bpe.train(texts, 1024, pattern), hugging_face(texts, 1024, pattern)
        assert ours.merges == merges_of(theirs)
        for text in [*MIXED, python_docs()[200_000:220_000]]:
            assert ours.encode(text) == theirs.encode(text).ids


@any_pattern
@pytest.mark.parametrize("rung", [bpe.learn_by_recounting, bpe.learn_from_distinct, bpe.learn])
@checked(max_examples=15)
@given(texts=st.lists(few | st.text(known, max_size=20), max_size=6))
def test_runs_and_ties_are_hugging_faces(rung, pattern, texts):
    """Few letters, down to the last pair: nearly every count ties, runs overlap, and no merge crosses two texts."""
    ours, theirs = bpe.train(texts, 320, pattern, learn=rung), hugging_face(texts, 320, pattern)
    assert ours.merges == merges_of(theirs)
    assert all(ours.encode(text) == theirs.encode(text).ids for text in texts)


@published
@checked(max_examples=60)
@given(text=st.text(known, max_size=60) | signs)
def test_splits_and_ids_are_those_of_the_libraries(pattern, text):
    """Any text, with merges that join anything, the first time and when its stretches are remembered."""
    assert bpe.split(text, pattern) == [text[a:b] for _, (a, b) in splitter(pattern).pre_tokenize_str(text)]
    ours = joining(" \n\t\r\x1c\x85'lsabS1.!-/é日", pattern)
    assert ours.encode(text) == ours.encode(text) == openai(ours).encode(text)


@published
def test_ids_are_tiktokens(pattern):
    """On long texts; a special that is not allowed is text to both, an allowed one its id."""
    ours = trained(pattern, ("<|end|>", "<|user|>"))
    theirs = openai(ours)
    for text in [*MIXED, "<|user|>It's 12345<|end|>\n <|end|>", "<|end|><|end|>|>"]:
        assert ours.encode(text) == theirs.encode(text, disallowed_special=())
        assert ours.encode(text, "all") == theirs.encode(text, allowed_special="all")
        one = theirs.encode(text, allowed_special={"<|user|>"}, disallowed_special=())
        assert ours.encode(text, ["<|user|>"]) == ours.encode(text, "<|user|>") == one


@pytest.mark.parametrize("name", ["o200k_base", "cl100k_base", "gpt2"])
def test_patterns_are_those_of_tiktoken(name, monkeypatch):
    """GPT-4o's letter for letter; the older two were rewritten there, and cut the same but for a text's end."""
    monkeypatch.setattr(openai_public, "load_tiktoken_bpe", lambda *_, **__: {})
    monkeypatch.setattr(openai_public, "data_gym_to_mergeable_bpe_ranks", lambda *_, **__: {})
    theirs = getattr(openai_public, name)()["pat_str"]
    ours = {"o200k_base": bpe.GPT4O, "cl100k_base": bpe.GPT4, "gpt2": bpe.GPT2}[name]
    assert theirs == ours or name != "o200k_base"
    for text in MIXED:
        assert regex.findall(theirs, text + "x") == bpe.split(text + "x", ours)


@checked(max_examples=60)
@given(text=signs, allowed=st.sets(st.sampled_from(["ab", "!!", "b1"])), barred=st.sets(st.sampled_from(["ab", "!!"])))
def test_specials_are_refused_where_tiktoken_refuses_them(text, allowed, barred):
    """Those that are forbidden, and "all" means all that are not allowed."""
    ours = joining(" ab1!", bpe.GPT2, ("ab", "!!", "b1"))
    for forbidden in (barred - allowed, "all"):
        results = []
        for encode in (
            lambda forbidden=forbidden: openai(ours).encode(
                text, allowed_special=allowed, disallowed_special=forbidden
            ),
            lambda forbidden=forbidden: ours.encode(text, allowed, forbidden),
        ):
            try:
                results.append(encode())
            except ValueError:
                results.append("refused")
        assert results[0] == results[1]


@pytest.mark.parametrize("text", ["a" * 3000, "abab" * 700, "".join(random.Random(1).choices("ACGT", k=3000))])
def test_long_words_teach_what_recounting_teaches(text):
    """One letter, two, and DNA, without a pattern, until few pairs are left."""
    assert bpe.learn([text, text[:50]], 60) == bpe.learn_by_recounting([text, text[:50]], 60)


def test_memory_begins_anew_when_it_is_full(monkeypatch):
    """Ids stay right, no more than ROOM is kept, and long stretches are not kept at all."""
    monkeypatch.setattr(bpe, "ROOM", 5)
    tokenizer, text = bpe.Tokenizer(trained().merges), python_docs()[:3000] + "x" * 300 + " x" * 300
    assert tokenizer.encode(text) == tokenizer.encode(text) == openai(trained()).encode(text)
    for memory in (tokenizer._stretches, tokenizer._words):
        assert 0 < len(memory) <= 5 and max(map(len, memory)) <= bpe.MEMORABLE


@any_pattern
@checked(max_examples=50)
@given(text=st.text(), data=st.binary())
def test_what_is_encoded_comes_back(pattern, text, data):
    """Any text and any bytes, also token by token; and the bytes of a text have the text's ids."""
    tokenizer = trained(pattern)
    ids, of_bytes = tokenizer.encode(text), tokenizer.encode(data)
    assert tokenizer.decode(ids) == tokenizer.decode(torch.tensor(ids)) == text
    assert tokenizer.decode_bytes(of_bytes) == data
    assert "".join(tokenizer.decode_stream(of_bytes)) == tokenizer.decode(of_bytes) == data.decode(errors="replace")
    assert tokenizer.encode(text.encode()) == ids


fragments = ["'", "l", "'l", "'ll", "'re", "s", "S", "a", "ab", "bc", "abcd", "c", "!", "!!", " ", "  ", " \n"]
fragments += ["\n", "\r\n", "\t", "1", "12", "345", "é", "🙂", "\u0301", "A", "BC", "日", "/", "ǅ", "ʰ"]


@any_pattern
@checked(max_examples=60)
@given(
    text=st.lists(st.sampled_from(fragments), max_size=20).map("".join),
    cuts=st.lists(st.integers(0, 60), max_size=12) | st.just(range(60)),
    allowed=st.sampled_from([(), "all", ["bc"], ["ab", "abcd"]]),
)
def test_a_stream_has_the_ids_of_the_whole(pattern, text, cuts, allowed):
    """Wherever it is cut, with specials that begin alike or overlap."""
    tokenizer = joining(" \n\t\r'lsabcABC日/1!", pattern, ("ab", "bc", "abcd", "!!", "'ll"))
    parts = [text[a:b] for a, b in pairwise([0, *sorted(cuts), len(text)])]
    assert list(tokenizer.encode_stream(parts, allowed)) == tokenizer.encode("".join(parts), allowed)


def test_a_stream_with_a_pattern_that_looks_far_ahead_is_held_whole():
    """Digits in threes from the right: how 1234567 is cut shows at its end only."""
    pattern = r" ?\p{L}+|\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))|[^\p{L}\p{N}]"
    text = "nails 12345678901 bars"
    tokenizer = bpe.train("12345678 " * 5 + text, 300, pattern)
    assert list(tokenizer.encode_stream(list(text))) == tokenizer.encode(text)


@pytest.mark.parametrize("text", [python_docs()[:50_000], "abcd" * 5000], ids=["prose", "one long word"])
def test_a_stream_holds_little_and_reads_nothing_again_and_again(text):
    """What is held of prose stays under 2 kB; what is looked at grows with the letters, not with their square."""
    tokenizer, lengths = bpe.Tokenizer(trained().merges, specials=["<|end|>"]), []
    settle = tokenizer._encode_settled
    tokenizer._encode_settled = lambda held, *rest: lengths.append(len(held)) or settle(held, *rest)
    assert list(tokenizer.encode_stream(text)) == tokenizer.encode(text)
    assert sum(lengths) < 4 * len(text)
    assert " " not in text or max(lengths) < 2000


def test_nothing_is_no_error():
    """An empty text has no ids and no drift; no text teaches no merges, and 256 tokens have none."""
    assert bpe.train("", 300).merges == bpe.train([], 300).merges == []
    assert trained().encode("") == trained().encode(b"") == list(trained().encode_stream([])) == []
    assert trained().decode([]) == "".join(trained().decode_stream([])) == ""


# drift


def test_drift_is_what_the_formula_says():
    """Zero from itself, the same both ways; cuts are counted in bytes; one cut against none is all of the distance."""
    a, b = bpe.Tokenizer([]), bpe.train("abab", 257)
    assert bpe_drift.boundaries(a, "abé") == {1, 2, 3} and bpe_drift.boundaries(b, "abab") == {2}
    assert bpe_drift.drift(a, a, "abab") == bpe_drift.drift(trained(), trained(), "") == 0
    assert bpe_drift.drift(a, b, "abab") == bpe_drift.drift(b, a, "abab") == 0.5  # 1 - 2 * 1 / (3 + 1)
    assert bpe_drift.drift(b, a, "ab") == 1


def test_drift_within_words_leaves_out_what_a_pattern_cuts():
    """Both patterns' borders, of both: " ab" against "a|b" is all that is left of "ab ab"."""
    whole = bpe.train("ab ab", 258, bpe.GPT2)  # ab, and " ab"
    parted = bpe.Tokenizer([], r"\S|\s")
    assert bpe_drift.borders("é ab", bpe.GPT2) == {2} and bpe_drift.borders("é ab", None) == set()
    assert bpe_drift.drift(whole, bpe.Tokenizer([]), "ab ab") == 1 - 2 * 1 / (1 + 4)
    assert bpe_drift.within_words(whole, bpe.Tokenizer([]), "ab ab") == 1
    assert bpe_drift.within_words(whole, parted, "ab ab") == bpe_drift.within_words(parted, whole, "ab ab") == 0
    a, b = bpe.train("abcd abcd bcd", 258), bpe.train("abcd abc ab", 258)  # bc and cd, ab and abc
    cuts = [bpe_drift.boundaries(it, "abcd abcd") - {4} for it in (a, b)]
    assert bpe_drift.within_words(a, b, "abcd abcd") == 1 - 2 * len(cuts[0] & cuts[1]) / sum(map(len, cuts))


# files


@pytest.mark.parametrize("pattern", [bpe.GPT4, None, r"\w+|\W"])
def test_a_saved_tokenizer_comes_back(pattern, tmp_path):
    """Merges, pattern and specials; beside it a line for each token, with what a merge was made of."""
    ours = trained(pattern, ("<|end|>", "<|é|>"))
    bpe_files.save(ours, tmp_path / "ours.json")
    theirs = bpe_files.load(tmp_path / "ours.json")
    assert (theirs.merges, theirs.pattern, theirs.specials) == (ours.merges, ours.pattern, ours.specials)
    lines = (tmp_path / "ours.txt").read_text(encoding="utf-8").splitlines()
    for i, (a, b) in enumerate(ours.merges, 256):
        parts = ours.vocab[a], ours.vocab[b]
        assert lines[i] == f"{i}\t{b''.join(parts)!r} = {parts[0]!r} + {parts[1]!r}"
    assert (len(lines), lines[-2]) == (len(ours.vocab), "556\tb'<|end|>'")


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace('"merges": [[', '"merges": [[1, 2], ['),
        lambda text: text.replace('"specials": [', '"specials": ["<|more|>"'),
        lambda text: text.replace("sha256", "md5"),
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
        lambda text: "\udcff",
        None,
    ],
)
def test_a_file_that_was_altered_cut_or_never_one_of_ours_is_refused(change, tmp_path):
    """Each would give other ids, or none."""
    path = tmp_path / "ours.json"
    if change:
        bpe_files.save(trained(), path)
        path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8", errors="surrogateescape")
    with pytest.raises(ValueError, match=r"ours.json .*save it again"):
        bpe_files.load(path)


@pytest.mark.parametrize("name", ["a.txt", "v1.0", "tokenizer", "a.json.gz"])
def test_a_name_that_could_hide_another_is_refused(name, tmp_path):
    with pytest.raises(ValueError, match=rf"{name} does not end in .json, .* choose {name}.json"):
        bpe_files.save(trained(), tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["a.json", "a.txt"])
@pytest.mark.parametrize("content", [b"my own notes", b"{}", b"[1]", b'{"merges": []}', b"\xff\x00", b""])
def test_nothing_of_somebody_else_is_overwritten(name, content, tmp_path):
    """Neither place; and then nothing is written at the other one."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name} is there already, and `save` did not write it: move it away"):
        bpe_files.save(trained(), tmp_path / "a.json")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [(name, content)]


def test_what_was_saved_is_saved_over(tmp_path):
    """Also by a tokenizer with fewer tokens, and where the first was altered since."""
    path = tmp_path / "v1.0.json"
    bpe_files.save(trained(), path)
    path.write_text(path.read_text(encoding="utf-8").replace("[[", "[[1, 2], ["), encoding="utf-8")
    bpe_files.save(bpe.Tokenizer([(0, 1)]), path)
    assert bpe_files.load(path).merges == [(0, 1)]
    assert sorted(each.name for each in tmp_path.iterdir()) == ["v1.0.json", "v1.0.txt"]


def tiktoken_file(tokens):
    """What tiktoken's files hold: a token in base64 and its rank, line by line."""
    return b"".join(base64.b64encode(token) + b" %d\n" % rank for rank, token in enumerate(tokens))


@published
def test_ranks_in_tiktokens_format_give_merges_back(pattern, tmp_path):
    """Our merges, written by tokens alone, as tiktoken reads them itself."""
    ours = trained(pattern, ("<|end|>",))
    (tmp_path / "ours.tiktoken").write_bytes(tiktoken_file(ours.vocab[:-1]))
    theirs = bpe_files.load_tiktoken(tmp_path / "ours.tiktoken", pattern, ["<|end|>"])
    assert (theirs.merges, theirs.pattern, theirs.specials) == (ours.merges, ours.pattern, ours.specials)
    read = tiktoken.load.load_tiktoken_bpe(str(tmp_path / "ours.tiktoken"))
    assert read == {token: i for i, token in enumerate(ours.vocab[:-1])}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda lines: lines[:255], "ends after 255 tokens"),
        (lambda lines: [*lines, b"YWI"], r"line 257: 'YWI': expected a new token in base64, and 256"),
        (lambda lines: [*lines, b"YWI= x"], "line 257"),
        (lambda lines: [*lines, b"YWI= 257"], "line 257"),
        (lambda lines: [*lines, b"!!! 256"], "line 257"),
        (lambda lines: [*lines, b"YQ== 256"], "line 257"),
        (lambda lines: [*lines, b"YWJj 256"], r"line 257: the merges before it leave 3 parts of b'abc'"),
        (lambda lines: [lines[1], *lines[1:]], r"line 1: .* expected b'!' in base64, and 0"),
        (lambda lines: [b"\xff"], "cannot be read"),
    ],
)
def test_a_line_that_is_no_rank_is_named(change, words, tmp_path):
    """Cut short, gaps, no base64, a token twice, one that no merge makes, bytes in another order."""
    lines = tiktoken_file(bytes([byte]) for byte in bpe.BYTES).split(b"\n")[:-1]
    (tmp_path / "a.tiktoken").write_bytes(b"\n".join(change(lines)))
    with pytest.raises(ValueError, match=words):
        bpe_files.load_tiktoken(tmp_path / "a.tiktoken", bpe.GPT4)


@pytest.mark.parametrize("content", ["", "\n\n", "#version: 0.2\n"])
def test_a_file_without_merges_is_refused(content, tmp_path):
    (tmp_path / "merges.txt").write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=r"merges.txt holds no merges"):
        bpe_files.load_gpt2(tmp_path / "merges.txt")


def test_merges_in_gpt2s_format_give_the_same_ids(tmp_path):
    """What Hugging Face writes, with a version in the first line; the one special comes behind the merges."""
    theirs = hugging_face(MIXED, 700)
    theirs.model.save(str(tmp_path))
    path = tmp_path / "merges.txt"
    path.write_text(path.read_text(encoding="utf-8"), encoding="utf-8-sig")
    ours = bpe_files.load_gpt2(path)
    assert ours.merges == merges_of(theirs)
    assert ours.specials == {"<|endoftext|>": 256 + len(ours.merges)}
    names = json.loads((tmp_path / "vocab.json").read_text(encoding="utf-8"))
    assert [names[symbol] for symbol in bpe_files.SYMBOLS] == list(range(256))


@pytest.mark.parametrize("line", ["a", "a b c", "a  b", "ab é€", "h e", " "])
def test_a_line_that_is_no_merge_is_named(line, tmp_path):
    """One symbol, three, unknown ones, a merge that was there: with the line's number."""
    path = tmp_path / "merges.txt"
    path.write_text(f"#version: 0.2\nh e\n{line}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=rf"merges.txt, line 3: {re.escape(repr(line))}"):
        bpe_files.load_gpt2(path)


@pytest.mark.parametrize(
    ("call", "words"),
    [  # what the clinic's check of refusals does not ask
        (lambda: bpe.train("abc", 300.5), "vocab_size is 300.5"),
        (lambda: bpe.train("abc", 0x110001), "vocab_size is 1114113: .* to 1114112"),
        (lambda: bpe.train(["a", "b\udcff"], 300), r"character 1 is '\\udcff', half of a surrogate pair"),
        (lambda: list(trained().encode_stream([b"a"])), "the text is of type bytes"),
        (lambda: bpe.train(Path("prose.txt"), 300), "of type PosixPath|WindowsPath: expected a str; of a file, what"),
        (lambda: trained().encode("a", forbidden=["<|no|>"]), "no special token"),
        (lambda: trained().encode("a", 7), "7 are no special tokens"),
        (lambda: trained().decode([1.0]), "no ids: expected whole numbers"),
        (lambda: bpe.Tokenizer([(0, 256)]), r"merge 0 is \(0, 256\): expected two ids from 0 to 255"),
        (lambda: bpe.Tokenizer([(0, 1, 2)]), "expected two ids"),
        (lambda: bpe.Tokenizer([(True, False)]), "merge 0 is"),
        (lambda: bpe.Tokenizer([], specials=["a", "a"]), "different texts"),
        (lambda: bpe.Tokenizer([], specials=["all"]), "different texts"),
        (lambda: bpe.Tokenizer([], specials="ab"), "different texts"),
    ],
)
def test_bad_input_is_named(call, words):
    """The message holds the value, and what was expected."""
    with pytest.raises(ValueError, match=words):
        call()


# what a reader writes


def count_pairs(words):
    counts = {}
    for word, often in words.items():
        for a, b in pairwise(word):
            counts[a + b] = counts.get(a + b, 0) + often
    return counts


def merge(word, pair, token):
    out, at = "", 0
    while at < len(word):
        hit = word[at : at + 2] == pair
        out += token if hit else word[at]
        at += 1 + hit
    return out


def encode_word(word, ranks):
    while True:
        found = [(ranks[a + b], a + b) for a, b in pairwise(word) if a + b in ranks]
        if not found:
            return word
        rank, pair = min(found)
        word = merge(word, pair, chr(256 + rank))


def spell(piece):
    return "".join(chr(bpe.BYTES.index(byte)) for byte in piece.encode("utf-8", "surrogateescape"))


def unspell(word):
    if merged := [token for token in word if ord(token) > 255]:
        raise ValueError(f"{merged[0]!r} is no byte")
    return bytes(bpe.BYTES[ord(token)] for token in word)


def learn_from_distinct(pieces, n):
    words, merges = {}, []
    for piece in pieces:
        words[spell(piece)] = words.get(spell(piece), 0) + 1
    for rank in range(n):
        counts = count_pairs(words)
        if not counts:
            break
        merges.append(min(counts, key=lambda pair: (-counts[pair], pair)))
        words = {merge(word, merges[-1], chr(256 + rank)): often for word, often in words.items()}
    return merges


def split(text, pattern=bpe.GPT2):
    return [match.group() for match in regex.finditer(pattern, text)] if pattern else [text] * bool(text)


@pytest.mark.parametrize("function", [count_pairs, merge, encode_word, spell, unspell, learn_from_distinct, split])
def test_functions_that_a_reader_writes_are_examined(function, capsys):
    """Plain versions pass the checks about them, in place of the helper's own; a stub is named as one."""
    assert try_out(bpe, function).passes
    assert try_out(bpe, lambda *given: ..., name=function.__name__) is None
    assert "not written yet" in capsys.readouterr().out


@pytest.mark.parametrize(
    "function",
    [
        lambda words: {pair: often for word, often in words.items() for pair in map("".join, pairwise(word))},
        lambda words: {pair: 1 for word in words for pair in map("".join, pairwise(word))},
        lambda words: {a + b: word.count(a + b) * often for word, often in words.items() for a, b in pairwise(word)},
    ],
)
def test_wrong_counts_are_caught(function):
    """Set where they should be added, not weighed, without overlaps."""
    assert not try_out(bpe, function, name="count_pairs").passes


def drop_once(word, ranks, p, chance):
    """Pairs are dropped once, not at each step anew."""
    return bpe.encode_word(word, {pair: rank for pair, rank in ranks.items() if chance.random() >= p})


@pytest.mark.parametrize(
    ("number", "wrong"),
    [
        (0, {"DIGITS_FROM_THE_RIGHT": r"\p{N}{1,3}"}),
        (1, {"encode_with_dropout": drop_once}),
        (1, {"encode_with_dropout": lambda word, ranks, p, chance: word}),
        (2, {"heal": lambda tokenizer, prompt: (tokenizer.encode(prompt), range(256))}),
    ],
)
def test_exercises_tell_right_from_wrong(number, wrong):
    check = EXERCISES[number]
    right = {"bpe": bpe} | solutions(bpe, "bpe_vis.ipynb", regex=regex)
    assert holds_on(check.test, SimpleNamespace(**right)) is None
    assert holds_on(check.test, SimpleNamespace(**right | wrong)) is not None
