"""kv_weights: each kind of product against a plain one, what is refused, and the real model's own 4 bits.

Holds the whole real model: with each kind of it in turn it takes 1.4 GB.
"""

import re
from functools import partial

import gguf
import kv_cache
import kv_loops
import kv_weights
import kv_work
import pytest
import torch
from torch import nn

from shared.hf import pairs_to_halves
from shared.layers import SwiGLU
from shared.rotary import RotaryAttention, no_positions
from shared.texts import texts
from shared.tiny_lm import TinyLM

HALF_STEP = 2**-8  # bfloat16 has 8 significant bits: a number is rounded by at most this share of it
V, WIDTH, HIDDEN, LAYERS = 48, 64, 96, 2
PROMPT, NEW, TEXTS = 64, 40, ("letter", "glacier", "rules")


def llama(**how):
    """A small Llama with two query heads for each key head; widths that every kernel takes."""
    torch.manual_seed(0)
    parts = {"attention": partial(RotaryAttention, n_kv_heads=2, bias=False), "norm": nn.RMSNorm}
    parts |= {"feed_forward": partial(SwiGLU, d_hidden=HIDDEN), "positions": no_positions}
    return TinyLM(V, 32, WIDTH, LAYERS, 4, **(parts | how)).eval()


@pytest.fixture
def drawn():
    """A matrix (48, 96) with a row of zeros, a bias, and five tokens, one of zeros."""
    generator = torch.Generator().manual_seed(0)
    weight, bias, x = (torch.randn(*shape, generator=generator) for shape in ((48, 96), (48,), (1, 5, 96)))
    weight[3], x[0, 2] = 0, 0
    return weight, bias, x


def rounded(x):
    """To bfloat16, as float64."""
    return x.bfloat16().double()


def stands_for(kind, weight):
    """The matrix that a kind's buffers stand for, in float64, and the sum of the sizes of what it is added from."""
    codes, scale = (it.double() for it in kv_weights.to_int8(weight, torch.bfloat16))
    groups, step, low = kv_weights.to_groups(weight)
    eights, its = kv_weights.to_int8(weight.unflatten(1, (-1, 32)))
    high, its = (eights.int() + 128) // 16, rounded(its)
    step, middle = rounded(step), rounded(low + 8 * step)
    return {
        kv_weights.Bfloat16: (rounded(weight), rounded(weight).abs()),
        kv_weights.Int8: (codes * scale, codes.abs() * scale),
        kv_weights.FourBit: ((groups - 8.0) * step + middle, (groups - 8.0).abs() * step + middle.abs()),
        kv_weights.TwiceFourBit: (eights * its, ((high - 8).abs() * 16 + 16) * its),
    }[kind]


@pytest.mark.parametrize(
    ("kind", "roundings"),
    [(kv_weights.Bfloat16, 1), (kv_weights.Int8, 1), (kv_weights.FourBit, 3), (kv_weights.TwiceFourBit, 3)],
)
def test_a_product_is_that_of_the_matrix_it_stands_for(drawn, kind, roundings):
    """x is rounded beforehand on both sides. The result is rounded once; 4 bits also round (code - 8) * scale, and
    that plus the middle: each by HALF_STEP of what it rounds. Sums in float32 add less than 1 / 1000 of that."""
    weight, bias, x = drawn
    matrix, size = (it.flatten(1) for it in stands_for(kind, weight))
    found = kind(weight)(x)
    assert found.shape == (1, 5, 48) and found.dtype == torch.float32
    bound = roundings * HALF_STEP * 1.001 * rounded(x).abs() @ size.T
    assert ((found - rounded(x) @ matrix.T).abs() <= bound).all()
    assert torch.equal(kind(weight, bias)(x), found + bias)


def test_whole_numbers_on_both_sides_are_exact(drawn, monkeypatch):
    """The sums are int64's, at the largest codes too, and where the kernel refuses. Float32 rounds sum and scales."""
    weight, _, x = drawn
    (codes, scale), (tokens, steps) = kv_weights.to_int8(weight), kv_weights.to_int8(x[0])
    extremes = torch.full((3, 4000), 127, dtype=torch.int8), torch.full((7, 4000), -127, dtype=torch.int8)
    found = kv_weights.Int8xInt8(weight)(x)

    def refuse(*_):
        raise RuntimeError("self.size(0) needs to be greater than 16, but got 5")

    for kernel in (torch._int_mm, refuse):
        monkeypatch.setattr(torch, "_int_mm", kernel)
        for a, b in ((tokens, codes), extremes, (extremes[1][:1], extremes[0])):
            assert torch.equal(kv_weights.int_product(a, b).long(), a.long() @ b.long().T)
        assert torch.equal(kv_weights.Int8xInt8(weight)(x), found)
    wanted = (tokens.long() @ codes.long().T) * steps.double() * scale[:, 0].double()
    torch.testing.assert_close(found[0].double(), wanted, rtol=4 * 2**-24, atol=0)
    assert (found[0, 2] == 0).all() and (found[:, :, 3] == 0).all()


def test_a_token_is_computed_the_same_alone_and_among_others(drawn):
    """Each has a scale of its own, so what a cache holds does not depend on how the text was cut."""
    weight, _, x = drawn
    product = kv_weights.Int8xInt8(weight)
    assert torch.equal(torch.cat([product(token) for token in x.split(1, dim=1)], dim=1), product(x))


def test_codes_are_the_nearest(drawn):
    """Half a step away at most; the ends of a row and of a group are met. Codes come back from what they made."""
    weight = drawn[0]
    codes, scale = kv_weights.to_int8(weight)
    assert ((codes * scale - weight).abs() <= 0.5001 * scale).all() and (codes.abs().amax(1)[:3] == 127).all()
    groups, step, low = kv_weights.to_groups(weight)
    again = (groups * step + low).flatten(1)
    assert ((again - weight).abs() <= 0.5001 * step.repeat_interleave(32, 1).flatten(1)).all()
    assert torch.equal(kv_weights.to_groups(again)[0], groups)
    assert groups.amin(-1).max() == 0 and (groups[4:].amax(-1) == 15).all()


@pytest.mark.parametrize("kind", kv_weights.KINDS)
@pytest.mark.parametrize("tied", [True, False])
def test_a_model_is_stored_and_reads_fewer_bytes(kind, tied):
    """Every product of it, none of the rest; through `cached_step` and the house's cache too. Bytes as counted."""
    before, tokens = llama(tied=tied), torch.arange(24)[None]
    table = before.embedding.weight
    model = kv_weights.store_as(kv_cache.by_cached_step(kv_weights.sharing(before)), kind)
    assert model.embedding.weight is table and len(kv_work.matrices(model)) == 4 * LAYERS + 1
    assert not [it for it in model.modules() if isinstance(it, nn.Linear)]
    in_blocks, outputs = LAYERS * WIDTH * (128 + WIDTH + 3 * HIDDEN), V + LAYERS * (128 + 2 * WIDTH + 2 * HIDDEN)
    head, norms = V * WIDTH, 4 * WIDTH * (2 * LAYERS + 1)
    wanted = {
        "bfloat16": 2 * (in_blocks + head),
        "int8": in_blocks + head + 2 * outputs,
        "int8 x int8": in_blocks + head + 4 * outputs,
        "4-bit": in_blocks // 2 + 4 * in_blocks // 32 + head + 8 * head // 32,
    }
    assert kv_work.weight_bytes(model) == wanted[kind] + norms
    with torch.no_grad():
        logits, found = before(tokens), model(tokens)
        cached = torch.cat([model(part, cache) for cache in [model.new_cache(1)] for part in tokens.split(5, 1)], 1)
    assert (found - logits).norm() < {"4-bit": 0.2}.get(kind, 0.03) * logits.norm()  # a code's share of its range
    assert (cached - found).norm() < 0.01 * logits.norm()


def test_biases_stay():
    """GPT-2's shape."""
    before = TinyLM(V, 32, WIDTH, LAYERS, 4).eval()
    for name, parameter in before.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter)
    tokens = torch.arange(24)[None]
    with torch.no_grad():
        logits = before(tokens)
        found = kv_weights.store_as(before, "bfloat16")(tokens)
    assert (found - logits).norm() < 0.03 * logits.norm()


@pytest.mark.parametrize(
    ("model", "kind", "words"),
    [
        (llama, "int4", "kind is 'int4': expected one of 'bfloat16', 'int8', 'int8 x int8', '4-bit'"),
        (lambda: kv_weights.store_as(llama(), "int8"), "4-bit", "the blocks have no nn.Linear: are they stored alre"),
        (lambda: llama().double(), "int8", "a matrix of torch.float64: expected torch.float32"),
        (lambda: TinyLM(V, 8, 24, 1, 2), "int8", "24 inputs and 72 outputs: expected inputs a multiple of 16, outp"),
        (lambda: TinyLM(V, 8, 16, 1, 2), "4-bit", "16 inputs and 48 outputs: expected inputs a multiple of 32, out"),
        (lambda: TinyLM(V, 8, 1, 1, 1), "int8 x int8", "1 inputs and 3 outputs: expected inputs a multiple of 1, at"),
    ],
)
def test_bad_input_is_named(model, kind, words):
    """And nothing is stored."""
    model = model()
    before = list(model.modules())
    with pytest.raises(ValueError, match=re.escape(words)):
        kv_weights.store_as(model, kind)
    assert list(model.modules()) == before


# the real model


def file_groups(path):
    """Codes (out, groups, 32) of each matrix of the file, and its float16: scale and lowest number of 4 bits, (out,
    groups, 2), or the scale of 8. By name."""
    found = {}
    for tensor in gguf.GGUFReader(path).tensors:
        n_bytes = {"Q4_1": 20, "Q8_0": 34}.get(tensor.tensor_type.name)  # of a group: float16 first, then 32 codes
        if n_bytes:
            blocks = torch.from_numpy(tensor.data.reshape(len(tensor.data), -1, n_bytes).copy())
            halves, codes = (blocks[..., :4], blocks[..., 4:]) if n_bytes == 20 else (blocks[..., :2], blocks[..., 2:])
            codes = torch.cat([codes & 15, codes >> 4], dim=-1) if n_bytes == 20 else codes.view(torch.int8)
            found[tensor.name] = codes, halves.contiguous().view(torch.float16)
    return found


def test_the_files_own_codes_come_back(smollm2, smollm2_path):
    """All of them, the head's of 8 bits too, with scales and lowest numbers, which the kernel rounds."""
    stored = file_groups(smollm2_path)
    names, n = {"attention.proj": ["attn_output"], "feed_forward.proj": ["ffn_down"]}, 0
    names |= {"attention.qkv": ["attn_q", "attn_k", "attn_v"], "feed_forward.gate_up": ["ffn_gate", "ffn_up"]}
    for i, block in enumerate(smollm2[0].blocks):
        for ours, theirs in names.items():
            parts = [stored[f"blk.{i}.{name}.weight"] for name in theirs]
            if ours == "attention.qkv":
                parts[:2] = ([pairs_to_halves(it, 64) for it in part] for part in parts[:2])
            wanted, halves = (torch.cat(each) for each in zip(*parts, strict=True))
            codes, scale, low = kv_weights.to_groups(block.get_submodule(ours).weight.detach())
            assert torch.equal(codes, wanted) and torch.equal(torch.cat([scale, low], dim=-1).half(), halves), (i, ours)
            n += codes.shape[:2].numel()
    codes, scale = kv_weights.to_int8(smollm2[0].embedding.weight.detach().unflatten(1, (-1, 32)))
    assert all(map(torch.equal, (codes, scale.half()), stored["token_embd.weight"]))
    assert n + codes.shape[:2].numel() == 4_202_496 == sum(codes.shape[:2].numel() for codes, _ in stored.values())


@pytest.fixture(scope="module")
def written(smollm2):
    """The float32 model's own next tokens of some texts: (texts, PROMPT + NEW)."""
    model, tokenizer = smollm2
    prompts = [tokenizer.encode(texts()[name])[:PROMPT] for name in TEXTS]
    new = kv_loops.generate(model, prompts, NEW, model.new_cache(len(TEXTS), PROMPT + NEW))
    return torch.tensor([a + b for a, b in zip(prompts, new, strict=True)])


@pytest.mark.parametrize(("kind", "least"), [("bfloat16", 111), ("int8", 105), ("int8 x int8", 93), ("4-bit", 111)])
def test_the_likeliest_tokens_stay(smollm2, written, kind, least):
    """Of 120 tokens that the float32 model wrote, at least so many are the likeliest behind the same text: found were
    118, 114, 111 and 120, and twice as many may differ, and three more: another processor adds otherwise."""
    model = kv_weights.store_as(kv_weights.sharing(smollm2[0]), kind)
    with torch.no_grad():
        found = model(written)[:, PROMPT - 1 : -1].argmax(-1)
    assert (found == written[:, PROMPT:]).sum() >= least
