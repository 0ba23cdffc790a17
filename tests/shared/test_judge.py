"""shared/world/judge.py and asking.py: every right text is accepted, every kind of error is found where it stands."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared import world
from shared.world import BASE, FACTS, HELD_OUT, MIXED, RULES, STORY, VOCABULARY, Config, judge, obeyed, questions

EVERY = Config(story=5, facts=2, sums=2, code=2, requests=2, questions=300)

# Two whose facts the default world knows; the rest is written by hand, each law of a story used at least once.
STORY_TOLD = (
    "Once Sara Taylor, a young historian from Skell, was in the market. Samir Cook, her uncle, was in the bedroom. "
    "A horse was in the kitchen. A pink millstone was in the hallway. A red pencil was in the laundry. "
    "Sara wanted the millstone in the hallway. She fetched the millstone from the hallway. "
    "The horse found the pencil in the laundry. "
    "Then Samir stole the millstone from Sara in the hallway, and she was sad. The millstone was with Samir. "
    "The horse brought the red pencil to Samir in the hallway. Samir put the millstone in the garden. He went to the "
    "park. He kept the pencil. In the end the girl had no millstone and was cross.\n"
)
OTHERS = {
    "facts": "Sara Taylor works as a historian. A parrot is an animal. A puppy is a young dog. Varna is the capital of "
    "Norlia.\n",
    "sum": "twelve plus thirty is forty two.\n",
    "digits": "30 - 12 = 18.\n",
    "code": "let b = 3; let c = b + 4; print c => 7.\n",
    "requests": "Write a happy story about Sara. List the places.\n",
    "sheet": STORY_TOLD.strip() + " Where is Sara? Who has the pencil? What does Sara want? Is Samir a baker?\n",
}


@pytest.mark.parametrize("config", [STORY, BASE, FACTS, MIXED, EVERY], ids=["story", "base", "facts", "mixed", "every"])
def test_every_generated_document_is_flawless(config):
    """One by one and all in one text."""
    texts = [story.text for story in world.stories(100, HELD_OUT, config)]
    for text in texts:
        assert judge(text, config).flawless, f"{text}{judge(text, config)}"
    together = judge("".join(texts), config)
    assert together.flawless
    assert (together.consistent, together.grammatical, len(together.documents)) == (1, 1, 100)


@pytest.mark.parametrize("text", [STORY_TOLD, *OTHERS.values()], ids=["story", *OTHERS])
def test_what_was_written_by_hand_is_flawless(text):
    judgement = judge(text)
    assert judgement.flawless, str(judgement)
    assert str(judgement) == "nothing is wrong"


PLANTED = [
    ("story", "Sara Taylor", "Sara Marsh", "known"),
    ("story", "Samir Cook, her", "Sara Cook, her", "known"),
    ("story", "young historian", "old historian", "fact"),
    ("story", "a young historian", "an young historian", "article"),
    ("story", "historian", "baker", "fact"),
    ("story", "Skell", "Varna", "fact"),
    ("story", "her uncle", "his uncle", "pronoun"),
    ("story", "uncle", "son", "kin"),
    ("story", "uncle", "aunt", "kin"),
    ("story", "red pencil was", "pink pencil was", "twice"),
    ("story", "red pencil was", "red millstone was", "twice"),
    ("story", "Sara wanted", "Samir wanted", "hero"),
    ("story", "wanted the millstone", "wanted the lamp", "stranger"),
    ("story", "wanted the millstone in the hallway", "wanted the millstone in the laundry", "place"),
    ("story", "She fetched", "He fetched", "subject"),
    ("story", "She fetched", "Sara fetched", "subject"),
    ("story", "She fetched", "Bob fetched", "grammar"),
    ("story", "She fetched", "Tom fetched", "stranger"),
    ("story", "fetched the millstone from the hallway", "fetched the millstone from the kitchen", "place"),
    ("story", "fetched the millstone from", "fetched the millstone in", "grammar"),
    (
        "story",
        "She fetched the millstone from the hallway",
        "She gave the millstone to Samir in the bedroom",
        "possible",
    ),
    ("story", "found the pencil in the laundry", "found the millstone in the hallway", "free"),
    ("story", "stole the millstone from Sara", "stole the millstone from Samir", "holder"),
    ("story", "and she was sad", "and he was sad", "pronoun"),
    ("story", "and she was sad", "and she was proud", "mood"),
    ("story", "The millstone was with Samir", "The millstone was with Sara", "holder"),
    ("story", "The millstone was with Samir", "The millstone was in the hallway", "held"),
    ("story", "The horse brought", "The pencil brought", "subject"),
    ("story", "the red pencil to", "the pink pencil to", "holder"),
    ("story", "the red pencil to", "the red millstone to", "colour"),
    ("story", "to Samir in", "to the horse in", "self"),
    ("story", "He went to the park", "He went to the garden", "move"),
    ("story", "He kept the pencil", "He kept the millstone", "holder"),
    ("story", "He went to the park. He kept", "He kept the pencil. He kept", "possible"),
    ("story", "He went", "It went", "subject"),
    ("story", "the girl had", "the woman had", "fact"),
    ("story", "girl had no millstone and was cross", "girl had the millstone and was glad", "ending"),
    ("story", "no millstone and was cross", "no millstone and was glad", "mood"),
    ("story", "no millstone", "no pencil", "wish"),
    ("story", "Then Samir", "then Samir", "grammar"),
    ("story", " The horse found", " horse The found", "grammar"),
    ("story", "was in the market.", "was in the market", "grammar"),
    ("facts", "historian", "baker", "fact"),
    ("facts", "Sara Taylor", "Sara Marsh", "known"),
    ("facts", "an animal", "a animal", "article"),
    ("facts", "young dog", "young cat", "fact"),
    ("facts", "Norlia", "Velden", "fact"),
    ("sum", "forty two", "forty three", "sum"),
    ("sum", "forty two", "forty", "sum"),
    ("digits", "= 18", "= 19", "sum"),
    ("digits", "= 18", "= 8", "sum"),
    ("digits", "= 18", "= 180", "sum"),
    ("digits", "30 - 12", "12 - 30", "negative"),
    ("code", "=> 7", "=> 8", "value"),
    ("code", "=> 7", "=> 70", "value"),
    ("code", "print c", "print d", "defined"),
    ("code", "b + 4", "d + 4", "defined"),
    ("code", "b + 4", "b - 4", "negative"),
    ("requests", "happy", "glad", "grammar"),
    ("sheet", "Where is Sara", "Where is Tom", "stranger"),
    ("sheet", "does Sara want", "does Samir want", "wish"),
]


@pytest.mark.parametrize(("kind", "right", "wrong", "rule"), PLANTED, ids=[f"{p[3]}: {p[2]}" for p in PLANTED])
def test_a_planted_error_is_found_where_it_stands(kind, right, wrong, rule):
    """The first breach has the rule's name, and lies in the changed words; nothing before is called wrong."""
    text = {"story": STORY_TOLD, **OTHERS}[kind]
    assert text.count(right) == 1
    start = len(world.split(text[: text.index(right)]))
    judgement = judge(text.replace(right, wrong))
    assert not judgement.flawless
    first = next(breach for sentence in judgement.sentences for breach in sentence.breaches)
    assert first.rule == rule, str(judgement)
    assert start <= first.at <= start + len(world.split(wrong))
    assert f"{first.found!r}" in str(judgement) and RULES[rule] in str(judgement)


def test_every_rule_is_tried():
    """Each but "opening", which the next test tries."""
    assert {rule for *_, rule in PLANTED} == set(RULES) - {"opening"}


def test_a_story_whose_opening_fails_is_not_judged_further():
    """Who is who is not known then: each later sentence says so, the next document is judged again."""
    judgement = judge(STORY_TOLD.replace("A horse was", "A horse were") + OTHERS["sum"])
    rules = [[breach.rule for breach in sentence.breaches] for sentence in judgement.sentences]
    assert rules[:4] == [[], [], ["grammar"], ["opening"]]
    assert set(map(tuple, rules[3:-1])) == {("opening",)}
    assert rules[-1] == []
    assert not judgement.flawless


@pytest.mark.parametrize(
    ("right", "wrong", "n_wrong"),
    [
        ("He kept the pencil", "He kept the the pencil", 1),
        ("He went to the park", "He flew to the park", 1),
        ("Samir put the millstone in the garden", "Samir slept in the cave", 1),
        ("and she was sad", "and he was sad", 1),
        ("The horse brought the red pencil", "The horse brought the pink pencil", 1),
    ],
)
def test_an_error_does_not_spoil_what_follows(right, wrong, n_wrong):
    """A sentence that was not understood changes nothing but who acted last."""
    judgement = judge(STORY_TOLD.replace(right, wrong))
    assert sum(not sentence.consistent for sentence in judgement.sentences) == n_wrong, str(judgement)


def test_what_is_said_against_a_rule_is_heard_out():
    """Samir finds what the horse has, and has it from then on; he sleeps where he is not, and is there from then on."""
    opening = STORY_TOLD[: STORY_TOLD.index("Then Samir")]
    told = "Then Samir found the pencil in the laundry. The pencil was with Samir. Nobody knows what happened next.\n"
    told = told.replace("Nobody", "Samir slept in the cave. He rested in the cave. Nobody")
    judgement = judge(opening + told)
    assert [breach.rule for sentence in judgement.sentences for breach in sentence.breaches] == [
        "possible",
        "free",
        "place",
    ]


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_no_text_breaks_the_judge(data):
    """Documents cut off, with words swapped for others, or nothing but words: judged, and only right ones flawless."""
    text = data.draw(st.sampled_from([STORY_TOLD, *OTHERS.values(), ""]))
    words = world.split(text)
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(words)))
        words[at : at + data.draw(st.integers(0, 2))] = data.draw(st.lists(st.sampled_from(VOCABULARY), max_size=2))
    words = words[: data.draw(st.integers(1, max(1, len(words))))] or ["Tom"]
    text = " ".join(words)
    judgement = judge(text)
    assert 0 <= judgement.consistent <= judgement.grammatical <= 1
    try:
        world.offers(text, EVERY)
        possible = True
    except ValueError:
        possible = False
    assert possible == all(sentence.consistent for sentence in judgement.sentences)


def test_a_text_that_breaks_off_is_said_to():
    for words in range(1, len(world.split(STORY_TOLD)) - 1):
        cut = " ".join(world.split(STORY_TOLD)[:words])
        judgement = judge(cut)
        assert not judgement.finished and not judgement.flawless
        assert all(sentence.consistent for sentence in judgement.sentences)
        assert judgement.sentences[-1].finished == (cut[-1] in ".?;")
        assert str(judgement) == "the text breaks off"


def test_the_end_comes_only_at_the_end():
    """A line's end in the midst of a story; a story without an ending; text after the ending; unknown words."""
    middle = STORY_TOLD.replace(" He kept the pencil.", "\n")
    assert not judge(middle).flawless
    assert not judge(STORY_TOLD + "In the end the girl had no millstone and was sad.\n").flawless
    assert not judge(STORY_TOLD.strip() + " In the end the girl had no millstone and was sad.\n").flawless
    assert not judge("\n").flawless
    assert judge("Bonjour le monde.").grammatical == 0
    assert judge("Bonjour").consistent == 0
    with pytest.raises(ValueError, match="no word to judge"):
        judge("  ")


# ---- questions and requests


def test_answers_by_hand():
    answers = {question.text: question.answer for question in questions(world.state(STORY_TOLD))}
    assert answers == {
        "Where is Sara?": "In the hallway.",
        "Where is Samir?": "In the park.",
        "Where is the horse?": "In the hallway.",
        "Where is the millstone?": "In the garden.",
        "Who has the millstone?": "Nobody.",
        "What colour is the millstone?": "pink.",
        "Where is the pencil?": "In the park.",
        "Who has the pencil?": "Samir.",
        "What colour is the pencil?": "red.",
        "What does Sara like?": answers["What does Sara like?"],
        "Which job does Sara have?": "historian.",
        "Which town is Sara from?": "Skell.",
        "How does Sara feel?": "cross.",
        "Is Sara a historian?": "yes.",
        "What does Samir like?": answers["What does Samir like?"],
        "Which job does Samir have?": answers["Which job does Samir have?"],
        "Which town is Samir from?": answers["Which town is Samir from?"],
        "How does Samir feel?": "Nobody knows.",
        f"Is Samir a {answers['Which job does Samir have?'][:-1]}?": "yes.",
        "What does Sara want?": "The millstone.",
    }
    assert obeyed("Who has the pencil?", "The horse.", STORY_TOLD.split(" Then")[0]).obeyed


def test_answers_are_what_later_sentences_say():
    """Where a story goes on to say who has a thing or where somebody acts, the answer just before was that."""
    tried = 0
    for story in world.stories(100, HELD_OUT + 1, STORY):
        sentences = story.text.split(". ")
        for i, sentence in enumerate(sentences[5:], 5):
            words = sentence.split()
            before = ". ".join(sentences[:i]) + "."
            if words[0] == "The" and words[2] == "was":
                thing, place = words[1], words[-1]
                if words[3] == "with":
                    holder = " ".join(words[4:]).replace("the ", "The ")
                    assert obeyed(f"Who has the {thing}?", f"{holder}.", before).obeyed
                else:
                    assert obeyed(f"Where is the {thing}?", f"In the {place}.", before).obeyed
                    assert obeyed(f"Who has the {thing}?", "Nobody.", before).obeyed
                tried += 1
    assert tried > 30


def test_each_answer_obeys_its_question_and_no_other_does():
    """For 5 stories: the answer, with or without a line's end and spaces; not the other answers, nor nothing."""
    for story in world.stories(5, HELD_OUT + 2, STORY):
        asked = questions(story.state)
        answers = {question.answer for question in asked}
        for question in asked:
            assert obeyed(question.text, question.answer, story.text).obeyed
            assert obeyed(f" {question.text}", f"{question.answer}\n", story.text).obeyed
            for other in [*(answers - {question.answer}), ""]:
                judged = obeyed(question.text, other, story.text)
                assert not judged.obeyed and question.answer in judged.why


def test_questions_in_the_text_are_ones_we_can_answer():
    asked = [
        (story, sentence.text)
        for story in world.stories(200, HELD_OUT + 3, BASE)
        for sentence in judge(story.text, BASE).sentences
        if sentence.text.endswith("?")
    ]
    assert len(asked) > 20
    for story, text in asked:
        assert text.startswith("Is") or text in {question.text for question in questions(story.state)}
        assert "not 'perhaps .'" in obeyed(text, "perhaps.", story.text, BASE).why


@pytest.mark.parametrize(
    ("request_", "response", "why"),
    [
        ("Is Samir a baker?", "no.", ""),
        ("Is Samir a baker?", "yes.", "the answer is 'no.'"),
        ("List the people.", "Samir, Sara.", ""),
        ("List the objects.", "pencil, millstone.\n", ""),
        ("List the places.", "market, bedroom, kitchen, hallway, laundry, garden, park.", ""),
        ("List the people.", "Sara.", "missing: Samir"),
        ("List the people.", "Sara, Samir, Tom.", "does not belong, or stands twice: Tom"),
        ("List the people.", "Sara, Samir, Sara.", "does not belong, or stands twice: Sara"),
        ("List the people.", "Sara, Samir", "no list"),
        ("List the people.", "Sara, Samir, .", "no list"),
        ("List the people.", "", "no list"),
    ],
)
def test_requests_about_a_story(request_, response, why):
    judged = obeyed(request_, response, STORY_TOLD)
    assert judged.obeyed == (why == "")
    assert why in judged.why


def test_a_story_to_order():
    """Hero, ending and every sentence count; each failing is named."""
    order = "Write a sad story about Sara."
    assert obeyed(order, STORY_TOLD).obeyed
    assert obeyed(order, STORY_TOLD.strip()).obeyed
    assert "about Sara, not Tom" in obeyed("Write a sad story about Tom.", STORY_TOLD).why
    assert "ending is sad, not happy" in obeyed("Write a happy story about Sara.", STORY_TOLD).why
    assert "ending is sad, not open" in obeyed("Write a mysterious story about Sara.", STORY_TOLD).why
    assert "place" in obeyed(order, STORY_TOLD.replace("from the hallway.", "from the park.")).why
    assert "end of the line" in obeyed(order, STORY_TOLD.split(" In the end")[0]).why
    assert "not one story" in obeyed(order, STORY_TOLD * 2).why
    assert "not one story" in obeyed(order, OTHERS["sum"]).why
    assert "nothing was written" in obeyed(order, "\n").why


def test_each_generated_story_obeys_the_order_for_it():
    tones = {"happy": "happy", "sad": "sad", "open": "mysterious"}
    for story in world.stories(20, HELD_OUT + 4, STORY):
        tone = tones[story.state.ending]
        assert obeyed(f"Write a {tone} story about {story.state.hero.word}.", story.text).obeyed


@pytest.mark.parametrize(
    "request_",
    [
        "",
        "Who has the lamp?",
        "Is horse a baker?",
        "List the moods.",
        "Write a happy story about banana.",
        "Write a long story about Sara.",
        "What does Samir want?",
    ],
)
def test_a_request_of_no_known_form_is_refused(request_):
    with pytest.raises(ValueError, match="is no request that this story allows; one is 'Where is Sara"):
        obeyed(request_, "Sara.", STORY_TOLD)


def test_a_question_needs_a_story():
    for text in ("", OTHERS["sum"], "Once Sara Taylor, a young historian"):
        with pytest.raises(ValueError, match=r"is none whose opening was told|cannot follow"):
            obeyed("Where is Sara?", "In the park.", text)
    with pytest.raises(ValueError, match="no state of a story"):
        questions(None)
