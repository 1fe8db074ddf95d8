"""One real Asterisk and the servers it calls, for all tests in this directory."""

import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping

import pytest
import pytest_asyncio

from tests.asterisk.mediad_server import run_server
from tests.asterisk.rig import Asterisk, MissingAsteriskError
from tests.asterisk.seam import Server
from tests.missing import skip_or_fail


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def asterisk(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Asterisk]:
    """A running Asterisk with an empty dialplan."""
    async with contextlib.AsyncExitStack() as stack:
        try:
            rig = Asterisk(tmp_path_factory.mktemp("asterisk"))
            await stack.enter_async_context(rig)
        except MissingAsteriskError as exc:
            skip_or_fail(exc)
        yield rig


@pytest.fixture(autouse=True)
def asterisk_log(asterisk: Asterisk) -> Iterator[None]:
    """Print what Asterisk logged during a test; pytest shows it when the test failed."""
    before = len(asterisk.log())
    yield
    print(asterisk.log()[before:])


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def servers(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mapping[str, Server]]:
    """The servers under test by the G.711 they are set to, because the wire does not name it."""
    records = tmp_path_factory.mktemp("ulaw"), tmp_path_factory.mktemp("alaw")
    async with run_server(records[0], "ulaw") as ulaw, run_server(records[1], "alaw") as alaw:
        yield {"ulaw": ulaw, "alaw": alaw}
