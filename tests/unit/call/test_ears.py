"""When a caller is found to speak: the gate of a call, and a model that may come later."""

from collections.abc import Callable

from mediad.ai.silero import Hearing
from mediad.call.ears import Ears, VoiceModel
from mediad.call.turn.voice import VoiceStarted, VoiceStopped

FRAME = 640  # 20 ms at 16 kHz
LOUD = (b"\x00\x20" * 6 + b"\x00\xe0" * 6) * 1334  # a second, 1333 Hz


class LateModel(VoiceModel):
    """A model that is yet to be loaded; it answers when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.is_loaded = False
        self.on_score: Callable[[float], None] | None = None

    def want(self) -> None:
        """The test has it."""

    @property
    def is_there(self) -> bool:
        return self.is_loaded

    def ask(
        self, hearing: Hearing, windows: list[bytes], on_score: Callable[[float], None]
    ) -> bool:
        self.on_score = on_score
        return True


def test_a_model_that_comes_within_a_call_is_asked_from_the_next_opening_on() -> None:
    model = LateModel()
    told: list[VoiceStarted | VoiceStopped] = []
    ears = Ears(model, told.append)
    now = 0.0

    def hear(pcm: bytes) -> None:
        nonlocal now
        for at in range(0, len(pcm), FRAME):
            now += 0.02
            ears.process(pcm[at : at + FRAME], now)

    hear(bytes(50 * FRAME))
    hear(LOUD[: 10 * FRAME])
    assert told == [VoiceStarted(confirmed=False)]
    model.is_loaded = True
    hear(LOUD[: 10 * FRAME])
    assert model.on_score is None  # this opening is decided
    hear(bytes(50 * FRAME))
    assert isinstance(told[-1], VoiceStopped)
    hear(LOUD[: 3 * FRAME])
    assert len(told) == 2
    assert model.on_score is not None
    model.on_score(0.9)
    assert told[2:] == [VoiceStarted(confirmed=True)]
