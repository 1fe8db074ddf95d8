"""G.711 against the recommendation's segments, computed one code at a time."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from mediad.media.g711 import (
    ALAW_TABLE,
    ULAW_TABLE,
    decode_alaw,
    decode_ulaw,
    encode_alaw,
    encode_ulaw,
)

ALL_CODES = bytes(range(256))
ALL_SAMPLES = np.arange(-32_768, 32_768).astype("<i2")


def ulaw_value(code: int) -> int:
    """Return the value of a µ-law code: biased by 33, in 8 segments of 16 steps (14 bits)."""
    inverted = 255 - code
    segment, step = inverted % 128 // 16, inverted % 16
    magnitude = ((2 * step + 33) << segment) - 33
    return 4 * (-magnitude if inverted >= 128 else magnitude)


def alaw_value(code: int) -> int:
    """Return the value of an A-law code: the first two segments are alike (13 bits)."""
    plain = code ^ 0b01010101
    segment, step = plain % 128 // 16, plain % 16
    magnitude = 2 * step + 1 if segment == 0 else (2 * step + 33) << (segment - 1)
    return 8 * (magnitude if plain >= 128 else -magnitude)


def test_every_ulaw_code_has_the_recommended_value() -> None:
    assert ULAW_TABLE.tolist() == [ulaw_value(code) for code in range(256)]
    assert np.frombuffer(decode_ulaw(ALL_CODES), "<i2").tolist() == ULAW_TABLE.tolist()


def test_every_alaw_code_has_the_recommended_value() -> None:
    assert ALAW_TABLE.tolist() == [alaw_value(code) for code in range(256)]
    assert np.frombuffer(decode_alaw(ALL_CODES), "<i2").tolist() == ALAW_TABLE.tolist()


@pytest.mark.parametrize(
    ("code", "value"),
    [(0x00, -32_124), (0x80, 32_124), (0x7F, 0), (0xFF, 0), (0xFE, 8), (0x9F, 8316)],
)
def test_known_ulaw_values(code: int, value: int) -> None:
    assert np.frombuffer(decode_ulaw(bytes([code])), "<i2")[0] == value


@pytest.mark.parametrize(
    ("code", "value"), [(0xD5, 8), (0x55, -8), (0xAA, 32_256), (0x2A, -32_256), (0xD4, 24)]
)
def test_known_alaw_values(code: int, value: int) -> None:
    assert np.frombuffer(decode_alaw(bytes([code])), "<i2")[0] == value


def test_every_code_comes_back() -> None:
    assert encode_alaw(decode_alaw(ALL_CODES)) == ALL_CODES
    # 0x7f is a second zero, which is not sent.
    assert encode_ulaw(decode_ulaw(ALL_CODES)) == ALL_CODES.replace(b"\x7f", b"\xff")


@pytest.mark.parametrize(
    ("encode", "decode", "table"),
    [(encode_ulaw, decode_ulaw, ULAW_TABLE), (encode_alaw, decode_alaw, ALAW_TABLE)],
)
def test_every_sample_becomes_the_nearest_value(
    encode: Callable[[bytes], bytes], decode: Callable[[bytes], bytes], table: NDArray[np.int16]
) -> None:
    coded = np.frombuffer(decode(encode(ALL_SAMPLES.tobytes())), "<i2").astype(int)
    samples = ALL_SAMPLES.astype(int)
    nearest = np.abs(samples[:, None] - np.unique(table.astype(int))).min(axis=1)
    assert np.array_equal(np.abs(coded - samples), nearest)
    assert (np.diff(coded) >= 0).all()


def test_a_sample_on_a_decision_value_goes_to_the_smaller_magnitude() -> None:
    on_the_edge = np.array([4, -4], "<i2").tobytes()  # between 0 and 8
    assert decode_ulaw(encode_ulaw(on_the_edge)) == bytes(4)


def test_the_longest_and_the_empty_chunk() -> None:
    assert decode_ulaw(b"") == decode_alaw(b"") == encode_ulaw(b"") == encode_alaw(b"") == b""
    assert len(decode_ulaw(bytes(65_535))) == 131_070
