"""Agents that stop reading, flood, or leave within the handshake; on each way of the frames."""

import asyncio
import base64
import contextlib
import fcntl
import hashlib
import os
import socket
import ssl
import statistics
import struct
import termios
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import NamedTuple

import numpy as np
import pytest

from mediad.ai.ping import LOST_BEATS
from mediad.config import Settings
from mediad.pump import HAS_PUMP
from mediad.wire import frames
from mediad.wire.audiosocket import Kind, audio_message
from mediad.wire.frames import AudioFrame
from tests.fakes.agent import AgentConnection, FakeAgent, RawConnection, raw_agent, raw_frame
from tests.integration.certificates import Authority
from tests.integration.daemon import Daemon, eventually, running, settings
from tests.own_stalls import watch_own_loop
from tests.sound import tone

CONNECTS = "mediad_agent_connects_total"
WITHHELD = "mediad_agent_audio_dropped_frames_total"
BAD = "mediad_agent_bad_frames_total"
MAX_BYTES = 64 * 1024
"""What an agent that does not read may cost."""

_PTIME_S = 0.02
_STEP = 16  # the level of a frame tells its number
_FRAME_BYTES = 667  # of audio, on a plain WebSocket
_SO_MEMINFO, _WMEM_QUEUED = 55, 5  # linux/sock_diag.h


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Who signs the agents' certificates."""
    return Authority(tmp_path_factory.mktemp("tls") / "ca")


WAYS = [
    pytest.param("pump", marks=pytest.mark.skipif(not HAS_PUMP, reason="no compiled pump")),
    "picows",
    "tls",
]


PLAIN = WAYS[:2]
"""Without the way on which messages come as on picows'."""


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How frames go: through the pump, or all through picows, plain or with TLS."""
    if request.param == "picows":
        monkeypatch.setattr("mediad.call.registry.open_pump", lambda: None)
    return str(request.param)


# An agent of blocking sockets


class Got(NamedTuple):
    """An audio frame that the agent has read."""

    connection: int
    at: float
    number: int
    """Which of the caller's; -1 is the silence that mediad sends when there are none."""


class BlockingAgent:
    """A server in threads that reads while ``reads`` is set, and then answers pings, too."""

    def __init__(self, tls: ssl.SSLContext | None = None, buffer_bytes: int = 0) -> None:
        self.reads = threading.Event()
        self.reads.set()
        self.audio: list[Got] = []
        self.digits = 0
        self.sockets: list[socket.socket] = []
        self._tls = tls
        self._server = socket.create_server(("127.0.0.1", 0))
        if buffer_bytes:
            self._server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
        self._threads = [threading.Thread(target=self._accept)]
        self._is_closed = False

    @property
    def url(self) -> str:
        return f"{'wss' if self._tls else 'ws'}://127.0.0.1:{self._server.getsockname()[1]}"

    def __enter__(self) -> "BlockingAgent":
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_closed = True
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for sock in self.sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self.reads.set()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._server.accept()
                self._threads.append(threading.Thread(target=self._serve, args=(sock,)))
                self._threads[-1].start()

    def _serve(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            stack.callback(sock.close)
            sock.settimeout(10)
            self.reads.wait()
            if self._is_closed:
                return
            if self._tls is not None:
                sock = stack.enter_context(self._tls.wrap_socket(sock, server_side=True))
            number = len(self.sockets)
            self.sockets.append(sock)
            _accept_websocket(sock)
            data = b""
            while self.reads.wait() and (more := sock.recv(1 << 16)):
                data = self._take(sock, number, data + more)

    def _take(self, sock: socket.socket, connection: int, data: bytes) -> bytes:
        while (frame := _first_frame(data)) is not None:
            opcode, payload, data = frame
            if opcode == 9:
                sock.sendall(raw_frame(payload, opcode=10))
            elif opcode == 2:
                match frames.decode(payload):
                    case AudioFrame(pcm):
                        level = statistics.median(np.frombuffer(pcm, "<i2").tolist())
                        number = round(level / _STEP) - 1
                        self.audio.append(Got(connection, time.monotonic(), number))
                    case _:
                        self.digits += b"dtmf" in payload
        return data


def _accept_websocket(sock: socket.socket) -> None:
    request = b""
    while b"\r\n\r\n" not in request:
        byte = sock.recv(1)
        if not byte:
            raise ConnectionResetError
        request += byte
    key = request.partition(b"Sec-WebSocket-Key: ")[2].partition(b"\r\n")[0]
    digest = hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
    sock.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + base64.b64encode(digest) + b"\r\n\r\n"
    )


def _first_frame(data: bytes) -> tuple[int, bytes, bytes] | None:
    """Cut a masked frame off: opcode, payload and the rest; None when it is not whole."""
    if len(data) < 6:
        return None
    size, at = data[1] & 0x7F, 2
    if size == 126:
        size, at = int.from_bytes(data[2:4], "big"), 4
    if len(data) < at + 4 + size:
        return None
    masked = np.frombuffer(data, np.uint8, size, at + 4)
    key = np.resize(np.frombuffer(data, np.uint8, 4, at), size)
    return data[0] & 0x0F, (masked ^ key).tobytes(), data[at + 4 + size :]


def _numbered(count: int) -> list[bytes]:
    """Return 20 ms of audio for each number: a level that can be read again."""
    levels = (_STEP * (number + 1) for number in range(count))
    return [audio_message(Kind.SLIN, struct.pack("<h", level) * 160) for level in levels]


@contextlib.contextmanager
def _our_end(of: socket.socket) -> Iterator[socket.socket]:
    """Find mediad's socket of a connection: it is in this process."""
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            sock = socket.socket(fileno=os.dup(int(fd)))
            with sock:
                if sock.family == socket.AF_INET and sock.getsockname() == of.getpeername():
                    yield sock
                    return
    raise AssertionError("mediad has no such socket")


class Cost(NamedTuple):
    """What one agent's unread bytes occupy, in bytes."""

    kernel: int
    """All that mediad's socket holds, with the kernel's own needs."""
    user: int
    """In buffers of the process."""


async def _cost(daemon: Daemon, agent: BlockingAgent, sent: int) -> Cost:
    """Find out what the first connection holds, after so many frames from the caller."""
    theirs = agent.sockets[0]
    with _our_end(theirs) as ours:
        memory = struct.unpack("9I", ours.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 36))
        unacknowledged = struct.unpack("i", fcntl.ioctl(ours, termios.TIOCOUTQ, bytes(4)))[0]
    unread = struct.unpack("i", fcntl.ioctl(theirs, termios.FIONREAD, bytes(4)))[0]
    passed = sent - await daemon.metric(WITHHELD, reason="agent_slow") - len(agent.audio)
    user = passed * _FRAME_BYTES - unread - unacknowledged
    return Cost(memory[_WMEM_QUEUED], max(0, int(user)))


@contextlib.asynccontextmanager
async def _with_agent(
    way: str, authority: Authority, ping_s: float, buffer_bytes: int = 0
) -> AsyncIterator[tuple[BlockingAgent, Daemon]]:
    tls = authority.issue().server() if way == "tls" else None
    with BlockingAgent(tls, buffer_bytes) as agent:
        ai = {"ping_s": ping_s, "ca_file": authority.certificate}
        configured = settings(agent.url, audiosocket={"codec": "slin"}, ai=ai)
        async with running(configured) as daemon:
            yield agent, daemon


# Agents that stop reading


async def test_agent_that_stops_reading_is_slow_and_catches_up(
    way: str, authority: Authority
) -> None:
    async with _with_agent(way, authority, 0.3) as (agent, daemon), daemon.call() as call:
        playing = asyncio.create_task(call.play(_numbered(400)))
        await eventually(lambda: len(agent.audio) > 5)
        agent.reads.clear()
        slow = await daemon.event("agent_slow", call)
        assert slow.data == {"started": True}
        assert not slow.is_fact
        call.press("123")  # control goes on
        await daemon.metric_reaches(10, WITHHELD, reason="agent_slow")
        agent.reads.set()
        assert (await daemon.event("agent_slow", call, 1)).data == {"started": False}
        known = len(agent.audio)
        await eventually(lambda: len(agent.audio) > known + 20)
        assert agent.digits == 3
        assert await daemon.metric("mediad_agent_slow_total") == 1
        assert not daemon.events("agent_lost")
        playing.cancel()
    numbers = [got.number for got in agent.audio if got.number >= 0]
    assert numbers == sorted(numbers)
    assert np.diff(numbers).max() >= 10  # what was withheld is not sent later


async def test_agent_that_does_not_answer_for_five_pings_is_replaced(
    way: str, authority: Authority
) -> None:
    async with _with_agent(way, authority, 0.1) as (agent, daemon), daemon.call() as call:
        await eventually(lambda: agent.sockets != [])
        agent.reads.clear()
        assert (await daemon.event("agent_lost", call)).data == {"code": 1006}
        slow = daemon.events("agent_slow", call)
        lost = await daemon.event("agent_lost", call)
        assert [event.data["started"] for event in slow] == [True]
        assert lost.offset_s - slow[0].offset_s > (LOST_BEATS - 1.5) * 0.1
        agent.reads.set()
        await daemon.event("agent_connected", call, 1)


async def test_agent_that_never_reads_costs_at_most_64_kib(way: str, authority: Authority) -> None:
    count = 400
    async with _with_agent(way, authority, 60, buffer_bytes=4096) as (agent, daemon):
        async with daemon.call() as call, asyncio.timeout(20):
            await eventually(lambda: agent.sockets != [])
            agent.reads.clear()
            await call.play(_numbered(count), 0.005)
            call.press("1" * 50)
            await daemon.metric_reaches(50, "mediad_dtmf_digits_total")
            cost = await _cost(daemon, agent, count)
            print(way, cost)
            assert await daemon.metric(WITHHELD, reason="agent_slow") > count / 2
            assert cost.kernel + cost.user < MAX_BYTES
            assert not daemon.events("agent_lost")


async def test_agent_that_reads_no_control_is_given_up(way: str, authority: Authority) -> None:
    async with _with_agent(way, authority, 60, buffer_bytes=4096) as (agent, daemon):
        async with daemon.call() as call, asyncio.timeout(20):
            await eventually(lambda: agent.sockets != [])
            agent.reads.clear()
            while not daemon.events("agent_lost", call):
                call.press("1" * 100)
                await call.hears(1)
            # It had room for a few hundred digits, and no more.
            assert await daemon.metric("mediad_dtmf_digits_total") < 2000


async def test_slow_agent_of_one_call_does_not_touch_another(
    way: str, authority: Authority
) -> None:
    async def script(agent: AgentConnection) -> None:
        due = time.monotonic() - 1.0  # so far ahead, a pause of this process is no gap
        while not agent.closed_at:
            await agent.say(tone(440, 0.1, 8000), 8000)
            due += 0.1
            await asyncio.sleep(due - time.monotonic())

    tls = authority.issue().server() if way == "tls" else None
    async with FakeAgent(script, tls=tls) as good, _with_agent(way, authority, 0.1) as started:
        agent, daemon = started
        agent.reads.clear()
        ai = {"ca_file": authority.certificate}
        async with running(settings(good.url, ai=ai)) as other, other.call() as spared:
            async with daemon.call() as call:
                await spared.hears_words()
                await call.play(_numbered(50))
                before = len(spared.heard)
                await spared.hears(25)
                assert all(message.is_audible for message in spared.heard[before:])


async def _sleep_through(
    agent: BlockingAgent, daemon: Daemon, stall_s: float
) -> tuple[Cost, float, float]:
    """Let an agent sleep within a call. Return what it cost, how old the oldest audio was that it
    heard where the call went on, and how much it heard of the connection that had ended meanwhile.
    """
    talk_s = 3.0
    async with daemon.call() as call:
        began = time.monotonic()
        playing = asyncio.create_task(call.play(_numbered(int((stall_s + 2 * talk_s) / _PTIME_S))))
        await asyncio.sleep(talk_s)
        known = len(agent.audio)
        agent.reads.clear()
        await daemon.event("agent_slow", call, timeout_s=10)
        await asyncio.sleep(1)
        sent = int((time.monotonic() - began) / _PTIME_S)
        cost = await _cost(daemon, agent, sent)
        await asyncio.sleep(began + talk_s + stall_s - time.monotonic())
        agent.reads.set()
        await playing
        await asyncio.sleep(0.1)
        assert [event.data for event in daemon.events("agent_lost", call)] == [{"code": 1006}]
    heard = [got for got in agent.audio[known:] if got.number >= 0]
    newest = max(got.connection for got in heard)
    assert newest > 0
    ages = [got.at - began - _PTIME_S * got.number for got in heard if got.connection == newest]
    assert len(ages) > 1 / _PTIME_S
    return cost, max(ages), sum(got.connection == 0 for got in heard) * _PTIME_S


@contextlib.asynccontextmanager
async def _on_each_way(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[dict[str, tuple[BlockingAgent, Daemon]]]:
    """Run an agent and a mediad for each way to it, by its name."""
    async with contextlib.AsyncExitStack() as stack:
        started = {}
        for way in ("pump", "tls", "picows"):
            if way == "picows":
                monkeypatch.setattr("mediad.call.registry.open_pump", lambda: None)
            context = _with_agent(way, authority, Settings().ai.ping_s)
            started[way] = await stack.enter_async_context(context)
        yield started


async def test_agent_asleep_for_30_seconds_hears_what_is_said_when_it_wakes(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with _on_each_way(authority, monkeypatch) as started, watch_own_loop() as own:
        slept = await asyncio.gather(*(_sleep_through(*both, 30.0) for both in started.values()))
        stalls_s = own.worst_s()
    for way, (cost, age_s, stale_s) in zip(started, slept, strict=True):
        print(f"{way}: {cost}, oldest {age_s:.2f} s; {stale_s:.2f} s on the connection that ended")
        assert cost.kernel + cost.user < MAX_BYTES
        assert age_s < 5.0 + stalls_s
        assert stale_s <= 4.1 + stalls_s  # two beats: that long mediad could not know


async def _doze(agent: BlockingAgent, daemon: Daemon, stall_s: float) -> tuple[float, float]:
    """Let an agent sleep, but not for so long that its connection is given up. Return how much of
    what it then hears was said over 5 s ago, and how old the oldest audio is after that.
    """
    talk_s = 3.0
    async with daemon.call() as call:
        began = time.monotonic()
        playing = asyncio.create_task(call.play(_numbered(int((stall_s + 2 * talk_s) / _PTIME_S))))
        await asyncio.sleep(talk_s)
        agent.reads.clear()
        await asyncio.sleep(began + talk_s + stall_s - time.monotonic())
        woke = time.monotonic()
        agent.reads.set()
        await playing
        await asyncio.sleep(0.1)
        assert daemon.events("agent_lost", call) == []
    heard = [got for got in agent.audio if got.number >= 0 and got.at >= woke]
    ages = [got.at - began - _PTIME_S * got.number for got in heard]
    stale = sum(age >= 5.0 for age in ages)
    assert len(ages) - stale > 1 / _PTIME_S
    return stale * _PTIME_S, max(ages[stale:])


async def test_agent_asleep_for_9_seconds_hears_4_of_them_and_then_what_is_said(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its kernel had those 4 s before mediad could know: nobody can take them back."""
    async with _on_each_way(authority, monkeypatch) as started, watch_own_loop() as own:
        slept = await asyncio.gather(*(_doze(*both, 9.0) for both in started.values()))
        stalls_s = own.worst_s()
    for way, (stale_s, age_s) in zip(started, slept, strict=True):
        print(f"{way}: {stale_s:.2f} s from before, then {age_s:.2f} s old")
        assert stale_s <= 4.1 + stalls_s
        assert age_s < 1.0 + stalls_s


# Agents that send too much, or nothing


@pytest.mark.parametrize("way", PLAIN, indirect=True)
@pytest.mark.parametrize(
    "frame",
    [
        raw_frame(b"", opcode=9),
        raw_frame(b"nobody asked", opcode=10),
        raw_frame(frames.encode_json("{}")),
        raw_frame(b"\xff\xff garbage"),
        raw_frame(b"text", opcode=1),
        raw_frame(b"", fin=False),
    ],
    ids=["pings", "pongs", "messages", "nonsense", "texts", "fragments"],
)
async def test_flood_of_anything_but_audio_ends_the_connection(way: str, frame: bytes) -> None:
    ended = asyncio.Event()

    async def script(raw: RawConnection) -> None:
        raw.writer.write(raw.response)
        with contextlib.suppress(ConnectionError):
            while True:
                raw.writer.write(frame * 100)
                await raw.writer.drain()
                await asyncio.sleep(0)
        ended.set()

    async with raw_agent(script) as url, running(settings(url)) as daemon:
        async with daemon.call() as call:
            await daemon.event("agent_lost", call)
            await asyncio.wait_for(ended.wait(), 5)
            assert await daemon.metric(BAD, reason="flood") >= 1
            await call.hears(5)


@pytest.mark.parametrize("way", PLAIN, indirect=True)
async def test_many_messages_at_once_are_no_flood(way: str) -> None:
    async def script(agent: AgentConnection) -> None:
        for number in range(300):
            await agent.tell("bot-tts-text", text=f"word {number}")
        await agent.tell("user-transcription", text="the end", final=True)

    async with FakeAgent(script) as agent, running(settings(agent.url)) as daemon:
        async with daemon.call() as call:
            await daemon.event("transcript_created", call)
            assert await daemon.metric(BAD, reason="flood") == 0


@pytest.mark.parametrize("way", PLAIN, indirect=True)
async def test_flood_of_audio_is_refused_beyond_what_is_held(way: str) -> None:
    async def script(agent: AgentConnection) -> None:
        minute = tone(440, 10.0, 8000)
        for _ in range(50):
            await agent.say(minute, 8000)
        done.set()

    done = asyncio.Event()
    async with FakeAgent(script) as agent, running(settings(agent.url)) as daemon:
        async with daemon.call() as call:
            await asyncio.wait_for(done.wait(), 10)
            await call.hears_words()
            call.close()
            counters = (await daemon.event("call_hungup", call)).data["counters"]
            assert counters["refused_bytes"] > 400 * 16_000


async def test_agent_that_sends_nothing_keeps_its_call(way: str, authority: Authority) -> None:
    async with _with_agent(way, authority, 0.05) as (agent, daemon), daemon.call() as call:
        await daemon.metric_reaches(10, "mediad_agent_round_trip_seconds_count")
        await call.hears(5)
        assert daemon.events("agent_lost") == []
        call.close()
        assert await daemon.hung_up(call) == ("caller", "normal_clearing")


# Agents that leave within the handshake

Part = Callable[[bytes], bytes]
RESPONSE_ENDS: list[tuple[str, Part, str]] = [
    ("before the answer", lambda response: b"", "closed"),
    ("within the status line", lambda response: response[:9], "closed"),
    ("within the headers", lambda response: response[:60], "closed"),
    ("before the last byte", lambda response: response[:-1], "closed"),
    (
        "with a wrong key",
        lambda response: response.replace(b"Accept: ", b"Accept: x"),
        "bad_handshake",
    ),
    ("with another protocol", lambda response: b"SSH-2.0-OpenSSH\r\n\r\n", "bad_handshake"),
    ("with no status", lambda response: b"HTTP/1.1 what\r\n\r\n", "bad_handshake"),
]


@pytest.mark.parametrize(
    ("part", "outcome"),
    [(part, outcome) for _, part, outcome in RESPONSE_ENDS],
    ids=[name for name, _, _ in RESPONSE_ENDS],
)
async def test_agent_that_leaves_within_the_handshake_is_counted(part: Part, outcome: str) -> None:
    async def script(raw: RawConnection) -> None:
        raw.writer.write(part(raw.response))
        await raw.writer.drain()

    async with raw_agent(script) as url:
        async with running(settings(url, ai={"connect_timeout_s": 0.4})) as daemon:
            async with daemon.call() as call:
                await call.hung_up()
                assert await daemon.hung_up(call) == ("system", "destination_out_of_order")
            assert await daemon.metric(CONNECTS, outcome=outcome) >= 1
            assert await daemon.metric(CONNECTS, outcome="open") == 0


async def test_agent_that_leaves_before_the_request_is_counted() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with running(settings(url, ai={"connect_timeout_s": 0.4})) as daemon:
        async with daemon.call() as call:
            await call.hung_up()
        assert await daemon.metric(CONNECTS, outcome="closed") >= 1
    server.close()


@pytest.mark.parametrize("way", PLAIN, indirect=True)
@pytest.mark.parametrize("after", [b"", b"\x82", b"\x82\x7e\x01", b"\x82\x05abc"])
async def test_agent_that_leaves_within_its_first_frame_is_lost(way: str, after: bytes) -> None:
    async def script(raw: RawConnection) -> None:
        raw.writer.write(raw.response + after)
        await raw.writer.drain()

    async with raw_agent(script) as url:
        async with running(settings(url, ai={"connect_timeout_s": 0.4})) as daemon:
            async with daemon.call() as call:
                assert (await daemon.event("agent_lost", call)).data == {"code": 1006}
                await call.hung_up()
            assert await daemon.metric("mediad_agent_closes_total", code="1006") >= 1
