"""The caller's pure parts: what it sends and when, what it makes of what it hears."""

import math
from struct import pack
from uuid import UUID

import numpy as np
import pytest

from mediad.call_command import problem_of, summary
from mediad.caller import CODECS, PTIMES_MS, End, Track, Voice
from mediad.caller.figures import Figures, Turn, gaps_of, measure, percentile, turns_of
from mediad.caller.replies import Garbage, Hangup, ReplyParser, SlinAudio
from mediad.caller.track import Span, level_dbfs
from mediad.caller.voice import Pacer, Sending, parse_digits, resample
from mediad.media.g711 import decode_alaw, decode_ulaw


def tone(rate_hz: int, duration_s: float, frequency_hz: float = 1000.0) -> bytes:
    """A sine of -9 dBFS, s16le."""
    time = np.arange(round(rate_hz * duration_s)) / rate_hz
    return (16000 * np.sin(2 * np.pi * frequency_hz * time)).astype("<i2").tobytes()


class TestPacer:
    def test_nothing_is_due_before_the_first_ptime_is_over(self) -> None:
        pacer = Pacer(100.0, 0.02)
        assert pacer.take(100.015) == 0
        assert pacer.delay(100.015) == pytest.approx(0.005)

    def test_late_wake_up_does_not_move_later_messages(self) -> None:
        pacer = Pacer(100.0, 0.02)
        assert pacer.take(100.035) == 1  # 15 ms late
        assert pacer.delay(100.035) == pytest.approx(0.005)
        assert pacer.take(100.040) == 1

    def test_what_was_missed_in_a_stall_is_due_at_once(self) -> None:
        pacer = Pacer(100.0, 0.02)
        assert pacer.take(100.5) == 25
        assert pacer.take(100.5) == 0

    def test_it_starts_over_after_a_second(self) -> None:
        pacer = Pacer(100.0, 0.02)
        assert pacer.take(105.0) == 1
        assert pacer.delay(105.0) == pytest.approx(0.02)

    def test_an_hour_of_uneven_wake_ups_loses_nothing(self) -> None:
        pacer = Pacer(0.0, 0.02)
        steps = np.random.default_rng(1).uniform(0.0, 0.05, 144_000).cumsum()
        assert sum(pacer.take(now) for now in steps) == pytest.approx(steps[-1] / 0.02, abs=1)


class TestVoice:
    @pytest.mark.parametrize(
        ("codec", "kind", "size_bytes"),
        [
            ("slin", 0x10, 320),
            ("ulaw", 0x10, 160),
            ("alaw", 0x10, 160),
            ("slin12", 0x11, 480),
            ("slin16", 0x12, 640),
            ("slin24", 0x13, 960),
            ("slin32", 0x14, 1280),
            ("slin44", 0x15, 1764),
            ("slin48", 0x16, 1920),
            ("slin96", 0x17, 3840),
            ("slin192", 0x18, 7680),
        ],
    )
    def test_each_codec_has_asterisks_kind_and_size(
        self, codec: str, kind: int, size_bytes: int
    ) -> None:
        pcm = Voice(CODECS[codec]).next().pcm
        assert pcm is not None
        assert CODECS[codec].message(pcm)[:3] == pack("!BH", kind, size_bytes)

    @pytest.mark.parametrize("ptime_ms", PTIMES_MS)
    @pytest.mark.parametrize(("codec", "bytes_per_ms"), [("slin", 16), ("ulaw", 8), ("alaw", 8)])
    def test_each_ptime_has_its_size(self, codec: str, ptime_ms: int, bytes_per_ms: int) -> None:
        pcm = Voice(CODECS[codec], ptime_ms).next().pcm
        assert pcm is not None
        assert len(CODECS[codec].message(pcm)) == 3 + ptime_ms * bytes_per_ms

    def test_another_ptime_is_refused(self) -> None:
        with pytest.raises(ValueError, match="25 ms"):
            Voice(CODECS["slin"], 25)

    def test_words_are_cut_into_frames_and_end_in_silence(self) -> None:
        voice = Voice(CODECS["slin"])
        words = bytes(range(1, 251)) * 2
        voice.say(words, 8000)
        assert voice.busy
        sent = [voice.next().pcm for _ in range(3)]
        assert b"".join(pcm or b"" for pcm in sent) == words.ljust(960, b"\0")
        assert not voice.busy

    @pytest.mark.parametrize(("codec", "decode"), [("ulaw", decode_ulaw), ("alaw", decode_alaw)])
    def test_g711_is_sent_encoded(self, codec: str, decode: type[bytes]) -> None:
        voice = Voice(CODECS[codec])
        voice.say(tone(8000, 0.02), 8000)
        pcm = voice.next().pcm
        assert pcm is not None
        heard = np.frombuffer(decode(CODECS[codec].message(pcm)[3:]), "<i2").astype(int)
        assert abs(heard - np.frombuffer(tone(8000, 0.02), "<i2")).max() < 600

    def test_nothing_is_sent_while_muted_and_the_words_wait(self) -> None:
        voice = Voice(CODECS["slin"])
        voice.say(tone(8000, 0.02), 8000)
        voice.muted = True
        assert voice.next() == Sending(None, "")
        voice.muted = False
        assert voice.next() == Sending(tone(8000, 0.02), "")

    def test_digits_come_in_order_with_a_hole_before_each(self) -> None:
        voice = Voice(CODECS["slin"])
        voice.press("1w2", hole_s=0.145)
        sendings = [voice.next() for _ in range(51)]
        assert not voice.busy
        digits = [(n, sending.digit) for n, sending in enumerate(sendings) if sending.digit]
        assert digits == [(7, "1"), (7 + 5 + 25 + 8, "2")]
        holes = [n for n, sending in enumerate(sendings) if sending.pcm is None]
        assert holes == [*range(7), *range(38, 45)]

    @pytest.mark.parametrize(("typed", "parsed"), [("", ""), ("1w2#", "1w2#"), ("aW*", "Aw*")])
    def test_digits_are_read(self, typed: str, parsed: str) -> None:
        assert parse_digits(typed) == parsed

    def test_what_is_no_digit_is_named(self) -> None:
        with pytest.raises(ValueError, match="'X' is no DTMF digit"):
            parse_digits("1x")


class TestResample:
    @pytest.mark.parametrize("source_hz", [8000, 11025, 16000, 22050, 37800, 44100, 48000, 88200])
    @pytest.mark.parametrize("target_hz", [8000, 16000, 48000])
    def test_a_tone_keeps_its_pitch_and_level(self, source_hz: int, target_hz: int) -> None:
        pcm = resample(tone(source_hz, 0.5), source_hz, target_hz)
        samples = np.frombuffer(pcm, "<i2")
        assert len(samples) == round(round(source_hz * 0.5) * target_hz / source_hz)
        middle = samples[target_hz // 10 : -target_hz // 10].astype(float)
        expected = np.frombuffer(tone(target_hz, 1.0), "<i2").astype(float)
        expected = expected[target_hz // 10 :][: len(middle)]
        noise = np.sum((middle - expected) ** 2) / np.sum(expected**2)
        assert noise < 1e-6

    def test_nothing_stays_nothing(self) -> None:
        assert resample(b"", 22050, 8000) == b""


class TestReplyParser:
    STREAM = b"\x10\x00\x04abcd" + b"\x12\x00\x02xy" + b"\x00\x00\x00" + b"never read"
    REPLIES = (SlinAudio(8000, b"abcd"), SlinAudio(16000, b"xy"), Hangup())

    def test_messages_split_at_any_byte(self) -> None:
        for size in range(len(self.STREAM)):
            parser = ReplyParser()
            replies = parser.receive_data(self.STREAM[:size])
            replies += parser.receive_data(self.STREAM[size:])
            assert tuple(replies) == self.REPLIES

    def test_it_knows_of_an_unfinished_message(self) -> None:
        parser = ReplyParser()
        parser.receive_data(b"\x10\x00\x04ab")
        assert parser.unfinished
        parser.receive_data(b"cd")
        assert not parser.unfinished

    @pytest.mark.parametrize(
        "data",
        [b"\x01\x00\x10", b"\x02\x00\x00", b"\x03\x00\x015", b"\xff\x00\x01", b"HTTP/1.1"],
    )
    def test_what_ends_a_call_on_asterisk_is_garbage(self, data: bytes) -> None:
        (reply,) = ReplyParser().receive_data(data)
        assert isinstance(reply, Garbage)
        assert f"0x{data[0]:02x}" in reply.detail

    @pytest.mark.parametrize("length", [0, 321])
    def test_audio_of_no_or_half_samples_is_garbage(self, length: int) -> None:
        (reply,) = ReplyParser().receive_data(pack("!BH", 0x10, length))
        assert reply == Garbage(f"an audio message of {length} bytes")

    def test_nothing_is_read_after_garbage(self) -> None:
        parser = ReplyParser()
        parser.receive_data(b"\xfe")
        assert parser.receive_data(b"\x10\x00\x02xy") == []


SILENCE = bytes(320)
SOUND = tone(8000, 0.02)


def track(plan: str, start: float = 0.0) -> Track:
    """A track of 20 ms a character: ``#`` sound, ``-`` silence, a blank sends nothing."""
    made = Track(8000)
    for n, frame in enumerate(plan):
        if frame != " ":
            made.add(start + n * 0.02, SOUND if frame == "#" else SILENCE)
    return made


class TestTrack:
    def test_level_of_silence_and_of_a_full_square_wave(self) -> None:
        assert level_dbfs(SILENCE) == -math.inf
        assert level_dbfs(pack("<h", -32768) * 160) == pytest.approx(0.0)

    def test_a_short_silence_is_a_pause_and_a_long_one_ends_the_span(self) -> None:
        heard = track("--###" + "-" * 12 + "##" + "-" * 13 + "#")
        assert [pytest.approx(span) for span in heard.spans] == [(0.04, 0.38), (0.64, 0.66)]
        assert heard.audible_s == pytest.approx(0.12)

    def test_span_after_a_moment_is_the_next_to_begin(self) -> None:
        heard = track("#" + "-" * 30 + "#")
        assert heard.span_after(0.0) == Span(0.0, 0.02)
        assert heard.span_after(0.01) == pytest.approx((0.62, 0.64))
        assert heard.span_after(0.63) is None

    def test_audio_is_laid_where_it_was_heard(self) -> None:
        laid = track("     ##       #", start=10.0).aligned(9.9)
        expected = [SILENCE] * 10 + [SOUND] * 2 + [SILENCE] * 7 + [SOUND]
        assert laid == b"".join(expected)

    def test_jitter_does_not_tear_the_audio(self) -> None:
        heard = Track(8000)
        for n in range(50):
            heard.add(n * 0.02 + (0.03 if n % 7 == 3 else 0.0), SOUND)
        assert heard.aligned(0.0) == SOUND * 50

    def test_gaps_of_no_message_are_none(self) -> None:
        assert Track(8000).gaps_s() == []
        assert track("## #").gaps_s() == pytest.approx([0.02, 0.04])


def figures_of(sent: str, heard: str, end: End | None = None) -> Figures:
    """The figures of a call whose time zero is 0."""
    return measure(
        started_at=0.0,
        connect_s=0.001,
        sent=track(sent),
        heard=track(heard),
        end=end or End("caller", "closed", len(heard) * 0.02),
    )


class TestFigures:
    def test_percentiles_are_of_the_values_themselves(self) -> None:
        values = [float(n) for n in range(1, 101)]
        assert [percentile(values, share) for share in (0.0, 0.5, 0.95, 0.99, 1.0)] == [
            1,
            50,
            95,
            99,
            100,
        ]
        assert percentile([7.0], 0.99) == 7

    def test_gaps_are_given_in_ms(self) -> None:
        gaps = gaps_of([0.02] * 98 + [0.05, 0.12])
        assert gaps is not None
        assert (gaps.p50_ms, gaps.p95_ms, gaps.p99_ms, gaps.max_ms) == (20, 20, 50, 120)

    def test_first_message_and_first_sound_are_told_apart(self) -> None:
        figures = figures_of("", " -----###")
        assert figures.first_message_ms == 20
        assert figures.first_audible_ms == 120
        assert (figures.audible_s, figures.silent_s) == (0.06, 0.1)

    def test_a_silent_server_has_no_latencies(self) -> None:
        figures = figures_of("##", "")
        assert (figures.first_message_ms, figures.first_audible_ms, figures.gaps) == (None,) * 3
        assert figures.turns == [Turn(0.0, 0.04, None)]

    def test_response_counts_from_the_end_of_the_callers_speech(self) -> None:
        figures = figures_of("###" + "-" * 60, "-" * 28 + "###")
        assert figures.turns == [Turn(0.0, 0.06, 500.0)]

    def test_what_the_caller_talks_over_is_no_answer(self) -> None:
        sent, heard = track("-" * 10 + "#####" + "-" * 100), track("#" * 12 + "-" * 40 + "##")
        (turn,) = turns_of(sent, heard, 0.0)
        assert turn.response_ms == pytest.approx(740)

    def test_a_turn_without_an_answer_before_the_next_has_no_response(self) -> None:
        pause = "-" * 30
        sent, heard = track("##" + pause + "##" + pause), track("--" + pause + "--" + "--##")
        assert [turn.response_ms for turn in turns_of(sent, heard, 0.0)] == [None, 40.0]


class TestReport:
    def test_a_call_with_audio_has_no_problem(self) -> None:
        assert problem_of(figures_of("", "---")) is None

    @pytest.mark.parametrize(
        ("end", "words"),
        [
            (End("server", "hangup", 1.0), "refused the call"),
            (End("server", "eof", 1.0), "closed the connection without audio"),
            (End("network", "reset", 1.0), "closed the connection without audio"),
            (End("caller", "closed", 1.0), "sent no audio"),
            (End("server", "garbage", 1.0, "message kind 0x48"), "does not speak AudioSocket"),
        ],
    )
    def test_a_call_without_audio_says_what_to_do(self, end: End, words: str) -> None:
        assert words in (problem_of(figures_of("", "", end)) or "")

    def test_the_summary_names_every_figure(self) -> None:
        text = summary(UUID(int=1), figures_of("##" + "-" * 90, "-" * 27 + "##"))
        assert text.splitlines() == [
            "call 00000000-0000-0000-0000-000000000001: 0.6 s, closed by caller",
            "  connect             1.0 ms",
            "  first message       0.0 ms after the UUID",
            "  first audible       540.0 ms after the UUID",
            "  heard               0.0 s of sound, 0.5 s of silence in 29 messages",
            "  between messages    p50 20.0, p95 20.0, p99 20.0, max 20.0 ms",
            "  turn 1              spoke 0.0 to 0.0 s, answer after 500.0 ms",
        ]
