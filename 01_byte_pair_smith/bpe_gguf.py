"""A real model's tokenizer in lesson 01's own: SmolLM2's, from the vocabulary and the merges in its GGUF file.

tokenizer = load_gguf("SmolLM2-135M-Instruct.Q4_1.gguf")
tokenizer.encode("Merging rules")       # the ids that the model was trained on
"""

from collections.abc import Collection, Sequence
from pathlib import Path

from bpe import Tokenizer
from bpe_files import SYMBOLS

from shared.gguf_vocabulary import read_vocabulary

# SmolLM2 cuts a text twice: first each digit by itself, then what lies between two digits by GPT-2's pattern. One
# pattern does the same. A digit is a match by itself, without the space before it, and GPT-2's own alternative for
# digits never fits, for no stretch between two digits has one. White space before a word leaves its last to that word:
# \s+(?!\S). Before a digit it does not, for there the stretch ends: so \S becomes "neither white space nor a digit".
# The other alternatives neither match a digit nor look at what follows.
SMOLLM_PIECES = {
    "'s, 't, 'll and their like": r"'(?:[sdmt]|ll|ve|re)",
    "letters, with the space before them": r" ?\p{L}+",
    "a digit": r"\p{N}",
    "other signs, with the space before them": r" ?[^\s\p{L}\p{N}]+",
    "white space up to a digit, or up to the last before a word": r"\s+(?![^\s\p{N}])",
    "white space": r"\s+",
}
SMOLLM = "|".join(SMOLLM_PIECES.values())


def load_gguf(path: Path | str) -> "Renumbered":
    """The tokenizer in a GGUF file of SmolLM2's kind, with the ids of its model.

    Raises ValueError for a file that cannot be read and, by name, for a setting, a token or a merge with which our ids
    would be others than the model's.
    """
    vocabulary = read_vocabulary(path)
    ids, merges = {symbol: i for i, symbol in enumerate(SYMBOLS)}, []
    for first, second in vocabulary.merges:
        merges.append((ids[first], ids[second]))
        ids[first + second] = len(ids)
    ours = Tokenizer(merges, SMOLLM, list(vocabulary.specials))
    ids |= ours.specials
    return Renumbered(ours, [ids[token] for token in vocabulary.tokens])


class Renumbered:
    """A tokenizer under other ids: its methods mean what they do in `Tokenizer`.

    tokenizer: the one that does the work. order: its ids, in the order of the new ones; a byte that is not among them
    has no token. vocab: the bytes of each new id. specials: texts with their new ids.
    """

    def __init__(self, tokenizer: Tokenizer, order: Sequence[int]):
        self.tokenizer = tokenizer
        self.vocab = [tokenizer.vocab[i] for i in order]
        self._new = {i: new for new, i in enumerate(order)}
        if len(self._new) < len(order) or not set(range(256, len(tokenizer.vocab))) <= self._new.keys():
            raise ValueError("the order lacks a merge or a special token, or has an id twice: expected each once")
        self.specials = {special: self._new[i] for special, i in tokenizer.specials.items()}

    def encode(self, text: str | bytes, allowed: Collection[str] | str = ()) -> list[int]:
        """The ids of a text, or of any bytes, as `Tokenizer.encode` has it. Raises ValueError for a byte that has no
        token, which libraries leave out without a word."""
        try:
            return [self._new[i] for i in self.tokenizer.encode(text, allowed)]
        except KeyError as error:
            byte = self.tokenizer.vocab[error.args[0]].hex()
            raise ValueError(
                f"byte 0x{byte} of the text has no token here: remove the character that has it"
            ) from error

    decode_bytes, decode = Tokenizer.decode_bytes, Tokenizer.decode  # they look into `vocab` only
