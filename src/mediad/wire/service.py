"""What mediad and an STT, LLM or TTS service say to each other: bytes to messages and back.

One WebSocket a call and role, one frame of ``proto/frames.proto`` a message. Audio, texts and final
transcripts are frames of their own; all else is RTVI-shaped JSON in a MessageFrame. The README's
"Your own services" is the specification.

    role  mediad sends                            the service sends
    all   Start; Interruption(n)                  Ready; Done(n); Failure(n)
    stt   AudioFrame, StoppedSpeaking(n)          Interim, Transcription, StoppedSpeaking(None)
    llm   Generate(n)                             Text, the deltas of its answer
    tts   Voice, Text(n)                          AudioFrame, Word(n)
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeVar, get_args

from mediad.wire import fields, frames
from mediad.wire.fields import MAX_N

__all__ = [
    "MAX_JSON",
    "MAX_N",
    "MAX_TEXT",
    "PROTOCOL",
    "Done",
    "Failure",
    "FromMediad",
    "FromService",
    "Generate",
    "Interim",
    "Malformed",
    "Ready",
    "Reason",
    "Role",
    "Start",
    "StoppedSpeaking",
    "Voice",
    "Word",
    "encode",
    "from_mediad",
    "from_service",
]

PROTOCOL = 1
_LABEL = "rtvi-ai"

MAX_JSON = 65_536
"""The longest JSON read from a service, in characters: reading it takes 1 ms."""

MAX_TEXT = 16_384
"""The longest text kept of one message, in characters; longer ones are cut."""

_MAX_ENTRIES = 16  # of a usage and of tool calls
_MAX_MESSAGES = 2000  # of a conversation
_MAX_OFFSET_MS = 3_600_000
_MAX_RATE_HZ = 192_000
_MAX_SPEED = 10.0

Role = Literal["stt", "llm", "tts"]
Reason = Literal["stop", "length", "tool_calls", "error", "cancelled"]
_ROLES: dict[str, Role] = {role: role for role in get_args(Role)}
_REASONS: dict[str, Reason] = {reason: reason for reason in get_args(Reason)}


@dataclass(frozen=True, slots=True)
class Start:
    """Opens the connection: who calls for what."""

    role: Role
    call_id: str
    language: str = ""
    """As in ``en-US``; empty means the service's own choice."""
    sample_rate: int = 16_000
    """Of the audio that an STT service gets, in Hz; what mediad would like best of a TTS."""
    voice: str = ""
    rate: float = 1.0
    """How fast to speak, 1.0 being the voice's own pace."""
    protocol: int = PROTOCOL


@dataclass(frozen=True, slots=True)
class Ready:
    """The service's answer to `Start`."""

    sample_rate: int = 0
    """Of a TTS service's audio, in Hz; an STT service repeats that of `Start`, an LLM has none."""
    protocol: int = PROTOCOL


@dataclass(frozen=True, slots=True)
class StoppedSpeaking:
    """The caller's turn has ended: mediad asks for the finals of n.

    A service that finds the end of a turn by itself says so without an n, and is asked then.
    """

    n: int | None = None


@dataclass(frozen=True, slots=True)
class Generate:
    """Go on with this conversation. Both lists are as in OpenAI's chat completions."""

    n: int
    messages: Sequence[Mapping[str, Any]]
    tools: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True, slots=True)
class Voice:
    """How the texts after it are to be spoken; empty or None leaves a thing as it is."""

    voice: str = ""
    language: str = ""
    rate: float | None = None


@dataclass(frozen=True, slots=True)
class Interim:
    """What the caller has said so far in this turn; the next one replaces it."""

    text: str


@dataclass(frozen=True, slots=True)
class Word:
    """A piece of text n is spoken this far into the audio of n."""

    n: int
    text: str
    offset_ms: int


@dataclass(frozen=True, slots=True)
class Done:
    """Nothing more comes for n, nor for any before it."""

    n: int
    reason: Reason = "stop"
    usage: Mapping[str, int] = field(default_factory=dict)
    """What it cost, such as ``prompt_tokens`` and ``completion_tokens``."""
    tool_calls: Sequence[Mapping[str, Any]] = ()
    """With the reason ``tool_calls``: OpenAI's list, ``arguments`` being JSON text."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Something went wrong, with n or, without one, as a whole. The `Done` of n still follows."""

    n: int | None
    code: str
    message: str
    retry: bool
    """Whether asking for the same again may help."""


class Malformed(NamedTuple):
    """A message that breaks the protocol. ``reason`` labels a counter, ``detail`` is for people."""

    reason: str
    detail: str


FromMediad = (
    Start | StoppedSpeaking | Generate | Voice | frames.AudioFrame | frames.Text
) | frames.Interruption
FromService = (
    Ready | Interim | StoppedSpeaking | Word | Done | Failure | frames.AudioFrame | frames.Text
) | frames.Transcription


_TYPES: dict[type, str] = {
    Start: "mediad-start",
    Ready: "mediad-ready",
    StoppedSpeaking: "user-stopped-speaking",
    Generate: "mediad-generate",
    Voice: "mediad-voice",
    Interim: "user-transcription",
    Word: "bot-tts-text",
    Done: "mediad-done",
    Failure: "mediad-error",
}


def encode(message: FromMediad | FromService) -> bytes:
    """Return one WebSocket message."""
    match message:
        case frames.AudioFrame(pcm, rate_hz, channels):
            return frames.encode_audio(pcm, rate_hz, channels)
        case frames.Text(n, text):
            return frames.encode_text(fields.writable(text), n)
        case frames.Transcription():
            return frames.encode_transcription(*map(fields.writable, message))
        case frames.Interruption(n):
            return frames.encode_interruption(n)
    said = {name: getattr(message, name) for name in message.__slots__}
    # What says nothing is left out.
    data = {name: value for name, value in said.items() if value not in (None, "", (), {})}
    if isinstance(message, Interim):
        data["final"] = False
    elif isinstance(message, Generate):
        data["messages"] = list(message.messages)  # an empty one is a conversation, too
    id_ = str(data.get("n", 0))
    rtvi = {"label": _LABEL, "type": _TYPES[type(message)], "id": id_, "data": data}
    return frames.encode_json(json.dumps(rtvi))


def from_service(message: bytes) -> FromService | Malformed | None:
    """Read what a service sent; None for types that mediad does not know."""
    match frames.decode(message):
        case frames.Json(text):
            return _read(text, _SERVICE_TYPES, MAX_JSON)
        case frames.Text(id, text):
            return frames.Text(id, text[:MAX_TEXT])
        case frames.Transcription(text, user_id, timestamp):
            return frames.Transcription(text[:MAX_TEXT], user_id[:64], timestamp[:64])
        case frames.AudioFrame() as audio:
            return audio
        case frames.BadFrame("undecodable"):
            return Malformed("undecodable", "no Frame of frames.proto")
        case _:  # an interruption, or a frame of a later frames.proto
            return None


def from_mediad(message: bytes) -> FromMediad | Malformed | None:
    """Read what mediad sent; None for types that this version does not know."""
    match frames.decode(message):
        case frames.Json(text):
            return _read(text, _MEDIAD_TYPES, frames.MAX_MESSAGE_SIZE)
        case frames.Text() | frames.Interruption() as numbered:
            return (
                numbered
                if fields.is_n(numbered.id)
                else Malformed("bad_n", "a frame without its id")
            )
        case frames.AudioFrame() as audio:
            return audio
        case frames.BadFrame("undecodable"):
            return Malformed("undecodable", "no Frame of frames.proto")
        case _:
            return None


_Data = Mapping[str, Any]
_T = TypeVar("_T")
# From a message's type to what reads its data, and raises `BadField`.
_Readers = Mapping[str, Callable[[_Data], _T | None]]


def _read(text: str, readers: _Readers[_T], max_chars: int) -> _T | Malformed | None:
    if len(text) > max_chars:
        return Malformed("too_long", f"JSON of {len(text)} characters; at most {max_chars}")
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        return Malformed("bad_json", "the data of a MessageFrame is no JSON")
    if not isinstance(message, dict) or message.get("label") != _LABEL:
        return None  # somebody else's JSON
    type_, data = message.get("type"), message.get("data")
    reader = readers.get(type_) if isinstance(type_, str) else None
    if reader is None:
        return None
    try:
        return reader(data if isinstance(data, dict) else {})
    except fields.BadField as exc:
        return Malformed(exc.reason, f"{type_}: {exc}")


def _read_start(data: _Data) -> Start:
    role = _ROLES.get(fields.name(data, "role"))
    if role is None:
        raise fields.BadField("bad_data", "role is none of stt, llm, tts")
    return Start(
        role,
        fields.name(data, "call_id"),
        fields.name(data, "language"),
        fields.integer(data, "sample_rate", _MAX_RATE_HZ, 16_000),
        fields.name(data, "voice"),
        fields.number(data, "rate", _MAX_SPEED) or 1.0,
        fields.integer(data, "protocol", MAX_N),
    )


def _read_ready(data: _Data) -> Ready:
    return Ready(
        fields.integer(data, "sample_rate", _MAX_RATE_HZ, 0),
        fields.integer(data, "protocol", MAX_N),
    )


def _read_stopped(data: _Data) -> StoppedSpeaking:
    return StoppedSpeaking(fields.read_n(data))


def _read_own_stopped(_: _Data) -> StoppedSpeaking:
    return StoppedSpeaking()  # whatever n a service gives: the numbers are mediad's


def _read_generate(data: _Data) -> Generate:
    return Generate(
        fields.read_n(data),
        fields.objects(data, "messages", _MAX_MESSAGES),
        fields.objects(data, "tools", _MAX_MESSAGES),
    )


def _read_voice(data: _Data) -> Voice:
    rate = fields.number(data, "rate", _MAX_SPEED)
    return Voice(fields.name(data, "voice"), fields.name(data, "language"), rate)


def _read_interim(data: _Data) -> Interim | None:
    # A final one is said again by a TranscriptionFrame, which alone counts.
    final = data.get("final") is True
    return None if final else Interim(fields.text(data, "text", MAX_TEXT))


def _read_word(data: _Data) -> Word:
    text = fields.text(data, "text", MAX_TEXT)
    return Word(fields.read_n(data), text, fields.integer(data, "offset_ms", _MAX_OFFSET_MS))


def _read_done(data: _Data) -> Done:
    # What is wrong in the rest of it is left out: without its done, n would go on for ever.
    reason, usage, tool_calls = data.get("reason"), data.get("usage"), data.get("tool_calls")
    return Done(
        fields.read_n(data),
        _REASONS.get(reason, "stop") if isinstance(reason, str) else "stop",
        _usage(usage) if isinstance(usage, dict) else {},
        [call for call in tool_calls if isinstance(call, dict)][:_MAX_ENTRIES]
        if isinstance(tool_calls, list)
        else (),
    )


def _usage(usage: dict[str, Any]) -> dict[str, int]:
    counts = {
        str(what)[:64]: count for what, count in usage.items() if type(count) is int and count >= 0
    }
    return dict(list(counts.items())[:_MAX_ENTRIES])


def _read_failure(data: _Data) -> Failure:
    return Failure(
        fields.read_n(data) if data.get("n") is not None else None,
        fields.name(data, "code"),
        fields.text(data, "message", MAX_TEXT),
        data.get("retry") is True,
    )


_SERVICE_TYPES: _Readers[FromService] = {
    "mediad-ready": _read_ready,
    "mediad-done": _read_done,
    "mediad-error": _read_failure,
    "user-transcription": _read_interim,
    "user-stopped-speaking": _read_own_stopped,
    "bot-tts-text": _read_word,
}
_MEDIAD_TYPES: _Readers[FromMediad] = {
    "mediad-start": _read_start,
    "user-stopped-speaking": _read_stopped,
    "mediad-generate": _read_generate,
    "mediad-voice": _read_voice,
}
