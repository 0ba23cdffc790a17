"""Lesson 10's sweep: arms are equally large, batches are what they are called, conversion starts from one model."""

import math

import gqa_sweep
import pytest
import torch
from gqa_sweep import CONTEXT, D_MODEL, HELD_OUT, KEYS, MOST_ASKED, RECORDS, VALUES

from shared.sweeps import best_rate, stored
from shared.world import VOCABULARY, decode, rows

SHORT = {"rate": 1e-2, "steps": 2, "seed": 0}


def parameters(arm):
    return sum(p.numel() for p in gqa_sweep.new_model(arm | SHORT).parameters())


@pytest.mark.parametrize("arms", [gqa_sweep.STORY, gqa_sweep.PAIRS, gqa_sweep.FIELDS], ids=["story", "pairs", "fields"])
def test_arms_are_equally_large(arms):
    """But for half a column of the feed-forward a layer, and for the two that are as a conversion leaves them."""
    whole = parameters(arms[0])
    for arm in arms:
        if arm in gqa_sweep.AS_CONVERTED:
            assert arm["d_hidden"] == arms[0]["d_hidden"] and parameters(arm) < whole
        else:
            assert abs(parameters(arm) - whole) <= arm["n_layers"] * 3 * D_MODEL / 2 + D_MODEL * 2


def test_what_an_arm_caches_is_what_its_cache_holds():
    for arm in gqa_sweep.STORY:
        cache = gqa_sweep.new_model(arm | SHORT).new_cache(1, 1)
        assert cache.keys.numel() + cache.values.numel() == gqa_sweep.cached(arm)


def test_the_words_are_those_of_the_world():
    row = next(rows(CONTEXT, HELD_OUT, gqa_sweep.WORLD))
    assert torch.equal(gqa_sweep.words()[gqa_sweep.numbered(row)], row)
    strange = torch.tensor(sorted(set(range(len(VOCABULARY))) - set(gqa_sweep.words().tolist()))[0])
    assert gqa_sweep.numbered(strange) == -1


def test_all_arms_of_a_seed_read_the_same_and_judges_read_something_else():
    first, again, other = (gqa_sweep.story_batches(seed)() for seed in (100, 100, 101))
    assert torch.equal(first[0], again[0]) and not torch.equal(first[0], other[0])
    assert torch.equal(first[0][:, 1:], first[1][:, :-1]) and decode(gqa_sweep.words()[first[0][0]].tolist())
    tries = {job["seed"] for job in gqa_sweep.SWEEP.jobs} - set(gqa_sweep.JUDGES)
    assert max(tries) < 100 and max(gqa_sweep.JUDGES) < gqa_sweep.NEW_TEXT < HELD_OUT


@pytest.mark.parametrize(("fields", "records"), [(fields, n) for fields, sizes in RECORDS.items() for n in sizes])
def test_each_question_of_a_context_has_one_answer(fields, records):
    """Read back digit by digit: a record's key and values, a question's key and field."""
    x, y = gqa_sweep.recall_batch(records, fields, 3, torch.Generator().manual_seed(0))
    asked = min(records, MOST_ASKED)
    assert x.shape == (3, records + asked) and y.shape == (3, asked)
    for row, answers in zip(x.tolist(), y.tolist(), strict=True):
        told = dict(map(parts, row[:records], [fields] * records))
        assert len(told) == records and all(0 < digit <= VALUES for digits in told.values() for digit in digits[:-1])
        assert all(digits[-1] == 0 for digits in told.values())
        questions = [parts(token, fields) for token in row[records:]]
        assert len({key for key, _ in questions}) == asked
        for (key, (*empty, field)), answer in zip(questions, answers, strict=True):
            assert not any(empty) and 1 <= field <= fields and told[key][field - 1] == 1 + answer


def parts(token, fields):
    """A key, and the digits above it: (key, [value or 0] * fields + [field or 0])."""
    digits, rest = [], token // KEYS
    for _ in range(fields):
        digits.append(rest % (1 + VALUES))
        rest //= 1 + VALUES
    return token % KEYS, [*digits, rest]


def test_a_token_is_the_sum_of_its_parts():
    table = gqa_sweep.RecordEmbedding(8, 2)
    key, first, second, asked = (part.weight for part in table.parts)
    token = 3 + KEYS * (5 + (1 + VALUES) * (7 + (1 + VALUES) * 2))
    with torch.no_grad():
        torch.testing.assert_close(table(torch.tensor([[token]]))[0, 0], key[3] + first[5] + second[7] + asked[2])


def test_recall_knows_no_positions():
    """Records in another order: the same answers."""
    model = gqa_sweep.new_model(gqa_sweep.FIELDS[1] | SHORT).double()
    x, _ = gqa_sweep.recall_batch(8, 3, 2, torch.Generator().manual_seed(0))
    turned = torch.cat([x[:, :8].flip(1), x[:, 8:]], dim=1)
    with torch.no_grad():
        torch.testing.assert_close(model(x, last=8), model(turned, last=8))  # float64


def test_what_is_recalled_is_counted():
    """A model that knows every answer, and one that knows none."""

    def knows(x, last):
        told, asked = x[:, :-last], x[:, -last:]
        where = (asked[:, :, None] % KEYS == (told % KEYS)[:, None]).float().argmax(dim=-1)
        return 50.0 * torch.nn.functional.one_hot(told.gather(1, where) // KEYS - 1, VALUES)

    found = gqa_sweep.recalled(knows, 1)
    assert found["accuracy"] == [1.0] * len(RECORDS[1]) and found["loss"] == 0
    blind = gqa_sweep.recalled(lambda x, last: torch.zeros(*x[:, -last:].shape, VALUES), 3)
    assert max(blind["accuracy"]) < 2 / VALUES and blind["loss"] == pytest.approx(math.log(VALUES), abs=1e-4)


def test_a_conversion_starts_from_one_model_and_leaves_it(monkeypatch):
    monkeypatch.setattr(
        gqa_sweep, "above_floor", lambda model: sum(p.double().abs().sum().item() for p in model.parameters())
    )
    monkeypatch.setattr(gqa_sweep, "TO_CONVERT", {4: 1e-2})
    gqa_sweep.trained.cache_clear()
    job = {"task": "convert", "n_kv_heads": 1, "how": "mean", "more": 0, "rate": None, "steps": 4, "seed": 0}
    whole = gqa_sweep.run(job | {"n_kv_heads": 8})["loss"]
    found = {how: gqa_sweep.run(job | {"how": how})["loss"] for how in gqa_sweep.WAYS}
    assert len({whole, *found.values()}) == 5
    assert gqa_sweep.run(job | {"more": 0.5, "rate": 1e-2})["loss"] != found["mean"]
    assert gqa_sweep.run(job | {"n_kv_heads": 8})["loss"] == whole and gqa_sweep.run(job)["loss"] == found["mean"]
    gqa_sweep.trained.cache_clear()


def test_a_stretched_head_is_as_long_as_those_it_is_made_of():
    """Of heads that have nothing in common: drawn by chance, 512 numbers each, whose products are of order 1 / 22."""
    model = gqa_sweep.new_model(gqa_sweep.STORY[0] | SHORT)
    small = gqa_sweep.converted(model, 2, "stretched", torch.Generator())
    for one, other in zip(model.blocks, small.blocks, strict=True):
        (q, k, v), (same, *pooled) = (
            block.attention.qkv.weight.unflatten(0, (-1, 8)).split([8, n, n]) for block, n in ((one, 8), (other, 2))
        )
        assert torch.equal(q, same)
        for heads, made in zip((k, v), pooled, strict=True):
            torch.testing.assert_close(made, heads.unflatten(0, (2, 4)).mean(dim=1) * 2)
            assert 0.8 < made.square().mean() / heads.square().mean() < 1.2


# What is stored


def by_arm(rows, judges):
    """Losses by arm and length, then by rate, of the seeds that judge or of the others."""
    found = {}
    for row in rows:
        if row["task"] != "convert" and (row["seed"] in gqa_sweep.JUDGES) == judges:
            sizes = [
                row.get(name) for name in ("task", "fields", "n_heads", "n_kv_heads", "d_head", "n_layers", "d_hidden")
            ]
            found.setdefault((*sizes, row["steps"]), {}).setdefault(row["rate"], []).append(row["loss"])
    return found


def test_each_arm_is_judged_at_its_best_rate():
    """The best of those tried, which is not the lowest nor the highest, by five seeds that did not choose it."""
    rows, _ = stored(gqa_sweep.SWEEP.results)
    tried, judged = by_arm(rows, False), by_arm(rows, True)
    assert judged
    for arm, runs in judged.items():
        ((rate, losses),) = runs.items()
        assert len(losses) == len(gqa_sweep.JUDGES)
        best = best_rate(torch.tensor(list(tried[arm].values())).T, list(tried[arm]))
        assert best.rate == rate and not best.at_edge, arm
