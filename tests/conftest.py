"""For all tests: mediad keeps its journal and its embedded database out of the home directory, and
a test that fails while the machine stood still is run again.
"""

import os
import tempfile
import time
from contextlib import ExitStack

import pytest

from tests.own_stalls import watch_own_thread

_RERUNS = 2
_STOOD_STILL_S = 0.05  # two frames and a half: enough for a hole in what is heard

_state = tempfile.TemporaryDirectory(prefix="mediad-tests-")
_exit = ExitStack()
_stalls = _exit.enter_context(watch_own_thread())
_began = 0.0


def pytest_configure(config: pytest.Config) -> None:
    """Give mediad a directory for every test that does not choose one."""
    os.environ["STATE_DIRECTORY"] = _state.name


def pytest_unconfigure(config: pytest.Config) -> None:
    """Watch no longer."""
    _exit.close()


def _stood_still() -> bool:
    return _stalls.worst_s(_began) >= _STOOD_STILL_S


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have each test run again, twice at most, if it fails and this process was held up meanwhile.

    What is said in real time breaks in a virtual machine that stands still, and tells nothing about
    mediad then. Each such run is in pytest's closing lines; a test that fails by itself fails.
    """
    for item in items:
        item.add_marker(pytest.mark.flaky(reruns=_RERUNS, condition=_stood_still))


def pytest_runtest_logstart() -> None:
    """Note when a test, or its next try, begins."""
    global _began
    _began = time.monotonic()
