"""Linear PCM as services send it: channels mixed to one, a WAV header taken off."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["mono", "without_riff"]


def mono(pcm: bytes, num_channels: int) -> bytes:
    """Mix interleaved s16le channels to one by their mean, rounded down. ``pcm`` holds whole
    samples.
    """
    if num_channels == 1:
        return pcm
    samples = np.frombuffer(pcm, "<i2").reshape(-1, num_channels)
    mixed: NDArray[np.int32] = samples.sum(axis=1, dtype=np.int32) // num_channels
    return mixed.astype("<i2").tobytes()


def without_riff(audio: bytes) -> bytes:
    """Take off a RIFF/WAVE header; Pipecat's client transport puts one into every message.

    Everything after the header of the ``data`` chunk is audio, whatever size it names. What only
    looks like a header, without a ``data`` chunk, is returned as it is.
    """
    if audio[:4] != b"RIFF" or audio[8:12] != b"WAVE":
        return audio
    at = 12
    while at + 8 <= len(audio):
        if audio[at : at + 4] == b"data":
            return audio[at + 8 :]
        size = int.from_bytes(audio[at + 4 : at + 8], "little")
        at += 8 + size + size % 2  # chunks are padded to an even size
    return audio
