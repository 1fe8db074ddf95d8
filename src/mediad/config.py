"""Every setting of mediad: one frozen model per table of ``mediad.toml``. Validated once, at start.

Each setting can also come from the environment, which wins over the file: ``[audiosocket] port`` is
``MEDIAD_AUDIOSOCKET__PORT``. Lists and tables are written as JSON there, or a list as words with
commas between.
"""

import json
import os
import re
import tomllib
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from string import Formatter
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from mediad.errors import ConfigError

__all__ = ["Ai", "AudioSocket", "Http", "Log", "Settings", "load_settings"]

ENV_PREFIX = "MEDIAD_"

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FIELD_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_URL = re.compile(r"[\x21-\x7e]+")

Port = Annotated[int, Field(ge=0, le=65535)]
Host = Annotated[str, Field(min_length=1)]  # an empty one would bind every interface
Seconds = Annotated[float, Field(gt=0, le=86400, allow_inf_nan=False)]


def _words(value: object) -> object:
    """Let a list also be written as JSON or as one string with commas, for the environment."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        return json.loads(value)
    return [word.strip() for word in value.split(",") if word.strip()]


def _json(value: object) -> object:
    """Let a table also be written as JSON, for the environment."""
    return json.loads(value) if isinstance(value, str) else value


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class AudioSocket(_Table):
    """The listener that Asterisk connects to."""

    host: Host = "127.0.0.1"
    """Address to bind; 0.0.0.0 for every interface (then set ``allow``)."""
    port: Port = 9092
    """TCP port; 0 takes a free one."""
    allow: Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode, BeforeValidator(_words)] = ()
    """Networks that may connect, as ["10.0.0.0/8"]; empty allows all that reach the address."""
    codec: Literal["auto", "slin", "ulaw", "alaw"] = "auto"
    """What messages of kind 0x10 carry; auto finds out by the byte rate of the first 200 ms."""
    g711: Literal["ulaw", "alaw"] = "ulaw"
    """Which G.711 law auto takes."""
    uuid_timeout_s: Seconds = 5.0
    """Close a connection whose UUID has not come after this long, in seconds."""
    dead_peer_s: Seconds = 20.0
    """Find a peer that vanished without a word after this long, in seconds (keep-alive,
    TCP_USER_TIMEOUT).
    """
    max_calls: Annotated[int, Field(ge=1, le=100_000)] = 1000
    """Calls at once; one more gets 0x00 at once, so that its dialplan goes on."""
    max_call_s: Seconds = 14_400.0
    """Longest call, in seconds; then it is hung up."""
    playout_max_s: Annotated[float, Field(ge=1, le=600, allow_inf_nan=False)] = 60.0
    """Agent audio held per call, in seconds; what comes beyond it is refused and counted."""


class Http(_Table):
    """The HTTP port: /metrics, /healthz, /readyz."""

    host: Host = "127.0.0.1"
    """Address to bind."""
    port: Port = 8080
    """TCP port; 0 takes a free one."""


class Ai(_Table):
    """The link to the AI agent: one WebSocket per call."""

    agent_url: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_words)] = (
        "ws://127.0.0.1:8765",
    )
    """Where the agent is, ws:// or wss://; {call_id}, {from} and {to} may stand in it. A list names
    stand-ins, tried in order. Empty: agents dial in to ``listen_port``."""
    headers: Annotated[dict[str, SecretStr], NoDecode, BeforeValidator(_json)] = {}
    """HTTP headers for the agent, as {Authorization = "Bearer …"}."""
    listen_host: Host = "127.0.0.1"
    """Address to bind for agents that dial in."""
    listen_port: Port = 8766
    """TCP port for agents that dial in, opened when ``agent_url`` is empty; 0 takes a free one."""
    token_s: Seconds = 30.0
    """How long the token of an agent that dials in is good, in seconds."""
    connect_timeout_s: Seconds = 10.0
    """Give up when no agent can be had after this long, in seconds."""
    reconnect_s: Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)] = 30.0
    """How long to try again when the agent is lost within a call, in seconds."""
    ping_s: Seconds = 5.0
    """Ping the agent this often, in seconds; twice this without a pong is a lost agent."""
    unavailable_prompt: Path | None = None
    """WAV file (s16le) the caller hears when no agent can be had; a tone without one."""
    ca_file: Path | None = None
    """PEM file with the certificate authorities for wss://; the system's without one."""

    @field_validator("agent_url")
    @classmethod
    def _check_url(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        for url in urls:
            _check_agent_url(url)
        return urls

    @field_validator("headers")
    @classmethod
    def _check_headers(cls, headers: dict[str, SecretStr]) -> dict[str, SecretStr]:
        for name, value in headers.items():
            if not _TOKEN.fullmatch(name):
                raise ValueError(f"{name!r} is no name of a header (RFC 9110, 5.1)")
            if not _FIELD_VALUE.fullmatch(value.get_secret_value()):
                raise ValueError(f"the value of {name} has characters that no header may have")
        return headers

    @field_validator("unavailable_prompt", "ca_file")
    @classmethod
    def _check_readable(cls, path: Path | None) -> Path | None:
        if path is not None and not (path.is_file() and os.access(path, os.R_OK)):
            raise ValueError(f"{path} cannot be read")
        return path


class Log(_Table):
    """Logging, to standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least level written."""


class Settings(BaseSettings):
    """All tables. Build it with `load_settings`, whose errors say file, table and key."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix=ENV_PREFIX,
        env_nested_delimiter="__",
        hide_input_in_errors=True,
    )

    audiosocket: AudioSocket = AudioSocket()
    http: Http = Http()
    ai: Ai = Ai()
    log: Log = Log()

    @model_validator(mode="after")
    def _check_ports(self) -> Self:
        taken: dict[int, str] = {}
        for name, port in (
            ("audiosocket.port", self.audiosocket.port),
            ("http.port", self.http.port),
            ("ai.listen_port", 0 if self.ai.agent_url else self.ai.listen_port),
        ):
            if port and port in taken:
                raise ValueError(f"{name} and {taken[port]} are both {port}")
            taken[port] = name
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment wins over the file, whose content comes as arguments."""
        return env_settings, init_settings


def load_settings(path: Path | None = None) -> Settings:
    """Read settings from a TOML file and the environment.

    Args:
        path: The file; None takes the built-in defaults.

    Raises:
        ConfigError: Naming the file or environment variable, the table and the key, one line each.
    """
    tables = _read_toml(path) if path else {}
    _refuse_unknown_environment()
    try:
        return Settings(**tables)
    except ValidationError as exc:
        raise ConfigError("\n".join(_describe(path, error) for error in exc.errors())) from exc
    except (
        ValueError
    ) as exc:  # pydantic-settings, of an environment variable that is not the JSON it must be
        raise ConfigError(f"environment: {exc}") from exc


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise ConfigError(f"{path}: cannot be read: {exc.strerror}") from exc
    except ValueError as exc:  # TOMLDecodeError, UnicodeDecodeError
        raise ConfigError(f"{path}: is no TOML: {exc}") from exc


def _refuse_unknown_environment() -> None:
    known = {
        f"{ENV_PREFIX}{table}__{key}".upper()
        for table, field in Settings.model_fields.items()
        for key in getattr(field.annotation, "model_fields", {})
    }
    # Others have names with our prefix: Kubernetes sets MEDIAD_PORT for a service called mediad.
    tables = tuple(f"{ENV_PREFIX}{table}".upper() for table in Settings.model_fields)
    ours = (
        name
        for name in os.environ
        if name.startswith(tables) or (name.startswith(ENV_PREFIX) and "__" in name)
    )
    unknown = sorted(name for name in ours if name not in known)
    if unknown:
        raise ConfigError(
            "\n".join(
                f"environment {name}: no such setting (see config/mediad.toml)" for name in unknown
            )
        )


def _describe(path: Path | None, error: Mapping[str, Any]) -> str:
    location = [str(part) for part in error["loc"]]
    table, key = (location + ["", ""])[:2]
    variable = ENV_PREFIX + "__".join((table, key)).upper()
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        message = "no such setting" if key else "no such table"
    if variable in os.environ:
        return f"environment {variable}: {message}"
    where = str(path) if path else "settings"
    return ": ".join(
        part for part in (where, f"[{table}] {key}".strip() if table else "", message) if part
    )


def _check_agent_url(url: str) -> None:
    shown = url.rpartition("@")[2]  # without a password
    if not _URL.fullmatch(url):
        raise ValueError(f"{shown!r} has characters that no address may have")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as exc:  # a port that is no port, brackets that do not match
        raise ValueError(f"{shown!r}: {exc}") from exc
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
