"""One open WebSocket to an agent: messages in, frames out, pings. Not the retrying.

picows connects, and does everything over TLS. A plain socket is moved to the call's path as soon as
picows holds no part of a frame: from then on frames come and go there, and only what is no audio
comes through here.

Neither ever blocks a send: what the agent does not read waits in this process. So audio is withheld
and counted as soon as the kernel's buffer and a small one of ours are full; control goes on up to a
bound.
"""

import asyncio
import logging
import time
from collections.abc import Callable

from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSProtocolError, WSTransport

from mediad.metrics import Metrics
from mediad.pump import Path
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
_SENT_CODES = frozenset(range(1000, 1015)) - {1004, 1005, 1006}


class AgentSocket(WSListener):
    """Messages of one agent.

    Args:
        on_open: Called when frames can be sent, before the first message is taken.
        on_message: Takes each whole binary message, on the event loop, until `close`, and returns
            whether it was audio. After the first that was, a path may play audio by itself.
        metrics: Where pings, drops and bad messages are counted.
        ping_s: How often to ping; an agent that leaves two pings unanswered is closed with 1006.
        path: Where a plain socket is moved to; None leaves it with picows.
    """

    def __init__(
        self,
        on_open: Callable[[], None],
        on_message: Callable[[bytes], bool],
        metrics: Metrics,
        ping_s: float,
        path: Path | None = None,
    ) -> None:
        super().__init__()
        self._on_open = on_open
        self._on_message = on_message
        self._metrics = metrics
        self._ping_s = ping_s
        self._path = path
        self._is_on_path = False
        self._loop = asyncio.get_running_loop()
        self._transport: WSTransport | None = None
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._is_open = False
        self._close_code = ABNORMAL_CLOSURE
        self._fragments = bytearray()
        self._is_fragmented = False
        self._is_paused = False
        self._is_released = False  # audio may be sent without asking
        self._is_speaking = False  # audio has come
        self._is_close_sent = False  # by us, not by picows
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
        if self._transport is None or self._is_slow:
            self.withhold_audio()
        else:
            self._send(WSMsgType.BINARY, frame)

    def release_audio(self) -> None:
        """Let the path send the caller's audio by itself, from now on."""
        self._is_released = True
        if self._path is not None and self._is_on_path:
            self._path.sends_audio = self._is_open

    def send_control(self, frame: bytes) -> bool:
        """Send a frame that must not be lost. An agent too slow even for these is cut off: False,
        as when the connection is closing.
        """
        if not self._is_open:
            return False
        if self._unsent > MAX_CONTROL_BYTES:
            self._cut()
            return False
        self._send(WSMsgType.BINARY, frame)
        return True

    def close(self, code: int = 1000) -> None:
        """End the connection politely; nothing that still comes is taken, and an agent that does
        not answer within a second is cut off.
        """
        if not self._is_open:
            return
        self._send_close(code)
        self._loop.call_later(_CLOSE_WAIT_S, self._disconnect, False)

    def _cut(self) -> None:
        self._is_open = False
        self._disconnect(graceful=False)

    # The connection, on the path or not

    @property
    def _unsent(self) -> int:
        if self._path is not None and self._is_on_path:
            return self._path.unsent
        assert self._transport is not None
        return int(self._transport.underlying_transport.get_write_buffer_size())

    @property
    def _is_slow(self) -> bool:
        return self._is_paused or (self._is_on_path and self._unsent > 0)

    def _send(self, kind: WSMsgType, payload: bytes) -> None:
        if self._path is not None and self._is_on_path:
            self._path.send(kind.value, payload)
        elif self._transport is not None:
            self._transport.send(kind, payload)

    def _send_close(self, code: int) -> None:
        assert self._transport is not None
        self._is_open = False
        if self._path is not None and self._is_on_path:
            self._path.sends_audio = self._path.plays_audio = False
        if not self._is_close_sent:
            self._is_close_sent = True
            self._send(WSMsgType.CLOSE, code.to_bytes(2, "big"))

    def _disconnect(self, graceful: bool) -> None:
        assert self._transport is not None
        self._leave_path()
        self._transport.disconnect(graceful)

    def _move_to_path(self, path: Path, transport: WSTransport) -> None:
        """Let the path have the socket. picows holds no byte of it, and gets none any more."""
        plain = transport.underlying_transport
        if transport.is_secure or self._is_on_path or plain.get_write_buffer_size():
            return
        fd = plain.get_extra_info("socket").fileno()
        if path.take_agent(fd, masks=transport.is_client_side, owner=self):
            plain.pause_reading()
            path.sends_audio, path.plays_audio = self._is_released, self._is_speaking
            self._is_on_path = True

    def _leave_path(self) -> None:
        """Give the socket back to picows, which only closes it."""
        path, self._path = self._path, None
        if path is None or not self._is_on_path:
            return
        self._is_on_path = False
        unsent = path.release_agent()
        assert self._transport is not None
        if unsent:
            self._transport.underlying_transport.write(unsent)

    # Called by picows

    def on_ws_connected(self, transport: WSTransport) -> None:
        """Begin to ping."""
        self._transport = transport
        self._is_open = True
        transport.underlying_transport.set_write_buffer_limits(high=_HIGH_WATER_BYTES)
        if not self._opened.done():
            self._opened.set_result(None)
        self._on_open()
        if self._path is not None and not transport.is_secure:
            self._send_ping()  # its answer ends where a frame ends: then the socket can be moved
        else:
            self._pinger = self._loop.call_later(self._ping_s, self._send_ping)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """Ping no more; who waits for the end hears of it from picows."""
        self._is_open = False
        self._leave_path()
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
        """Take a frame, and move a socket of which picows holds nothing to the path."""
        if frame.msg_type == WSMsgType.CLOSE and transport.is_close_frame_sent:
            self._is_close_sent = True  # perhaps by picows: it answers a violation
        self._take_frame(frame.msg_type, frame.fin, frame.get_payload_as_bytes())
        if self._path is not None and self._is_open and frame.tail_size == 0:
            self._move_to_path(self._path, transport)

    # Called by the path

    def take_frame(self, opcode: int, fin: bool, payload: bytes) -> None:
        """Take a frame that is not audio, or the first that is."""
        try:
            kind = WSMsgType(opcode)
            if kind == WSMsgType.CLOSE and not _is_close_valid(payload):
                self.on_path_violation(WSCloseCode.PROTOCOL_ERROR.value)
            else:
                self._take_frame(kind, fin, payload)
        except Exception:  # a callback's top: the agent is lost, its call goes on
            logger.exception("an agent's message could not be taken")
            self._end(WSCloseCode.INTERNAL_ERROR.value)

    def on_path_end(self) -> None:
        """The connection is gone."""
        self._cut()

    def on_path_violation(self, code: int) -> None:
        """Close a connection whose bytes are no WebSocket."""
        logger.warning("agent broke the WebSocket protocol, closing with %d", code)
        self._end(code)

    def withhold_audio(self) -> None:
        """Count a frame that is not sent."""
        self._metrics.agent_audio_dropped.labels("agent_slow").inc()

    # What comes from the agent

    def _take_frame(self, kind: WSMsgType, fin: bool, payload: bytes) -> None:
        if kind == WSMsgType.CLOSE:
            self._take_close(payload)
        elif not self._is_open:  # we have closed: the call is over
            return
        elif kind == WSMsgType.BINARY and fin:
            self._take_message(payload)
        elif kind in (WSMsgType.BINARY, WSMsgType.CONTINUATION):
            self._add_fragment(kind, fin, payload)
        elif kind == WSMsgType.TEXT:  # whole, or the start of one: the contract is binary
            self._metrics.agent_bad_frames.labels("text").inc()
            self._is_fragmented = False
        elif kind == WSMsgType.PONG:
            self._take_pong(payload)
        elif not self._is_slow:  # PING; answers that an agent does not read must not pile up
            self._send(WSMsgType.PONG, payload)

    def _take_message(self, message: bytes) -> None:
        if self._on_message(message) and not self._is_speaking:
            self._is_speaking = True
            if self._path is not None and self._is_on_path:
                self._path.plays_audio = self._is_open

    def _take_close(self, payload: bytes) -> None:
        code = int.from_bytes(payload[:2], "big")
        if not self._is_close_sent:  # else it answers ours
            self._close_code = code or NO_STATUS
        self._end(code or WSCloseCode.OK.value)

    def _end(self, code: int) -> None:
        self._send_close(code)
        self._disconnect(graceful=True)
        # That waits for unsent bytes to go, which they never may.
        self._loop.call_later(_CLOSE_WAIT_S, self._disconnect, False)

    def _add_fragment(self, kind: WSMsgType, fin: bool, payload: bytes) -> None:
        if kind == WSMsgType.BINARY:
            self._fragments.clear()
            self._is_fragmented = True
        if not self._is_fragmented:  # the rest of a text message
            return
        if len(self._fragments) + len(payload) > MAX_MESSAGE_SIZE:
            logger.warning("agent sends a message of over %d bytes, closing", MAX_MESSAGE_SIZE)
            self._end(WSCloseCode.MESSAGE_TOO_BIG.value)
            return
        self._fragments += payload
        if fin:
            message = bytes(self._fragments)
            self._fragments.clear()
            self._is_fragmented = False
            self._take_message(message)

    def _send_ping(self) -> None:
        now = time.monotonic()
        if self._pinged_at is not None and now - self._pinged_at >= 2 * self._ping_s:
            logger.warning(
                "agent has not answered a ping for %.1f s, closing", now - self._pinged_at
            )
            self._cut()
            return
        if self._pinged_at is None:
            self._pinged_at = now
            self._ping += 1
            self._send(WSMsgType.PING, self._ping.to_bytes(4, "big"))
        self._pinger = self._loop.call_later(self._ping_s, self._send_ping)

    def _take_pong(self, payload: bytes) -> None:
        if self._pinged_at is not None and payload == self._ping.to_bytes(4, "big"):
            self._metrics.agent_round_trip.observe(time.monotonic() - self._pinged_at)
            self._pinged_at = None


def _is_close_valid(payload: bytes) -> bool:
    """Tell whether a close frame is empty, or a code that may be sent and UTF-8 (RFC 6455, 7.4)."""
    if not payload:
        return True
    code = int.from_bytes(payload[:2], "big")
    try:
        payload[2:].decode()
    except UnicodeDecodeError:
        return False
    return len(payload) >= 2 and (code >= 3000 or code in _SENT_CODES)
