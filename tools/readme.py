"""Write the README's tables, figures and pictures from the stored notebooks and the story model's record.

python tools/readme.py            rewrite README.md between its marks, and the lessons' pictures that it shows
python tools/readme.py --check    only say whether they are up to date
"""

import base64
import functools
import sys
from itertools import groupby
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]
from notebooks import outputs  # noqa: E402

from shared.lessons import LESSONS, Lesson  # noqa: E402
from shared.story_model import record, report  # noqa: E402
from shared.verdict import Verdict, read_verdict  # noqa: E402

START, END = "<!-- lessons: written by `make readme` -->", "<!-- end of lessons -->"
WORLD_START, WORLD_END = "<!-- world: written by `make readme` -->", "<!-- end of world -->"
HEAD = '| | Project | Concept | The "hard way" lesson, on trial | Measured | Minutes to run | |'


@functools.cache
def stored(lesson: Lesson) -> nbformat.NotebookNode:
    """The notebook as it is stored."""
    return nbformat.read(lesson.path, as_version=4)


def stored_verdict(lesson: Lesson) -> Verdict:
    """The verdict in the stored notebook. Raises ValueError if it holds none or speaks of another claim."""
    verdict = read_verdict(outputs(stored(lesson)))
    if verdict is None:
        raise ValueError(f"{lesson.path.name} stores no verdict")
    if (verdict.lesson, verdict.claim) != (lesson.number, lesson.claim):
        raise ValueError(f"{lesson.path.name} judges {verdict.claim!r}, the README says {lesson.claim!r}")
    return verdict


def cover(lesson: Lesson) -> tuple[Path, bytes]:
    """The picture that the notebook's cell tagged "cover" shows, and the file it is kept in."""
    found = pictures(lesson)
    if "cover" not in found:
        raise ValueError(f"{lesson.path.name} has no picture in a cell tagged cover")
    return found["cover"]


def pictures(lesson: Lesson) -> dict[str, tuple[Path, bytes]]:
    """The pictures that the README shows, by the tags of their cells, each with the file it is kept in."""
    found = {}
    for cell in stored(lesson).cells:
        for tag in {"cover", "real-model"} & set(cell.metadata.get("tags", [])):
            for output in cell.outputs:
                for kind in ("png", "gif"):
                    if f"image/{kind}" in output.get("data", {}):
                        picture = base64.b64decode(output.data[f"image/{kind}"])
                        found[tag] = lesson.path.parent / f"{tag.replace('-', '_')}.{kind}", picture
    return found


def row(lesson: Lesson) -> str:
    """The lesson's line in its phase's table."""
    if not lesson.built:
        return f"| {lesson.number} | {lesson.project} | {lesson.concept} | {lesson.claim} | *to come* | | |"
    verdict, name = stored_verdict(lesson), cover(lesson)[0].name
    link = f"[{lesson.project}]({lesson.folder}/{lesson.notebook})"
    picture = f'<img src="{lesson.folder}/{name}" width="220" alt="{lesson.project}: the lesson\'s picture">'
    if (lesson.path.parent / "dashboard.png").exists():
        picture += f'<br>[<img src="{lesson.folder}/dashboard.png" width="220" alt="its dashboard">](#the-dashboard)'
    result = f"**{verdict.word}** {verdict.when}".strip()
    cells = [f"{lesson.number}", link, lesson.concept, lesson.claim, result, f"{verdict.minutes:g}", picture]
    return f"| {' | '.join(cells)} |"


def tables() -> str:
    """The four tables, between their marks."""
    lines = [START]
    for phase, lessons in groupby(LESSONS, key=lambda lesson: lesson.phase):
        lines += ["", f"### {phase}", ""]
        lines += [HEAD, "|---" * 7 + "|"]
        lines += [row(lesson) for lesson in lessons]
    return "\n".join([*lines, "", END])


def world() -> str:
    """The story world's figures, between their marks."""
    parts = [report.floors(), report.sample(), report.trained(record())]
    return "\n\n".join([WORLD_START, *parts, WORLD_END])


def renewed(readme: str) -> str:
    """The README's text with what is between its marks as it should be."""
    for start, end, content in ((START, END, tables()), (WORLD_START, WORLD_END, world())):
        before, rest = readme.split(start)
        readme = before + content + rest.split(end)[1]
    return readme


def main() -> None:
    """Write, or with --check compare."""
    path = ROOT / "README.md"
    built = [lesson for lesson in LESSONS if lesson.built]
    wanted = {path: renewed(path.read_text(encoding="utf-8")).encode()}
    wanted |= dict(picture for lesson in built for picture in pictures(lesson).values())
    stale = [file for file, content in wanted.items() if not file.exists() or _content(file) != content]
    names = ", ".join(file.relative_to(ROOT).as_posix() for file in stale)
    if "--check" in sys.argv:
        sys.exit(f"not up to date: {names}; run make readme" if stale else 0)
    for file in stale:
        file.write_bytes(wanted[file])
    print(f"wrote {names}" if stale else "up to date")


def _content(file: Path) -> bytes:
    """A file's bytes, a text's with the line ends that git stores."""
    content = file.read_bytes()
    return content.replace(b"\r\n", b"\n") if file.suffix == ".md" else content


if __name__ == "__main__":
    main()
