"""Read a Hugging Face folder into the `Decoder` of `block.py`: GPT-2 and Llama, without AutoModel.

    model = load_hf("path/to/gpt2")          # a folder with config.json and *.safetensors

It shows what those models are: which parts are in which slots, and what their weights are called.
"""

import json
from functools import partial
from pathlib import Path

import block
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import nn

from shared.rotary import no_positions

GPT2_NAMES = {  # ours: theirs. Theirs are stored (in, out), ours (out, in)
    "norm_1": "ln_1",
    "norm_2": "ln_2",
    "attention.qkv": "attn.c_attn",
    "attention.proj": "attn.c_proj",
    "feed_forward.up": "mlp.c_fc",
    "feed_forward.proj": "mlp.c_proj",
}
LLAMA_NAMES = {
    "norm_1": ["input_layernorm"],
    "norm_2": ["post_attention_layernorm"],
    "attention.qkv": ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],  # one below the other
    "attention.proj": ["self_attn.o_proj"],
    "feed_forward.gate": ["mlp.gate_proj"],
    "feed_forward.up": ["mlp.up_proj"],
    "feed_forward.proj": ["mlp.down_proj"],
}


def load_hf(folder: str | Path) -> block.Decoder:
    """A GPT-2 or Llama in eval mode, float32, from a folder with config.json and one or more *.safetensors.

    Raises ValueError if a file is missing or damaged, for a model or a setting that these parts do not make, and for
    tensors that are missing, not expected, or of another shape, by name.
    """
    folder = Path(folder).expanduser()
    config = _config(folder)
    if config.get("model_type") not in ("gpt2", "llama"):
        raise ValueError(f"{folder} holds a {config.get('model_type')!r}: expected 'gpt2' or 'llama'")
    build, rename = (_gpt2, _from_gpt2) if config["model_type"] == "gpt2" else (_llama, _from_llama)
    try:
        model = build(config)
    except KeyError as error:
        raise ValueError(f"{folder / 'config.json'} does not say {error}") from error
    theirs = _tensors(folder)
    weights = {}
    for name, wanted in model.state_dict().items():
        if name == "head.weight" and model.head.weight is model.embedding.weight:
            continue  # the same matrix
        weights[name] = found = rename(theirs, name)
        if found.shape != wanted.shape:
            raise ValueError(f"{name} has shape {tuple(found.shape)}, config.json asks for {tuple(wanted.shape)}")
    if unused := sorted(name for name in theirs if not name.endswith(IGNORED)):
        raise ValueError(f"{folder} has tensors that this model does not use: {unused}")
    model.load_state_dict(weights, strict=False)
    return model.eval()


@torch.no_grad()
def continue_text(folder: str | Path, text: str, n: int = 20) -> str:
    """The text and n more tokens, each the likeliest. folder: as for `load_hf`, with its tokenizer.json.

    Raises ValueError if there is no tokenizer, or for a text without tokens.
    """
    folder = Path(folder).expanduser()
    model, path = load_hf(folder), folder / "tokenizer.json"
    if not path.is_file():
        raise ValueError(f"no file at {path}: the text cannot be cut into the model's tokens without it")
    tokenizer = Tokenizer.from_file(str(path))
    ids = tokenizer.encode(text).ids
    if not ids:
        raise ValueError(f"the text {text!r} has no tokens: give the model a word to begin with")
    for _ in range(n):
        ids.append(model(torch.tensor([ids[-model.context :]]))[0, -1].argmax().item())
    return tokenizer.decode(ids)


# Masks and angles that older files store, and the head where it is the embedding's own matrix.
IGNORED = (".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq", "lm_head.weight")


def _config(folder: Path) -> dict:
    path = folder / "config.json"
    if not path.is_file():
        raise ValueError(f"no file at {path}: expected a folder as `save_pretrained` writes it")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error


def _tensors(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of all *.safetensors files, in float32, without the prefix that depends on who saved them."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ValueError(f"no *.safetensors in {folder}: pickled weights (*.bin) are not read")
    found = {}
    for file in files:
        try:
            found |= load_file(file)
        except SafetensorError as error:
            raise ValueError(f"{file} is damaged: {error}") from error
    return {name.removeprefix("transformer.").removeprefix("model."): t.float() for name, t in found.items()}


def _take(theirs: dict[str, torch.Tensor], name: str) -> torch.Tensor:
    """Remove a tensor from what was read, so that what is left over was not expected."""
    if name not in theirs:
        raise ValueError(f"the weights have no {name!r}: there are {sorted(theirs)[:8]} ...")
    return theirs.pop(name)


def _expect(config: dict, **settings) -> None:
    """The settings that these parts make; one that is not given has its usual value, which is the first."""
    for name, allowed in settings.items():
        if (found := config.get(name, allowed[0])) not in allowed:
            raise ValueError(f"{name} is {found!r}: these parts make {' or '.join(map(repr, allowed))}")


def _gpt2(config: dict) -> block.Decoder:
    width = config["n_embd"]
    _expect(
        config,
        activation_function=["gelu_new"],
        n_inner=[None, 4 * width],
        scale_attn_weights=[True],
        scale_attn_by_inverse_layer_idx=[False],
        tie_word_embeddings=[True],
    )
    return block.Decoder(
        config["vocab_size"],
        config["n_positions"],
        width,
        config["n_layer"],
        config["n_head"],
        feed_forward=partial(block.FeedForward, approximate="tanh"),
        norm=partial(nn.LayerNorm, eps=config.get("layer_norm_epsilon", 1e-5)),
    )


def _from_gpt2(theirs: dict[str, torch.Tensor], name: str) -> torch.Tensor:
    """The tensor for our `name`."""
    whole = {"embedding.weight": "wte.weight", "positions.table.weight": "wpe.weight"}
    whole |= {"norm.weight": "ln_f.weight", "norm.bias": "ln_f.bias"}
    if name in whole:
        return _take(theirs, whole[name])
    _, layer, *part, kind = name.split(".")
    tensor = _take(theirs, f"h.{layer}.{GPT2_NAMES['.'.join(part)]}.{kind}")
    return tensor.T if tensor.ndim == 2 else tensor


def _llama(config: dict) -> block.Decoder:
    width, n_heads = config["hidden_size"], config["num_attention_heads"]
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    _expect(config, hidden_act=["silu"], head_dim=[None, width // n_heads])
    _expect({"rope_type": rope.get("type", "default")} | rope, rope_type=["default"])
    return block.Decoder(
        config["vocab_size"],
        config["max_position_embeddings"],
        width,
        config["num_hidden_layers"],
        n_heads,
        attention=partial(
            block.Attention,
            n_kv_heads=config.get("num_key_value_heads"),
            rotary_base=rope.get("rope_theta", config.get("rope_theta", 10_000.0)),
            bias=config.get("attention_bias", False),
        ),
        feed_forward=partial(block.SwiGLU, d_hidden=config["intermediate_size"], bias=config.get("mlp_bias", False)),
        norm=partial(nn.RMSNorm, eps=config["rms_norm_eps"]),
        positions=no_positions,
        tied=config.get("tie_word_embeddings", False),
    )


def _from_llama(theirs: dict[str, torch.Tensor], name: str) -> torch.Tensor:
    """The tensor for our `name`."""
    whole = {"embedding.weight": "embed_tokens.weight", "norm.weight": "norm.weight", "head.weight": "lm_head.weight"}
    if name in whole:
        return _take(theirs, whole[name])
    _, layer, *part, kind = name.split(".")
    return torch.cat([_take(theirs, f"layers.{layer}.{their}.{kind}") for their in LLAMA_NAMES[".".join(part)]])
