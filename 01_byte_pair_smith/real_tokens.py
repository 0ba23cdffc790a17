"""How a real model reads its tokens: SmolLM2-135M-Instruct (4-bit weights). Nothing is trained.

    after("The capital of France is ")                  # probabilities of the next token, (49152,)
    said(PROMPTS["capitals"], " ")                      # of the word and of digits, with a space behind each prompt
    kept, fits = healed("The capital of France is ")    # token healing: the ids that stay, the tokens that may follow
    read_after_cut("letter", 0, "longest")              # bits of 500 bytes in other tokens, and of what follows them

Every text is read behind `<|endoftext|>`, which stands between two texts in training. The probability of one cut of a
text is a lower bound of the text's: that is the sum over all its cuts.
"""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from real_vocabulary import Ids, cut, pieces, token_ids
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from shared.hooks import hooked
from shared.smollm2 import load_smollm2
from shared.texts import texts

ENDS = "<|endoftext|>"
CONTEXT, TARGET = 500, 300  # bytes of a text that are cut in other ways, and of what follows them, by rank
ROWS = 64  # prompts in one pass


@functools.cache
def model_and_tokenizer():
    """The real model, read once in a process, and its tokenizer."""
    return load_smollm2()


def behind_end(ids: Sequence[int]) -> torch.Tensor:
    """Ids behind the token that ends a text: (1, tokens + 1)."""
    return torch.tensor([[model_and_tokenizer()[1].specials[ENDS], *ids]])


@torch.no_grad()
def log_probabilities(rows: Sequence[Ids], at: Sequence[int]) -> torch.Tensor:
    """Of the next token behind the first `at` tokens of each row, which begins behind ENDS: (rows, vocabulary)."""
    model, _ = model_and_tokenizer()
    each = [behind_end(row)[0] for row in rows]
    found = []
    for i in range(0, len(rows), ROWS):
        padded = pad_sequence(each[i : i + ROWS], batch_first=True)  # on the right, where no token before it looks
        with hooked(model, {"norm": lambda x, _, i=i: x[range(len(x)), at[i : i + ROWS]][:, None]}):
            found.append(model(padded)[:, 0].log_softmax(dim=-1))
    return torch.cat(found)


def after(text: str) -> torch.Tensor:
    """Probabilities of the next token behind a text, (vocabulary,)."""
    ids = model_and_tokenizer()[1].encode(text)
    return log_probabilities([ids], [len(ids)])[0].exp()


@torch.no_grad()
def nats(ids: Ids) -> torch.Tensor:
    """Of each token of a text, (tokens,)."""
    row = behind_end(ids)
    return F.cross_entropy(model_and_tokenizer()[0](row[:, :-1])[0], row[0, 1:], reduction="none")


def nats_of(ends: Sequence[Ids], words: Sequence[Ids]) -> list[float]:
    """Of words behind texts, each the sum over its tokens."""
    rows = [
        ([*end, *word], len(end) + i, token)
        for end, word in zip(ends, words, strict=True)
        for i, token in enumerate(word)
    ]
    found = log_probabilities([row for row, _, _ in rows], [at for _, at, _ in rows])
    each = iter((-found[range(len(rows)), [token for _, _, token in rows]]).tolist())
    return [sum(next(each) for _ in word) for word in words]


# The trailing space

WEEK = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
YEAR = ["January", "February", "March", "April", "May", "June"]
YEAR += ["July", "August", "September", "October", "November", "December"]
NUMBERS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]


class Prompt(NamedTuple):
    """A text, and the word that is expected behind it and a space."""

    text: str
    word: str


def filled(template: str, pairs: str) -> list[Prompt]:
    """A template with each of the pairs "hot cold, big small"."""
    return [Prompt(template.format(a), b) for a, b in map(str.split, pairs.split(", "))]


def windows(words: Sequence[str]) -> list[Prompt]:
    """Three words of a list that all know, and the fourth."""
    return [Prompt(", ".join(words[i : i + 3]) + ",", words[i + 3]) for i in range(len(words) - 3)]


CAPITALS = "France Paris, Italy Rome, Germany Berlin, Spain Madrid, Japan Tokyo, Egypt Cairo, Russia Moscow, "
CAPITALS += "England London, Greece Athens, Ireland Dublin"
OPPOSITES = "hot cold, big small, up down, black white, good bad, day night, left right, wet dry, fast slow, early late"
YOUNG = (
    "dog puppy, cat kitten, cow calf, sheep lamb, horse foal, bear cub, duck duckling, goat kid, pig piglet, deer fawn"
)
PROMPTS = {
    "capitals": filled("The capital of {} is", CAPITALS),
    "opposites": filled("The opposite of the word {} is the word", OPPOSITES),
    "young": filled("A young {} is called a", YOUNG),
    "weekdays": windows(WEEK),
    "months": windows(YEAR),
    "numbers": windows(NUMBERS),
    "digits": windows([str(n) for n in range(10)]),  # the word is a digit: here the space should do no harm
}
TRAILS = {"nothing": "", "a space": " ", "a comma": ",", "a line end": "\n"}


def digits() -> torch.Tensor:
    """The ids of the ten digits, (10,)."""
    return torch.tensor([token_ids()[str(n).encode()] for n in range(10)])


def healed(text: str) -> tuple[Ids, torch.Tensor]:
    """Token healing: the ids of a text but the last, and whether a token's bytes begin with those of the last,
    (vocabulary,): the only tokens with which the model may go on. Raises ValueError for a text without tokens."""
    _, tokenizer = model_and_tokenizer()
    if not (ids := tokenizer.encode(text)):
        raise ValueError("the text is empty: expected at least one token to cut off")
    begun, fits = tokenizer.vocab[ids[-1]], torch.zeros(tokenizer.vocab_size, dtype=torch.bool)
    fits[[i for token, i in token_ids().items() if token.startswith(begun)]] = True
    return ids[:-1], fits


def said(prompts: Sequence[Prompt], trail: str, heal: bool = False) -> dict[str, list]:
    """Of each prompt with something behind it: the probabilities of the expected word and of a digit, and whether the
    most likely token begins the word, or is a digit.

    The word has a space before it unless white space trails. A digit counts alone and, where no white space trails,
    behind a space as well: it is a token of its own, as the digit is. heal: cut off the last token, as `healed` does.
    """
    _, tokenizer = model_and_tokenizer()
    ends, bare = [tokenizer.encode(it.text + trail) for it in prompts], trail[-1:].isspace() and not heal
    words = [tokenizer.encode(it.word if bare else " " + it.word) for it in prompts]
    fits = torch.ones(1, tokenizer.vocab_size, dtype=torch.bool)
    if heal:
        ends, each = zip(*(healed(it.text + trail) for it in prompts), strict=True)
        fits = torch.stack(each)
    first = log_probabilities(ends, [*map(len, ends)])
    allowed = first.masked_fill(~fits, -math.inf).logsumexp(dim=-1)  # the share of the tokens that fit
    space = token_ids()[b" "]
    spaced = log_probabilities([[*end, space] for end in ends], [len(end) + 1 for end in ends])
    digit, top = first[:, digits()].logsumexp(dim=-1).exp(), first.masked_fill(~fits, -math.inf).argmax(dim=-1)
    if not bare:
        digit += (first[:, space] + spaced[:, digits()].logsumexp(dim=-1)).exp()
        top = torch.where(top == space, spaced.argmax(dim=-1), top)
    begins = [t == next(i for i in word if i != space) for t, word in zip(top.tolist(), words, strict=True)]
    return {
        "word": (allowed.neg() - torch.tensor(nats_of(ends, words))).exp().tolist(),
        "digit": digit.tolist(),
        "begins": begins,
        "begins_digit": torch.isin(top, digits()).tolist(),
    }


@torch.no_grad()
def at_borders(text: str, before: int = 32, places: int = 16) -> dict[str, list[float]]:
    """At borders of words in a text: the probability of a digit as the next token, with each of TRAILS behind the
    `before` tokens that end there."""
    model, tokenizer = model_and_tokenizer()
    ids = tokenizer.encode(text)
    ends = [i for i in range(before, len(ids)) if tokenizer.vocab[ids[i]][:1] == b" "]
    ends = [ends[i * len(ends) // places] for i in range(places)]
    cache, found = model.new_cache(places, before + 2), {}
    first = model(torch.cat([behind_end(ids[i - before : i]) for i in ends]), cache, last=1)
    for name, trail in TRAILS.items():
        rows = torch.tensor([tokenizer.encode(trail)] * places, dtype=torch.long)
        last = model(rows, cache, last=1) if trail else first
        found[name] = last[:, -1].softmax(dim=-1)[:, digits()].sum(dim=-1).tolist()
        cache.step_back(rows.shape[1])
    return found


# Other cuts


def window(name: str, start: int) -> tuple[str, str]:
    """CONTEXT bytes or a few more of a text from its pre-token at `start` bytes or behind, and TARGET bytes or a few
    more that follow. Raises ValueError where the text is too short."""
    parts, found, at = pieces(texts()[name]), [], 0
    for length in (start, CONTEXT, TARGET):
        begun, size = at, 0
        while at < len(parts) and (size < length or (length and not parts[at].startswith(b" "))):
            size, at = size + len(parts[at]), at + 1
        if size < length:
            raise ValueError(f"{name!r} has no {CONTEXT + TARGET} bytes from {start} on: expected a smaller start")
        found.append(b"".join(parts[begun:at]).decode())
    return found[1], found[2]


def read_after_cut(name: str, start: int, how: str, seed: int = 0, other: str = "") -> dict:
    """A window of a text, its context in other tokens: bits per byte of the context and of the target behind it, and
    tokens of the context.

    how: one of CUTS; "none" for no context. other: a text whose window is the context, in place of its own.
    """
    context, target = window(name, start)
    if other:
        context, _ = window(other, start)
    ids = cut(context, how, seed) if how != "none" else []
    bits = nats([*ids, *cut(target, "by rank")]).double() / math.log(2)
    found = {"tokens": len(ids), "target": bits[len(ids) :].sum().item() / len(target.encode())}
    return found | ({"context": bits[: len(ids)].sum().item() / len(context.encode())} if ids else {})


def one_word_apart(text: str) -> list[Ids]:
    """All cuts of a text in which one token of the cut by rank is two others; the cut by rank is the first."""
    ids = cut(text, "by rank")
    vocab = model_and_tokenizer()[1].vocab
    found = [ids]
    for i, token in enumerate(vocab[j] for j in ids):
        for at in range(1, len(token)):
            if token[:at] in token_ids() and token[at:] in token_ids():
                found.append([*ids[:i], token_ids()[token[:at]], token_ids()[token[at:]], *ids[i + 1 :]])
    return found


@torch.no_grad()
def total_nats(rows: Sequence[Ids]) -> torch.Tensor:
    """Of texts of several tokens, each whole: (rows,)."""
    each, found = [behind_end(row)[0] for row in rows], []
    for i in range(0, len(rows), ROWS):
        padded = pad_sequence(each[i : i + ROWS], batch_first=True, padding_value=-100)  # which is left out
        logits = model_and_tokenizer()[0](padded[:, :-1].clamp(min=0))
        found.append(F.cross_entropy(logits.mT, padded[:, 1:], reduction="none").sum(dim=-1))
    return torch.cat(found)
