"""What our tensors are called elsewhere.

    blocks.3.attention.qkv.weight       ours
    h.3.attn.c_attn.weight              a GPT-2 of Hugging Face, where matrices are stored (in, out): ours are (out, in)
    layers.3.self_attn.q_proj.weight    a Llama or Mistral of Hugging Face: queries, keys and values one below the other
    blk.3.attn_q.weight                 a Llama as a GGUF file

Without the endings "weight" and "bias"; {} is the layer's number.
"""

GPT2_NAMES = {  # ours: theirs
    "embedding": ["wte"],
    "positions.table": ["wpe"],
    "blocks.norm_1": ["h.{}.ln_1"],
    "blocks.attention.qkv": ["h.{}.attn.c_attn"],
    "blocks.attention.proj": ["h.{}.attn.c_proj"],
    "blocks.norm_2": ["h.{}.ln_2"],
    "blocks.feed_forward.up": ["h.{}.mlp.c_fc"],
    "blocks.feed_forward.proj": ["h.{}.mlp.c_proj"],
    "norm": ["ln_f"],
    "head": ["lm_head"],
}
LLAMA_NAMES = {
    "embedding": ["embed_tokens"],
    "blocks.norm_1": ["layers.{}.input_layernorm"],
    "blocks.attention.qkv": [f"layers.{{}}.self_attn.{part}_proj" for part in "qkv"],
    "blocks.attention.proj": ["layers.{}.self_attn.o_proj"],
    "blocks.norm_2": ["layers.{}.post_attention_layernorm"],
    "blocks.feed_forward.gate": ["layers.{}.mlp.gate_proj"],
    "blocks.feed_forward.up": ["layers.{}.mlp.up_proj"],
    "blocks.feed_forward.proj": ["layers.{}.mlp.down_proj"],
    "norm": ["norm"],
    "head": ["lm_head"],
}
GGUF_NAMES = {
    "embedding": ["token_embd"],
    "positions.table": ["position_embd"],
    "blocks.norm_1": ["blk.{}.attn_norm"],
    "blocks.attention.qkv": ["blk.{}.attn_qkv"],
    "blocks.attention.proj": ["blk.{}.attn_output"],
    "blocks.norm_2": ["blk.{}.ffn_norm"],
    "blocks.feed_forward.gate": ["blk.{}.ffn_gate"],
    "blocks.feed_forward.up": ["blk.{}.ffn_up"],
    "blocks.feed_forward.proj": ["blk.{}.ffn_down"],
    "norm": ["output_norm"],
    "head": ["output"],
}
GGUF_Q_K_V = ["blk.{}.attn_q", "blk.{}.attn_k", "blk.{}.attn_v"]
