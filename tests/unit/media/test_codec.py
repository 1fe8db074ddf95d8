"""Slin or G.711: told by the byte rate."""

import pytest

from mediad.media.codec import MAX_HELD_BYTES, CodecDetector


def decide(times_s: list[float], size: int) -> tuple[bool | None, int]:
    """Add messages until the codec is told; return it and how many there were."""
    detector = CodecDetector()
    for index, now in enumerate(times_s):
        is_slin = detector.add(bytes(size), now)
        if is_slin is not None:
            assert detector.take_held() == [bytes(size)] * (index + 1)
            assert detector.take_held() == []
            return is_slin, index + 1
    return None, len(times_s)


def every(ms: float, start: float = 0.0, count: int = 60) -> list[float]:
    """Return the times of messages that come evenly."""
    return [start + index * ms / 1000 for index in range(count)]


@pytest.mark.parametrize("ms", [10, 20, 30, 40, 60])
def test_the_byte_rate_tells_whatever_the_length(ms: int) -> None:
    for bytes_per_ms, is_slin in ((8, False), (16, True)):
        told, count = decide(every(ms), ms * bytes_per_ms)
        assert told is is_slin
        assert 0.2 <= (count - 1) * ms / 1000 < 0.2 + ms / 1000 + 1e-9


def test_jitter_does_not_change_the_answer() -> None:
    times = [now + (0.009 if index % 3 else 0.0) for index, now in enumerate(every(20))]
    assert decide(times, 160)[0] is False
    assert decide(times, 320)[0] is True


def test_a_hole_begins_the_window_anew() -> None:
    times = every(20, count=8) + every(20, start=0.145 + 0.14, count=20)
    assert decide(times, 320) == (True, 8 + 11)


@pytest.mark.parametrize("size", [160, 320])
def test_a_burst_after_a_hole_has_no_pace_and_does_not_count(size: int) -> None:
    times = every(20, count=4) + [0.2] * 6 + every(20, start=0.22, count=40)
    assert decide(times, size) == (size == 320, 4 + 6 + 10)


@pytest.mark.parametrize("size", [160, 320])
@pytest.mark.parametrize("backlog", [1, 5, 9, 20])
def test_a_backlog_at_the_start_does_not_count(size: int, backlog: int) -> None:
    times = [0.0] * backlog + every(20, start=0.02)
    told, count = decide(times, size)
    assert told is (size == 320)
    assert count <= backlog + 11


def test_a_burst_within_the_window_is_in_doubt_and_waited_out() -> None:
    times = every(20, count=4) + [0.07] * 5 + every(20, start=0.08, count=40)
    is_slin, count = decide(times, 160)
    assert is_slin is False
    assert count > 4 + 5 + 7


@pytest.mark.parametrize("size", [160, 320])
def test_a_caller_who_sends_now_and_then_is_judged_after_a_second(size: int) -> None:
    words = [every(20, start=at, count=6) for at in (0.0, 0.3, 0.6, 0.9, 1.2)]
    told, count = decide([now for word in words for now in word], size)
    assert told is (size == 320)
    assert count == 3 * 6 + 6


def test_long_messages_are_no_holes() -> None:
    assert decide(every(120), 960) == (False, 3)


def test_a_second_decides_even_in_doubt() -> None:
    assert decide(every(20, count=100), 240) == (False, 51)  # exactly in the middle


def test_all_at_once_is_slin() -> None:
    told, held = decide([0.0] * 100, 320)
    assert told is True
    assert held == MAX_HELD_BYTES // 320


def test_nothing_is_told_of_one_message() -> None:
    assert CodecDetector().add(bytes(320), 5.0) is None
