"""Every setting of mediad: one frozen model per table of ``mediad.toml``. Validated once, at start.

Each setting can also come from the environment, which wins over the file: ``[audiosocket] port`` is
``MEDIAD_AUDIOSOCKET__PORT``. Lists and tables are written as JSON there, or a list as words with
commas between.

A secret may stand in a file of its own, as ``file:/run/secrets/name``: see `Secret`.
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

__all__ = [
    "Ai",
    "AudioSocket",
    "Cache",
    "Database",
    "Http",
    "Journal",
    "Llm",
    "Log",
    "Pipeline",
    "Redis",
    "ServiceSettings",
    "Settings",
    "Stt",
    "Tts",
    "Webhooks",
    "check_agent_url",
    "load_settings",
]

ENV_PREFIX = "MEDIAD_"

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FIELD_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_URL = re.compile(r"[\x21-\x7e]+")
_SECRET_FILE = "file:"
_MAX_SECRET_BYTES = 64 * 1024

Port = Annotated[int, Field(ge=0, le=65535)]
Host = Annotated[str, Field(min_length=1)]  # an empty one would bind every interface
Seconds = Annotated[float, Field(gt=0, le=86400, allow_inf_nan=False)]
PromptName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]


def _words(value: object) -> object:
    """Let a list also be written as JSON or as one string with commas, for the environment."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        return _from_json(value)
    return [word.strip() for word in value.split(",") if word.strip()]


Networks = Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode, BeforeValidator(_words)]


def _bool_or_words(value: object) -> object:
    """Let true and false stand beside a list, also in the environment."""
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    return _words(value)


AllOrNetworks = Annotated[
    bool | tuple[IPv4Network | IPv6Network, ...], NoDecode, BeforeValidator(_bool_or_words)
]


def _json(value: object) -> object:
    """Let a table also be written as JSON, for the environment."""
    return _from_json(value) if isinstance(value, str) else value


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


Secret = Annotated[SecretStr, BeforeValidator(_read_secret)]
"""A setting that nobody may see: masked wherever settings are shown. ``file:/run/secrets/name``
takes the content of that file, without the line's end.
"""


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class AudioSocket(_Table):
    """The listener that Asterisk connects to."""

    host: Host = "127.0.0.1"
    """Address to bind; 0.0.0.0 for every interface (then set ``allow``)."""
    port: Port = 9092
    """TCP port; 0 takes a free one."""
    allow: Networks = ()
    """Networks that may connect, as ["10.0.0.0/8"]; empty allows all that reach the address."""
    proxy_protocol: Literal["off", "v2"] = "off"
    """v2: each connection begins with a balancer's header that tells the caller's address, which
    ``allow`` and ``max_connects_per_s`` then judge.
    """
    proxies: Networks = ()
    """Networks of the balancers, for ``proxy_protocol``; empty believes all that connect."""
    codec: Literal["auto", "slin", "ulaw", "alaw"] = "auto"
    """What messages of kind 0x10 carry; auto finds out by the byte rate of the first 200 ms."""
    g711: Literal["ulaw", "alaw"] = "ulaw"
    """Which G.711 law auto takes."""
    uuid_timeout_s: Seconds = 5.0
    """Close a connection whose UUID has not come after this long, in seconds."""
    max_connects_per_s: Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)] = 500.0
    """Connections a second from one address, after twice as many at once; one more gets 0x00."""
    dead_peer_s: Seconds = 20.0
    """Find a peer that vanished without a word after this long, in seconds (keep-alive,
    TCP_USER_TIMEOUT).
    """
    max_calls: Annotated[int, Field(ge=1, le=100_000)] = 1000
    """Calls at once; one more gets 0x00 at once, so that its dialplan goes on."""
    unknown_calls: Literal["accept", "reject"] = "accept"
    """What becomes of a call whose UUID nobody has registered with the API; reject sends 0x00."""
    max_call_s: Seconds = 14_400.0
    """Longest call, in seconds; then it is hung up."""
    drain_timeout_s: Annotated[float, Field(ge=0, le=86400, allow_inf_nan=False)] = 300.0
    """How long live calls may go on after SIGTERM, in seconds; then they are hung up."""
    playout_max_s: Annotated[float, Field(ge=1, le=600, allow_inf_nan=False)] = 60.0
    """Agent audio held per call, in seconds; what comes beyond it is refused and counted."""
    playout_max_bytes: Annotated[int, Field(ge=1 << 20)] = 512 << 20
    """Agent audio held over all calls, in bytes; what comes beyond it is refused and counted."""

    @model_validator(mode="after")
    def _check_proxies(self) -> Self:
        if self.proxy_protocol != "off" and self.allow and not self.proxies:
            raise ValueError(
                "allow is worth nothing while anybody may say for whom it connects: set proxies"
            )
        return self


class Http(_Table):
    """The HTTP port: the API, /metrics, /healthz, /readyz."""

    host: Host = "127.0.0.1"
    """Address to bind."""
    port: Port = 8080
    """TCP port; 0 takes a free one."""
    metrics_host: Host = "127.0.0.1"
    """Address to bind for /metrics, when it has a port of its own."""
    metrics_port: Port | None = None
    """TCP port of its own for /metrics, which ``port`` then no longer has; 0 takes a free one."""
    trusted_proxies: Networks = ()
    """Networks of proxies that are believed whom they ask for (X-Forwarded-For, -Proto), as
    ["10.0.0.5/32"]; empty believes nobody.
    """
    max_requests_per_minute: Annotated[int, Field(ge=0)] = 6000
    """Requests a minute with one access key; one more gets 429. 0 is no limit."""
    max_running: Annotated[int, Field(ge=1, le=10_000)] = 64
    """Requests of the API at work at once; 100 more wait, and what comes then gets 503."""


class Ai(_Table):
    """The link to the AI agent: one WebSocket per call."""

    link: Literal["agent", "pipeline"] = "agent"
    """What a call without an agent of its own is linked to: one agent that hears and speaks, or the
    services of ``[pipeline]``, between which mediad takes the turns."""
    agent_url: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_words)] = (
        "ws://127.0.0.1:8765",
    )
    """Where the agent is, ws:// or wss://; {call_id}, {from} and {to} may stand in it. A list names
    stand-ins, tried in order. Empty: agents dial in to ``listen_port``."""
    headers: Annotated[dict[str, Secret], NoDecode, BeforeValidator(_json)] = {}
    """HTTP headers for the agent, as {Authorization = "Bearer …"}; each value is a secret."""
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
    ping_s: Seconds = 2.0
    """Ping the agent this often, in seconds; one that takes longer to answer is slow and gets no
    audio, one that takes five times as long is lost."""
    prompts: Annotated[dict[PromptName, Path], NoDecode, BeforeValidator(_json)] = {}
    """WAV files that the API can play on calls, by name, as {hold = "/etc/mediad/hold.wav"}."""
    unavailable_prompt: Path | None = None
    """WAV file (s16le) the caller hears when no agent can be had; a tone without one."""
    ca_file: Path | None = None
    """PEM file with the certificate authorities for wss://; the system's without one."""
    client_cert: Path | None = None
    """PEM file with the certificate that mediad shows over wss:// to an agent that asks for it."""
    client_key: Path | None = None
    """PEM file with its key, without a password; it may also stand in ``client_cert``."""

    @field_validator("agent_url")
    @classmethod
    def _check_url(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        for url in urls:
            check_agent_url(url)
        return urls

    @field_validator("headers")
    @classmethod
    def _check_headers(cls, headers: dict[str, SecretStr]) -> dict[str, SecretStr]:
        _check_headers(headers)
        return headers

    @field_validator("prompts")
    @classmethod
    def _check_prompts(cls, prompts: dict[str, Path]) -> dict[str, Path]:
        for path in prompts.values():
            _check_readable(path)
        return prompts

    @field_validator("unavailable_prompt", "ca_file", "client_cert", "client_key")
    @classmethod
    def _check_file(cls, path: Path | None) -> Path | None:
        if path is not None:
            _check_readable(path)
        return path

    @model_validator(mode="after")
    def _check_client(self) -> Self:
        if self.client_key is not None and self.client_cert is None:
            raise ValueError("client_key is the key of a client_cert, and there is none")
        return self


class ServiceSettings(_Table):
    """What the tables of the pipeline's three services have in common: one WebSocket per call and
    service. TLS, pings and how long to look for one are as in ``[ai]``.
    """

    url: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_words)]
    """Where the service is, ws:// or wss://; {call_id}, {from} and {to} may stand in it. A list
    names stand-ins, tried in order."""
    headers: Annotated[dict[str, Secret], NoDecode, BeforeValidator(_json)] = {}
    """HTTP headers for the service, as {Authorization = "Bearer …"}; each value is a secret."""
    connect_timeout_s: Seconds = 2.0
    """Go on with the next address when one has not opened a WebSocket after this long, in seconds.
    """
    timeout_s: Seconds = 2.0
    """Ask the next address when nothing of an answer has come for this long, in seconds."""
    budget_s: Seconds = 5.0
    """Give an answer up of which nothing has come after this long, all addresses included, in
    seconds."""

    @field_validator("url")
    @classmethod
    def _check_url(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        if not urls:
            raise ValueError("needs at least one address")
        for url in urls:
            check_agent_url(url)
        return urls

    @field_validator("headers")
    @classmethod
    def _check_headers(cls, headers: dict[str, SecretStr]) -> dict[str, SecretStr]:
        _check_headers(headers)
        return headers


class Stt(ServiceSettings):
    """The pipeline's service that hears."""

    url: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_words)] = ("ws://127.0.0.1:8771",)


class Llm(ServiceSettings):
    """The pipeline's service that thinks."""

    url: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_words)] = ("ws://127.0.0.1:8772",)
    timeout_s: Seconds = 4.0
    budget_s: Seconds = 10.0


class Tts(ServiceSettings):
    """The pipeline's service that speaks."""

    url: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_words)] = ("ws://127.0.0.1:8773",)
    voice: str = ""
    """Name of the voice, as the service knows it; empty takes the service's own choice."""
    rate: Annotated[float, Field(ge=0.25, le=4.0)] = 1.0
    """How fast to speak, 1.0 being the voice's own pace."""


class Pipeline(_Table):
    """Calls on which mediad itself takes the turns, between the services below. An agent's own
    configuration goes before ``prompt``, ``first_message`` and ``language``.
    """

    prompt: str = "You are a friendly assistant on the telephone. Answer in one or two sentences."
    """What the language model is told of its part."""
    first_message: str = ""
    """What the agent says first; empty lets the language model begin."""
    language: str = ""
    """What is spoken, as en-US, told to every service; empty leaves it to them."""
    fallback_prompt: str = ""
    """What the caller hears when a service stays silent: a text to speak, or a WAV file (s16le)
    when it ends in .wav; a tone without one."""
    end_of_turn: Literal["silence", "stt", "both"] = "silence"
    """Who finds that the caller has finished: silence, the STT service, or whoever is first."""
    end_silence_s: Annotated[float, Field(ge=0.1, le=10)] = 0.7
    """How much silence ends a caller's turn, in seconds."""
    no_input_s: Seconds = 8.0
    """Ask whether anybody is there when the caller has been silent for this long, in seconds."""
    no_input_prompt: Annotated[str, Field(min_length=1)] = "Are you still there?"
    """What the agent says then; asked twice in vain, it ends the call."""

    @field_validator("fallback_prompt")
    @classmethod
    def _check_prompt(cls, prompt: str) -> str:
        if prompt.endswith(".wav"):
            _check_readable(Path(prompt))
        return prompt


class Database(_Table):
    """Where calls, transcripts and events are kept."""

    directory: Path | None = None
    """Directory of the journal and of the embedded database; without one $STATE_DIRECTORY (systemd
    sets it), $XDG_STATE_HOME/mediad or ~/.local/state/mediad."""
    url: Secret | None = None
    """mysql://user:password@host:3306/name for MySQL or MariaDB, sqlite:////path for a file; the
    embedded SQLite without one."""
    pool_min: Annotated[int, Field(ge=1, le=1000)] = 10
    """Connections kept open to MySQL or MariaDB."""
    pool_max: Annotated[int, Field(ge=1, le=1000)] = 50
    """Most connections to MySQL or MariaDB."""
    connect_timeout_s: Seconds = 5.0
    """Give a connection up after this long, in seconds."""

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None:
            _check_server_url(url.get_secret_value(), ("mysql", "sqlite"))
        return url

    @model_validator(mode="after")
    def _check_pool(self) -> Self:
        if self.pool_min > self.pool_max:
            raise ValueError(f"pool_min {self.pool_min} is over pool_max {self.pool_max}")
        return self

    @property
    def state_directory(self) -> Path:
        """The directory in force. It need not exist yet."""
        if self.directory is not None:
            return self.directory
        if systemd := os.environ.get("STATE_DIRECTORY"):
            return Path(systemd.split(":")[0])
        if xdg := os.environ.get("XDG_STATE_HOME"):
            return Path(xdg) / "mediad"
        return Path.home() / ".local/state/mediad"

    @property
    def journal_file(self) -> Path:
        """The journal of a mediad with these settings."""
        return self.state_directory / "journal.db"


class Journal(_Table):
    """The local file in which a call's facts are safe until the database has them."""

    max_bytes: Annotated[int, Field(ge=1 << 20)] = 1 << 30
    """Facts that may wait for the database, in bytes; more are refused and counted, and /readyz
    turns red."""
    fsync: bool = False
    """Whether a fact is only safe when it would survive a power cut, too (else kill -9 and a
    crash of mediad)."""


class Redis(_Table):
    """The cache that several processes share."""

    url: Secret | None = None
    """redis://user:password@host:6379/0 or rediss://; without one the cache is in the process."""
    timeout_s: Annotated[float, Field(gt=0, le=10, allow_inf_nan=False)] = 0.5
    """Do without Redis when it has not answered after this long, in seconds."""

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None:
            _check_server_url(url.get_secret_value(), ("redis", "rediss"))
        return url


class Cache(_Table):
    """What is kept for a while: copies of rows, a live call's session and history."""

    prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,32}$")] = "mediad"
    """First part of every key."""
    environment: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,32}$")] = "prod"
    """Second part of every key: dev, test, staging or prod; anything else is dev."""
    max_bytes: Annotated[int, Field(ge=1 << 20)] = 1 << 20
    """Size of the cache in the process, in bytes; the least recently used goes first. Redis has
    bounds of its own."""
    max_speech_bytes: Annotated[int, Field(ge=1 << 20)] = 64 << 20
    """Size of what it keeps of speech, beside that: 64 MiB are an hour of it, at 8 kHz."""


class Webhooks(_Table):
    """POST requests that tell customers' own servers what happened."""

    timeout_s: Annotated[float, Field(gt=0, le=60, allow_inf_nan=False)] = 10.0
    """Give a request up that has no answer after this long, in seconds; it is tried again later."""
    allow_private: AllOrNetworks = False
    """Private networks that webhooks may go to, as ["10.0.0.0/8"], or true for all: whoever sets a
    webhook reaches what this machine can.
    """
    header_prefix: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9-]{0,31}$")] = "X-VoIPBIN"
    """How the headers -Signature, -Timestamp and -Event begin."""


class Log(_Table):
    """Logging, to standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least level written."""
    format: Literal["console", "json"] = "console"
    """console: lines for people; json: one object a line."""


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
    pipeline: Pipeline = Pipeline()
    stt: Stt = Stt()
    llm: Llm = Llm()
    tts: Tts = Tts()
    database: Database = Database()
    journal: Journal = Journal()
    redis: Redis = Redis()
    cache: Cache = Cache()
    webhooks: Webhooks = Webhooks()
    log: Log = Log()

    @model_validator(mode="after")
    def _check_ports(self) -> Self:
        taken: dict[int, str] = {}
        for name, port in (
            ("audiosocket.port", self.audiosocket.port),
            ("http.port", self.http.port),
            ("http.metrics_port", self.http.metrics_port or 0),
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
    except (ValueError, RecursionError) as exc:  # TOMLDecodeError, UnicodeDecodeError; too deep
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


def _check_readable(path: Path) -> None:
    if not (os.path.isfile(path) and os.access(path, os.R_OK)):  # an odd name is no error to it
        raise ValueError(f"{path} cannot be read")


def _check_headers(headers: Mapping[str, SecretStr]) -> None:
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


def _check_server_url(url: str, schemes: tuple[str, ...]) -> None:
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
