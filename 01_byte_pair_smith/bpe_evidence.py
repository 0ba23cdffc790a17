"""What is seen of lesson 01's patients, made by running them: merges, tokens, rows, times. No answers here.

Each function takes a patient's helper and caller and returns Evidence, beside what the healthy files give.
"""

import functools
import time
import unicodedata
from collections import Counter

import bpe
import bpe_caller
from matplotlib.figure import Figure

from shared.clinic import Evidence
from shared.colors import BROKEN, WORKING

DASHED = (0, (7, 2))
PROSE = [each for document in bpe_caller.documents(60, 5, ["English"]) for each in bpe.split(document.decode())]
RUNS = ["abababab", "--------", "        ", "aaaaaaa", "ab", "ba"] * 3
TYPED = "Where's my kettle? <|end|>"


def first_merges(helper, caller):
    """What both learners of a helper make of two texts: recounting, and keeping counts."""
    lines = []
    for name, pieces in (("English documents", PROSE), ("runs: abababab, dashes, spaces", RUNS)):
        rungs = [helper.learn_by_recounting(pieces, 40), helper.learn(pieces, 40)]
        healthy = bpe.learn(pieces, 40)
        same = [sum(a == b for a, b in zip(rung, healthy, strict=False)) for rung in rungs]
        lines.append(f"{name}: of {len(healthy)} merges the healthy file makes,")
        lines.append(f"    recounting makes {same[0]} at the same rank, kept counts make {same[1]}")
        lines += [
            f"    kept counts, the first: {_merges(rungs[1][:10])}",
            f"    healthy, the first:     {_merges(healthy)}",
        ]
    return Evidence("\n".join(lines))


def order_of_words(helper, caller):
    """Merges from the same words in two orders."""
    words = ["cd", "ab", "dc", "ba", "bad", "cab"] * 2
    lines = ["the same words, forwards and backwards; the merges of learn_by_recounting, in order"]
    for name, module in (("healthy", bpe), ("patient", helper)):
        for order in (words, words[::-1]):
            lines.append(f"{name}: {_merges(module.learn_by_recounting(order, 6))}")
    return Evidence("\n".join(lines))


def tokens(helper, caller):
    """Words by both files, with one list of merges; what comes back; how many tokens."""
    healthy, patient = _healthy(), helper.Tokenizer(_healthy().merges, bpe_caller.PATTERN)
    words = Counter(w for each in bpe_caller.documents(300, 9) for w in bpe.split(bpe_caller.read(each), bpe.GPT4))
    other = [word for word in words if healthy.encode(word) != patient.encode(word)]
    lines = [f"{len(words)} different words, {len(words) - len(other)} with the same ids; the merges are the same"]
    lines.append(f"words that come back: {sum(patient.decode(patient.encode(word)) == word for word in words)}")
    sums = [sum(len(it.encode(word)) * n for word, n in words.items()) for it in (healthy, patient)]
    lines.append(f"tokens in all: healthy {sums[0]}, patient {sums[1]}")
    lines += [f"    {word!r:<16} healthy {_cut(healthy, word):<20} patient {_cut(patient, word)}" for word in other[:6]]
    long = [word * 30 for word in list(words)[:99] if word.isalpha() and word.isascii() and len(word) > 2]
    same = sum(healthy.encode(word) == patient.encode(word) for word in long)
    return Evidence("\n".join([*lines, f"of {len(long)} words of more than 64 letters, {same} have the same ids"]))


def runs(helper, caller):
    """Ids of runs of one letter, and of prose, by their lengths."""
    healthy = bpe.Tokenizer(bpe.train("aaaaaaa aaaa        --------\t\t\t\t" * 9, 270, bpe.GPT4).merges, bpe.GPT4)
    patient = helper.Tokenizer(healthy.merges, bpe.GPT4)
    lines = ["length   " + "".join(f"{name:>12}" for name in ("'a'", "space", "tab", "'abc'"))]
    for n in (8, 33, 64, 65, 90, 129, 300):
        same = [healthy.encode(unit * n) == patient.encode(unit * n) for unit in ("a", " ", "\t", "abc")]
        lines.append(f"{n:>6}   " + "".join(f"{'same ids' if each else 'other ids':>12}" for each in same))
    return Evidence("\n".join(lines))


def time_to_encode(helper, caller):
    """Seconds for one word of n letters."""
    sizes = [500, 1000, 2000, 4000]
    merges = bpe.train("ab " * 9 + "abab " * 9 + "cd dcba abcd " * 9, 290).merges
    words = ["abcd" * (n // 4) for n in sizes]
    curves = {}
    for name, module in (("healthy", bpe), ("patient", helper)):
        curves[name] = [_seconds(lambda w=word, m=module: m.Tokenizer(merges).encode(w)) for word in words]
    same = all(bpe.Tokenizer(merges).encode(word) == helper.Tokenizer(merges).encode(word) for word in words)
    return Evidence(
        f"the ids are {'the same' if same else 'others'}", _lines(sizes, curves, "letters", "seconds to encode")
    )


def time_to_learn(helper, caller):
    """Seconds to learn 12 merges from one word of n letters, and from many short ones."""
    sizes = [1000, 2000, 4000, 8000]
    curves = {}
    for name, module in (("healthy", bpe), ("patient", helper)):
        curves[name] = [_seconds(lambda n=n, m=module: m.learn(["a" * n], 12)) for n in sizes]
    short = [_seconds(lambda m=module: m.learn(PROSE, 200)) for module in (bpe, helper)]
    same = bpe.learn(["a" * 999], 12) == helper.learn(["a" * 999], 12)
    text = f"the merges are {'the same' if same else 'others'}\nEnglish documents, 200 merges: "
    text += f"healthy {short[0]:.2f} s, patient {short[1]:.2f} s"
    return Evidence(text, _lines(sizes, curves, "letters of one word", "seconds to learn"))


def texts_back(helper, caller):
    """Texts, and what comes back of them."""
    patient = helper.Tokenizer(_healthy().merges, bpe_caller.PATTERN)
    lines = []
    for text in ("A gate of iron.", "two  spaces", "for x in y:\n    pass\n", "Dear smith,\n\nthanks!\n", "one\r\ntwo"):
        back = patient.decode(patient.encode(text))
        lines.append(f"{text!r:<28} came back {'as it was' if back == text else f'as {back!r}'}")
    return Evidence("\n".join(lines))


def left_by_training(helper, caller):
    """Tokens of the documents that were learnt from, when training ended and when they are encoded."""
    lines = ["pattern   tokens when training ended   tokens when encoded"]
    texts = [bpe_caller.read(each) for each in bpe_caller.documents(120, 0)]
    for name, pattern in (("GPT2", bpe.GPT2), ("GPT4", bpe.GPT4), ("GPT4O", bpe.GPT4O), ("None", None)):
        patient = helper.train(texts, 500, pattern)
        healthy = bpe.Tokenizer(patient.merges, pattern)
        counts = [sum(len(it.encode(text)) for text in texts) for it in (healthy, patient)]
        lines.append(f"{name:<9}{counts[0]:>27}{counts[1]:>22}")
    return Evidence("\n".join(lines))


def whole_words(helper, caller):
    """Ids with merges that were written by hand, and with merges that were learnt."""
    letters = {letter: ord(bpe.spell(letter)) for letter in "abc"}
    merges = [(letters["b"], letters["c"]), (letters["a"], letters["b"]), (257, letters["c"])]
    lines = ["merges, by hand: b+c, a+b, ab+c"]
    for word in ("abc", "ab", "aabc"):
        cuts = [_cut(module.Tokenizer(merges), word) for module in (bpe, helper)]
        lines.append(f"    {word:<6} healthy {cuts[0]:<8} patient {cuts[1]}")
    patient = helper.Tokenizer(_healthy().merges, bpe_caller.PATTERN)
    words = {w for each in bpe_caller.documents(300, 9) for w in bpe.split(bpe_caller.read(each), bpe.GPT4)}
    same = sum(_healthy().encode(word) == patient.encode(word) for word in words)
    return Evidence("\n".join([*lines, f"merges that were learnt: {same} of {len(words)} words have the same ids"]))


def specials(helper, caller):
    """What texts with special tokens become, where these are allowed and where not."""
    names = ["<|end|>", "<|end|>er"]
    lines = []
    for text, allowed in (("over<|end|>", "all"), ("<|end|>er", "all"), (TYPED, ())):
        for name, module in (("healthy", bpe), ("patient", helper)):
            it = module.Tokenizer(_healthy().merges, bpe_caller.PATTERN, names)
            lines.append(f"{text!r}, allowed={allowed!r}: {name} {_cut(it, text, allowed)}")
    return Evidence("\n".join(lines))


def streamed(helper, caller):
    """Answers as they are shown, token by token, and whole."""
    patient = helper.Tokenizer(_healthy().merges, bpe_caller.PATTERN)
    lines = []
    for text in ("A gate.", "naïve", "価格は12円", "thanks 🙂👍🏽"):
        ids = patient.encode(text)
        lines.append(f"whole: {patient.decode(ids)!r:<20} token by token: {list(patient.decode_stream(ids))}")
    return Evidence("\n".join(lines))


def remembered(helper, caller):
    """How many words a tokenizer keeps, after more and more different ones. ROOM is set to 1,000 in both files."""
    lines = ["ROOM = 1000 in both files", "different words encoded   kept by the healthy   by the patient   ids"]
    rooms = [module.ROOM for module in (bpe, helper)]
    bpe.ROOM = helper.ROOM = 1000
    try:
        pair = bpe.Tokenizer(_healthy().merges), helper.Tokenizer(_healthy().merges)
        for n in (500, 2000, 8000, 32000):
            same = all(pair[0].encode(f"w{i:x}") == pair[1].encode(f"w{i:x}") for i in range(n))
            kept = [len(it._words) for it in pair]
            lines.append(f"{n:>23}{kept[0]:>22}{kept[1]:>17}   {'the same' if same else 'others'}")
    finally:
        bpe.ROOM, helper.ROOM = rooms
    return Evidence("\n".join(lines))


def prompts(helper, caller):
    """A question's prompt."""
    lines = []
    for name, program in (("healthy", bpe_caller), ("patient", caller)):
        tokenizer = program.learn()
        ids = program.prompt(tokenizer, "Where's my kettle?")
        lines.append(f"{name}: {' '.join(repr(tokenizer.decode([i])) for i in ids)}")
    return Evidence("\n".join(lines))


def rows(helper, caller):
    """What stands in the rows: how many documents, and the first three that differ."""
    tokenizer = caller.learn()
    some = caller.documents(60, 7)
    packed = caller.pack(tokenizer, some)
    found, wanted = caller.unpack(tokenizer, packed), [bpe_caller.read(each) for each in some]
    healthy = bpe_caller.unpack(_healthy(), bpe_caller.pack(_healthy(), some))
    lines = [f"{len(some)} documents in {packed.size} tokens, ids up to {packed.max()} of {len(tokenizer.vocab)}"]
    lines.append(f"whole documents in the rows: {len(found)} (healthy: {len(healthy)})")
    other = [(a, b) for a, b in zip(found, wanted, strict=False) if a != b]
    lines.append(f"that differ from what was packed: {len(other)}")
    lines += [f"    {a[:70]!r} was\n    {b[:70]!r}" for a, b in other[:3]]
    new = caller.documents(60, 11)
    report = caller.bytes_per_token(tokenizer, new), bpe_caller.bytes_per_token(_healthy(), new)
    return Evidence(
        "\n".join([*lines, f"bytes a token on other documents: {report[0]:.2f} (healthy: {report[1]:.2f})"])
    )


def rows_and_prompts(helper, caller):
    """The same texts in rows and in prompts, and whether documents come back from the rows."""
    lines = ["tokens of         in a row: healthy   patient   in a prompt: healthy   patient"]
    programs = [(bpe_caller, _healthy()), (caller, caller.learn())]
    for text in ("A gate, please", "the café table", "größer", "यह दीपक", "価格は"):
        in_rows = [len(it.encode(its, text.encode())) - 1 for it, its in programs]
        in_prompts = [len(it.prompt(its, text)) - 4 for it, its in programs]
        lines.append(f"{text!r:<18}{in_rows[0]:>17}{in_rows[1]:>10}{in_prompts[0]:>23}{in_prompts[1]:>10}")
    some = caller.documents(60, 7, ["English", "German", "Hindi", "Japanese"])
    found = caller.unpack(programs[1][1], caller.pack(programs[1][1], some))
    same = sum(
        unicodedata.normalize("NFC", text) == bpe_caller.read(each) for text, each in zip(found, some, strict=False)
    )
    return Evidence("\n".join([*lines, f"of {len(found)} whole documents in the rows {same} come back as they were"]))


def report(helper, caller):
    """Bytes per token by language."""
    lines = ["bytes a token    healthy   patient   tokens: healthy   patient"]
    tokenizers = _healthy(), caller.learn()
    for language in bpe_caller.SENTENCES:
        some = bpe_caller.documents(40, 13, [language])
        values = [it.bytes_per_token(its, some) for it, its in zip((bpe_caller, caller), tokenizers, strict=True)]
        counts = [sum(len(its.encode(bpe_caller.read(each))) for each in some) for its in tokenizers]
        lines.append(f"{language:<15}{values[0]:>9.2f}{values[1]:>10.2f}{counts[0]:>18}{counts[1]:>10}")
    return Evidence("\n".join(lines))


def forms(helper, caller):
    """Two documents that look the same, and how often each token of 'café' stands in the rows."""
    lines = []
    for name, program in (("healthy", bpe_caller), ("patient", caller)):
        tokenizer = program.learn()
        for form in ("NFC", "NFD"):
            text = unicodedata.normalize(form, "The café table isn't here.")
            ids = program.encode(tokenizer, text.encode())
            lines.append(f"{name}: {len(ids):>2} tokens: {_cut(tokenizer, tokenizer.decode(ids[:-1]))}")
    return Evidence("\n".join(lines))


def uploads(helper, caller):
    """A text that comes in chunks, and the number of its tokens."""
    text = "".join(bpe_caller.read(each) for each in bpe_caller.documents(30, 17))
    lines = [f"a text of {len(text)} characters: {len(_healthy().encode(text))} tokens in one chunk", "chunks of"]
    for size in (3, 16, 64, 256):
        chunks = [text[at : at + size] for at in range(0, len(text), size)]
        found = [len(it.upload(it.learn(), chunks)) for it in (bpe_caller, caller)]
        lines.append(f"{size:>9} characters: healthy {found[0]} tokens, patient {found[1]}")
    return Evidence("\n".join(lines))


def counted_and_merged(helper, caller):
    """How often the first pair was counted, and how often it could be merged."""
    lines = []
    for text in ("aaaaabcbcbc", "--------- x y x y x y", "abcabcabc"):
        word = helper.spell(text)
        counts = helper.count_pairs({word: 1})
        first = helper.learn([text], 1)[0]
        shown = helper.unspell(first).decode()
        lines.append(f"{text!r}: {shown!r} first, counted {counts[first]} times, merged {word.count(first)} times")
        most = sorted(counts, key=lambda pair: (-word.count(pair), pair))[0]
        lines.append(f"    most often merged would be {helper.unspell(most).decode()!r}: {word.count(most)} times")
    return Evidence("\n".join(lines))


def joined(helper, caller):
    """The tokens of two texts, and of both in one."""
    tokenizer = caller.learn()
    lines = []
    for a, b in (("The kett", "le isn't"), ("it costs ", "12 euros"), ("we'", "ve sold"), ("The", " kettle")):
        apart, whole = tokenizer.encode(a) + tokenizer.encode(b), tokenizer.encode(a + b)
        lines.append(f"{_cut(tokenizer, a)} and {_cut(tokenizer, b)}; in one: {_cut(tokenizer, a + b)}")
        assert tokenizer.decode(apart) == tokenizer.decode(whole)
    return Evidence("\n".join(lines))


def never_used(helper, caller):
    """Tokens that the documents never hold, although they were learnt from these."""
    tokenizer = caller.learn()
    used = Counter(i for each in caller.documents(400, caller.LEARNT) for i in caller.encode(tokenizer, each))
    unused = [i for i in range(256, 256 + len(tokenizer.merges)) if not used[i]]
    lines = [f"of {len(tokenizer.merges)} merges, {len(unused)} make tokens that never stand in the 400 documents"]
    for i in [i for i in unused if tokenizer.vocab[i].decode(errors="replace").isprintable()][:60:9]:
        longer = [k for k, token in enumerate(tokenizer.vocab) if tokenizer.vocab[i] in token and used[k]]
        most = sorted(longer, key=lambda k: -used[k])[:3]
        within = ", ".join(f"{tokenizer.vocab[k].decode(errors='replace')!r} {used[k]} times" for k in most)
        lines.append(f"    {tokenizer.vocab[i].decode(errors='replace')!r} does not; {within}")
    return Evidence("\n".join(lines))


@functools.cache
def _healthy():
    return bpe_caller.learn()


def _cut(tokenizer, text, allowed=()):
    """The tokens of a text, with bars between."""
    shown = (tokenizer.vocab[i].decode(errors="replace") for i in tokenizer.encode(text, allowed))
    return "|".join(shown).replace("\n", "↵")


def _merges(merges, n=10):
    """The first merges, as texts."""
    made = [bpe.unspell(chr(i)) for i in range(256)]
    for a, b in merges:
        made.append(made[ord(a)] + made[ord(b)])
    return " ".join(repr(token.decode(errors="replace")) for token in made[256 : 256 + n])


def _seconds(call):
    times = []
    for _ in range(3):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def _lines(sizes, curves, xlabel, ylabel):
    figure = Figure(figsize=(4.6, 3.1), layout="constrained")
    axis = figure.subplots()
    axis.plot(sizes, curves["healthy"], color=WORKING, marker="o", label="healthy")
    axis.plot(sizes, curves["patient"], color=BROKEN, marker="s", linestyle=DASHED, label="patient")
    axis.set(xlabel=xlabel, ylabel=ylabel, ylim=(0, None))
    axis.legend(frameon=False)
    return figure
