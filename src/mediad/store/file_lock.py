"""One process for a file: a lock on ``<file>.lock``, in which stands whose it is."""

import fcntl
import os
import time
from contextlib import suppress
from pathlib import Path

from mediad.errors import JournalError

__all__ = ["hold", "holder"]

_TRIES = 5  # `holder` has the lock for a moment
_PAUSE_S = 0.05


def hold(path: Path) -> int:
    """Take the lock of a file; return the descriptor to close in the end.

    Raises:
        JournalError: If another process has it; says which.
        OSError: If the lock's own file cannot be made.
    """
    lock = os.open(_lock_path(path), os.O_RDWR | os.O_CREAT, 0o644)
    try:
        for _ in range(_TRIES):
            with suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.ftruncate(lock, 0)
                os.pwrite(lock, b"%d\n" % os.getpid(), 0)
                return lock
            time.sleep(_PAUSE_S)
        raise JournalError(
            f"{path}: is in use by process {holder(path) or 'unknown'}; a journal has one process:"
            " stop that one, or set another [database] directory"
        )
    except BaseException:
        os.close(lock)
        raise


def holder(path: Path) -> int | None:
    """Return the number of the process that has a journal open (0: unknown), or None."""
    try:
        lock = os.open(_lock_path(path.resolve()), os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        number = os.pread(lock, 32, 0).strip()
        return int(number) if number.isdigit() else 0
    finally:
        os.close(lock)
    return None


def _lock_path(path: Path) -> Path:
    return path.with_name(path.name + ".lock")
