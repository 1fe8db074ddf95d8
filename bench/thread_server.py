"""A peer: the AudioSocket server one writes first. A thread per call, blocking sockets, echo.

No agent, no resampling, no pacing. ``python -m bench.thread_server`` says where it listens.
"""

import socket
import struct
import sys
import threading

_HEADER = struct.Struct("!BH")
_SLIN = 0x10


def receive(connection: socket.socket, size: int) -> bytes:
    """Return exactly so many bytes; fewer at the end."""
    data = b""
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            break
        data += part
    return data


def serve_call(connection: socket.socket) -> None:
    """Echo a call's audio until it ends."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with connection:
        while len(header := receive(connection, _HEADER.size)) == _HEADER.size:
            kind, size = _HEADER.unpack(header)
            payload = receive(connection, size)
            if kind == _SLIN:
                connection.sendall(header + payload)


def main() -> None:
    """Listen on a free port of 127.0.0.1, for ever."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as server:
        host, port = server.getsockname()
        print(f"thread_server takes calls on {host}:{port}", file=sys.stderr, flush=True)
        while True:
            connection, _ = server.accept()
            threading.Thread(target=serve_call, args=(connection,), daemon=True).start()


if __name__ == "__main__":
    main()
