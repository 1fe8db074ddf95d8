"""The `mediad` command. Every subcommand is defined here or added here; none does its work here."""

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import uvloop

import mediad
from mediad.config_option import config_option, load
from mediad.errors import MediadError

__all__ = ["main"]


def _version() -> str:
    from mediad.line import CORE  # here: it fails when MEDIAD_CORE=require cannot be met

    return f"mediad {mediad.__version__} ({CORE} core, Python {sys.version.split()[0]})"


def _print_version(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not context.resilient_parsing:
        click.echo(_version())
        context.exit()


class _Commands(click.Group):
    """A group whose larger commands are imported when used: ``serve`` needs none of them."""

    _LATER = {
        "agent": "mediad.speech.command",
        "audit": "mediad.store.audit_command",
        "call": "mediad.call_command",
        "demo": "mediad.demo.command",
        "journal": "mediad.store.journal_command",
        "keys": "mediad.store.keys_command",
        "migrate": "mediad.store.migrate_command",
        "warm": "mediad.warm_command",
    }

    def list_commands(self, context: click.Context) -> list[str]:
        return sorted((*super().list_commands(context), *self._LATER))

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in self._LATER:
            return super().get_command(context, name)
        command = getattr(import_module(self._LATER[name]), name)
        assert isinstance(command, click.Command)
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version, and which core runs.",
)
def cli() -> None:
    """Connect telephone calls on Asterisk to AI voice agents.

    Start with `mediad demo`: it needs neither Asterisk nor a network. In production `mediad serve`
    runs as a daemon; Asterisk's dialplan sends it calls with AudioSocket().
    """


@cli.command()
@config_option
def serve(config: Path | None) -> None:
    """Take calls until SIGTERM or Ctrl-C. SIGHUP reads the settings again.

    Every setting is in config/mediad.toml; each can also come from the environment, as
    MEDIAD_AUDIOSOCKET__PORT=9092.
    """
    settings = load(config)
    from mediad.app import App
    from mediad.app import serve as run
    from mediad.log import logging_to

    with logging_to(settings.log.level, settings.log.format):
        uvloop.run(run(App(settings), lambda: load(config)))


@cli.command("check-config")
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print the settings in force as JSON.")
def check_config(config: Path | None, as_json: bool) -> None:
    """Check a settings file and the environment, and show what would be in force.

    Exit status 2 if something is wrong; each line names file, table and key.
    """
    settings = load(config)
    tables: dict[str, dict[str, Any]] = settings.model_dump(mode="json")
    if as_json:
        click.echo(json.dumps(tables, indent=2))
        return
    for table, values in tables.items():
        click.echo(f"[{table}]")
        for key, value in values.items():
            if value is not None:
                click.echo(f"{key} = {_toml(value)}")
        click.echo()


def _toml(value: object) -> str:
    """Write a setting's value as TOML, which differs from JSON only in its tables."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml(value[key])}" for key in value) + "}"
    return json.dumps(value, ensure_ascii=False)


def main() -> None:
    """Run the command; mediad's own errors become one message and exit status 2."""
    try:
        cli(standalone_mode=False)
    except click.exceptions.Exit as exc:
        sys.exit(exc.exit_code)
    except click.Abort:
        sys.exit(130)
    except click.ClickException as exc:
        exc.show()
        sys.exit(exc.exit_code)
    except MediadError as exc:
        for line in str(exc).splitlines():
            click.echo(f"mediad: {line}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
