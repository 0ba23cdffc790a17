"""What a stored figure was made by: the machine, the versions, the day, and a hash of the code.

provenance()                                # {"hardware": ..., "threads": 1, "versions": {...}, "date": ...}
code_files(Path("depth_sweep.py"))          # the script, its helper, and the modules of `shared` that they import
code_hash(Path("depth_sweep.py"))           # of all these, without comments, docstrings and blank lines
"""

import ast
import hashlib
import io
import platform
import tokenize
from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from pathlib import Path

import torch

from shared.lessons import ROOT

RUNNERS = [ROOT / "shared" / "provenance.py", *(ROOT / "shared" / "sweeps").glob("*.py")]  # they measure nothing


def provenance(device: str = "cpu") -> dict:
    """Where and when something is measured: hardware, threads, versions, date. device: "cpu" or "cuda"."""
    return {
        "hardware": torch.cuda.get_device_name() if device == "cuda" else _processor(),
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "date": date.today().isoformat(),
    }


def _processor() -> str:
    """The processor's name, where the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.processor())


def code_hash(script: Path, files: Sequence[Path] = ()) -> str:
    """16 hexadecimal digits that change with what a script does: its code, that of all it imports from this repository
    (`code_files`), and the bytes of other `files` it reads, such as weights.

    Comments, docstrings, blank lines and the Python version do not change it; neither do the modules that only run
    and store sweeps. Raises ValueError for a file that is not there.
    """
    parts = [f"{_name(path, script)}\n{bare(path.read_text(encoding='utf-8'))}" for path in code_files(script)]
    for path in files:
        if not path.is_file():
            raise ValueError(f"no file at {path}: a sweep's `files` are what its script reads")
        parts.append(f"{path.name}\n{hashlib.sha256(path.read_bytes()).hexdigest()}")
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def code_files(script: Path) -> list[Path]:
    """The script and the files beside it and in `shared` that it imports, directly or not, in order of their names."""
    script = script.resolve()
    waiting, found = [script], set()
    while waiting:
        path = waiting.pop()
        if path not in found and path not in RUNNERS:
            found.add(path)
            waiting += _files(_imported(path.read_text(encoding="utf-8")), [script.parent, ROOT])
    return sorted(found, key=lambda path: _name(path, script))


def bare(source: str) -> str:
    """A Python source without its comments, docstrings and blank lines; what stands in strings stays."""
    tree, lines = ast.parse(source), source.split("\n")
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column].rstrip()
    dropped, in_strings = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if ast.get_docstring(node) is not None:
                dropped |= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
        elif isinstance(node, ast.Constant | ast.JoinedStr):
            in_strings |= set(range(node.lineno, node.end_lineno))
    kept = [(n, line) for n, line in enumerate(lines, 1) if n not in dropped]
    return "\n".join(line for n, line in kept if line.strip() or n in in_strings)


def _imported(source: str) -> Iterator[str]:
    """The dotted names of all that a source may import: modules, and names that may be modules."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _files(names: Iterable[str], folders: Sequence[Path]) -> Iterator[Path]:
    """The files under `folders` that importing these names runs: those of the packages on the way, too."""
    for name in names:
        parts = name.split(".")
        for at in (folder.joinpath(*parts[:n]) for folder in folders for n in range(1, len(parts) + 1)):
            yield from (path for path in (at.with_suffix(".py"), at / "__init__.py") if path.is_file())


def _name(path: Path, script: Path) -> str:
    """A file's name within this repository, or within the folder of a script that lies elsewhere."""
    return path.relative_to(ROOT if path.is_relative_to(ROOT) else script.resolve().parent).as_posix()
