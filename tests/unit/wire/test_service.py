"""The messages between mediad and a service: there and back, and what else may come."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediad.wire import frames, service
from mediad.wire.frames import AudioFrame, Interruption, Text, Transcription
from mediad.wire.service import (
    MAX_N,
    Done,
    Failure,
    FromMediad,
    FromService,
    Generate,
    Interim,
    Malformed,
    Ready,
    Start,
    StoppedSpeaking,
    Voice,
    Word,
)


def rtvi(type_: Any, data: Any = None, label: str = "rtvi-ai") -> bytes:
    """Return a message as a peer sends it."""
    return frames.encode_json(
        json.dumps({"label": label, "type": type_, "id": "1", "data": data}),
    )


CALL = {"id": "call_1", "type": "function", "function": {"name": "hang_up", "arguments": "{}"}}


@pytest.mark.parametrize(
    "message",
    [
        Start("stt", "a-call", "en-US"),
        Start("tts", "a-call", "de-DE", 8000, "thorsten", 1.25, 2),
        StoppedSpeaking(7),
        Generate(1, [{"role": "user", "content": "Grüß Gott 👋"}]),
        Generate(MAX_N, [], [{"type": "function", "function": {"name": "hang_up"}}]),
        Voice("thorsten", "de-DE", 0.5),
        Voice(language="de-DE"),
        AudioFrame(b"\0\1", 16_000, 1),
        Text(3, "Say this."),
        Interruption(3),
    ],
)
def test_what_mediad_says_comes_back(message: FromMediad) -> None:
    read = service.from_mediad(service.encode(message))
    assert _plain(read) == _plain(message)


@pytest.mark.parametrize(
    "message",
    [
        Ready(),
        Ready(24_000, 2),
        Interim("so f"),
        StoppedSpeaking(),
        Word(3, "Say", 0),
        Word(3, "this.", 280),
        Done(3),
        Done(3, "cancelled"),
        Done(3, "length", {"prompt_tokens": 12}),
        Done(3, "tool_calls", {}, [CALL]),
        Failure(3, "http_503", "out of order", True),
        Failure(None, "bad_key", "who are you?", False),
        AudioFrame(b"\0\1", 24_000, 1),
        Text(0, "a delta "),
        Transcription("yes", "caller", "2026-01-01T00:00:00Z"),
    ],
)
def test_what_a_service_says_comes_back(message: FromService) -> None:
    read = service.from_service(service.encode(message))
    assert _plain(read) == _plain(message)


def _plain(message: object) -> object:
    """Let lists and tuples be the same."""
    return repr(message).replace("()", "[]")


def test_every_message_of_json_is_rtvi_with_an_id() -> None:
    frame = frames.decode(service.encode(Done(3)))
    assert isinstance(frame, frames.Json)
    assert json.loads(frame.data) == {
        "label": "rtvi-ai",
        "type": "mediad-done",
        "id": "3",
        "data": {"n": 3, "reason": "stop"},
    }


@pytest.mark.parametrize(
    "message",
    [
        rtvi("metrics", {"ttfb": []}),
        rtvi("mediad-done", {"n": 1}, label="other"),
        rtvi(None),
        rtvi(["mediad-done"]),
        rtvi("user-transcription", {"text": "the final again", "final": True}),
        frames.encode_json("[]"),
        frames.encode_json("null"),
        frames.encode_interruption(3),
        b"",
        b"\xfa\x01\x03new",  # a frame of a later version
    ],
)
def test_what_mediad_does_not_know_is_passed_over(message: bytes) -> None:
    assert service.from_service(message) is None


@pytest.mark.parametrize(
    "message",
    [rtvi("client-ready", {}), rtvi("mediad-done", {"n": 1}), frames.encode_transcription("x")],
)
def test_what_a_service_does_not_know_is_passed_over(message: bytes) -> None:
    assert service.from_mediad(message) is None


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"\xff\xfe", "undecodable"),
        (frames.encode_json("{"), "bad_json"),
        (frames.encode_json("[" * 10_000), "bad_json"),
        (frames.encode_json("x" * (service.MAX_JSON + 1)), "too_long"),
        (rtvi("mediad-ready", {}), "bad_data"),
        (rtvi("mediad-ready", None), "bad_data"),
        (rtvi("mediad-ready", {"protocol": "1"}), "bad_data"),
        (rtvi("mediad-ready", {"protocol": True}), "bad_data"),
        (rtvi("mediad-ready", {"protocol": 1, "sample_rate": 1e9}), "bad_data"),
        (rtvi("mediad-ready", {"protocol": 1, "sample_rate": float("nan")}), "bad_data"),
        (rtvi("mediad-done", {}), "bad_n"),
        (rtvi("mediad-done", {"n": 0}), "bad_n"),
        (rtvi("mediad-done", {"n": -1}), "bad_n"),
        (rtvi("mediad-done", {"n": 1.0}), "bad_n"),
        (rtvi("mediad-done", {"n": "1"}), "bad_n"),
        (rtvi("mediad-done", {"n": True}), "bad_n"),
        (rtvi("mediad-done", {"n": MAX_N + 1}), "bad_n"),
        (rtvi("bot-tts-text", {"n": 1, "offset_ms": 1}), "bad_data"),
        (rtvi("bot-tts-text", {"n": 1, "text": "x"}), "bad_data"),
        (rtvi("bot-tts-text", {"n": 1, "text": "x", "offset_ms": -1}), "bad_data"),
        (rtvi("user-transcription", {"final": False}), "bad_data"),
        (rtvi("mediad-error", {"n": "x", "message": ""}), "bad_n"),
        (rtvi("mediad-error", {"n": 1, "code": "x" * 300, "message": ""}), "bad_data"),
    ],
)
def test_what_a_service_says_wrong_is_a_value(message: bytes, reason: str) -> None:
    read = service.from_service(message)
    assert isinstance(read, Malformed)
    assert read.reason == reason
    assert read.detail


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"\xff\xfe", "undecodable"),
        (frames.encode_text("without a number"), "bad_n"),
        (frames.encode_interruption(), "bad_n"),
        (rtvi("mediad-start", {"protocol": 1, "role": "vad"}), "bad_data"),
        (rtvi("mediad-start", {"role": "stt"}), "bad_data"),
        (rtvi("user-stopped-speaking", {}), "bad_n"),
        (rtvi("mediad-generate", {"n": 1, "messages": "hello"}), "bad_data"),
        (rtvi("mediad-generate", {"n": 1, "messages": ["hello"]}), "bad_data"),
        (rtvi("mediad-generate", {"n": 1, "messages": [{}] * 2001}), "bad_data"),
        (rtvi("mediad-voice", {"voice": 7}), "bad_data"),
    ],
)
def test_what_mediad_says_wrong_is_a_value(message: bytes, reason: str) -> None:
    read = service.from_mediad(message)
    assert isinstance(read, Malformed)
    assert read.reason == reason


def test_a_done_is_never_lost_for_what_stands_beside_its_n() -> None:
    data = {
        "n": 3,
        "reason": "bored",
        "usage": {"a": -1, "b": "x", "c": 2},
        "tool_calls": [7, CALL],
    }
    assert service.from_service(rtvi("mediad-done", data)) == Done(3, "stop", {"c": 2}, [CALL])
    data = {"n": 3, "reason": [], "usage": 7, "tool_calls": 7}
    assert service.from_service(rtvi("mediad-done", data)) == Done(3)


def test_numbers_of_a_service_are_not_believed_at_the_end_of_a_turn() -> None:
    assert service.from_service(rtvi("user-stopped-speaking", {"n": 7})) == StoppedSpeaking(None)


def test_texts_are_cut() -> None:
    long = "x" * (service.MAX_TEXT + 1)
    assert service.from_service(service.encode(Interim(long))) == Interim(long[:-1])
    assert service.from_service(service.encode(Text(0, long))) == Text(0, long[:-1])
    said = service.from_service(service.encode(Transcription(long, long, long)))
    assert isinstance(said, Transcription)
    assert (said.text, len(said.user_id), len(said.timestamp)) == (long[:-1], 64, 64)


def test_a_conversation_may_be_longer_than_what_a_service_says() -> None:
    messages = [{"role": "user", "content": "x" * service.MAX_JSON}]
    read = service.from_mediad(service.encode(Generate(1, messages)))
    assert read == Generate(1, messages, [])


def test_half_a_surrogate_pair_can_be_written() -> None:
    message = frames.encode_json(
        '{"label": "rtvi-ai", "type": "user-transcription", "data": {"text": "a\\ud800b"}}'
    )
    assert service.from_service(message) == Interim("a?b")
    assert service.from_service(service.encode(Text(0, "a\ud800b"))) == Text(0, "a?b")
    conversation = Generate(1, [{"role": "user", "content": "a\ud800b"}])
    assert isinstance(service.from_mediad(service.encode(conversation)), Generate)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)
FIELDS = st.sampled_from(
    "n role call_id language sample_rate voice rate protocol messages tools text offset_ms reason "
    "usage tool_calls code message retry final".split()
)
TYPES = st.sampled_from(
    "mediad-start mediad-ready mediad-done mediad-generate mediad-voice mediad-error bot-tts-text "
    "user-transcription user-stopped-speaking".split()
)
READ = FromMediad | FromService | Malformed | None


@given(TYPES, JSON | st.dictionaries(FIELDS, JSON | st.integers(0, 5)))
def test_no_data_makes_it_raise(type_: str, data: Any) -> None:
    message = rtvi(type_, data)
    for read in (service.from_service(message), service.from_mediad(message)):
        assert isinstance(read, READ)
        if read is not None and not isinstance(read, Malformed):
            service.encode(read)


@given(st.binary(max_size=100))
def test_no_bytes_make_it_raise(message: bytes) -> None:
    assert isinstance(service.from_service(message), READ)
    assert isinstance(service.from_mediad(message), READ)


@given(st.text(max_size=100))
def test_no_json_makes_it_raise(text: str) -> None:
    assert isinstance(service.from_service(frames.encode_json(text)), Malformed | None)
