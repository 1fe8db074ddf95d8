"""mediad as a process that is told to stop while calls live."""

import asyncio
import signal
import urllib.error
import urllib.request
from contextlib import AsyncExitStack

from mediad.caller import Caller
from tests.fakes.agent import FakeAgent
from tests.integration.daemon import eventually
from tests.mediad_process import MediadProcess, run_mediad

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


async def test_calls_that_do_not_end_are_hung_up_in_the_end() -> None:
    async with (
        FakeAgent() as agent,
        run_mediad(agent.url, audiosocket__drain_timeout_s="0.5") as mediad,
        Caller(*mediad.audiosocket) as caller,
    ):
        await agent.connection()
        mediad.signal(signal.SIGTERM)
        end = await caller.ended()
        assert (end.by, end.how) == ("server", "hangup")
        assert await mediad.ended() == 0


async def test_a_second_signal_ends_it_at_once() -> None:
    async with (
        FakeAgent() as agent,
        run_mediad(agent.url, audiosocket__drain_timeout_s="60") as mediad,
        Caller(*mediad.audiosocket),
    ):
        await agent.connection()
        mediad.signal(signal.SIGTERM)
        await mediad.wait_for_log("1 live calls may go on")
        mediad.signal(signal.SIGTERM)
        assert await mediad.ended() == 130
