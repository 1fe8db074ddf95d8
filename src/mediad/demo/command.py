"""The command ``mediad demo``: starts everything, lets them talk, prints and judges."""

import asyncio
import json
import signal
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import click
import uvloop

from mediad.app import App
from mediad.bus.bus import Subscription
from mediad.bus.events import Event
from mediad.caller import Caller
from mediad.caller.figures import measure
from mediad.config import Ai, AudioSocket, Database, Http, Llm, Settings, Stt, Tts
from mediad.demo.agent_process import AgentFailed, AgentProcess
from mediad.demo.conversation import SCRIPTS, converse
from mediad.demo.report import Result, judge, make_result, table
from mediad.speech.espeak import SpeechError
from mediad.wav import write_wav
from mediad.wire.service import Role

__all__ = ["demo"]

_HUNGUP_TIMEOUT_S = 3.0
_AGENT = "agent (Pipecat, espeak-ng, pocketsphinx)"


@click.command(short_help="Hear a conversation: caller, mediad and agent on this machine.")
@click.option(
    "--say",
    type=click.Choice(list(SCRIPTS)),
    default="yes",
    show_default=True,
    help="What the caller answers; a silent one has no conversation, and exit status 1.",
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    default=Path("demo.wav"),
    show_default=True,
    help="Stereo WAV of the call: the caller left, the agent right.",
)
@click.option(
    "--pipeline",
    "is_pipeline",
    is_flag=True,
    help="With three services in place of the agent, between which mediad takes the turns.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON and nothing else.")
def demo(say: str, out: Path, is_pipeline: bool, as_json: bool) -> None:
    """Let a caller talk with the built-in agent through mediad, all on this machine and offline.

    Prints the conversation as it happens, then its latencies. Exit status 1 if it did not happen:
    fewer than three turns, no barge-in, no different answers.
    """
    _check_extra()
    show = (lambda text: None) if as_json else click.echo
    try:
        with TemporaryDirectory(prefix="mediad-demo-") as directory:
            recording = uvloop.run(_until_signal(_run(say, Path(directory), is_pipeline, show)))
    except asyncio.CancelledError:
        raise click.Abort from None
    except (AgentFailed, SpeechError) as exc:
        raise click.ClickException(str(exc)) from exc
    result = recording.result()
    problems = judge(result)
    if as_json:
        click.echo(json.dumps(_document(say, out, recording, result, problems), indent=2))
    else:
        click.echo(f"\nLatencies\n{table(result)}")
    _write(out, recording.caller)
    if not as_json:
        click.echo(f"\nThe call is in {out} (caller left, agent right).")
    if problems:
        raise click.ClickException("the conversation did not happen: " + "; ".join(problems))


@dataclass(slots=True)
class _Recording:
    """What the caller and the bus saw of the call."""

    caller: Caller
    events: list[Event] = field(default_factory=list)
    talked_over: list[float] = field(default_factory=list)

    def result(self) -> Result:
        caller = self.caller
        assert caller.end is not None  # the call is over
        figures = measure(
            started_at=caller.started_at,
            connect_s=caller.connect_s,
            sent=caller.sent,
            heard=caller.heard,
            end=caller.end,
        )
        return make_result(figures, self.talked_over, caller.heard, caller.started_at, self.events)


def _check_extra() -> None:
    missing = [name for name in ("pipecat", "pocketsphinx") if find_spec(name) is None]
    if missing:
        raise click.ClickException(
            f"the demo needs {' and '.join(missing)}: pip install 'mediad[agent]'"
        )


async def _until_signal(work: Any) -> _Recording:
    """Run ``work``; Ctrl-C and SIGTERM cancel it, so that everything it started is stopped."""
    loop = asyncio.get_running_loop()
    task: asyncio.Task[_Recording] = loop.create_task(work)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, task.cancel)
    return await task


async def _run(
    say: str, directory: Path, is_pipeline: bool, show: Callable[[str], object]
) -> _Recording:
    what = "services: stt (pocketsphinx), llm, tts (espeak-ng)" if is_pipeline else _AGENT
    show(f"Starting the {what} ...")
    async with AsyncExitStack() as stack:
        agents = [AgentProcess(role) for role in (get_args(Role) if is_pipeline else ("",))]
        async with asyncio.TaskGroup() as starting:
            for agent in agents:
                starting.create_task(stack.enter_async_context(agent))
        urls = [agent.url for agent in agents]
        app = await stack.enter_async_context(App(_settings(urls, directory)))
        show(f"mediad takes calls on {app.audiosocket_address[0]}:{app.audiosocket_address[1]}\n")
        caller = Caller(*app.audiosocket_address)
        recording = _Recording(caller)

        def tell(text: str) -> None:
            show(_line(time.monotonic() - caller.started_at, "caller", text))

        with app.bus.subscribe() as events:
            narrating = asyncio.create_task(_narrate(events, recording, show))
            try:
                async with caller:
                    recording.talked_over = await converse(caller, SCRIPTS[say], tell)
                    caller.hang_up()
                    await caller.ended()
                async with asyncio.timeout(_HUNGUP_TIMEOUT_S):
                    await narrating
            except TimeoutError:
                pass  # no call_hungup: the report says so
            finally:
                narrating.cancel()
        return recording


def _settings(urls: list[str], directory: Path) -> Settings:
    """Return the defaults, on free ports and with this agent, or these three services."""
    # Constructed, not loaded: what the environment sets for another mediad is not for this one.
    tables: dict[str, Any] = {
        "audiosocket": AudioSocket(port=0),
        "http": Http(port=0),
        "database": Database(directory=directory),
    }
    if len(urls) == 1:
        return Settings.model_construct(**tables, ai=Ai(agent_url=(urls[0],)))
    stt, llm, tts = urls
    return Settings.model_construct(
        **tables,
        ai=Ai(link="pipeline"),
        stt=Stt(url=(stt,)),
        llm=Llm(url=(llm,)),
        tts=Tts(url=(tts,)),
    )


async def _narrate(
    events: Subscription, recording: _Recording, show: Callable[[str], object]
) -> None:
    """Keep the call's events and print those that tell the story, until the call is over."""
    async for event in events:
        if event.call_id != str(recording.caller.call_id):
            continue
        recording.events.append(event)
        if told := _story(event):
            show(_line(event.offset_s, *told))
        if event.type == "call_hungup":
            return


def _story(event: Event) -> tuple[str, str] | None:
    """Return who did what, or None for what is no news."""
    data = event.data
    match event.type:
        case "call_created":
            return "mediad", "takes the call"
        case "service_connected":
            ms = data["connect_s"] * 1000
            return "mediad", f"has connected the {data['role']} service in {ms:.0f} ms"
        case "agent_connected":
            return "mediad", f"has connected the agent in {data['connect_s'] * 1000:.0f} ms"
        case "transcript_created" if data["direction"] == "in":
            return "agent", f"has understood: {data['text']}"
        case "transcript_created":
            return "agent", f"says: {data['text'].strip()}"
        case "speaking":
            return data["who"], "begins to speak" if data["started"] else "has finished"
        case "dtmf_received":
            return "mediad", f"passes on the digit {data['digit']}"
        case "interrupted" if data["discarded_ms"]:  # else it was not speaking
            return "mediad", f"silences the agent, {data['discarded_ms']:.0f} ms thrown away"
        case "agent_lost":
            return "mediad", f"has lost the agent ({data['code']})"
        case "call_hungup":
            return "mediad", f"ends the call: {data['hangup_by']}, {data['hangup_cause']}"
        case _:
            return None


def _line(offset_s: float, who: str, what: str) -> str:
    return f"{offset_s:7.2f} s  {who:<7} {what}"


def _write(out: Path, caller: Caller) -> None:
    sides = (track.aligned(caller.started_at) for track in (caller.sent, caller.heard))
    try:
        write_wav(out, caller.heard.rate_hz, *sides)
    except OSError as exc:
        raise click.ClickException(f"cannot write {out}: {exc.strerror}") from exc


def _document(
    say: str, out: Path, recording: _Recording, result: Result, problems: list[str]
) -> dict[str, Any]:
    events = [
        {"at_s": event.offset_s, "type": event.type, "data": dict(event.data)}
        for event in recording.events
    ]
    return {
        "say": say,
        "happened": not problems,
        "problems": problems,
        **asdict(result),
        "wav": str(out),
        "events": events,
    }
