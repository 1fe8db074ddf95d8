"""Connections to a service that were let go, on a virtual clock: what is still spoken over them has
the same time-outs, also when their own call has ended.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from mediad.ai.connect import CallInfo
from mediad.ai.services import connection as connection_module
from mediad.ai.services.asked import CANCEL_S
from mediad.ai.services.events import Failed, Times
from mediad.ai.services.service import make_services
from mediad.ai.services.tts import TtsLink
from mediad.config import Settings
from mediad.metrics import Metrics
from mediad.wire import service
from mediad.wire.frames import AudioFrame
from mediad.wire.service import Done, FromMediad, FromService, Ready, Role, Start, Voice
from tests import virtual_time
from tests.fakes.memory_socket import MemorySocket

TIMEOUT_S = 2.0
BUDGET_S = 3.0
SOUND = AudioFrame(b"\0\1" * 800, 8000, 1)


class Socket(MemorySocket):
    """A service that is ready, and says nothing else by itself."""

    def take(self, asked: FromMediad) -> None:
        """Be ready."""
        if isinstance(asked, Start):
            asyncio.get_running_loop().call_soon(self.say, Ready(8000))

    def say(self, what: FromService) -> None:
        """Say something."""
        self.deliver(service.encode(what))


class Heard:
    """What is heard of the texts, and when."""

    def __init__(self) -> None:
        self.failed: list[tuple[float, int, str]] = []
        self.done: list[int] = []

    def on_failed(self, failed: Failed) -> None:
        """Note it."""
        self.failed.append((time.monotonic(), failed.n, failed.why))

    def on_tts_done(self, n: int, times: Times) -> None:
        """Note it."""
        self.done.append(n)

    def on_service_open(self, role: Role, connect_s: float) -> None: ...
    def on_service_lost(self, role: Role, why: str) -> None: ...
    def on_audio(self, n: int, message: bytes) -> None: ...
    def on_word(self, n: int, text: str, offset_ms: int) -> None: ...


async def let_go(
    patch: pytest.MonkeyPatch, budget_s: float = BUDGET_S
) -> tuple[TtsLink, Socket, Heard, asyncio.Task[None]]:
    """Have a link whose first connection was let go with a text on it, at the time 1.0."""
    loop = asyncio.get_running_loop()
    patch.setattr(time, "monotonic", loop.time)
    sockets: list[Socket] = []

    async def dial(url: str, make_socket: Callable[[], Socket], *_: object) -> Socket:
        sockets.append(make_socket())
        return sockets[-1]

    patch.setattr(connection_module, "dial", dial)
    patch.setattr(connection_module, "AgentSocket", Socket)
    tables: dict[str, Any] = {"tts": {"timeout_s": TIMEOUT_S, "budget_s": budget_s}}
    tts = make_services(Settings.model_validate(tables), Metrics(), None).tts
    heard = Heard()
    link = TtsLink(tts, CallInfo("1"), Voice("", "en-US", 1.0), 8000, heard)
    running = loop.create_task(link.run())
    await asyncio.sleep(1.0)
    link.speak(1, "One.")
    assert link.let_go(1)
    await asyncio.sleep(0)
    return link, sockets[0], heard, running


@pytest.mark.parametrize("is_over", [False, True])
@pytest.mark.parametrize("has_begun", [False, True])
def test_a_service_that_hangs_on_a_connection_that_was_let_go_is_found_in_time(
    monkeypatch: pytest.MonkeyPatch, is_over: bool, has_begun: bool
) -> None:
    async def hang() -> None:
        link, socket, heard, running = await let_go(monkeypatch)
        if is_over:
            link.close()
        if has_begun:
            await asyncio.sleep(0.5)
            socket.say(SOUND)
        await asyncio.sleep(20.0)
        ((at, *failed),) = heard.failed
        assert failed == [1, "timeout"]
        assert at == pytest.approx(1.0 + TIMEOUT_S + 0.5 * has_begun)
        assert not socket.is_open
        running.cancel()

    virtual_time.run(hang())


def test_a_budget_ends_what_was_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang() -> None:
        _, socket, heard, running = await let_go(monkeypatch, budget_s=1.5)
        await asyncio.sleep(1.5 + CANCEL_S / 2)
        ((at, *failed),) = heard.failed
        assert failed == [1, "timeout"]
        assert at == pytest.approx(2.5)
        assert socket.is_open
        await asyncio.sleep(CANCEL_S)
        assert not socket.is_open  # it did not say that it has stopped
        running.cancel()

    virtual_time.run(hang())


def test_what_was_let_go_is_spoken_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    async def speak() -> None:
        link, socket, heard, running = await let_go(monkeypatch)
        link.close()
        for _ in range(5):
            await asyncio.sleep(TIMEOUT_S * 0.9)
            socket.say(SOUND)
        socket.say(Done(1))
        await asyncio.sleep(20.0)
        assert (heard.done, heard.failed) == ([1], [])
        assert not socket.is_open
        running.cancel()

    virtual_time.run(speak())
