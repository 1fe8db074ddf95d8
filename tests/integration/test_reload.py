"""Settings that are read again while calls live."""

import logging
import signal
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, get_args

import pytest

from mediad.caller import Caller
from mediad.config import Settings
from mediad.wire.service import Role
from tests.fakes.agent import FakeAgent
from tests.fakes.service import FakeService
from tests.integration.certificates import Authority
from tests.integration.daemon import eventually, running, settings
from tests.mediad_process import run_mediad


@pytest.fixture(autouse=True)
def _log_level() -> Iterator[None]:
    """A reload sets the level of the log."""
    logger = logging.getLogger("mediad")
    before = logger.level
    yield
    logger.setLevel(before)


async def test_settings_change_for_calls_to_come(tmp_path: Path) -> None:
    file = tmp_path / "mediad.toml"
    file.write_text("[audiosocket]\nmax_calls = 5\n")
    async with (
        FakeAgent() as agent,
        run_mediad(agent.url, config=str(file)) as mediad,
        Caller(*mediad.audiosocket) as caller,
    ):
        await agent.connection(0)
        file.write_text("[audiosocket]\nmax_calls = 1\n[journal]\nmax_bytes = 2000000\n")
        mediad.signal(signal.SIGHUP)
        await mediad.wait_for_log("reloaded: audiosocket.max_calls")
        await mediad.wait_for_log("change at the next start only: journal.max_bytes")
        async with Caller(*mediad.audiosocket) as second:
            end = await second.ended()
        assert (end.by, end.how) == ("server", "hangup")
        before = len(caller.heard.times)
        await eventually(lambda: len(caller.heard.times) > before + 10)
        assert caller.end is None


async def test_wrong_settings_change_nothing(tmp_path: Path) -> None:
    file = tmp_path / "mediad.toml"
    file.write_text("[log]\nlevel = 'info'\n")
    async with FakeAgent() as agent, run_mediad(agent.url, config=str(file)) as mediad:
        for wrong, words in (
            ("[audiosocket]\nmax_calls = 'many'\n", "[audiosocket] max_calls"),
            ("[ai]\nunavailable_prompt = '/etc/hostname'\n", "unavailable_prompt"),
            ("no toml", "mediad.toml"),
        ):
            file.write_text(wrong)
            mediad.signal(signal.SIGHUP)
            line = await mediad.wait_for_log(words)
            assert "not reloaded" in line
            mediad.log.clear()
        async with Caller(*mediad.audiosocket) as caller:
            await agent.connection(0)
            assert caller.end is None


async def test_drain_can_be_shortened(tmp_path: Path) -> None:
    file = tmp_path / "mediad.toml"
    file.write_text("[audiosocket]\ndrain_timeout_s = 60\n")
    async with (
        FakeAgent() as agent,
        run_mediad(agent.url, config=str(file)) as mediad,
        Caller(*mediad.audiosocket) as caller,
    ):
        await agent.connection()
        mediad.signal(signal.SIGTERM)
        await mediad.wait_for_log("1 live calls may go on for 60 s")
        file.write_text("[audiosocket]\ndrain_timeout_s = 0.5\n")
        mediad.signal(signal.SIGHUP)
        await mediad.wait_for_log("reloaded: audiosocket.drain_timeout_s")
        end = await caller.ended()
        assert (end.by, end.how) == ("server", "hangup")
        assert await mediad.ended() == 0


async def test_failure_of_any_kind_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "mediad.app")
    before = settings("ws://127.0.0.1:9")

    def fail() -> Settings:
        raise ValueError("an error of our own")

    async with running(before) as daemon:
        await daemon.app.reload(fail)
        assert "not reloaded, all stays as it is" in caplog.messages
        assert daemon.app.settings is before
        await daemon.app.reload(lambda: changed(before, audiosocket={"max_calls": 7}))
        assert "reloaded: audiosocket.max_calls" in caplog.messages


# Links


def changed(settings: Settings, **tables: dict[str, Any]) -> Settings:
    """Return the settings with other values in some tables."""
    wanted = settings.model_dump()
    for table, values in tables.items():
        wanted[table] |= values
    return Settings.model_validate(wanted)


Services = dict[str, FakeService]


@asynccontextmanager
async def services(tls: ssl.SSLContext | None = None) -> AsyncIterator[Services]:
    """Run the services of a pipeline."""
    async with AsyncExitStack() as stack:
        made = {role: FakeService(role, tls=tls) for role in get_args(Role)}
        for service in made.values():
            await stack.enter_async_context(service)
        yield made


def with_key(settings: Settings, of_role: Services, key: str) -> Settings:
    """Return the settings with services that are shown a key."""
    headers = {"X-Key": key}
    tables = {role: {"url": [it.url], "headers": headers} for role, it in of_role.items()}
    return changed(settings, ai={"link": "pipeline"}, **tables)


async def test_calls_to_come_reach_services_by_other_settings_and_live_calls_as_before() -> None:
    async with services() as of_role:
        before = with_key(settings("ws://127.0.0.1:9"), of_role, "old")
        async with running(before) as daemon, daemon.call():
            for service in of_role.values():
                assert (await service.connection(0)).headers["X-Key"] == "old"
            await daemon.app.reload(lambda: with_key(before, of_role, "new"))
            async with daemon.call():
                for service in of_role.values():
                    assert (await service.connection(1)).headers["X-Key"] == "new"
            for service in of_role.values():  # of the live call, which looks for another
                await service.connections[0].cut()
                assert (await service.connection(2)).headers["X-Key"] == "old"


async def test_calls_to_come_have_the_other_kind_of_link() -> None:
    async with services() as of_role, FakeAgent() as agent:
        before = settings(agent.url)
        pipeline = with_key(before, of_role, "key")
        async with running(before) as daemon:
            async with daemon.call():
                await agent.connection(0)
                await daemon.app.reload(lambda: pipeline)
                async with daemon.call():
                    for service in of_role.values():
                        await service.connection(0)
                    await daemon.app.reload(lambda: before)
                    async with daemon.call():
                        await agent.connection(1)
                    assert len(agent.connections) == 2


async def test_certificates_are_read_again_though_no_setting_has_changed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "mediad.app")
    ours, strange = Authority(tmp_path / "ours"), Authority(tmp_path / "strange")
    tls = ours.issue().server(asks_for=ours.certificate)
    files = {key: tmp_path / f"{key}.pem" for key in ("ca_file", "client_cert", "client_key")}

    def install(authority: Authority) -> None:
        pair = authority.issue("DNS:mediad")
        sources = (authority.certificate, pair.certificate, pair.key)
        for file, source in zip(files.values(), sources, strict=True):
            file.write_bytes(source.read_bytes())

    async with services(tls) as of_role, FakeAgent(tls=tls) as agent:
        install(strange)
        to_agent = changed(settings(agent.url), ai=files)
        to_services = with_key(to_agent, of_role, "key")
        async with running(to_agent) as daemon:
            refused = {"outcome": "tls_unknown_ca"}
            async with daemon.call():
                await daemon.metric_reaches(1, "mediad_agent_connects_total", **refused)
            await daemon.app.reload(lambda: to_services)
            async with daemon.call():
                await daemon.metric_reaches(3, "mediad_service_connects_total", **refused)
            install(ours)
            await daemon.app.reload(lambda: to_services)
            assert caplog.messages[-1] == "reloaded: no setting has changed"
            async with daemon.call():
                for service in of_role.values():
                    await service.connection(0)
            await daemon.app.reload(lambda: to_agent)
            async with daemon.call():
                await agent.connection(0)
