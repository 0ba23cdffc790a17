"""tools/notebooks.py on a notebook of three cells: nothing that a reader wrote is lost, and what changed is told."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import notebooks  # noqa: E402
import scripts  # noqa: E402
from sources import changed, sources  # noqa: E402

VERDICT = """from shared.verdict import Finding, verdict

result = verdict(
    lesson="04",
    claim="It works.",
    supports=[Finding("x", VALUE, at_least=0.5)],
    limits=[],
    seeds=3,
    minutes=1,
)"""


@pytest.fixture
def path(tmp_path, monkeypatch):
    """A stored notebook in a lesson's folder of its own."""
    monkeypatch.setattr(scripts, "SCRATCH", tmp_path / "scratch")
    folder = tmp_path / "04_small"
    folder.mkdir()
    store(folder / "small_vis.ipynb", "1 + 1")
    return folder / "small_vis.ipynb"


def store(path, source):
    cells = [new_markdown_cell("# Small"), new_code_cell(source, metadata={"tags": ["cover"]})]
    nbformat.write(new_notebook(cells=cells), path)


def edit(path, old, new):
    """Change the notebook's script."""
    script = scripts.script_of(path)
    text = script.read_text(encoding="utf-8")
    assert old in text
    script.write_text(text.replace(old, new), encoding="utf-8")


def stored(path):
    return nbformat.read(path, as_version=4)


def test_edits_are_built_again_and_again(path):
    """Text, edit, build, edit, build: cells, outputs, tags and the record of what it was made of are stored."""
    notebooks.text(path)
    edit(path, "1 + 1", "2+2")
    notebooks.build(path)
    code = stored(path).cells[1]
    assert code.source == "2 + 2" and code.outputs[0].data["text/plain"] == "4" and code.metadata.tags == ["cover"]
    assert not changed(stored(path), path.parent)
    edit(path, "2 + 2", "3 + 3")
    notebooks.build(path)
    assert stored(path).cells[1].outputs[0].data["text/plain"] == "6"
    notebooks.text(path)  # nothing is lost, so it is written anew


def test_a_stale_script_does_not_replace_a_newer_notebook(path):
    """The notebook was changed since the script was made, or the script names no version."""
    notebooks.text(path)
    edit(path, "1 + 1", "2 + 2")
    store(path, "5 + 5")
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"small_vis\.py was not made from small_vis\.ipynb as it is now"):
        notebooks.build(path)
    edit(path, "# made from version", "# version")
    with pytest.raises(ValueError, match="was not made from"):
        notebooks.build(path)
    assert path.read_bytes() == before


def test_a_script_with_edits_is_not_written_over(path):
    notebooks.text(path)
    edit(path, "1 + 1", "2 + 2")
    with pytest.raises(ValueError, match="holds edits that were not built"):
        notebooks.text(path)
    edit(path, "2 + 2", "1 + 1")
    store(path, "5 + 5")
    notebooks.text(path)
    assert "5 + 5" in scripts.script_of(path).read_text(encoding="utf-8")


@pytest.mark.parametrize(("source", "error"), [("1 / 0", CellExecutionError), ("x = undefined", ValueError)])
def test_a_failing_build_leaves_the_stored_notebook_and_the_script(path, source, error):
    """A cell that raises; a cell that ruff refuses."""
    notebooks.text(path)
    edit(path, "1 + 1", source)
    before = path.read_bytes(), scripts.script_of(path).read_bytes()
    with pytest.raises(error):
        notebooks.build(path)
    assert (path.read_bytes(), scripts.script_of(path).read_bytes()) == before
    assert [file.name for file in path.parent.iterdir()] == ["small_vis.ipynb"]


def test_edits_made_during_a_build_are_kept(path, monkeypatch):
    notebooks.text(path)
    edit(path, "1 + 1", "2 + 2")
    monkeypatch.setattr(notebooks, "execute", lambda *_: edit(path, "2 + 2", "3 + 3"))
    notebooks.build(path)
    assert stored(path).cells[1].source == "2 + 2"
    monkeypatch.setattr(notebooks, "execute", lambda *_: None)
    notebooks.build(path)
    assert stored(path).cells[1].source == "3 + 3"


def test_a_first_script_makes_a_notebook(path):
    """Where none is stored, nothing can be lost."""
    path.unlink()
    scripts.SCRATCH.mkdir()
    scripts.script_of(path).write_text("# %% [markdown]\n# # Small\n\n# %%\n7 * 6\n", encoding="utf-8")
    notebooks.build(path)
    assert stored(path).cells[1].outputs[0].data["text/plain"] == "42"
    edit(path, "7 * 6", "7 * 7")
    notebooks.build(path)


def test_a_notebook_runs_on_the_python_that_runs_the_tool(path, tmp_path, monkeypatch):
    """Whatever JUPYTER_PATH calls "python3"."""
    foreign = tmp_path / "share" / "kernels" / "python3"
    foreign.mkdir(parents=True)
    spec = {"argv": [sys.executable, "-c", "raise SystemExit(1)"], "display_name": "foreign", "language": "python"}
    (foreign / "kernel.json").write_text(json.dumps(spec), encoding="utf-8")
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "share"))
    store(path, "import sys\n\nsys.executable")
    notebooks.build(path)
    assert stored(path).cells[1].outputs[0].data["text/plain"] == repr(sys.executable)


def test_a_verdict_is_shown_stored_and_compared_by_its_rules(path, capsys, monkeypatch):
    """`run` prints the box and stores nothing; nbval passes another number by the same rule, and not another answer."""
    store(path, VERDICT.replace("VALUE", "0.75"))
    notebooks.build(path)
    before = path.read_bytes()
    monkeypatch.setattr(notebooks, "execute", lambda *_: None)
    notebooks.run(path)
    assert "┌ 04 ─ It works.\n│ HOLDS\n" in capsys.readouterr().out and path.read_bytes() == before
    for name, value in (("same", "0.875"), ("other", "0.25")):
        notebook = stored(path)
        notebook.cells[1].source = VERDICT.replace("VALUE", value)
        nbformat.write(notebook, path.with_name(f"{name}.ipynb"))
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-c", ROOT / "pyproject.toml"]
    command += ["--rootdir", ROOT, "--nbval-sanitize-with", ROOT / "tests" / "nbval_sanitize.cfg"]
    done = subprocess.run([*command, "same.ipynb", "other.ipynb"], cwd=path.parent, capture_output=True, text=True)
    assert "1 failed, 1 passed" in done.stdout, done.stdout + done.stderr
    assert "{'word': 'HOLDS'} != {'word': 'FAILS'}" in done.stdout


FILES = {
    "helper.py": "def f():\n    import deep\n    return open('results/read.json')\n",
    "deep.py": "a = 1\n",
    "helper_checks.py": "import only_checks\n",
    "only_checks.py": "",
    "results/read.json": "{}",
    "results/jobs/one.json": "{}",
    "results/other.json": "{}",
    "page.py": "import helper\n",
}
USED = {"helper.py", "deep.py", "helper_checks.py", "only_checks.py", "results/read.json", "results/jobs/one.json"}


@pytest.fixture
def folder(tmp_path):
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def test_all_that_a_notebook_uses_is_hashed(folder):
    """From import to import, also in functions, through packages of `shared`; results that a source names."""
    cell = "%matplotlib inline\nimport helper\nfrom shared.world import words\nfolder = 'results/jobs'"
    notebook = new_notebook(cells=[new_code_cell(cell), new_markdown_cell("import page")])
    used = set(sources(notebook, folder))
    ours = {name for name in used if not name.startswith("shared/")}
    assert ours == USED | {"cells"}
    assert {"shared/__init__.py", "shared/world/words.py", "shared/world/rows.py"} <= used
    assert "shared/verdict.py" not in used


def test_what_has_changed_since_the_run_is_told_by_name(folder):
    """A source, a file it uses, one more, one less; outputs and other files are nothing."""
    notebook = new_notebook(cells=[new_code_cell("import helper\n'jobs'")])
    notebooks.normalise(notebook, folder)
    notebook.cells[0].outputs = [nbformat.v4.new_output("stream", text="1\n")]
    (folder / "page.py").write_text("import helper, deep\n", encoding="utf-8")
    assert changed(notebook, folder) == []
    for name in USED:
        (folder / name).write_text(FILES[name] + "\n", encoding="utf-8")
        assert changed(notebook, folder) == [name]
        (folder / name).write_text(FILES[name], encoding="utf-8")
    (folder / "helper_faults.py").write_text("", encoding="utf-8")
    (folder / "only_checks.py").unlink()
    notebook.cells[0].source += "  # again"
    assert changed(notebook, folder) == ["cells", "helper_faults.py", "only_checks.py"]


def test_a_lesson_that_is_not_there_is_named(path, monkeypatch):
    """`make lesson N=99` says which there are; a first script is enough."""
    with pytest.raises(ValueError, match=r"99.*04"):
        notebooks.find("99")
    assert notebooks.find("4") == notebooks.find("04") == ROOT / "04_attention_lab" / "attention_vis.ipynb"
    one_more = replace(notebooks.LESSONS[0], folder="17_next", notebook="next_vis.ipynb")
    monkeypatch.setattr(notebooks, "LESSONS", [*notebooks.LESSONS, one_more])
    with pytest.raises(ValueError, match="'17'"):
        notebooks.find("17")
    scripts.SCRATCH.mkdir()
    (scripts.SCRATCH / "next_vis.py").write_text("", encoding="utf-8")
    assert notebooks.find("17").name == "next_vis.ipynb"
