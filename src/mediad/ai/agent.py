"""A call's agent over all its WebSockets: found, lost, found again, finished.

state         caller audio                    leaves when
connecting    the newest second is held       a WebSocket opens: open; else AgentUnavailable
open          is sent, unless it is slow      close code, see below; slow is `ping`'s
reconnecting  the newest second is held       as connecting, for ``ai.reconnect_s``

close code          after agent audio           before any
1000, 1001          finished                    rejected: this address is not asked again
1006, 1011, 1012    lost: reconnecting          the same
1013                busy: the next address      the same
any other           failed: finished            rejected
"""

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Literal, Protocol
from uuid import uuid4

from mediad.ai.connect import CallInfo
from mediad.ai.peer import AgentPeer
from mediad.ai.socket import AgentSocket
from mediad.config import Ai
from mediad.errors import CommandRefused
from mediad.metrics import Metrics
from mediad.pump import Path
from mediad.wire import frames, rtvi

__all__ = ["HELD_FRAMES", "MAX_HELD_CONTROL", "AgentLink", "Connector", "LinkEvents"]

logger = logging.getLogger(__name__)

HELD_FRAMES = 50
"""Audio frames held while no agent is connected; the oldest are dropped and counted."""

MAX_HELD_CONTROL = 128
"""Control messages held meanwhile, the first ones: DTMF is not faster than this; more are counted.
With the audio under 64 KiB."""

_ANSWER_S = 1.0  # how long an agent that dialled in may take to answer client-ready, before audio

_GOOD_S = 5.0  # an agent that stayed this long was good, though it only listened

_LOST = frozenset((1006, 1011, 1012))
_BUSY = 1013


class Connector(Protocol):
    """A way to an agent; `connect.DialOut` and `dial_in.DialIn`."""

    @property
    def token(self) -> str | None: ...
    @property
    def settle_s(self) -> float: ...
    async def connect(
        self, make_socket: Callable[[], AgentSocket], deadline: float
    ) -> AgentSocket: ...
    def skip(self) -> None: ...
    def reject(self) -> None: ...
    def renew(self) -> None: ...
    def close(self) -> None: ...


class LinkEvents(Protocol):
    """Who hears of the link; the call's session. Called on the event loop, never waits."""

    def on_agent_message(self, message: bytes) -> bool:
        """Take one message; return whether it was audio."""
        ...

    def on_agent_open(self, connect_s: float) -> None: ...
    def on_agent_slow(self, started: bool) -> None: ...
    def on_agent_lost(self, code: int) -> None: ...


class AgentLink:
    """The agent of one call. `run` it in the call's task; send at any time."""

    def __init__(
        self,
        connector: Connector,
        call: CallInfo,
        events: LinkEvents,
        settings: Ai,
        metrics: Metrics,
        path: Path | None = None,
    ) -> None:
        self._connector = connector
        self._call = call
        self._events = events
        self._settings = settings
        self._metrics = metrics
        self._path = path
        self._socket: AgentSocket | None = None
        self._connecting_since = self._opened_at = 0.0
        self._is_closed = False
        self._is_released = False  # what is sent goes out, and is not held
        self._answered = asyncio.Event()  # the agent has sent something on this connection
        self._held: deque[tuple[bool, bytes]] = deque()  # (is audio, frame), oldest first
        self._held_audio = 0
        self._has_spoken = False  # the agent, in this call
        self._speaks = False  # the agent, on this connection
        self._looks_at = (False, False)

    @property
    def token(self) -> str | None:
        """What an agent that dials in needs; None when mediad dials out."""
        return self._connector.token

    @property
    def state(self) -> Literal["connecting", "open", "slow", "reconnecting", "closed"]:
        """How the connection stands."""
        socket = self._socket
        if self._is_closed:
            return "closed"
        if socket is None or not socket.is_open:
            return "reconnecting" if self._opened_at else "connecting"
        return "slow" if socket.is_slow else "open"

    def say(self, text: str) -> None:
        """Speak a text to the caller.

        Raises:
            CommandRefused: Always: an agent makes its own speech.
        """
        raise CommandRefused("not_supported", "this call's agent makes its own speech: inject it")

    def inject(self, text: str, run_immediately: bool) -> None:
        """Tell the agent a text as if the caller had written it."""
        self.send_json(rtvi.send_text(str(uuid4()), text, run_immediately))

    def look_at_audio(self, sent: bool, played: bool) -> None:
        """Let no audio pass by those who hear of the link: what is sent to the agent, or what it
        says. Without a pump none does.
        """
        self._looks_at = (sent, played)
        if self._socket is not None:
            self._socket.look_at_audio(sent, played)

    async def run(self) -> int:
        """Keep the call linked to an agent until the agent ends it; return the close code.

        Raises:
            AgentUnavailable: When no agent can be had, at the start or after one was lost.
        """
        deadline = time.monotonic() + self._settings.connect_timeout_s
        try:
            while True:
                code = await self._serve(deadline)
                now = time.monotonic()
                if self._speaks or now - self._opened_at >= _GOOD_S:
                    # This agent was good: whoever follows gets the full time.
                    deadline = now + self._settings.reconnect_s
                    self._connector.renew()
                if self._is_over(code):
                    return code
        finally:
            self.close()

    async def _serve(self, deadline: float) -> int:
        """Get one connection, use it, and return its close code."""
        self._connecting_since = time.monotonic()
        self._socket = socket = await self._connector.connect(self._make_socket, deadline)
        try:
            await self._greet(socket)
            return await socket.closed()
        finally:
            self._is_released = False

    def _is_over(self, code: int) -> bool:
        """Decide what a close code means; tell the connector where to go on."""
        if code == _BUSY:
            self._connector.skip()
        elif code not in _LOST:
            if self._has_spoken:
                return True
            self._metrics.agent_connects.labels("rejected").inc()
            logger.warning(
                "call %s: agent closed with %d before any audio", self._call.call_id, code
            )
            self._connector.reject()
        self._events.on_agent_lost(code)
        return False

    def _make_socket(self) -> AgentSocket:
        socket = AgentSocket(
            self._open,
            self._take_message,
            self._events.on_agent_slow,
            AgentPeer(self._metrics),
            self._settings.ping_s,
            self._path,
        )
        socket.look_at_audio(*self._looks_at)
        return socket

    def _open(self) -> None:
        # Before the first message: it may come in one segment with the handshake.
        self._opened_at = time.monotonic()
        self._speaks = False
        self._answered.clear()
        self._events.on_agent_open(self._opened_at - self._connecting_since)

    async def _greet(self, socket: AgentSocket) -> None:
        """Send client-ready, then what was held."""
        details: dict[str, object] = {
            "call_id": self._call.call_id,
            "from": self._call.source,
            "to": self._call.destination,
            "variables": dict(self._call.variables),
        }
        if self._call.agent is not None:
            details["agent"] = dict(self._call.agent)
        ready = frames.encode_json(rtvi.client_ready(str(uuid4()), details))
        settle_s = self._connector.settle_s
        if settle_s:
            await asyncio.sleep(settle_s)
            socket.send_control(ready)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_ANSWER_S):
                    await self._answered.wait()
        else:
            socket.send_control(ready)
        self._release(socket)

    def _release(self, socket: AgentSocket) -> None:
        self._is_released = True
        while self._held and socket.is_open:
            is_audio, frame = self._held.popleft()
            if is_audio:
                self._held_audio -= 1
                socket.send_audio(frame)
            elif not socket.send_control(frame):
                self._held.appendleft((False, frame))
        socket.release_audio()

    def _take_message(self, message: bytes) -> bool:
        self._answered.set()
        is_audio = self._events.on_agent_message(message)
        if is_audio and not self._speaks:
            self._speaks = self._has_spoken = True
        return is_audio

    def send_audio(self, frame: bytes) -> None:
        """Send 16 kHz audio, an encoded frame."""
        if self._is_released and self._socket is not None and self._socket.is_open:
            self._socket.send_audio(frame)
            return
        if self._held_audio >= HELD_FRAMES:
            self._drop_oldest_audio()
        self._held.append((True, frame))
        self._held_audio += 1

    def _drop_oldest_audio(self) -> None:
        self._metrics.agent_audio_dropped.labels("not_connected").inc()
        oldest = next(i for i, (is_audio, _) in enumerate(self._held) if is_audio)
        del self._held[oldest]
        self._held_audio -= 1

    def send_digit(self, digit: str) -> None:
        """Tell the agent of a key that the caller has pressed."""
        self.send_json(rtvi.dtmf(str(uuid4()), digit))

    def send_json(self, data: str) -> None:
        """Send a message that must not be lost."""
        frame = frames.encode_json(data)
        if self._is_released and self._socket is not None and self._socket.send_control(frame):
            return
        if len(self._held) - self._held_audio < MAX_HELD_CONTROL:
            self._held.append((False, frame))
        else:
            self._metrics.agent_control_dropped.inc()

    async def closed(self) -> None:
        """Wait, not for long, until the agent has answered `close`."""
        # The socket knows the link: a cycle that only the garbage collector would find.
        socket, self._socket = self._socket, None
        if socket is not None:
            await socket.closed()

    def close(self) -> None:
        """End the connection in use and look for no other; fine also when `run` never ran."""
        self._is_closed = True
        self._connector.close()
        if self._socket is not None:
            self._socket.close()
        self._held.clear()
        self._held_audio = 0
