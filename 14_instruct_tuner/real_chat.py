"""SmolLM2-135M-Instruct (4-bit weights) in conversation: its template, what it answers, and where an answer ends.

    tokenizer = model_and_tokenizer()[1]
    ids = render([("user", tokenizer.encode("What is a token?"))], own_template(), reply=True).ids
    cut(tokenizer.decode(answers(model, [ids])[0]))

Answers are greedy, and end before another turn, as a caller would cut them.
"""

import functools
import re
from collections.abc import Sequence

from instruct import Template

from shared.generation import generate, greedy
from shared.gguf_tokenizer import END, START
from shared.smollm2 import load_smollm2
from shared.tiny_lm import TinyLM

MOST = 32  # new tokens
ENDS_TEXT = "<|endoftext|>"
# what begins another turn
TURNS = (START, "\nQ:", "\nQuestion:", "\nUser:", "\nuser\n", "\nhuman\n", "\nInstruction:", "\n###")


@functools.cache
def model_and_tokenizer():
    """The real model, read once in a process, and its tokenizer."""
    return load_smollm2()


def own_template() -> Template:
    """The model's own template, as `instruct` writes one. A message must not begin with white space, which would be
    encoded together with the newline before it."""
    encode = model_and_tokenizer()[1].encode
    specials = model_and_tokenizer()[1].specials
    opens = {role: [specials[START], *encode(f"{role}\n")] for role in ("system", "user", "assistant")}
    closes = {role: [specials[END], *encode("\n")] for role in opens}
    return Template([], opens, closes, stop=specials[END], padding=specials[ENDS_TEXT])


def answers(model: TinyLM, prompts: Sequence[Sequence[int]], most: int = MOST) -> list[list[int]]:
    """Greedy, until the stop token or the end of a text."""
    specials = model_and_tokenizer()[1].specials
    return generate(model, prompts, most, rules=[greedy], stop=[specials[END], specials[ENDS_TEXT]])


def cut(text: str) -> str:
    """An answer up to the first mark of another turn or a stop that is spelled, without white space around it."""
    at = [text.find(mark) for mark in (*TURNS, END) if mark in text]
    return text[: min(at, default=len(text))].strip()


def words(text: str) -> list[str]:
    """The words of a text, in lower case."""
    return re.findall(r"[a-z0-9']+", text.lower())
