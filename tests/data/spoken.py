"""The recordings in spoken/: what is said there, and, run as a program, how they were made."""

import re
from itertools import product
from pathlib import Path

from mediad.caller.voice import resample
from mediad.speech import espeak
from mediad.speech.dialogue import WORDS
from mediad.wav import Wav, read_wav, write_wav

__all__ = ["OTHER_WORDS", "PHRASES", "TAKES", "VOICES", "WORD_RATES_WPM", "recordings"]

VOICES = ("en-us", "en-us+m3", "en-us+f2", "en-us+f3", "en-us+f4", "en-gb-scotland")
WORD_RATES_WPM = (130, 160, 180)
"""How fast each voice says each of the agent's words; all else it says at 160 words a minute."""

TAKES = {"yes": 1, "no": 1, "repeat": 1, "stop": 3}
"""How often. Without its S, which the telephone cuts off, ``stop`` is heard or not by chance."""

OTHER_WORDS = (
    "seven",
    "telephone",
    "okay",
    "orange",
    "lemonade",
    "yesterday",
    "never mind",
    "go away",
)
"""What every voice says."""

PHRASES = (
    "banana",
    "hello",
    "i would like to speak to someone please",
    "open the door",
    "the weather is nice today",
    "computer",
    "yes, please repeat that",
)
"""What the first voice says."""

_ROOT = Path(__file__).with_name("spoken")
_RATE_HZ = 8000  # the telephone's


def recordings(
    text: str, voice: str = "*", rate_wpm: int | str = "*", take: int | str = "*"
) -> list[Wav]:
    """Return all recordings of a text, or those of one voice, rate or take."""
    name = f"{voice}-{rate_wpm}-{take}.wav"
    return [read_wav(path) for path in sorted(_folder(text).glob(name))]


def _folder(text: str) -> Path:
    return _ROOT / "-".join(re.findall(r"\w+", text))


def _record(text: str, voice: str, rate_wpm: int = espeak.DEFAULT_RATE_WPM, take: int = 1) -> None:
    speech = espeak.synthesize(text, voice, rate_wpm)
    _folder(text).mkdir(parents=True, exist_ok=True)
    pcm = resample(speech.pcm, speech.rate_hz, _RATE_HZ)
    write_wav(_folder(text) / f"{voice}-{rate_wpm}-{take}.wav", _RATE_HZ, pcm)


def _main() -> None:
    for voice in VOICES:
        for word in WORDS:
            for rate_wpm, take in product(WORD_RATES_WPM, range(1, TAKES[word] + 1)):
                _record(word, voice, rate_wpm, take)
        for word in OTHER_WORDS:
            _record(word, voice)
    for phrase in PHRASES:
        _record(phrase, VOICES[0])


if __name__ == "__main__":
    _main()
