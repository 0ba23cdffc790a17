"""checkpoint.py: loading what was written and nothing else, telling by the model's distribution, measures."""

import hashlib
import json
import math
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save
from torch import nn

from shared.story_model import checkpoint, load_story_lm, measure, new_story_lm, tell, vocabulary_sha256
from shared.tiny_lm import TinyLM
from shared.world.judge import judge
from shared.world.rows import held_out_rows, true_distributions
from shared.world.words import END, ID, VOCABULARY
from shared.world.writing import BASE, HELD_OUT, stories

SIZES = {"context": 12, "d_model": 8, "n_layers": 2, "n_heads": 2}


def make() -> TinyLM:
    torch.manual_seed(0)
    return new_story_lm(**SIZES)


STATE = make().state_dict()


def keep(weights: Path, content: bytes, **changes) -> Path:
    """Write weights and a record that fits them but for the changes."""
    fitting = {"model": SIZES, "vocabulary": vocabulary_sha256(), "sha256": hashlib.sha256(content).hexdigest()}
    weights.write_bytes(content)
    weights.with_suffix(".json").write_text(json.dumps(fitting | changes), encoding="utf-8")
    return weights


@pytest.fixture
def weights(tmp_path) -> Path:
    """A small model's files."""
    return keep(tmp_path / "model.safetensors", save(STATE))


def refused(weights: Path) -> str:
    """What the ValueError says."""
    with pytest.raises(ValueError) as error:
        load_story_lm(weights)
    return str(error.value)


class Table(nn.Module):
    """A language model that looks at the last word only: each word's followers are alike likely."""

    context = 12

    def __init__(self, followers: dict[str, str]):
        super().__init__()
        logits = torch.full((len(VOCABULARY), len(VOCABULARY)), -math.inf)
        for word, after in followers.items():
            logits[ID[word], [ID[each] for each in after.split(" ")]] = 0.0
        self.logits = nn.Parameter(logits)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        assert tokens.shape[1] <= self.context
        return self.logits[tokens]


# ---- loading


@pytest.mark.parametrize("stored", [torch.float32, torch.float16])
def test_loaded_model_is_the_one_saved(weights, stored):
    """Weights bit for bit, in float32, ready to use or to train on; torch's own generator stays where it was."""
    saved = {name: tensor.to(stored) for name, tensor in STATE.items()}
    keep(weights, save(saved))
    before = torch.get_rng_state()
    model = load_story_lm(weights)
    assert torch.equal(torch.get_rng_state(), before)
    assert model.state_dict().keys() == saved.keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, saved[name].float()) and tensor.dtype == torch.float32, name
    assert not any(module.training for module in model.modules())
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("suffix", [".json", ".safetensors"])
def test_a_missing_file_is_named(weights, suffix):
    path = weights.with_suffix(suffix)
    path.unlink()
    assert refused(weights).startswith(f"no file at {path}: `make checkpoint`")


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe{}", b"[1]", b'"model sha256"', b"null", b'{"model": {}, "sha256": "0"}'],
)
def test_what_is_no_record_is_named(weights, content):
    """Empty, not UTF-8, JSON of another kind, or an entry too few."""
    path = weights.with_suffix(".json")
    path.write_bytes(content)
    assert refused(weights).startswith(f"{path} is no record of a story model (")


@pytest.mark.parametrize("damage", ["flip", "cut", "add", "empty"])
def test_damaged_weights_are_named(weights, damage):
    """One bit of the last number, a byte less or more, or none at all: the message has the file and both hashes."""
    content = weights.read_bytes()
    damaged = {
        "flip": content[:-1] + bytes([content[-1] ^ 1]),
        "cut": content[:-1],
        "add": content + b"\0",
        "empty": b"",
    }[damage]
    weights.write_bytes(damaged)
    said = refused(weights)
    assert all(part in said for part in (str(weights), *(hashlib.sha256(c).hexdigest() for c in (content, damaged))))


@pytest.mark.parametrize("content", [b"", b"\x80\x04N.", save(STATE)[:-4]])
def test_right_hash_of_something_else_is_named(weights, content):
    """Also a pickle, and a file that was cut off before it was hashed."""
    assert refused(keep(weights, content)).startswith(f"{weights} is not a safetensors file: ")


@pytest.mark.parametrize(
    ("tensors", "changes", "named"),
    [
        ({"norm.bias": None}, {}, "does not fit the model of its record: .*norm.bias"),
        ({"extra": torch.zeros(1)}, {}, "does not fit .*extra"),
        ({"norm.bias": torch.zeros(9)}, {}, "does not fit .*norm.bias"),
        ({}, {"model": SIZES | {"n_layers": 3}}, r"does not fit .*blocks\.2\."),
        ({}, {"model": SIZES | {"n_heads": 3}}, "does not fit .*3 heads"),
        ({}, {"model": {"context": 12}}, "does not fit .*d_model"),
        ({}, {"model": [1, 2]}, "does not fit .*mapping"),
        ({}, {"vocabulary": "0123456789"}, f"another vocabulary .01234567, here {vocabulary_sha256()[:8]}."),
        ({}, {"vocabulary": 7}, "another vocabulary"),
    ],
)
def test_weights_and_record_that_do_not_fit_are_named(weights, tensors, changes, named):
    """A tensor missing, too many or of another shape; a model of other sizes or none; other words."""
    state = {name: tensor for name, tensor in (STATE | tensors).items() if tensor is not None}
    assert re.match(f"{re.escape(str(weights))} .*{named}", refused(keep(weights, save(state), **changes)), re.DOTALL)


def test_hash_of_the_vocabulary_knows_order_and_borders(monkeypatch):
    """Two words swapped, a letter moved to the next word, a word more: each time another hash."""
    hashes = set()
    for words in (["ab", "c", "d"], ["c", "ab", "d"], ["a", "bc", "d"], ["ab", "c", "d", ""], ["abc", "d"]):
        monkeypatch.setattr(checkpoint, "VOCABULARY", words)
        hashes.add(vocabulary_sha256())
    assert len(hashes) == 5


# ---- telling


def test_a_document_does_not_know_how_many_others_there_are(monkeypatch):
    """The first of seven are those of three and of one, also where three at once are the most; no document of another
    seed is among them. In float64, where another batch moves a probability by 1e-15."""
    model = make().double()
    seven = tell(model, "Once", 7, seed=3)
    monkeypatch.setattr(checkpoint, "AT_ONCE", 3)
    torch.manual_seed(99)  # torch's own generator has no part in it
    assert tell(model, "Once", 7, seed=3) == seven
    assert [tell(model, "Once", n, seed=3) for n in (3, 1)] == [seven[:3], seven[:1]]
    assert len({*seven, *tell(model, "Once", 7, seed=4)}) == 14


def test_a_text_is_drawn_and_stops_at_its_first_lines_end():
    """Half the texts end after two words, half after four: none goes on, is lost or comes twice; an empty prompt is a
    line's beginning."""
    model = Table({"Once": "Tom Ann", "Tom": END, "Ann": "the", "the": ".", ".": END, END: "Once"})
    texts = tell(model, "Once", 400, seed=0)
    short = texts.count(f"Once Tom{END}")
    assert short + texts.count(f"Once Ann the.{END}") == 400
    assert abs(short - 200) < 5 * 10  # the deviation of 400 coins is 10
    assert all(text.startswith("Once ") for text in tell(model, "", 3, seed=0))


@pytest.mark.parametrize("longest", [3, 12, None])
def test_longest_counts_every_token_and_the_lines_end_before_it(longest):
    """A model that never ends: the context's length if None. A text that ends just there is whole."""
    model = Table({"Once": "Tom", "Tom": "Tom"})
    texts = tell(model, "Once", 2, seed=0, longest=longest)
    assert texts == ["Once" + " Tom" * ((longest or 12) - 2)] * 2
    ends = Table({"Once": "Tom", "Tom": END})
    assert tell(ends, "Once", 1, seed=0, longest=4) == [f"Once Tom{END}"]
    assert tell(ends, "Once", 1, seed=0, longest=3) == ["Once Tom"]


def test_rules_are_used():
    only_tom = lambda logits, said: torch.full_like(logits, -math.inf).index_fill(1, torch.tensor([ID["Tom"]]), 0.0)  # noqa: E731
    assert tell(make(), "Once", 2, seed=0, longest=4, rules=[only_tom]) == ["Once Tom Tom"] * 2


@pytest.mark.parametrize(
    ("prompt", "longest", "said"),
    [
        ("Tom " * 11, None, "the prompt has 12 tokens, with the line's end before it: expected under 12"),
        ("Tom Tom", 2, "the prompt has 3 tokens, with the line's end before it: expected under 2"),
        ("Once", 13, "longest is 13: the model's context is 12"),
        ("Oncee Tom", None, "'Oncee' is no word of the story world; the nearest are Once"),
    ],
)
def test_a_prompt_that_cannot_be_told_on_is_refused(prompt, longest, said):
    with pytest.raises(ValueError, match=said):
        tell(make(), prompt, 1, seed=0, longest=longest)


# ---- measuring


def test_measure_is_loss_floor_and_their_distance_on_held_out_rows():
    """Again from the true distributions, row by row. Logits are float32 and below 1: 1e-5 is a hundred roundings."""
    model = make().train()
    found = measure(model, n_rows=20, n_stories=3)
    x, y, _ = held_out_rows(20, 12, HELD_OUT, BASE)
    loss, floor, excess = torch.zeros(3, 20, dtype=torch.float64)
    with torch.no_grad():
        for i in range(20):
            true, log_q = true_distributions(x[i], BASE), model(x[i : i + 1])[0].double().log_softmax(-1)
            loss[i] = -log_q.gather(1, y[i][:, None]).mean()
            floor[i] = -true.gather(1, y[i][:, None]).log().mean()
            excess[i] = (
                sum((p[p > 0] * (p[p > 0].log() - q[p > 0])).sum() for p, q in zip(true, log_q, strict=True)) / 12
            )
    assert found["loss"] == pytest.approx(loss.mean().item(), abs=1e-5)
    assert found["floor"] == pytest.approx(floor.mean().item(), abs=1e-10)
    assert found["excess"] == pytest.approx(excess.mean().item(), abs=1e-5)
    spread = math.sqrt(((excess - excess.mean()) ** 2).sum().item() / 19 / 20)
    assert found["excess_error"] == pytest.approx(spread, rel=1e-4)
    assert (found["rows"], found["stories"]) == (20, 3)


def test_measure_judges_what_the_model_tells(monkeypatch):
    """Shares of finished sentences, and of whole documents: a story of the world, one with a fault, one broken off."""
    right = next(story.text for story in stories(9, HELD_OUT, BASE) if story.text.startswith("Once"))
    wrong, broken_off = right.replace(".", " is is is.", 1), " ".join(right.split(" ")[:5])
    monkeypatch.setattr(checkpoint, "tell", lambda model, prompt, n, seed: [right, wrong, broken_off])
    found = measure(make(), n_rows=2, n_stories=3)
    sentences = [s for text in (right, wrong) for s in judge(text, BASE).sentences]
    assert not judge(broken_off, BASE).sentences[0].finished
    assert 0 < sum(s.consistent for s in sentences) < len(sentences)
    assert found["consistent"] == sum(s.consistent for s in sentences) / len(sentences)
    assert found["grammatical"] == sum(s.grammatical for s in sentences) / len(sentences)
    assert found["flawless"] == 1 / 3
    monkeypatch.setattr(checkpoint, "tell", lambda model, prompt, n, seed: [broken_off] * n)
    found = measure(make(), n_rows=2, n_stories=3)
    assert [found[name] for name in ("consistent", "grammatical", "flawless")] == [0, 0, 0]  # not 0 / 0
