r"""What is in a real vocabulary: SmolLM2's 49,152 tokens, counted. No model is needed, only its tokenizer.

    pieces("It's 12 o'clock")               # the pre-tokens, as bytes: [b"It", b"'s", b" ", b"1", b"2", ...]
    merged(b" struggling")                  # [b" struggling"]: merges by rank; drop=0.1 leaves some out by chance
    ids = cut("any text", "longest")        # the same text in other tokens: one of CUTS
    first_merges(4096).encode("any text")   # the tokenizer as it was after 4,096 merges
    kinds()                                 # how many tokens of each kind

A merge list is nested: the first n merges are those that training with the same text would have stopped at. So one
file holds the tokenizers of all smaller sizes.

Sources: Provilkov et al. 2020, "BPE-Dropout" (arXiv 1910.13267), for merges left out by chance.
"""

import functools
import random
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import pairwise

import regex
import tokenizers
from tokenizers import pre_tokenizers

from shared.gguf_tokenizer import GGUFTokenizer
from shared.gguf_vocabulary import BYTE, Vocabulary, read_vocabulary
from shared.smollm2 import smollm2_file

Ids = list[int]
SPACE = b" "
SPLIT = pre_tokenizers.Sequence(
    [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
)
KINDS = {  # of tokens: the first pattern that fits the whole token
    "a word with the space before it": r" \p{L}+",
    "letters without a space": r"[A-Za-z]+",
    "letters of other scripts, without a space": r"\p{L}+",
    "a digit": r"\p{N}",
    "white space": r"\s+",
    "other signs": r" ?[^\s\p{L}\p{N}]+",
    "a contraction's end": r"'(?:[sdmt]|ll|ve|re)",
}
PART, CONTROL = "part of a character", "a control token"
KIND = {name: regex.compile(pattern) for name, pattern in KINDS.items()}
SCRIPTS = ("Latin", "Greek", "Cyrillic", "Devanagari", "Arabic", "Hebrew", "Han", "Hiragana", "Katakana", "Hangul")
SCRIPT = {name: regex.compile(rf"\p{{Script={name}}}") for name in SCRIPTS}


def signs_to_bytes(signs: str) -> bytes:
    """A token as GPT-2's files spell it, one sign for each byte: "Ġthe" -> b" the"."""
    return bytes(map(BYTE.__getitem__, signs))


@functools.cache
def vocabulary() -> Vocabulary:
    """SmolLM2's tokens and merges, read once in a process."""
    return read_vocabulary(smollm2_file())


@functools.cache
def token_ids() -> dict[bytes, int]:
    """The id of each token that is no control token."""
    specials = vocabulary().specials
    return {signs_to_bytes(token): i for i, token in enumerate(vocabulary().tokens) if token not in specials}


@functools.cache
def ranks() -> dict[tuple[bytes, bytes], int]:
    """The rank of each pair of tokens that a merge joins."""
    return {(signs_to_bytes(a), signs_to_bytes(b)): rank for rank, (a, b) in enumerate(vocabulary().merges)}


def pieces(text: str) -> list[bytes]:
    """The pre-tokens of a text: each digit by itself, GPT-2's pattern on what lies between digits."""
    return [signs_to_bytes(signs) for signs, _ in SPLIT.pre_tokenize_str(text)]


# Cuts


def merged(piece: bytes, drop: float = 0.0, rng: random.Random | None = None, made: Counter | None = None) -> list:
    """The tokens of a pre-token: again and again the merge of lowest rank, each left out by the chance of `drop` at
    each step (Provilkov et al. 2020). made: counts the tokens made on the way. Raises ValueError for a chance outside
    0 to 1, and for one without a generator."""
    if not 0 <= drop < 1 or (drop and rng is None):
        raise ValueError(f"drop is {drop}, rng is {rng}: expected 0 to below 1, and a random.Random for more than 0")
    parts = [bytes([byte]) for byte in piece]
    while True:
        at = [(ranks()[pair], i) for i, pair in enumerate(pairwise(parts)) if pair in ranks()]
        if drop:
            at = [it for it in at if rng.random() >= drop]
        if not at:
            return parts
        _, i = min(at)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
        if made is not None:
            made[parts[i]] += 1


def longest(piece: bytes) -> list[bytes]:
    """The longest token that a pre-token begins with, again and again."""
    parts, at = [], 0
    while at < len(piece):
        end = next(end for end in range(len(piece), at, -1) if end == at + 1 or piece[at:end] in token_ids())
        parts.append(piece[at:end])
        at = end
    return parts


def apart(piece: bytes) -> list[bytes]:
    """The space before a word as a token of its own."""
    lone = piece.startswith(SPACE) and len(piece) > 1
    return [SPACE, *merged(piece[1:])] if lone else merged(piece)


def characters(piece: bytes) -> list[bytes]:
    """Each character by itself; one of several bytes as its own merges have it."""
    return [part for character in piece.decode() for part in merged(character.encode())]


CUTS: dict[str, Callable[[bytes, random.Random], list[bytes]]] = {
    "by rank": lambda piece, rng: merged(piece),
    "longest": lambda piece, rng: longest(piece),
    "dropout 0.05": lambda piece, rng: merged(piece, 0.05, rng),
    "dropout 0.1": lambda piece, rng: merged(piece, 0.1, rng),
    "dropout 0.5": lambda piece, rng: merged(piece, 0.5, rng),
    "space apart": lambda piece, rng: apart(piece),
    "characters": lambda piece, rng: characters(piece),
}


def cut(text: str, how: str, seed: int = 0) -> Ids:
    """The ids of a text, cut in one of the ways of CUTS. Raises ValueError for another way, and for a byte of the text
    that has no token."""
    if how not in CUTS:
        raise ValueError(f"how is {how!r}: expected one of {list(CUTS)}")
    rng = random.Random(seed)
    parts = [part for piece in pieces(text) for part in CUTS[how](piece, rng)]
    if unknown := [part for part in parts if part not in token_ids()]:
        raise ValueError(f"byte {unknown[0]!r} of the text has no token: remove the character that has it")
    return [token_ids()[part] for part in parts]


# Counts


def without_token() -> list[int]:
    """The bytes that have no token."""
    return [byte for byte in range(256) if bytes([byte]) not in token_ids()]


def in_utf8(byte: int) -> bool:
    """Whether any text has this byte in UTF-8: 0xC0, 0xC1 and those from 0xF5 on stand in none (RFC 3629)."""
    return byte not in (0xC0, 0xC1) and byte < 0xF5


def library_reads(text: str) -> str:
    """What is left of a text that the library `tokenizers` has encoded and decoded with this vocabulary."""
    tokens = {token: i for i, token in enumerate(vocabulary().tokens)}
    library = tokenizers.Tokenizer(tokenizers.models.BPE(tokens, vocabulary().merges))
    library.pre_tokenizer, library.decoder = SPLIT, tokenizers.decoders.ByteLevel()
    return library.decode(library.encode(text).ids)


def first_merges(n: int) -> GGUFTokenizer:
    """The tokenizer with the first n merges alone: its ids are other ones, its cuts are those of training so far.
    Raises ValueError for more merges than there are."""
    whole = vocabulary()
    if not 0 <= n <= len(whole.merges):
        raise ValueError(f"n is {n}: expected 0 to {len(whole.merges)}")
    made = [a + b for a, b in whole.merges]
    single = [token for token in whole.tokens if len(token) == 1]
    return GGUFTokenizer(Vocabulary([*single, *made[:n]], {}, whole.merges[:n], None))


def bytes_per_token(encode: Callable[[str], Iterable[int]], text: str) -> float:
    """How many bytes of a text a token holds on average."""
    return len(text.encode()) / len(list(encode(text)))


def kind(token: bytes) -> str:
    """One of KINDS, or PART for bytes that are no whole characters."""
    try:
        text = token.decode()
    except UnicodeDecodeError:
        return PART
    return next(name for name, pattern in KIND.items() if pattern.fullmatch(text))


def kinds() -> Counter:
    """How many tokens there are of each kind."""
    return Counter(map(kind, token_ids())) + Counter({CONTROL: len(vocabulary().specials)})


def scripts() -> Counter:
    """How many tokens have letters, and of which script, by their first letter."""
    letter = regex.compile(r"\p{L}")
    first = [letter.search(token.decode("utf-8", "ignore")) for token in token_ids()]
    letters = [it.group() for it in first if it]
    return Counter(
        next((name for name, pattern in SCRIPT.items() if pattern.match(letter)), "another") for letter in letters
    )


def after_a_lone_space(text: str) -> Counter:
    """What follows each token that is one space and nothing else: a digit, white space, or something else."""
    found = Counter()
    for token, follower in pairwise(part for piece in pieces(text) for part in merged(piece)):
        if token == SPACE:
            first = follower.decode("utf-8", "ignore")[:1]
            found["a digit" if first.isnumeric() else "white space" if first.isspace() else "something else"] += 1
    return found


def scaffolding(text: str, often: int = 30) -> list[int]:
    """Tokens that merges make at least `often` times in a text on the way to others, and that are never left."""
    made, left = Counter(), Counter()
    for piece, times in Counter(pieces(text)).items():
        on_the_way = Counter()
        for part in merged(piece, made=on_the_way):
            left[part] += times
        for token, n in on_the_way.items():
            made[token] += n * times
    return sorted(token_ids()[token] for token, n in made.items() if n >= often and not left[token])
