"""Byte-pair encoding from the count up: three trainers, encoding by rank, streams and special tokens.

    tokenizer = train(text, vocab_size=1024)            # counts pairs, merges the most frequent, again and again
    ids = tokenizer.encode("Merging rules")             # whole numbers
    tokenizer.decode(ids)                               # the same text

A token is a whole number. 0 to 255 are the bytes, in the order in which GPT-2 lists them (`BYTES`), so that our ids are
the libraries' ids; 256 + r is what merge number r makes, and r is its rank. Inside this file a token is written as *one
character*, chr(id), and a word as a string of them: then merging a pair is `str.replace`, from left to right, never
overlapping, at the speed of C.

Two rules that no count gives are those of Hugging Face's `tokenizers`: a pair is counted once for each place where it
stands (twice in "aaa", where it can be merged once), and of the most frequent pairs the one with the smaller ids wins.

Sources: Sennrich et al. 2016 (arXiv 1508.07909) for words and merges; Radford et al. 2019 (GPT-2) for bytes and the
pattern; Zouhar et al. 2023 (2306.16837) for what the trainers cost.
"""

import codecs
import functools
import heapq
import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import accumulate, chain, pairwise
from operator import add, index

import regex

GPT2_PIECES = {  # what each alternative matches: the pattern; the first that fits is taken
    "'s, 't, 'll and their like": r"'(?:[sdmt]|ll|ve|re)",
    "letters, with the space before them": r" ?\p{L}+",
    "digits, with the space before them": r" ?\p{N}+",
    "other signs, with the space before them": r" ?[^\s\p{L}\p{N}]+",
    "white space up to the last before a word": r"\s+(?!\S)",
    "white space": r"\s+",
}
GPT4_PIECES = {
    "'s, 'T, 'Ll and their like": r"'(?i:[sdmt]|ll|ve|re)",
    "letters, with one sign or space before them": r"[^\r\n\p{L}\p{N}]?\p{L}+",
    "digits, three at most": r"\p{N}{1,3}",
    "other signs, with the space before and the line ends behind": r" ?[^\s\p{L}\p{N}]+[\r\n]*",
    "white space up to its last line end": r"\s*[\r\n]+",
    "white space up to the last before a word": r"\s+(?!\S)",
    "white space": r"\s+",
}
GPT2, GPT4 = "|".join(GPT2_PIECES.values()), "|".join(GPT4_PIECES.values())

PRINTABLE = [*range(33, 127), *range(161, 173), *range(174, 256)]
BYTES = bytes(PRINTABLE + [byte for byte in range(256) if byte not in PRINTABLE])  # BYTES[id] is the byte
TO_ID = bytes(BYTES.index(byte) for byte in range(256))

# Both patterns begin a new pre-token at a single space between two signs that are no white space, whatever stands
# around it. So a text may be cut there into stretches, and what was made of a stretch can be remembered. (Python's own
# `re` takes a few more characters for white space than `regex` does, and so cuts at fewer places.)
STRETCH = re.compile(r"\s*\S+(?:(?! \S)\s+\S+)*(?:\s+\Z)?|\s+")
NEVER = 2**62
MOST = 0x110000  # tokens: Python has no more characters
LONG = 64  # characters; longer words are merged in another way
ROOM, MEMORABLE = 2**16, 256  # how many words and stretches are remembered, and of how many characters at most


def split(text: str, pattern: str | None = GPT2) -> list[str]:
    """The pre-tokens of a text, which no merge crosses: the pattern's matches, or the whole text for None.

    Raises ValueError if the pattern leaves something out, which nobody could decode.
    """
    if pattern is None:
        return [text] if text else []
    if not isinstance(pattern, str):
        raise ValueError(f"the pattern {pattern!r} is none: expected a str, or None")
    pieces = _finder(pattern)(text)
    if missing := len(text) - len("".join(pieces)):
        raise ValueError(f"the pattern {pattern!r} leaves out {missing} characters of a text")
    return pieces


@functools.cache
def _finder(pattern: str) -> Callable[[str], list[str]]:
    """What finds all matches of a pattern. Raises ValueError for a pattern that is none, or that has groups."""
    try:
        compiled = regex.compile(pattern)
    except regex.error as error:
        raise ValueError(f"the pattern {pattern!r} is none: {error}") from error
    if compiled.groups:
        raise ValueError(f"the pattern {pattern!r} has groups: write (?:...) in place of (...)")
    return compiled.findall


def spell(piece: str) -> str:
    """A pre-token as the tokens it starts from, one character for each byte: "é" is two. A lone surrogate stands for a
    byte that is no UTF-8, as Python's "surrogateescape" has it."""
    return piece.encode("utf-8", "surrogateescape").translate(TO_ID).decode("latin-1")


def pairs(word: str) -> Iterable[str]:
    """Neighbours, each two characters: "abab" -> "ab", "ba", "ab"."""
    return map(add, word, word[1:])


def most_frequent(counts: dict[str, int]) -> str | None:
    """The pair with the highest count, of several the one with the smaller ids; None if there is no pair."""
    return min(counts, key=lambda pair: (-counts[pair], pair), default=None)


def learn_by_recounting(pieces: Iterable[str], n: int) -> list[str]:
    """Rung 1: before each of the n merges, count every pair of the text. Returns pairs, fewer if none is left."""
    words, merges = [spell(piece) for piece in pieces], []
    while len(merges) < n:
        counts = Counter(chain.from_iterable(map(pairs, words)))
        if (best := most_frequent(counts)) is None:
            break
        words = [word.replace(best, chr(256 + len(merges))) for word in words]
        merges.append(best)
    return merges


def learn_from_distinct(pieces: Iterable[str], n: int) -> list[str]:
    """Rung 2: the same, but equal words are counted once and weighed by how often they stand."""
    words, merges = {spell(piece): count for piece, count in Counter(pieces).items()}, []
    while len(merges) < n:
        counts = Counter()
        for word, count in words.items():
            for pair in pairs(word):
                counts[pair] += count
        if (best := most_frequent(counts)) is None:
            break
        words = {word.replace(best, chr(256 + len(merges))): count for word, count in words.items()}
        merges.append(best)
    return merges


def learn(pieces: Iterable[str], n: int) -> list[str]:
    """Rung 3: counts are kept, and a merge changes them only in the words that hold its pair.

    A heap says which pair is next. Merging lowers the counts of pairs that were there and brings new ones, so what
    stands in the heap for a pair can only be too high: it is compared when it comes up, and put back if it was. A pair
    that is merged never comes back, since every new pair holds a new token.
    """
    corpus, merges = _Corpus(pieces), []
    heap = [(-count, pair) for pair, count in corpus.counts.items()]
    heapq.heapify(heap)
    while heap and len(merges) < n:
        count, pair = heapq.heappop(heap)
        if -count == corpus.counts[pair]:
            made = corpus.merge(pair, chr(256 + len(merges)))
            merges.append(pair)
        else:
            made = [pair] if corpus.counts[pair] else []
        for each in made:
            heapq.heappush(heap, (-corpus.counts[each], each))
    return merges


class _Corpus:
    """Distinct words, the counts of their pairs, and in which words a pair stands (or once stood)."""

    def __init__(self, pieces: Iterable[str]):
        distinct = Counter(pieces)
        self.words, self.often = [spell(piece) for piece in distinct], list(distinct.values())
        self.counts, self.where = counts, where = defaultdict(int), defaultdict(list)
        for w, (word, often) in enumerate(zip(self.words, self.often, strict=True)):
            for pair in pairs(word):
                counts[pair] += often
                where[pair].append(w)

    def merge(self, pair: str, token: str) -> set[str]:
        """Write the token for the pair in every word, and keep the counts true. Returns the pairs that this made."""
        first, second = pair
        made = set()
        for w in self.where.pop(pair):
            if pair not in self.words[w]:
                continue  # another merge came before this one, or the word stood here twice
            parts = self.words[w].split(pair)  # "abab" by "ab": "", "", ""
            self.words[w] = token.join(parts)
            old = new = ""  # the neighbour on the left, before and after
            for left, right in pairwise(parts):
                if left:
                    old = new = left[-1]
                if old:
                    made.add(self._change(w, old + first, new + token))
                if right:
                    made.add(self._change(w, second + right[0], token + right[0]))
                old, new = second, token  # of a neighbour that is this very pair: "abab"
        del self.counts[pair]
        return made

    def _change(self, w: int, old: str, new: str) -> str:
        """In word w a pair has become another one, which is returned."""
        self.counts[old] -= self.often[w]
        self.counts[new] += self.often[w]
        self.where[new].append(w)
        return new


def train(
    text: str | Iterable[str],
    vocab_size: int,
    pattern: str | None = GPT2,
    specials: Sequence[str] = (),
    learn: Callable[[Iterable[str], int], list[str]] = learn,
) -> "Tokenizer":
    """A tokenizer with 256 bytes and vocab_size - 256 merges, fewer if no pair is left, and the specials behind them.

    text: one or several; no merge crosses their borders. learn: the rung, one of the three above; all learn the same.
    Raises ValueError for a vocab_size below 256 or above MOST, for texts that are none, and what `Tokenizer` raises.
    """
    if not isinstance(vocab_size, int) or not 256 <= vocab_size <= MOST:
        raise ValueError(
            f"vocab_size is {vocab_size!r}: expected at least 256, a token for each byte, and at most {MOST}"
        )
    texts = text if isinstance(text, Iterable) and not isinstance(text, str | bytes) else [text]
    pieces = chain.from_iterable(split(_checked(each), pattern) for each in texts)
    merges = [(ord(a), ord(b)) for a, b in learn(pieces, vocab_size - 256)]
    return Tokenizer(merges, pattern, specials)


class Tokenizer:
    """Merges, and what can be done with them.

    merges: pairs of ids, in order of rank. pattern: of the pre-tokens; None: a text is one. specials: texts that are
    one token each where they are allowed, with the ids behind the last merge's. vocab: the bytes of each id.
    Raises ValueError for a merge that stands twice or of ids that do not exist yet, for a pattern that is none, and for
    specials that are empty, stand twice, or are called "all".
    """

    def __init__(self, merges: Sequence[tuple[int, int]], pattern: str | None = GPT2, specials: Sequence[str] = ()):
        _check_merges(merges)
        split("", pattern)
        self._known = pattern in (GPT2, GPT4)
        if not isinstance(specials, list | tuple) or len(set(specials)) != len(specials) or {"", "all"} & set(specials):
            raise ValueError(f'specials are {specials!r}: expected a list of different texts, none of them "" or "all"')
        self.merges, self.pattern = [(a, b) for a, b in merges], pattern
        self.vocab = [bytes([byte]) for byte in BYTES]
        for a, b in self.merges:
            self.vocab.append(self.vocab[a] + self.vocab[b])
        self.specials = {special: len(self.vocab) + i for i, special in enumerate(specials)}
        self.vocab += [_checked(special).encode() for special in specials]
        self._ranks = _Ranks((chr(a) + chr(b), rank) for rank, (a, b) in enumerate(self.merges))
        self._pairs = list(self._ranks)
        self._words, self._stretches = _Memory(self._encode_word), _Memory(self._encode_stretch)

    # text to ids

    def encode(self, text: str | bytes, allowed: Collection[str] | str = ()) -> list[int]:
        """The ids of a text, or of any bytes.

        allowed: which specials may stand for themselves, "all" for all; any other is text like any text, so that
        nobody who types one is obeyed. Raises ValueError for a lone surrogate, and for specials that do not exist.
        """
        text = text.decode("utf-8", "surrogateescape") if isinstance(text, bytes) else _checked(text)
        special = self._special(allowed)
        if special is None:
            return list(self._encode_text(text))
        parts = special.split(text)  # text, special, text, ...
        ids = []
        for plain, name in zip(parts[::2], [*parts[1::2], None], strict=True):
            ids += self._encode_text(plain)
            ids += [] if name is None else [self.specials[name]]
        return ids

    def encode_stream(self, texts: Iterable[str], allowed: Collection[str] | str = ()) -> Iterator[int]:
        """The ids of a text that comes in pieces, the same wherever it is cut.

        What more text could change is held back: the last two pre-tokens, since "'l" may become "'ll" and white space
        is cut by what follows it, and as many characters as may become a special. So memory is that of the longest
        pre-token. How far another pattern than GPT2 or GPT4 looks ahead is not known: then all is held to the end.
        Raises what `encode` raises.
        """
        special = self._special(allowed)
        longest = max(map(len, self.specials), default=0) if special else 0
        held, read_again_at = "", 0 if self._known else math.inf
        for text in texts:
            held += _checked(text)
            if len(held) > read_again_at:
                ids, held = self._encode_settled(held, special, max(0, len(held) - longest))
                yield from ids
                read_again_at = 2 * len(held)  # else a long word that comes letter by letter is read at each letter
        yield from self.encode(held, allowed)

    def _encode_settled(self, text, special, end):
        """The ids of what more text cannot change, and the rest. A special that begins at `end` or later may be cut off
        still; one that begins before it stands there whole, and so does all text before it."""
        ids, at = [], 0
        for match in special.finditer(text) if special else ():
            if match.start() >= end:
                break
            ids += [*self._encode_text(text[at : match.start()]), self.specials[match.group()]]
            at = match.end()
        settled = split(text[at:end], self.pattern)[:-2]
        ids += chain.from_iterable(map(self._words.__getitem__, settled))
        return ids, text[at + sum(map(len, settled)) :]

    def _encode_text(self, text: str) -> Iterator[int]:
        stretches = STRETCH.findall(text) if self._known else [text]
        return chain.from_iterable(map(self._stretches.__getitem__, stretches))

    def _encode_stretch(self, stretch: str) -> tuple[int, ...]:
        return tuple(chain.from_iterable(map(self._words.__getitem__, split(stretch, self.pattern))))

    def _encode_word(self, piece: str) -> tuple[int, ...]:
        """Merge the pair of the lowest rank, wherever it stands in the word, until no pair has a rank."""
        word = spell(piece)
        if len(word) > LONG:
            return self._encode_long(word)
        while len(word) > 1:
            rank = min(map(self._ranks.__getitem__, pairs(word)))
            if rank == NEVER:
                break
            word = word.replace(self._pairs[rank], chr(256 + rank))
        return tuple(map(ord, word))

    def _encode_long(self, word: str) -> tuple[int, ...]:
        """The same in n log n steps: each place waits under the rank of its pair, and the ranks are taken in order.

        A merge joins its place with the next one. The pairs that it makes have higher ranks than its own, since they
        hold its token: so each rank comes up once, with all its places. Places of a pair of equal tokens, the only ones
        that can overlap, were put there by one pass from left to right, and so have their turn in that order.
        """
        tokens, waiting = list(word), defaultdict(list)
        after, before = list(range(1, len(word) + 1)), list(range(-1, len(word) - 1))
        for place, pair in enumerate(pairs(word)):
            if pair in self._ranks:
                waiting[self._ranks[pair]].append(place)
        ranks = sorted(waiting)  # a sorted list is a heap
        while ranks:
            rank = heapq.heappop(ranks)
            first, second = self._pairs[rank]
            for place in waiting.pop(rank):
                gone = after[place]
                if tokens[place] != first or gone == len(word) or tokens[gone] != second:
                    continue  # a merge before this one took one of the two
                tokens[place], tokens[gone] = chr(256 + rank), ""
                after[place] = after[gone]
                if after[place] < len(word):
                    before[after[place]] = place
                for left in (before[place], place):
                    if left >= 0 and after[left] < len(word):
                        new = self._ranks[tokens[left] + tokens[after[left]]]
                        if new != NEVER:
                            if new not in waiting:
                                heapq.heappush(ranks, new)
                            waiting[new].append(left)
        return tuple(map(ord, filter(None, tokens)))

    def _special(self, allowed: Collection[str] | str) -> regex.Pattern | None:
        """What finds the allowed specials, the longer first; None if none is."""
        if not isinstance(allowed, Collection):
            raise ValueError(f'allowed is {allowed!r}: expected special tokens, or "all"')
        names = self.specials if allowed == "all" else [allowed] if isinstance(allowed, str) else allowed
        if unknown := [name for name in names if name not in self.specials]:
            raise ValueError(f"{unknown[0]!r} is no special token: there are {list(self.specials) or 'none'}")
        longest_first = sorted(names, key=len, reverse=True)
        return regex.compile(f"({'|'.join(map(regex.escape, longest_first))})") if names else None

    # ids to text

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes of ids. Raises ValueError for an id that does not exist."""
        try:
            ids = list(map(index, ids))
        except TypeError as error:
            raise ValueError(f"{ids!r} are no ids: expected whole numbers") from error
        if wrong := [i for i in ids if not 0 <= i < len(self.vocab)]:
            raise ValueError(f"{wrong[0]} is no id: expected 0 to {len(self.vocab) - 1}")
        return b"".join(map(self.vocab.__getitem__, ids))

    def decode(self, ids: Iterable[int], errors: str = "replace") -> str:
        """The text of ids. Where ids end within a character U+FFFD stands; errors="strict" raises ValueError there."""
        return self.decode_bytes(ids).decode("utf-8", errors)

    def decode_stream(self, ids: Iterable[int]) -> Iterator[str]:
        """The text as it comes: bytes that may yet become a character are held back. Joined, it is `decode`'s."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        for i in ids:
            if text := decoder.decode(self.decode_bytes([i])):
                yield text
        yield decoder.decode(b"", final=True)


def boundaries(tokenizer: Tokenizer, text: str) -> set[int]:
    """Where one token ends and the next begins, in bytes from the start of the text; its two ends are none."""
    ends = accumulate(len(tokenizer.vocab[i]) for i in tokenizer.encode(text))
    return set(ends) - {len(text.encode())}


def drift(a: Tokenizer, b: Tokenizer, text: str) -> float:
    """Token drift: 1 - F1 of two tokenizers' boundaries in a text. 0: the same cuts; 1: not one in common."""
    ours, theirs = boundaries(a, text), boundaries(b, text)
    return 1 - 2 * len(ours & theirs) / (len(ours) + len(theirs)) if ours or theirs else 0.0


class _Ranks(dict):
    """Pairs and their ranks; what was never merged ranks last."""

    def __missing__(self, pair: str) -> int:
        return NEVER


class _Memory(dict):
    """What `make` made of each key. Long keys are made anew each time; when it is full, it begins anew."""

    def __init__(self, make: Callable[[str], tuple[int, ...]]):
        self.make = make

    def __missing__(self, key: str) -> tuple[int, ...]:
        value = self.make(key)
        if len(key) <= MEMORABLE:
            if len(self) >= ROOM:
                self.clear()
            self[key] = value
        return value


def _checked(text: str) -> str:
    """The text, if it is one that UTF-8 can write: lone surrogates stand for bytes inside this file (see `spell`)."""
    if not isinstance(text, str):
        raise ValueError(f"the text is of type {type(text).__name__}: expected a str")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        what = f"character {error.start} is {text[error.start]!r}, half of a surrogate pair"
        raise ValueError(f"{what}, which no UTF-8 text holds: mend how it was decoded") from error
    return text


def _check_merges(merges):
    if not isinstance(merges, list | tuple):
        raise ValueError(f"merges are a {type(merges).__name__}: expected a list of pairs of ids")
    for rank, pair in enumerate(merges):
        fits = isinstance(pair, list | tuple) and len(pair) == 2
        if not fits or not all(type(i) is int and 0 <= i < 256 + rank for i in pair):
            raise ValueError(f"merge {rank} is {pair}: expected two ids from 0 to {255 + rank}, made before it")
    if twice := [pair for pair, count in Counter(map(tuple, merges)).items() if count > 1]:
        raise ValueError(f"the pair {twice[0]} stands twice among the merges: the second could never be used")
