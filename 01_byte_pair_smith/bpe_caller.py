"""A program around bpe.py: documents become rows of ids that a model is trained on, and questions become its prompts.

Documents come as UTF-8, in several languages and in either form of accented letters. Each becomes its ids, with END
behind them; all of them, one behind the other, are cut into rows of equal length.
"""

import random
import unicodedata

import bpe
import numpy as np

BEGIN, END, USER, ANSWER = SPECIALS = ["<|begin|>", "<|end|>", "<|user|>", "<|answer|>"]
VOCAB_SIZE, PATTERN = 640, bpe.GPT4
ROW, DTYPE = 32, np.uint16  # tokens in a row, and how an id is stored
LEARNT, MEASURED = 0, 1  # seeds: the documents to learn from, and those to measure on

THINGS = ["kettle", "gate", "café table", "lantern", "knife", "weathervane", "naïve sketch", "hinge"]
SENTENCES = {
    "English": ["The {thing} isn't here yet; it costs {n} euros. ", "We've sold {n} of them, and they'll sell again. "],
    "lists": ["\n  - {thing}: {n} pieces", "\n    1. {thing} ({n} mm)\n"],
    "code": ["\n    if stock['{thing}'] < {n}:\n        return None\n", "\nprice = {n} * 1.19  # ----------\n"],
    "German": ["Der Schmied weiß, dass {n} Nägel übrig sind. ", "Die Tür kostet {n} Euro, größer wäre teurer. "],
    "Hindi": ["{hindi} ने {n} कीलें बनाईं। ", "यह दीपक {n} रुपये का है, {hindi}। "],
    "Japanese": ["{kanji}の価格は{n}円です。", "鍛冶屋は{kanji}を{n}本作りました。"],
    "chat": ["thanks 🙂👍🏽 {sign} ", "where's my {thing}??? {sign} "],
}


def documents(n, seed, languages=tuple(SENTENCES)):
    """n documents of a few sentences each, as UTF-8; every fourth has its accents as characters of their own."""
    draw = random.Random(seed)
    texts = []
    for i in range(n):
        sentences = SENTENCES[draw.choice(languages)]
        text = "".join(_filled(draw.choice(sentences), draw) for _ in range(draw.randint(2, 5)))
        texts.append(unicodedata.normalize("NFC" if i % 4 else "NFD", text).encode("utf-8"))
    return texts


def _filled(sentence, draw):
    """A sentence with a thing, a number, and rare characters: a name in Hindi, two of Chinese origin, an animal."""
    hindi, kanji = (
        "".join(chr(draw.randint(first, last)) for _ in range(2)) for first, last in ((0x915, 0x939), (0x4E00, 0x9F00))
    )
    number, sign = draw.randint(1, 99_999), chr(draw.randint(0x1F400, 0x1F43F))
    return sentence.format(thing=draw.choice(THINGS), n=number, hindi=hindi, kanji=kanji, sign=sign)


def read(document):
    """The text of a document."""
    return unicodedata.normalize("NFC", document.decode("utf-8"))


def learn():
    """The program's tokenizer."""
    return bpe.train(map(read, documents(400, LEARNT)), VOCAB_SIZE, PATTERN, SPECIALS)


def encode(tokenizer, document):
    """The ids of a document, and END."""
    return [*tokenizer.encode(read(document)), tokenizer.specials[END]]


def pack(tokenizer, some):
    """Documents as rows of ids, (rows, ROW). What does not fill the last row is left out."""
    ids = [i for document in some for i in encode(tokenizer, document)]
    rows = len(ids) // ROW
    return np.array(ids[: rows * ROW]).astype(DTYPE).reshape(rows, ROW)


def unpack(tokenizer, rows):
    """The texts of the documents that stand in rows, up to the last that is whole."""
    texts, ids = [], []
    for i in rows.flatten().tolist():
        ids.append(i)
        if i == tokenizer.specials[END]:
            texts.append(tokenizer.decode(ids[:-1]))
            ids = []
    return texts


def prompt(tokenizer, question):
    """The ids that a model goes on from, to answer a question."""
    special = tokenizer.specials
    return [special[BEGIN], special[USER], *tokenizer.encode(question), special[END], special[ANSWER]]


def upload(tokenizer, chunks):
    """The ids of a text that comes in chunks."""
    return list(tokenizer.encode_stream(chunks))


def bytes_per_token(tokenizer, some):
    """How many bytes of the documents a token stands for, on average."""
    ids = [i for document in some for i in tokenizer.encode(read(document))]
    return sum(len(tokenizer.vocab[i]) for i in ids) / len(ids)


if __name__ == "__main__":
    learnt = learn()
    new = documents(200, MEASURED)
    packed = pack(learnt, new)
    print(f"{len(learnt.vocab)} tokens, {bytes_per_token(learnt, new):.2f} bytes a token on new documents")
    print(f"{len(new)} documents in {len(packed)} rows of {ROW}; the first: {unpack(learnt, packed)[0]!r}")
    print("a prompt:", [learnt.decode([i]) for i in prompt(learnt, "Where's my kettle?")])
