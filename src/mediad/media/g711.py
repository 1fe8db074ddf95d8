"""G.711 µ-law and A-law, 64 kbit/s (ITU-T G.711, 1988). 1 byte a sample, to and from 16-bit PCM.

Stateless. Expansion is bit-exact; compression takes the nearest value of the expansion table, with
the decision values of the recommendation.
"""

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "ALAW_TABLE",
    "ULAW_TABLE",
    "decode_alaw",
    "decode_ulaw",
    "encode_alaw",
    "encode_ulaw",
]

Int16 = NDArray[np.int16]


def _ulaw_table() -> Int16:
    """Return the 256 values of table 2a: sign, 3 bits of segment, 4 of step, all inverted; 14 bits,
    scaled to 16.
    """
    code = ~np.arange(256) & 0xFF
    segment, step = code >> 4 & 7, code & 0x0F
    magnitude = ((step * 2 + 33) << segment) - 33
    return (np.where(code & 0x80, -magnitude, magnitude) * 4).astype(np.int16)


def _alaw_table() -> Int16:
    """Return the 256 values of table 1a, 13 bits scaled to 16; every second bit is inverted."""
    code = np.arange(256) ^ 0x55
    segment, step = code >> 4 & 7, code & 0x0F
    magnitude = np.where(segment == 0, step * 2 + 1, (step * 2 + 33) << np.maximum(segment - 1, 0))
    return (np.where(code & 0x80, magnitude, -magnitude) * 8).astype(np.int16)


def _encode_table(decoded: Int16) -> bytes:
    """Return the code of each 16-bit sample, indexed by its unsigned value."""
    # From the back: of the two codes of zero in µ-law the positive one, 0xff, is the one to send.
    values, index = np.unique(decoded[::-1], return_index=True)
    codes = 255 - index
    halves = (values[1:].astype(np.int32) + values[:-1]) / 2
    samples = np.arange(65536, dtype=np.uint16).view(np.int16)
    # A sample on a decision value goes to the smaller magnitude.
    nearest = np.where(
        samples >= 0,
        np.searchsorted(halves, samples, side="left"),
        np.searchsorted(halves, samples, side="right"),
    )
    return codes[nearest].astype(np.uint8).tobytes()


ULAW_TABLE = _ulaw_table()
ALAW_TABLE = _alaw_table()
_ULAW_OF_SAMPLE = np.frombuffer(_encode_table(ULAW_TABLE), np.uint8)
_ALAW_OF_SAMPLE = np.frombuffer(_encode_table(ALAW_TABLE), np.uint8)


def decode_ulaw(ulaw: bytes) -> bytes:
    """Expand µ-law to s16le PCM (2 bytes a sample)."""
    return ULAW_TABLE[np.frombuffer(ulaw, np.uint8)].tobytes()


def decode_alaw(alaw: bytes) -> bytes:
    """Expand A-law to s16le PCM (2 bytes a sample)."""
    return ALAW_TABLE[np.frombuffer(alaw, np.uint8)].tobytes()


def encode_ulaw(pcm: bytes) -> bytes:
    """Compress s16le PCM to µ-law."""
    return _ULAW_OF_SAMPLE[np.frombuffer(pcm, np.uint16)].tobytes()


def encode_alaw(pcm: bytes) -> bytes:
    """Compress s16le PCM to A-law."""
    return _ALAW_OF_SAMPLE[np.frombuffer(pcm, np.uint16)].tobytes()
