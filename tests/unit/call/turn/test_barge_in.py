"""Barge-in as the caller hears it: gate, turn machine and line together, with real sound."""

import numpy as np
import pytest
from numpy.typing import NDArray

from mediad.call.turn.actions import (
    Action,
    CancelTurn,
    EndOfTurn,
    Generate,
    PausePlayout,
    ResumePlayout,
)
from mediad.call.turn.answer import Answer
from mediad.call.turn.heard import Heard
from mediad.call.turn.machine import State, Turns
from mediad.call.turn.options import TurnOptions
from mediad.call.turn.voice import Voice, VoiceStarted, VoiceStopped
from mediad.line import Line
from mediad.wire import frames
from tests.data.spoken import recordings
from tests.noises import RATE_HZ, cough, talk, to_pcm
from tests.unit.line.lines import compiled_line, line_at, pcm_of_message, python_line

TICK_S = 0.020
FRAME = RATE_HZ // 50
TEXT = "I would like to speak to someone, please."
WORDS = TEXT.split()
OPTIONS = TurnOptions(response_delay_s=0.0, grace_s=0.0)
Samples = NDArray[np.float64]


@pytest.fixture(params=["python", "compiled"])
def core(request: pytest.FixtureRequest) -> type[Line]:
    """A line's class."""
    return python_line() if request.param == "python" else compiled_line()


def answer() -> bytes:
    """What the agent says: `TEXT` at 8 kHz, without silence around it."""
    (wav,) = recordings("i would like to speak to someone please")
    return np.trim_zeros(np.frombuffer(wav.pcm, "<i2")).tobytes()


class Call:
    """The least that a call must do with the machine's actions; its agent answers at once."""

    def __init__(self, core: type[Line]) -> None:
        self.line = line_at(core, RATE_HZ)
        self.line.keep_played()
        self.voice = Voice(RATE_HZ, has_model=False)
        self.turns = Turns(OPTIONS, 0.0)
        self.answer = Answer()
        self.tts_n = 0
        self.history: list[Heard] = []
        self.caller_hears: list[bytes] = []
        self.told: list[tuple[float, Action]] = []
        self.do(self.turns.start(0.0), 0.0)

    def play(self, caller: Samples) -> None:
        """Live through what the caller says."""
        pcm = to_pcm(caller)
        for tick in range(len(pcm) // (2 * FRAME)):
            now = (tick + 1) * TICK_S
            for event in self.voice.process(pcm[tick * 2 * FRAME : (tick + 1) * 2 * FRAME], now):
                if isinstance(event, VoiceStarted):
                    self.do(self.turns.on_voice_started(now), now)
                elif isinstance(event, VoiceStopped):
                    self.do(self.turns.on_voice_stopped(now, event.quiet_s), now)
            self.do(self.turns.tick(now), now)
            self.caller_hears.append(pcm_of_message(self.line.tick(now).to_caller).tobytes())
            self.follow_playout(now)

    def follow_playout(self, now: float) -> None:
        """Tell the machine what was played with this tick."""
        turns, played_s = self.turns, self.line.played_s
        if turns.state is State.THINKING and self.answer.has_started(played_s):
            self.do(turns.on_agent_started(turns.turn, now), now)
        if turns.state is State.AGENT and self.answer.has_finished(played_s):
            self.do(turns.on_agent_finished(turns.turn, now), now)

    def do(self, actions: list[Action], now: float) -> None:
        """Do what the machine asks for."""
        for action in actions:
            self.told.append((now, action))
            match action:
                case Generate():
                    self.speak(now)
                case EndOfTurn(n):
                    self.do(self.turns.on_stt_done(n, now), now)
                case PausePlayout():
                    self.line.hold()
                case ResumePlayout(repeat):
                    self.line.resume(repeat)
                case CancelTurn():
                    self.history.append(self.answer.heard(self.line.played_s))
                    self.line.flush()

    def speak(self, now: float) -> None:
        """Queue an answer of two sentences; the service tells the words of the first one."""
        self.answer = Answer()
        for has_offsets in (True, False):
            self.tts_n += 1
            self.answer.add(self.tts_n, TEXT)
            start_s = self.line.queued_s
            self.line.receive_agent(frames.encode_audio(answer(), RATE_HZ), now)
            self.answer.on_audio(self.tts_n, start_s, self.line.queued_s)
            for index, word in enumerate(WORDS if has_offsets else []):
                offset_s = index * (self.line.queued_s - start_s) / len(WORDS)
                self.answer.on_word(self.tts_n, word, offset_s)
            self.answer.on_done(self.tts_n)
        self.answer.end()

    def times(self, kind: type[Action]) -> list[float]:
        """When the machine asked for this."""
        return [at for at, action in self.told if isinstance(action, kind)]

    def silent_s(self, begin_s: float) -> tuple[float, float]:
        """When the first silence of 60 ms or more after a moment begins and ends."""
        silent = [True, *(not any(frame) for frame in self.caller_hears)]
        tick = round(begin_s / TICK_S)
        begin = next(at for at in range(tick, len(silent)) if all(silent[at : at + 3]))
        end = next((at for at in range(begin, len(silent)) if not silent[at]), len(silent))
        return begin * TICK_S, end * TICK_S

    def heard_samples(self, begin_s: float, end_s: float) -> NDArray[np.int16]:
        """What was played in a time, without silence around it."""
        played = self.caller_hears[round(begin_s / TICK_S) : round(end_s / TICK_S)]
        return np.trim_zeros(np.frombuffer(b"".join(played), "<i2"))


def quiet(seconds: float) -> Samples:
    """Return a good line with nothing on it."""
    return 0.003 * np.random.default_rng(1).normal(size=int(seconds * RATE_HZ))


def test_a_cough_stops_the_agent_and_all_is_heard_all_the_same(core: type[Line]) -> None:
    call = Call(core)
    call.play(np.concatenate((quiet(1.0), cough(), quiet(7.0))))
    (held,), (resumed,) = call.times(PausePlayout), call.times(ResumePlayout)
    begin, end = call.silent_s(held - 0.04)
    assert 1.0 < begin <= held <= 1.1  # the frame of that tick is silent already
    assert end - 1.3 <= 0.3  # after the noise
    assert resumed == end
    said = np.frombuffer(answer() * 2, "<i2")
    before, after = call.heard_samples(0.0, begin - TICK_S), call.heard_samples(end - TICK_S, 9.0)
    repeated = len(before) + len(after) - len(said)
    assert np.array_equal(before, said[: len(before)])
    assert np.array_equal(after, said[len(said) - len(after) :])
    assert 0 <= repeated <= 0.2 * RATE_HZ
    assert call.history == []
    assert call.turns.turn == 1
    assert call.turns.state is State.SILENT  # it has finished


@pytest.mark.parametrize("after_s", [0.8, 2.9])
def test_a_caller_who_speaks_on_has_the_floor(core: type[Line], after_s: float) -> None:
    speech = talk(2, 3, quiet_s=(0.0, 0.1)).samples[: 2 * RATE_HZ]
    call = Call(core)
    call.play(np.concatenate((quiet(after_s), speech, quiet(0.1))))
    (held,), (cancelled,) = call.times(PausePlayout), call.times(CancelTurn)
    assert held - after_s <= 0.2
    assert cancelled - held <= 0.7 + TICK_S
    begin, end = call.silent_s(held - 0.04)
    assert begin <= held
    assert end == (len(call.caller_hears) + 1) * TICK_S  # not a frame more
    played = sum(any(frame) for frame in call.caller_hears)
    (history,) = call.history
    length_s = len(answer()) / 2 / RATE_HZ
    if played * TICK_S < length_s:
        count = int(played * TICK_S / length_s * len(WORDS)) + 1
        assert history == Heard(" ".join(WORDS[:count]), False)
    else:
        assert history.estimated
        assert history.text.startswith(TEXT)
        rest = history.text[len(TEXT) :].strip()
        share = played * TICK_S / length_s - 1
        assert TEXT.startswith(rest)
        assert share - 0.2 <= len(rest) / len(TEXT) <= share + 0.1
