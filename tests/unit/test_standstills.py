"""Tests that fail while this process stands still are run again, and others are not."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
_FAILS_ONCE = """
import time
from pathlib import Path

def test_it():
    tries = Path(__file__).with_suffix(".tries")
    is_first = not tries.exists()
    tries.touch()
    {what}
    assert not is_first
"""
# Holding the interpreter's lock is what a standstill looks like from within.
_STANDS_STILL = "sum(range(10_000_000)) if is_first else None"


def closing_line(directory: Path, what: str) -> str:
    """Run a test that does this and fails at its first try; return how pytest's output ends."""
    test = directory / "test_it.py"
    test.write_text(_FAILS_ONCE.format(what=what))
    options = [
        "-c",
        str(_ROOT / "pyproject.toml"),
        "-p",
        "tests.conftest",
        "-p",
        "no:cacheprovider",
    ]
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(test)],
        env=os.environ | {"PYTHONPATH": str(_ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    return ran.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    ("what", "result"), [(_STANDS_STILL, "1 passed, 1 rerun"), ("pass", "1 failed")]
)
def test_only_who_stood_still_gets_another_try(tmp_path: Path, what: str, result: str) -> None:
    assert result in closing_line(tmp_path, what)
