"""Where speech that was stopped may go on: at a quiet place shortly before."""

import numpy as np

__all__ = ["LOOK_BACK_S", "nearest_quiet"]

LOOK_BACK_S = 0.200

_WINDOW_S = 0.010
_AS_QUIET = 2.0  # in amplitude: 6 dB above the quietest counts as quiet too


def nearest_quiet(pcm: bytes, rate_hz: int) -> int:
    """Return how many bytes before the end of s16le to begin again, at most 200 ms.

    Of the windows of 10 ms it takes the last one that is about as quiet as the quietest, and in it
    the sample nearest to zero.
    """
    samples = np.frombuffer(pcm, "<i2")[-round(rate_hz * LOOK_BACK_S) :].astype(np.int32)
    size = round(rate_hz * _WINDOW_S)
    count = len(samples) // size
    if count == 0:
        return 0
    windows = np.abs(samples[len(samples) - count * size :]).reshape(count, size)
    loudness = windows.mean(axis=1)
    window = int(np.flatnonzero(loudness <= _AS_QUIET * loudness.min())[-1])
    sample = window * size + int(windows[window].argmin())
    return 2 * (count * size - sample)
