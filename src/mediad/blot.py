"""What a peer says, made fit to be shown: short, on one line, and without a secret of ours.

A peer may repeat what we sent it, and that has keys in it. So every secret that a setting holds is
known here, and blotted out of a peer's words before they are used, and out of all that is logged.
What is said on a call, by whomever, is no such text: it stays as it is.
"""

import base64
import re
from urllib.parse import quote, unquote, urlsplit

__all__ = ["MASK", "MAX_WORDS", "blot", "know", "one_line", "quoted", "words"]

MASK = "**********"

MAX_WORDS = 200
"""The longest words of a peer that are kept, in characters."""

_MAX_READ = 4_096  # characters that are looked through for them
_LEAST = 6  # characters of a secret; what is shorter is none, and stands within other words
_HEAD = 12  # characters by which a longer one is known: a peer may have cut off the rest
_SERVERS = ("mysql://", "redis://", "rediss://", "sqlite://")
_AUTHORIZATION = re.compile(r"([A-Za-z]+) +(\S+)")  # RFC 9110, 11.4

_known: set[str] = set()
_pattern: re.Pattern[str] | None = None


def know(secret: str) -> None:
    """Let nobody see a secret from now on: a key, a header's value, or a URL's password."""
    global _pattern
    for part in _parts(secret):
        _known.update(one for one in (part, quote(part, safe=""), unquote(part)) if _is_long(one))
    if _known:
        # The longest first: one may be the beginning of another.
        _pattern = re.compile("|".join(map(_known_as, sorted(_known, key=len, reverse=True))))


def blot(text: str) -> str:
    """Return the text with a mask in place of each secret."""
    return text if _pattern is None else _pattern.sub(MASK, text)


def words(text: str) -> str:
    """Return a peer's words for an event."""
    return one_line(_short(text))


def quoted(text: str) -> str:
    """Return a peer's words for a log line or an error, in quotation marks."""
    return repr(_short(text))


def one_line(text: str) -> str:
    """Return the text with what would be no character on a line, as a line's end, escaped."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def _short(text: str) -> str:
    return blot(text[:_MAX_READ])[:MAX_WORDS]


def _parts(secret: str) -> list[str]:
    if secret.startswith(_SERVERS):  # all but the password may be shown
        password = _password(secret)
        return [password] if password else []
    scheme = _AUTHORIZATION.fullmatch(secret)
    if scheme is None:
        return [secret]
    credentials = scheme[2]
    if scheme[1].lower() != "basic":
        return [secret, credentials]
    try:
        _, _, password = base64.b64decode(credentials).decode().partition(":")
    except ValueError:  # it is what it is
        return [secret, credentials]
    return [secret, credentials, password]


def _password(url: str) -> str | None:
    try:
        return urlsplit(url).password
    except ValueError:  # brackets that do not match: the setting will be refused
        return url


def _is_long(secret: str) -> bool:
    return len(secret) >= _LEAST


def _known_as(secret: str) -> str:
    whole = re.escape(secret)
    return whole if len(secret) <= _HEAD else rf"{whole}|{re.escape(secret[:_HEAD])}[!-~]*"
