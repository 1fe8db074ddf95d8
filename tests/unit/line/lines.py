"""What the tests of a line share: the two classes, messages, and calls played through."""

from collections.abc import Iterable
from types import ModuleType
from typing import cast
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from mediad.line import CallerItem, Gate, Line, PlayoutRoom
from mediad.line import line as specification
from mediad.media import playout
from mediad.wire import frames
from mediad.wire.audiosocket import (
    AUDIO_KIND_OF_RATE,
    HEADER,
    RATE_OF_AUDIO_KIND,
    Kind,
    audio_message,
    uuid_message,
)
from tests.missing import skip_or_fail

Samples = NDArray[np.int16]

CALL = UUID("5f0c1f5e-7d0b-4b1e-9a53-2f1d60a8c0de")
UUID_MESSAGE = uuid_message(CALL)


def python_line() -> type[Line]:
    """Return the specification."""
    return specification.Line


def compiled_core() -> ModuleType:
    """Return the compiled core; without it skip, and fail in CI."""
    try:
        from mediad.line import _core
    except ImportError as exc:
        reason = f"the compiled core is missing: {exc}"
        skip_or_fail(reason)
    return _core


def compiled_line() -> type[Line]:
    """Return the compiled line."""
    return cast(type[Line], compiled_core().Line)


def compiled_gate(rate_hz: int) -> Gate:
    """Return a compiled gate."""
    return cast(Gate, compiled_core().Gate(rate_hz))


def new_room(core: type[Line], max_bytes: int) -> PlayoutRoom:
    """Return a room for lines of this class."""
    if core is specification.Line:
        return playout.PlayoutRoom(max_bytes)
    from mediad.line import _core

    return cast(PlayoutRoom, _core.PlayoutRoom(max_bytes))


def new_line(
    core: type[Line],
    codec: str = "slin",
    playout_max_s: float = 60.0,
    playout_room: PlayoutRoom | None = None,
) -> Line:
    """Return a line whose call has begun at 0.0."""
    line = core(codec=codec, g711="ulaw", playout_max_s=playout_max_s, playout_room=playout_room)
    line.receive_caller(UUID_MESSAGE, 0.0)
    return line


def noise(seed: int, count: int, peak: int = 32_767) -> Samples:
    """Return random samples."""
    return np.random.default_rng(seed).integers(-peak, peak, count, dtype=np.int16)


def tone(frequency_hz: float, rate_hz: int, seconds: float, peak: float = 12_000) -> Samples:
    """Return a sine."""
    time = np.arange(int(rate_hz * seconds)) / rate_hz
    return np.rint(peak * np.sin(2 * np.pi * frequency_hz * time)).astype(np.int16)


def caller_messages(samples: Samples, kind: int = Kind.SLIN, ms: int = 20) -> list[bytes]:
    """Cut slin into messages."""
    size = RATE_OF_AUDIO_KIND[kind] * ms // 1000
    return [
        audio_message(kind, samples[at : at + size].astype("<i2").tobytes())
        for at in range(0, len(samples), size)
    ]


def agent_message(samples: Samples, rate_hz: int = 16_000, num_channels: int = 1) -> bytes:
    """Return one frame of the agent."""
    return frames.encode_audio(samples.astype("<i2").tobytes(), rate_hz, num_channels)


def pcm_of_frame(message: CallerItem | bytes | None) -> Samples:
    """Return the samples of a frame for the agent."""
    assert isinstance(message, bytes)
    frame = frames.decode(message)
    assert isinstance(frame, frames.AudioFrame)
    assert (frame.sample_rate, frame.num_channels) == (16_000, 1)
    return np.frombuffer(frame.audio, "<i2")


def pcm_of_message(message: bytes) -> Samples:
    """Return the samples of an AudioSocket message."""
    kind, length = HEADER.unpack_from(message)
    assert length == RATE_OF_AUDIO_KIND[kind] // 50 * 2 == len(message) - HEADER.size
    return np.frombuffer(message[HEADER.size :], "<i2")


def uplink(line: Line, messages: Iterable[bytes], start: float = 0.0) -> Samples:
    """Send the caller's messages, 20 ms apart, and return what the agent hears."""
    heard: list[Samples] = []
    for index, message in enumerate(messages):
        heard += [pcm_of_frame(item) for item in line.receive_caller(message, start + index * 0.02)]
    return np.concatenate(heard) if heard else np.zeros(0, np.int16)


def downlink(line: Line, start: float = 1.0, max_s: float = 70.0) -> Samples:
    """Tick until the playout has drained and return what the caller hears, silence left out."""
    heard: list[Samples] = []
    silent = -1
    for index in range(int(max_s * 50)):
        silent = line.counters().silent_frames
        message = line.tick(start + index * 0.02).to_caller
        if line.counters().silent_frames == silent:
            heard.append(pcm_of_message(message))
        elif heard:
            break
    return np.concatenate(heard) if heard else np.zeros(0, np.int16)


def line_at(core: type[Line], caller_rate_hz: int, codec: str = "slin") -> Line:
    """Return a line whose caller has sent 20 ms of silence at this rate."""
    line = new_line(core, codec)
    kind = AUDIO_KIND_OF_RATE[caller_rate_hz]
    line.receive_caller(audio_message(kind, bytes(caller_rate_hz // 50 * 2)), 0.0)
    return line


def hear(core: type[Line], samples: Samples, rate_hz: int) -> Samples:
    """Return what the agent hears of a caller."""
    return uplink(new_line(core), caller_messages(samples, AUDIO_KIND_OF_RATE[rate_hz]))


def say(core: type[Line], samples: Samples, rate_hz: int, caller_rate_hz: int = 8000) -> Samples:
    """Return what the caller hears of an agent."""
    line = line_at(core, caller_rate_hz)
    line.receive_agent(agent_message(samples, rate_hz), 1.0)
    return downlink(line)
