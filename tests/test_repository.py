"""The house rules: what imports what, that notebooks were run and are shown, and that the README is true."""

import ast
import importlib
import importlib.util
import re
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import readme  # noqa: E402
import sources  # noqa: E402

from shared.lessons import LESSONS  # noqa: E402

BUILT = [lesson for lesson in LESSONS if lesson.built]
ROOMS = ["1. Build", "2. Prove", "3. See", "4. Measure", "5. Break", "6. Go further"]
built = pytest.mark.parametrize("lesson", BUILT, ids=lambda lesson: lesson.folder)


def imports(path):
    """The dotted names of all modules that a file imports, in functions too."""
    return set(sources.imported(ast.parse(path.read_text(encoding="utf-8"))))


def module(path):
    """The dotted name of a file of `shared`."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


SHARED = {module(path): imports(path) for path in (ROOT / "shared").rglob("*.py")}


def floors(name):
    """The modules of `shared` that a module of it imports: the longest dotted name that is one."""
    for imported in SHARED[name]:
        while imported and imported not in SHARED:
            imported = imported.rpartition(".")[0]
        if imported:
            yield imported


FLOORS = {name: set(floors(name)) for name in SHARED}


def code_cells(lesson):
    """The notebook's cells of code."""
    return [cell for cell in readme.stored(lesson).cells if cell.cell_type == "code"]


def outputs(lesson):
    """All stored outputs."""
    return [output for cell in code_cells(lesson) for output in cell.outputs]


def test_there_is_a_lesson_to_test():
    """The tests below are not true for want of anything to look at."""
    assert "04_attention_lab" in [lesson.folder for lesson in BUILT]
    assert len(LESSONS) == 16


def test_shared_imports_no_lesson():
    """Two floors: the lower one does not know the upper."""
    helpers = {path.stem for lesson in BUILT for path in lesson.path.parent.glob("*.py")}
    for name, names in SHARED.items():
        assert not helpers & {imported.split(".")[0] for imported in names}, name


def test_shared_has_no_cycle():
    """Its modules can be put in an order in which each imports only earlier ones."""
    tuple(TopologicalSorter(FLOORS).static_order())  # raises CycleError, which names the cycle


def test_the_world_stands_on_nothing_of_ours():
    for name in SHARED:
        if name.startswith("shared.world"):
            assert all(below.startswith("shared.world") for below in FLOORS[name]), name


def test_nothing_in_shared_stands_on_the_story_model():
    """It is the uppermost: above the world and the decoder."""
    for name in SHARED:
        if not name.startswith("shared.story_model"):
            assert not any(below.startswith("shared.story_model") for below in FLOORS[name]), name
    assert "shared.world" in FLOORS["shared.story_model.checkpoint"]


LONG_SHARED = {  # modules of `shared` over 220 lines: to be shortened, and no other to be added
    "training.py": 225,
    "judge.py": 231,
    "domains.py": 287,
    "tales.py": 361,
}


def too_long(paths, most, known):
    """The files of more than `most` lines, but for those known, which may not grow and go from the list when mended."""
    lengths = {path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in paths}
    grown = {name: n for name, n in lengths.items() if n > known.get(name, most)}
    return grown | {name: lengths.get(name) for name in known if lengths.get(name, 0) <= most}


def test_helpers_can_be_read_in_one_sitting():
    assert not too_long((lesson.path.with_name(f"{lesson.helper}.py") for lesson in BUILT), 350, known={})


def test_modules_of_shared_can_be_read_in_one_sitting():
    assert not too_long((ROOT / "shared").rglob("*.py"), 220, LONG_SHARED)


@built
def test_a_lesson_stands_alone(lesson):
    """It imports `shared`, its own folder, and nothing else of this repository; helper names are unique."""
    own = {path.stem for path in lesson.path.parent.glob("*.py")}
    others = {path.stem for other in BUILT if other is not lesson for path in other.path.parent.glob("*.py")}
    names = {name for path in lesson.path.parent.glob("*.py") for name in imports(path)}
    for cell in code_cells(lesson):
        names |= set(sources.imported(ast.parse(cell.source)))
    assert not own & others
    assert not others & {name.split(".")[0] for name in names}


@built
def test_pytest_knows_the_lesson(lesson):
    """Its notebook is collected, by one of pytest's patterns, and its helper found."""
    options = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["pytest"]["ini_options"]
    assert any(fnmatch(lesson.folder, pattern) for pattern in options["testpaths"])
    assert Path(importlib.util.find_spec(lesson.helper).origin) == lesson.path.with_name(f"{lesson.helper}.py")


def test_nothing_shadows_the_package_shared():
    """Not tests/shared: without an __init__.py of its own, it gives way to the package wherever that is on the path."""
    assert list(importlib.import_module("shared").__path__) == [str(ROOT / "shared")]
    assert str(ROOT) in sys.path
    assert not list((ROOT / "tests").rglob("__init__.py"))


@built
def test_a_notebook_was_run_from_top_to_bottom(lesson):
    """Execution counts are 1, 2, 3 and so on: nbval alone passes a notebook that was never run."""
    cells = code_cells(lesson)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))


@built
def test_a_notebook_was_run_since_what_it_is_made_of_was_edited(lesson):
    """Nothing has changed since: no cell, no file it uses of its folder or of `shared`, no result (`make build`)."""
    assert sources.changed(readme.stored(lesson), lesson.path.parent) == []


@built
def test_a_notebook_can_be_shown_on_github(lesson):
    """No widgets, no errors, no stray text on stderr, under 1.5 MB; each Plotly figure has a PNG beside it."""
    assert lesson.path.stat().st_size < 1_500_000
    assert "widgets" not in readme.stored(lesson).metadata
    for output in outputs(lesson):
        assert output.output_type != "error"
        assert output.get("name") != "stderr", output.text
        data = output.get("data", {})
        assert "application/vnd.plotly.v1+json" not in data or "image/png" in data
        assert "application/vnd.jupyter.widget-view+json" not in data


@built
def test_a_notebook_tells_nothing_of_the_machine_it_was_built_on(lesson):
    """No absolute path in an output."""
    for output in outputs(lesson):
        text = output.get("text", "") + str(output.get("data", {}).get("text/plain", ""))
        assert not re.search(r"(?<![\w.])/(tmp|root|home|Users|work)/|[A-Z]:\\\\", text), text


@built
def test_a_notebook_has_its_rooms_in_order(lesson):
    """So that a reader is at home in the second one."""
    text = "\n".join(cell.source for cell in readme.stored(lesson).cells if cell.cell_type == "markdown")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ROOMS


@built
def test_most_of_a_notebook_is_compared(lesson):
    """nbval compares the outputs of at least three cells in four, and skips none."""
    tags = [cell.metadata.get("tags", []) for cell in code_cells(lesson)]
    assert not any("nbval-skip" in tag for tag in tags)
    assert sum("nbval-ignore-output" in tag for tag in tags) <= len(tags) / 4


def test_the_readme_says_what_the_notebooks_say():
    """Its tables and covers are what `make readme` would write."""
    done = subprocess.run([sys.executable, "tools/readme.py", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_links_and_pictures_in_markdown_exist():
    """Every relative link in the repository's own pages leads somewhere."""
    for page in ROOT.glob("*.md"):
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#]+)\)", text) + re.findall(r'src="([^"]+)"', text):
            assert target.startswith("http") or (page.parent / target).exists(), f"{page.name}: {target}"
