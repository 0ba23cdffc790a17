"""What the tests hand to the notebooks' kernels, and one rule: a broken notebook fails once, not cell by cell."""

import os
import tempfile
from pathlib import Path

import pytest

BACKEND = os.environ.get("MPLBACKEND")
SETTINGS = {"OMP_NUM_THREADS": "1", "WANDB_MODE": "offline", "HARDWAY_PNG": "0"}


def pytest_configure(config):
    """Set the kernels' environment, and find the rules for measured numbers from whatever folder pytest runs in."""
    runs = tempfile.TemporaryDirectory(prefix="wandb-", ignore_cleanup_errors=True)
    config.add_cleanup(runs.cleanup)
    for name, value in (SETTINGS | {"WANDB_DIR": runs.name}).items():
        os.environ.setdefault(name, value)
    if config.option.nbval_sanitize_with is None:
        config.option.nbval_sanitize_with = str(Path(__file__).parent / "tests" / "nbval_sanitize.cfg")


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
