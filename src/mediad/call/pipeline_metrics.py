"""What is counted of the turns of pipelines. One `PipelineMetrics` in a process."""

from prometheus_client import CollectorRegistry, Counter, Histogram

__all__ = ["PipelineMetrics", "TurnWatch"]

_BUCKETS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)


class PipelineMetrics:
    """The counters and histograms of turns."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def histogram(name: str, help: str) -> Histogram:
            return Histogram(f"mediad_turn_{name}", help, buckets=_BUCKETS, registry=registry)

        self.transcript_time = histogram(
            "transcript_seconds", "From the end of the caller's turn to its final transcript"
        )
        self.token_time = histogram(
            "token_seconds", "From the final transcript to the language model's first words"
        )
        self.audio_time = histogram(
            "audio_seconds", "From the first sentence to the first of its audio"
        )
        self.frame_time = histogram(
            "frame_seconds", "From the first of the answer's audio to its first frame played"
        )
        self.latency = histogram(
            "latency_seconds", "From the end of the caller's turn to the first frame of the answer"
        )
        self.turns = Counter("mediad_turns", "Turns, by how they ended", ["how"], registry=registry)
        self.false_barge_ins = Counter(
            "mediad_false_barge_ins",
            "Noises that the agent fell silent for or was cut short by, taken for the caller",
            registry=registry,
        )
        self.fallbacks = Counter(
            "mediad_fallbacks", "Turns that a service failed, by which", ["role"], registry=registry
        )
        self.tool_calls = Counter(
            "mediad_tool_calls",
            "Tools that language models called; unknown ones are ignored",
            ["tool"],
            registry=registry,
        )
        self.gate_alone = Counter(
            "mediad_voices_unconfirmed",
            "Times the gate alone found a voice: there is no model, or it had no time",
            registry=registry,
        )
        self.bad_audio = Counter(
            "mediad_tts_bad_frames",
            "Audio of TTS services that cannot be played",
            ["reason"],
            registry=registry,
        )


class TurnWatch:
    """Takes the time of one call's turns, from the caller's last word to the agent's first."""

    def __init__(self, metrics: PipelineMetrics) -> None:
        self._metrics = metrics
        self._n = 0  # the caller's newest turn that has ended
        self._ended_at: float | None = None  # when, until it is answered

    def turn_ended(self, n: int, now: float) -> None:
        """The caller's turn has ended."""
        self._n, self._ended_at = n, now

    def transcript_ended(self, n: int, took_s: float) -> None:
        """The STT service has told all of ``n``, which may not be a turn."""
        if n == self._n:
            self._metrics.transcript_time.observe(took_s)

    def answer_started(self, now: float) -> None:
        """The agent is heard, perhaps again."""
        if self._ended_at is not None:
            self._metrics.latency.observe(now - self._ended_at)
            self._ended_at = None

    def answer_ended(self) -> None:
        """The turn is over: one that was not answered by now is not answered later."""
        self._ended_at = None
