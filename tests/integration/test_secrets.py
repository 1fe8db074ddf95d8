"""Secrets: read from files, and shown nowhere. A mediad full of them is driven into every error."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mediad.api.accesskeys import ShownAccessKey
from mediad.api.webhooks import SecretWebhook
from mediad.config import Settings, load_settings
from mediad.errors import ConfigError
from mediad.store.accesskeys import AccessKey, WithKey
from mediad.store.outbox import Target
from tests.fakes.agent import RawConnection, raw_agent
from tests.fakes.asterisk import AsteriskCall
from tests.integration.daemon import running, settings
from tests.mediad_process import MediadProcess, run_mediad

MARK = "s3sam3"
"""Is in every secret, and in nothing else."""


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away settings of whoever runs the tests."""
    for name in os.environ:
        if name.startswith("MEDIAD_") and name != "MEDIAD_CORE":
            monkeypatch.delenv(name)


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


# From a file


def test_every_secret_can_be_read_from_a_file(tmp_path: Path) -> None:
    key = write(tmp_path / "key", "Bearer one\n")
    database = write(tmp_path / "database", "mysql://mediad:two@127.0.0.1/mediad\r\n")
    redis = write(tmp_path / "redis", "redis://:three@127.0.0.1/0")
    config = write(
        tmp_path / "mediad.toml",
        f"""
        ai.headers = {{Authorization = "file:{key}", X-Team = "blue"}}
        database.url = "file:{database}"
        redis.url = "file:{redis}"
        """,
    )
    loaded = load_settings(config)
    headers = {name: value.get_secret_value() for name, value in loaded.ai.headers.items()}
    assert headers == {"Authorization": "Bearer one", "X-Team": "blue"}
    assert loaded.database.url is not None
    assert loaded.database.url.get_secret_value() == "mysql://mediad:two@127.0.0.1/mediad"
    assert loaded.redis.url is not None
    assert loaded.redis.url.get_secret_value() == "redis://:three@127.0.0.1/0"


def test_environment_may_name_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path / "redis", "redis://:three@127.0.0.1/0\n")
    monkeypatch.setenv("MEDIAD_REDIS__URL", f"file:{file}")
    monkeypatch.setenv("MEDIAD_AI__HEADERS", json.dumps({"X-Key": f"file:{file}"}))
    loaded = load_settings(None)
    assert loaded.redis.url is not None
    assert loaded.redis.url.get_secret_value() == "redis://:three@127.0.0.1/0"
    assert loaded.ai.headers["X-Key"].get_secret_value() == "redis://:three@127.0.0.1/0"


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"\xff\xfe" + MARK.encode(), "is no text"),
        (MARK.encode() * 20_000, "is too large for a secret"),
        (f"redis://:{MARK}@host:port/".encode(), "no address"),
        (f"http://:{MARK}@host/".encode(), "no redis:// or rediss:// address"),
    ],
)
def test_file_that_is_no_good_is_an_error_without_its_content(
    content: bytes | None, error: str, tmp_path: Path
) -> None:
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    config = write(tmp_path / "mediad.toml", f'redis.url = "file:{file}"')
    with pytest.raises(ConfigError) as caught:
        load_settings(config)
    assert f"{config}: [redis] url: " in str(caught.value)
    assert error in str(caught.value)
    assert MARK not in str(caught.value)


def test_path_must_be_absolute(tmp_path: Path) -> None:
    config = write(tmp_path / "mediad.toml", 'redis.url = "file:secret"')
    with pytest.raises(ConfigError, match="no absolute path, as file:/run/secrets/name"):
        load_settings(config)


# Shown nowhere


def secret_settings(tmp_path: Path, closed_port: int) -> dict[str, str]:
    """Return one of each secret as the environment has it, from files and not."""
    key = write(tmp_path / "key", f"Bearer {MARK}\n")
    redis = write(tmp_path / "redis", f"redis://:{MARK}@127.0.0.1:{closed_port}/0")
    return {
        "ai__headers": json.dumps({"Authorization": f"file:{key}", "X-Key": MARK}),
        "database__url": f"mysql://mediad:{MARK}@127.0.0.1:{closed_port}/mediad",
        "redis__url": f"file:{redis}",
        "log__level": "debug",
    }


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that is taken, and at which nobody answers."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


REFUSALS = [
    b"HTTP/1.1 401 %s\r\n\r\n%s",
    b"HTTP/1.1 302 %s\r\nLocation: ws://127.0.0.1:1/%s\r\n\r\n",
    b"HTTP/1.1 %s\r\n\r\n",
    b"%s\r\n\r\n",
    b"HTTP/1.1 101 x\r\n%s\r\n\r\n",
    b"HTTP/1.1 101 x\r\nUpgrade: %s\r\n\r\n",
    b"",
]
"""What agents answer that repeat our key; the last one hangs up."""


async def get(mediad: MediadProcess, request: bytes) -> str:
    reader, writer = await asyncio.open_connection(*mediad.http)
    writer.write(request)
    answer = await reader.read()
    writer.close()
    return answer.decode()


async def drive_into_errors(address: tuple[str, int]) -> None:
    """Make a call that no agent can be had for, and one that is no call."""
    async with AsteriskCall(address) as call:
        call.press("12")
        await call.hung_up(10)
    async with AsteriskCall(address) as call:
        call.send(b"\x55\xff\xff")
        await call.closed()


def agent_urls(url: str, closed_port: int) -> tuple[str, ...]:
    """Return an address for each refusal, and one where nobody is."""
    urls = (f"{url}/{number}" for number in range(len(REFUSALS)))
    return *urls, f"ws://127.0.0.1:{closed_port}/"


def refuser() -> Callable[[RawConnection], Awaitable[None]]:
    """Return a script that refuses in each way in its turn."""
    refusals = iter(REFUSALS)

    async def refuse(raw: RawConnection) -> None:
        answer = next(refusals, b"")
        raw.writer.write(answer.replace(b"%s", f"Bearer {MARK}".encode()))
        await raw.writer.drain()

    return refuse


async def test_secrets_are_in_no_log_file_or_answer(tmp_path: Path, closed_port: int) -> None:
    state = tmp_path / "state"
    wanted = secret_settings(tmp_path, closed_port)
    wanted |= {"ai__connect_timeout_s": "4", "database__directory": str(state)}
    answers: list[str] = []
    async with raw_agent(refuser()) as url:
        urls = json.dumps(agent_urls(url, closed_port))
        async with run_mediad(urls, **wanted) as mediad:
            await drive_into_errors(mediad.audiosocket)
            for path in (b"/metrics", b"/healthz", b"/readyz", b"/nothing", b"/openapi.json"):
                request = b"GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % path
                answers.append(await get(mediad, request))
            answers.append(await get(mediad, b"no HTTP\r\n\r\n"))
    for outcome in ("401", "redirect", "bad_handshake", "closed", "unreachable"):
        assert f'outcome="{outcome}"' in answers[0]
    assert any("database" in line for line in mediad.log)
    assert [text for text in (*answers, *mediad.log) if MARK in text] == []
    files = [path for path in state.rglob("*") if path.is_file()]
    assert any(b"call_hungup" in path.read_bytes() for path in files)
    assert [path for path in files if MARK.encode() in path.read_bytes()] == []


async def test_secrets_are_in_no_event(closed_port: int) -> None:
    ai = {"headers": {"Authorization": f"Bearer {MARK}"}, "connect_timeout_s": 4}
    async with raw_agent(refuser()) as url:
        async with running(settings(agent_urls(url, closed_port), ai=ai)) as daemon:
            await drive_into_errors(daemon.app.audiosocket_address)
            await daemon.event("call_hungup", number=1)
    assert MARK not in repr(daemon.seen)


def test_secrets_are_in_no_repr(tmp_path: Path, closed_port: int) -> None:
    wanted = secret_settings(tmp_path, closed_port)
    headers = json.loads(wanted["ai__headers"])
    loaded = Settings.model_validate(
        {
            **{table: {"headers": headers} for table in ("ai", "stt", "llm", "tts")},
            "database": {"url": wanted["database__url"]},
            "redis": {"url": wanted["redis__url"]},
        }
    )
    for shown in (repr(loaded), str(loaded), loaded.model_dump_json()):
        assert "**********" in shown
        assert MARK not in shown


NOW = datetime(2026, 1, 1, tzinfo=UTC)
ROW = {"id": "1", "customer_id": "2", "name": ""} | dict.fromkeys(
    ("tm_create", "tm_update", "tm_delete"), NOW
)
KEY_ROW = ROW | {"role": "root", "prefix": "mk_", "allowed_ips": None, "tm_expire": None}
WEBHOOK_ROW = ROW | {"detail": "", "status": "active", "url": "https://host/", "events": []}


@pytest.mark.parametrize(
    "holder",
    [
        WithKey(AccessKey.model_validate(KEY_ROW), MARK),
        ShownAccessKey.model_validate(KEY_ROW | {"key": MARK}),
        SecretWebhook.model_validate(WEBHOOK_ROW | {"secret": MARK}),
        Target("https://host/", (MARK, MARK)),
    ],
    ids=lambda holder: type(holder).__name__,
)
def test_what_holds_a_key_or_a_webhooks_secret_does_not_show_it(holder: object) -> None:
    assert MARK not in repr(holder)
    assert MARK not in str(holder)


def check_config(environment: dict[str, str], *arguments: str | Path) -> tuple[int, str]:
    """Run ``mediad check-config``; return its status and all that it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "mediad", "check-config", *arguments],
        env={f"MEDIAD_{name.upper()}": value for name, value in environment.items()},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("arguments", [(), ("--json",)])
def test_secrets_are_masked_in_check_config(
    arguments: tuple[str, ...], tmp_path: Path, closed_port: int
) -> None:
    status, shown = check_config(secret_settings(tmp_path, closed_port), *arguments)
    assert status == 0
    assert shown.count("**********") == 4
    assert MARK not in shown


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("database__url", f"postgres://mediad:{MARK}@127.0.0.1/mediad"),
        ("database__url", f"mysql://mediad:{MARK}@127.0.0.1:x/mediad"),
        ("database__url", f"mysql://mediad:{MARK}@[/mediad"),
        ("redis__url", MARK),
        ("ai__headers", f'{{"Authorization": "{MARK}"'),
        ("ai__headers", f'{{"Authorization": "{MARK}\\n"}}'),
        ("ai__headers", f'{{"Authorization": ["{MARK}"]}}'),
        ("ai__headers", f'"{MARK}"'),
        ("ai__agent_url", f"http://127.0.0.1/?key={MARK}"),
        ("ai__agent_url", f"ws://key:{MARK}@127.0.0.1/"),
        ("ai__agent_url", f"ws://127.0.0.1/{{other}}?key={MARK}"),
        ("ai__agent_url", f"ws://key:{MARK}/x@127.0.0.1/"),
    ],
)
def test_wrong_secret_is_refused_without_being_shown(name: str, value: str) -> None:
    status, shown = check_config({name: value})
    assert status == 2
    assert name.rpartition("__")[2] in shown.lower()
    assert MARK not in shown


@pytest.mark.parametrize(
    "text",
    [
        f'[database]\nurl = "mysql://mediad:{MARK}@127.0.0.1/mediad',
        f'[database]\nurl = mysql://mediad:{MARK}@127.0.0.1/mediad"',
        f'[ai]\nheaders = {{Authorization = "{MARK}", Authorization = "{MARK}"}}',
        f'[ai]\nheaders = "{MARK}"',
        f'[redis]\nurl = ["{MARK}"]',
    ],
)
def test_wrong_file_is_refused_without_its_secrets(text: str, tmp_path: Path) -> None:
    status, shown = check_config({}, "--config", write(tmp_path / "mediad.toml", text))
    assert status == 2
    assert "mediad.toml" in shown
    assert MARK not in shown
