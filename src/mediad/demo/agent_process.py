"""The built-in agent, or one of the built-in services, as a process of its own, as it runs in
production.
"""

import asyncio
import contextlib
import os
import sys
from collections import deque
from typing import Self

__all__ = ["AgentFailed", "AgentProcess"]

_READY_TIMEOUT_S = 60.0  # a first start compiles Pipecat's modules
_STOP_TIMEOUT_S = 3.0
_LINES_KEPT = 20


class AgentFailed(Exception):
    """The agent did not start; the message has its last words."""


class AgentProcess:
    """``mediad agent`` on a free port. ``async with`` waits until it listens, and stops it.

    Args:
        role: Which service it is, ``stt``, ``llm`` or ``tts``; without one it is the agent.
    """

    def __init__(self, role: str = "") -> None:
        self._name = role or "agent"
        self._options = ("--role", role) if role else ()
        self.url = ""
        """Where mediad finds it, once it listens."""
        self._last_lines: deque[str] = deque(maxlen=_LINES_KEPT)

    async def __aenter__(self) -> Self:
        """Start the agent.

        Raises:
            AgentFailed: If it ends, or does not listen in time.
        """
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "mediad", "agent", "--port", "0", *self._options),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
            start_new_session=True,  # a Ctrl-C is for us alone; we stop it when the call is over
        )
        self._ready = asyncio.Event()
        self._reader = asyncio.create_task(self._read())
        try:
            async with asyncio.timeout(_READY_TIMEOUT_S):
                await self._ready.wait()
        except TimeoutError:
            await self._stop()
            raise AgentFailed(self._describe("did not start in time")) from None
        except asyncio.CancelledError:
            await self._stop()
            raise
        if self._process.returncode is not None:
            raise AgentFailed(self._describe(f"ended with status {self._process.returncode}"))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stop()

    async def _read(self) -> None:
        """Read what the agent prints, so that it never waits for us; keep the end of it."""
        assert self._process.stdout is not None  # it is a pipe
        while line := await self._process.stdout.readline():
            self._last_lines.append(line.decode(errors="replace").rstrip())
            ready = f"{self._name} listening on".encode()
            if line.startswith(ready):
                self.url = line.removeprefix(ready).decode().strip()
                self._ready.set()
        await self._process.wait()
        self._ready.set()  # in vain: whoever waits sees the exit status

    async def _stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        try:
            async with asyncio.timeout(_STOP_TIMEOUT_S):
                await self._process.wait()
        except TimeoutError:
            pass
        finally:
            if self._process.returncode is None:
                self._process.kill()
        await self._reader

    def _describe(self, what: str) -> str:
        return "\n  ".join(
            [f"the built-in {self._name} {what}; its last lines:", *self._last_lines]
        )
