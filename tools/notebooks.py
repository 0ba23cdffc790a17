"""Make, edit and run the lessons' notebooks without a browser.

    python tools/notebooks.py run 04      run a copy from top to bottom and print its verdict
    python tools/notebooks.py text 04     write scratch/attention_vis.py, a script that is easy to edit and to diff
    python tools/notebooks.py build 04    run the script, if there is one, else the notebook, and store the result

The stored notebook is the source: its outputs are what its cells printed, and its metadata hold a hash of all that it
was made of (sources.py), so that a test can tell what has changed since it was run. It is replaced at the end of a
run that went well, whole, and never by a script that was made from an older version of it.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]
from scripts import keep_up, notebook_of, script_of, write_script  # noqa: E402
from sources import sources  # noqa: E402

from shared.lessons import LESSONS  # noqa: E402  (the tools also run where shared is not installed)
from shared.verdict import MIME  # noqa: E402

KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


def find(number: str) -> Path:
    """Where the notebook of a lesson lies, by its number: "04" or "4". Raises ValueError if there is none to run."""
    for lesson in LESSONS:
        if lesson.number == number.zfill(2) and (lesson.built or script_of(lesson.path).exists()):
            return lesson.path
    raise ValueError(
        f"no notebook for lesson {number!r}: there is {', '.join(it.number for it in LESSONS if it.built)}"
    )


def outputs(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    """The outputs of all cells."""
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def execute(notebook: nbformat.NotebookNode, folder: Path) -> None:
    """Run the notebook's cells in place, in the notebook's own folder, from a fresh kernel of this very Python."""
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
    # without kernel folders to look in, "python3" is the Python that runs this, and not one that JUPYTER_PATH names
    client.create_kernel_manager().kernel_spec_manager = KernelSpecManager(kernel_dirs=[])
    client.execute()


def normalise(notebook: nbformat.NotebookNode, folder: Path) -> None:
    """Leave in the notebook only what does not differ from one run or one machine to the next."""
    lesson = {"sources": sources(notebook, folder)}
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


def write(text: str, path: Path) -> None:
    """Store a text whole or not at all, with the same bytes on every platform."""
    new = path.with_name(f"{path.name}.new")
    new.write_text(text, encoding="utf-8", newline="\n")
    os.replace(new, path)


def tidied(notebook: nbformat.NotebookNode, path: Path) -> nbformat.NotebookNode:
    """The notebook as ruff formats it. Raises ValueError for what ruff refuses."""
    text = nbformat.writes(notebook)
    for action in ("format", "check"):
        command = [sys.executable, "-m", "ruff", action, "--quiet", "--stdin-filename", path, "-"]
        done = subprocess.run(command, input=text, stdout=subprocess.PIPE, text=True, encoding="utf-8")
        if done.returncode:
            raise ValueError(f"{done.stdout}ruff {action} has found something in {path.name}: mend it first")
        text = done.stdout if action == "format" else text
    return nbformat.reads(text, as_version=4)


def run(path: Path) -> None:
    """Run a copy of the notebook and print its verdict and how long it took."""
    notebook = nbformat.read(path, as_version=4)
    start = time.monotonic()
    print(f"running {path.parent.name}/{path.name} ...", flush=True)
    execute(notebook, path.parent)
    boxes = [output.data["text/plain"] for output in outputs(notebook) if MIME in output.get("data", {})]
    if not boxes:
        raise ValueError(f"{path.name} came to no verdict")
    print(f"{boxes[0]}\n\ntook {time.monotonic() - start:.0f} s")


def text(path: Path) -> None:
    """Write the notebook as a script."""
    print(f"edit {write_script(path)}, then: make build N={path.parent.name[:2]}")


def build(path: Path) -> None:
    """Run the script, or the notebook if there is no script, and store cells and outputs in the notebook."""
    script = script_of(path)
    built_from = script.read_text(encoding="utf-8") if script.exists() else None
    notebook = nbformat.read(path, as_version=4) if built_from is None else notebook_of(built_from, path)
    notebook = tidied(notebook, path)  # before the run: later, hashes would move
    execute(notebook, path.parent)
    normalise(notebook, path.parent)
    write(nbformat.writes(notebook, indent=1) + "\n", path)
    if built_from is not None:
        keep_up(path, built_from)
    print(f"stored {path.parent.name}/{path.name}: {path.stat().st_size / 1e6:.2f} MB")


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
