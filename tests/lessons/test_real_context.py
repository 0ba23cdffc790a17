"""Lesson 16's look into the real model, on a small one: the same tokens after more and more context, and the rules."""

from types import SimpleNamespace

import context_rules
import numpy as np
import pytest
import real_context
import real_context_sweep
import torch
from real_context import AMOUNTS, LONGER, NEAR, TARGETS, after, block_of, by_amount, by_position, ids_of, prefixes
from small_models import VOCABULARY, llama, tokens
from torch.nn import functional as F

from shared.sweeps import stored
from shared.texts import OWN, texts

CLOSE = {"rtol": 1e-9, "atol": 1e-9}  # float64
START, FEW = 70, 16


@pytest.fixture
def small(monkeypatch):
    """A Llama of two layers in the real model's place, whose tokens are characters."""
    model = llama(bias=False)
    model.context = 3000  # no part of it has a size by the context
    encode = lambda text: [1 + ord(c) % (VOCABULARY - 1) for c in text]  # noqa: E731
    pair = model, SimpleNamespace(encode=encode, specials={real_context.SINK: 0})
    monkeypatch.setattr(real_context, "model_and_tokenizer", lambda: pair)
    ids_of.cache_clear()
    yield model
    ids_of.cache_clear()


def nats_after(model, *context_and_token):
    """Of the last token, read whole and without a cache."""
    row = torch.cat([torch.as_tensor(it).reshape(-1) for it in context_and_token])
    return F.cross_entropy(model(row[None, :-1])[0, -1], row[-1])


def test_who_judges_was_not_looked_at():
    assert not set(real_context.TRIED) & set(real_context.JUDGES) and len(real_context.JUDGES) == 8
    assert {*real_context.TRIED, *real_context.JUDGES} <= set(OWN)
    assert {*real_context.JUDGES, *real_context.LONG} <= set(texts())


@pytest.mark.parametrize("before", [None, 7])
@pytest.mark.parametrize("amount", [1, 2, 4, 8, 32, 64])
def test_a_token_after_its_last_tokens_alone(small, amount, before):
    ids = tokens(1, START + FEW)[0]
    contexts, nats = by_amount(small, ids, START, amount, before, FEW)
    first = [] if before is None else [before]
    alone = [
        nats_after(small, *first, ids[at - n : at + 1])
        for at, n in zip(range(START, START + FEW), contexts, strict=True)
    ]
    torch.testing.assert_close(nats, torch.stack(alone), **CLOSE)


def test_an_amount_is_kept_to_an_eighth():
    for amount in LONGER:
        fewest, block = block_of(amount)
        assert amount * 7 / 8 <= fewest and fewest + block - 1 <= amount * 9 / 8 and TARGETS % block == 0
        assert np.exp(np.log(np.arange(fewest, fewest + block)).mean()) == pytest.approx(amount, rel=0.07)


def test_what_a_text_is_too_short_for_is_refused(small):
    ids = tokens(1, 90)[0]
    for start, amount in ((10, 32), (80, 4)):
        with pytest.raises(ValueError, match="the text has 90"):
            by_amount(small, ids, start, amount, targets=FEW)


def test_along_one_pass_each_token_has_all_before_it(small):
    ids = tokens(1, 30)[0]
    alone = [nats_after(small, ids[: at + 1]) for at in range(1, 30)]
    torch.testing.assert_close(by_position(small, ids), torch.stack(alone), **CLOSE)


def test_a_token_after_a_prefix_and_its_own_last(small, monkeypatch):
    monkeypatch.setattr(real_context, "ROWS", 3)
    ids, prefix = tokens(1, START + FEW)[0], tokens(1, 40, seed=1)[0]
    for given in (None, prefix):
        first = [] if given is None else [given]
        alone = [nats_after(small, *first, ids[at - NEAR : at + 1]) for at in range(START, START + FEW, 2)]
        torch.testing.assert_close(after(small, ids, START, given, FEW), torch.stack(alone), **CLOSE)


def test_prefixes_are_as_long_as_each_other():
    ids, other = tokens(1, 100)[0], tokens(1, 100, seed=1)[0]
    own, shuffled, others = prefixes(ids, START, 40, other).values()
    assert torch.equal(own, ids[30:62]) and torch.equal(others, other[:32])
    assert torch.equal(own.sort().values, shuffled.sort().values) and not torch.equal(own, shuffled)


def test_each_part_of_the_sweep_runs(small):
    base = {"text": "letter", "start": 64, "before": "", "targets": FEW}
    run = lambda **job: real_context_sweep.run(base | job)["found"]  # noqa: E731
    ids = ids_of("letter")
    with_first = run(part="amount", amounts=[1, 16], before=real_context.SINK)
    assert with_first["contexts"] == [1.0, pytest.approx(16, rel=0.07)]
    assert with_first["nats"][1] == pytest.approx(by_amount(small, ids, 64, 16, 0, FEW)[1].mean().item(), abs=1e-4)
    nats = by_position(small, ids[: 64 + TARGETS])
    along = run(part="position", amounts=[1, 4])
    assert along["nats"] == pytest.approx([nats[0].item(), nats[3:7].mean().item()], abs=1e-4)
    assert along["contexts"] == [1.0, pytest.approx(np.exp(np.log([4, 5, 6, 7]).mean()), abs=1e-4)]
    for text in ("letter", "diary", "voyage"):
        assert run(part="prefix", text=text, amounts=[32]).keys() == {"near", *real_context.KINDS}
    assert run(part="prefix", amounts=[32])["near"] == pytest.approx(
        after(small, ids, 64, None, FEW).mean().item(), abs=1e-4
    )


# Rules


def rows(law=lambda x, text: 2 + 5 * x**-0.5, prefix=None, bare=2.0, along=lambda i, text: 4 + (-1) ** i, long=None):
    """What the rules ask for, by laws."""
    x = np.array(AMOUNTS, dtype=float)
    made = []
    for number, text in enumerate(real_context.JUDGES):
        kind = {"text": text, "start": real_context.START}
        read = {"contexts": x.tolist(), "nats": law(x, number).tolist()}
        y = law(np.array(real_context.BARE, dtype=float), number) + np.array([bare, 0.0, 0.0])
        first = {"contexts": list(real_context.BARE), "nats": y.tolist()}
        passed = {"contexts": x.tolist(), "nats": [along(i, number) for i in range(len(x))]}
        gains = {"near": 4.0} | {kind: 4.0 - gain for kind, gain in (prefix or GAINS).items()}
        made += [kind | {"part": "amount", "before": real_context.SINK, "found": read}]
        made += [kind | {"part": "amount", "before": "", "found": first}]
        made += [kind | {"part": "position", "before": "", "found": passed}]
        made += [kind | {"part": "prefix", "before": "", "found": gains}]
    for text in real_context.LONG:
        y = (long or law)(np.array(LONGER, dtype=float), 0)
        kind = {"part": "amount", "text": text, "start": real_context.LATER, "before": real_context.SINK}
        made.append(kind | {"found": {"contexts": list(LONGER), "nats": y.tolist()}})
    return made


GAINS = {"own": 1.0, "shuffled": -0.7, "other": 0.0}


def slow(x, text):
    """It falls slower and slower, and is never flat."""
    return 2.5 + 4 * x**-0.6 - 0.1 * np.log(x)


def unmet(made):
    return {it.what for found in context_rules.findings(made).values() for it in found if not it.met}


def test_forms_by_hand():
    """Where the curve is one of the forms, that form is right and the line, or the others, are not."""
    floored = rows()
    assert np.abs(context_rules.errors(floored, context_rules.FLOORED)).max() < 0.01
    assert context_rules.nearest(floored, context_rules.FLOORED) == 8
    assert context_rules.floors(floored) == pytest.approx([2.0] * 8, abs=0.01)
    straight = rows(lambda x, text: 7 - 0.5 * np.log(x))
    assert context_rules.errors(straight, context_rules.LINE) == pytest.approx(np.zeros((8, 3)), abs=1e-9)
    assert context_rules.nearest(straight, context_rules.LINE) == 8
    assert context_rules.fall(straight, 8, 64) == pytest.approx([0.5 * np.log(2)] * 8)


def test_gains_and_rises_by_hand():
    made = rows()
    assert context_rules.gain(made, "own") == pytest.approx([1.0] * 8)
    assert context_rules.of_the_first(made) == pytest.approx(np.tile([2.0, 0.0, 0.0], (8, 1)))
    assert context_rules.rises(made, "position", "").tolist() == [4] * 8
    assert context_rules.rises(made, "amount", real_context.SINK).tolist() == [0] * 8
    with pytest.raises(ValueError, match="no row of 'prefix', 'voyage'"):
        context_rules.gain([it for it in made if (it["part"], it["text"]) != ("prefix", "voyage")], "own")


def test_each_rule_can_fail():
    """Each is met by one of these curves and controls, and missed by another."""
    straight = lambda x, text: 7 - 0.5 * np.log(x)  # noqa: E731
    steep = lambda x, text: 2 + 5 / x  # noqa: E731
    broken = lambda x, text: 5 - 0.3 * np.log(x) + 3 * (x < 2)  # noqa: E731
    wild = lambda x, text: 3 + (-1.0) ** np.arange(len(x)) * np.linspace(1, 2, len(x))  # noqa: E731
    flipped = {"own": 0.0, "shuffled": 0.5, "other": 1.0}
    late = rows(bare=0.0)
    for row in late:
        if row["part"] == "amount" and not row["before"]:
            row["found"]["nats"][1] += 0.5
    odd = [rows(straight, flipped, along=lambda i, text: 9.0 - i), rows(steep), rows(broken), rows(wild), late]
    missed = [unmet(case) for case in [rows(slow), *odd]]
    assert set().union(*missed) == {rule.what for rule in context_rules.RULES}
    assert not set.intersection(*missed)


def test_the_rules_read_what_is_stored():
    found, _ = stored(real_context_sweep.SWEEP.results)
    kinds = context_rules.findings(found)
    assert sum(map(len, kinds.values())) == len(context_rules.RULES)
    x, y = context_rules.curves(found)
    assert x == pytest.approx(AMOUNTS, rel=0.07) and y.shape == (8, len(AMOUNTS))
