"""Start a stock Pipecat agent (`pipecat_agents`) and talk with it from a test."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tests.missing import skip_or_fail

__all__ = ["PipecatAgent", "run_pipecat_agent"]

_SCRIPT = Path(__file__).with_name("pipecat_agents.py")
_START_S = 40.0  # importing Pipecat takes seconds, and much longer on a busy machine
_STOP_S = 10.0


class PipecatAgent:
    """A running agent. A call goes by mediad's call id, or ``none`` where the agent dials in."""

    def __init__(self, process: asyncio.subprocess.Process, record: Path) -> None:
        self._process = process
        self._record = record
        self._changed = asyncio.Condition()
        self.events: list[dict[str, Any]] = []
        self.port = 0

    @property
    def url(self) -> str:
        """Where mediad finds the agent."""
        return f"ws://127.0.0.1:{self.port}"

    async def wait_for(self, event: str, call: str | None = None, within_s: float = 15) -> None:
        """Return once the agent has told of ``event``."""

        def seen() -> bool:
            return any(e["event"] == event and call in (None, e.get("call")) for e in self.events)

        async with asyncio.timeout(within_s), self._changed:
            await self._changed.wait_for(seen)

    def heard(self, call: str) -> bytes:
        """Return what the caller said so far, s16le at 16 kHz."""
        path = self._record / f"{call}.raw"
        return path.read_bytes() if path.exists() else b""

    def dtmf(self, call: str) -> str:
        """Return the digits pressed so far."""
        return "".join(
            e["digit"] for e in self.events if e["event"] == "dtmf" and e["call"] == call
        )

    def play(self, call: str, pcm: bytes) -> None:
        """Say s16le mono of the agent's output rate."""
        path = self._record / f"play-{len(list(self._record.iterdir()))}.raw"
        path.write_bytes(pcm)
        self.command("play", call, file=str(path))

    def command(self, cmd: str, call: str, **fields: object) -> None:
        """Send a command: play, end, cancel, interrupt."""
        assert self._process.stdin is not None
        line = json.dumps({"cmd": cmd, "call": call, **fields}) + "\n"
        self._process.stdin.write(line.encode())

    async def read_events(self) -> None:
        """Take what the agent tells, until it ends."""
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            async with self._changed:
                self.events.append(json.loads(line))
                self._changed.notify_all()

    async def stop(self) -> None:
        """Close its standard input, and kill it when that does not end it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(_STOP_S):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()


@asynccontextmanager
async def run_pipecat_agent(
    record: Path, transport: str = "fastapi", *options: str
) -> AsyncIterator[PipecatAgent]:
    """Run an agent while the block lasts.

    Args:
        record: An existing directory for what it hears.
        transport: ``server``, ``fastapi`` or ``client``.
        options: More of the script's options.
    """
    if find_spec("pipecat") is None:
        missing = "Pipecat is not installed: pip install -e '.[agent,dev]'"
        skip_or_fail(missing)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "ignore", str(_SCRIPT)),
        *("--transport", transport, "--record", str(record), *options),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    agent = PipecatAgent(process, record)
    reading = asyncio.create_task(agent.read_events())
    try:
        if transport != "client":
            await agent.wait_for("listening", within_s=_START_S)
            agent.port = next(e["port"] for e in agent.events if e["event"] == "listening")
        yield agent
    finally:
        await agent.stop()
        await reading
