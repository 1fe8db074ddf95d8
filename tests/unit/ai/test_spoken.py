"""What is kept of a spoken text: what makes it the same, and that it is ready to play."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediad.ai.spoken import MAX_VALUE_BYTES, Item, Said, SpeechKey, normalise, pack, unpack
from mediad.line import Line
from mediad.wire import frames
from tests.sound import tone

KEY = SpeechKey("ws://tts", "anna", "en-US", 1.0, 8000, "Hello.")


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("  Hello,\n\tyou   there. ", "Hello, you there."),
        ("Cafe\u0301", "Caf\u00e9"),
        ("US and us", "US and us"),
        ("a\u00a0b", "a b"),
        (" ", ""),
    ],
)
def test_texts_that_sound_alike_are_one(text: str, normal: str) -> None:
    assert normalise(text) == normal


@pytest.mark.parametrize(
    "other",
    [
        {"provider": "ws://other"},
        {"voice": "bert"},
        {"language": "en-GB"},
        {"rate": 1.1},
        {"rate_hz": 16000},
        {"text": "hello."},
    ],
)
def test_all_that_can_be_heard_is_in_the_key(other: dict[str, object]) -> None:
    assert KEY.digest() == KEY._replace().digest()
    assert KEY._replace(**other).digest() != KEY.digest()  # type: ignore[arg-type]


def test_nothing_runs_into_its_neighbour() -> None:
    first = KEY._replace(voice='a", "b', language="c").digest()
    assert first != KEY._replace(voice="a", language='b", "c').digest()


def test_what_is_unpacked_is_played_as_it_is() -> None:
    pcm = tone(440, 0.5, 8000)
    items: list[Item] = [
        frames.encode_audio(pcm[:1001], 8000),  # within a sample
        Said("Hello,", 0),
        frames.encode_audio(pcm[1001:], 8000),
        Said("you.", 250),
    ]
    value = pack(items, 8000)
    assert value is not None
    unpacked = unpack(value)
    assert unpacked == [Said("Hello,", 0), Said("you.", 250), frames.encode_audio(pcm, 8000)]
    line = Line("slin", "ulaw", 60.0)
    for item in unpacked:
        if isinstance(item, bytes):
            assert line.receive_agent(item, 0.0) is None
    assert line.held_ms == 500


def test_other_rates_are_brought_to_the_line_s() -> None:
    value = pack([frames.encode_audio(tone(440, 1.0, 24000), 24000)], 8000)
    assert value is not None
    (message,) = unpack(value) or []
    assert isinstance(message, bytes)
    audio = frames.decode(message)
    assert isinstance(audio, frames.AudioFrame)
    assert (audio.sample_rate, len(audio.audio)) == (8000, 16_000)
    expected = np.frombuffer(tone(440, 1.0, 8000), "<i2").astype(float)
    got = np.frombuffer(audio.audio, "<i2").astype(float)
    power = (np.abs(np.fft.rfft(signal))[440] for signal in (expected, got))
    assert next(power) == pytest.approx(next(power), rel=0.03)


def test_channels_become_one() -> None:
    left, right = np.full(80, 1000, "<i2"), np.full(80, 3000, "<i2")
    stereo = np.stack((left, right), axis=1).tobytes()
    value = pack([frames.encode_audio(stereo, 8000, 2)], 8000)
    assert unpack(value or b"") == [frames.encode_audio(np.full(80, 2000, "<i2").tobytes(), 8000)]


@pytest.mark.parametrize(
    "items",
    [
        [],
        [Said("silent", 0)],
        [frames.encode_audio(b"", 8000)],
        [frames.encode_audio(b"\0\0", 8000), frames.encode_audio(b"\0\0", 16000)],
        [frames.encode_audio(b"\0\0", 8001)],
        [frames.encode_audio(b"\0\0" * 9, 8000, 9)],
        [frames.encode_audio(bytes(MAX_VALUE_BYTES), 8000)],
    ],
)
def test_what_cannot_be_kept_is_not(items: list[Item]) -> None:
    assert pack(items, 8000) is None


@given(st.binary(max_size=60))
def test_what_is_not_ours_is_a_miss(value: bytes) -> None:
    unpack(value)
    assert unpack(b"") is None
    assert unpack(b"\0\0\0\x02{}" + b"x") is None
    assert unpack(b'\0\0\0\x0d{"words": []}') is None
