# The resampler of media/resample.py on the filters of _fir.h.

cdef extern from "_fir.h":
    enum:
        FIR_MAX_ROW
        FIR_MAX_IN
        FIR_MAX_OUT
    ctypedef struct fir_bank:
        const float *taps
        int up, down, row
    ctypedef int16_t fir_sample
    void fir_choose() nogil
    void fir_run(const fir_bank *, const int16_t *, int, int, int, fir_sample *) nogil

fir_choose()


@cython.final
@cython.no_gc
cdef class Bank:
    """The taps for one pair of rates, shared by all lines."""

    cdef fir_bank bank
    cdef bytes _taps
    cdef int block  # how many input samples the FIR takes at once

    def __cinit__(self, int source_hz, int target_hz):
        self.bank.up, self.bank.down, taps = filter_bank(source_hz, target_hz)
        self.bank.row = taps.shape[1]
        if self.bank.row > FIR_MAX_ROW:
            raise ValueError(f"{source_hz} to {target_hz} Hz: too many taps")
        self._taps = taps.tobytes()
        self.bank.taps = <const float *> PyBytes_AS_STRING(self._taps)
        self.block = min(FIR_MAX_IN, (FIR_MAX_OUT - 1) * self.bank.down // self.bank.up)


cdef dict _banks = {}


cdef Bank _find_bank(int source_hz, int target_hz):
    pair = (source_hz, target_hz)
    bank = _banks.get(pair)
    if bank is None:
        bank = _banks[pair] = Bank(source_hz, target_hz)
    return <Bank> bank


# The history and one block of new samples. One for all lines: nothing here runs without the GIL.
cdef int16_t _samples[FIR_MAX_ROW + FIR_MAX_IN]


@cython.final
@cython.no_gc
cdef class Resampler:
    """Change the rate of one stream; equal rates pass through."""

    cdef Bank _bank
    cdef int16_t *_history  # the row - 1 samples before the next one
    cdef int _next  # where the next output falls, in steps of 1/up samples from the next one
    cdef int block  # the most that one call of process takes

    def __cinit__(self, int source_hz, int target_hz):
        self._bank = _find_bank(source_hz, target_hz)
        self.block = self._bank.block
        self._history = <int16_t *> calloc(self._bank.bank.row, sizeof(int16_t))
        if self._history == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self._history)

    cdef Py_ssize_t history_bytes(self) noexcept:
        return self._bank.bank.row * sizeof(int16_t)

    cdef void reset(self) noexcept:
        """Forget the past: what comes next begins a new stream."""
        memset(self._history, 0, self._bank.bank.row * sizeof(int16_t))
        self._next = 0

    cdef Py_ssize_t size_after(self, Py_ssize_t count) noexcept:
        """Return how many samples come of the next `count`."""
        cdef Py_ssize_t end = count * self._bank.bank.up
        if end <= self._next:
            return 0
        return (end - self._next + self._bank.bank.down - 1) // self._bank.bank.down

    cdef Py_ssize_t process(self, Source *source, Py_ssize_t count, fir_sample *out) noexcept:
        """Read `count` samples, at most a block; return how many were written to `out`."""
        cdef const fir_bank *bank = &self._bank.bank
        cdef int past = bank.row - 1
        cdef Py_ssize_t made = self.size_after(count)
        if bank.up == bank.down:
            _load(source, _samples, count)
            memcpy(out, _samples, 2 * count)
            return count
        memcpy(_samples, self._history, past * sizeof(int16_t))
        _load(source, _samples + past, count)
        fir_run(bank, _samples, <int> count, self._next, <int> made, out)
        self._next += <int> (made * bank.down - count * bank.up)
        memcpy(self._history, _samples + count, past * sizeof(int16_t))
        return made
