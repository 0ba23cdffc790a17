"""Lesson 01: byte-pair encoding against Hugging Face's tokenizers and tiktoken. (Its clinic: test_clinics.py.)"""

import functools
import json
import random
import re
from collections import Counter
from itertools import chain, pairwise, product

import bpe
import bpe_files
import pytest
import tiktoken
import tokenizers
import torch
from bpe_clinic import PROSE
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, models, pre_tokenizers, trainers

from shared.corpus import python_docs

PATTERNS = {"GPT2": bpe.GPT2, "GPT4": bpe.GPT4}
PUBLISHED = {  # as first published; tiktoken 0.14 has a faster cl100k, which at the end of a text takes "\n " as one
    bpe.GPT2: r"'s|'t|'re|'ve|'m|'ll|'d| ?[\p{L}]+| ?[\p{N}]+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    bpe.GPT4: r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+",
}
RUNGS = [bpe.learn_by_recounting, bpe.learn_from_distinct, bpe.learn]
MIXED = [  # other scripts, emoji that are several characters, white space of every kind
    PROSE,
    "Größe, naïve façade; Ελληνικά και Русский, עברית, العربية ١٢٣٤, हिन्दी १२३ और ไทย, 日本語と中文、한국어. " * 3,
    "👍🏽👩‍👩‍👧‍👦🇩🇪🙂 e\u0301e\u0301 a\u0308\u0323 \u200b\u200d\ufeff ½ ² Ⅷ ǆ ß ſ 'ſ " * 3,
    " a  b   c    d     e" + " " * 90 + "f\n\n\n\n  g\t\t\th \r\n \r\n\x1c \x85\u00a0\u3000\u2028x  " * 3,
    "I'll we'LL he's 'S DON'T don't 'tis ''' l'l ' s '' 12345 1234567 x1y22z333 --- ... !!!\n!!\r\n?? " * 3,
    "aaaaaaa aaaa aaaaaaaaaaa abababab babab ababababab ---------- ================\n" * 3,
]
known = st.characters(exclude_categories=["Cs", "Cn"])  # what is unassigned is a letter to some libraries already
few = st.text("ab", max_size=12) | st.text("abc ", max_size=30)
signs = st.text(" \n\t\r\x1c\x1f\x85\u00a0\u3000ab1²'lsé\u0301\u0308.!-_🙂日", max_size=40)
checked = functools.partial(settings, deadline=None)


def splitter(pattern):
    """Hugging Face's pre-tokeniser for one of our patterns, or for none."""
    if pattern == bpe.GPT2:
        return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    whole = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    if pattern is None:
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
def hugging_face_with(ours):
    """Hugging Face's tokenizer with our merges and pattern."""
    names = sorted(pre_tokenizers.ByteLevel.alphabet())
    for a, b in ours.merges:
        names.append(names[a] + names[b])
    merges = [(names[a], names[b]) for a, b in ours.merges]
    tokenizer = tokenizers.Tokenizer(models.BPE({name: i for i, name in enumerate(names)}, merges))
    tokenizer.pre_tokenizer = splitter(ours.pattern)
    return tokenizer


@functools.cache
def docs(size=100_000):
    """The beginning of Python's documentation."""
    return python_docs()[:size]


@functools.cache
def trained(pattern=bpe.GPT2, specials=()):
    """A tokenizer with 300 merges from PROSE and MIXED."""
    return bpe.train(MIXED, 556, pattern, specials)


@functools.cache
def joining(alphabet, pattern=bpe.GPT2, specials=()):
    """A tokenizer whose 400 merges join any letters, learnt without a pattern: a wrong split shows in its ids."""
    draw = random.Random(0)
    text = "".join(draw.choice(alphabet) for _ in range(6000))
    return bpe.Tokenizer(bpe.train(text, 656, pattern=None).merges, pattern, specials)


def by_words(tokenizer, text):
    """The ids of a text, pre-token for pre-token, with nothing remembered."""
    return list(chain.from_iterable(map(tokenizer._encode_word, bpe.split(text, tokenizer.pattern))))


# the clinic


def test_faults_are_twelve_different_ones():
    """The notebook speaks of twelve patients, and no two are the same bug."""
    assert len({(fault.line, fault.becomes) for fault in bpe.FAULTS}) == len(bpe.FAULTS) == 12


# merges and ids, against the libraries


@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)
@pytest.mark.parametrize("texts", [[docs()], MIXED], ids=["docs", "mixed"])
def test_merges_and_ids_are_hugging_faces(texts, pattern):
    """The same pairs in the same order, and the same ids, of texts that were learnt from and of others."""
    ours, theirs = bpe.train(texts, 1024, pattern), hugging_face(texts, 1024, pattern)
    assert ours.merges == merges_of(theirs)
    for text in [*texts, *MIXED, python_docs()[200_000:230_000]]:
        assert ours.encode(text) == theirs.encode(text).ids


@pytest.mark.parametrize("pattern", [*PATTERNS.values(), None], ids=[*PATTERNS, "None"])
@checked(max_examples=60)
@given(texts=st.lists(few, max_size=6))
def test_runs_and_ties_are_hugging_faces(pattern, texts):
    """Texts of two or three letters, down to the last pair: nearly every count ties, and runs overlap."""
    ours, theirs = bpe.train(texts, 320, pattern), hugging_face(texts, 320, pattern)
    assert ours.merges == merges_of(theirs)
    assert all(ours.encode(text) == theirs.encode(text).ids for text in texts)


@checked(max_examples=40)
@given(st.lists(st.text(known, max_size=30), max_size=4))
def test_without_a_pattern_merges_are_hugging_faces(texts):
    """A text is then one pre-token, spaces and all."""
    ours, theirs = bpe.train([*texts, PROSE], 300, None), hugging_face([*texts, PROSE], 300, None)
    assert ours.merges == merges_of(theirs)
    assert ours.encode(PROSE) == theirs.encode(PROSE).ids


@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)
@checked(max_examples=150)
@given(text=st.text(known, max_size=60) | signs)
def test_ids_are_those_of_both_libraries(pattern, text):
    """Any text, with merges that join anything."""
    ours = joining(" \n\t\r'lsab1.!-é", pattern)
    assert ours.encode(text) == openai(ours).encode(text) == hugging_face_with(ours).encode(text).ids


@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)
def test_ids_are_tiktokens(pattern):
    """On long texts; a special that is not allowed is text to both, an allowed one its id."""
    names = ("<|end|>", "<|user|>")
    ours = trained(pattern, names)
    theirs = openai(ours)
    for text in [*MIXED, docs(20_000), "<|user|>It's 12345<|end|>\n <|end|>", "<|end|><|end|>|>"]:
        assert ours.encode(text) == theirs.encode(text, disallowed_special=())
        assert ours.encode(text, "all") == theirs.encode(text, allowed_special="all")
        one = theirs.encode(text, allowed_special={"<|user|>"}, disallowed_special=())
        assert ours.encode(text, ["<|user|>"]) == ours.encode(text, "<|user|>") == one


# pre-tokens


@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)
@checked(max_examples=300)
@given(text=st.text(known) | signs)
def test_splits_are_hugging_faces(pattern, text):
    """Their regular expressions are another library's, Oniguruma."""
    theirs = [text[a:b] for _, (a, b) in splitter(pattern).pre_tokenize_str(text)]
    assert bpe.split(text, pattern) == theirs


@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)
@checked(max_examples=400)
@given(text=signs)
def test_remembered_stretches_change_no_ids(pattern, text):
    """What is between single spaces may be encoded by itself, the first time and when it is remembered."""
    tokenizer = joining(" \n\t\r\x1c\x85'ls\u00a01.", pattern)
    assert tokenizer.encode(text) == tokenizer.encode(text) == by_words(tokenizer, text)


def test_memory_begins_anew_when_it_is_full(monkeypatch):
    """Ids stay right, no more than ROOM is kept, and long stretches are not kept at all."""
    monkeypatch.setattr(bpe, "ROOM", 5)
    tokenizer, text = bpe.Tokenizer(trained().merges), docs(3000) + "x" * 300 + " x" * 300
    for _ in range(2):
        assert tokenizer.encode(text) == by_words(tokenizer, text)
        assert 0 < len(tokenizer._stretches) <= 5 and 0 < len(tokenizer._words) <= 5
    assert max(map(len, [*tokenizer._stretches, *tokenizer._words])) <= bpe.MEMORABLE


# round trips and streams


@pytest.mark.parametrize("merges", ["none", "trained"])
@pytest.mark.parametrize("pattern", [*PATTERNS.values(), None], ids=[*PATTERNS, "None"])
@checked(max_examples=80)
@given(text=st.text(), data=st.binary())
def test_what_is_encoded_comes_back(merges, pattern, text, data):
    """Any text and any bytes; and the bytes of a text have the text's ids."""
    tokenizer = bpe.Tokenizer([], pattern) if merges == "none" else trained(pattern)
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.decode_bytes(tokenizer.encode(data)) == data
    assert tokenizer.encode(text.encode()) == tokenizer.encode(text)


OVERLAPPING = ("ab", "bc", "abcd", "!!", "'ll")
fragments = ["'", "l", "'l", "'ll", "'re", "s", "S", "a", "ab", "bc", "abcd", "c", "!", "!!", " ", "  ", " \n"]
fragments += ["\n", "\r\n", "\t", "1", "12", "345", "é", "🙂", "\u0301"]


@pytest.mark.parametrize("pattern", [*PATTERNS.values(), None], ids=[*PATTERNS, "None"])
@checked(max_examples=150)
@given(
    text=st.lists(st.sampled_from(fragments), max_size=20).map("".join),
    cuts=st.lists(st.integers(0, 60), max_size=12),
    allowed=st.sampled_from([(), "all", ["bc"], ["ab", "abcd"]]),
)
def test_a_stream_has_the_ids_of_the_whole(pattern, text, cuts, allowed):
    """Wherever it is cut, with specials that begin alike or overlap."""
    tokenizer = joining(" \n\t\r'lsabc1!", pattern, OVERLAPPING)
    parts = [text[a:b] for a, b in pairwise([0, *sorted(cuts), len(text)])]
    assert "".join(parts).startswith(text)
    assert list(tokenizer.encode_stream(parts, allowed)) == tokenizer.encode("".join(parts), allowed)


@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)
def test_every_short_stream_has_the_ids_of_the_whole(pattern):
    """All texts of five letters that matter, letter by letter: no case is left to chance."""
    tokenizer = joining("a1'l \n!", pattern)
    for letters in product("a1'l \n!", repeat=5):
        assert list(tokenizer.encode_stream(letters)) == tokenizer.encode("".join(letters)), letters


def watch(tokenizer):
    """A list that will hold how many characters each call of `_encode_settled` was given."""
    lengths, settle = [], tokenizer._encode_settled

    def watched(text, special, end):
        lengths.append(len(text))
        return settle(text, special, end)

    tokenizer._encode_settled = watched
    return lengths


def test_a_stream_holds_little():
    """Of 2,000 pieces never more than 2 kB are held at once, and ids come as the text does."""
    tokenizer = bpe.Tokenizer(trained().merges, specials=["<|end|>"])
    lengths, taken = watch(tokenizer), []
    pieces = [docs()[50 * i : 50 * (i + 1)] for i in range(2000)]
    stream = tokenizer.encode_stream(taken.append(piece) or piece for piece in pieces)
    first = next(stream)
    assert len(taken) < 10
    assert [first, *stream] == tokenizer.encode(docs())
    assert max(lengths) < 2000


def test_a_long_word_in_a_stream_is_not_read_again_for_each_letter():
    """What is looked at grows with the letters, not with their square, and not in steps of a letter."""
    tokenizer, word = bpe.Tokenizer(trained().merges), "abcd" * 5000
    lengths = watch(tokenizer)
    assert list(tokenizer.encode_stream(word)) == tokenizer.encode(word)
    assert sum(lengths) < 4 * len(word)


@checked()
@given(st.data())
def test_a_decoded_stream_joins_to_the_whole(data):
    """Any ids, also those that end within a character or were never one."""
    tokenizer = trained(specials=("<|é|>",))
    ids = data.draw(st.lists(st.integers(0, len(tokenizer.vocab) - 1)))
    assert "".join(tokenizer.decode_stream(ids)) == tokenizer.decode(ids)
    assert tokenizer.decode(ids) == b"".join(map(tokenizer.vocab.__getitem__, ids)).decode(errors="replace")


# learning


@checked()
@given(words=st.lists(st.text("abc", min_size=1, max_size=12), max_size=12), n=st.integers(0, 60))
def test_the_rungs_agree(words, n):
    """Runs, overlaps, ties and the end of all pairs."""
    first, *others = [rung(words, n) for rung in RUNGS]
    assert all(other == first for other in others)
    assert len(first) == n or not Counter(chain.from_iterable(map(bpe.pairs, left_over(words, first))))


def left_over(words, merges):
    """The words after the merges."""
    words = [bpe.spell(word) for word in words]
    for rank, pair in enumerate(merges):
        words = [word.replace(pair, chr(256 + rank)) for word in words]
    return words


@pytest.mark.parametrize("rung", RUNGS)
@checked(max_examples=40)
@given(words=st.lists(st.text("abc", min_size=1, max_size=8), max_size=12), seed=st.randoms())
def test_the_order_of_the_words_teaches_nothing(rung, words, seed):
    """Not even among pairs that are equally frequent."""
    shuffled = seed.sample(words, len(words))
    assert rung(shuffled, 40) == rung(words, 40)


def test_no_merge_crosses_the_border_of_two_texts():
    """Two texts are not one."""
    assert bpe.train(["ab", "ab"], 300, None).merges == merges_of(hugging_face(["ab", "ab"], 300, None))
    assert len(bpe.train("abab", 300, None).merges) == 1 + len(bpe.train(["ab", "ab"], 300, None).merges)


def in_order_of_rank(tokenizer, piece):
    """Encoding as it is defined: one merge after the other, each from left to right through the whole piece."""
    ids = [bpe.TO_ID[byte] for byte in piece.encode()]
    for rank, pair in enumerate(tokenizer.merges):
        merged, at = [], 0
        while at < len(ids):
            found = tuple(ids[at : at + 2]) == pair
            merged.append(256 + rank if found else ids[at])
            at += 1 + found
        ids = merged
    return ids


@checked(max_examples=60)
@given(st.text("ab", max_size=40) | st.text("abc", min_size=bpe.LONG - 1, max_size=200))
def test_merges_are_applied_in_order_of_rank(piece):
    """Short words by one way, long words by another, and both by the definition."""
    tokenizer = joining("abc", None)
    assert tokenizer.encode(piece) == in_order_of_rank(tokenizer, piece)
    assert list(tokenizer._encode_long(bpe.spell(piece))) == in_order_of_rank(tokenizer, piece)


def pieces_of(data, pattern):
    """The pre-tokens of some bytes."""
    return bpe.split(data.decode("utf-8", "surrogateescape"), pattern)


def untied(data, n, pattern=None):
    """How many of the first n merges of the bytes come before the first tie."""
    words = [piece.encode("utf-8", "surrogateescape").decode("latin-1") for piece in pieces_of(data, pattern)]
    for merged in range(n):
        top = Counter(chain.from_iterable(map(pairwise, words))).most_common(2)
        if len(top) < 2 or top[0][1] == top[1][1]:
            return merged
        words = [word.replace("".join(top[0][0]), chr(256 + merged)) for word in words]
    return n


def learnt(data, n, pattern=None):
    """The first n merges of some bytes, as pairs of bytes and of numbers from 256 on."""
    found = bpe.learn(pieces_of(data, pattern), n)
    return [tuple(bpe.BYTES[ord(i)] if ord(i) < 256 else ord(i) for i in pair) for pair in found]


@checked(max_examples=40)
@given(st.randoms(use_true_random=False))
def test_bytes_are_only_names(draw):
    """Other bytes in the place of these: the same merges by other names, as long as no count ties."""
    other = draw.sample(range(256), 256)
    weights = [draw.random() ** 3 for _ in range(6)]
    data = bytes(draw.choices(draw.sample(range(256), 6), weights, k=500))
    n = untied(data, 8)
    renamed = [tuple(other[i] if i < 256 else i for i in pair) for pair in learnt(data, n)]
    assert learnt(data.translate(bytes(other)), n) == renamed
    assert len(renamed) == n


def test_for_a_pattern_bytes_are_not_only_names():
    """GPT-2's knows what a space is: swap it with "b", and another pair is merged, with no tie in either text."""
    text, swap = b"ab cabcab", bytes.maketrans(b"b ", b" b")
    swapped = text.translate(swap)
    assert untied(text, 1, bpe.GPT2) == untied(swapped, 1, bpe.GPT2) == 1
    assert learnt(text, 1, bpe.GPT2) == [tuple(b"ab")]
    assert learnt(swapped, 1, bpe.GPT2) == [tuple(b"ca")] != [tuple(b"a ")]


# specials


def test_specials_are_text_until_they_are_allowed():
    """None, some or all of them; none changes a text that holds none."""
    tokenizer = trained(specials=("<|a|>", "<|b|>"))
    a, b = tokenizer.specials.values()
    text = "x<|a|>y<|b|><|a|>"
    assert tokenizer.encode(text) == trained().encode(text)
    assert [i for i in tokenizer.encode(text, "all") if i >= a] == [a, b, a]
    assert [i for i in tokenizer.encode(text, ["<|b|>"]) if i >= a] == [b]
    assert tokenizer.encode(text, "<|b|>") == tokenizer.encode(text, {"<|b|>"})
    assert all(tokenizer.decode(tokenizer.encode(text, allowed)) == text for allowed in ((), "all", "<|a|>"))
    assert tokenizer.encode(PROSE, "all") == trained().encode(PROSE)


def test_specials_follow_the_merges():
    """Their ids do not move the others, and they come in the order in which they were given."""
    tokenizer = bpe.Tokenizer(trained().merges, specials=["<|z|>", "<|a|>"])
    assert tokenizer.specials == {"<|z|>": 556, "<|a|>": 557}
    assert tokenizer.vocab[556:] == [b"<|z|>", b"<|a|>"]


# files


@pytest.mark.parametrize("pattern", [*PATTERNS.values(), None, r"\w+|\W"], ids=[*PATTERNS, "None", "own"])
def test_a_saved_tokenizer_comes_back(pattern, tmp_path):
    """Merges, pattern, specials and ids."""
    ours = trained(pattern, ("<|end|>", "<|é|>"))
    bpe_files.save(ours, tmp_path / "ours.json")
    theirs = bpe_files.load(tmp_path / "ours.json")
    assert (theirs.merges, theirs.pattern, theirs.specials) == (ours.merges, ours.pattern, ours.specials)
    assert theirs.vocab == ours.vocab
    assert theirs.encode(PROSE + "<|é|>", "all") == ours.encode(PROSE + "<|é|>", "all")


def test_the_file_for_people_has_a_line_for_each_token(tmp_path):
    """With its number and its text, and for a merge what it was made of."""
    tokenizer = trained(specials=("<|end|>",))
    bpe_files.save(tokenizer, tmp_path / "ours.json")
    lines = (tmp_path / "ours.txt").read_text(encoding="utf-8").splitlines()
    assert [line.split("\t")[0] for line in lines] == [str(i) for i in range(len(tokenizer.vocab))]
    for i, (a, b) in enumerate(tokenizer.merges, 256):
        parts = tokenizer.vocab[a], tokenizer.vocab[b]
        assert lines[i] == f"{i}\t{b''.join(parts)!r} = {parts[0]!r} + {parts[1]!r}"
    assert lines[-1].endswith("b'<|end|>'")


def altered(path, change):
    """The saved file with a change to what it holds: still JSON, as valid as before."""
    kept = json.loads(path.read_text(encoding="utf-8"))
    change(kept)
    path.write_text(json.dumps(kept), encoding="utf-8")


@pytest.mark.parametrize(
    "change",
    [
        lambda kept: kept["merges"].__setitem__(299, kept["merges"][298][::-1]),
        lambda kept: kept["merges"].reverse(),
        lambda kept: kept["merges"].pop(),
        lambda kept: kept.update(pattern=bpe.GPT4),
        lambda kept: kept["specials"].append("<|more|>"),
        lambda kept: kept.update(more=1),
        lambda kept: kept.pop("sha256"),
        lambda kept: kept.pop("pattern"),
    ],
)
def test_an_altered_file_is_refused(change, tmp_path):
    """One merge, the pattern, a special: each would give other ids, and the JSON is valid."""
    path = tmp_path / "ours.json"
    bpe_files.save(trained(), path)
    altered(path, change)
    with pytest.raises(ValueError, match=r"ours.json .*save it again"):
        bpe_files.load(path)


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.9, 0.999])
def test_a_file_cut_short_is_refused(share, tmp_path):
    """A full disk leaves no tokenizer with fewer merges."""
    path = tmp_path / "ours.json"
    bpe_files.save(trained(), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match=r"ours.json holds no tokenizer"):
        bpe_files.load(path)


@pytest.mark.parametrize("text", ["[]", "3", '"merges"', "null", "{}", '{"model": {"merges": []}}', "\xff"])
def test_a_foreign_file_is_refused(text, tmp_path):
    """Other JSON, and what is no UTF-8."""
    (tmp_path / "other.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=r"other.json holds no tokenizer of ours"):
        bpe_files.load(tmp_path / "other.json")


def test_a_missing_file_is_refused(tmp_path):
    """By its name."""
    with pytest.raises(ValueError, match=r"nowhere.json holds no tokenizer of ours"):
        bpe_files.load(tmp_path / "nowhere.json")


def test_merges_in_gpt2s_format_give_the_same_ids(tmp_path):
    """What Hugging Face writes, with its version in the first line; the one special comes behind the merges."""
    theirs = hugging_face(MIXED, 700)
    theirs.model.save(str(tmp_path))
    ours = bpe_files.load_gpt2(tmp_path / "merges.txt")
    assert ours.merges == merges_of(theirs)
    assert ours.specials == {"<|endoftext|>": 256 + len(ours.merges)}
    for text in MIXED:
        assert ours.encode(text) == theirs.encode(text).ids
    names = json.loads((tmp_path / "vocab.json").read_text(encoding="utf-8"))
    assert [names[symbol] for symbol in bpe_files.SYMBOLS] == list(range(256))


@pytest.mark.parametrize("line", ["a", "a b c", "a  b", "ab é€", "abc d", "h e", " "])
def test_a_line_that_is_no_merge_is_named(line, tmp_path):
    """One symbol, three, unknown ones, a merge that was there: with the line's number."""
    path = tmp_path / "merges.txt"
    path.write_text(f"#version: 0.2\nh e\n{line}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=rf"merges.txt, line 3: {re.escape(repr(line))}"):
        bpe_files.load_gpt2(path)


# what goes wrong


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: bpe.train("abc", 255), "vocab_size is 255: expected at least 256"),
        (lambda: bpe.train("abc", -1), "vocab_size is -1"),
        (lambda: bpe.train(["abc", None], 300), "the text is of type NoneType: expected a str"),
        (lambda: bpe.train(b"abc", 300), "the text is of type bytes: expected a str"),
        (lambda: bpe.train(None, 300), "the text is of type NoneType: expected a str"),
        (lambda: bpe.train("abc", "300"), "vocab_size is '300'"),
        (lambda: bpe.train("abc", 300.5), "vocab_size is 300.5"),
        (lambda: bpe.train("abc", 0x110001), "at most 1114112"),
        (lambda: trained().encode("a", 7), "allowed is 7"),
        (lambda: trained().decode(["a"]), "no ids: expected whole numbers"),
        (lambda: trained().decode([1.0]), "no ids: expected whole numbers"),
        (lambda: trained().decode(5), "no ids: expected whole numbers"),
        (lambda: bpe.train(["a", "b\udcff"], 300), r"character 1 is '\\udcff', half of a surrogate pair"),
        (lambda: bpe.train("a b", 300, pattern=r"\w"), "leaves out 1 characters"),
        (lambda: trained().encode("ab\ud83d"), r"character 2 is '\\ud83d', half of a surrogate pair"),
        (lambda: trained().encode(None), "the text is of type NoneType: expected a str"),
        (lambda: trained().encode(["a"]), "the text is of type list: expected a str"),
        (lambda: list(trained().encode_stream([b"a"])), "the text is of type bytes: expected a str"),
        (lambda: list(trained().encode_stream(["a", "\ud83d", "\ude42"])), "half of a surrogate pair"),
        (lambda: trained().encode("a", "<|end|>"), r"'<\|end\|>' is no special token: there are none"),
        (lambda: trained(specials=("<|a|>",)).encode("a", ["<|a|>", "<|b|>"]), r"'<\|b\|>' is no special token"),
        (lambda: list(trained().encode_stream(["a"], ["<|b|>"])), "is no special token"),
        (lambda: trained().decode([0, 556]), "556 is no id: expected 0 to 555"),
        (lambda: trained().decode([-1]), "-1 is no id"),
        (lambda: list(trained().decode_stream([0, 10**9])), "1000000000 is no id"),
        (lambda: trained().decode(trained().encode("é".encode()[:1]), errors="strict"), "utf-8"),
        (lambda: bpe.Tokenizer([(0, 256)]), r"merge 0 is \(0, 256\): expected two ids from 0 to 255"),
        (lambda: bpe.Tokenizer([(0, 1), (-1, 256)]), "merge 1 is .*expected two ids from 0 to 256"),
        (lambda: bpe.Tokenizer([(0, 1, 2)]), "expected two ids"),
        (lambda: bpe.Tokenizer([("a", "b")]), "expected two ids"),
        (lambda: bpe.Tokenizer([(0, 1), (2, 3), (0, 1)]), r"the pair \(0, 1\) stands twice"),
        (lambda: bpe.Tokenizer([], pattern="["), "is none"),
        (lambda: bpe.Tokenizer([], pattern=7), "is none"),
        (lambda: bpe.Tokenizer([], pattern="(a)"), "has groups"),
        (lambda: bpe.Tokenizer([], specials=["a", "a"]), "different texts"),
        (lambda: bpe.Tokenizer([], specials=[""]), "different texts"),
        (lambda: bpe.Tokenizer([], specials=["all"]), "different texts"),
        (lambda: bpe.Tokenizer([], specials="ab"), "different texts"),
        (lambda: bpe.Tokenizer(None), "merges are a NoneType"),
        (lambda: bpe.Tokenizer([5]), "merge 0 is 5"),
        (lambda: bpe.Tokenizer([(True, False)]), "merge 0 is"),
    ],
)
def test_bad_input_is_named(call, words):
    """The message holds the value, and what was expected."""
    with pytest.raises(ValueError, match=words):
        call()


def test_nothing_is_no_error():
    """An empty text has no ids, and no text teaches no merges."""
    assert bpe.train("", 300).merges == bpe.train([], 300).merges == []
    assert trained().encode("") == trained().encode(b"") == list(trained().encode_stream([])) == []
    assert trained().decode([]) == "".join(trained().decode_stream([])) == ""


@pytest.mark.parametrize("doublings", [0, 3])
def test_a_megabyte_of_one_letter(doublings):
    """Without its double among the merges, and with: then by halves, and what is left over in powers of two."""
    n, letter = 2**20 + 7, bpe.TO_ID[ord("a")]
    merges = [(0, 1), (letter, letter), (257, 257), (258, 258)][: 1 + doublings]
    wanted = [259] * (n // 8) + [258, 257, letter] if doublings else [letter] * n
    assert bpe.Tokenizer(merges).encode("a" * n) == wanted


class Counting(dict):
    """Ranks that count how often they are looked at."""

    looks = 0

    def __getitem__(self, pair):
        self.looks += 1
        return self.get(pair, bpe.NEVER)

    def __contains__(self, pair):
        self.looks += 1
        return super().__contains__(pair)


def test_a_megabyte_without_spaces_takes_steps_in_proportion():
    """Fewer than ten looks a letter, and Hugging Face's ids."""
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefgh", k=8)) for _ in range(2000)]
    ours, theirs = bpe.train(words, 600), hugging_face(words, 600)
    ours._ranks = Counting(ours._ranks)
    word = "".join(draw.choices("abcdefgh", k=10**6))
    assert ours.encode(word) == theirs.encode(word).ids
    assert 0 < ours._ranks.looks < 10 * len(word)


# drift


def drift_by_hand(a, b, text):
    """1 - F1 from precision and recall, token by token; and how many boundaries each has."""
    borders = []
    for tokenizer in (a, b):
        at = [0]
        for i in tokenizer.encode(text)[:-1]:
            at.append(at[-1] + len(tokenizer.vocab[i]))
        borders.append(at[1:])
    ours, theirs = borders
    hits = [border for border in ours if border in theirs]
    if not hits:
        return float(bool(ours or theirs)), borders
    precision, recall = len(hits) / len(ours), len(hits) / len(theirs)
    return 1 - 2 * precision * recall / (precision + recall), borders


@checked()
@given(st.text(max_size=40) | signs)
def test_drift_is_one_less_the_f1_of_the_boundaries(text):
    """By hand from precision and recall; the same both ways; none from oneself."""
    a, b = trained(), joining("ab1 '.s", bpe.GPT4)
    wanted, borders = drift_by_hand(a, b, text)
    assert [sorted(bpe.boundaries(tokenizer, text)) for tokenizer in (a, b)] == borders
    assert bpe.drift(a, b, text) == bpe.drift(b, a, text) == pytest.approx(wanted, abs=1e-12)
    assert bpe.drift(a, a, text) == 0


def test_a_stream_with_a_pattern_that_looks_far_ahead_is_held_whole():
    """Digits in threes from the right: how 1234567 is cut shows at its end only."""
    pattern = r" ?\p{L}+|\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))|[^\p{L}\p{N}]"
    text = "nails 12345678901 bars"
    tokenizer = bpe.train("12345678 " * 5 + text, 300, pattern)
    assert list(tokenizer.encode_stream(list(text))) == tokenizer.encode(text)


def test_ids_may_be_any_whole_numbers():
    """A tensor's elements decode as Python's own numbers do."""
    ids = trained().encode("the smith")
    assert trained().decode(torch.tensor(ids)) == "the smith"


def test_files_that_would_overwrite_each_other_or_are_missing(tmp_path):
    """A .txt for the machine is refused before anything is written; merges may be missing, or begin with a BOM."""
    with pytest.raises(ValueError, match=r"ends in \.txt"):
        bpe_files.save(trained(), tmp_path / "a.txt")
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="cannot be read"):
        bpe_files.load_gpt2(tmp_path / "merges.txt")
    (tmp_path / "merges.txt").write_bytes("#version: 0.2\na b\n".encode("utf-8-sig"))
    assert bpe_files.load_gpt2(tmp_path / "merges.txt").vocab[256] == b"ab"
    (tmp_path / "merges.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="cannot be read"):
        bpe_files.load_gpt2(tmp_path / "merges.txt")
