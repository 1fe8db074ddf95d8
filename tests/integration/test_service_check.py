"""``mediad agent --check`` finds what a service does wrong, and says so of the right rule."""

import asyncio
import json
import sys

import pytest
import pytest_asyncio

from mediad.speech.check import peer
from mediad.speech.check.suite import Result, check_service
from mediad.wire.service import Role
from tests.fakes.sinner import run_sinner

SINS = {
    "never ready": {"ready"},
    "ready late": {"ready"},
    "protocol 2": {"ready"},
    "odd rate": {"ready"},
    "no done": {"answer"},
    "says nothing": {"answer"},
    "one turn": {"two-turns"},
    "counts by itself": {"large-n", "numbers"},
    "drops what waits": {"queue"},
    "all at once": {"order"},
    "dies of the unknown": {"unknown-types"},
    "dies of garbage": {"garbage"},
    "never cancels": {"cancel", "cancel-queue", "cancel-late"},
    "cancels late": {"cancel", "cancel-queue", "cancel-late"},
    "gives no reason": {"cancel", "cancel-queue", "cancel-late"},
    "goes on": {"cancel", "after-done"},
    "cancels what is not done": {"cancel-late"},
    "one call": {"two-calls"},
    "text": {"messages"},
    "fields missing": {"messages"},
    "too large": {"messages"},
    "done twice": {"numbers"},
    "audio after the done": {"after-done"},
    "another rate": {"sample-rate"},
    "stereo": {"sample-rate"},
    "words of another": {"words"},
    "words beyond the end": {"words"},
    "words that fall": {"words"},
}
"""What a TTS service may do wrong, and which checks have to find it."""

FOUND_ALONE = (
    "dies of the unknown",
    "dies of garbage",
    "one call",
    "text",
    "fields missing",
    "another rate",
    "stereo",
    "words that fall",
    "cancels what is not done",
)
"""Those that break nothing else."""

Results = dict[str, Result]
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def of_sin() -> dict[str, Results]:
    """Check all of them at once, as most of it is waiting; results by sin and name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(peer, "ANSWER_S", 1.5)
        results = await asyncio.gather(*map(checked, SINS))
    return dict(zip(SINS, results, strict=True))


async def checked(sin: str, role: Role = "tts") -> Results:
    """Check a service with one sin."""
    async with run_sinner(sin) as url:
        return {result.name: result async for result in check_service(url, role)}


def failed(results: Results) -> set[str]:
    """Return what has failed."""
    return {name for name, result in results.items() if result.result == "failed"}


@pytest.mark.parametrize("role", ["stt", "llm", "tts"])
async def test_a_service_without_sin_passes(role: Role) -> None:
    results = await checked("", role)
    assert {result.result for result in results.values()} == {"passed"}


@pytest.mark.parametrize("sin", SINS)
async def test_a_sin_is_found(sin: str, of_sin: dict[str, Results]) -> None:
    results = of_sin[sin]
    assert failed(results) >= SINS[sin]
    for name in SINS[sin]:
        assert results[name].detail
        assert results[name].advice


@pytest.mark.parametrize("sin", FOUND_ALONE)
async def test_nothing_else_is_found(sin: str, of_sin: dict[str, Results]) -> None:
    assert failed(of_sin[sin]) == SINS[sin]


async def test_a_busy_machine_is_no_sin() -> None:
    for results in await asyncio.gather(*map(checked, ("words on their way", "stands still"))):
        assert {result.name: result.detail for result in results.values() if result.advice} == {}


async def test_a_tool_may_be_called_but_not_anyhow() -> None:
    right, *wrong = await asyncio.gather(
        checked("calls the tool", "llm"),
        checked("makes a tool up", "llm"),
        checked("arguments are no JSON", "llm"),
    )
    assert not failed(right)
    assert [failed(results) for results in wrong] == [{"tools"}, {"tools"}]
    assert "'order_pizza'" in wrong[0]["tools"].detail
    assert "'now!'" in wrong[1]["tools"].detail


async def test_an_stt_that_keeps_silent_when_no_word_was_said_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(peer, "ANSWER_S", 1.5)
    assert failed(await checked("no word, no done", "stt")) == {"nothing"}


async def test_all_else_is_left_out_when_a_service_does_not_get_ready(
    of_sin: dict[str, Results],
) -> None:
    results = [result.result for result in of_sin["never ready"].values()]
    assert results[0] == "failed"
    assert set(results[1:]) == {"skipped"}


async def _command(url: str, *options: str) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "mediad", "agent", "--role", "tts", "--check", url, *options),
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    return process.returncode, out.decode()


async def test_the_command_tells_a_line_each_and_what_to_do() -> None:
    async with run_sinner("another rate") as url:
        status, out = await _command(url)
    lines = out.splitlines()
    assert status == 1
    assert lines[0].split()[:2] == ["ok", "ready"]
    assert "FAIL sample-rate    audio of 24000 Hz; announced: 16000" in lines
    assert lines[-1] == "18 checks, 1 not passed"


async def test_the_command_also_speaks_json() -> None:
    async with run_sinner("") as url:
        status, out = await _command(url, "--json")
    report = json.loads(out)
    assert status == 0
    assert (report["url"], report["role"], report["passed"]) == (url, "tts", True)
    assert report["checks"][0]["name"] == "ready"
    assert {check["result"] for check in report["checks"]} == {"passed"}


async def test_nobody_there_is_one_failure() -> None:
    status, out = await _command("ws://127.0.0.1:1")
    assert status == 1
    assert "FAIL ready          cannot connect to ws://127.0.0.1:1" in out
