"""What somebody sees who has a fault: a text, a picture, or both, made by running the patient."""

from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure


@dataclass(frozen=True)
class Evidence:
    """A text and a picture, either of which may be missing."""

    text: str = ""
    figure: Figure | None = None

    def show(self) -> None:
        """Print the text and display the picture, in a notebook."""
        from IPython.display import display

        if self.text:
            print(self.text)
        if self.figure is not None:
            display(self.figure)

    def save(self, folder: Path) -> list[Path]:
        """Write evidence.txt and evidence.png, as far as there is something; return what was written."""
        files = []
        if self.text:
            files.append(folder / "evidence.txt")
            files[-1].write_text(self.text + "\n", encoding="utf-8")
        if self.figure is not None:
            files.append(folder / "evidence.png")
            self.figure.savefig(files[-1], dpi=120, bbox_inches="tight")
        return files
