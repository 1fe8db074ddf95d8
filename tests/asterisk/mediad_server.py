"""mediad as a program, with a stock Pipecat agent behind it: the server that the tests call."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from tests.asterisk.seam import PLAY_RATE_HZ
from tests.integration.pipecat_peer import PipecatAgent, run_pipecat_agent
from tests.mediad_process import MediadProcess, run_mediad


class MediadCall:
    """One call, as the Pipecat agent sees it."""

    heard_rate_hz = 16_000

    def __init__(self, agent: PipecatAgent, mediad: MediadProcess, call_id: str) -> None:
        self._agent = agent
        self._mediad = mediad
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
        await self._mediad.wait_for_log(f"call {self._call_id}: ended")

    async def wait_ended(self) -> None:
        await self._agent.wait_for("disconnected", self._call_id)


class MediadServer:
    """A running mediad."""

    def __init__(self, mediad: MediadProcess, agent: PipecatAgent) -> None:
        self.host, self.port = mediad.audiosocket
        self._mediad = mediad
        self._agent = agent

    async def wait_call(self, call_id: str) -> MediadCall:
        await self._agent.wait_for("connected", call_id)
        return MediadCall(self._agent, self._mediad, call_id)


@contextlib.asynccontextmanager
async def run_server(record: Path, g711: str) -> AsyncIterator[MediadServer]:
    """Run mediad and its agent as long as the context is open; ``g711`` is ulaw or alaw."""
    async with (
        run_pipecat_agent(record, "fastapi", "--out-rate", str(PLAY_RATE_HZ)) as agent,
        run_mediad(agent.url, audiosocket__g711=g711) as mediad,
    ):
        yield MediadServer(mediad, agent)
