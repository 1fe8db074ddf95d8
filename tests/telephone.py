"""Speech as the agent gets it from a telephone: espeak-ng, through G.711 at 8 kHz, to 16 kHz."""

import numpy as np

from mediad.caller.voice import resample
from mediad.media.g711 import decode_ulaw, encode_ulaw
from mediad.media.resample import Resampler
from mediad.speech import espeak

__all__ = ["AGENT_RATE_HZ", "over_telephone", "say"]

AGENT_RATE_HZ = 16_000
_TELEPHONE_RATE_HZ = 8000


def over_telephone(pcm: bytes, rate_hz: int) -> bytes:
    """Return what is left of ``pcm`` after the telephone, s16le at 16 kHz."""
    narrow = resample(pcm, rate_hz, _TELEPHONE_RATE_HZ)
    return Resampler(_TELEPHONE_RATE_HZ, AGENT_RATE_HZ).process(decode_ulaw(encode_ulaw(narrow)))


def say(
    text: str,
    voice: str = espeak.DEFAULT_VOICE,
    rate_wpm: int = espeak.DEFAULT_RATE_WPM,
    *,
    quiet_s: float = 0.5,
    gain: float = 0.5,
) -> bytes:
    """Return spoken text over the telephone, s16le at 16 kHz, with ``quiet_s`` before and after."""
    speech = espeak.synthesize(text, voice, rate_wpm)
    samples = np.frombuffer(speech.pcm, np.int16) * gain
    quiet = np.zeros(int(quiet_s * speech.rate_hz))
    padded = np.concatenate((quiet, samples, quiet)).astype(np.int16)
    return over_telephone(padded.tobytes(), speech.rate_hz)
