"""Lesson 05: the decoder against transformers and autograd, models of others in its parts, the sweep's arms.
(Its clinic: test_clinics.py.)"""

from types import SimpleNamespace

import block
import depth_sweep
import pytest
import torch
from block_checks import EXERCISES
from block_hf import continue_text, load_hf
from folded import solutions
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

from shared.clinic import examine
from shared.rotary import RotaryAttention, no_positions
from shared.tiny_lm import TinyLM

GPT2 = {"vocab_size": 50, "n_positions": 32, "n_embd": 24, "n_layer": 2, "n_head": 4, "bos_token_id": 1}
LLAMA = {"vocab_size": 50, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "bos_token_id": 1}
LLAMA |= {"num_attention_heads": 6, "num_key_value_heads": 2, "max_position_embeddings": 32, "eos_token_id": 2}


def saved(folder, kind, **changes):
    """A model of transformers with random weights, saved to the folder."""
    torch.manual_seed(0)
    if kind == "gpt2":
        model = GPT2LMHeadModel(GPT2Config(**GPT2 | {"eos_token_id": 1} | changes))
    elif kind == "llama":
        model = LlamaForCausalLM(LlamaConfig(**LLAMA | changes))
    else:
        model = MistralForCausalLM(MistralConfig(**LLAMA | changes))
    for weight in model.parameters():
        weight.data.normal_(std=0.3)
    model.eval().save_pretrained(folder)
    return model


def tokens(n=3, time=20, below=50):
    """Random words."""
    return torch.randint(below, (n, time), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("gpt2", {}),
        ("gpt2", {"layer_norm_epsilon": 0.1, "activation_function": "gelu", "tie_word_embeddings": False}),
        ("llama", {"num_key_value_heads": 1, "tie_word_embeddings": True}),
        ("llama", {"attention_bias": True, "mlp_bias": True}),
        ("llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 100.0}, "rms_norm_eps": 0.1}),
        ("mistral", {"sliding_window": None}),
    ],
)
def test_it_is_gpt2_and_llama(tmp_path, kind, changes):
    """Logits of size 1 to 10, in float32 and in another order of sums: equal to 1e-4. (Reading: test_hf.py.)"""
    theirs = saved(tmp_path, kind, **changes)
    ours = load_hf(tmp_path)
    assert not ours.training
    with torch.no_grad():
        torch.testing.assert_close(ours(tokens()), theirs(tokens()).logits, atol=1e-4, rtol=0)
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("gpt2", {"n_inner": 40}, "40 wide"),
        ("llama", {"head_dim": 6}, "6 heads 6 wide in a model 24 wide"),
        ("mistral", {"sliding_window": 3}, "a window of 3 tokens: `block.Attention` sees the whole text"),
    ],
)
def test_what_the_parts_do_not_have_is_refused(tmp_path, kind, changes, message):
    saved(tmp_path, kind, **changes)
    with pytest.raises(ValueError, match=message):
        load_hf(tmp_path)


def test_it_writes_what_transformers_writes(tmp_path):
    """Twelve likeliest tokens; and in words, what is missing."""
    theirs = saved(tmp_path, "gpt2")
    with pytest.raises(ValueError, match=r"tokenizer\.json"):
        continue_text(tmp_path, "w1 w2")
    tokenizer = Tokenizer(WordLevel({f"w{i}": i for i in range(50)}, unk_token="w0"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    prompt = torch.tensor([[1, 2]])
    greedy = {"max_new_tokens": 12, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    ids = theirs.generate(prompt, attention_mask=torch.ones_like(prompt), **greedy)
    assert continue_text(tmp_path, "w1 w2", 12) == " ".join(f"w{i}" for i in ids[0].tolist())
    for text, message in (("", "is empty|no tokens"), ("w1 " * 90, "the model reads")):
        with pytest.raises(ValueError, match=message):
            continue_text(tmp_path, text)


@settings(max_examples=12, deadline=None)
@given(
    heads=st.integers(1, 3),
    width=st.integers(1, 4),
    layers=st.integers(1, 3),
    batch=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_gradients_by_hand_are_autograds(heads, width, layers, batch, seed):
    """float64, any sizes; sums of under a thousand terms."""
    torch.manual_seed(seed)
    model = block.Decoder(7, 6, heads * width, layers, heads).double()
    for weight in model.parameters():
        weight.data.normal_(std=0.5)
    x = torch.randint(7, (batch, 5))
    names, weights = zip(*model.named_parameters(), strict=True)
    loss = block.next_token_loss(model(x), x)
    wanted = torch.autograd.grad(loss, weights)
    value, found = block.loss_and_gradients(dict(zip(names, [p.detach() for p in weights], strict=True)), x, heads)
    assert abs(value - loss.item()) < 1e-9 and found.keys() == set(names)
    for name, gradient in zip(names, wanted, strict=True):
        torch.testing.assert_close(found[name], gradient, atol=1e-9, rtol=0)


@pytest.mark.parametrize(
    "build",
    [
        lambda: block.Attention(12, 3, n_kv_heads=0),
        lambda: block.Attention(12, 3, n_kv_heads=-1),
        lambda: block.Attention(0, 3),
        *(lambda sizes=sizes: block.Decoder(*sizes) for sizes in ((9, 0), (9, 4, 0), (9, 4, 8, 0), (9, 4, 8, 1, 0))),
    ],
)
def test_sizes_that_cannot_work_are_refused(build):
    """Those that the clinic's check of refusals does not ask."""
    with pytest.raises(ValueError, match="1 or more"):
        build()


def test_an_odd_width_that_is_not_rotated_is_fine():
    assert block.Attention(12, 4)(torch.randn(2, 5, 12)).shape == (2, 5, 12)


def by_hand(tied=True):
    """A Decoder of context 6 in float64, and its weights."""
    torch.manual_seed(0)
    model = block.Decoder(7, 6, 8, 2, 2, tied=tied).double()
    return model, {name: weight.detach() for name, weight in model.named_parameters()}


def test_gradients_by_hand_refuse_what_they_would_get_wrong():
    """A head of its own was ignored, one token gave NaN."""
    _, weights = by_hand(tied=False)
    with pytest.raises(ValueError, match="tied"):
        block.loss_and_gradients(weights, tokens(2, 5, 7), 2)
    _, weights = by_hand()
    for x in (tokens(2, 1, 7), tokens(2, 8, 7), tokens(2, 5, 7)[:0], tokens(2, 5, 7)[0]):
        with pytest.raises(ValueError, match="shape"):
            block.loss_and_gradients(weights, x, 2)


def test_the_last_token_by_hand_is_only_a_target():
    """So a text may be longer than the context by one. float64: sums of under a thousand terms, 1e-9."""
    model, weights = by_hand()
    x = tokens(2, 7, 7)
    with torch.no_grad():
        wanted = F.cross_entropy(model(x[:, :-1]).flatten(0, 1), x[:, 1:].flatten()).item()
    assert abs(block.loss_and_gradients(weights, x, 2)[0] - wanted) < 1e-9


def test_a_loss_of_no_text_is_refused():
    """It was NaN. Two tokens are enough: an even guess among seven costs ln 7."""
    assert block.next_token_loss(torch.zeros(1, 2, 7), tokens(1, 2, 7)).item() == pytest.approx(1.945910, abs=1e-6)
    with pytest.raises(ValueError, match="2 tokens"):
        block.next_token_loss(torch.zeros(0, 5, 7), torch.zeros(0, 5, dtype=torch.long))


def test_the_story_models_parts():
    """Rotary attention in the slot is `shared.rotary`'s: the same weights, the same logits."""
    torch.manual_seed(0)
    theirs = TinyLM(20, 16, 24, 2, 3, attention=RotaryAttention, positions=no_positions)
    slots = {"attention": lambda d, h: block.Attention(d, h, rotary_base=10_000.0), "positions": no_positions}
    ours = block.Decoder(20, 16, 24, 2, 3, **slots)
    assert ours.load_state_dict(theirs.state_dict(), strict=False).missing_keys == ["head.weight"]
    torch.testing.assert_close(ours(tokens(below=20, time=16)), theirs(tokens(below=20, time=16)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("tied", [True, False])
def test_operations_there_and_back(tied):
    """Every weight costs 2 operations a token, scores and mixing 4 T C; the way back costs twice as much."""
    model, x = block.Decoder(50, 16, 24, 3, 4, tied=tied), tokens(2, 16)
    with FlopCounterMode(display=False) as counter:
        model(x).sum().backward()
    forward = 2 * 32 * (3 * 12 * 24 * 24 + 24 * 50) + 3 * 2 * 4 * 16 * 16 * 24
    assert counter.get_total_flops() == 3 * forward


def test_the_ledger_reads_a_tiny_lm_and_leaves_no_hook():
    model = TinyLM(20, 16, 24, 2, 3)
    entries, end = block.ledger(model, tokens(below=20, time=16))
    torch.testing.assert_close(sum(entries.values()), end)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())


def test_signal_is_kept_at_the_start():
    """Without skips, 12 layers hand on what they were given, but for what attention mixes in: cosine above 0.5; the
    ordinary weights leave nothing."""
    cosines = {}
    for arm in ("no skip", "no skip, signal kept"):
        model = depth_sweep.new_model(arm, 12, 0)
        x = tokens(4, 32, 256)
        entries, _ = block.ledger(model, x)
        last = entries["blocks.11.feed_forward"]
        cosines[arm] = F.cosine_similarity(last - last.mean(1, keepdim=True), model.embedding(x), dim=-1).mean().item()
    assert cosines["no skip, signal kept"] > 0.5 > 0.1 > abs(cosines["no skip"])


def test_looks_linear():
    """gelu(z) - gelu(-z) = z, so that the feed-forward of `keep_signal` gives back what it gets, to float32."""
    model = depth_sweep.new_model("no skip, signal kept", 1, 0)
    x = torch.randn(5, depth_sweep.WIDTH)
    torch.testing.assert_close(model.blocks[0].feed_forward(x), x, atol=1e-5, rtol=0)


def test_a_run_that_diverges_has_no_loss():
    """`fit` leaves the last finite weights, whose loss is no result."""
    assert depth_sweep.run(depth_sweep.SWEEP.quick[0] | {"rate": 1e30}) == {"loss": None}


SOLVED = solutions(block, "block_vis.ipynb", torch=torch, nn=nn, F=F)


def test_the_exercises_solutions_pass_their_checks():
    """And an exercise that is not done fails."""
    assert examine(SimpleNamespace(**SOLVED), EXERCISES).passes
    assert len(examine(SimpleNamespace(), EXERCISES).failed) == 3


def without_last_norm(model, tokens):
    """A lens that forgets the norm."""
    stream, seen = model.positions(model.embedding(tokens)), []
    for part in [nn.Identity(), *model.blocks]:
        stream = part(stream)
        seen.append(F.linear(stream, model.embedding.weight))
    return torch.stack(seen)


@pytest.mark.parametrize(
    "wrong",
    [
        {"logit_lens": without_last_norm},
        {"logit_lens": lambda model, tokens: SOLVED["logit_lens"](model, tokens)[1:]},
        {"rms_norm": block.layer_norm},
        {"rms_norm": lambda w, name, x: (SOLVED["rms_norm"](w, name, x)[0], lambda dy, g: dy)},
        {"parallel_block": lambda part, x: part(x)},
    ],
)
def test_wrong_answers_to_the_exercises_are_refused(wrong):
    """Near misses: no norm, a layer short, LayerNorm, no way back, the blocks in a row."""
    assert examine(SimpleNamespace(**SOLVED | wrong), EXERCISES).failed
