"""How things stand in a story: who is where, who holds what."""

from dataclasses import dataclass, field

from shared.world.people import Person


@dataclass(slots=True)
class Agent:
    """Somebody who acts: a person, or the animal. word: how it is called. mood: as last told, "" before."""

    word: str
    pronoun: str
    place: str
    person: Person | None = None
    mood: str = ""


@dataclass(slots=True)
class Thing:
    """An object. It lies in `place`, or `holder` has it and `place` is None. news: it moved since it was reported."""

    word: str
    colour: str
    place: str | None
    holder: Agent | None = None
    news: bool = False

    def lie_in(self, place: str) -> None:
        """It is put down."""
        self.place, self.holder, self.news = place, None, True

    def pass_to(self, agent: Agent) -> None:
        """Somebody gets it."""
        self.place, self.holder, self.news = None, agent, True

    @property
    def where(self) -> str:
        """The place it is in; its holder's if somebody has it."""
        return self.holder.place if self.holder else self.place


@dataclass(slots=True)
class State:
    """How things stand in a story. agents, things: by word, in order of entry. people: the agents who are no animal.

    wish: the thing that the hero wants. ending: "happy", "sad", "open", or "" before it is told.
    """

    agents: dict[str, Agent] = field(default_factory=dict)
    people: list[Agent] = field(default_factory=list)
    animal: Agent | None = None
    things: dict[str, Thing] = field(default_factory=dict)
    wish: str = ""
    ending: str = ""

    @property
    def hero(self) -> Agent:
        """The one whom the story is about."""
        return self.people[0]
