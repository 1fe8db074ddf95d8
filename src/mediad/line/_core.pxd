# The line as other compiled modules call it: nothing here makes an object on the way of a frame.

cdef enum Came:
    NOTHING  # the message is not complete
    AUDIO  # a frame for the agent, to be put somewhere
    ITEMS  # what `items` holds: control messages, or frames that the codec's detection had held


cdef class LineBase:
    cdef Came came  # what `read_caller` found
    cdef list items

    # Read up to the end of one message; return how many bytes were read.
    cdef Py_ssize_t read_caller(
        self, const unsigned char *data, Py_ssize_t size, double now
    ) except -1

    # After AUDIO: the size of the frame, and the frame. It must be put somewhere, or filters skip.
    cdef Py_ssize_t frame_size(self) noexcept
    cdef int put_frame(self, unsigned char *to) except -1

    # Take an audio frame of the usual form; False is for `Line.receive_agent` to look at.
    cdef bint play(self, const unsigned char *message, Py_ssize_t size, double now) except -1

    # Every 20 ms: the message for the caller, and a frame of silence for the agent or None.
    cdef Py_ssize_t message_size(self) noexcept
    cdef int put_message(self, unsigned char *to, double now, list events) except -1
    cdef bytes fill(self, double now)
