"""Lesson 07's storyteller and the dashboard's address and pictures: everything on the page, without the page."""

import json
import math
from dataclasses import asdict

import dashboard_figures as figures
import pytest
import sampling
import torch
from dashboard_address import KNOBS, MOST, SEEDS, from_query, to_query, whole_number
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from storyteller import (
    Rules,
    Told,
    Unknown,
    as_record,
    clean,
    entropy,
    heat_curve,
    model_logits,
    place,
    room,
    table,
    tell,
    tell_many,
    true_offers,
    unknown_words,
    words_of,
)

from shared.story_model import load_story_lm
from shared.story_model import tell as tell_plainly
from shared.world import BASE, VOCABULARY, decode, encode, next_token_distribution, stories
from shared.world.words import END, ID

MODEL = load_story_lm()
ONCE = encode("Once")
LATE = decode(encode(stories(1, 7, BASE)[0].text)[:-40])  # a story that is soon at its end
ALL = Rules(T=0.8, k=20, p=0.9, min_p=0.05, typical=0.95, repetition=1.1, presence=0.3)
settings_of_rules = st.builds(Rules, **{knob.name: st.sampled_from(knob.options) for knob in KNOBS})


def told(rules=Rules(), seed=0, prompt="Once", most=190):  # noqa: B008 (frozen)
    """A story."""
    beginning = encode(prompt)
    return Told(prompt, rules, seed, most, (*beginning, *tell(MODEL, beginning, rules, seed, most)))


def some_logits(n=1, seed=0):
    """Logits of a few words' places."""
    return 3 * torch.randn(n, len(VOCABULARY), generator=torch.Generator().manual_seed(seed))


# ---- rules


def test_rules_are_the_lessons_functions():
    logits, seen = some_logits(2), torch.tensor([[5, 6], [7, 7]])
    wanted = sampling.presence_penalty(sampling.repetition_penalty(logits, seen, 1.1), seen, 0.3)
    wanted = sampling.top_p(sampling.top_k(sampling.temperature(wanted, 0.8), 20), 0.9)
    assert torch.equal(ALL(logits, seen), sampling.typical(sampling.min_p(wanted, 0.05), 0.95))
    hot = sampling.temperature(sampling.top_p(logits, 0.9), 2)
    assert torch.equal(Rules(T=2, p=0.9, cut_first=True)(logits, seen), hot)


@settings(max_examples=30, deadline=None)
@given(settings_of_rules, st.integers(0, 9999))
def test_every_setting_leaves_a_word(rules, seed):
    """Whatever the sliders say, there is something to draw, also where nothing was said before."""
    for seen in (torch.tensor([[3, 4, 5]]), torch.empty(1, 0, dtype=torch.long)):
        word = sampling.draw(rules(some_logits(seed=seed), seen), torch.Generator().manual_seed(seed))
        assert 0 <= word.item() < len(VOCABULARY)


# ---- telling


def test_without_rules_it_tells_what_the_model_tells():
    """The loop of `shared.story_model`, one story, gives the same words for the same seed: a beginning, and an end."""
    for prompt, most in (("", 30), ("Once", 30), (LATE, 60)):
        longest = 1 + len(encode(prompt)) + most
        assert told(seed=5, prompt=prompt, most=most).text == tell_plainly(MODEL, prompt, 1, seed=5, longest=longest)[0]


def test_a_story_ends_with_its_line_or_with_the_room():
    assert told(prompt=LATE).words[-1] == ID[END]
    assert len(told(most=7).words) == 8
    assert list(tell(MODEL, ONCE, Rules(), 0, 0)) == []
    long = encode("was " * 189)
    assert room(MODEL, long) == 2 and room(MODEL, long + ONCE * 9) == 0
    assert len(list(tell(MODEL, long, Rules(T=0), 0, 50))) <= 2


def test_many_at_once_are_each_as_if_alone():
    """Those that end and those that are cut off."""
    shares, alone = [], [told(ALL, seed, LATE, most=38).words for seed in range(4)]
    assert {words[-1] == ID[END] for words in alone} == {True, False}
    many = tell_many(MODEL, encode(LATE), ALL, 0, 38, 4, shares.append)
    assert [tuple(words) for words in many] == alone
    assert shares == sorted(shares) and shares[-1] == 1


# ---- a place


def test_a_place_says_which_rule_cut_a_word():
    """Each word by the first rule that drops it; what is left is what the rules leave."""
    logits, before = some_logits()[0], [3, 4]
    here = place(logits, before, ALL)
    left = ALL(logits[None], torch.tensor([before]))[0]
    torch.testing.assert_close(here.after, left.softmax(-1))
    assert set(here.cut_by) == set(left.isneginf().nonzero()[:, 0].tolist())
    order = logits.argsort(descending=True)
    assert here.cut_by[order[-1].item()] == "top-k" and "top-p" in here.cut_by.values()
    assert here.lost == pytest.approx(here.model[left.isneginf()].sum().item(), abs=1e-5)  # a sum of a thousand floats
    assert here.true is None


def test_a_place_knows_the_truth():
    text = "Once Tom"
    here = place(model_logits(MODEL, encode(text))[-1], encode(text), Rules(), true_offers(encode(text))[-1])
    true = next_token_distribution(text, BASE)
    assert {VOCABULARY[i]: p for i, p in enumerate(here.true.tolist()) if p} == pytest.approx(true, rel=1e-6)


def test_entropy_over_heat():
    """At each temperature what `sampling.entropy` says; with the other rules as they are."""
    logits = some_logits()[0]
    alone = heat_curve(logits, [], Rules(), [0.5, 1, 2])
    wanted = [sampling.entropy(logits / T).item() for T in (0.5, 1, 2)]
    assert alone == pytest.approx(wanted, abs=1e-4)  # sums over a thousand float32
    assert heat_curve(logits, [], Rules(T=9, k=1), [0.5, 2]) == [0, 0]
    assert entropy(torch.full((4,), 0.25)) == pytest.approx(math.log(4))


def test_the_truth_goes_as_far_as_the_world_could_have_written():
    """Through a whole story and behind it; through a broken one up to the word that breaks it."""
    text = stories(1, 7, BASE)[0].text
    offered = true_offers(encode(text))
    assert len(offered) == len(encode(text)) + 1
    assert len(true_offers(encode("Once Tom was in"))) == 3  # the last offer is that of the place where "was" stands
    assert [len(true_offers(encode(text))) for text in ("", "was Once Tom")] == [1, 1]


def test_pieces_of_a_text_make_the_text():
    for text in (LATE, "Write a sad story about Tom. \n", "Ann has 17 + 5 = 22.\n"):
        pieces = words_of(encode(text))
        assert "".join(pieces) == decode(encode(text)) and len(pieces) == len(encode(text))


def test_the_table():
    """The surprisals are the model's; nothing was drawn that the rules had cut."""
    story, given = told(ALL, seed=2, prompt=LATE), len(encode(LATE))
    rows = table(MODEL, story)
    log_p = model_logits(MODEL, story.words).log_softmax(-1)
    wanted = [-log_p[at, word].item() for at, word in enumerate(story.words)]
    assert [row["surprisal"] for row in rows] == pytest.approx(wanted, abs=1e-4)  # log of a float32 probability
    assert [row["drawn"] for row in rows] == [False] * given + [True] * (len(rows) - given)
    assert all(row["p_after"] > 0 for row in rows[given:]) and rows[0]["p_after"] is None
    assert {row["words_left"] for row in rows} <= set(range(1, 21))
    assert rows[-1]["word"] == "\\n"


def test_the_table_stops_knowing_the_truth_where_the_story_breaks():
    rows = table(MODEL, Told("Once", Rules(), 0, 9, tuple(encode("Once Tom was in"))))
    assert rows[1]["p_true"] > 0 and rows[2]["p_true"] == 0
    assert rows[3]["p_true"] is None and rows[3]["entropy_true"] is None


def test_the_record_tells_it_again():
    """All that is needed is in the file, and the judge's verdict."""
    story = told(ALL, seed=9, prompt=LATE)
    assert story.words != told(ALL, seed=8, prompt=LATE).words
    record = json.loads(json.dumps(as_record(story, table(MODEL, story), "abc")))
    again = told(Rules(**record["rules"]), record["seed"], record["prompt"], record["most"])
    assert again == story and record["text"] == story.text and len(record["words"]) == len(story.words)
    broken = Told("Once", Rules(), 0, 9, tuple(encode("Once Tom was in")))
    found = as_record(broken, table(MODEL, broken), "abc")
    assert not found["flawless"] and not found["finished"] and found["breaches"][0]["found"] == "was"


# ---- prompts


def test_unknown_words_are_named_with_near_ones():
    near, more = unknown_words("once Tomm teh was")
    assert near[:2] == [Unknown("once", ("Once", "one", "uncle")), Unknown("Tomm", ("Tom", "Tomas", "to"))] and not more
    assert {"the", "The"} <= set(near[2].near)
    assert [unknown.word for unknown in unknown_words("Once xqzv Tom xqzw xqzv")[0]] == ["xqzv", "xqzw"]
    first, more = unknown_words(" ".join(f"q{'x' * i}" for i in range(1, 50)))
    assert len(first) == 5 and more == 44
    assert unknown_words("z" * 100_000) == ([Unknown("z" * 100_000, ())], 0)


@settings(max_examples=50, deadline=None)
@given(st.text())
def test_any_text_is_a_prompt_or_has_unknown_words(text):
    """In one line, and either encoded or explained."""
    prompt = clean(text)
    assert "\n" not in prompt
    if not unknown_words(prompt)[0]:
        assert decode(encode(prompt)) is not None


# ---- the address


@settings(max_examples=50, deadline=None)
@given(settings_of_rules)
def test_an_address_carries_the_rules(rules):
    assert from_query(to_query(rules)) == (rules, [])
    assert from_query(to_query(rules, "b."), "b.") == (rules, [])
    assert to_query(Rules()) == {}


@pytest.mark.parametrize(
    ("given", "used"),
    [("abc", 1), ("nan", 1), ("-5", 0), ("99", 3), ("0.83", 0.85), ("", 1), ("١", 1), ("1e400", 1)],
)
def test_an_address_that_asks_for_nonsense_is_answered(given, used):
    """The nearest stop of the slider, or the default, and it is said."""
    rules, remarks = from_query({"T": given})
    assert used == rules.T and len(remarks) == 1 and repr(given[:20]) in remarks[0]


@settings(max_examples=50, deadline=None)
@given(st.text() | st.integers().map(str))
def test_a_whole_number_is_within_its_bounds(text):
    for bounds in (SEEDS, MOST):
        number, remarks = whole_number({"n": text}, "n", bounds, bounds[1])
        assert bounds[0] <= number <= bounds[1] and bool(remarks) == (str(number) != text)
    assert whole_number({}, "n", SEEDS, 7) == (7, []) and whole_number({"n": "12"}, "n", SEEDS, 7) == (12, [])


def test_each_rule_has_a_slider_that_can_stand_at_its_default():
    assert [knob.name for knob in KNOBS] == list(asdict(Rules()))
    assert all(getattr(Rules, knob.name) in knob.options for knob in KNOBS)
    assert all(list(knob.options) == sorted(set(knob.options)) for knob in KNOBS)


# ---- pictures


def test_the_pictures_of_a_place():
    """A bar a word, before and after and in truth; what was cut says so; the told word is marked, also a rare one. The
    entropy now stands at the temperature that is set."""
    logits = model_logits(MODEL, ONCE)[-1]
    here = place(logits, ONCE, Rules(k=3), true_offers(ONCE)[-1])
    figure, sentence = figures.next_word(here, ID["Tom"])
    model, after, true = figure.data
    assert model.y[-1] == "Tom ◀ told" and after.text[-1] == "cut by top-k"
    assert after.x[0] == pytest.approx(here.after.max().item()) and max(true.x) == pytest.approx(here.true.max().item())
    assert "Cut: 1023 of 1026 words" in sentence
    assert len(figures.next_word(place(logits, ONCE, Rules()), None)[0].data) == 2
    now = figures.entropy_over_heat([1, 2], [1.0, 2.0], [0.5, 0.7], 2, here)[0].data[-1]
    assert now.x == (2,) and now.y[0] == pytest.approx(entropy(here.after))


def test_the_picture_along_a_story():
    rows = table(MODEL, Told("Once", Rules(), 0, 9, tuple(encode(LATE))))
    figure, sentence = figures.along(rows, 3)
    assert list(figure.data[-1].y) == [row["surprisal"] for row in rows]
    assert max(rows, key=lambda row: row["surprisal"])["word"] in sentence


def test_the_frontier():
    tried = [{"name": "the world", "accepted": 32, "of": 32, "words": 9}]
    figure, _ = figures.frontier([*tried, {"name": "1: T 2", "accepted": 8, "of": 32, "words": 7}])
    assert [trace.y[0] for trace in figure.data] == [1, 0.25]


@pytest.mark.parametrize(("hits", "n"), [(0, 32), (32, 32), (7, 32)])
def test_wilsons_interval(hits, n):
    """SciPy's, whose z is exact where ours is 1.96: 4e-5 of itself."""
    low, high = binomtest(hits, n).proportion_ci(method="wilson")
    assert figures.wilson(hits, n) == pytest.approx((low, high), abs=1e-4)
