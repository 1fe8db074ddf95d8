# WebSocket frames (RFC 6455, 5.2) where they lie. What a frame means is `ai.socket`'s business.

cdef enum:
    _BINARY = 0x2
    _CONTROL = 0x8  # and above: close, ping, pong
    _PONG = 0xA
    _FIN = 0x80
    _RESERVED = 0x70
    _MASKED = 0x80
    _MAX_HEADER = 14
    _MAX_CONTROL_SIZE = 125
    _UNFINISHED = -1
    _PROTOCOL_ERROR = 1002
    _TOO_BIG = 1009


cdef struct Frame:
    int opcode
    bint fin
    bint is_masked
    Py_ssize_t header, size  # of the payload, the second


cdef int _read_header(
    const unsigned char *at, Py_ssize_t available, bint from_client, Frame *frame
) noexcept:
    """Read a frame's header; return 0, or `_UNFINISHED`, or the close code for what is wrong."""
    cdef uint64_t size
    cdef int i, extended
    if available < 2:
        return _UNFINISHED
    frame.opcode = at[0] & 0x0F
    frame.fin = (at[0] & _FIN) != 0
    frame.is_masked = (at[1] & _MASKED) != 0
    size = at[1] & 0x7F
    if at[0] & _RESERVED or 0x2 < frame.opcode < _CONTROL or frame.opcode > _PONG:
        return _PROTOCOL_ERROR
    if frame.opcode >= _CONTROL and (not frame.fin or size > _MAX_CONTROL_SIZE):
        return _PROTOCOL_ERROR
    if frame.is_masked != from_client:
        return _PROTOCOL_ERROR
    extended = 2 if size == 126 else 8 if size == 127 else 0
    if available < 2 + extended:
        return _UNFINISHED
    if extended:
        size = 0
        for i in range(extended):
            size = size << 8 | at[2 + i]
        if size < (126 if extended == 2 else 0x10000) or size >> 63:
            return _PROTOCOL_ERROR
        if size > <uint64_t> _MAX_SIZE:
            return _TOO_BIG
    frame.header = 2 + extended + (4 if frame.is_masked else 0)
    frame.size = <Py_ssize_t> size
    return 0 if available >= frame.header else _UNFINISHED


cdef unsigned char *_put_header(
    unsigned char *payload, Py_ssize_t size, int opcode, bint masked
) noexcept:
    """Write the header in front of a payload, and mask that; return where the frame begins."""
    cdef int extended = 0 if size < 126 else 2 if size < 0x10000 else 8
    cdef unsigned char *at = payload - (4 if masked else 0) - extended - 2
    cdef uint32_t key
    cdef int i
    at[0] = _FIN | opcode
    at[1] = (_MASKED if masked else 0) | (size if extended == 0 else 126 if extended == 2 else 127)
    for i in range(extended):
        at[2 + i] = <unsigned char> (size >> 8 * (extended - 1 - i))
    if masked:
        key = _random()
        memcpy(payload - 4, &key, 4)
        _mask(payload, size, key)
    return at


cdef void _mask(unsigned char *at, Py_ssize_t size, uint32_t key) noexcept:
    """Mask or unmask. The loop is one the compiler makes vectors of."""
    cdef uint64_t word, twice = <uint64_t> key << 32 | key
    cdef const unsigned char *byte = <const unsigned char *> &key
    cdef Py_ssize_t i, whole = size // 8
    for i in range(whole):
        memcpy(&word, at + 8 * i, 8)
        word ^= twice
        memcpy(at + 8 * i, &word, 8)
    for i in range(8 * whole, size):
        at[i] ^= byte[i & 3]


# xorshift64*: masks must differ and not be guessed by who makes a browser send frames; they hide
# nothing, and the system's generator would cost more than the frame.
cdef uint64_t _state = int.from_bytes(urandom(8), "little") | 1


cdef uint32_t _random() noexcept:
    global _state
    _state ^= _state >> 12
    _state ^= _state << 25
    _state ^= _state >> 27
    return <uint32_t> (_state * <uint64_t> 0x2545F4914F6CDD1D >> 32)
