"""What is kept of calls: the database, the journal before it, the cache."""

import os
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, SecretStr, field_validator, model_validator

from mediad.config.checks import check_server_url
from mediad.config.types import Seconds, Secret, Table

__all__ = ["Cache", "Database", "Journal", "Redis"]


class Database(Table):
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
            check_server_url(url.get_secret_value(), ("mysql", "sqlite"))
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


class Journal(Table):
    """The local file in which a call's facts are safe until the database has them."""

    max_bytes: Annotated[int, Field(ge=1 << 20)] = 1 << 30
    """Facts that may wait for the database, in bytes; more are refused and counted, and /readyz
    turns red."""
    fsync: bool = False
    """Whether a fact is only safe when it would survive a power cut, too (else kill -9 and a
    crash of mediad)."""


class Redis(Table):
    """The cache that several processes share."""

    url: Secret | None = None
    """redis://user:password@host:6379/0 or rediss://; without one the cache is in the process."""
    timeout_s: Annotated[float, Field(gt=0, le=10, allow_inf_nan=False)] = 0.5
    """Do without Redis when it has not answered after this long, in seconds."""

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None:
            check_server_url(url.get_secret_value(), ("redis", "rediss"))
        return url


class Cache(Table):
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
