"""Lesson 11's sweeps: measures of load and of what a choice tells, labelled texts, arms that do what they say."""

import math

import moe
import moe_load
import moe_real
import moe_rules as rules
import moe_sweep
import pytest
import real_moe_sweep
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from moe_arms import ARMS, Shifted, loss_of
from moe_sweep import CONTEXT, HELD_OUT, JUDGES, KINDS
from small_mixtures import filled, layer
from small_models import EXACT, draw
from torch.nn import functional as F

from shared.sweeps import best_rate, stored
from shared.training import next_token_loss
from shared.world import VOCABULARY, decode

# Measures


def record(experts, n_experts):
    """Of a layer that sent token i to experts[i]."""
    routes = moe.Routes(torch.arange(len(experts)), torch.tensor(experts), torch.ones(len(experts)))
    scores = F.one_hot(routes.experts, n_experts).double()
    return moe.Record(scores, scores, routes, routes)


@pytest.mark.parametrize(
    ("experts", "wanted"),
    [
        ([0, 1, 2, 3] * 100, (0.25, 1, 0)),
        ([2] * 400, (1, 0, 3)),
        ([0, 3] * 200, (0.5, 0.5, 2)),
        ([0] * 996 + [1] * 3 + [2], (0.996, None, 2)),  # a hundredth of an even share is 2.5 of 1,000
    ],
)
def test_load(experts, wanted):
    shares = moe_load.load_shares(record(experts, 4))
    found = moe_load.largest(shares), moe_load.evenness(shares), moe_load.dead(shares)
    assert all(want is None or it == pytest.approx(want, abs=1e-6) for it, want in zip(found, wanted, strict=True))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999), size=st.tuples(st.integers(1, 5), st.integers(1, 5)))
def test_information_is_the_divergence_from_independence(seed, size):
    """KL of the joint distribution from the product of its margins, by PyTorch; float64."""
    p = draw(*size, seed=seed).exp()
    p = p / p.sum()
    product = p.sum(dim=1, keepdim=True) * p.sum(dim=0)
    assert moe_load.information(p * 50) == pytest.approx(F.kl_div(product.log(), p, reduction="sum").item(), abs=1e-9)


def told(domains, tokens, experts, n_experts):
    return moe_load.told(torch.tensor(domains), torch.tensor(tokens), record(experts, n_experts), (2, 3))


def test_what_the_token_alone_tells():
    """A choice by token tells of the domain what the token tells; one by domain, of tokens that all domains share,
    tells it although the token does not."""
    domains, tokens = [0, 0, 1, 1, 1, 0], [0, 2, 1, 2, 1, 0]
    found = told(domains, tokens, [1, 0, 2, 0, 2, 1], 3)
    assert found["domain"] == found["domain_by_token"] > 0 and found["token"] == pytest.approx(math.log(3), abs=1e-4)
    found = told([0, 1] * 3, [0, 0, 1, 1, 2, 2], [1, 0] * 3, 2)
    assert found == {"domain": round(math.log(2), 4), "token": 0, "domain_by_token": 0}


def test_the_mean_cosine_is_over_different_vectors():
    x = draw(7, 3)
    cosines = F.cosine_similarity(x[:, None], x, dim=-1)
    wanted = cosines[~torch.eye(7, dtype=torch.bool)].mean().item()
    assert moe_load.mean_cosine(x) == pytest.approx(wanted, abs=1e-9)


# Texts


def test_each_token_has_the_kind_of_its_document():
    """What only one kind says: "let" and "=>" code, "Once" stories, "plus" sums, "capital" facts."""
    x, kinds = moe_sweep.held_out()[0], moe_sweep.held_out_kinds()
    said = moe_sweep.words()[x]
    assert kinds.shape == x.shape and set(kinds.flatten().tolist()) == set(range(len(KINDS)))
    for word, kind in {"let": "code", "=>": "code", "Once": "story", "plus": "sums", "capital": "facts"}.items():
        assert set(kinds[said == VOCABULARY.index(word)].tolist()) == {KINDS.index(kind)}


def test_all_arms_of_a_seed_read_the_same_and_judges_read_something_else():
    first, again, other = (moe_sweep.batches(seed)() for seed in (10, 10, 11))
    assert torch.equal(first[0], again[0]) and not torch.equal(first[0], other[0])
    assert torch.equal(first[0][:, 1:], first[1][:, :-1]) and first[0].min() >= 0
    assert "\n" in decode(moe_sweep.words()[first[0][0]].tolist()) and first[0].shape == (moe_sweep.ROWS, CONTEXT)
    assert max(JUDGES) < HELD_OUT - 1


def test_a_hash_is_even_on_text_it_was_not_made_of():
    """24,576 tokens; the most frequent word has less than an even share, so only the text's chance is left."""
    found = moe_sweep.table(8)[moe_sweep.held_out()[0].flatten()].bincount(minlength=8)
    assert found.max() < 1.1 * found.float().mean()


# Arms

SHORT = {"rate": 1e-2, "steps": 11, "seed": 0}
JOBS = {(job["arm"], job["k"], job["n_experts"], job["dose"]): job | SHORT for job in moe_sweep.SHORT}


def test_a_shift_is_given_to_the_router_alone():
    shift, x = draw(8, seed=3), draw(5, 8)
    plain = layer(k=1)
    shifted = filled(Shifted(8, shift=shift, n_experts=6, k=1, d_hidden=12))
    wanted = plain.decide(x + shift)
    torch.testing.assert_close(shifted(x), moe.dispatch_loop(x, wanted.routes, plain.experts), **EXACT)
    assert not torch.equal(wanted.wanted.experts, plain.decide(x).wanted.experts)


def test_arms_add_to_the_loss_or_move_a_bias_and_no_more():
    for name, arm in ARMS.items():
        model, (x, y) = moe_sweep.new_model(JOBS[name, 1, 8, 0.0]), moe_sweep.batches(0)()
        plain = next_token_loss(model, x, y)  # first, since the other moves a bias
        more = (loss_of(arm)(model, x, y) - plain).item()
        if arm.layer != "mixture":
            assert more == 0
            continue
        layers = moe.mixtures(model)
        balance = sum(moe.balance_loss(it.record.scores, it.record.wanted) for it in layers).item()
        assert more == pytest.approx(arm.aux * balance, abs=1e-5) and (more > 0) == name.startswith("aux")
        assert all(bool(it.bias.any()) == name.startswith("bias") for it in layers)
        assert all(it.router.weight.requires_grad != (name == "frozen") for it in layers)


def feed_forward_weights(name, k):
    """In both blocks, but for routers."""
    blocks = moe_sweep.new_model(JOBS[name, k, 8, 0.0]).blocks
    return sum(p.numel() for name, p in blocks.named_parameters() if "feed_forward" in name and "router" not in name)


def test_dense_models_are_as_large_as_they_are_called():
    mixture = feed_forward_weights("none", 1)
    assert feed_forward_weights("dense total", 1) == mixture
    assert feed_forward_weights("dense active", 1) * 8 == mixture == feed_forward_weights("dense active", 2) * 4


def test_a_dose_gives_all_tokens_something_in_common():
    """A random direction of the same size makes a cosine of about 1/2, less or more by a tenth in 48 numbers."""
    x = moe_sweep.held_out()[0][:32]
    plain, dosed = (moe_sweep.judged(moe_sweep.new_model(JOBS["none", 1, 8, dose]), x)["cosine"] for dose in (0, 1))
    assert all(b > 0.35 and b > a + 0.2 for a, b in zip(plain, dosed, strict=True))


def test_a_small_run():
    """The load at steps 0 and 10, by layer; a frozen router ends as it began; a dense model has no load."""
    found = moe_sweep.run(JOBS["none", 2, 8, 0.0])
    assert all(len(found[f"{name}_by_step"]) == 2 for name in ("largest", "evenness", "dead"))
    assert all(len(layer) == 2 and min(layer) >= 1 / 8 and max(layer) <= 1 / 2 for layer in found["largest_by_step"])
    assert all(by <= nats for by, nats in zip(found["domain_by_token"], found["token"], strict=True))
    assert "largest" not in moe_sweep.run(JOBS["dense active", 1, 8, 0.0])
    assert moe_sweep.run(JOBS["none", 1, 8, 0.0] | {"rate": 1e30})["loss"] is None


# The real model's layer


@pytest.fixture
def states(monkeypatch):
    """In place of the real model's: 300 tokens of 16 numbers with a large mean, and what one expert would answer."""

    def some(n, seed):
        x = draw(n, 16, seed=seed, dtype=torch.float32) + 2
        y = filled(moe.Experts(1, 16, 4)).float().one(0, x).detach()
        number = torch.arange(n)
        return moe_real.States(x, y / y.std(), number % 3, number % 7)

    monkeypatch.setattr(moe_real, "states", lambda *_: {11: (some(300, 0), some(200, 1))})


def test_an_imitation(states):
    """It learns; a router given less the mean gets nothing that all tokens share, less a random vector nearly all."""
    job = {"layer": 11, "arm": "none", "n_experts": 4, "k": 1, "given": moe_real.AS_IS}
    job |= {"rate": 1e-2, "steps": 1, "seed": 0}
    first, later = moe_real.imitate(job), moe_real.imitate(job | {"steps": 100})
    assert later["loss"] < 0.5 * first["loss"] and len(later["dead_by_step"]) == 11
    assert later["cosine"] > 0.7 and moe_real.imitate(job | {"given": moe_real.LESS_RANDOM})["cosine"] > 0.5
    assert abs(moe_real.imitate(job | {"given": moe_real.LESS_MEAN})["cosine"]) < 0.05


# The rules


def imagined(job, collapsed):
    """A judging job's row: one expert has nearly all, or all have the same."""
    n_layers = {"small": 2, "upcycle": 4}.get(job.get("task"), 1)
    one = {"largest": 0.95 / job["k"], "dead": 6} if collapsed else {"largest": 1 / job["n_experts"], "dead": 0}
    one |= {"domain": 0.1, "domain_by_token": 0.05, "largest_by_step": [1 / job["n_experts"]]}
    many = one if n_layers == 1 else {name: [value] * n_layers for name, value in one.items()}
    return job | many | {"loss": 0.3}


@pytest.mark.parametrize("true", [True, False])
def test_rules_can_be_met_and_can_fail(true):
    """A world as the claim with its conditions has it, and its opposite."""
    rows = []
    for judged in (moe_sweep.JUDGED, real_moe_sweep.JUDGED):
        even = [job.get("dose") == 0 or job.get("given") == moe_real.LESS_MEAN for job in judged]
        uneven = [job["arm"] == "none" and not it for job, it in zip(judged, even, strict=True)]
        rows.append([imagined(job, it == true) for job, it in zip(judged, uneven, strict=True)])
    found = rules.supports(*rows) + rules.limits(*rows) + rules.first(*rows)
    assert len(found) > 20 and all(it.met == true for it in found)
    assert rules.further(*rows)


def test_numbers_by_seed_are_of_the_rows_that_are_asked_for():
    rows = [
        {"task": "small", "arm": arm, "n_experts": 8, "k": 1, "dose": dose, "seed": seed, "loss": dose + seed}
        | {"largest": [0.25, dose], "dead": [1, 3]}
        for arm in ("none", "aux 1")
        for dose in (0.0, 0.5)
        for seed in (0, 12, 11)
    ]
    assert rules.overload(rows, task="small", arm="none") == [2, 2]
    assert rules.overload(rows, task="small", arm="none", dose=0.5) == [4, 4]
    assert rules.dead(rows, task="small", arm="none") == [0.25, 0.25]
    assert rules.by_seed(rows, lambda row: row["loss"], task="small", arm="none") == [11, 12]
    assert rules.more(rows, "aux 1", "none", task="small") == [0, 0]
    for job in ({"arm": "none", "k": 2}, {"arm": "none"}):  # none, and two of each seed
        with pytest.raises(ValueError, match="which are stored"):
            rules.overload(rows, **job)


# What is stored


def arm_of(row):
    return tuple((name, row.get(name)) for name in ("task", "layer", "arm", "n_experts", "k", "dose", "given", "steps"))


@pytest.mark.parametrize("sweep", [moe_sweep.SWEEP, real_moe_sweep.SWEEP], ids=["small", "real"])
def test_each_arm_is_judged_at_its_best_rate(sweep):
    """The best of those tried, which is not the lowest nor the highest, by five seeds that did not choose it; but for
    the upcycled model, which loses least where it is trained least, and is shown at each rate."""
    tried, judged = {}, {}
    for row in stored(sweep.results)[0]:
        if row["seed"] in real_moe_sweep.FRESH:
            continue
        runs = judged if row["seed"] in JUDGES else tried
        runs.setdefault(arm_of(row), {}).setdefault(row["rate"], {})[row["seed"]] = row["loss"]
    assert judged
    for arm, runs in judged.items():
        assert all(sorted(losses) == JUDGES for losses in runs.values())
        if ("task", "upcycle") in arm:
            continue
        (rate,) = runs
        first = {rate: losses[0] for rate, losses in tried[arm].items()}  # the seed that tried all rates
        best = best_rate(torch.tensor([list(first.values())]), list(first))
        assert best.rate == rate and not best.at_edge, arm
