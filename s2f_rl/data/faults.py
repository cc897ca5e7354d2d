"""What ``check`` finds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from s2f_rl.errors import UserError, one_line

ERROR, WARNING = "error", "warning"


@dataclass(frozen=True)
class Fault:
    """One thing wrong with a corpus.

    Attributes:
        severity: "error" (training would fail or learn something wrong) or "warning" (probably not what was meant).
        file: what it is about, relative to the corpus.
        message: what is wrong.
        remedy: what to do.
    """

    severity: str
    file: str
    message: str
    remedy: str

    def __str__(self) -> str:
        return one_line(f"{self.severity}: {self.file}: {self.message}; {self.remedy}")


@dataclass
class Counts:
    """Size of a corpus: how many utterances, of how many subjects, with how much speech and motion.

    ``coefficients`` is K where motion is that of a rig; ``vertices`` are those of a face, 0 without a mesh.
    """

    utterances: int = 0
    recorded: int = 0
    seconds: float = 0.0
    frames: int = 0
    subjects: int = 0
    vertices: int = 0
    coefficients: int = 0
    splits: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        splits = ", ".join(f"{one_line(name)} {count}" for name, count in self.splits.items())
        what = f"{self.coefficients} coefficients" if self.coefficients else "vertices"
        return (
            f"{self.utterances} utterances of {self.subjects} subjects, {self.seconds / 60:.1f} min of speech; "
            f"{self.recorded} with {what} ({self.vertices} per face, {self.frames} frames); {splits or 'no splits'}"
        )


class Faults(list[Fault]):
    """The faults of a corpus, with its counts."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self.root = root
        self.counts = Counts()

    def add(self, severity: str, file: str | Path, message: str, remedy: str) -> None:
        """Add a fault; ``file`` may be given from the corpus or whole."""
        path = Path(file)
        shown = path.relative_to(self.root) if path.is_relative_to(self.root) and path != self.root else path
        self.append(Fault(severity, str(shown), " ".join(message.split()), " ".join(remedy.split())))

    def add_error(self, file: str | Path, error: UserError, severity: str = ERROR) -> None:
        """Add what the reader of ``file`` (its whole path) said: its line is "file: what; remedy"."""
        text = str(error)
        shown = one_line(f"{file}:") + " "
        start = text.find(shown)
        text = text[start + len(shown) :] if start >= 0 else text
        message, separator, remedy = text.rpartition("; ")
        self.add(severity, file, message if separator else text, remedy if separator else "mend or remove it")

    @property
    def has_errors(self) -> bool:
        return any(fault.severity == ERROR for fault in self)


def format_faults(faults: Iterable[Fault]) -> str:
    """A report to print: the counts where they are known, then one line per fault, errors first."""
    faults = list(faults) if not isinstance(faults, Faults) else faults
    lines = [str(faults.counts)] if isinstance(faults, Faults) else []
    errors = [fault for fault in faults if fault.severity == ERROR]
    warnings = [fault for fault in faults if fault.severity != ERROR]
    lines += [str(fault) for fault in errors + warnings]
    lines.append(f"{len(errors)} errors, {len(warnings)} warnings" if errors or warnings else "no faults found")
    return "\n".join(lines)
