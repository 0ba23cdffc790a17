"""Make, edit and run the lessons' notebooks without a browser.

    python tools/notebooks.py run 04      run a copy from top to bottom and print its verdict
    python tools/notebooks.py text 04     write scratch/attention_vis.py, a script that is easy to edit and to diff
    python tools/notebooks.py build 04    run the script, if there is one, else the notebook, and store the result

The stored notebook is the source: its outputs are what its cells printed, and its metadata hold a hash of its cells
and of the Python files that they use, so that a test can tell when it was edited and not run again.
"""

import argparse
import hashlib
import re
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from shared.verdict import BLOCK  # noqa: E402  (the tools also run where shared is not installed)

KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


def find(number: str) -> Path:
    """The notebook of a lesson, by its number: "04" or "4". Raises ValueError if there is none."""
    found = sorted(ROOT.glob(f"{number.zfill(2)}_*/*_vis.ipynb"))
    if not found:
        built = ", ".join(path.parent.name[:2] for path in sorted(ROOT.glob("[01][0-9]_*/*_vis.ipynb")))
        raise ValueError(f"no notebook for lesson {number!r}: there is {built}")
    return found[0]


def imported(sources: Iterable[str], folder: Path) -> set[Path]:
    """The files of a folder that sources import."""
    names = {name for source in sources for name in re.findall(r"^\s*(?:import|from)\s+(\w+)", source, re.MULTILINE)}
    return {path for path in folder.glob("*.py") if path.stem in names}


def source_hash(notebook: nbformat.NotebookNode, folder: Path) -> str:
    """A hash of the notebook's cells and of the Python files beside it that they import, or that these import."""
    sources = [cell.source for cell in notebook.cells]
    used, found = set(), imported(sources, folder)
    while found - used:
        used |= found
        found = imported([path.read_text(encoding="utf-8") for path in used], folder)
    parts = [f"{cell.cell_type}\n{cell.source}" for cell in notebook.cells]
    parts += [path.read_text(encoding="utf-8") for path in sorted(used)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def outputs_text(notebook: nbformat.NotebookNode) -> str:
    """All that the notebook's cells printed."""
    outputs = (output for cell in notebook.cells for output in cell.get("outputs", []))
    return "".join(output.text for output in outputs if output.output_type == "stream")


def execute(notebook: nbformat.NotebookNode, folder: Path) -> None:
    """Run the notebook's cells in place, in the notebook's own folder, from a fresh kernel."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    client = NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        extra_arguments=["--log-level=40"],  # else the kernel warns that it talks to us in the clear
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute()


def normalise(notebook: nbformat.NotebookNode, folder: Path) -> None:
    """Leave in the notebook only what does not differ from one run or one machine to the next."""
    lesson = {"source_sha256": source_hash(notebook, folder)}
    notebook.metadata = nbformat.from_dict(
        {"kernelspec": KERNEL, "language_info": {"name": "python"}, "lesson": lesson}
    )
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number:02d}"
        cell.metadata = nbformat.from_dict({name: value for name, value in cell.metadata.items() if name == "tags"})
        for output in cell.get("outputs", []):
            if "metadata" in output:
                output.metadata = nbformat.from_dict({})
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    nbformat.validate(notebook)


def write(notebook: nbformat.NotebookNode, path: Path) -> None:
    """Store a notebook, with the same bytes on every platform."""
    path.write_text(nbformat.writes(notebook, indent=1) + "\n", encoding="utf-8", newline="\n")


def run(path: Path) -> None:
    """Run a copy of the notebook and print its verdict and how long it took."""
    notebook = nbformat.read(path, as_version=4)
    start = time.monotonic()
    print(f"running {path.relative_to(ROOT).as_posix()} ...", flush=True)
    execute(notebook, path.parent)
    block = BLOCK.search(outputs_text(notebook))
    if block is None:
        raise ValueError(f"{path.name} printed no verdict")
    print(f"{block[0]}\n\ntook {time.monotonic() - start:.0f} s")


def script_of(path: Path) -> Path:
    """Where the editable script of a notebook lies."""
    return ROOT / "scratch" / f"{path.stem}.py"


def text(path: Path) -> None:
    """Write the notebook as a percent script."""
    import jupytext

    script = script_of(path)
    script.parent.mkdir(exist_ok=True)
    jupytext.write(nbformat.read(path, as_version=4), script, fmt="py:percent")
    print(f"edit {script.relative_to(ROOT).as_posix()}, then: make build N={path.parent.name[:2]}")


def build(path: Path) -> None:
    """Run the script, or the notebook if there is no script, and store cells and outputs in the notebook."""
    import jupytext

    script = script_of(path)
    if script.exists():
        write(jupytext.read(script), path)
    for action in (["format"], ["check"]):  # before the run: later, the hash would move
        if subprocess.run([sys.executable, "-m", "ruff", *action, "--quiet", path]).returncode:
            raise ValueError(f"ruff {action[0]} has found something in {path.name}: mend it first")
    notebook = nbformat.read(path, as_version=4)
    execute(notebook, path.parent)
    normalise(notebook, path.parent)
    write(notebook, path)
    print(f"stored {path.relative_to(ROOT).as_posix()}: {path.stat().st_size / 1e6:.2f} MB")


def main() -> None:
    """Read the command line."""
    sys.stdout.reconfigure(encoding="utf-8")  # a verdict has signs that Windows' default lacks
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["run", "text", "build"])
    parser.add_argument("lesson", help="its number, such as 04")
    arguments = parser.parse_args()
    try:
        {"run": run, "text": text, "build": build}[arguments.action](find(arguments.lesson))
    except (ValueError, CellExecutionError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
