"""Write the README's tables, figures and pictures from the stored notebooks and the story model's record.

python tools/readme.py            rewrite README.md between its marks, and each lesson's cover
python tools/readme.py --check    only say whether they are up to date
"""

import base64
import functools
import sys
from dataclasses import dataclass
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]
from notebooks import outputs_text  # noqa: E402

from shared.checkpoint import record  # noqa: E402
from shared.verdict import Verdict, read_verdict  # noqa: E402
from shared.world import report  # noqa: E402

START, END = "<!-- lessons: written by `make readme` -->", "<!-- end of lessons -->"
WORLD_START, WORLD_END = "<!-- world: written by `make readme` -->", "<!-- end of world -->"
HEAD = '| | Project | Concept | The "hard way" lesson, on trial | Measured | Minutes to run | |'


@dataclass(frozen=True)
class Lesson:
    """One row of the journey."""

    folder: str
    notebook: str
    project: str
    concept: str
    claim: str

    @property
    def path(self) -> Path:
        """Where the notebook lies, built or not."""
        return ROOT / self.folder / self.notebook

    @functools.cached_property
    def stored(self) -> nbformat.NotebookNode:
        """The notebook as it is stored."""
        return nbformat.read(self.path, as_version=4)


PHASES = {
    "I. The Atoms": [
        Lesson("01_byte_pair_smith", "bpe_vis.ipynb", "Byte-Pair Smith", "Tokenization",
               "Merging rules are just statistics. Visualized token drift."),
        Lesson("02_meaning_space", "embedding_vis.ipynb", "Meaning Space", "Embeddings",
               "One-Hot vectors are orthogonal and useless. Cosine similarity is king."),
        Lesson("03_rope_animator", "rope_vis.ipynb", "RoPE Animator", "Positions",
               "Absolute positions fail on long docs. Rotation generalizes better."),
    ],
    "II. The Architecture": [
        Lesson("04_attention_lab", "attention_vis.ipynb", "Attention Lab", "Self-attention",
               "Scaling factors prevent softmax saturation."),
        Lesson("05_block_builder", "block_vis.ipynb", "Block Builder", "The transformer block",
               "Residual streams are the information highway."),
        Lesson("06_norm_activation", "norm_vis.ipynb", "Norm & Activation", "Norms and activations",
               "LayerNorm centers gradients; Pre-LN converges faster."),
    ],
    "III. Inference": [
        Lesson("07_entropy_plotter", "sampling_vis.ipynb", "Entropy Plotter", "Sampling",
               "Temperature controls the sharpness of the softmax distribution."),
        Lesson("08_kv_speedrun", "kv_cache_vis.ipynb", "KV Speedrun", "The KV cache",
               "The bottleneck is memory bandwidth, not compute."),
        Lesson("09_sliding_window", "window_vis.ipynb", "Sliding Window", "The context window",
               "Memory grows quadratically unless you restrict attention scope."),
        Lesson("10_grouped_query", "gqa_vis.ipynb", "Grouped Query", "Grouped-query attention",
               "Sharing KV heads saves massive VRAM with minimal perplexity loss."),
    ],
    "IV. Advanced & Scaling": [
        Lesson("11_expert_router", "moe_vis.ipynb", "Expert Router", "Mixture of experts",
               "Experts collapse if you don't penalize uneven routing."),
        Lesson("12_int8_quant", "int8_vis.ipynb", "INT8 Quant", "Quantization",
               "Outliers in activation matrices destroy quantization precision."),
        Lesson("13_objective_arena", "objective_vis.ipynb", "Objective Arena", "Pretraining objectives",
               "Causal masking is harder to learn than bi-directional masking."),
        Lesson("14_instruct_tuner", "instruct_vis.ipynb", "Instruct Tuner", "Fine-tuning",
               "Base models mimic; Instruct models obey."),
        Lesson("15_ppo_loop", "ppo_vis.ipynb", "PPO Loop", "RLHF",
               "The Reward Model is easily gamed without KL penalties."),
        Lesson("16_scaling_laws", "scaling_vis.ipynb", "Scaling Laws", "Capacity",
               "Loss scales linearly with the log of compute/parameters."),
    ],
}  # fmt: skip


def stored_verdict(lesson: Lesson) -> Verdict:
    """The verdict in the stored notebook. Raises ValueError if it holds none or speaks of another claim."""
    verdict = read_verdict(outputs_text(lesson.stored))
    if verdict is None:
        raise ValueError(f"{lesson.path.name} stores no verdict")
    if (verdict.lesson, verdict.claim) != (lesson.folder[:2], lesson.claim):
        raise ValueError(f"{lesson.path.name} judges {verdict.claim!r}, the README says {lesson.claim!r}")
    return verdict


def cover(lesson: Lesson) -> tuple[Path, bytes]:
    """The picture that the notebook's cell tagged "cover" shows, and the file it is kept in."""
    for cell in lesson.stored.cells:
        if "cover" in cell.metadata.get("tags", []):
            for output in cell.outputs:
                for kind in ("gif", "png"):
                    if f"image/{kind}" in output.get("data", {}):
                        picture = base64.b64decode(output.data[f"image/{kind}"])
                        return lesson.path.parent / f"cover.{kind}", picture
    raise ValueError(f"{lesson.path.name} has no picture in a cell tagged cover")


def row(number: int, lesson: Lesson) -> str:
    """The lesson's line in its phase's table."""
    if not lesson.path.exists():
        return f"| {number:02d} | {lesson.project} | {lesson.concept} | {lesson.claim} | *to come* | | |"
    verdict, name = stored_verdict(lesson), cover(lesson)[0].name
    link = f"[{lesson.project}]({lesson.folder}/{lesson.notebook})"
    picture = f'<img src="{lesson.folder}/{name}" width="220" alt="{lesson.project}: the lesson\'s picture">'
    if (lesson.path.parent / "dashboard.png").exists():
        picture += f'<br>[<img src="{lesson.folder}/dashboard.png" width="220" alt="its dashboard">](#the-dashboard)'
    result = f"**{verdict.word}** {verdict.when}".strip()
    cells = [f"{number:02d}", link, lesson.concept, lesson.claim, result, f"{verdict.minutes:g}", picture]
    return f"| {' | '.join(cells)} |"


def tables() -> str:
    """The four tables, between their marks."""
    lines, number = [START], 0
    for phase, lessons in PHASES.items():
        lines += ["", f"### {phase}", ""]
        lines += [HEAD, "|---" * 7 + "|"]
        for lesson in lessons:
            number += 1
            lines.append(row(number, lesson))
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
    built = [lesson for lessons in PHASES.values() for lesson in lessons if lesson.path.exists()]
    wanted = {path: renewed(path.read_text(encoding="utf-8")).encode()} | dict(cover(lesson) for lesson in built)
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
