"""The checks of lesson 01: what a right `bpe.py` must do, and what a reader's exercises must do."""

import random
from itertools import pairwise

from bpe_drift import boundaries

from shared.clinic import Check, refusal

PROSE = (
    "It's said that the smith's apprentice couldn't weigh 12345 nails; they'll weigh them twice, aaaaa, abababab!\n"
    "  Two spaces, a tab\tand a line end.\n\n\nNaïve café: 価格は12円です。 Привет, мир! 🙂👍🏽\r\n"
    "def f(x):\n    return x ** 2  # ----------\n"
)


def _words(seed, n, letters="abc", longest=12):
    """n random words of few letters: they repeat, overlap and tie."""
    draw = random.Random(seed)
    return ["".join(draw.choice(letters) for _ in range(draw.randint(1, longest))) for _ in range(n)]


def _by_the_rule(tokenizer, piece):
    """Encoding as it is defined, one merge at a time: of the pairs with the lowest rank, the leftmost."""
    byte_ids = {token: i for i, token in enumerate(tokenizer.vocab[:256])}
    ids = [byte_ids[bytes([byte])] for byte in piece.encode()]
    ranks = {pair: rank for rank, pair in enumerate(tokenizer.merges)}
    while found := [(ranks[pair], at) for at, pair in enumerate(pairwise(ids)) if pair in ranks]:
        rank, at = min(found)
        ids[at : at + 2] = [256 + rank]
    return ids


def _small(m, pattern=None, **settings):
    """A tokenizer with fifty merges learnt from PROSE."""
    return m.train(PROSE * 2, 306, pattern or m.GPT2, **settings)


def _check_wikipedia(m):
    tokenizer = m.train("aaabdaaabac", 259, pattern=None)
    made = tokenizer.vocab[256:]
    if made != [b"aa", b"ab", b"aaab"]:
        return f"aaabdaaabac: the merges make {made}, expected aa, ab, aaab"
    if len(ids := tokenizer.encode("aaabdaaabac")) != 5:
        return f"aaabdaaabac became {len(ids)} tokens, expected 5: aaab d aaab a c"


def _check_ties(m):
    words = ["cd", "ab", "dc", "ba"]
    for order in (words, words[::-1]):
        for rung in (m.learn_by_recounting, m.learn_from_distinct, m.learn):
            if (found := rung(order, 4)) != (wanted := [m.spell(word) for word in sorted(words)]):
                named = ["".join(chr(m.BYTES[ord(token)]) for token in pair) for pair in found]
                return f"{rung.__name__} took {named}, expected {sorted(words)} ({len(wanted)} ties)"


def _check_rungs(m):
    for seed in range(8):
        words = _words(seed, 40) + ["abababab", "aaaaaaa"] * 3
        wanted = m.learn_by_recounting(words, 30)
        for rung in (m.learn_from_distinct, m.learn):
            if (found := rung(words, 30)) != wanted:
                at = next((i for i, pair in enumerate(wanted) if found[i : i + 1] != [pair]), len(wanted))
                return f"{rung.__name__} leaves recounting at merge {at}"


def _check_counts(m):
    words = [*_words(1, 60), "abababab", "aaaaaaa"]
    corpus = m._Corpus(words)
    for rank, pair in enumerate(m.learn_by_recounting(words, 25)):
        corpus.merge(pair, chr(256 + rank))
        true = {}
        for word, often in zip(corpus.words, corpus.often, strict=True):
            for each in m.pairs(word):
                true[each] = true.get(each, 0) + often
        if (kept := {pair: count for pair, count in corpus.counts.items() if count}) != true:
            wrong = next(pair for pair in [*true, *kept] if true.get(pair) != kept.get(pair))
            shown, found = [ord(token) for token in wrong], kept.get(wrong, 0)
            return f"after merge {rank} the pair {shown} is counted {found} times, it stands {true.get(wrong, 0)} times"


def _check_rank_order(m):
    tokenizer = m.train(" ".join(_words(2, 300)), 330)
    for piece in _words(3, 200) + ["a" * n for n in range(1, 20)]:
        found, wanted = tokenizer.encode(piece), _by_the_rule(tokenizer, piece)
        if found != wanted:
            named = [[tokenizer.vocab[i].decode() for i in ids] for ids in (found, wanted)]
            return f"{piece!r} became {named[0]}, expected {named[1]}"


def _check_long(m):
    tokenizer = m.train(" ".join(_words(2, 300)), 330)
    for piece in ["a" * 100, "ab" * 90, *_words(4, 20, longest=400), *_words(5, 10, letters="ab", longest=300)]:
        found, wanted = tokenizer.encode(piece), _by_the_rule(tokenizer, piece)
        if found != wanted:
            at = next(i for i, (a, b) in enumerate(zip(found, wanted, strict=False)) if a != b)
            return f"a word of {len(piece)} letters differs at token {at}: {found[at]}, expected {wanted[at]}"


def _check_steps(m):
    class Counting(dict):
        looks = 0

        def __missing__(self, pair):
            return m.NEVER

        def __getitem__(self, pair):
            Counting.looks += 1
            return super().__getitem__(pair) if pair in self else m.NEVER

    tokenizer = m.train(" ".join(_words(6, 2000, letters="abcdefgh")), 600)
    tokenizer._ranks = Counting(tokenizer._ranks)
    word = "".join(_words(7, 300, letters="abcdefgh"))
    tokenizer.encode(word)
    if Counting.looks > 10 * len(word):  # a merge looks at two neighbours, and there are fewer merges than letters: 3
        return (
            f"a word of {len(word)} letters took {Counting.looks // len(word)} looks at the ranks a letter, expected 3"
        )


def _check_trained_text(m):
    for name, pattern in (("GPT2", m.GPT2), ("GPT4", m.GPT4), ("no pattern", None)):
        tokenizer = m.train(PROSE, 320, pattern=pattern)
        words = [m.spell(piece) for piece in m.split(PROSE, pattern)]
        for rank, (a, b) in enumerate(tokenizer.merges):
            words = [word.replace(chr(a) + chr(b), chr(256 + rank)) for word in words]
        if tokenizer.encode(PROSE) != [ord(token) for word in words for token in word]:
            return f"{name}: encoding the text that was learnt from does not give the tokens that training left"


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
    text = "I'll pay  1234 €,\n\n  it's\tOK"
    wanted = {
        "GPT2": ["I", "'ll", " pay", " ", " 1234", " €,", "\n\n ", " it", "'s", "\t", "OK"],
        "GPT4": ["I", "'ll", " pay", " ", " ", "123", "4", " €,\n\n", " ", " it", "'s", "\tOK"],
    }
    for name, pieces in wanted.items():
        if (found := m.split(text, getattr(m, name))) != pieces:
            return f"{name} splits {text!r} into {found}, expected {pieces}"


def _check_round_trip(m):
    texts = ["", "a", "\n", "\n\n", " \n ", "a\nb", "a\r\nb\x85c", PROSE, "".join(map(chr, range(0x300))), "🙂" * 3]
    for tokenizer in (_small(m), _small(m, m.GPT4), m.Tokenizer([])):
        for text in texts:
            if (back := tokenizer.decode(tokenizer.encode(text))) != text:
                return f"{text[:20]!r} came back as {back[:20]!r}"
        data = bytes(range(256)) + b"\xff\xe2\x82abc\xe2"
        if tokenizer.decode_bytes(tokenizer.encode(data)) != data:
            return "bytes that are no UTF-8 did not come back"


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
    if tokenizer.decode(tokenizer.encode("a<|end|>b", allowed="all")) != "a<|end|>b":
        return "a special token did not come back as its text"


def _check_stream(m):
    text = "They'll say  'no'.\n\n \t x<|end|>  12345\n<|end|>er" + "ab" * 40
    for tokenizer in (
        _small(m, specials=["<|end|>", "<|end|>er"]),
        _small(m, m.GPT4, specials=["<|end|>", "<|end|>er"]),
    ):
        for allowed in ((), "all"):
            wanted = tokenizer.encode(text, allowed)
            for size in (1, 2, 3, 5, 17, 1000):
                parts = [text[i : i + size] for i in range(0, len(text), size)]
                if list(tokenizer.encode_stream(parts, allowed)) != wanted:
                    return f"in pieces of {size} characters the text has other tokens than as a whole"


def _check_decoding(m):
    tokenizer = m.Tokenizer([])
    for text in ("naïve", "価格", "🙂👍🏽"):
        ids = tokenizer.encode(text)
        if (found := "".join(tokenizer.decode_stream(ids))) != text:
            return f"{text!r}, token by token, came as {found!r}"
        if (cut := "".join(tokenizer.decode_stream(ids[:-1]))) != tokenizer.decode(ids[:-1]):
            return f"{text!r} without its last byte came as {cut!r}, expected U+FFFD at the end"


def _check_inputs(m):
    tokenizer = _small(m, specials=["<|end|>"])
    bad = [  # what is wrong, a word of the answer, the call
        ("a vocabulary of 255", "at least 256", lambda: m.train("abc", 255)),
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
        ("an empty special", "none of them", lambda: m.Tokenizer([], specials=[""])),
    ]
    for text, size in (("", 256), ("a", 256), ("aa", 257), ("aaaa", 258)):
        if len(vocab := m.train(text, 1000).vocab) != size:
            return f"{text!r} has no more pairs at {size} tokens, and the vocabulary has {len(vocab)}"
    return refusal(bad)


CHECKS = [
    Check(
        "aaabdaaabac becomes what it becomes on paper", _check_wikipedia, "What does a count of pairs on paper give?"
    ),
    Check(
        "of equally frequent pairs the one with the smaller ids goes first, whatever the order",
        _check_ties,
        "Which rule decides between pairs that are equally frequent?",
    ),
    Check(
        "all three rungs learn the same merges",
        _check_rungs,
        "Is it a tie, or a count? Merge 'ab' in 'abababab' by hand.",
    ),
    Check(
        "counts that are kept are those of a recount",
        _check_counts,
        "Which pairs of a word go, and which come, when one pair in it is merged?",
    ),
    Check(
        "encoding takes the pair of the lowest rank, the leftmost first",
        _check_rank_order,
        "Of several pairs that could be merged, which goes first, and where?",
    ),
    Check(
        "long words are encoded by the same rule",
        _check_long,
        "Is it the rule, or the order of the places of one rank?",
    ),
    Check("a long word takes a few steps a letter", _check_steps, "How often is each letter of a long word looked at?"),
    Check(
        "the text that was learnt from is encoded as training left it",
        _check_trained_text,
        "Do training and encoding split the text alike?",
    ),
    Check("no token lies across the border of two pre-tokens", _check_borders),
    Check("the patterns split as GPT-2's and GPT-4's do", _check_pieces),
    Check(
        "every text comes back, and every string of bytes",
        _check_round_trip,
        "What was lost on the way, and at which step?",
    ),
    Check("specials are found where they are allowed, and only there", _check_specials),
    Check("a text in pieces has the same tokens", _check_stream, "What may still change at the end of a piece?"),
    Check("tokens one by one give the same text", _check_decoding, "What if a token is half a character?"),
    Check("what cannot work is refused in words", _check_inputs),
]


def _check_digits(m):
    text = "1234567 nails, 12 bars, x1000y, ٣٤٥٦"
    wanted = ["1", "234", "567", "12", "1", "000", "٣", "٤٥٦"]
    if (found := m.regex.findall(m.DIGITS_FROM_THE_RIGHT, text)) != wanted:
        return f"found {found}, expected {wanted}"


def _check_recover(m):
    for seed in range(5):
        tokenizer = m.bpe.train(PROSE + " ".join(_words(seed, 200)), 420)
        found = [tuple(pair) for pair in m.recover_merges(tokenizer.vocab)]
        if found != tokenizer.merges:
            at = next((i for i, pair in enumerate(tokenizer.merges) if found[i : i + 1] != [pair]), len(found))
            return f"merge {at}, which makes {tokenizer.vocab[256 + at]}, is not the pair that was learnt"


def _check_heal(m):
    tokenizer = m.bpe.train(PROSE, 330, specials=["it<|end|>"])
    for prompt in ("It's said that the smith's appren", "they'll weigh ", "価格は", "it"):
        *before, last = tokenizer.encode(prompt)
        kept, may = m.heal(tokenizer, prompt)
        if list(kept) != before:
            return f"{prompt!r}: kept {kept}, expected all tokens but the last: {before}"
        wanted = {i for i, token in enumerate(tokenizer.vocab[:330]) if token[: len(tokenizer.vocab[last])]
                  == tokenizer.vocab[last]}  # fmt: skip
        if set(may) != wanted:
            return f"{prompt!r}: {len(set(may))} tokens may follow, expected the {len(wanted)} that begin with the last"


EXERCISES = [
    Check(
        "digits are grouped in threes from the right", _check_digits, "At most three digits: how many may follow them?"
    ),
    Check("merges are found again from tokens in order of rank", _check_recover),
    Check("a healed prompt may go on with what begins like its last token", _check_heal),
]
