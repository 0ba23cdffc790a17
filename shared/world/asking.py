"""Questions about a story, with their answers, and requests, with a checker that says whether one was obeyed.

    questions(story.state)[0]                            # Question(text="Where is Tom?", answer="In the cellar.")
    obeyed("Who has the lamp?", "Ann.", story.text)      # Obedience(obeyed=False, why="the answer is 'Tom.', ...")
    obeyed("List the objects.", "lamp, key.", story.text)
    obeyed("Write a sad story about Tom.", response)     # judged whole: hero, ending, and every sentence

Requests and responses are compared word by word: spaces do not count, nor does a line's end at the response's end.
"""

from dataclasses import dataclass

from shared.world.judge import judge
from shared.world.people import Config
from shared.world.state import State
from shared.world.words import END, FIRST_NAMES, KIND, LISTABLE, TONES, split
from shared.world.writing import STORY, state

ENDING_OF = dict(zip(TONES, ("happy", "sad", "open"), strict=True))


@dataclass(frozen=True)
class Question:
    """A question about a story, in the words of the stories' own questions, and its right answer."""

    text: str
    answer: str


@dataclass(frozen=True)
class Obedience:
    """Whether a response did what was asked, and why it did not; "" if it did."""

    obeyed: bool
    why: str = ""


def questions(story: State) -> list[Question]:
    """The questions that can be asked of a story's state, in a fixed order; "Is Tom a baker?" with the true job alone.

    Raises ValueError for a state that is none, or of a story cut off in its opening.
    """
    if story is None or not story.wish:
        raise ValueError(f"{story!r} is no state of a story whose opening has been told")
    called = {agent.word: agent.word if agent.person else f"the {agent.word}" for agent in story.agents.values()}
    asked = [Question(f"Where is {called[agent.word]}?", f"In the {agent.place}.") for agent in story.agents.values()]
    for thing in story.things.values():
        holder = called[thing.holder.word] if thing.holder else "nobody"
        asked += [
            Question(f"Where is the {thing.word}?", f"In the {thing.where}."),
            Question(f"Who has the {thing.word}?", f"{holder[0].upper()}{holder[1:]}."),
            Question(f"What colour is the {thing.word}?", f"{thing.colour}."),
        ]
    for agent in story.people:
        name, person = agent.word, agent.person
        asked += [
            Question(f"What does {name} like?", f"{person.food}."),
            Question(f"Which job does {name} have?", f"{person.job}."),
            Question(f"Which town is {name} from?", f"{person.town}."),
            Question(f"How does {name} feel?", f"{agent.mood}." if agent.mood else "Nobody knows."),
            Question(f"Is {name} a {person.job}?", "yes."),
        ]
    return [*asked, Question(f"What does {story.hero.word} want?", f"The {story.wish}.")]


def obeyed(request: str, response: str, story: str = "", config: Config = STORY) -> Obedience:
    """Whether a response does what a request asks.

    request: a question, or "List the objects." (people, places), about `story`, the text it is asked of; or "Write a
    happy story about Tom." (sad, mysterious). Raises ValueError for a request of no such form or about nobody in the
    story, and for a `story` that is none or that the world cannot write.
    """
    asked, given = split(request), split(response.rstrip(END))
    match asked:
        case ["Write", "a", tone, "story", "about", hero, "."] if tone in ENDING_OF and hero in FIRST_NAMES:
            return _wrote(given, response, tone, hero, config)
    now = state(story, config)
    if now is None or not now.wish:
        raise ValueError(f"{request!r} is asked of a story, and {story[:40]!r} is none whose opening was told")
    match asked:
        case ["List", "the", what, "."] if what in LISTABLE:
            return _listed(given, what, now, story)
        case ["Is", name, "a", job, "?"] if name in [agent.word for agent in now.people] and KIND.get(job) == "job":
            return _answered(given, "yes." if now.agents[name].person.job == job else "no.")
    for question in questions(now):
        if split(question.text) == asked:
            return _answered(given, question.answer)
    raise ValueError(f"{request!r} is no request that this story allows; one is {questions(now)[0].text!r}")


def _answered(given: list[str], answer: str) -> Obedience:
    if given == split(answer):
        return Obedience(True)
    return Obedience(False, f"the answer is {answer!r}, not {' '.join(given)!r}")


def _listed(given: list[str], what: str, now: State, story: str) -> Obedience:
    wanted = {
        "people": {agent.word for agent in now.people},
        "objects": set(now.things),
        "places": {word for word in split(story) if KIND.get(word) == "place"},
    }[what]
    listed, signs = given[::2], given[1::2]
    if len(listed) != len(signs) or signs[:-1] != [","] * (len(signs) - 1) or signs[-1:] != ["."]:
        return Obedience(False, f"{' '.join(given)!r} is no list: words with commas between them and a full stop")
    if missing := wanted - set(listed):
        return Obedience(False, f"missing: {', '.join(sorted(missing))}")
    if strange := [word for i, word in enumerate(listed) if word not in wanted or word in listed[:i]]:
        return Obedience(False, f"does not belong, or stands twice: {', '.join(strange)}")
    return Obedience(True)


def _wrote(given: list[str], response: str, tone: str, hero: str, config: Config) -> Obedience:
    if not given:
        return Obedience(False, "nothing was written")
    judgement = judge(response.rstrip(END) + END, config)
    if [document.kind for document in judgement.documents] != ["story"]:
        kinds = ", ".join(document.kind or "nothing known" for document in judgement.documents)
        return Obedience(False, f"not one story but: {kinds}")
    if not judgement.flawless:
        return Obedience(False, str(judgement).split("\n")[0])
    told = judgement.documents[0].body.state
    if told.hero.word != hero:
        return Obedience(False, f"the story is about {told.hero.word}, not {hero}")
    if told.ending != ENDING_OF[tone]:
        return Obedience(False, f"the ending is {told.ending}, not {ENDING_OF[tone]}")
    return Obedience(True)
