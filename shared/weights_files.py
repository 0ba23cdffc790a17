"""A model folder as it lies on the disk: config.json and the tensors of its *.safetensors, under the names they have
there. No tensor is read before it is asked for, and nothing is unpickled."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

FLOATS = ("F64", "F32", "F16", "BF16")
INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class Stored:
    """A tensor in a file: its shape, and `read()`, which gives it in float32 or raises ValueError."""

    shape: tuple[int, ...]
    read: Callable[[], torch.Tensor]


def read_folder(folder: Path) -> tuple[dict, dict[str, Stored]]:
    """The configuration and all tensors by name.

    With an index, the files that it names are read; else model.safetensors; else every *.safetensors. Raises ValueError
    for a file that is missing or damaged, for an index that does not say what is in the files, for a name that is in
    two files, and for an adapter beside the weights.
    """
    if (folder / "adapter_config.json").exists():
        raise ValueError(f"{folder} holds an adapter (adapter_config.json), which is not read: merge it with its model")
    config, tensors = read_object(folder / "config.json"), {}
    for file, expected in _files(folder):
        for name, stored in _open(file):
            if name in tensors:
                raise ValueError(f"{name!r} is in {file} and in another file: expected each tensor once")
            if expected is not None and name not in expected:
                raise ValueError(f"{file} has {name!r}, which {INDEX} does not say")
            tensors[name] = stored
        if missing := sorted((expected or set()) - tensors.keys()):
            raise ValueError(f"{file} has no {missing[0]!r}, though {INDEX} says so")
    return config, tensors


def read_object(path: Path) -> dict:
    """A JSON file with an object in it. Raises ValueError if there is no such file, or another thing in it."""
    if not path.is_file():
        raise ValueError(f"no file at {path}: expected a folder as `save_pretrained` writes it")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds a {type(found).__name__}: expected an object, names with values")
    return found


def _files(folder: Path) -> Iterator[tuple[Path, set[str] | None]]:
    """The files to read, each with the names that the index expects in it (None: there is no index)."""
    single, index = folder / "model.safetensors", folder / INDEX
    if index.exists() and single.exists():
        raise ValueError(f"{folder} has both {single.name} and {INDEX}: it is not clear which weights are meant")
    if index.exists():
        yield from _by_index(index)
        return
    files = [single] if single.exists() else sorted(folder.glob("*.safetensors"))
    if not files:
        raise ValueError(f"no *.safetensors in {folder}: pickled weights (*.bin) are not read")
    yield from ((file, None) for file in files)


def _by_index(index: Path) -> Iterator[tuple[Path, set[str]]]:
    """Each file that the index names, with the names of its tensors."""
    where = read_object(index).get("weight_map")
    if not isinstance(where, dict) or not where or not all(isinstance(file, str) for file in where.values()):
        raise ValueError(f"{index} has no 'weight_map' of tensors and their files")
    for file in sorted(set(where.values())):
        if Path(file).name != file or not (index.parent / file).is_file():
            raise ValueError(f"{index} names {file!r}, which is no file in its folder")
        yield index.parent / file, {name for name in where if where[name] == file}


def _open(file: Path) -> Iterator[tuple[str, Stored]]:
    """Every tensor of one file."""
    try:
        opened = safe_open(file, framework="pt")
        for name in opened.keys():  # noqa: SIM118 (not a dict)
            part = opened.get_slice(name)
            yield name, Stored(tuple(part.get_shape()), partial(_read, opened, file, name, part.get_dtype()))
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{file} is damaged: {error}") from error


def _read(opened: safe_open, file: Path, name: str, kind: str) -> torch.Tensor:
    """Numbers of any floating type in float32. Others are quantised, and only their own program has the scales.

    It is a copy: what safetensors gives is the file itself in memory, and changes when the file is written anew.
    """
    if kind not in FLOATS:
        raise ValueError(f"{name!r} in {file} is of type {kind}: expected {', '.join(FLOATS)}, not quantised numbers")
    try:
        return opened.get_tensor(name).to(torch.float32, copy=True)
    except SafetensorError as error:
        raise ValueError(f"{file} is damaged: {error}") from error
