"""``mediad warm``: have fixed prompts spoken and kept in the cache before a call asks for them."""

import asyncio
import contextlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import TextIO

import click
import uvloop

from mediad.ai.connect import CallInfo
from mediad.ai.services.events import Failed, Times
from mediad.ai.services.service import make_services
from mediad.ai.speaker import Speaker
from mediad.ai.spoken import normalise
from mediad.ai.tls import client_tls
from mediad.ai.tts_cache import TtsCache
from mediad.cache import open_cache
from mediad.cache.cache import Cache
from mediad.call.turn.sentences import cut
from mediad.config import Settings
from mediad.config_option import config_option, load
from mediad.errors import AgentUnavailable
from mediad.metrics import Metrics
from mediad.wire.frames import AudioFrame, decode
from mediad.wire.service import Role, Voice

__all__ = ["warm"]

_AT_ONCE = 8
_LINE_RATES = ("8000", "12000", "16000", "24000", "32000", "44100", "48000", "96000", "192000")
_SHOWN = 60  # characters of a text


@dataclass(slots=True)
class _Prompt:
    """A text, and what has become of it."""

    text: str
    outcome: str = ""
    """``kept`` (it was there), ``stored``, or ``failed``."""
    message: str = ""
    seconds: float = 0.0
    """Of speech."""


@click.command(short_help="Have prompts spoken and kept in the cache.")
@config_option
@click.option(
    "--file", "-f", type=click.File(encoding="utf-8"), help="Texts, one a line; - for stdin."
)
@click.option("--voice", help="The voice to speak with, if not that of [tts] voice.")
@click.option(
    "--language",
    help="The language that the service is told, if not [pipeline] language: en-US for calls of an "
    "agent that names none.",
)
@click.option(
    "--rate",
    type=click.FloatRange(0.25, 4.0),
    help="How fast to speak, if not as [tts] rate says: all calls speak at that.",
)
@click.option(
    "--line-rate",
    type=click.Choice(_LINE_RATES),
    default="8000",
    show_default=True,
    help="What the calls' lines play, in Hz.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
@click.argument("texts", nargs=-1, metavar="[TEXT]...")
def warm(
    config: Path | None,
    file: TextIO | None,
    voice: str | None,
    language: str | None,
    rate: float | None,
    line_rate: str,
    as_json: bool,
    texts: tuple[str, ...],
) -> None:
    """Have texts spoken by the TTS service and kept for a day, so that no call waits for them.

    They are kept as calls look for them: sentence by sentence, by voice, language, rate and line.
    What is there already stays. The settings' own texts are spoken, too: the pipeline's first
    message, its prompt for a silent caller, and its fallback when that is a text. Exit status 1 if
    one of them could not be stored.
    """
    settings = load(config)
    if settings.redis.url is None:
        raise click.ClickException(
            "without [redis] url the cache is in each mediad itself: there is nothing to fill"
        )
    tts, ours = settings.tts, settings.pipeline
    speech = Voice(voice or tts.voice, language or ours.language, rate or tts.rate)
    fallback = "" if ours.fallback_prompt.endswith(".wav") else ours.fallback_prompt
    wanted = [*texts, *(file or ()), fallback, ours.first_message, ours.no_input_prompt]
    sentences = chain.from_iterable(cut(text, speech.language) for text in wanted)
    prompts = [_Prompt(text) for text in dict.fromkeys(map(normalise, sentences)) if text]
    show = _ignore if as_json else _Shower(len(prompts)).show
    uvloop.run(_warm(settings, prompts, speech, int(line_rate), show))
    if as_json:
        click.echo(json.dumps([asdict(prompt) for prompt in prompts], indent=2))
    if failed := sum(prompt.outcome == "failed" for prompt in prompts):
        raise click.ClickException(f"{failed} of {len(prompts)} are not in the cache")


def _ignore(prompt: _Prompt) -> None:
    """Show nothing."""


class _Shower:
    """Prints a line for each text that is ready."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._done = 0

    def show(self, prompt: _Prompt) -> None:
        self._done += 1
        text = prompt.text if len(prompt.text) <= _SHOWN else f"{prompt.text[:_SHOWN]}…"
        what = f"{prompt.seconds:.1f} s" if prompt.outcome != "failed" else prompt.message
        click.echo(f"[{self._done}/{self._total}] {prompt.outcome}: {text} ({what})")


async def _warm(
    settings: Settings,
    prompts: Sequence[_Prompt],
    voice: Voice,
    rate_hz: int,
    show: Callable[[_Prompt], None],
) -> None:
    metrics = Metrics()
    cache = open_cache(settings.redis, settings.cache, metrics)
    service = make_services(settings, metrics, client_tls(settings.ai).ours).tts
    answers = _Answers()
    places = asyncio.Semaphore(_AT_ONCE)
    try:
        async with asyncio.TaskGroup() as group:
            store = _Store(cache, group)
            speaker = Speaker(
                TtsCache(store, metrics), service, CallInfo("warm"), voice, rate_hz, answers
            )

            async def fill(prompt: _Prompt) -> None:
                async with places:
                    await answers.fill(speaker, prompt)
                    if prompt.outcome == "stored":
                        problem = await store.problem_with(speaker.key(prompt.text).digest())
                        if problem:
                            prompt.outcome, prompt.message = "failed", problem
                    show(prompt)

            running = group.create_task(_run(speaker))
            async with asyncio.TaskGroup() as filling:
                for prompt in prompts:
                    filling.create_task(fill(prompt))
            running.cancel()
        await speaker.closed()
    finally:
        await cache.close()


async def _run(speaker: Speaker) -> None:
    with contextlib.suppress(AgentUnavailable):  # each text says it for itself
        await speaker.run()


class _Answers:
    """What is heard of the speaker (`TtsEvents`), for each text."""

    def __init__(self) -> None:
        self._prompts: dict[int, _Prompt] = {}
        self._ends: dict[int, asyncio.Future[None]] = {}

    async def fill(self, speaker: Speaker, prompt: _Prompt) -> None:
        """Speak a text, and note how it went."""
        n = len(self._prompts) + 1
        self._prompts[n] = prompt
        self._ends[n] = end = asyncio.get_running_loop().create_future()
        speaker.speak(n, prompt.text)
        await end

    def on_audio(self, n: int, message: bytes) -> None:
        frame = decode(message)
        if isinstance(frame, AudioFrame) and frame.sample_rate and frame.num_channels:
            samples = len(frame.audio) / (2 * frame.num_channels)
            self._prompts[n].seconds += samples / frame.sample_rate

    def on_word(self, n: int, text: str, offset_ms: int) -> None:
        pass

    def on_tts_done(self, n: int, times: Times) -> None:
        self._prompts[n].outcome = "stored" if times.tries else "kept"
        self._ends[n].set_result(None)

    def on_failed(self, failed: Failed) -> None:
        prompt = self._prompts[failed.n]
        prompt.outcome = "failed"
        prompt.message = f"{failed.why}: {failed.message}" if failed.message else failed.why
        self._ends[failed.n].set_result(None)

    def on_service_open(self, role: Role, connect_s: float) -> None:
        pass

    def on_service_lost(self, role: Role, why: str) -> None:
        pass


class _Store:
    """The cache as a `SpeechStore` that has time, and knows what it has stored."""

    def __init__(self, cache: Cache, tasks: asyncio.TaskGroup) -> None:
        self._cache = cache
        self._tasks = tasks
        self._writes: dict[str, asyncio.Task[str]] = {}

    def fetch(self, digest: str, on_value: Callable[[bytes | None], None]) -> None:
        async def read() -> None:
            on_value(await self._cache.get(self._cache.keys.speech(digest)))

        self._tasks.create_task(read())

    def keep(self, digest: str, make: Callable[[], bytes | None]) -> None:
        async def write() -> str:
            value = make()
            if value is None:
                return "it is silent, or too long to be kept"
            is_stored = await self._cache.set(self._cache.keys.speech(digest), value)
            return "" if is_stored else self._cache.problem or "the cache does not take it"

        self._writes[digest] = self._tasks.create_task(write())

    async def problem_with(self, digest: str) -> str:
        """Wait until a text that was spoken is stored; return why it is not, or nothing."""
        write = self._writes.get(digest)
        return await write if write is not None else "a stand-in's voice is not kept"
