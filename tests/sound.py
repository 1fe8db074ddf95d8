"""Test tones, G.711 of our own (so that mediad's is not its own witness), and tone measuring."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float64]


def _expand_ulaw() -> NDArray[np.int16]:
    """Return the 256 values of G.711 µ-law."""
    code = ~np.arange(256, dtype=np.uint8)
    exponent, mantissa = (code >> 4) & 7, (code & 15).astype(np.int32)
    value = (((mantissa << 3) + 132) << exponent) - 132
    return np.where(code & 128, -value, value).astype(np.int16)


def _expand_alaw() -> NDArray[np.int16]:
    """Return the 256 values of G.711 A-law."""
    code = np.arange(256, dtype=np.uint8) ^ 0x55
    exponent, mantissa = ((code >> 4) & 7).astype(np.int32), (code & 15).astype(np.int32)
    value = np.where(
        exponent == 0,
        (mantissa << 4) + 8,
        ((mantissa << 4) + 264) << np.maximum(exponent - 1, 0),
    )
    return np.where(code & 128, value, -value).astype(np.int16)


_ULAW = _expand_ulaw()
_ALAW = _expand_alaw()


def _nearest(pcm: bytes, values: NDArray[np.int16]) -> bytes:
    """Return for each s16le sample the code whose value is nearest."""
    order = np.argsort(values, kind="stable")
    ordered = values[order].astype(np.int32)
    middles = (ordered[:-1] + ordered[1:]) / 2
    samples = np.frombuffer(pcm, "<i2").astype(np.int32)
    return order[np.searchsorted(middles, samples)].astype(np.uint8).tobytes()


def decode_ulaw(data: bytes) -> bytes:
    """Return the s16le samples of µ-law bytes."""
    return _ULAW[np.frombuffer(data, np.uint8)].tobytes()


def decode_alaw(data: bytes) -> bytes:
    """Return the s16le samples of A-law bytes."""
    return _ALAW[np.frombuffer(data, np.uint8)].tobytes()


def encode_ulaw(pcm: bytes) -> bytes:
    """Return for each s16le sample the µ-law byte whose value is nearest."""
    return _nearest(pcm, _ULAW)


def encode_alaw(pcm: bytes) -> bytes:
    """Return for each s16le sample the A-law byte whose value is nearest."""
    return _nearest(pcm, _ALAW)


class Law(NamedTuple):
    """One of G.711's."""

    encode: Callable[[bytes], bytes]
    decode: Callable[[bytes], bytes]


G711 = {"ulaw": Law(encode_ulaw, decode_ulaw), "alaw": Law(encode_alaw, decode_alaw)}


def tone(hz: float, seconds: float, rate_hz: int, amplitude: float = 10_000.0) -> bytes:
    """Return a sine as s16le."""
    when = np.arange(round(seconds * rate_hz)) / rate_hz
    return np.round(amplitude * np.sin(2 * np.pi * hz * when)).astype("<i2").tobytes()


class Tone(NamedTuple):
    """What was measured of a sine."""

    hz: float
    snr_db: float
    seconds: float
    """How much of it was measured."""


def measure_tone(pcm: bytes, rate_hz: int) -> Tone:
    """Fit a sine to the longest loud stretch of a recording, less 100 ms at both of its ends.

    The sine has one phase over the whole stretch: a frame that is lost, doubled or silent counts as
    noise. What is left after the fit, at any frequency except 0, is the noise.
    """
    samples = _longest_loud_stretch(np.frombuffer(pcm, "<i2").astype(np.float64), rate_hz // 50)
    edge = rate_hz // 10
    samples = samples[edge:-edge]
    if len(samples) < edge:
        return Tone(hz=0.0, snr_db=0.0, seconds=0.0)
    hz = _strongest_frequency(samples, rate_hz)
    for _ in range(10):
        hz, signal, residual = _fit_sine(samples, hz, rate_hz)
    snr_db = 10 * np.log10(np.mean(signal**2) / np.maximum(np.mean(residual**2), 1e-9))
    return Tone(hz=hz, snr_db=float(snr_db), seconds=len(samples) / rate_hz)


def loud_s(pcm: bytes, rate_hz: int) -> float:
    """Return how much of a recording is loud, in seconds, wherever it is."""
    block = rate_hz // 50
    whole = len(pcm) // 2 // block * block
    samples = np.frombuffer(pcm[: 2 * whole], "<i2").astype(np.float64).reshape(-1, block)
    return float(np.count_nonzero(np.mean(samples**2, axis=1) > 1000.0**2)) / 50


def assert_clean(measured: Tone, hz: float) -> None:
    """Check that a sine of this frequency came through for a second, with a telephone's quality."""
    assert measured.seconds >= 1.0, measured
    assert abs(measured.hz - hz) <= 1.0, measured
    assert measured.snr_db >= 30.0, measured


def _longest_loud_stretch(samples: Samples, block: int) -> Samples:
    """Return the longest run of blocks that have at least a quarter of the loudest one's level."""
    blocks = samples[: len(samples) // block * block].reshape(-1, block)
    if not blocks.size:
        return samples[:0]
    level = np.sqrt(np.mean(blocks**2, axis=1))
    loud = np.concatenate(([False], level >= max(level.max() / 4, 100.0), [False]))
    first, last = np.flatnonzero(np.diff(loud.astype(np.int8))).reshape(-1, 2).T
    if not len(first):
        return samples[:0]
    longest = int(np.argmax(last - first))
    return blocks[first[longest] : last[longest]].ravel()


def _strongest_frequency(samples: Samples, rate_hz: int) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), 8 * len(samples)))
    return float(np.argmax(spectrum)) * rate_hz / (8 * len(samples))


def _fit_sine(samples: Samples, hz: float, rate_hz: int) -> tuple[float, Samples, Samples]:
    """Do one step of the four-parameter sine fit of IEEE 1057: frequency, sine, residual."""
    # Time counts from the middle, which keeps the frequency apart from the phase.
    when = (np.arange(len(samples)) - len(samples) / 2) / rate_hz
    sine, cosine = np.sin(2 * np.pi * hz * when), np.cos(2 * np.pi * hz * when)
    constant = np.ones_like(when)
    (a, b, c), *_ = np.linalg.lstsq(np.stack((sine, cosine, constant), 1), samples, rcond=None)
    slope = 2 * np.pi * when * (a * cosine - b * sine)
    (*_, step), *_ = np.linalg.lstsq(
        np.stack((sine, cosine, constant, slope), 1), samples, rcond=None
    )
    signal = a * sine + b * cosine
    return hz + float(step), signal, samples - signal - c
