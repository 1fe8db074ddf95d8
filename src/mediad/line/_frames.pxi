# Protobuf audio frames by hand, as wire/frames.py has them. Field numbers: proto/frames.proto.

cdef enum:
    _FRAME_AUDIO = 2 << 3 | 2
    _AUDIO_ID = 1 << 3
    _AUDIO_NAME = 2 << 3 | 2
    _AUDIO_PCM = 3 << 3 | 2
    _AUDIO_RATE = 4 << 3
    _AUDIO_CHANNELS = 5 << 3
    _AUDIO_PTS = 6 << 3
    _TAIL_SIZE = 5


# Rate 16,000 and one channel, behind the samples.
cdef unsigned char _tail[_TAIL_SIZE]
_tail[:] = [_AUDIO_RATE, 0x80 | (AGENT_RATE_HZ & 0x7F), AGENT_RATE_HZ >> 7, _AUDIO_CHANNELS, 1]


cdef int _varint_size(Py_ssize_t value) noexcept:
    cdef int size = 1
    while value > 0x7F:
        value >>= 7
        size += 1
    return size


cdef unsigned char *_put_varint(unsigned char *at, Py_ssize_t value) noexcept:
    while value > 0x7F:
        at[0] = 0x80 | (value & 0x7F)
        at += 1
        value >>= 7
    at[0] = <unsigned char> value
    return at + 1


cdef Py_ssize_t _inner_size(Py_ssize_t size) noexcept:
    return 1 + _varint_size(size) + size + _TAIL_SIZE


cdef Py_ssize_t _audio_frame_size(Py_ssize_t size) noexcept:
    """Return the size of a frame with so many bytes of 16 kHz mono, at least one."""
    cdef Py_ssize_t inner = _inner_size(size)
    return 1 + _varint_size(inner) + inner


cdef unsigned char *_put_audio_frame(unsigned char *at, Py_ssize_t size) noexcept:
    """Write all of such a frame but its samples; return where they belong."""
    at[0] = _FRAME_AUDIO
    at = _put_varint(at + 1, _inner_size(size))
    at[0] = _AUDIO_PCM
    at = _put_varint(at + 1, size)
    memcpy(at + size, _tail, _TAIL_SIZE)
    return at


cdef struct AudioView:
    const unsigned char *pcm
    Py_ssize_t size
    unsigned long long rate_hz, channels


cdef const unsigned char *_read_varint(
    const unsigned char *at, const unsigned char *end, unsigned long long *value
) noexcept:
    """Return where the varint ends; NULL when it is cut short or longer than 63 bits."""
    cdef int shift = 0
    value[0] = 0
    while at < end and shift < 63:
        value[0] |= <unsigned long long> (at[0] & 0x7F) << shift
        if at[0] < 0x80:
            return at + 1
        at += 1
        shift += 7
    return NULL


cdef const unsigned char *_read_size(
    const unsigned char *at, const unsigned char *end, Py_ssize_t *size
) noexcept:
    """Return where the field's content begins; NULL when its size is no size or too much."""
    cdef unsigned long long value
    cdef const unsigned char *content = _read_varint(at, end, &value)
    if content == NULL or content - at > 4 or value > <unsigned long long> (end - content):
        return NULL
    size[0] = <Py_ssize_t> value
    return content


cdef bint _read_audio_frame(const unsigned char *at, Py_ssize_t size, AudioView *audio) noexcept:
    """Read an audio frame of the usual form; False for whatever else wire.frames should look at."""
    cdef const unsigned char *end = at + size
    cdef Py_ssize_t length
    cdef unsigned long long number
    cdef int tag, seen = 0
    audio.pcm, audio.size, audio.rate_hz, audio.channels = at, 0, 0, 0
    if size == 0 or at[0] != _FRAME_AUDIO:
        return False
    at = _read_size(at + 1, end, &length)
    if at == NULL or at + length != end:
        return False
    while at < end:
        tag = at[0]
        # Each field at most once: of two, the later counts, and that is for protobuf to sort out.
        if tag > _AUDIO_PTS or seen & 1 << (tag >> 3):
            return False
        seen |= 1 << (tag >> 3)
        if tag == _AUDIO_PCM or tag == _AUDIO_NAME:
            at = _read_size(at + 1, end, &length)
            if at == NULL:
                return False
            if tag == _AUDIO_PCM:
                audio.pcm, audio.size = at, length
            elif not _is_ascii(at, length):
                return False
            at += length
        elif tag in (_AUDIO_ID, _AUDIO_RATE, _AUDIO_CHANNELS, _AUDIO_PTS):
            at = _read_varint(at + 1, end, &number)
            if at == NULL:
                return False
            if tag == _AUDIO_RATE:
                audio.rate_hz = number
            elif tag == _AUDIO_CHANNELS:
                audio.channels = number
        else:
            return False
    # Larger than their type: protobuf cuts them.
    return audio.rate_hz <= 0xFFFFFFFF and audio.channels <= 0xFFFFFFFF


cdef bint _is_ascii(const unsigned char *text, Py_ssize_t size) noexcept:
    cdef Py_ssize_t i
    for i in range(size):
        if text[i] > 0x7F:
            return False
    return True
