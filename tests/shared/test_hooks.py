"""shared/hooks.py: what is seen fits together by hand, what a hook returns is gone on with, nothing stays behind."""

import math
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from shared.generation import generate, greedy
from shared.hooks import IN_ATTENTION, IN_BLOCK, NAMES, hooked, look
from shared.layers import SwiGLU
from shared.rotary import RotaryAttention, no_positions
from shared.tiny_lm import TinyLM

V, CONTEXT, C, HEADS, LAYERS, D = 11, 16, 24, 6, 2, 4  # D: a head's width
GROUPED = {"attention": partial(RotaryAttention, n_kv_heads=2, bias=False), "positions": no_positions, "tied": False}
GROUPED |= {"norm": nn.RMSNorm, "feed_forward": partial(SwiGLU, d_hidden=20)}
WINDOW = {"attention": partial(RotaryAttention, n_kv_heads=3, window=3), "positions": no_positions}
TOKENS = torch.randint(V, (3, 7), generator=torch.Generator().manual_seed(0))
# float64: sums of some hundred products of numbers up to ten, each rounded at 1e-16
close = partial(torch.testing.assert_close, atol=1e-12, rtol=1e-12)


def make(**slots) -> TinyLM:
    """A model in float64 whose every weight matters."""
    torch.manual_seed(0)
    model = TinyLM(V, CONTEXT, C, LAYERS, HEADS, **slots).double().requires_grad_(False)
    for weight in model.parameters():
        weight.normal_(std=0.4)
    return model


MODELS = {"learned": make(), "rotary, grouped": make(**GROUPED), "window": make(**WINDOW)}
MODELS["window"].blocks[1].attention.window = 5
every_model = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
every_name = pytest.mark.parametrize("name", NAMES)


def nothing(x, layer):
    """A hook that leaves things as they are."""


def by_hand(model: TinyLM, seen: dict) -> dict[str, list[torch.Tensor]]:
    """What must have been seen under each name, from what was seen just before it."""
    head = model.embedding if model.head is None else model.head
    found = {name: [] for name in NAMES} | {
        "embedding": [model.positions(model.embedding(TOKENS))],
        "norm": [model.norm(seen["block"][-1])],
        "logits": [seen["norm"][0] @ head.weight.T],
    }
    for layer, block in enumerate(model.blocks):
        at = {name: seen[name][layer] for name in (*IN_ATTENTION, *IN_BLOCK)}
        x = seen["block"][layer - 1] if layer else seen["embedding"][0]
        attention, wide, n_kv = block.attention, block.feed_forward, block.attention.n_kv_heads
        parts = attention.qkv(at["norm_1"]).split([HEADS * D, n_kv * D, n_kv * D], dim=-1)
        q, k, v = (part.unflatten(-1, (-1, D)).transpose(1, 2) for part in parts)
        read = [h * n_kv // HEADS for h in range(HEADS)]  # the key and value head of each query head
        inside = wide.gate_up(at["norm_2"]).chunk(2, -1) if isinstance(wide, SwiGLU) else [wide.up(at["norm_2"])]
        steps = {
            "norm_1": block.norm_1(x),
            **{"q": attention.place(q), "k": attention.place(k), "v": v},
            "mask": torch.ones(7, 7).tril().triu(1 - (attention.window or 7)).bool(),
            "scores": torch.einsum("bhtd,bhsd->bhts", at["q"], at["k"][:, read]) / math.sqrt(D),
            "weights": torch.where(at["mask"], at["scores"], -math.inf).softmax(-1),
            "heads": torch.einsum("bhts,bhsd->bhtd", at["weights"], at["v"][:, read]),
            "attention": attention.proj(at["heads"].transpose(1, 2).flatten(2)),
            "norm_2": block.norm_2(x + at["attention"]),
            "hidden": F.gelu(inside[0]) if len(inside) == 1 else F.silu(inside[0]) * inside[1],
            "feed_forward": wide.proj(at["hidden"]),
            "block": x + at["attention"] + at["feed_forward"],
        }
        for name, value in steps.items():
            found[name].append(value)
    return found


@every_model
def test_what_is_seen_fits_together_and_ends_in_the_logits(model):
    seen = look(model, TOKENS, NAMES)
    close(seen, by_hand(model, seen))
    close(seen["logits"][0], model(TOKENS))


@every_model
@every_name
def test_what_a_hook_returns_is_gone_on_with(model, name):
    """Random numbers, all ones as a mask: seen by a hook further in, and in what follows. What is once has no layer."""
    put = {}
    draw = torch.ones_like if name == "mask" else torch.randn_like
    with hooked(model, {name: lambda x, layer: put.setdefault(layer, draw(x))}):
        seen = look(model, TOKENS, NAMES)
    close(seen, by_hand(model, seen) | {name: list(put.values())})
    assert list(put) == ([None] if name in ("embedding", "norm", "logits") else [0, 1])


@every_model
@every_name
def test_a_hook_that_returns_nothing_changes_nothing(model, name):
    """Bit for bit, but where attention is written out, which adds in another order; with a cache, and generating."""
    same = close if name in ("mask", "scores", "weights") else partial(torch.testing.assert_close, atol=0, rtol=0)
    plain, cache, other = model(TOKENS), model.new_cache(3), model.new_cache(3)
    wanted = [model(part, other) for part in TOKENS.split([3, 1, 3], dim=1)]
    written = generate(model, TOKENS.tolist(), 5, rules=[greedy])
    with hooked(model, {name: nothing}):
        same(model(TOKENS), plain)
        same([model(part, cache) for part in TOKENS.split([3, 1, 3], dim=1)], wanted)
        assert generate(model, TOKENS.tolist(), 5, rules=[greedy]) == written


@every_model
@pytest.mark.parametrize(("lengths", "first"), [((7, 4, 1), 4), ((7, 7, 7), 4), ((7, 7, 7), 6)])
def test_in_a_cache_a_row_has_the_weights_that_it_has_alone(model, lengths, first):
    """Rows padded on the left, or as long as each other; the last tokens, or one, are read in a second pass."""
    cache = model.new_cache(3, 7, padding=torch.tensor([7 - n for n in lengths]))
    model(TOKENS[:, :first], cache)
    seen = look(model, TOKENS[:, first:], ["mask", "weights", "heads"], cache=cache)
    assert {tuple(mask.shape) for mask in seen["mask"]} == {(1, 7) if first == 6 else (3, 1, 3, 7)}
    for row, n in enumerate(lengths):
        alone, new = look(model, TOKENS[row : row + 1, 7 - n :], ["mask", "weights", "heads"]), min(n, 7 - first)
        for layer in range(LAYERS):
            close(seen["heads"][layer][row, :, -new:], alone["heads"][layer][0, :, -new:])
            close(seen["weights"][layer][row, :, -new:, -n:], alone["weights"][layer][0, :, -new:])
            assert not seen["weights"][layer][row, :, -new:, : 7 - n].any()
            mask = seen["mask"][layer].expand(3, 1, -1, -1)[row, 0, -new:]
            assert torch.equal(mask[:, -n:], alone["mask"][layer][-new:]) and not mask[:, : 7 - n].any()


def changed(model, tokens=TOKENS, **hooks):
    with hooked(model, hooks):
        return model(tokens)


@every_model
@torch.no_grad()
def test_what_was_seen_in_a_cache_stays_as_it_was(model):
    """Later tokens are stored where those stood that were stepped back over."""
    cache = model.new_cache(3)
    seen = look(model, TOKENS[:, :3], ["k", "v"], cache=cache)
    before = [kept.clone() for kept in seen["k"] + seen["v"]]
    cache.step_back(3)
    model(TOKENS[:, 3:6], cache)
    assert all(map(torch.equal, seen["k"] + seen["v"], before))


def test_edits_with_a_known_result():
    """A head off is its columns of proj at 0; queries times 3 are scores times 3; a mask of ones shows the future."""
    model, without, other = make(**GROUPED), make(**GROUPED), TOKENS.clone()
    for block in without.blocks:
        block.attention.proj.weight[:, 2 * D : 3 * D] = 0
    off = torch.ones(HEADS, 1, 1).double().index_fill(0, torch.tensor(2), 0)
    close(changed(model, heads=lambda x, layer: x * off), without(TOKENS))
    close(changed(model, q=lambda x, layer: 3 * x), changed(model, scores=lambda x, layer: 3 * x))
    other[:, -1] = (other[:, -1] + 1) % V
    assert torch.equal(model(TOKENS)[:, 0], model(other)[:, 0])
    ones = {"mask": lambda x, layer: torch.ones_like(x)}
    assert (changed(model, **ones)[:, 0] != changed(model, other, **ones)[:, 0]).any(-1).all()


@pytest.mark.parametrize("name", ["block", "weights"])
def test_hooks_run_from_the_outermost_in_and_are_taken_out_one_by_one(name):
    """Also where one is there twice: then the inner one goes first."""
    model, order = MODELS["learned"], []
    first, second = ({name: lambda x, layer, who=who: order.append(who)} for who in "ab")
    with hooked(model, first), hooked(model, second):
        with hooked(model, first):
            model(TOKENS)
        model(TOKENS)
    model(TOKENS)
    assert "".join(order) == "aba" * LAYERS + "ab" * LAYERS


@every_name
def test_nothing_stays_behind(name):
    """After an end, after an exception in the body, and after one in a hook."""
    model, plain = MODELS["learned"], MODELS["learned"](TOKENS)
    changed(model, **{name: lambda x, layer: torch.ones_like(x)})
    with pytest.raises(KeyError), hooked(model, {name: nothing}):
        raise KeyError
    with pytest.raises(ZeroDivisionError), hooked(model, {name: lambda x, layer: 1 / 0}):
        model(TOKENS)
    assert torch.equal(model(TOKENS), plain)
    assert not any("attend" in vars(m) or m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_gradients_go_through_weights():
    """Every parameter's is as without hooks; the weights' own is the heads' times the values. `look` has none."""
    model, kept = make().requires_grad_(True), {}
    keep = lambda name: lambda x, layer: kept.setdefault((name, layer), x).retain_grad()  # noqa: E731
    plain = torch.autograd.grad(model(TOKENS).logsumexp(-1).sum(), list(model.parameters()))
    with hooked(model, {name: keep(name) for name in ("weights", "heads", "v")}):
        model(TOKENS).logsumexp(-1).sum().backward()
    torch.testing.assert_close([p.grad for p in model.parameters()], list(plain), atol=1e-10, rtol=1e-10)
    for layer in range(LAYERS):
        close(kept["weights", layer].grad, kept["heads", layer].grad @ kept["v", layer].mT, atol=1e-10)
    assert not look(model, TOKENS, ["logits"])["logits"][0].requires_grad


@pytest.mark.parametrize(
    ("slots", "name", "words"),
    [
        ({}, "wieghts", "'wieghts' is no part of the forward pass: expected one of embedding, norm"),
        ({"attention": nn.Identity}, "weights", "Identity has no `attend`: expected `shared.layers.CausalAttention`"),
        ({"feed_forward": nn.Identity}, "hidden", "PreNorm has no `feed_forward.proj`: expected parts as in"),
    ],
)
def test_what_cannot_be_hooked_is_refused_and_nothing_stays_behind(slots, name, words):
    model = make(**slots)
    with pytest.raises(ValueError, match=words), hooked(model, {"block": nothing, name: nothing}):
        raise AssertionError("it was let in")
    assert not any("attend" in vars(m) or m._forward_hooks for m in model.modules())
    look(model, TOKENS, ["block", "feed_forward", "attention", "logits"])
