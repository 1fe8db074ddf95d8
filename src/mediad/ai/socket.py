"""One open WebSocket to an agent: messages in, frames out, pings. Not the retrying.

Built on picows, which never blocks a send: what the agent does not read waits in this process. So
audio is withheld and counted as soon as the kernel's buffer and a small one of ours are full;
control goes on up to a bound.
"""

import asyncio
import logging
import time
from collections.abc import Callable

from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSProtocolError, WSTransport

from mediad.metrics import Metrics
from mediad.wire.frames import MAX_MESSAGE_SIZE

__all__ = ["ABNORMAL_CLOSURE", "MAX_CONTROL_BYTES", "NO_STATUS", "AgentSocket"]

logger = logging.getLogger(__name__)

NO_STATUS = 1005
ABNORMAL_CLOSURE = 1006
"""The codes of a close frame without one, and of a connection that ended without a close frame
(RFC 6455, 7.4.1).
"""

MAX_CONTROL_BYTES = 256 * 1024
"""Unsent bytes at which an agent that does not read is given up."""

_HIGH_WATER_BYTES = 16 * 1024  # 0.5 s of audio; then audio is withheld
_CLOSE_WAIT_S = 1.0  # for the agent's answer to our close
# Close codes that are counted by their number; an agent may send any of 62,000 others.
_COUNTED_CODES = frozenset(range(1000, 1016))


class AgentSocket(WSListener):
    """Messages of one agent.

    Args:
        on_open: Called when frames can be sent, before the first message is taken.
        on_message: Takes each whole binary message, on the event loop, until `close`.
        metrics: Where pings, drops and bad messages are counted.
        ping_s: How often to ping; an agent that leaves two pings unanswered is closed with 1006.
    """

    def __init__(
        self,
        on_open: Callable[[], None],
        on_message: Callable[[bytes], None],
        metrics: Metrics,
        ping_s: float,
    ) -> None:
        super().__init__()
        self._on_open = on_open
        self._on_message = on_message
        self._metrics = metrics
        self._ping_s = ping_s
        self._loop = asyncio.get_running_loop()
        self._transport: WSTransport | None = None
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._is_open = False
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
        """Wait for the end of an opened connection and return its close code."""
        assert self._transport is not None
        try:
            await self._transport.wait_disconnected()
        except WSProtocolError as exc:
            logger.warning("agent broke the WebSocket protocol: %s", exc)
        except Exception:  # ours, on the way of a message; picows has closed with 1011
            logger.exception("an agent's message could not be taken")
        return self._close_code

    @property
    def is_open(self) -> bool:
        """Whether frames can be sent: neither side has begun to close."""
        return self._is_open

    def send_audio(self, frame: bytes) -> None:
        """Send a frame, or withhold and count it while the agent does not read."""
        transport = self._transport
        if transport is None or self._is_paused:
            self._metrics.agent_audio_dropped.labels("agent_slow").inc()
            return
        transport.send(WSMsgType.BINARY, frame)

    def send_control(self, frame: bytes) -> bool:
        """Send a frame that must not be lost. An agent too slow even for these is cut off: False,
        as when the connection is closing.
        """
        transport = self._transport
        if transport is None or not self._is_open:
            return False
        if transport.underlying_transport.get_write_buffer_size() > MAX_CONTROL_BYTES:
            self._cut(transport)
            return False
        transport.send(WSMsgType.BINARY, frame)
        return True

    def close(self, code: int = 1000) -> None:
        """End the connection politely; nothing that still comes is taken, and an agent that does
        not answer within a second is cut off.
        """
        transport = self._transport
        if transport is None or not self._is_open:
            return
        self._is_open = False
        transport.send_close(WSCloseCode(code))
        self._loop.call_later(_CLOSE_WAIT_S, transport.disconnect, False)

    def _cut(self, transport: WSTransport) -> None:
        self._is_open = False
        transport.disconnect(False)

    # Called by picows

    def on_ws_connected(self, transport: WSTransport) -> None:
        """Begin to ping."""
        self._transport = transport
        self._is_open = True
        transport.underlying_transport.set_write_buffer_limits(high=_HIGH_WATER_BYTES)
        self._pinger = self._loop.call_later(self._ping_s, self._send_ping)
        if not self._opened.done():
            self._opened.set_result(None)
        self._on_open()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """Ping no more; who waits for the end hears of it from picows."""
        self._is_open = False
        if self._pinger is not None:
            self._pinger.cancel()
        code = self._close_code
        self._metrics.agent_closes.labels(str(code) if code in _COUNTED_CODES else "other").inc()

    def pause_writing(self) -> None:
        """The agent does not read."""
        self._is_paused = True

    def resume_writing(self) -> None:
        """The agent reads again."""
        self._is_paused = False

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Put fragments together and pass whole binary messages on."""
        kind = frame.msg_type
        if kind == WSMsgType.CLOSE:
            self._take_close(transport, frame)
        elif not self._is_open:  # we have closed: the call is over
            return
        elif kind == WSMsgType.BINARY and frame.fin:
            self._on_message(frame.get_payload_as_bytes())
        elif kind in (WSMsgType.BINARY, WSMsgType.CONTINUATION):
            self._add_fragment(transport, frame)
        elif kind == WSMsgType.TEXT:  # whole, or the start of one: the contract is binary
            self._metrics.agent_bad_frames.labels("text").inc()
            self._is_fragmented = False
        elif kind == WSMsgType.PONG:
            self._take_pong(frame.get_payload_as_bytes())
        elif not self._is_paused:  # PING; answers that an agent does not read must not pile up
            transport.send_pong(frame.get_payload_as_bytes())

    def _take_close(self, transport: WSTransport, frame: WSFrame) -> None:
        code = int.from_bytes(frame.get_payload_as_bytes()[:2], "big")
        if not transport.is_close_frame_sent:  # else it answers ours, or picows' own
            self._close_code = code or NO_STATUS
        self._end(transport, WSCloseCode(code) if code else WSCloseCode.OK)

    def _end(self, transport: WSTransport, code: WSCloseCode) -> None:
        self._is_open = False
        transport.send_close(code)
        transport.disconnect()
        # That waits for unsent bytes to go, which they never may.
        self._loop.call_later(_CLOSE_WAIT_S, transport.disconnect, False)

    def _add_fragment(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.BINARY:
            self._fragments.clear()
            self._is_fragmented = True
        if not self._is_fragmented:  # the rest of a text message
            return
        if len(self._fragments) + frame.payload_size > MAX_MESSAGE_SIZE:
            logger.warning("agent sends a message of over %d bytes, closing", MAX_MESSAGE_SIZE)
            self._end(transport, WSCloseCode.MESSAGE_TOO_BIG)
            return
        self._fragments += frame.get_payload_as_memoryview()
        if frame.fin:
            message = bytes(self._fragments)
            self._fragments.clear()
            self._is_fragmented = False
            self._on_message(message)

    def _send_ping(self) -> None:
        transport = self._transport
        assert transport is not None  # the timer is set by the connection and ends with it
        now = time.monotonic()
        if self._pinged_at is not None and now - self._pinged_at >= 2 * self._ping_s:
            logger.warning(
                "agent has not answered a ping for %.1f s, closing", now - self._pinged_at
            )
            self._cut(transport)
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
