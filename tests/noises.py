"""What a telephone line brings beside the caller: noise of many kinds, the same at every run.

8 kHz. Noise has an RMS of 1; `at_snr` says how loud it is beside speech.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mediad.media.g711 import decode_ulaw, encode_ulaw
from tests.data.spoken import OTHER_WORDS, PHRASES, recordings

__all__ = [
    "BURSTS",
    "NOISES",
    "RATE_HZ",
    "Score",
    "Talk",
    "at_snr",
    "chunks",
    "cough",
    "score",
    "talk",
    "to_pcm",
]

Samples = NDArray[np.float64]

RATE_HZ = 8000
_SPEECH_RMS = 2000.0  # -24 dB below full scale, as telephone networks aim at
_AUDIBLE_DB = 25.0  # below its loudest 20 ms, what a recording begins and ends with
_TALKERS = 8  # in a babble


class Talk(NamedTuple):
    """Utterances with quiet between them."""

    samples: Samples
    spans: list[tuple[float, float]]
    """Where each one begins and ends, in seconds."""


def _rms(samples: Samples) -> float:
    return float(np.sqrt(np.mean(samples**2)))


def _audible(samples: Samples) -> Samples:
    """Return a recording from where it can be heard to where it no longer can."""
    size = RATE_HZ // 50
    frames = samples[: len(samples) // size * size].reshape(-1, size)
    level = np.sqrt((frames**2).mean(axis=1))
    heard = np.flatnonzero(level > level.max() * 10 ** (-_AUDIBLE_DB / 20))
    return samples[heard[0] * size : (heard[-1] + 1) * size]


@lru_cache
def _recordings() -> list[Samples]:
    found = []
    for text in (*OTHER_WORDS, *PHRASES, "yes", "no", "stop", "repeat"):
        for wav in recordings(text):
            samples = _audible(np.frombuffer(wav.pcm, "<i2").astype(np.float64))
            found.append(samples / _rms(samples))
    return found


def talk(seed: int, count: int, quiet_s: tuple[float, float] = (1.5, 3.0)) -> Talk:
    """Let callers say ``count`` things, each with an RMS of 1, quiet in between."""
    rng = np.random.default_rng(seed)
    parts: list[Samples] = []
    spans: list[tuple[float, float]] = []
    at = 0
    for _ in range(count):
        quiet = np.zeros(int(rng.uniform(*quiet_s) * RATE_HZ))
        said = _recordings()[rng.integers(len(_recordings()))]
        parts += [quiet, said]
        at += len(quiet) + len(said)
        spans.append(((at - len(said)) / RATE_HZ, at / RATE_HZ))
    parts.append(np.zeros(RATE_HZ))
    return Talk(np.concatenate(parts), spans)


def _talker(rng: np.random.Generator, count: int) -> Samples:
    parts: list[Samples] = []
    size = 0
    while size < count + RATE_HZ:
        said = _recordings()[rng.integers(len(_recordings()))]
        quiet = np.zeros(int(rng.uniform(0.05, 0.5) * RATE_HZ))
        parts += [said, quiet]
        size += len(said) + len(quiet)
    at = int(rng.integers(RATE_HZ))
    return np.concatenate(parts)[at : at + count]


def babble(seed: int, count: int) -> Samples:
    """Eight people talking at once."""
    rng = np.random.default_rng(seed)
    mixed: Samples = np.sum([_talker(rng, count) for _ in range(_TALKERS)], axis=0)
    return mixed / _rms(mixed)


def hum(seed: int, count: int) -> Samples:
    """The mains: 50 Hz and its harmonics up to 1 kHz, rectified as in a bad power supply."""
    rng = np.random.default_rng(seed)
    when = np.arange(count) / RATE_HZ
    mixed = np.zeros(count)
    for order in range(1, 21):
        level = 1 / order if order % 2 == 0 else 0.5 / order
        mixed += level * np.sin(2 * np.pi * (50 * order * when + rng.uniform()))
    mixed += 0.02 * rng.normal(size=count)
    return mixed / _rms(mixed)


def white(seed: int, count: int) -> Samples:
    """Hiss."""
    return np.random.default_rng(seed).normal(size=count)


def _spectrum(
    rng: np.random.Generator, count: int
) -> tuple[NDArray[np.complex128], NDArray[np.float64]]:
    """Return that of white noise of at least this length, and its frequencies."""
    size = 1 << (count - 1).bit_length()  # other lengths take a second
    return np.fft.rfft(rng.normal(size=size)), np.fft.rfftfreq(size, 1 / RATE_HZ).astype(np.float64)


def pink(seed: int, count: int) -> Samples:
    """Noise with as much power in each octave: wind, traffic far away."""
    spectrum, hz = _spectrum(np.random.default_rng(seed), count)
    mixed = np.fft.irfft(spectrum / np.sqrt(np.maximum(hz, 20.0)))[:count]
    return mixed / _rms(mixed)


def line(seed: int, count: int) -> Samples:
    """A bad line: hiss in the telephone's band, a little hum, and four clicks a second."""
    rng = np.random.default_rng(seed)
    spectrum, hz = _spectrum(rng, count)
    spectrum[(hz < 300) | (hz > 3400)] = 0
    hiss = np.fft.irfft(spectrum)[:count]
    mixed = hiss / _rms(hiss) + 0.3 * hum(seed, count)
    for at in rng.integers(count - 16, size=4 * count // RATE_HZ):
        mixed[at : at + 16] += rng.choice((-6.0, 6.0)) * np.exp(-np.arange(16) / 4)
    return mixed / _rms(mixed)


NOISES: dict[str, Callable[[int, int], Samples]] = {
    "babble": babble,
    "hum": hum,
    "line": line,
    "white": white,
    "pink": pink,
}


def cough(seed: int = 1) -> Samples:
    """A burst of noise and its echo, 0.3 s: loud, and no word."""
    rng = np.random.default_rng(seed)
    when = np.arange(int(0.3 * RATE_HZ)) / RATE_HZ
    shape = np.exp(-when / 0.04) + 0.5 * np.where(when > 0.15, np.exp(-(when - 0.15) / 0.05), 0)
    burst = rng.normal(size=len(when)) * shape
    return burst / _rms(burst)


def clap(seed: int) -> Samples:
    """A door slams."""
    burst = np.random.default_rng(seed).normal(size=800) * np.exp(-np.arange(800) / 150)
    return np.concatenate((5 * burst, np.zeros(1500)))


def beep(seed: int) -> Samples:
    """A tone of one second."""
    hz = np.random.default_rng(seed).uniform(300, 2000)
    return np.sin(2 * np.pi * hz * np.arange(RATE_HZ) / RATE_HZ)


def hiss(seed: int) -> Samples:
    """A tap is opened, for two seconds."""
    return 0.5 * np.random.default_rng(seed).normal(size=2 * RATE_HZ)


BURSTS: dict[str, Callable[[int], Samples]] = {
    "cough": cough,
    "clap": clap,
    "beep": beep,
    "hiss": hiss,
}
"""What is loud and no voice."""


def at_snr(speech: Samples, noise: Samples, snr_db: float) -> Samples:
    """Mix speech, whose utterances have an RMS of 1, with noise."""
    return speech + noise * 10 ** (-snr_db / 20)


def to_pcm(samples: Samples, level: float = _SPEECH_RMS) -> bytes:
    """Return what comes through a telephone: s16le after µ-law."""
    pcm = np.clip(samples * level, -32_767, 32_767).astype("<i2").tobytes()
    return decode_ulaw(encode_ulaw(pcm))


def chunks(pcm: bytes, ms: int = 20) -> list[bytes]:
    """Cut s16le as telephones send it."""
    size = RATE_HZ * ms // 1000 * 2
    return [pcm[at : at + size] for at in range(0, len(pcm), size)]


class Score(NamedTuple):
    """How well voices were found."""

    found: float
    """Share of the utterances found within 200 ms."""
    false_a_minute: float
    median_s: float
    """From an utterance's beginning until it was found."""

    @classmethod
    def mean(cls, scores: list["Score"]) -> "Score":
        """Return the mean of several runs of the same length."""
        return cls(*(float(np.mean(figures)) for figures in zip(*scores, strict=True)))

    def __str__(self) -> str:
        return (
            f"found within 200 ms {self.found:.1%}, median {self.median_s * 1000:.0f} ms, "
            f"false {self.false_a_minute:.2f} a minute"
        )


def score(spans: list[tuple[float, float]], starts: list[float], seconds: float) -> Score:
    """Compare when a voice was said to start with when utterances began and ended."""
    delays: list[float] = []
    for begin, end in spans:
        delays += [start - begin for start in starts if begin <= start <= end + 0.1][:1]
    false = [s for s in starts if not any(begin <= s <= end + 0.3 for begin, end in spans)]
    found = sum(delay <= 0.2 for delay in delays) / max(len(spans), 1)
    median_s = float(np.median(delays)) if delays else float("nan")
    return Score(found, len(false) * 60 / seconds, median_s)
