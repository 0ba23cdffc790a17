"""Questions about a story, with their answers, and requests, with a checker that says whether one was obeyed.

questions(story.state)[0]                       # Question(text="Where is Tom?", answer="In the cellar.")
obeyed("Who has the lamp?", "Ann.", story.text) # Obedience(obeyed=False, why="the answer is 'Tom.', not 'Ann.'")
obeyed("Write a sad story about Tom.", text)    # judged whole: hero, ending, and every sentence
obeyed("List the objects.", "lamp, key.", story.text)
"""

from dataclasses import dataclass

from shared.world.judge import judge
from shared.world.people import Config
from shared.world.state import State
from shared.world.words import END, KIND, split
from shared.world.writing import STORY, state

ENDING_OF = {"happy": "happy", "sad": "sad", "mysterious": "open"}


@dataclass(frozen=True)
class Question:
    """A question about a story, as the stories' own questions are put, and its right answer."""

    text: str
    answer: str


@dataclass(frozen=True)
class Obedience:
    """Whether a response did what was asked, and why it did not; "" if it did."""

    obeyed: bool
    why: str = ""


def questions(story: State) -> list[Question]:
    """Every question that can be asked of a story's state, in a fixed order."""
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
            Question(f"Which job has {name}?", f"{person.job}."),
            Question(f"Which town is {name} from?", f"{person.town}."),
            Question(f"How does {name} feel?", f"{agent.mood}." if agent.mood else "Nobody knows."),
            Question(f"Is {name} a {person.job}?", "yes."),
        ]
    return [*asked, Question(f"What does {story.hero.word} want?", f"The {story.wish}.")]


def obeyed(request: str, response: str, story: str = "", config: Config = STORY) -> Obedience:
    """Whether a response does what a request asks, a line's end at the response's end or not.

    request: a question or a list about `story`, the text it is asked of; or "Write a happy story about Tom.".
    Raises ValueError for a request of no known form, or a `story` that is none.
    """
    words = split(request)
    if words[:2] == ["Write", "a"] and words[3:5] == ["story", "about"] and words[2] in ENDING_OF and len(words) == 7:
        return _wrote(response, words[2], words[5], config)
    now = state(story, config) if story else None
    if now is None or not now.wish:
        raise ValueError(f"{request!r} is asked of a story, and {story[:40]!r} is none")
    if words[:2] == ["List", "the"] and len(words) == 4 and words[2] in ("people", "objects", "places"):
        return _listed(response, words[2], now, story)
    return _answered(request, response, now)


def _answered(request: str, response: str, now: State) -> Obedience:
    right = {question.text: question.answer for question in questions(now)}
    words = split(request)
    if words[0] == "Is" and len(words) == 5 and words[1] in now.agents and KIND.get(words[3]) == "job":
        right[request] = "yes." if now.agents[words[1]].person.job == words[3] else "no."
    if request not in right:
        raise ValueError(f"{request!r} is no question of this story; one is {next(iter(right))!r}")
    answer = response.rstrip(END)
    if answer == right[request]:
        return Obedience(True)
    return Obedience(False, f"the answer is {right[request]!r}, not {answer!r}")


def _listed(response: str, what: str, now: State, story: str) -> Obedience:
    wanted = {
        "people": {agent.word for agent in now.people},
        "objects": set(now.things),
        "places": {word for word in split(story) if KIND.get(word) == "place"},
    }[what]
    *words, last = split(response.rstrip(END)) or [""]
    if last != "." or any((word == ",") != (i % 2 == 1) for i, word in enumerate(words)):
        return Obedience(False, f"{response!r} is no list: words with commas between them and a full stop")
    listed = words[::2]
    if missing := wanted - set(listed):
        return Obedience(False, f"missing: {', '.join(sorted(missing))}")
    if strange := [word for i, word in enumerate(listed) if word not in wanted or word in listed[:i]]:
        return Obedience(False, f"does not belong, or stands twice: {', '.join(strange)}")
    return Obedience(True)


def _wrote(response: str, tone: str, hero: str, config: Config) -> Obedience:
    if not split(response):
        return Obedience(False, "nothing was written")
    judgement = judge(response, config)
    document = judgement.documents[0]
    if document.kind != "story" or len(judgement.documents) > 1:
        kinds = ", ".join(each.kind or "nothing known" for each in judgement.documents)
        return Obedience(False, f"not one story but: {kinds}")
    if not judgement.flawless:
        return Obedience(False, str(judgement).split("\n")[0])
    told = document.body.state
    if told.hero.word != hero:
        return Obedience(False, f"the story is about {told.hero.word}, not {hero}")
    if told.ending != ENDING_OF[tone]:
        return Obedience(False, f"the ending is {told.ending}, not {ENDING_OF[tone]}")
    return Obedience(True)
