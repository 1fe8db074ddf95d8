"""mediad as a process that reads its settings again while a call lives."""

import signal
from pathlib import Path

from mediad.caller import Caller
from tests.fakes.agent import FakeAgent
from tests.integration.daemon import eventually
from tests.mediad_process import run_mediad


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
