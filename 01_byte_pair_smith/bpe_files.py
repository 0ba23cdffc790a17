"""Tokenizers as files: one that a program reads, one that a person reads, GPT-2's merges, and tiktoken's ranks.

save(tokenizer, "prose.json")       # and prose.txt beside it, a line for each token
tokenizer = load("prose.json")      # refuses what was cut short or altered
tokenizer = load_gpt2("merges.txt")
tokenizer = load_tiktoken("cl100k_base.tiktoken", GPT4)
"""

import binascii
import hashlib
import json
from base64 import b64decode
from collections.abc import Sequence
from pathlib import Path

from bpe import BYTES, GPT2, PRINTABLE, Tokenizer, encode_word, spell

OTHERS = iter(range(256, 512))
SYMBOLS = [chr(byte if byte in PRINTABLE else next(OTHERS)) for byte in BYTES]  # how GPT-2's files write each byte


def save(tokenizer: Tokenizer, path: Path | str) -> None:
    """Write `path`, a JSON file that `load` reads, and beside it one for people, with the suffix .txt.

    Either replaces only what `save` itself has written. Raises ValueError, before anything is written, for a path that
    does not end in .json, and where another file stands at either place.
    """
    path, people = Path(path), Path(path).with_suffix(".txt")
    if path.suffix != ".json":
        raise ValueError(f"{path} does not end in .json, as a saved tokenizer does: choose {path.name}.json")
    kept = {
        "merges": [list(pair) for pair in tokenizer.merges],
        "pattern": tokenizer.pattern,
        "specials": list(tokenizer.specials),
    }
    lines = [f"{i}\t{token!r}" for i, token in enumerate(tokenizer.vocab)]
    for i, (a, b) in enumerate(tokenizer.merges, 256):
        lines[i] += f" = {tokenizer.vocab[a]!r} + {tokenizer.vocab[b]!r}"
    for file, ours in ((path, _is_json_of_ours), (people, lambda text: text.split("\n")[:256] == lines[:256])):
        if file.exists() and not (file.is_file() and ours(file.read_bytes().decode("utf-8", "replace"))):
            what = f"{file} is there already, and `save` did not write it"
            raise ValueError(f"{what}: move it away, or save under another name")
    path.write_text(json.dumps(kept | {"sha256": _digest(kept)}) + "\n", encoding="utf-8", newline="\n")
    people.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")


def _is_json_of_ours(text: str) -> bool:
    """It has what `save` writes, even if it was altered since."""
    try:
        return json.loads(text).keys() == {"merges", "pattern", "specials", "sha256"}
    except (ValueError, AttributeError):
        return False


def load(path: Path | str) -> Tokenizer:
    """The tokenizer that `save` wrote. Raises ValueError for a file that is missing, cut short, altered or no such."""
    try:
        kept = json.loads(Path(path).read_text(encoding="utf-8"))
        sha256 = kept.pop("sha256")
        merges, pattern, specials = kept["merges"], kept["pattern"], kept["specials"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} holds no tokenizer of ours ({error!r}): save it again") from error
    if sha256 != _digest(kept):
        raise ValueError(f"{path} was changed after it was saved, its checksum does not fit: save it again")
    return Tokenizer([(a, b) for a, b in merges], pattern, specials)


def load_gpt2(path: Path | str) -> Tokenizer:
    """GPT-2's tokenizer from its published merges, the file `vocab.bpe` or `merges.txt`: its ids are GPT-2's.

    Raises ValueError for a file that cannot be read or holds no merge and, with its number, for a line that is not two
    symbols known by then.
    """
    ids, merges = {symbol: i for i, symbol in enumerate(SYMBOLS)}, []
    for number, line in enumerate(_lines(path, "GPT-2's merges"), 1):
        if line.startswith("#version") or not line:
            continue
        symbols = line.split(" ")
        if len(symbols) != 2 or not set(symbols) <= ids.keys() or "".join(symbols) in ids:
            raise ValueError(f"{path}, line {number}: {line!r} is no new merge of two symbols that are known by then")
        merges.append((ids[symbols[0]], ids[symbols[1]]))
        ids["".join(symbols)] = len(ids)
    if not merges:
        raise ValueError(f"{path} holds no merges: expected lines of two symbols, as GPT-2's merges.txt has them")
    return Tokenizer(merges, GPT2, ["<|endoftext|>"])


def load_tiktoken(path: Path | str, pattern: str | None, specials: Sequence[str] = ()) -> Tokenizer:
    """A tokenizer from a file of tiktoken's kind: on each line a token in base64 and its rank, which is its id.

    The file holds no merges: a token's are the two parts that the merges before it leave of its bytes. pattern,
    specials: as of `Tokenizer`; the file has neither. Specials get the ids behind the last rank, without gaps:
    cl100k's have one before <|endoftext|>, and a name that nobody writes fills it. Raises ValueError for a file that
    cannot be read and, with its number, for a line that is not the next rank's token; for the first 256, of the byte
    that GPT-2 lists there.
    """
    merges, ranks, seen = [], {}, set()
    for number, line in enumerate(_lines(path, "a .tiktoken file"), 1):
        if not line:
            continue
        token, i = _ranked(line), len(seen)
        if token is None or token[1] != i or token[0] in seen or (i < 256 and token[0] != BYTES[i : i + 1]):
            what = f"{BYTES[i : i + 1]!r} in base64, and {i}" if i < 256 else f"a new token in base64, and {i}"
            raise ValueError(f"{path}, line {number}: {line!r}: expected {what}")
        seen.add(token[0])
        if i >= 256:
            pair = encode_word(spell(token[0].decode("utf-8", "surrogateescape")), ranks)
            if len(pair) != 2:
                raise ValueError(f"{path}, line {number}: the merges before it leave {len(pair)} parts of {token[0]!r}")
            ranks[pair] = len(merges)
            merges.append((ord(pair[0]), ord(pair[1])))
    if len(seen) < 256:
        raise ValueError(f"{path} ends after {len(seen)} tokens: expected 256 or more, the bytes first")
    return Tokenizer(merges, pattern, specials)


def _ranked(line: str) -> tuple[bytes, int] | None:
    """The token and the rank of a line of a .tiktoken file, None if it is no such line."""
    try:
        token, rank = line.split()
        return b64decode(token, validate=True), int(rank)
    except (ValueError, binascii.Error):
        return None


def _lines(path: Path | str, what: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read ({error}): expected {what}") from error


def _digest(kept: dict) -> str:
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()
