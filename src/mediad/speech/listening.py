"""The TCP port of an agent or a service, taken before what answers there is loaded."""

import socket

from mediad.errors import ConfigError

__all__ = ["listen"]


def listen(host: str, port: int) -> socket.socket:
    """Take the address at once; who connects before the agent is ready waits for it.

    Args:
        port: 0 means a free one.

    Raises:
        ConfigError: If the address is in use, or not this machine's.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen()
    except OSError as exc:
        listener.close()
        raise ConfigError(
            f"the agent cannot listen on {host}, port {port} ({exc.strerror}); choose another "
            "with --host or --port"
        ) from exc
    return listener
