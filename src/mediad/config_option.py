"""``--config``, as all commands have it: which settings file is read."""

from pathlib import Path

import click

from mediad.config import Settings, load_settings
from mediad.errors import ConfigError

__all__ = ["DEFAULT_CONFIG", "config_option", "load"]

DEFAULT_CONFIG = Path("/etc/mediad/mediad.toml")

config_option = click.option(
    "--config",
    "-c",
    "config",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar="MEDIAD_CONFIG",
    help=f"Settings file; {DEFAULT_CONFIG} if it exists, else the built-in defaults.",
)
"""Gives a command the argument ``config``, for `load`."""


def load(config: Path | None) -> Settings:
    """Read the file that the option names, or the one that is there without it.

    Raises:
        ConfigError: See `load_settings`.
    """
    if config is None and _has_default():
        config = DEFAULT_CONFIG
    return load_settings(config)


def _has_default() -> bool:
    try:
        return DEFAULT_CONFIG.exists()
    except OSError as exc:  # its directory is closed to us: it must not seem to be missing
        raise ConfigError(f"{DEFAULT_CONFIG}: cannot be read: {exc.strerror}") from exc
