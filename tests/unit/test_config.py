"""Settings: the example file, what is refused and how it is told, and the environment."""

import json
import os
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from mediad.config import Ai, AudioSocket, Http, Settings, load_settings
from mediad.errors import ConfigError

EXAMPLE = Path(__file__).parents[2] / "config/mediad.toml"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away settings of whoever runs the tests."""
    for name in os.environ:
        if name.startswith("MEDIAD_") and name != "MEDIAD_CORE":
            monkeypatch.delenv(name)


def settings_file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mediad.toml"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(path: Path | None) -> str:
    with pytest.raises(ConfigError) as caught:
        load_settings(path)
    return str(caught.value)


# The example


def defaults() -> dict[str, dict[str, Any]]:
    return Settings().model_dump(mode="json")


def example() -> dict[str, dict[str, Any]]:
    """Return the example's settings with those that are commented out taken in."""
    text = EXAMPLE.read_text(encoding="utf-8")
    return tomllib.loads(re.sub(r"^#(\w+ =)", r"\1", text, flags=re.MULTILINE))


def test_example_has_every_setting_and_no_other() -> None:
    in_example = {(table, key) for table, keys in example().items() for key in keys}
    assert in_example == {(table, key) for table, keys in defaults().items() for key in keys}


def test_example_shows_every_default() -> None:
    shown = example()
    for table, keys in defaults().items():
        for key, default in keys.items():
            if default is not None:  # TOML cannot say that there is none: any value is an example
                assert (key, shown[table][key]) == (key, default)


def test_every_setting_is_explained_above_its_line() -> None:
    lines = EXAMPLE.read_text(encoding="utf-8").splitlines()
    for above, line in zip(lines, lines[1:], strict=False):
        if re.match(r"#\w+ =", line):
            assert above.startswith("# "), f"{line} is not explained"


def test_example_as_it_stands_is_the_defaults() -> None:
    assert load_settings(EXAMPLE) == Settings()


def test_every_setting_is_explained_in_the_code() -> None:
    modules = (Path(__file__).parents[2] / "src/mediad/config").glob("*.py")
    source = "\n".join(module.read_text(encoding="utf-8") for module in modules)
    for table, field in Settings.model_fields.items():
        model = field.annotation
        assert isinstance(model, type)
        assert issubclass(model, BaseModel)
        for key in model.model_fields:
            # From the field to the end of its value, then its docstring.
            explained = rf"^    {key}: [^\n]*\n(?:        [^\n]*\n|    \)\n)*    \"\"\""
            assert re.search(explained, source, re.MULTILINE), f"{table}.{key}"


# What a file gets wrong


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[http]\nport = 99999", "[http] port: Input should be less than or equal to 65535"),
        ("[http]\nprt = 1", "[http] prt: no such setting"),
        ("[http]\nendpoint_limits = 5", "[http] endpoint_limits: "),
        ("[http]\nendpoint_limits = {'webhooks:test' = -1}", "[http] endpoint_limits: "),
        ("[web]\nport = 1", "[web]: no such table"),
        ("http = 3", "[http]: "),
        ("[audiosocket]\ncodec = 'opus'", "[audiosocket] codec: "),
        ("[audiosocket]\nallow = ['10.0.0.1/8']", "[audiosocket] allow: "),
        ("[audiosocket]\nmax_call_s = inf", "[audiosocket] max_call_s: "),
        ("[audiosocket]\nuuid_timeout_s = 0", "[audiosocket] uuid_timeout_s: "),
        ("[ai]\nunavailable_prompt = '/nowhere.wav'", "unavailable_prompt: /nowhere.wav cannot"),
        ("[ai]\nca_file = '/nowhere.pem'", "[ai] ca_file: /nowhere.pem cannot be read"),
        ("[stt]\nurl = []", "[stt] url: needs at least one address"),
        ("[llm]\nurl = ['http://llm']", "[llm] url: 'http://llm' is no ws:// or wss:// address"),
        ("[tts]\nheaders = {'a b' = ''}", "[tts] headers: 'a b' is no name of a header"),
        ("[tts]\nrate = 9", "[tts] rate: "),
        ("[pipeline]\nfallback_prompt = '/nowhere.wav'", "fallback_prompt: /nowhere.wav cannot"),
        ("[log]\nlevel = 'loud'", "[log] level: "),
    ],
)
def test_error_names_file_table_and_key(tmp_path: Path, text: str, told: str) -> None:
    path = settings_file(tmp_path, text)
    message = refusal(path)
    assert message.startswith(f"{path}: [")
    assert told in message


def test_every_error_of_a_file_is_told_at_once(tmp_path: Path) -> None:
    path = settings_file(tmp_path, "[http]\nport = -1\n[log]\nlevel = 1")
    assert len(refusal(path).splitlines()) == 2


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://agent", "'http://agent' is no ws:// or wss:// address"),
        ("ws://", "is no ws:// or wss:// address"),
        ("ws://agent/{caller}", "only {call_id}, {from} and {to} may stand in it"),
        ("ws://agent/{", "only {call_id}, {from} and {to} may stand in it"),
        ("ws://user:sesame@agent", "use ai.headers"),
        ("http://user:sesame@agent", "is no ws:// or wss:// address"),
    ],
)
def test_bad_agent_url_is_refused_without_its_password(tmp_path: Path, url: str, told: str) -> None:
    message = refusal(settings_file(tmp_path, f"[ai]\nagent_url = ['ws://fine', '{url}']"))
    assert told in message
    assert "sesame" not in message


def test_agent_url_may_be_one_word_and_hold_the_call(tmp_path: Path) -> None:
    path = settings_file(tmp_path, "[ai]\nagent_url = 'wss://agent/{call_id}?to={to}'")
    assert load_settings(path).ai.agent_url == ("wss://agent/{call_id}?to={to}",)


@pytest.mark.parametrize(
    "text",
    [
        "[audiosocket]\nport = 8080",
        "[http]\nport = 9092",
        "[http]\nmetrics_port = 8080",
        "[ai]\nagent_url = []\nlisten_port = 8080",
    ],
)
def test_two_listeners_on_one_port_are_refused(tmp_path: Path, text: str) -> None:
    assert re.search(r"\w+\.\w+ and \w+\.\w+ are both \d+", refusal(settings_file(tmp_path, text)))


@pytest.mark.parametrize(
    "text",
    [
        "[audiosocket]\nport = 0\n[http]\nport = 0",  # a free one each
        "[ai]\nlisten_port = 8080",  # not opened: there is an agent to dial
    ],
)
def test_ports_that_cannot_clash_are_taken(tmp_path: Path, text: str) -> None:
    load_settings(settings_file(tmp_path, text))


def test_missing_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "none.toml"
    assert refusal(path) == f"{path}: cannot be read: No such file or directory"


def test_directory_instead_of_a_file_is_told(tmp_path: Path) -> None:
    assert refusal(tmp_path) == f"{tmp_path}: cannot be read: Is a directory"


@pytest.mark.parametrize("content", [b"[http\n", b"[http]\nport = 1\nport = 2\n", b"\xff"])
def test_what_is_no_toml_is_told(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "mediad.toml"
    path.write_bytes(content)
    assert refusal(path).startswith(f"{path}: is no TOML: ")


def test_endpoints_that_are_not_named_keep_their_limits(tmp_path: Path) -> None:
    path = settings_file(tmp_path, "[http]\nendpoint_limits = {'webhooks:test' = 5}")
    limits = load_settings(path).http.endpoint_limits
    assert limits == Settings().http.endpoint_limits | {"webhooks:test": 5}


def test_unknown_endpoint_is_told_those_that_there_are(tmp_path: Path) -> None:
    message = refusal(settings_file(tmp_path, "[http.endpoint_limits]\n'call:create' = 5"))
    assert "[http] endpoint_limits: there is no 'call:create', only accesskeys:create, " in message
    assert all(name in message for name in Settings().http.endpoint_limits)


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().http.port = 1  # type: ignore[misc]


# The environment


def test_environment_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = settings_file(tmp_path, "[http]\nhost = '::1'\nport = 1000")
    monkeypatch.setenv("MEDIAD_HTTP__PORT", "2000")
    http = load_settings(path).http
    assert (http.host, http.port) == ("::1", 2000)


@pytest.mark.parametrize("value", ["ws://a, ws://b", '["ws://a", "ws://b"]'])
def test_list_in_the_environment(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, value: str
) -> None:
    monkeypatch.setenv("MEDIAD_AI__AGENT_URL", value)
    assert load_settings().ai.agent_url == ("ws://a", "ws://b")


@pytest.mark.parametrize("value", ["10.0.0.0/8,192.0.2.1", '["10.0.0.0/8", "192.0.2.1"]'])
def test_list_of_networks_in_the_environment(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("MEDIAD_AUDIOSOCKET__ALLOW", value)
    assert list(map(str, load_settings().audiosocket.allow)) == ["10.0.0.0/8", "192.0.2.1/32"]


@pytest.mark.parametrize("value", ["", "[]"])
def test_empty_list_in_the_environment(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("MEDIAD_AI__AGENT_URL", value)
    assert load_settings().ai.agent_url == ()


def test_table_in_the_environment_is_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDIAD_AI__HEADERS", '{"Authorization": "Bearer sesame"}')
    assert load_settings().ai.headers["Authorization"].get_secret_value() == "Bearer sesame"


def test_limits_in_the_environment_go_with_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDIAD_HTTP__ENDPOINT_LIMITS", '{"calls:create": 7}')
    limits = load_settings().http.endpoint_limits
    assert limits == Settings().http.endpoint_limits | {"calls:create": 7}


def test_wrong_json_in_the_environment_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDIAD_AI__HEADERS", "Authorization: Bearer sesame")
    message = refusal(None)
    assert "MEDIAD_AI__HEADERS" in message
    assert "sesame" not in message


@pytest.mark.parametrize("value", ["many", "", "70000"])
def test_error_names_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("MEDIAD_HTTP__PORT", value)
    path = settings_file(tmp_path, "[http]\nport = 1000")
    assert refusal(path).startswith("environment MEDIAD_HTTP__PORT: Input should be ")


@pytest.mark.parametrize(
    "name", ["MEDIAD_HTTP__PRT", "MEDIAD_WEB__PORT", "MEDIAD_HTTP", "MEDIAD_HTTP_PORT"]
)
def test_unknown_variable_is_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "1")
    assert refusal(None).startswith(f"environment {name}: no such setting")


@pytest.mark.parametrize("name", ["MEDIAD_CORE", "MEDIAD_CONFIG"])
def test_variables_that_are_no_settings_are_let_through(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "auto")
    load_settings()


# Secrets


def test_secrets_are_masked_but_can_be_read() -> None:
    ai = Ai.model_validate({"headers": {"Authorization": "Bearer sesame"}})
    assert "sesame" not in repr(Settings(ai=ai))
    assert "sesame" not in json.dumps(ai.model_dump(mode="json"))
    assert ai.headers["Authorization"].get_secret_value() == "Bearer sesame"


@pytest.mark.parametrize(
    "url", ["ws://h:99999", "ws://h/{call_id.x}", "ws://h/{call_id[0]}", "ws://h/ x", "ws://[h"]
)
def test_agent_url_that_would_fail_in_a_call_fails_at_start(url: str) -> None:
    with pytest.raises(ValidationError):
        Ai(agent_url=(url,))


@pytest.mark.parametrize("header", [{"A": "x\r\nEvil: 1"}, {"A b": "x"}, {"": "x"}])
def test_header_that_would_break_the_request_is_refused(header: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        Ai.model_validate({"headers": header})


@pytest.mark.parametrize(
    ("table", "key"),
    [(AudioSocket, "host"), (Http, "host"), (Http, "metrics_host"), (Ai, "listen_host")],
)
def test_empty_host_does_not_bind_every_interface(table: type[BaseModel], key: str) -> None:
    with pytest.raises(ValidationError):
        table.model_validate({key: ""})


def test_variables_of_kubernetes_are_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDIAD_PORT", "tcp://10.0.0.1:9092")
    monkeypatch.setenv("MEDIAD_SERVICE_HOST", "10.0.0.1")
    assert load_settings() == Settings()
