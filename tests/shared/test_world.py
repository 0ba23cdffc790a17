"""shared/world: words and ids, a text's exact probability, the floor, facts that stay, rows and KL."""

import dataclasses
import functools
import hashlib
import itertools
import math
import re
from collections import Counter
from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from shared import world
from shared.tiny_lm import TinyLM
from shared.training import fit
from shared.world import BASE, END, FACTS, HELD_OUT, MIXED, STORY, VOCABULARY, Config
from shared.world import words as lexicon
from shared.world.domains import Document
from shared.world.people import world_of
from shared.world.writing import _Writer

EVERY = Config(story=5, facts=2, sums=2, code=2, requests=2, questions=300)
SMALLEST = Config(first_names=2, last_names=1, people=2, towns=1, jobs=2, foods=1, animals=1, objects=2, places=2)
SMALL = Config(first_names=4, last_names=2, people=4, towns=3, jobs=3, foods=3, animals=2, objects=3, places=3)
CROOKED = dataclasses.replace(EVERY, people=50, exponent=2.0, questions=999)
CONFIGS = {"story": STORY, "facts": FACTS, "mixed": MIXED, "base": BASE, "every": EVERY, "small": SMALL}
CONFIGS |= {"smallest": SMALLEST, "crooked": CROOKED}
configs = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())


# ---- words


def test_a_word_stands_in_one_list():
    """So that it tells its kind; and the vocabulary has the size that was asked for."""
    assert len(VOCABULARY) == len(set(VOCABULARY))
    assert 1000 <= len(VOCABULARY) <= 2000


@given(st.lists(st.integers(0, len(VOCABULARY) - 1)))
def test_encode_undoes_decode(ids):
    """For ids in any order, sense or not."""
    assert world.encode(world.decode(ids)) == ids


@configs
def test_decode_undoes_encode(config):
    """For every document; its bytes too."""
    for story in world.stories(50, HELD_OUT, config):
        assert world.decode(world.encode(story.text)) == story.text
        assert world.decode(world.encode(story.text, "bytes"), "bytes") == story.text


def test_an_unknown_word_is_named_with_the_nearest():
    with pytest.raises(ValueError, match=r"'gardn'.*garden"):
        world.encode("Tom went to the gardn.")
    with pytest.raises(ValueError, match=rf"{len(VOCABULARY)} is no id"):
        world.decode([0, len(VOCABULARY)])
    with pytest.raises(ValueError, match=r"-1 is no id"):
        world.decode([-1])
    for call in (world.encode, world.decode):
        with pytest.raises(ValueError, match=r"'letters'.*words"):
            call("", "letters")


# ---- drawing


def test_a_seed_gives_the_same_text_everywhere():
    """The hash of these texts was stored once; weights are whole numbers so that no machine rounds them its own way."""
    text = "".join(story.text for config in (BASE, EVERY) for story in world.stories(200, 1, config))
    assert (
        hashlib.sha256(text.encode()).hexdigest() == "8fc18d9ec1fec314b9f36db6716e9d63382cf45062b400e3ad12aca01be897d8"
    )


def test_stories_are_the_first_documents():
    first = [story.text for story in world.stories(5, 3, EVERY)]
    assert first == [story.text for story in itertools.islice(world.documents(3, EVERY), 5)]
    assert first != [story.text for story in world.stories(5, 4, EVERY)]
    with pytest.raises(ValueError, match="n is 0"):
        world.stories(0, seed=0)


@configs
def test_nothing_is_drawn_that_is_not_written(config):
    """One number is drawn for each word that had a rival, and the words alone tell which words had one."""
    drawn = itertools.count()
    random = Random(5).random

    def counting():
        next(drawn)
        return random()

    writer = _Writer(counting)
    for _ in range(40):
        Document(world_of(config), writer).run()
    text = lexicon.join(writer.words)
    with_rivals = sum(len(choice.words) > 1 for choice in world.offers(text, config)[:-1])
    assert next(drawn) == with_rivals


@configs
def test_what_is_offered_is_a_distribution(config):
    """No word twice, each with a weight above 0; shares of a sum of n doubles are 1 to within n roundings."""
    for story in world.stories(20, HELD_OUT + 1, config):
        for choice in world.offers(story.text, config):
            assert len(set(choice.words)) == len(choice.words) == len(choice.weights)
            assert min(choice.weights) > 0
            assert set(choice.words) <= set(VOCABULARY)
            assert math.fsum(choice.probabilities.values()) == pytest.approx(1, abs=len(choice.words) * 2**-52)


@configs
def test_the_text_alone_gives_its_nats(config):
    """Reading a document back finds the very draws that wrote it: the same sum, to a hundred roundings."""
    for story in world.stories(60, HELD_OUT + 2, config):
        assert sum(world.nats(story.text, config)) == pytest.approx(story.nats, abs=100 * 2**-45)


@configs
def test_draws_follow_what_is_offered(config):
    """Over documents, the surprise of what was drawn and the entropy of what was offered have the same mean.

    Their difference has mean 0 whatever the documents are, if draws follow the offered weights: 4 standard errors.
    """
    gaps = []
    for story in world.stories(200, HELD_OUT + 3, config):
        offered = world.offers(story.text, config)[:-1]
        entropy = -sum(p * math.log(p) for choice in offered for p in choice.probabilities.values())
        gaps.append(story.nats - entropy)
    gaps = torch.tensor(gaps, dtype=torch.float64)
    assert abs(gaps.mean()) < 4 * gaps.std() / math.sqrt(len(gaps))


@functools.cache
def many_texts():
    """5,000 documents."""
    return [story.text for story in world.stories(5000, HELD_OUT + 4, BASE)]


@pytest.mark.parametrize("prefix", ["", "Once", "Once Kate"])
def test_frequencies_are_the_true_distribution(prefix):
    """Words that follow a prefix in 5,000 documents, against `next_token_distribution`: chi-square, p above 1e-4."""
    expected = world.next_token_distribution(prefix, BASE)
    texts = many_texts()
    at = len(world.split(prefix))
    seen = Counter(world.split(text)[at] for text in texts if text.startswith(prefix))
    assert set(seen) <= set(expected)
    n = sum(seen.values())
    common = [word for word, p in expected.items() if n * p >= 5]
    counts = [seen[word] for word in common] + [n - sum(seen[word] for word in common)]
    means = [n * expected[word] for word in common] + [n * (1 - sum(expected[word] for word in common))]
    if means[-1] < 5:
        counts, means = counts[:-1], means[:-1]
        means = [mean * sum(counts) / sum(means) for mean in means]
    assert len(counts) >= 2
    assert stats.chisquare(counts, means).pvalue > 1e-4


def test_the_grammar_reads_one_document_after_the_other():
    """What follows a line's end is a new document, at a prefix and within a text."""
    text = "".join(story.text for story in world.stories(3, 9, EVERY))
    assert world.next_token_distribution(text, EVERY) == world.next_token_distribution("", EVERY)
    assert len(world.nats(text, EVERY)) == len(world.split(text))


def test_a_text_that_the_world_cannot_write_is_refused():
    """The word, its place and what could stand there are named."""
    with pytest.raises(ValueError, match=r"'Hill' \(word 1\) cannot follow 'Once'"):
        world.next_token_distribution("Once Hill")
    with pytest.raises(ValueError, match=r"'3' \(word 0\)"):
        world.nats("3 + 4 = 7.", STORY)
    assert world.next_token_distribution("3 + 4 =", MIXED) == {"7": 1.0}


# ---- the floor


def test_the_floor_is_the_mean_of_the_nats():
    """Nats per token over 1,000 documents; a document has as many nats however it is cut up."""
    found, in_bytes = world.floor(EVERY, n=1000), world.floor(EVERY, "bytes", n=1000)
    sample = world.stories(1000, HELD_OUT, EVERY)
    tokens = sum(len(world.encode(story.text)) for story in sample)
    assert found.nats == pytest.approx(sum(story.nats for story in sample) / tokens)
    assert found.length == tokens / 1000
    assert in_bytes.nats * in_bytes.length == pytest.approx(found.nats * found.length)


def test_the_floors_error_is_right():
    """Twenty floors of 200 documents spread as their errors say: within the 1e-4 tails of chi-square."""
    floors = [world.floor(EVERY, n=200, seed=HELD_OUT + 100 + i) for i in range(20)]
    spread = torch.tensor([each.nats for each in floors]).var().item()
    said = sum(each.error**2 for each in floors) / 20
    low, high = stats.chi2.ppf([1e-4, 1 - 1e-4], 19) / 19
    assert low < spread / said < high


def test_no_trained_model_beats_the_floor():
    """A model that has learnt a small world well stands above it on text it has not seen, and KL says by how much."""
    torch.manual_seed(0)
    model = TinyLM(len(VOCABULARY), context=48, d_model=32, n_layers=2, n_heads=2)
    stream = world.rows(48, seed=1, config=SMALL)

    def batch():
        both = torch.stack(list(itertools.islice(stream, 12)))
        return both[:, :-1], both[:, 1:]

    fit(model, batch, steps=60, lr=1e-2, label=None)
    x, y, true = world.held_out_rows(48, 48, HELD_OUT, SMALL)
    with torch.no_grad():
        logits = model.eval()(x)
    surprise = -logits.double().log_softmax(-1).gather(-1, y[..., None])[..., 0]
    above = (surprise - true).mean(dim=1)
    error = above.std() / math.sqrt(len(above))
    assert above.mean() < 2  # it learnt: untrained it stands 6 nats above
    assert above.mean() > 3 * error  # and is no better than the truth
    divergence = world.kl(logits, x, SMALL)
    assert divergence.min() > -1e-12  # rounding of sums of about a thousand terms of 1e-16
    assert abs(above.mean() - divergence.mean()) < 4 * error  # the same, but for the noise of the words drawn


def test_the_true_distribution_reaches_the_floor():
    """As a model, it has KL 0 at every position, and the loss of the rows' own nats."""
    x, y, true = world.held_out_rows(4, 64, HELD_OUT + 9, EVERY)
    exact = torch.stack([world.true_distributions(row, EVERY) for row in x])
    assert exact.sum(-1) == pytest.approx(torch.ones(4, 64).numpy(), abs=1e-12)
    assert world.kl(exact.clamp_min(1e-300).log(), x, EVERY).abs().max() < 1e-12
    loss = -exact.gather(-1, y[..., None])[..., 0].log()
    torch.testing.assert_close(loss, true, rtol=1e-12, atol=1e-12)


def test_rows_begin_with_a_document():
    """Each begins with a line's end and a fresh document; y is x one token later; nats are those of y."""
    x, y, true = world.held_out_rows(6, 50, 3, EVERY)
    assert x.shape == y.shape == true.shape == (6, 50)
    assert (x[:, 0] == lexicon.ID[END]).all()
    assert all(len(next(world.rows(context, 3, EVERY))) == context + 1 for context in range(1, 120))
    assert (x[:, 1:] == y[:, :-1]).all()
    for row, costs in zip(y, true, strict=True):
        assert world.nats(world.decode(row.tolist()), EVERY) == costs.tolist()


# ---- what there is


def test_what_is_said_of_a_person_never_changes():
    """Jobs, homes, foods and nouns in thousands of facts are the ones in the stories; strangers are not spoken of."""
    known = {}
    said = r"(\w+ \w+) (works as a|likes|comes from|is a) (\w+)\."
    for story in world.stories(1500, 11, Config(story=0, facts=1, people=300)):
        for name, what, value in re.findall(said, story.text):
            assert known.setdefault((name, what), value) == value
    for story in world.stories(300, 12, STORY):
        name, job, town = re.match(r"Once (\w+ \w+), an? \w+ (\w+) from (\w+)", story.text).groups()
        assert known.get((name, "works as a"), job) == job
        assert known.get((name, "comes from"), town) == town
    people = {f"{first} {last}" for first, last in world_of(STORY).people}
    assert {name for name, what in known if what == "likes"} <= people


@pytest.mark.parametrize("exponent", [0.0, 1.5])
def test_people_are_named_by_zipfs_law(exponent):
    """The first few ranks' shares against r ** -exponent: within 5 standard errors of a count."""
    config = Config(story=0, facts=1, people=100, exponent=exponent)
    texts = "".join(story.text for story in world.stories(2000, 13, config))
    named = Counter(re.findall(r"(\w+ \w+) (?:works as|likes|comes from|is a \w+\.)", texts))
    ranked = [" ".join(name) for name in world_of(config).people]
    total, norm = sum(named[name] for name in ranked), sum((r + 1) ** -exponent for r in range(100))
    for rank, name in enumerate(ranked[:10], 1):
        expected = total * rank**-exponent / norm
        assert abs(named[name] - expected) < 5 * math.sqrt(expected)


def test_kinds_come_in_the_shares_asked_for():
    """Within 5 standard errors of a share."""
    kinds = Counter(story.kind for story in world.stories(1500, 14, MIXED))
    assert set(kinds) == {"story", "facts", "sums", "code"}
    for kind, share in {"story": 0.4, "facts": 0.2, "sums": 0.2, "code": 0.2}.items():
        assert abs(kinds[kind] / 1500 - share) < 5 * math.sqrt(share * (1 - share) / 1500)


def test_sums_come_out_right():
    """Python adds them up too, those in words by a table of its own."""
    units = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    names = (units + "seventeen eighteen nineteen").split()
    tens = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
    names += [f"{ten} {one}".strip() for ten in tens for one in ["", *names[1:10]]]
    texts = [story.text.strip(".\n") for story in world.stories(400, 15, Config(story=0, sums=1))]
    in_digits = [text for text in texts if "=" in text]
    assert 0 < len(in_digits) < len(texts)
    for text in texts:
        a, sign, b, _, result = re.fullmatch(r"(.+?) ([+-]|plus|minus) (.+?) (=|is) (.+)", text).groups()
        numbers = [int(n) if n.isdigit() else names.index(n) for n in (a, b, result)]
        assert numbers[2] == numbers[0] + numbers[1] * (1 if sign in ("+", "plus") else -1)


def test_programs_print_what_python_would():
    for story in world.stories(150, 16, Config(story=0, code=1)):
        lines, name, value = re.fullmatch(r"(.*;) print (\w) => (\d+)\.\n", story.text).groups()
        values = {}
        exec(lines.replace("let ", "").replace("; ", "\n"), {}, values)
        assert values[name] == int(value) >= 0


TOLD = (
    "Once Sara Taylor, a young historian from Skell, was in the market. Samir Cook, her uncle, was in the bedroom. "
    "A horse was in the kitchen. A pink millstone was in the hallway. A red pencil was in the laundry. "
    "Sara wanted the millstone in the hallway. She fetched the millstone from the hallway. "
    "The horse found the pencil in the laundry. "
    "Then Samir stole the millstone from Sara in the hallway, and she was sad. "
    "The horse brought the red pencil to Samir in the hallway. Sara went to the garden. He"
)


def test_the_state_is_what_the_story_says():
    """Worked out by hand, sentence by sentence."""
    now = world.state(TOLD[: -len(" He")])
    assert {name: agent.place for name, agent in now.agents.items()} == {
        "Sara": "garden",
        "Samir": "hallway",
        "horse": "hallway",
    }
    assert {name: (thing.colour, thing.holder.word, thing.where) for name, thing in now.things.items()} == {
        "millstone": ("pink", "Samir", "hallway"),
        "pencil": ("red", "Samir", "hallway"),
    }
    assert (now.hero.word, now.wish, now.ending, now.hero.mood) == ("Sara", "millstone", "", "sad")
    assert now.people[1].mood == ""


def test_only_what_is_possible_can_come_next():
    """Sara is the last subject, so no "He"; Samir holds both things, the horse none; they lie nowhere."""
    with pytest.raises(ValueError, match="'He'"):
        world.offers(TOLD)
    before = TOLD[: -len(" He")]
    assert set(world.next_token_distribution(f"{before} The")) == {"horse", "millstone", "pencil"}
    samir = world.next_token_distribution(f"{before} Samir")
    assert {"gave", "put", "kept", "ate"} <= set(samir) and not {"found", "took"} & set(samir)
    horse = world.next_token_distribution(f"{before} The horse")
    assert {"took", "slept"} <= set(horse) and not {"gave", "put", "kept", "ate", "found"} & set(horse)
    assert world.next_token_distribution(f"{before} The horse took the pencil from") == {"Samir": 1.0}
    assert world.next_token_distribution(f"{before} Samir slept in the") == {"hallway": 1.0}
    assert "garden" not in world.next_token_distribution(f"{before} She went to the")
    assert world.next_token_distribution(f"{before} In the end the") == {"girl": 1.0}
    assert world.next_token_distribution(f"{before} In the end the girl had") == {"no": 1.0}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"objects": 1}, "objects is 1: expected a whole number from 2 to"),
        ({"objects": 2.0}, "objects is 2.0: expected a whole number"),
        ({"story": 0}, "all shares are 0"),
        ({"facts": -1}, "facts is -1: expected a whole number from 0"),
        ({"seed": None}, "seed is None"),
        ({"questions": 1000}, "questions is 1000"),
        ({"first_names": 2, "last_names": 3, "people": 4}, "people is 4: expected a whole number from 2 to 3"),
        ({"exponent": math.nan}, "exponent is nan"),
    ],
)
def test_a_world_that_cannot_be_is_refused(settings, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Config(**settings)


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_any_world_that_can_be_works(data):
    """Sizes, shares and exponents drawn at random: it writes, and reads what it wrote."""
    sizes = {}
    for name, least in Config.LEAST.items():
        sizes[name] = data.draw(st.integers(least, len(lexicon.LISTS[name[:-1].replace("_", " ")])), name)
    shares = {kind: data.draw(st.integers(0, 3), kind) for kind in Config.KINDS}
    shares["story"] += not any(shares.values())
    most = max(2, min(200, sizes["first_names"] * sizes["last_names"] // 2))
    people = data.draw(st.integers(2, most), "people")
    config = Config(**sizes, **shares, people=people, exponent=data.draw(st.floats(0, 2)), questions=300)
    for story in world.stories(3, 1, config):
        assert sum(world.nats(story.text, config)) == pytest.approx(story.nats, abs=1e-9)
