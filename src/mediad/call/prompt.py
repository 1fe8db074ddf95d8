"""What the caller hears when nobody can speak: a WAV file of the settings, or a tone."""

from pathlib import Path

from mediad.errors import ConfigError
from mediad.media import tone
from mediad.media.resample import SAMPLE_RATES
from mediad.wav import WavError, read_wav
from mediad.wire import frames

__all__ = ["load_prompt"]


def load_prompt(path: Path | None, setting: str) -> bytes:
    """Return an audio frame as agents send it; without a path, of a tone.

    Args:
        path: The file.
        setting: Where it comes from, as ``[ai] unavailable_prompt``.

    Raises:
        ConfigError: If it cannot be read, or has a rate that is not played.
    """
    if path is None:
        return frames.encode_audio(tone.unavailable_tone(), tone.RATE_HZ)
    try:
        wav = read_wav(path)
    except (OSError, WavError) as exc:
        raise ConfigError(f"{setting}: {exc}") from exc
    if wav.rate_hz not in SAMPLE_RATES:
        raise ConfigError(f"{setting}: {path} has {wav.rate_hz} samples a second")
    return frames.encode_audio(wav.pcm, wav.rate_hz)
