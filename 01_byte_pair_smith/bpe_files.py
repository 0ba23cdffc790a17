"""Tokenizers as files: one that a program reads, one that a person reads, and GPT-2's own.

save(tokenizer, "prose.json")       # and prose.txt beside it, a line for each token
tokenizer = load("prose.json")      # refuses what was cut short or altered
tokenizer = load_gpt2("merges.txt")
"""

import hashlib
import json
from pathlib import Path

from bpe import BYTES, GPT2, PRINTABLE, Tokenizer

OTHERS = iter(range(256, 512))
SYMBOLS = [chr(byte if byte in PRINTABLE else next(OTHERS)) for byte in BYTES]  # how GPT-2's files write each byte


def save(tokenizer: Tokenizer, path: Path | str) -> None:
    """Write `path`, a JSON file that `load` reads, and beside it one for people, with the suffix .txt.

    Raises ValueError for a path that has that suffix itself.
    """
    path = Path(path)
    if path.suffix == ".txt":
        raise ValueError(f"{path} ends in .txt, as the file for people will: choose .json")
    kept = {
        "merges": [list(pair) for pair in tokenizer.merges],
        "pattern": tokenizer.pattern,
        "specials": list(tokenizer.specials),
    }
    path.write_text(json.dumps(kept | {"sha256": _digest(kept)}) + "\n", encoding="utf-8")
    lines = [f"{i}\t{token!r}" for i, token in enumerate(tokenizer.vocab)]
    for i, (a, b) in enumerate(tokenizer.merges, 256):
        lines[i] += f" = {tokenizer.vocab[a]!r} + {tokenizer.vocab[b]!r}"
    path.with_suffix(".txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


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

    Raises ValueError for a file that cannot be read and, with its number, for a line that is not two symbols known by
    then.
    """
    ids, merges = {symbol: i for i, symbol in enumerate(SYMBOLS)}, []
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read ({error}): expected GPT-2's merges") from error
    for number, line in enumerate(lines, 1):
        if line.startswith("#version") or not line:
            continue
        symbols = line.split(" ")
        if len(symbols) != 2 or not set(symbols) <= ids.keys() or "".join(symbols) in ids:
            raise ValueError(f"{path}, line {number}: {line!r} is no new merge of two symbols that are known by then")
        merges.append((ids[symbols[0]], ids[symbols[1]]))
        ids["".join(symbols)] = len(ids)
    return Tokenizer(merges, GPT2, ["<|endoftext|>"])


def _digest(kept: dict) -> str:
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()
