"""mediad as a program, with a stock Pipecat agent behind it: the server that the tests call."""

import asyncio
import contextlib
import os
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from tests.asterisk.seam import PLAY_RATE_HZ
from tests.integration.pipecat_peer import PipecatAgent, run_pipecat_agent

_WAIT_S = 15.0
_STOP_S = 10.0


class MediadCall:
    """One call, as the Pipecat agent sees it."""

    heard_rate_hz = 16_000

    def __init__(self, agent: PipecatAgent, log: "_Log", call_id: str) -> None:
        self._agent = agent
        self._log = log
        self._call_id = call_id

    @property
    def dtmf(self) -> str:
        return self._agent.dtmf(self._call_id)

    def heard(self) -> bytes:
        return self._agent.heard(self._call_id)

    async def play(self, pcm: bytes) -> None:
        self._agent.play(self._call_id, pcm)

    async def hang_up(self) -> None:
        # A stock agent ends with 2 s of silence, which the caller hears out.
        self._agent.command("end", self._call_id)
        await self._log.wait_for(f"call {self._call_id}: ended")

    async def wait_ended(self) -> None:
        await self._agent.wait_for("disconnected", self._call_id)


class MediadServer:
    """A running mediad."""

    def __init__(self, host: str, port: int, agent: PipecatAgent, log: "_Log") -> None:
        self.host = host
        self.port = port
        self._agent = agent
        self._log = log

    async def wait_call(self, call_id: str) -> MediadCall:
        await self._agent.wait_for("connected", call_id)
        return MediadCall(self._agent, self._log, call_id)


@contextlib.asynccontextmanager
async def run_mediad(record: Path, g711: str) -> AsyncIterator[MediadServer]:
    """Run mediad and its agent as long as the context is open; ``g711`` is ulaw or alaw."""
    async with run_pipecat_agent(record, "fastapi", "--out-rate", str(PLAY_RATE_HZ)) as agent:
        environment = os.environ | {
            "MEDIAD_AUDIOSOCKET__PORT": "0",
            "MEDIAD_AUDIOSOCKET__G711": g711,
            "MEDIAD_HTTP__PORT": "0",
            "MEDIAD_AI__AGENT_URL": agent.url,
        }
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "mediad", "serve"),
            env=environment,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stderr is not None
        log = _Log(process.stderr)
        reading = asyncio.create_task(log.read())
        try:
            line = await log.wait_for("mediad takes calls on")
            found = re.search(r"takes calls on ([^:]+):(\d+)", line)
            assert found is not None
            yield MediadServer(found[1], int(found[2]), agent, log)
        finally:
            process.terminate()
            async with asyncio.timeout(_STOP_S):
                await process.wait()
            await reading


class _Log:
    """What mediad writes to standard error; printed, so that pytest shows it of a failed test."""

    def __init__(self, stream: asyncio.StreamReader) -> None:
        self._stream = stream
        self._lines: list[str] = []
        self._changed = asyncio.Condition()

    async def read(self) -> None:
        """Take lines until mediad ends."""
        while line := await self._stream.readline():
            print(line.decode(), end="")
            async with self._changed:
                self._lines.append(line.decode())
                self._changed.notify_all()

    async def wait_for(self, words: str) -> str:
        """Return the first line that has these words."""
        async with asyncio.timeout(_WAIT_S), self._changed:
            await self._changed.wait_for(lambda: any(words in line for line in self._lines))
        return next(line for line in self._lines if words in line)
