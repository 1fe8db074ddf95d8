"""WAV files to and from s16le PCM: what people give to a call and what they get from it."""

import wave
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from mediad.media.pcm import mono

__all__ = ["MAX_WAV_S", "Wav", "WavError", "read_wav", "write_wav"]

MAX_WAV_S = 600
"""The longest file read, in seconds: it is held in memory whole."""

_MAX_CHANNELS = 8


class WavError(Exception):
    """The file is no WAV that can be read; the message says why."""


class Wav(NamedTuple):
    """The content of a WAV file, mixed to one channel: s16le PCM and its rate."""

    pcm: bytes
    rate_hz: int

    @property
    def duration_s(self) -> float:
        """How long it plays, in seconds."""
        return len(self.pcm) / (2 * self.rate_hz)


def read_wav(source: Path | BinaryIO) -> Wav:
    """Read an uncompressed WAV of 8, 16, 24 or 32 bits, of any rate, mono or more channels.

    Raises:
        OSError: If the file cannot be read.
        WavError: If it is no such file, or longer than `MAX_WAV_S`.
    """
    name = source if isinstance(source, Path) else "it"
    try:
        with wave.open(str(source) if isinstance(source, Path) else source, "rb") as file:
            rate_hz, channels = file.getframerate(), file.getnchannels()
            if rate_hz == 0 or channels > _MAX_CHANNELS:
                raise WavError(f"{name}: {rate_hz} Hz, {channels} channels")
            if file.getnframes() > MAX_WAV_S * rate_hz:
                raise WavError(f"{name}: longer than {MAX_WAV_S} s")
            raw, width = file.readframes(file.getnframes()), file.getsampwidth()
    except (wave.Error, EOFError) as exc:
        reason = str(exc) or "the file ends too early"
        raise WavError(f"{name} is no uncompressed WAV file: {reason}") from exc
    pcm = _to_16_bits(raw, width)
    return Wav(mono(pcm[: len(pcm) // (2 * channels) * 2 * channels], channels), rate_hz)


def _to_16_bits(raw: bytes, width: int) -> bytes:
    """Keep the upper 16 bits of each sample. WAV has 8 bits unsigned, wider ones signed."""
    if width == 1:
        return ((np.frombuffer(raw, np.uint8).astype(np.int16) - 128) << 8).astype("<i2").tobytes()
    samples = np.frombuffer(raw[: len(raw) // width * width], np.uint8).reshape(-1, width)
    return samples[:, width - 2 :].tobytes()


def write_wav(path: Path, rate_hz: int, *channels: bytes) -> None:
    """Write s16le PCM, one ``bytes`` a channel; the shorter ones end in silence.

    Raises:
        OSError: If the file cannot be written.
    """
    size = max(map(len, channels)) // 2
    padded = [np.frombuffer(pcm[: size * 2].ljust(size * 2, b"\0"), "<i2") for pcm in channels]
    # Opened here: wave leaves a broken writer behind where it cannot open the file itself.
    with path.open("wb") as raw, wave.open(raw, "wb") as file:
        file.setnchannels(len(channels))
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(np.stack(padded, axis=1).tobytes())
