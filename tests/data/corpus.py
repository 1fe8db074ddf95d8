"""The corpus of real and nasty inputs in `fuzz/`: its README says what each is and comes to."""

import re
from pathlib import Path
from typing import NamedTuple

__all__ = ["FORMATS", "Sample", "samples"]

FORMATS = ("audiosocket", "proxy", "frames", "http", "api", "rtvi", "settings")
_ROOT = Path(__file__).with_name("fuzz")
_ROW = re.compile(r"^\| `([^`]+)` \| [^|]+ \| ([^|]+) \|$", re.MULTILINE)


class Sample(NamedTuple):
    """One input."""

    path: Path
    outcome: str
    """What it comes to, in the words of its format's test."""

    @property
    def data(self) -> bytes:
        """The input itself."""
        return self.path.read_bytes()


def samples(format: str) -> list[Sample]:
    """Return those of a format that the README tells of."""
    text = (_ROOT / "README.md").read_text(encoding="utf-8")
    rows = text.partition(f"## {format}\n")[2].partition("\n## ")[0]
    return [Sample(_ROOT / format / name, outcome) for name, outcome in _ROW.findall(rows)]
