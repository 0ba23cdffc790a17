"""A notebook as a script in scratch/, to edit and to build from; its first line says which version it was made from."""

import re
from pathlib import Path

import jupytext
import nbformat
from sources import cells_sha256

SCRATCH = Path(__file__).resolve().parent.parent / "scratch"
FIRST = re.compile(r"# made from version (\w+)\n")


def script_of(path: Path) -> Path:
    """Where the script of a notebook lies."""
    return SCRATCH / f"{path.stem}.py"


def write_script(path: Path) -> Path:
    """Write the stored notebook as a percent script. Raises ValueError if that would lose edits in the one there is."""
    stored, script = nbformat.read(path, as_version=4), script_of(path)
    if script.exists():
        text = script.read_text(encoding="utf-8")
        if cells_sha256(cells_of(text)) not in (cells_sha256(stored), version_of(text)):
            raise ValueError(f"{script} holds edits that were not built: build it, or move it elsewhere")
    script.parent.mkdir(exist_ok=True)
    _write(script, stored, jupytext.writes(stored, fmt="py:percent"))
    return script


def notebook_of(text: str, path: Path) -> nbformat.NotebookNode:
    """The notebook that a script makes, to be stored at `path`.

    Raises ValueError if it was made from another version than the one that is stored: whatever changed there would go.
    """
    if path.exists() and version_of(text) != cells_sha256(nbformat.read(path, as_version=4)):
        raise ValueError(
            f"{script_of(path)} was not made from {path.name} as it is now: to build would lose what has changed "
            "there. Move the script elsewhere, write it anew (make text), and put your edits in"
        )
    return cells_of(text)


def keep_up(path: Path, built_from: str) -> None:
    """After a build, make the script one of the new version: as stored or, if it was edited meanwhile, as it is."""
    script, stored = script_of(path), nbformat.read(path, as_version=4)
    text = script.read_text(encoding="utf-8")
    as_stored = jupytext.writes(stored, fmt="py:percent")
    _write(script, stored, as_stored if text == built_from else FIRST.sub("", text, count=1))


def version_of(text: str) -> str | None:
    """The version that a script's first line names."""
    found = FIRST.match(text)
    return found and found[1]


def cells_of(text: str) -> nbformat.NotebookNode:
    """The cells of a script."""
    return jupytext.reads(FIRST.sub("", text, count=1), fmt="py:percent")


def _write(script: Path, stored: nbformat.NotebookNode, body: str) -> None:
    script.write_text(f"# made from version {cells_sha256(stored)}\n{body}", encoding="utf-8", newline="\n")
