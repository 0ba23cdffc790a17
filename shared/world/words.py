"""The story world's words: closed lists by kind, the vocabulary made of them, and a tokenizer that is exact.

    ids = encode("Tom went to the garden.")     # one id a word or sign; "\\n" ends a document
    decode(ids)                                 # the same text
    encode("Tom", unit="bytes")                 # 256 ids, for any text

A word stands in one list only, so that it tells its kind: `KIND["baker"]` is "job".
"""

import difflib
import re
from collections.abc import Sequence
from itertools import chain, zip_longest

END = "\n"
SPECIAL = [END, "<user>", "<bot>", "<mask>"]
SIGNS = [".", ",", "?", ";", "=", "+", "-", "=>"]
DIGITS = list("0123456789")

MEN = """Tom Ben Sam Max Leo Ned Tim Joe Dan Hugo Felix Oscar Paul Mark Luke John Peter Simon Adam Noah Jack Harry Fred
George Henry Karl Otto Emil Anton Bruno Carlo Diego Pablo Marco Luca Nico Ivan Boris Igor Pavel Milan
Stefan Janek Tomas Lars Sven Nils Olaf Erik Bjorn Axel Finn Omar Ali Hassan Karim Samir Rashid Tariq Yusuf
Ravi Arjun Vijay Sanjay Kiran Rohan Hiro Kenji Akira Taro Chen Wei Jun Kofi Kwame Tunde Jabari Amadi Sipho
Themba Mateo""".split()
WOMEN = """Ann Eva Mia Zoe Amy Lily Rosa Nina Lena Ella Emma Olga Vera Kate Jane Mary Ruth Sara Julia Laura Clara Helen
Alice Grace Nora Flora Greta Heidi Ingrid Astrid Freya Sigrid Karin Maria Lucia Sofia Elena Carmen Paola
Bianca Chiara Irina Marta Anya Katya Tanya Zora Mila Petra Hana Leila Amira Fatima Yasmin Nadia Salma
Samira Zara Priya Meera Anita Lakshmi Indira Kavita Yuki Sakura Emi Naomi Mei Ling Xiu Ama Abena Zola
Thandi Nia Imani Makena Ayana Ines""".split()
LAST_NAMES = """Hill Reed Stone Wood Lake Field Brook Marsh Frost Snow Winter Summers Day Knight King Bishop Pope Abbot
Mason Carter Cooper Fisher Hunter Shepherd Gardner Miller Taylor Turner Fuller Thatcher Walker Porter
Potter Sawyer Wheeler Wright Archer Fletcher Bowman Barber Butler Cook Clark Page Palmer Parker Piper
Weaver Webster Young Black White Green Brown Gray Short Long Strong Swift Sharp Bright Wise Noble Moody
Savage Crane Drake Finch Nightingale Partridge Peacock Swan Wren Fox Wolf Lamb Bull Hart Buck Lyon Badger
Berry Bush Thorne Ash Birch Hazel Holly Oakes Rowan Willow Branch Flowers Banks Bridges Castle Church Hall
House Towers Temple Wall Wells Woods Rivers Waters Pool Shore Cliff Dale Glen Heath Moore Meadows Park
Combe Barrow Burton Clayton Dalton Easton Hilton Milton Norton Preston Sutton Walton Weston Ashby Darby
Kirby Selby Crosby Denby Corby Bradley Buckley Finley Hadley Huxley Langley Oakley Ridley Shelley Wesley
Hastings Jennings Rawlings Sterling Harding""".split()
YOUNG_KIN = {"m": ("son", "nephew", "grandson"), "f": ("daughter", "niece", "granddaughter")}
OLD_KIN = {"m": ("father", "uncle", "grandfather"), "f": ("mother", "aunt", "grandmother")}
SAME_KIN = {"m": ("brother", "stepbrother", "godson"), "f": ("sister", "stepsister", "goddaughter")}
KIN = [word for kin in (YOUNG_KIN, OLD_KIN, SAME_KIN) for words in kin.values() for word in words]
NOUNS = {("m", "young"): "boy", ("f", "young"): "girl", ("m", "old"): "man", ("f", "old"): "woman"}
PRONOUNS = {"m": "he", "f": "she", "n": "it"}
JOBS = """baker butcher potter painter teacher doctor nurse judge lawyer banker plumber carpenter tailor shoemaker
blacksmith goldsmith miner sailor pilot driver soldier guard poet writer singer dancer drummer violinist
pianist juggler clown magician jeweller barber gardener farmer shepherd beekeeper fisherman hunter forester
miller brewer cook waiter butler porter clerk librarian printer bookseller watchmaker locksmith mechanic
builder roofer mason weaver spinner dyer tanner saddler postman diver surgeon dentist chemist physicist
biologist geologist historian reporter translator detective ploughman zookeeper lifeguard firefighter
gravedigger chimneysweep""".split()
FOODS = """soup bread cheese rice beans pasta cake pie honey jam butter yogurt porridge pancakes waffles noodles
dumplings stew curry salad potatoes carrots cabbage spinach peas lentils mushrooms tomatoes cucumbers
pumpkin onions garlic radishes olives almonds walnuts peanuts raisins dates figs plums pears peaches
cherries grapes melons lemons berries bananas mangoes salmon trout herring shrimps oysters sausages bacon
ham turkey meatballs omelette pizza tofu popcorn pretzels biscuits muffins pudding custard chocolate toffee
marzipan nougat sherbet gingerbread strudel crumpets scones gnocchi risotto""".split()
CAPITALS = (
    """Varna Mirel Tolva Kesh Brunn Ostra Pelm Quill Sorrow Tarn Ulm Vesk Wexel Yarl Zurn Belk Corva Drin""".split()
)
COUNTRIES = """Norlia Velden Karst Moravo Estria Galdor Hestia Illyra Jorvia Kandor Lumia Mardia Nubara Ostia Perlia
Quenda Ravia Sundor""".split()
COUNTRY_OF = dict(zip(CAPITALS, COUNTRIES, strict=True))
TOWNS = """Aldby Barkel Cresk Dorva Elmar Farrow Gorse Hobbel Inver Jarrow Kirkel Lunden Morby Nesk Orrel Plim Rudby
Skell Tunby Ulver Vorby Wickel Yelm Zabel Amber Brask Crome Dunel Erby Flint Grenn Hask Ister Jask Kolby
Larn Mosk Nolby Olvar Prask Ryle Sturm Tresk Usk Vilm Worrel Yosk Zeld Arnel Bovey Clune Drask Eskel Frome
Girvel Holm""".split()
GROWN_ANIMALS = "dog cat cow horse sheep goat hen duck goose bear lion hare".split()
YOUNG_ANIMALS = "puppy kitten calf foal lamb kid chick duckling gosling cub whelp leveret".split()
GROWN_UP = dict(zip(YOUNG_ANIMALS, GROWN_ANIMALS, strict=True)) | {"boy": "man", "girl": "woman"}
OTHER_ANIMALS = """parrot raven magpie pigeon rabbit monkey donkey mule pony ferret weasel squirrel hedgehog tortoise
toad rat""".split()
ANIMALS = GROWN_ANIMALS + YOUNG_ANIMALS + OTHER_ANIMALS
MADE_OF = {
    "wood": "flute violin guitar pencil ruler rake wagon sledge puppet bucket brush shelf",
    "glass": "lamp mirror bottle jug vase telescope",
    "iron": "key hammer saw spade shovel hook nail pan kettle stove shield",
    "silver": "spoon fork whistle comb bell medal needle",
    "gold": "coin ring crown chain compass",
    "copper": "pot horn torch trumpet lantern",
    "wool": "scarf glove blanket carpet hat ball coat",
    "cotton": "towel curtain pillow ribbon doll",
    "leather": "boot drum helmet belt wallet saddle",
    "clay": "cup mug plate bowl statue tile",
    "paper": "book map letter photo painting notebook kite puzzle",
    "stone": "wheel pestle millstone",
}  # fmt: skip
MADE_OF = {material: names.split() for material, names in MADE_OF.items()}
MATERIALS = list(MADE_OF)
OBJECTS = [name for names in zip_longest(*MADE_OF.values()) for name in names if name]  # any number of them is mixed
MATERIAL_OF = {name: material for material, names in MADE_OF.items() for name in names}
IRREGULAR = {"brush": "brushes", "torch": "torches", "compass": "compasses", "scarf": "scarves", "shelf": "shelves"}
PLURAL = {name: IRREGULAR.get(name, name + "s") for name in OBJECTS}
SINGULAR = {plural: name for name, plural in PLURAL.items()}
COLOURS = "red blue green yellow white black brown grey pink purple".split()
PLACES = """garden kitchen cellar barn library museum tower castle church school market harbour station bakery forest
meadow cave valley village square park theatre hospital hotel temple palace prison workshop laundry pantry
hallway bedroom bathroom courtyard greenhouse stable mill lighthouse cottage tunnel""".split()
GLAD = "glad happy cheerful delighted proud thankful merry content joyful pleased".split()
CROSS = "sad angry cross gloomy bitter upset lonely hurt furious miserable".split()
UNITS = "zero one two three four five six seven eight nine".split()
TEENS = "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
VARIABLES = "b c d e f g h x y".split()  # no "a", which is an article
MOVES, STAYS = "went walked ran hurried".split(), "slept waited rested sat".split()
FINDS, GIVES = "found fetched".split(), "gave brought".split()
PUTS, TAKES = "put hid left".split(), "took snatched stole".split()
FACT_VERBS = "ate worked dreamed kept".split()
VERBS = MOVES + STAYS + FINDS + GIVES + PUTS + TAKES + FACT_VERBS
FUNCTION_WORDS = """Once a from was in the A There and wanted to as of The with Then Later Soon In end had no have
Nobody knows what happened next mysterious Where Who What Which Is How Write List is has does colour job
town like feel want about story objects places people animal an person works likes comes made All are
capital let print plus minus""".split()
ASKED = ["nobody", "yes"]  # answers that no story writes

TONES = ["happy", "sad", "mysterious"]
LISTABLE = ["people", "objects", "places"]
AGES = ["young", "old"]
OWNERS = ["his", "her"]
FIRST_NAMES = [name for pair in zip(MEN, WOMEN, strict=False) for name in pair]  # any number of them has both
LISTS = {
    "special": SPECIAL,
    "sign": SIGNS,
    "digit": DIGITS,
    "first name": FIRST_NAMES,
    "last name": LAST_NAMES,
    "town": TOWNS + CAPITALS,
    "country": COUNTRIES,
    "kin": KIN,
    "noun": list(NOUNS.values()),
    "age": AGES,
    "owner": OWNERS,
    "pronoun": [*PRONOUNS.values(), *(word.capitalize() for word in PRONOUNS.values())],
    "job": JOBS,
    "food": FOODS,
    "animal": ANIMALS,
    "object": OBJECTS,
    "plural": list(SINGULAR),
    "colour": COLOURS,
    "material": MATERIALS,
    "place": PLACES,
    "glad": GLAD,
    "cross": CROSS,
    "number": UNITS + TEENS + TENS,
    "variable": VARIABLES,
    "verb": VERBS,
    "word": FUNCTION_WORDS + ASKED,
}

VOCABULARY = list(chain.from_iterable(LISTS.values()))
KIND = {word: kind for kind, words in LISTS.items() for word in words}
ID = {word: i for i, word in enumerate(VOCABULARY)}
TOKEN = re.compile(r"\n|<\w+>|\d|[^\W\d]+|=>|[^\w\s]")
NO_SPACE_BEFORE = (".", ",", "?", ";", END)
BETWEEN_DIGITS = re.compile(r"(\d) (?=\d)")


def split(text: str) -> list[str]:
    """A text's words, signs and single digits; a line's end is a word, other space is dropped."""
    return TOKEN.findall(text)


def join(words: Sequence[str]) -> str:
    """The text of words: one space between two, none before a stop or a comma, between digits or at a line's ends."""
    text = " ".join(words)
    for sign in NO_SPACE_BEFORE:
        text = text.replace(f" {sign}", sign)
    return BETWEEN_DIGITS.sub(r"\1", text).replace("\n ", END)


def encode(text: str, unit: str = "words") -> list[int]:
    """The ids of a text, by word (VOCABULARY) or by byte (0 to 255).

    Raises ValueError for another unit and, by word, for an unknown word, with the nearest known ones.
    """
    if unit == "bytes":
        return list(text.encode("utf-8"))
    _check_unit(unit)
    try:
        return [ID[word] for word in split(text)]
    except KeyError as error:
        word = error.args[0]
    near = difflib.get_close_matches(word, VOCABULARY, n=3, cutoff=0)
    raise ValueError(f"{word!r} is no word of the story world; the nearest are {', '.join(near)}")


def decode(ids: Sequence[int], unit: str = "words") -> str:
    """The text of ids, the inverse of `encode`. Raises ValueError for an id that does not exist or broken UTF-8."""
    if unit == "bytes":
        return bytes(ids).decode("utf-8")
    _check_unit(unit)
    if wrong := [i for i in ids if not 0 <= i < len(VOCABULARY)]:
        raise ValueError(f"{wrong[0]} is no id: expected 0 to {len(VOCABULARY) - 1}")
    return join([VOCABULARY[i] for i in ids])


def _check_unit(unit: str) -> None:
    if unit != "words":
        raise ValueError(f'unit is {unit!r}: expected "words" or "bytes"')
