"""For all tests: mediad keeps its journal and its embedded database out of the home directory."""

import os
import tempfile

import pytest

_state = tempfile.TemporaryDirectory(prefix="mediad-tests-")


def pytest_configure(config: pytest.Config) -> None:
    """Give mediad a directory for every test that does not choose one."""
    os.environ["STATE_DIRECTORY"] = _state.name
