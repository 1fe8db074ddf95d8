"""What a call was like in figures, from its two tracks. Pure.

Every time is counted from the call's time zero (the UUID was sent) unless it says otherwise.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from mediad.caller.client import End
from mediad.caller.track import Track

__all__ = ["Figures", "Gaps", "Turn", "measure", "percentile", "turns_of"]


@dataclass(frozen=True, slots=True)
class Gaps:
    """The time between one message heard and the next, in ms."""

    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float


@dataclass(frozen=True, slots=True)
class Turn:
    """One time that the caller spoke, and how long the answer took."""

    start_s: float
    end_s: float
    response_ms: float | None
    """From the end of the caller's speech to the first audible answer; None without an answer, or
    when the caller spoke again before it."""


@dataclass(frozen=True, slots=True)
class Figures:
    """The call's latencies and how it ended. Times of what did not happen are None."""

    connect_ms: float
    """How long the TCP connection took."""
    first_message_ms: float | None
    """From the UUID to the server's first audio message, audible or not."""
    first_audible_ms: float | None
    """From the UUID to the first audible message."""
    messages: int
    """Audio messages heard."""
    split_messages: int
    audible_s: float
    """Audible audio heard."""
    silent_s: float
    """Silence heard."""
    gaps: Gaps | None
    turns: list[Turn]
    ended_by: str
    ended_how: str
    ended_detail: str
    duration_s: float


def measure(
    *,
    started_at: float,
    connect_s: float,
    sent: Track,
    heard: Track,
    end: End,
    split_messages: int = 0,
) -> Figures:
    """Return the figures of a call that is over; times are monotonic seconds."""
    first_audible = heard.spans[0].start if heard.spans else None
    first_message = heard.times[0] if heard.times else None
    return Figures(
        connect_ms=_ms(connect_s),
        first_message_ms=None if first_message is None else _ms(first_message - started_at),
        first_audible_ms=None if first_audible is None else _ms(first_audible - started_at),
        messages=len(heard.times),
        split_messages=split_messages,
        audible_s=round(heard.audible_s, 3),
        silent_s=round(heard.duration_s - heard.audible_s, 3),
        gaps=gaps_of(heard.gaps_s()),
        turns=turns_of(sent, heard, started_at),
        ended_by=end.by,
        ended_how=end.how,
        ended_detail=end.detail,
        duration_s=round(end.at - started_at, 3),
    )


def gaps_of(gaps_s: Sequence[float]) -> Gaps | None:
    """Return the percentiles of gaps in seconds; None when there are none."""
    if not gaps_s:
        return None
    ordered = sorted(gaps_s)
    p50, p95, p99 = (_ms(percentile(ordered, share)) for share in (0.50, 0.95, 0.99))
    return Gaps(p50, p95, p99, _ms(ordered[-1]))


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the smallest value that at least ``share`` of the sorted values do not exceed."""
    return ordered[max(0, ceil(share * len(ordered)) - 1)]


def turns_of(sent: Track, heard: Track, started_at: float) -> list[Turn]:
    """Return each span of the caller's speech with its answer.

    What is heard when the caller stops (the caller talked over it) is no answer: the next span is.
    """
    turns = []
    for span in sent.spans:
        answer, spoke_again = heard.span_after(span.end), sent.span_after(span.end)
        answered = answer and (spoke_again is None or answer.start < spoke_again.start)
        turns.append(
            Turn(
                start_s=round(span.start - started_at, 3),
                end_s=round(span.end - started_at, 3),
                response_ms=_ms(answer.start - span.end) if answer and answered else None,
            )
        )
    return turns


def _ms(duration_s: float) -> float:
    return round(duration_s * 1000, 2)
