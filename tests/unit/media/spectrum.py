"""Measure a tone and what else there is; a sweep, and a spectrum to compare it by."""

import numpy as np
from numpy.typing import NDArray

_SWEEP_S = 2.0
_FADE_S = 0.05  # a sweep that begins at once is also heard far from its frequencies


def _fit(
    samples: NDArray[np.int16], frequency_hz: float, rate_hz: int
) -> tuple[float, NDArray[np.float64]]:
    """Return the tone's amplitude and what is left without it, ends cut off."""
    settled = samples[rate_hz // 50 : -rate_hz // 50].astype(float)
    phase = 2 * np.pi * frequency_hz * np.arange(len(settled)) / rate_hz
    waves = np.stack((np.sin(phase), np.cos(phase)), axis=1)
    parts, *_ = np.linalg.lstsq(waves, settled, rcond=None)
    return float(np.hypot(*parts)), settled - waves @ parts


def gain_and_rest_db(
    samples: NDArray[np.int16], frequency_hz: float, rate_hz: int, peak: float
) -> tuple[float, float]:
    """Return the tone's gain and the level of the strongest other tone, both in dB."""
    amplitude, rest = _fit(samples, frequency_hz, rate_hz)
    window = np.blackman(len(rest))
    strongest = np.abs(np.fft.rfft(rest * window)).max() * 2 / window.sum()
    return 20 * float(np.log10(amplitude / peak)), 20 * float(np.log10(strongest / peak))


def snr_db(samples: NDArray[np.int16], frequency_hz: float, rate_hz: int) -> float:
    """Return the tone's power over that of everything else."""
    amplitude, rest = _fit(samples, frequency_hz, rate_hz)
    return 10 * float(np.log10(amplitude**2 / 2 / np.mean(rest**2)))


def sweep(first_hz: float, last_hz: float, rate_hz: int, peak: float) -> NDArray[np.int16]:
    """Return 2 s of a sine that goes from one frequency to the other; it fades in and out."""
    time = np.arange(int(rate_hz * _SWEEP_S)) / rate_hz
    fade = np.minimum(1.0, np.minimum(time, _SWEEP_S - time) / _FADE_S)
    cycles = first_hz * time + (last_hz - first_hz) / _SWEEP_S / 2 * time**2
    return np.rint(peak * np.sin(np.pi / 2 * fade) ** 2 * np.sin(2 * np.pi * cycles)).astype("<i2")


def levels_db(
    samples: NDArray[np.int16], rate_hz: int, frequencies_hz: NDArray[np.int_]
) -> NDArray[np.float64]:
    """Return how much of whole frequencies a sweep has, on a scale that knows no rate."""
    spectrum = np.abs(np.fft.rfft(samples, int(rate_hz * _SWEEP_S))) / rate_hz
    return 20 * np.log10(spectrum[frequencies_hz * int(_SWEEP_S)])


def peak_db(samples: NDArray[np.int16], peak: float) -> float:
    """Return the level of the largest sample."""
    return 20 * float(np.log10(np.maximum(np.abs(samples.astype(float)).max(), 1e-9) / peak))
