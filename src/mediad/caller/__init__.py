"""A caller: plays Asterisk's part against any AudioSocket server, for tests, demos and diagnosis.

It knows the wire and the codecs and nothing else of mediad, so that it is an independent witness.
"""

from mediad.caller.client import CallEnded, Caller, CallerError, End
from mediad.caller.track import Span, Track
from mediad.caller.voice import CODECS, PTIMES_MS, Codec, Voice

__all__ = [
    "CODECS",
    "PTIMES_MS",
    "CallEnded",
    "Caller",
    "CallerError",
    "Codec",
    "End",
    "Span",
    "Track",
    "Voice",
]
