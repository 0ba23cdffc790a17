"""Lesson 01's own BPE with a real model's vocabulary: against `tokenizers`, llama.cpp, and shared's tokenizer."""

import http.client
import json
import random
import unicodedata
from pathlib import Path

import bpe
import bpe_drift
import bpe_gguf
import gguf
import pytest
from bpe_files import SYMBOLS
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from shared.corpus import python_docs
from shared.gguf_files import read_gguf_tokenizer
from shared.gguf_tokenizer import read_tokenizer

CONTROLS = "\x00\x01\x02\x03\x05\x07\x08\x0e\x0f\x10\x11\x12\x15\x17\x18\x19\x1a\x1b\x1e\x1f\x7f\x80\x84\x9f"
SPACES = " \t\n\r\x0b\x0c\x1c\x85\xa0\u2003\u2028\u3000"
SIGNS = " 'sdtTlLre123²Ⅷ١५.,-_(){}=\n\té\u0301日🙂\u200d"
SCRIPTS = [0xC0, 0x370, 0x410, 0x531, 0x5D0, 0x620, 0x904, 0xE01, 0x10A0, 0x1200, 0x1E00, 0x2190, 0x2460, 0x3041]
SCRIPTS += [0x4E00, 0xAC00, 0xFB50, 0xFF01, 0x10330, 0x13000, 0x1D400, 0x1F300, 0x20000]
EMOJI = ["👩", "👍", "🏽", "\u200d", "💻", "👧", "\ufe0f", "❤", "🇩", "🇪", "🙂", " ", "a"]
characters = st.characters(exclude_categories=["Cs", "Cn"], exclude_characters="\x04\x06\x13\x14\x16\x1d")


def script(rng, first):
    """Words of 60 characters from one point of Unicode on, without those that are not assigned."""
    drawn = (chr(first + rng.randrange(60)) for _ in range(60))
    return "".join(c + " " * (rng.random() < 0.2) for c in drawn if unicodedata.category(c) != "Cn")


def texts():
    """200 texts of eight kinds, in half of them one special or more: not picked, but drawn with a seed."""
    rng = random.Random(1)
    docs, code = python_docs(), Path(bpe.__file__).read_text(encoding="utf-8")
    kinds = [
        lambda: docs[(at := rng.randrange(len(docs))) : at + rng.randrange(500)],
        lambda: code[(at := rng.randrange(len(code))) : at + rng.randrange(500)],
        lambda: "".join(rng.choices("0123456789 .,-+e%\n", k=60)),
        lambda: script(rng, rng.choice(SCRIPTS)),
        lambda: "".join(rng.choices(EMOJI, k=30)),
        lambda: "".join(rng.choice(SPACES) * rng.randrange(9) + rng.choice("ab1.'s") for _ in range(20)),
        lambda: "".join(rng.choices(CONTROLS + "a 1", k=40)),
        lambda: "".join(rng.choices("abcdenstéß", k=600)),
    ]
    for i in range(200):
        parts = [kinds[i % 8](), *(kinds[i % 8]() for _ in range(i // 8 % 2 * 2))]
        yield rng.choice(["<|im_start|>", "<|endoftext|>", "<empty_output>", "<repo_name><reponame>"]).join(parts)


@pytest.fixture(scope="module")
def ours(smollm2_path):
    return bpe_gguf.load_gguf(smollm2_path)


def pipeline(fields):
    """Hugging Face's tokenizer of a file's fields, with the specials: what ours is not told of."""
    tokens = fields["ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in fields["ggml.merges"]]
    theirs = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    digits, gpt2 = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
    theirs.pre_tokenizer = pre_tokenizers.Sequence([digits, gpt2])
    kinds = zip(tokens, fields["ggml.token_type"], strict=True)
    theirs.add_special_tokens([token for token, kind in kinds if kind == gguf.TokenType.CONTROL])
    theirs.encode_special_tokens = True  # a special in a text is text
    return theirs


@pytest.fixture(scope="module")
def llama_cpp(smollm2_path):
    """llama.cpp's own tokenizer of the same file, by its server: text, specials allowed -> ids."""
    xllamacpp = pytest.importorskip("xllamacpp")
    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx, params.warmup, params.fit_params, params.verbosity = (
        str(smollm2_path),
        64,
        False,
        False,
        -1,
    )
    params.port = 0  # any that is free
    server = xllamacpp.Server(params)
    connection = http.client.HTTPConnection(server.listening_address.removeprefix("http://"))

    def ids(text, allowed=False):
        body = json.dumps({"content": text, "parse_special": allowed, "add_special": False})
        connection.request("POST", "/tokenize", body, {"Content-Type": "application/json"})
        return json.load(connection.getresponse())["tokens"]

    yield ids
    connection.close()
    del server


def test_ids_of_200_texts_are_those_of_tokenizers_and_of_shared(ours, smollm2_path):
    """With specials as text, and as tokens."""
    theirs, shared = pipeline(read_gguf_tokenizer(smollm2_path)), read_tokenizer(smollm2_path)
    assert ours.specials == shared.specials and ours.vocab == shared.vocab
    for allowed in ((), "all"):
        theirs.encode_special_tokens = not allowed
        for text in texts():
            ids = ours.encode(text, allowed)
            assert ids == shared.encode(text, allowed) == theirs.encode(text).ids
            assert ours.decode(ids) == text


def test_ids_of_200_texts_are_llama_cpps(ours, llama_cpp):
    """It reads the file itself, and cuts texts by code of its own."""
    for text in texts():
        assert ours.encode(text) == llama_cpp(text)
        assert ours.encode(text, "all") == llama_cpp(text, True)


@settings(deadline=None, max_examples=150)
@given(text=st.text(characters, max_size=60) | st.text(SIGNS, max_size=40))
def test_one_pattern_cuts_as_the_two_steps_do(text):
    """The pre-tokens, of any text."""
    theirs = pipeline({"ggml.tokens": [], "ggml.merges": [], "ggml.token_type": []}).pre_tokenizer
    assert bpe.split(text, bpe_gguf.SMOLLM) == [text[a:b] for _, (a, b) in theirs.pre_tokenize_str(text)]


@settings(deadline=None, max_examples=100)
@given(text=st.text(characters, max_size=60) | st.text(SIGNS, max_size=40))
def test_what_is_encoded_comes_back(ours, text):
    ids = ours.encode(text)
    assert ours.decode(ids) == text and ours.encode(text.encode()) == ids


def test_the_21_bytes_without_a_token_are_refused(ours):
    """Which `tokenizers` leaves out without a word. Six of them are characters, two begin rare ones."""
    missing = set(range(256)) - {token[0] for token in ours.vocab if len(token) == 1}
    assert len(missing) == 21
    for byte in missing:
        with pytest.raises(ValueError, match=f"byte 0x{byte:02x} of the text has no token"):
            ours.encode(b"a" + bytes([byte]))
    with pytest.raises(ValueError, match="byte 0x04"):
        ours.encode("a\x04b\x06")


def write(path, tokens, types, merges):
    """A small file of the same kind."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def test_a_file_in_any_order_of_tokens(tmp_path):
    """300 merges, two specials and all bytes, shuffled: our ids become the file's, and decode by them."""
    trained = bpe.train(python_docs()[:30_000], 556, bpe_gguf.SMOLLM, ["<|a|>", "<|é|>"])
    symbols = list(SYMBOLS)
    for a, b in trained.merges:
        symbols.append(symbols[a] + symbols[b])
    symbols += trained.specials
    order = random.Random(0).sample(range(558), 558)
    types = [3 if i >= 556 else 1 for i in order]
    write(
        tmp_path / "m.gguf",
        [symbols[i] for i in order],
        types,
        [f"{symbols[a]} {symbols[b]}" for a, b in trained.merges],
    )
    found, text = bpe_gguf.load_gguf(tmp_path / "m.gguf"), python_docs()[:2000] + "<|é|>\x04"
    assert found.vocab == [trained.vocab[i] for i in order]
    for allowed in ((), "all", ["<|é|>"]):
        assert [order[i] for i in found.encode(text, allowed)] == trained.encode(text, allowed)
    assert found.decode(found.encode(text)) == text
    assert bpe_drift.boundaries(found, text) == bpe_drift.boundaries(trained, text)
    with pytest.raises(ValueError, match="558 is no id: expected 0 to 557"):
        found.decode([558])


def test_an_order_that_is_none_is_refused():
    """An id twice; a merge that would have no id."""
    tokenizer = bpe.train("abab", 257)
    for order in ([*range(257), 0], range(256)):
        with pytest.raises(ValueError, match="expected each once"):
            bpe_gguf.Renumbered(tokenizer, order)
    assert len(bpe_gguf.Renumbered(tokenizer, [256]).vocab) == 1
