"""The built-in agent as its callers see it: a process, a WebSocket, Pipecat's frames, RTVI."""

import asyncio
import json
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import pytest
import pytest_asyncio
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from mediad.wire import frames
from tests.own_stalls import no_longer_than
from tests.telephone import AGENT_RATE_HZ, say

START_S = 60.0  # a first start compiles Pipecat's modules
ANSWER_S = 10.0
FRAME_S = 0.02
FRAME_BYTES = int(2 * AGENT_RATE_HZ * FRAME_S)
OUT_RATE_HZ = 24_000


@dataclass
class Caller:
    """One call: sends 20 ms every 20 ms, words or silence, and keeps what comes."""

    websocket: ClientConnection
    messages: list[dict[str, Any]] = field(default_factory=list)
    audio: list[tuple[float, int]] = field(default_factory=list)
    """When audio came, in monotonic seconds, and how many bytes of it."""
    interruptions: list[float] = field(default_factory=list)
    _words: bytes = b""
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._send()), asyncio.create_task(self._receive())]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _send(self) -> None:
        due = time.monotonic()
        try:
            while True:
                frame, self._words = self._words[:FRAME_BYTES], self._words[FRAME_BYTES:]
                pcm = frame.ljust(FRAME_BYTES, b"\0")
                await self.websocket.send(frames.encode_audio(pcm, AGENT_RATE_HZ))
                due += FRAME_S
                await asyncio.sleep(max(0.0, due - time.monotonic()))
        except ConnectionClosed:
            pass

    async def _receive(self) -> None:
        async for message in self.websocket:
            assert isinstance(message, bytes)
            async with self._changed:
                match frames.decode(message):
                    case frames.AudioFrame(audio, rate_hz, channels):
                        assert (rate_hz, channels) == (OUT_RATE_HZ, 1)
                        self.audio.append((time.monotonic(), len(audio)))
                    case frames.Json(data):
                        self.messages.append(json.loads(data))
                    case frames.Interruption():
                        self.interruptions.append(time.monotonic())
                self._changed.notify_all()

    def say(self, word: str) -> None:
        """Say a word from now on."""
        self._words = say(word, quiet_s=0.1)

    async def tell(self, type_: str, data: dict[str, Any]) -> None:
        """Send an RTVI message."""
        message = {"label": "rtvi-ai", "type": type_, "id": "7", "data": data}
        await self.websocket.send(frames.encode_json(json.dumps(message)))

    def all(self, type_: str) -> list[dict[str, Any]]:
        """Return the RTVI messages of a type so far."""
        return [message for message in self.messages if message["type"] == type_]

    async def wait_for(self, type_: str, count: int = 1, within_s: float = ANSWER_S) -> Any:
        """Return the data of the ``count``-th RTVI message of a type."""
        async with asyncio.timeout(within_s), self._changed:
            await self._changed.wait_for(lambda: len(self.all(type_)) >= count)
        return self.all(type_)[count - 1].get("data")

    async def answer_to(self, word: str) -> str:
        """Say a word when the agent is silent; return the first sentence of the answer."""
        sentences = len(self.all("bot-transcription"))
        self.say(word)
        said = await self.wait_for("bot-transcription", sentences + 1)
        text: str = said["text"].strip()
        return text


@asynccontextmanager
async def run_agent() -> AsyncIterator[tuple[str, asyncio.subprocess.Process]]:
    """Run ``mediad agent`` on a free port; give its URL."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "mediad", "agent", "--port", "0"),
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(START_S):
            line = (await process.stdout.readline()).decode()
        assert line.startswith("agent listening on ws://127.0.0.1:")
        yield line.split()[-1], process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
        async with asyncio.timeout(10):
            await process.wait()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def agent_url() -> AsyncIterator[str]:
    async with run_agent() as (url, _):
        yield url


@asynccontextmanager
async def call(url: str) -> AsyncIterator[Caller]:
    async with connect(url, compression=None) as websocket, Caller(websocket) as caller:
        yield caller


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_client_ready_is_answered_by_bot_ready(agent_url: str) -> None:
    async with call(agent_url) as caller:
        await caller.tell("client-ready", {"version": "2.0.0", "about": {"library": "test"}})
        assert (await caller.wait_for("bot-ready"))["version"].startswith("2.")
        assert caller.all("bot-ready")[0]["id"] == "7"
        assert not caller.all("error-response")


async def test_greeting_arrives_in_real_time(agent_url: str) -> None:
    async with call(agent_url) as caller:
        await caller.wait_for("bot-stopped-speaking")
        times = [at for at, _ in caller.audio]
        seconds = sum(size for _, size in caller.audio) / (2 * OUT_RATE_HZ)
        assert seconds > 3.0
        assert times[-1] - times[0] == pytest.approx(seconds, abs=0.3)


async def test_yes_and_no_are_answered_differently(agent_url: str) -> None:
    async with call(agent_url) as one, call(agent_url) as other:
        for caller in (one, other):
            await caller.wait_for("bot-stopped-speaking")
        yes, no = await asyncio.gather(one.answer_to("yes"), other.answer_to("no"))
        assert yes != no
        assert [m["data"]["text"] for m in one.all("user-transcription")] == ["yes"]
        assert [m["data"]["text"] for m in other.all("user-transcription")] == ["no"]


async def test_speaking_over_the_agent_interrupts_it(agent_url: str) -> None:
    async with call(agent_url) as caller:
        await caller.wait_for("bot-stopped-speaking")
        await caller.answer_to("yes")
        await caller.wait_for("bot-started-speaking", 2)
        await asyncio.sleep(1.0)
        interruptions = len(caller.interruptions)
        caller.say("stop")
        await caller.wait_for("bot-stopped-speaking", 2, within_s=3.0)
        assert len(caller.interruptions) == interruptions + 1
        heard = await caller.wait_for("user-transcription", 2)
        assert heard["text"] == "stop"
        await caller.wait_for("bot-started-speaking", 3)  # it goes on with something else
        late = [at for at, _ in caller.audio if 0 < at - caller.interruptions[-1] < 0.1]
        assert len(late) <= 1  # what was being written when Pipecat was interrupted


async def test_digits_interrupt_and_are_answered_together(agent_url: str) -> None:
    async with call(agent_url) as caller:
        await caller.wait_for("bot-started-speaking")
        sentences = len(caller.all("bot-transcription"))
        for digit in "5*":
            await caller.tell("dtmf", {"buttons": [digit]})
        said = await caller.wait_for("bot-transcription", sentences + 1)
        assert said["text"].strip() == "You pressed five, star."
        assert caller.interruptions


async def test_stop_into_a_silence_ends_the_session(agent_url: str) -> None:
    async with call(agent_url) as caller:
        await caller.wait_for("bot-stopped-speaking")
        assert "goodbye" in await caller.answer_to("stop")
        async with asyncio.timeout(ANSWER_S):
            await caller.websocket.wait_closed()
        assert caller.websocket.close_code == 1000


async def test_something_else_is_asked_for_again(agent_url: str) -> None:
    async with call(agent_url) as caller:
        await caller.wait_for("bot-stopped-speaking")
        assert "did not understand" in await caller.answer_to("lemonade")
        assert not caller.all("user-transcription")


async def test_garbage_ends_that_session_alone(agent_url: str) -> None:
    async with call(agent_url) as caller:
        await caller.wait_for("bot-started-speaking")
        async with connect(agent_url, compression=None) as garbage:
            await garbage.send(b"\xff\xfe\xfd")
            async with asyncio.timeout(ANSWER_S):
                await garbage.wait_closed()
        await caller.wait_for("bot-stopped-speaking")


async def test_client_that_vanishes_harms_no_other(agent_url: str) -> None:
    async with call(agent_url) as caller:
        async with call(agent_url) as vanishing:
            await vanishing.wait_for("bot-started-speaking")
            vanishing.websocket.transport.abort()
        await caller.wait_for("bot-stopped-speaking")
        assert "goodbye" in await caller.answer_to("stop")


async def test_ctrl_c_ends_it_with_calls_going_on() -> None:
    async with run_agent() as (url, process), call(url) as caller:
        await caller.wait_for("bot-started-speaking")
        process.send_signal(signal.SIGINT)
        async with no_longer_than(3):
            await process.wait()
            await caller.websocket.wait_closed()


async def test_address_in_use_is_one_line_that_says_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "mediad", "agent", "--port", str(port)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
    assert (process.returncode, out) == (2, b"")
    assert err.decode() == (
        f"mediad: the agent cannot listen on 127.0.0.1, port {port} (Address already in use); "
        "choose another with --host or --port\n"
    )
