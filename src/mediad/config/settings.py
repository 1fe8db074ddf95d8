"""All settings, read from a file and the environment."""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from mediad.config.calls import Ai, AudioSocket, Llm, Pipeline, Stt, Tts
from mediad.config.http import Http, Log, Webhooks
from mediad.config.store import Cache, Database, Journal, Redis
from mediad.errors import ConfigError

__all__ = ["ENV_PREFIX", "Settings", "load_settings"]

ENV_PREFIX = "MEDIAD_"


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
    except ValueError as exc:  # pydantic-settings, of a variable that is not the JSON it must be
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
