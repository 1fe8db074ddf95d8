"""The playout queue, which is the specification of the compiled one."""

from mediad.media.playout import (
    MAX_MARKS,
    Drained,
    MarkReached,
    Playout,
    PlayoutEvent,
    PlayoutRoom,
    Started,
)
from tests.unit.line.lines import noise

FRAME = 320  # 20 ms of 8 kHz


def ticks(
    playout: Playout, count: int, start: float
) -> tuple[list[bytes | None], list[list[type]]]:
    """Read every 20 ms; return the frames and the types of the events."""
    frames: list[bytes | None] = []
    events: list[list[type]] = []
    for index in range(count):
        frame, happened = playout.read(start + index * 0.02)
        frames.append(frame)
        events.append([type(event) for event in happened])
    return frames, events


def test_an_idle_playout_is_silent() -> None:
    assert ticks(Playout(8000, 1.0), 3, 0.0) == ([None] * 3, [[]] * 3)


def test_40_ms_start_after_20() -> None:
    playout = Playout(8000, 1.0)
    playout.write(b"\1" * 2 * FRAME, 0.0)
    frames, events = ticks(playout, 4, 0.0)
    assert frames == [None, b"\1" * FRAME, b"\1" * FRAME, None]
    assert events == [[], [Started], [], [Drained]]


def test_20_ms_wait_for_more_until_they_are_40_ms_old() -> None:
    playout = Playout(8000, 1.0)
    playout.write(b"\1" * FRAME, 0.0)
    assert ticks(playout, 4, 0.0)[0] == [None, None, b"\1" * FRAME, None]


def test_a_tick_may_come_a_little_early() -> None:
    playout = Playout(8000, 1.0)
    playout.write(b"\1" * 2 * FRAME, 0.0)
    assert playout.read(0.0185)[0] is None
    assert playout.read(0.0191)[0] is not None


def test_the_last_frame_is_padded_with_silence() -> None:
    playout = Playout(8000, 1.0)
    playout.write(b"\1" * 10, 0.0)
    assert ticks(playout, 3, 0.0)[0][2] == b"\1" * 10 + bytes(FRAME - 10)


def test_five_seconds_play_evenly_with_nothing_dropped_or_doubled() -> None:
    playout = Playout(8000, 60.0)
    pcm = noise(1, 40_000).tobytes()
    assert playout.write(pcm, 0.0) == 0
    frames, events = ticks(playout, 252, 0.0)
    assert frames[0] is None
    assert b"".join(frame for frame in frames[1:251] if frame) == pcm
    assert frames[251] is None
    assert [events[1], events[251]] == [[Started], [Drained]]


def test_audio_within_200_ms_of_running_dry_was_an_underrun() -> None:
    playout = Playout(8000, 1.0)
    playout.write(bytes(2 * FRAME), 0.0)
    ticks(playout, 5, 0.0)  # dry at 0.06
    playout.write(bytes(2 * FRAME), 0.09)
    assert playout.underruns == 1
    _, events = ticks(playout, 3, 0.10)
    assert events == [[], [], []]  # no new utterance
    assert playout.underrun_frames == 3


def test_later_audio_is_a_new_utterance() -> None:
    playout = Playout(8000, 1.0)
    playout.write(bytes(2 * FRAME), 0.0)
    ticks(playout, 5, 0.0)
    playout.write(bytes(2 * FRAME), 0.2601)
    assert playout.underruns == 0
    assert ticks(playout, 2, 0.27)[1] == [[], [Started]]


def test_audio_in_time_is_no_underrun() -> None:
    playout = Playout(8000, 1.0)
    playout.write(bytes(2 * FRAME), 0.0)
    ticks(playout, 3, 0.0)  # the queue is empty, and no frame is due yet
    playout.write(bytes(FRAME), 0.05)
    assert playout.read(0.06)[0] is not None
    assert playout.underruns == 0


def test_when_full_the_newest_is_refused() -> None:
    playout = Playout(8000, 0.1)
    assert playout.write(b"\1" * 1000, 0.0) == 0
    assert playout.write(b"\2" * 1000, 0.0) == 400
    assert playout.write(b"\3", 0.0) == 1
    assert playout.held_bytes == 1600
    frames, _ = ticks(playout, 6, 0.02)
    assert b"".join(frame for frame in frames if frame) == b"\1" * 1000 + b"\2" * 600


def test_nothing_written_starts_nothing() -> None:
    playout = Playout(8000, 1.0)
    playout.write(b"", 0.0)
    assert ticks(playout, 5, 0.0)[0] == [None] * 5


def test_marks_come_once_their_audio_was_played() -> None:
    playout = Playout(8000, 1.0)
    playout.mark("before")
    playout.write(bytes(FRAME), 0.0)
    playout.mark("middle")
    playout.write(bytes(FRAME), 0.0)
    playout.mark("end")
    seen: list[list[PlayoutEvent]] = [playout.read(index * 0.02)[1] for index in range(5)]
    assert seen[0] == [MarkReached("before")]
    assert seen[2] == [MarkReached("middle")]
    assert seen[3] == [MarkReached("end"), Drained()]


def test_at_most_64_marks_wait() -> None:
    playout = Playout(8000, 1.0)
    playout.write(bytes(FRAME), 0.0)
    assert [playout.mark("x") for _ in range(MAX_MARKS + 1)] == [True] * MAX_MARKS + [False]


def test_a_flush_drops_audio_and_marks() -> None:
    playout = Playout(8000, 1.0)
    playout.write(b"\1" * 3 * FRAME, 0.0)
    playout.mark("end")
    ticks(playout, 2, 0.0)
    assert playout.flush() == 2 * FRAME
    assert ticks(playout, 5, 0.04) == ([None] * 5, [[]] * 5)
    assert playout.flush() == 0


def test_after_a_flush_only_new_audio_is_heard_as_a_new_utterance() -> None:
    playout = Playout(8000, 1.0)
    playout.write(b"\1" * 3 * FRAME, 0.0)
    ticks(playout, 2, 0.0)
    playout.flush()
    playout.write(b"\2" * 2 * FRAME, 0.05)
    frames, events = ticks(playout, 4, 0.06)
    assert b"".join(frame for frame in frames if frame) == b"\2" * 2 * FRAME
    assert [Started] in events
    assert playout.underruns == 0


def test_a_flush_while_filling_forgets_the_audio() -> None:
    playout = Playout(8000, 1.0)
    playout.write(b"\1" * FRAME, 0.0)
    playout.flush()
    assert ticks(playout, 4, 0.0)[0] == [None] * 4


def test_the_rate_may_change_before_anything_is_queued() -> None:
    playout = Playout(8000, 0.1)
    playout.set_rate(16_000)
    assert playout.write(bytes(4000), 0.0) == 800
    assert len(playout.read(0.04)[0] or b"") == 640


def test_a_hold_is_silent_at_once_and_loses_nothing() -> None:
    playout = Playout(8000, 1.0)
    pcm = noise(1, 1600).tobytes()
    playout.write(pcm[:1920], 0.0)
    playout.mark("middle")
    before, _ = ticks(playout, 3, 0.0)
    playout.hold()
    playout.write(pcm[1920:], 0.06)
    assert ticks(playout, 30, 0.06) == ([None] * 30, [[]] * 30)
    assert playout.resume(repeat=False) == 0
    after, events = ticks(playout, 9, 0.66)
    assert b"".join(frame for frame in before + after if frame) == pcm
    assert events[4] == [MarkReached]
    assert events[8] == [Drained]
    assert playout.underruns == 0


def test_what_comes_during_a_hold_starts_after_it() -> None:
    playout = Playout(8000, 1.0)
    playout.hold()
    playout.write(bytes(2 * FRAME), 0.0)
    assert ticks(playout, 10, 0.0) == ([None] * 10, [[]] * 10)
    assert playout.resume(repeat=True) == 0
    assert ticks(playout, 1, 0.2) == ([bytes(FRAME)], [[Started]])


def test_marks_that_were_reached_are_told_during_a_hold() -> None:
    playout = Playout(8000, 1.0)
    playout.write(bytes(2 * FRAME), 0.0)
    playout.mark("end")
    ticks(playout, 3, 0.0)
    playout.hold()
    assert playout.read(0.06) == (None, [MarkReached("end")])


def test_a_flush_ends_a_hold() -> None:
    playout = Playout(8000, 1.0)
    playout.hold()
    playout.flush()
    playout.write(bytes(2 * FRAME), 0.0)
    assert playout.read(0.02)[0] is not None


def gap_at(frame: int, frames: int) -> bytes:
    """Return noise with one quiet frame."""
    pcm = bytearray(noise(2, frames * 160).tobytes())
    pcm[frame * FRAME : (frame + 1) * FRAME] = bytes(FRAME)
    return bytes(pcm)


def test_stopped_speech_goes_on_from_the_gap_before() -> None:
    playout = Playout(8000, 1.0)
    playout.keep_played()
    pcm = gap_at(6, 20)
    playout.write(pcm, 0.0)
    ticks(playout, 11, 0.0)  # ten frames are played
    playout.hold()
    ticks(playout, 5, 0.22)
    assert playout.played_s == 0.2
    back = playout.resume(repeat=True)
    assert 3 * FRAME < back <= 4 * FRAME
    assert playout.played_s == (10 * FRAME - back) / 16_000
    frames, _ = ticks(playout, 16, 0.32)
    assert b"".join(frame for frame in frames if frame).startswith(pcm[10 * FRAME - back :])


def test_nothing_is_repeated_that_was_not_kept() -> None:
    playout = Playout(8000, 1.0)
    playout.write(gap_at(6, 20), 0.0)
    ticks(playout, 11, 0.0)
    playout.hold()
    assert playout.resume(repeat=True) == 0


def test_of_the_utterance_before_nothing_is_repeated() -> None:
    playout = Playout(8000, 1.0)
    playout.keep_played()
    playout.write(gap_at(3, 5), 0.0)
    ticks(playout, 10, 0.0)
    playout.write(noise(3, 1600).tobytes(), 1.0)
    ticks(playout, 2, 1.0)
    playout.hold()
    assert playout.resume(repeat=True) <= FRAME


def test_what_is_repeated_must_find_room() -> None:
    room = PlayoutRoom(20 * FRAME)
    playout = Playout(8000, 1.0, room)
    playout.keep_played()
    playout.write(gap_at(6, 20), 0.0)
    ticks(playout, 11, 0.0)
    other = Playout(8000, 1.0, room)
    other.write(bytes(9 * FRAME), 0.0)
    playout.hold()
    assert playout.resume(repeat=True) == FRAME
    assert room.held_bytes == room.max_bytes


def test_places_count_what_was_queued_and_what_was_played() -> None:
    playout = Playout(8000, 1.0)
    assert (playout.queued_s, playout.played_s) == (0.0, 0.0)
    playout.write(bytes(5 * FRAME), 0.0)
    ticks(playout, 3, 0.0)
    assert (playout.queued_s, playout.played_s) == (0.1, 0.04)
    playout.flush()
    assert (playout.queued_s, playout.played_s) == (0.1, 0.1)
