"""``MEDIAD_CORE`` chooses the line when mediad runs."""

import os
import subprocess
import sys

import pytest

from tests.unit.line.lines import compiled_line

WHICH = "from mediad.line import CORE, Line; print(CORE, Line.__module__)"
WITHOUT_CORE = "import sys; sys.modules['mediad.line._core'] = None; "


def run(choice: str, code: str = WHICH) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own, for which the choice is still open."""
    environment = os.environ | {"MEDIAD_CORE": choice}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )


def test_python_takes_the_specification() -> None:
    assert run("python").stdout == "python mediad.line.line\n"


@pytest.mark.parametrize("choice", ["require", "auto", ""])
def test_the_compiled_line_is_taken_where_it_is(choice: str) -> None:
    compiled_line()
    assert run(choice).stdout == "compiled mediad.line._core\n"


def test_auto_does_without_the_compiled_line() -> None:
    assert run("auto", WITHOUT_CORE + WHICH).stdout == "python mediad.line.line\n"


def test_require_says_how_to_get_the_compiled_line() -> None:
    result = run("require", WITHOUT_CORE + WHICH)
    assert result.returncode == 1
    assert "MEDIAD_CORE=require, but the compiled core cannot be loaded" in result.stderr


def test_another_choice_is_refused() -> None:
    result = run("fast")
    assert result.returncode == 1
    assert "MEDIAD_CORE is 'fast'; it must be one of require, auto, python" in result.stderr
