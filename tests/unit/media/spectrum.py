"""Measure a tone and what else there is."""

import numpy as np
from numpy.typing import NDArray


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
