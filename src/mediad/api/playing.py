"""Audio that somebody has the API play on a call: a WAV file becomes what a call's process plays
without more ado. Takes up to a second of CPU: to be called in a thread.
"""

from pathlib import Path
from typing import BinaryIO, NamedTuple

from mediad.media.resample import SAMPLE_RATES, Resampler
from mediad.wav import Wav, WavError, read_wav
from mediad.wire import frames

__all__ = ["MAX_BYTES", "MAX_PLAY_S", "Playable", "read_playable"]

MAX_BYTES = 2 << 20
"""The largest file, in bytes."""

MAX_PLAY_S = 30
"""The longest audio played at once, in seconds: the media loop takes it in one go, under 1 ms."""

_KEPT_RATES = (8000, 16000)  # a telephone's; the call's line makes one of the other
_RATE_HZ = 16_000


class Playable(NamedTuple):
    """Audio as a call takes it."""

    frame: bytes
    """An audio frame of the contract with agents."""
    duration_ms: int


def read_playable(source: Path | BinaryIO) -> Playable:
    """Read a WAV file.

    Raises:
        OSError: If the file cannot be read.
        WavError: If it is no such file, too long, or of an unusual rate.
    """
    wav = read_wav(source)
    if wav.duration_s > MAX_PLAY_S:
        raise WavError(f"it plays {wav.duration_s:.0f} s, and {MAX_PLAY_S} s are the most")
    if wav.rate_hz not in SAMPLE_RATES:
        raise WavError(f"it has {wav.rate_hz} samples a second")
    if not wav.pcm:
        raise WavError("there is no sound in it")
    duration_ms = round(wav.duration_s * 1000)
    if wav.rate_hz not in _KEPT_RATES:
        wav = _resampled(wav)
    return Playable(frames.encode_audio(wav.pcm, wav.rate_hz), duration_ms)


def _resampled(wav: Wav) -> Wav:
    resampler = Resampler(wav.rate_hz, _RATE_HZ)
    step = 2 * wav.rate_hz  # a second at a time: what it needs meanwhile stays small
    pieces = [resampler.process(wav.pcm[at : at + step]) for at in range(0, len(wav.pcm), step)]
    return Wav(b"".join(pieces), _RATE_HZ)
