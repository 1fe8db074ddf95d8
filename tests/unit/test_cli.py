"""The `mediad` command as a person meets it: what it prints, where, and its exit status."""

import errno
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import NamedTuple

import pytest

import mediad
from mediad import cli, config_option
from mediad.config import Settings
from mediad.line import CORE
from mediad.speech import command as agent_command

COMMANDS = sorted(cli.cli.commands)


class Result(NamedTuple):
    status: object
    out: str
    err: str


Run = Callable[..., Result]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command in this process, without anybody's settings."""
    for name in os.environ:
        if name.startswith("MEDIAD_") and name != "MEDIAD_CORE":
            monkeypatch.delenv(name)
    monkeypatch.setattr(config_option, "DEFAULT_CONFIG", Path("/nowhere/mediad.toml"))

    def run(*arguments: str | Path) -> Result:
        monkeypatch.setattr(sys, "argv", ["mediad", *map(str, arguments)])
        status: object = 0
        try:
            cli.main()
        except SystemExit as exc:
            status = exc.code
        return Result(status, *capsys.readouterr())

    return run


@pytest.fixture
def settings_file(tmp_path: Path) -> Path:
    path = tmp_path / "mediad.toml"
    path.write_text(
        "[http]\nport = 1234\n[ai]\nheaders = {Authorization = 'Bearer sesame'}\n",
        encoding="utf-8",
    )
    return path


def test_version_says_which_core_runs(run: Run) -> None:
    python = sys.version.split()[0]
    expected = f"mediad {mediad.__version__} ({CORE} core, Python {python})\n"
    assert run("--version") == (0, expected, "")


def test_version_without_a_compiled_core() -> None:
    printed = subprocess.run(
        [sys.executable, "-m", "mediad", "--version"],
        env={**os.environ, "MEDIAD_CORE": "python"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "(python core, " in printed.stdout


def test_help_names_every_command(run: Run) -> None:
    status, out, _ = run("--help")
    assert status == 0
    for name in COMMANDS:
        assert f"\n  {name} " in out


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command(run: Run, command: str) -> None:
    status, out, err = run(command, "--help")
    assert (status, err) == (0, "")
    usage, _, text = out.partition("\n\n")
    assert usage.startswith(f"Usage: mediad {command} ")
    assert text.strip().splitlines()[0].endswith((".", "-"))  # a sentence, perhaps wrapped


def test_unknown_command_is_a_usage_error(run: Run) -> None:
    status, out, err = run("dance")
    assert (status, out) == (2, "")
    assert "No such command 'dance'" in err


# check-config


def test_check_config_shows_what_is_in_force(run: Run, settings_file: Path) -> None:
    status, out, err = run("check-config", "--config", settings_file)
    assert (status, err) == (0, "")
    tables = tomllib.loads(out)
    assert list(tables) == list(Settings.model_fields)
    usual = Settings().http.model_dump(mode="json", exclude_none=True)  # TOML has no null
    assert tables["http"] == usual | {"port": 1234}


def test_check_config_takes_the_environment_into_account(
    run: Run, settings_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDIAD_HTTP__PORT", "4321")
    _, out, _ = run("check-config", "-c", settings_file)
    assert tomllib.loads(out)["http"]["port"] == 4321


def test_check_config_prints_json(run: Run, settings_file: Path) -> None:
    status, out, _ = run("check-config", "-c", settings_file, "--json")
    assert status == 0
    assert json.loads(out)["http"]["port"] == 1234


@pytest.mark.parametrize("option", [(), ("--json",)])
def test_check_config_shows_no_secret(run: Run, settings_file: Path, option: tuple[str]) -> None:
    status, out, err = run("check-config", "-c", settings_file, *option)
    assert status == 0
    assert "Authorization" in out
    assert "sesame" not in out + err


def test_check_config_takes_the_default_file_if_there_is_one(
    run: Run, settings_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tomllib.loads(run("check-config").out)["http"]["port"] == 8080
    monkeypatch.setattr(config_option, "DEFAULT_CONFIG", settings_file)
    assert tomllib.loads(run("check-config").out)["http"]["port"] == 1234


def test_settings_file_can_be_named_in_the_environment(
    run: Run, settings_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDIAD_CONFIG", str(settings_file))
    assert tomllib.loads(run("check-config").out)["http"]["port"] == 1234


def test_check_config_tells_each_error_on_a_line(run: Run, settings_file: Path) -> None:
    settings_file.write_text("[http]\nport = -1\nprt = 2\n", encoding="utf-8")
    status, out, err = run("check-config", "-c", settings_file)
    assert (status, out) == (2, "")
    assert [line.partition(" Input")[0] for line in sorted(err.splitlines())] == [
        f"mediad: {settings_file}: [http] port:",
        f"mediad: {settings_file}: [http] prt: no such setting",
    ]


def test_check_config_of_a_missing_file(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "none.toml"
    expected = f"mediad: {path}: cannot be read: No such file or directory\n"
    assert run("check-config", "-c", path) == (2, "", expected)


def test_default_file_in_a_directory_that_may_not_be_searched(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exists(path: Path) -> bool:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    monkeypatch.setattr(Path, "exists", exists)
    expected = "mediad: /nowhere/mediad.toml: cannot be read: Permission denied\n"
    assert run("check-config") == (2, "", expected)


def test_serve_refuses_wrong_settings_at_start(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDIAD_AUDIOSOCKET__PORT", "8080")
    status, _, err = run("serve")
    assert status == 2
    assert err == "mediad: settings: http.port and audiosocket.port are both 8080\n"


# agent


def test_agent_without_the_extra_says_how_to_get_it(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find_spec(name: str) -> ModuleSpec | None:
        return None

    monkeypatch.setattr(agent_command, "find_spec", find_spec)
    status, out, err = run("agent")
    assert (status, out) == (1, "")
    assert "pipecat, pocketsphinx is not installed" in err
    assert "pip install 'mediad[agent]'" in err


def test_agent_refuses_a_port_that_is_none(run: Run) -> None:
    assert run("agent", "--port", "70000").status == 2


def test_wrong_choice_of_core_is_one_line() -> None:
    # A process of its own: this one has chosen already.
    environment = os.environ | {"MEDIAD_CORE": "fast"}
    command = [sys.executable, "-m", "mediad", "--version"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    expected = "mediad: MEDIAD_CORE is 'fast'; it must be one of require, auto, python\n"
    assert (result.returncode, result.stderr) == (2, expected)


def test_serve_refuses_more_calls_than_it_may_open_files() -> None:
    script = f"ulimit -n 1000; exec {sys.executable} -m mediad serve"
    result = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr == (
        "mediad: [audiosocket] max_calls: 1000 calls may need 7080 open files (5000 for calls, "
        "1024 for callers without a UUID yet, 400 for HTTP, 16 for the database, 512 for webhooks, "
        "128 for all else), and this process may have 1000; raise that limit (ulimit -Hn, "
        "LimitNOFILE=) or lower max_calls\n"
    )
