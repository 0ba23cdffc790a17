"""The real model's tokenizer: a GGUF file's vocabulary in the library `tokenizers`, which encodes at the speed of Rust.

    tokenizer = read_tokenizer("SmolLM2-135M-Instruct.Q4_1.gguf")
    ids = tokenizer.encode("The capital of France")
    tokenizer.decode(ids), [tokenizer.names[i] for i in ids]    # the text, and how to write its tokens beside a figure
    ids = tokenizer.chat([("user", "What is a token?")])        # up to where the assistant's answer begins

Lesson 01 writes by hand what the library does here.
"""

import hashlib
import re
from collections.abc import Collection, Iterable, Sequence
from functools import cached_property
from operator import index
from pathlib import Path

import tokenizers
from tokenizers import models, pre_tokenizers

from shared.gguf_vocabulary import BYTE, Vocabulary, read_vocabulary

START, END = "<|im_start|>", "<|im_end|>"
SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
TEMPLATE = "872be49dbb638044ad01b60388f48d469ff2980e5f0dccdc22ec907db54d0788"  # sha256 of what `chat` writes by hand


def read_tokenizer(path: str | Path) -> "GGUFTokenizer":
    """The tokenizer of a GGUF file. Raises what `read_vocabulary` raises."""
    return GGUFTokenizer(read_vocabulary(path))


class GGUFTokenizer:
    """vocab: the bytes of each id; vocab_size: how many there are. specials: control tokens with their ids."""

    def __init__(self, vocabulary: Vocabulary):
        self.specials, self.vocab_size = vocabulary.specials, len(vocabulary.tokens)
        self.vocab = [
            token.encode() if token in self.specials else bytes(map(BYTE.__getitem__, token))
            for token in vocabulary.tokens
        ]
        self._template = vocabulary.chat_template
        plain = {token: i for i, token in enumerate(vocabulary.tokens) if token not in self.specials}
        self._single = b"".join(self.vocab[i] for token, i in plain.items() if len(token) == 1)
        self._bpe = tokenizers.Tokenizer(models.BPE(plain, vocabulary.merges))
        # Digits one by one, then GPT-2's pattern on what lies between them. The library is told of no special token,
        # so that there is none for it to find in a text.
        digits, gpt2 = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
        self._bpe.pre_tokenizer = pre_tokenizers.Sequence([digits, gpt2])

    def encode(self, text: str, allowed: Collection[str] | str = ()) -> list[int]:
        """The ids of a text.

        allowed: which specials may stand for themselves, "all" for all; any other is text like any text, so that
        nobody who types one is obeyed. Raises ValueError for specials that do not exist, for a lone surrogate, and for
        a byte that has no token, which the library would leave out.
        """
        if not isinstance(text, str):
            raise ValueError(f"the text is of type {type(text).__name__}: expected a str")
        names = self._names(allowed)
        if not names:
            return self._encode_plain(text)
        longest_first = sorted(names, key=len, reverse=True)
        ids = []
        for i, part in enumerate(re.split(f"({'|'.join(map(re.escape, longest_first))})", text)):
            ids += [self.specials[part]] if i % 2 else self._encode_plain(part)  # text, special, text, ...
        return ids

    def _encode_plain(self, text: str) -> list[int]:
        try:
            unknown = text.encode().translate(None, delete=self._single)
        except UnicodeEncodeError as error:
            what = f"character {error.start} is {text[error.start]!r}, half of a surrogate pair"
            raise ValueError(f"{what}, which no UTF-8 text holds: mend how it was decoded") from error
        if unknown:
            raise ValueError(f"byte 0x{unknown[0]:02x} of the text has no token here: remove the character that has it")
        return self._bpe.encode(text, add_special_tokens=False).ids

    def _names(self, allowed: Collection[str] | str) -> Collection[str]:
        if not isinstance(allowed, Collection):
            raise ValueError(f'allowed is {allowed!r}: expected special tokens, or "all"')
        names = self.specials if allowed == "all" else [allowed] if isinstance(allowed, str) else allowed
        if unknown := [name for name in names if name not in self.specials]:
            raise ValueError(f"{unknown[0]!r} is no special token: there are {list(self.specials) or 'none'}")
        return names

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids, with specials as they are written. Where ids end within a character U+FFFD stands.

        Raises ValueError for an id that does not exist.
        """
        try:
            ids = list(map(index, ids))
        except TypeError as error:
            raise ValueError(f"{ids!r} are no ids: expected whole numbers") from error
        if wrong := [i for i in ids if not 0 <= i < self.vocab_size]:
            raise ValueError(f"{wrong[0]} is no id: expected 0 to {self.vocab_size - 1}")
        return b"".join(map(self.vocab.__getitem__, ids)).decode("utf-8", "replace")

    @cached_property
    def names(self) -> list[str]:
        r"""Token i as a reader would write it, no two alike: "␣the", "\n", "\xe2\x80" for a part of a character."""
        return [_name(token) for token in self.vocab]

    def chat(self, messages: Sequence[tuple[str, str]]) -> list[int]:
        """The ids of a conversation as SmolLM2 was trained on it, up to where the assistant's answer begins.

        messages: pairs (role, content), [("user", "What is a token?")]. A conversation that does not begin with a
        "system" message gets SmolLM2's own. Neither a role nor a content is read as special tokens. Raises ValueError
        for messages that are none, for a file with another template, and what `encode` raises.
        """
        if hashlib.sha256((self._template or "").encode()).hexdigest() != TEMPLATE:
            raise ValueError(f"the file's chat template is not SmolLM2's, which `chat` writes: {self._template!r}")
        if missing := {START, END} - self.specials.keys():
            raise ValueError(f"{missing.pop()!r} is no special token here: expected it, for the chat template has it")
        _check_messages(messages)
        if messages[0][0] != "system":
            messages = [("system", SYSTEM), *messages]
        start, end, newline = self.specials[START], self.specials[END], self.encode("\n")
        ids = []
        for role, content in messages:
            ids += [start, *self.encode(f"{role}\n{content}"), end, *newline]
        return [*ids, start, *self.encode("assistant\n")]


def _check_messages(messages: Sequence[tuple[str, str]]) -> None:
    if not isinstance(messages, list | tuple) or not messages:
        raise ValueError(f"messages are {messages!r}: expected a list of pairs (role, content), at least one")
    for message in messages:
        fits = isinstance(message, list | tuple) and len(message) == 2
        if not fits or not all(isinstance(each, str) for each in message):
            raise ValueError(f"a message is {message!r}: expected a pair (role, content) of two texts")


def _name(token: bytes) -> str:
    """A token as Python would write it between quotes, but that a space is "␣"."""
    text = token.replace(b"\\", rb"\\").decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else _escape(c) for c in text).replace(" ", "␣")


def _escape(character: str) -> str:
    r"""A character that cannot be seen; "\u00a0", not "\xa0", which is how a byte is written."""
    escape = character.encode("unicode_escape").decode()
    return escape if character.isascii() else escape.replace(r"\x", r"\u00")
