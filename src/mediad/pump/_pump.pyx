# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, embedsignature=True
"""The way of every frame between two sockets and a line, compiled: no asyncio, no objects.

A `Path` is one call's way. What is no audio goes to the call's Python objects, in its order; so
does audio that nobody can take yet.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.exc cimport PyErr_SetFromErrno
from cpython.object cimport PyObject
from libc.errno cimport EAGAIN, EINTR, ENOBUFS, ENOMEM, errno
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memmove
from libc.time cimport time_t

from mediad.line._core cimport AUDIO, ITEMS, LineBase

import logging
import os
from os import urandom

from mediad.wire.frames import MAX_MESSAGE_SIZE

__all__ = ["Path", "Pump"]

logger = logging.getLogger(__name__)

cdef extern from "<sys/types.h>":
    ctypedef Py_ssize_t ssize_t

cdef extern from "<sys/socket.h>":
    enum:
        MSG_DONTWAIT
        MSG_NOSIGNAL
    ssize_t recv(int, void *, size_t, int)
    ssize_t send(int, const void *, size_t, int)

cdef extern from "<sys/epoll.h>":
    enum:
        EPOLL_CLOEXEC
        EPOLL_CTL_ADD
        EPOLL_CTL_DEL
        EPOLL_CTL_MOD
        EPOLLIN
        EPOLLOUT
    ctypedef union epoll_data_t:
        void *ptr
    struct epoll_event:
        uint32_t events
        epoll_data_t data
    int epoll_create1(int)
    int epoll_ctl(int, int, int, epoll_event *)
    int epoll_wait(int, epoll_event *, int, int)

cdef extern from "<time.h>":
    enum:
        CLOCK_MONOTONIC
    struct timespec:
        time_t tv_sec
        long tv_nsec
    int clock_gettime(int, timespec *)

    struct itimerspec:
        timespec it_interval
        timespec it_value

cdef extern from "<sys/timerfd.h>":
    enum:
        TFD_CLOEXEC
        TFD_NONBLOCK
    int timerfd_create(int, int)
    int timerfd_settime(int, int, const itimerspec *, itimerspec *)

cdef extern from "<unistd.h>":
    ssize_t read(int, void *, size_t)

cdef enum:
    _MANY_PATHS = 64  # from here on sockets are looked at on a grid,
    _FEW_PATHS = 32  # until there are so few again
    _GRID_NS = 1_000_000
    _MAX_EVENTS = 256  # of one wake-up; then asyncio has its turn
    _INPUT_SIZE = 64 * 1024  # read from one socket at once: more has to wait for the others

cdef Py_ssize_t _MAX_SIZE = MAX_MESSAGE_SIZE
cdef unsigned char _input[_INPUT_SIZE]

include "_end.pxi"
include "_websocket.pxi"

# Where frames are made before they are sent; it grows to the largest that was.
cdef unsigned char *_output = NULL
cdef Py_ssize_t _output_size = 0


cdef unsigned char *_room(Py_ssize_t size) except NULL:
    """Return space for a message, with space for a WebSocket header in front of it."""
    global _output, _output_size
    cdef unsigned char *output
    if _MAX_HEADER + size > _output_size:
        output = <unsigned char *> realloc(_output, _MAX_HEADER + size)
        if output == NULL:
            raise MemoryError
        _output, _output_size = output, _MAX_HEADER + size
    return _output + _MAX_HEADER


cdef double _now() noexcept:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return now.tv_sec + 1e-9 * now.tv_nsec


cdef class Pump:
    """Moves the frames of all paths of one event loop.

    With few paths each frame wakes the loop. With many that costs more than it is worth, a tenth
    of the CPU: then a timer wakes it every millisecond, and it takes what has come.
    """

    cdef object _loop
    cdef int _epoll
    cdef int _timer
    cdef bint _is_on_grid
    cdef set _paths  # those that are not closed
    cdef list _closed  # of this wake-up: its later events may still name them

    def __init__(self, loop):
        self._epoll = epoll_create1(EPOLL_CLOEXEC)
        self._timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK)
        if self._epoll < 0 or self._timer < 0:
            PyErr_SetFromErrno(OSError)
        self._loop = loop
        self._paths = set()
        self._closed = []
        loop.add_reader(self._epoll, self._pump)

    def close(self):
        """Stop; paths that are still open lose their sockets."""
        if self._epoll < 0:
            return
        for path in list(self._paths):
            path.close()
        self._loop.remove_reader(self._epoll)  # no path is left: not on the grid
        os.close(self._epoll)
        os.close(self._timer)
        self._epoll = -1
        self._closed.clear()
        self._loop = None

    cdef int _add(self, Path path) except -1:
        self._paths.add(path)
        return self._choose_pace()

    cdef int _remove(self, Path path) except -1:
        self._paths.discard(path)
        self._closed.append(path)
        return self._choose_pace()

    cdef int _choose_pace(self) except -1:
        cdef bint on_grid = len(self._paths) >= (_FEW_PATHS if self._is_on_grid else _MANY_PATHS)
        cdef itimerspec every
        if on_grid == self._is_on_grid:
            return 0
        every.it_interval.tv_sec = every.it_value.tv_sec = 0
        every.it_interval.tv_nsec = every.it_value.tv_nsec = _GRID_NS if on_grid else 0
        timerfd_settime(self._timer, 0, &every, NULL)
        self._loop.remove_reader(self._epoll if on_grid else self._timer)
        self._loop.add_reader(self._timer if on_grid else self._epoll, self._pump)
        self._is_on_grid = on_grid
        return 0

    def _pump(self):
        cdef uint64_t expirations
        cdef epoll_event events[_MAX_EVENTS]
        cdef int i, count
        cdef double now
        cdef Path path
        self._closed.clear()
        if self._is_on_grid:
            read(self._timer, &expirations, sizeof(expirations))
        count = epoll_wait(self._epoll, events, _MAX_EVENTS, 0)
        now = _now()
        for i in range(count):
            path = <Path> (<End *> events[i].data.ptr).path
            try:
                path._serve(<End *> events[i].data.ptr, events[i].events, now)
            except Exception:
                logger.exception("a call's frame failed; that call ends")
                path.fail()


cdef class Path:
    """One call's way between the caller's socket, the line and the agent's socket.

    Either socket may be missing: asyncio has it. Their owners take the sockets back before they
    close them. `close` ends a path, and with it the references that it holds.
    """

    cdef Pump _pump
    cdef LineBase _line
    cdef object _call
    cdef End _caller, _agent
    cdef object _caller_owner, _agent_owner
    cdef bint _masks  # towards the agent: we are the WebSocket's client
    cdef unsigned char *_held  # from the agent: the start of a frame whose end has not come
    cdef Py_ssize_t _held_size
    cdef readonly bint is_closed
    cdef public bint asks_call  # each tick goes to the call
    cdef public bint sends_audio  # the agent takes audio
    cdef public bint plays_audio  # what the agent says need not be looked at

    def __cinit__(self, Pump pump not None, line, call):
        self._pump = pump
        self._line = line
        self._call = call
        self._caller = End(-1, pump._epoll, 0, False, <PyObject *> self, NULL, 0)
        self._agent = End(-1, pump._epoll, 0, True, <PyObject *> self, NULL, 0)
        pump._add(self)

    def __dealloc__(self):
        free(self._held)
        _forget_unsent(&self._caller)
        _forget_unsent(&self._agent)

    def close(self):
        """End the path."""
        if self.is_closed:
            return
        self.is_closed = True
        self.release_caller()
        self.release_agent()
        self._pump._remove(self)
        self._pump = self._call = None

    cdef int _serve(self, End *end, uint32_t events, double now) except -1:
        if end.fd >= 0 and events & EPOLLOUT:
            _send_rest(end)
        if end.fd >= 0 and events & ~EPOLLOUT:
            if end.is_agent:
                self._read_agent(now)
            else:
                self._read_caller(now)
        return 0

    @property
    def has_caller(self):
        """Whether the caller's socket is here, and not with asyncio."""
        return self._caller.fd >= 0

    @property
    def has_agent(self):
        """Whether the agent's is."""
        return self._agent.fd >= 0

    # The caller's socket

    def take_caller(self, int fd, owner not None):
        """Read and write the caller's socket from now on; False: it stays with its owner."""
        if self.is_closed or not _take(&self._caller, fd):
            return False
        self._caller_owner = owner
        return True

    def release_caller(self):
        """Leave the caller's socket alone; return what could not be sent."""
        self._caller_owner = None
        return _leave(&self._caller)

    def write_caller(self, bytes message not None):
        """Send one message in one piece; False: it was dropped, the caller does not read."""
        return self._write_caller(
            <const unsigned char *> PyBytes_AS_STRING(message), len(message)
        )

    cdef bint _write_caller(self, const unsigned char *message, Py_ssize_t size) except -1:
        cdef Py_ssize_t sent
        if self._caller.unsent_size > 0:
            return False
        sent = _try_send(&self._caller, message, size)
        if 0 < sent < size:  # its end must follow before anything else
            _send_later(&self._caller, message + sent, size - sent)
        return sent > 0

    cdef int _read_caller(self, double now) except -1:
        cdef const unsigned char *at = _input
        cdef const unsigned char *end
        cdef ssize_t size = recv(self._caller.fd, _input, _INPUT_SIZE, MSG_DONTWAIT)
        if size < 0 and (errno == EAGAIN or errno == EINTR):
            return 0
        if size <= 0:
            self._caller_owner.on_path_end(errno if size < 0 else self._caller.error)
            return 0
        end = at + size
        while at < end and self._caller.fd >= 0:
            at += self._line.read_caller(at, end - at, now)
            if self._line.came == AUDIO:
                self._send_frame()
            elif self._line.came == ITEMS:
                self._call.receive(self._line.items)
        return 0

    # The agent's socket

    def take_agent(self, int fd, bint masks, owner not None):
        """The same with the agent's socket, from the start of a frame."""
        if self.is_closed or not _take(&self._agent, fd):
            return False
        self._agent_owner = owner
        self._masks = masks
        self._held_size = 0
        self.sends_audio = self.plays_audio = False
        return True

    def release_agent(self):
        """Leave the agent's socket alone; return what could not be sent."""
        self._agent_owner = None
        self.sends_audio = self.plays_audio = False
        return _leave(&self._agent)

    @property
    def unsent(self):
        """How many bytes the agent's socket would not take yet."""
        return self._agent.unsent_size

    def send(self, int opcode, bytes payload not None):
        """Send a WebSocket frame to the agent; what the kernel does not take waits."""
        cdef Py_ssize_t size = len(payload)
        cdef unsigned char *to = _room(size)
        memcpy(to, PyBytes_AS_STRING(payload), size)
        self._send_payload(opcode, to, size)

    cdef int _send_payload(self, int opcode, unsigned char *payload, Py_ssize_t size) except -1:
        cdef unsigned char *frame = _put_header(payload, size, opcode, self._masks)
        return _send(&self._agent, frame, payload - frame + size)

    cdef int _send_frame(self) except -1:
        """Send the audio frame that the line has ready, or give it to the call."""
        cdef Py_ssize_t size = self._line.frame_size()
        cdef unsigned char *to = _room(size)
        self._line.put_frame(to)
        return self._send_audio(to, size)

    cdef int _send_audio(self, unsigned char *frame, Py_ssize_t size) except -1:
        if not self.sends_audio:
            self._call.receive([frame[:size]])
        elif self._agent.unsent_size > 0:
            self._agent_owner.withhold_audio()
        else:
            self._send_payload(_BINARY, frame, size)
        return 0

    cdef int _read_agent(self, double now) except -1:
        cdef unsigned char *buffer = _input
        cdef Py_ssize_t before = self._held_size
        cdef ssize_t size
        if before > 0:
            buffer = self._held = _resize(self._held, before + _INPUT_SIZE)
        size = recv(self._agent.fd, buffer + before, _INPUT_SIZE, MSG_DONTWAIT)
        if size < 0 and (errno == EAGAIN or errno == EINTR):
            return 0
        if size <= 0:
            self._agent_owner.on_path_end()
            return 0
        self._hold(buffer, before + size, self._read_frames(buffer, before + size, now))
        return 0

    cdef Py_ssize_t _read_frames(
        self, unsigned char *buffer, Py_ssize_t size, double now
    ) except -1:
        """Take whole frames; return how many bytes they had."""
        cdef Py_ssize_t at = 0
        cdef unsigned char *payload
        cdef Frame frame
        cdef int error
        while self._agent.fd >= 0:
            error = _read_header(buffer + at, size - at, not self._masks, &frame)
            if error > 0:
                self._agent_owner.on_path_violation(error)
                return size
            if error == _UNFINISHED or frame.header + frame.size > size - at:
                return at
            payload = buffer + at + frame.header
            at += frame.header + frame.size
            self._take_frame(&frame, payload, now)
        return size

    cdef int _take_frame(self, Frame *frame, unsigned char *payload, double now) except -1:
        cdef uint32_t key
        if frame.is_masked:
            memcpy(&key, payload - 4, 4)
            _mask(payload, frame.size, key)
        if (
            self.plays_audio
            and frame.opcode == _BINARY
            and frame.fin
            and self._line.play(payload, frame.size, now)
        ):
            return 0
        self._agent_owner.take_frame(frame.opcode, frame.fin, payload[:frame.size])
        return 0

    cdef int _hold(self, unsigned char *buffer, Py_ssize_t size, Py_ssize_t taken) except -1:
        """Keep what follows the frames that were taken."""
        cdef Py_ssize_t left = size - taken
        if left == 0:
            free(self._held)
            self._held = NULL
        elif buffer == self._held:
            memmove(self._held, self._held + taken, left)
            self._held = _resize(self._held, left)
        else:
            self._held = _resize(self._held, left)
            memcpy(self._held, buffer + taken, left)
        self._held_size = left
        return 0

    # What the ticker calls

    def tick(self, double now):
        """Give the caller the 20 ms that are due."""
        cdef Py_ssize_t size
        cdef unsigned char *message
        cdef bytes fill
        cdef list events
        if self.asks_call or self._caller.fd < 0:
            if self._call is not None:
                self._call.tick(now)
            return
        events = []
        size = self._line.message_size()
        message = _room(size)
        self._line.put_message(message, now, events)
        if not self._write_caller(message, size):
            self._caller_owner.drop_audio()
        fill = self._line.fill(now)
        if fill is not None:
            message = _room(len(fill))
            memcpy(message, PyBytes_AS_STRING(fill), len(fill))
            self._send_audio(message, len(fill))
        if events:
            self._call.on_playout(events, now)

    def fail(self):
        """A frame or a tick raised; end the call."""
        if self._call is not None:
            self._call.fail()


cdef unsigned char *_resize(unsigned char *buffer, Py_ssize_t size) except NULL:
    buffer = <unsigned char *> realloc(buffer, size)
    if buffer == NULL:
        raise MemoryError
    return buffer
