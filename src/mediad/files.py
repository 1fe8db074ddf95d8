"""Open files: how many mediad may need at the most, and whether the process may have them."""

import resource

from mediad.api.connections import MAX_CONNECTIONS as HTTP_CONNECTIONS
from mediad.cache.redis import MAX_CONNECTIONS as REDIS_CONNECTIONS
from mediad.config import Settings
from mediad.errors import ConfigError
from mediad.store.engine import database_url
from mediad.transport.audiosocket import MAX_WAITING
from mediad.webhooks.sender import MAX_KEPT, MAX_REQUESTS

__all__ = ["check_files", "files_needed", "raise_file_limit"]

# The caller's socket, those to three services, and one while one of these is replaced. Any call may
# be a pipeline's: the agent of a number can say so. One that is not has two.
_OF_CALL = 5

_OF_SQLITE = 16  # five connections, each with the file and its log, and what they share
_OTHERS = 128  # listeners, loops, the journal, the log, 32 look-ups of host names with two each


def raise_file_limit() -> None:
    """Let the process open as many files as it may."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def files_needed(settings: Settings) -> dict[str, int]:
    """Return how many files may be open at once, by what they are for."""
    is_sqlite = database_url(settings.database).get_backend_name() == "sqlite"
    http_ports = 1 if settings.http.metrics_port is None else 2
    return {
        "calls": _OF_CALL * settings.audiosocket.max_calls,
        "callers without a UUID yet": MAX_WAITING,
        "HTTP": http_ports * HTTP_CONNECTIONS,
        "the database": _OF_SQLITE if is_sqlite else settings.database.pool_max,
        "Redis": 0 if settings.redis.url is None else REDIS_CONNECTIONS + 1,  # one looks after it
        "webhooks": MAX_REQUESTS + MAX_KEPT,
        "all else": _OTHERS,
    }


def check_files(settings: Settings) -> None:
    """Refuse more calls than the process may open files for.

    Raises:
        ConfigError: Naming what the files are for.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = files_needed(settings)
    total = sum(needed.values())
    if hard != resource.RLIM_INFINITY and hard < total:
        parts = ", ".join(f"{count} for {what}" for what, count in needed.items() if count)
        raise ConfigError(
            f"[audiosocket] max_calls: {settings.audiosocket.max_calls} calls may need {total} "
            f"open files ({parts}), and this process may have {hard}; raise that limit "
            "(ulimit -Hn, LimitNOFILE=) or lower max_calls"
        )
