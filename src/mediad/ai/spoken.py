"""A spoken text as the cache keeps it: ready to play, with where its words are. Pure.

A value is the length of a JSON object (4 bytes, big endian), the object, and a frame with all the
audio, mono, at the rate of the line that is to play it: a hit costs it no resampling.
"""

import hashlib
import json
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

from mediad.media.pcm import mono, without_riff
from mediad.media.resample import SAMPLE_RATES, Resampler
from mediad.wire import frames
from mediad.wire.frames import AudioFrame

__all__ = ["MAX_VALUE_BYTES", "Item", "Said", "SpeechKey", "normalise", "pack", "unpack"]

MAX_VALUE_BYTES = 1_000_000
"""The largest value that is kept: a minute at 8 kHz."""

_MAX_WORDS = 10_000
_MAX_CHANNELS = 8
_CHUNK = 3_200  # bytes resampled in one go, which no other thread interrupts: 0.1 ms


class Said(NamedTuple):
    """A piece of the text begins so far into the audio."""

    text: str
    offset_ms: int


Item = bytes | Said
"""A part of speech: a frame of audio as it came, or where a word is."""


class SpeechKey(NamedTuple):
    """What makes two pieces of speech the same."""

    provider: str
    """The address of the service: another may have another voice of this name."""
    voice: str
    language: str
    rate: float
    """How fast it is spoken."""
    rate_hz: int
    """Of the line it is kept for."""
    text: str
    """As `normalise` has it."""

    def digest(self) -> str:
        """Return a hash that is as good as the key."""
        parts = json.dumps([*self[:5], "s16le", self.text])
        return hashlib.sha256(parts.encode()).hexdigest()


def normalise(text: str) -> str:
    """Return the text in the form NFC, each run of white space as one blank; case is kept."""
    return unicodedata.normalize("NFC", " ".join(text.split()))


def pack(items: Sequence[Item], rate_hz: int) -> bytes | None:
    """Return the value for a line of this rate; None for what cannot be kept: no audio, audio of
    several formats, too much. Takes some milliseconds: not for the loop that moves audio.
    """
    parts = [frames.decode(item) for item in items if isinstance(item, bytes)]
    audio = [part for part in parts if isinstance(part, AudioFrame)]
    formats = {(part.sample_rate, part.num_channels) for part in audio}
    if len(formats) != 1:
        return None
    ((source_hz, channels),) = formats
    if source_hz not in SAMPLE_RATES or not 1 <= channels <= _MAX_CHANNELS:
        return None
    pcm = b"".join(without_riff(part.audio) for part in audio)
    pcm = mono(pcm[: len(pcm) - len(pcm) % (2 * channels)], channels)
    resampler = Resampler(source_hz, rate_hz)
    chunks = (pcm[at : at + _CHUNK] for at in range(0, len(pcm), _CHUNK))
    message = frames.encode_audio(b"".join(map(resampler.process, chunks)), rate_hz)
    words = [item for item in items if isinstance(item, Said)][:_MAX_WORDS]
    head = json.dumps({"words": words}).encode()
    value = len(head).to_bytes(4, "big") + head + message
    return value if pcm and len(value) <= MAX_VALUE_BYTES else None


def unpack(value: bytes) -> list[Item] | None:
    """Return what a value holds, words first; None if it is not one of ours."""
    size = int.from_bytes(value[:4], "big")
    message = value[4 + size :]
    try:
        words = json.loads(value[4 : 4 + size])["words"]
        items: list[Item] = [Said(str(text), int(offset_ms)) for text, offset_ms in words]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    if not message:
        return None
    return [*items, message]
