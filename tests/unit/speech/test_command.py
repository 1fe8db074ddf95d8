"""``mediad agent``: which of its many options go together."""

from importlib.machinery import ModuleSpec

import pytest
from click.testing import CliRunner, Result

from mediad.errors import ConfigError
from mediad.speech import command


def run(*arguments: str) -> Result:
    return CliRunner().invoke(command.agent, arguments)


@pytest.mark.parametrize("option", ["--service", "--url", "--model", "--check"])
def test_services_need_a_role(option: str) -> None:
    result = run(option, "x")
    assert result.exit_code == 2
    assert "need --role" in result.output


def test_there_are_three_roles() -> None:
    result = run("--role", "vad")
    assert result.exit_code == 2
    assert "'stt', 'llm', 'tts'" in result.output


@pytest.mark.parametrize(
    ("arguments", "package"),
    [
        (("--role", "stt"), "pocketsphinx"),
        (("--role", "llm", "--url", "http://127.0.0.1/v1"), "openai"),
        (("--role", "tts", "--service", "deepgram"), "pipecat"),
    ],
)
def test_package_that_is_missing_is_named_with_its_extra(
    arguments: tuple[str, ...], package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find_spec(_: str) -> ModuleSpec | None:
        return None

    monkeypatch.setattr(command, "find_spec", find_spec)
    result = run(*arguments)
    assert result.exit_code == 1
    assert f"{package} is not installed" in result.output
    assert "pip install 'mediad[agent]'" in result.output


def test_wrong_choice_is_an_error_of_ours() -> None:
    result = run("--role", "stt", "--port", "0", "--url", "http://127.0.0.1/v1")
    assert isinstance(result.exception, ConfigError)
