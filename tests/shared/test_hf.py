"""The reader of other people's models: against transformers, which writes the folders, and the gguf library."""

import contextlib
import json

import gguf
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

from shared.generation import generate, greedy
from shared.hf import pairs_to_halves, read_model, shapes
from shared.hf_model import load_model
from shared.rotary import rotate

GPT2 = {"vocab_size": 50, "n_positions": 32, "n_embd": 32, "n_layer": 2, "n_head": 4}
GPT2 |= {"bos_token_id": 1, "eos_token_id": 1}
LLAMA = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "bos_token_id": 1}
LLAMA |= {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 32, "eos_token_id": 2}
TOKENS = torch.randint(50, (3, 20), generator=torch.Generator().manual_seed(1))
INDEX = "model.safetensors.index.json"


def random_model(kind, **changes):
    """A model of transformers; its weights are large enough that every part shows in the logits."""
    torch.manual_seed(0)
    if kind == "gpt2":
        model = GPT2LMHeadModel(GPT2Config(**GPT2 | changes))
    elif kind == "llama":
        model = LlamaForCausalLM(LlamaConfig(**LLAMA | changes))
    else:
        model = MistralForCausalLM(MistralConfig(**LLAMA | changes))
    for weight in model.parameters():
        weight.data.normal_(std=0.3)
    return model.eval()


def same_logits(path, theirs):
    """Logits of size 1 to 10, in float32 and in another order of sums: equal to 1e-4."""
    with torch.no_grad():
        torch.testing.assert_close(load_model(path)(TOKENS), theirs(TOKENS).logits, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("gpt2", {}),
        ("gpt2", {"layer_norm_epsilon": 0.1}),
        ("gpt2", {"activation_function": "gelu", "tie_word_embeddings": False}),
        ("gpt2", {"reorder_and_upcast_attn": True, "attn_implementation": "eager"}),  # the same numbers in float32
        ("llama", {}),
        ("llama", {"num_key_value_heads": 4}),
        ("llama", {"num_key_value_heads": 1, "tie_word_embeddings": True}),
        ("llama", {"attention_bias": True, "mlp_bias": True}),
        ("llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 100.0}, "rms_norm_eps": 0.1}),
        *[("mistral", {"sliding_window": window}) for window in (1, 3, 5, 20, None)],
        ("mistral", {"sliding_window": 5, "attn_implementation": "eager"}),
        ("mistral", {"sliding_window": 5, "num_key_value_heads": 1, "tie_word_embeddings": True}),
    ],
)
@pytest.mark.parametrize("size", ["1GB", "20KB"])
def test_folders(tmp_path, kind, changes, size):
    """In one file, and in several with their index."""
    theirs = random_model(kind, **changes)
    theirs.save_pretrained(tmp_path, max_shard_size=size)
    assert (tmp_path / INDEX).exists() == (size == "20KB")
    same_logits(tmp_path, theirs)
    found, tensors = read_model(tmp_path)
    assert found.window == getattr(theirs.config, "sliding_window", None)
    assert {name: tuple(t.shape) for name, t in tensors.items()} == dict(shapes(found))
    assert {t.dtype for t in tensors.values()} == {torch.float32} and all(t.is_contiguous() for t in tensors.values())
    assert sum(t.numel() for t in tensors.values()) == sum(p.numel() for p in theirs.parameters())


@pytest.mark.parametrize("window", [3, 5, None])
def test_a_mistral_writes_what_transformers_writes(tmp_path, window):
    """The likeliest tokens, each from its own cache: ours holds the whole text, theirs what the window needs. Prompts
    shorter than the window, and longer than twice. At once they are padded on the left, as theirs are by their mask."""
    theirs = random_model("mistral", sliding_window=window)
    theirs.save_pretrained(tmp_path)
    how = {"max_new_tokens": 12, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    prompts = [row[:length].tolist() for row, length in zip(TOKENS, (2, 9, 14), strict=True)]
    padded = torch.tensor([[0] * (14 - len(prompt)) + prompt for prompt in prompts])
    real = torch.tensor([[0] * (14 - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    ours = generate(load_model(tmp_path), prompts, 12, rules=[greedy])
    assert ours == theirs.generate(padded, attention_mask=real, **how)[:, 14:].tolist()
    for prompt, written in zip(prompts, ours, strict=True):
        alone = torch.tensor([prompt])
        found = theirs.generate(alone, attention_mask=torch.ones_like(alone), **how)
        assert found[0, len(prompt) :].tolist() == written


def test_what_a_mistral_means_by_what_it_does_not_say(tmp_path):
    """As transformers reads the same file: a window of 4,096, and eight heads for keys."""
    theirs = random_model("mistral", num_attention_heads=16, num_key_value_heads=8)
    theirs.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    said = json.loads(path.read_text())
    del said["sliding_window"], said["num_key_value_heads"]
    path.write_text(json.dumps(said))
    found, meant = read_model(tmp_path)[0], MistralConfig.from_pretrained(tmp_path)
    assert (found.window, found.n_kv_heads) == (meant.sliding_window, meant.num_key_value_heads) == (4096, 8)
    same_logits(tmp_path, theirs)


def test_heads_of_their_own_width(tmp_path):
    """4 heads 6 wide in a model 32 wide: theirs one below the other."""
    theirs = random_model("llama", head_dim=6).eval()
    theirs.save_pretrained(tmp_path)
    found, tensors = read_model(tmp_path)
    part = theirs.model.layers[1].self_attn
    wanted = torch.cat([part.q_proj.weight, part.k_proj.weight, part.v_proj.weight])
    assert (found.d_head, found.n_kv_heads) == (6, 2) and wanted.shape == (48, 32)
    assert torch.equal(tensors["blocks.1.attention.qkv.weight"], wanted)
    assert torch.equal(tensors["blocks.1.attention.proj.weight"], part.o_proj.weight)
    with pytest.raises(ValueError, match="4 heads 6 wide in a model 32 wide"):
        load_model(tmp_path)


def test_a_feed_forward_of_its_own_width(tmp_path):
    theirs = random_model("gpt2", n_inner=40)
    theirs.save_pretrained(tmp_path)
    found, tensors = read_model(tmp_path)
    assert found.d_hidden == 40
    assert torch.equal(tensors["blocks.1.feed_forward.up.weight"], theirs.transformer.h[1].mlp.c_fc.weight.T)
    with pytest.raises(ValueError, match="feed-forward 40 wide"):
        load_model(tmp_path)


def test_older_files(tmp_path):
    """GPT-2 as it was published: no prefix, masks among the weights, several files without an index."""
    theirs = random_model("gpt2")
    theirs.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = {name.removeprefix("transformer."): tensor for name, tensor in load_file(file).items()}
    tensors |= {f"h.{i}.attn.bias": torch.ones(1, 1, 32, 32).tril().byte() for i in range(2)}
    file.unlink()
    for n, names in enumerate((sorted(tensors)[:9], sorted(tensors)[9:]), 1):
        save_file({name: tensors[name] for name in names}, tmp_path / f"model-0000{n}-of-00002.safetensors")
    same_logits(tmp_path, theirs)


def test_files_that_are_not_meant_are_not_read(tmp_path):
    """Meta's own copy beside the index's files, an optimiser's state beside model.safetensors."""
    theirs = random_model("llama")
    for folder, size, other in (("many", "20KB", "consolidated"), ("one", "1GB", "optimizer")):
        theirs.save_pretrained(tmp_path / folder, max_shard_size=size)
        save_file({"model.norm.weight": torch.zeros(32)}, tmp_path / folder / f"{other}.safetensors")
        same_logits(tmp_path / folder, theirs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_precisions_are_read_as_float32(tmp_path, dtype):
    theirs = random_model("llama")
    for weight in theirs.parameters():
        weight.data = weight.data.to(dtype).float()
    theirs.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    save_file({name: tensor.to(dtype) for name, tensor in load_file(file).items()}, file)
    same_logits(tmp_path, theirs)


@pytest.mark.parametrize(
    "places",
    [
        {"rope_theta": 77},
        {"rope_theta": 77.0, "rope_scaling": None},
        {"rope_scaling": {"rope_theta": 77.0, "type": "default"}},
        {"rope_scaling": {"rope_theta": 77.0, "rope_type": "default", "factor": 1.0}, "rope_theta": 77.0},
    ],
)
def test_where_the_rotary_base_stands(tmp_path, places):
    theirs = random_model("llama", rope_parameters={"rope_type": "default", "rope_theta": 77.0})
    theirs.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["rope_parameters"]
    (tmp_path / "config.json").write_text(json.dumps(config | places))
    same_logits(tmp_path, theirs)


def llama_cpps_rows(weight, n_heads):
    """What llama.cpp's converter does to queries and keys: in each head first and second half, row by row in turn."""
    halves = weight.reshape(n_heads, 2, weight.shape[0] // n_heads // 2, *weight.shape[1:])
    return halves.swapaxes(1, 2).reshape(weight.shape)


def write_gguf(path, model, kind="F32", endianess=gguf.GGUFEndian.LITTLE, extra=None, **fields):
    """A model of transformers as a GGUF file. Matrices are stored as `kind`, and the model gets the stored numbers.

    fields: settings beside the usual ones, or None in place of one of them; __ stands for a point.
    """
    config, kind = model.config, gguf.GGMLQuantizationType[kind]
    word, n_layers, heads = config.model_type, config.num_hidden_layers, config.num_attention_heads
    kv_heads = getattr(config, "num_key_value_heads", heads)
    eps = "layer_norm_rms_epsilon" if word == "llama" else "layer_norm_epsilon"
    usual = {"context_length": 32, "embedding_length": config.hidden_size, "block_count": n_layers}
    usual |= {"feed_forward_length": getattr(config, "intermediate_size", 4 * config.hidden_size)}
    usual |= {"attention.head_count": heads, "attention.head_count_kv": kv_heads, "vocab_size": config.vocab_size}
    usual |= {f"attention.{eps}": getattr(config, "rms_norm_eps", None) or config.layer_norm_epsilon}
    if word == "llama":
        usual |= {"rope.freq_base": config.rope_parameters["rope_theta"], "rope.dimension_count": config.head_dim}
    usual |= {name.replace("__", "."): value for name, value in fields.items()}
    writer = gguf.GGUFWriter(path, usual.pop("architecture", word), endianess=endianess)
    add = {str: writer.add_string, int: writer.add_uint32, float: writer.add_float32, bool: writer.add_bool}
    for name, value in usual.items():
        if value is not None:
            add.get(type(value), writer.add_array)(
                name if name.startswith(("general.", "split.")) else f"{word}.{name}", value
            )
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[word.upper()], n_layers)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        rows = tensor.T if word == "gpt2" and name.rsplit(".", 2)[-2].startswith("c_") and tensor.ndim == 2 else tensor
        stored_as = kind if tensor.ndim == 2 else gguf.GGMLQuantizationType.F32
        stored = gguf.quantize(np.ascontiguousarray(rows.numpy()), stored_as)
        rows.copy_(torch.tensor(gguf.dequantize(stored, stored_as)))
        if "q_proj" in name or "k_proj" in name:
            stored = llama_cpps_rows(stored, heads if "q_proj" in name else kv_heads)
        writer.add_tensor(names.get_name(name, (".weight", ".bias")), stored, raw_dtype=stored_as)
    for name, tensor in (extra or {}).items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("gpt2", {"layer_norm_epsilon": 0.1}),
        ("gpt2", {"tie_word_embeddings": False}),
        ("llama", {"tie_word_embeddings": True}),
        ("llama", {"attention_bias": True, "mlp_bias": True, "num_key_value_heads": 1}),
        ("llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 100.0}, "rms_norm_eps": 0.1}),
    ],
)
def test_gguf_files(tmp_path, kind, changes):
    same_logits(tmp_path / "m.gguf", write_gguf(tmp_path / "m.gguf", random_model(kind, **changes)))


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q8_0"])
def test_gguf_files_with_fewer_bits(tmp_path, kind):
    same_logits(tmp_path / "m.gguf", write_gguf(tmp_path / "m.gguf", random_model("llama"), kind))


def test_gguf_settings_that_may_be_left_out(tmp_path):
    theirs = random_model("llama", num_key_value_heads=4)
    left_out = dict.fromkeys(["vocab_size", "rope.freq_base", "attention.head_count_kv", "rope.dimension_count"])
    write_gguf(tmp_path / "m.gguf", theirs, **left_out, rope__scaling__type="none", expert_count=0)
    same_logits(tmp_path / "m.gguf", theirs)


def test_transformers_reads_the_same_from_a_gguf_file(tmp_path):
    """Their own reading of the file, rows put back: the test's converter is llama.cpp's."""
    theirs = write_gguf(tmp_path / "m.gguf", random_model("llama"))
    read = load_gguf_checkpoint(tmp_path / "m.gguf", return_tensors=True, model_to_load=theirs)["tensors"]
    for name, wanted in theirs.state_dict().items():
        assert torch.equal(torch.as_tensor(read[name]), wanted)


@settings(max_examples=30, deadline=None)
@given(heads=st.integers(1, 3), pairs=st.integers(1, 5), seed=st.integers(0, 99))
def test_neighbours_become_halves(heads, pairs, seed):
    """Rotated as complex numbers, neighbours in pairs, queries and keys have the scores that ours have after
    `rotate`, whose angles are float32: products of up to ten numbers below 4 by angles to 1e-6, so 1e-4."""
    draw = torch.Generator().manual_seed(seed)
    q, k = (torch.randn(heads * 2 * pairs, 7, generator=draw, dtype=torch.float64) for _ in range(2))  # (rows, T)
    speeds = 10_000.0 ** (-torch.arange(pairs, dtype=torch.float64) / pairs)
    turn = torch.polar(torch.ones(7, pairs, dtype=torch.float64), torch.arange(7)[:, None] * speeds)  # (T, d / 2)

    def neighbours(rows):
        pair = torch.view_as_complex(rows.T.reshape(7, heads, pairs, 2).contiguous()) * turn[:, None]
        return torch.view_as_real(pair).flatten(2).transpose(0, 1)  # (H, T, d)

    def halves(rows):
        return rotate(pairs_to_halves(rows, 2 * pairs).T.unflatten(1, (heads, -1)).transpose(0, 1))

    torch.testing.assert_close(halves(q) @ halves(k).mT, neighbours(q) @ neighbours(k).mT, atol=1e-4, rtol=0)


def config_with(**changes):
    """A change of config.json."""

    def change(folder):
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def config_is(text):
    return lambda folder: (folder / "config.json").write_text(text)


def tensors_with(change):
    """A change of the saved tensors."""

    def apply(folder):
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors")

    return apply


def put(name, value):
    """One number of a tensor becomes another, or the tensor is of another type."""

    def change(tensors):
        if isinstance(value, torch.dtype):
            tensors[name] = tensors[name].to(value)
        else:
            tensors[name].view(-1)[3] = value

    return tensors_with(change)


def file_with(name, content):
    """One more file in the folder: bytes, or tensors."""
    if isinstance(content, bytes):
        return lambda folder: (folder / name).write_bytes(content)
    return lambda folder: save_file(content, folder / name)


NORM, HEAD = "model.norm.weight", "lm_head.weight"
LLAMA3 = {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0}
BY_LAYER = {"full_attention": {"rope_type": "default", "rope_theta": 5e5}}


@pytest.mark.parametrize(
    ("kind", "spoil", "message"),
    [
        ("gpt2", lambda folder: (folder / "config.json").unlink(), "no file at .*config.json"),
        ("gpt2", lambda folder: (folder / "model.safetensors").unlink(), r"no \*.safetensors"),
        ("gpt2", file_with("adapter_config.json", b"{}"), "holds an adapter"),
        ("gpt2", config_is("{"), "not JSON"),
        ("gpt2", config_is("[1]"), "holds a list: expected an object"),
        ("gpt2", config_is('{"model_type": "gpt2"}'), "does not say 'vocab_size'"),
        ("gpt2", config_with(model_type="qwen2"), "holds a 'qwen2': expected 'gpt2' or 'llama' or 'mistral'"),
        ("gpt2", config_with(model_type=["gpt2"]), r"holds a \['gpt2'\]"),
        *[("gpt2", config_with(n_head=n), "n_head is .*whole number") for n in (0, -4, 4.0, True, "4", None, [4])],
        ("gpt2", config_with(n_head=3), "32 numbers do not divide into 3 heads"),
        ("gpt2", config_with(num_attention_heads=8), "num_attention_heads is 8"),
        ("gpt2", config_with(n_layer=10**12), r"no tensor 'h.2."),
        ("gpt2", config_with(n_layer=1), "does not use: .*h.1.attn"),
        ("gpt2", config_with(n_inner=7), r"c_fc.weight' has shape \(32, 128\): expected \(32, 7\)"),
        ("gpt2", config_with(n_positions=31), r"wpe.weight' has shape \(32, 32\)"),
        *[
            ("gpt2", config_with(layer_norm_epsilon=eps), "epsilon is")
            for eps in (0, -1e-5, "1e-5", float("nan"), True)
        ],
        ("gpt2", config_with(activation_function="relu"), "activation_function is 'relu'"),
        ("gpt2", config_with(activation_function=None), "activation_function is None"),
        ("gpt2", config_with(scale_attn_weights=False), "scale_attn_weights is False"),
        ("gpt2", config_with(scale_attn_by_inverse_layer_idx=True), "scale_attn_by_inverse_layer_idx is True"),
        ("gpt2", config_with(add_cross_attention=True), "add_cross_attention is True"),
        ("gpt2", config_with(tie_word_embeddings=False), "no tensor 'lm_head.weight'"),
        ("gpt2", file_with("model.safetensors", b"?" * 99), "damaged"),
        (
            "gpt2",
            tensors_with(lambda t: t.update({"wte.weight": torch.ones(50, 32)})),
            "with and without 'transformer.'",
        ),
        ("gpt2", tensors_with(lambda t: t.update({HEAD: torch.ones(50, 32)})), "'lm_head.weight' .* not the embedding"),
        ("llama", config_with(hidden_act="gelu"), "hidden_act is 'gelu'"),
        ("llama", config_with(head_dim=7), "heads 7 wide are to be rotated"),
        ("llama", config_with(head_dim=6), r"q_proj.weight' has shape \(32, 32\): expected \(24, 32\)"),
        ("llama", config_with(num_key_value_heads=3), "4 heads for queries, 3 for keys"),
        ("llama", config_with(num_key_value_heads=4), r"k_proj.weight' has shape \(16, 32\): expected \(32, 32\)"),
        ("llama", config_with(rope_parameters=LLAMA3), "rope_type is 'llama3' in rope_parameters"),
        ("llama", config_with(rope_parameters=None, rope_scaling=LLAMA3), "rope_type is 'llama3' in rope_scaling"),
        ("llama", config_with(rope_scaling={"type": "linear", "factor": 2.0}), "type is 'linear'"),
        ("llama", config_with(rope_scaling={"factor": 2.0}), "factor is 2.0"),
        ("llama", config_with(rope_parameters=BY_LAYER), "full_attention is .* not known"),
        ("llama", config_with(rope_parameters={"rope_theta": None}), "rope_theta is None"),
        ("llama", config_with(rope_parameters=None, rope_theta=None), "rope_theta is None"),
        ("llama", config_with(rope_theta=77.0), r"rope_theta is \[77.0, 10000.0\]"),
        ("llama", config_with(rope_scaling=2.0), "rope_scaling is 2.0"),
        ("llama", config_with(partial_rotary_factor=0.5), "partial_rotary_factor is 0.5"),
        ("llama", config_with(rope_parameters={"partial_rotary_factor": 0.5}), "partial_rotary_factor is 0.5"),
        ("llama", config_with(sliding_window=4096), "sliding_window is 4096"),
        ("gpt2", config_with(sliding_window=4096), "sliding_window is 4096"),
        *[("mistral", config_with(sliding_window=n), "sliding_window is .*whole number") for n in (0, -1, 3.0, "3")],
        ("mistral", config_with(layer_types=["sliding_attention"] * 2), r"layer_types is \['sliding_attention', "),
        ("mistral", config_with(num_key_value_heads=None), r"k_proj.weight' has shape \(16, 32\): expected \(32, 32\)"),
        ("llama", config_with(is_causal=False), "is_causal is False"),
        ("llama", config_with(attn_logit_softcapping=50.0), "attn_logit_softcapping is 50.0"),
        ("llama", config_with(final_logit_softcapping=30.0), "final_logit_softcapping is 30.0"),
        ("llama", config_with(quantization_config={"bits": 4}), "quantization_config is"),
        ("llama", config_with(tie_word_embeddings="no"), "tie_word_embeddings is 'no'"),
        ("llama", config_with(tie_word_embeddings=True), "'lm_head.weight' .* not the embedding"),
        ("llama", config_with(attention_bias=True), "no tensor 'layers.0.self_attn.q_proj.bias'"),
        ("llama", tensors_with(lambda t: t.pop(NORM)), "no tensor 'norm.weight'"),
        ("llama", tensors_with(lambda t: t.pop(HEAD)), "no tensor 'lm_head.weight'"),
        ("llama", tensors_with(lambda t: t.update(extra=torch.ones(1))), "does not use: .'extra'"),
        ("llama", put(NORM, float("nan")), "'norm.weight' has numbers that are NaN"),
        ("llama", put(HEAD, float("-inf")), "'lm_head.weight' has numbers that are NaN or inf"),
        ("llama", put(HEAD, torch.int8), "'lm_head.weight' .* of type I8"),
        ("llama", put(HEAD, torch.uint8), "of type U8"),
        ("llama", put(HEAD, torch.float8_e4m3fn), "of type F8_E4M3"),
        ("llama", file_with(INDEX, b"{}"), "has both model.safetensors and"),
    ],
)
def test_what_is_not_read_right_is_refused_by_name(tmp_path, kind, spoil, message):
    random_model(kind).save_pretrained(tmp_path)
    spoil(tmp_path)
    with pytest.raises(ValueError, match=message):
        read_model(tmp_path)


def index_with(**changes):
    """A change of what the index says: tensors and their files; None takes a tensor out."""

    def change(folder):
        where = json.loads((folder / INDEX).read_text())["weight_map"] | {
            n.replace("__", "."): f for n, f in changes.items()
        }
        (folder / INDEX).write_text(json.dumps({"weight_map": {n: file for n, file in where.items() if file}}))

    return change


def outside(folder):
    """The last norm lies in a file beside the folder."""
    save_file({NORM: torch.ones(32)}, folder.parent / "out.safetensors")
    index_with(model__norm__weight="../out.safetensors")(folder)


FIRST, LAST = "model-00001-of-00003.safetensors", "model-00003-of-00003.safetensors"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / LAST).unlink(), f"names '{LAST}', which is no file"),
        (lambda folder: (folder / INDEX).write_text('{"weight_map": [1]}'), "no 'weight_map'"),
        (lambda folder: (folder / INDEX).write_text('{"weight_map": {"lm_head.weight": 3}}'), "no 'weight_map'"),
        (outside, "names '../out.safetensors'"),
        (index_with(extra=FIRST), f"{FIRST} has no 'extra'"),
        (index_with(model__norm__weight=None), "has 'model.norm.weight', which .* does not say"),
        (index_with(model__embed_tokens__weight=LAST), "which .* does not say"),
        (
            lambda folder: (folder / INDEX).unlink() or save_file({NORM: torch.ones(32)}, folder / "a.safetensors"),
            "once",
        ),
    ],
)
def test_an_index_that_is_not_true_is_refused(tmp_path, spoil, message):
    random_model("llama").save_pretrained(tmp_path, max_shard_size="40KB")
    assert (tmp_path / LAST).exists()
    spoil(tmp_path)
    with pytest.raises(ValueError, match=message):
        read_model(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "qwen2"}, "holds a 'qwen2'"),
        ({"general.type": "adapter"}, "general.type is 'adapter'"),
        ({"split.count": 2}, "split.count is 2"),
        ({"block_count": None}, "does not say 'block_count'"),
        ({"block_count": 3}, "no tensor 'blk.2.attn_norm.weight'"),
        ({"block_count": 1}, "does not use: .*blk.1.attn_k"),
        ({"attention.head_count": [4, 4]}, r"head_count is \[4, 4\]"),
        ({"attention.head_count_kv": 4}, r"blk.0.attn_k.weight' has shape \(16, 32\)"),
        ({"attention.key_length": 16}, "dimension_count is 8"),
        ({"attention.value_length": 16}, "value_length is 16"),
        ({"rope.dimension_count": 4}, "dimension_count is 4"),
        ({"rope.freq_base": 0.0}, "freq_base is 0.0"),
        ({"rope.scaling.type": "yarn"}, "rope.scaling.type is 'yarn'"),
        ({"rope.scaling.factor": 4.0}, "rope.scaling.factor is 4.0"),
        ({"expert_count": 8}, "expert_count is 8"),
        ({"attention.sliding_window": 4096}, "attention.sliding_window is 4096 .* not known"),
        ({"final_logit_softcapping": 30.0}, "final_logit_softcapping is 30.0 .* not known"),
        ({"extra": {"rope_freqs.weight": np.ones(4, np.float32)}}, "does not use: .'rope_freqs.weight'"),
        ({"extra": {"blk.0.attn_q.bias": np.ones(32, np.float32)}}, "no tensor 'blk.0.attn_k.bias'"),
        ({"endianess": gguf.GGUFEndian.BIG}, "bytes in the other order"),
    ],
)
def test_what_is_not_read_right_in_a_gguf_file_is_refused_by_name(tmp_path, changes, message):
    write_gguf(tmp_path / "m.gguf", random_model("llama"), **changes)
    with pytest.raises(ValueError, match=message):
        read_model(tmp_path / "m.gguf")


def test_a_gguf_tensor_of_whole_numbers_is_refused(tmp_path):
    model = random_model("llama")
    model.lm_head = torch.nn.Identity()
    write_gguf(tmp_path / "m.gguf", model, extra={"output.weight": np.ones((50, 32), np.int8)})
    with pytest.raises(ValueError, match=r"'output.weight' .* of type I8"):
        read_model(tmp_path / "m.gguf")


@pytest.mark.parametrize("name", ["model.safetensors", "m.gguf"])
def test_weights_stay_when_the_file_is_written_anew(tmp_path, name):
    """They were a window on the file."""
    write_gguf(tmp_path / "m.gguf", random_model("llama")).save_pretrained(tmp_path)
    _, before = read_model(tmp_path / name if name == "m.gguf" else tmp_path)
    kept = {ours: tensor.clone() for ours, tensor in before.items()}
    with (tmp_path / name).open("r+b") as file:
        file.write(bytes((tmp_path / name).stat().st_size))
    assert all(torch.equal(before[ours], kept[ours]) for ours in kept)


def test_nothing_there(tmp_path):
    with pytest.raises(ValueError, match="nothing at"):
        read_model(tmp_path / "nothing")
    (tmp_path / "m.gguf").write_bytes(b"")
    with pytest.raises(ValueError, match="no GGUF file"):
        read_model(tmp_path / "m.gguf")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """{kind: folder}, each with the GGUF file beside, but for Mistral."""
    folders = {kind: tmp_path_factory.mktemp(kind) for kind in ("gpt2", "llama")}
    for kind, folder in folders.items():
        write_gguf(folder / "m.gguf", random_model(kind)).save_pretrained(folder)
    folders["mistral"] = tmp_path_factory.mktemp("mistral")
    random_model("mistral").save_pretrained(folders["mistral"])
    return folders


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(["gpt2", "llama"]),
    name=st.sampled_from(["model.safetensors", "m.gguf"]),
    share=st.floats(0, 1),
)
def test_a_file_that_is_cut_is_refused(saved, tmp_path_factory, kind, name, share):
    whole = (saved[kind] / name).read_bytes()
    folder = tmp_path_factory.mktemp("cut")
    (folder / "config.json").write_bytes((saved[kind] / "config.json").read_bytes())
    (folder / name).write_bytes(whole[: int(share * (len(whole) - 1))])
    with pytest.raises(ValueError, match="damaged"):
        read_model(folder / name if name == "m.gguf" else folder)


ANYTHING = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.lists(st.integers(), max_size=2)
)
ANYTHING |= st.dictionaries(st.text(max_size=3), st.integers(), max_size=2)


@settings(max_examples=100, deadline=None)
@given(data=st.data(), kind=st.sampled_from(["gpt2", "llama", "mistral"]))
def test_any_setting_of_any_type_is_read_or_refused(saved, tmp_path_factory, data, kind):
    """With a ValueError: it was a TypeError, an AttributeError or a ZeroDivisionError."""
    config = json.loads((saved[kind] / "config.json").read_text())
    more = {"rope_scaling", "rope_theta", "head_dim", "n_inner", "sliding_window", "partial_rotary_factor"}
    config[data.draw(st.sampled_from(sorted(config.keys() | more)))] = data.draw(ANYTHING)
    folder = tmp_path_factory.getbasetemp() / f"any {kind}"
    if not folder.exists():
        folder.mkdir()
        (folder / "model.safetensors").symlink_to(saved[kind] / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    with contextlib.suppress(ValueError):
        read_model(folder)
