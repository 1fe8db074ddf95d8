# AudioSocket as wire/audiosocket.py reads it, where the bytes lie.

cdef enum:
    _HANGUP = 0x00
    _UUID = 0x01
    _DTMF = 0x03
    _SLIN = 0x10
    _ERROR = 0xFF
    _HEADER_SIZE = 3
    _MAX_IDLE_HOLD = 1024  # bytes; a larger buffer is given back once its message is complete

# By kind: the rate of audio, 0 for what is none, and the sizes a payload may have.
cdef int _rate_of_kind[256]
cdef int _smallest[256]
cdef int _largest[256]


def _fill_kinds():
    for kind, rate_hz in RATE_OF_AUDIO_KIND.items():
        _rate_of_kind[<int> kind] = rate_hz
        _smallest[<int> kind], _largest[<int> kind] = audio_size_limits(kind)
    _smallest[_UUID] = _largest[_UUID] = 16
    _smallest[_DTMF] = _largest[_DTMF] = 1
    _largest[_ERROR] = MAX_ERROR_SIZE


_fill_kinds()


@cython.final
@cython.no_gc
cdef class Parser:
    """Find messages in what TCP delivered, where they lie; only an unfinished one is copied."""

    cdef unsigned char *_held  # the start of a message whose end has not come
    cdef Py_ssize_t _size, _capacity
    cdef bint _uuid_seen
    cdef object violation  # None, or what was wrong: then nothing more is found
    cdef bint found  # a message; `kind`, `payload` and `length` are good until the next take
    cdef int kind
    cdef const unsigned char *payload
    cdef Py_ssize_t length

    def __dealloc__(self):
        free(self._held)

    cdef Py_ssize_t take(self, const unsigned char *data, Py_ssize_t size) except -1:
        """Read up to the end of one message; return how many bytes were read."""
        cdef Py_ssize_t needed, taken = 0
        self.found = False
        if self._size == 0:
            self._give_back()
            needed = self._measure(data, size)
            if 0 < needed <= size:
                return self._find(data, needed)
            return self._hold(data, size)
        if self._size < _HEADER_SIZE:
            taken = self._hold(data, min(_HEADER_SIZE - self._size, size))
            if self._size < _HEADER_SIZE:
                return taken
        needed = self._measure(self._held, self._size)
        if needed == 0:
            return size
        taken += self._hold(data + taken, min(needed - self._size, size - taken))
        if self._size == needed:
            self._find(self._held, needed)
            self._size = 0
        return taken

    cdef Py_ssize_t _measure(self, const unsigned char *at, Py_ssize_t size) except -1:
        """Return the size of the message that begins here, 0 when it is a violation.

        Until its header is complete, that is the header's size.
        """
        cdef int kind = at[0]
        cdef int length
        if kind == _HANGUP:  # its length is not read: some peers send none
            return 1
        if not self._uuid_seen or not _rate_of_kind[kind]:
            self.violation = self._check_kind(kind)
            if self.violation is not None:
                return 0
        if size < _HEADER_SIZE:
            return _HEADER_SIZE
        length = at[1] << 8 | at[2]
        if not _smallest[kind] <= length <= _largest[kind]:
            self.violation = Violation("bad_length", f"kind 0x{kind:02x} with {length} bytes")
            return 0
        return _HEADER_SIZE + length

    cdef object _check_kind(self, int kind):
        if not _rate_of_kind[kind] and kind != _UUID and kind != _DTMF and kind != _ERROR:
            return Violation("unknown_kind", f"unknown message kind 0x{kind:02x}")
        if not self._uuid_seen and kind != _UUID:
            return Violation("no_uuid", f"message kind 0x{kind:02x} before the call's UUID")
        if self._uuid_seen and kind == _UUID:
            return Violation("second_uuid", "a second UUID on one connection")
        return None

    cdef Py_ssize_t _find(self, const unsigned char *at, Py_ssize_t size) noexcept:
        self.found = True
        self.kind = at[0]
        self.payload = at + _HEADER_SIZE
        self.length = size - _HEADER_SIZE
        return size

    cdef Py_ssize_t _hold(self, const unsigned char *data, Py_ssize_t size) except -1:
        cdef unsigned char *held
        if self.violation is not None:
            return size
        if self._size + size > self._capacity:
            held = <unsigned char *> realloc(self._held, self._size + size)
            if held == NULL:
                raise MemoryError
            self._held, self._capacity = held, self._size + size
        memcpy(self._held + self._size, data, size)
        self._size += size
        return size

    cdef void _give_back(self) noexcept:
        if self._capacity > _MAX_IDLE_HOLD:
            free(self._held)
            self._held = NULL
            self._capacity = 0

    cdef object control_message(self):
        """Return the message that was found, which is no audio."""
        cdef bytes payload
        if self.kind == _HANGUP:
            return HangUp()
        payload = self.payload[:self.length]
        if self.kind == _DTMF:
            if payload[0] not in DTMF_DIGITS:
                return Violation("bad_digit", f"DTMF digit {payload!r}")
            return Digit(payload.decode().upper())
        if self.kind == _UUID:
            self._uuid_seen = True
            return CallUuid(UUID(bytes=payload))
        return PeerError(payload)


cdef void _put_audio_message(
    unsigned char *at, int kind, const unsigned char *pcm, Py_ssize_t size, Py_ssize_t full
) noexcept:
    """Write an AudioSocket message of `full` bytes of audio, silence after the first `size`."""
    at[0] = kind
    at[1] = full >> 8
    at[2] = full & 0xFF
    if size > 0:
        memcpy(at + _HEADER_SIZE, pcm, size)
    memset(at + _HEADER_SIZE + size, 0, full - size)
