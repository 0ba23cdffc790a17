"""Lesson 10: grouped and latent attention, conversion and merges against independent references. (Its clinic:
test_clinics.py.)"""

from functools import partial
from types import SimpleNamespace

import gqa
import gqa_merge
import gqa_shapes
import pytest
import torch
from folded import solutions
from gqa_checks import EXERCISES
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.deepseek_v3.configuration_deepseek_v3 import DeepseekV3Config
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3Attention, DeepseekV3RotaryEmbedding

from shared.clinic import examine
from shared.hf_model import load_model
from shared.memory import peak_bytes
from shared.rotary import no_positions
from shared.tiny_lm import TinyLM

FLOAT = torch.float64
EXACT = {"atol": 1e-10, "rtol": 0}  # float64 rounds at 1e-16; sums of under 1,000 terms of size 1 to 10
WAYS = {"grouped": gqa.attend_grouped, "repeated": gqa.attend_repeated, "expanded": gqa.attend_expanded}
LAYERS, VOCABULARY = 3, 50
sizes = st.integers(1, 5)


def draw(*shape, seed=0, dtype=FLOAT):
    """Numbers of size 1."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=FLOAT).to(dtype)


def tokens(batch=2, T=9):
    """Words of no meaning."""
    return torch.randint(VOCABULARY, (batch, T), generator=torch.Generator().manual_seed(0))


@settings(max_examples=80, deadline=None)
@given(way=st.sampled_from(list(WAYS)), B=sizes, K=sizes, G=sizes, T=sizes, more=st.integers(0, 9), d=st.integers(1, 9))
def test_each_way_is_the_fused_operation(way, B, K, G, T, more, d):
    """Values, and gradients of queries, keys and values, for all sizes, with a mask and without."""
    S = T + more
    q, k, v = draw(B, K * G, T, d), draw(B, K, S, d, seed=1), draw(B, K, S, d, seed=2)
    given = [x.requires_grad_() for x in (q, k, v)]
    causal = torch.ones(T, S, dtype=torch.bool).tril(more)
    odd = causal & (torch.rand(B, 1, T, S, generator=torch.Generator().manual_seed(3)) < 0.7)
    odd[..., more:] |= torch.eye(T, dtype=torch.bool)
    for mask in (None, odd):
        found = WAYS[way](q, k, v, mask)
        wanted = F.scaled_dot_product_attention(q, k, v, causal if mask is None else mask, enable_gqa=True)
        torch.testing.assert_close(found, wanted, **EXACT)
        gradients = (torch.autograd.grad(x.square().sum(), given) for x in (found, wanted))
        for ours, theirs in zip(*gradients, strict=True):
            torch.testing.assert_close(ours, theirs, **EXACT)


@pytest.mark.parametrize("way", WAYS)
def test_scores_of_a_thousand_and_half_precision(way):
    """A softmax of large scores is no NaN; bfloat16, which rounds at 1/256, stays near float64."""
    q, k, v = 100 * draw(2, 6, 5, 8), 100 * draw(2, 3, 7, 8, seed=1), draw(2, 3, 7, 8, seed=2)
    assert WAYS[way](q.float(), k.float(), v.float(), None).isfinite().all()
    low = [(x / 100 if x is not v else x).bfloat16() for x in (q, k, v)]
    found, wanted = WAYS[way](*low, None), WAYS[way](*(x.double() for x in low), None)
    assert found.dtype == torch.bfloat16
    assert (found - wanted).abs().max() < 8 / 256  # values of at most 4; scores, weights and sums are rounded


def test_what_each_way_copies():
    """One query over 4,000 tokens, in bytes: repeating copies keys and values for every query head at once, expanding
    one after the other, the grouped product neither."""
    q, k, v = draw(2, 8, 1, 64), draw(2, 2, 4000, 64), draw(2, 2, 4000, 64)
    whole, scores = 2 * 8 * 4000 * 64 * 8, 2 * 8 * 4000 * 8  # one of keys or values for 8 heads; one of scores
    most = {name: peak_bytes(partial(way, q, k, v)) for name, way in WAYS.items()}
    assert most["grouped"] <= 2 * scores + 10_000
    assert 2 * whole <= most["repeated"] <= 2 * whole + 2 * scores + 10_000
    assert whole <= most["expanded"] <= whole + 2 * scores + 10_000


def llama(n_kv_heads, folder):
    """transformers' Llama with large random weights, six query heads, saved in a folder."""
    torch.manual_seed(0)
    of = {"vocab_size": VOCABULARY, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": LAYERS}
    heads = {"num_attention_heads": 6, "num_key_value_heads": n_kv_heads, "initializer_range": 0.4}
    model = LlamaForCausalLM(LlamaConfig(**of, **heads, bos_token_id=None, eos_token_id=None)).eval()
    model.save_pretrained(folder)
    return model.requires_grad_(False).double()


def with_ours(model, way):
    """The house's model with the lesson's layer in each block, in float64."""
    for block in model.blocks:
        layer = block.attention
        how = {"n_kv_heads": layer.n_kv_heads, "bias": False, "rotary_base": layer.rotary_base, "attend": WAYS[way]}
        block.attention = gqa.GroupedAttention(24, 6, **how)
        block.attention.load_state_dict(layer.state_dict())
    return model.double().requires_grad_(False)


@pytest.mark.parametrize("n_kv_heads", [1, 2, 3, 6])
def test_the_logits_are_those_of_transformers_llama(n_kv_heads, tmp_path):
    """The same weights through a saved folder, whole and with a cache, whose bytes are those of theirs."""
    theirs = llama(n_kv_heads, tmp_path)
    found = theirs(tokens(), use_cache=True)
    for way in WAYS:
        ours = with_ours(load_model(tmp_path), way)
        cache = ours.new_cache(2, 9)
        torch.testing.assert_close(ours(tokens()), found.logits, atol=1e-5, rtol=0)  # their angles are float32
        parts = torch.cat([ours(part, cache) for part in tokens().split([4, 1, 4], dim=1)], dim=1)
        torch.testing.assert_close(parts, ours(tokens()), **EXACT)
    held = cache.keys.nbytes + cache.values.nbytes
    layers = found.past_key_values.layers
    assert held == sum(layer.keys.nbytes + layer.values.nbytes for layer in layers)
    assert held == gqa.cache_bytes(9, LAYERS, n_kv_heads, 4, batch=2, bytes_per_number=8)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_converted_model_is_their_llama_with_pooled_matrices(n, tmp_path):
    """Their separate matrices, averaged head by head, against ours, whose fused one is pooled."""
    (tmp_path / "small").mkdir()
    whole, small = llama(6, tmp_path), llama(n, tmp_path / "small")
    weights = dict(whole.state_dict())
    for name in [name for name in weights if "k_proj" in name or "v_proj" in name]:
        heads = weights[name].split(4)
        groups = [heads[i : i + 6 // n] for i in range(0, 6, 6 // n)]
        weights[name] = torch.cat([sum(group) / len(group) for group in groups])
    small.load_state_dict(weights)
    ours = gqa.pool_model(load_model(tmp_path).double(), n)
    torch.testing.assert_close(ours(tokens()), small(tokens()).logits, atol=1e-5, rtol=0)  # their angles are float32


@pytest.mark.parametrize("absorbed", [True, False])
def test_latent_attention_is_deepseeks(absorbed):
    """transformers' attention of DeepSeek-V3 with the same weights, its rotary pairs in halves."""
    of = {"hidden_size": 24, "num_attention_heads": 6, "num_key_value_heads": 6, "q_lora_rank": None}
    of |= {"kv_lora_rank": 10, "qk_nope_head_dim": 5, "v_head_dim": 5, "qk_rope_head_dim": 6, "rope_interleave": False}
    config = DeepseekV3Config(**of, num_hidden_layers=1, attn_implementation="eager")
    theirs = DeepseekV3Attention(config, 0).double()
    ours = gqa.LatentAttention(24, 6, d_latent=10, d_rotary=6, d_content=5, absorbed=absorbed).double()
    names = {"query": "q_proj", "down": "kv_a_proj_with_mqa", "norm": "kv_a_layernorm", "up": "kv_b_proj"}
    for i, (name, other) in enumerate((names | {"proj": "o_proj"}).items()):
        weight = draw(*getattr(ours, name).weight.shape, seed=i)
        for part in (getattr(ours, name), getattr(theirs, other)):
            part.weight = torch.nn.Parameter(weight)
    x, positions = draw(2, 9, 24, seed=9), torch.arange(9)[None]
    angles = DeepseekV3RotaryEmbedding(config)(x, positions)
    hidden = torch.full((9, 9), -torch.inf, dtype=FLOAT).triu(1)[None, None]
    wanted, _ = theirs(x, angles, hidden)
    torch.testing.assert_close(ours(x), wanted, atol=1e-4, rtol=0)  # their angles are float32; outputs of size 50


def story_like(n_kv_heads=3, bias=True):
    """A decoder of large random weights, with the house's layer."""
    attention = partial(gqa.GroupedAttention, n_kv_heads=n_kv_heads, bias=bias)
    model = TinyLM(VOCABULARY, 32, 24, LAYERS, 6, attention=attention, positions=no_positions).double()
    for seed, parameter in enumerate(model.parameters()):
        parameter.data = draw(*parameter.shape, seed=seed) * 0.3
    return model.requires_grad_(False)


def test_merging_loses_nothing_where_heads_are_images_of_one():
    """Keys that differ by a complex factor for each rotary pair, values by a matrix: one head holds them all, whose
    mean is another model."""
    model = story_like()
    for block in model.blocks:
        layer = block.attention
        q, k, v = layer.qkv.weight.unflatten(0, (-1, 4)).split_with_sizes([6, 3, 3])
        factor = torch.complex(draw(3, 2, 1), draw(3, 2, 1, seed=1))
        k = gqa_merge.real_pairs(factor * gqa_merge.complex_pairs(k[:1], 1), 1)
        v = draw(3, 4, 4, seed=2) @ v[:1]
        layer.qkv.weight.copy_(torch.cat([q, k, v]).flatten(0, 1))
        layer.qkv.bias[24:] = 0
    small = gqa_merge.merge_model(model, gqa_merge.moments(model, tokens(20)), 1)
    cache = small.new_cache(2, 9)
    assert cache.keys.shape[2] == 1
    far = torch.arange(9) * 3 + 5  # other positions than the moments were taken at
    for positions in (None, far):
        torch.testing.assert_close(small(tokens(), None, positions), model(tokens(), None, positions), **EXACT)
    torch.testing.assert_close(small(tokens(), cache), model(tokens()), **EXACT)
    assert (gqa.pool_model(model, 1)(tokens()) - model(tokens())).abs().max() > 0.1


@pytest.mark.parametrize("bias", [True, False])
def test_a_low_rank_model_is_the_merged_one(bias):
    """One complex number of each pair and as many values as a head has: the same logits, twice as many if not merged;
    of full rank both are the model itself, which neither changes."""
    model = story_like(bias=bias)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = gqa_merge.moments(model, tokens(20))
    low, merged = gqa_merge.low_rank(model, found, key_rank=1, value_rank=4), gqa_merge.merge_model(model, found, 1)
    torch.testing.assert_close(low(tokens()), merged(tokens()), **EXACT)
    assert (low(tokens()) - model(tokens())).abs().max() > 0.01
    for whole in (gqa_merge.low_rank(model, found, key_rank=3, value_rank=12), gqa_merge.merge_model(model, found, 3)):
        torch.testing.assert_close(whole(tokens()), model(tokens()), **EXACT)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


@settings(max_examples=40, deadline=None)
@given(n=st.integers(2, 7), data=st.data(), seed=st.integers(0, 999), is_complex=st.booleans())
def test_no_other_basis_is_better(n, data, seed, is_complex):
    """The mean weighted error of `basis` is the sum of the eigenvalues that it leaves out: the least that there is."""
    rank = data.draw(st.integers(1, n))

    def square(seed):
        x = draw(n, n, seed=seed)
        x = torch.complex(x, draw(n, n, seed=seed + 5000)) if is_complex else x
        return x @ x.mH

    moment, metric = square(seed), square(seed + 1000)
    down, up = gqa_merge.basis(moment, metric, rank)
    left = torch.eye(n, dtype=moment.dtype) - up @ down
    error = (metric @ left @ moment @ left.mH).diagonal().sum().real
    least = torch.linalg.eigvals(metric @ moment).real.sort().values[: n - rank].sum()
    torch.testing.assert_close(error, least, rtol=1e-6, atol=1e-6 * float((metric @ moment).diagonal().sum().real))


def test_what_cannot_work_is_refused():
    """A rank or a number of heads that there is not."""
    model = story_like()
    found = gqa_merge.moments(model, tokens())
    with pytest.raises(ValueError, match="rank is 13"):
        gqa_merge.low_rank(model, found, value_rank=13)
    with pytest.raises(ValueError, match="rank is 0"):
        gqa_merge.low_rank(model, found, key_rank=0)
    with pytest.raises(ValueError, match="3 key heads to 2"):
        gqa_merge.merge_model(model, found, 2)


def test_published_shapes():
    """Weights counted from the sizes of Llama's matrices; Llama 3's GiB at 8,192 tokens; DeepSeek-V2's saving."""
    widths = {"Llama 2 7B": (32_000, 11_008), "Llama 2 70B": (32_000, 28_672), "Llama 3.1 8B": (128_256, 14_336)}
    widths |= {"Llama 3.1 405B": (128_256, 53_248), "SmolLM2-135M": (49_152, 1536)}
    for shape in (it for it in gqa_shapes.SHAPES if it.name in widths):
        (vocabulary, hidden), width = widths[shape.name], shape.n_heads * shape.d_head
        layer = 2 * width**2 + 2 * width * shape.n_kv_heads * shape.d_head + 3 * width * hidden + 2 * width
        heads = 1 if shape is gqa_shapes.SMOLLM2_135M else 2  # its head is its embedding
        assert shape.weights == heads * vocabulary * width + shape.n_layers * layer + width
    llama_3 = gqa_shapes.LLAMA_3_1_8B
    assert 2 * 8192 * llama_3.cached() == 2**30
    assert gqa_shapes.crossing(llama_3, 32) == llama_3.weights / (2 * 32 * 32 * 128)
    assert gqa_shapes.share(llama_3, gqa_shapes.crossing(llama_3), 1) == pytest.approx(0.5)
    assert gqa_shapes.saved(gqa_shapes.LLAMA_2_7B, 4096, 9) == 0
    assert gqa_shapes.DEEPSEEK_V3.cached() == 61 * 576


def test_a_bias_stays_trainable_and_others_moments_are_refused():
    model = TinyLM(VOCABULARY, 16, 24, 2, 6, attention=partial(gqa.GroupedAttention, n_kv_heads=3))
    for block in model.blocks:
        block.attention.qkv.weight.requires_grad_(False)
    layer = gqa.pool_model(model, 1).blocks[0].attention
    assert layer.qkv.bias.requires_grad and not layer.qkv.weight.requires_grad
    other = TinyLM(VOCABULARY, 16, 24, 2, 6, attention=partial(gqa.GroupedAttention, n_kv_heads=6, bias=False))
    with pytest.raises(ValueError, match="another model's"):
        gqa_merge.merge_model(model, gqa_merge.moments(other, tokens()), 1)


def test_the_folded_solutions_pass():
    """As a reader sees them."""
    assert examine(SimpleNamespace(**solutions(gqa, "gqa_vis.ipynb", torch=torch)), EXERCISES).passes
