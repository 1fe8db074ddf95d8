"""One open WebSocket to an agent: messages in, frames out, pings. Not the retrying.

Built on picows, which never blocks a send: what the agent does not read waits in this process. So
audio is withheld and counted as soon as the kernel's buffer and a small one of ours are full;
control goes on up to a bound.
"""

import asyncio
import logging
import time
from collections.abc import Callable

from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport

from mediad.metrics import Metrics
from mediad.wire.frames import MAX_MESSAGE_SIZE

__all__ = ["ABNORMAL_CLOSURE", "MAX_CONTROL_BYTES", "AgentSocket"]

logger = logging.getLogger(__name__)

ABNORMAL_CLOSURE = 1006
"""The code of a connection that ended without one (RFC 6455, 7.4.1)."""

MAX_CONTROL_BYTES = 256 * 1024
"""Unsent bytes at which an agent that does not read is given up."""

_HIGH_WATER_BYTES = 16 * 1024  # 0.5 s of audio; then audio is withheld
_CLOSE_WAIT_S = 1.0  # for the agent's answer to our close


class AgentSocket(WSListener):  # type: ignore[misc]  # picows' classes are compiled and untyped
    """Messages of one agent.

    Args:
        on_message: Takes each whole binary message, on the event loop.
        metrics: Where pings, drops and bad messages are counted.
        ping_s: How often to ping; an agent that leaves two pings unanswered is closed with 1006.
    """

    def __init__(
        self, on_message: Callable[[bytes], None], metrics: Metrics, ping_s: float
    ) -> None:
        super().__init__()
        self._on_message = on_message
        self._metrics = metrics
        self._ping_s = ping_s
        self._loop = asyncio.get_running_loop()
        self._transport: WSTransport | None = None
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._closed: asyncio.Future[int] = self._loop.create_future()
        self._close_code = ABNORMAL_CLOSURE
        self._fragments = bytearray()
        self._is_fragmented = False
        self._is_paused = False
        self._pinger: asyncio.TimerHandle | None = None
        self._pinged_at: float | None = None
        self._ping = 0

    async def opened(self) -> None:
        """Wait until frames can be sent."""
        await asyncio.shield(self._opened)

    async def closed(self) -> int:
        """Wait for the end and return its close code."""
        return await asyncio.shield(self._closed)

    @property
    def is_open(self) -> bool:
        """Whether frames can be sent."""
        return self._transport is not None and not self._closed.done()

    def send_audio(self, frame: bytes) -> None:
        """Send a frame, or withhold and count it while the agent does not read."""
        transport = self._transport
        if transport is None or self._is_paused:
            self._metrics.agent_audio_dropped.labels("agent_slow").inc()
            return
        transport.send(WSMsgType.BINARY, frame)

    def send_control(self, frame: bytes) -> None:
        """Send a frame that must not be lost; an agent too slow even for these is closed."""
        transport = self._transport
        if transport is None:
            return
        if transport.underlying_transport.get_write_buffer_size() > MAX_CONTROL_BYTES:
            transport.disconnect(False)
            return
        transport.send(WSMsgType.BINARY, frame)

    def close(self, code: int = 1000) -> None:
        """End the connection politely; an agent that does not answer within a second is cut off."""
        transport = self._transport
        if transport is None or self._closed.done():
            return
        transport.send_close(WSCloseCode(code))
        self._loop.call_later(_CLOSE_WAIT_S, transport.disconnect, False)

    def fail(self) -> None:
        """Cut the connection: it ends with 1006."""
        if self._transport is not None:
            self._transport.disconnect(False)

    # Called by picows

    def on_ws_connected(self, transport: WSTransport) -> None:
        """Begin to ping."""
        self._transport = transport
        if not self._opened.done():
            self._opened.set_result(None)
        transport.underlying_transport.set_write_buffer_limits(high=_HIGH_WATER_BYTES)
        self._pinger = self._loop.call_later(self._ping_s, self._send_ping)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """Tell who waits for the end."""
        if self._pinger is not None:
            self._pinger.cancel()
        self._transport = None
        if not self._closed.done():
            self._closed.set_result(self._close_code)
        self._metrics.agent_closes.labels(str(self._close_code)).inc()

    def pause_writing(self) -> None:
        """The agent does not read."""
        self._is_paused = True

    def resume_writing(self) -> None:
        """The agent reads again."""
        self._is_paused = False

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Put fragments together and pass whole binary messages on."""
        kind = frame.msg_type
        if kind == WSMsgType.BINARY and frame.fin:
            self._on_message(frame.get_payload_as_bytes())
        elif kind in (WSMsgType.BINARY, WSMsgType.CONTINUATION):
            self._add_fragment(transport, frame)
        elif (
            kind == WSMsgType.TEXT
        ):  # a whole text message, or the start of one: the contract is binary
            self._metrics.agent_bad_frames.labels("text").inc()
            self._is_fragmented = False
        elif kind == WSMsgType.PONG:
            self._take_pong(frame.get_payload_as_bytes())
        elif kind == WSMsgType.CLOSE:
            payload = frame.get_payload_as_bytes()
            self._close_code = int.from_bytes(payload[:2], "big") if len(payload) >= 2 else 1005
            transport.send_close(frame.get_close_code())
            transport.disconnect()

    def _add_fragment(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.BINARY:
            self._fragments.clear()
            self._is_fragmented = True
        if not self._is_fragmented:  # the rest of a text message
            return
        if len(self._fragments) + frame.payload_size > MAX_MESSAGE_SIZE:
            logger.warning("agent sends a message of over %d bytes, closing", MAX_MESSAGE_SIZE)
            transport.send_close(WSCloseCode.MESSAGE_TOO_BIG)
            transport.disconnect()
            return
        self._fragments += frame.get_payload_as_memoryview()
        if frame.fin:
            message = bytes(self._fragments)
            self._fragments.clear()
            self._is_fragmented = False
            self._on_message(message)

    def _send_ping(self) -> None:
        transport = self._transport
        if transport is None:
            return
        now = time.monotonic()
        if self._pinged_at is not None and now - self._pinged_at >= 2 * self._ping_s:
            logger.warning(
                "agent has not answered a ping for %.1f s, closing", now - self._pinged_at
            )
            transport.disconnect(False)
            return
        if self._pinged_at is None:
            self._pinged_at = now
            self._ping += 1
            transport.send_ping(self._ping.to_bytes(4, "big"))
        self._pinger = self._loop.call_later(self._ping_s, self._send_ping)

    def _take_pong(self, payload: bytes) -> None:
        if self._pinged_at is not None and payload == self._ping.to_bytes(4, "big"):
            self._metrics.agent_round_trip.observe(time.monotonic() - self._pinged_at)
            self._pinged_at = None
