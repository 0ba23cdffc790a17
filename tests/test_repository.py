"""The house rules: what imports what, that notebooks were run and are shown, and that the README is true."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import notebooks  # noqa: E402
import readme  # noqa: E402

LESSONS = [lesson for lessons in readme.PHASES.values() for lesson in lessons]
BUILT = [lesson for lesson in LESSONS if lesson.path.exists()]
ROOMS = ["1. Build", "2. Prove", "3. See", "4. Measure", "5. Break", "6. Go further"]
built = pytest.mark.parametrize("lesson", BUILT, ids=lambda lesson: lesson.folder)


def imports(source):
    """The top names of all modules that a source imports."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module.split(".")[0]


def code_cells(lesson):
    """The notebook's cells of code."""
    return [cell for cell in lesson.stored.cells if cell.cell_type == "code"]


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
    for path in (ROOT / "shared").glob("*.py"):
        assert not helpers & set(imports(path.read_text(encoding="utf-8"))), path.name


@built
def test_a_lesson_stands_alone(lesson):
    """It imports `shared`, its own folder, and nothing else of this repository; helper names are unique."""
    own = {path.stem for path in lesson.path.parent.glob("*.py")}
    others = {path.stem for other in BUILT if other is not lesson for path in other.path.parent.glob("*.py")}
    sources = [path.read_text(encoding="utf-8") for path in lesson.path.parent.glob("*.py")]
    sources += ["\n".join(cell.source for cell in code_cells(lesson))]
    assert not own & others
    assert not (others - own) & {name for source in sources for name in imports(source)}


@built
def test_pytest_knows_the_lesson(lesson):
    """Its notebook is collected, and its helper found."""
    options = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["pytest"]["ini_options"]
    assert lesson.folder in options["testpaths"]
    assert lesson.folder in options["pythonpath"]


@built
def test_a_notebook_was_run_from_top_to_bottom(lesson):
    """Execution counts are 1, 2, 3 and so on: nbval alone passes a notebook that was never run."""
    cells = code_cells(lesson)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))


@built
def test_a_notebook_was_run_since_it_or_its_helper_was_edited(lesson):
    """The hash stored when it was built is today's."""
    notebook = lesson.stored
    assert notebook.metadata.lesson.source_sha256 == notebooks.source_hash(notebook, lesson.path.parent)


@built
def test_a_notebook_can_be_shown_on_github(lesson):
    """No widgets, no errors, no stray text on stderr, under 1.5 MB; each Plotly figure has a PNG beside it."""
    assert lesson.path.stat().st_size < 1_500_000
    assert "widgets" not in lesson.stored.metadata
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
    text = "\n".join(cell.source for cell in lesson.stored.cells if cell.cell_type == "markdown")
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


def test_a_cell_that_was_edited_and_not_run_is_noticed(tmp_path):
    """The hash moves with a cell's source and with each file that it uses, and not with outputs or other files."""
    files = {"helper": "from clinic import a\n", "clinic": "a = 1\n", "page": "import helper\n"}
    for name, source in files.items():
        (tmp_path / f"{name}.py").write_text(source, encoding="utf-8")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("import helper")])
    before = notebooks.source_hash(notebook, tmp_path)
    notebook.cells[0].outputs = [nbformat.v4.new_output("stream", text="1\n")]
    (tmp_path / "page.py").write_text("import helper, clinic\n", encoding="utf-8")
    assert notebooks.source_hash(notebook, tmp_path) == before
    notebook.cells[0].source = "import helper  # again"
    assert notebooks.source_hash(notebook, tmp_path) != before
    notebook.cells[0].source = "import helper"
    for name in ("helper", "clinic"):
        (tmp_path / f"{name}.py").write_text(files[name] + "b = 2\n", encoding="utf-8")
        assert notebooks.source_hash(notebook, tmp_path) != before
        (tmp_path / f"{name}.py").write_text(files[name], encoding="utf-8")


def test_a_lesson_that_is_not_there_is_named():
    """`make lesson N=99` says which there are."""
    with pytest.raises(ValueError, match=r"99.*04"):
        notebooks.find("99")
    assert notebooks.find("4") == notebooks.find("04")
