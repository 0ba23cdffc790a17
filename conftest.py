"""What the tests hand to the notebooks' kernels, and one rule: a broken notebook fails once, not cell by cell."""

import os
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent
LESSONS = sorted(ROOT.glob("[01][0-9]_*"))
sys.path[:0] = [str(ROOT), *map(str, LESSONS)]  # the root first: a folder `shared` elsewhere never shadows the package
BACKEND = os.environ.get("MPLBACKEND")
SETTINGS = {"OMP_NUM_THREADS": "1", "WANDB_MODE": "offline", "HARDWAY_PNG": "0"}


def pytest_configure(config):
    """Set the kernels' environment, and find the rules for measured numbers from whatever folder pytest runs in."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    if "WANDB_DIR" not in os.environ:  # a worker gets its main process's
        runs = tempfile.TemporaryDirectory(prefix="wandb-", ignore_cleanup_errors=True)
        config.add_cleanup(runs.cleanup)
        os.environ["WANDB_DIR"] = runs.name
    if config.option.nbval_sanitize_with is None:
        config.option.nbval_sanitize_with = str(ROOT / "tests" / "nbval_sanitize.cfg")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Give each file whole to one worker, so that a notebook's cells share a kernel, in the order of collection."""
    from xdist.scheduler import LoadFileScheduling

    config.option.loadscopereorder = False
    return LoadFileScheduling(config, log)


def pytest_collection_modifyitems(config, items):
    """Let workers begin with what takes longest, so that none runs alone at the end: notebooks, then tests/*.py."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: (not hasattr(item, "cell_num"), len(item.path.parts)))


def pytest_collection_finish(session):
    """Set Matplotlib's backend back: Streamlit, which tests import, sets it for the whole process and all kernels."""
    os.environ.pop("MPLBACKEND", None)
    if BACKEND is not None:
        os.environ["MPLBACKEND"] = BACKEND


def pytest_runtest_setup(item):
    """Skip the cells that follow one that failed."""
    broken = getattr(item.parent, "broken_at", None)
    if broken is not None and hasattr(item, "cell_num"):
        pytest.skip(f"cell {broken} of this notebook failed")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Remember the first cell of a notebook that failed."""
    report = yield
    if report.failed and hasattr(item, "cell_num"):
        item.parent.broken_at = item.cell_num
    return report
