"""Who speaks over the agent through noise is found, and noise is not taken for it: all that a call
runs between the caller's bytes and what the turns ask for, on a virtual clock.
"""

import queue
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

import numpy as np
import pytest
from numpy.typing import NDArray

from mediad.ai.silero import Hearing, Silero
from mediad.call.ears import Ears, VoiceModel
from mediad.call.turn import actions as act
from mediad.call.turn.actions import Action
from mediad.call.turn.machine import State, Turns
from mediad.call.turn.options import TurnOptions
from mediad.call.turn.voice import VoiceStarted, VoiceStopped
from mediad.line import Line
from mediad.wire import frames
from mediad.wire.audiosocket import Kind, audio_message, uuid_message
from mediad.wire.frames import AudioFrame
from tests.noises import NOISES, RATE_HZ, Score, Talk, at_snr, chunks, score, talk, to_pcm
from tests.silero_model import silero_model

SNR_DB = 10.0
TICK_S = 0.020
UTTERANCES = 40
ASKED_FOR = ("babble", "hum", "line")
Samples = NDArray[np.float64]


class Patient(VoiceModel):
    """The model, which here has the time it needs: it answers within the frame."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._told: queue.Queue[list[tuple[Hearing, float]]] = queue.Queue()
        self._worker = Silero(path, self._told.put)
        self._listeners: dict[Hearing, Callable[[float], None]] = {}
        self._scores: deque[tuple[Hearing, float]] = deque()

    def want(self) -> None:
        """It is there."""

    @property
    def is_there(self) -> bool:
        return True

    def ask(
        self, hearing: Hearing, windows: list[bytes], on_score: Callable[[float], None]
    ) -> bool:
        self._listeners[hearing] = on_score
        assert self._worker.ask(hearing, windows)
        for _ in windows:
            self._scores.extend(self._told.get(timeout=10))
        return True

    def forget(self, hearing: Hearing) -> None:
        hearing.is_over = True
        self._listeners.pop(hearing, None)

    def answer(self) -> None:
        """Tell what was scored."""
        while self._scores:
            hearing, likely = self._scores.popleft()
            if (on_score := self._listeners.get(hearing)) is not None:
                on_score(likely)

    def close(self) -> None:
        self._worker.close()


class NoModel(VoiceModel):
    """None is installed."""

    def want(self) -> None:
        """There is nothing to load."""


@pytest.fixture(scope="module", params=["silero", "gate alone"])
def model(request: pytest.FixtureRequest) -> Iterator[VoiceModel]:
    """Who confirms voices, if anybody does."""
    if request.param == "gate alone":
        yield NoModel()
        return
    patient = Patient(silero_model())
    yield patient
    patient.close()


class Call:
    """A caller's line, ears and turns. The agent speaks all the time that is not the caller's; its
    STT service understands each word as soon as it is asked.
    """

    def __init__(self, model: VoiceModel, said: Talk) -> None:
        self.paused_at: list[float] = []
        """When the agent fell silent for somebody's voice."""
        self.interrupted_at: list[float] = []
        """When it was interrupted for good."""
        self._model = model
        self._line = Line("slin", "ulaw", 60.0)
        self._line.receive_caller(uuid_message(UUID(int=1)), 0.0)
        self._ears = Ears(model, self._on_voice)
        options = TurnOptions(has_first_message=True, response_delay_s=0.0, session_timeout_s=1e9)
        self._turns = Turns(options, 0.0)
        self._untold = deque(begin for begin, _ in said.spans)  # what the STT has still to tell
        self._to_do: deque[Action] = deque()
        self._now = 0.0
        self._do(self._turns.start(0.0))

    def hear(self, pcm: bytes) -> None:
        """Take 20 ms of the caller."""
        self._now += TICK_S
        for item in self._line.receive_caller(audio_message(Kind.SLIN, pcm), self._now):
            assert isinstance(item, bytes)
            audio = frames.decode(item)
            assert isinstance(audio, AudioFrame)
            self._ears.process(audio.audio, self._now)
        if isinstance(self._model, Patient):
            self._model.answer()
        if self._now >= self._turns.due:
            self._do(self._turns.tick(self._now))

    def close(self) -> None:
        """Nobody listens any more."""
        self._ears.close()

    def _on_voice(self, event: VoiceStarted | VoiceStopped) -> None:
        if isinstance(event, VoiceStarted):
            self._do(self._turns.on_voice_started(self._now))
        else:
            self._do(self._turns.on_voice_stopped(self._now, event.quiet_s))

    def _do(self, actions: list[Action]) -> None:
        self._to_do.extend(actions)
        while self._to_do:
            match self._to_do.popleft():
                case act.Say(n) | act.Generate(n):
                    self._to_do.extend(self._turns.on_agent_started(n, self._now))
                case act.PausePlayout():
                    self.paused_at.append(self._now)
                case act.CancelTurn():
                    self.interrupted_at.append(self._now)
                case act.AskWords():
                    self._tell_words()
                case act.EndOfTurn(n):
                    self._tell_words()
                    self._to_do.extend(self._turns.on_stt_done(n, self._now))

    def _tell_words(self) -> None:
        while self._untold and self._untold[0] <= self._now:
            self._untold.popleft()
            self._to_do.extend(self._turns.on_words("word", True, self._now))

    @property
    def is_agent_speaking(self) -> bool:
        """Whether the turn is the agent's."""
        return self._turns.state is State.AGENT


class Result(NamedTuple):
    """What came of a conversation."""

    score: Score
    interruptions: int
    false_interruptions_a_minute: float
    """How often noise ended the agent's turn for good."""


def listened(model: VoiceModel, samples: Samples, said: Talk) -> Result:
    """Play a caller's line to a call."""
    call = Call(model, said)
    for chunk in chunks(to_pcm(samples))[:-1]:  # the last may be less than a frame
        call.hear(chunk)
    call.close()
    assert call.is_agent_speaking
    seconds = len(samples) / RATE_HZ
    false_a_minute = score(said.spans, call.interrupted_at, seconds).false_a_minute
    found = score(said.spans, call.paused_at, seconds)
    return Result(found, len(call.interrupted_at), false_a_minute)


@pytest.mark.parametrize("name", ASKED_FOR)
def test_who_speaks_over_the_agent_is_found_within_200_ms(model: VoiceModel, name: str) -> None:
    results = []
    for seed in range(1, 5) if name == "babble" else (1,):
        said = talk(seed, UTTERANCES)
        noise = NOISES[name](seed + 100, len(said.samples))
        results.append(listened(model, at_snr(said.samples, noise, SNR_DB), said))
    mean = Score.mean([result.score for result in results])
    print(f"{type(model).__name__}, {name} at {SNR_DB:.0f} dB: {mean}")
    assert mean.found >= 0.95
    assert mean.false_a_minute <= 1.0
    assert max(result.false_interruptions_a_minute for result in results) <= 1.0
    assert min(result.interruptions for result in results) >= 0.95 * UTTERANCES


@pytest.mark.parametrize("name", ASKED_FOR)
def test_the_agent_speaks_on_over_noise_alone(model: VoiceModel, name: str) -> None:
    minutes = 5 if name == "babble" else 1
    pauses = 0
    for seed in range(200, 200 + minutes):
        noise = NOISES[name](seed, 60 * RATE_HZ) * 10 ** (-SNR_DB / 20)
        result = listened(model, noise, Talk(noise, []))
        pauses += round(result.score.false_a_minute)
    print(f"{type(model).__name__}, only {name}: {pauses / minutes:.2f} false barge-ins a minute")
    assert pauses / minutes <= 1.0
