"""Lesson 13's texts, and their floors: exact by hand and by brute force."""

import itertools
import math
import random
from dataclasses import replace

import floor_sweep
import floor_table
import numpy as np
import objective_fillings as fillings
import objective_lengths
import objective_world as world
import pytest
import torch
from objective_fillings import GAP, HOLE, TooMany
from objective_floors import Told

from shared.sweeps import stored
from shared.world import END, Config, nats, next_token_distribution, offers, stories
from shared.world.words import join, split

EXACT = {"rel": 1e-9, "abs": 1e-9}  # sums of thousands of floats, each rounded at 1e-16
TINY = Config(people=4, first_names=4, last_names=2, towns=2, jobs=2, foods=2, animals=2, objects=3, places=3)


def test_a_row_is_a_story_to_its_end():
    found = stories(200, 7, world.WORLD)
    for row, story in zip(next(world.batches(7, 200)), found, strict=True):
        said = world.words_of(row)
        length = len(said)
        assert (row[length:] == world.PAD).all() and not (row[:length] < len(world.SPECIAL)).any()
        assert said == split(story.text)[: world.CONTEXT]
        assert (said[0], said[-1]) == ("Once", END) or length == world.CONTEXT


def test_the_numbering_has_each_word_once_and_no_other():
    said = {word for story in stories(1000, 8, world.WORLD) for word in split(story.text)}
    assert said == set(world.words())
    assert len(set(world.names())) == len(world.names()) == len(world.ids())
    assert [world.names()[i] for i in world.SENTINELS] == world.SPECIAL[6:]
    assert list(world.names()[: len(world.SPECIAL)]) == world.SPECIAL


def test_held_out_rows_are_the_same_for_any_number():
    assert torch.equal(world.held_out(3), world.held_out(5)[:3])


def all_fillings(items, config, length=None, said=()):
    """The probability of all texts that fit a pattern, by the length of each: one by one, by what the world offers."""
    try:
        offers(join(said), config)
    except ValueError:
        return {}
    if not items:
        return {len(said): math.exp(-sum(nats(join(said), config)))}
    if isinstance(items[0], str):
        seen = next((i for i, it in enumerate(items) if not isinstance(it, str)), len(items))
        return all_fillings(items[seen:], config, length, (*said, *items[:seen]))
    found = {}
    for word in next_token_distribution(join(said), config):
        rests = [items[1:]]
        if items[0] is GAP and len(said) + len(items) < length:
            rests.append(items)
        for rest in rests:
            for n, p in all_fillings(rest, config, length, (*said, word)).items():
                found[n] = found.get(n, 0.0) + p
    return found


def told(seed, config=TINY):
    return Told(split(stories(1, seed, config)[0].text), config)


@pytest.mark.parametrize("seed", range(12))
def test_a_sum_over_fillings_is_that_of_all_one_by_one(seed):
    """Some hidden words stand alone, some side by side, some over a sentence's end."""
    drawn, story = random.Random(seed), told(seed)
    n = len(story.words)
    at = drawn.randrange(n - 2)
    hidden = {at, at + 1, at + 2} if seed % 3 == 0 else set(drawn.sample(range(n), 4))
    items = [HOLE if i in hidden else word for i, word in enumerate(story.words)]
    assert math.exp(-story.seen(hidden)) == pytest.approx(all_fillings(items, TINY)[n], **EXACT)


@pytest.mark.parametrize(("seed", "spans"), [(20, [(3, 5), (40, 41)]), (21, [(61, 64)]), (22, [(33, 34), (36, 38)])])
def test_where_spans_end_is_summed_over(seed, spans):
    """With the length known, and with a law of lengths: one that knows texts of one word more as well."""
    story, items, end = told(seed), [], 0
    for start, stop in spans:
        items += [*story.words[end:start], GAP]
        end = stop
    n, text = len(story.words), math.fsum(story.left)
    wanted = all_fillings([*items, *story.words[end:]], TINY, n + 1)
    assert story.filled(spans) == pytest.approx(text + math.log(wanted[n]), **EXACT)
    law = lambda length: (length <= n + 1) / length**3  # noqa: E731
    total = sum(p * law(length) for length, p in wanted.items())
    assert story.filled(spans, law, n + 1) == pytest.approx(text + math.log(total / law(n)), **EXACT)


WITHOUT = {"ALIKE": {}, "EXCHANGED": set(), "EXCHANGED_LATER": set(), "_facts": lambda person, later: [person]}


@pytest.mark.parametrize("what", [["ALIKE"], ["EXCHANGED", "EXCHANGED_LATER"], ["EXCHANGED_LATER", "_facts"], WITHOUT])
def test_what_is_merged_is_alike(what, monkeypatch):
    """Of a larger world and larger patterns: the same without merging."""
    drawn, small = random.Random(0), replace(world.WORLD, places=4, objects=4)
    found = [told(seed, small) for seed in range(6)]
    hidden = [drawn.sample(range(len(it.words)), len(it.words) // 7) for it in found]
    merged = [it.seen(gone) for it, gone in zip(found, hidden, strict=True)]
    for name in what:
        monkeypatch.setattr(fillings, name, WITHOUT[name])
    assert [it.seen(gone) for it, gone in zip(found, hidden, strict=True)] == pytest.approx(merged, **EXACT)


def test_of_a_text_that_was_cut():
    """The law of a story's beginning: what is offered last, summed over."""
    story = told(3)
    for n in (20, 57, 66):
        cut = Told(story.words[:n], TINY, cut=True)
        items = [HOLE if i in (8, n - 1) else word for i, word in enumerate(cut.words)]
        assert math.exp(-cut.seen({8, n - 1})) == pytest.approx(all_fillings(items, TINY)[n], **EXACT)


def test_more_seen_is_less_to_ask():
    """Of the same 200 words in all: nats given the left, given all but 15 %, given all but one."""
    drawn, found = random.Random(1), []
    for seed in range(12):
        story = told(seed)
        hidden = drawn.sample(range(len(story.words)), round(0.15 * len(story.words)))
        one, left = ([it(at) for at in hidden] for it in (story.two_sided, story.left.__getitem__))
        found.append([sum(one), sum(story.masked(hidden)), sum(left)])
    one, many, left = map(sum, zip(*found, strict=True))
    assert max(one, many) < 0.9 * left  # of these two the order is seen in more words: results/floor.json


def all_sums(first):
    """Every document of a world that writes sums which begins with this digit, with its probability if one does."""
    config, found, todo = Config(story=0, sums=1), {}, [((first,), 1.0)]
    while todo:
        said, p = todo.pop()
        if said[-1] == END:
            found[said] = p
        else:
            todo += [((*said, word), p * q) for word, q in next_token_distribution(join(said), config).items()]
    return found


def test_reading_from_the_right_costs_as_much_as_from_the_left():
    """Each whole document in all, by enumeration; not its single words. Both sides together cost less on average."""
    law, behind = all_sums("9"), {}
    assert math.fsum(law.values()) == pytest.approx(1, **EXACT)
    for said, p in law.items():
        for i in range(len(said) + 1):
            behind[said[i:]] = behind.get(said[i:], 0.0) + p
    holes, sides = {}, {"left": 0.0, "right": 0.0, "both": 0.0}
    for said, p in law.items():
        for i in range(len(said)):
            hole = (*said[:i], None, *said[i + 1 :])
            holes[hole] = holes.get(hole, 0.0) + p
    for said, p in law.items():
        left = [0.0, *nats(join(said), Config(story=0, sums=1))[1:]]
        right = [math.log(behind[said[i + 1 :]] / behind[said[i:]]) for i in range(len(said))]
        both = [math.log(holes[(*said[:i], None, *said[i + 1 :])] / p) for i in range(len(said))]
        assert math.fsum(left) == pytest.approx(math.fsum(right), **EXACT)
        assert max(abs(a - b) for a, b in zip(left, right, strict=True)) > 0.1
        for side, words in zip(sides, (left, right, both), strict=True):
            sides[side] += p * math.fsum(words)
    assert sides["both"] < sides["left"] == pytest.approx(sides["right"], **EXACT)


def test_the_law_of_spans_counts_every_way_to_hide_them():
    for n in (7, 11, 14):
        size, pieces = floor_sweep.span_sizes(n)
        ways = 0
        for hidden in itertools.combinations(range(n), size):
            ways += sum(at - 1 not in hidden for at in hidden) == pieces
        assert floor_sweep.span_law(n - size, pieces, n) == pytest.approx(1 / ways)
    assert floor_sweep.span_law(100, 6, 119) == 0.0  # of 119 words 18 are hidden


def test_lengths_are_those_of_rows():
    """Of fresh stories the mean is as predicted, four errors wide; the shares sum to one."""
    nats = [objective_lengths.length_nats(n) for n in range(1, world.CONTEXT + 1)]
    shares = [math.exp(-it) for it in nats]
    assert math.fsum(shares) == pytest.approx(1)
    lengths = (world.held_out(400) != world.PAD).sum(dim=1).double()
    error = lengths.std().item() / 20
    assert lengths.mean().item() == pytest.approx(sum(n * p for n, p in enumerate(shares, 1)), abs=4 * error + 1.2)
    with pytest.raises(ValueError, match="expected 1 to"):
        objective_lengths.length_nats(0)


def test_a_floor_is_a_ratio_of_sums():
    """By hand; the error by the jackknife, which agrees to the order of one text in twenty."""
    nats, asked = np.random.default_rng(0).uniform(1, 9, (2, 20)).round()
    found = floor_table.ratio(nats, asked)
    assert (found.nats, found.targets) == (pytest.approx(nats.sum() / asked.sum()), asked.sum())
    without = [np.delete(nats, i).sum() / np.delete(asked, i).sum() for i in range(20)]
    assert found.error == pytest.approx(np.std(without) * math.sqrt(19), rel=0.1)


def test_the_stored_floors_are_in_order():
    """The more is seen the lower; a random order costs less than from the left, by what the length tells."""
    rows, _ = stored(floor_sweep.SWEEP.results)
    found = floor_table.floors(rows)
    order = [found[it] for it in ("two sides", "masked 0.15", "masked 0.4", "left")]
    assert all(a.nats + a.error < b.nats - b.error for a, b in itertools.pairwise(order))
    assert found["left"].targets == (world.held_out(256) != world.PAD).sum()
    assert found["random order"].nats == pytest.approx(found["left"].nats - 4.15 / 118.3, abs=2e-3)
    with pytest.raises(ValueError, match="no row of 'left'"):
        floor_table.columns([], "left")


def test_what_cannot_be_asked():
    story = told(0)
    with pytest.raises(ValueError, match="word 4 is not hidden"):
        story.masked([3], [4])
    with pytest.raises(ValueError, match="word 900 is not hidden"):
        story.masked([900])
    for spans in ([(3, 3)], [(3, 5), (5, 6)], [(-1, 2)], [(3, 900)]):
        with pytest.raises(ValueError, match="expected some words"):
            story.filled(spans)
    with pytest.raises(ValueError, match="expected stories alone"):
        Told(["let"], Config(code=1))
    with pytest.raises(TooMany):
        Told(story.words, TINY, most=3).seen(range(30))
