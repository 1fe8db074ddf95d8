"""Tones a caller hears when there is nobody to speak: soft, and made once. 16 kHz s16le mono."""

import numpy as np

__all__ = ["RATE_HZ", "unavailable_tone", "waiting_tone"]

RATE_HZ = 16_000

_FADE_S = 0.010  # a tone that starts at full level clicks


def _beep(frequency_hz: float, duration_s: float, level_db: float) -> bytes:
    time = np.arange(int(duration_s * RATE_HZ)) / RATE_HZ
    fade = np.minimum(1.0, np.minimum(time, duration_s - time) / _FADE_S)
    tone = 32767 * 10 ** (level_db / 20) * np.sin(2 * np.pi * frequency_hz * time) * fade
    return np.rint(tone).astype("<i2").tobytes()


def _silence(duration_s: float) -> bytes:
    return bytes(int(duration_s * RATE_HZ) * 2)


def waiting_tone() -> bytes:
    """Return 2 s of "please wait": a soft beep of 440 Hz, then silence."""
    return _beep(440, 0.2, -26) + _silence(1.8)


def unavailable_tone() -> bytes:
    """Return 1.5 s of "cannot be reached": three beeps, falling."""
    return b"".join(_beep(hz, 0.3, -20) + _silence(0.2) for hz in (620, 540, 480))
