"""Lesson 01's look at how a real model reads its tokens, on a small model in its place, and the rules."""

import math
from functools import partial

import pytest
import real_glitches
import real_tokens
import real_tokens_rules
import real_tokens_sweep
import real_vocabulary as rv
import torch
from small_models import FLOAT, draw
from torch import nn

from shared.gguf_tokenizer import read_tokenizer
from shared.layers import SwiGLU
from shared.rotary import RotaryAttention, no_positions
from shared.sweeps import stored
from shared.texts import OWN, texts
from shared.tiny_lm import TinyLM

CLOSE = {"rtol": 1e-9, "atol": 1e-9}  # float64


@pytest.fixture(scope="module")
def tokenizer(smollm2_path):
    return read_tokenizer(smollm2_path)


@pytest.fixture
def small(tokenizer, monkeypatch):
    """A Llama of two layers with the real model's tokens, in its place."""
    parts = {"attention": partial(RotaryAttention, n_kv_heads=3), "feed_forward": partial(SwiGLU, d_hidden=10)}
    parts |= {"norm": nn.RMSNorm, "positions": no_positions}
    model = TinyLM(tokenizer.vocab_size, 3000, 24, 2, 6, **parts).to(FLOAT).eval()
    for seed, parameter in enumerate(model.parameters()):
        parameter.data = draw(*parameter.shape, seed=seed) * 0.4
    model.requires_grad_(False)
    monkeypatch.setattr(real_tokens, "model_and_tokenizer", lambda: (model, tokenizer))
    monkeypatch.setattr(real_glitches, "model_and_tokenizer", lambda: (model, tokenizer))
    return model


def alone(model, ids):
    """Log-probabilities behind a text, read by itself."""
    return model(torch.tensor([[0, *ids]]))[0, -1].log_softmax(dim=-1)


def test_probabilities_do_not_hang_on_padding(small, monkeypatch):
    monkeypatch.setattr(real_tokens, "ROWS", 2)
    rows, at = [[5, 6, 7], [8], [9, 10, 11, 12, 13]], [3, 1, 2]
    found = real_tokens.log_probabilities(rows, at)
    torch.testing.assert_close(found, torch.stack([alone(small, row[:n]) for row, n in zip(rows, at, strict=True)]))
    nats = [real_tokens.nats(row) for row in rows]
    torch.testing.assert_close(real_tokens.total_nats(rows), torch.stack([it.sum() for it in nats]), **CLOSE)
    assert real_tokens.nats_of([[5], [8]], [[6, 7], [9]]) == pytest.approx(
        [nats[0][1:].sum().item(), -alone(small, [8])[9].item()]
    )
    torch.testing.assert_close(nats[0][2], -alone(small, [5, 6])[7])


def test_healing_cuts_off_the_last_token(small, tokenizer):
    kept, fits = real_tokens.healed("The capital of France is ")
    assert tokenizer.decode(kept) == "The capital of France is"
    assert fits[tokenizer.encode(" Paris")].all() and not fits[tokenizer.encode("Paris")].any() and not fits[:17].any()
    kept, fits = real_tokens.healed("The cap")
    assert kept == tokenizer.encode("The") and fits[tokenizer.encode(" capital")].all()
    with pytest.raises(ValueError, match="the text is empty"):
        real_tokens.healed("")


@pytest.mark.parametrize(("trail", "heal"), [("", False), (" ", False), (",", False), ("\n", False), (" ", True)])
def test_what_is_said_behind_a_prompt(small, tokenizer, trail, heal):
    prompts = [real_tokens.Prompt("A young duck is called a", "duckling"), real_tokens.Prompt("1, 2,", "3")]
    found = real_tokens.said(prompts, trail, heal)
    for i, prompt in enumerate(prompts):
        ids = tokenizer.encode(prompt.text + ("" if heal else trail))
        word = tokenizer.encode(prompt.word if trail.isspace() and not heal else " " + prompt.word)
        p = math.exp(sum(alone(small, [*ids, *word[:k]])[word[k]].item() for k in range(len(word))))
        first, spaced = alone(small, ids).exp(), alone(small, [*ids, *tokenizer.encode(" ")]).exp()
        if heal:
            p /= first[[i for token, i in rv.token_ids().items() if token.startswith(b" ")]].sum().item()
        bare = trail.isspace() and not heal
        digits = [tokenizer.encode(str(n))[0] for n in range(10)]
        digit = first[digits].sum() + (0 if bare else first[tokenizer.encode(" ")] * spaced[digits].sum())
        assert found["word"][i] == pytest.approx(p, rel=1e-5)
        assert found["digit"][i] == pytest.approx(digit.item(), rel=1e-5)


def test_the_prompts_are_many_and_each_once():
    every = [prompt for name in real_tokens_sweep.JUDGES["prompts"] for prompt in real_tokens.PROMPTS[name]]
    assert len({prompt.text for prompt in every}) == len(every) >= 30
    assert real_tokens.PROMPTS["weekdays"][0] == ("Monday, Tuesday, Wednesday,", "Thursday")


def test_at_borders_of_words(small, tokenizer):
    text = texts()["letter"][:600]
    found = real_tokens.at_borders(text, before=8, places=3)
    ids = tokenizer.encode(text)
    ends = [i for i in range(8, len(ids)) if tokenizer.vocab[ids[i]].startswith(b" ")]
    digits = [tokenizer.encode(str(n))[0] for n in range(10)]
    for name, trail in real_tokens.TRAILS.items():
        each = [[*ids[i - 8 : i], *tokenizer.encode(trail)] for i in (ends[n * len(ends) // 3] for n in range(3))]
        assert found[name] == pytest.approx([alone(small, it).exp()[digits].sum().item() for it in each])


def test_a_window_is_two_parts_of_a_text():
    for name in ("letter", "voyage"):
        context, target = real_tokens.window(name, 600)
        assert context + target in texts()[name] and context.startswith(" ") and target.startswith(" ")
        assert 500 <= len(context.encode()) < 525 and 300 <= len(target.encode()) < 325
    with pytest.raises(ValueError, match="has no 800 bytes from 2900 on"):
        real_tokens.window("letter", 2900)


@pytest.mark.parametrize("how", ["none", "by rank", "longest", "space apart"])
def test_a_context_in_other_tokens(small, tokenizer, how):
    context, target = real_tokens.window("letter", 600)
    ids, goal = [] if how == "none" else rv.cut(context, how), tokenizer.encode(target)
    nats = real_tokens.nats([*ids, *goal])
    found = real_tokens.read_after_cut("letter", 600, how)
    assert found["tokens"] == len(ids)
    assert found["target"] == pytest.approx(nats[len(ids) :].sum().item() / math.log(2) / len(target.encode()))
    if ids:
        assert found["context"] == pytest.approx(nats[: len(ids)].sum().item() / math.log(2) / len(context.encode()))


def test_one_word_apart(small, tokenizer):
    found = real_tokens.one_word_apart("The old mill")
    assert found[0] == tokenizer.encode("The old mill") and len(set(map(tuple, found))) == len(found) > 5
    assert {tokenizer.decode(ids) for ids in found} == {"The old mill"}
    assert {len(ids) for ids in found[1:]} == {len(found[0]) + 1}


# Glitch tokens


def test_a_token_said_again(small, tokenizer):
    ids = [tokenizer.encode(" hammer")[0], tokenizer.encode("er")[0], 48047]
    for template, parts in real_glitches.TEMPLATES.items():
        found = real_glitches.copied(ids, template)
        for i, p, rank in zip(ids, found["p"], found["rank"], strict=True):
            row = real_glitches.prompt_ids(i, template)
            assert row.count(i) == len(parts) - 1 or i == tokenizer.encode("er")[0]
            expected = alone(small, row)
            assert p == pytest.approx(expected[i].exp().item())
            assert rank == (expected.argsort(descending=True) == i).nonzero().item() + 1
    assert tokenizer.decode(real_glitches.prompt_ids(ids[0], "list")) == "Items: hammer, hammer, hammer,"
    assert real_glitches.prompt_ids(ids[0], "asked")[0] == tokenizer.specials["<|im_start|>"]


def test_neighbours_by_id_are_alike(small, tokenizer):
    near = real_glitches.nearest_ids(48047, 4, {48046})
    assert len(near) == 4 and not {48046, 48047} & set(near)
    for i in near:
        assert tokenizer.vocab[i].startswith(b" ") and abs(len(tokenizer.vocab[i]) - len(tokenizer.vocab[48047])) <= 2


def test_distances_are_from_the_control_tokens(small):
    small.embedding.weight.data[7:17] = 2.0
    assert real_glitches.distances()[7:17].tolist() == [0.0] * 10
    assert real_glitches.norms()[7].item() == pytest.approx(2 * math.sqrt(24))


# The sweep and the rules


def test_who_judges_was_not_looked_at():
    for kind, tried in real_tokens_sweep.TRIED.items():
        assert not set(tried) & set(real_tokens_sweep.JUDGES[kind])
    assert set(real_tokens_sweep.JUDGES["texts"]) < set(OWN) and len(real_tokens_sweep.JUDGES["texts"]) == 8


def test_each_part_of_the_sweep_runs(small, monkeypatch):
    groups = {"at the point": [48047, 45175], "by chance": [1000, 2000, 3000]}
    monkeypatch.setattr(real_tokens_sweep, "groups", lambda: groups)
    run = lambda **job: real_tokens_sweep.run(job)["found"]  # noqa: E731
    glitch = run(part="glitch", on="twice", most=2)
    assert [len(it["rank"]) for it in glitch.values()] == [2, 2]
    assert run(part="prompt", on="weekdays").keys() == {*real_tokens.TRAILS, "a space, healed"}
    assert {len(it) for it in run(part="border", on="letter").values()} == {16}
    other = run(part="cut", on="letter", arm="another text", seed=0)
    assert other["context"] == pytest.approx(real_tokens.read_after_cut("diary", 600, "by rank")["context"], abs=0.1)
    apart = run(part="words", on="letter")
    assert apart["others"] > 10 and apart["more"] > 0


def rows(space=0.9, other=0.01, more=None, share=None, first=None, gain=0.2):
    """What the rules ask for: digits behind a space and behind other signs, cuts' bits and shares, shares of ranks."""
    more = {"longest": 0.05, "dropout 0.05": 0.6, "dropout 0.1": 0.9, "dropout 0.5": 4, "characters": 8} | (more or {})
    share = {"longest": 1, "dropout 0.1": 0.6, "dropout 0.05": 0.8} | (share or {})
    first = {"at the point": 0, "nearest ids": 0.6, "by chance": 0.8, "least norms": 1, "scaffolding": 0.6} | (
        first or {}
    )
    made = []
    for name in real_tokens_sweep.JUDGES["prompts"]:
        word = {"a space": space * 0.9 if name == "digits" else (1 - space) / 10}
        arms = {
            arm: {"word": [word.get(arm, 0.5)] * 3, "digit": [space if arm == "a space" else other] * 3}
            for arm in real_tokens.TRAILS
        }
        made.append({"part": "prompt", "on": name, "found": arms})
    for name in real_tokens_sweep.JUDGES["texts"]:
        borders = {trail: [space if trail == "a space" else other] * 16 for trail in real_tokens.TRAILS}
        made.append({"part": "border", "on": name, "found": borders})
        for arm, seed in ((job["arm"], job["seed"]) for job in real_tokens_sweep._cuts(name)):
            kept = {"none": 0, "by rank": 1}.get(arm, share.get(arm, 0.1))
            context = 1.2 + {"by rank": 0}.get(arm, more.get(arm, 0.7))
            bits = {"target": 1.3 - gain * kept, "context": context}
            made.append({"part": "cut", "on": name, "arm": arm, "seed": seed, "found": bits})
    for name in real_tokens_sweep.JUDGES["templates"]:
        ranks = {group: {"rank": [1] * round(100 * p) + [50] * round(100 - 100 * p)} for group, p in first.items()}
        made.append({"part": "glitch", "on": name, "found": ranks})
    return made


def unmet(made):
    return {it.what for found in real_tokens_rules.findings(made).values() for it in found if not it.met}


def test_how_rows_are_read():
    made = rows()
    assert real_tokens_rules.kept(made, "dropout 0.1") == pytest.approx(0.6)
    assert real_tokens_rules.more(made, "longest") == pytest.approx([0.05] * 8)
    assert real_tokens_rules.gain(made) == pytest.approx([0.2] * 8)
    assert real_tokens_rules.first(made, "nearest ids") == pytest.approx([0.6] * 3)
    with pytest.raises(ValueError, match=r"no row of .*'diary', 'arm': 'longest'\}: run the sweep"):
        real_tokens_rules.more([it for it in made if it.get("arm") != "longest"], "longest")


def test_each_rule_can_fail():
    assert not unmet(rows())
    odd = [
        rows(space=0.2, other=0.3),
        rows(more=dict.fromkeys(rv.CUTS, 0.2)),
        rows(share=dict.fromkeys((*rv.CUTS, "another text"), 0.9)),
        rows(share=dict.fromkeys(rv.CUTS, 0.3), gain=0.05),
        rows(first={"at the point": 0.5, "nearest ids": 0, "by chance": 0, "least norms": 0, "scaffolding": 0}),
    ]
    assert set().union(*map(unmet, odd)) == {rule.what for rule in real_tokens_rules.RULES}


def test_the_rules_read_what_is_stored():
    found, _ = stored(real_tokens_sweep.SWEEP.results)
    kinds = real_tokens_rules.findings(found)
    assert sum(map(len, kinds.values())) == len(real_tokens_rules.RULES)
