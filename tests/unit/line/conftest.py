"""Both lines, the specification and the compiled one, run the same tests."""

import pytest

from mediad.line import Line
from tests.unit.line.lines import compiled_line, python_line


@pytest.fixture(params=["python", "compiled"])
def core(request: pytest.FixtureRequest) -> type[Line]:
    """A line's class."""
    return python_line() if request.param == "python" else compiled_line()
