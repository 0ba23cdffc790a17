"""The grammar of the questions that may follow a story. They stand without answers; `asking` knows those."""

import functools

from shared.world.choice import Choice, Voice, even
from shared.world.people import World
from shared.world.state import State

QUESTIONS = ("Where", "Who", "What", "Which", "How", "Is")
COLOUR_OR_DOES, JOB_OR_TOWN = even(("colour", "does")), even(("job", "town"))


def question(voice: Voice, world: World, state: State, word: str) -> None:
    """The rest of a question that begins with one of QUESTIONS."""
    pick, say = voice.pick, voice.say
    people, things = tuple(agent.word for agent in state.people), tuple(state.things)
    if word == "Where":
        say("is")
        if pick(even((*people, "the"))) == "the":
            pick(even((state.animal.word, *things)))
    elif word == "Who":
        say("has the")
        pick(even(things))
    elif word == "What":
        if pick(COLOUR_OR_DOES) == "colour":
            say("is the")
            pick(even(things))
        else:
            wants = ("like", "want") if pick(even(people)) == people[0] else ("like",)
            pick(even(wants, ("like", "want"), "wish"))
    elif word == "Which":
        if pick(JOB_OR_TOWN) == "job":
            say("does")
            pick(even(people))
            say("have")
        else:
            say("is")
            pick(even(people))
            say("from")
    elif word == "How":
        say("does")
        pick(even(people))
        say("feel")
    else:
        name = pick(even(people))
        say("a")
        pick(_a_job(world, state.agents[name].person.job))
    say("?")


@functools.cache
def _a_job(world: World, job: str | None) -> Choice:
    """Any job, the true one as likely as all others together."""
    jobs = world.lists["job"]
    return Choice(jobs, [max(1, len(jobs) - 1) if each == job else 1 for each in jobs])
