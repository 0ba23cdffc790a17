"""shared/tiny_lm.py: the logits of a plain reference, GPT-2's start, no peek ahead, slots that are used, sampling."""

import math
import re
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from shared import tiny_lm
from shared.rotary import RotaryAttention, no_positions
from shared.tiny_lm import CausalAttention, TinyLM

V, T, C = 11, 7, 12  # vocabulary, context, width


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


def reference(model: TinyLM, tokens: torch.Tensor, n_heads: int) -> torch.Tensor:
    """The same decoder from torch's functions alone, heads one after the other, the softmax written out."""
    w = dict(model.named_parameters())
    time = tokens.shape[1]

    def norm(x, name):
        return F.layer_norm(x, (C,), w[f"{name}.weight"], w[f"{name}.bias"], 1e-5)

    def linear(x, name):
        return F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])

    future = torch.ones(time, time).triu(1).bool()
    x = F.embedding(tokens, w["embedding.weight"]) + w["positions.table.weight"][:time]
    for i in range(len(model.blocks)):
        at, size = f"blocks.{i}", C // n_heads
        q, k, v = linear(norm(x, f"{at}.norm_1"), f"{at}.attention.qkv").split(C, dim=-1)
        heads = []
        for h in range(n_heads):
            part = slice(h * size, (h + 1) * size)
            scores = q[..., part] @ k[..., part].mT / math.sqrt(size)
            heads.append(torch.softmax(scores.masked_fill(future, -math.inf), dim=-1) @ v[..., part])
        x = x + linear(torch.cat(heads, dim=-1), f"{at}.attention.proj")
        wide = F.gelu(linear(norm(x, f"{at}.norm_2"), f"{at}.feed_forward.up"))
        x = x + linear(wide, f"{at}.feed_forward.proj")
    return norm(x, "norm") @ w["embedding.weight"].T


@pytest.mark.parametrize("n_layers", [1, 3])
@pytest.mark.parametrize("n_heads", [1, 3])
def test_logits_equal_a_plain_reference(n_layers, n_heads):
    """float64, every length: a few hundred roundings of 1e-16 on logits of a few units stay below 1e-12."""
    model = loud(make(n_layers, n_heads))
    for time in range(1, T + 1):
        tokens = random_tokens(3, time, seed=time)
        logits = model(tokens)
        assert logits.shape == (3, time, V)
        torch.testing.assert_close(logits, reference(model, tokens, n_heads), rtol=1e-12, atol=1e-12)


def test_default_model_in_float32_agrees_too():
    """As a notebook makes it: two layers and four heads of 16, float32, roundings of 1e-7 on logits below one."""
    torch.manual_seed(0)
    model = TinyLM(V, T)
    assert (model.embedding.weight.shape, len(model.blocks)) == ((V, 64), 2)
    assert {block.attention.n_heads for block in model.blocks} == {4}
    tokens = random_tokens(2, T)
    double = TinyLM(V, T).double()
    double.load_state_dict(model.state_dict())
    torch.testing.assert_close(model(tokens), double(tokens).float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("n_layers", [1, 3])
def test_parameter_count_by_formula(n_layers):
    """Embedding and positions, 12 C^2 + 13 C a block, 2 C for the last norm; no matrix of its own for the output."""
    count = sum(parameter.numel() for parameter in make(n_layers).parameters())
    assert count == V * C + T * C + n_layers * (12 * C * C + 13 * C) + 2 * C


def test_output_is_tied_to_the_embedding():
    """The embedding's gradient is the sum of two: reading at the bottom, writing at the top."""
    model = loud(make())
    tokens = torch.tensor([[1, 2, 1, 3]])
    unused = [0, *range(4, V)]
    model(tokens).logsumexp(-1).sum().backward()
    assert model.embedding.weight.grad[unused].abs().min() > 0  # never read, so from the output alone
    both = model.embedding.weight.grad.clone()

    model.zero_grad()
    table = model.embedding.weight.detach()
    x = model.positions(model.embedding(tokens))
    for block in model.blocks:
        x = block(x)
    (model.norm(x) @ table.T).logsumexp(-1).sum().backward()
    bottom = model.embedding.weight.grad
    assert bottom[[1, 2, 3]].abs().min() > 0
    assert bottom[unused].abs().max() == 0
    top = torch.softmax(model(tokens).detach(), -1).flatten(0, 1).T @ model.norm(x).detach().flatten(0, 1)
    torch.testing.assert_close(both, bottom + top, rtol=1e-10, atol=1e-10)  # d logsumexp / d logits is softmax


@pytest.mark.parametrize("n_layers", [1, 6])
def test_initialisation_is_gpt2s(n_layers):
    """Standard deviation 0.02, what writes to the residual stream 0.02 / sqrt(2 n_layers), biases 0, norms 1 and 0.

    The deviation of n normal numbers strays by 1 / sqrt(2 n) of itself, their mean by it / sqrt(n): five of each.
    """
    torch.manual_seed(0)
    model = TinyLM(vocab_size=100, context=40, d_model=48, n_layers=n_layers)
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


def test_initialisation_follows_the_seed():
    first, again = make().state_dict(), make().state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    other = TinyLM(V, T, C, 2, 3).state_dict()  # the generator has moved on
    assert not torch.equal(first["embedding.weight"], other["embedding.weight"])


def test_loss_at_the_start_is_that_of_an_even_guess():
    """Logits are sums of 64 products of N(0, 1) and N(0, 0.02): deviation 0.16, so the loss is ln V + 0.16^2 / 2 in
    the mean; the input token's own logit, near 0.9, adds about 1.5 / V. 4096 targets stray by 0.16 / 64."""
    torch.manual_seed(0)
    vocab = 256
    model = TinyLM(vocab, 64)
    x, y = torch.randint(vocab, (2, 64, 64))
    loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten()).item()
    assert loss == pytest.approx(math.log(vocab) + 0.0128 + 1.5 / vocab, abs=0.02)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, T - 1), st.integers(0, 1000))
def test_no_position_sees_a_later_token(cut, seed):
    """Other tokens after a position leave its logits as they were, bit for bit; the position itself changes them."""
    model = loud(make())
    tokens = random_tokens(2, T, seed)
    other = tokens.clone()
    other[:, cut:] = (other[:, cut:] + 1) % V
    before, after = model(tokens), model(other)
    assert torch.equal(before[:, :cut], after[:, :cut])
    assert (before[:, cut:] != after[:, cut:]).any(dim=-1).all()


def test_every_earlier_token_is_seen():
    """The last logits change with each of the tokens, and with their order."""
    model = loud(make(n_layers=1))
    tokens = torch.tensor([[1, 2, 3, 4, 5]])
    last = model(tokens)[0, -1]
    for i in range(5):
        other = tokens.clone()
        other[0, i] = 7
        assert not torch.equal(model(other)[0, -1], last), i
    assert not torch.allclose(model(tokens[:, [1, 0, 2, 3, 4]])[0, -1], last)


def test_rows_of_a_batch_do_not_meet():
    """Each row's logits are those it has alone, to a few roundings in float64."""
    model = loud(make())
    tokens = random_tokens(4, T)
    alone = torch.cat([model(row[None]) for row in tokens])
    torch.testing.assert_close(model(tokens), alone, rtol=1e-12, atol=1e-12)


class Probe(nn.Module):
    """A part that notes what it was built with and what it is given, and returns a constant or its input."""

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


def test_parts_stand_where_a_pre_norm_block_has_them():
    """With parts that return their input: each sub-layer adds to the stream what its own norm gave it, so the stream
    doubles at each; the last norm gets 2^(2 n_layers) times the sum of token and position."""
    model = make(n_layers=2, attention=Probe, feed_forward=Probe, norm=Probe)
    tokens = random_tokens(1, 3)
    logits = model(tokens)
    start = model.embedding.weight[tokens] + model.positions.table.weight[:3]
    order = [part for b in model.blocks for part in (b.norm_1, b.attention, b.norm_2, b.feed_forward)] + [model.norm]
    for part, factor in zip(order, [1, 1, 2, 2, 4, 4, 8, 8, 16], strict=True):
        assert torch.equal(part.seen[0], factor * start)  # powers of two are exact
    assert torch.equal(logits, F.linear(16 * start, model.embedding.weight))


def test_parts_of_a_slot_start_like_the_rest():
    """A reader's own matrices get GPT-2's start too, `proj` the smaller one, also without a bias."""

    class Mine(nn.Module):
        def __init__(self, d_model: int):
            super().__init__()
            self.inner = nn.Sequential(nn.Linear(d_model, 2000, bias=False))
            self.proj = nn.Linear(2000, d_model)

        def forward(self, x):
            return self.proj(self.inner(x))

    model = make(n_layers=8, feed_forward=Mine)
    part = model.blocks[3].feed_forward
    band = 5 / math.sqrt(2 * 2000 * C)  # five standard deviations
    assert part.inner[0].weight.std().item() == pytest.approx(0.02, rel=band)
    assert part.proj.weight.std().item() == pytest.approx(0.02 / 4, rel=band)
    assert part.proj.bias.abs().max() == 0


def test_positions_count_from_the_start():
    """The first token gets the first learned vector, also where the text is shorter than the context."""
    model = loud(make())
    x = torch.zeros(1, 4, C, dtype=torch.float64)
    assert torch.equal(model.positions(x)[0], model.positions.table.weight[:4])


@pytest.mark.parametrize("n", [0, 1, 5, 20])
def test_generate_appends_n_tokens_of_the_vocabulary(n):
    """The prompt stays in front; longer than the context is no matter; no gradient is kept."""
    model = make()
    prompt = random_tokens(3, 4)
    tokens = model.generate(prompt, n)
    assert tokens.shape == (3, 4 + n)
    assert torch.equal(tokens[:, :4], prompt)
    assert tokens.dtype == torch.int64
    assert tokens.min() >= 0
    assert tokens.max() < V
    assert not tokens.requires_grad


def test_generate_follows_its_generator():
    """The same seed gives the same tokens, another one others; without a generator torch's own seed decides."""
    model, prompt = make(), random_tokens(1, 2)
    draw = [model.generate(prompt, 30, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert torch.equal(draw[0], draw[1])
    assert not torch.equal(draw[0], draw[2])
    torch.manual_seed(0)
    unseeded = model.generate(prompt, 30)
    torch.manual_seed(0)
    assert torch.equal(unseeded, model.generate(prompt, 30))


def test_generate_draws_from_the_models_own_distribution():
    """100 000 draws of two tokens against the reference's probabilities of all 121 pairs, by chi-square.

    Each pair is expected at least five times. A chi-square value of k cells has mean k - 1 and variance 2 (k - 1):
    five standard deviations above.
    """
    model = loud(make(n_layers=1))
    draws = 100_000
    prompt = torch.tensor([[3, 1, 4]])
    first = torch.softmax(reference(model, prompt, 3)[0, -1], -1)
    after = torch.cat([prompt.expand(V, 3), torch.arange(V)[:, None]], dim=1)
    second = torch.softmax(reference(model, after, 3)[:, -1], -1)
    expected = (draws * first[:, None] * second).flatten().detach()

    tokens = model.generate(prompt.expand(draws, 3), 2, torch.Generator().manual_seed(0))
    counts = torch.bincount(tokens[:, 3] * V + tokens[:, 4], minlength=V * V)
    assert expected.min() >= 5
    assert expected.max() > 3 * draws / V**2  # and far from an even guess
    chi_square = ((counts - expected) ** 2 / expected).sum().item()
    freedom = V * V - 1
    assert chi_square < freedom + 5 * math.sqrt(2 * freedom)


def test_generate_looks_at_the_last_context_tokens():
    """What stands further back than the context changes nothing; the oldest token inside it does."""
    model = loud(make())
    prompt = random_tokens(1, T + 3)
    further, oldest = prompt.clone(), prompt.clone()
    further[0, :3] = (further[0, :3] + 1) % V
    oldest[0, 3] = (oldest[0, 3] + 1) % V
    many = [
        model.generate(p.expand(500, -1), 1, torch.Generator().manual_seed(0))[:, -1] for p in (prompt, further, oldest)
    ]
    assert torch.equal(many[0], many[1])
    assert not torch.equal(many[0], many[2])


@pytest.mark.parametrize("name", ["vocab_size", "context", "d_model", "n_layers", "n_heads"])
@pytest.mark.parametrize("size", [0, -3])
def test_bad_sizes_are_named(name, size):
    sizes = {"vocab_size": V, "context": T, "d_model": C, "n_layers": 1, "n_heads": 3}
    with pytest.raises(ValueError, match=f"{name} is {size}: it must be at least 1"):
        TinyLM(**sizes | {name: size})


def test_width_that_does_not_divide_is_named():
    with pytest.raises(ValueError, match="d_model 12 does not divide into 5 heads: choose a multiple of 5"):
        make(n_heads=5)


@pytest.mark.parametrize("shape", [(1, T + 1), (1, 0), (T,), (1, 2, 3)])
def test_tokens_that_do_not_fit_are_named(shape):
    """Too long, empty, without a batch, or with a dimension too many: the error has the shape and what fits."""
    said = re.escape(f"tokens have shape {shape}: expected (batch, 1 to {T})")
    with pytest.raises(ValueError, match=said):
        make()(torch.zeros(shape, dtype=torch.long))


def test_smallest_model_works():
    """One of everything: a single logit, so an even guess of one."""
    model = TinyLM(1, 1, 1, 1, 1)
    assert model(torch.zeros(1, 1, dtype=torch.long)).shape == (1, 1, 1)


ROTARY = {"attention": RotaryAttention, "positions": no_positions}
ANGLE = 2**-22  # float32: an angle of up to `time` is rounded to time * 2^-24, then once more as a cosine and a sine


def place(x: torch.Tensor, n_heads: int = 1) -> torch.Tensor:
    """x (B, H, T, d) with its positions put in."""
    return RotaryAttention(n_heads * x.shape[-1], n_heads).place(x)


def test_rotary_angles_by_hand():
    """Heads of 4: numbers 0 and 2 turn by 1 a position, numbers 1 and 3 by 0.01; angles are float32."""
    ones = torch.tensor([1.0, 1.0, 0.0, 0.0], dtype=torch.float64).expand(1, 1, 50, 4)
    expected = [[math.cos(t), math.cos(t / 100), math.sin(t), math.sin(t / 100)] for t in range(50)]
    torch.testing.assert_close(place(ones)[0, 0], torch.tensor(expected).double(), rtol=0, atol=50 * ANGLE)
    across = torch.tensor([0.0, 0.0, 1.0, 0.0], dtype=torch.float64).expand(1, 1, 50, 4)
    expected = [[-math.sin(t), 0, math.cos(t), 0] for t in range(50)]
    torch.testing.assert_close(place(across)[0, 0], torch.tensor(expected).double(), rtol=0, atol=50 * ANGLE)


@pytest.mark.parametrize("size", [2, 4, 8, 32])
def test_rotary_scores_know_only_the_distance(size):
    """One query and one key at every position: the scores of a distance are one number, other distances have others.

    In float64 but for the angles: two of them a score, each off by `ANGLE` a position, times the two lengths.
    """
    time = 60
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 1, 3, 1, size, dtype=torch.float64, generator=generator).expand(2, 1, 3, time, size)
    scores = place(q, 3) @ place(k, 3).mT  # (1, 3, time, time)
    room = 2 * time * ANGLE * (q.norm(dim=-1) * k.norm(dim=-1)).max().item()
    means = []
    for distance in range(-time + 1, time):
        same = scores.diagonal(distance, dim1=-2, dim2=-1)
        assert (same - same[..., :1]).abs().max() <= room, distance
        means.append(same[..., 0])
    assert torch.stack(means).std(dim=0).min() > 100 * room
    assert (means[time] - means[time - 2]).abs().min() > 100 * room  # ahead is not behind


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rotary_keeps_lengths_and_its_type(dtype):
    """cos^2 + sin^2 of two float32 numbers is 1 to 2^-22; in float32 a sum of 8 squares is rounded as often."""
    x = torch.randn(2, 3, 40, 8, dtype=dtype, generator=torch.Generator().manual_seed(0))
    turned = place(x, 3)
    assert (turned.shape, turned.dtype) == (x.shape, dtype)
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1), rtol=8 * 2**-22, atol=0)
    assert (turned[:, :, 1:] - x[:, :, 1:]).abs().amax(-1).min() > 0.01  # and every other position is turned


def test_rotary_leaves_the_first_position_as_it_is():
    """cos 0 and sin 0 are exact, so bit for bit, whatever follows."""
    x = torch.randn(2, 3, 5, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(place(x, 3)[:, :, 0], x[:, :, 0])
    assert torch.equal(place(x[:, :, :1], 3), x[:, :, :1])


def test_causal_attention_puts_no_positions_in():
    x = torch.randn(2, 3, 5, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(CausalAttention(C, 3).place(x), x)


@pytest.mark.parametrize("size", [2, 8, 64])
def test_rotary_equals_llamas(size):
    """transformers' own code for 200 positions: float32 speeds and angles, so `ANGLE` a position on numbers up to 5."""
    llama = pytest.importorskip("transformers.models.llama.modeling_llama")
    rope = {"rope_type": "default", "rope_theta": 10_000.0}
    config = llama.LlamaConfig(hidden_size=3 * size, num_attention_heads=3, rope_parameters=rope)
    q, k = torch.randn(2, 2, 3, 200, size, generator=torch.Generator().manual_seed(0))
    cos, sin = llama.LlamaRotaryEmbedding(config)(q, torch.arange(200)[None])
    expected = llama.apply_rotary_pos_emb(q, k, cos, sin)
    for x, theirs in zip((q, k), expected, strict=True):
        torch.testing.assert_close(place(x, 3), theirs, rtol=0, atol=5 * 200 * ANGLE)


def test_rotary_attention_by_hand():
    """The module's output against loops over heads and positions: turned queries and keys, values left alone."""
    heads, size, time = 2, 4, 6
    attention = RotaryAttention(heads * size, heads).double()
    x = torch.randn(1, time, heads * size, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 3
    q, k, v = (part[0] for part in attention.qkv(x).split(heads * size, dim=-1))
    rows = []
    for t in range(time):
        row = []
        for h in range(heads):
            part = slice(h * size, (h + 1) * size)
            turned = place(torch.stack([q[:, part], k[:, part]])[:, None])[:, 0]
            scores = turned[0, t] @ turned[1, : t + 1].T / math.sqrt(size)
            row.append(scores.softmax(-1) @ v[: t + 1, part])
        rows.append(torch.cat(row))
    torch.testing.assert_close(attention(x)[0], attention.proj(torch.stack(rows)), rtol=1e-12, atol=1e-12)


def test_model_with_rotary_attention_does_not_see_ahead():
    """At every cut: other tokens after a position leave its logits as they were, bit for bit; its own changes them."""
    model = loud(make(**ROTARY))
    for cut in range(1, T):
        tokens = random_tokens(2, T, seed=cut)
        other = tokens.clone()
        other[:, cut:] = (other[:, cut:] + 1) % V
        before, after = model(tokens), model(other)
        assert torch.equal(before[:, :cut], after[:, :cut])
        assert (before[:, cut] - after[:, cut]).abs().amax(-1).min() > 1e-3


def test_rotary_attention_notices_order_and_bare_attention_does_not():
    """One layer, the tokens before the last one in another order: without positions the last logits are the same sums
    in another order, 1e-12 in float64; with turned queries and keys they are not."""
    tokens = torch.tensor([[1, 2, 3, 4, 5, 6, 0]])
    other = tokens[:, [3, 1, 5, 0, 4, 2, 6]]
    bare = loud(make(n_layers=1, attention=CausalAttention, positions=no_positions))
    torch.testing.assert_close(bare(tokens)[:, -1], bare(other)[:, -1], rtol=1e-12, atol=1e-12)
    rotary = loud(make(n_layers=1, **ROTARY))
    assert (rotary(tokens)[:, -1] - rotary(other)[:, -1]).abs().max() > 1e-3


def test_no_positions_adds_nothing_and_learns_nothing():
    """The slot is empty: no parameters, and the stream begins with the tokens' own vectors."""
    model = make(**ROTARY)
    assert list(model.positions.parameters()) == []
    x = torch.randn(2, 5, C, generator=torch.Generator().manual_seed(0))
    assert torch.equal(no_positions(T, C)(x), x)
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in make().parameters()) - T * C


def test_module_can_be_read_in_one_sitting():
    assert len(Path(tiny_lm.__file__).read_text().splitlines()) < 150
