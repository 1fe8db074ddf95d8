"""Was that a voice? Silero's model on windows of 32 ms of many calls, in one worker thread.

The model is recurrent: windows of one hearing are scored in their order, each with the state and
the last samples of the one before. Windows of different hearings are scored together: 64 µs for
one alone, 21 µs each for 64. It hears a voice best after little of anything else, so each time
something is to be judged it is a new `Hearing`.

onnxruntime and the model are optional: they come with ``mediad[agent]``.
"""

import importlib.util
import threading
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "MAX_BATCH",
    "MAX_WAITING",
    "RATES_HZ",
    "WINDOW_S",
    "Counters",
    "Hearing",
    "Silero",
    "find_model",
]

RATES_HZ = (8000, 16_000)
WINDOW_S = 0.032
MAX_WAITING = 512
"""Windows, of all calls: about 11 ms of work. When full the newest is refused, and counted."""

MAX_BATCH = 64

_CONTEXT_S = 0.004  # of the window before, put in front of each
_PACKAGES = ("pipecat/audio/vad/data", "silero_vad/data")


def find_model() -> Path | None:
    """Return where an installed package keeps the model; None without it or onnxruntime."""
    if importlib.util.find_spec("onnxruntime") is None:
        return None
    for folder in _PACKAGES:
        package, _, inside = folder.partition("/")
        spec = importlib.util.find_spec(package)  # found, not imported
        for root in spec.submodule_search_locations or () if spec is not None else ():
            path = Path(root, inside, "silero_vad.onnx")
            if path.is_file():
                return path
    return None


class Hearing:
    """One stretch of one call's audio, with what the model remembers of it."""

    __slots__ = ("context", "is_over", "rate_hz", "state")

    def __init__(self, rate_hz: int) -> None:
        if rate_hz not in RATES_HZ:
            raise ValueError(f"Silero hears 8 and 16 kHz, not {rate_hz} Hz")
        self.rate_hz = rate_hz
        self.is_over = False
        """Set it when nobody waits for the answer: what is left is not scored."""
        self.state: NDArray[np.float32] = np.zeros((2, 1, 128), np.float32)
        self.context: NDArray[np.float32] = np.zeros((1, round(rate_hz * _CONTEXT_S)), np.float32)


class Counters(NamedTuple):
    """What the worker has done since its start."""

    windows: int
    batches: int
    refused: int  # windows that found the queue full


class Silero:
    """The model and its thread.

    Args:
        model: The ONNX file.
        on_scores: Called in the worker thread, once a batch, with how likely each hearing's next
            window is a voice, 0 to 1. It must return soon and not raise.

    Raises:
        Exception: From onnxruntime, if the file is no such model.
    """

    def __init__(
        self, model: Path, on_scores: Callable[[list[tuple[Hearing, float]]], None]
    ) -> None:
        import onnxruntime  # type: ignore[import-untyped]  # optional, and 60 MB of memory

        options = onnxruntime.SessionOptions()
        options.inter_op_num_threads = options.intra_op_num_threads = 1
        self._session: Any = onnxruntime.InferenceSession(
            str(model), sess_options=options, providers=["CPUExecutionProvider"]
        )
        self._on_scores = on_scores
        self._waiting: deque[tuple[Hearing, bytes]] = deque()
        self._changed = threading.Condition()
        self._is_closed = False
        self._windows = self._batches = self._refused = 0
        self._thread = threading.Thread(target=self._work, name="silero", daemon=True)
        self._thread.start()

    def ask(self, hearing: Hearing, windows: Sequence[bytes]) -> bool:
        """Have a hearing's next windows scored, each 32 ms of s16le; False: too many are waiting.

        After a refusal the hearing has a hole: give it up.
        """
        with self._changed:
            if self._is_closed or len(self._waiting) + len(windows) > MAX_WAITING:
                self._refused += len(windows)
                return False
            self._waiting.extend((hearing, window) for window in windows)
            self._changed.notify()
        return True

    def counters(self) -> Counters:
        """Return the counters as they stand."""
        with self._changed:
            return Counters(self._windows, self._batches, self._refused)

    def close(self) -> None:
        """Stop the thread. What waits is not scored."""
        with self._changed:
            self._is_closed = True
            self._waiting.clear()
            self._changed.notify()
        self._thread.join()

    # The worker

    def _work(self) -> None:
        while batch := self._next_batch():
            self._on_scores(self._score(batch))

    def _next_batch(self) -> list[tuple[Hearing, bytes]]:
        """Wait for windows; take one of each hearing, all of one rate. Empty: the end."""
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._waiting or self._is_closed)
                if self._is_closed:
                    return []
                batch = self._take_batch()
                if batch:
                    self._windows += len(batch)
                    self._batches += 1
                    return batch

    def _take_batch(self) -> list[tuple[Hearing, bytes]]:
        batch: dict[Hearing, bytes] = {}
        later: list[tuple[Hearing, bytes]] = []
        rate_hz = 0
        while self._waiting and len(batch) < MAX_BATCH:
            hearing, window = self._waiting.popleft()
            if hearing.is_over:
                continue
            rate_hz = rate_hz or hearing.rate_hz
            if hearing in batch or hearing.rate_hz != rate_hz:
                later.append((hearing, window))
            else:
                batch[hearing] = window
        self._waiting.extendleft(reversed(later))
        return list(batch.items())

    def _score(self, batch: list[tuple[Hearing, bytes]]) -> list[tuple[Hearing, float]]:
        hearings = [hearing for hearing, _ in batch]
        pcm = np.frombuffer(b"".join(window for _, window in batch), "<i2")
        samples = (pcm / np.float32(32_768)).astype(np.float32).reshape(len(batch), -1)
        context = np.concatenate([hearing.context for hearing in hearings])
        heard = np.concatenate((context, samples), axis=1)
        scores, states = self._session.run(
            ["output", "stateN"],
            {
                "input": heard,
                "state": np.concatenate([hearing.state for hearing in hearings], axis=1),
                "sr": np.array(hearings[0].rate_hz, np.int64),
            },
        )
        for index, hearing in enumerate(hearings):
            # Copies: a view would keep the whole batch as long as its slowest hearing.
            hearing.state = states[:, index : index + 1].copy()
            hearing.context = heard[index : index + 1, -context.shape[1] :].copy()
        return [(hearing, float(scores[index, 0])) for index, hearing in enumerate(hearings)]
