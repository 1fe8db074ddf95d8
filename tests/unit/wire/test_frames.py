"""Pipecat's frames: round trips, and what a stock protobuf makes of them."""

import pytest
from google.protobuf import descriptor_pool
from hypothesis import given
from hypothesis import strategies as st

from mediad.wire import frames
from mediad.wire.frames import (
    AudioFrame,
    BadFrame,
    Interruption,
    Json,
    Text,
    Transcription,
)
from mediad.wire.frames_pb2 import Frame


def test_20_ms_of_audio_are_651_bytes() -> None:
    message = frames.encode_audio(bytes(640), 16_000)
    assert len(message) == 651
    assert message[:6] == b"\x12\x88\x05\x1a\x80\x05"
    assert message[-5:] == b"\x20\x80\x7d\x28\x01"


@given(st.binary(max_size=2000), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_audio_comes_back(pcm: bytes, sample_rate: int, num_channels: int) -> None:
    message = frames.encode_audio(pcm, sample_rate, num_channels)
    assert frames.decode(message) == AudioFrame(pcm, sample_rate, num_channels)


@given(st.text(), st.integers(0, 2**64 - 1))
def test_texts_come_back(text: str, id: int) -> None:
    assert frames.decode(frames.encode_text(text, id)) == Text(id, text)
    assert frames.decode(frames.encode_json(text)) == Json(text)
    assert frames.decode(frames.encode_interruption(id)) == Interruption(id)
    said = frames.encode_transcription(text, "caller", "2026-01-01T00:00:00Z")
    assert frames.decode(said) == Transcription(text, "caller", "2026-01-01T00:00:00Z")


def test_a_stock_protobuf_reads_what_is_sent() -> None:
    frame = Frame.FromString(frames.encode_audio(b"\1\2", 16_000))
    assert frame.WhichOneof("frame") == "audio"
    assert (frame.audio.audio, frame.audio.sample_rate) == (b"\1\2", 16_000)
    assert (frame.audio.id, frame.audio.name, frame.audio.HasField("pts")) == (0, "", False)


def test_fields_that_mediad_does_not_use_are_ignored() -> None:
    frame = Frame()
    frame.audio.id, frame.audio.name, frame.audio.pts = 7, "OutputAudioRawFrame#1", 99
    frame.audio.audio, frame.audio.sample_rate, frame.audio.num_channels = b"\1\2", 24_000, 1
    assert frames.decode(frame.SerializeToString()) == AudioFrame(b"\1\2", 24_000, 1)


def test_fields_of_later_versions_are_ignored() -> None:
    later = b"\xfa\x01\x03new"  # field 31
    message = frames.encode_text("hm") + later
    assert frames.decode(message) == Text(0, "hm")
    assert frames.decode(later) == BadFrame("unknown_frame")


@pytest.mark.parametrize("message", [b"\xff", b"\x12\x05\x1a", b"\x0a\x03\x1a\x01\xff", b"hello"])
def test_what_is_no_protobuf_is_undecodable(message: bytes) -> None:
    assert frames.decode(message) == BadFrame("undecodable")


def test_an_empty_message_is_an_unknown_frame() -> None:
    assert frames.decode(b"") == BadFrame("unknown_frame")


def test_a_cut_message_never_raises() -> None:
    message = frames.encode_transcription("said", "caller", "now")
    for end in range(1, len(message)):
        assert frames.decode(message[:end]) == BadFrame("undecodable")


@given(st.binary(max_size=100))
def test_any_bytes_are_read_or_refused(message: bytes) -> None:
    known = AudioFrame | Text | Transcription | Json | Interruption | BadFrame
    assert isinstance(frames.decode(message), known)


def test_the_default_pool_stays_free_for_pipecats_own_copy() -> None:
    assert Frame.DESCRIPTOR.file.pool is not descriptor_pool.Default()
