"""The byte-level BPE vocabulary in a GGUF file, with everything refused that would give other ids than its model's.

    vocabulary = read_vocabulary("SmolLM2-135M-Instruct.Q4_1.gguf")
    vocabulary.tokens[253], vocabulary.merges[0]        # "Ġa", ("Ġ", "t")

Tokens are spelled as GPT-2's files spell them: one visible sign for each byte ("Ġ" is the space). Lesson 01 makes its
own tokenizer of a vocabulary, `shared.gguf_tokenizer` one of the library `tokenizers`.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from shared.gguf_files import read_gguf_tokenizer

VISIBLE = [*range(33, 127), *range(161, 173), *range(174, 256)]
HIDDEN = [byte for byte in range(256) if byte not in VISIBLE]
BYTE = {chr(byte): byte for byte in VISIBLE} | {chr(256 + i): byte for i, byte in enumerate(HIDDEN)}  # of each sign

NORMAL, CONTROL = 1, 3  # token types; the others are found in a text, or left out of it, by rules of their own
WORDS = {"ggml.model": "gpt2", "ggml.pre": "smollm"}
LISTS = {"ggml.tokens": str, "ggml.token_type": int, "ggml.merges": str}
OFF = ["add_bos_token", "add_eos_token", "add_sep_token", "add_space_prefix", "remove_extra_whitespaces"]


@dataclass(frozen=True)
class Vocabulary:
    """tokens: by id. specials: the control tokens among them, with their ids. merges: in order of rank.

    chat_template: how a conversation becomes a text, written for Jinja; None if the file has none.
    """

    tokens: list[str]
    specials: dict[str, int]
    merges: list[tuple[str, str]]
    chat_template: str | None


def read_vocabulary(path: str | Path) -> Vocabulary:
    """The vocabulary of a GGUF file whose texts are cut as SmolLM2's are: digits one by one, all else as in GPT-2.

    Raises ValueError for a file that cannot be read, for a setting that is missing, of another value or not known here,
    and, by name, for a token or a merge that does not fit the others.
    """
    fields, source = read_gguf_tokenizer(Path(path).expanduser()), f"tokenizer.* of {path}"
    _check_settings(fields, source)
    tokens, types, lines = (fields[name] for name in LISTS)
    _check_tokens(tokens, types, source)
    specials = {token: i for i, (token, kind) in enumerate(zip(tokens, types, strict=True)) if kind == CONTROL}
    if wrong := {"", "all"} & specials.keys():
        raise ValueError(
            f"a control token is {wrong.pop()!r} in {source}: expected any text but those two, '' and 'all'"
        )
    merges = _merges(lines, set(tokens) - specials.keys(), source)
    return Vocabulary(tokens, specials, merges, fields.get("chat_template"))


def _check_settings(fields: dict, source: str) -> None:
    for name in [*WORDS, *LISTS]:
        if name not in fields:
            raise ValueError(f"there is no {name!r} among {sorted(fields)}, the {source}")
    for name, value in fields.items():
        if name in LISTS:
            fits = isinstance(value, list) and all(type(each) is LISTS[name] for each in value)
            expected = f"a list of {LISTS[name].__name__}"
        elif name in WORDS:
            fits, expected = value == WORDS[name], f"{WORDS[name]!r}, the only kind that is read here"
        elif name.removeprefix("ggml.") in OFF:
            fits, expected = value is False, "false: nothing is added to a text and nothing taken away"
        elif name == "chat_template":
            fits, expected = isinstance(value, str), "a text"
        else:
            fits, expected = name.endswith("_token_id"), "no such setting: it is not known here what it changes"
        if not fits:
            raise ValueError(f"{name} is {repr(value)[:80]} in {source}: expected {expected}")


def _check_tokens(tokens: list[str], types: list[int], source: str) -> None:
    if len(types) != len(tokens):
        raise ValueError(f"{len(tokens)} tokens with {len(types)} types in {source}: expected a type for each")
    if len(set(tokens)) < len(tokens):
        raise ValueError(f"{Counter(tokens).most_common(1)[0][0]!r} stands twice among the tokens in {source}")
    for i, (token, kind) in enumerate(zip(tokens, types, strict=True)):
        if kind not in (NORMAL, CONTROL):
            wanted = f"expected {NORMAL} (normal) or {CONTROL} (control)"
            raise ValueError(f"token {i}, {token!r}, is of type {kind} in {source}: {wanted}")
        if kind == NORMAL and len(token) == 1 and token not in BYTE:
            raise ValueError(f"token {i} is {token!r} in {source}: expected one of the 256 signs that stand for bytes")


def _merges(lines: list[str], tokens: set[str], source: str) -> list[tuple[str, str]]:
    """Pairs of tokens. Each token longer than a byte must be made by one merge, of two that are made before."""
    merges, known = [], {token for token in tokens if len(token) == 1}
    for rank, line in enumerate(lines):
        first, _, second = line.partition(" ")
        made = first + second
        if first not in known or second not in known or made in known or made not in tokens:
            wanted = "expected two tokens that are known by then, and together a token that is not"
            raise ValueError(f"merge {rank} is {line!r} in {source}: {wanted}")
        merges.append((first, second))
        known.add(made)
    if left := tokens - known:
        raise ValueError(f"{min(left)!r} is a token that no merge makes, in {source}")
    return merges
