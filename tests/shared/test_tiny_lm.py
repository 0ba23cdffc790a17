"""shared/tiny_lm.py and its parts: the logits of a plain reference, GPT-2's start, no peek ahead."""

import math
import re
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from shared.layers import CausalAttention, LearnedPositions, PostNorm, PreNorm, SandwichNorm, SwiGLU
from shared.rotary import RotaryAttention, no_positions
from shared.tiny_lm import TinyLM

V, T, C = 11, 7, 12  # vocabulary, context, width
ROTARY = {"attention": RotaryAttention, "positions": no_positions}
SLOTS = {CausalAttention: LearnedPositions, RotaryAttention: no_positions}


def make(n_layers: int = 2, n_heads: int = 3, **options) -> TinyLM:
    torch.manual_seed(0)
    return TinyLM(V, T, C, n_layers, n_heads, **options)


def loud(model: TinyLM) -> TinyLM:
    """The model in float64 with every parameter drawn anew, biases and norms too, so that each one matters."""
    generator = torch.Generator().manual_seed(1)
    model.double()
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, dtype=torch.float64, generator=generator) * 0.5
    return model


def random_tokens(batch: int, time: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(V, (batch, time), generator=torch.Generator().manual_seed(seed))


def turned(x: torch.Tensor) -> torch.Tensor:
    """(B, T, d) with numbers i and i + d/2 as one complex number, turned by position * 10,000 ** (-2 i / d)."""
    time, size = x.shape[1:]
    angles = [[t * 10_000 ** (-2 * i / size) for i in range(size // 2)] for t in range(time)]
    angles = torch.tensor(angles, dtype=torch.float64)
    z = torch.complex(x[..., : size // 2], x[..., size // 2 :]) * torch.polar(torch.ones_like(angles), angles)
    return torch.cat([z.real, z.imag], dim=-1)


def reference(model: TinyLM, tokens: torch.Tensor, n_heads: int) -> torch.Tensor:
    """The same decoder from torch's functions alone, heads one after the other, the softmax written out."""
    w = dict(model.named_parameters())
    time, learned = tokens.shape[1], "positions.table.weight" in w

    def norm(x, name):
        return F.layer_norm(x, (C,), w[f"{name}.weight"], w[f"{name}.bias"], 1e-5)

    def linear(x, name):
        return F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])

    x = F.embedding(tokens, w["embedding.weight"])
    if learned:
        x = x + w["positions.table.weight"][:time]
    for i in range(len(model.blocks)):
        at, size, window = f"blocks.{i}", C // n_heads, model.blocks[i].attention.window or time
        hidden = torch.tensor([[not 0 <= q - k < window for k in range(time)] for q in range(time)])
        q, k, v = linear(norm(x, f"{at}.norm_1"), f"{at}.attention.qkv").split(C, dim=-1)
        heads = []
        for h in range(n_heads):
            part = slice(h * size, (h + 1) * size)
            one, other = (p[..., part] if learned else turned(p[..., part]) for p in (q, k))
            scores = one @ other.mT / math.sqrt(size)
            heads.append(torch.softmax(scores.masked_fill(hidden, -math.inf), dim=-1) @ v[..., part])
        x = x + linear(torch.cat(heads, dim=-1), f"{at}.attention.proj")
        wide = F.gelu(linear(norm(x, f"{at}.norm_2"), f"{at}.feed_forward.up"))
        x = x + linear(wide, f"{at}.feed_forward.proj")
    return norm(x, "norm") @ w["embedding.weight"].T


@pytest.mark.parametrize("slots", [{}, ROTARY], ids=["learned", "rotary"])
@pytest.mark.parametrize(("n_layers", "n_heads"), [(1, 1), (3, 3)])
def test_logits_and_gradients_equal_a_plain_reference(n_layers, n_heads, slots):
    """float64, every length: a few hundred roundings of 1e-16 on logits of a few units stay below 1e-12. Gradients of
    every parameter at full length, the tied embedding's from both its places: sums of a thousand products, 1e-10."""
    model = loud(make(n_layers, n_heads, **slots))
    for time in range(1, T + 1):
        tokens = random_tokens(3, time, seed=time)
        logits, wanted = model(tokens), reference(model, tokens, n_heads)
        assert logits.shape == (3, time, V)
        torch.testing.assert_close(logits, wanted, rtol=1e-12, atol=1e-12)
    found, theirs = (
        torch.autograd.grad(each.logsumexp(-1).sum(), list(model.parameters())) for each in (logits, wanted)
    )
    torch.testing.assert_close(found, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("attention", [CausalAttention, RotaryAttention])
@pytest.mark.parametrize("windows", [(1, 1), (3, 3), (2, None), (None, 4)])
def test_a_window_equals_a_plain_reference(attention, windows):
    """Every length, shorter than the window and longer; the same in all layers, or set afterwards for each of them."""
    model = loud(make(attention=partial(attention, window=windows[0]), positions=SLOTS[attention]))
    model.blocks[1].attention.window = windows[1]
    for time in range(1, T + 1):
        tokens = random_tokens(3, time, seed=time)
        torch.testing.assert_close(model(tokens), reference(model, tokens, 3), rtol=1e-12, atol=1e-12)


@settings(deadline=None, max_examples=15)
@given(window=st.integers(1, T), last=st.integers(0, T - 1), seed=st.integers(0, 99))
def test_two_windows_reach_twice_as_far(window, last, seed):
    """Another token changes all logits within 2 (window - 1) after it, and none beyond, bit for bit."""
    model = loud(make(attention=partial(RotaryAttention, window=window), positions=no_positions))
    tokens = random_tokens(1, T, seed)
    other = tokens.clone()
    other[:, last] = (other[:, last] + 1) % V
    changed = (model(tokens) != model(other)).any(dim=-1)[0]
    assert changed.tolist() == [0 <= t - last <= 2 * (window - 1) for t in range(T)]


def test_a_window_that_holds_the_text_changes_nothing():
    """Bit for bit, for attention goes by PyTorch's causal path: no mask is made. One token more, and there is one."""
    model = loud(make(n_layers=1)).requires_grad_(False)
    plain, masks, attention = model(random_tokens(2, T)), [], model.blocks[0].attention
    attention.window = T
    assert torch.equal(model(random_tokens(2, T)), plain)
    attention.attend = lambda q, k, v, mask: masks.append(mask) or q
    for attention.window in (None, T, T - 1):
        model(random_tokens(2, T))
    assert masks[:2] == [None, None] and masks[2].sum(-1).tolist() == [1, 2, 3, 4, 5, 6, 6]


@pytest.mark.parametrize(
    ("n_layers", "slots"), [(1, {}), (6, {"feed_forward": partial(SwiGLU, d_hidden=100), "tied": False})]
)
def test_initialisation_is_gpt2s(n_layers, slots):
    """Standard deviation 0.02, what writes to the residual stream 0.02 / sqrt(2 n_layers), biases 0, norms 1 and 0;
    also for other parts in the slots, without a bias, and for a free head.

    The deviation of n normal numbers strays by 1 / sqrt(2 n) of itself, their mean by it / sqrt(n): five of each.
    """
    torch.manual_seed(0)
    model = TinyLM(vocab_size=100, context=40, d_model=48, n_layers=n_layers, **slots)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            assert parameter.unique().tolist() == [1.0 if "norm" in name and "weight" in name else 0.0], name
            continue
        n, std = parameter.numel(), 0.02
        if name.endswith("proj.weight"):
            std /= math.sqrt(2 * n_layers)
        assert parameter.std().item() == pytest.approx(std, rel=5 / math.sqrt(2 * n)), name
        assert abs(parameter.mean().item()) < 5 * std / math.sqrt(n), name
    assert sum(name.endswith("proj.weight") for name, _ in model.named_parameters()) == 2 * n_layers


@pytest.mark.parametrize("slots", [{}, ROTARY], ids=["learned", "rotary"])
@settings(deadline=None, max_examples=15)
@given(st.integers(1, T - 1), st.integers(0, 1000))
def test_no_position_sees_a_later_token(slots, cut, seed):
    """Other tokens after a position leave its logits as they were, bit for bit; the position itself changes them."""
    model = loud(make(**slots))
    tokens = random_tokens(2, T, seed)
    other = tokens.clone()
    other[:, cut:] = (other[:, cut:] + 1) % V
    before, after = model(tokens), model(other)
    assert torch.equal(before[:, :cut], after[:, :cut])
    assert (before[:, cut:] != after[:, cut:]).any(dim=-1).all()


def test_smallest_model_works():
    """One of everything: a single logit, so an even guess of one."""
    model = TinyLM(1, 1, 1, 1, 1)
    assert model(torch.zeros(1, 1, dtype=torch.long)).shape == (1, 1, 1)


class Probe(nn.Module):
    """A part that notes what it was built with and what it is given, and returns its input."""

    def __init__(self, *sizes: int):
        super().__init__()
        self.sizes, self.seen = sizes, []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(x)
        return x


@pytest.mark.parametrize(
    ("slot", "sizes", "count"),
    [("attention", (C, 3), 2), ("feed_forward", (C,), 2), ("norm", (C,), 5), ("positions", (T, C), 1)],
)
def test_each_slot_is_used(slot, sizes, count):
    """A class put in a slot is built with the sizes promised, once a place, and called once a place and pass."""
    model = make(**{slot: Probe})
    probes = [module for module in model.modules() if isinstance(module, Probe)]
    assert [probe.sizes for probe in probes] == [sizes] * count
    model(random_tokens(2, 5))
    assert [[x.shape for x in probe.seen] for probe in probes] == [[(2, 5, C)]] * count


@pytest.mark.parametrize(("block", "first"), [(PreNorm, True), (PostNorm, False)])
def test_blocks_are_pytorchs_encoder_layers(block, first):
    """torch's own layer with the norm first or last, a causal mask and the same weights."""
    ours = loud(make(n_layers=1, block=block)).blocks[0]
    theirs = nn.TransformerEncoderLayer(C, 3, 4 * C, 0.0, "gelu", batch_first=True, norm_first=first).double()
    names = {
        "self_attn.in_proj_": "attention.qkv.",
        "self_attn.out_proj": "attention.proj",
        "linear1": "feed_forward.up",
    }
    names |= {"linear2": "feed_forward.proj", "norm1": "norm_1", "norm2": "norm_2"}
    weights = dict(ours.named_parameters())
    for name, parameter in theirs.named_parameters():
        for their, our in names.items():
            name = name.replace(their, our)
        parameter.data = weights[name].data
    x = torch.randn(2, 6, C, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    mask = nn.Transformer.generate_square_subsequent_mask(6, dtype=torch.float64)
    torch.testing.assert_close(ours(x), theirs(x, mask, is_causal=True), rtol=1e-12, atol=1e-12)


def test_a_sandwich_has_a_norm_on_both_sides_of_each_branch():
    """By hand from its parts; and the branches' size does not matter to it: their weights times ten leave the output,
    but for the norm's epsilon."""
    block = loud(make(n_layers=1, block=SandwichNorm)).blocks[0]
    x = torch.randn(2, 6, C, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    h = x + block.norm_3(block.attention(block.norm_1(x)))
    wanted = h + block.norm_4(block.feed_forward(block.norm_2(h)))
    torch.testing.assert_close(block(x), wanted, rtol=0, atol=0)
    for part in (block.attention.proj, block.feed_forward.proj):
        part.weight.data *= 10
        part.bias.data *= 10
    torch.testing.assert_close(block(x), wanted, rtol=0, atol=1e-3)


@pytest.mark.parametrize(("block", "count"), [(PreNorm, 5), (PostNorm, 4), (SandwichNorm, 9)])
def test_a_stream_that_ends_in_a_norm_gets_no_other(block, count):
    """Norms in two blocks and at the end."""
    assert sum(isinstance(part, nn.LayerNorm) for part in make(block=block).modules()) == count


@pytest.mark.parametrize("slots", [{}, ROTARY, {"block": PostNorm, "tied": False}], ids=["learned", "rotary", "post"])
def test_the_last_logits_alone_are_those_of_all(slots):
    """Also of what follows in a cache, where all tokens are stored."""
    model, tokens = loud(make(**slots)).requires_grad_(False), random_tokens(3, T)
    for last in range(1, T + 1):
        torch.testing.assert_close(model(tokens, last=last), model(tokens)[:, -last:], rtol=1e-12, atol=1e-12)
    cache = model.new_cache(3)
    first, second = model(tokens[:, :4], cache, last=2), model(tokens[:, 4:], cache, last=1)
    torch.testing.assert_close(torch.cat([first, second], 1), model(tokens)[:, [2, 3, 6]], rtol=1e-12, atol=1e-12)


SIZES = {"vocab_size": V, "context": T, "d_model": C, "n_layers": 1, "n_heads": 3}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        *((lambda n=n: TinyLM(**SIZES | {n: 0}), f"{n} is 0: it must be at least 1") for n in SIZES),
        (lambda: make(n_heads=-3), "n_heads is -3"),
        (lambda: make(n_heads=5), "d_model 12 does not divide into 5 heads: choose a multiple of 5"),
        *(
            (lambda n=n: CausalAttention(C, 6, n_kv_heads=n), f"n_kv_heads is {n}: expected a divisor of the 6")
            for n in (0, 4, -1)
        ),
        *((lambda n=n: CausalAttention(C, 3, window=n), f"window is {n}: a token sees itself") for n in (0, -1)),
        (lambda: RotaryAttention(C, 3, window=0), "window is 0: a token sees itself, so expected 1 or more, or None"),
        (lambda: setattr(make().blocks[0].attention, "window", 0), "window is 0"),
        (lambda: RotaryAttention(C, 4), "d_model 12 with 4 heads makes heads 3 wide: expected an even width"),
        (lambda: RotaryAttention(C, 3, rotary_base=0), "rotary_base is 0: expected a number above 0"),
        (lambda: RotaryAttention(C, 3, rotary_base=math.nan), "rotary_base is nan"),
        *(
            (lambda s=s: make()(torch.zeros(s, dtype=torch.long)), f"shape {s}: expected (batch, 1 to {T})")
            for s in ((1, T + 1), (1, 0), (T,), (1, 2, 3))
        ),
        *(
            (lambda n=n: make()(random_tokens(1, 3), last=n), f"last is {n}: expected 1 to 3, or None")
            for n in (0, 4, -1)
        ),
        *(
            (lambda i=i: make()(torch.tensor([[0, i]])), f"token {i} is outside the vocabulary: expected 0 to {V - 1}")
            for i in (V, -1)
        ),
    ],
)
def test_what_cannot_work_is_refused_by_name(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()
