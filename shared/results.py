"""Figures that take too long for a notebook: a sweep's command line, and a file that says how it was made.

def main():
    sweep_command(__doc__, RESULTS, whole=lambda: sweep(DEPTHS, STEPS), quick=lambda: sweep([2], 3), steps=STEPS)
"""

import argparse
import json
import platform
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import torch


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


def sweep_command(
    doc: str, path: Path, whole: Callable[[], list[dict]], quick: Callable[[], list[dict]], **settings
) -> None:
    """Run a sweep from the command line, on one thread, and store its rows.

    doc: the script's docstring; its first line ends in the command. whole: measures everything and returns a row for
    each run; the file at `path` gets the settings, the command, the seconds, `provenance`, and a row a line. With
    --quick, `quick` is run instead, its rows are printed and nothing is written.
    """
    title = doc.splitlines()[0]
    parser = argparse.ArgumentParser(description=title)
    parser.add_argument("--quick", action="store_true", help="try the whole path in seconds and write nothing")
    is_quick = parser.parse_args().quick
    torch.set_num_threads(1)
    start = time.monotonic()
    if is_quick:
        print(json.dumps(quick()))
        return
    rows = whole()
    command, seconds = title.rpartition(": ")[2], round(time.monotonic() - start)
    store(path, settings | {"command": command, "seconds": seconds} | provenance(), rows)
    print(f"wrote {path.name}: {seconds} s")


def store(path: Path, record: dict, rows: list[dict]) -> None:
    """A JSON file of the record and its rows, a row a line, so that a change of one shows as one."""
    lines = ",\n".join(json.dumps(row) for row in rows)
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(record)[:-1] + ', "rows": [\n' + lines + "\n]}\n", encoding="utf-8")
