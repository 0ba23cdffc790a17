"""GPT-2, Llama and Mistral as others store them: what their settings are called, in a folder and in a GGUF file.

A new kind is a table of names, or another kind's, and a function that takes the settings; `FOLDERS` and `GGUFS` list
them by the word that stands in the file. A GGUF file's word for a Mistral is "llama".
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from shared.hf_names import GGUF_NAMES, GGUF_Q_K_V, GPT2_NAMES, LLAMA_NAMES
from shared.hf_settings import Config, Settings
from shared.weights_files import Stored


@dataclass(frozen=True)
class Kind:
    """How one kind of file is read.

    settings: from the file's own, and from its tensors by name. names: of our parts, there; {} is the layer, several
    names are one below the other. prefix: may stand before the names. transposed: matrices stored (in, out). paired:
    queries and keys whose rows are stored in the order 0, d / 2, 1, d / 2 + 1, ... of each head: numbers that are
    rotated together are neighbours there. ignored: tensors that a model is whole without.
    """

    settings: Callable[[Config, dict[str, Stored]], Settings]
    names: dict[str, list[str]]
    prefix: str = ""
    transposed: tuple[str, ...] = ()
    paired: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()


# Settings that change what a model computes, and the values that are read. The first is meant where none is given.
FOLDER_ALLOWS = {
    "quantization_config": [None],
    "quantization": [None],
    "compression_config": [None],
    "auto_map": [None],  # code of its own
    "transformers_weights": [None],  # a file of another name
    "is_encoder_decoder": [False],
    "add_cross_attention": [False],
    "is_causal": [True],
    "use_bidirectional_attention": [None, False],
    "sliding_window": [None],
    "attention_chunk_size": [None],
    "attn_logit_softcapping": [None],
    "final_logit_softcapping": [None],
    "logit_scale": [None, 1],
    "partial_rotary_factor": [None, 1],
    "rope_traditional": [None, False],
    "layer_types": [None],
    "num_local_experts": [None],
}
GPT2_ALLOWS = {"scale_attn_weights": [True], "scale_attn_by_inverse_layer_idx": [False]}
ROPE_ALLOWS = {"rope_type": ["default"], "type": ["default"], "factor": [None, 1], "partial_rotary_factor": [None, 1]}
GGUF_ALLOWS = {
    "rope.scaling.type": ["none"],
    "rope.scaling.factor": [1],
    "expert_count": [0],
    "expert_used_count": [0],
    "attention.causal": [True],
    "tensor_data_layout": ["Meta AI original pth"],
}

GPT2_PARTS = {"kind": "gpt2", "norm": "layer", "gated": False, "rotary_base": None, "window": None}
GPT2_PARTS |= {"attention_bias": True, "feed_forward_bias": True}
LLAMA_PARTS = {"kind": "llama", "norm": "rms", "gated": True, "window": None}
MISTRAL_MEANS = {"num_key_value_heads": 8}  # where it is not given; null is as many as heads

GPT2_SIZES = {"vocab_size": "vocab_size", "context": "n_positions"}
GPT2_SIZES |= {"d_model": "n_embd", "n_layers": "n_layer", "n_heads": "n_head"}
LLAMA_SIZES = {"vocab_size": "vocab_size", "context": "max_position_embeddings", "d_hidden": "intermediate_size"}
LLAMA_SIZES |= {"d_model": "hidden_size", "n_layers": "num_hidden_layers", "n_heads": "num_attention_heads"}
GGUF_SIZES = {"context": "context_length", "d_hidden": "feed_forward_length"}
GGUF_SIZES |= {"d_model": "embedding_length", "n_layers": "block_count", "n_heads": "attention.head_count"}


def _gpt2_folder(config: Config, tensors: dict[str, Stored]) -> Settings:
    sizes = config.sizes(GPT2_SIZES)
    width, heads = sizes["d_model"], sizes["n_heads"]
    config.expect(FOLDER_ALLOWS | GPT2_ALLOWS)
    config.expect({"hidden_size": [None, width], "num_attention_heads": [None, heads]})  # other words for the same
    return Settings(
        **GPT2_PARTS | sizes,
        n_kv_heads=heads,
        d_head=config.d_head(width, heads, "head_dim"),
        d_hidden=config.size("n_inner", 4 * width),
        norm_eps=config.number("layer_norm_epsilon", 1e-5),
        activation=config.one_of("activation_function", GELUS, "gelu_new"),
        tied=config.flag("tie_word_embeddings", True),
    )


GELUS = {"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu": "gelu"}


def _llama_folder(config: Config, tensors: dict[str, Stored]) -> Settings:
    sizes = config.sizes(LLAMA_SIZES)
    config.expect(FOLDER_ALLOWS)
    return Settings(
        **LLAMA_PARTS | sizes,
        n_kv_heads=config.size("num_key_value_heads", sizes["n_heads"]),
        d_head=config.d_head(sizes["d_model"], sizes["n_heads"], "head_dim"),
        norm_eps=config.number("rms_norm_eps", 1e-6),
        activation=config.one_of("hidden_act", {"silu": "silu", "swish": "silu"}, "silu"),
        rotary_base=_rotary_base(config),
        attention_bias=config.flag("attention_bias", False),
        feed_forward_bias=config.flag("mlp_bias", False),
        tied=config.flag("tie_word_embeddings", False),
    )


def _mistral_folder(config: Config, tensors: dict[str, Stored]) -> Settings:
    """A Llama with a window: null is none, not given is Mistral 7B's."""
    rest = Config(MISTRAL_MEANS | config.values | {"sliding_window": None}, config.source)
    return replace(_llama_folder(rest, tensors), kind="mistral", window=config.size_or_none("sliding_window", 4096))


def _rotary_base(config: Config) -> float:
    """From whichever of three places it stands in. Raises ValueError where they differ, and for rotations that are
    scaled, cover a part of a head, or differ from layer to layer."""
    parts = [config.part("rope_parameters"), config.part("rope_scaling")]
    bases = {place.number("rope_theta") for place in [config, *parts] if "rope_theta" in place.values}
    for part in parts:
        part.expect(ROPE_ALLOWS)
        part.nothing_else()
    if len(bases) > 1:
        raise ValueError(f"rope_theta is {sorted(bases)} in {config.source}: expected one value")
    return bases.pop() if bases else 10_000.0


def _gguf(config: Config, tensors: dict[str, Stored], **rest) -> Settings:
    """What the two kinds say alike. Every setting of a GGUF file is known here, or refused."""
    sizes = config.sizes(GGUF_SIZES)
    d_head = config.d_head(sizes["d_model"], sizes["n_heads"], "attention.key_length")
    config.expect(GGUF_ALLOWS | {"attention.value_length": [d_head], "rope.dimension_count": [d_head]})
    words = tensors["token_embd.weight"].shape[0] if "token_embd.weight" in tensors else None
    n_kv_heads = config.size("attention.head_count_kv", sizes["n_heads"])
    vocab_size, tied = config.size("vocab_size", words), "output.weight" not in tensors
    config.nothing_else()
    return Settings(**sizes | rest, vocab_size=vocab_size, n_kv_heads=n_kv_heads, d_head=d_head, tied=tied)


def _gpt2_gguf(config: Config, tensors: dict[str, Stored]) -> Settings:
    norm_eps = config.number("attention.layer_norm_epsilon")
    return _gguf(config, tensors, **GPT2_PARTS, norm_eps=norm_eps, activation="gelu_tanh")


def _llama_gguf(config: Config, tensors: dict[str, Stored]) -> Settings:
    return _gguf(
        config,
        tensors,
        **LLAMA_PARTS,
        norm_eps=config.number("attention.layer_norm_rms_epsilon"),
        activation="silu",
        rotary_base=config.number("rope.freq_base", 10_000.0),
        attention_bias="blk.0.attn_q.bias" in tensors,
        feed_forward_bias="blk.0.ffn_up.bias" in tensors,
    )


LLAMA_ANGLES = ("layers.{}.self_attn.rotary_emb.inv_freq",)
FOLDERS = {
    "gpt2": Kind(
        _gpt2_folder,
        GPT2_NAMES,
        prefix="transformer.",
        transposed=("h.{}.attn.c_attn", "h.{}.attn.c_proj", "h.{}.mlp.c_fc", "h.{}.mlp.c_proj"),
        ignored=("h.{}.attn.bias", "h.{}.attn.masked_bias"),  # masks
    ),
    "llama": Kind(_llama_folder, LLAMA_NAMES, prefix="model.", ignored=LLAMA_ANGLES),
    "mistral": Kind(_mistral_folder, LLAMA_NAMES, prefix="model.", ignored=LLAMA_ANGLES),
}
GGUFS = {
    "gpt2": Kind(_gpt2_gguf, GGUF_NAMES),
    "llama": Kind(_llama_gguf, GGUF_NAMES | {"blocks.attention.qkv": GGUF_Q_K_V}, paired=tuple(GGUF_Q_K_V[:2])),
}
