"""The caller and ``mediad call`` against a small scripted AudioSocket server, on real sockets."""

import asyncio
import json
import signal
import socket
import sys
import time
import wave
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from struct import pack
from uuid import UUID

import numpy as np
import pytest

from mediad.caller import CODECS, CallEnded, Caller
from mediad.wav import read_wav, write_wav
from mediad.wire.audiosocket import (
    HANGUP,
    Audio,
    CallUuid,
    Digit,
    Kind,
    Message,
    Parser,
    audio_message,
)

SILENCE = audio_message(Kind.SLIN, bytes(320))


def tone(rate_hz: int, duration_s: float) -> bytes:
    """1 kHz of -9 dBFS, s16le."""
    at = np.arange(round(rate_hz * duration_s)) / rate_hz
    return (16000 * np.sin(2 * np.pi * 1000 * at)).astype("<i2").tobytes()


SOUND = audio_message(Kind.SLIN, tone(8000, 0.02))


class Line:
    """The server's end of one call."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.messages: list[tuple[float, Message]] = []
        self.writer = writer
        self._reader = reader
        self._parser = Parser()

    async def read(self, stop: Callable[[Message], bool] | None = None) -> None:
        """Read until ``stop`` says so or the caller closes."""
        while data := await self._reader.read(65536):
            now = time.monotonic()
            messages = self._parser.receive_data(data)
            self.messages += [(now, message) for message in messages]
            if stop and any(map(stop, messages)):
                return

    async def play(self, *messages: bytes) -> None:
        """Send a message every 20 ms."""
        start = time.monotonic()
        for n, message in enumerate(messages):
            await asyncio.sleep(start + n * 0.02 - time.monotonic())
            start = max(start, time.monotonic() - n * 0.02 - 0.1)  # after a standstill no burst
            self.writer.write(message)

    @property
    def audio(self) -> list[tuple[float, Audio]]:
        return [(at, message) for at, message in self.messages if isinstance(message, Audio)]

    @property
    def digits(self) -> str:
        return "".join(m.digit for _, m in self.messages if isinstance(m, Digit))


Script = Callable[[Line], Awaitable[object]]


@asynccontextmanager
async def serving(script: Script) -> AsyncIterator[tuple[int, list[Line]]]:
    """Serve ``script`` to each call; give the port and the lines."""
    lines: list[Line] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = Line(reader, writer)
        lines.append(line)
        try:
            await script(line)
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], lines
        server.close()
        await server.wait_closed()


async def listen(line: Line) -> None:
    """Read to the end and say nothing."""
    await line.read()


async def echo_of(line: Line, *messages: bytes) -> None:
    """Play messages while reading; hang up behind them."""
    reading = asyncio.create_task(line.read())
    await line.play(*messages)
    line.writer.write(HANGUP)
    await reading


async def eventually(condition: Callable[[], object]) -> None:
    """Wait until the server has seen something."""
    async with asyncio.timeout(15):
        while not condition():  # noqa: ASYNC110  the server's list has no event to wait for
            await asyncio.sleep(0.005)


class TestSending:
    @pytest.mark.parametrize("ptime_ms", [10, 20, 60])
    @pytest.mark.parametrize("codec", ["slin", "ulaw", "slin16", "slin48"])
    async def test_messages_of_one_ptime_come_on_an_absolute_clock(
        self, codec: str, ptime_ms: int
    ) -> None:
        call_id = UUID(int=7)
        async with serving(listen) as (port, lines):
            async with Caller(
                "127.0.0.1", port, call_id=call_id, codec=codec, ptime_ms=ptime_ms
            ) as caller:
                await asyncio.sleep(0.61)
            await eventually(lambda: len(lines[0].audio) == len(caller.sent.times))
        line = lines[0]
        assert line.messages[0][1] == CallUuid(call_id)
        one_sample = 1 if codec == "ulaw" else 2
        expected_size = CODECS[codec].rate_hz * ptime_ms // 1000 * one_sample
        assert {(m.kind, len(m.payload)) for _, m in line.audio} == {
            (CODECS[codec].kind, expected_size)
        }
        assert caller.end is not None
        lasted_ms = (caller.end.at - caller.started_at) * 1000
        assert len(line.audio) == pytest.approx(lasted_ms / ptime_ms, abs=1.5 + 20 / ptime_ms)
        late = [
            at - caller.started_at - (n + 1) * ptime_ms / 1000
            for n, at in enumerate(caller.sent.times)
        ]
        assert sorted(late)[len(late) // 2] < 0.005  # no drift: the median stays on the grid

    async def test_words_of_another_rate_arrive_whole(self) -> None:
        async with serving(listen) as (port, lines), Caller("127.0.0.1", port) as caller:
            caller.say(tone(22050, 0.3), 22050)
            await caller.said()
            await eventually(lambda: len(lines[0].audio) == len(caller.sent.times))
            heard = np.frombuffer(b"".join(m.payload for _, m in lines[0].audio), "<i2")
        assert bytes(heard.tobytes()) == bytes(caller.sent.pcm)
        loud = np.flatnonzero(abs(heard) > 8000)
        assert loud[-1] - loud[0] == pytest.approx(2400, abs=10)
        assert caller.sent.audible_s == pytest.approx(0.3, abs=0.02)

    async def test_digits_arrive_in_order_each_after_its_hole(self) -> None:
        async with serving(listen) as (port, lines), Caller("127.0.0.1", port) as caller:
            caller.press("12#", hole_s=0.145)
            await caller.said()
            await eventually(lambda: len(lines[0].digits) == 3)
            gaps = caller.sent.gaps_s()
        assert lines[0].digits == "12#"
        assert [digit for _, digit in caller.digits_sent] == ["1", "2", "#"]
        assert len([gap for gap in gaps if gap > 0.12]) == 2  # the first hole has nothing before it

    async def test_a_hole_has_no_messages_at_all(self) -> None:
        async with serving(listen) as (port, _), Caller("127.0.0.1", port) as caller:
            caller.stop_sending()
            await asyncio.sleep(0.1)
            assert not caller.sent.times
            caller.start_sending()
            await asyncio.sleep(0.1)
            assert caller.sent.times

    async def test_hanging_up_is_a_plain_eof(self) -> None:
        async with serving(listen) as (port, lines), Caller("127.0.0.1", port) as caller:
            await asyncio.sleep(0.1)
            caller.hang_up()
            end = await caller.ended()
        assert (end.by, end.how) == ("caller", "closed")
        assert all(isinstance(message, Audio) for _, message in lines[0].messages[1:])


class TestHearing:
    async def test_audio_is_recorded_with_its_times(self) -> None:
        async def script(line: Line) -> None:
            await echo_of(line, *[SILENCE] * 10, *[SOUND] * 10, *[SILENCE] * 15)

        async with serving(script) as (port, _), Caller("127.0.0.1", port) as caller:
            began = await caller.wait_for_speech()
            stopped = await caller.wait_for_quiet(quiet_s=0.2)
            end = await caller.ended()
        assert (end.by, end.how) == ("server", "hangup")
        assert stopped - began == pytest.approx(0.2, abs=0.1)
        assert caller.heard.pcm == bytes(3200) + tone(8000, 0.02) * 10 + bytes(4800)  # 320 B each
        assert len(caller.heard.times) == 35
        assert sorted(caller.heard.gaps_s())[12] == pytest.approx(0.02, abs=0.005)

    async def test_an_answer_is_what_begins_after_a_moment(self) -> None:
        async def script(line: Line) -> None:
            await echo_of(line, *[SOUND] * 20, *[SILENCE] * 20, *[SOUND] * 10)

        async with serving(script) as (port, _), Caller("127.0.0.1", port) as caller:
            first = await caller.wait_for_speech()
            answer = await caller.wait_for_answer(first + 0.01)
            await caller.ended()
        assert answer - first == pytest.approx(0.8, abs=0.1)

    async def test_audio_of_another_kind_is_brought_to_the_callers_rate(self) -> None:
        async def script(line: Line) -> None:
            await echo_of(line, audio_message(Kind.SLIN16, tone(16000, 0.02)))

        async with serving(script) as (port, _), Caller("127.0.0.1", port, codec="ulaw") as caller:
            await caller.ended()
        assert len(caller.heard.pcm) == 320

    async def test_a_message_in_two_pieces_is_counted(self) -> None:
        is_read = asyncio.Event()

        async def script(line: Line) -> None:
            line.writer.write(SOUND[:100])
            await is_read.wait()
            await echo_of(line, SOUND[100:])

        async with serving(script) as (port, _), Caller("127.0.0.1", port) as caller:
            await eventually(lambda: caller.split_messages)
            is_read.set()
            await caller.ended()
        assert caller.split_messages == 1
        assert len(caller.heard.times) == 1

    async def test_waiting_for_a_silent_server_times_out(self) -> None:
        async with serving(listen) as (port, _), Caller("127.0.0.1", port) as caller:
            with pytest.raises(TimeoutError):
                await caller.wait_for_speech(timeout_s=0.05)


async def hang_up_at_once(line: Line) -> None:
    line.writer.write(HANGUP)


async def close_early(line: Line) -> None:
    await line.read(lambda message: isinstance(message, CallUuid))  # unread bytes would reset
    line.writer.write(SILENCE[:100])


async def reset(line: Line) -> None:
    await line.read(lambda message: isinstance(message, CallUuid))
    linger = pack("ii", 1, 0)  # close with a reset
    line.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    line.writer.transport.abort()


async def talk_http(line: Line) -> None:
    line.writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    await line.read()


class TestTheEnd:
    @pytest.mark.parametrize(
        ("script", "by", "how", "detail"),
        [
            (hang_up_at_once, "server", "hangup", ""),
            (close_early, "server", "eof", "in the middle of a message"),
            (reset, "network", "reset", ""),
            (talk_http, "server", "garbage", "message kind 0x48"),
        ],
    )
    async def test_each_way_to_end_is_told_apart(
        self, script: Script, by: str, how: str, detail: str
    ) -> None:
        async with serving(script) as (port, _), Caller("127.0.0.1", port) as caller:
            with pytest.raises(CallEnded, match=how):
                await caller.wait_for_speech(timeout_s=5)
            end = await caller.ended()
        assert (end.by, end.how) == (by, how)
        assert detail in end.detail

    async def test_a_server_that_stops_reading_is_given_up(self) -> None:
        async def sleep(line: Line) -> None:
            line.writer.transport.pause_reading()  # type: ignore[attr-defined]
            await asyncio.sleep(0.5)

        async with serving(sleep) as (port, _), Caller("127.0.0.1", port) as caller:
            for _ in range(400):
                caller.send_raw(bytes(65536))
            end = await caller.ended()
        assert (end.by, end.how) == ("server", "stalled")

    async def test_a_refused_connection_is_an_os_error(self) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))  # bound, not listening
            with pytest.raises(ConnectionRefusedError):
                await Caller(*taken.getsockname()).__aenter__()


async def start_command(*arguments: object) -> asyncio.subprocess.Process:
    """Start ``mediad call``."""
    program = "from mediad.call_command import call; call()"
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        program,
        *map(str, arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def run_command(*arguments: object) -> tuple[int | None, str, str]:
    """Run ``mediad call``; return its exit status, output and errors."""
    process = await start_command(*arguments)
    async with asyncio.timeout(30):
        out, errors = await process.communicate()
    return process.returncode, out.decode(), errors.decode()


class TestCommand:
    async def test_it_says_what_the_wav_says_and_reports(self, tmp_path: Path) -> None:
        async def answer(line: Line) -> None:
            playing = asyncio.create_task(
                line.play(*[SILENCE] * 40, *[SOUND] * 20, *[SILENCE] * 50)
            )
            await line.read()
            playing.cancel()

        write_wav(tmp_path / "in.wav", 44100, tone(44100, 0.4), tone(44100, 0.4))
        async with serving(answer) as (port, lines):
            status, out, errors = await run_command(
                *("--port", port, "--wav", tmp_path / "in.wav", "--codec", "alaw"),
                *("--ptime", 40, "--dtmf", "1w2", "--duration", 1.6, "--json"),
                *("--uuid", UUID(int=3), "--out", tmp_path / "out.wav"),
            )
        assert (status, errors) == (0, "")
        document = json.loads(out)
        assert document["uuid"] == str(UUID(int=3))
        figures = document["figures"]
        assert (figures["ended_by"], figures["ended_how"]) == ("caller", "closed")
        assert figures["duration_s"] == pytest.approx(1.6, abs=0.2)
        assert figures["first_audible_ms"] == pytest.approx(800, abs=100)
        assert figures["turns"][0]["response_ms"] == pytest.approx(
            200, abs=100
        )  # 0.16 s are the hole
        events = [entry["event"] for entry in document["timeline"]]
        assert events[0] == "uuid sent"
        assert {"first message heard", "digit 1 sent", "digit 2 sent", "server speaks"} < {*events}
        assert events[-1] == "end: closed by caller"
        assert {len(message.payload) for _, message in lines[0].audio} == {320}
        assert lines[0].digits == "12"
        heard = np.frombuffer(read_wav(tmp_path / "out.wav").pcm, "<i2")
        assert np.flatnonzero(heard)[0] / 8000 == pytest.approx(0.8, abs=0.1)

    async def test_it_prints_a_summary_for_people(self) -> None:
        async def script(line: Line) -> None:
            await echo_of(line, *[SOUND] * 10)

        async with serving(script) as (port, _):
            status, out, errors = await run_command("--port", port)
        assert (status, errors) == (0, "")
        assert "hangup by server" in out
        assert "in 10 messages" in out

    async def test_control_c_hangs_up_and_still_writes(self, tmp_path: Path) -> None:
        async def play(line: Line) -> None:
            playing = asyncio.create_task(line.play(SOUND * 20, *[SOUND] * 500))
            await line.read()
            playing.cancel()

        async with serving(play) as (port, lines):
            process = await start_command("--port", port, "--out", tmp_path / "out.wav", "--json")
            await eventually(lambda: lines and len(lines[0].audio) > 10)
            process.send_signal(signal.SIGINT)
            async with asyncio.timeout(10):
                out, errors = await process.communicate()
        assert (process.returncode, errors) == (0, b"")
        assert json.loads(out)["figures"]["ended_how"] == "closed"
        with wave.open(str(tmp_path / "out.wav")) as file:
            assert file.getnframes() > 1000

    @pytest.mark.parametrize(
        ("script", "words"),
        [
            (hang_up_at_once, "refused the call"),
            (talk_http, "does not speak AudioSocket"),
            (listen, "sent no audio"),
        ],
    )
    async def test_a_call_without_audio_exits_1_and_says_why(
        self, script: Script, words: str
    ) -> None:
        async with serving(script) as (port, _):
            duration_s = 0.3 if script is listen else 20  # the others end it
            status, _, errors = await run_command("--port", port, "--duration", duration_s)
        assert status == 1
        assert words in errors

    async def test_a_refused_connection_exits_1_and_says_what_to_do(self) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            status, _, errors = await run_command("--port", taken.getsockname()[1])
        assert status == 1
        assert "mediad serve" in errors
        assert "Traceback" not in errors

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["--dtmf", "5x"], "'X' is no DTMF digit"),
            (["--codec", "opus"], "'opus'"),
            (["--ptime", "25"], "'25'"),
            (["--uuid", "abc"], "'abc'"),
            (["--wav", __file__], "no uncompressed WAV"),
        ],
    )
    async def test_bad_usage_exits_2_and_names_it(self, arguments: list[str], words: str) -> None:
        status, _, errors = await run_command(*arguments)
        assert status == 2
        assert words in errors
