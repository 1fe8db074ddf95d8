"""Integration tests run on uvloop, as the daemon does; those that need a MariaDB share one."""

import asyncio
from collections.abc import Callable, Iterator, Mapping

import pytest
import uvloop

from tests.mariadb import MariaDb, running_mariadb
from tests.missing import skip_or_fail
from tests.servers import MissingProgramError


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Tell pytest-asyncio which loop to make."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDb]:
    """A server of the session's own. Do not stop it."""
    try:
        with running_mariadb() as server:
            yield server
    except MissingProgramError as exc:
        skip_or_fail(exc)
