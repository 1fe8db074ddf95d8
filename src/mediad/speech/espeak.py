"""Text to speech with libespeak-ng, in this process and without a network.

The library comes from the `espeakng-loader` wheel, else from the system (`libespeak-ng1`).
It has one voice and one set of parameters per process, so a lock serialises its users.
"""

import asyncio
import ctypes
import re
import tempfile
import threading
from bisect import bisect_right
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

DEFAULT_VOICE = "en-us"
DEFAULT_RATE_WPM = 160
MAX_TEXT_CHARS = 2000
"""The longest text taken at once: about two minutes of speech."""

# speak_lib.h of espeak-ng 1.49 and later.
_AUDIO_OUTPUT_SYNCHRONOUS = 2
_INITIALIZE_DONT_EXIT = 0x8000
_CHARS_UTF8 = 1
_POS_CHARACTER = 1
_PARAMETER_RATE = 1
_EE_OK = 0
_MAX_DATA_PATH_BYTES = 120  # espeak-ng keeps the path in a buffer of 160 and appends file names

_EVENT_LIST_TERMINATED = 0
_EVENT_WORD = 1


class _Event(ctypes.Structure):
    """espeak_EVENT."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),  # in characters, from 1
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),  # in ms
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_char * 8),
    )


_SynthCallback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


class SpeechError(Exception):
    """espeak-ng is missing, or refuses what it was asked to say."""


class SpokenWord(NamedTuple):
    """A word with the punctuation after it, and where in the speech it begins."""

    text: str
    offset_ms: int


class Speech(NamedTuple):
    """Spoken text: s16le mono PCM and its rate."""

    pcm: bytes
    rate_hz: int
    words: tuple[SpokenWord, ...] = ()

    @property
    def duration_s(self) -> float:
        """How long it takes to say, in seconds."""
        return len(self.pcm) / (2 * self.rate_hz)


class _Espeak:
    """The loaded library. One per process, used under `_lock` only."""

    def __init__(self) -> None:
        library, data = _find_library()
        try:
            self._library: Any = ctypes.CDLL(library)
        except OSError as exc:
            raise SpeechError(
                "libespeak-ng was not found: install espeakng-loader (PyPI) or libespeak-ng1"
            ) from exc
        self.rate_hz: int = self._library.espeak_Initialize(
            _AUDIO_OUTPUT_SYNCHRONOUS, 0, data, _INITIALIZE_DONT_EXIT
        )
        if self.rate_hz <= 0:
            raise SpeechError(f"espeak-ng could not read its data (path {data!r})")
        self._chunks: list[bytes] = []
        self._starts: dict[int, int] = {}  # of words: position in the text → in the audio, in ms
        # The library keeps the pointer, so this object must live as long as the library does.
        self._callback = _SynthCallback(self._on_samples)
        self._library.espeak_SetSynthCallback(self._callback)

    def _on_samples(self, samples: Any, count: int, events: Any) -> int:
        if count > 0 and samples:
            self._chunks.append(ctypes.string_at(samples, 2 * count))
        index = 0
        while (event := events[index]).type != _EVENT_LIST_TERMINATED:
            if event.type == _EVENT_WORD:
                self._starts.setdefault(event.text_position - 1, event.audio_position)
            index += 1
        return 0

    def synthesize(self, text: str, voice: str, rate_wpm: int) -> Speech:
        """Say ``text``; the caller holds the lock."""
        if self._library.espeak_SetVoiceByName(voice.encode()) != _EE_OK:
            raise SpeechError(f"espeak-ng has no voice {voice!r}")
        self._library.espeak_SetParameter(_PARAMETER_RATE, rate_wpm, 0)
        self._chunks.clear()
        self._starts.clear()
        encoded = text.encode() + b"\0"
        status = self._library.espeak_Synth(
            encoded, ctypes.c_size_t(len(encoded)), 0, _POS_CHARACTER, 0, _CHARS_UTF8, None, None
        )
        if status != _EE_OK:
            raise SpeechError(f"espeak-ng refused the text (status {status})")
        pcm = b"".join(self._chunks)
        self._chunks.clear()
        return Speech(pcm, self.rate_hz, tuple(_words(text, self._starts)))


def _words(text: str, starts: dict[int, int]) -> Iterator[SpokenWord]:
    """Cut ``text`` at its words that are heard to start, by position, at some time."""
    words = [match.start() for match in re.finditer(r"\S+", text)]
    places: dict[int, int] = {}
    for position in sorted(starts) if words else ():
        # A number is several words in one, and a quotation mark stands before where one starts.
        place = words[max(0, bisect_right(words, position) - 1)]
        places.setdefault(place, starts[position])
    for place, end in pairwise([*places, len(text)]):
        if word := text[place:end].strip():
            yield SpokenWord(word, places[place])


_lock = threading.Lock()
_espeak: _Espeak | None = None


def synthesize(text: str, voice: str = DEFAULT_VOICE, rate_wpm: int = DEFAULT_RATE_WPM) -> Speech:
    """Say ``text``. Blocks for about a thousandth of the speech's length.

    Args:
        voice: An espeak-ng voice such as ``en-us``, ``en-gb`` or ``en-us+f3`` (with a variant).
        rate_wpm: Words a minute, 80 to 450.

    Raises:
        SpeechError: If espeak-ng is missing, knows no such voice or the text is too long.
    """
    global _espeak
    if len(text) > MAX_TEXT_CHARS:
        raise SpeechError(f"the text has {len(text)} characters, more than {MAX_TEXT_CHARS}")
    with _lock:
        if _espeak is None:
            _espeak = _Espeak()
        return _espeak.synthesize(text, voice, rate_wpm)


async def speak(text: str, voice: str = DEFAULT_VOICE, rate_wpm: int = DEFAULT_RATE_WPM) -> Speech:
    """Do what `synthesize` does, in a thread: the lock may be held by another call."""
    return await asyncio.to_thread(synthesize, text, voice, rate_wpm)


def _find_library() -> tuple[str, bytes | None]:
    """Return the library to load and the directory of its data (None: its built-in one)."""
    try:
        import espeakng_loader  # optional: only the extra `agent` has it
    except ImportError:
        return "libespeak-ng.so.1", None
    return espeakng_loader.get_library_path(), _short_path(espeakng_loader.get_data_path())


def _short_path(path: str) -> bytes:
    """Return ``path``, or a link to it when it is too long for espeak-ng."""
    if len(path.encode()) <= _MAX_DATA_PATH_BYTES:
        return path.encode()
    link = Path(tempfile.mkdtemp(prefix="espeak-")) / "espeak-ng-data"
    link.symlink_to(path)
    return str(link).encode()
