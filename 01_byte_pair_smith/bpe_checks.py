"""What a right `bpe.py` must do. Each check takes the module, so that a reader's functions and a patient can be asked
the same. Words are random, of few letters: they repeat, overlap and tie. (`bpe_exercise_checks`: the exercises.)
"""

from collections import Counter
from itertools import pairwise
from pathlib import Path

from bpe_cases import PROSE, drawn_words
from bpe_drift import boundaries
from bpe_exercise_checks import EXERCISES

from shared.clinic import Check, refusal

__all__ = ["CHECKS", "EXERCISES", "PROSE"]


def _encoded(word, ranks):
    """Encoding as it is defined, one merge at a time: of the pairs with the lowest rank, the leftmost."""
    tokens = list(word)
    while found := [(ranks[a + b], at) for at, (a, b) in enumerate(pairwise(tokens)) if a + b in ranks]:
        rank, at = min(found)
        tokens[at : at + 2] = [chr(256 + rank)]
    return "".join(tokens)


def _learnt(words, n):
    """Learning as it is defined, token by token. words: spelt. Returns the merges, and the words that they leave."""
    words, merges = [list(word) for word in words], []
    while len(merges) < n:
        counts = Counter(pair for word in words for pair in pairwise(word))
        if not counts:
            break
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        for tokens in words:
            at = 0
            while at < len(tokens) - 1:
                if (tokens[at], tokens[at + 1]) == best:
                    tokens[at : at + 2] = [chr(256 + len(merges))]
                at += 1
        merges.append("".join(best))
    return merges, ["".join(tokens) for tokens in words]


def _ranks(m, words, n):
    """Ranks of n merges that words teach."""
    return {pair: rank for rank, pair in enumerate(_learnt(map(m.spell, words), n)[0])}


def _numbers(word):
    return [ord(token) for token in word]


def _small(m, pattern=None, **settings):
    """A tokenizer with fifty merges learnt from PROSE."""
    return m.train(PROSE * 2, 306, pattern or m.GPT2, **settings)


def _check_count_pairs(m):
    cases = {"aaab": ({"aaab": 2}, {"aa": 4, "ab": 2}), "two words": ({"ab": 3, "bab": 1}, {"ab": 4, "ba": 1})}
    cases |= {"words of one token, and of none": ({"a": 5, "": 2}, {})}
    for name, (words, wanted) in cases.items():
        if (found := dict(m.count_pairs(words))) != wanted:
            return f"{name}, {words}: counted {found}, expected {wanted}"
    words = {word: often for often, word in enumerate(drawn_words(11, 60), 1)}
    wanted = Counter()
    for word, often in words.items():
        for a, b in pairwise(word):
            wanted[a + b] += often
    found = m.count_pairs(words)
    for pair in wanted:
        if found[pair] != wanted[pair]:
            return f"in {len(words)} words {pair!r} is counted {found[pair]} times, it stands {wanted[pair]} times"


def _check_most_frequent(m):
    cases = [({"ab": 2, "cd": 3}, "cd"), ({"cd": 2, "ab": 2, "ba": 2}, "ab"), ({"ba": 2, "ab": 2}, "ab")]
    cases += [({"b\u0100": 4, "\u0100a": 4, "a\u0101": 4}, "a\u0101"), ({"ab": 1}, "ab")]
    for counts, wanted in cases:
        if (found := m.most_frequent(counts)) != wanted:
            return f"of {counts} it took {found!r}, expected {wanted!r}"


def _check_merge(m):
    cases = [("abab", "ab", "XX"), ("aaa", "aa", "Xa"), ("aaaa", "aa", "XX"), ("abc", "bc", "aX"), ("cab", "ab", "cX")]
    cases += [("ba", "ab", "ba"), ("b", "ab", "b"), ("", "ab", ""), ("aabb", "ab", "aXb")]
    for word, pair, wanted in cases:
        wanted = wanted.replace("X", "\u0100")
        if (found := m.merge(word, pair, "\u0100")) != wanted:
            return f"{pair!r} merged in {word!r} gives {found!r}, expected {wanted!r}"


def _check_spell(m):
    for text, wanted in (("A", [32]), (" b", [220, 65]), ("é", [127, 102]), ("\n", [198]), ("", [])):
        if (found := _numbers(m.spell(text))) != wanted:
            return f"{text!r} is spelt {found}, expected {wanted}, as GPT-2 has it"
    for text in (PROSE, "".join(map(chr, range(0x300)))):
        if (found := m.unspell(m.spell(text))) != text.encode():
            at = next((i for i, (a, b) in enumerate(zip(found, text.encode(), strict=False)) if a != b), len(found))
            return f"unspell(spell(...)) differs at byte {at} of a text of {len(text.encode())} bytes"


def _check_any_bytes(m):
    data = bytes(range(256)) + b"\xff\xe2\x82abc\xe2"
    if (found := m.unspell(m.spell(data.decode("utf-8", "surrogateescape")))) != data:
        return f"bytes that are no UTF-8 come back as {found[-9:]}, expected {data[-9:]}"
    if (vocab := m.Tokenizer([]).vocab) != [bytes([byte]) for byte in m.BYTES] or set(m.BYTES) != set(range(256)):
        return f"a tokenizer without merges has {len(vocab)} tokens, expected the 256 bytes, each once"
    for merged in (m.Tokenizer([]), _small(m)):
        if merged.decode_bytes(merged.encode(data)) != data:
            return "bytes that are no UTF-8 did not come back"
    if (ids := m.Tokenizer([(220, 32)]).encode("A A b")) != [32, 256, 220, 65]:
        return f"'A A b' with the merge of ' ' and 'A' has the ids {ids}, expected [32, 256, 220, 65] as GPT-2 counts"


def _check_no_byte(m):
    return refusal(
        [("the token 256", "", lambda: m.unspell("a\u0100")), ("the token 300", "", lambda: m.unspell("\u012c"))]
    )


def _check_wikipedia(m):
    tokenizer = m.train("aaabdaaabac", 259, pattern=None)
    made = tokenizer.vocab[256:]
    if made != [b"aa", b"ab", b"aaab"]:
        return f"aaabdaaabac: the merges make {made}, expected aa, ab, aaab"
    if len(ids := tokenizer.encode("aaabdaaabac")) != 5:
        return f"aaabdaaabac became {len(ids)} tokens, expected 5: aaab d aaab a c"


def _rungs(m):
    return {
        "learn_by_recounting": m.learn_by_recounting,
        "learn_from_distinct": m.learn_from_distinct,
        "learn": m.learn,
    }


def _check_ties(m):
    words = ["cd", "ab", "dc", "ba"]
    for order in (words, words[::-1]):
        for name, rung in _rungs(m).items():
            if (found := rung(order, 4)) != (wanted := [m.spell(word) for word in sorted(words)]):
                named = [m.unspell(pair).decode() for pair in found]
                return f"{name} took {named}, expected {sorted(words)} ({len(wanted)} ties)"


def _check_rungs(m):
    for seed in range(8):
        words = drawn_words(seed, 40) + ["abababab", "aaaaaaa"] * 3 + ["é "]
        wanted, _ = _learnt(map(m.spell, words), 30)
        for name, rung in _rungs(m).items():
            if (found := rung(words, 30)) != wanted:
                at = next((i for i, pair in enumerate(wanted) if found[i : i + 1] != [pair]), len(wanted))
                return f"{name} leaves the definition at merge {at}: {_pair(found, at)}, expected {_pair(wanted, at)}"


def _pair(merges, at):
    return _numbers(merges[at]) if at < len(merges) else "none"


def _check_exhausted(m):
    for words, n, wanted in (([], 5, 0), (["a"], 5, 0), (["aa"], 5, 1), (["aaaa", "aaaa"], 5, 2), (["ab"], 0, 0)):
        for name, rung in _rungs(m).items():
            if len(found := rung(words, n)) != wanted:
                return f"{name} made {len(found)} merges of {n} from {words}, which has {wanted}"
    for size in (256, 257, 258):
        if (found := len(m.train("abcab", size).vocab)) != size:
            return f"of 'abcab' a vocabulary of {size} was asked for, and has {found} tokens"


def _check_counts(m):
    words = [*drawn_words(1, 60), "abababab", "aaaaaaa"]
    corpus = m._Corpus(words)
    for rank, pair in enumerate(_learnt(map(m.spell, words), 25)[0]):
        corpus.merge(pair, chr(256 + rank))
        true = {}
        for word, often in zip(corpus.words, corpus.often, strict=True):
            for each in map("".join, pairwise(word)):
                true[each] = true.get(each, 0) + often
        if (kept := {pair: count for pair, count in corpus.counts.items() if count}) != true:
            wrong = next(pair for pair in [*true, *kept] if true.get(pair) != kept.get(pair))
            shown, found = [ord(token) for token in wrong], kept.get(wrong, 0)
            return f"after merge {rank} the pair {shown} is counted {found} times, it stands {true.get(wrong, 0)} times"


def _check_rank_order(m):
    if (found := m.encode_word("abc", {"bc": 0, "ab": 1})) != "a\u0100":
        return f"'abc' with the merges bc, ab became {found!r}, expected 'a' and chr(256)"
    for seed in (2, 3):
        ranks = _ranks(m, drawn_words(seed, 300), 60)
        for word in map(m.spell, drawn_words(seed + 10, 200) + ["a" * n for n in range(20)]):
            if (found := m.encode_word(word, ranks)) != (wanted := _encoded(word, ranks)):
                return f"{m.unspell(word).decode()!r} became {_numbers(found)}, expected {_numbers(wanted)}"


def _check_long(m):
    words = [
        "a" * 100,
        "ab" * 90,
        "",
        "a",
        "ab",
        *drawn_words(4, 20, longest=400),
        *drawn_words(5, 10, "ab", longest=300),
    ]
    for seed in (2, 3):
        ranks = _ranks(m, drawn_words(seed, 300), 60)
        for word in map(m.spell, words):
            if (found := m.encode_long(word, ranks)) != (wanted := _encoded(word, ranks)):
                at = next((i for i, (a, b) in enumerate(zip(found, wanted, strict=False)) if a != b), len(wanted))
                return f"a word of {len(word)} letters differs from the definition at token {at} of {len(wanted)}"


def _check_encode(m):
    tokenizer = m.train(" ".join(drawn_words(2, 300)), 330)
    ranks = {chr(a) + chr(b): rank for rank, (a, b) in enumerate(tokenizer.merges)}
    words = drawn_words(3, 200) + ["a" * n for n in (1, 2, 63, 64, 65, 100)] + drawn_words(4, 20, longest=300)
    for piece in words:
        if (found := tokenizer.encode(piece)) != (wanted := _numbers(_encoded(m.spell(piece), ranks))):
            return f"a word of {len(piece)} letters, {piece[:12]!r}: {found[:8]}, expected {wanted[:8]}"


def _check_steps(m):
    class Counting(dict):
        looks = 0

        def __contains__(self, pair):
            Counting.looks += 1
            return super().__contains__(pair)

    tokenizer = m.train(" ".join(drawn_words(6, 2000, letters="abcdefgh")), 600)
    tokenizer._ranks = Counting(tokenizer._ranks)
    word = "".join(drawn_words(7, 300, letters="abcdefgh"))
    tokenizer.encode(word)
    if Counting.looks > 10 * len(word):  # a merge looks at two neighbours, and there are fewer merges than letters: 3
        looks = Counting.looks // len(word)
        return f"a word of {len(word)} letters took {looks} looks at the ranks a letter, expected 3"


def _check_trained_text(m):
    text = PROSE * 2 + "It's LATER, they'LL see: 価格A1234567/x\n"
    for name, pattern in (("GPT2", m.GPT2), ("GPT4", m.GPT4), ("GPT4O", m.GPT4O), ("no pattern", None)):
        tokenizer = m.train(text, 340, pattern=pattern)
        _, left = _learnt(map(m.spell, m.split(text, pattern)), len(tokenizer.merges))
        if tokenizer.encode(text) != _numbers("".join(left)):
            return f"{name}: encoding the text that was learnt from does not give the tokens that training left"
        if tokenizer.pattern != pattern:
            return f"{name}: the tokenizer's pattern is {tokenizer.pattern!r}"


def _check_borders(m):
    for pattern in (m.GPT2, m.GPT4):
        tokenizer = m.train(PROSE * 3, 400, pattern=pattern)
        borders, at = set(), 0
        for piece in m.split(PROSE, pattern):
            at += len(piece.encode())
            borders.add(at)
        if not borders <= boundaries(tokenizer, PROSE) | {at}:
            return "a token lies across the border of two pre-tokens"


def _check_pieces(m):
    text = "I'll pay  1234 €,\n\n  it's\tOK/हिन्दी"
    wanted = {
        "GPT2": ["I", "'ll", " pay", " ", " 1234", " €,", "\n\n ", " it", "'s", "\t", "OK", "/"],
        "GPT4": ["I", "'ll", " pay", " ", " ", "123", "4", " €,\n\n", " ", " it", "'s", "\tOK", "/ह"],
        "GPT4O": ["I'll", " pay", " ", " ", "123", "4", " €,\n\n", " ", " it's", "\tOK", "/हिन्दी"],
    }
    wanted["GPT2"] += ["ह", "\u093f", "न", "\u094d", "द", "\u0940"]  # the vowel signs are no letters, \\p{L}
    wanted["GPT4"] += ["\u093fन", "\u094dद", "\u0940"]
    for name, pieces in wanted.items():
        if (found := m.split(text, getattr(m, name))) != pieces:
            return f"{name} splits {text!r} into {found}, expected {pieces}"
    if (whole := m.split("a b\n", None), m.split("", None)) != (["a b\n"], []):
        return f"without a pattern 'a b\\n' became {whole}, expected one pre-token"


def _check_round_trip(m):
    texts = ["", "a", "\n", "\n\n", " \n ", "a\nb", "a\r\nb\x85c", PROSE, "".join(map(chr, range(0x300))), "🙂" * 3]
    for tokenizer in (_small(m), _small(m, m.GPT4), _small(m, m.GPT4O), m.Tokenizer([])):
        for text in texts:
            if (back := tokenizer.decode(tokenizer.encode(text))) != text:
                return f"{text[:20]!r} came back as {back[:20]!r}"


def _check_specials(m):
    tokenizer = _small(m, specials=["<|end|>", "<|end|>er"])
    end, ender = len(tokenizer.vocab) - 2, len(tokenizer.vocab) - 1
    if {end, ender} & set(tokenizer.encode("a<|end|>b")):
        return "a user typed <|end|>, which was not allowed, and it became the special token"
    if tokenizer.encode("a<|end|>b", allowed="all").count(end) != 1:
        return "<|end|> was allowed and did not become one token"
    if end not in (ids := tokenizer.encode("<|end|>", allowed=["<|end|>"])) or len(ids) != 1:
        return f"<|end|> alone was allowed and became {ids}"
    if tokenizer.encode("<|end|>er", allowed="all") != [ender]:
        return "of two specials, one the beginning of the other, the shorter was found"
    if ender in tokenizer.encode("<|end|>er", allowed=["<|end|>"]):
        return "<|end|>er was not allowed and became a special token"
    if (ids := tokenizer.encode("<b|d|e", allowed="all")) and {end, ender} & set(ids):
        return f"'<b|d|e' has no special token, and with all allowed it became {ids}"
    if tokenizer.decode(tokenizer.encode("a<|end|>b", allowed="all")) != "a<|end|>b":
        return "a special token did not come back as its text"


def _check_forbidden(m):
    tokenizer = _small(m, specials=["<|end|>", "<|user|>"])
    text = "a<|user|>b"
    for allowed, forbidden in (((), ()), ("all", "all"), ("<|user|>", "all"), ((), ["<|end|>"]), (["<|user|>"], "all")):
        if tokenizer.encode(text, allowed, forbidden) != tokenizer.encode(text, allowed):
            return f"allowed {allowed!r}, forbidden {forbidden!r}: {text!r} has other ids than without `forbidden`"
    bad = [("a special that is forbidden", "", lambda: tokenizer.encode(text, forbidden="all"))]
    bad += [("one of two, the other allowed", "", lambda: tokenizer.encode(text, ["<|end|>"], ["<|user|>"]))]
    return refusal(bad)


def _check_stream(m):
    text = "They'll say  'no'.\n\n \t x<|end|>  12345 日本Ab HE'LL\n<|end|>er" + "ab" * 40
    for pattern in (m.GPT2, m.GPT4, m.GPT4O):
        tokenizer = _small(m, pattern, specials=["<|end|>", "<|end|>er"])
        for allowed in ((), "all"):
            wanted = tokenizer.encode(text, allowed)
            for size in (1, 2, 3, 5, 17, 1000):
                parts = [text[i : i + size] for i in range(0, len(text), size)]
                if list(tokenizer.encode_stream(parts, allowed)) != wanted:
                    return f"in pieces of {size} characters the text has other tokens than as a whole"


def _check_stream_lookahead(m):
    pattern = r" ?\p{L}+|\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))|[^\p{L}\p{N}]"  # 1234567 is cut by where it ends
    text = "nails 12345678901 bars"
    tokenizer = m.train("12345678 " * 5 + text, 300, pattern)
    if (found := list(tokenizer.encode_stream(text))) != (wanted := tokenizer.encode(text)):
        return f"a pattern that looks to the end of a number: {len(found)} tokens letter by letter, {len(wanted)} whole"


def _check_stream_reads_little(m):
    for name, text in (("prose", PROSE * 4), ("one long word", "abcd" * 300)):
        tokenizer, lengths = _small(m, specials=["<|end|>"]), []
        settle = tokenizer._encode_settled
        tokenizer._encode_settled = lambda held, *rest, settle=settle, n=lengths: (
            n.append(len(held)) or settle(held, *rest)
        )
        list(tokenizer.encode_stream(text, "all"))
        if not len(text) < sum(lengths) < 4 * len(text):  # 2 to 3 here: what is held doubles before it is read again
            return (
                f"{name}, letter by letter: each letter was read {sum(lengths) / len(text):.0f} times, expected 2 or 3"
            )
        if name == "prose" and not 0 < max(lengths) < 100:
            return f"of prose {max(lengths, default=0)} characters were held at a time, expected some tens"


def _check_memory(m):
    tokenizer, made = m.Tokenizer([]), []
    make = tokenizer._words.make
    tokenizer._words.make = lambda piece: made.append(piece) or make(piece)
    text = " ".join([*(f"x{i}" for i in range(500)), "y" * 255])
    for _ in range(2):
        tokenizer.encode(text)
        tokenizer.encode(text + "!")  # another stretch at the end
    words = len(set(m.split(text))) + 1
    if len(made) != words:
        return f"{words} different words were merged {len(made)} times in four texts, expected once each"
    z = ord(m.spell("z"))
    tokenizer = m.Tokenizer([(z, z), *((256 + i, 256 + i) for i in range(7))])
    for _ in range(2):
        tokenizer.encode("z" * 10_000)
    if (longest := max(map(len, [*tokenizer._words, *tokenizer._stretches]), default=0)) > 1000:
        return f"a word of {longest} letters was remembered"


def _check_decoding(m):
    tokenizer = m.Tokenizer([])
    for text in ("naïve", "価格", "🙂👍🏽"):
        ids = tokenizer.encode(text)
        if (found := "".join(tokenizer.decode_stream(ids))) != text:
            return f"{text!r}, token by token, came as {found!r}"
        if (cut := "".join(tokenizer.decode_stream(ids[:-1]))) != tokenizer.decode(ids[:-1]):
            return f"{text!r} without its last byte came as {cut!r}, expected U+FFFD at the end"
    data, wanted = b"\xff" + "hé!".encode(), ["\ufffd", "h", "é", "!"]
    if (found := [text for text in tokenizer.decode_stream(tokenizer.encode(data)) if text]) != wanted:
        return f"{data}, byte by byte, comes in the pieces {found}, expected {wanted}"


def _check_inputs(m):
    tokenizer = _small(m, specials=["<|end|>"])
    bad = [  # what is wrong, a word of the answer, the call
        ("a vocabulary of 255", "vocab_size is 255", lambda: m.train("abc", 255)),
        ("an id that is too high", "is no id", lambda: tokenizer.decode([len(tokenizer.vocab)])),
        ("a negative id", "is no id", lambda: tokenizer.decode([-1])),
        ("half a surrogate pair", "surrogate", lambda: tokenizer.encode("a\ud83d")),
        ("half a surrogate pair, in a stream", "surrogate", lambda: list(tokenizer.encode_stream(["a", "\udc80"]))),
        ("a number for a text", "expected a str", lambda: tokenizer.encode(7)),
        ("an unknown special", "no special token", lambda: tokenizer.encode("a", allowed=["<|what|>"])),
        ("half a character, strictly", "utf-8", lambda: tokenizer.decode(tokenizer.encode(b"\xe2\x82"), "strict")),
        ("a merge of what does not exist", "made before it", lambda: m.Tokenizer([(256, 0)])),
        ("a merge twice", "stands twice", lambda: m.Tokenizer([(0, 1), (0, 1)])),
        ("a pattern that is none", "is none", lambda: m.Tokenizer([], pattern="(")),
        ("a pattern with groups", "groups", lambda: m.Tokenizer([], pattern="(a)|.")),
        ("a pattern that leaves out spaces", "leaves out", lambda: m.train("a b", 300, pattern=r"\w+")),
        ("a merged token to unspell", "", lambda: m.unspell("a\u0100")),
        ("a path for a text", "expected a str", lambda: m.train(Path("prose.txt"), 300)),
        ("an empty special", "none of them", lambda: m.Tokenizer([], specials=[""])),
    ]
    return refusal(bad)


CHECKS = [
    Check(
        "pairs are counted where they stand, weighed by how often the word does",
        _check_count_pairs,
        "How many pairs has a word of four tokens, also of four equal ones?",
        ["count_pairs"],
    ),
    Check(
        "the most frequent pair is taken, of several the one with the smaller ids",
        _check_most_frequent,
        "What decides between two pairs with the same count?",
        ["most_frequent"],
    ),
    Check(
        "a pair is merged from left to right, and never overlaps itself",
        _check_merge,
        "Which of the two pairs in 'aaa' is merged, and what is left?",
        ["merge"],
    ),
    Check(
        "a text is spelt in its bytes, in GPT-2's order, and unspelt again",
        _check_spell,
        "Which id has a byte, and which byte has an id?",
        ["spell", "unspell"],
    ),
    Check(
        "any bytes come back, also those that are no text",
        _check_any_bytes,
        "What stands in a str for a byte that is no UTF-8?",
        ["spell", "unspell", "BYTES"],
    ),
    Check(
        "a merged token is refused where a byte is expected",
        _check_no_byte,
        "Which tokens are bytes?",
        ["unspell"],
    ),
    Check(
        "aaabdaaabac becomes what it becomes on paper",
        _check_wikipedia,
        "What does a count of pairs on paper give?",
        ["train"],
    ),
    Check(
        "of equally frequent pairs the one with the smaller ids goes first, whatever the order",
        _check_ties,
        "Which rule decides between pairs that are equally frequent?",
        ["learn_by_recounting", "learn_from_distinct", "learn"],
    ),
    Check(
        "all three rungs learn the merges of the definition",
        _check_rungs,
        "Is it a tie, or a count? Merge 'ab' in 'abababab' by hand.",
        ["learn_by_recounting", "learn_from_distinct", "learn"],
    ),
    Check(
        "learning ends when no pair is left",
        _check_exhausted,
        "What if there is nothing to merge any more?",
        ["learn_by_recounting", "learn_from_distinct", "learn"],
    ),
    Check(
        "counts that are kept are those of a recount",
        _check_counts,
        "Which pairs of a word go, and which come, when one pair in it is merged?",
        ["learn"],
    ),
    Check(
        "encoding takes the pair of the lowest rank, the leftmost first",
        _check_rank_order,
        "Of several pairs that could be merged, which goes first, and where?",
        ["encode_word"],
    ),
    Check(
        "long words are encoded by the same rule",
        _check_long,
        "Is it the rule, or the order of the places of one rank?",
        ["encode_long"],
    ),
    Check(
        "a tokenizer encodes words of any length by the rule",
        _check_encode,
        "Which words are right, and which are not?",
        ["Tokenizer"],
    ),
    Check(
        "a long word takes a few steps a letter",
        _check_steps,
        "How often is each letter of a long word looked at?",
        ["encode_long"],
    ),
    Check(
        "the text that was learnt from is encoded as training left it",
        _check_trained_text,
        "Do training and encoding split the text alike?",
        ["train"],
    ),
    Check(
        "no token lies across the border of two pre-tokens",
        _check_borders,
        "Is anything merged before the text is split?",
        ["split"],
    ),
    Check(
        "the patterns split as GPT-2's, GPT-4's and GPT-4o's do",
        _check_pieces,
        "Which alternative of the pattern takes these characters?",
        ["split"],
    ),
    Check("every text comes back", _check_round_trip, "What was lost on the way, and at which step?", ["Tokenizer"]),
    Check(
        "specials are found where they are allowed, and only there",
        _check_specials,
        "Who may write a special token, and what does it look like to a pattern?",
        ["Tokenizer"],
    ),
    Check(
        "a forbidden special is refused, and nothing else is",
        _check_forbidden,
        "Which specials are neither allowed nor forbidden?",
        ["Tokenizer"],
    ),
    Check(
        "a text in pieces has the same tokens",
        _check_stream,
        "What may still change at the end of a piece?",
        ["Tokenizer"],
    ),
    Check(
        "a stream holds all of a text whose pattern may look to its end",
        _check_stream_lookahead,
        "Of which patterns is it known how far they look?",
    ),
    Check(
        "a stream holds little, and reads no letter again and again",
        _check_stream_reads_little,
        "When is what is held read again?",
    ),
    Check(
        "a word is merged once, however often it stands, and a long one is not kept",
        _check_memory,
        "What is remembered from one text to the next?",
    ),
    Check(
        "tokens one by one give the same text", _check_decoding, "What if a token is half a character?", ["Tokenizer"]
    ),
    Check("what cannot work is refused in words", _check_inputs),
]
