"""Byte-pair encoding from the count up: three trainers, encoding by rank, streams and special tokens.

    tokenizer = train(text, vocab_size=1024)            # counts pairs, merges the most frequent, again and again
    ids = tokenizer.encode("Merging rules")             # whole numbers
    tokenizer.decode(ids)                               # the same text

A token is a whole number. 0 to 255 are the bytes, in the order in which GPT-2 lists them (`BYTES`), so that our ids are
the libraries' ids; 256 + r is what merge number r makes, and r is its rank. Inside this file a token is written as *one
character*, chr(id), a pair as two, and a word as a string of them.

Two rules that no count gives are those of Hugging Face's `tokenizers`: a pair is counted once for each place where it
stands (twice in "aaa", where it can be merged once), and of the most frequent pairs the one with the smaller ids wins.

Sources: Sennrich et al. 2016 (arXiv 1508.07909) for words and merges; Radford et al. 2019 (GPT-2) for bytes and the
pattern; Zouhar et al. 2023 (2306.16837) for what the trainers cost.
"""

import codecs
import heapq
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain, pairwise
from operator import add

import regex
from bpe_inputs import check_lacks, checked_ids, checked_merges, checked_names, checked_specials, checked_text
from bpe_patterns import GPT2, GPT2_PIECES, GPT4, GPT4_PIECES, GPT4O, GPT4O_PIECES, KNOWN, STRETCH, split

__all__ = ["GPT2", "GPT2_PIECES", "GPT4", "GPT4O", "GPT4O_PIECES", "GPT4_PIECES", "Tokenizer", "split", "train"]

PRINTABLE = [*range(33, 127), *range(161, 173), *range(174, 256)]
BYTES = bytes(PRINTABLE + [byte for byte in range(256) if byte not in PRINTABLE])  # BYTES[id] is the byte
TO_ID = bytes(BYTES.index(byte) for byte in range(256))

MOST = 0x110000  # tokens: Python has no more characters
LONG = 64  # characters; longer words are merged in another way
ROOM, MEMORABLE = 2**16, 256  # how many words and stretches are remembered, and of how many characters at most


def spell(piece: str) -> str:
    """A pre-token as the tokens it starts from, one character for each byte: "é" is two. A lone surrogate stands for a
    byte that is no UTF-8, as Python's "surrogateescape" has it."""
    return piece.encode("utf-8", "surrogateescape").translate(TO_ID).decode("latin-1")


def unspell(word: str) -> bytes:
    """The bytes of a word that has not been merged: the inverse of `spell`. Raises ValueError for a merged token."""
    return word.encode("latin-1").translate(BYTES)


def pairs(word: str) -> Iterable[str]:
    """Neighbours, each two characters: "abab" -> "ab", "ba", "ab"."""
    return map(add, word, word[1:])


def count_pairs(words: Mapping[str, int]) -> Counter:
    """How often each pair stands in words that stand so often: {"aaab": 2} -> {"aa": 4, "ab": 2}."""
    counts = Counter()
    for word, often in words.items():
        for pair in pairs(word):
            counts[pair] += often
    return counts


def most_frequent(counts: Mapping[str, int]) -> str | None:
    """The pair with the highest count, of several the one with the smaller ids; None if there is no pair."""
    return min(counts, key=lambda pair: (-counts[pair], pair), default=None)


def merge(word: str, pair: str, token: str) -> str:
    """The word with the token for the pair, from left to right, never overlapping: merge("aaa", "aa", "X") -> "Xa"."""
    return word.replace(pair, token)


def learn_by_recounting(pieces: Iterable[str], n: int) -> list[str]:
    """Rung 1: before each of the n merges, count every pair of the text. Returns pairs, fewer if none is left."""
    words, merges = [spell(piece) for piece in pieces], []
    while len(merges) < n:
        counts = Counter()
        for word in words:
            counts.update(count_pairs({word: 1}))
        if (best := most_frequent(counts)) is None:
            break
        words = [merge(word, best, chr(256 + len(merges))) for word in words]
        merges.append(best)
    return merges


def learn_from_distinct(pieces: Iterable[str], n: int) -> list[str]:
    """Rung 2: the same, but equal words are counted once and weighed by how often they stand."""
    words, merges = {spell(piece): often for piece, often in Counter(pieces).items()}, []
    while len(merges) < n:
        if (best := most_frequent(count_pairs(words))) is None:
            break
        words = {merge(word, best, chr(256 + len(merges))): often for word, often in words.items()}
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
        for w in dict.fromkeys(self.where.pop(pair)):  # a word in which it stands often is read once
            parts = self.words[w].split(pair)  # "abab" by "ab": "", "", ""
            self.words[w] = token.join(parts)
            old = new = ""  # the neighbour on the left, before and after
            for left, right in pairwise(parts):  # of one part, if another merge came before this one: none
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


def encode_word(word: str, ranks: Mapping[str, int]) -> str:
    """Merge the pair of the lowest rank, wherever it stands in the word, until no pair has a rank.

    word: tokens, as `spell` gives them. ranks: of the pairs that may be merged; rank r makes the token chr(256 + r).
    encode_word("abc", {"bc": 0, "ab": 1}) -> "a" and chr(256)
    """
    while known := [pair for pair in pairs(word) if pair in ranks]:
        pair = min(known, key=ranks.__getitem__)
        word = merge(word, pair, chr(256 + ranks[pair]))
    return word


def encode_long(word: str, ranks: Mapping[str, int]) -> str:
    """The same in n log n steps: each place waits under its pair, and the pairs are taken in order of rank.

    A merge joins its place with the next one. The pairs that it makes have higher ranks than its own, since they hold
    its token: so each rank comes up once, with all its places. Places of a pair of equal tokens, the only ones that
    can overlap, were put there by one pass from left to right, and so have their turn in that order.
    """
    tokens, waiting = list(word), defaultdict(list)
    after, before = list(range(1, len(word) + 1)), list(range(-1, len(word)))
    for place, pair in enumerate(pairs(word)):
        if pair in ranks:
            waiting[pair].append(place)
    heap = sorted((ranks[pair], pair) for pair in waiting)  # a sorted list is a heap
    while heap:
        rank, pair = heapq.heappop(heap)
        for place in waiting.pop(pair):
            gone = after[place]
            if gone == len(word) or tokens[place] + tokens[gone] != pair:
                continue  # a merge before this one took one of the two
            tokens[place], tokens[gone] = chr(256 + rank), ""
            after[place] = after[gone]
            if after[place] < len(word):
                before[after[place]] = place
            for left in (before[place], place):  # before the first stands -1, the last: nothing comes after it
                if after[left] < len(word):
                    new = tokens[left] + tokens[after[left]]
                    if new in ranks:
                        if new not in waiting:
                            heapq.heappush(heap, (ranks[new], new))
                        waiting[new].append(left)
    return "".join(tokens)


def train(
    text: str | Iterable[str],
    vocab_size: int,
    pattern: str | None = GPT2,
    specials: Sequence[str] = (),
    learn: Callable[[Iterable[str], int], list[str]] = learn,
) -> "Tokenizer":
    """A tokenizer with 256 bytes and vocab_size - 256 merges, fewer if no pair is left, and the specials behind them.

    text: one or several; no merge crosses their borders. A str is a text, never the name of a file, and a special that
    stands in it is learnt from as letters. learn: the rung, one of the three above; all learn the same. Raises
    ValueError for a vocab_size below 256 or above MOST, for texts that are none, and what `Tokenizer` raises.
    """
    if not isinstance(vocab_size, int) or not 256 <= vocab_size <= MOST:
        raise ValueError(f"vocab_size is {vocab_size!r}: expected a whole number from 256, a token a byte, to {MOST}")
    texts = text if isinstance(text, Iterable) and not isinstance(text, str | bytes) else [text]
    pieces = chain.from_iterable(split(checked_text(each), pattern) for each in texts)
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
        split("", pattern)
        self.merges, self.pattern = checked_merges(merges), pattern
        self.vocab = [unspell(chr(i)) for i in range(256)]
        for a, b in self.merges:
            self.vocab.append(self.vocab[a] + self.vocab[b])
        self.specials = {special: len(self.vocab) + i for i, special in enumerate(checked_specials(specials))}
        self.vocab += [special.encode() for special in self.specials]
        self._ranks = {chr(a) + chr(b): rank for rank, (a, b) in enumerate(self.merges)}
        self._words, self._stretches = _Memory(self._encode_piece), _Memory(self._encode_stretch)

    # text to ids

    def encode(
        self, text: str | bytes, allowed: Collection[str] | str = (), forbidden: Collection[str] | str = ()
    ) -> list[int]:
        """The ids of a text, or of any bytes.

        allowed: which specials may stand for themselves, "all" for all; any other is text like any text, so that
        nobody who types one is obeyed. forbidden: which specials the text must not hold, "all" for all that are not
        allowed. Raises ValueError for a forbidden special, for specials that do not exist, and for a lone surrogate.
        """
        text = text.decode("utf-8", "surrogateescape") if isinstance(text, bytes) else checked_text(text)
        allowed = checked_names(allowed, self.specials)
        check_lacks(text, [name for name in checked_names(forbidden, self.specials) if name not in allowed])
        if not allowed:
            return list(self._encode_text(text))
        parts = _any_of(allowed).split(text)  # text, special, text, ...
        ids = []
        for i, part in enumerate(parts):
            ids += [self.specials[part]] if i % 2 else self._encode_text(part)
        return ids

    def encode_stream(self, texts: Iterable[str], allowed: Collection[str] | str = ()) -> Iterator[int]:
        """The ids of a text that comes in pieces, the same wherever it is cut.

        What more text could change is held back: the last two pre-tokens, since "'l" may become "'ll" and white space
        is cut by what follows it, and as many characters as may become a special. So memory is that of the longest
        pre-token. How far a pattern that is not KNOWN looks ahead cannot be told: then all is held to the end.
        Raises what `encode` raises.
        """
        allowed = checked_names(allowed, self.specials)
        special, longest = (_any_of(allowed), max(map(len, allowed))) if allowed else (None, 0)
        held, read_again_at = "", 0 if self.pattern in KNOWN else math.inf
        for text in texts:
            held += checked_text(text)
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
        stretches = STRETCH.findall(text) if self.pattern in KNOWN else [text]
        return chain.from_iterable(map(self._stretches.__getitem__, stretches))

    def _encode_stretch(self, stretch: str) -> tuple[int, ...]:
        return tuple(chain.from_iterable(map(self._words.__getitem__, split(stretch, self.pattern))))

    def _encode_piece(self, piece: str) -> tuple[int, ...]:
        word = spell(piece)
        encode = encode_word if len(word) <= LONG else encode_long
        return tuple(map(ord, encode(word, self._ranks)))

    # ids to text

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes of ids. Raises ValueError for an id that does not exist."""
        return b"".join(map(self.vocab.__getitem__, checked_ids(ids, len(self.vocab))))

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


def _any_of(specials: Collection[str]) -> regex.Pattern:
    names = sorted(specials, key=len, reverse=True)
    return regex.compile(f"({'|'.join(map(regex.escape, names))})")


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
