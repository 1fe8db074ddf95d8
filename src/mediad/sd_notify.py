"""What a service tells systemd, after sd_notify(3): datagrams, or nothing where there is none."""

import os
import socket

__all__ = ["READY", "STOPPING", "WATCHDOG", "SdNotify"]

READY = "READY=1"
STOPPING = "STOPPING=1"
WATCHDOG = "WATCHDOG=1"


class SdNotify:
    """The way to systemd, as the environment tells it.

    Its socket is opened once: a process that has run out of files must not be taken for dead.
    """

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        address = os.environ.get("NOTIFY_SOCKET", "")
        if address.startswith(("/", "@")):
            # An @ stands for the zero byte of Linux's abstract namespace: no file.
            self._address = "\0" + address[1:] if address.startswith("@") else address
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.setblocking(False)

    def notify(self, state: str) -> bool:
        """Tell systemd a state, from any thread and without waiting; False when nobody was told.

        Args:
            state: Assignments, one a line, as ``READY=1``.
        """
        if self._socket is None:
            return False
        try:
            self._socket.sendto(state.encode(), self._address)
        except OSError:  # systemd restarts, or its queue is full: one word to it is lost
            return False
        return True

    @property
    def watchdog_s(self) -> float | None:
        """After how many seconds without WATCHDOG systemd takes us for dead; None: it does not
        watch.
        """
        usec = os.environ.get("WATCHDOG_USEC", "")
        is_ours = os.environ.get("WATCHDOG_PID") in (None, str(os.getpid()))
        if self._socket is None or not is_ours or not usec.isdecimal() or not int(usec):
            return None
        return int(usec) / 1_000_000

    def close(self) -> None:
        """Tell no more."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
