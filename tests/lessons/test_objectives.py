"""Lesson 13: the objectives on one body against transformers' BERT and GPT-2, and what is learnt and written by each.
(Its clinic: test_clinics.py.)"""

from functools import partial
from types import SimpleNamespace

import objective_cases as cases
import objectives
import pytest
import torch
from folded import solutions
from hypothesis import given, settings
from hypothesis import strategies as st
from objective_vocabulary import numbered, padded
from objectives_checks import EXERCISES
from small_models import FLOAT, draw
from torch import nn
from transformers import BertConfig, BertForMaskedLM, GPT2Config, GPT2LMHeadModel

from shared.clinic import examine
from shared.hf_model import load_model
from shared.layers import LearnedPositions, PostNorm
from shared.tiny_lm import TinyLM
from shared.training import evaluate

FLOAT32 = {"atol": 1e-5, "rtol": 0}  # the weights of a batch are float32
VOCABULARY = numbered(40, n_sentinels=5)
LENGTHS = torch.tensor([13, 9, 4])


def texts():
    """Three texts of 13, 9 and 4 words."""
    words = torch.randint(40, (3, 13), generator=torch.Generator().manual_seed(0))
    return padded([row[:n].tolist() for row, n in zip(words, LENGTHS, strict=True)], VOCABULARY)


class BertPositions(LearnedPositions):
    """BERT adds the vector of a segment, too, and norms the sum."""

    def __init__(self, context, d_model):
        super().__init__(context, d_model)
        self.segment, self.norm = nn.Parameter(torch.zeros(d_model)), nn.LayerNorm(d_model, eps=1e-12)

    def forward(self, x, positions=None):
        return self.norm(super().forward(x, positions) + self.segment)


def bert():
    """transformers' BERT with large random weights, and the same in the house's decoder, both float64."""
    sizes = {"vocab_size": VOCABULARY.size, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4}
    of = {
        "intermediate_size": 96,
        "max_position_embeddings": 40,
        "pad_token_id": VOCABULARY.padding,
        "hidden_dropout_prob": 0.0,
    }
    theirs = BertForMaskedLM(BertConfig(**sizes, **of, attention_probs_dropout_prob=0.0)).double()
    for seed, (name, weight) in enumerate(theirs.named_parameters()):
        if name != "cls.predictions.bias":  # the house's head has none
            weight.data = draw(*weight.shape, seed=seed) * 0.3
    norm = partial(nn.LayerNorm, eps=1e-12)
    ours = TinyLM(VOCABULARY.size, 40, 24, 2, 4, block=PostNorm, norm=norm, positions=BertPositions)
    ours.norm = nn.Sequential(nn.Linear(24, 24), nn.GELU(), norm(24))
    state, head = theirs.bert, theirs.cls.predictions.transform
    embeddings = state.embeddings
    weights = {"embedding.weight": embeddings.word_embeddings.weight}
    weights |= {"positions.table.weight": embeddings.position_embeddings.weight}
    weights |= {"positions.segment": embeddings.token_type_embeddings.weight[0]}
    parts = {"positions.norm": embeddings.LayerNorm, "norm.0": head.dense, "norm.2": head.LayerNorm}
    for i, layer in enumerate(state.encoder.layer):
        attention, block = layer.attention, f"blocks.{i}"
        qkv = [getattr(attention.self, name) for name in ("query", "key", "value")]
        for end in ("weight", "bias"):
            weights[f"{block}.attention.qkv.{end}"] = torch.cat([getattr(part, end) for part in qkv])
        parts |= {f"{block}.attention.proj": attention.output.dense, f"{block}.norm_1": attention.output.LayerNorm}
        parts |= {f"{block}.feed_forward.up": layer.intermediate.dense}
        parts |= {f"{block}.feed_forward.proj": layer.output.dense, f"{block}.norm_2": layer.output.LayerNorm}
    for name, part in parts.items():
        weights |= {f"{name}.{end}": getattr(part, end) for end in ("weight", "bias")}
    ours.double().load_state_dict(weights)
    return theirs, ours


@pytest.mark.parametrize("rate", [0.15, 0.9])
def test_masked_is_transformers_bert(rate):
    """The loss and its gradient at the embedding, of texts with padding, which they call an attention mask."""
    theirs, ours = bert()
    batch = objectives.masked(texts(), VOCABULARY, rate, torch.Generator().manual_seed(1))
    real = (texts() != VOCABULARY.padding).long()
    wanted = theirs(batch.inputs, attention_mask=real, labels=batch.targets).loss
    found = objectives.training_loss(ours, *batch)
    torch.testing.assert_close(found, wanted, **FLOAT32)
    (one,) = torch.autograd.grad(found, ours.embedding.weight)
    (other,) = torch.autograd.grad(wanted, theirs.bert.embeddings.word_embeddings.weight)
    torch.testing.assert_close(one, other, **FLOAT32)


def test_every_mask_is_one_that_bert_can_be_given():
    """Their logits with our mask, a number to add to each score, at all positions that are no padding."""
    theirs, ours = bert()
    hidden = torch.rand(3, 13, generator=torch.Generator().manual_seed(2)) < 0.4
    for batch in (
        objectives.causal(texts(), VOCABULARY),
        objectives.right_to_left(texts(), VOCABULARY),
        objectives.prefix(texts(), VOCABULARY, torch.tensor([5, 2, 1])),
        objectives.span_corruption(texts(), hidden, VOCABULARY),
    ):
        added = torch.zeros(batch.seen.shape, dtype=FLOAT).masked_fill(~batch.seen, torch.finfo(FLOAT).min)
        wanted = theirs(batch.inputs, attention_mask=added[:, None]).logits
        torch.testing.assert_close(objectives.read(ours, batch), wanted, atol=1e-9, rtol=0)


def test_causal_is_transformers_gpt2(tmp_path):
    """They shift the labels themselves. The same weights through a saved folder."""
    torch.manual_seed(0)
    sizes = {"vocab_size": VOCABULARY.size, "n_positions": 40, "n_embd": 24, "n_layer": 2, "n_head": 4}
    theirs = GPT2LMHeadModel(GPT2Config(**sizes, initializer_range=0.3, bos_token_id=0, eos_token_id=0)).eval()
    theirs.save_pretrained(tmp_path)
    theirs, ours, tokens = theirs.double(), load_model(tmp_path).double(), texts()
    real = tokens != VOCABULARY.padding
    wanted = theirs(tokens, attention_mask=real.long(), labels=tokens.masked_fill(~real, -100)).loss
    batch = objectives.causal(tokens, VOCABULARY)
    torch.testing.assert_close(objectives.training_loss(ours, *batch).float(), wanted, **FLOAT32)
    found = objectives.held_out_loss(ours, [batch])
    assert found == pytest.approx(evaluate(ours, tokens, batch.targets).nats, abs=1e-5)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), seed=st.integers(0, 999))
def test_any_texts_can_be_asked_by_any_objective(data, seed):
    """Draws by chance fit any texts: a finite loss, no target seen in the inputs of a masking objective, and as many
    targets as words where the objective asks for all."""
    rows = data.draw(st.lists(st.lists(st.integers(0, 39), min_size=2, max_size=12), min_size=1, max_size=4))
    rate, mean = data.draw(st.floats(0.01, 1)), data.draw(st.floats(0.1, 6))
    vocabulary, generator = numbered(40, n_sentinels=13), torch.Generator().manual_seed(seed)
    tokens = padded(rows, vocabulary)
    hidden = objectives.draw_spans(tokens, vocabulary, rate, mean, generator)
    cuts = objectives.draw_cuts(tokens, vocabulary, 2, generator)
    words = sum(map(len, rows))
    for batch, count in (
        (objectives.causal(tokens, vocabulary), words - len(rows)),
        (objectives.right_to_left(tokens, vocabulary), words - len(rows)),
        (objectives.hide(tokens, hidden, vocabulary), int(hidden.sum())),
        (objectives.span_corruption(tokens, hidden, vocabulary), None),
        (objectives.fill_in_the_middle(tokens, cuts, vocabulary), words + len(rows)),
        (objectives.fill_in_the_middle(tokens, cuts, vocabulary, True), words + len(rows)),
        (objectives.diffusion(tokens, vocabulary, generator), None),
    ):
        logits = draw(*batch.targets.shape, vocabulary.size, seed=seed)
        assert objectives.objective_loss(logits, batch).isfinite()
        assert count is None or int((batch.targets != -100).sum()) == count


def folded():
    """The exercises' solutions as a reader sees them."""
    return SimpleNamespace(**solutions(objectives, "objective_vis.ipynb", torch=torch))


def test_the_folded_solutions_pass():
    assert examine(folded(), EXERCISES).passes


def mean_of_means(model, batches):
    """What was shipped: each micro-batch's own mean, and their mean."""
    loss = sum(objectives.training_loss(model, *batch) for batch in batches) / len(batches)
    loss.backward()
    return loss.item()


def test_the_exercises_see_what_is_wrong():
    """A mean of means; the order taken for when each was written; a noisy block that sees its own clean one."""
    for name, wrong in (
        ("accumulate", mean_of_means),
        ("sees_in_order", lambda order: order[:, None, :] <= order[:, :, None]),
        ("sees_blocks", lambda length, size: folded().sees_blocks(length, size).roll(length, dims=1)),
    ):
        check = next(check for check in EXERCISES if check.name.startswith(name))
        assert check.test(SimpleNamespace(**{name: wrong})) is not None


def test_the_cases_by_hand_have_no_two_equal_sizes():
    sizes = [len(cases.TEXTS), *map(len, cases.TEXTS), cases.T, len(cases.WORDS), cases.VOCABULARY.size]
    assert len(set(sizes)) == len(sizes)
