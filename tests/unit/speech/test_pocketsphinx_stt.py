"""How much of a turn the offline STT service listens to."""

import numpy as np

from mediad.speech.hearing import MAX_UTTERANCE_S, RATE_HZ
from mediad.speech.roles.stt import speech_in

_LOUD = (np.sin(np.arange(RATE_HZ // 2) * 0.2) * 8000).astype(np.int16).tobytes()  # 0.5 s


def quiet(seconds: float) -> bytes:
    noise = np.random.default_rng(1).normal(0, 20, int(seconds * RATE_HZ))
    return noise.astype(np.int16).tobytes()


def test_quiet_around_what_is_loud_is_left_out() -> None:
    heard = speech_in(quiet(2.0) + _LOUD + quiet(1.0))
    assert len(heard) / 2 / RATE_HZ == 0.3 + 0.5 + 0.3
    assert _LOUD in heard


def test_nothing_is_added_where_there_is_no_quiet() -> None:
    assert speech_in(_LOUD) == _LOUD


def test_a_long_sound_stays_long() -> None:
    assert len(speech_in(_LOUD * 8)) >= MAX_UTTERANCE_S * 2 * RATE_HZ


def test_silence_and_less_than_a_frame_are_nothing() -> None:
    assert speech_in(bytes(RATE_HZ)) == b""
    assert speech_in(b"") == b""
    assert speech_in(b"\1\2\3") == b""
