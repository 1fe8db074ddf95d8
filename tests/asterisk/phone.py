"""A SIP phone for the tests: one G.711 µ-law call over UDP, with RTP and RFC 4733 key presses.

It sends a packet every ``ptime_ms`` on an absolute clock, silence when it has nothing to say, and
keeps every RTP packet it gets with its time of arrival. It does no more SIP than a call on loopback
needs: no retransmission, no authentication, no registration.
"""

import asyncio
import itertools
import random
import re
import struct
import uuid
from typing import NamedTuple, Self

from tests.asterisk.sip import SipMessage, parse_sip
from tests.sound import decode_ulaw

Address = tuple[str, int]

_RTP_HEADER = struct.Struct("!BBHII")  # version, payload type, sequence, timestamp, source
_PCMU = 0
_TELEPHONE_EVENT = 101
_SILENCE = b"\xff"
_KEYS = "0123456789*#ABCD"


class RtpPacket(NamedTuple):
    """One received packet of sound."""

    arrived: float
    """When, on the event loop's clock, in seconds."""
    sequence: int
    timestamp: int
    payload: bytes


class _Udp(asyncio.DatagramProtocol):
    """A socket that keeps its datagrams in a queue, each with its time of arrival."""

    def __init__(self) -> None:
        self.datagrams: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    def datagram_received(self, data: bytes, addr: Address) -> None:
        self.datagrams.put_nowait((asyncio.get_running_loop().time(), data))

    @classmethod
    async def open(cls) -> tuple[asyncio.DatagramTransport, Self]:
        loop = asyncio.get_running_loop()
        return await loop.create_datagram_endpoint(cls, local_addr=("127.0.0.1", 0))


class Phone:
    """A phone; use it as ``async with Phone(asterisk.sip) as phone: await phone.call("100")``."""

    def __init__(self, server: Address, ptime_ms: int = 20) -> None:
        self._server = server
        self._ptime_ms = ptime_ms
        self._frame = 8 * ptime_ms  # samples, and bytes
        self._say = bytearray()
        # Key presses: each entry is a packet's number within its press, and its payload.
        self._presses: asyncio.Queue[tuple[int, bytes]] = asyncio.Queue()
        self._press_start = 0
        self._packets: list[RtpPacket] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._answered: asyncio.Future[SipMessage] = asyncio.get_running_loop().create_future()
        self.ended = asyncio.Event()
        """Set once the call is over, whoever ended it."""

    async def __aenter__(self) -> Self:
        self._sip, self._sip_in = await _Udp.open()
        self._rtp, self._rtp_in = await _Udp.open()
        self._tasks += [
            asyncio.create_task(self._read_sip()),
            asyncio.create_task(self._read_rtp()),
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.hang_up()
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        self._sip.close()
        self._rtp.close()

    async def call(self, number: str) -> None:
        """Call a number and return when it is answered; from then on the phone sends RTP."""
        host, port = self._sip.get_extra_info("sockname")
        self._from = f"<sip:phone@{host}:{port}>;tag={uuid.uuid4().hex}"
        self._to = f"<sip:{number}@{self._server[0]}:{self._server[1]}>"
        self._target = self._to.strip("<>")
        self._call_id = uuid.uuid4().hex
        self._send_request("INVITE", 1, body=self._offer())
        async with asyncio.timeout(10):
            answer = await self._answered
        media = re.search(r"^m=audio (\d+)", answer.body, re.MULTILINE)
        if not answer.first_line.startswith("SIP/2.0 200") or media is None:
            self.ended.set()
            raise ConnectionError(f"call to {number} failed: {answer.first_line}")
        self._tasks.append(asyncio.create_task(self._send_rtp(("127.0.0.1", int(media[1])))))

    def say(self, ulaw: bytes) -> None:
        """Send these samples, after what is still waiting to be sent."""
        self._say += ulaw

    async def press(self, keys: str, hold_ms: int = 100, pause_ms: int = 100) -> None:
        """Press keys one after the other; no sound is sent while a key is down."""
        packets = max(1, hold_ms // self._ptime_ms)
        for key in keys:
            await asyncio.sleep(pause_ms / 1000)
            # The end is sent three times, against loss (RFC 4733, 2.5.1.4).
            for count in [*range(1, packets + 1), packets, packets]:
                end = 0x80 if count == packets else 0
                volume = 10  # -dBm0
                body = struct.pack("!BBH", _KEYS.index(key), end | volume, count * self._frame)
                self._presses.put_nowait((count, body))
            await self._presses.join()

    def hang_up(self) -> None:
        """Hang up, unless the call is over or was never answered."""
        if self._answered.done() and not self.ended.is_set():
            self._send_request("BYE", 2)
            self.ended.set()

    def packets(self) -> list[RtpPacket]:
        """Return the sound packets received so far, in the order they arrived."""
        return list(self._packets)

    def heard(self) -> bytes:
        """Return what was heard so far as s16le, 8 kHz, by sequence; no gap is filled."""
        if not self._packets:
            return b""
        first = self._packets[0].sequence
        in_order = sorted(self._packets, key=lambda p: (p.sequence - first + 0x8000) & 0xFFFF)
        return decode_ulaw(b"".join(packet.payload for packet in in_order))

    def _offer(self) -> str:
        port = self._rtp.get_extra_info("sockname")[1]
        lines = [
            "v=0",
            "o=phone 1 1 IN IP4 127.0.0.1",
            "s=-",
            "c=IN IP4 127.0.0.1",
            "t=0 0",
            f"m=audio {port} RTP/AVP {_PCMU} {_TELEPHONE_EVENT}",
            "a=rtpmap:0 PCMU/8000",
            f"a=rtpmap:{_TELEPHONE_EVENT} telephone-event/8000",
            f"a=fmtp:{_TELEPHONE_EVENT} 0-15",
            f"a=ptime:{self._ptime_ms}",
        ]
        return "".join(f"{line}\r\n" for line in lines)

    def _send_request(self, method: str, number: int, body: str = "") -> None:
        host, port = self._sip.get_extra_info("sockname")
        headers = {
            "Via": f"SIP/2.0/UDP {host}:{port};branch=z9hG4bK{uuid.uuid4().hex}",
            "Max-Forwards": "70",
            "From": self._from,
            "To": self._to,
            "Call-ID": self._call_id,
            "CSeq": f"{number} {method}",
            "Contact": f"<sip:phone@{host}:{port}>",
            "Content-Type": "application/sdp",
        }
        request = SipMessage(f"{method} {self._target} SIP/2.0", headers, body)
        self._sip.sendto(request.serialize(), self._server)

    async def _read_sip(self) -> None:
        while True:
            _, data = await self._sip_in.datagrams.get()
            message = parse_sip(data)
            if not message.first_line.startswith("SIP/2.0"):
                self._on_request(message)
            elif message.headers["CSeq"] == "1 INVITE" and message.status >= 200:
                self._on_answer(message)

    def _on_answer(self, message: SipMessage) -> None:
        """Take the INVITE's final answer, which comes again until it is acknowledged."""
        self._to = message.headers["To"]
        if contact := re.search("<(.*?)>", message.headers.get("Contact", "")):
            self._target = contact[1]
        self._send_request("ACK", 1)
        if not self._answered.done():
            self._answered.set_result(message)

    def _on_request(self, message: SipMessage) -> None:
        if message.first_line.startswith("ACK"):
            return
        headers = {name: message.headers[name] for name in ("Via", "From", "To", "Call-ID", "CSeq")}
        self._sip.sendto(SipMessage("SIP/2.0 200 OK", headers, "").serialize(), self._server)
        if message.first_line.startswith("BYE"):
            self.ended.set()

    async def _read_rtp(self) -> None:
        while True:
            arrived, data = await self._rtp_in.datagrams.get()
            _, kind, sequence, timestamp, _ = _RTP_HEADER.unpack_from(data)
            if kind & 0x7F == _PCMU:
                payload = data[_RTP_HEADER.size :]
                self._packets.append(RtpPacket(arrived, sequence, timestamp, payload))

    async def _send_rtp(self, address: Address) -> None:
        loop = asyncio.get_running_loop()
        start = loop.time()
        source = random.getrandbits(32)
        for number in itertools.count():
            if self.ended.is_set():
                return
            kind, timestamp, payload = self._next_packet(number * self._frame)
            header = _RTP_HEADER.pack(0x80, kind, number & 0xFFFF, timestamp & 0xFFFFFFFF, source)
            self._rtp.sendto(header + payload, address)
            due = start + (number + 1) * self._ptime_ms / 1000
            await asyncio.sleep(max(0.0, due - loop.time()))

    def _next_packet(self, now: int) -> tuple[int, int, bytes]:
        """Return payload type (with marker bit), timestamp and payload of the packet due now."""
        if self._presses.empty():
            sound = bytes(self._say[: self._frame]).ljust(self._frame, _SILENCE)
            del self._say[: self._frame]
            return _PCMU, now, sound
        count, press = self._presses.get_nowait()
        self._presses.task_done()
        marker = 0
        if count == 1:  # the key goes down; all packets of this press carry this timestamp
            self._press_start, marker = now, 0x80
        return marker | _TELEPHONE_EVENT, self._press_start, press
