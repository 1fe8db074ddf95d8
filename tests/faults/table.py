"""The table of faults that stands in README.md; as a program it puts it there."""

from pathlib import Path

from tests.faults.cases import CASES, NOTHING_S, Case

__all__ = ["README", "in_readme", "table", "write"]

README = Path(__file__).parents[2] / "README.md"
_BEGIN = "<!-- faults: written by make test-faults -->\n"
_END = "<!-- faults: end -->\n"
_HEAD = """\
| what | the fault | the call hears | then | the other calls hear | facts lost |
|---|---|---|---|---|---|
"""


def table() -> str:
    """Return the table: what is promised of each case, and what a run has to show."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for case in CASES:
        rows.setdefault((case.where, *_promise(case)), []).append(case.fault)
    return _HEAD + "".join(
        _row(where, "; ".join(faults), *promise) for (where, *promise), faults in rows.items()
    )


def in_readme() -> str:
    """Return what stands in README.md."""
    return README.read_text(encoding="utf-8").partition(_BEGIN)[2].partition(_END)[0]


def write() -> None:
    """Put the table into README.md."""
    text = README.read_text(encoding="utf-8")
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    assert begin, "README.md has no place for the table"
    assert end, "README.md has no end of the table"
    if text != (new := before + begin + table() + end + after):
        README.write_text(new, encoding="utf-8")


def _promise(case: Case) -> tuple[str, ...]:
    others = "all calls are hit" if case.hits_all else _gap(case.others_gap_s)
    return _gap(case.gap_s), case.then or "–", others, "none"


def _row(*cells: str) -> str:
    return "".join(f"| {cell} " for cell in cells) + "|\n"


def _gap(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    return "no gap" if seconds <= NOTHING_S else f"at most {seconds:g} s of silence"


if __name__ == "__main__":
    write()
