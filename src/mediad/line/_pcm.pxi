# Samples as they come: G.711 by table, channels mixed to one, a WAV header.
# See media/g711.py and media/pcm.py.

cdef int16_t _ulaw[256]
cdef int16_t _alaw[256]


def _fill_tables():
    cdef int code
    for code in range(256):
        _ulaw[code] = ULAW_TABLE[code]
        _alaw[code] = ALAW_TABLE[code]


_fill_tables()


cdef struct Source:
    # Audio to read: `table` is its law, NULL for s16le of so many interleaved channels.
    const unsigned char *at
    const int16_t *table
    int channels


cdef void _load(Source *source, int16_t *to, Py_ssize_t count) noexcept:
    """Read samples, made mono, and move the source on."""
    cdef Py_ssize_t i
    cdef int channel, mixed
    if source.table != NULL:
        for i in range(count):
            to[i] = source.table[source.at[i]]
        source.at += count
    elif source.channels == 1:
        memcpy(to, source.at, 2 * count)
        source.at += 2 * count
    else:
        for i in range(count):
            mixed = 0
            for channel in range(source.channels):
                mixed += <int16_t> (source.at[0] | source.at[1] << 8)
                source.at += 2
            # C rounds towards zero, the mean is rounded down.
            to[i] = (mixed - (source.channels - 1 if mixed < 0 else 0)) // source.channels


cdef Py_ssize_t _riff_size(const unsigned char *audio, Py_ssize_t size) noexcept:
    """Return the size of a RIFF/WAVE header at the start, 0 for none; see media/pcm.py."""
    cdef Py_ssize_t at = 12
    cdef unsigned long long chunk
    if size < 12 or memcmp(audio, b"RIFF", 4) != 0 or memcmp(audio + 8, b"WAVE", 4) != 0:
        return 0
    while at + 8 <= size:
        if memcmp(audio + at, b"data", 4) == 0:
            return at + 8
        chunk = (
            audio[at + 4] | audio[at + 5] << 8 | audio[at + 6] << 16
            | <unsigned long long> audio[at + 7] << 24
        )
        if chunk > <unsigned long long> size:
            return 0
        at += 8 + <Py_ssize_t> (chunk + chunk % 2)
    return 0
