"""One call's line, the specification and the compiled one."""

from collections.abc import Callable

import numpy as np
import pytest

from mediad.line import Line
from mediad.media import g711
from mediad.media.codec import MAX_HELD_BYTES
from mediad.media.playout import MAX_MARKS, Drained, MarkReached, Started
from mediad.wire import frames
from mediad.wire.audiosocket import (
    HANGUP,
    HEADER,
    CallUuid,
    Digit,
    HangUp,
    Kind,
    PeerError,
    Violation,
    audio_message,
    digit_message,
)
from mediad.wire.frames import BadFrame, Interruption, Json, Text, Transcription
from tests.unit.line.lines import (
    CALL,
    UUID_MESSAGE,
    Samples,
    agent_message,
    caller_messages,
    downlink,
    line_at,
    new_line,
    new_room,
    noise,
    pcm_of_frame,
    pcm_of_message,
    tone,
    uplink,
)

ENCODE: dict[str, Callable[[bytes], bytes]] = {
    "slin": bytes,
    "ulaw": g711.encode_ulaw,
    "alaw": g711.encode_alaw,
}
SILENT_20_MS = audio_message(Kind.SLIN, bytes(320))


# From the caller to the agent


def test_the_uuid_comes_first(core: type[Line]) -> None:
    line = core("slin", "ulaw", 60.0)
    assert line.receive_caller(UUID_MESSAGE, 0.0) == [CallUuid(CALL)]


def test_20_ms_of_slin_become_a_frame_of_651_bytes(core: type[Line]) -> None:
    items = new_line(core).receive_caller(SILENT_20_MS, 0.02)
    assert items == [frames.encode_audio(bytes(640), 16_000)]
    assert isinstance(items[0], bytes)
    assert len(items[0]) == 651


def test_items_keep_the_order_of_the_bytes(core: type[Line]) -> None:
    line = new_line(core)
    items = line.receive_caller(digit_message("1") + SILENT_20_MS + digit_message("d"), 0.0)
    assert items[0] == Digit("1")
    assert len(pcm_of_frame(items[1])) == 320
    assert items[2] == Digit("D")


def test_nothing_is_read_after_a_hang_up(core: type[Line]) -> None:
    line = new_line(core)
    items = line.receive_caller(HANGUP[:1] + SILENT_20_MS, 0.0)
    assert items == [HangUp()]
    assert isinstance(items[0], HangUp)
    assert line.receive_caller(SILENT_20_MS, 0.0) == []
    assert line.counters().caller_messages == 0


def test_nothing_is_read_after_a_peers_error(core: type[Line]) -> None:
    line = new_line(core)
    message = HEADER.pack(Kind.ERROR, 1) + b"\x02" + SILENT_20_MS
    assert line.receive_caller(message, 0.0) == [PeerError(b"\x02")]
    assert line.receive_caller(SILENT_20_MS, 0.0) == []


@pytest.mark.parametrize(
    ("data", "violation"),
    [
        (b"\x02", Violation("unknown_kind", "unknown message kind 0x02")),
        (UUID_MESSAGE, Violation("second_uuid", "a second UUID on one connection")),
        (b"\x03\x00\x02", Violation("bad_length", "kind 0x03 with 2 bytes")),
        (b"\x10\xff\xff", Violation("bad_length", "kind 0x10 with 65535 bytes")),
        (b"\x12\x00\x9f", Violation("bad_length", "kind 0x12 with 159 bytes")),
        (b"\x03\x00\x01!", Violation("bad_digit", "DTMF digit b'!'")),
        (
            audio_message(Kind.SLIN16, bytes(641)),
            Violation("bad_length", "kind 0x12: 641 bytes of slin"),
        ),
    ],
)
def test_garbage_is_the_last_item(core: type[Line], data: bytes, violation: Violation) -> None:
    line = new_line(core)
    items = line.receive_caller(SILENT_20_MS + data + SILENT_20_MS, 0.0)
    assert len(items) == 2
    assert items[1] == violation
    assert line.receive_caller(SILENT_20_MS, 0.0) == []


def test_audio_before_the_uuid_is_garbage(core: type[Line]) -> None:
    items = core("slin", "ulaw", 60.0).receive_caller(SILENT_20_MS, 0.0)
    assert items == [Violation("no_uuid", "message kind 0x10 before the call's UUID")]


@pytest.mark.parametrize("law", ["ulaw", "alaw"])
def test_g711_is_expanded(core: type[Line], law: str) -> None:
    decode = {"ulaw": g711.decode_ulaw, "alaw": g711.decode_alaw}[law]
    coded = ENCODE[law](tone(440, 8000, 0.2).tobytes())
    messages = [audio_message(Kind.SLIN, coded[at : at + 160]) for at in range(0, 1600, 160)]
    heard = uplink(new_line(core, codec=law), messages)
    plain = caller_messages(np.frombuffer(decode(coded), "<i2"))
    assert np.array_equal(heard, uplink(new_line(core), plain))


@pytest.mark.parametrize("law", ["slin", "ulaw", "alaw"])
@pytest.mark.parametrize("ms", [10, 20, 30, 40, 60])
def test_auto_finds_the_codec_and_loses_nothing(core: type[Line], law: str, ms: int) -> None:
    pcm = tone(440, 8000, 0.6).tobytes()
    encode = ENCODE[law]
    size = ms * (16 if law == "slin" else 8)
    data = encode(pcm)
    auto = core("auto", "alaw" if law == "alaw" else "ulaw", 60.0)
    known = new_line(core, codec=law)
    auto.receive_caller(UUID_MESSAGE, 0.0)
    heard: list[bytes] = []
    expected: list[bytes] = []
    for index in range(len(data) // size):
        message = audio_message(Kind.SLIN, data[index * size : (index + 1) * size])
        now = index * ms / 1000
        items = auto.receive_caller(message, now)
        heard += [item for item in items if isinstance(item, bytes)]
        expected += [i for i in known.receive_caller(message, now) if isinstance(i, bytes)]
        assert not items or now > 0.199
    assert heard == expected


def test_auto_decides_when_a_second_is_held(core: type[Line]) -> None:
    line = new_line(core, codec="auto")
    held = MAX_HELD_BYTES // 320
    assert line.receive_caller(SILENT_20_MS * (held - 1), 0.0) == []
    assert len(line.receive_caller(SILENT_20_MS, 0.0)) == held


def test_an_odd_message_among_the_held_ones_is_the_last_item(core: type[Line]) -> None:
    line = new_line(core, codec="auto")
    line.receive_caller(SILENT_20_MS, 0.0)
    line.receive_caller(audio_message(Kind.SLIN, bytes(321)), 0.02)
    items = []
    for index in range(2, 20):
        items += line.receive_caller(SILENT_20_MS, index * 0.02)
    assert len(items) == 2
    assert items[1] == Violation("bad_length", "kind 0x10: 321 bytes of slin")


def test_slin16_passes_untouched(core: type[Line]) -> None:
    samples = noise(1, 3200)
    heard = uplink(new_line(core), caller_messages(samples, Kind.SLIN16))
    assert np.array_equal(heard, samples)


def test_the_kind_may_change_within_a_call(core: type[Line]) -> None:
    line = new_line(core)
    sizes = []
    for kind in (Kind.SLIN, Kind.SLIN48, Kind.SLIN16, Kind.SLIN):
        for message in caller_messages(noise(kind, 2880), kind)[:1]:
            sizes += [len(pcm_of_frame(item)) for item in line.receive_caller(message, 0.0)]
    assert sizes == [320] * 4


def test_silence_fills_a_hole_from_60_ms_on_one_frame_a_tick(core: type[Line]) -> None:
    line = new_line(core)
    line.receive_caller(SILENT_20_MS, 1.0)
    fills = [line.tick(1.0 + index * 0.02).to_agent for index in range(6)]
    assert [fill is not None for fill in fills] == [False] * 3 + [True] * 3
    assert fills[3] == frames.encode_audio(bytes(640), 16_000)
    counters = line.counters()
    assert (counters.agent_frames_sent, counters.agent_fill_frames) == (4, 3)


def test_silence_fills_also_before_the_first_audio(core: type[Line]) -> None:
    line = new_line(core)
    assert line.tick(0.05).to_agent is None
    assert line.tick(0.07).to_agent is not None


def test_no_silence_before_the_uuid(core: type[Line]) -> None:
    assert core("slin", "ulaw", 60.0).tick(9.0).to_agent is None


def test_long_messages_get_no_silence_in_between(core: type[Line]) -> None:
    line = new_line(core)
    line.receive_caller(audio_message(Kind.SLIN, bytes(960)), 1.0)
    assert line.tick(1.10).to_agent is None
    assert line.tick(1.12).to_agent is not None


@pytest.mark.parametrize("size", [960, 1920], ids=["ulaw", "slin"])
def test_long_messages_get_no_silence_in_between_while_auto_decides(
    core: type[Line], size: int
) -> None:
    line = new_line(core, codec="auto")
    for index in range(10):
        line.receive_caller(audio_message(Kind.SLIN, bytes(size)), index * 0.12)
        assert [line.tick(index * 0.12 + at).to_agent for at in (0.02, 0.06, 0.1)] == [None] * 3
    assert line.counters().agent_frames_sent == 10


def test_a_burst_after_a_hole_is_forwarded_at_once(core: type[Line]) -> None:
    line = new_line(core)
    line.receive_caller(SILENT_20_MS, 0.0)
    assert len(line.receive_caller(SILENT_20_MS * 7, 0.145)) == 7


# From the agent to the caller


def test_other_frames_come_back(core: type[Line]) -> None:
    line = new_line(core)
    assert line.receive_agent(frames.encode_text("hm", 3), 0.0) == Text(3, "hm")
    assert line.receive_agent(frames.encode_json("{}"), 0.0) == Json("{}")
    assert line.receive_agent(frames.encode_interruption(4), 0.0) == Interruption(4)
    said = frames.encode_transcription("yes", "caller", "now")
    assert line.receive_agent(said, 0.0) == Transcription("yes", "caller", "now")
    assert line.counters().bad_frames == 0


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"\xff", "undecodable"),
        (b"", "unknown_frame"),
        (agent_message(noise(1, 160), 8001), "sample_rate"),
        (agent_message(noise(1, 160), 0), "sample_rate"),
        (agent_message(noise(1, 160), 0, 0), "sample_rate"),
        (agent_message(noise(1, 160), 8000, 0), "num_channels"),
        (agent_message(noise(1, 160), 8000, 9), "num_channels"),
    ],
)
def test_what_cannot_be_played_is_counted(core: type[Line], message: bytes, reason: str) -> None:
    line = new_line(core)
    assert line.receive_agent(message, 0.0) == BadFrame(reason)
    assert line.counters().bad_frames == 1
    assert line.counters().agent_frames == 0
    assert line.held_ms == 0


def test_silence_when_there_is_nothing_to_say(core: type[Line]) -> None:
    tick = new_line(core).tick(0.02)
    assert tick == (SILENT_20_MS, None, [])


@pytest.mark.parametrize(
    ("kind", "size"), [(Kind.SLIN, 320), (Kind.SLIN16, 640), (Kind.SLIN44, 1764)]
)
def test_the_answer_is_of_the_callers_kind(core: type[Line], kind: Kind, size: int) -> None:
    line = new_line(core)
    line.receive_caller(caller_messages(noise(1, 882 * 3), kind)[0], 0.0)
    line.receive_agent(agent_message(noise(1, 1600)), 0.0)
    ticks = [line.tick(index * 0.02) for index in range(8)]
    assert all(HEADER.unpack_from(tick.to_caller) == (kind, size) for tick in ticks)
    assert line.counters().played_frames == 5


def test_the_answers_kind_is_fixed_once_the_agent_spoke(core: type[Line]) -> None:
    line = new_line(core)
    line.receive_agent(agent_message(noise(1, 1600)), 0.0)
    line.receive_caller(caller_messages(noise(1, 320), Kind.SLIN16)[0], 0.0)
    assert line.tick(0.02).to_caller[0] == Kind.SLIN


def test_marks_survive_the_first_audio_of_the_caller(core: type[Line]) -> None:
    line = new_line(core)
    assert line.mark("early")
    line.receive_caller(caller_messages(noise(1, 320), Kind.SLIN16)[0], 0.0)
    assert line.tick(0.02).events == [MarkReached("early")]


def test_five_seconds_sent_at_once_play_evenly(core: type[Line]) -> None:
    line = line_at(core, 16_000)
    samples = noise(1, 80_000)
    line.receive_agent(agent_message(samples), 1.0)
    assert line.held_ms == 5000
    played = [line.tick(1.0 + index * 0.02).to_caller for index in range(254)]
    heard = np.concatenate([pcm_of_message(message) for message in played])
    start = 320  # the pre-buffer: 20 ms old, more than 40 ms held
    assert np.array_equal(heard[start : start + len(samples)], samples)
    assert not heard[:start].any()
    assert not heard[start + len(samples) :].any()
    assert line.counters().played_frames == 250
    assert line.counters().underruns == 0


@pytest.mark.parametrize("rate_hz", [8000, 16_000, 22_050, 24_000, 44_100, 48_000])
def test_the_agents_chunks_do_not_change_the_sound(core: type[Line], rate_hz: int) -> None:
    samples = noise(2, rate_hz // 2)
    pcm = samples.tobytes()
    whole, pieces = line_at(core, 8000), line_at(core, 8000)
    whole.receive_agent(agent_message(samples, rate_hz), 1.0)
    at = 0
    for size in np.random.default_rng(3).integers(1, 2500, 1000):
        pieces.receive_agent(frames.encode_audio(pcm[at : at + int(size)], rate_hz), 1.0)
        at += int(size)
    assert at > len(pcm)
    assert pieces.counters().agent_bytes == whole.counters().agent_bytes == len(pcm)
    heard = downlink(pieces)
    assert np.array_equal(heard, downlink(whole))
    assert len(heard) == 4000


@pytest.mark.parametrize("num_channels", [2, 3, 8])
def test_channels_are_mixed_to_one(core: type[Line], num_channels: int) -> None:
    line = line_at(core, 16_000)
    channels = noise(4, 640 * num_channels).reshape(-1, num_channels)
    pcm = channels.tobytes()
    for at in range(0, len(pcm), 101):  # cuts samples and channels apart
        line.receive_agent(frames.encode_audio(pcm[at : at + 101], 16_000, num_channels), 1.0)
    assert np.array_equal(downlink(line), channels.sum(axis=1, dtype=int) // num_channels)


def test_a_riff_header_is_taken_off_every_message(core: type[Line]) -> None:
    line = line_at(core, 16_000)
    samples = noise(5, 1280)
    header = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0" + bytes(16) + b"data\0\0\0\0"
    for part in np.split(samples, 4):
        line.receive_agent(frames.encode_audio(header + part.tobytes(), 16_000), 1.0)
    assert np.array_equal(downlink(line), samples)
    assert line.counters().agent_bytes == 2560


def test_a_new_format_begins_a_new_stream(core: type[Line]) -> None:
    line = line_at(core, 16_000)
    line.receive_agent(frames.encode_audio(b"\1", 16_000), 1.0)
    line.receive_agent(agent_message(np.repeat(noise(6, 640), 2), 16_000, 2), 1.0)
    assert np.array_equal(downlink(line), noise(6, 640))


def test_protobuf_messages_of_unusual_form_are_played_too(core: type[Line]) -> None:
    line = line_at(core, 16_000)
    samples = noise(7, 640)
    line.receive_agent(agent_message(samples[:320]) + b"\x32\x00", 1.0)  # an unknown field
    line.receive_agent(agent_message(samples[320:]), 1.0)
    assert np.array_equal(downlink(line), samples)


def test_a_full_playout_refuses_the_newest(core: type[Line]) -> None:
    line = new_line(core, playout_max_s=0.1)
    line.receive_caller(audio_message(Kind.SLIN16, bytes(640)), 0.0)
    samples = noise(8, 3200)
    line.receive_agent(agent_message(samples), 1.0)
    assert line.held_ms == 100
    assert line.counters().refused_bytes == 3200
    assert np.array_equal(downlink(line), samples[:1600])


def test_lines_refuse_what_is_beyond_their_common_room(core: type[Line]) -> None:
    room = new_room(core, 8001)
    one, other = (new_line(core, playout_room=room) for _ in range(2))
    samples = noise(9, 3200)
    for line in (one, other):
        line.receive_caller(audio_message(Kind.SLIN16, bytes(640)), 0.0)
        line.receive_agent(agent_message(samples), 1.0)
    assert (one.held_ms, other.held_ms) == (200, 50)
    assert (one.counters().refused_bytes, other.counters().refused_bytes) == (0, 4800)
    assert room.held_bytes == room.max_bytes == 8000  # no half of a sample
    assert np.array_equal(downlink(other)[:800], samples[:800])
    assert room.held_bytes == 6400


def test_room_is_given_back_by_playing_flushing_and_ending(core: type[Line]) -> None:
    room = new_room(core, 100_000)
    played, flushed, ended = (new_line(core, playout_room=room) for _ in range(3))
    for line in (played, flushed, ended):
        line.receive_agent(agent_message(noise(10, 3201)), 1.0)
    held = room.held_bytes
    assert held > 9_000
    downlink(played)
    assert room.held_bytes == held // 3 * 2
    flushed.flush()
    assert room.held_bytes == held // 3
    del ended, line
    assert room.held_bytes == 0


def test_a_flush_leaves_not_one_stale_byte(core: type[Line]) -> None:
    line, fresh = line_at(core, 8000), line_at(core, 8000)
    line.receive_agent(frames.encode_audio(noise(9, 8000).tobytes() + b"\1", 24_000), 1.0)
    for index in range(5):
        line.tick(1.0 + index * 0.02)
    held = line.held_ms
    assert held > 200
    assert line.flush() == held
    assert line.held_ms == 0
    assert line.tick(1.1).to_caller == SILENT_20_MS
    after = agent_message(noise(10, 4800), 24_000)
    line.receive_agent(after, 1.12)
    fresh.receive_agent(after, 1.12)
    assert np.array_equal(downlink(line, 1.12), downlink(fresh, 1.12))
    assert line.counters().flushed_bytes // 16 == held


def test_a_flush_drops_marks(core: type[Line]) -> None:
    line = new_line(core)
    line.receive_agent(agent_message(noise(1, 1600)), 0.0)
    line.mark("never")
    line.flush()
    assert [line.tick(index * 0.02).events for index in range(9)] == [[]] * 9


def test_an_utterance_starts_reaches_its_mark_and_drains(core: type[Line]) -> None:
    line = new_line(core)
    line.receive_agent(agent_message(noise(1, 640)), 0.0)
    line.mark("end")
    events = [line.tick(index * 0.02).events for index in range(6)]
    assert events == [[], [Started()], [], [MarkReached("end"), Drained()], [], []]
    assert [type(event) for event in events[1] + events[3]] == [Started, MarkReached, Drained]


def test_64_marks_may_wait(core: type[Line]) -> None:
    line = new_line(core)
    line.receive_agent(agent_message(noise(1, 640)), 0.0)
    assert all(line.mark(str(index)) for index in range(MAX_MARKS))
    assert not line.mark("one too many")


def test_an_underrun_is_counted_with_its_silence(core: type[Line]) -> None:
    line = new_line(core)
    line.receive_agent(agent_message(noise(1, 640)), 0.0)
    now = 0.0
    for _ in range(6):
        line.tick(now)
        now += 0.02
    line.receive_agent(agent_message(noise(2, 640)), now)
    for _ in range(3):
        line.tick(now)
        now += 0.02
    counters = line.counters()
    assert (counters.underruns, counters.underrun_frames) == (1, 4)
    assert counters.played_frames == 4


def test_counters_tell_what_went_through(core: type[Line]) -> None:
    line = new_line(core)
    line.receive_caller(SILENT_20_MS * 3, 0.0)
    line.receive_agent(agent_message(noise(1, 320)), 0.0)
    line.tick(0.0)
    counters = line.counters()
    assert counters.caller_messages == 3
    assert counters.caller_bytes == 960
    assert counters.agent_frames_sent == 3
    assert counters.agent_frames == 1
    assert counters.agent_bytes == 640
    assert (counters.played_frames, counters.silent_frames) == (0, 1)


# Holding the agent's speech


def with_gap(gap_frame: int, frames: int) -> Samples:
    """Return noise at 16 kHz with one frame of silence."""
    samples = noise(11, 320 * frames)
    samples[320 * gap_frame : 320 * (gap_frame + 1)] = 0
    return samples


def test_a_hold_is_silence_and_nothing_is_lost(core: type[Line]) -> None:
    line = line_at(core, 16_000)
    samples = noise(12, 3200)
    line.receive_agent(agent_message(samples[:1600]), 1.0)
    first = [line.tick(1.0 + index * 0.02) for index in range(3)]
    line.hold()
    line.receive_agent(agent_message(samples[1600:]), 1.06)
    held = [line.tick(1.06 + index * 0.02) for index in range(20)]
    assert not any(pcm_of_message(tick.to_caller).any() for tick in held)
    assert not any(tick.events for tick in held)
    assert line.resume(False) == 0
    played = np.concatenate([pcm_of_message(tick.to_caller) for tick in first[1:]])
    assert np.array_equal(np.concatenate((played, downlink(line, 1.46))), samples)
    assert line.counters().underruns == 0


def line_place(samples: Samples, heard: Samples) -> int:
    """Return where in the samples the end of what was heard lies, less its length."""
    tail = heard[960:1280]
    for at in range(len(samples) - len(tail) + 1):
        if np.array_equal(samples[at : at + len(tail)], tail):
            return at - 960
    raise AssertionError("it was never said")


@pytest.mark.parametrize("frames_before", [4, 10, 40])
def test_held_speech_goes_on_from_the_gap_before(core: type[Line], frames_before: int) -> None:
    line = line_at(core, 16_000)
    line.keep_played()
    samples = with_gap(frames_before - 3, frames_before + 5)
    line.receive_agent(agent_message(samples), 1.0)
    for index in range(frames_before + 1):
        line.tick(1.0 + index * 0.02)
    line.hold()
    line.tick(2.0)
    line.receive_agent(agent_message(noise(13, 32_000)), 2.0)  # moves what the queue holds
    repeated_ms = line.resume(True)
    assert 40 < repeated_ms <= 60
    assert line.played_s == pytest.approx(frames_before * 0.02 - repeated_ms / 1000, abs=0.001)
    heard = downlink(line, 2.02)[: 5 * 320]
    start = line_place(samples, heard)
    assert np.array_equal(heard, samples[start : start + len(heard)])
    assert 320 * (frames_before - 3) <= start < 320 * (frames_before - 2)


def test_without_keeping_nothing_is_repeated(core: type[Line]) -> None:
    line = line_at(core, 16_000)
    line.receive_agent(agent_message(with_gap(3, 20)), 1.0)
    for index in range(6):
        line.tick(1.0 + index * 0.02)
    line.hold()
    assert line.resume(True) == 0


def test_a_flush_ends_a_hold_and_forgets_what_was_kept(core: type[Line]) -> None:
    line = line_at(core, 16_000)
    line.keep_played()
    line.receive_agent(agent_message(with_gap(3, 20)), 1.0)
    for index in range(6):
        line.tick(1.0 + index * 0.02)
    line.hold()
    line.flush()
    line.receive_agent(agent_message(noise(14, 640)), 1.2)
    assert np.array_equal(downlink(line, 1.2), noise(14, 640))
    assert line.resume(True) == 0


def test_it_is_known_what_the_line_plays(core: type[Line]) -> None:
    line = new_line(core)
    assert line.playout_rate_hz == 8000
    assert line_at(core, 48_000).playout_rate_hz == 48_000
    line.receive_agent(agent_message(noise(15, 480), 24_000), 1.0)
    line.receive_caller(audio_message(Kind.SLIN16, bytes(640)), 1.0)
    assert line.playout_rate_hz == 8000  # it does not change within what is heard


def test_places_are_in_seconds_of_audio(core: type[Line]) -> None:
    line = line_at(core, 8000)
    assert (line.queued_s, line.played_s) == (0.0, 0.0)
    line.receive_agent(agent_message(noise(15, 24_000), 24_000), 1.0)
    for index in range(11):
        line.tick(1.0 + index * 0.02)
    assert line.queued_s == pytest.approx(1.0, abs=0.002)
    assert line.played_s == 0.2
    line.flush()
    assert line.played_s == line.queued_s


def test_keeping_leaves_room_as_it_is(core: type[Line]) -> None:
    room = new_room(core, 100_000)
    line = new_line(core, playout_room=room)
    line.keep_played()
    line.receive_agent(agent_message(noise(16, 32_000)), 1.0)
    for index in range(30):
        line.tick(1.0 + index * 0.02)
    held = room.held_bytes
    line.hold()
    repeated = line.resume(True)
    assert room.held_bytes - held == pytest.approx(16 * repeated, abs=16)
    downlink(line, 2.0)
    assert room.held_bytes == 0
