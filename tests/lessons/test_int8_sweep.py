"""Lesson 12's sweep of the story model: what is planted changes no float, arms round what they say, rules can fail."""

import int8_small_rules as rules
import int8_sweep
import pytest
import torch
from int8_model import linears
from int8_sweep import ARMS, HELD_OUT, JUDGES, SIZES, SWEEP, LargeToken
from torch import nn

from shared.story_model import load_story_lm
from shared.sweeps import stored
from shared.world import BASE, held_out_rows

T = int8_sweep.CONTEXT


@pytest.fixture(scope="module")
def model():
    return load_story_lm().requires_grad_(False)


@pytest.fixture(scope="module")
def text():
    return held_out_rows(2, T, HELD_OUT, BASE)[0]


@pytest.fixture(params=["channels", "token"])
def planted(request, model, text):
    if request.param == "channels":
        found = int8_sweep.plant_channels(model, 64.0, 4, seed=0)
    else:
        found = int8_sweep.plant_token(model, 64.0, seed=0)
    int8_sweep.calibrate_planted(found, [text])
    return found


def plain(planted):
    """The planted model, in float."""
    return planted.converted(lambda name, linear: linear)


def test_what_is_planted_changes_no_float(planted, model, text):
    """float32's rounding of logits of about 10."""
    with torch.no_grad():
        torch.testing.assert_close(plain(planted)(text), model(text), rtol=0, atol=1e-3)


def test_what_is_planted_is_there_and_nowhere_else(planted, model, text):
    """A channel's or token's largest input is 64 times what it was, any other's as ever (float32's rounding)."""
    dims = (0, 1) if planted.at is None else (0, 2)
    before, after = largest_along(model, text, dims), largest_along(plain(planted), text, dims)
    for name in linears(model):
        chosen = planted.chosen[name].flatten()
        wanted = before[name] * torch.where(chosen, 64.0, 1.0)
        torch.testing.assert_close(after[name], wanted, rtol=1e-3, atol=1e-4)
        is_hit = planted.at is not None or not name.endswith("proj")
        assert chosen.sum() == (0 if not is_hit else 4 if planted.at is None else 1)
        others = planted.others[name].flatten()
        assert others.sum() == chosen.sum() and not (others & chosen).any()


def largest_along(model, text, dims):
    """The largest |x| that each linear layer is given, by channel or by token."""
    found = {}
    int8_sweep.watch(model, [text], lambda name, x: found.update({name.removesuffix(".layer"): x.abs().amax(dims)}))
    return found


def test_a_large_token_leaves_the_bias_alone():
    linear, x = nn.Linear(6, 3).requires_grad_(False), torch.randn(2, 5, 6)
    same = LargeToken(linear, lambda it: it, at=3, size=8.0)
    torch.testing.assert_close(same(x), linear(x))
    seen = []
    LargeToken(linear, lambda it: lambda x: seen.append(x) or it(x), at=3, size=8.0)(x)
    assert torch.equal(seen[0][:, 3], 8 * x[:, 3]) and torch.equal(seen[0][:, 4], x[:, 4])


def test_what_is_kept_is_float_and_has_no_say_in_the_scale():
    x = torch.tensor([[[1.0, 0.3, 100.3], [0.5, 0.26, 3.0]]])
    which = torch.tensor([False, False, True])
    found = int8_sweep.keep(which, x)
    assert torch.equal(found[..., 2], x[..., 2])
    assert 0 < (found - x).abs().max() <= 0.5 / 127 + 1e-6  # half a step of a scale whose largest is 1


def test_arms_differ_where_they_should(planted, text):
    """How far each arm's logits are from the float model's, as a share: no two arms but those that are the same."""
    with torch.no_grad():
        wanted = plain(planted)(text)
        off = {
            name: (int8_sweep.converted(planted, arm)(text) - wanted).norm() / wanted.norm()
            for name, arm in ARMS.items()
        }
    assert len({f"{it:.6f}" for it in off.values()}) == len(ARMS)
    assert off["inputs, planted in float"] < off["inputs by tensor"] / 4
    assert off["weights by row"] < off["inputs by tensor"] / 4


def test_shares_of_columns_in_float(model):
    """Two of eight columns, then all."""
    layer = nn.Sequential(nn.Linear(8, 8, bias=False))
    layer.forward = lambda x, last: layer[0](x)
    x = torch.ones(1, 3, 8)
    x[0, 1, [2, 5]] = 7
    assert int8_sweep.in_float(layer, [x, 7 * x]) == (2 / 8 + 1) / 2


def test_seeds_draw_texts_and_none_is_calibrated_on():
    (x, *_, other), (again, *_) = int8_sweep.texts("facts", 0), int8_sweep.texts("facts", 1)
    assert not torch.equal(x, again) and not any(torch.equal(a, b) for a in torch.cat(other) for b in x)
    assert min(JUDGES) > 4


# The rules


def row(task, more, **job):
    """A stored row of a seed, all arms alike."""
    same = {"task": task, "setting": "trained", "text": "stories", "size": 100, "float": 0.004, "split": 0.1}
    return same | {"n": 4} | job | {"more": dict.fromkeys(ARMS, more)}


def test_more_is_of_the_rows_that_are_asked_for():
    rows = [row("channels", 0.5, seed=s, size=size) for s in JUDGES for size in SIZES] + [row("token", 2.0, seed=10)]
    assert rules.more(rows, "both by tensor", task="channels", size=3) == [0.5] * len(JUDGES)
    with pytest.raises(ValueError, match="no rows"):
        rules.more(rows, "both by tensor", task="channels", size=7)


def test_rules_can_fail_and_can_be_met():
    """No arm loses anything, or each loses 2 nats: each finding is met in one of the two at most."""
    found = []
    for more in (0.0, 2.0):
        rows = [
            job | {"float": 0.004, "split": 0.1, "more": dict.fromkeys(ARMS, more)}
            for job in SWEEP.jobs
            if "size" in job
        ]
        rows = [it for it in rows if it["task"] != "natural"]
        found.append([it.met for it in rules.supports(rows) + rules.limits(rows)])
    none, much = found
    assert all(a + b == 1 for a, b in zip(none, much, strict=True))


def test_what_is_stored_is_complete_and_by_judges_alone():
    rows, _ = stored(SWEEP.results)
    assert len(rows) == len(SWEEP.jobs) and {it["seed"] for it in rows} == set(JUDGES)
    assert all(it["more"].keys() == ARMS.keys() for it in rows if it["task"] != "natural")
    rules.supports(rows), rules.limits(rows)
