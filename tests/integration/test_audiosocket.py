"""The AudioSocket listener on real sockets: how calls begin and end, and what a peer may do."""

import asyncio
import ipaddress
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

import pytest

from mediad.media import g711
from mediad.transport.proxy_protocol import SIGNATURE
from mediad.wire.audiosocket import HANGUP, Kind, audio_message, digit_message, uuid_message
from tests.fakes.agent import AgentConnection, FakeAgent, Script, echo, listen
from tests.fakes.asterisk import SILENCE, AsteriskCall, expect_eof
from tests.integration.daemon import Daemon, eventually, running, settings
from tests.own_stalls import watch_own_loop
from tests.sound import measure_tone, tone

CLOSED = "mediad_audiosocket_connections_closed_total"


@asynccontextmanager
async def daemon_with(
    script: Script = listen, **audiosocket: object
) -> AsyncIterator[tuple[Daemon, FakeAgent]]:
    """Run mediad and an agent."""
    async with FakeAgent(script) as agent:
        async with running(settings(agent.url, audiosocket=audiosocket)) as daemon:
            yield daemon, agent


# How a connection ends that is no call


@pytest.mark.parametrize(
    ("sent", "reason"), [(b"", "empty"), (b"\x01\x00\x10half of a UUI", "no_uuid")]
)
async def test_eof_before_the_uuid_is_no_call(sent: bytes, reason: str) -> None:
    async with daemon_with() as (daemon, _):
        async with daemon.call(sends_uuid=False) as call:
            call.send(sent)
            call.close()
            await call.closed()
        await daemon.metric_reaches(1, CLOSED, reason=reason)
        assert await daemon.metric(CLOSED) == 1
        assert await daemon.metric("mediad_calls_started_total") == 0
        assert daemon.seen == []


@pytest.mark.parametrize("sent", [b"", b"\x01\x00\x10half"])
async def test_connection_without_uuid_is_closed_in_time(sent: bytes) -> None:
    async with daemon_with(uuid_timeout_s=0.2) as (daemon, _):
        async with daemon.call(sends_uuid=False) as call:
            call.send(sent)
            await call.closed(4)  # by itself it takes 5
            assert call.heard == []
        assert await daemon.metric(CLOSED, reason="uuid_timeout") == 1
        assert await daemon.metric(CLOSED) == 1


async def test_uuid_in_single_bytes_starts_a_call() -> None:
    async with daemon_with() as (daemon, _), daemon.call(sends_uuid=False) as call:
        for byte in uuid_message(call.call_id):
            call.send(bytes([byte]))
            await asyncio.sleep(0.001)
        assert (await daemon.event("call_created", call)).data["status"] == "in-progress"
        await call.hears(2)


# How a call ends


async def test_eof_hangs_up() -> None:
    async with daemon_with() as (daemon, agent):
        async with daemon.call() as call:
            connection = await agent.connection()
            call.close()
            assert await daemon.hung_up(call) == ("caller", "normal_clearing")
            await connection.until(lambda agent: agent.closed_at > 0)
            assert connection.ws.close_code == 1000
        assert daemon.app.calls.live == 0


async def test_truncated_last_message_is_a_normal_hang_up() -> None:
    async with daemon_with() as (daemon, _), daemon.call() as call:
        await call.hears(1)
        call.send(SILENCE + SILENCE[:100])
        call.close()
        assert await daemon.hung_up(call) == ("caller", "normal_clearing")
        assert daemon.events("call_hungup")[0].data["counters"]["caller_messages"] == 1
        assert await daemon.metric(CLOSED) == 0


async def test_half_closed_connection_is_a_hang_up() -> None:
    async with daemon_with() as (daemon, _), daemon.call() as call:
        await call.hears(1)
        call.transport.pause_reading()
        call.transport.write_eof()
        assert await daemon.hung_up(call) == ("caller", "normal_clearing")


async def test_reset_ends_only_its_call() -> None:
    async with daemon_with() as (daemon, _), daemon.call() as other, daemon.call() as call:
        await call.hears(1)
        call.close_with_reset()  # as Asterisk's does that closes with our frames unread
        assert await daemon.hung_up(call) == ("caller", "normal_clearing")
        await other.hears(3)
        assert not daemon.events("call_hungup", other)


@pytest.mark.parametrize("hangup", [b"\x00", HANGUP, b"\xff\x00\x01\x02"])
async def test_peer_that_says_it_hangs_up_is_closed(hangup: bytes) -> None:
    async with daemon_with() as (daemon, _), daemon.call() as call:
        await call.hears(1)
        call.send(hangup)
        by, _ = await daemon.hung_up(call)
        assert by == "caller"
        await call.closed()


async def test_longest_call_is_hung_up() -> None:
    async with daemon_with(max_call_s=0.4) as (daemon, _), daemon.call() as call:
        hangup = await call.hung_up()
        assert hangup.at - call.started_at > 0.39
        assert await daemon.hung_up(call) == ("system", "recovery_on_timer_expiry")


async def test_hangup_leaves_after_the_last_20_ms() -> None:
    words = tone(440, 0.5, 8000)

    async def script(agent: AgentConnection) -> None:
        await agent.say(words, 8000)
        await agent.close(1000)

    async with daemon_with(script) as (daemon, _), daemon.call() as call:
        hangup = await call.hung_up()
        assert call.words == words
        last = [message for message in call.heard if message.is_audible][-1]
        # A tick has passed since: at least one message, or its time.
        assert call.heard[-2] is not last or hangup.at - last.at > 0.015
        assert await daemon.hung_up(call) == ("agent", "normal_clearing")
        assert daemon.events("call_hungup")[0].data["counters"]["underruns"] == 0


# Holes and bursts


async def test_hole_becomes_counted_silence_and_a_burst_is_forwarded_at_once() -> None:
    async with daemon_with(codec="slin") as (daemon, agent), watch_own_loop() as own:
        async with daemon.call() as call:
            connection = await agent.connection()
            loud = audio_message(Kind.SLIN, b"\x10\x20" * 160)
            last_at = time.monotonic()
            call.send(loud * 10)
            await connection.until(lambda agent: len(agent.audio) >= 10)
            await asyncio.sleep(0.5)
            fill = connection.audio[10:]
            lasted_s = time.monotonic() - last_at
            assert all(received.pcm == bytes(640) for received in fill)
            assert fill[0].at - last_at > 0.055  # 60 ms, less what a tick may be early
            ticks = (lasted_s - 0.06) / 0.02
            skipped = own.total_s(last_at) / 0.02
            assert 0.55 * (ticks - skipped) - 1 <= len(fill) <= ticks + 2  # one each
            sent_at = time.monotonic()
            call.send(loud * 10)
            await connection.until(lambda agent: sum(any(r.pcm) for r in agent.audio) >= 20)
            burst = [received for received in connection.audio[10:] if any(received.pcm)]
            assert burst[-1].at - burst[0].at < 0.1 + own.total_s(sent_at)  # 200 ms of audio
            call.close()
            await daemon.hung_up(call)
        counters = daemon.events("call_hungup")[0].data["counters"]
        assert counters["caller_messages"] == 20
        assert counters["agent_fill_frames"] >= len(fill)
        assert await daemon.metric("mediad_agent_fill_frames_total") >= len(fill)


async def test_quiet_alone_ends_no_call() -> None:
    async with daemon_with(dead_peer_s=1) as (daemon, agent), daemon.call() as call:
        connection = await agent.connection()
        await call.hears(120)
        assert not call.is_closed
        assert not any(call.pcm)
        await connection.until(lambda agent: len(agent.audio) > 80)


# Limits


async def test_calls_over_the_limit_get_hangup_at_once() -> None:
    async with daemon_with(max_calls=1) as (daemon, _), daemon.call() as first:
        await first.hears(1)
        async with daemon.call(sends_uuid=False) as second:
            await second.hung_up()
            assert second.audio == []
            await second.closed()
        assert await daemon.metric(CLOSED, reason="max_calls") == 1
        assert (await daemon.get("/readyz"))[0] == 503
        await first.hears(3)
        first.close()
        await daemon.hung_up(first)
        async with daemon.call() as third:
            await third.hears(1)


async def test_limit_holds_for_connections_that_came_before_it_was_reached() -> None:
    async with daemon_with(max_calls=1) as (daemon, _), daemon.call(sends_uuid=False) as late:
        async with daemon.call() as first:
            await first.hears(1)
            late.send(uuid_message(late.call_id))
            await late.hung_up()
            await first.hears(3)


async def test_second_connection_with_a_live_uuid_is_refused() -> None:
    async with daemon_with() as (daemon, agent), daemon.call() as first:
        await first.hears(1)
        async with daemon.call(first.call_id) as second:
            await second.hung_up()
            assert second.audio == []
        await first.hears(3)
        assert await daemon.metric(CLOSED, reason="duplicate_uuid") == 1
        assert len(daemon.events("call_created")) == 1
        assert daemon.events("call_hungup") == []
        assert len(agent.connections) == 1


@pytest.mark.parametrize(
    ("garbage", "reason"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "unknown_kind"),
        (b"\x10\x00\x00", "bad_length"),
        (b"\x10\xff\xff", "bad_length"),
        (b"\x12\x00\x03", "bad_length"),
        (b"\x03\x00\x02" + b"12", "bad_length"),
        (b"\x03\x00\x01" + b"x", "bad_digit"),
        (b"\x01\x00\x10" + bytes(16), "second_uuid"),
        (b"\x19\x01\x40", "unknown_kind"),
        (audio_message(0x12, bytes(641)), "bad_length"),
    ],
)
async def test_garbage_closes_its_connection_alone(garbage: bytes, reason: str) -> None:
    async with daemon_with() as (daemon, _), daemon.call() as other, daemon.call() as call:
        await call.hears(1)
        call.send(garbage)
        await call.closed()
        assert await daemon.hung_up(call) == ("system", "protocol_error")
        assert await daemon.metric(CLOSED, reason=reason) == 1
        await other.hears(3)


async def test_connections_without_a_uuid_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mediad.transport.audiosocket.MAX_WAITING", 2)
    async with daemon_with() as (daemon, _), daemon.call() as call:
        async with (
            daemon.call(sends_uuid=False),
            daemon.call(sends_uuid=False),
            daemon.call(sends_uuid=False) as third,
        ):
            await third.hung_up()
            await call.hears(3)
        assert await daemon.metric(CLOSED, reason="max_waiting") == 1


@pytest.mark.parametrize(
    ("garbage", "reason"),
    [(b"\xfe", "unknown_kind"), (SILENCE, "no_uuid"), (b"\x01\x00\x11", "bad_length")],
)
async def test_garbage_in_place_of_the_uuid_is_no_call(garbage: bytes, reason: str) -> None:
    async with daemon_with() as (daemon, _):
        async with daemon.call(sends_uuid=False) as call:
            call.send(garbage)
            await call.closed()
        assert await daemon.metric(CLOSED, reason=reason) == 1
        assert await daemon.metric(CLOSED) == 1
        assert daemon.seen == []


@pytest.mark.parametrize(
    ("allow", "is_allowed"),
    [(["10.0.0.0/8", "::1/128"], False), (["127.0.0.0/8"], True), ("10.0.0.0/8,127.0.0.1", True)],
)
async def test_allow_list(allow: object, is_allowed: bool) -> None:
    async with daemon_with(allow=allow) as (daemon, _), daemon.call() as call:
        if is_allowed:
            await call.hears(1)
            return
        await call.hung_up()
        assert call.audio == []
        assert await daemon.metric(CLOSED, reason="not_allowed") == 1
        assert daemon.seen == []


async def _send_for_ever(writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(SILENCE)
        await writer.drain()
        await asyncio.sleep(0.02)


async def test_who_may_not_connect_cannot_keep_the_connection_open() -> None:
    async with daemon_with(allow=["10.0.0.0/8"]) as (daemon, _):
        reader, writer = await asyncio.open_connection(*daemon.app.audiosocket_address)
        assert await reader.read() == HANGUP
        async with asyncio.timeout(10):
            with pytest.raises(ConnectionError):  # none comes from an end that is half open
                await _send_for_ever(writer)
        writer.close()


async def test_connections_of_one_source_are_limited() -> None:
    async with daemon_with(max_connects_per_s=2, allow=["127.0.0.0/8"]) as (daemon, _):
        began = time.monotonic()
        async with daemon.call() as call:
            await call.hears(1)
            taken = 1
            while True:
                async with daemon.call() as late:
                    await eventually(lambda: late.heard != [])  # noqa: B023
                    if late.has_hangup:
                        assert late.audio == []
                        break
                    taken += 1
            # Four at once, and what has become free meanwhile.
            assert 4 <= taken <= 4 + 2 * (time.monotonic() - began)
            refused = await daemon.metric(CLOSED, reason="source_rate")
            assert refused == 1
            async with daemon.call(sock=_socket_at("127.0.0.9")) as other:
                await other.hears(1)
            await call.hears(3)


def _socket_at(address: str) -> socket.socket:
    """Return a socket that connects from this address of the machine."""
    sock = socket.socket()
    sock.bind((address, 0))
    return sock


# A balancer in front


def _proxy_header(source: str, tlvs: bytes = b"", command: int = 0x21) -> bytes:
    ip = ipaddress.ip_address(source)
    block = ip.packed + ip.packed + struct.pack(">HH", 40000, 9092) + tlvs
    family = 0x11 if ip.version == 4 else 0x21
    return SIGNATURE + struct.pack(">BBH", command, family, len(block)) + block


def _behind_a_proxy(**audiosocket: object) -> dict[str, object]:
    return {"proxy_protocol": "v2", "proxies": ["127.0.0.1/32"], **audiosocket}


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (_proxy_header("10.0.0.7"), None),
        (_proxy_header("10.0.0.7", b"\xea\x00\x05hello"), None),
        (_proxy_header("2001:db8::7"), None),
        (_proxy_header("::ffff:10.0.0.7"), None),
        (_proxy_header("192.0.2.7"), "not_allowed"),
        (_proxy_header("2001:db9::7"), "not_allowed"),
        (_proxy_header("10.0.0.7", command=0x20), "not_allowed"),  # LOCAL: it is 127.0.0.1
    ],
)
async def test_allow_list_judges_whom_the_proxy_tells(header: bytes, reason: str | None) -> None:
    options = _behind_a_proxy(allow=["10.0.0.0/8", "2001:db8::/32"])
    async with daemon_with(listen, **options) as (daemon, _), daemon.call(sends_uuid=False) as call:
        call.send(header + uuid_message(call.call_id))
        if reason is None:
            await call.hears(1)
            return
        await call.hung_up()
        await call.closed()
        assert call.audio == []
        assert await daemon.metric(CLOSED, reason=reason) == 1
        assert daemon.seen == []


async def test_proxy_header_in_single_bytes_loses_nothing() -> None:
    async with daemon_with(listen, **_behind_a_proxy(codec="slin")) as (daemon, agent):
        async with daemon.call(sends_uuid=False) as call:
            for byte in _proxy_header("10.0.0.7") + uuid_message(call.call_id):
                call.send(bytes([byte]))
                await asyncio.sleep(0.001)
            await call.hears(1)
            call.send(audio_message(Kind.SLIN, b"\x10\x20" * 160))
            connection = await agent.connection()
            await connection.until(lambda agent: any(any(r.pcm) for r in agent.audio))


async def test_audio_that_comes_with_the_proxy_header_is_not_lost() -> None:
    async with daemon_with(listen, **_behind_a_proxy(codec="slin")) as (daemon, agent):
        async with daemon.call(sends_uuid=False) as call:
            loud = audio_message(Kind.SLIN, b"\x10\x20" * 160)
            call.send(_proxy_header("10.0.0.7") + uuid_message(call.call_id) + loud + loud)
            connection = await agent.connection()
            await connection.until(lambda agent: sum(any(r.pcm) for r in agent.audio) == 2)


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (uuid_message(UUID(int=1)), "bad_proxy_header"),
        (b"PROXY TCP4 10.0.0.7 10.0.0.1 40000 9092\r\n", "bad_proxy_header"),
        (_proxy_header("10.0.0.7", b"\x01\x00"), "bad_proxy_header"),
        (_proxy_header("10.0.0.7")[:20], "uuid_timeout"),
        (_proxy_header("10.0.0.7"), "uuid_timeout"),
        (_proxy_header("10.0.0.7") + b"\xfe", "unknown_kind"),
    ],
)
async def test_what_is_no_proxy_header_is_closed(sent: bytes, reason: str) -> None:
    uuid_timeout_s = 0.3 if reason == "uuid_timeout" else 5.0
    options = _behind_a_proxy(uuid_timeout_s=uuid_timeout_s)
    async with daemon_with(listen, **options) as (daemon, _):
        async with daemon.call(sends_uuid=False) as call:
            call.send(sent)
            await call.closed(4)  # by itself it takes 5
            assert call.heard == []
        assert await daemon.metric(CLOSED, reason=reason) == 1
        assert await daemon.metric(CLOSED) == 1
        assert daemon.seen == []


@pytest.mark.parametrize("tlvs", [b"", b"\xea\x00\x05hello"])
async def test_check_of_a_balancer_is_no_call_and_nobody_to_judge(
    tlvs: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    options = _behind_a_proxy(allow=["10.0.0.0/8"], max_connects_per_s=0.001)
    async with daemon_with(listen, **options) as (daemon, _):
        for _ in range(3):
            async with daemon.call(sends_uuid=False) as call:
                call.send(SIGNATURE + struct.pack(">BBH", 0x20, 0, len(tlvs)) + tlvs)
                call.close()
                await call.closed()
                assert call.heard == []
        await daemon.metric_reaches(3, CLOSED, reason="empty")
        assert await daemon.metric(CLOSED) == 3
    assert [record for record in caplog.records if record.levelname == "WARNING"] == []


async def test_call_of_the_balancers_own_is_judged_by_its_address() -> None:
    async with daemon_with(listen, **_behind_a_proxy(allow=["10.0.0.0/8"])) as (daemon, _):
        async with daemon.call(sends_uuid=False) as call:
            call.send(SIGNATURE + b"\x20\x00\x00\x00")
            await asyncio.sleep(0.05)  # it comes by itself, and is a check until more comes
            call.send(uuid_message(call.call_id))
            await call.hung_up()
            assert call.audio == []
        assert await daemon.metric(CLOSED, reason="not_allowed") == 1


async def test_who_is_no_proxy_is_not_believed() -> None:
    async with daemon_with(listen, **_behind_a_proxy()) as (daemon, _):
        async with daemon.call(sends_uuid=False, sock=_socket_at("127.0.0.2")) as call:
            await call.hung_up()
            assert await daemon.metric(CLOSED, reason="not_allowed") == 1


async def test_rate_is_of_the_source_and_not_of_the_proxy() -> None:
    async with daemon_with(listen, **_behind_a_proxy(max_connects_per_s=1)) as (daemon, _):
        for number in range(10):
            async with daemon.call(sends_uuid=False) as call:
                call.send(_proxy_header(f"10.0.0.{number}") + uuid_message(call.call_id))
                await call.hears(1)
        began = time.monotonic()
        taken = 0
        while True:
            async with daemon.call(sends_uuid=False) as call:
                call.send(_proxy_header("10.0.1.1") + uuid_message(call.call_id))
                await call.hears(1)
            if call.has_hangup:
                break
            taken += 1
        assert 2 <= taken <= 2 + (time.monotonic() - began)
        assert await daemon.metric(CLOSED, reason="source_rate") == 1


def _narrow_socket() -> socket.socket:
    """Return a socket behind which the kernel buffers little."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
    return sock


async def test_peer_that_does_not_read_costs_little_and_is_found() -> None:
    async with daemon_with(dead_peer_s=1) as (daemon, _):
        async with daemon.call(sock=_narrow_socket()) as call, daemon.call() as other:
            call.transport.pause_reading()
            call.send(audio_message(Kind.SLIN192, bytes(7680)))  # so that as much comes back
            await daemon.metric_reaches(1, "mediad_caller_audio_dropped_frames_total")
            # TCP_USER_TIMEOUT: it neither reads nor closes.
            assert await daemon.hung_up(call) == ("caller", "network_out_of_order")
            await other.hears(3)


async def test_peer_that_does_not_read_can_be_hung_up() -> None:
    async with daemon_with(max_call_s=1.5) as (daemon, _):
        async with daemon.call(sock=_narrow_socket()) as call:
            call.transport.pause_reading()
            call.send(audio_message(Kind.SLIN192, bytes(7680)))
            await daemon.hung_up(call)
            assert daemon.app.calls.live == 0


def _timers(server_port: int, client_port: int) -> Iterator[str]:
    """Return the kernel's timer of the server's end of a connection."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        ports = [int(address.partition(":")[2], 16) for address in fields[1:3]]
        if ports == [server_port, client_port]:
            yield fields[5]


async def test_keepalive_is_on() -> None:
    async with daemon_with(dead_peer_s=20) as (daemon, _), daemon.call(sends_uuid=False) as call:
        port = call.transport.get_extra_info("sockname")[1]
        timers = list(_timers(daemon.app.audiosocket_address[1], port))
        while not timers:  # accepted, but the loop has not set its options yet
            await asyncio.sleep(0.02)
            timers = list(_timers(daemon.app.audiosocket_address[1], port))
        kind, due = timers[0].split(":")
        assert kind == "02"  # keep-alive
        assert int(due, 16) <= 500  # hundredths of a second: the first of 1 + 3 probes within 20 s


# Time zero


async def test_offsets_count_from_the_uuid() -> None:
    async with daemon_with() as (daemon, _), daemon.call(sends_uuid=False) as call:
        await asyncio.sleep(0.3)
        async with watch_own_loop() as own:
            zero = time.monotonic() - 0.001  # offsets are rounded
            call.send(uuid_message(call.call_id))
            assert (await daemon.event("call_created", call)).offset_s < 0.1 + own.total_s()
            read_late_s = 0.05 + own.total_s()
        await asyncio.sleep(0.3)
        before = time.monotonic()
        call.send(digit_message("5"))
        event = await daemon.event("dtmf_received", call)
        assert before - zero - read_late_s <= event.offset_s <= time.monotonic() - zero
        call.close()
        hungup = await daemon.event("call_hungup", call)
        assert hungup.offset_s == pytest.approx(hungup.data["duration_s"], abs=0.01)


async def test_what_comes_with_the_uuid_is_not_lost() -> None:
    async with daemon_with(codec="slin") as (daemon, agent):
        async with daemon.call(sends_uuid=False) as call:
            loud = audio_message(Kind.SLIN, b"\x10\x20" * 160)
            call.send(uuid_message(call.call_id) + loud + digit_message("7") + loud)
            connection = await agent.connection()
            await connection.until(lambda agent: agent.digits == "7")
            await connection.until(lambda agent: sum(any(r.pcm) for r in agent.audio) == 2)
            assert connection.order[:4] == ["client-ready", "audio", "dtmf", "audio"]
            assert [seen.event.type for seen in daemon.seen][:2] == [
                "call_created",
                "dtmf_received",
            ]


async def test_call_that_is_over_with_its_uuid_leaves_nothing() -> None:
    async with daemon_with() as (daemon, _):
        async with daemon.call(sends_uuid=False) as call:
            call.send(uuid_message(call.call_id) + b"\xfe")
            await call.closed()
            assert await daemon.hung_up(call) == ("system", "protocol_error")
        assert [seen.event.type for seen in daemon.seen] == ["call_created", "call_hungup"]
        assert daemon.app.calls.live == 0


# Codecs and lengths


def _encode(codec: str, pcm: bytes) -> bytes:
    encode: dict[str, Callable[[bytes], bytes]] = {
        "slin": bytes,
        "ulaw": g711.encode_ulaw,
        "alaw": g711.encode_alaw,
    }
    return encode[codec](pcm)


async def _send_tone(daemon: Daemon, agent: FakeAgent, codec: str, ptime_ms: int) -> None:
    """Check both ways of one call."""
    data = _encode(codec, tone(1000, 1.2, 8000))
    size = len(data) * ptime_ms // 1200
    messages = [
        audio_message(Kind.SLIN, data[start : start + size])
        for start in range(0, len(data) - size + 1, size)
    ]
    async with daemon.call() as call:
        await call.play(messages, ptime_ms / 1000)
        connection = next(c for c in agent.connections if c.call_id == str(call.call_id))
        await connection.until(lambda agent: len(agent.pcm) >= 2 * 16000 * 1.15)
    to_agent = measure_tone(connection.pcm, 16000)
    assert to_agent.hz == pytest.approx(1000, abs=1)
    assert to_agent.snr_db >= 30
    assert to_agent.seconds > 0.9  # what was held until the codec was known is not lost
    assert {(m.kind, len(m.payload)) for m in call.audio} == {(Kind.SLIN, 320)}
    to_caller = measure_tone(call.pcm, 8000)
    assert to_caller.hz == pytest.approx(1000, abs=1)
    assert to_caller.snr_db >= 30


@pytest.mark.parametrize("codec", ["slin", "ulaw", "alaw"])
async def test_a_tone_passes_both_ways_in_every_message_length(codec: str) -> None:
    async def say_tone(agent: AgentConnection) -> None:
        await agent.say(tone(1000, 1.0, 16000))

    law = "alaw" if codec == "alaw" else "ulaw"
    async with daemon_with(say_tone, g711=law) as (daemon, agent), asyncio.TaskGroup() as group:
        for ptime_ms in (10, 20, 30, 40, 60):
            group.create_task(_send_tone(daemon, agent, codec, ptime_ms))


@pytest.mark.parametrize("kind", [Kind.SLIN12, Kind.SLIN16, Kind.SLIN44, Kind.SLIN48])
async def test_what_goes_back_is_of_the_kind_that_came(kind: Kind) -> None:
    rate = {Kind.SLIN12: 12000, Kind.SLIN16: 16000, Kind.SLIN44: 44100, Kind.SLIN48: 48000}[kind]
    pcm = tone(1000, 1.0, rate)
    size = rate // 50 * 2
    async with daemon_with(echo) as (daemon, agent), daemon.call() as call:
        await call.play(
            [audio_message(kind, pcm[start : start + size]) for start in range(0, len(pcm), size)]
        )
        await eventually(lambda: sum(message.is_audible for message in call.audio) >= 45)
        heard = [message for message in call.audio if message.kind == kind]
        assert {len(message.payload) for message in heard} == {size}
        back = measure_tone(b"".join(message.payload for message in heard), rate)
        assert back.hz == pytest.approx(1000, abs=1)
        assert back.snr_db >= 30
        assert measure_tone((await agent.connection()).pcm, 16000).snr_db >= 30


async def test_bare_tcp_peer_can_be_refused() -> None:
    """The 0x00 is read although the peer has sent what mediad never read."""
    async with daemon_with(max_calls=1) as (daemon, _), daemon.call() as first:
        await first.hears(1)
        with socket.socket() as sock:
            sock.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(sock, daemon.app.audiosocket_address)
            await loop.sock_sendall(sock, uuid_message(AsteriskCall(("", 0)).call_id) + SILENCE)
            assert await loop.sock_recv(sock, 100) == HANGUP
            sock.shutdown(socket.SHUT_WR)
            await expect_eof(sock)
