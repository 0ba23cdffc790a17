"""A Mixtral's folder: against transformers, which writes it, and with what cannot be read right."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import MixtralConfig, MixtralForCausalLM

from shared.generation import generate, greedy
from shared.hf_mixtral import load_mixtral
from shared.mixture import Mixture

SIZES = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 24, "num_hidden_layers": 2, "bos_token_id": 1}
SIZES |= {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 32, "eos_token_id": 2}
TOKENS = torch.randint(50, (3, 20), generator=torch.Generator().manual_seed(1))
WEIGHTS = "model.safetensors"


def random_model(**changes):
    """Weights are large enough that every part shows in the logits, the router's among them."""
    torch.manual_seed(0)
    model = MixtralForCausalLM(MixtralConfig(**SIZES | {"num_local_experts": 5} | changes))
    for weight in model.parameters():
        weight.data.normal_(std=0.3)
    return model.eval()


@pytest.fixture
def folder(tmp_path):
    """One with a model in it."""
    random_model().save_pretrained(tmp_path)
    return tmp_path


def same_logits(path, theirs):
    """Logits of size 1 to 10, in float32 and in another order of sums: equal to 1e-4."""
    with torch.no_grad():
        torch.testing.assert_close(load_mixtral(path)(TOKENS), theirs(TOKENS).logits, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"num_local_experts": 2, "num_experts_per_tok": 1},
        {"num_local_experts": 3, "num_experts_per_tok": 3},
        {"sliding_window": 3},
        {"num_key_value_heads": 1, "rms_norm_eps": 0.1},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 100.0}},
    ],
)
def test_logits_are_those_of_transformers(tmp_path, changes):
    theirs = random_model(**changes)
    theirs.save_pretrained(tmp_path, max_shard_size="20KB")
    same_logits(tmp_path, theirs)


def test_a_mixtral_writes_what_transformers_writes(folder):
    """The likeliest tokens, from a cache."""
    prompt = TOKENS[:1, :9]
    how = {"max_new_tokens": 12, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    theirs = random_model().generate(prompt, attention_mask=torch.ones_like(prompt), **how)[0, 9:].tolist()
    assert generate(load_mixtral(folder), prompt.tolist(), 12, rules=[greedy]) == [theirs]


def rewrite(folder, leave_out=(), **changes):
    """Change what config.json says."""
    path = folder / "config.json"
    said = {name: value for name, value in json.loads(path.read_text()).items() if name not in leave_out}
    path.write_text(json.dumps(said | changes))


def test_what_a_mixtral_means_by_what_it_does_not_say(tmp_path):
    """As transformers reads the same file."""
    theirs = random_model(num_local_experts=8, num_attention_heads=16, num_key_value_heads=8)
    theirs.save_pretrained(tmp_path)
    unsaid = ["sliding_window", "rms_norm_eps", "rope_parameters", "num_local_experts", "num_experts_per_tok"]
    rewrite(tmp_path, leave_out=[*unsaid, "num_key_value_heads", "tie_word_embeddings"])
    same_logits(tmp_path, MixtralForCausalLM.from_pretrained(tmp_path))


NAME = "model.layers.1.block_sparse_moe.experts.3.w2.weight"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda t: {NAME: t[NAME].T.contiguous()}, r"w2.weight' has shape \(24, 32\): expected \(32, 24\)"),
        (lambda t: {NAME: t[NAME] * torch.nan}, "w2.weight' has numbers that are NaN"),
        (
            lambda t: {NAME.replace("3", "5"): t[NAME].clone()},
            r"does not use: \['layers.1.block_sparse_moe.experts.5.w2",
        ),
        (lambda t: {NAME.replace("w2", "bias"): t[NAME].clone()}, "does not use: .*experts.3.bias"),
    ],
)
def test_tensors_that_are_not_read_right_are_refused(folder, spoil, message):
    tensors = load_file(folder / WEIGHTS)
    save_file(tensors | spoil(tensors), folder / WEIGHTS)
    with pytest.raises(ValueError, match=message):
        load_mixtral(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "mistral"}, "holds a 'mistral': expected 'mixtral'"),
        ({"num_local_experts": 6}, "no tensor 'layers.0.block_sparse_moe.experts|gate.weight' has shape"),
        ({"num_local_experts": 4}, "gate.weight' has shape"),
        ({"num_local_experts": 0}, "num_local_experts is 0"),
        ({"num_experts_per_tok": 6}, "k is 6 of 5 experts"),
        ({"num_experts_per_tok": "2"}, "num_experts_per_tok is '2'"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"layer_types": ["full_attention"] * 2}, "layer_types"),
    ],
)
def test_settings_that_are_not_read_right_are_refused(folder, changes, message):
    rewrite(folder, **changes)
    with pytest.raises(ValueError, match=message):
        load_mixtral(folder)


def test_a_tensor_that_is_missing(folder):
    tensors = load_file(folder / WEIGHTS)
    del tensors[NAME]
    save_file(tensors, folder / WEIGHTS)
    with pytest.raises(ValueError, match=r"no tensor 'layers\.1\.block_sparse_moe\.experts\.3\.w2"):
        load_mixtral(folder)


def test_half_precision_comes_out_as_it_went_in():
    """Gates are float32; the output is of the input's type."""
    layer = Mixture(8, n_experts=4, k=2, d_hidden=6).bfloat16()
    assert layer(torch.randn(1, 1, 8).bfloat16()).dtype == torch.bfloat16
