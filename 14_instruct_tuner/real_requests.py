"""Sixty-four small requests, and the programs that decide whether an answer has the form and the content asked for.

    ask = SEEN[0]                            # .request, "What is the capital of Japan?"; .gold, a right answer
    ask.has_form("Tokyo"), ask.has_content("It is Tokyo.")

Sixteen families of four. The first two of each (`SEEN`) may be looked at while the programs are written; the last two
(`JUDGES`) judge.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

from real_chat import words


def items(text: str) -> list[str]:
    """The lines of a list that is written with numbers or marks."""
    return re.findall(r"^ *(?:\d+[.)]|[-*•]) *(\S.*)$", text, flags=re.MULTILINE)


FORMS: dict[str, Callable[[str, str], bool]] = {  # of an answer and of what a request asks for
    "any": lambda text, asked: True,
    "one word": lambda text, asked: len(words(text)) == 1,
    "a name": lambda text, asked: len([it for it in words(text) if it not in ("a", "an", "the")]) == 1,
    "yes or no": lambda text, asked: words(text) in (["yes"], ["no"]),
    "number": lambda text, asked: re.fullmatch(r"\W*\d+\W*", text) is not None,
    "capitals": lambda text, asked: text.upper() == text and any(map(str.isalpha, text)),
    "three, commas": lambda text, asked: len(re.split(",(?: and)?", text)) == 3 and len(words(text)) <= 7,
    "three, numbered": lambda text, asked: len(items(text)) == 3 == len(text.split("\n")),
    "three times": lambda text, asked: words(text) == words(asked) * 3,
    "that alone": lambda text, asked: words(text) == words(asked),
    "in quotes": lambda text, asked: re.fullmatch(rf"[\"“'‘]{asked}[.]?[\"”'’][.]?", text, re.I) is not None,
    "begins with": lambda text, asked: words(text)[:1] == words(asked),
    "one sentence": lambda text, asked: len(re.findall(r"[.!?](?=\s|$)", text)) == 1 and text[-1] in ".!?",
}


class Request(NamedTuple):
    """request: what is asked. gold: a right answer in the right form. form: a key of FORMS. asked: what the form is
    of. content: words of which the answer must have `least`; the words of `not_before` must not come before them."""

    family: str
    request: str
    gold: str
    form: str
    content: tuple[str, ...]
    asked: str = ""
    least: int = 1
    not_before: tuple[str, ...] = ()

    def has_form(self, text: str) -> bool:
        return bool(text) and FORMS[self.form](text, self.asked)

    def has_content(self, text: str) -> bool:
        said = f" {' '.join(words(text))} "
        found = {it: said.find(f" {it} ") for it in (*self.content, *self.not_before)}
        right = [found[it] for it in self.content if found[it] >= 0]
        wrong = [found[it] for it in self.not_before if found[it] >= 0]
        return len(right) >= self.least and (not wrong or min(right) < min(wrong))


COLOURS = tuple(words("red green blue yellow orange purple pink brown black white gray grey violet"))
FRUITS = tuple(words("apple apples banana bananas orange oranges pear pears grape grapes mango mangoes peach lemon"))
FRUITS += tuple(words("strawberry strawberries cherry cherries kiwi pineapple blueberries raspberries plum avocado"))
ANIMALS = tuple(words("dog dogs cat cats lion lions tiger tigers bear bears elephant elephants horse horses cow cows"))
ANIMALS += tuple(words("giraffe giraffes zebra zebras monkey wolf fox rabbit sheep goat pig bird fish whale dolphin"))
CITIES = tuple(words("paris london rome tokyo berlin madrid moscow sydney york angeles barcelona delhi cairo beijing"))


def _families() -> list[list[Request]]:
    """Four of each; of the four the first two may be looked at."""

    def family(name, form, pattern, *each, **more):
        made = []
        for x, gold, content, *rest in each:
            asked = rest[0] if rest else ""
            content = content if isinstance(content, tuple) else (content,)
            made.append(Request(name, pattern.format(x), gold, form, content, asked, **more))
        return made

    def country(x, y):
        return x, f"The capital of {x} is {y}.", y.lower()

    def yes_no(x, y):
        return x, f"{y}.", y.lower(), "", ("no", "yes")[y == "No"]

    def copied(x):
        return x, x, " ".join(words(x)), x

    def choice(x, right, wrong):
        made = Request("choice", f"Which is larger, {x}? Say only its name.", right, "a name", (right,))
        return made._replace(not_before=(wrong,))

    sentence = ("one sentence", "Describe {} in one sentence.")
    asks = [yes_no(*it) for it in (("ice cold", "Yes"), ("the sun cold", "No"), ("a lion an animal", "Yes"))]
    asks += [yes_no("a stone alive", "No")]
    yes_or_no = family("yes or no", "yes or no", "Is {}? Answer yes or no.", *(it[:4] for it in asks))
    return [
        family(
            "capital",
            "any",
            "What is the capital of {}?",
            *(country(*it) for it in (("Japan", "Tokyo"), ("Italy", "Rome"), ("France", "Paris"), ("Spain", "Madrid"))),
        ),
        family(
            "opposite",
            "one word",
            "What is the opposite of {}? Answer in one word.",
            *((x, y.capitalize() + ".", y) for x, y in (("hot", "cold"), ("big", "small"), ("day", "night"))),
            ("up", "Down.", "down"),
        ),
        [it._replace(not_before=(each[4],)) for it, each in zip(yes_or_no, asks, strict=True)],
        family(
            "three",
            "three, commas",
            "Name three {}, separated by commas. Write nothing else.",
            ("colours", "Red, green, blue", COLOURS),
            ("fruits", "Apple, banana, pear", FRUITS),
            ("animals", "Dog, cat, horse", ANIMALS),
            ("cities", "Paris, London, Rome", CITIES),
            least=3,
        ),
        family(
            "list",
            "three, numbered",
            "Write a numbered list of three {}.",
            ("fruits", "1. Apple\n2. Banana\n3. Pear", FRUITS),
            ("animals", "1. Dog\n2. Cat\n3. Horse", ANIMALS),
            ("colours", "1. Red\n2. Green\n3. Blue", COLOURS),
            ("cities", "1. Paris\n2. London\n3. Rome", CITIES),
            least=3,
        ),
        family(
            "capitals",
            "capitals",
            "Write the word {} in capital letters.",
            *((x, x.upper(), x) for x in ("hello", "water", "garden", "winter")),
        ),
        family(
            "copy",
            "that alone",
            "Repeat this sentence: {}",
            *map(
                copied, ("The cat sat on the mat.", "My house is blue.", "We drink tea at noon.", "The dog is asleep.")
            ),
        ),
        family(
            "three times",
            "three times",
            "Repeat the word {} three times.",
            *((x, f"{x.capitalize()} {x} {x}.", x, x) for x in ("apple", "rain", "stone", "lamp")),
        ),
        family(
            "sum",
            "number",
            "What is {}? Answer with a number only.",
            *((x, y, (y, z)) for x, y, z in (("2 + 3", "5", "five"), ("4 + 4", "8", "eight"), ("3 + 6", "9", "nine"))),
            ("5 + 2", "7", ("7", "seven")),
        ),
        family(
            "French",
            "one word",
            "Translate the word {} into French. Write only the translation.",
            ("dog", "Chien", "chien"),
            ("house", "Maison", "maison"),
            ("water", "Eau", ("eau", "l'eau")),
            ("book", "Livre", "livre"),
        ),
        family(
            "begin",
            "begins with",
            "Write a sentence about {0[0]}. Begin with the word {0[1]}.",
            (("the sun", "Today"), "Today the sun is bright.", "sun", "Today"),
            (("a dog", "Once"), "Once a dog found a bone.", "dog", "Once"),
            (("the sea", "Now"), "Now the sea is calm.", ("sea", "ocean"), "Now"),
            (("a tree", "Here"), "Here a tree gives shade.", ("tree", "trees"), "Here"),
        ),
        family(
            "sentence",
            *sentence,
            ("the moon", "The moon is a rock that circles the Earth.", ("moon", "satellite")),
            ("a river", "A river is water that flows to the sea.", ("river", "water")),
            ("a horse", "A horse is a large animal that people ride.", ("horse", "horses", "animal")),
            ("snow", "Snow is frozen water that falls from clouds.", ("snow", "ice", "frozen")),
        ),
        family(
            "fact",
            "any",
            "{}?",
            ("Who wrote Hamlet", "William Shakespeare wrote Hamlet.", "shakespeare"),
            ("How many days does a week have", "A week has seven days.", ("seven", "7")),
            ("Which planet do we live on", "We live on the planet Earth.", "earth"),
            ("What do bees make", "Bees make honey.", "honey"),
        ),
        family(
            "quotes",
            "in quotes",
            "Write the word {} in quotation marks.",
            *((x, f'"{x}"', x, x) for x in ("river", "lemon", "window", "music")),
        ),
        family(
            "colour",
            "any",
            "What colour is {}?",
            ("grass", "Grass is green.", "green"),
            ("the sky on a clear day", "The sky is blue.", "blue"),
            ("snow", "Snow is white.", "white"),
            ("a ripe banana", "A ripe banana is yellow.", "yellow"),
        ),
        [
            choice("a mouse or an elephant", "elephant", "mouse"),
            choice("a house or a shoe", "house", "shoe"),
            choice("a cat or a whale", "whale", "cat"),
            choice("a village or a city", "city", "village"),
        ],
    ]


SEEN = [request for family in _families() for request in family[:2]]
JUDGES = [request for family in _families() for request in family[2:]]
