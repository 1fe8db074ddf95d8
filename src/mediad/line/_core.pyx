# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, embedsignature=True
"""One call's line, compiled: the same as ``line.py``, which is the specification.

What happens in every frame (an audio message, an audio frame, a tick) is by hand and makes no
objects but its result. The rest goes through the specification's own classes.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize
from libc.math cimport INFINITY, fabs, log10
from libc.stdint cimport int16_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcmp, memcpy, memmove, memset

from sys import getsizeof, maxsize
from uuid import UUID

from mediad.line.line import AGENT_RATE_HZ, FILL_AFTER_S, MAX_CHANNELS, Counters, Tick
from mediad.media.codec import CodecDetector
from mediad.media.g711 import ALAW_TABLE, ULAW_TABLE
from mediad.media.playout import (
    MAX_MARKS,
    PREBUFFER_S,
    PREBUFFER_WAIT_S,
    UNDERRUN_WINDOW_S,
    Drained,
    MarkReached,
    Started,
)
from mediad.media.quiet import LOOK_BACK_S, nearest_quiet
from mediad.media.resample import SAMPLE_RATES, filter_bank
from mediad.media.vad import (
    BLOCK_S,
    CLOSE_SHARE,
    EVENNESS_DB,
    FAR_BELOW_DB,
    FIRST_DEVIATION_DB,
    GAP_BLOCKS,
    HANG_BLOCKS,
    LEARN_BLOCKS,
    LESS_BLOCKS,
    LOUD_BLOCKS,
    MOST_KNOWN_BLOCKS,
    MOST_OPEN_DB,
    NEW_BLOCKS,
    OF_BLOCKS,
    OPEN_DB,
    OPEN_DEVIATIONS,
    QUIETEST_NOISE_DB,
)
from mediad.wire import frames
from mediad.wire.audiosocket import (
    DTMF_DIGITS,
    MAX_ERROR_SIZE,
    RATE_OF_AUDIO_KIND,
    CallUuid,
    Digit,
    HangUp,
    PeerError,
    Violation,
    audio_size_limits,
)
from mediad.wire.frames import AudioFrame, BadFrame

__all__ = ["Gate", "Line", "PlayoutRoom"]

include "_wire.pxi"
include "_frames.pxi"
include "_pcm.pxi"
include "_resample.pxi"
include "_playout.pxi"
include "_gate.pxi"

cdef enum:
    _AGENT_RATE_HZ = 16_000
    _MAX_CHANNELS = 8

if (_AGENT_RATE_HZ, _MAX_CHANNELS) != (AGENT_RATE_HZ, MAX_CHANNELS):
    raise ImportError("the compiled core is of another version than line.py")

cdef double _FILL_AFTER_S = FILL_AFTER_S
cdef bytes _FILL = frames.encode_audio(bytes(_AGENT_RATE_HZ // 50 * 2), _AGENT_RATE_HZ)
cdef object _new_tuple = tuple.__new__  # Tick(…) would go through a Python function


cdef const int16_t *_table_of(str codec):
    if codec == "ulaw":
        return _ulaw
    if codec == "alaw":
        return _alaw
    return NULL


@cython.no_gc
cdef class LineBase:
    """What `_core.pxd` says; `Line` does it."""

    cdef Py_ssize_t read_caller(
        self, const unsigned char *data, Py_ssize_t size, double now
    ) except -1:
        raise NotImplementedError

    cdef Py_ssize_t frame_size(self) noexcept:
        return 0

    cdef int put_frame(self, unsigned char *to) except -1:
        raise NotImplementedError

    cdef bint play(self, const unsigned char *message, Py_ssize_t size, double now) except -1:
        raise NotImplementedError

    cdef Py_ssize_t message_size(self) noexcept:
        return 0

    cdef int put_message(self, unsigned char *to, double now, list events) except -1:
        raise NotImplementedError

    cdef bytes fill(self, double now):
        raise NotImplementedError


@cython.final
@cython.no_gc
cdef class Line(LineBase):
    """Both directions of one call.

    Args:
        codec: What kind 0x10 carries: ``slin``, ``ulaw``, ``alaw``, or ``auto`` to find out.
        g711: The law that ``auto`` takes, ``ulaw`` or ``alaw``.
        playout_max_s: How much agent audio may wait, in seconds.
    """

    cdef Parser _parser
    cdef bint _ended
    cdef const int16_t *_table  # how to expand kind 0x10; NULL for slin
    cdef str _g711
    cdef object _detector  # None once the codec is known
    cdef int _caller_kind  # of what comes; -1 before the first audio
    cdef Resampler _to_agent
    cdef Source _source  # of the audio that came, good until the next message is read
    cdef Py_ssize_t _count  # its samples
    cdef bint _audio_came
    cdef double _last_audio_at
    cdef double _fill_after_s
    cdef unsigned long long _agent_rate_hz, _agent_channels  # of what the agent sends; 0: nothing
    cdef Resampler _from_agent
    cdef unsigned char _odd[2 * _MAX_CHANNELS]  # the start of a sample whose end has not come
    cdef int _odd_size
    cdef bint _is_playout_fixed
    cdef int _playout_kind, _playout_rate_hz
    cdef Playout _playout
    cdef long long _caller_messages, _caller_bytes
    cdef long long _agent_frames_sent, _agent_fill_frames
    cdef long long _agent_frames, _agent_bytes, _bad_frames
    cdef long long _played_frames, _silent_frames, _refused_bytes, _flushed_bytes

    def __cinit__(
        self, str codec, str g711, double playout_max_s, PlayoutRoom playout_room=None
    ):
        self._parser = Parser()
        self._table = _table_of(codec)
        self._g711 = g711
        self._detector = CodecDetector() if codec == "auto" else None
        self._caller_kind = -1
        self._fill_after_s = _FILL_AFTER_S
        self._playout = Playout(_rate_of_kind[_SLIN], playout_max_s, playout_room)
        self._set_playout_kind(_SLIN)

    def __sizeof__(self):
        """Return the memory of the whole line, in bytes."""
        cdef Py_ssize_t size = object.__sizeof__(self)
        size += getsizeof(self._parser) + self._parser._capacity
        size += getsizeof(self._playout) + self._playout._capacity
        size += getsizeof(self._playout._marks)
        size += getsizeof(self._from_agent) + self._from_agent.history_bytes()
        if self._to_agent is not None:
            size += getsizeof(self._to_agent) + self._to_agent.history_bytes()
        return size

    # From the caller to the agent

    def receive_caller(self, bytes data not None, double now):
        """Take what TCP delivered; return frames for the agent and control messages, in order.

        After a `HangUp`, a `PeerError` or a `Violation`, always the last item, nothing is read any
        more.
        """
        cdef list items = []
        cdef const unsigned char *at = <const unsigned char *> PyBytes_AS_STRING(data)
        cdef const unsigned char *end = at + len(data)
        while at < end and not self._ended:
            at += self.read_caller(at, end - at, now)
            if self.came == AUDIO:
                items.append(self._take_frame())
            elif self.came == ITEMS:
                items += self.items
        return items

    cdef Py_ssize_t read_caller(
        self, const unsigned char *data, Py_ssize_t size, double now
    ) except -1:
        cdef Parser parser = self._parser
        cdef Py_ssize_t taken
        self.came = NOTHING
        if self._ended:
            return size
        taken = parser.take(data, size)
        if parser.found and _rate_of_kind[parser.kind]:
            self._receive_audio(now)
        elif parser.found:
            self._receive_control(now)
        elif parser.violation is not None:
            self._end(parser.violation)
        return taken

    cdef int _bring(self, list items) except -1:
        self.came = ITEMS
        self.items = items
        return 0

    cdef int _end(self, object violation) except -1:
        self._ended = True
        return self._bring([violation])

    cdef int _receive_control(self, double now) except -1:
        message = self._parser.control_message()
        if isinstance(message, CallUuid):
            self._audio_came = True
            self._last_audio_at = now
        self._ended = isinstance(message, (HangUp, PeerError, Violation))
        return self._bring([message])

    cdef int _receive_audio(self, double now) except -1:
        cdef Parser parser = self._parser
        self._caller_messages += 1
        self._caller_bytes += parser.length
        self._audio_came = True
        self._last_audio_at = now
        if parser.kind != self._caller_kind:
            self._set_caller_kind(parser.kind)
        if parser.kind != _SLIN:
            self._bring_audio(parser.payload, parser.length, NULL)
        elif self._detector is None:
            self._bring_audio(parser.payload, parser.length, self._table)
        else:
            self._detect(parser.payload[:parser.length], now)
        return 0

    cdef int _detect(self, bytes payload, double now) except -1:
        cdef list items = []
        is_slin = self._detector.add(payload, now)
        if is_slin is None:
            self._expect_next(len(payload))  # samples, if it is G.711, which lasts longer
            return 0
        if is_slin:
            self._table = NULL
        else:
            self._table = _table_of(self._g711)
        held = self._detector.take_held()
        self._detector = None
        for payload in held:
            if self._ended:
                break
            self._bring_audio(
                <const unsigned char *> PyBytes_AS_STRING(payload), len(payload), self._table
            )
            if self.came == AUDIO:
                items.append(self._take_frame())
            else:
                items += self.items
        return self._bring(items)

    cdef int _set_caller_kind(self, int kind) except -1:
        self._caller_kind = kind
        self._to_agent = Resampler(_rate_of_kind[kind], _AGENT_RATE_HZ)
        if not self._is_playout_fixed:
            self._set_playout_kind(kind)
            self._is_playout_fixed = True
        return 0

    cdef int _bring_audio(
        self, const unsigned char *payload, Py_ssize_t size, const int16_t *table
    ) except -1:
        if table == NULL and size % 2:
            detail = f"kind 0x{self._caller_kind:02x}: {size} bytes of slin"
            return self._end(Violation("bad_length", detail))
        self._source = Source(payload, table, 1)
        self._count = size if table != NULL else size // 2
        self._expect_next(self._count)
        self._agent_frames_sent += 1
        self.came = AUDIO
        return 0

    cdef void _expect_next(self, Py_ssize_t samples) noexcept:
        """Wait for the next message as long as twice what this one lasts."""
        self._fill_after_s = max(
            _FILL_AFTER_S, <double> (2 * samples) / _rate_of_kind[self._caller_kind]
        )

    cdef Py_ssize_t frame_size(self) noexcept:
        return _audio_frame_size(2 * self._to_agent.size_after(self._count))

    cdef int put_frame(self, unsigned char *to) except -1:
        cdef Resampler resampler = self._to_agent
        cdef Py_ssize_t block
        cdef unsigned char *pcm = _put_audio_frame(to, 2 * resampler.size_after(self._count))
        while self._count > 0:
            block = min(self._count, resampler.block)
            pcm += 2 * resampler.process(&self._source, block, <fir_sample *> pcm)
            self._count -= block
        return 0

    cdef bytes _take_frame(self):
        cdef bytes frame = PyBytes_FromStringAndSize(NULL, self.frame_size())
        self.put_frame(<unsigned char *> PyBytes_AS_STRING(frame))
        return frame

    # From the agent to the caller

    def receive_agent(self, bytes message not None, double now):
        """Take one WebSocket message. Audio goes to the playout; anything else comes back."""
        cdef AudioView audio
        cdef bytes pcm
        if self.play(<const unsigned char *> PyBytes_AS_STRING(message), len(message), now):
            return None
        frame = frames.decode(message)
        if isinstance(frame, AudioFrame):
            pcm = frame.audio
            audio.pcm = <const unsigned char *> PyBytes_AS_STRING(pcm)
            audio.size = len(pcm)
            audio.rate_hz, audio.channels = frame.sample_rate, frame.num_channels
            frame = self._play(&audio, now)
        if isinstance(frame, BadFrame):
            self._bad_frames += 1
        return frame

    cdef bint play(self, const unsigned char *message, Py_ssize_t size, double now) except -1:
        cdef AudioView audio
        return _read_audio_frame(message, size, &audio) and self._play(&audio, now) is None

    cdef object _play(self, AudioView *audio, double now):
        """Return None, or a `BadFrame`."""
        cdef Py_ssize_t header
        if (
            audio.rate_hz != self._agent_rate_hz
            or audio.channels != self._agent_channels
            or self._agent_rate_hz == 0
        ):
            bad = self._set_agent_format(audio.rate_hz, audio.channels)
            if bad is not None:
                return bad
        self._agent_frames += 1
        self._is_playout_fixed = True
        header = _riff_size(audio.pcm, audio.size)
        self._agent_bytes += audio.size - header
        self._queue_bytes(audio.pcm + header, audio.size - header, now)
        return None

    cdef object _set_agent_format(self, unsigned long long rate_hz, unsigned long long channels):
        if rate_hz not in SAMPLE_RATES:
            return BadFrame("sample_rate")
        if not 1 <= channels <= _MAX_CHANNELS:
            return BadFrame("num_channels")
        self._from_agent = Resampler(rate_hz, self._playout_rate_hz)
        self._agent_rate_hz, self._agent_channels = rate_hz, channels
        self._odd_size = 0
        return None

    cdef int _queue_bytes(self, const unsigned char *pcm, Py_ssize_t size, double now) except -1:
        """Queue whole samples and keep the start of one whose end has not come."""
        cdef int whole = 2 * <int> self._agent_channels
        cdef int missing
        cdef Py_ssize_t count
        if self._odd_size > 0:
            missing = <int> min(whole - self._odd_size, size)
            memcpy(self._odd + self._odd_size, pcm, missing)
            self._odd_size += missing
            pcm += missing
            size -= missing
            if self._odd_size < whole:
                return 0
            self._queue_samples(self._odd, 1, now)
        count = size // whole
        self._queue_samples(pcm, count, now)
        self._odd_size = <int> (size - count * whole)
        memcpy(self._odd, pcm + count * whole, self._odd_size)
        return 0

    cdef int _queue_samples(self, const unsigned char *pcm, Py_ssize_t count, double now) except -1:
        cdef int16_t made[FIR_MAX_OUT]
        cdef Source source = Source(pcm, NULL, <int> self._agent_channels)
        cdef Py_ssize_t block, size
        while count > 0:
            block = min(count, self._from_agent.block)
            size = 2 * self._from_agent.process(&source, block, made)
            self._refused_bytes += self._playout.write(made, size, now)
            count -= block
        return 0

    cdef int _set_playout_kind(self, int kind) except -1:
        self._playout_kind = kind
        self._playout_rate_hz = _rate_of_kind[kind]
        self._playout.set_rate(self._playout_rate_hz)
        self._from_agent = Resampler(_AGENT_RATE_HZ, self._playout_rate_hz)
        return 0

    def tick(self, double now):
        """Return what is due in this 20 ms. Call it once every 20 ms, from the call's UUID on."""
        cdef list events = []
        cdef bytes to_caller = PyBytes_FromStringAndSize(NULL, self.message_size())
        self.put_message(<unsigned char *> PyBytes_AS_STRING(to_caller), now, events)
        return _new_tuple(Tick, (to_caller, self.fill(now), events))

    cdef Py_ssize_t message_size(self) noexcept:
        return _HEADER_SIZE + self._playout.frame_size

    cdef int put_message(self, unsigned char *to, double now, list events) except -1:
        cdef const unsigned char *pcm = NULL
        cdef Py_ssize_t size = self._playout.read(now, events, &pcm)
        if size == 0:
            self._silent_frames += 1
        else:
            self._played_frames += 1
        _put_audio_message(to, self._playout_kind, pcm, size, self._playout.frame_size)
        return 0

    cdef bytes fill(self, double now):
        if not self._audio_came or now - self._last_audio_at < self._fill_after_s:
            return None
        self._agent_frames_sent += 1
        self._agent_fill_frames += 1
        return _FILL

    def mark(self, str name not None):
        """Ask for a `MarkReached` once what is queued was heard; False when 64 are waiting."""
        return self._playout.mark(name)

    def keep_played(self):
        """Keep what `resume` may repeat. For calls whose speech can be held; it costs memory."""
        self._playout.keep_played()

    def hold(self):
        """Let the caller hear silence from the next frame on, until `resume` or `flush`."""
        self._playout.hold()

    def resume(self, bint repeat):
        """Go on after a hold; return how many ms are repeated."""
        return self._playout.resume(repeat) // 2 * 1000 // self._playout_rate_hz

    def flush(self):
        """Drop all agent audio that was not handed out, and the marks; return its length in ms."""
        cdef Py_ssize_t dropped = self._playout.flush()
        self._flushed_bytes += dropped
        self._from_agent.reset()  # its history would leak the dropped words into the next ones
        self._odd_size = 0
        return dropped // 2 * 1000 // self._playout_rate_hz

    @property
    def playout_rate_hz(self):
        """What the caller gets, in samples a second."""
        return self._playout_rate_hz

    @property
    def queued_s(self):
        """The place after all agent audio that was ever queued, in seconds of it."""
        return self._playout.queued_s()

    @property
    def played_s(self):
        """The place up to which it was handed out, or flushed."""
        return self._playout.played_s()

    @property
    def held_ms(self):
        """How much agent audio is waiting."""
        return self._playout.held_bytes() // 2 * 1000 // self._playout_rate_hz

    def counters(self):
        """Return the line's counters as they stand."""
        return Counters(
            self._caller_messages,
            self._caller_bytes,
            self._agent_frames_sent,
            self._agent_fill_frames,
            self._agent_frames,
            self._agent_bytes,
            self._bad_frames,
            self._played_frames,
            self._silent_frames,
            self._refused_bytes,
            self._flushed_bytes,
            self._playout.underruns,
            self._playout.underrun_frames,
        )
