"""shared/cache.py: logits read from a cache are those of the whole text, however it was fed; nothing stored moves."""

import itertools
import re
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from shared.cache import KVCache
from shared.layers import PostNorm, SandwichNorm, SwiGLU
from shared.rotary import RotaryAttention, no_positions
from shared.tiny_lm import CausalAttention, TinyLM

V, CONTEXT, C, HEADS, LAYERS = 11, 16, 24, 6, 2
KINDS = {  # attention, then what else
    "learned": (CausalAttention, {}),
    "learned, grouped": (partial(CausalAttention, n_kv_heads=2), {"block": PostNorm}),
    "rotary": (RotaryAttention, {"positions": no_positions, "block": SandwichNorm}),
    "rotary, grouped": (
        partial(RotaryAttention, n_kv_heads=1, bias=False, rotary_base=100.0),
        {"positions": no_positions, "norm": nn.RMSNorm, "feed_forward": partial(SwiGLU, d_hidden=20), "tied": False},
    ),
    "learned, window": (partial(CausalAttention, window=3), {}),
    "rotary, grouped, local and global": (partial(RotaryAttention, n_kv_heads=2), {"positions": no_positions}),
}
WINDOWS = {"rotary, grouped, local and global": (2, None)}  # of each layer, set afterwards
# float64: a logit is a sum of some hundred products of numbers up to ten, each rounded at 1e-16; 1e-10 is a thousand
# times what that can add up to, and a key in a wrong place moves a logit by more than 1e-3 (the last test).
close = partial(torch.testing.assert_close, atol=1e-10, rtol=0)


def make(kind: str) -> TinyLM:
    """A model in float64 whose every weight matters."""
    torch.manual_seed(0)
    attention, slots = KINDS[kind]
    model = TinyLM(V, CONTEXT, C, LAYERS, HEADS, attention=attention, **slots).double().requires_grad_(False)
    for weight in model.parameters():
        weight.normal_(std=0.4)
    for block, window in zip(model.blocks, WINDOWS.get(kind, ()), strict=False):
        block.attention.window = window
    return model


MODELS = {kind: make(kind) for kind in KINDS}
every_model = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)


def texts(batch: int, time: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(V, (batch, time), generator=torch.Generator().manual_seed(seed))


def padded(rows: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Texts of different length, (B, T) with any token in front, and how many stand in front of each."""
    longest = max(map(len, rows))
    padding = torch.tensor([longest - len(row) for row in rows])
    return torch.stack([torch.cat([texts(1, longest - len(row), 7)[0], row]) for row in rows]), padding


chunks = st.lists(st.integers(1, 6), min_size=1, max_size=6).filter(lambda parts: sum(parts) <= CONTEXT)


@every_model
@settings(max_examples=30, deadline=None)
@given(parts=chunks, batch=st.integers(1, 3), seed=st.integers(0, 999))
def test_any_split_of_a_text_gives_the_logits_of_the_whole(model, parts, batch, seed):
    tokens = texts(batch, sum(parts), seed)
    cache = model.new_cache(batch, capacity=sum(parts))
    logits = torch.cat([model(part, cache) for part in tokens.split(parts, dim=1)], dim=1)
    close(logits, model(tokens))
    assert cache.length == sum(parts) == cache.capacity


@every_model
@settings(max_examples=30, deadline=None)
@given(lengths=st.lists(st.integers(1, 9), min_size=2, max_size=4), parts=chunks, seed=st.integers(0, 999))
def test_a_padded_row_has_the_logits_that_it_has_alone(model, lengths, parts, seed):
    """Rows that begin at different columns, fed in any chunks; the first may lie wholly within some row's padding."""
    rows = [texts(1, length, seed + i)[0] for i, length in enumerate(lengths)]
    tokens, padding = padded(rows)
    cache = model.new_cache(len(rows), padding=padding)
    ends = [0, *itertools.accumulate(parts), tokens.shape[1]]
    pieces = [tokens[:, a:b] for a, b in itertools.pairwise(ends)]
    logits = torch.cat([model(piece, cache) for piece in pieces if piece.numel()], dim=1)
    for i, row in enumerate(rows):
        close(logits[i, padding[i] :], model(row[None])[0])
    assert logits.isfinite().all()  # of padding too: a NaN would go on through the batch's norms


@every_model
@settings(max_examples=30, deadline=None)
@given(data=st.data(), seed=st.integers(0, 999))
def test_stepping_back_dropping_and_going_on(model, data, seed):
    """Any order of reading on, forgetting the last tokens, and keeping some rows, also twice or in another order: at
    each point the next logits are those of the rows' texts, read alone."""
    batch = data.draw(st.integers(1, 3))
    rows = [texts(1, data.draw(st.integers(1, 3)), seed + i)[0] for i in range(batch)]
    tokens, padding = padded(rows)
    cache = model.new_cache(batch, padding=padding)
    model(tokens, cache)
    for step in range(data.draw(st.integers(1, 5))):
        match data.draw(st.sampled_from(["back", "keep"])):
            case "back":
                n = data.draw(st.integers(0, min(map(len, rows))))
                cache.step_back(n)
                rows = [row[: len(row) - n] for row in rows]
            case "keep":
                kept = data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=batch))
                cache.keep(kept)
                rows = [rows[i] for i in kept]
        T = data.draw(st.integers(1, 3))
        if cache.length + T > CONTEXT:
            break
        new = texts(len(rows), T, seed + 100 + step)
        logits = model(new, cache)
        rows = [torch.cat([row, more]) for row, more in zip(rows, new, strict=True)]
        for row, found in zip(rows, logits, strict=True):
            close(found, model(row[None])[0, -T:])


def test_what_is_stored_is_never_moved():
    """Reading on, stepping back and dropping rows work in one place, and what was stored stays bit for bit."""
    model = MODELS["rotary"]
    cache = model.new_cache(3, 12)
    place = cache.keys.data_ptr(), cache.values.data_ptr()
    model(texts(3, 5), cache)
    before = cache.keys[..., :5, :].clone(), cache.values[..., :5, :].clone()
    model(texts(3, 4), cache)
    model(texts(3, 1), cache)
    assert torch.equal(cache.keys[..., :5, :], before[0]) and torch.equal(cache.values[..., :5, :], before[1])
    cache.step_back(6)
    cache.keep([0, 2])
    model(texts(2, 3), cache)
    assert place == (cache.keys.data_ptr(), cache.values.data_ptr())
    assert torch.equal(cache.keys[:, :2, :, :4], before[0][:, [0, 2], :, :4])


def test_padding_is_seen_by_nobody():
    """Other tokens under the padding change no logit of a text, bit for bit."""
    model = MODELS["learned, grouped"]
    tokens, padding = padded([texts(1, 4)[0], texts(1, 7)[0]])
    other = tokens.clone()
    other[0, :3] = (other[0, :3] + 1) % V
    found = [model(each, model.new_cache(2, padding=padding)) for each in (tokens, other)]
    assert torch.equal(found[0][0, 3:], found[1][0, 3:]) and torch.equal(found[0][1], found[1][1])
    assert not torch.equal(found[0][0, :3], found[1][0, :3])
    mask = model.new_cache(2, padding=padding).layers(7)[0].mask
    assert mask.any(-1).all()  # padding sees itself: a softmax written by hand would make NaN of a row of nothing


@every_model
def test_positions_of_ones_own(model):
    """The usual ones spelt out change nothing, in either shape; a gap in them does; and a cache goes on from them."""
    tokens, usual = texts(2, 6), torch.arange(6)
    whole = model(tokens)
    close(model(tokens, positions=usual), whole)
    close(model(tokens, positions=usual.expand(2, 6)), whole)
    gap = torch.tensor([[0, 1, 2, 3, 4, 5], [0, 1, 2, 9, 10, 11]])
    moved = model(tokens, positions=gap)
    close(moved[0], whole[0])
    close(moved[1, :3], whole[1, :3])
    assert (moved[1, 3:] - whole[1, 3:]).abs().amax(-1).min() > 1e-3
    cache = model.new_cache(2)
    parts = [model(tokens[:, a:b], cache, gap[:, a:b]) for a, b in ((0, 2), (2, 5), (5, 6))]
    close(torch.cat(parts, dim=1), moved)


def test_rotary_positions_know_only_their_distance():
    """All shifted by a million: the same logits. Angles of a million in float64 are rounded by 1e-10."""
    model = MODELS["rotary, grouped"]
    tokens = texts(2, 9)
    shifted = model(tokens, positions=torch.arange(9) + 1_000_000)
    torch.testing.assert_close(shifted, model(tokens), atol=1e-7, rtol=0)


SIZES = {"n_layers": LAYERS, "batch": 2, "n_kv_heads": HEADS, "capacity": 8, "d_head": C // HEADS}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_layers": 3}, "the cache has 3 layers and 2 rows, the model and the tokens 2 and 2"),
        ({"batch": 1}, "the cache has 2 layers and 1 rows, the model and the tokens 2 and 2"),
        ({"n_kv_heads": 3}, "keys are (2, 6, 5, 4) torch.float64, the cache has room for (2, 3, 5, 4) torch.float64"),
        ({"d_head": 8}, "the cache has room for (2, 6, 5, 8) torch.float64: is it another model's?"),
        ({"dtype": torch.float32}, "the cache has room for (2, 6, 5, 4) torch.float32: is it another model's?"),
        ({"capacity": 4}, "5 more tokens do not fit, the cache holds 0 of 4"),
    ],
)
def test_a_cache_that_does_not_fit_is_refused(changes, message):
    """And nothing is counted as read."""
    cache = KVCache(**{"dtype": torch.float64} | SIZES | changes)
    with pytest.raises(ValueError, match=re.escape(message)):
        MODELS["learned"](texts(2, 5), cache)
    assert cache.length == 0


def test_a_full_cache_is_refused_and_still_good():
    model, cache = MODELS["rotary"], MODELS["rotary"].new_cache(2, 6)
    tokens = texts(2, 6)
    model(tokens[:, :5], cache)
    with pytest.raises(ValueError, match="2 more tokens do not fit, the cache holds 5 of 6"):
        model(texts(2, 2), cache)
    close(model(tokens[:, 5:], cache)[:, 0], model(tokens)[:, 5])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda cache: cache.step_back(4), "n is 4: expected 0 to 3"),
        (lambda cache: cache.step_back(-1), "n is -1"),
        (lambda cache: cache.keep([2]), "rows are [2]: expected up to 2 numbers from 0 to 1"),
        (lambda cache: cache.keep([-1]), "rows are [-1]"),
        (lambda cache: cache.keep([0, 0, 1]), "rows are [0, 0, 1]: expected up to 2 numbers"),
        (lambda cache: cache.keep(torch.tensor([True, False])), "rows are [True, False]"),
        (lambda _: MODELS["rotary"].new_cache(2, CONTEXT + 1), f"capacity is 17: the model's context is {CONTEXT}"),
        (lambda _: KVCache(**SIZES | {"capacity": 0}), "are (2, 2, 6, 0, 4): expected each to be 1 or more"),
        (lambda _: KVCache(**SIZES, padding=torch.tensor([1])), "padding is [1]: expected 2 whole numbers"),
        (lambda _: KVCache(**SIZES, padding=torch.tensor([1, -1])), "padding is [1, -1]"),
        (lambda _: MODELS["rotary"](texts(2, 3), positions=torch.arange(4)), "positions have shape (4,)"),
    ],
)
def test_bad_input_is_refused_in_words(call, message):
    cache = MODELS["rotary"].new_cache(2)
    MODELS["rotary"](texts(2, 3), cache)
    with pytest.raises(ValueError, match=re.escape(message)):
        call(cache)


def test_gradients_are_not_cut_in_silence():
    model = make("rotary").requires_grad_(True)
    with pytest.raises(ValueError, match=r"the keys want a gradient.*torch.no_grad"):
        model(texts(1, 2), model.new_cache(1))
    with torch.no_grad():
        model(texts(1, 2), model.new_cache(1))


class Plain(nn.Module):
    """Attention that only takes x, as lesson 04's."""

    def __init__(self, d_model, n_heads):
        super().__init__()
        self.inner = CausalAttention(d_model, n_heads)

    def forward(self, x):
        return self.inner(x)


def test_parts_that_only_take_x_need_no_cache_and_get_none():
    """In the slot of attention, of positions, or of a block: whole texts are as ever, the rest is refused by name."""

    class PlainBlock(PostNorm):
        def forward(self, x):
            return super().forward(x)

    for slot in ({"attention": Plain}, {"positions": lambda *_: nn.Identity()}, {"block": PlainBlock}):
        model = TinyLM(V, CONTEXT, C, LAYERS, HEADS, **slot).requires_grad_(False)
        assert model(texts(2, 5)).shape == (2, 5, V) and not model.takes_cache
        cache = KVCache(**SIZES)
        for call in (lambda m=model: m.new_cache(2), lambda m=model, c=cache: m(texts(2, 5), c)):
            with pytest.raises(ValueError, match=r"^(Plain|Identity|PlainBlock): forward takes not both"):
                call()
    assert all(model.takes_cache for model in MODELS.values())


def test_a_cache_is_read_through_a_window_set_late():
    """And keeps all: with the window gone, the next token sees the whole text."""
    model, tokens = make("rotary"), texts(2, 9)
    cache, whole = model.new_cache(2), model(tokens)
    model(tokens[:, :8], cache)
    for window in (1, 4, 8):
        for block in model.blocks:
            block.attention.window = window
        narrow = model(tokens[:, 8:], cache)
        cache.step_back(1)
        assert (narrow[:, 0] - whole[:, 8]).abs().max() > 1e-3
    for block in model.blocks:
        block.attention.window = None
    close(model(tokens[:, 8:], cache)[:, 0], whole[:, 8])


def test_a_key_in_a_wrong_place_would_show():
    """What the tolerance above is measured by: one token read at the next position."""
    for model in MODELS.values():
        tokens, cache = texts(2, 6), model.new_cache(2)
        model(tokens[:, :5], cache)
        late = model(tokens[:, 5:], cache, torch.tensor([6]))[:, 0]
        assert (late - model(tokens)[:, 5]).abs().max() > 1e-3
