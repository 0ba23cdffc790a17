"""Text that is on every machine, cut into tokens and batches. Nothing is downloaded.

    corpus = Corpus(python_docs(), unit="bytes")        # or unit="words", or read("a_file_of_yours.txt")
    x, y = corpus.batch(16, context=64, generator=g)    # y is x one token later
    corpus.decode(corpus.encode("any text"))

The text of `python_docs()` changes a little from one Python version to the next: a figure measured on it is the
same on every machine with the same Python, and close on others.
"""

import re
from collections import Counter
from pathlib import Path

import torch

UNKNOWN = "<unk>"
WORD = re.compile(r"\w+|[^\w\s]")  # a run of letters, digits and underscores, or one other sign that is no space


def python_docs() -> str:
    """The documentation that Python's own `help()` shows: about half a million characters of English and code.

    Raises ValueError where Python was installed without it.
    """
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise ValueError("this Python has no pydoc_data: use corpus.read(path) with a text of yours") from error
    return "\n\n".join(topics[name] for name in sorted(topics))


def read(path: str | Path) -> str:
    """The text of a UTF-8 file of yours. Raises ValueError if it is missing, empty or not UTF-8."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"no file at {path} (looked in {Path.cwd()})")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 at byte {error.start}: save it as UTF-8 first") from error
    if not text:
        raise ValueError(f"{path} is empty")
    return text


class Corpus:
    """A text as token ids, its first part for training and its last part held out.

    text: what to learn from. unit: "bytes" (256 ids, nothing is unknown) or "words" (the `vocab_size` - 1 most
    frequent words and signs of the training part, the rest is `<unk>`; spaces are dropped). held_out: the share
    kept back. `train` and `held_out` are 1-D tensors of ids; `names[i]` is token i as a reader would write it.
    Raises ValueError for an unknown unit, a share outside 0..1, or a text too short to split.
    """

    def __init__(self, text: str, unit: str = "bytes", vocab_size: int = 1000, held_out: float = 0.1):
        if unit not in ("bytes", "words"):
            raise ValueError(f'unit is {unit!r}: expected "bytes" or "words"')
        if not 0 < held_out < 1:
            raise ValueError(f"held_out is {held_out}: expected a share between 0 and 1")
        cut = int(len(text) * (1 - held_out))
        self.unit = unit
        if unit == "bytes":
            self.names = [_byte_name(i) for i in range(256)]
        else:
            if vocab_size < 2:
                raise ValueError(f"vocab_size is {vocab_size}: it must hold {UNKNOWN} and at least one word")
            counts = Counter(WORD.findall(text[:cut]))
            self.names = [UNKNOWN] + [word for word, _ in counts.most_common(vocab_size - 1)]
        self._ids = {name: i for i, name in enumerate(self.names)}
        self.train, self.held_out = self.encode(text[:cut]), self.encode(text[cut:])
        if min(len(self.train), len(self.held_out)) < 2:
            raise ValueError(f"a text of {len(text)} characters is too short to split at {held_out}")

    @property
    def vocab_size(self) -> int:
        """How many ids there are."""
        return len(self.names)

    def encode(self, text: str) -> torch.Tensor:
        """The ids of a text: 1-D, int64."""
        if self.unit == "bytes":
            return torch.tensor(list(text.encode("utf-8")), dtype=torch.long)
        return torch.tensor([self._ids.get(word, 0) for word in WORD.findall(text)], dtype=torch.long)

    def decode(self, ids: torch.Tensor) -> str:
        """The text of a 1-D tensor of ids. Bytes: exact where they are UTF-8. Words: joined by one space."""
        if self.unit == "bytes":
            return bytes(ids.tolist()).decode("utf-8", errors="replace")
        return " ".join(self.names[i] for i in ids.tolist())

    def batch(
        self, batch_size: int, context: int, generator: torch.Generator | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Random windows of the training part: x and y, both (batch_size, context); y[:, t] follows x[:, t]."""
        _check_context(self.train, context)
        starts = torch.randint(len(self.train) - context, (batch_size,), generator=generator)
        return _windows(self.train, starts, context)

    def held_out_windows(self, context: int, most: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
        """At most `most` windows spread evenly over the held-out part, without overlap: x and y as in `batch`."""
        _check_context(self.held_out, context)
        starts = torch.arange(0, len(self.held_out) - context, context)
        n = min(most, len(starts))
        return _windows(self.held_out, starts[torch.arange(n) * len(starts) // n], context)


def _windows(ids: torch.Tensor, starts: torch.Tensor, context: int) -> tuple[torch.Tensor, torch.Tensor]:
    at = starts[:, None] + torch.arange(context)
    return ids[at], ids[at + 1]


def _check_context(ids: torch.Tensor, context: int) -> None:
    if not 1 <= context < len(ids):
        raise ValueError(f"context is {context}: this part of the text allows 1 to {len(ids) - 1}")


def _byte_name(i: int) -> str:
    if chr(i) == " ":
        return "␣"
    return chr(i) if 32 < i < 127 else {10: "↵"}.get(i, f"x{i:02x}")
