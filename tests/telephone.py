"""Speech as the agent gets it from a telephone: recordings, through G.711 at 8 kHz, to 16 kHz."""

import numpy as np

from mediad.caller.voice import resample
from mediad.media.g711 import decode_ulaw, encode_ulaw
from mediad.media.resample import Resampler
from mediad.speech import espeak
from tests.data.spoken import recordings

__all__ = ["AGENT_RATE_HZ", "over_telephone", "said", "say"]

AGENT_RATE_HZ = 16_000
_TELEPHONE_RATE_HZ = 8000
_VOICE = "en-us+f2"


def over_telephone(pcm: bytes, rate_hz: int) -> bytes:
    """Return what is left of ``pcm`` after the telephone, s16le at 16 kHz."""
    narrow = resample(pcm, rate_hz, _TELEPHONE_RATE_HZ)
    return Resampler(_TELEPHONE_RATE_HZ, AGENT_RATE_HZ).process(decode_ulaw(encode_ulaw(narrow)))


def said(pcm: bytes, rate_hz: int, *, quiet_s: float = 0.5, gain: float = 0.5) -> bytes:
    """Return speech over the telephone, s16le at 16 kHz, with ``quiet_s`` before and after."""
    quiet = np.zeros(int(quiet_s * rate_hz))
    padded = np.concatenate((quiet, np.frombuffer(pcm, np.int16) * gain, quiet)).astype(np.int16)
    return over_telephone(padded.tobytes(), rate_hz)


def say(text: str, *, quiet_s: float = 0.5) -> bytes:
    """Return a recording of a woman's voice that says a word, as `said` does."""
    (recording,) = recordings(text, _VOICE, espeak.DEFAULT_RATE_WPM, 1)
    return said(*recording, quiet_s=quiet_s)
