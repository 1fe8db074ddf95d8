"""Speech to text with pocketsphinx: four words, and nothing for all else. No network.

Its free dictation understands nothing over the telephone; a grammar of a few words is dependable,
but takes every noise for one of them. So a word counts only if it explains the sound nearly as well
as any sequence of phones does, lasts as long as that word can, and is all that was said.
"""

import math
import threading
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pocketsphinx import Decoder, get_model_path

__all__ = ["RATE_HZ", "Listener"]

RATE_HZ = 16_000
MAX_UTTERANCE_S = 4.0
"""What lasts longer is not one word, in seconds; it is not even looked at."""

_GRAMMAR = "#JSGF V1.0;\ngrammar words;\npublic <word> = yes | no | stop | repeat;\n"
# The telephone cuts the S off at 3.4 kHz; what is left of "stop" would be taken for "no". These are
# what the phone decoder makes of it, in several voices.
_STOP_ON_THE_TELEPHONE = (
    "T AA P",
    "D AA P",
    "T AA P HH",
    "D AA P HH",
    "D AA V AH",
    "T IH AA V AH",
    "T EH Y AA V AH",
    "D IH AA L UW",
    "S T AO P",
)
_FRAME = RATE_HZ // 100  # samples; pocketsphinx counts in frames of 10 ms
_PEAK = 12_000.0
_HISS = 30.0  # the model was never trained with the digital silence above 4 kHz
_QUIET = 150.0  # of the loudest there is 12000: a segment without any peak above is no speech
_ONSET, _RELEASE = 5, 15  # frames that a word may begin before, and fade after, where it was found


class _Limits(NamedTuple):
    """When a word counts. From tests/unit/speech/test_hearing.py, several voices and rates."""

    worse: float
    """How much less likely than the best phones it may be, in the decoder's log units."""
    shortest: int
    longest: int
    """In frames."""


_LIMITS = {
    "yes": _Limits(-0.12, 24, 75),
    "no": _Limits(-0.11, 26, 85),
    "stop": _Limits(-0.105, 28, 85),
    "repeat": _Limits(-0.12, 30, 90),
}
_LEAST_COVERED = 0.9  # how much of what is audible must be the word
_LEAST_VOICED = 4  # frames: each word has a vowel, a crackle has none
_PITCH_LAGS = slice(RATE_HZ // 400, RATE_HZ // 70)  # of a voice, in samples
_VOICED = 0.6  # how like itself a vowel is, one pitch period later


class Listener:
    """Hears the four words. Takes 0.1 s to make and as long for a word; may serve many calls."""

    def __init__(self) -> None:
        model = Path(get_model_path()) / "en-us"
        self._words = Decoder(loglevel="FATAL", samprate=RATE_HZ, lm=None, cmn="batch")
        for number, phones in enumerate(_STOP_ON_THE_TELEPHONE, 2):
            self._words.add_word(f"stop({number})", phones, True)
        self._words.add_jsgf_string("words", _GRAMMAR)
        self._words.activate_search("words")
        self._phones = Decoder(
            loglevel="FATAL",
            samprate=RATE_HZ,
            lm=None,
            cmn="batch",
            allphone=str(model / "en-us-phone.lm.bin"),
            lw=2.0,
            beam=1e-20,
            pbeam=1e-20,
        )
        self._hiss = np.random.default_rng(0).normal(0.0, _HISS, int(MAX_UTTERANCE_S * RATE_HZ))
        self._lock = threading.Lock()

    def hear(self, pcm: bytes) -> str:
        """Return the word in ``pcm``, or nothing. Blocks for about 6 % of its length.

        Args:
            pcm: s16le mono of 16 kHz, with some silence before and after the word.
        """
        samples = np.frombuffer(pcm[: len(pcm) & ~1], np.int16).astype(np.float64)
        if not samples.size or samples.size > self._hiss.size:
            return ""
        peak = float(np.abs(samples).max())
        if peak < _QUIET:
            return ""
        samples = samples * (_PEAK / peak) + self._hiss[: samples.size]
        with self._lock:
            return self._recognise(np.clip(samples, -32768, 32767).astype(np.int16))

    def _recognise(self, samples: NDArray[np.int16]) -> str:
        pcm = samples.tobytes()
        best = _decode(self._words, pcm)
        if best is None or best.hypstr not in _LIMITS:
            return ""
        word: str = best.hypstr
        limits = _LIMITS[word]
        spans = [
            (segment.start_frame, segment.end_frame)
            for segment in self._words.seg()
            if not segment.word.startswith("<")
        ]
        if len(spans) != 1:  # the decoder may name a word and place it nowhere
            return ""
        start, end = spans[0]
        if not limits.shortest <= end - start + 1 <= limits.longest:
            return ""
        if _covered(samples, start, end) < _LEAST_COVERED:
            return ""
        if _voiced(samples[start * _FRAME : (end + 1) * _FRAME]) < _LEAST_VOICED:
            return ""
        phones = _decode(self._phones, pcm)
        if phones is None or math.log(best.score / phones.score) < limits.worse:
            return ""
        return word


def _decode(decoder: Any, pcm: bytes) -> Any:
    """Return the decoder's hypothesis, or None."""
    decoder.reinit_feat()  # forgets what it has learnt of the utterance before
    decoder.start_utt()
    decoder.process_raw(pcm, full_utt=True)
    decoder.end_utt()
    return decoder.hyp()


def _covered(samples: NDArray[np.int16], start: int, end: int) -> float:
    """Return how much of what is audible lies between two frames, 0 to 1."""
    frames = samples[: samples.size // _FRAME * _FRAME].reshape(-1, _FRAME).astype(np.float64)
    level = np.sqrt((frames**2).mean(axis=1))
    audible = level > 0.06 * level.max()
    return float(audible[max(0, start - _ONSET) : end + _RELEASE].sum() / audible.sum())


def _voiced(samples: NDArray[np.int16]) -> int:
    """Return how many frames look like a vowel."""
    count = samples.size // _FRAME - 3  # windows of 40 ms
    voiced = 0
    for index in range(count):
        window = samples[index * _FRAME : (index + 4) * _FRAME].astype(np.float64)
        spectrum = np.fft.rfft(window - window.mean(), 2 * window.size)
        likeness = np.fft.irfft(np.abs(spectrum) ** 2)[: window.size]
        likeness /= np.arange(window.size, 0, -1)  # how many samples each lag has
        voiced += likeness[_PITCH_LAGS].max() > _VOICED * likeness[0]
    return voiced
