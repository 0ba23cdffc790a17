"""Other people's models as settings and tensors under our names.

    settings, tensors = read_model("path/to/gpt2")          # a folder: config.json and *.safetensors
    settings, tensors = read_model("path/to/model.gguf")

Tensors have the names that `shared.tiny_lm` and lesson 05 give them, and are float32: matrices (out, in); in
`attention.qkv` the rows of all query heads, then of all key heads, then of all value heads.

What is promised: a setting of GPT-2, Llama or Mistral that changes the result is honoured or refused by name. So is a
tensor that is missing, not expected, of another shape, quantised without its scales, or not finite. A GGUF file may
have no setting that is not known here. A config.json may: those are refused of which it is known that they change the
result.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from shared.gguf_files import read_gguf
from shared.hf_kinds import FOLDERS, GGUFS, Kind
from shared.hf_settings import Config, Settings
from shared.weights_files import Stored, read_folder


def read_model(path: str | Path) -> tuple[Settings, dict[str, torch.Tensor]]:
    """A GPT-2, Llama or Mistral from a folder, or from a GGUF file. Without the tokenizer.

    Raises ValueError for what is not there, damaged, of another kind, or not read right (see above).
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise ValueError(f"there is nothing at {path}: expected a folder or a GGUF file")
    kind, config, stored = _folder(path) if path.is_dir() else _file(path)
    settings = kind.settings(config, stored)
    plan = {}
    for ours, shape in shapes(settings):
        plan[ours] = _pieces(kind, settings, ours, shape)
        for piece in plan[ours]:
            _check(piece, stored, path)
    left = stored.keys() - {piece.name for pieces in plan.values() for piece in pieces}
    head = f"{kind.names['head'][0]}.weight"  # of a tied model, where it is stored: the embedding once more
    if unused := sorted(name for name in left - {head} if re.sub(r"\.\d+\.", ".{}.", name) not in kind.ignored):
        raise ValueError(f"tensors that a {settings.kind!r} of these settings does not use: {unused[:8]} in {path}")
    tensors = {ours: _join([_read(kind, settings, piece, stored) for piece in plan[ours]]) for ours in plan}
    if head in left and not torch.equal(stored[head].read(), tensors["embedding.weight"]):
        raise ValueError(f"{head!r} in {path} is not the embedding, though its settings say that they are tied")
    return settings, tensors


def shapes(settings: Settings) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Every tensor of a model with these settings: our name and its shape, (out, in) for a matrix."""
    width, queries, keys = (settings.d_model, *_rows(settings)[:2])
    biased = {"attention": settings.attention_bias, "feed_forward": settings.feed_forward_bias}
    matrices = {"attention.qkv": (queries + 2 * keys, width), "attention.proj": (width, queries)}
    if settings.gated:
        matrices["feed_forward.gate"] = (settings.d_hidden, width)
    matrices |= {"feed_forward.up": (settings.d_hidden, width), "feed_forward.proj": (width, settings.d_hidden)}
    norm_ends = ("weight", "bias") if settings.norm == "layer" else ("weight",)
    yield "embedding.weight", (settings.vocab_size, width)
    if settings.rotary_base is None:
        yield "positions.table.weight", (settings.context, width)
    for i in range(settings.n_layers):
        yield from ((f"blocks.{i}.norm_{n}.{end}", (width,)) for n in (1, 2) for end in norm_ends)
        for name, shape in matrices.items():
            yield f"blocks.{i}.{name}.weight", shape
            if biased[name.split(".")[0]]:
                yield f"blocks.{i}.{name}.bias", shape[:1]
    yield from ((f"norm.{end}", (width,)) for end in norm_ends)
    if not settings.tied:
        yield "head.weight", (settings.vocab_size, width)


def _folder(path: Path) -> tuple[Kind, Config, dict[str, Stored]]:
    values, stored = read_folder(path)
    kind = _kind(values.get("model_type"), FOLDERS, path)
    bare = {name.removeprefix(kind.prefix): tensor for name, tensor in stored.items()}
    if len(bare) < len(stored):
        raise ValueError(f"{path} has tensors both with and without {kind.prefix!r} before the same name")
    return kind, Config(values, str(path / "config.json")), bare


def _file(path: Path) -> tuple[Kind, Config, dict[str, Stored]]:
    fields, stored = read_gguf(path)
    Config(fields, str(path)).expect({"general.type": ["model"], "split.count": [1]})  # no adapter, no part of several
    word = fields.get("general.architecture")
    kind, prefix = _kind(word, GGUFS, path), f"{word}."
    own = {name.removeprefix(prefix): value for name, value in fields.items() if name.startswith(prefix)}
    return kind, Config(own, f"{prefix}* of {path}"), stored


def _kind(word, kinds: dict[str, Kind], path: Path) -> Kind:
    if word not in list(kinds):  # a list, for the word may be anything
        raise ValueError(f"{path} holds a {word!r}: expected {' or '.join(map(repr, kinds))}")
    return kinds[word]


def _rows(settings: Settings) -> tuple[int, int, int]:
    """Of all queries, all keys, all values."""
    keys = settings.n_kv_heads * settings.d_head
    return settings.n_heads * settings.d_head, keys, keys


@dataclass(frozen=True)
class _Piece:
    """Where a tensor of ours lies, or some of its rows: its name there, that without layer and ending, its shape."""

    name: str
    part: str
    shape: tuple[int, ...]


def _pieces(kind: Kind, settings: Settings, ours: str, shape: tuple[int, ...]) -> list[_Piece]:
    """What our tensor of this name and shape is put together from."""
    *part, end = ours.split(".")
    layer = part.pop(1) if part[0] == "blocks" else ""
    names = kind.names[".".join(part)]
    rows = _rows(settings) if len(names) > 1 else shape[:1]
    there = [(n, *shape[1:])[:: -1 if name in kind.transposed else 1] for name, n in zip(names, rows, strict=True)]
    return [_Piece(f"{name.format(layer)}.{end}", name, size) for name, size in zip(names, there, strict=True)]


def _check(piece: _Piece, stored: dict[str, Stored], path: Path) -> None:
    if piece.name not in stored:
        raise ValueError(f"no tensor {piece.name!r} among {sorted(stored)[:8]} ... of {path}")
    if (found := stored[piece.name].shape) != piece.shape:
        wanted = f"expected {piece.shape} by the sizes in the settings of {path}"
        raise ValueError(f"{piece.name!r} has shape {found}: {wanted}")


def _read(kind: Kind, settings: Settings, piece: _Piece, stored: dict[str, Stored]) -> torch.Tensor:
    """A piece with its rows and columns in our order."""
    tensor = stored[piece.name].read()
    if not tensor.sum().isfinite():  # one NaN or inf is enough
        raise ValueError(f"{piece.name!r} has numbers that are NaN or infinite: the file is damaged")
    if piece.part in kind.paired:
        tensor = pairs_to_halves(tensor, settings.d_head)
    return tensor.T if tensor.ndim == 2 and piece.part in kind.transposed else tensor


def _join(pieces: list[torch.Tensor]) -> torch.Tensor:
    """One below the other. A single one is not copied: embeddings are large."""
    return torch.cat(pieces) if len(pieces) > 1 else pieces[0].contiguous()


def pairs_to_halves(rows: torch.Tensor, d_head: int) -> torch.Tensor:
    """Queries or keys whose rotated pairs are neighbours, (0, 1), (2, 3) ..., in the order that `shared.rotary` takes,
    (0, d_head / 2), (1, d_head / 2 + 1) ... rows: (heads * d_head, ...) -> the same shape.

    >>> pairs_to_halves(torch.tensor([0, 3, 1, 4, 2, 5]), 6).tolist()
    [0, 1, 2, 3, 4, 5]
    """
    return rows.unflatten(0, (-1, d_head // 2, 2)).transpose(1, 2).flatten(0, 2)
