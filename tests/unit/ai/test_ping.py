"""When an agent is slow, when it is lost, and what brings its audio back: all by counting beats."""

import pytest

from mediad.ai.ping import LOST_BEATS, Pings


def first_ping(pings: Pings) -> bytes:
    payload = pings.beat(0.0)
    assert payload is not None
    return payload


def test_agent_that_answers_before_the_next_beat_is_prompt() -> None:
    pings = Pings()
    seen = set()
    for number in range(100):
        payload = pings.beat(2.0 * number)
        assert payload is not None
        seen.add(payload)
        assert pings.answer(payload, 2.0 * number + 1.5) == pytest.approx(1.5)
        assert not pings.is_slow
    assert len(seen) == 100  # each ping has a payload of its own


def test_unanswered_ping_is_not_repeated_and_makes_the_agent_slow() -> None:
    pings = Pings()
    first_ping(pings)
    assert not pings.is_slow
    assert pings.beat(2.0) is None
    assert pings.is_slow
    assert not pings.is_lost


def test_agent_is_lost_at_the_fifth_beat_without_an_answer() -> None:
    pings = Pings()
    first_ping(pings)
    for beat in range(1, LOST_BEATS):
        assert pings.beat(2.0 * beat) is None
        assert not pings.is_lost
    pings.beat(2.0 * LOST_BEATS)
    assert pings.is_lost


def test_slow_agent_gets_audio_when_it_has_read_all_that_was_sent() -> None:
    pings = Pings()
    late = first_ping(pings)
    pings.beat(2.0)
    assert pings.answer(late, 3.5) == pytest.approx(3.5)
    assert pings.is_slow  # audio was sent after that ping
    assert pings.answer(pings.ping(3.5), 3.6) == pytest.approx(0.1)
    assert not pings.is_slow


def test_late_answers_keep_an_agent_from_being_lost() -> None:
    pings = Pings()
    payload = first_ping(pings)
    for _ in range(10):
        for _ in range(LOST_BEATS - 1):
            assert pings.beat(0.0) is None
        assert pings.answer(payload, 0.0) is not None
        payload = pings.ping(0.0)
    assert not pings.is_lost


def test_process_that_did_not_run_for_an_hour_loses_no_agent() -> None:
    pings = Pings()
    payload = first_ping(pings)
    assert pings.beat(3600.0) is None  # the timer comes before the answer that has long been there
    assert not pings.is_lost
    assert pings.answer(payload, 3600.0) is not None


@pytest.mark.parametrize("payload", [b"", b"\x00\x00\x00\x00", b"\x00\x00\x00\x02", b"hello"])
def test_pong_with_another_payload_answers_nothing(payload: bytes) -> None:
    pings = Pings()
    first_ping(pings)
    assert pings.answer(payload, 1.0) is None
    pings.beat(2.0)
    assert pings.is_slow


def test_second_pong_answers_nothing() -> None:
    pings = Pings()
    payload = first_ping(pings)
    assert pings.answer(payload, 1.0) is not None
    assert pings.answer(payload, 1.0) is None
