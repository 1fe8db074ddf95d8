"""The pump's own edges: bytes cut anywhere, sockets that do not take all, ends, and what stays."""

import asyncio
import contextlib
import errno
import gc
import itertools
import os
import pathlib
import socket
import struct
import types
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

import mediad
from mediad.line import CallerItem, Line
from mediad.media.playout import PlayoutEvent, Started
from mediad.pump import HAS_PUMP, Path, Pump, open_pump
from mediad.wire import frames
from mediad.wire.audiosocket import Digit, HangUp, Kind, audio_message, digit_message
from tests.fakes.agent import (
    AgentConnection,
    FakeAgent,
    RawConnection,
    dial_in,
    echo,
    raw_agent,
    raw_frame,
)
from tests.fakes.asterisk import AsteriskCall
from tests.integration.certificates import Authority
from tests.integration.daemon import Daemon, eventually, running, settings
from tests.unit.line.lines import new_line

pytestmark = pytest.mark.skipif(not HAS_PUMP, reason="the compiled pump is missing")

BINARY, CLOSE, PING, PONG = 2, 8, 9, 10
SLIN = {"codec": "slin"}
VOICE = audio_message(Kind.SLIN, b"\x10\x20" * 160)
SPEECH = raw_frame(frames.encode_audio(b"\x10\x20" * 320, 16_000))
JSON = raw_frame(frames.encode_json("{}"))


class Owner:
    """A path's call and both sockets' owner, which takes note."""

    def __init__(self) -> None:
        self.items: list[CallerItem] = []
        self.events: list[PlayoutEvent] = []
        self.frames: list[tuple[int, bool, bytes]] = []
        self.ends: list[int | None] = []
        self.violations: list[int] = []
        self.ticks = self.dropped = self.withheld = self.failures = 0
        self.on_frame: Callable[[], None] = lambda: None
        self.releases: list[Callable[[], bytes]] = []

    def receive(self, items: list[CallerItem]) -> None:
        self.items += items

    def tick(self, now: float) -> None:
        self.ticks += 1

    def on_playout(self, events: list[PlayoutEvent], now: float) -> None:
        self.events += events

    def fail(self) -> None:
        self.failures += 1

    def on_path_end(self, error: int | None = None) -> None:
        self.ends.append(error)
        for release in self.releases:
            release()

    def drop_audio(self) -> None:
        self.dropped += 1

    def take_frame(self, opcode: int, fin: bool, payload: bytes) -> None:
        self.frames.append((opcode, fin, payload))
        self.on_frame()

    def on_path_violation(self, code: int) -> None:
        self.violations.append(code)

    def withhold_audio(self) -> None:
        self.withheld += 1


class Rig:
    """A path between two TCP connections, whose other ends are the test's."""

    def __init__(self, pump: Pump, masks: bool = True) -> None:
        self.owner = Owner()
        self.line: Line = new_line(Line)
        self.path = Path(pump, self.line, self.owner)
        self.caller, self._caller = tcp_pair()
        self.agent, self._agent = tcp_pair()
        assert self.path.take_caller(self._caller.fileno(), self.owner)
        assert self.path.take_agent(self._agent.fileno(), masks, self.owner)

    def close(self) -> None:
        self.path.close()
        for sock in (self.caller, self._caller, self.agent, self._agent):
            sock.close()

    def reset(self, sock: socket.socket) -> None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Return two ends of a connection behind which the kernel buffers little."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        near = socket.create_connection(server.getsockname())
        far, _ = server.accept()
    for sock in (near, far):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2048)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
    return far, near


@pytest.fixture
async def pump() -> AsyncIterator[Pump]:
    """A pump on the test's loop."""
    made = open_pump()
    assert made is not None
    yield made
    made.close()


@pytest.fixture
async def rig(pump: Pump) -> AsyncIterator[Rig]:
    """A path."""
    made = Rig(pump)
    yield made
    made.close()


async def pumped() -> None:
    """Let the pump read what has been sent."""
    for _ in range(4):
        await asyncio.sleep(0)


async def received(sock: socket.socket) -> bytes:
    """Read until nothing more comes for a while: twice, for once may be this process's own."""
    loop = asyncio.get_running_loop()
    data = b""
    quiet = 0
    while quiet < 2:
        try:
            async with asyncio.timeout(0.05):
                data += await loop.sock_recv(sock, 1 << 20)
            quiet = 0
        except TimeoutError:
            quiet += 1
    return data


def unmasked(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Cut what a client sent into opcodes and payloads."""
    while data:
        assert data[0] & 0xF0 == 0x80
        assert data[1] & 0x80
        size, at = data[1] & 0x7F, 2
        if size == 126:
            size, at = int.from_bytes(data[2:4], "big"), 4
        mask = data[at : at + 4]
        payload = bytes(a ^ b for a, b in zip(data[at + 4 :][:size], itertools.cycle(mask)))
        assert len(payload) == size
        yield data[0] & 0x0F, payload
        data = data[at + 4 + size :]


def masked(frame: bytes) -> bytes:
    """Mask a server's frame as a client does."""
    at = 4 if frame[1] == 126 else 2
    key = b"\x01\x02\x03\x04"
    payload = bytes(a ^ b for a, b in zip(frame[at:], itertools.cycle(key)))
    return frame[:1] + bytes([frame[1] | 0x80]) + frame[2:at] + key + payload


# Cut anywhere


@pytest.mark.parametrize("from_client", [False, True])
async def test_agent_frames_may_be_cut_at_every_byte(pump: Pump, from_client: bool) -> None:
    parts = [SPEECH, raw_frame(b"hi", PING), raw_frame(b"a", BINARY, fin=False), JSON, SPEECH]
    data = b"".join(map(masked, parts) if from_client else parts)
    rig = Rig(pump, masks=not from_client)
    rig.path.plays_audio = True
    expected = [(PING, True, b"hi"), (BINARY, False, b"a"), (BINARY, True, JSON[2:])]
    for cut in range(1, len(data)):
        rig.owner.frames.clear()
        before = rig.line.counters().agent_frames
        rig.agent.send(data[:cut])
        await pumped()
        rig.agent.send(data[cut:])
        await pumped()
        assert rig.owner.frames == expected, cut
        assert rig.line.counters().agent_frames == before + 2
        rig.line.flush()
    assert rig.owner.violations == []
    rig.close()


async def test_caller_messages_may_be_cut_at_every_byte(rig: Rig) -> None:
    data = VOICE + digit_message("5") + VOICE
    rig.path.sends_audio = True
    reference = new_line(Line)
    for cut in range(1, len(data)):
        rig.caller.send(data[:cut])
        await pumped()
        rig.caller.send(data[cut:])
        await pumped()
        sent = list(unmasked(rig.agent.recv(1 << 16)))
        heard = [item for item in reference.receive_caller(data, 0.0) if isinstance(item, bytes)]
        assert sent == [(BINARY, frame) for frame in heard], cut
    assert rig.owner.items == [Digit("5")] * (len(data) - 1)


async def test_masks_differ(rig: Rig) -> None:
    for _ in range(20):
        rig.path.send(PING, b"same")
    data = await received(rig.agent)
    assert list(unmasked(data)) == [(PING, b"same")] * 20
    assert len({data[at + 2 : at + 6] for at in range(0, len(data), 10)}) == 20


async def test_server_does_not_mask(pump: Pump) -> None:
    rig = Rig(pump, masks=False)
    rig.path.send(BINARY, bytes(200))
    assert await received(rig.agent) == raw_frame(bytes(200))
    rig.close()


async def test_message_of_a_megabyte_comes_whole(rig: Rig) -> None:
    message = os.urandom(1 << 20)
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(20):
        await loop.sock_sendall(rig.agent, raw_frame(message) + JSON)
        await eventually(lambda: len(rig.owner.frames) == 2)
    assert rig.owner.frames[0] == (BINARY, True, message)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x83\x00", 1002),  # an unknown opcode
        (b"\xc2\x00", 1002),  # a reserved bit
        (b"\x82\x80\0\0\0\0", 1002),  # masked by a server
        (b"\x09\x00", 1002),  # a fragmented ping
        (b"\x89\x7e\x00\x7e", 1002),  # a long ping
        (b"\x82\x7e\x00\x01", 1002),  # a size longer than it need be
        (b"\x82\x7f" + bytes(6) + b"\xff\xff", 1002),
        (b"\x82\xff" + b"\xff" * 8, 1002),
        (b"\x82\x7f" + b"\xff" * 8, 1002),
        (b"\x82\x7f" + bytes(5) + b"\x10\x00\x01", 1009),
    ],
)
async def test_broken_frames_are_found_behind_good_ones(rig: Rig, data: bytes, code: int) -> None:
    rig.agent.send(JSON + data)
    await pumped()
    assert rig.owner.frames == [(BINARY, True, JSON[2:])]
    assert rig.owner.violations == [code]


async def test_audio_that_cannot_be_played_is_looked_at(rig: Rig) -> None:
    rig.path.plays_audio = True
    odd_rate = frames.encode_audio(bytes(640), 12_345)
    rig.agent.send(raw_frame(odd_rate))
    await pumped()
    assert rig.owner.frames == [(BINARY, True, odd_rate)]
    assert rig.line.counters().bad_frames == 0  # not yet


# Sockets that do not take all


async def test_caller_that_does_not_read_gets_whole_messages(pump: Pump) -> None:
    rig = Rig(pump)
    rig.caller.send(audio_message(Kind.SLIN192, bytes(7680)))  # so that as much comes back
    await pumped()
    for number in range(2000):
        rig.path.tick(number * 0.02)
        if rig.owner.dropped > 20:
            break
    assert rig.owner.dropped > 20
    data = await received(rig.caller)
    rig.path.tick(99.0)
    data += await received(rig.caller)
    message = audio_message(Kind.SLIN192, bytes(7680))
    assert data == message * (number + 2 - rig.owner.dropped)
    rig.close()


async def test_rest_of_a_message_is_given_back_with_the_socket(pump: Pump) -> None:
    rig = Rig(pump)
    rig.caller.send(audio_message(Kind.SLIN192, bytes(7680)))
    await pumped()
    while not rig.owner.dropped:
        rig.path.tick(0.0)
    rest = rig.path.release_caller()
    data = await received(rig.caller) + rest
    assert 0 < len(rest) < 7683
    assert len(data) % 7683 == 0
    rig.close()


async def test_agent_that_does_not_read_gets_control_later_and_audio_not(rig: Rig) -> None:
    rig.path.sends_audio = True
    while not rig.owner.withheld:
        rig.caller.send(VOICE)
        await pumped()
    for number in range(50):
        rig.path.send(PONG, b"%d" % number)
    assert 0 < rig.path.unsent < 2000
    rig.caller.send(VOICE)
    await pumped()
    assert rig.owner.withheld == 2
    sent = list(unmasked(await received(rig.agent)))
    assert rig.path.unsent == 0
    controls = [payload for opcode, payload in sent if opcode == PONG]
    assert controls == [b"%d" % number for number in range(50)]
    assert sent[-50:] == [(PONG, payload) for payload in controls]
    rig.caller.send(VOICE)
    await pumped()
    assert [opcode for opcode, _ in unmasked(await received(rig.agent))] == [BINARY]


# Ends


@pytest.mark.parametrize("side", ["caller", "agent"])
async def test_end_of_a_stream_is_told_behind_its_last_bytes(rig: Rig, side: str) -> None:
    sock: socket.socket = getattr(rig, side)
    rig.owner.releases = [rig.path.release_caller, rig.path.release_agent]
    sock.send(VOICE if side == "caller" else JSON)
    sock.shutdown(socket.SHUT_WR)
    await pumped()
    assert rig.owner.ends == [0 if side == "caller" else None]
    assert rig.owner.frames or rig.owner.items


@pytest.mark.parametrize("ticks", [0, 3])
async def test_reset_is_told_with_its_error(rig: Rig, ticks: int) -> None:
    rig.reset(rig.caller)
    for _ in range(ticks):  # a send meets it first
        rig.path.tick(0.0)
    await pumped()
    assert rig.owner.ends[0] in (errno.ECONNRESET, errno.EPIPE)


async def test_socket_that_took_a_closed_ones_number_is_left_alone(pump: Pump) -> None:
    rig = Rig(pump)
    number = rig._caller.fileno()
    rig.caller.send(VOICE)  # unread when the socket goes
    rig.path.release_caller()
    rig._caller.close()
    near, far = socket.socketpair()
    if far.fileno() != number:
        os.dup2(far.fileno(), number)
        far.close()
        far = socket.socket(fileno=number)
    near.send(VOICE)
    await pumped()
    assert far.recv(1000) == VOICE
    assert rig.line.counters().caller_messages == 0
    assert rig.owner.ends == []
    near.close()
    far.close()
    rig.close()


async def test_path_may_end_within_its_own_callback(rig: Rig) -> None:
    rig.owner.on_frame = rig.path.close
    rig.agent.send(JSON * 3 + SPEECH[:100])
    rig.caller.send(VOICE)
    await pumped()
    assert len(rig.owner.frames) == 1
    rig.path.tick(0.0)
    assert rig.path.is_closed
    assert not rig.path.take_agent(rig.agent.fileno(), True, rig.owner)


async def test_callback_that_raises_ends_its_call_alone(
    pump: Pump, rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    def fall() -> None:
        raise RuntimeError("on purpose")

    other = Rig(pump)
    rig.owner.on_frame = fall
    rig.agent.send(JSON)
    other.agent.send(JSON)
    await pumped()
    assert rig.owner.failures == 1
    assert "that call ends" in caplog.text
    assert (len(other.owner.frames), other.owner.failures) == (1, 0)
    other.close()


async def test_caller_is_not_read_behind_its_end(rig: Rig) -> None:
    rig.caller.send(b"\x00\x00\x00" + VOICE)
    await pumped()
    rig.caller.send(VOICE)
    await pumped()
    assert rig.owner.items == [HangUp()]


# Ticks


async def test_call_is_asked_for_ticks_when_it_wants_them(rig: Rig) -> None:
    rig.path.tick(0.0)
    rig.path.asks_call = True
    rig.path.tick(0.02)
    rig.path.asks_call = False
    rig.path.release_caller()
    rig.path.tick(0.04)
    assert rig.owner.ticks == 2
    assert len(await received(rig.caller)) == 323


async def test_call_hears_what_is_played_and_agent_of_silence(rig: Rig) -> None:
    rig.path.plays_audio = rig.path.sends_audio = True
    rig.agent.send(SPEECH * 5)
    await pumped()
    for number in range(10):
        rig.path.tick(1e6 + number * 0.02)  # long after the caller's last audio
    assert isinstance(rig.owner.events[0], Started)
    assert {opcode for opcode, _ in unmasked(await received(rig.agent))} == {BINARY}


# Many calls


async def test_many_paths_are_looked_at_on_a_grid(pump: Pump) -> None:
    rigs = [Rig(pump) for _ in range(70)]
    for left in (rigs, rigs[:40], rigs[:5]):  # on the grid, still on it, and off
        for rig in left:
            rig.agent.send(JSON)
        await eventually(lambda: all(rig.owner.frames for rig in left))  # noqa: B023
        for rig in left:
            rig.owner.frames.clear()
        for rig in rigs[40 if left is rigs else 5 :]:
            rig.close()
    for rig in rigs[:5]:
        rig.close()


# In the daemon


def paths() -> list[Path]:
    """Return all paths that are open."""
    return [found for found in gc.get_objects() if type(found) is Path and not found.is_closed]


async def test_sockets_of_a_call_come_to_the_pump() -> None:
    async with FakeAgent(echo) as agent, running(settings(agent.url, audiosocket=SLIN)) as daemon:
        async with daemon.call() as call:
            await eventually(
                lambda: [(p.has_caller, p.has_agent) for p in paths()] == [(True,) * 2]
            )
            await call.play([VOICE] * 10)
            await call.hears_words()
        await daemon.hung_up(call)
        await eventually(lambda: not paths())


async def test_agent_that_dials_in_comes_to_the_pump() -> None:
    async with running(settings(audiosocket=SLIN)) as daemon, daemon.call() as call:
        token = (await daemon.event("agent_awaited", call)).data["agent_token"]
        assert daemon.app.dial_in_address is not None
        async with dial_in(daemon.app.dial_in_address, token) as agent:
            await eventually(lambda: [path.has_agent for path in paths()] == [True])
            await agent.say(b"\x10\x20" * 1600)
            await call.hears_words()
            await call.play([VOICE] * 3)
            await agent.until(lambda agent: any(map(any, (heard.pcm for heard in agent.audio))))


async def moved(raw: RawConnection) -> None:
    """Accept the WebSocket, and wait until it is on its path."""
    raw.writer.write(raw.response)
    ping = await raw.reader.readexactly(10)
    assert ping[0] == 0x80 | PING
    (_, payload), *_ = unmasked(ping)
    raw.writer.write(raw_frame(payload, PONG))
    await eventually(lambda: [path.has_agent for path in paths()] == [True])


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x83\x00", 1006),
        (b"\x82\xff" + b"\xff" * 8, 1006),
        (b"\x88\x01\x03", 1006),
        (b"\x88\x02\x00\x01", 1006),
        (b"\x88\x03\x03\xe8\xff", 1006),
        (raw_frame(struct.pack("!H", 1012), CLOSE), 1012),
        (raw_frame(b"", CLOSE), 1005),
        (b"", 1006),
    ],
)
async def test_connection_ends_on_the_path_as_it_does_before(data: bytes, code: int) -> None:
    async def script(raw: RawConnection) -> None:
        await moved(raw)
        raw.writer.write(data)
        if data:
            answers.append(await raw.reader.read())

    answers: list[bytes] = []
    async with raw_agent(script) as url, running(settings(url)) as daemon:
        async with daemon.call() as call:
            assert (await daemon.event("agent_lost", call)).data["code"] == code
    assert all(b"\x88\x82" in answer for answer in answers)  # a close frame


async def test_ping_is_answered_and_text_counted_on_the_path() -> None:
    async def script(raw: RawConnection) -> None:
        await moved(raw)
        raw.writer.write(raw_frame(b"no", 1) + raw_frame(b"knock", PING) + SPEECH)
        data = b""
        async with asyncio.timeout(5):
            while (PONG, b"knock") not in [*whole(data)]:
                data += await raw.reader.read(1 << 16)
        done.set()
        await raw.reader.read()

    def whole(data: bytes) -> Iterator[tuple[int, bytes]]:
        with contextlib.suppress(AssertionError, IndexError):
            yield from unmasked(data)

    done = asyncio.Event()
    async with raw_agent(script) as url, running(settings(url)) as daemon:
        async with daemon.call() as call:
            await call.hears_words()
            await asyncio.wait_for(done.wait(), 5)
            assert await daemon.metric("mediad_agent_bad_frames_total", reason="text") == 1


OUR_FILES = str(pathlib.Path(mediad.__file__).parent)
RUNS = (types.CoroutineType, types.GeneratorType)
WAYS_TO_LEAVE = ("caller", "reset", "agent")


async def leave(call: AsteriskCall, agent: AgentConnection, way: str) -> None:
    """End a call."""
    if way == "agent":
        await agent.close(1000)
    elif way == "reset":
        call.close_with_reset()
    else:
        call.close()


async def short_call(daemon: Daemon, agent: FakeAgent, way: str) -> None:
    """Make a call that hears its echo."""
    async with daemon.call() as call:
        await call.play([VOICE] * 10)
        await eventually(lambda: bool(call.words))  # some may have come before
        (connection,) = [c for c in agent.connections if c.call_id == str(call.call_id)]
        await leave(call, connection, way)
        await daemon.hung_up(call)


def is_ours(left: object) -> bool:
    """Whether it is an object of mediad's classes, or one of its functions."""
    return str(getattr(left, "__module__", "")).partition(".")[0] == "mediad"


def runs() -> int:
    """Count mediad's coroutines and generators: the collector ends those that it finds in a cycle,
    and does not show them.
    """
    alive = [found for found in gc.get_objects() if isinstance(found, RUNS)]
    codes = [getattr(run, "cr_code", getattr(run, "gi_code", None)) for run in alive]
    return sum(code is not None and code.co_filename.startswith(OUR_FILES) for code in codes)


@pytest.mark.parametrize("is_tls", [False, True])
async def test_200_calls_leave_nothing_to_the_garbage_collector(
    is_tls: bool, tmp_path: pathlib.Path
) -> None:
    def goodbye(agent: AgentConnection) -> bool:
        return len(agent.audio) > 15 or agent.closed_at > 0

    async def talk(agent: AgentConnection) -> None:
        task = asyncio.get_running_loop().create_task(echo(agent))
        await agent.until(goodbye)
        task.cancel()

    authority = Authority(tmp_path / "authority") if is_tls else None
    tls = authority.issue().server() if authority else None
    ai = {"ca_file": authority.certificate} if authority else {}
    ways = itertools.cycle(WAYS_TO_LEAVE)
    async with (
        FakeAgent(talk, tls=tls) as agent,
        running(settings(agent.url, audiosocket=SLIN, ai=ai)) as daemon,
    ):
        await short_call(daemon, agent, next(ways))
        gc.collect()
        gc.disable()
        gc.set_debug(gc.DEBUG_SAVEALL)
        before = runs()
        try:
            for _ in range(10):
                await asyncio.gather(*(short_call(daemon, agent, next(ways)) for _ in range(20)))
            await eventually(lambda: not paths())
            await eventually(lambda: runs() <= before)
            gc.collect()
            ours = [
                (type(left), getattr(left, "__qualname__", ""))
                for left in gc.garbage
                if is_ours(left)
            ]
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
    assert not ours
