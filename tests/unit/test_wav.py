"""WAV files in every shape people have them."""

import wave
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from mediad.wav import MAX_WAV_S, Wav, WavError, read_wav, write_wav


def wav_file(path: Path, raw: bytes, width: int, channels: int = 1, rate_hz: int = 8000) -> Path:
    """Write raw frames as they are."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate_hz)
        file.writeframes(raw)
    return path


def test_what_was_written_is_read(tmp_path: Path) -> None:
    pcm = np.arange(-100, 100, dtype="<i2").tobytes()
    write_wav(tmp_path / "a.wav", 22050, pcm)
    wav = read_wav(tmp_path / "a.wav")
    assert wav == Wav(pcm, 22050)
    assert wav.duration_s == pytest.approx(200 / 22050)


def test_wav_in_memory_is_read(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", 8000, bytes(320))
    assert read_wav(BytesIO((tmp_path / "a.wav").read_bytes())) == Wav(bytes(320), 8000)
    with pytest.raises(WavError):
        read_wav(BytesIO(b"RIFF"))


def test_two_channels_are_written_side_by_side_and_read_as_their_mean(tmp_path: Path) -> None:
    left, right = (np.full(size, level, "<i2").tobytes() for size, level in ((4, 100), (2, 300)))
    write_wav(tmp_path / "a.wav", 8000, left, right)
    with wave.open(str(tmp_path / "a.wav")) as file:
        assert (file.getnchannels(), file.getnframes()) == (2, 4)
    assert np.frombuffer(read_wav(tmp_path / "a.wav").pcm, "<i2").tolist() == [200, 200, 50, 50]


@pytest.mark.parametrize(
    ("width", "raw"),
    [
        (1, bytes([128, 255, 0])),
        (2, b"\x00\x00\x00\x7f\x00\x80"),
        (3, b"\x00\x00\x00\xff\x00\x7f\x00\x00\x80"),
        (4, b"\x00\x00\x00\x00\xff\xff\x00\x7f\x00\x00\x00\x80"),
    ],
)
def test_every_width_becomes_16_bits(tmp_path: Path, width: int, raw: bytes) -> None:
    pcm = read_wav(wav_file(tmp_path / "a.wav", raw, width)).pcm
    assert np.frombuffer(pcm, "<i2").tolist() == [0, 0x7F00, -32768]


@pytest.mark.parametrize("content", [b"", b"RIFF", b"ID3\x03 an mp3 file, not a wave file at all"])
def test_what_is_no_wav_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    with pytest.raises(WavError, match=r"a\.wav is no uncompressed WAV"):
        read_wav(path)


def test_too_many_channels_and_too_long_a_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WavError, match="9 channels"):
        read_wav(wav_file(tmp_path / "a.wav", bytes(18), 2, channels=9))
    with pytest.raises(WavError, match="longer than 600 s"):
        read_wav(wav_file(tmp_path / "b.wav", bytes(2 * (MAX_WAV_S + 1)), 2, rate_hz=1))


def test_a_missing_file_is_the_systems_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_wav(tmp_path / "none.wav")
