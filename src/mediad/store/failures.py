"""What the errors of the database drivers mean: try again, wrong setting, or none of both.

What is none of both is the fault of a statement or its values (a duplicate, a text too long) and is
raised as it is.
"""

import sqlite3

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

__all__ = ["misconfigured", "unavailable"]

_CLIENT_CODES = range(2000, 3000)  # the driver's own: cannot connect, lost connection, …

_DENIED = {
    1044,  # access to this database denied
    1045,  # wrong user or password
    1049,  # unknown database
    1130,  # this host may not connect
    1142,  # no right to do this with the table
    1143,  # nor with the column
    1227,  # nor at all
    1251,  # unknown kind of authentication
    1524,  # the same
    1698,  # wrong user or password, of the socket's plugin
    1820,  # the password must be changed first
    1862,  # the password has expired
}

_UNAVAILABLE = _DENIED | {
    1021,  # disk full
    1028,  # nowhere to sort
    1030,  # error of the storage engine
    1037,  # out of memory
    1038,  # out of memory to sort
    1040,  # too many connections
    1041,  # out of memory
    1053,  # shutting down
    1054,  # unknown column: the tables are of another version
    1114,  # table full
    1129,  # this host is blocked after too many errors
    1146,  # no such table: the tables are of another version
    1158,  # network: packet not read
    1159,  # network: timed out reading
    1160,  # network: packet not written
    1161,  # network: timed out writing
    1203,  # too many connections of this user
    1205,  # lock wait timed out
    1213,  # deadlock: we were chosen to lose
    1226,  # this user has used up what it may
    1290,  # read-only: no longer the primary server
    1317,  # query interrupted
    1792,  # read-only transaction
    1836,  # read-only
    1927,  # connection killed
    1969,  # statement timed out (MariaDB)
    3024,  # statement timed out (MySQL)
    4031,  # idle for too long (MySQL)
}

_SQLITE_UNAVAILABLE = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_INTERRUPT,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_NOTADB,
}

_SQLITE_DENIED = {
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
}


def unavailable(error: BaseException) -> str | None:
    """Return what keeps the database from doing its work; None when it is the statement's fault."""
    if isinstance(error, PoolTimeout):
        return "all connections are in use"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if not isinstance(error, DBAPIError):
        return None
    code, message = _read(error)
    sqlite_code = _sqlite_code(error)
    if sqlite_code is not None:
        gone = sqlite_code in _SQLITE_UNAVAILABLE or message.startswith("no such ")
    else:
        gone = code in _UNAVAILABLE or code in _CLIENT_CODES
    return message if gone or error.connection_invalidated else None


def misconfigured(error: BaseException) -> str | None:
    """Return what is wrong with the settings, or with the database that they name; None if nothing
    is.
    """
    if not isinstance(error, DBAPIError):
        return None
    code, message = _read(error)
    wrong = code in _DENIED or _sqlite_code(error) in _SQLITE_DENIED
    return message if wrong else None


def _read(error: DBAPIError) -> tuple[int | None, str]:
    """Return MySQL's code, if there is one, and what the driver says."""
    arguments = error.orig.args if error.orig is not None else ()
    match arguments:
        case (int(code), str(message), *_):
            return code, f"{message} ({code})" if code else message
        case _:
            return None, str(error.orig or error)


def _sqlite_code(error: DBAPIError) -> int | None:
    """Return SQLite's primary result code, if it is SQLite's error."""
    if not isinstance(error.orig, sqlite3.Error):
        return None
    # Errors of the Python module itself have none.
    return getattr(error.orig, "sqlite_errorcode", 0) & 0xFF
