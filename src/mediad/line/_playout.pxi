# The agent's audio waiting to be played: media/playout.py on a flat buffer that grows and shrinks.

cdef enum:
    _MIN_CAPACITY = 2048  # bytes; a buffer of this size is kept while the call is quiet

# As C doubles: looking up a module's name for each frame costs more than the frame.
cdef double _PREBUFFER_S = PREBUFFER_S
cdef double _PREBUFFER_WAIT_S = PREBUFFER_WAIT_S
cdef double _UNDERRUN_WINDOW_S = UNDERRUN_WINDOW_S
cdef double _EARLY_S = 0.001  # a tick may come this much before its time


@cython.final
@cython.no_gc
cdef class PlayoutRoom:
    """What the playouts that share it may hold together, in bytes."""

    cdef readonly Py_ssize_t max_bytes, held_bytes

    def __cinit__(self, Py_ssize_t max_bytes):
        self.max_bytes = max_bytes - max_bytes % 2  # whole samples


cdef PlayoutRoom _ENDLESS_ROOM = PlayoutRoom(maxsize)


@cython.final
@cython.no_gc
cdef class Playout:
    """A bounded queue of s16le mono at one rate. When full it refuses the newest audio."""

    cdef double _max_s
    cdef PlayoutRoom _room
    cdef int _rate_hz
    cdef Py_ssize_t frame_size, _max_size, _prebuffer_size
    cdef unsigned char *_queue
    cdef Py_ssize_t _capacity, _start, _end
    cdef list _marks  # of (how much must have been read, name)
    cdef long long _written, _read
    cdef bint _keeps_played, _is_held
    cdef Py_ssize_t _keep_size  # how much of what was played stays in front of _start
    cdef Py_ssize_t _utterance  # where in the queue this utterance begins, if it is still there
    cdef bint _playing, _is_filling, _is_dry, _resumes
    cdef double _first_at  # if filling: when its audio began to come
    cdef double _dry_at  # if dry: when a frame was due and none was there
    cdef long long _silent, underruns, underrun_frames

    def __cinit__(self, int rate_hz, double max_s, PlayoutRoom room):
        self._max_s = max_s
        self._room = _ENDLESS_ROOM if room is None else room
        self.set_rate(rate_hz)
        self._marks = []

    def __dealloc__(self):
        self._room.held_bytes -= self.held_bytes()
        free(self._queue)

    cdef int set_rate(self, int rate_hz) except -1:
        """Change the rate, before anything was queued."""
        self.frame_size = rate_hz // 50 * 2
        self._max_size = int(rate_hz * self._max_s) * 2
        self._prebuffer_size = int(rate_hz * _PREBUFFER_S) * 2
        self._keep_size = int(rate_hz * LOOK_BACK_S) * 2 if self._keeps_played else 0
        self._rate_hz = rate_hz
        return 0

    cdef int keep_played(self) except -1:
        """From now on keep the 200 ms played last, so that `resume` can repeat of them."""
        self._keeps_played = True
        self._utterance = self._start
        return self.set_rate(self._rate_hz)

    cdef double queued_s(self) noexcept:
        """The place after all audio that was ever queued, in seconds of it."""
        return self._written / 2.0 / self._rate_hz

    cdef double played_s(self) noexcept:
        """The place up to which it was handed out, or flushed."""
        return self._read / 2.0 / self._rate_hz

    cdef Py_ssize_t held_bytes(self) noexcept:
        return self._end - self._start

    cdef Py_ssize_t _kept_bytes(self) noexcept:
        return min(self._start - self._utterance, self._keep_size)

    cdef Py_ssize_t _free(self) noexcept:
        cdef Py_ssize_t room = min(
            self._max_size - self.held_bytes(), self._room.max_bytes - self._room.held_bytes
        )
        return max(room, 0)

    cdef Py_ssize_t write(self, const void *pcm, Py_ssize_t size, double now) except -1:
        """Queue audio and return how many bytes of its end were refused."""
        cdef Py_ssize_t taken = min(size, self._free())
        if taken == 0:
            return size
        if not self._playing and not self._is_filling:
            self._is_filling = True
            self._first_at = now
            if self._is_dry and now - self._dry_at <= _UNDERRUN_WINDOW_S:
                self._resumes = True
                self.underruns += 1
        self._make_room(taken)
        memcpy(self._queue + self._end, pcm, taken)
        self._end += taken
        self._room.held_bytes += taken
        self._written += taken
        return size - taken

    cdef int _make_room(self, Py_ssize_t size) except -1:
        cdef Py_ssize_t held
        if self._end + size <= self._capacity:
            return 0
        held = self.held_bytes() + self._kept_bytes()
        # Moving is cheap enough only where it makes room for a while.
        if held + size > self._capacity // 2:
            self._resize(max(2 * (held + size), _MIN_CAPACITY))
        else:
            self._move_to_front()
        return 0

    cdef void _move_to_front(self) noexcept:
        cdef Py_ssize_t unused = self._start - self._kept_bytes()
        if unused > 0:
            memmove(self._queue, self._queue + unused, self._end - unused)
            self._end -= unused
            self._start -= unused
            self._utterance = 0

    cdef int _resize(self, Py_ssize_t capacity) except -1:
        cdef unsigned char *queue
        self._move_to_front()
        queue = <unsigned char *> realloc(self._queue, capacity)
        if queue == NULL:
            raise MemoryError
        self._queue, self._capacity = queue, capacity
        return 0

    cdef int _shrink(self) except -1:
        if (
            self._capacity > _MIN_CAPACITY
            and self.held_bytes() + self._kept_bytes() < self._capacity // 8
        ):
            self._resize(max(self._capacity // 4, _MIN_CAPACITY))
        return 0

    cdef bint mark(self, str name) except -1:
        """Ask for a `MarkReached` once all that is queued was played; False when 64 are waiting."""
        if len(self._marks) >= MAX_MARKS:
            return False
        self._marks.append((self._written, name))
        return True

    cdef Py_ssize_t read(self, double now, list events, const unsigned char **pcm) except -1:
        """Hand out what is due: its size, 0 for silence. `pcm` is good until the next call."""
        cdef Py_ssize_t size
        self._shrink()
        if self._marks:
            self._reach_marks(events)
        if self._is_held:
            return 0
        if not self._playing and self._is_filled(now):
            self._start_playing(events)
        if not self._playing:
            self._silent += 1
            return 0
        size = min(self.held_bytes(), self.frame_size)
        if size == 0:
            self._playing = False
            self._is_dry = True
            self._dry_at = now
            self._silent = 1
            events.append(Drained())
            return 0
        pcm[0] = self._queue + self._start
        self._start += size
        self._read += size
        self._room.held_bytes -= size
        return size

    cdef int _reach_marks(self, list events) except -1:
        while self._marks and <long long> self._marks[0][0] <= self._read:
            events.append(MarkReached(self._marks.pop(0)[1]))
        return 0

    cdef void hold(self) noexcept:
        """Be silent from the next frame on, until `resume` or `flush`; what waits is kept."""
        self._is_held = True

    cdef Py_ssize_t resume(self, bint repeat) except -1:
        """End a hold; return how many bytes already played are played again."""
        cdef Py_ssize_t kept = self._kept_bytes()
        cdef Py_ssize_t back
        self._is_held = False
        if not (repeat and self._playing and kept):
            return 0
        played = <bytes> (self._queue + self._start - kept)[:kept]
        back = min(<Py_ssize_t> nearest_quiet(played, self._rate_hz), self._free())
        self._start -= back
        self._read -= back
        self._room.held_bytes += back
        return back

    cdef Py_ssize_t flush(self) except -1:
        """Drop all that is waiting, marks included, and return its size in bytes."""
        cdef Py_ssize_t dropped = self.held_bytes()
        self._room.held_bytes -= dropped
        self._start = self._end = self._utterance = 0
        self._is_held = False
        self._marks.clear()
        self._read = self._written
        self._playing = self._is_filling = self._is_dry = self._resumes = False
        self._shrink()
        return dropped

    cdef bint _is_filled(self, double now) noexcept:
        cdef double age
        if not self._is_filling:
            return False
        age = now - self._first_at + _EARLY_S
        return age >= _PREBUFFER_S or (
            age >= _PREBUFFER_WAIT_S and self.held_bytes() >= self._prebuffer_size
        )

    cdef int _start_playing(self, list events) except -1:
        self._playing = True
        self._is_filling = False
        if self._resumes:
            self.underrun_frames += self._silent
            self._resumes = False
        else:
            self._utterance = self._start
            events.append(Started())
        return 0
