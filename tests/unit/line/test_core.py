"""The compiled line does what the specification does, whatever it is given and whenever."""

import gc
import struct
import sys
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mediad.line import Line, Tick
from mediad.media import g711
from mediad.wire import frames
from mediad.wire.audiosocket import HANGUP, HEADER, RATE_OF_AUDIO_KIND, Kind, audio_message
from mediad.wire.frames_pb2 import AudioRawFrame, Frame
from tests.unit.line.lines import (
    UUID_MESSAGE,
    agent_message,
    compiled_line,
    line_at,
    new_line,
    noise,
    python_line,
)

AGENT_RATES_HZ = (8000, 16_000, 22_050, 24_000, 44_100, 48_000, 11_025, 192_000)
CLOCK_STEPS_S = (0.0, 0.0005, 0.005, 0.0195, 0.02, 0.0205, 0.04, 0.06, 0.145, 0.21, 1.0)


class Step(NamedTuple):
    """One call of the line's interface, after some time."""

    wait_s: float
    method: str
    argument: Any = None


def steps_of(
    waits: st.SearchStrategy[float],
    methods: st.SearchStrategy[str],
    arguments: st.SearchStrategy[Any] = st.none(),  # noqa: B008 - a strategy is a constant
) -> st.SearchStrategy[Step]:
    """Return steps; `st.builds` would want to know what `Any` is."""
    return st.tuples(waits, methods, arguments).map(lambda parts: Step(*parts))


# What the caller sends


@st.composite
def audio_messages(draw: st.DrawFn) -> bytes:
    """Audio of any kind and any length that is taken."""
    kind = draw(st.sampled_from([Kind.SLIN] * 5 + sorted(RATE_OF_AUDIO_KIND)))
    ms = draw(st.sampled_from((10, 20, 20, 20, 30, 40, 60, 5, 120)))
    size = RATE_OF_AUDIO_KIND[kind] * ms // 1000 * 2
    if kind == Kind.SLIN and draw(st.booleans()):
        size //= 2  # G.711
    return audio_message(kind, noise(draw(st.integers(0, 9)), size // 2).tobytes())


@st.composite
def strange_messages(draw: st.DrawFn) -> bytes:
    """Every other kind, right and wrong, and audio of wrong sizes."""
    digit = draw(st.sampled_from(b"09*#aDx"))
    kind, length = draw(st.integers(0, 255)), draw(st.integers(0, 400))
    audio_kind = draw(st.sampled_from(sorted(RATE_OF_AUDIO_KIND)))
    per_ms = RATE_OF_AUDIO_KIND[audio_kind] // 1000 * 2
    odd_size = draw(st.sampled_from((4 * per_ms, 20 * per_ms + 1, 121 * per_ms)))
    return draw(
        st.sampled_from(
            (
                HEADER.pack(Kind.DTMF, 1) + bytes([digit]),
                HEADER.pack(Kind.DTMF, 1) + bytes([digit]),
                HEADER.pack(Kind.ERROR, 1) + b"\1",
                HANGUP,
                HANGUP[:1],
                UUID_MESSAGE,
                HEADER.pack(kind, length) + bytes(length),
                audio_message(audio_kind, bytes(min(odd_size, 0xFFFF))),
                bytes([kind]),
            )
        )
    )


@st.composite
def caller_steps(draw: st.DrawFn) -> list[Step]:
    """A few messages, as TCP may cut and delay them; the last one may come in part."""
    messages = draw(st.lists(audio_messages(), min_size=1, max_size=12))
    if draw(st.integers(0, 3)) == 0:
        messages.insert(draw(st.integers(0, len(messages))), draw(strange_messages()))
    data = b"".join(messages)
    if draw(st.integers(0, 9)) == 0:
        data = data[: draw(st.integers(1, len(data)))]
    cuts = draw(st.lists(st.integers(0, len(data)), max_size=8))
    edges = [0, *sorted(cuts), len(data)]
    waits = st.sampled_from(CLOCK_STEPS_S)
    return [
        Step(draw(waits), "receive_caller", data[start:end])
        for start, end in zip(edges, edges[1:], strict=False)
    ]


# What the agent sends


def riff(pcm: bytes, seed: int) -> bytes:
    """Put a WAV header before samples, sometimes a wrong one."""
    extra = (b"", b"LIST\3\0\0\0abc\0", b"LIST\xff\xff\xff\x7f")[seed % 3]
    size = struct.pack("<I", len(pcm))
    body = b"WAVEfmt \x10\0\0\0" + bytes(16) + extra + b"data" + size + pcm
    return b"RIFF" + size + body


@st.composite
def agent_audio(draw: st.DrawFn) -> bytes:
    """Audio in every form that protobuf allows, also with fields of later versions."""
    seed = draw(st.integers(0, 9))
    size = draw(st.sampled_from((640, 1280, 1920, 320, 0, 1, 3, 641, 20_001)))
    audio = noise(seed, size // 2 + 1).tobytes()[:size]
    if draw(st.integers(0, 4)) == 0:
        audio = riff(audio, seed)[: draw(st.sampled_from((None, None, 30)))]
    frame = Frame()
    frame.audio.audio = audio
    frame.audio.sample_rate = draw(st.sampled_from(AGENT_RATES_HZ * 3 + (7, 0)))
    frame.audio.num_channels = draw(st.sampled_from((1,) * 9 + (2, 2, 3, 8, 0, 9)))
    frame.audio.id = draw(st.sampled_from((0, 1, 2**64 - 1)))
    frame.audio.name = draw(st.sampled_from(("", "OutputAudioRawFrame#1", "µ")))
    if draw(st.booleans()):
        frame.audio.pts = draw(st.sampled_from((0, 1, 2**63)))
    return frame.SerializeToString()


def odd_forms() -> st.SearchStrategy[bytes]:
    """Messages that only protobuf itself should read: fields twice, unknown, broken."""
    audio = AudioRawFrame(audio=bytes(32), sample_rate=8000, num_channels=1).SerializeToString()
    inner = (
        audio * 2,
        audio + b"\x20\x80\xfa\x81\x80\x80\x80\x01",  # a rate of more than 32 bits
        audio + b"\x3a\x01x",  # field 7
        audio + b"\x25\0\0\0\0",  # the rate, as fixed32
        audio + b"\x18\x01",  # the samples, as a varint
        audio + b"\x12\x01\xff",  # a name that is not UTF-8
        b"\x1a\x80\x80\x80\x80\x80\x80\x00" + audio,
        audio + b"\x08" + b"\x80" * 9 + b"\x01",
        audio + b"\x08" + b"\x80" * 10 + b"\x01",
        audio + b"\x08",
        audio + b"\x00\x00",
        b"",
    )
    framed = [b"\x12" + bytes([len(part)]) + part for part in inner]
    texts = [frames.encode_text("hm"), frames.encode_json("{}"), frames.encode_interruption(3)]
    outer = [framed[0] + texts[0], texts[0] + framed[0], framed[0] * 2, framed[0][:-1]]
    outer += [
        b"\x12",
        b"\x12\x80",
        b"\x12\xff\xff\xff\xff\x7f",
        b"\x32\x00",
        b"",
        b"\xff",
        b"hello",
    ]
    return st.sampled_from(framed + texts + outer)


def agent_steps() -> st.SearchStrategy[list[Step]]:
    """One message of the agent, or a few."""
    waits = st.sampled_from(CLOCK_STEPS_S)
    message = st.one_of(agent_audio(), agent_audio(), agent_audio(), odd_forms())
    return st.lists(steps_of(waits, st.just("receive_agent"), message), max_size=5)


@st.composite
def clock_steps(draw: st.DrawFn) -> list[Step]:
    """Ticks, late ones too, and what the call asks of the playout."""
    steps = [Step(0.02, "tick")] * draw(st.integers(0, 12))
    more = steps_of(st.sampled_from(CLOCK_STEPS_S), st.sampled_from(("tick", "held_ms")))
    marks = steps_of(st.just(0.0), st.just("mark"), st.sampled_from(("a", "b", "µ")))
    asked = st.sampled_from(("flush", "keep_played", "hold", "resume", "resume", "places"))
    asks = steps_of(st.just(0.0), asked)
    return steps + draw(st.lists(st.one_of(more, more, marks, marks, asks), max_size=4))


def calls() -> st.SearchStrategy[list[Step]]:
    """A whole call."""
    parts = st.one_of(caller_steps(), agent_steps(), clock_steps(), clock_steps())
    return st.lists(parts, max_size=12).map(lambda lists: [step for part in lists for step in part])


# Both lines, step by step


def assert_same_samples(ours: bytes, theirs: bytes, header_size: int, tail_size: int) -> None:
    """Compare two messages: the samples within 1, every other byte exactly."""
    assert len(ours) == len(theirs)
    end = len(ours) - tail_size
    assert (ours[:header_size], ours[end:]) == (theirs[:header_size], theirs[end:])
    a, b = (
        np.frombuffer(message[header_size:end], "<i2").astype(int) for message in (ours, theirs)
    )
    assert len(a) == 0 or abs(a - b).max() <= 1


def assert_same(ours: Any, theirs: Any) -> None:
    """Compare two results of the interface, their types included: `Started` equals `Drained`."""
    assert type(ours) is type(theirs)
    if isinstance(ours, Tick):
        assert_same_samples(ours.to_caller, theirs.to_caller, HEADER.size, 0)
        assert ours.to_agent == theirs.to_agent
        assert_same(ours.events, theirs.events)
    elif isinstance(ours, list):
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            assert_same(a, b)
    elif isinstance(ours, bytes):
        tail_size = 5
        pcm_size = len(frames.decode(theirs).audio)  # type: ignore[union-attr]
        assert_same_samples(ours, theirs, len(theirs) - pcm_size - tail_size, tail_size)
    else:
        assert ours == theirs


def call(line: Line, step: Step, now: float) -> Any:
    """Do one step."""
    match step.method:
        case "receive_caller" | "receive_agent":
            return getattr(line, step.method)(step.argument, now)
        case "tick":
            return line.tick(now)
        case "mark":
            return line.mark(step.argument)
        case "held_ms":
            return line.held_ms
        case "places":
            return line.queued_s, line.played_s
        case "resume":
            # To repeat, the place is found in samples, in which the two may differ by 1.
            return line.resume(False)
        case method:
            return getattr(line, method)()


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    steps=calls(),
    codec=st.sampled_from(("slin", "ulaw", "alaw", "auto")),
    g711_law=st.sampled_from(("ulaw", "alaw")),
    playout_max_s=st.sampled_from((60.0, 1.0, 0.1, 0.03)),
    has_uuid=st.integers(0, 19).map(bool),
)
def test_both_lines_do_the_same(
    steps: list[Step], codec: str, g711_law: str, playout_max_s: float, has_uuid: bool
) -> None:
    compiled = compiled_line()(codec, g711_law, playout_max_s)
    python = python_line()(codec, g711_law, playout_max_s)
    now = 1000.0
    if has_uuid:
        steps = [Step(0.0, "receive_caller", UUID_MESSAGE), *steps]
    for step in steps:
        now += step.wait_s
        assert_same(call(compiled, step, now), call(python, step, now))
        assert compiled.counters() == python.counters()
    assert compiled.held_ms == python.held_ms


@pytest.mark.parametrize("codec", ["slin", "ulaw", "alaw", "auto"])
@pytest.mark.parametrize("ms", [10, 20, 30, 40, 60])
@pytest.mark.parametrize("law", ["slin", "ulaw", "alaw"])
def test_both_lines_hear_the_same_in_every_codec_and_length(codec: str, ms: int, law: str) -> None:
    lines = [core(codec, "alaw", 60.0) for core in (compiled_line(), python_line())]
    data = noise(1, 8000).tobytes()
    if law != "slin":
        data = g711.encode_ulaw(data) if law == "ulaw" else g711.encode_alaw(data)
    size = ms * (16 if law == "slin" else 8)
    for line in lines:
        line.receive_caller(UUID_MESSAGE, 0.0)
    for index, start in enumerate(range(0, len(data), size)):
        message = audio_message(Kind.SLIN, data[start : start + size])
        if len(message) < size:
            break
        compiled, python = (line.receive_caller(message, index * ms / 1000) for line in lines)
        assert_same(compiled, python)
    assert lines[0].counters() == lines[1].counters()
    assert lines[0].counters().agent_frames_sent > 0


def test_both_lines_read_the_same_at_every_split_point() -> None:
    data = UUID_MESSAGE + b"".join(
        (
            audio_message(Kind.SLIN, noise(1, 40).tobytes()),
            HEADER.pack(Kind.DTMF, 1) + b"5",
            audio_message(Kind.SLIN, noise(2, 40).tobytes()),
            HEADER.pack(Kind.ERROR, 2) + b"\1\2",
            audio_message(Kind.SLIN, noise(3, 40).tobytes()),
        )
    )
    for split in range(len(data) + 1):
        results = []
        for core in (compiled_line(), python_line()):
            line = core("slin", "ulaw", 60.0)
            items = line.receive_caller(data[:split], 0.0) + line.receive_caller(data[split:], 0.0)
            results.append((items, line.counters()))
        assert_same(results[0][0], results[1][0])
        assert results[0][1] == results[1][1]


@pytest.mark.parametrize("rate_hz", [8000, 16_000, 44_100])
def test_both_lines_repeat_the_same(rate_hz: int) -> None:
    lines = [line_at(core, rate_hz) for core in (compiled_line(), python_line())]
    rng = np.random.default_rng(rate_hz)
    for line in lines:
        line.keep_played()
    now = 1.0
    for _ in range(30):
        audio = noise(int(rng.integers(99)), int(rng.integers(rate_hz))).astype(float)
        audio *= 0.5 + 0.5 * np.sin(np.arange(len(audio)) / rate_hz * 30)  # has quiet places
        ticks, pause = int(rng.integers(30)), bool(rng.integers(2))
        for line in lines:
            line.receive_agent(agent_message(audio.astype(np.int16), rate_hz), now)
        for index in range(ticks):
            assert_same(*(line.tick(now + index * 0.02) for line in lines))
        for line in lines if pause else []:
            line.hold()
            line.tick(now)
        assert lines[0].resume(True) == lines[1].resume(True)
        assert lines[0].played_s == lines[1].played_s
        now += ticks * 0.02
    assert lines[0].counters() == lines[1].counters()


def test_a_quiet_compiled_line_holds_little_memory() -> None:
    line = new_line(compiled_line())
    line.receive_caller(audio_message(Kind.SLIN192, bytes(46_080))[:-1], 0.0)
    line.receive_caller(b"\0" + audio_message(Kind.SLIN, bytes(320)), 0.0)
    for _ in range(50):
        line.receive_agent(frames.encode_audio(bytes(32_000), 16_000), 0.0)
    busy = sys.getsizeof(line)
    now = 0.0
    while line.counters().played_frames < 50 * 50:
        now += 0.02
        line.tick(now)
    for _ in range(10):
        now += 0.02
        line.tick(now)
    assert busy > 800_000
    assert sys.getsizeof(line) < 8192


def test_a_line_makes_no_reference_cycles(core: type[Line]) -> None:
    gc.collect()
    for _ in range(20):
        line = new_line(core, "auto")
        line.receive_caller(audio_message(Kind.SLIN, bytes(320)), 0.0)
        line.receive_agent(frames.encode_audio(bytes(6400), 16_000), 0.0)
        line.mark("end")
        line.tick(0.02)
        del line
    assert gc.collect() == 0


def test_the_compiled_line_takes_only_bytes() -> None:
    line: Any = new_line(compiled_line())
    for wrong in (None, "text", 5):
        with pytest.raises(TypeError):
            line.receive_caller(wrong, 0.0)
        with pytest.raises(TypeError):
            line.receive_agent(wrong, 0.0)
