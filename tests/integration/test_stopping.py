"""mediad as a process that is told to stop while calls live."""

import asyncio
import contextlib
import signal
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from mediad.caller import Caller
from tests.fakes.agent import FakeAgent
from tests.fakes.asterisk import AsteriskCall
from tests.faults.proxy import Fault, proxy_to
from tests.faults.servers import new_database
from tests.integration.daemon import eventually
from tests.mariadb import MariaDb
from tests.mediad_process import MediadProcess, run_mediad
from tests.own_stalls import no_longer_than

CALLS = 20


async def readiness(mediad: MediadProcess) -> tuple[int, str]:
    """Return the status and the body of /readyz."""

    def ask() -> tuple[int, str]:
        try:
            with urllib.request.urlopen("http://{}:{}/readyz".format(*mediad.http)) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as exc:
            return exc.code, exc.read().decode()

    return await asyncio.to_thread(ask)


async def test_live_calls_end_by_themselves_and_new_ones_get_0x00() -> None:
    async with (
        FakeAgent() as agent,
        run_mediad(agent.url, audiosocket__drain_timeout_s="60") as mediad,
        AsyncExitStack() as stack,
    ):
        callers = [
            await stack.enter_async_context(Caller(*mediad.audiosocket)) for _ in range(CALLS)
        ]
        await agent.connection(CALLS - 1)
        assert (await readiness(mediad))[0] == 200
        mediad.signal(signal.SIGTERM)
        await mediad.wait_for_log(f"{CALLS} live calls may go on for 60 s")
        status, body = await readiness(mediad)
        assert (status, "stopping" in body) == (503, True)
        async with Caller(*mediad.audiosocket) as late:
            end = await late.ended()
        assert (end.by, end.how) == ("server", "hangup")
        heard = [len(caller.heard.times) for caller in callers]
        for caller, before in zip(callers, heard, strict=True):
            await eventually(lambda: len(caller.heard.times) > before + 10)  # noqa: B023
            assert caller.end is None
        for caller in callers:
            caller.hang_up()
        assert await mediad.ended() == 0


async def test_calls_that_do_not_end_get_0x00_after_a_whole_frame() -> None:
    async with (
        FakeAgent() as agent,
        run_mediad(agent.url, audiosocket__drain_timeout_s="0.5") as mediad,
        AsyncExitStack() as stack,
    ):
        calls = [
            await stack.enter_async_context(AsteriskCall(mediad.audiosocket)) for _ in range(CALLS)
        ]
        await agent.connection(CALLS - 1)
        mediad.signal(signal.SIGTERM)
        for call in calls:
            await call.hung_up()
        assert await mediad.ended() == 0
    for call in calls:
        assert {len(message.payload) for message in call.audio} == {320}


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_ends_it_at_once(second: signal.Signals, tmp_path: Path) -> None:
    options = {"audiosocket__drain_timeout_s": "60", "database__directory": str(tmp_path)}
    async with FakeAgent() as agent:
        async with run_mediad(agent.url, **options) as mediad, Caller(*mediad.audiosocket):
            await agent.connection()
            mediad.signal(signal.SIGTERM)
            await mediad.wait_for_log("1 live calls may go on")
            mediad.signal(second)
            async with no_longer_than(1):
                assert await mediad.ended() == 128 + second
        assert "1 live calls are cut off" in mediad.log[-1]
        async with run_mediad(agent.url, **options) as mediad:  # nothing is lost of the call
            await mediad.wait_for_log("1 calls that a crash had cut off are ended")


# A database that hangs


@asynccontextmanager
async def stuck_mediad(mariadb: MariaDb) -> AsyncIterator[MediadProcess]:
    """Run a mediad that has been told to stop and waits for a database that hangs."""
    async with (
        FakeAgent() as agent,
        proxy_to(("127.0.0.1", mariadb.port)) as proxy,
        new_database(mariadb, proxy.port) as database,
    ):
        assert database.url is not None
        url = database.url.get_secret_value()
        async with run_mediad(agent.url, database__url=url) as mediad:
            proxy.fault = Fault(drops_to_server=True, drops_to_client=True)
            async with Caller(*mediad.audiosocket):
                await agent.connection()
            await mediad.wait_for_log("ended by caller")
            mediad.signal(signal.SIGTERM)
            await mediad.wait_for_log("0 live calls may go on")
            yield mediad


async def test_who_comes_gets_0x00_until_the_process_ends(mariadb: MariaDb) -> None:
    async with stuck_mediad(mariadb) as mediad:
        began = time.monotonic()
        answered: list[bool] = []
        with contextlib.suppress(ConnectionRefusedError):
            while time.monotonic() < began + 40:
                async with AsteriskCall(mediad.audiosocket) as call:
                    await call.closed()
                answered.append(call.has_hangup and not call.audio)
                seconds = time.monotonic() - began
                await asyncio.sleep(0.02)
        async with no_longer_than(1):  # who comes now is refused
            assert await mediad.ended() == 0
    assert seconds > 4  # as long as the database was waited for
    assert all(answered[:-1])  # the last one may have met the end


async def test_a_second_signal_ends_what_waits_for_the_database(mariadb: MariaDb) -> None:
    async with stuck_mediad(mariadb) as mediad:
        await asyncio.sleep(1)
        mediad.signal(signal.SIGTERM)
        async with no_longer_than(1):
            assert await mediad.ended() == 128 + signal.SIGTERM
