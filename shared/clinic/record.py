"""How far the reader is with each patient: one small file, written whole or not at all."""

import json
import os
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path


@dataclass
class Progress:
    """What was done with one patient. wrong: how often it was called healthy and was not."""

    hints: int = 0
    wrong: int = 0
    healed: bool = False
    caught: bool = False
    answered: bool = False

    @property
    def state(self) -> str:
        """In a word or two, for a list."""
        words = ["healed"] * self.healed + ["caught"] * self.caught + ["answer read"] * self.answered
        return ", ".join(words + [f"{self.hints} hints"] * bool(self.hints and not self.answered)) or "open"


@dataclass
class Record:
    """The patients by name, such as "04-3", and the one that was last worked on."""

    path: Path
    current: str = ""
    patients: dict[str, Progress] = field(default_factory=dict)
    spoilt: bool = False

    @classmethod
    def read(cls, path: Path) -> "Record":
        """The stored record; an empty one if there is none, or if it cannot be read: then that file is kept aside."""
        if not path.exists():
            return cls(path)
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            names = {each.name for each in fields(Progress)}
            patients = {
                key: Progress(**{name: value for name, value in it.items() if name in names})
                for key, it in stored["patients"].items()
            }
            return cls(path, str(stored["current"]), patients)
        except (ValueError, KeyError, TypeError, AttributeError):
            os.replace(path, path.with_suffix(".unreadable"))
            return cls(path, spoilt=True)

    def of(self, name: str) -> Progress:
        """The patient's progress, begun if there is none."""
        return self.patients.setdefault(name, Progress())

    def write(self) -> None:
        """Store it."""
        text = {
            "current": self.current,
            "patients": {name: asdict(it) for name, it in self.patients.items() if it != Progress()},
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps(text, indent=1), encoding="utf-8")
        os.replace(part, self.path)
