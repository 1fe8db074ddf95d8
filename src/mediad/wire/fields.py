"""Checked reading of one field of a peer's JSON object: the value, bounded, or `BadField`."""

import math
from collections.abc import Mapping
from typing import Any

__all__ = [
    "MAX_N",
    "BadField",
    "integer",
    "is_n",
    "name",
    "number",
    "objects",
    "read_n",
    "text",
    "writable",
]

MAX_N = 2**53 - 1
"""The largest n: JSON of every language keeps it."""

_MAX_NAME = 256  # characters


class BadField(Exception):
    """A field is missing or wrong. ``reason`` labels a counter; the text is for people."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def is_n(value: object) -> bool:
    """Tell whether this can number a request."""
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_N


def read_n(data: Mapping[str, Any]) -> int:
    """Return the number of a request."""
    n = data.get("n")
    if not is_n(n):
        raise BadField("bad_n", "n is no whole number from 1")
    assert isinstance(n, int)
    return n


def text(data: Mapping[str, Any], key: str, max_chars: int) -> str:
    """Return a text, cut to ``max_chars``; it must be there."""
    value = data.get(key)
    if not isinstance(value, str):
        raise BadField("bad_data", f"{key} is no text")
    return writable(value[:max_chars])


def name(data: Mapping[str, Any], key: str) -> str:
    """Return a short text such as an id or a voice, empty when it is not there."""
    value = data.get(key)
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > _MAX_NAME:
        raise BadField("bad_data", f"{key} is no text of at most {_MAX_NAME} characters")
    return writable(value)


def integer(data: Mapping[str, Any], key: str, largest: int, default: int | None = None) -> int:
    """Return a whole number from 0 to ``largest``, also one written as 1.0 or 1.5, rounded down."""
    value = number(data, key, largest)
    if value is None:
        value = default
    if value is None:
        raise BadField("bad_data", f"{key} is missing")
    return int(value)


def number(data: Mapping[str, Any], key: str, largest: float) -> float | None:
    """Return a number from 0 to ``largest``, None when it is not there."""
    value = data.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadField("bad_data", f"{key} is no number")
    if not 0 <= value <= largest or math.isnan(value):
        raise BadField("bad_data", f"{key} is not between 0 and {largest}")
    return value


def objects(data: Mapping[str, Any], key: str, most: int) -> list[dict[str, Any]]:
    """Return a list of JSON objects, empty when it is not there."""
    value = data.get(key) or []
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise BadField("bad_data", f"{key} is no list of objects")
    if len(value) > most:
        raise BadField("bad_data", f"{key} has {len(value)} entries; at most {most}")
    return value


def writable(value: str) -> str:
    """Return a text that can be written as UTF-8: half a surrogate pair, legal in JSON, cannot."""
    return value.encode(errors="replace").decode()
