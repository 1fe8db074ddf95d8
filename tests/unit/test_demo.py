"""The demo's judgement: what counts as a conversation, from what two witnesses saw."""

from dataclasses import replace

import numpy as np
import pytest

from mediad.bus.events import Event
from mediad.caller import End, Track
from mediad.caller.figures import Gaps, measure
from mediad.demo.report import MAX_STOP_MS, BargeIn, Result, Turn, judge, make_result, table

GOOD = Result(
    turns=[
        Turn(2.0, ["yes"], ["Glad to hear it."], 700.0),
        Turn(6.0, ["stop"], ["I stop."], 800.0),
        Turn(9.0, ["no"], ["Goodbye."], 600.0),
    ],
    barge_ins=[BargeIn(6.0, 500.0, True, 2000.0)],
    agent_sentences=["Hello.", "Glad to hear it.", "I stop.", "Goodbye."],
    connect_ms=3.0,
    first_audio_ms=120.0,
    gaps=Gaps(20.0, 20.4, 21.0, 25.0),
    underruns=0,
    hangup_by="caller",
    duration_s=12.0,
)


def test_three_answered_turns_and_a_barge_in_are_a_conversation() -> None:
    assert judge(GOOD) == []


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"first_audio_ms": None}, "the agent said nothing"),
        ({"turns": GOOD.turns[:2]}, "only 2 of 3 turns were heard and answered"),
        (
            {"turns": [*GOOD.turns[:2], replace(GOOD.turns[2], response_ms=None)]},
            "only 2 of 3 turns were heard and answered",
        ),
        (
            {"turns": [*GOOD.turns[:2], replace(GOOD.turns[2], heard_as=[])]},
            "only 2 of 3 turns were heard and answered",
        ),
        (
            {"turns": [replace(turn, answers=["What?"]) for turn in GOOD.turns]},
            "the agent always gave the same answer",
        ),
        ({"barge_ins": []}, "the caller never talked over the agent"),
        (
            {"barge_ins": [replace(GOOD.barge_ins[0], stop_ms=None)]},
            "the agent was not speaking when the caller talked over it at 6.0 s",
        ),
        (
            {"barge_ins": [replace(GOOD.barge_ins[0], stop_ms=MAX_STOP_MS + 1)]},
            "the agent went on for 1001 ms after the barge-in at 6.0 s, more than 1000 ms",
        ),
        (
            {"barge_ins": [replace(GOOD.barge_ins[0], reported=False)]},
            "mediad reported no interruption at 6.0 s",
        ),
        ({"hangup_by": "agent"}, "the call was ended by agent, not by the caller"),
    ],
)
def test_each_thing_that_is_missing_is_named(changes: dict[str, object], problem: str) -> None:
    assert judge(replace(GOOD, **changes)) == [problem]  # type: ignore[arg-type]


def test_a_silent_caller_had_no_conversation() -> None:
    problems = judge(replace(GOOD, turns=[], barge_ins=[]))
    assert "only 0 of 3 turns were heard and answered" in problems
    assert "the caller never talked over the agent" in problems


def spoken(*spans: tuple[float, float], until: float) -> Track:
    """A track with sound in the given seconds, one message a 20 ms."""
    track = Track(8000)
    sound = np.full(160, 8000, "<i2").tobytes()
    for n in range(round(until / 0.02)):
        at = n * 0.02
        audible = any(start - 0.001 <= at < end - 0.001 for start, end in spans)
        track.add(100.0 + at, sound if audible else bytes(320))
    return track


def test_two_witnesses_become_turns_and_a_barge_in() -> None:
    """The agent greets (0-1 s), is answered (2 s), talks (3-5 s), is talked over (4.5 s)."""
    sent = spoken((2.0, 2.4), (4.5, 4.8), until=8)
    heard = spoken((0.2, 1.0), (3.0, 5.0), (6.0, 7.0), until=8)
    events = [
        Event("agent_connected", "c", 0.01, {"connect_s": 0.0042}),
        Event("transcript_created", "c", 0.1, {"direction": "out", "text": "Hello."}),
        Event("transcript_created", "c", 2.7, {"direction": "in", "text": "yes"}),
        Event("transcript_created", "c", 2.9, {"direction": "out", "text": "A long story."}),
        Event("interrupted", "c", 4.85, {"reason": "failed", "discarded_ms": 1}),
        Event("interrupted", "c", 4.9, {"reason": "barge_in", "discarded_ms": 1234}),
        Event("transcript_created", "c", 5.2, {"direction": "in", "text": "stop"}),
        Event("transcript_created", "c", 5.9, {"direction": "out", "text": "I stop."}),
        Event("call_hungup", "c", 8.0, {"hangup_by": "caller", "counters": {"underruns": 2}}),
    ]
    end = End("caller", "closed", 108.0)
    figures = measure(started_at=100.0, connect_s=0.001, sent=sent, heard=heard, end=end)
    result = make_result(figures, [104.5], heard, 100.0, events)
    assert result.turns == [
        Turn(2.0, ["yes"], ["A long story."], 600.0),
        Turn(4.5, ["stop"], ["I stop."], 1200.0),
    ]
    assert result.barge_ins == [BargeIn(4.5, 500.0, True, 1234)]
    assert result.agent_sentences == ["Hello.", "A long story.", "I stop."]
    assert (result.connect_ms, result.first_audio_ms) == (4.2, 200)
    assert (result.underruns, result.hangup_by) == (2, "caller")


def test_a_call_in_which_nobody_spoke_has_no_turns() -> None:
    silence = spoken(until=1)
    end = End("server", "eof", 101.0)
    figures = measure(started_at=100.0, connect_s=0.0, sent=silence, heard=silence, end=end)
    result = make_result(figures, [], silence, 100.0, [])
    assert (result.turns, result.barge_ins, result.first_audio_ms) == ([], [], None)


def test_talking_over_silence_is_no_barge_in() -> None:
    heard = spoken((0.2, 1.0), until=3)
    figures = measure(
        started_at=100.0,
        connect_s=0.0,
        sent=spoken((2.0, 2.4), until=3),
        heard=heard,
        end=End("caller", "closed", 103.0),
    )
    result = make_result(figures, [102.0], heard, 100.0, [])
    assert result.barge_ins == [BargeIn(2.0, None, False, 0.0)]
    assert (result.connect_ms, result.underruns, result.hangup_by) == (None, None, None)


def test_the_table_names_every_latency() -> None:
    rows = [line.split("  ") for line in table(GOOD).strip().splitlines()]
    assert [row[0].strip() or row[1] for row in rows] == [
        "connect to the agent",
        "first audio, from the call's start",
        "turn 1: response time",
        "turn 2: response time",
        "turn 3: response time",
        "barge-in: until the agent is silent",
        "barge-in: audio thrown away",
        "between frames, p50",
        "between frames, p99",
        "underruns",
    ]
