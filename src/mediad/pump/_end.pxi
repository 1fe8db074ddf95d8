# One end of a path: a non-blocking socket that asyncio has left to the pump, and what it would not
# take yet. Level-triggered: what is not read or written now is told of again.

cdef struct End:
    int fd  # -1: the socket is not ours
    int epoll
    int error  # of a send that failed; the read that follows tells of it
    bint is_agent
    PyObject *path  # the owner, not counted
    unsigned char *unsent
    Py_ssize_t unsent_size


cdef int _watch(End *end, int operation, uint32_t events) except -1:
    cdef epoll_event event
    event.events = events
    event.data.ptr = end
    if epoll_ctl(end.epoll, operation, end.fd, &event) != 0:
        PyErr_SetFromErrno(OSError)
        return -1
    return 0


cdef bint _take(End *end, int fd) except -1:
    """Take a socket; False: the pump has one, or the kernel will not watch another."""
    if end.fd >= 0:
        return False
    end.fd = fd
    end.error = 0
    try:
        _watch(end, EPOLL_CTL_ADD, EPOLLIN)
    except OSError as exc:
        logger.warning("a socket stays with asyncio: %s", exc)
        end.fd = -1
    return end.fd >= 0


cdef bytes _leave(End *end):
    """Give the socket back, before anybody closes it; return what could not be sent."""
    cdef bytes unsent = end.unsent[:end.unsent_size]
    if end.fd >= 0:
        epoll_ctl(end.epoll, EPOLL_CTL_DEL, end.fd, NULL)
        end.fd = -1
    _forget_unsent(end)
    return unsent


cdef void _forget_unsent(End *end) noexcept:
    free(end.unsent)
    end.unsent = NULL
    end.unsent_size = 0


cdef Py_ssize_t _try_send(End *end, const unsigned char *data, Py_ssize_t size) noexcept:
    """Return how many bytes the kernel has taken: all of them, if nobody will ever read them."""
    cdef ssize_t sent = send(end.fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL)
    if sent >= 0:
        return sent
    if errno == EAGAIN or errno == EINTR or errno == ENOBUFS or errno == ENOMEM:
        return 0
    end.error = errno
    return size


cdef int _send(End *end, const unsigned char *data, Py_ssize_t size) except -1:
    """Send now what the kernel takes, and the rest later."""
    cdef Py_ssize_t sent
    if end.fd < 0:
        return 0
    sent = _try_send(end, data, size) if end.unsent_size == 0 else 0
    if sent < size:
        _send_later(end, data + sent, size - sent)
    return 0


cdef int _send_later(End *end, const unsigned char *data, Py_ssize_t size) except -1:
    cdef unsigned char *unsent = <unsigned char *> realloc(end.unsent, end.unsent_size + size)
    if unsent == NULL:
        raise MemoryError
    if end.unsent_size == 0:
        _watch(end, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT)
    memcpy(unsent + end.unsent_size, data, size)
    end.unsent = unsent
    end.unsent_size += size
    return 0


cdef int _send_rest(End *end) except -1:
    cdef Py_ssize_t sent = _try_send(end, end.unsent, end.unsent_size)
    end.unsent_size -= sent
    if end.unsent_size == 0:
        _forget_unsent(end)
        return _watch(end, EPOLL_CTL_MOD, EPOLLIN)
    memmove(end.unsent, end.unsent + sent, end.unsent_size)
    return 0
