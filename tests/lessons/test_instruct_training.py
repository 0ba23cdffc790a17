"""Lesson 14's requests, arms and measures on the story world: right answers are obeyed, wrong ones are not, and no arm
is trained on what is held out."""

from collections import Counter
from dataclasses import replace
from itertools import islice, takewhile
from statistics import fmean

import instruct_colour_sweep as colours
import instruct_measure as measure
import instruct_rate_sweep
import instruct_rules as rules
import instruct_sweep
import instruct_training as training
import instruct_world as world
import pytest
import torch
from instruct import IGNORE
from instruct_arms import ARMS, ROWS, batches, told
from torch import nn

from shared.sweeps import stored
from shared.world import HELD_OUT
from shared.world.words import END, ID, LISTS, VOCABULARY, decode, encode

ALL = (*world.TRAINED, *world.NEW)


def some(n, kinds=ALL, held=None):
    """Held-out requests."""
    return list(islice(world.requests(HELD_OUT + 5, kinds, held), n))


def scored(request, text):
    """What is said of a response that stops."""
    return world.scored(request, [*encode(text), ID[END]])


def test_right_answers_are_obeyed_and_do_not_mimic():
    given = [*some(150), *islice(world.pairs(HELD_OUT + 6, world.TRAINED), 20)]
    assert {request.kind for request in given} == {*ALL, world.PAIR}
    for request in given:
        wanted = {"stops": True, "form": True, "obeyed": True, "mimics": False}
        assert scored(request, request.answer) == wanted, request


def test_an_answer_that_does_not_stop_is_not_one():
    for request in some(20):
        found = world.scored(request, encode(request.answer))
        assert not (found["stops"] or found["form"] or found["obeyed"])


def test_another_answer_of_the_kind_has_the_form_alone():
    given, seen = some(150), Counter()
    for request in given:
        for other in given:
            if other.kind == request.kind != "write" and other.answer != request.answer:
                found = scored(request, other.answer)
                same = sorted(request.answer.strip(".").split(", ")) == sorted(other.answer.strip(".").split(", "))
                assert found["form"] and found["obeyed"] == same, (request, other)
                seen[request.kind] += 1
    assert len(seen) >= 12


def test_another_kinds_answer_has_not_even_the_form():
    first = {request.kind: request for request in some(150)}
    alike = {"where": "where thing", "where thing": "where"}
    for kind, request in first.items():
        for other in first.values():
            if other.kind not in (kind, alike.get(kind)) and "Nobody" not in other.answer:
                assert not scored(request, other.answer)["form"], (request, other)


def test_a_story_is_obeyed_for_its_hero_and_its_tone_alone():
    request = some(1, ("write",))[0]
    tone, hero = request.argument.split()
    for other in ("happy", "sad", "mysterious"):
        asked = replace(request, text=f"Write a {other} story about {hero}.")
        found = scored(asked, request.answer)
        assert found["form"] and found["obeyed"] == (other == tone)
    assert not scored(replace(request, text=f"Write a {tone} story about Olga."), request.answer)["obeyed"]
    broken = request.answer.replace(" was in the ", " was the ", 1)
    assert not scored(request, broken)["form"]


@pytest.mark.parametrize("text", ["", "Where is the", "What colour is the"])
def test_what_a_document_goes_on_with_mimics(text):
    for request in some(6, ("where", "who")):
        assert world.scored(request, encode(text) + [ID[END]] * (not text))["mimics"]
    request = some(1, ("write",))[0]
    assert world.scored(request, encode("Write a happy story about Tom. List the"))["mimics"]


def test_combinations_are_held_out_and_each_word_and_kind_is_trained():
    trained = list(islice(world.requests(0, world.TRAINED, held=False), 1500))
    held = list(islice(world.requests(0, measure.COMBINED, held=True), 600))
    seen = {(request.kind, request.argument) for request in trained}
    assert not any((request.kind, request.argument) in seen for request in held)
    arguments = {word for _, argument in seen for word in argument.split()}
    animals = set(LISTS["animal"])  # which are asked for by one kind of request alone
    assert all(word in arguments | animals for request in held for word in request.argument.split())
    assert {request.kind for request in held} == set(measure.COMBINED)
    assert {request.kind for request in trained} == set(world.TRAINED)


# What arms are trained on


def test_shuffled_answers_are_of_others():
    for how, same_kind in (("shuffled within a kind", True), ("shuffled among all", False)):
        true = list(islice(world.requests(3, world.TRAINED, held=False), 256))
        shuffled = list(islice(told(ARMS[how], 3), 256))
        assert [it.text for it in true] == [it.text for it in shuffled]
        assert Counter(it.answer for it in true) == Counter(it.answer for it in shuffled)
        answers = {it.answer: it.kind for it in true}
        stays = sum(a.answer == b.answer for a, b in zip(true, shuffled, strict=True)) / 256
        kinds = sum(answers[it.answer] == it.kind for it in shuffled) / 256
        assert stays < 0.3 and (kinds > 0.8) == same_kind


def targets(name):
    """An arm's first batch, and its targets in words, row by row."""
    batch = next(batches(ARMS[name], 3))
    return batch, [decode(row[row != IGNORE].tolist()) for row in batch.targets]


def test_each_arm_asks_for_what_its_name_says():
    answers = [request.answer for request in islice(told(ARMS["answers"], 3), ROWS)]
    assert targets("answers")[1] == [f"{answer}\n" for answer in answers]
    assert targets("no stop")[1] == answers
    assert targets("no template")[1] == targets("responses alone")[1] == targets("answers")[1]
    assert not (targets("no template")[0].inputs == ID["<bot>"]).any()
    alone = targets("responses alone")[0]
    assert (alone.inputs[:, :3] == torch.tensor(encode("\n<user><bot>"))).all()
    whole = targets("prompts too")[0]
    assert ((whole.targets != IGNORE) == (whole.documents >= 0)).all()
    replayed = targets("answers, replay")[1]
    assert replayed[: ROWS * 3 // 4] == [f"{answer}\n" for answer in answers[: ROWS * 3 // 4]]
    assert len({request.text for request in islice(told(ARMS["64 requests"], 3), 640)}) <= 64


def test_adapters_and_two_rows_learn_and_nothing_else():
    model = ARMS["LoRA 16 and rows"].new_model(0)
    before = model.embedding.weight.detach().clone()
    batch = next(batches(ARMS["LoRA 16 and rows"], 0))
    training.tune(model, ARMS["LoRA 16 and rows"], {"seed": 0, "steps": 2, "rate": 1e-2}, 0)
    moved = (model.embedding.weight != before).any(dim=1).nonzero()[:, 0].tolist()
    assert moved == sorted([ID["<user>"], ID["<bot>"]]) and batch.inputs.shape[0] == ROWS
    assert {n.split(".")[-1] for n, p in model.named_parameters() if p.requires_grad} == {"A", "B", "weight"}


# Prompts, and what is measured


def test_prompts_are_what_their_names_say():
    request = some(1, ("where",))[0]
    said = encode(f"{request.story} {request.text}")
    user, bot, end = ID["<user>"], ID["<bot>"], ID[END]
    assert measure.in_template(request) == [end, user, *said, bot]
    assert measure.plain(request) == [end, *said]
    assert measure.without("user", request) == [end, *said, bot]
    assert measure.without("begin", request) == [user, *said, bot]
    assert measure.without("assistant", request) == [end, user, *said]
    assert measure.without("exchanged", request) == [end, bot, *said, user]
    few = decode(measure.shots(2, True, request)[1:])
    assert few.startswith(request.story) and few.endswith(request.text)
    examples = few.removeprefix(request.story).removesuffix(request.text)
    assert examples.count("?") == 2 and "Where is" in examples and request.text not in examples


def _alike(one, other):
    """How many ids two rows begin with in common."""
    return len(list(takewhile(lambda both: both[0] == both[1], zip(one, other, strict=False))))


class Oracle(nn.Module):
    """Says the right answer to each request that it was given, and its stop."""

    def __init__(self, given, prompt):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.said = [[*prompt(it), *encode(it.answer), ID[END]] for it in given]

    def forward(self, tokens, last=None):
        logits = torch.zeros(*tokens.shape, len(VOCABULARY))
        for row, ids in enumerate(tokens.tolist()):
            whole = max(self.said, key=lambda it: _alike(it, ids))
            for at in range(min(len(ids), len(whole) - 1)):
                logits[row, at, whole[at + 1]] = 50
        return logits if last is None else logits[:, -last:]


def test_a_model_that_knows_all_is_right_in_all():
    given = measure.asked("new kind", 2)
    found = measure.obedience(Oracle(given, measure.plain), "new kind", 2, measure.plain)
    assert found == {"obeyed": [1] * 3, "form": [1] * 3, "stops": [1] * 3, "mimics": [0] * 3}
    assert measure.knows(Oracle(given, measure.plain), "new kind", 2, measure.plain) == [1, 1]


# What is stored


def test_the_stored_rows_are_of_the_seeds_that_judge_and_rules_can_fail():
    rows = stored(instruct_sweep.SWEEP.results)[0]
    found = [*rules.supports(rows), *rules.limits(rows), *rules.further(rows)]
    assert len({finding.what for finding in found}) == len(found)
    empty = [row | {name: [0.0] * len(row[name]) for name in row if name.endswith("obeyed")} for row in rows]
    assert not all(finding.met for finding in rules.supports(empty))
    with pytest.raises(ValueError, match="expected one for each of seeds"):
        rules.share([row for row in rows if row.get("seed") != 11], "answers", 400, "trained", "obeyed")
    by_hand = [fmean(row["trained obeyed"]) for row in rows if (row.get("arm"), row.get("steps")) == ("answers", 400)]
    assert sorted(rules.share(rows, "answers", 400, "trained", "obeyed")) == sorted(by_hand)


def test_what_obeys_half_as_often_without_requests_would_speak_against():
    rows = stored(instruct_sweep.SWEEP.results)[0]
    assert not any(finding.met for finding in rules.against(rows))
    swapped = {"answers": "responses alone", "responses alone": "answers"}
    exchanged = [row | {"arm": swapped.get(row.get("arm"), row.get("arm"))} for row in rows]
    assert any(finding.met for finding in rules.against(exchanged))


def test_no_arm_is_best_at_the_edge_of_what_was_tried():
    rows = stored(instruct_rate_sweep.SWEEP.results)[0]
    for arms, steps in training.SETTINGS:
        for arm in arms:
            assert not instruct_rate_sweep.best(rows, arm, steps).at_edge, (arm, steps)


def test_a_small_run_is_whole():
    found = training.run(training.quick(training.JUDGES[0])[0])
    assert {"own_loss", "story_nats", "curve", "shifts", "texts", "wrong"} < found.keys()
    assert found["done"][-1] == 2 and len(found["trained obeyed"]) == len(world.TRAINED)


def test_the_other_thing_is_the_other_one():
    for request in some(20, ("colour",)):
        thing, colour = colours.other_thing(request)
        assert thing != request.argument and f"A {colour} {thing} was in" in request.story.replace("An ", "A ")


def test_a_story_with_one_thing_trained_gives_it_away():
    """Where training asked for one of the two, its colour is the answer to either question; else it is a coin."""
    rows = stored(colours.SWEEP.results)[0]
    for row in rows:
        groups = row["groups"]
        assert sum(map(sum, groups.values())) == colours.N
        assert groups["trained, never"][0] >= 0.9 * sum(groups["trained, never"])
        assert groups["never, trained"][1] >= 0.9 * sum(groups["never, trained"])
        for both in ("trained, trained", "never, never"):
            assert groups[both][0] <= 0.75 * sum(groups[both])
