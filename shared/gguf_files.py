"""A GGUF file as llama.cpp writes it: its settings and its tensors, under the names they have there.

Dimensions are turned round, (out, in) as in PyTorch; 4-bit and other groups become float32 when a tensor is read.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import gguf
import numpy as np
import torch

from shared.weights_files import Stored

TOKENIZER = "tokenizer."


class _Reader(gguf.GGUFReader):
    """Cuts the file as a plain array: np.memmap does much on each of the 100,000 cuts that a vocabulary takes."""

    @property
    def data(self) -> np.ndarray:
        return self._data

    @data.setter
    def data(self, mapped: np.memmap) -> None:
        self._data = mapped.view(np.ndarray)


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
