"""A GGUF file as llama.cpp writes it: its settings and its tensors, under the names they have there.

Dimensions are turned round, (out, in) as in PyTorch; 4-bit and other groups become float32 when a tensor is read.
"""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import gguf
import numpy as np
import torch

from shared.weights_files import Stored

TOKENIZER = "tokenizer."
ARRAY, TEXT = gguf.GGUFValueType.ARRAY, gguf.GGUFValueType.STRING


class _Reader(gguf.GGUFReader):
    """Cuts the file as a plain array: np.memmap does much on each of the 100,000 cuts that a vocabulary takes."""

    @property
    def data(self) -> np.ndarray:
        return self._data

    @data.setter
    def data(self, mapped: np.memmap) -> None:
        self._data = mapped.view(np.ndarray)

    def _get_field_parts(self, orig_offs: int, raw_type: int) -> tuple[int, list[np.ndarray], list[int], list]:
        """Arrays at once: the library takes each of a vocabulary's entries through all its kinds of values."""
        if raw_type != ARRAY or self.byte_order != "I":
            return super()._get_field_parts(orig_offs, raw_type)
        head = [self._get(orig_offs, np.uint32), self._get(orig_offs + 4, np.uint64)]
        inner, n, start = gguf.GGUFValueType(head[0][0]), int(head[1][0]), orig_offs + 12
        if inner is TEXT:
            entries, end = self._texts(start, n)
            return end - orig_offs, head + entries, list(range(2, 2 + n)), [ARRAY, TEXT]
        if inner not in self.gguf_scalar_to_np:
            return super()._get_field_parts(orig_offs, raw_type)
        numbers = self._get(start, self.gguf_scalar_to_np[inner], n)
        if len(numbers) < n:
            raise ValueError(f"an array of {n} numbers ends after {len(numbers)}")
        return 12 + numbers.nbytes, [*head, numbers], [2], [ARRAY, inner]

    def _texts(self, at: int, n: int) -> tuple[list[np.ndarray], int]:
        """The bytes of n texts, each behind its length, and where they end."""
        texts = []
        for _ in range(n):
            length = int.from_bytes(self.data[at : at + 8].tobytes(), sys.byteorder)
            texts.append(self.data[at + 8 : at + 8 + length])
            at += 8 + length
            if at > len(self.data):
                raise ValueError(f"an array of {n} texts ends after {len(texts) - 1}")
        return texts, at


def read_gguf(path: Path) -> tuple[dict, dict[str, Stored]]:
    """The settings without the tokenizer's, {"llama.block_count": 30, ...}, and all tensors by name.

    Raises ValueError for a file that is not GGUF or is damaged, and for one that is written for processors with the
    other order of bytes.
    """
    reader, fields = _open(path, lambda name: not name.startswith(TOKENIZER))
    return fields, {t.name: Stored(tuple(t.shape[::-1].tolist()), partial(_read, t, path)) for t in reader.tensors}


def _read(tensor: gguf.ReaderTensor, path: Path) -> torch.Tensor:
    """In float32, as a copy, so that the file can be closed."""
    try:
        numbers = gguf.dequantize(tensor.data, tensor.tensor_type)
    except NotImplementedError as error:
        raise ValueError(
            f"{tensor.name!r} in {path} is of type {tensor.tensor_type.name}, which is not read"
        ) from error
    return torch.from_numpy(numbers if numbers.flags.writeable else numbers.copy())


def read_gguf_tokenizer(path: Path) -> dict:
    """The tokenizer's settings without that prefix: {"ggml.model": "gpt2", "ggml.tokens": ["!", ...], ...}; {} without.

    Raises what `read_gguf` raises.
    """
    _, fields = _open(path, lambda name: name.startswith(TOKENIZER))
    return {name.removeprefix(TOKENIZER): value for name, value in fields.items()}


def _open(path: Path, wanted: Callable[[str], bool]) -> tuple[_Reader, dict]:
    """The file, and those of its settings whose name is wanted."""
    try:
        reader = _Reader(path)
        fields = {name: field.contents() for name, field in reader.fields.items() if wanted(name)}
    except (ValueError, IndexError, KeyError, OverflowError, TypeError, OSError) as error:
        raise ValueError(f"{path} is no GGUF file, or a damaged one: {error}") from error
    if reader.byte_order != "I":
        raise ValueError(f"{path} has its bytes in the other order: expected a file written for this kind of processor")
    return reader, fields
