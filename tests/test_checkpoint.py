"""shared/checkpoint.py: loading what was written and nothing else, telling by the model's distribution, measures."""

import hashlib
import json
import math
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import save
from torch import nn

from shared import checkpoint
from shared.checkpoint import load_story_lm, measure, new_story_lm, record, tell, vocabulary_sha256
from shared.rotary import RotaryAttention
from shared.tiny_lm import TinyLM
from shared.world.judge import judge
from shared.world.rows import held_out_rows, true_distributions
from shared.world.words import END, ID, VOCABULARY, encode
from shared.world.writing import BASE, HELD_OUT, stories

SIZES = {"context": 12, "d_model": 8, "n_layers": 2, "n_heads": 2}


def make(seed: int = 0) -> TinyLM:
    torch.manual_seed(seed)
    return new_story_lm(**SIZES)


def keep(weights: Path, content: bytes, **changes) -> Path:
    """Write weights and a record that fits them but for the changes; None takes an entry away."""
    fitting = {"model": SIZES, "vocabulary": vocabulary_sha256(), "sha256": hashlib.sha256(content).hexdigest()}
    found = {name: value for name, value in (fitting | changes).items() if value is not None}
    weights.write_bytes(content)
    weights.with_suffix(".json").write_text(json.dumps(found), encoding="utf-8")
    return weights


@pytest.fixture
def weights(tmp_path) -> Path:
    """A small model's files."""
    return keep(tmp_path / "model.safetensors", save(make().state_dict()))


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


def test_new_model_is_rotary_and_has_the_worlds_vocabulary():
    """The sizes asked for, rotary attention in every block, and no table of positions."""
    model = make()
    assert model(torch.tensor([encode("Once Tom")])).shape == (1, 2, len(VOCABULARY))
    assert (model.context, len(model.blocks), model.embedding.weight.shape[1]) == (12, 2, 8)
    assert [(type(block.attention), block.attention.n_heads) for block in model.blocks] == [(RotaryAttention, 2)] * 2
    assert list(model.positions.parameters()) == []


def test_loaded_model_is_the_one_saved(weights):
    """Weights bit for bit; logits to a few float32 roundings, since sums may go another way in another place."""
    saved, loaded = make(), load_story_lm(weights)
    assert saved.state_dict().keys() == loaded.state_dict().keys()
    for name, tensor in saved.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name]), name
    tokens = torch.randint(len(VOCABULARY), (3, 12), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(loaded(tokens), saved(tokens), rtol=1e-5, atol=1e-6)
    assert not torch.allclose(loaded(tokens), make(seed=1)(tokens), atol=1e-3)


def test_loaded_model_is_in_eval_mode_on_the_cpu_in_float32(weights):
    model = load_story_lm(weights)
    assert not any(module.training for module in model.modules())
    assert {(p.device.type, p.dtype) for p in model.parameters()} == {("cpu", torch.float32)}


def test_loaded_model_can_be_trained_on(weights):
    """Every parameter is moved by a step, with no word of warning, and the file stays what it was."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = load_story_lm(weights)
        assert all(p.requires_grad and p.is_leaf for p in model.parameters())
        model(torch.randint(len(VOCABULARY), (2, 12))).logsumexp(-1).sum().backward()
        torch.optim.SGD(model.parameters(), lr=0.1).step()
    for (name, before), after in zip(make().named_parameters(), model.parameters(), strict=True):
        assert not torch.equal(before, after), name
    assert torch.equal(load_story_lm(weights).embedding.weight, make().embedding.weight)


def test_loading_draws_no_random_numbers(weights):
    """Where torch's own generator stands is left to the caller."""
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    load_story_lm(weights)
    assert torch.equal(torch.rand(3), expected)


def test_record_is_what_the_file_says(weights):
    """All of it, with what the loader does not need too."""
    keep(weights, weights.read_bytes(), excess=0.125, note="ä")
    found = record(weights)
    assert found["model"] == SIZES
    assert (found["excess"], found["note"]) == (0.125, "ä")


@pytest.mark.parametrize("load", [record, load_story_lm])
def test_missing_record_is_named(weights, load):
    path = weights.with_suffix(".json")
    path.unlink()
    with pytest.raises(ValueError) as error:
        load(weights)
    assert str(error.value).startswith(f"no file at {path}: `make checkpoint`")


def test_missing_weights_are_named(weights):
    weights.unlink()
    assert refused(weights).startswith(f"no file at {weights}: `make checkpoint`")
    assert record(weights)["model"] == SIZES  # which stands there without them


@pytest.mark.parametrize("load", [record, load_story_lm])
@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe{}", b"[1]", b'"model sha256"', b"null", b"3", b'{"model": {}}', b'{"sha256": "0"}'],
)
def test_what_is_no_record_is_named(weights, load, content):
    """Empty, cut off, not UTF-8, JSON of another kind, or an entry too few."""
    path = weights.with_suffix(".json")
    path.write_bytes(content)
    with pytest.raises(ValueError) as error:
        load(weights)
    assert str(error.value).startswith(f"{path} is no record of a story model (")


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
    assert str(weights) in said
    assert hashlib.sha256(content).hexdigest() in said
    assert hashlib.sha256(damaged).hexdigest() in said


@pytest.mark.parametrize("content", [b"", b"no tensors", b"\x80\x04N.", save(make().state_dict())[:-4]])
def test_right_hash_of_something_else_is_named(weights, content):
    """Also a pickle, and a file that was cut off before it was hashed."""
    assert refused(keep(weights, content)).startswith(f"{weights} is not a safetensors file: ")


def test_another_vocabulary_is_named(weights, monkeypatch):
    """In the record, and when it is ours that has changed since."""
    keep(weights, weights.read_bytes(), vocabulary="0123456789abcdef")
    here = vocabulary_sha256()[:8]
    assert refused(weights) == f"{weights} was trained on another vocabulary (01234567, here {here})"
    keep(weights, weights.read_bytes())
    load_story_lm(weights)
    monkeypatch.setattr(checkpoint, "VOCABULARY", VOCABULARY[::-1])
    assert f"{weights} was trained on another vocabulary ({here}, here " in refused(weights)


def test_hash_of_the_vocabulary_knows_order_and_borders(monkeypatch):
    """Two words swapped, a letter moved to the next word, a word more: each time another hash."""
    hashes = set()
    for words in (["ab", "c", "d"], ["c", "ab", "d"], ["a", "bc", "d"], ["ab", "c", "d", ""], ["abc", "d"]):
        monkeypatch.setattr(checkpoint, "VOCABULARY", words)
        hashes.add(vocabulary_sha256())
    assert len(hashes) == 5


def test_tensors_that_do_not_fit_are_named(weights):
    """One missing, one too many, one of another shape, and a model of other sizes: the file and the tensor."""
    state = make().state_dict()
    without = {name: tensor for name, tensor in state.items() if name != "norm.bias"}
    for changed, name in [
        (without, "norm.bias"),
        (state | {"extra": torch.zeros(1)}, "extra"),
        (state | {"norm.bias": torch.zeros(9)}, "norm.bias"),
    ]:
        said = refused(keep(weights, save(changed)))
        assert said.startswith(f"{weights} does not fit the model of its record: ")
        assert name in said
    said = refused(keep(weights, save(state), model=SIZES | {"n_layers": 3}))
    assert said.startswith(f"{weights} does not fit the model of its record: ")
    assert "blocks.2." in said


def test_default_weights_are_the_repositorys():
    """Beside the module, wherever the program was started."""
    assert checkpoint.WEIGHTS.is_absolute()
    assert checkpoint.WEIGHTS.parent == Path(checkpoint.__file__).parent / "checkpoints"


def test_telling_follows_its_seed_alone():
    """The same texts for a seed, others for another, whatever torch's own generator does, which stays as it is."""
    model = make()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = tell(model, "Once", 5, seed=0)
    assert torch.equal(torch.rand(3), expected)
    assert tell(model, "Once", 5, seed=0) == first
    assert tell(model, "Once", 5, seed=1) != first


@pytest.mark.parametrize("prompt", ["", "Once", "Once Tom Hill,", "12 + 3"])
@pytest.mark.parametrize("n", [1, 7])
def test_each_text_begins_with_the_prompt(prompt, n):
    texts = tell(make(), prompt, n, seed=0)
    assert len(texts) == n
    words = encode(prompt)
    assert all(encode(text)[: len(words)] == words for text in texts)
    assert len(set(texts)) == n  # a model that knows nothing has a thousand words to choose from


def test_a_text_stops_at_its_first_lines_end():
    """Half the texts end after two words, half after four: none goes on, is lost or comes twice."""
    model = Table({"Once": "Tom Ann", "Tom": END, "Ann": "the", "the": ".", ".": END, END: "Once"})
    texts = tell(model, "Once", 400, seed=0)
    short = texts.count(f"Once Tom{END}")
    assert short + texts.count(f"Once Ann the.{END}") == 400
    assert abs(short - 200) < 5 * 10  # the deviation of 400 coins is 10
    assert tell(model, "", 3, seed=0) != tell(Table({END: END}), "", 3, seed=0) == [END] * 3


@pytest.mark.parametrize("longest", [3, 4, 7, 12, None])
def test_longest_counts_every_token_and_the_lines_end_before_it(longest):
    """A model that never ends: the context's length if None. A text that ends just there is whole."""
    model = Table({"Once": "Tom", "Tom": "Tom"})
    texts = tell(model, "Once", 2, seed=0, longest=longest)
    assert texts == ["Once" + " Tom" * ((longest or 12) - 2)] * 2
    ends = Table({"Once": "Tom", "Tom": END})
    assert tell(ends, "Once", 1, seed=0, longest=4) == [f"Once Tom{END}"]
    assert tell(ends, "Once", 1, seed=0, longest=3) == ["Once Tom"]


@pytest.mark.parametrize(("words", "longest", "limit"), [(11, None, 12), (30, None, 12), (3, 4, 4), (3, 2, 2)])
def test_prompt_that_leaves_no_room_is_named(words, longest, limit):
    """With the line's end before it, a prompt must stay under the limit; one word less is told on."""
    model = make()
    with pytest.raises(ValueError) as error:
        tell(model, " ".join(["Tom"] * words), 1, seed=0, longest=longest)
    said = f"the prompt has {words + 1} tokens, with the line's end before it: expected under {limit}"
    assert str(error.value) == said
    assert len(encode(tell(model, " ".join(["Tom"] * (limit - 2)), 1, seed=0, longest=longest)[0])) == limit - 1


def test_unknown_words_are_named():
    with pytest.raises(ValueError, match="'Oncee' is no word of the story world; the nearest are Once"):
        tell(make(), "Oncee Tom", 1, seed=0)


def test_telling_keeps_no_gradient_and_leaves_the_model_as_it_is():
    model = make()
    seen = []
    model.register_forward_hook(lambda module, args, out: seen.append(out.requires_grad))
    tell(model, "Once", 2, seed=0)
    assert seen and not any(seen)
    assert model.training
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), make().parameters(), strict=True))


def test_telling_draws_from_the_models_own_distribution():
    """20 000 draws of one word against the model's softmax, by chi-square, over all words expected ten times or more.

    The others together are one cell. Chi-square of k cells has mean k - 1 and variance 2 (k - 1): five deviations
    above. A softmax at another temperature, or after another word, is far outside.
    """
    model, draws = make(), 20_000
    model.embedding.weight.data *= 50  # logits with a deviation near 3 instead of near 0.06
    counts = torch.zeros(len(VOCABULARY))
    for seed in range(4):
        texts = tell(model, "Once", draws // 4, seed, longest=3)
        counts += torch.bincount(torch.tensor([encode(text)[1] for text in texts]), minlength=len(VOCABULARY))
    with torch.no_grad():
        logits = model(torch.tensor([[ID[END], ID["Once"]]]))[0]

    def excess(logits: torch.Tensor) -> float:
        """Deviations above what chance gives."""
        expected = draws * logits.softmax(-1)
        often = expected >= 10
        cells = torch.cat([expected[often], expected[~often].sum()[None]])
        seen = torch.cat([counts[often], counts[~often].sum()[None]])
        freedom = len(cells) - 1
        assert freedom > 20
        return (((seen - cells) ** 2 / cells).sum().item() - freedom) / math.sqrt(2 * freedom)

    assert excess(logits[1]) < 5
    assert excess(logits[1] / 1.1) > 20
    assert excess(logits[0]) > 20


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


def test_more_room_than_the_context_is_refused():
    with pytest.raises(ValueError, match="longest is 13: the model's context is 12"):
        tell(make(), "Once", 1, seed=0, longest=13)


def test_texts_come_in_the_order_of_their_rows():
    """Those that end early are not moved to the front: 200 coins in a row are not sorted."""
    model = Table({"Once": "Tom Ann", "Tom": END, "Ann": "the", "the": ".", ".": END})
    lengths = [len(text) for text in tell(model, "Once", 200, seed=0)]
    assert lengths not in (sorted(lengths), sorted(lengths, reverse=True))


@pytest.mark.parametrize(
    "changes",
    [
        {"model": SIZES | {"n_heads": 3}},
        {"model": SIZES | {"n_heads": SIZES["d_model"]}},
        {"model": {"context": 12}},
        {"model": [1, 2]},
        {"vocabulary": 7},
    ],
)
def test_a_record_that_makes_no_model_is_refused_with_the_files_name(weights, changes):
    said = refused(keep(weights, save(make().state_dict()), **changes))
    assert said.startswith(str(weights))


def test_a_record_without_a_vocabulary_is_none(weights):
    keep(weights, save(make().state_dict()), vocabulary=None)
    assert "is no record of a story model" in refused(weights)


def test_half_precision_weights_are_loaded_as_float32(weights):
    keep(weights, save({name: tensor.half() for name, tensor in make().state_dict().items()}))
    assert {p.dtype for p in load_story_lm(weights).parameters()} == {torch.float32}
