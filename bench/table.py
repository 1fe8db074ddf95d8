"""The table, as text and as Markdown, and where it was measured."""

import os
import platform
import subprocess
import unicodedata
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from bench.figures import Limit, Row
from bench.process import ROOT, can_favour

__all__ = ["describe_machine", "markdown", "render", "summarise"]

_HEADS = ("figure", "mediad", "floor", "ratio", "must", "aim")
_PACKAGES = ("uvloop", "picows", "Cython", "numpy", "protobuf", "pipecat-ai")


def render(rows: Sequence[Row], is_judged: bool = True) -> str:
    """Return the table as Markdown that is also readable as text.

    Args:
        is_judged: Whether limits are shown as reached or not: a short form decides nothing.
    """
    table = markdown([_HEADS, *(_cells(row, is_judged) for row in rows)])
    notes = [f"- {row.figure}: {'; '.join(row.notes)}." for row in rows if row.notes]
    return "\n".join([table, "", *notes])


def markdown(cells: Sequence[Sequence[str]]) -> str:
    """Return a table, its heads first, as Markdown that is also readable as text."""
    widths = [max(map(_width, column)) for column in zip(*cells, strict=True)]
    lines = ["| " + " | ".join(map(_pad, line, widths)) + " |" for line in cells]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def summarise(rows: Sequence[Row]) -> str:
    """Say plainly what is not reached, and what stands in the way."""
    lines = []
    for word, missed in (
        ("must", [row for row in rows if row.must and not row.must.is_reached]),
        ("aim", [row for row in rows if row.aim and not row.aim.is_reached]),
    ):
        if not missed:
            lines.append(f'- Every "{word}" is reached.')
        for row in missed:
            limit = row.must if word == "must" else row.aim
            assert limit is not None
            reached = f"{row.value} ({row.ratio:.2f} × floor)" if row.ratio else row.value
            why = f" {row.obstacle}" if word == "aim" and row.obstacle else ""
            lines.append(
                f'- "{word}" NOT reached: {row.figure}: {reached}, wanted {limit.text}.{why}'
            )
    return "\n".join(lines)


def describe_machine(cores: tuple[int, int]) -> list[str]:
    """Return what the figures depend on, a line each."""
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    priority = "both at real-time priority" if can_favour() else "both at the usual priority"
    return [
        f"Date: {datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        f"Machine: {_processor()}, {os.cpu_count()} cores, {memory_gib:.0f} GiB",
        f"Kernel: {platform.system()} {platform.release()}, {platform.machine()}",
        f"Cores: {cores[0]} for the measured program, {cores[1]} for the generator, {priority}",
        f"Compiler: {_first_line(os.environ.get('CC', 'gcc'), '--version')}",
        f"Python {platform.python_version()}, {versions}",
        f"mediad {version('mediad')}, {_commit()}",
    ]


def _cells(row: Row, is_judged: bool) -> tuple[str, ...]:
    ratio = "–" if row.ratio is None else f"{row.ratio:.2f}"
    return (
        row.figure,
        row.value,
        row.floor,
        ratio,
        _judged(row.must, is_judged),
        _judged(row.aim, is_judged),
    )


def _judged(limit: Limit | None, is_judged: bool) -> str:
    if limit is None:
        return "–"
    if not is_judged:
        return limit.text
    return f"{limit.text}: {'yes' if limit.is_reached else 'NO'}"


def _width(text: str) -> int:
    return sum(not unicodedata.combining(letter) for letter in text)


def _pad(text: str, width: int) -> str:
    return text + " " * (width - _width(text))


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.processor() or "unknown processor"


def _commit() -> str:
    commit = _first_line("git", "-C", str(ROOT), "rev-parse", "--short", "HEAD")
    changed = _first_line("git", "-C", str(ROOT), "status", "--porcelain", "--", "src")
    return f"commit {commit}{' and uncommitted changes' if changed else ''}"


def _first_line(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError:
        return "unknown"
    return (done.stdout.splitlines() or [""])[0]
