"""``mediad call``: call any AudioSocket server as Asterisk would, and say how it answered."""

import asyncio
import contextlib
import json
import signal
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from uuid import UUID, uuid4

import click
import uvloop

from mediad.caller import CODECS, PTIMES_MS, CallEnded, Caller
from mediad.caller.figures import Figures, measure
from mediad.caller.voice import DIGIT_HOLE_S, parse_digits
from mediad.wav import Wav, WavError, read_wav, write_wav

__all__ = ["call"]

_DEFAULT_DURATION_S = 10.0
_LISTEN_AFTER_S = 5.0


@dataclass(frozen=True, slots=True)
class _Plan:
    """What the command line asks for."""

    host: str
    port: int
    call_id: UUID
    wav: Wav | None
    codec: str
    ptime_ms: int
    digits: str
    duration_s: float | None


def _digits(context: click.Context, parameter: click.Parameter, value: str) -> str:
    try:
        return parse_digits(value)
    except ValueError as exc:
        raise click.BadParameter(str(exc)) from exc


def _wav(context: click.Context, parameter: click.Parameter, value: Path | None) -> Wav | None:
    try:
        return read_wav(value) if value else None
    except (OSError, WavError) as exc:
        raise click.BadParameter(str(exc)) from exc


@click.command(short_help="Play Asterisk's part against an AudioSocket server.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The server's address.")
@click.option("--port", default=9092, show_default=True, type=click.IntRange(1, 65535))
@click.option("--uuid", type=click.UUID, help="The call's id; a random one by default.")
@click.option(
    "--wav",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    callback=_wav,
    help="What to say: WAV of any rate, mono or stereo. Without it, silence.",
)
@click.option("--codec", default="slin", show_default=True, type=click.Choice(list(CODECS)))
@click.option(
    "--ptime",
    default="20",
    show_default=True,
    type=click.Choice([str(ptime) for ptime in PTIMES_MS]),
    help="How long each message lasts, in ms.",
)
@click.option("--dtmf", default="", callback=_digits, help="Digits to press; w waits 0.5 s: 1w2#")
@click.option(
    "--duration",
    type=click.FloatRange(min=0, min_open=True, max=86400),
    help="Hang up after this many seconds; by default 5 s after the last word, at least 10.",
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Write what was heard to this WAV file.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a timeline and the figures as JSON.")
def call(
    host: str,
    port: int,
    uuid: UUID | None,
    wav: Wav | None,
    codec: str,
    ptime: str,
    dtmf: str,
    duration: float | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Call an AudioSocket server (mediad or any other) as Asterisk would, and say how it answered.

    Sends one message every ptime, silence when there is nothing to say; hangs up by closing the
    connection. Exit status 0: the server answered with audio; 1: it did not.
    """
    plan = _Plan(host, port, uuid or uuid4(), wav, codec, int(ptime), dtmf, duration)
    try:
        caller = uvloop.run(_make_call(plan))
    except TimeoutError:
        raise click.ClickException(
            f"{host}:{port} does not answer: is a firewall between?"
        ) from None
    except OSError as exc:
        raise click.ClickException(
            f"cannot connect to {host}:{port} ({exc.strerror or exc}): is the server running? "
            "`mediad serve` starts one."
        ) from exc
    figures = _figures(caller)
    if out:
        _write(out, caller)
    if as_json:
        document = {"uuid": str(caller.call_id), "figures": asdict(figures)}
        click.echo(json.dumps(document | {"timeline": timeline(caller)}, indent=2))
    else:
        click.echo(summary(caller.call_id, figures))
    problem = problem_of(figures)
    if problem:
        raise click.ClickException(problem)


async def _make_call(plan: _Plan) -> Caller:
    """Make the call and return it when it is over; Ctrl-C hangs up."""
    caller = Caller(
        plan.host, plan.port, call_id=plan.call_id, codec=plan.codec, ptime_ms=plan.ptime_ms
    )
    async with caller:
        with _hang_up_on_signals(caller):
            if plan.wav:
                caller.say(plan.wav.pcm, plan.wav.rate_hz)
            caller.press(plan.digits, DIGIT_HOLE_S)
            with contextlib.suppress(TimeoutError, CallEnded):
                if plan.duration_s is None:
                    await caller.said()
                async with asyncio.timeout_at(_hang_up_at(plan, caller)):
                    await caller.ended()
            caller.hang_up()
            await caller.ended()
    return caller


def _hang_up_at(plan: _Plan, caller: Caller) -> float:
    """Return when to hang up, on the loop's clock; without ``--duration``, after the last word."""
    now = asyncio.get_running_loop().time()
    passed_s = time.monotonic() - caller.started_at
    if plan.duration_s is not None:
        return now + plan.duration_s - passed_s
    return now + max(_LISTEN_AFTER_S, _DEFAULT_DURATION_S - passed_s)


@contextlib.contextmanager
def _hang_up_on_signals(caller: Caller) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, caller.hang_up)
    try:
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


def _figures(caller: Caller) -> Figures:
    assert caller.end is not None  # the call is over
    return measure(
        started_at=caller.started_at,
        connect_s=caller.connect_s,
        sent=caller.sent,
        heard=caller.heard,
        end=caller.end,
        split_messages=caller.split_messages,
    )


def _write(out: Path, caller: Caller) -> None:
    try:
        write_wav(out, caller.heard.rate_hz, caller.heard.aligned(caller.started_at))
    except OSError as exc:
        raise click.ClickException(f"cannot write {out}: {exc.strerror}") from exc


def problem_of(figures: Figures) -> str | None:
    """Return why the call did not happen, with what to do; None when it did."""
    if figures.ended_how == "garbage":
        return f"the server does not speak AudioSocket: it sent {figures.ended_detail}"
    if figures.messages:
        return None
    if figures.ended_how == "hangup":
        return "the server refused the call (0x00): is it full? Its log says why."
    if figures.ended_by != "caller":
        return (
            f"the server closed the connection without audio ({figures.ended_how}): does it allow "
            "this address, and is the call's id not in use? Its log says why."
        )
    return "the server sent no audio: is an AudioSocket server on this port, and its agent running?"


def timeline(caller: Caller) -> list[dict[str, float | str]]:
    """Return what happened, in order: seconds from the UUID, and what."""
    assert caller.end is not None  # the call is over
    moments = [(caller.started_at, "uuid sent")]
    moments += [(at, f"digit {digit} sent") for at, digit in caller.digits_sent]
    moments += [(at, "first message heard") for at in caller.heard.times[:1]]
    for who, track in (("caller", caller.sent), ("server", caller.heard)):
        for span in track.spans:
            moments += [(span.start, f"{who} speaks"), (span.end, f"{who} is quiet")]
    moments.append((caller.end.at, f"end: {caller.end.how} by {caller.end.by}"))
    return [
        {"at_s": round(at - caller.started_at, 3), "event": event} for at, event in sorted(moments)
    ]


def summary(call_id: UUID, figures: Figures) -> str:
    """Return the figures for people."""
    lines = [
        f"call {call_id}: {figures.duration_s:.1f} s, {figures.ended_how} by {figures.ended_by}",
        f"  connect             {_ms(figures.connect_ms)}",
        f"  first message       {_ms(figures.first_message_ms)} after the UUID",
        f"  first audible       {_ms(figures.first_audible_ms)} after the UUID",
        f"  heard               {figures.audible_s:.1f} s of sound, {figures.silent_s:.1f} s of "
        f"silence in {figures.messages} messages",
    ]
    if gaps := figures.gaps:
        lines.append(
            f"  between messages    p50 {gaps.p50_ms:.1f}, p95 {gaps.p95_ms:.1f}, "
            f"p99 {gaps.p99_ms:.1f}, max {gaps.max_ms:.1f} ms"
        )
    for number, turn in enumerate(figures.turns, 1):
        spoke = f"spoke {turn.start_s:.1f} to {turn.end_s:.1f} s"
        lines.append(f"  turn {number:<15}{spoke}, answer after {_ms(turn.response_ms)}")
    return "\n".join(lines)


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} ms"
