"""README's way from an access key to a verified webhook: its blocks as they stand there, in one
shell, against a running mediad and its built-in agent. Only the ports are this test's own.
"""

import asyncio
import os
import re
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from bench.process import free_port
from mediad.demo.agent_process import AgentProcess
from tests.integration.daemon import eventually
from tests.mediad_process import MediadProcess, run_mediad

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")

EVENT = re.compile(r"(\d+) ([a-z]+_[a-z]+) [0-9a-f-]{36}")
"""What the receiver prints of each."""

SCRIPT_S = 90.0
"""It takes some 15 s, most of it the call."""

DELIVERED_S = 30.0
"""A request that failed comes again after 4 to 6 s."""


def section(title: str) -> str:
    """Return a section of the README."""
    return README.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def blocks(text: str, kind: str) -> str:
    """Return all blocks of a kind."""
    return "".join(re.findall(rf"^```{kind}\n(.*?)^```", text, re.DOTALL | re.MULTILINE))


def adapt(text: str, mediad: MediadProcess, receiver_port: int) -> str:
    """Let the README mean what runs here."""
    here = {
        "mediad call": f"mediad call --port {mediad.audiosocket[1]}",
        "127.0.0.1:8080": "{}:{}".format(*mediad.http),
        "127.0.0.1:8000": f"127.0.0.1:{receiver_port}",
        '("127.0.0.1", 8000)': f'("127.0.0.1", {receiver_port})',
    }
    for there, ours in here.items():
        text = text.replace(there, ours)
    return text


async def run(script: str, directory: Path, environment: Mapping[str, str], last: str) -> str:
    """Run a script to its end, and what it leaves in the background until that has said this."""
    shown = directory / "shown"
    with shown.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            *("bash", "-euo", "pipefail", "-c", script),
            cwd=directory,
            env=os.environ | environment | {"PYTHONUNBUFFERED": "1"},
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        async with asyncio.timeout(SCRIPT_S):
            assert await process.wait() == 0, shown.read_text()
        await eventually(lambda: last in shown.read_text(), DELIVERED_S)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        print(shown.read_text())
    return shown.read_text()


async def test_from_a_key_to_a_webhook(tmp_path: Path) -> None:
    settings = {"database__directory": str(tmp_path / "state"), "webhooks__allow_private": "true"}
    environment = {f"MEDIAD_{name.upper()}": value for name, value in settings.items()}
    async with AgentProcess() as agent, run_mediad(agent.url, **settings) as mediad:
        (tmp_path / ".venv").symlink_to(sys.prefix)
        port = free_port()
        receiver = adapt(blocks(section("Webhooks"), "python"), mediad, port)
        (tmp_path / "receive.py").write_text(receiver, encoding="utf-8")
        script = adapt(blocks(section("The API"), "(?:bash|sh)"), mediad, port)
        shown = await run(script, tmp_path, environment, "call_hungup")
    assert '"text":"Agent: ' in shown
    events = EVENT.findall(shown)
    assert [int(sequence) for sequence, _ in events] == list(range(1, len(events) + 1))
    types = [type_ for _, type_ in events]
    assert types[:3] == ["call_created", "call_updated", "transcribe_started"]
    assert types[-2:] == ["transcribe_done", "call_hungup"]
    assert set(types[3:-2]) == {"transcript_created"}
