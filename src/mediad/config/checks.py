"""What is checked of a setting beyond its type: addresses, headers, files."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from string import Formatter
from urllib.parse import urlsplit

from pydantic import SecretStr

__all__ = ["check_agent_url", "check_headers", "check_readable", "check_server_url"]

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FIELD_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_URL = re.compile(r"[\x21-\x7e]+")


def check_readable(path: Path) -> None:
    """Raise a ValueError where there is no file that can be read."""
    if not (os.path.isfile(path) and os.access(path, os.R_OK)):  # an odd name is no error to it
        raise ValueError(f"{path} cannot be read")


def check_headers(headers: Mapping[str, SecretStr]) -> None:
    """Raise a ValueError if these cannot be headers of a request."""
    for name, value in headers.items():
        if not _TOKEN.fullmatch(name):
            raise ValueError(f"{name!r} is no name of a header (RFC 9110, 5.1)")
        if not _FIELD_VALUE.fullmatch(value.get_secret_value()):
            raise ValueError(f"the value of {name} has characters that no header may have")


def check_agent_url(url: str) -> None:
    """Check the address of an agent.

    Raises:
        ValueError: If it is none; says it without what could be a secret in it.
    """
    shown = url.rpartition("@")[2].partition("?")[0]  # without a password, and without a key
    if not _URL.fullmatch(url):
        raise ValueError(f"{shown!r} has characters that no address may have")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as exc:  # a port that is no port, brackets that do not match
        raise ValueError(f"{shown!r}: its port or its brackets are wrong") from exc
    if parts.scheme not in ("ws", "wss") or not parts.hostname or port == 0:
        raise ValueError(f"{shown!r} is no ws:// or wss:// address")
    if parts.username or parts.password:
        raise ValueError("user and password in the address are not sent; use ai.headers")
    try:
        names = {name for _, name, _, _ in Formatter().parse(url) if name is not None}
    except ValueError:  # a brace without its other half
        names = {""}
    if not names <= {"call_id", "from", "to"}:
        raise ValueError(f"{shown!r}: only {{call_id}}, {{from}} and {{to}} may stand in it")


def check_server_url(url: str, schemes: tuple[str, ...]) -> None:
    """Check the address of a server of ours. What is wrong is said without the address: it may
    hold a password.
    """
    wanted = " or ".join(f"{scheme}://" for scheme in schemes)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as exc:
        raise ValueError("no address: its port or its brackets are wrong") from exc
    if parts.scheme not in schemes:
        raise ValueError(f"no {wanted} address")
    if parts.scheme == "sqlite":
        if parts.netloc or len(parts.path) < 2:
            raise ValueError("sqlite:// takes a path, as sqlite:////var/lib/mediad/mediad.db")
        return
    if not parts.hostname or port == 0:
        raise ValueError(f"no {wanted} address: it needs a host")
    if parts.scheme == "mysql" and parts.query:
        raise ValueError("a mysql:// address takes no options behind a ?")
    if parts.scheme == "mysql" and len(parts.path) < 2:
        raise ValueError("no name of a database: mysql://user:password@host:3306/mediad")
