"""The table of faults that stands in README.md; as a program it puts that of the last run there."""

import re
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.faults import results
from tests.faults.cases import CASES, Case, Result

__all__ = ["in_readme", "measured", "row", "table"]

_README = Path(__file__).parents[2] / "README.md"
_BEGIN = "<!-- faults: written by make test-faults -->\n"
_END = "<!-- faults: end -->\n"
_HEAD = """\
| the fault | silence, at most | measured | the call | silence on other calls | lost |
|---|---|---|---|---|---|
"""
_NONE = "–"


def table(found: Mapping[str, Result]) -> str:
    """Return the table of a run.

    Raises:
        KeyError: If a case has no result; names it.
    """
    return _HEAD + "".join(row(case, found[case.name]) for case in CASES)


def row(case: Case, result: Result) -> str:
    """Return the table's row of a case."""
    cells = (
        case.name,
        _shown(None if case.silence_s is None else round(1000 * case.silence_s)),
        _shown(result.silence_ms),
        result.end,
        _shown(result.others_silence_ms),
        f"{result.lost} of {result.made}",
    )
    return "".join(f"| {cell} " for cell in cells) + "|\n"


def measured(row: str) -> Result:
    """Return what a row says was measured."""
    _, _, _, silence, end, others, lost, _ = (cell.strip() for cell in row.split("|"))
    counts = [int(number) for number in re.findall(r"\d+", lost)]
    return Result(_read(silence), end, _read(others), *counts)


def in_readme() -> str:
    """Return what stands in README.md."""
    return _README.read_text(encoding="utf-8").partition(_BEGIN)[2].partition(_END)[0]


def _shown(duration_ms: int | None) -> str:
    return _NONE if duration_ms is None else f"{duration_ms} ms"


def _read(cell: str) -> int | None:
    return None if cell == _NONE else int(cell.removesuffix(" ms"))


def _write(new: str) -> None:
    text = _README.read_text(encoding="utf-8")
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    assert begin, "README.md has no place for the table"
    assert end, "README.md has no end of the table"
    _README.write_text(before + begin + new + end + after, encoding="utf-8")


def _main() -> None:
    try:
        _write(table(results.read()))
    except OSError as exc:
        sys.exit(f"there was no run of the faults: {exc}")
    except KeyError as exc:
        sys.exit(f"the last run of the faults has no good result of {exc}")


if __name__ == "__main__":
    _main()
