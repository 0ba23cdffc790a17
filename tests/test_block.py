"""Lesson 05: the decoder against transformers and autograd, the reader of Hugging Face folders, the sweep's arms.
(Its clinic: test_clinics.py.)"""

import itertools
import json
import sys
from types import SimpleNamespace

import block
import depth_sweep
import pytest
import torch
from block_clinic import EXERCISES
from block_hf import continue_text, load_hf
from folded import solutions
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

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
    else:
        model = LlamaForCausalLM(LlamaConfig(**LLAMA | changes))
    for weight in model.parameters():
        weight.data.normal_(std=0.3)
    model.eval().save_pretrained(folder)
    return model


def tokens(n=3, time=20, below=50):
    """Random words."""
    return torch.randint(below, (n, time), generator=torch.Generator().manual_seed(1))


def test_faults_are_thirteen_different_ones():
    assert len({(fault.line, fault.becomes) for fault in block.FAULTS}) == len(block.FAULTS) == 13
    assert len(block.CHECKS) == 16


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("gpt2", {}),
        ("gpt2", {"layer_norm_epsilon": 0.1}),
        ("llama", {}),
        ("llama", {"num_key_value_heads": 6}),
        ("llama", {"num_key_value_heads": 1, "tie_word_embeddings": True}),
        ("llama", {"attention_bias": True, "mlp_bias": True}),
        ("llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 100.0}, "rms_norm_eps": 0.1}),
    ],
)
def test_it_is_gpt2_and_llama(tmp_path, kind, changes):
    """Logits of size 1 to 10, in float32 and in another order of sums: equal to 1e-4."""
    theirs = saved(tmp_path, kind, **changes)
    ours = load_hf(tmp_path)
    assert not ours.training
    with torch.no_grad():
        torch.testing.assert_close(ours(tokens()), theirs(tokens()).logits, atol=1e-4, rtol=0)
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())


def test_older_files_and_split_files(tmp_path):
    """GPT-2 as it was published: no prefix, masks among the weights. And any model in several files."""
    theirs = saved(tmp_path, "gpt2")
    file = tmp_path / "model.safetensors"
    tensors = {name.removeprefix("transformer."): tensor for name, tensor in load_file(file).items()}
    tensors |= {f"h.{i}.attn.bias": torch.ones(1, 1, 32, 32).tril() for i in range(2)}
    file.unlink()
    names = sorted(tensors)
    save_file({name: tensors[name] for name in names[:9]}, tmp_path / "model-00001-of-00002.safetensors")
    save_file({name: tensors[name] for name in names[9:]}, tmp_path / "model-00002-of-00002.safetensors")
    with torch.no_grad():
        torch.testing.assert_close(load_hf(tmp_path)(tokens()), theirs(tokens()).logits, atol=1e-4, rtol=0)


def test_half_precision_is_read_as_float32(tmp_path):
    saved(tmp_path, "llama")
    file = tmp_path / "model.safetensors"
    save_file({name: tensor.bfloat16() for name, tensor in load_file(file).items()}, file)
    assert {p.dtype for p in load_hf(tmp_path).parameters()} == {torch.float32}


def test_a_config_of_before_rope_parameters(tmp_path):
    """Older Llamas name the base at the top level."""
    theirs = saved(tmp_path, "llama", rope_parameters={"rope_type": "default", "rope_theta": 77.0})
    config = json.loads((tmp_path / "config.json").read_text())
    del config["rope_parameters"]
    (tmp_path / "config.json").write_text(json.dumps(config | {"rope_theta": 77.0, "rope_scaling": None}))
    with torch.no_grad():
        torch.testing.assert_close(load_hf(tmp_path)(tokens()), theirs(tokens()).logits, atol=1e-4, rtol=0)


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
    with pytest.raises(ValueError, match="no tokens"):
        continue_text(tmp_path, "")


def config_with(**changes):
    """A change of config.json."""

    def change(folder):
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def tensors_with(change):
    """A change of the saved tensors."""

    def apply(folder):
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors")

    return apply


@pytest.mark.parametrize(
    ("kind", "spoil", "message"),
    [
        ("gpt2", lambda folder: (folder / "config.json").unlink(), "no file at .*config.json"),
        ("gpt2", lambda folder: (folder / "config.json").write_text("{"), "not JSON"),
        ("gpt2", lambda folder: (folder / "config.json").write_text('{"model_type": "gpt2"}'), "does not say 'n_embd'"),
        ("gpt2", lambda folder: (folder / "model.safetensors").unlink(), "no .*safetensors"),
        ("gpt2", lambda folder: (folder / "model.safetensors").write_bytes(b"?" * 99), "damaged"),
        ("gpt2", config_with(model_type="bert"), "holds a 'bert'"),
        ("gpt2", config_with(activation_function="relu"), "activation_function is 'relu'"),
        ("gpt2", config_with(n_inner=7), "n_inner is 7"),
        ("gpt2", config_with(scale_attn_by_inverse_layer_idx=True), "scale_attn_by_inverse_layer_idx is True"),
        ("gpt2", config_with(n_layer=3), "no 'h.2."),
        ("gpt2", config_with(n_layer=1), "does not use: .*h.1.attn"),
        ("gpt2", config_with(n_positions=31), r"positions.table.weight has shape \(32, 24\)"),
        ("llama", config_with(hidden_act="gelu"), "hidden_act is 'gelu'"),
        ("llama", config_with(head_dim=8), "head_dim is 8"),
        ("llama", config_with(rope_parameters={"rope_type": "llama3", "rope_theta": 5e5}), "rope_type is 'llama3'"),
        ("llama", config_with(rope_parameters=None, rope_scaling={"type": "linear"}), "rope_type is 'linear'"),
        ("llama", config_with(num_key_value_heads=3), "qkv.weight has shape"),
        ("llama", tensors_with(lambda t: t.pop("model.norm.weight")), "no 'norm.weight'"),
        ("llama", tensors_with(lambda t: t.pop("lm_head.weight")), "no 'lm_head.weight'"),
        ("llama", tensors_with(lambda t: t.update(extra=torch.ones(1))), "does not use: .'extra'"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, kind, spoil, message):
    saved(tmp_path, kind)
    spoil(tmp_path)
    with pytest.raises(ValueError, match=message):
        load_hf(tmp_path)


@settings(max_examples=25, deadline=None)
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
    ("message", "build"),
    [
        ("even", lambda: block.Attention(12, 4, rotary_base=100.0)),  # 3 wide: chunk made pairs of 2 and 1
        ("1 or more", lambda: block.Attention(12, 0)),
        ("1 or more", lambda: block.Attention(12, 3, n_kv_heads=0)),
        ("1 or more", lambda: block.Attention(12, 3, n_kv_heads=-1)),
        ("1 or more", lambda: block.Attention(0, 3)),
        *[
            ("1 or more", lambda s=s: block.Decoder(*s))
            for s in ((0, 4), (9, 0), (9, 4, 0), (9, 4, 8, 0), (9, 4, 8, 1, 0))
        ],
    ],
)
def test_sizes_that_cannot_work_are_refused(message, build):
    """With a ValueError, as the docstrings say: never other numbers than asked for."""
    with pytest.raises(ValueError, match=message):
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


@pytest.mark.parametrize("shape", [(2, 1), (0, 5)])
def test_a_loss_without_a_next_token_is_refused(shape):
    """It was NaN."""
    with pytest.raises(ValueError, match="2 tokens"):
        block.next_token_loss(torch.zeros(*shape, 7), torch.zeros(shape, dtype=torch.long))


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


def test_the_sweep_runs(monkeypatch, capsys):
    """Two depths, one rate, three steps: the whole path, nothing written."""
    before = depth_sweep.RESULTS.read_bytes()
    monkeypatch.setattr(sys, "argv", ["depth_sweep.py", "--quick"])
    depth_sweep.main()
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert {(row["layers"], row["arm"]) for row in rows} == {(n, arm) for n in (2, 3) for arm in depth_sweep.SKIPS}
    assert len(rows) == 2 * len(depth_sweep.SKIPS) * 2 and all(2 < row["loss"] < 8 for row in rows)
    assert depth_sweep.RESULTS.read_bytes() == before


def test_what_the_sweep_stored():
    """All arms, depths, rates and seeds, and how it was made."""
    record = json.loads(depth_sweep.RESULTS.read_text())
    runs = [(row["layers"], row["arm"], row["rate"], row["seed"]) for row in record["rows"]]
    wanted = itertools.product(depth_sweep.DEPTHS, depth_sweep.SKIPS, depth_sweep.RATES, range(depth_sweep.N_SEEDS))
    assert sorted(runs) == sorted(wanted) and record["steps"] == depth_sweep.STEPS
    assert {"command", "seconds", "date", "versions", "threads"} <= record.keys()


SOLVED = solutions(block, "block_vis.ipynb", torch=torch, nn=nn, F=F)


def test_the_exercises_solutions_pass_their_checks():
    """And an exercise that is not done fails."""
    assert examine(SimpleNamespace(**SOLVED), EXERCISES).healthy
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
