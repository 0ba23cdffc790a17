r"""What a real tokenizer asks for the same text in other scripts, and what of that its pattern alone decides.

    price(PARALLEL["Hindi"])                # Price(words=..., bytes=..., pieces=..., whole=..., tokens=...)
    apostrophes("it's")                     # the tokens of a contraction, of one in capitals, and with another sign

The same eight sentences in seven languages, translated for this lesson. A pre-token is at least one token, so a text
has no fewer tokens than pre-tokens, whatever the merges are: where the pattern cuts a word at each vowel sign, no
training can mend it.
"""

from typing import NamedTuple

import regex
from real_vocabulary import cut, merged, pieces, token_ids

PARALLEL = {
    "English": (
        "Every child has the right to learn. The school belongs to the whole village. In the morning the "
        "teacher opens the door and lights the lamp. The children bring their books and sit down by the "
        "window. Whoever does not understand may ask again. Nobody laughs at a question. In the evening the "
        "older ones read to the younger ones. This is how knowledge grows."
    ),
    "German": (
        "Jedes Kind hat das Recht zu lernen. Die Schule gehört dem ganzen Dorf. Am Morgen öffnet die Lehrerin "
        "die Tür und zündet die Lampe an. Die Kinder bringen ihre Bücher mit und setzen sich ans Fenster. Wer "
        "nicht versteht, darf noch einmal fragen. Niemand lacht über eine Frage. Am Abend lesen die Älteren "
        "den Jüngeren vor. So wächst das Wissen."
    ),
    "Spanish": (
        "Todo niño tiene derecho a aprender. La escuela pertenece a todo el pueblo. Por la mañana la maestra "
        "abre la puerta y enciende la lámpara. Los niños traen sus libros y se sientan junto a la ventana. "
        "Quien no entiende puede preguntar otra vez. Nadie se ríe de una pregunta. Por la tarde los mayores "
        "leen a los menores. Así crece el saber."
    ),
    "Russian": (
        "Каждый ребёнок имеет право учиться. Школа принадлежит всей деревне. Утром учительница открывает "
        "дверь и зажигает лампу. Дети приносят свои книги и садятся у окна. Кто не понимает, может спросить "
        "ещё раз. Никто не смеётся над вопросом. Вечером старшие читают младшим. Так растёт знание."
    ),
    "Greek": (
        "Κάθε παιδί έχει το δικαίωμα να μαθαίνει. Το σχολείο ανήκει σε όλο το χωριό. Το πρωί η δασκάλα "
        "ανοίγει την πόρτα και ανάβει τη λάμπα. Τα παιδιά φέρνουν τα βιβλία τους και κάθονται στο παράθυρο. "
        "Όποιος δεν καταλαβαίνει μπορεί να ρωτήσει ξανά. Κανείς δεν γελά με μια ερώτηση. Το βράδυ οι "
        "μεγαλύτεροι διαβάζουν στους μικρότερους. Έτσι μεγαλώνει η γνώση."
    ),
    "Hindi": (
        "हर बच्चे को सीखने का अधिकार है। विद्यालय पूरे गाँव का है। सुबह अध्यापिका दरवाज़ा खोलती है और दीपक "
        "जलाती है। बच्चे अपनी किताबें लाते हैं और खिड़की के पास बैठ जाते हैं। जो नहीं समझता, वह फिर से पूछ "
        "सकता है। किसी सवाल पर कोई नहीं हँसता। शाम को बड़े बच्चे छोटों को पढ़कर सुनाते हैं। इसी तरह ज्ञान "
        "बढ़ता है।"
    ),
    "Bengali": (
        "প্রত্যেক শিশুর শেখার অধিকার আছে। বিদ্যালয়টি সারা গ্রামের। সকালে শিক্ষিকা দরজা খোলেন এবং প্রদীপ "
        "জ্বালান। শিশুরা তাদের বই নিয়ে আসে এবং জানালার পাশে বসে। যে বোঝে না, সে আবার জিজ্ঞাসা করতে পারে। "
        "কোনো প্রশ্নে কেউ হাসে না। সন্ধ্যায় বড়রা ছোটদের পড়ে শোনায়। এভাবেই জ্ঞান বাড়ে।"
    ),
}
MARKED = r"'(?:[sdmt]|ll|ve|re)| ?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+|\s+(?![^\s\p{N}])|\s+"
CONTRACTIONS = ("it's", "don't", "we'll", "I've", "you're", "she'd", "I'm")


class Price(NamedTuple):
    """What a text has: words (between spaces), characters, bytes; pre-tokens by the model's pattern, and tokens; both
    where a mark counts as a letter, with the same merges."""

    words: int
    characters: int
    bytes: int
    pieces: int
    tokens: int
    marked_pieces: int
    marked_tokens: int


def price(text: str) -> Price:
    """The counts of a text. Raises ValueError for a byte that has no token."""
    marked = [piece.encode() for piece in regex.findall(MARKED, text)]
    tokens = len(cut(text, "by rank")), len(marked), sum(len(merged(piece)) for piece in marked)
    return Price(len(text.split()), len(text), len(text.encode()), len(pieces(text)), *tokens)


def with_a_mark() -> list[bytes]:
    r"""The tokens that hold a letter beside a mark (\p{M}): none can, as the pattern cuts between the two."""
    return [token for token in token_ids() if regex.search(r"\p{L}\p{M}|\p{M}\p{L}", token.decode("utf-8", "ignore"))]


def apostrophes(word: str) -> dict[str, list[bytes]]:
    """The tokens of a contraction behind a space: as it is, in capitals, and with U+2019 for the apostrophe."""
    spelt = {"'": word, "capitals": word.upper(), "’": word.replace("'", "’")}
    tokens = {i: token for token, i in token_ids().items()}
    return {how: [tokens[i] for i in cut(f" {text}", "by rank")] for how, text in spelt.items()}
