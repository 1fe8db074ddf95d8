# Is there more than noise? The gate of media/vad.py, its sums taken as the audio comes.

cdef int _GATE_HANG_BLOCKS = HANG_BLOCKS
cdef int _GATE_LEARN_BLOCKS = LEARN_BLOCKS
cdef int _GATE_MOST_KNOWN_BLOCKS = MOST_KNOWN_BLOCKS
cdef int _GATE_LESS_BLOCKS = LESS_BLOCKS
cdef int _GATE_NEW_BLOCKS = NEW_BLOCKS
cdef int _GATE_GAP_BLOCKS = GAP_BLOCKS
cdef int _GATE_LOUD_BLOCKS = LOUD_BLOCKS
cdef unsigned _GATE_LOUDS_MASK = (1 << OF_BLOCKS) - 1
cdef double _GATE_BLOCK_S = BLOCK_S
cdef double _GATE_QUIETEST_NOISE_DB = QUIETEST_NOISE_DB
cdef double _GATE_OPEN_DB = OPEN_DB
cdef double _GATE_MOST_OPEN_DB = MOST_OPEN_DB
cdef double _GATE_OPEN_DEVIATIONS = OPEN_DEVIATIONS
cdef double _GATE_CLOSE_SHARE = CLOSE_SHARE
cdef double _GATE_FAR_BELOW_DB = FAR_BELOW_DB
cdef double _GATE_EVENNESS_DB = EVENNESS_DB
cdef double _GATE_FIRST_DEVIATION_DB = FIRST_DEVIATION_DB


@cython.final
@cython.no_gc
cdef class Gate:
    """Feed it the caller's s16le mono in chunks of any size; how it is cut makes no difference."""

    cdef int _block_size
    cdef int _count  # samples of the block that is not complete, and their sums
    cdef long long _total, _squares
    cdef bint _is_odd  # half a sample waits
    cdef unsigned char _odd
    cdef double _power  # of the block before
    cdef double _mean_db, _deviation_db
    cdef double _lowest_db, _lowest_before_db
    cdef unsigned _louds
    cdef int _known_blocks, _low_blocks, _quiet_blocks, _open_blocks
    cdef readonly bint is_open

    def __cinit__(self, int rate_hz):
        self._block_size = <int> (rate_hz * _GATE_BLOCK_S + 0.5)
        self._mean_db = _GATE_QUIETEST_NOISE_DB
        self._deviation_db = _GATE_FIRST_DEVIATION_DB
        self._lowest_db = self._lowest_before_db = INFINITY

    @property
    def noise_db(self):
        """The level of the noise below full scale, in dB: negative."""
        return self._mean_db - 20 * log10(32_768)

    def process(self, bytes pcm not None):
        """Take audio. True: the gate has opened with it; False: closed; None: neither."""
        cdef const unsigned char *at = <const unsigned char *> PyBytes_AS_STRING(pcm)
        cdef Py_ssize_t size = len(pcm)
        cdef bint was_open = self.is_open
        cdef Py_ssize_t count
        if self._is_odd and size > 0:
            self._take(<int16_t> (self._odd | at[0] << 8))
            self._is_odd = False
            at += 1
            size -= 1
        count = size // 2
        while count > 0:
            count -= self._take_some(&at, count)
        if size % 2:
            self._is_odd = True
            self._odd = at[0]
        return None if self.is_open == was_open else self.is_open

    cdef void _take(self, int16_t sample) noexcept:
        self._total += sample
        self._squares += sample * sample
        self._count += 1
        if self._count == self._block_size:
            self._end_block()

    cdef Py_ssize_t _take_some(self, const unsigned char **at, Py_ssize_t count) noexcept:
        """Take samples up to the end of the block at most; return how many."""
        cdef const unsigned char *pcm = at[0]
        cdef int taken = <int> min(count, self._block_size - self._count)
        cdef long long total = 0, squares = 0
        cdef int i, sample
        for i in range(taken):
            sample = <int16_t> (pcm[2 * i] | pcm[2 * i + 1] << 8)
            total += sample
            squares += sample * sample
        self._total += total
        self._squares += squares
        self._count += taken
        at[0] = pcm + 2 * taken
        if self._count == self._block_size:
            self._end_block()
        return taken

    cdef void _end_block(self) noexcept:
        cdef double total = <double> self._total
        cdef double power = (
            (<double> self._squares - total * total / self._block_size) / self._block_size
        )
        cdef double level_db = 10 * log10((power + self._power) / 2 + 1)
        self._power = power
        self._count = 0
        self._total = self._squares = 0
        if self.is_open:
            self._add_open(level_db)
        else:
            self._add_closed(level_db)

    cdef double _threshold_db(self) noexcept:
        return min(
            max(_GATE_OPEN_DB, _GATE_OPEN_DEVIATIONS * self._deviation_db), _GATE_MOST_OPEN_DB
        )

    cdef void _add_closed(self, double level_db) noexcept:
        cdef double above_db = level_db - self._mean_db
        cdef double threshold_db
        if self._known_blocks >= _GATE_LEARN_BLOCKS:
            threshold_db = self._threshold_db()
            self._louds = (self._louds << 1 | (above_db > threshold_db)) & _GATE_LOUDS_MASK
            if _bit_count(self._louds) >= _GATE_LOUD_BLOCKS:
                self._open()
                return
            above_db = min(above_db, threshold_db)
        self._learn(above_db)

    cdef void _learn(self, double above_db) noexcept:
        self._low_blocks = self._low_blocks + 1 if above_db < -_GATE_FAR_BELOW_DB else 0
        if self._low_blocks == _GATE_LESS_BLOCKS:
            self._known_blocks = _GATE_NEW_BLOCKS
        self._known_blocks = min(self._known_blocks + 1, _GATE_MOST_KNOWN_BLOCKS)
        self._set_mean(self._mean_db + above_db / self._known_blocks)
        self._deviation_db += (fabs(above_db) - self._deviation_db) / self._known_blocks

    cdef void _open(self) noexcept:
        self.is_open = True
        self._louds = 0
        self._quiet_blocks = self._open_blocks = 0
        self._lowest_db = self._lowest_before_db = INFINITY

    cdef void _add_open(self, double level_db) noexcept:
        cdef double lowest_db
        if level_db - self._mean_db > _GATE_CLOSE_SHARE * self._threshold_db():
            self._quiet_blocks = 0
        else:
            self._quiet_blocks += 1
        self._lowest_db = min(self._lowest_db, level_db)
        self._open_blocks += 1
        if self._open_blocks == _GATE_GAP_BLOCKS:
            lowest_db = min(self._lowest_db, self._lowest_before_db)
            if (
                self._lowest_before_db < INFINITY
                and lowest_db + _GATE_EVENNESS_DB > self._mean_db
            ):
                self._set_mean(lowest_db + _GATE_EVENNESS_DB)
                self._known_blocks = _GATE_LEARN_BLOCKS
            self._lowest_before_db, self._lowest_db = self._lowest_db, INFINITY
            self._open_blocks = 0
        self.is_open = self._quiet_blocks < _GATE_HANG_BLOCKS

    cdef void _set_mean(self, double mean_db) noexcept:
        self._mean_db = max(mean_db, _GATE_QUIETEST_NOISE_DB)


cdef int _bit_count(unsigned bits) noexcept:
    cdef int count = 0
    while bits:
        bits &= bits - 1
        count += 1
    return count
