"""Other people's models in the house's own decoder.

model = load_model("path/to/model.gguf")          # or a folder: see shared.hf
logits = model(tokens)
"""

from functools import partial
from pathlib import Path

import torch
from torch import nn

from shared.hf import Settings, read_model
from shared.layers import CausalAttention, FeedForward, LearnedPositions, SwiGLU
from shared.rotary import RotaryAttention, no_positions
from shared.tiny_lm import TinyLM


def load_model(path: str | Path) -> TinyLM:
    """A GPT-2, Llama or Mistral in eval mode, float32, on the CPU. Most weights are the tensors read, not copies.

    Raises ValueError for what `read_model` refuses, and for widths that `TinyLM`'s parts do not have.
    """
    settings, tensors = read_model(path)
    parts = slots(settings)
    sizes = (settings.vocab_size, settings.context, settings.d_model, settings.n_layers, settings.n_heads)
    with torch.device("meta"):  # the first weights are not drawn, for all are replaced
        model = TinyLM(*sizes, tied=settings.tied, **parts)
    if settings.gated:
        _join_gates(tensors)
    model.load_state_dict(tensors, assign=True)
    return model.eval()


def _join_gates(tensors: dict[str, torch.Tensor]) -> None:
    """Put each gate's rows above those of its up, as `SwiGLU` has them."""
    for name in [name for name in tensors if ".feed_forward.gate." in name]:
        parts = [tensors.pop(name.replace("gate", part)) for part in ("gate", "up")]
        tensors[name.replace("gate", "gate_up")] = torch.cat(parts)


def slots(settings: Settings) -> dict:
    """What stands in the decoder's slots. Raises ValueError for widths that no part has."""
    width, hidden, base = settings.d_model, settings.d_hidden, settings.rotary_base
    if settings.n_heads * settings.d_head != width:
        raise ValueError(f"{settings.n_heads} heads {settings.d_head} wide in a model {width} wide: expected {width}")
    if not settings.gated and hidden != 4 * width:
        raise ValueError(f"a feed-forward {hidden} wide in a model {width} wide: expected {4 * width}")
    attention = CausalAttention if base is None else partial(RotaryAttention, rotary_base=base)
    if settings.gated:
        feed_forward = partial(SwiGLU, d_hidden=hidden, bias=settings.feed_forward_bias)
    else:
        feed_forward = partial(FeedForward, approximate={"gelu": "none", "gelu_tanh": "tanh"}[settings.activation])
    heads = {"n_kv_heads": settings.n_kv_heads, "bias": settings.attention_bias, "window": settings.window}
    return {
        "attention": partial(attention, **heads),
        "feed_forward": feed_forward,
        "norm": partial(nn.RMSNorm if settings.norm == "rms" else nn.LayerNorm, eps=settings.norm_eps),
        "positions": LearnedPositions if base is None else no_positions,
    }
