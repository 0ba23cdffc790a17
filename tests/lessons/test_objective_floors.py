"""Lesson 13's texts, and their floors: exact by hand and by brute force."""

import objective_world as world
import torch

from shared.world import END, stories
from shared.world.words import split


def test_a_row_is_a_story_to_its_end():
    found = stories(200, 7, world.WORLD)
    for row, story in zip(next(world.batches(7, 200)), found, strict=True):
        said = world.words_of(row)
        length = len(said)
        assert (row[length:] == world.PAD).all() and not (row[:length] < len(world.SPECIAL)).any()
        assert said == split(story.text)[: world.CONTEXT]
        assert (said[0], said[-1]) == ("Once", END) or length == world.CONTEXT


def test_the_numbering_has_each_word_once_and_no_other():
    said = {word for story in stories(2000, 8, world.WORLD) for word in split(story.text)}
    assert said == set(world.words())
    assert len(set(world.names())) == len(world.names()) == len(world.ids())
    assert [world.names()[i] for i in world.SENTINELS] == world.SPECIAL[6:]
    assert world.SPECIAL == list(world.names()[: len(world.SPECIAL)])


def test_held_out_rows_are_the_same_for_any_number():
    assert torch.equal(world.held_out(3), world.held_out(5)[:3])
