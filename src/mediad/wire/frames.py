"""Pipecat's protobuf frames: bytes to messages and back, one WebSocket message a frame.

``proto/frames.proto`` is the contract; ``frames_pb2`` is generated from it into a private
descriptor pool. Audio is s16le PCM, channels interleaved. The 20 ms of 16 kHz that go out are 640
bytes in a message of 651.
"""

from typing import NamedTuple

from google.protobuf.message import DecodeError

from mediad.wire.frames_pb2 import Frame

__all__ = [
    "MAX_MESSAGE_SIZE",
    "AgentMessage",
    "AudioFrame",
    "BadFrame",
    "Interruption",
    "Json",
    "Text",
    "Transcription",
    "decode",
    "encode_audio",
    "encode_interruption",
    "encode_json",
    "encode_text",
    "encode_transcription",
]

MAX_MESSAGE_SIZE = 1 << 20
"""The largest WebSocket message taken, in bytes, fragments put together."""


class AudioFrame(NamedTuple):
    """Audio to play."""

    audio: bytes
    sample_rate: int
    num_channels: int


class Text(NamedTuple):
    """A text, whole or a delta."""

    id: int
    text: str


class Transcription(NamedTuple):
    """What a person said."""

    text: str
    user_id: str
    timestamp: str


class Json(NamedTuple):
    """A message whose content is JSON, mostly RTVI (see ``wire.rtvi``)."""

    data: str


class Interruption(NamedTuple):
    """What is playing is no longer wanted."""

    id: int


class BadFrame(NamedTuple):
    """A message that could not be read, or audio that cannot be played. ``reason`` labels a
    counter.
    """

    reason: str


AgentMessage = Text | Transcription | Json | Interruption | BadFrame


def decode(message: bytes) -> AudioFrame | AgentMessage:
    """Read one WebSocket message. What is no frame of the contract comes back as a `BadFrame`."""
    try:
        frame = Frame.FromString(message)
    except DecodeError:
        return BadFrame("undecodable")
    match frame.WhichOneof("frame"):
        case "audio":
            audio = frame.audio
            return AudioFrame(audio.audio, audio.sample_rate, audio.num_channels)
        case "text":
            return Text(frame.text.id, frame.text.text)
        case "transcription":
            said = frame.transcription
            return Transcription(said.text, said.user_id, said.timestamp)
        case "message":
            return Json(frame.message.data)
        case "interruption":
            return Interruption(frame.interruption.id)
        case _:
            return BadFrame("unknown_frame")


def encode_audio(pcm: bytes, sample_rate: int, num_channels: int = 1) -> bytes:
    """Return an audio frame. No id and no name: a stock agent does not read them."""
    frame = Frame()
    frame.audio.audio = pcm
    frame.audio.sample_rate = sample_rate
    frame.audio.num_channels = num_channels
    return frame.SerializeToString()


def encode_text(text: str, id: int = 0) -> bytes:
    """Return a text frame."""
    frame = Frame()
    frame.text.id = id
    frame.text.text = text
    return frame.SerializeToString()


def encode_transcription(text: str, user_id: str = "", timestamp: str = "") -> bytes:
    """Return a transcription frame."""
    frame = Frame()
    frame.transcription.text = text
    frame.transcription.user_id = user_id
    frame.transcription.timestamp = timestamp
    return frame.SerializeToString()


def encode_json(data: str) -> bytes:
    """Return a message frame whose content is the JSON text ``data``."""
    frame = Frame()
    frame.message.data = data
    return frame.SerializeToString()


def encode_interruption(id: int = 0) -> bytes:
    """Return an interruption frame."""
    frame = Frame()
    frame.interruption.id = id
    return frame.SerializeToString()
