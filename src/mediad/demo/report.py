"""What the demo's conversation was like, and whether it was one. Pure.

Two witnesses must agree: the caller, with what it heard and when, and mediad, with its events.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mediad.bus.events import Event
from mediad.caller.figures import Figures, Gaps
from mediad.caller.track import Track

__all__ = ["BargeIn", "Result", "Turn", "judge", "make_result", "table"]

TURNS_NEEDED = 3
MAX_STOP_MS = 1000.0
"""From the caller's first word to the agent's silence. Most of it is the agent's: it has to hear
that somebody speaks."""

_SOON_S = 0.05  # mediad's clock starts when the UUID arrives, the caller's when it leaves


@dataclass(frozen=True, slots=True)
class Turn:
    """The caller spoke; what the agent understood and said to it."""

    at_s: float
    """Seconds from the call's time zero."""
    heard_as: list[str]
    answers: list[str]
    response_ms: float | None
    """From the end of the caller's speech to the answer's first audible message."""


@dataclass(frozen=True, slots=True)
class BargeIn:
    """The caller talked over the agent."""

    at_s: float
    stop_ms: float | None
    """From the caller's first audible message to the end of the last one heard; None if the agent
    was not speaking."""
    reported: bool
    """Whether mediad published that the agent was interrupted."""
    discarded_ms: float
    """How much of the agent's audio was then thrown away."""


@dataclass(frozen=True, slots=True)
class Result:
    """All that the demo found out."""

    turns: list[Turn]
    barge_ins: list[BargeIn]
    agent_sentences: list[str]
    connect_ms: float | None
    """How long mediad took to connect to the agent."""
    first_audio_ms: float | None
    """From the call's start to the first audible message heard."""
    gaps: Gaps | None
    underruns: int | None
    hangup_by: str | None
    duration_s: float


def make_result(
    figures: Figures,
    talked_over: Sequence[float],
    heard: Track,
    started_at: float,
    events: Sequence[Event],
) -> Result:
    """Put together what the caller and mediad saw.

    Args:
        talked_over: When the caller began to talk over the agent, in monotonic seconds.
        started_at: The call's time zero, in monotonic seconds.
        events: Those of this call, in order.
    """
    hungup = next((event.data for event in events if event.type == "call_hungup"), None)
    connected = next((event.data for event in events if event.type == "agent_connected"), None)
    return Result(
        turns=_turns(figures, events),
        barge_ins=[_barge_in(at, heard, started_at, events) for at in talked_over],
        agent_sentences=_texts(events, "out"),
        connect_ms=round(connected["connect_s"] * 1000, 1) if connected else None,
        first_audio_ms=figures.first_audible_ms,
        gaps=figures.gaps,
        underruns=hungup["counters"]["underruns"] if hungup else None,
        hangup_by=hungup["hangup_by"] if hungup else None,
        duration_s=figures.duration_s,
    )


def _turns(figures: Figures, events: Sequence[Event]) -> list[Turn]:
    turns = []
    begins = [turn.start_s for turn in figures.turns]
    for turn, end_s in zip(figures.turns, [*begins, float("inf")][1:], strict=True):
        within = [event for event in events if turn.start_s <= event.offset_s + _SOON_S < end_s]
        # What the agent was saying when the caller began is no answer.
        after = [event for event in within if event.offset_s >= turn.end_s]
        answers = _texts(after, "out")
        turns.append(Turn(turn.start_s, _texts(within, "in"), answers, turn.response_ms))
    return turns


def _texts(events: Iterable[Event], direction: str) -> list[str]:
    return [
        event.data["text"]
        for event in events
        if event.type == "transcript_created" and event.data["direction"] == direction
    ]


def _barge_in(at: float, heard: Track, started_at: float, events: Sequence[Event]) -> BargeIn:
    over = next((span for span in heard.spans if span.start <= at < span.end), None)
    at_s = at - started_at
    flush = next(
        (
            event
            for event in events
            if event.type == "interrupted"
            and event.data["reason"] == "barge_in"
            and at_s < event.offset_s + _SOON_S
        ),
        None,
    )
    return BargeIn(
        at_s=round(at_s, 3),
        stop_ms=round((over.end - at) * 1000, 1) if over else None,
        reported=flush is not None,
        discarded_ms=flush.data["discarded_ms"] if flush else 0.0,
    )


def judge(result: Result) -> list[str]:
    """Return why this was no conversation with a barge-in, one sentence each; nothing if it was."""
    problems = []
    if not result.agent_sentences or result.first_audio_ms is None:
        problems.append("the agent said nothing")
    answered = [
        turn
        for turn in result.turns
        if turn.heard_as and turn.answers and turn.response_ms is not None
    ]
    if len(answered) < TURNS_NEEDED:
        problems.append(f"only {len(answered)} of {TURNS_NEEDED} turns were heard and answered")
    if len(answered) > 1 and len({" ".join(turn.answers) for turn in answered}) == 1:
        problems.append("the agent always gave the same answer")
    problems += _judge_barge_ins(result.barge_ins)
    if result.hangup_by != "caller":
        problems.append(f"the call was ended by {result.hangup_by}, not by the caller")
    return problems


def _judge_barge_ins(barge_ins: Sequence[BargeIn]) -> list[str]:
    problems = []
    for barge_in in barge_ins:
        when = f"at {barge_in.at_s:.1f} s"
        if barge_in.stop_ms is None:
            problems.append(f"the agent was not speaking when the caller talked over it {when}")
        elif barge_in.stop_ms > MAX_STOP_MS:
            problems.append(
                f"the agent went on for {barge_in.stop_ms:.0f} ms after the barge-in {when}, "
                f"more than {MAX_STOP_MS:.0f} ms"
            )
        if not barge_in.reported:
            problems.append(f"mediad reported no interruption {when}")
    return problems or ([] if barge_ins else ["the caller never talked over the agent"])


def table(result: Result) -> str:
    """Return the latencies for people."""
    rows = [
        ("connect to the agent", _ms(result.connect_ms)),
        ("first audio, from the call's start", _ms(result.first_audio_ms)),
    ]
    for number, turn in enumerate(result.turns, 1):
        rows.append((f"turn {number}: response time", _ms(turn.response_ms)))
    for barge_in in result.barge_ins:
        rows.append(("barge-in: until the agent is silent", _ms(barge_in.stop_ms)))
        rows.append(("barge-in: audio thrown away", _ms(barge_in.discarded_ms)))
    if result.gaps:
        rows.append(("between frames, p50", _ms(result.gaps.p50_ms)))
        rows.append(("between frames, p99", _ms(result.gaps.p99_ms)))
    rows.append(("underruns", "-" if result.underruns is None else f"{result.underruns}   "))
    return "\n".join(f"  {name:<38}{value:>12}" for name, value in rows)


def _ms(value: float | None) -> str:
    return "-   " if value is None else f"{value:.1f} ms"
