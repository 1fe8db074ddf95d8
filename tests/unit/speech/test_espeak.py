"""Text to speech with libespeak-ng."""

import asyncio
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from mediad.speech import espeak
from mediad.speech.dialogue import Dialogue

ALIKE_S = 0.02
"""espeak-ng never says the same thing twice: its periods vary a little, in seconds."""


def test_speaks_at_22050_hz() -> None:
    speech = espeak.synthesize("Good morning to all of you.")
    assert speech.rate_hz == 22_050
    assert 1.0 < speech.duration_s < 3.0
    assert np.abs(np.frombuffer(speech.pcm, np.int16)).max() > 3000


def test_voice_is_chosen_each_time() -> None:
    text = "Good morning to all of you."
    default = espeak.synthesize(text).duration_s
    other = espeak.synthesize(text, "de").duration_s
    assert espeak.synthesize(text).duration_s == pytest.approx(default, abs=ALIKE_S)
    assert other != pytest.approx(default, abs=ALIKE_S)


def test_rate_is_chosen_each_time() -> None:
    text = "One, two, three, four."
    slow, fast = (espeak.synthesize(text, rate_wpm=rate).duration_s for rate in (120, 240))
    assert slow > 1.5 * fast


def test_no_text_is_no_speech() -> None:
    assert espeak.synthesize("").duration_s < 0.1


def test_words_are_told_with_their_place_in_the_audio() -> None:
    text = "Hello, naïve café number 1234: is it “good”?  Yes!"
    speech = espeak.synthesize(text)
    assert [word.text for word in speech.words] == text.split()
    offsets = [word.offset_ms for word in speech.words]
    assert offsets == sorted(set(offsets))
    assert offsets[0] < 100
    assert offsets[-1] < 1000 * speech.duration_s


def test_no_word_is_told_of_a_text_that_has_none() -> None:
    assert espeak.synthesize(" … ").words == ()


def test_unknown_voice_is_an_error() -> None:
    with pytest.raises(espeak.SpeechError, match="no voice 'nobody'"):
        espeak.synthesize("yes", "nobody")


def test_too_long_a_text_is_an_error() -> None:
    with pytest.raises(espeak.SpeechError, match="characters"):
        espeak.synthesize("x" * (espeak.MAX_TEXT_CHARS + 1))


def test_threads_take_turns() -> None:
    texts = ("one", "one two three", "one two three four five six")
    alone = [espeak.synthesize(text).duration_s for text in texts]
    with ThreadPoolExecutor(6) as pool:
        together = [speech.duration_s for speech in pool.map(espeak.synthesize, texts * 20)]
    assert together == pytest.approx(alone * 20, abs=ALIKE_S)


async def test_speak_does_not_hold_the_loop() -> None:
    spoken = await asyncio.gather(*(espeak.speak("yes") for _ in range(5)))
    alone = espeak.synthesize("yes").duration_s
    assert [speech.duration_s for speech in spoken] == pytest.approx([alone] * 5, abs=ALIKE_S)


def test_answers_take_five_seconds_and_more() -> None:
    for word in ("yes", "no"):
        dialogue = Dialogue()
        for _ in range(3):
            assert espeak.synthesize(dialogue.hear(word).sentences[0]).duration_s > 5.0


def test_data_behind_a_long_path_is_found(tmp_path: Path) -> None:
    pytest.importorskip("espeakng_loader")
    code = """
import os
import sys
import espeakng_loader
from mediad.speech import espeak

real = espeakng_loader.get_data_path()
espeakng_loader.get_data_path = lambda: sys.argv[1] + "/data"
os.symlink(real, sys.argv[1] + "/data")
print(espeak.synthesize("yes").duration_s)
"""
    deep = tmp_path / ("x" * 100) / ("y" * 100)
    deep.mkdir(parents=True)
    run = [sys.executable, "-c", code, str(deep)]
    said = subprocess.run(run, check=True, capture_output=True, text=True).stdout
    assert float(said) == pytest.approx(espeak.synthesize("yes").duration_s, abs=ALIKE_S)
