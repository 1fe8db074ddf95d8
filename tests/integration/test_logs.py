"""The daemon's log: nobody reads it, or a flood of bad connections would fill it."""

import asyncio
import fcntl
import json
import os
import re
import socket
import sys
import termios
import urllib.request
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from pathlib import Path

import pytest

from mediad import log
from tests.fakes.agent import AgentConnection, FakeAgent
from tests.fakes.asterisk import AsteriskCall
from tests.integration.daemon import eventually, running, settings
from tests.mediad_process import run_mediad
from tests.own_stalls import watch_own_loop
from tests.sound import tone

CALLS = 50
SECONDS = 30.0
QUEUE_SIZE = 200  # of 10,000: it is full within the test
PIPE_BYTES = 4096  # what a pipe holds at least; one line of 50 calls' starts is more


def free_port() -> int:
    with closing(socket.socket()) as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
    return port


async def figures(http_port: int) -> dict[str, float]:
    """Return the metrics without labels."""

    def ask() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{http_port}/metrics") as answer:
            return str(answer.read().decode())

    lines = (line.rsplit(" ", 1) for line in (await asyncio.to_thread(ask)).splitlines())
    return {name: float(value) for name, value in lines if re.fullmatch(r"mediad_\w+", name)}


async def is_ready(http_port: int) -> bool:
    """Return whether calls are taken."""

    def ask() -> bool:
        with suppress(OSError):  # it does not listen yet, or answers 503
            urllib.request.urlopen(f"http://127.0.0.1:{http_port}/readyz").close()
            return True
        return False

    return await asyncio.to_thread(ask)


_PROGRAM = f"""
from mediad import cli, log

log.QUEUE_SIZE = {QUEUE_SIZE}
cli.cli(["serve"])
"""


class Unheard:
    """A mediad whose log nobody reads."""

    def __init__(self, process: asyncio.subprocess.Process, log_fd: int) -> None:
        self.process = process
        self.audiosocket = ("127.0.0.1", free_port())
        self.http_port = free_port()
        self._log_fd = log_fd

    @property
    def waiting_bytes(self) -> int:
        """What stands in the pipe."""
        return int.from_bytes(fcntl.ioctl(self._log_fd, termios.FIONREAD, bytes(4)), sys.byteorder)


@asynccontextmanager
async def run_unheard(agent_url: str, directory: Path) -> AsyncIterator[Unheard]:
    reads, writes = os.pipe()
    fcntl.fcntl(writes, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    audiosocket_port, http_port = free_port(), free_port()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _PROGRAM),
        env=os.environ
        | {
            "MEDIAD_AUDIOSOCKET__PORT": str(audiosocket_port),
            "MEDIAD_AUDIOSOCKET__DRAIN_TIMEOUT_S": "0",
            "MEDIAD_HTTP__PORT": str(http_port),
            "MEDIAD_AI__AGENT_URL": agent_url,
            "MEDIAD_DATABASE__DIRECTORY": str(directory),
        },
        stderr=writes,
    )
    os.close(writes)
    mediad = Unheard(process, reads)
    mediad.audiosocket, mediad.http_port = ("127.0.0.1", audiosocket_port), http_port
    try:
        async with asyncio.timeout(20):
            while not await is_ready(http_port):  # noqa: ASYNC110 (it has no event)
                await asyncio.sleep(0.05)
        yield mediad
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        os.close(reads)


async def speak(agent: AgentConnection) -> None:
    """Say a fifth of a second at a time, further ahead than this process stands still."""
    loop = asyncio.get_running_loop()
    pcm = tone(440.0, SECONDS, 8000)
    start = loop.time() - 2.5
    for number, at in enumerate(range(0, len(pcm), 3200)):
        await asyncio.sleep(start + number * 0.2 - loop.time())
        await agent.say(pcm[at : at + 3200], 8000)


async def flood(address: tuple[str, int], seconds: float, at_least: int = 0) -> int:
    """Make bad connections, one after the other; return how many."""
    made = 0
    end = asyncio.get_running_loop().time() + seconds
    while asyncio.get_running_loop().time() < end or made < at_least:
        async with AsteriskCall(address, sends_uuid=False) as call:
            call.send(b"\xfe")
            await call.closed()
        made += 1
        await asyncio.sleep(0.002)
    return made


async def call_again(address: tuple[str, int], seconds: float) -> int:
    """Make calls that end at once, one after the other: two lines each. Return how many."""
    made = 0
    end = asyncio.get_running_loop().time() + seconds
    while asyncio.get_running_loop().time() < end:
        async with AsteriskCall(address):
            made += 1
        await asyncio.sleep(0.05)
    return made


async def test_log_that_nobody_reads_disturbs_no_call(tmp_path: Path) -> None:
    async with FakeAgent(speak) as agent, run_unheard(agent.url, tmp_path) as mediad:
        async with watch_own_loop() as own, AsyncExitStack() as stack:
            calls = []
            for _ in range(CALLS):
                call = AsteriskCall(mediad.audiosocket)
                calls.append(await stack.enter_async_context(call))
            bad, short = await asyncio.gather(
                flood(mediad.audiosocket, SECONDS), call_again(mediad.audiosocket, SECONDS)
            )
            assert bad > 500
            await eventually(lambda: all(len(call.words) >= SECONDS * 15_900 for call in calls), 15)
            assert mediad.waiting_bytes >= PIPE_BYTES - 200  # no line more goes in
            after = await figures(mediad.http_port)
        # Two lines a call; what does not fit into the queue and the pipe is lost, and nothing else.
        assert after["mediad_log_dropped_records"] > 2 * short - QUEUE_SIZE - 100 > 100
        assert after["mediad_underruns_total"] == 0
        # The machine may hold it up for a moment; a log that blocks does for ever.
        assert after["mediad_ticks_skipped_total"] <= (5 + own.worst_s() / 0.02) * CALLS
        assert after["mediad_calls_started_total"] == CALLS + short
        mediad.process.terminate()
        async with asyncio.timeout(10):
            assert await mediad.process.wait() == 0


async def test_flood_of_bad_connections_costs_few_lines_and_is_counted() -> None:
    async with FakeAgent() as agent:
        async with run_mediad(agent.url, audiosocket__max_connects_per_s="50") as mediad:
            before = len(mediad.log)
            made = await flood(mediad.audiosocket, 2.0, at_least=400)
        refusal = re.compile(r": connection (closed|from)")
        warnings = [line for line in mediad.log[before:] if refusal.search(line)]
    assert len(warnings) <= 2 * (5 + 1)  # two kinds: five lines and a sum each
    told = [int(found[1]) for line in warnings if (found := re.search(r"(\d+) more in", line))]
    assert sum(told) + 2 * 5 == made


async def test_flood_of_calls_costs_few_lines_and_is_counted(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each with a UUID of its own, and gone at once: they are no bad connections."""
    monkeypatch.setattr(log, "_INFORMED", 20)  # of 6,000
    with log.logging_to("info"):
        async with FakeAgent() as agent, running(settings(agent.url)) as daemon:
            for _ in range(100):
                async with daemon.call():
                    pass
            await daemon.event("call_hungup", number=99)
            assert await daemon.metric("mediad_log_repeated_records") == 160
    lines = capfd.readouterr().err.splitlines()
    for what in ("started", "ended by"):
        assert (
            sum(re.search(rf": call [0-9a-f-]{{36}}: {what}", line) is not None for line in lines)
            == 20
        )
        assert sum(f"80 more in a minute: call %s: {what}" in line for line in lines) == 1
    assert len([line for line in lines if " INFO " in line]) < 60


async def test_log_as_json() -> None:
    async with FakeAgent() as agent:
        async with run_mediad(agent.url, log__format="json") as mediad:
            async with AsteriskCall(mediad.audiosocket) as call:
                await call.hears(1)
            await mediad.wait_for_log("ended by caller")
        fields = [json.loads(line) for line in mediad.log]
    assert [each["message"].partition(":")[0] for each in fields].count(f"call {call.call_id}") == 2
    assert sum(each.get("call_id") == str(call.call_id) for each in fields) == 2
