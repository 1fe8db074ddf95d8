"""Channels to one, and WAV headers."""

import struct

import numpy as np
import pytest

from mediad.media.pcm import mono, without_riff

FORMAT_CHUNK = b"fmt \x10\0\0\0" + bytes(16)


def test_one_channel_is_returned_as_it_is() -> None:
    pcm = b"\1\2\3\4"
    assert mono(pcm, 1) is pcm


def test_stereo_becomes_the_mean_rounded_down() -> None:
    pcm = struct.pack("<8h", 1, 2, -1, -2, 32_767, 32_767, -32_768, -32_768)
    assert struct.unpack("<4h", mono(pcm, 2)) == (1, -2, 32_767, -32_768)


@pytest.mark.parametrize("num_channels", [3, 8])
def test_many_channels_become_the_mean(num_channels: int) -> None:
    channels = np.random.default_rng(1).integers(
        -32_768, 32_767, (50, num_channels), dtype=np.int16
    )
    expected = [sum(map(int, row)) // num_channels for row in channels]
    assert np.frombuffer(mono(channels.tobytes(), num_channels), "<i2").tolist() == expected


def test_nothing_mixes_to_nothing() -> None:
    assert mono(b"", 2) == b""


@pytest.mark.parametrize("extra", [b"", b"LIST\4\0\0\0abcd", b"LIST\3\0\0\0abc\0"])
@pytest.mark.parametrize("size", [0, 4, 0xFFFFFFFF])
def test_all_after_the_data_chunks_header_is_audio(extra: bytes, size: int) -> None:
    header = b"RIFF\0\0\0\0WAVE" + FORMAT_CHUNK + extra + b"data" + struct.pack("<I", size)
    assert without_riff(header + b"\1\2\3\4") == b"\1\2\3\4"
    assert without_riff(header) == b""


@pytest.mark.parametrize(
    "audio",
    [
        b"",
        b"RIFF",
        b"RIFF\0\0\0\0WAVX" + FORMAT_CHUNK + b"data\0\0\0\0",
        b"XIFF\0\0\0\0WAVE" + FORMAT_CHUNK + b"data\0\0\0\0",
        b"RIFF\0\0\0\0WAVE" + FORMAT_CHUNK,
        b"RIFF\0\0\0\0WAVE" + FORMAT_CHUNK + b"data\0\0\0",
        b"RIFF\0\0\0\0WAVELIST\xff\xff\xff\xffdata\0\0\0\0",
    ],
)
def test_what_only_looks_like_a_header_stays(audio: bytes) -> None:
    assert without_riff(audio) == audio
