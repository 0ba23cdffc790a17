"""Lesson 12's look into the real model: its arms do what they are called, on a small model; its rules can fail."""

import math
from functools import partial
from types import SimpleNamespace

import int8_arms
import int8_real
import int8_rules
import int8_seen
import int8_why
import pytest
import real_int8_sweep
import torch
from int8 import SplitLinear, W8A8Linear, absmax_scale, quantize, round_trip
from int8_arms import TENSOR, keeping
from int8_model import Rounded, convert, linears, watch
from small_models import VOCABULARY, draw, llama, tokens
from torch.nn import functional as F

from shared.hooks import hooked, look
from shared.layers import SwiGLU
from shared.sweeps import stored
from shared.texts import OWN, texts

CLOSE = {"rtol": 1e-4, "atol": 1e-4}  # float32, sums of 192 numbers, through two layers
CACHED = (
    *(int8_real.encoded, int8_real.judged, int8_real.fitting, int8_real.largest, int8_real.quantiles),
    *(int8_real.moments, int8_real.means, int8_arms.column_share, int8_why.spike),
)


@pytest.fixture
def small(monkeypatch):
    """A Llama of two layers in the real model's place, whose tokens are characters."""
    model = llama(32, bias=False, feed_forward=partial(SwiGLU, d_hidden=192)).float()
    for parameter in model.parameters():
        parameter *= 0.3  # hidden numbers of size 1
    specials = {int8_why.BOS: 0}
    encode = lambda text: [1 + ord(c) % (VOCABULARY - 1) for c in text]  # noqa: E731
    tokenizer = SimpleNamespace(specials=specials, vocab_size=VOCABULARY, encode=encode)
    for cached in CACHED:
        cached.cache_clear()
    monkeypatch.setattr(int8_real, "model_and_tokenizer", lambda: (model, tokenizer))
    monkeypatch.setattr(int8_why, "model_and_tokenizer", lambda: (model, tokenizer))
    monkeypatch.setattr(int8_real, "FIT_TOKENS", 32)
    yield model
    for cached in CACHED:
        cached.cache_clear()


def given(model, x):
    """What each linear layer is given."""
    found = {}
    watch(model, [x], lambda name, it: found.__setitem__(name, it))
    return found


# Texts and judges


def test_who_judges_is_not_fitted_to(small):
    parts = (int8_real.FITTED, int8_real.JUDGES, int8_real.LONG_JUDGES)
    assert sum(map(len, parts)) == len({name for part in parts for name in part})
    assert {name for part in parts for name in part} <= set(texts()) and set(int8_real.JUDGES) <= set(OWN)
    first = int8_real.encoded(int8_real.JUDGES[0])
    assert torch.equal(int8_real.judged()[0], first[256:512])  # the rules come from the 256 tokens before
    for n in (256, 1024):
        assert int8_real.judged(n).shape == (8, n) and len(int8_real.judged(n).unique(dim=0)) == 8


def test_nats_are_of_the_tokens_behind_a_place(small):
    x = tokens(3, 20)
    each = F.cross_entropy(small(x)[:, :-1].mT, x[:, 1:], reduction="none")
    for first in (0, 1, 7):
        torch.testing.assert_close(int8_real.nats(small, x, first), each[:, first:].mean(dim=1), **CLOSE)
    torch.testing.assert_close(int8_real.nats_behind(small, small, x, 7), each[:, 7:].mean(dim=1), **CLOSE)
    half = int8_real.nats_from(small, x, lambda: small.new_cache(1, 20))
    torch.testing.assert_close(half, each[:, 10:].mean(dim=1), **CLOSE)


def test_a_text_has_its_own_scales(small):
    """What a text loses does not depend on the texts beside it."""
    x, model = tokens(3, 20), int8_arms.inputs(TENSOR)
    torch.testing.assert_close(int8_real.nats(model, x)[1:2], int8_real.nats(model, x[1:2]), rtol=0, atol=0)


# Arms


def test_a_first_token_in_the_cache_is_a_first_token_kept_in_float(small):
    """The same function by two ways; and another than where it is rounded with the others."""
    x, model = tokens(3, 20), int8_arms.inputs(TENSOR)
    kept = int8_real.nats(int8_arms.inputs(keeping(lambda x: [0])), x, 1)
    torch.testing.assert_close(int8_real.nats_behind(small, model, x), kept, **CLOSE)
    assert not torch.allclose(kept, int8_real.nats(model, x, 1), **CLOSE)


def test_a_prefix_runs_through_the_model_that_the_rest_is_made_of(small):
    """SmoothQuant makes values of another size, so the cache must be the smoothed model's own; as a function in float
    it is the same."""
    arms = int8_arms.prefixes()
    before, after = arms["SmoothQuant 0.5 static"]()
    assert all(isinstance(it, W8A8Linear) for name, it in after.named_modules() if name in linears(small))
    first = tokens(1, 5)
    torch.testing.assert_close(before(first), small(first), **CLOSE)
    assert not torch.allclose(*(look(it, first, ["v"])["v"][0] for it in (before, small)), **CLOSE)
    for name, scale in int8_arms.static(int8_real.largest(1)).items():
        layer = arms["static"]()[1].get_submodule(name)
        assert torch.equal(layer.static, scale)


def test_places_that_are_kept():
    x = draw(1, 6, 8, dtype=torch.float32)
    x[0, 2] *= 9
    for places, expected in (
        (int8_arms.loudest, [2]),
        (partial(int8_arms.loudest, first=3), [3 + int(x[0, 3:].abs().amax(-1).argmax())]),
        (partial(int8_arms.loudest, first=1, n=2), [1 + i for i in x[0, 1:].abs().amax(-1).argsort()[-2:].tolist()]),
        (int8_arms.drawn(1), int8_arms.drawn(1)(x)),
    ):
        others = [i for i in range(6) if i not in expected]
        y = keeping(places)(x)
        assert torch.equal(y[:, expected], x[:, expected]) and torch.equal(y[:, others], TENSOR(x[:, others]))
    assert all(1 <= int8_arms.drawn(seed)(x)[0] < 6 for seed in range(30))


def test_columns_that_are_loud_in_so_many_tokens():
    x = torch.tensor([[7.0, 7, 1, 6], [-8, 0, 1, 0], [9, 0, 1, 0]])
    for least, most, wanted in ((3, 9, [True, False, False, False]), (1, 2, [False, True, False, False])):
        assert int8_arms.loud_in(least, most, x[None]).tolist() == wanted


def test_columns_that_are_kept():
    """By size, or as many by chance, drawn anew for each layer, the same again for a seed."""
    x = draw(1, 9, 40, dtype=torch.float32)
    x[0, 4, [3, 17]] = 8
    by_size = int8_arms.splitting(lambda x: int8_arms.outlier_columns(x, 6))(x)
    rest = x.index_fill(-1, torch.tensor([3, 17]), 0)
    assert torch.equal(by_size[..., [3, 17]], x[..., [3, 17]])
    assert torch.equal(by_size.index_fill(-1, torch.tensor([3, 17]), 0), TENSOR(rest))
    one, other = int8_arms.as_many(6, 0), int8_arms.as_many(6, 0)
    drawn = [one(x) for _ in range(4)]
    assert all(it.sum() == 2 for it in drawn) and len(torch.stack(drawn).unique(dim=0)) > 1
    assert all(torch.equal(it, other(x)) for it in drawn)


def test_layers_of_an_arm(small):
    """Only what is named is rounded; five others are none of the worst."""
    arms, names = int8_arms.layers(), list(linears(small))

    def changed(arm):
        return [name for name in names if isinstance(arms[arm]().get_submodule(name), Rounded)]

    for kind, it in int8_arms.KINDS.items():
        assert (
            changed(f"{kind} only")
            == [name for name in names if int8_seen.kind_of(name) == kind]
            == [f"blocks.{i}.{it}" for i in range(2)]
        )
    assert changed("down 1") == ["blocks.1.feed_forward.proj"] and changed("but the five worst") == names
    drawn = [int8_arms.five_others(seed) for seed in int8_arms.SEEDS]
    assert all(len({*five, *int8_arms.WORST}) == 10 and max(five) < 30 for five in drawn)
    assert len({tuple(five) for five in drawn}) > 1


def test_what_texts_calibrate(small):
    """A quantile leaves its share of the numbers above it; the first token may be left out; columns are counted."""
    seen = given(small, int8_real.fitting())
    for name, most in int8_real.quantiles(0.99).items():
        assert (seen[name].abs() > most).double().mean() == pytest.approx(0.01, abs=2 / seen[name].numel())
    for name, it in int8_real.largest(1).items():
        torch.testing.assert_close(it, seen[name][:, 1:].abs().amax(dim=(0, 1)), **CLOSE)
    threshold = float(torch.cat([it.abs().amax(dim=(0, 1)) for it in seen.values()]).median())
    assert 0.1 < int8_arms.column_share(threshold) < 0.9 and int8_arms.column_share(math.inf) == 0


def test_a_rotation_by_chance_changes_nothing_but_the_rounding(small):
    x = tokens(2, 12)
    same = partial(int8_arms.through, lambda x: x)
    turned = convert(small, lambda name, linear: Rounded(linear, inputs=same, weight=same))
    torch.testing.assert_close(turned(x), small(x), **CLOSE)
    gap = int8_arms.turned_by_chance("row")(x) - small(x)
    assert 1e-4 < gap.square().mean().sqrt() < 0.3 * small(x).std()


PARTS = {part: names for part, names in real_int8_sweep.NAMES.items() if part not in ("layers", "seen")}


@pytest.mark.parametrize("part", PARTS)
def test_every_arm_runs(small, monkeypatch, part):
    """On two short texts, with numbers that JSON knows; and all but float change something."""
    monkeypatch.setattr(real_int8_sweep, "judged", lambda n: int8_real.judged(32)[:2])
    base = None
    for arm in PARTS[part]:
        row = real_int8_sweep.run({"part": part, "arm": arm, "tokens": 256})
        assert len(row["nats"]) == 2 and all(0 < it < 50 for it in row["nats"])
        base = row["nats"] if base is None else base
        unchanged = arm.startswith(("float", "own")) or part in ("clip", "why", "cache", "columns")
        unchanged |= "columns loud" in arm  # this model has no number above 6
        assert unchanged or row["nats"] != base or arm == PARTS[part][0]


# Why


def test_the_spike_is_found(small, monkeypatch):
    """A number of the first token that stays from one block on, beside a smaller one that comes before."""
    stream = [draw(4, 8, 12, seed=i) for i in range(4)]
    stream[0][:, 0, 2] = 40
    for x in stream[1:]:
        x[:, 0, [5, 2]] = torch.tensor([-100.0, 60.0], dtype=x.dtype)
    monkeypatch.setattr(int8_why, "look", lambda *_: {"block": stream})
    assert int8_why.spike() == (1, 5, 2, 100)


@pytest.mark.parametrize(
    ("arm", "place", "channels"),
    [
        ("times 0", [0], [5]),
        ("times -1", [0], [5]),
        ("next channel, times 0", [0], [2]),
        ("all other channels, times 0", [0], [c for c in range(192) if c != 5]),
        ("other tokens, times 0", list(range(1, 9)), [5]),
        ("all channels, times 0.25", [0], list(range(192))),
    ],
)
def test_only_these_numbers_are_scaled(small, monkeypatch, arm, place, channels):
    monkeypatch.setattr(int8_why, "spike", lambda: int8_why.Spike(0, 5, 2, 100.0))
    x = tokens()
    before = look(small, x, ["block"])["block"][0]
    with hooked(small, int8_why.SCALED[arm]()):
        after = look(small, x, ["block"])["block"][0]
    expected = before.clone()
    expected[:, torch.tensor(place)[:, None], torch.tensor(channels)] *= float(arm.split()[-1])
    assert torch.equal(after, expected)


def test_all_that_a_block_writes_for_the_first_token_goes(small, monkeypatch):
    monkeypatch.setattr(int8_why, "spike", lambda: int8_why.Spike(0, 5, 2, 100.0))
    with hooked(small, int8_why.SCALED["all that is written, times 0"]()):
        seen = look(small, tokens(), ["feed_forward"])["feed_forward"]
    assert not seen[0][:, 0].any() and seen[0][:, 1:].all() and seen[1].all()


def test_values_of_the_first_token_are_silent_behind_the_spike(small, monkeypatch):
    monkeypatch.setattr(int8_why, "spike", lambda: int8_why.Spike(0, 5, 2, 100.0))
    with hooked(small, int8_why.SCALED["its values at 0"]()):
        seen = look(small, tokens(), ["v"])["v"]
    assert seen[0][:, :, 0].all() and not seen[1][:, :, 0].any() and seen[1][:, :, 1:].all()


def test_what_is_clipped():
    x = draw(1, 6, 8, dtype=torch.float32)
    x[0, 0, 3] = -50
    clipped = int8_why.clamp_to_others(x)
    assert torch.equal(clipped[:, 1:], x[:, 1:]) and clipped[0, 0, 3] == -x[:, 1:].abs().max()
    for most, n in ((0, 1), (10, 1), (0, 2)):
        capped = int8_why.capped(most, n)(x)
        assert capped[0, 0, 3] == -most and (capped != x).sum() == n
        assert torch.equal(capped[:, 1:], x[:, 1:])
    silenced = int8_why.strongest(2)(x)
    assert (silenced == 0).all(dim=1).sum() == 2 and not silenced[0, :, 3].any()
    drawn = int8_why.strongest(2, torch.Generator().manual_seed(0))(x)
    assert (drawn == 0).all(dim=1).sum() == 2


def test_who_stands_first(small, monkeypatch):
    """Another token, the same twice, or one in the middle that sees itself alone: it is then what a first one is."""
    x = tokens(2, 20)
    for arm, (change, _) in int8_why.FIRSTS.items():
        y = change(x)
        assert y.shape == x.shape
        assert torch.equal(y[:, 2:], x[:, 1:-1]) if arm == "own, twice" else torch.equal(y[:, 1:], x[:, 1:])
    assert torch.equal(int8_why.FIRSTS["own, twice"][0](x)[:, :2], x[:, :1].repeat(1, 2))
    monkeypatch.setattr(int8_why, "ALONE", 5)
    with hooked(small, {"mask": int8_why.only_itself}):
        stream = look(small, x, ["block"])["block"][1][:, 5]
    torch.testing.assert_close(stream, look(small, x[:, 5:6], ["block"])["block"][1][:, 0], **CLOSE)
    monkeypatch.setattr(int8_why, "spike", lambda: int8_why.Spike(1, 7, 2, 1.0))
    row, stream = int8_why.judged_first("own", x), look(small, x, ["block"])["block"][1][..., 7].abs()
    assert row["where"] == [(each > 0.1).nonzero()[:, 0].tolist() for each in stream]
    assert row["size"] == pytest.approx(stream.amax(dim=1).tolist(), abs=0.051)  # stored with one digit


def test_equal_tokens_at_the_start_have_equal_streams(small):
    """Positions are in queries and keys only, and all values that the second one reads are the same: so whatever the
    first token gets, its repetitions get too."""
    x = torch.cat([torch.full((1, 3), 7), tokens(1, 5)], dim=1)
    for block in look(small, x, ["block"])["block"]:
        torch.testing.assert_close(block[:, 1:3], block[:, :1].expand(-1, 2, -1), **CLOSE)
        assert not torch.allclose(block[:, 3], block[:, 0], atol=0.1)


def test_maps_show_what_passes(small):
    x = tokens(1, 20)[0]
    seen, maps = given(small, x[None]), int8_seen.numbers(x)
    down = seen["blocks.1.feed_forward.proj"]
    assert maps["first"]["down"][1] == pytest.approx(float(down[:, 0].abs().max()), abs=1e-4)
    assert maps["others"]["down"][1] == pytest.approx(float(down[:, 1:].abs().max()), abs=1e-4)
    codes = int8_seen.codes(x)
    zeros = (quantize(down, absmax_scale(down, "row"))[:, 1:] == 0).float().mean()
    assert codes["zeros"]["token"]["down"][1] == pytest.approx(float(zeros), abs=1e-4)
    error = (down - round_trip(down, "column"))[:, 1:].square().sum() / down[:, 1:].square().sum()
    assert codes["sqnr"]["channel"]["down"][1] == pytest.approx(-10 * math.log10(error), abs=1e-3)
    stream = int8_seen.stream(x)["stream"]
    assert len(stream) == 3 and all(len(row) == 16 for row in stream)


# Rules


def rows_of(**changed):
    """Rows of all jobs that cost what these say, beside 1 nat: all else costs nothing. changed: by part, arm: nats."""
    costs = {
        ("granularity", "inputs tensor"): 0.6,
        ("granularity", "W8A8 tensor"): 0.6,
        ("prefix", "tensor, not in float"): 0.6,
        **{("token", f"drawn {seed}"): 0.6 for seed in int8_arms.SEEDS},
        **{("columns", f"inputs tensor, as many drawn {seed}"): 0.6 for seed in int8_arms.SEEDS},
    } | changed.get("costs", {})
    return [job | {"nats": [1 + costs.get((job["part"], job["arm"]), 0.0)] * 8} for job in real_int8_sweep.SWEEP.jobs]


def test_rules_are_met_by_what_the_claim_says():
    found = int8_rules.findings(rows_of())
    assert all(it.met for kind in found.values() for it in kind)
    assert sum(map(len, found.values())) == 2 * len(int8_rules.RULES)


@pytest.mark.parametrize(
    ("part", "arm", "nats", "n_missed"),
    [
        ("granularity", "weights row", 0.03, 2),
        ("token", "first 1", 0.4, 2),
        ("token", "drawn 3", 0.3, 1),  # one draw at the second length, another one
        ("columns", "inputs tensor, above 6 kept", 0.3, 2),
        ("columns", "inputs tensor, as many drawn 2", 0.3, 1),
        ("granularity", "inputs token", 0.1, 2),
        ("prefix", "tensor", 0.3, 2),
        ("cures", "SmoothQuant 0.75 tensor", 0.3, 2),
        ("cures", "Hadamard tensor", 0.3, 2),
    ],
)
def test_a_rule_can_be_missed(part, arm, nats, n_missed):
    found = int8_rules.findings(rows_of(costs={(part, arm): nats}))
    assert sum(not it.met for kind in found.values() for it in kind) == n_missed


def test_a_small_loss_misses_the_first_rule():
    small = dict.fromkeys([("granularity", "inputs tensor"), *(("token", f"drawn {s}") for s in int8_arms.SEEDS)], 0.2)
    assert not int8_rules.findings(rows_of(costs=small))["for"][0].met


def test_a_text_is_compared_with_the_same_tokens_in_float():
    rows = rows_of(
        costs={("prefix", "float, <|endoftext|> first"): 0.5, ("prefix", "static, <|endoftext|> first"): 0.7}
    )
    assert int8_rules.more(rows, "prefix", "static, <|endoftext|> first") == pytest.approx([0.2] * 8)
    with pytest.raises(ValueError, match="no row of 'prefix', 'none'"):
        int8_rules.more(rows, "prefix", "none")


def test_rules_read_the_stored_rows():
    """Numbers for all of them: what they say is the notebook's verdict."""
    rows, _ = stored(real_int8_sweep.SWEEP.results)
    found = int8_rules.findings(rows)
    assert all(math.isfinite(it.measured) for kind in found.values() for it in kind)


def test_llm_int8_is_the_split(small):
    model = int8_arms.columns()["LLM.int8() 20"]()
    assert {type(model.get_submodule(name)) for name in linears(small)} == {SplitLinear}
    assert {model.get_submodule(name).threshold for name in linears(small)} == {20}
