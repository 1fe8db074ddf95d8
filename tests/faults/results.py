"""What the last run has measured, in a file between the run and the table."""

import json
from collections.abc import Mapping
from pathlib import Path

from tests.faults.cases import Result

__all__ = ["read", "write"]

_FILE = Path(__file__).parents[2] / ".cache/faults.json"


def write(results: Mapping[str, Result]) -> None:
    """Keep the results of a run, by the names of their cases, in the place of any before."""
    _FILE.parent.mkdir(exist_ok=True)
    lines = {name: result._asdict() for name, result in results.items()}
    _FILE.write_text(json.dumps(lines, indent=1), encoding="utf-8")


def read() -> dict[str, Result]:
    """Return them.

    Raises:
        OSError: If there was no run.
    """
    lines = json.loads(_FILE.read_text(encoding="utf-8"))
    return {name: Result(**fields) for name, fields in lines.items()}
