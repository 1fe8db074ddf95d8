"""A TCP connection one end of which is gone without a word: no FIN, no RST, no ACK any more."""

import ctypes
import socket
import struct

__all__ = ["vanish"]

_SO_ATTACH_FILTER = 26
_DROP = struct.pack("HBBI", 0x06, 0, 0, 0)  # classic BPF: ret #0


def vanish(sock: socket.socket) -> None:
    """Let the kernel drop, unacknowledged, whatever comes for this socket from now on.

    To its peer that is a cable which was pulled. It needs no rights, and what the socket sends
    still arrives: send nothing.
    """
    program = ctypes.create_string_buffer(_DROP, len(_DROP))
    fprog = struct.pack("HP", 1, ctypes.addressof(program))  # how many instructions, and where
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, fprog)
