"""What a notebook is made of: its cells, the Python files that these use, and the data files that all of them name.

A built notebook stores a hash of each in its metadata. So a test can tell which has changed since it was run.
"""

import ast
import hashlib
from collections.abc import Iterator
from pathlib import Path

import nbformat
from IPython.core.inputtransformer2 import TransformerManager

ROOT = Path(__file__).resolve().parent.parent


def sha256(content: bytes) -> str:
    """The first 16 digits of a hash: enough to tell that something has changed."""
    return hashlib.sha256(content).hexdigest()[:16]


def cells_sha256(notebook: nbformat.NotebookNode) -> str:
    """A hash of the cells' kinds, sources and tags; not of their outputs."""
    parts = [f"{cell.cell_type} {cell.metadata.get('tags', [])}\n{cell.source}" for cell in notebook.cells]
    return sha256("\0".join(parts).encode())


def sources(notebook: nbformat.NotebookNode, folder: Path) -> dict[str, str]:
    """A hash of the notebook's cells, and of each file that they use, by its name in the lesson or the repository.

    folder: the lesson's. Python files are followed from import to import, within the folder and `shared`. A file that
    the clinic finds by its helper's name (`attention_checks.py` beside `attention.py`) counts as used, and so does a
    file under a `results` or `weights` folder beside a source that names it.
    """
    transform = TransformerManager().transform_cell
    cells = [ast.parse(transform(cell.source)) for cell in notebook.cells if cell.cell_type == "code"]
    used = {file for cell in cells for file in _uses(cell, folder, folder)}
    found = used
    while found:
        found = {file for path in found if path.suffix == ".py" for file in _uses_of_file(path, folder)} - used
        used |= found
    return {"cells": cells_sha256(notebook)} | {_name(file, folder): sha256(file.read_bytes()) for file in sorted(used)}


def changed(notebook: nbformat.NotebookNode, folder: Path) -> list[str]:
    """The names of what is not as it was when the notebook was built."""
    before, now = notebook.metadata.get("lesson", {}).get("sources", {}), sources(notebook, folder)
    return sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))


def imported(tree: ast.AST) -> Iterator[str]:
    """The dotted names that a source imports, anywhere in it, functions included: of `from a import b`, a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _uses_of_file(path: Path, folder: Path) -> Iterator[Path]:
    """The files that a Python file uses, and those that are found by its name."""
    yield from _uses(ast.parse(path.read_text(encoding="utf-8")), path.parent, folder)
    if path.parent == folder:
        yield from folder.glob(f"{path.stem}_*.py")


def _uses(tree: ast.AST, here: Path, folder: Path) -> Iterator[Path]:
    """The Python files that a source imports, and the data files beside it, at `here`, that it names."""
    for name in imported(tree):
        parts = name.split(".")
        base = ROOT if parts[0] == "shared" else folder
        for n in range(1, len(parts) + 1):
            path = base.joinpath(*parts[:n])
            yield from (file for file in (path.with_suffix(".py"), path / "__init__.py") if file.exists())
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    named = {name for text in texts if len(text) < 200 for name in (Path(text).name, Path(text).stem)}
    for data in (here / "results", here / "weights"):
        for file in data.rglob("*"):
            if file.is_file() and named & {file.name, file.stem, *file.relative_to(data).parent.parts}:
                yield file
    yield from (file for file in here.glob("*.txt") if file.stem in named)


def _name(file: Path, folder: Path) -> str:
    return file.relative_to(folder if file.is_relative_to(folder) else ROOT).as_posix()
