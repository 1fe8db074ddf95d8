"""Hearing four words over the telephone, and nothing in all else.

The words are recordings (tests/data), because espeak-ng never says one twice alike.
"""

import numpy as np
import pytest

from mediad.speech.dialogue import WORDS
from mediad.speech.hearing import MAX_UTTERANCE_S, RATE_HZ, Listener
from tests.data.spoken import OTHER_WORDS, PHRASES, TAKES, VOICES, WORD_RATES_WPM, recordings
from tests.telephone import said


@pytest.fixture(scope="module")
def listener() -> Listener:
    return Listener()


def over_the_line(text: str, voice: str = VOICES[0], *, quiet_s: float = 0.5) -> bytes:
    """Return a text in one voice, as the agent gets it."""
    (recording,) = recordings(text, voice, 160, 1)
    return said(*recording, quiet_s=quiet_s)


def right(heard: list[str], word: str) -> float:
    return heard.count(word) / len(heard)


@pytest.mark.parametrize("word", WORDS)
def test_word_is_heard_in_any_voice_at_any_rate(listener: Listener, word: str) -> None:
    heard = [listener.hear(said(*recording)) for recording in recordings(word)]
    assert len(heard) == len(VOICES) * len(WORD_RATES_WPM) * TAKES[word]
    assert right(heard, word) >= 0.85
    assert right(heard, word) + right(heard, "") >= 0.9  # rather nothing than another word


@pytest.mark.parametrize("gain", [0.03, 0.2, 1.0])
@pytest.mark.parametrize("word", WORDS)
def test_word_is_heard_however_loud(listener: Listener, word: str, gain: float) -> None:
    heard = [listener.hear(said(*each, gain=gain)) for each in recordings(word, VOICES[0], take=1)]
    assert right(heard, word) > 0.6


@pytest.mark.parametrize("level", [10, 30, 60])
@pytest.mark.parametrize("word", WORDS)
def test_word_is_heard_over_a_noisy_line(listener: Listener, word: str, level: int) -> None:
    heard = []
    for seed, voice in enumerate(VOICES):
        speech = np.frombuffer(over_the_line(word, voice), np.int16)
        noise = np.random.default_rng(seed).normal(0, level, speech.size)
        heard.append(listener.hear((speech + noise).astype(np.int16).tobytes()))
    assert right(heard, word) >= 0.8


@pytest.mark.parametrize("text", PHRASES)
def test_other_words_are_nothing(listener: Listener, text: str) -> None:
    assert listener.hear(over_the_line(text)) == ""


def test_most_other_words_in_other_voices_are_nothing(listener: Listener) -> None:
    heard = [listener.hear(over_the_line(text, voice)) for text in OTHER_WORDS for voice in VOICES]
    assert right(heard, "") >= 0.9


@pytest.mark.parametrize("seconds", [0.0, 0.001, 0.5, 2.0])
def test_silence_is_nothing(listener: Listener, seconds: float) -> None:
    assert listener.hear(bytes(2 * int(seconds * RATE_HZ))) == ""


@pytest.mark.parametrize("seconds", [0.2, 0.5, 1.5])
@pytest.mark.parametrize("kind", ["hiss", "hum", "rumble", "crackle"])
@pytest.mark.parametrize("level", [100, 1000, 10_000])
def test_noise_is_nothing(listener: Listener, kind: str, seconds: float, level: int) -> None:
    size = int(seconds * RATE_HZ)
    random = np.random.default_rng(7)
    white = random.normal(0, 1, size)
    noise = {
        "hiss": white,
        "hum": np.sin(2 * np.pi * 50 * np.arange(size) / RATE_HZ) + 0.05 * white,
        "rumble": np.cumsum(white) - np.linspace(0, white.sum(), size),
        "crackle": white * (random.random(size) < 0.01),
    }[kind]
    quiet = bytes(RATE_HZ)  # 0.5 s
    pcm = (noise / np.abs(noise).max() * level).astype(np.int16).tobytes()
    assert listener.hear(quiet + pcm + quiet) == ""


def test_what_is_too_long_for_a_word_is_nothing(listener: Listener) -> None:
    long = over_the_line("yes", quiet_s=MAX_UTTERANCE_S / 2)
    assert listener.hear(long) == ""
    assert listener.hear(long[RATE_HZ:-RATE_HZ]) == "yes"


def test_half_a_sample_at_the_end_is_ignored(listener: Listener) -> None:
    pcm = over_the_line("yes")
    assert listener.hear(pcm + b"\x01") == listener.hear(pcm) == "yes"


def test_one_utterance_leaves_no_trace_in_the_next(listener: Listener) -> None:
    words = [over_the_line(word, "en-us+f2") for word in WORDS]
    heard = [listener.hear(pcm) for pcm in words]
    assert [listener.hear(pcm) for pcm in reversed(words)] == heard[::-1]
