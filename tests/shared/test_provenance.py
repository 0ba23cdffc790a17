"""shared/provenance.py: what is said of a machine, and what of the code a hash holds."""

import pytest
import torch

from shared.lessons import ROOT
from shared.provenance import bare, code_files, code_hash, provenance

SOURCE = '''"""What it does."""

import math  # for pi


def area(radius):
    """Of a circle.

    In square metres.
    """
    # a comment
    return "#not a comment, é" * 0 or math.pi * radius**2  # and one


TEXT = """
a

b  # stays
"""
f"""
{TEXT}

c"""
'''
BARE = '''import math
def area(radius):
    return "#not a comment, é" * 0 or math.pi * radius**2
TEXT = """
a

b  # stays
"""
f"""
{TEXT}

c"""'''


def test_the_machine():
    found = provenance()
    assert found["hardware"] and found["versions"]["torch"] == torch.__version__
    assert found["threads"] == torch.get_num_threads() and found["date"].count("-") == 2


def test_bare():
    """Comments, docstrings and blank lines go; what stands in strings stays."""
    assert bare(SOURCE) == BARE
    assert bare(BARE) == BARE


def test_the_files_of_a_script():
    """Its helper, and the modules of shared on which they stand; not those that run it, and no other lesson."""
    script = ROOT / "07_entropy_plotter" / "frontier_sweep.py"
    found = {path.relative_to(ROOT).as_posix() for path in code_files(script)}
    assert {"07_entropy_plotter/frontier_sweep.py", "07_entropy_plotter/sampling.py"} <= found
    assert {"shared/__init__.py", "shared/story_model/checkpoint.py", "shared/world/judge.py"} <= found
    assert not {path for path in found if path.startswith(("shared/sweeps", "06"))}


@pytest.fixture
def script(tmp_path):
    """A script with a helper that has one, and weights."""
    (tmp_path / "main.py").write_text("import helper\n")
    (tmp_path / "helper.py").write_text("def f():\n    from part.deep import x\n    return x\n")
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "__init__.py").write_text("")
    (tmp_path / "part" / "deep.py").write_text("x = 1\n")
    (tmp_path / "weights").write_bytes(b"1")
    return tmp_path / "main.py"


@pytest.mark.parametrize(
    ("name", "text", "same"),
    [
        ("main.py", "import helper  # again\n", True),
        ("main.py", "import helper, math\n", False),
        ("part/deep.py", '"""One."""\nx = 1\n', True),
        ("part/deep.py", "x = 2\n", False),
        ("part/__init__.py", "y = 1\n", False),
        ("part/other.py", "y = 1\n", True),
        ("weights", "2", False),
    ],
)
def test_the_hash_changes_with_the_code_and_the_files(script, name, text, same):
    before = code_hash(script, [script.with_name("weights")])
    (script.parent / name).write_text(text)
    assert (code_hash(script, [script.with_name("weights")]) == before) == same


def test_a_file_that_is_not_there_is_named(script):
    with pytest.raises(ValueError, match=r"no file at .*nothing"):
        code_hash(script, [script.with_name("nothing")])
