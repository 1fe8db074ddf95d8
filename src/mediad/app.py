"""The daemon: what is started, in which order, and how it stops."""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import NamedTuple, NoReturn, Self

from mediad.ai.agent import Connector
from mediad.ai.connect import CallInfo, DialOut
from mediad.ai.dial_in import DialIn, DialInServer
from mediad.ai.tls import ClientTls, client_tls
from mediad.bus.bus import Bus
from mediad.bus.commands import Commands
from mediad.cache.speech import SpeechCache
from mediad.call.prompt import load_prompt
from mediad.call.registry import Registry
from mediad.call.shared import Shared, make_shared, reload_shared
from mediad.call.ticker import Ticker
from mediad.config import ENV_PREFIX, Settings
from mediad.control import Control
from mediad.errors import ConfigError
from mediad.files import check_files, raise_file_limit
from mediad.line import CORE
from mediad.log import dropped_records, repeated_records, set_level
from mediad.loop_watch import LoopWatch
from mediad.media.resample import SAMPLE_RATES, filter_bank
from mediad.memory import keep_little
from mediad.metrics import Metrics
from mediad.reload import Reloaded, reload
from mediad.sd_notify import READY, STOPPING, WATCHDOG, SdNotify
from mediad.store.journal import Journal
from mediad.transport.audiosocket import AudioSocketListener

__all__ = ["App", "serve"]

logger = logging.getLogger(__name__)

_HANG_UP_S = 2.0  # for live calls to get their 0x00 when we stop
_CLOSE_S = 5.0  # for the disk to take the last facts
_LAST_WORDS_S = 0.2  # the journal's thread and the log's write what they have every 10 ms
_PROMPT = "[ai] unavailable_prompt"
_SWITCH_S = 0.0005  # the media loop waits at most so long for another thread's Python
_GC_THRESHOLD = 1_000  # the store makes cycles, calls make none; more at once would be heard


class _New(NamedTuple):
    """What a reload has read."""

    reloaded: Reloaded
    prompt: bytes
    tls: ClientTls
    shared: Shared


class App:
    """Everything mediad runs in one process. ``async with App(settings) as app:`` starts and stops
    it.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._metrics = Metrics()
        self._is_ready = False
        self._journal = Journal(
            settings.database.journal_file,
            settings.journal.max_bytes,
            settings.journal.fsync,
            self._metrics,
        )
        self.bus = Bus(self._metrics, self._journal.offer)
        self._ticker = Ticker(self._metrics)
        self._systemd = SdNotify()
        watchdog_s = self._systemd.watchdog_s
        self._watch = LoopWatch(
            lambda: self._ticker.due,
            self._metrics,
            lambda: self._systemd.notify(WATCHDOG),
            watchdog_s and watchdog_s / 2,
        )
        self._tls = client_tls(settings.ai)
        self._dial_in = None if settings.ai.agent_url else DialInServer(settings.ai, self._metrics)
        self._metrics.watch(
            "log_dropped_records", "Log records that the full queue has dropped", dropped_records
        )
        self._metrics.watch(
            "log_repeated_records", "Log records told by their count alone", repeated_records
        )
        self._speech_cache = SpeechCache(self._metrics)
        self._shared = make_shared(settings, self._metrics, self._tls.ours, self._speech_cache)
        prompt = load_prompt(settings.ai.unavailable_prompt, _PROMPT)
        self.calls = Registry(settings, self.bus, self._metrics, self._ticker, self._way_of, prompt)
        self._listener = AudioSocketListener(settings.audiosocket, self.calls, self._metrics)
        self.commands = Commands()
        self._control = Control(
            settings,
            self.bus,
            self.commands,
            self._journal,
            self._speech_cache,
            self._metrics,
            self._problems,
        )
        self._drain_began = 0.0  # on the loop's clock
        self._drain_limit: asyncio.Timeout | None = None  # while it lasts
        self.audiosocket_address = ("", 0)
        self.http_address = ("", 0)
        self.metrics_address: tuple[str, int] | None = None
        self.dial_in_address: tuple[str, int] | None = None

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._stop()

    def watch(self) -> None:
        """From now on tell what holds the loop up, and systemd that it moves."""
        self._watch.start()

    async def reload(self, load: Callable[[], Settings]) -> None:
        """Take up what can be taken up of the settings as they are now, for calls to come, and tell
        what cannot. If something is wrong with them, all stays as it is.
        """
        try:
            new = await asyncio.to_thread(self._read_anew, load)
        except ConfigError as exc:
            logger.error("not reloaded, all stays as it is: %s", exc)
            return
        except Exception:  # the next reload must find its task alive
            logger.exception("not reloaded, all stays as it is")
            return
        self.settings, taken, left = new.reloaded
        self._tls, self._shared = new.tls, new.shared
        self.calls.reload(self.settings, new.prompt)
        self._listener.reload(self.settings.audiosocket)
        self._limit_drain()
        set_level(self.settings.log.level)
        logger.info("reloaded: %s", ", ".join(taken) or "no setting has changed")
        if left:
            logger.warning("these settings change at the next start only: %s", ", ".join(left))

    def _read_anew(self, load: Callable[[], Settings]) -> _New:
        """Read settings and the files that they name; takes as long as the disk likes."""
        reloaded = reload(self.settings, load())
        settings = reloaded.settings
        check_files(settings)
        tls = client_tls(settings.ai)
        shared = reload_shared(self._shared, settings, tls.ours)
        return _New(reloaded, load_prompt(settings.ai.unavailable_prompt, _PROMPT), tls, shared)

    async def drain(self) -> None:
        """Answer new calls with 0x00 and /readyz with 503; let the live calls go on for a while."""
        self._systemd.notify(STOPPING)
        timeout_s = self.settings.audiosocket.drain_timeout_s
        logger.info("stopping: %d live calls may go on for %g s", self.calls.live, timeout_s)
        self._drain_began = asyncio.get_running_loop().time()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s) as self._drain_limit:
                await self.calls.drain()
        self._drain_limit = None
        if self.calls.live:
            logger.info("stopping: %d live calls are hung up", self.calls.live)

    def _limit_drain(self) -> None:
        """Let a drain that has begun end by the settings in force."""
        if self._drain_limit is not None and not self._drain_limit.expired():
            timeout_s = self.settings.audiosocket.drain_timeout_s
            self._drain_limit.reschedule(self._drain_began + timeout_s)

    async def _start(self) -> None:
        ai = self.settings.ai
        ended = await asyncio.to_thread(self._journal.open)
        if ended:
            logger.warning("%d calls that a crash had cut off are ended", ended)
        self.http_address = await _bind("http", self._control.start)
        self.metrics_address = self._control.metrics_address
        if self.metrics_address is not None:
            logger.info("/metrics is on %s:%d", *self.metrics_address)
        if self._dial_in is not None:
            self.dial_in_address = await _bind("ai", self._dial_in.start)
        for rate_hz in SAMPLE_RATES & {8000, 16000, 22050, 24000, 44100, 48000}:
            filter_bank(rate_hz, 8000)  # designed now, not while a call waits
        filter_bank(8000, 16000)
        if ai.link == "pipeline":
            await self._shared.model.load()
        self.calls.open()
        self.commands.serve(self.calls.carry_out)
        self._ticker.start()
        self.audiosocket_address = await _bind("audiosocket", self._listener.start)
        self._is_ready = True
        self._systemd.notify(READY)
        logger.info(
            "mediad takes calls on %s:%d, HTTP on %s:%d, agents at %s (%s core)",
            *self.audiosocket_address,
            *self.http_address,
            # Without the query: somebody may have put a key there.
            ", ".join(url.partition("?")[0] for url in ai.agent_url) or self.dial_in_address,
            CORE,
        )

    async def _stop(self) -> None:
        self._is_ready = False
        await self.calls.stop(_HANG_UP_S)
        self.commands.stop()
        self._shared.model.close()
        self._watch.stop()
        self._ticker.stop()
        if self._dial_in is not None:
            self._dial_in.stop()
        try:
            await self._control.stop()
        finally:
            await asyncio.to_thread(self._journal.close, _CLOSE_S)
            await self._listener.stop()  # last: until here who connects gets 0x00
            self._systemd.close()

    def _way_of(self, call: CallInfo, on_token: Callable[[str], None]) -> Connector | Shared:
        if (call.link or self.settings.ai.link) == "pipeline":
            return self._shared
        if self._dial_in is not None and not call.agent_url:
            return DialIn(self._dial_in, self.settings.ai, self._metrics, on_token)
        return DialOut(self.settings.ai, call, self._metrics, self._tls)

    def _problems(self) -> dict[str, str]:
        if not self._is_ready:
            return {"audiosocket": "starting or stopping"}
        problems = {"calls": self.calls.refusal(), "journal": self._journal.problem}
        return {part: problem for part, problem in problems.items() if problem}


async def serve(app: App, load: Callable[[], Settings]) -> None:
    """Run until SIGTERM or SIGINT, and then until the live calls are over, for as long as
    ``audiosocket.drain_timeout_s``. A second signal ends the process at once, with 128 and the
    signal's number. SIGHUP reloads what ``load`` returns then.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal(number: int) -> None:
        if stop.is_set():
            _end_at_once(app, number)
        stop.set()

    reload_wanted = asyncio.Event()

    async def reload_whenever_wanted() -> None:
        while True:
            await reload_wanted.wait()
            reload_wanted.clear()
            await app.reload(load)

    keep_little()
    raise_file_limit()
    check_files(app.settings)
    loop.add_signal_handler(signal.SIGHUP, reload_wanted.set)
    async with app:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, on_signal, number)
        # What start-up made stays: the collector need not look at it again.
        gc.collect()  # holds the loop: before it is watched
        gc.freeze()
        gc.set_threshold(_GC_THRESHOLD, 10, 50)
        sys.setswitchinterval(_SWITCH_S)
        app.watch()
        reloading = loop.create_task(reload_whenever_wanted())
        await stop.wait()
        await app.drain()
        reloading.cancel()


def _end_at_once(app: App, number: int) -> NoReturn:
    """End the process, whatever hangs in it: nothing is waited for but two threads' last words.

    Calls that are cut off go on in their dialplans, and are ended in the journal at the next start.
    """
    logger.warning("a second signal: ending at once, %d live calls are cut off", app.calls.live)
    time.sleep(_LAST_WORDS_S)
    os._exit(128 + number)


async def _bind(table: str, start: Callable[[], Awaitable[tuple[str, int]]]) -> tuple[str, int]:
    try:
        return await start()
    except OSError as exc:
        raise ConfigError(
            f"[{table}] cannot listen: {exc}; choose another host or port, in the file or as "
            f"{ENV_PREFIX}{table.upper()}__…"
        ) from exc
