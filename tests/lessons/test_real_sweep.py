"""Lesson 04's look into the real model: its arms do what they are called, on a small model; its cells do without it."""

from functools import partial
from types import SimpleNamespace

import nbformat
import pytest
import real_sweep
import sinks_sweep
import torch
from torch import nn

from shared.hooks import hooked, look
from shared.layers import SwiGLU
from shared.lessons import lesson
from shared.rotary import RotaryAttention, no_positions
from shared.smollm2 import INSTALL
from shared.texts import OWN, texts
from shared.tiny_lm import TinyLM

V, T = 30, 9


@pytest.fixture
def small(monkeypatch):
    """A Llama of three layers in the real model's place; returns it and a text for it."""
    torch.manual_seed(0)
    parts = {"attention": partial(RotaryAttention, n_kv_heads=1), "feed_forward": partial(SwiGLU, d_hidden=20)}
    model = TinyLM(V, 64, d_model=16, n_layers=3, n_heads=2, norm=nn.RMSNorm, positions=no_positions, **parts)
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    tokenizer = SimpleNamespace(specials={"<s>": 0, "</s>": 1}, vocab_size=V)
    for sweep in (real_sweep, sinks_sweep):
        monkeypatch.setattr(sweep, "model_and_tokenizer", lambda: (model.eval(), tokenizer))
    monkeypatch.setattr(sinks_sweep, "GIANT_LAYER", 1)
    monkeypatch.setattr(sinks_sweep, "LATER", range(2, 3))
    return model, torch.randint(V, (1, T), generator=torch.Generator().manual_seed(0))


def logits(model, x, hooks):
    """What the model says with hooks in it."""
    with torch.no_grad(), hooked(model, hooks):
        return model(x)


@pytest.mark.parametrize("where", ["all", "first", "rest"])
def test_capped_rows_are_whole_and_none_passes_the_limit(small, where):
    (before,) = look(*small, ["weights"])["weights"][:1]
    after = real_sweep.capped(0.6, where)["weights"](before, 0)
    meant = (before.amax(-1) > 0.6) & {"all": True, "first": before.argmax(-1) == 0, "rest": before.argmax(-1) > 0}[
        where
    ]
    meant[..., 0, :1] = False  # the first row has nobody else to give to
    meant[..., 0] = False
    assert meant.any() or where == "rest"
    torch.testing.assert_close(after.sum(-1), torch.ones_like(after[..., 0]))  # float32
    assert torch.equal(after[~meant], before[~meant]) and (after[meant].amax(-1) == 0.6).all()
    assert torch.equal(after[meant].argmax(-1), before[meant].argmax(-1))


def test_masks_by_hand():
    mask = torch.ones(4, 4, dtype=torch.bool).tril()
    assert real_sweep.hidden(1)(mask.clone()).tolist()[2:] == [[True, False, True, False], [True, False, True, True]]
    assert real_sweep.hidden(1)(mask.clone())[1].tolist() == [True, True, False, False]
    assert real_sweep.alone(3)(mask.clone())[3].tolist() == [False, False, False, True]
    assert real_sweep.alone(3, 2)(mask.clone())[3].tolist() == [False, True, True, True]
    assert real_sweep.MASKS["one ahead"](mask).tolist()[0] == [True, True, False, False]
    assert real_sweep.MASKS["all"](mask).all() and torch.equal(real_sweep.MASKS["causal"](mask), mask)


def test_a_mask_from_a_layer_on_leaves_the_layers_before(small):
    model, x = small
    whole = look(model, x, ["block"])["block"]
    with hooked(model, real_sweep.masked(real_sweep.hidden(0), range(1, 3))):
        changed = look(model, x, ["block"])["block"]
    assert torch.equal(whole[0], changed[0]) and not torch.allclose(whole[1], changed[1])


def test_arms_equal_surgery_on_the_weights(small):
    model, x = small
    found = logits(model, x, real_sweep.without_heads(((1, 0), (2, 1))))
    factor = logits(model, x, real_sweep.times(3.0))
    for layer, head in ((1, 0), (2, 1)):
        model.blocks[layer].attention.proj.weight.data[:, head * 8 : (head + 1) * 8] = 0
    torch.testing.assert_close(found, logits(model, x, {}))  # float32
    assert not torch.allclose(factor, found)


def test_times_multiplies_every_score(small):
    before = look(*small, ["scores"])["scores"][0]
    with hooked(small[0], real_sweep.times(3.0)):
        torch.testing.assert_close(look(*small, ["scores"])["scores"][0], 3 * before)


def test_without_a_write_one_tokens_stream_lacks_it(small):
    seen = look(*small, ["block", "feed_forward"])
    with hooked(small[0], real_sweep.without_write(1, 4)):
        after = look(*small, ["block"])["block"]
    lacking = seen["block"][1].clone()
    lacking[0, 4] -= seen["feed_forward"][1][0, 4]
    torch.testing.assert_close(after[1], lacking)
    assert torch.equal(after[0], seen["block"][0])


def test_the_sinks_write_is_moved_and_scaled(small):
    x = small[1]
    (whole,), wrote = ([seen[1]] for seen in look(*small, ["block", "feed_forward"]).values())
    with hooked(small[0], sinks_sweep.write_moved(4)):
        moved = look(small[0], x, ["block"])["block"][1]
    meant = whole.clone()
    meant[:, 0] -= wrote[0][:, 0]
    meant[:, 4] += wrote[0][:, 0] - wrote[0][:, 4]
    torch.testing.assert_close(moved, meant)
    with hooked(small[0], sinks_sweep.write_times(0.25)):
        scaled = look(small[0], x, ["block"])["block"][1]
    meant = whole.clone()
    meant[:, 0] -= 0.75 * wrote[0][:, 0]
    torch.testing.assert_close(scaled, meant)


def test_a_silent_value_and_a_mask_until_the_mark(small):
    """The value is zero behind the layer that marks; the mask is another one up to it."""
    before = look(*small, ["v", "weights"])
    with (
        hooked(small[0], sinks_sweep.without_value(3)),
        hooked(small[0], real_sweep.masked(real_sweep.alone(5), range(2))),
    ):
        after = look(*small, ["v", "weights"])
    assert (
        torch.equal(before["v"][0], after["v"][0]) and not after["v"][2][:, :, 3].any() and after["v"][1][:, :, 3].any()
    )
    alone = [weights[0, :, 5].eq(torch.eye(T)[5]).all().item() for weights in after["weights"]]
    assert alone == [True, True, False]


def test_pairs_in_another_order(small, monkeypatch):
    """A head that gives all to what followed the same token before is found, and what follows is what costs."""
    texts = []

    def seen(x, hooks, *names):
        texts.append(x[0])
        first, weights = x[0, :48].tolist(), torch.zeros(1, 9, 96, 96)
        for query in range(48, 96, 2):
            weights[0, :, query, first.index(x[0, query].item()) + 1] = 1
        return [[weights] * 30, [x]]

    monkeypatch.setattr(sinks_sweep, "seen", seen)
    monkeypatch.setattr(sinks_sweep, "losses", lambda x, logits: torch.arange(95.0))
    small[0].vocab_size = sinks_sweep.model_and_tokenizer()[1].vocab_size = 10**6  # so that no first token comes twice
    found = sinks_sweep.run({"part": "pairs", "on": 0, "arm": "whole"})
    assert found == {"loss": 71.0, "given_0": 1.0, "given_1": 1.0, "given_2": 1.0, "given_3": 1.0}
    first, again = texts[0].view(2, 24, 2)
    assert sorted(first.tolist()) == sorted(again.tolist()) and first.tolist() != again.tolist()


def test_the_honest_loss_is_of_a_text_that_ends(small):
    """With the right mask both are one; with a leak the honest loss is that of the cut text."""
    model, x = small
    whole = real_sweep.losses_with(x, {})
    for place in (2, 5):
        honest = real_sweep.loss_after(x[:, : place + 1], x[0, place + 1], {})
        assert honest == pytest.approx(whole[place].item(), rel=1e-5)  # float32
        leak = real_sweep.masked(real_sweep.MASKS["all"])
        cut = logits(model, x[:, : place + 1], leak)[0, -1].log_softmax(-1)[x[0, place + 1]]
        assert real_sweep.loss_after(x[:, : place + 1], x[0, place + 1], leak) == pytest.approx(-cut.item(), rel=1e-5)


def test_measured_and_honest_part_where_the_mask_leaks(small):
    """With the right mask they are one, at every place; with a leak the measured loss is that of the whole text."""
    model, x = small
    right, leak = (
        real_sweep.leak(x, range(2, 7), real_sweep.masked(real_sweep.MASKS[arm])) for arm in ("causal", "all")
    )
    assert right["measured"] == pytest.approx(right["honest"], abs=2e-4)  # each rounded to 4 places
    whole = logits(model, x, real_sweep.masked(real_sweep.MASKS["all"]))[0].log_softmax(-1)
    measured = -whole[torch.arange(2, 7), x[0, 3:8]].mean().item()
    assert leak["measured"] == pytest.approx(measured, abs=1e-4) and abs(leak["honest"] - measured) > 0.1


def test_what_is_given_later_is_counted_behind_the_mark_and_from_64_on():
    weights = [torch.zeros(1, 2, 66, 66) for _ in range(30)]
    weights[12][0, 0, 64, 3] = weights[29][0, 1, 65, 5] = 1.0
    weights[11][..., 7] = 1.0  # the layer that marks is not counted, nor are the tokens before 64
    weights[20][0, :, :64, 8] = 1.0
    given = real_sweep.given_later(weights)
    assert given.nonzero().flatten().tolist() == [3, 5]
    assert given[[3, 5]].tolist() == pytest.approx([1 / (18 * 2 * 2)] * 2)  # of 18 layers, 2 heads, 2 tokens


def test_random_tokens_come_twice_and_are_not_special(small):
    x = real_sweep.twice(0, 500)
    assert torch.equal(x[:, :500], x[:, 500:]) and x.min() == 2 and x.max() == V - 1
    assert not torch.equal(x, real_sweep.twice(1, 500)) and torch.equal(x, real_sweep.twice(0, 500))


def test_copying_scores_find_what_came_next(small, monkeypatch):
    """A weight of one on the token after the earlier occurrence scores one."""
    ideal = torch.zeros(1, 2, 12, 12)
    ideal[:, 1, torch.arange(6, 12), torch.arange(1, 7)] = 1

    def give(weights, layer):
        return ideal

    with hooked(small[0], {"weights": give}):
        assert real_sweep.copying_scores(0, 6).tolist() == [[0.0, 1.0]] * 3


def test_those_who_judge_were_not_looked_at():
    assert not set(real_sweep.JUDGES) & set(real_sweep.LOOKED_AT) and not set(real_sweep.JUDGING_SEEDS) & set(
        range(100)
    )
    assert {*real_sweep.JUDGES, *real_sweep.LOOKED_AT} == set(texts()) and set(OWN) >= set(real_sweep.JUDGES)


def test_without_the_real_model_its_cells_say_so(capsys):
    """They show nothing, and the rest of the notebook goes on."""
    cells = nbformat.read(lesson("04").path, 4).cells
    names = {"is_installed": lambda: False, "INSTALL": INSTALL, "real_sweep": None}
    mine = [cell.source for cell in cells if cell.cell_type == "code" and "real_lm" in cell.source]
    assert len(mine) == 4
    for source in mine:
        exec(source, names)
    assert capsys.readouterr().out.count(INSTALL) == 1
