"""One open WebSocket to an agent or a service: messages in, frames out, pings. Not the retrying.

picows connects, and does everything over TLS. A plain socket is moved to the call's path as soon as
picows holds no part of a frame: from then on frames come and go there, and only what is no audio
comes through here.

Neither ever blocks a send: what the agent does not read waits in this process. So its buffers are
small, and audio is withheld and counted as soon as they are full, or `ping` finds the agent slow;
control goes on up to a bound.
"""

import asyncio
import logging
import select
import socket
import struct
import time
from collections.abc import Callable

from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSProtocolError, WSTransport

from mediad.ai.peer import Peer
from mediad.ai.ping import LOST_BEATS, Pings
from mediad.pump import Path
from mediad.wire.frames import MAX_MESSAGE_SIZE

__all__ = [
    "ABNORMAL_CLOSURE",
    "MAX_CONTROL_BYTES",
    "MAX_MESSAGES_A_SECOND",
    "NO_STATUS",
    "READ_BUFFER_BYTES",
    "AgentSocket",
]

logger = logging.getLogger(__name__)

NO_STATUS = 1005
ABNORMAL_CLOSURE = 1006
"""The codes of a close frame without one, and of a connection that ended without a close frame
(RFC 6455, 7.4.1).
"""

MAX_CONTROL_BYTES = 16 * 1024
"""Control that waits here for an agent that does not read, a hundred digits; then it is given up.
"""

MAX_MESSAGES_A_SECOND = 500
"""Frames that are no audio, on the average of a ping's interval; an agent that sends more is closed
with 1008. One that tells every word and every state sends a tenth.
"""

READ_BUFFER_BYTES = 2 * 1024
"""picows' buffer of a connection at first, its least: a frame of 20 ms and more. It grows by itself
for who sends faster. Of its default, 16 KiB, each call had all in memory.
"""

# What one agent that does not read can cost is the sum of these, MAX_CONTROL_BYTES and one frame:
# under 64 KiB. The kernel holds more than half a second of audio: a hiccup loses nothing.
_KERNEL_BYTES = 20 * 1024  # Linux doubles it, and takes from it for its own needs
_HIGH_WATER_BYTES = 4 * 1024  # in asyncio's buffer
# Behind asyncio's buffer for TLS is another, which is not ours to limit. So audio is withheld when
# the kernel calls the socket no longer writable, at two thirds of this; the rest is for control.
_TLS_KERNEL_BYTES = 30 * 1024

# What comes is told apart by numbers: to look a member of an enum up takes ten times as long.
_CONTINUATION, _TEXT, _BINARY = 0x0, 0x1, 0x2
_CLOSE, _PONG = 0x8, 0xA

_RESET = struct.pack("ii", 1, 0)  # linger: what is unsent is forgotten when the socket is closed
_CLOSE_WAIT_S = 1.0  # for the agent's answer to our close
# Close codes that are counted by their number; an agent may send any of 62,000 others.
_COUNTED_CODES = frozenset(range(1000, 1016))
_SENT_CODES = frozenset(range(1000, 1015)) - {1004, 1005, 1006}


class AgentSocket(WSListener):
    """Messages of one agent, or of one service.

    Args:
        on_open: Called when frames can be sent, before the first message is taken.
        on_message: Takes each whole binary message, on the event loop, until `close`, and returns
            whether it was audio. After the first that was, a path may play audio by itself.
        on_slow: Called with True when audio begins to be withheld from an agent that does not
            answer a ping, and with False when it gets audio again.
        peer: Who it is; where pings, drops and bad messages are counted.
        ping_s: How often to ping; the beat of `ping`. A lost agent is closed with 1006.
        path: Where a plain socket is moved to; None leaves it with picows.
        max_control_bytes: Control that waits here for a peer that does not read; then it is cut
            off.
    """

    def __init__(
        self,
        on_open: Callable[[], None],
        on_message: Callable[[bytes], bool],
        on_slow: Callable[[bool], None],
        peer: Peer,
        ping_s: float,
        path: Path | None = None,
        max_control_bytes: int = MAX_CONTROL_BYTES,
    ) -> None:
        super().__init__()
        self._on_open = on_open
        self._on_message = on_message
        self._on_slow = on_slow
        self._peer = peer
        self._ping_s = ping_s
        self._path = path
        self._is_on_path = False
        self._loop = asyncio.get_running_loop()
        self._transport: WSTransport | None = None
        self.has_opened = False
        """Whether it has ever been open."""
        self._is_open = False
        self._close_code = ABNORMAL_CLOSURE
        self._fragments = bytearray()
        self._is_fragmented = False
        self._is_paused = False
        self._is_released = False  # audio may be sent without asking
        self._is_speaking = False  # audio has come
        self._looks_at_sent = self._looks_at_played = False  # no audio passes us by
        self._is_close_sent = False  # by us, not by picows
        self._writable: select.poll | None = None  # asked about a TLS connection's socket
        self._pings = Pings()
        self._beater: asyncio.TimerHandle | None = None
        self._max_control_bytes = max_control_bytes
        self._control_bytes = 0  # sent since the last pong, while the buffers were full
        self._max_messages = max(1, int(MAX_MESSAGES_A_SECOND * ping_s))  # between two beats
        self._messages_left = self._max_messages

    async def closed(self) -> int:
        """Wait for the end of an opened connection and return its close code."""
        assert self._transport is not None
        try:
            await self._transport.wait_disconnected()
        except WSProtocolError as exc:
            logger.warning("%s broke the WebSocket protocol: %s", self._peer.name, exc)
        except Exception:  # ours, on the way of a message; picows has closed with 1011
            logger.exception("a message of the %s could not be taken", self._peer.name)
        return self._close_code

    @property
    def is_open(self) -> bool:
        """Whether frames can be sent: neither side has begun to close."""
        return self._is_open

    @property
    def is_slow(self) -> bool:
        """Whether audio is withheld."""
        return self._pings.is_slow

    def send_audio(self, frame: bytes) -> None:
        """Send a frame, or withhold and count it while the agent does not read."""
        if self._transport is None or self._pings.is_slow or self._is_full:
            self.withhold_audio()
        else:
            self._send(WSMsgType.BINARY, frame)

    def release_audio(self) -> None:
        """Let the path send the caller's audio by itself, from now on."""
        self._is_released = True
        self._choose_way()

    def look_at_audio(self, sent: bool, played: bool) -> None:
        """Let the path send the caller's audio, or play the agent's, by itself no more, or again:
        it comes to those who would otherwise only hear of the rest.
        """
        self._looks_at_sent, self._looks_at_played = sent, played
        self._choose_way()

    def send_control(self, frame: bytes) -> bool:
        """Send a frame that must not be lost. An agent too slow even for these is cut off: False,
        as when the connection is closing.
        """
        if not self._is_open:
            return False
        if self._is_full:
            self._control_bytes += len(frame)
            if self._control_bytes > self._max_control_bytes:
                logger.warning("%s does not even read control, closing", self._peer.name)
                self._give_up()
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

    def _give_up(self) -> None:
        """Cut the connection, and forget what the agent has not read: it would be no news."""
        assert self._transport is not None
        _socket(self._transport).setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._cut()

    # The connection, on the path or not

    @property
    def _is_full(self) -> bool:
        """Whether the buffers towards the agent hold what they may."""
        if self._path is not None and self._is_on_path:
            return self._path.unsent > 0
        return self._is_paused or (self._writable is not None and not self._writable.poll(0))

    def _choose_way(self) -> None:
        """Let the path send and play audio by itself, unless that has to be looked at."""
        if self._path is not None and self._is_on_path:
            is_due = self._is_released and not self._looks_at_sent
            self._path.sends_audio = is_due and self._is_open and not self._pings.is_slow
            is_due = self._is_speaking and not self._looks_at_played
            self._path.plays_audio = is_due and self._is_open

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
            self._is_on_path = True
            self._choose_way()

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
        """Begin to ping. The first answer ends where a frame ends: then the socket can be moved."""
        self._transport = transport
        self.has_opened = self._is_open = True
        sock = _socket(transport)
        kernel_bytes = _TLS_KERNEL_BYTES if transport.is_secure else _KERNEL_BYTES
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, kernel_bytes)
        transport.underlying_transport.set_write_buffer_limits(high=_HIGH_WATER_BYTES)
        if transport.is_secure:
            self._writable = select.poll()
            self._writable.register(sock.fileno(), select.POLLOUT)
        self._on_open()
        self._beat()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """Ping no more; who waits for the end hears of it from picows."""
        self._is_open = False
        self._writable = None
        self._leave_path()
        if self._beater is not None:
            self._beater.cancel()
        code = self._close_code
        self._peer.count_close(str(code) if code in _COUNTED_CODES else "other")

    def pause_writing(self) -> None:
        """The agent does not read."""
        self._is_paused = True

    def resume_writing(self) -> None:
        """The agent reads again."""
        self._is_paused = False

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Take a frame, and move a socket of which picows holds nothing to the path."""
        opcode = frame.msg_type.value
        if opcode == _CLOSE and transport.is_close_frame_sent:
            self._is_close_sent = True  # perhaps by picows: it answers a violation
        self._take_frame(opcode, frame.fin, frame.get_payload_as_bytes())
        if self._path is not None and self._is_open and frame.tail_size == 0:
            self._move_to_path(self._path, transport)

    # Called by the path

    def take_frame(self, opcode: int, fin: bool, payload: bytes) -> None:
        """Take a frame that is not audio, or the first that is."""
        try:
            if opcode == _CLOSE and not _is_close_valid(payload):
                self.on_path_violation(WSCloseCode.PROTOCOL_ERROR.value)
            else:
                self._take_frame(opcode, fin, payload)
        except Exception:  # a callback's top: the agent is lost, its call goes on
            logger.exception("a message of the %s could not be taken", self._peer.name)
            self._end(WSCloseCode.INTERNAL_ERROR.value)

    def on_path_end(self) -> None:
        """The connection is gone."""
        self._cut()

    def on_path_violation(self, code: int) -> None:
        """Close a connection whose bytes are no WebSocket."""
        logger.warning("%s broke the WebSocket protocol, closing with %d", self._peer.name, code)
        self._end(code)

    def withhold_audio(self) -> None:
        """Count a frame that is not sent."""
        self._peer.count_withheld()

    # What comes from the agent

    def _take_frame(self, opcode: int, fin: bool, payload: bytes) -> None:
        if opcode == _CLOSE:
            self._take_close(payload)
        elif not self._is_open:  # we have closed: the call is over
            return
        elif opcode == _BINARY and fin:
            self._take_message(payload)
        elif opcode == _PONG:
            self._take_pong(payload)
        elif self._is_flood():
            return
        elif opcode in (_BINARY, _CONTINUATION):
            self._add_fragment(opcode, fin, payload)
        elif opcode == _TEXT:  # whole, or the start of one: the contract is binary
            self._peer.count_bad_frame("text")
            self._is_fragmented = False
        elif not self._is_full:  # PING; answers that an agent does not read must not pile up
            self._send(WSMsgType.PONG, payload)

    def _take_message(self, message: bytes) -> None:
        if not self._on_message(message):
            self._is_flood()
        elif not self._is_speaking:
            self._is_speaking = True
            self._choose_way()

    def _is_flood(self) -> bool:
        """Count a frame that is no audio; close the connection that has sent too many."""
        self._messages_left -= 1
        if self._messages_left >= 0:
            return False
        if self._is_open:
            self._peer.count_bad_frame("flood")
            logger.warning(
                "%s sends over %d messages a second, closing",
                self._peer.name,
                MAX_MESSAGES_A_SECOND,
            )
            self._end(WSCloseCode.POLICY_VIOLATION.value)
        return True

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

    def _add_fragment(self, opcode: int, fin: bool, payload: bytes) -> None:
        if opcode == _BINARY:
            self._fragments.clear()
            self._is_fragmented = True
        if not self._is_fragmented:  # the rest of a text message
            return
        if len(self._fragments) + len(payload) > MAX_MESSAGE_SIZE:
            logger.warning(
                "%s sends a message of over %d bytes, closing", self._peer.name, MAX_MESSAGE_SIZE
            )
            self._end(WSCloseCode.MESSAGE_TOO_BIG.value)
            return
        self._fragments += payload
        if fin:
            message = bytes(self._fragments)
            self._fragments.clear()
            self._is_fragmented = False
            self._take_message(message)

    # Pings

    def _beat(self) -> None:
        if not self._is_open:
            return
        pings, was_slow = self._pings, self._pings.is_slow
        self._messages_left = self._max_messages
        ping = pings.beat(time.monotonic())
        if ping is not None:
            self._send(WSMsgType.PING, ping)
        elif pings.is_lost:
            logger.warning(
                "%s has not answered a ping for %g s, closing",
                self._peer.name,
                LOST_BEATS * self._ping_s,
            )
            self._give_up()
            return
        elif not was_slow:
            self._tell_slow()
        self._beater = self._loop.call_later(self._ping_s, self._beat)

    def _take_pong(self, payload: bytes) -> None:
        pings, was_slow = self._pings, self._pings.is_slow
        now = time.monotonic()
        round_trip_s = pings.answer(payload, now)
        if round_trip_s is None:
            self._is_flood()
            return
        self._peer.observe_round_trip(round_trip_s)
        self._control_bytes = 0
        if pings.is_slow:  # what follows that ping has still to be read
            self._send(WSMsgType.PING, pings.ping(now))
        elif was_slow:
            self._tell_slow()

    def _tell_slow(self) -> None:
        is_slow = self._pings.is_slow
        self._choose_way()
        if is_slow:
            self._peer.count_slow()
        self._on_slow(is_slow)


def _socket(transport: WSTransport) -> socket.socket:
    sock: socket.socket = transport.underlying_transport.get_extra_info("socket")
    return sock


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
