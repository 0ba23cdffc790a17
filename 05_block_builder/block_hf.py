"""Somebody else's GPT-2 or Llama in the `Decoder` of `block.py`, without AutoModel.

    model = load_hf("path/to/gpt2")          # a folder with config.json and *.safetensors, or a GGUF file

It shows what those models are: which parts are in which slots. What their weights are called stands in
`shared/hf_names.py`; `shared.hf` reads them.
"""

from functools import partial
from pathlib import Path

import block
from tokenizers import Tokenizer
from torch import nn

from shared.generation import generate, greedy
from shared.hf import Settings, read_model
from shared.rotary import no_positions


def load_hf(path: str | Path) -> block.Decoder:
    """A GPT-2 or Llama in eval mode, float32. path: as for `shared.hf.read_model`.

    A Mistral without a window is a Llama. Raises ValueError for what `read_model` refuses, for a window, and for sizes
    that these parts do not have.
    """
    settings, tensors = read_model(path)
    if settings.n_heads * settings.d_head != settings.d_model:
        sizes = f"{settings.n_heads} heads {settings.d_head} wide in a model {settings.d_model} wide"
        raise ValueError(f"{path} has {sizes}: the heads of `block.Attention` share the model's width")
    if settings.window is not None:
        raise ValueError(f"{path} has a window of {settings.window} tokens: `block.Attention` sees the whole text")
    slots = gpt2(settings) if settings.kind == "gpt2" else llama(settings)
    sizes = (settings.vocab_size, settings.context, settings.d_model, settings.n_layers, settings.n_heads)
    model = block.Decoder(*sizes, tied=settings.tied, **slots)
    if settings.tied:
        tensors["head.weight"] = tensors["embedding.weight"]
    model.load_state_dict(tensors)
    return model.eval()


def gpt2(settings: Settings) -> dict:
    """The slots of a GPT-2: what a Decoder has by default, and GELU in its tanh form."""
    if settings.d_hidden != 4 * settings.d_model:
        raise ValueError(f"a feed-forward {settings.d_hidden} wide: `block.FeedForward` is {4 * settings.d_model} wide")
    approximate = {"gelu": "none", "gelu_tanh": "tanh"}[settings.activation]
    return {
        "feed_forward": partial(block.FeedForward, approximate=approximate),
        "norm": partial(nn.LayerNorm, eps=settings.norm_eps),
    }


def llama(settings: Settings) -> dict:
    """The slots of a Llama: shared keys and values, rotary positions, SwiGLU, RMSNorm, and mostly no biases."""
    return {
        "attention": partial(
            block.Attention,
            n_kv_heads=settings.n_kv_heads,
            rotary_base=settings.rotary_base,
            bias=settings.attention_bias,
        ),
        "feed_forward": partial(block.SwiGLU, d_hidden=settings.d_hidden, bias=settings.feed_forward_bias),
        "norm": partial(nn.RMSNorm, eps=settings.norm_eps),
        "positions": no_positions,
    }


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
    return tokenizer.decode(ids + generate(model, [ids], n, rules=[greedy])[0])
