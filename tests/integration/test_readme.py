"""Every command in README.md is run; a new one has to be taught to this file."""

import asyncio
import json
import os
import re
import shlex
import shutil
import sys
import wave
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from mediad.demo.agent_process import AgentProcess
from tests.fakes.service import FakeService
from tests.mariadb import running_mariadb
from tests.mediad_process import run_mediad
from tests.redis_server import RedisServer

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def commands() -> list[str]:
    """Return the lines of README's shell blocks, and its inline ``make`` commands."""
    blocks = re.findall(r"^```sh\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    whole = (block.replace("\\\n", " ") for block in blocks)
    lines = [line for block in whole for line in block.splitlines() if line]
    return lines + re.findall(r"`(make [a-z-]+)`", README)


async def run(
    *command: str, cwd: Path = ROOT, environment: Mapping[str, str] = MappingProxyType({})
) -> str:
    """Run a command to its end; return what it printed. It must succeed."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=cwd,
        env=os.environ | environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    return output.decode()


def test_no_command_is_unknown_here() -> None:
    known = {"agent", "audit", "serve", "call", "check-config", "migrate", "journal", "warm"}
    for command in commands():
        words = shlex.split(command)
        is_ours = words[0] == ".venv/bin/mediad" and words[1] in known
        assert is_ours or words[0] in ("make", "curl"), command


async def test_every_make_target_exists() -> None:
    targets = [words[1] for words in map(shlex.split, commands()) if words[0] == "make"]
    assert {"demo", "test", "lint"} <= set(targets)
    for target in targets:
        await run("make", "--dry-run", target)


async def test_settings_file_of_the_readme_is_right() -> None:
    (command,) = [c for c in commands() if "check-config" in c]
    assert "[audiosocket]" in await run(
        sys.executable, "-m", *shlex.split(command.removeprefix(".venv/bin/"))
    )


async def test_agent_serve_and_call_work_together(tmp_path: Path) -> None:
    lines = {shlex.split(c)[1]: shlex.split(c)[1:] for c in commands() if "mediad " in c}
    assert lines["serve"] == ["serve"]
    assert lines["agent"] == ["agent"]
    async with AgentProcess() as agent, run_mediad(agent.url) as mediad:
        port = str(mediad.audiosocket[1])
        await run(sys.executable, "-m", "mediad", *lines["call"], "--port", port, cwd=tmp_path)
    heard = tmp_path / "heard.wav"
    with wave.open(str(heard)) as file:
        assert file.getnframes() > 4 * file.getframerate()
        assert any(file.readframes(file.getnframes()))


async def test_tables_are_made_the_journal_is_shown_and_the_audit_log_checked(
    tmp_path: Path,
) -> None:
    lines = {shlex.split(c)[1]: shlex.split(c)[1:] for c in commands() if "mediad " in c}
    with running_mariadb() as server:
        url = server.new_database()
        settings = {"database__url": url, "database__directory": str(tmp_path)}
        environment = {f"MEDIAD_{name.upper()}": value for name, value in settings.items()}
        await run(sys.executable, "-m", "mediad", *lines["migrate"], environment=environment)
        async with run_mediad("", **settings):
            shown = await run(
                sys.executable, "-m", "mediad", *lines["journal"], environment=environment
            )
        await run(sys.executable, "-m", "mediad", "keys", "create", environment=environment)
        checked = await run(
            sys.executable, "-m", "mediad", *lines["audit"], environment=environment
        )
    assert "facts that wait: 0" in shown
    assert checked.startswith("default: 1 good, ends with 1:")


async def test_prompts_are_kept_before_a_call_asks_for_them(tmp_path: Path) -> None:
    lines = {shlex.split(c)[1]: shlex.split(c)[1:] for c in commands() if "mediad " in c}
    redis = RedisServer(tmp_path)
    redis.start()
    try:
        async with FakeService("tts") as tts:
            settings = {"MEDIAD_REDIS__URL": redis.url, "MEDIAD_TTS__URL": tts.url}
            words = (sys.executable, "-m", "mediad", *lines["warm"])
            shown = await run(*words, environment=settings)
    finally:
        redis.kill()
    assert "stored: Thank you for calling." in shown
    assert shown.count("stored: ") == 3


async def test_an_agent_is_made_with_the_first_key(tmp_path: Path) -> None:
    (command,) = [c for c in commands() if c.startswith("curl ")]
    async with run_mediad("", database__directory=str(tmp_path)) as mediad:
        key = (tmp_path / "access_key").read_text().strip()
        address = "{}:{}".format(*mediad.http)
        words = shlex.split(command.replace("$KEY", key).replace("127.0.0.1:8080", address))
        answer = json.loads(await run(*words, "--silent"))
    assert answer["name"] == "bakery"
    assert answer["config"]["prompt"].startswith("You answer")


def test_files_that_the_readme_links_to_exist() -> None:
    for path in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / path).exists(), path
    assert shutil.which("make"), "README's commands need make"
