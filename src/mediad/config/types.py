"""The types of settings, and the table that they stand in."""

import json
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr
from pydantic_settings import NoDecode

from mediad import blot
from mediad.config.checks import check_agent_url, check_headers

__all__ = [
    "ENDPOINT_LIMITS",
    "AllOrNetworks",
    "EndpointLimits",
    "Headers",
    "Host",
    "LimitedEndpoint",
    "Networks",
    "Port",
    "Prompts",
    "Seconds",
    "Secret",
    "Table",
    "Urls",
]

LimitedEndpoint = Literal[
    "accesskeys:create", "calls:create", "webhook_deliveries:redeliver", "webhooks:test"
]

ENDPOINT_LIMITS: dict[LimitedEndpoint, int] = {
    # Keys are made by people. Rotating one makes one, too.
    "accesskeys:create": 100,
    # As many as `audiosocket.max_calls` takes of half a minute each, one after the other; all of
    # them may begin at once. What asks for more has gone wrong, as a dialplan in a loop does.
    "calls:create": 30_000,
    # After an outage a program may go through thousands.
    "webhook_deliveries:redeliver": 10_000,
    "webhooks:test": 100,
}
"""Requests in 15 minutes with one access key, where the settings say nothing else."""

_SECRET_FILE = "file:"
_MAX_SECRET_BYTES = 64 * 1024


def _words(value: object) -> object:
    """Let a list also be written as JSON or as one string with commas, for the environment."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        return _from_json(value)
    return [word.strip() for word in value.split(",") if word.strip()]


def _bool_or_words(value: object) -> object:
    """Let true and false stand beside a list, also in the environment."""
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    return _words(value)


def _json(value: object) -> object:
    """Let a table also be written as JSON, for the environment."""
    return _from_json(value) if isinstance(value, str) else value


def _complete(value: object) -> object:
    """Let the endpoints that are not named keep their limits."""
    limits = _json(value)
    if not isinstance(limits, dict):
        return limits
    if unknown := [name for name in limits if name not in ENDPOINT_LIMITS]:
        raise ValueError(f"there is no {unknown[0]!r}, only {', '.join(ENDPOINT_LIMITS)}")
    return {**ENDPOINT_LIMITS, **limits}


def _from_json(text: str) -> object:
    try:
        return json.loads(text)
    except RecursionError as exc:
        raise ValueError("is JSON that is nested too deep") from exc


def _read_secret(value: object) -> object:
    """Let a secret be named by its file."""
    if not isinstance(value, str) or not value.startswith(_SECRET_FILE):
        return value
    path = Path(value.removeprefix(_SECRET_FILE))
    if not path.is_absolute():
        raise ValueError(f"{value} is no absolute path, as {_SECRET_FILE}/run/secrets/name")
    try:
        if path.stat().st_size > _MAX_SECRET_BYTES:
            raise ValueError(f"{path} is too large for a secret")
        secret = path.read_text(encoding="utf-8").rstrip("\r\n")
    except OSError as exc:
        raise ValueError(f"{path} cannot be read: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise ValueError(f"{path} is no text") from exc
    if not secret:
        raise ValueError(f"{path} is empty")
    return secret


def _blot_out(secret: SecretStr) -> SecretStr:
    blot.know(secret.get_secret_value())
    return secret


def _check_urls(urls: tuple[str, ...]) -> tuple[str, ...]:
    for url in urls:
        check_agent_url(url)
    return urls


def _check_headers(headers: dict[str, SecretStr]) -> dict[str, SecretStr]:
    check_headers(headers)
    return headers


Port = Annotated[int, Field(ge=0, le=65535)]
Host = Annotated[str, Field(min_length=1)]  # an empty one would bind every interface
Seconds = Annotated[float, Field(gt=0, le=86400, allow_inf_nan=False)]
_PromptName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
Networks = Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode, BeforeValidator(_words)]
AllOrNetworks = Annotated[
    bool | tuple[IPv4Network | IPv6Network, ...], NoDecode, BeforeValidator(_bool_or_words)
]
Secret = Annotated[SecretStr, BeforeValidator(_read_secret), AfterValidator(_blot_out)]
"""A setting that nobody may see: masked wherever settings are shown, and blotted out of all that is
logged. ``file:/run/secrets/name`` takes the content of that file, without the line's end.
"""

Urls = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_words), AfterValidator(_check_urls)]
"""Of agents and services."""

Headers = Annotated[
    dict[str, Secret], NoDecode, BeforeValidator(_json), AfterValidator(_check_headers)
]
"""Of a request."""

EndpointLimits = Annotated[
    dict[LimitedEndpoint, Annotated[int, Field(ge=0)]], NoDecode, BeforeValidator(_complete)
]
"""Requests by endpoint."""

Prompts = Annotated[dict[_PromptName, Path], NoDecode, BeforeValidator(_json)]
"""WAV files by name."""


class Table(BaseModel):
    """A table of ``mediad.toml``."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)
