"""Instructions of the story world, with their answers, and a program that says whether a response obeys.

    asked = next(requests(seed=0, kinds=TRAINED, held=False))
    asked.story, asked.text, asked.answer       # "Once Leo Fisher, ...", "Where is Leo?", "In the meadow."
    render(asked.messages, TEMPLATE)            # the conversation, as ids
    scored(asked, ids)                          # {"obeyed": True, "form": True, ...}

Documents of this world hold questions and requests, and never an answer: the base model has not read one. So it goes on
with more of them by the design of its corpus. The template's `<user>` and `<bot>` stand in its vocabulary and in none
of its texts. An answer ends with the token that ends every document.

Kinds of instructions: eleven are TRAINED, three are NEW. Combinations of a kind with what it asks for (a name, an
object, or a tone and a hero) are held out from training, a quarter to two fifths of a kind's requests: the rest of that
kind, and the rest that is asked of that name, is trained. (An animal is asked for by one kind alone, so that those held
out are in no trained request.) PAIR asks two questions at once, which no training does.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

from instruct import Message, Template

from shared.world import BASE, END, Config, Story, documents, nats, obeyed, questions, split
from shared.world.words import ID, KIND, LISTABLE, LISTS, TONES, decode, encode, join

TEMPLATE = Template(
    begin=[ID[END]],
    opens={"user": [ID["<user>"]], "assistant": [ID["<bot>"]]},
    closes={"user": [], "assistant": [ID[END]]},
    stop=ID[END],
    padding=ID["<mask>"],
)
WORLD = Config(**{name: getattr(BASE, name) for name in (*Config.LEAST, "people", "exponent")})  # stories alone
LONGEST = 128  # tokens of a story: longer ones, a third, are left out
TRAINED = ("where", "where thing", "who", "colour", "like", "job", "feel", "is", "list objects", "list people", "write")
NEW = ("town", "want", "list places")
PAIR = "pair"
ENDINGS = dict(zip(("happy", "sad", "open"), TONES, strict=True))
ABOUT = {  # of what list the answer's word is
    "where": ("place",),
    "where thing": ("place",),
    "who": ("first name", "animal", "nobody"),
    "colour": ("colour",),
    "like": ("food",),
    "job": ("job",),
    "town": ("town",),
    "feel": ("glad", "cross", "nobody"),
    "is": ("yes or no",),
    "want": ("object",),
}
WORDS = {name: frozenset(LISTS[name]) for name in LISTS} | {"nobody": {"Nobody"}, "yes or no": {"yes", "no"}}
OF_LIST = {"list objects": "object", "list people": "first name", "list places": "place"}


@dataclass(frozen=True)
class Request:
    """An instruction: its kind, what it is about (its argument), the story it is asked of ("" for none), its text, and
    a right answer, both without the line's end."""

    kind: str
    argument: str
    story: str
    text: str
    answer: str

    @property
    def messages(self) -> list[Message]:
        """What is asked, and the answer."""
        return [*self.asked, ("assistant", encode(self.answer))]

    @property
    def asked(self) -> list[Message]:
        """What is asked: the story, then the request."""
        return [("user", encode(f"{self.story} {self.text}"))]

    @property
    def held_out(self) -> bool:
        """Its combination of kind and argument is not trained."""
        return is_held_out(self.kind, self.argument)


def is_held_out(kind: str, argument: str) -> bool:
    """Whether training leaves out a combination; of each trained kind's, every third argument is."""
    kinds = {**dict.fromkeys(TRAINED), **dict.fromkeys(NEW)}
    if kind == "write":
        tone, hero = argument.split()
        return (LISTS["first name"].index(hero) + TONES.index(tone)) % 3 == 0
    if not argument or argument not in KIND:
        return False
    return (LISTS[KIND[argument]].index(argument) + list(kinds).index(kind)) % 3 == 0


def of_story(story: Story, random: Random) -> list[Request]:
    """Every request that can be made of a story, and the one that it obeys."""
    text, state = story.text.rstrip(END), story.state
    found = []
    for question in questions(state):
        kind, argument = _kind_of(split(question.text))
        request = Request(kind, argument, text, question.text, question.answer)
        found.append(_another_job(request, random) if kind == "is" and random.random() < 0.5 else request)
    words = split(text)
    listed = {
        "people": [agent.word for agent in state.people],
        "objects": list(state.things),
        "places": list(dict.fromkeys(word for word in words if KIND[word] == "place")),
    }
    found += [
        Request(f"list {what}", "", text, f"List the {what}.", ", ".join(listed[what]) + ".") for what in LISTABLE
    ]
    tone, hero = ENDINGS[state.ending], state.hero.word
    return [*found, Request("write", f"{tone} {hero}", "", f"Write a {tone} story about {hero}.", text)]


def _kind_of(words: Sequence[str]) -> tuple[str, str]:
    """The kind of a question and its argument."""
    match words:
        case ["Where", "is", "the", word, "?"] if KIND[word] == "object":
            return "where thing", word
        case ["Where", "is", *_, word, "?"]:
            return "where", word
        case ["Who", "has", "the", word, "?"]:
            return "who", word
        case ["What", "colour", "is", "the", word, "?"]:
            return "colour", word
        case ["What", "does", name, verb, "?"]:
            return verb, name
        case ["Which", "job", "does", name, "have", "?"]:
            return "job", name
        case ["Which", "town", "is", name, "from", "?"]:
            return "town", name
        case ["How", "does", name, "feel", "?"]:
            return "feel", name
        case ["Is", name, "a", _, "?"]:
            return "is", name
    raise ValueError(f"{' '.join(words)!r} is no question of the story world")


def _another_job(request: Request, random: Random) -> Request:
    """The same question with a job that is not the true one."""
    words = split(request.text)
    others = [job for job in LISTS["job"][: WORLD.jobs] if job != words[3]]
    words[3] = others[int(random.random() * len(others))]
    return Request(request.kind, request.argument, request.story, join(words), "no.")


def requests(seed: int, kinds: Sequence[str], held: bool | None) -> Iterator[Request]:
    """Requests without end, each of another story; all kinds alike often.

    held: combinations that training leaves out (True), the others (False), or either (None). Seeds from
    `shared.world.HELD_OUT` up are for judging.
    """
    random, texts = Random(seed), documents(seed, WORLD)
    while True:
        kind = kinds[int(random.random() * len(kinds))]
        found = []
        while not found:
            story = next(texts)
            if len(split(story.text)) > LONGEST:
                continue
            found = [it for it in of_story(story, random) if it.kind == kind and held in (None, it.held_out)]
        yield found[int(random.random() * len(found))]


def pairs(seed: int, kinds: Sequence[str]) -> Iterator[Request]:
    """Two questions of one story in one request, of different kinds, and both answers in their order."""
    random, texts = Random(seed), documents(seed, WORLD)
    for story in texts:
        found = [it for it in of_story(story, random) if it.kind in kinds and not it.held_out and it.kind in ABOUT]
        if len(split(story.text)) > LONGEST or len({it.kind for it in found}) < 2:
            continue
        first = found[int(random.random() * len(found))]
        others = [it for it in found if it.kind != first.kind]
        second = others[int(random.random() * len(others))]
        texts_of = (f"{first.text} {second.text}", f"{first.answer} {second.answer}")
        yield Request(PAIR, f"{first.kind}, {second.kind}", first.story, *texts_of)


def scored(request: Request, response: Sequence[int]) -> dict[str, bool]:
    """What a response is, each of these true or false:

    stops: it ends with the template's stop. form: it stops, and has the form of an answer to this kind of request (a
    word of the right list in the words that go with it; a list; one story without a mistake). obeyed: it has the form
    and says what is right. mimics: with the request before it it is a document that the base was trained to go on with,
    or the beginning of one: the world's grammar can write it.
    """
    ids = list(response)
    stops = bool(ids) and ids[-1] == TEMPLATE.stop
    words = split(decode(ids[:-1] if stops else ids))
    form = stops and has_form(request, words)
    right = form and says_what_is_right(request, words)
    return {"stops": stops, "form": form, "obeyed": right, "mimics": mimics(request, words + [END] * stops)}


def mimics(request: Request, words: Sequence[str]) -> bool:
    """Whether the base's own world goes on so after the request, with its story or without: by ending the document, or
    by asking more."""
    return any(_can_be_written(" ".join([before, request.text, *words])) for before in {request.story, ""})


def _can_be_written(text: str) -> bool:
    try:
        nats(text, BASE)
    except ValueError:
        return False
    return True


def has_form(request: Request, words: Sequence[str]) -> bool:
    """Whether words are an answer to this kind of request, right or wrong."""
    if request.kind == "write":
        hero, told = words[1] if len(words) > 1 else "", " ".join(words)
        asked = [f"Write a {tone} story about {hero}." for tone in TONES if KIND.get(hero) == "first name"]
        return any(obeyed(each, told, config=WORLD).obeyed for each in asked)
    if request.kind == PAIR:
        first, second = request.argument.split(", ")
        return any(answers(first, words[:i]) and answers(second, words[i:]) for i in range(1, len(words)))
    return answers(request.kind, words)


def answers(kind: str, words: Sequence[str]) -> bool:
    """Whether words have the form of an answer to a question or to "List ..."."""
    if kind in OF_LIST:
        things, signs = words[::2], words[1::2]
        whole = len(things) == len(signs) > 0 and list(signs) == [","] * (len(signs) - 1) + ["."]
        return whole and all(KIND.get(word) == OF_LIST[kind] for word in things)
    inner = list(words[:-1])
    for begin in (["In", "the"], ["The"]):
        if inner[: len(begin)] == begin:
            return words[-1:] == ["."] and _fits(kind, begin, inner[len(begin) :])
    return words[-1:] == ["."] and _fits(kind, [], inner)


def _fits(kind: str, begin: list[str], rest: list[str]) -> bool:
    """Whether the words before an answer's full stop are those of its kind."""
    if rest == ["Nobody", "knows"]:
        return kind == "feel" and not begin
    if len(rest) != 1 or not any(rest[0] in WORDS[name] for name in ABOUT[kind]):
        return False
    if kind in ("where", "where thing"):
        return begin == ["In", "the"]
    if kind == "want" or rest[0] in WORDS["animal"]:
        return begin == ["The"]
    return not begin and (rest[0] != "Nobody" or kind == "who")


def says_what_is_right(request: Request, words: Sequence[str]) -> bool:
    """Whether an answer is the right one."""
    if request.kind == PAIR:
        return list(words) == split(request.answer)
    return obeyed(request.text, " ".join(words), request.story, WORLD).obeyed


def answer_word(request: Request) -> int:
    """At which token of the answer the word stands that is asked for."""
    words = split(request.answer)
    return next(i for i, word in enumerate(words) if ID[word] in rivals(request))


def rivals(request: Request) -> set[int]:
    """The ids of all words that could stand there."""
    able = set().union(*(WORDS[name] for name in ABOUT[request.kind]))
    able |= {"The"} if request.kind == "who" else set()  # "The hare."
    return {ID[word] for word in able}
