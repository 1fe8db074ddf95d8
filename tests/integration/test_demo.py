"""``mediad demo`` as people run it: three callers, Ctrl-C, and a machine without the extra."""

import asyncio
import json
import os
import signal
import sys
import wave
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mediad.demo.agent_process import AgentFailed, AgentProcess
from mediad.demo.report import MAX_STOP_MS

TIMEOUT_S = 90


@asynccontextmanager
async def demo(*arguments: object, **environment: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run the demo; kill what is left of it."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "mediad", "demo", *map(str, arguments)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | environment,
    )
    try:
        async with asyncio.timeout(TIMEOUT_S):
            yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def result_of(say: str, out: Path, *options: str) -> tuple[int | None, dict[str, Any]]:
    """Run the demo to its end; return its exit status and what it printed."""
    # What is set for another mediad on this machine must not matter.
    async with demo(
        *("--json", "--say", say, "--out", out, *options), MEDIAD_AI__AGENT_URL="ws://127.0.0.1:1"
    ) as process:
        printed, errors = await process.communicate()
    assert b"Traceback" not in errors, errors.decode()
    return process.returncode, json.loads(printed)


@pytest.mark.parametrize(
    ("say", "heard", "other"),
    [("yes", "an old captain", "No story then"), ("no", "No story then", "an old captain")],
)
async def test_caller_and_agent_talk_and_the_answer_depends_on_what_was_said(
    tmp_path: Path, say: str, heard: str, other: str
) -> None:
    status, result = await result_of(say, tmp_path / "demo.wav")
    assert (status, result["problems"]) == (0, [])
    assert result["happened"]
    assert result["turns"][0]["heard_as"] == [say]
    sentences = " ".join(result["agent_sentences"])
    assert heard in sentences
    assert other not in sentences
    assert "You pressed five." in sentences
    assert len(result["turns"]) >= 3
    (barge_in,) = result["barge_ins"]
    assert 0 < barge_in["stop_ms"] <= MAX_STOP_MS
    assert barge_in["reported"]
    assert result["hangup_by"] == "caller"
    assert result["duration_s"] < 40
    with wave.open(str(tmp_path / "demo.wav")) as file:
        assert (file.getnchannels(), file.getframerate()) == (2, 8000)
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)
    assert len(samples) / 8000 == pytest.approx(result["duration_s"], abs=0.5)
    for turn in result["turns"]:
        begin = round(turn["at_s"] * 8000)
        assert np.abs(samples[begin : begin + 4000, 0]).max() > 3000


async def test_a_caller_and_three_services_talk_and_what_was_not_heard_was_not_said(
    tmp_path: Path,
) -> None:
    status, result = await result_of("yes", tmp_path / "demo.wav", "--pipeline")
    assert (status, result["problems"]) == (0, [])
    assert len(result["turns"]) >= 3
    said = result["agent_sentences"]
    (story,) = [text for text in said if text.startswith("Here is the story of")]
    assert "horn" not in story  # its last word: the caller talked over it
    assert any("You pressed five." in text for text in said)
    (barge_in,) = result["barge_ins"]
    assert 0 < barge_in["stop_ms"] <= MAX_STOP_MS


async def test_a_silent_caller_has_no_conversation(tmp_path: Path) -> None:
    status, result = await result_of("silent", tmp_path / "demo.wav")
    assert status == 1
    assert not result["happened"]
    assert "only 0 of 3 turns were heard and answered" in result["problems"]
    assert result["agent_sentences"]  # it did greet


def running_agents() -> set[int]:
    """The processes of this machine that are built-in agents."""
    found = set()
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            words = (directory / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue  # it has just ended
        if words[1:4] == [b"-m", b"mediad", b"agent"]:
            found.add(int(directory.name))
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("when", [b"Starting the agent", b"takes the call"])
async def test_a_signal_stops_everything(
    tmp_path: Path, number: signal.Signals, when: bytes
) -> None:
    others = running_agents()
    async with demo("--out", tmp_path / "demo.wav", PYTHONUNBUFFERED="1") as process:
        assert process.stdout is not None
        while when not in await process.stdout.readline():
            assert not process.stdout.at_eof()
        await asyncio.sleep(0.5)
        process.send_signal(number)
        async with asyncio.timeout(10):
            _, errors = await process.communicate()
    assert process.returncode == 130
    assert b"Traceback" not in errors
    assert running_agents() <= others


async def test_an_agent_that_does_not_start_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(AgentFailed, match="ended with status 1"):
        await AgentProcess().__aenter__()


async def test_without_the_extra_it_says_how_to_get_it(tmp_path: Path) -> None:
    program = (
        "import importlib.util as util\n"
        "real = util.find_spec\n"
        "util.find_spec = lambda name, *rest: None if name == 'pipecat' else real(name, *rest)\n"
        "from mediad.demo import demo\n"
        "demo()\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stderr=asyncio.subprocess.PIPE
    )
    _, errors = await process.communicate()
    assert process.returncode == 1
    assert b"pip install 'mediad[agent]'" in errors
