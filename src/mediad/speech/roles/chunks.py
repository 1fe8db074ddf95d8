"""Audio cut into messages: a provider may hand over a whole minute at once."""

from collections.abc import Iterator

from mediad.wire.frames import AudioFrame

__all__ = ["chunks"]

_CHUNK_S = 0.2


def chunks(audio: AudioFrame) -> Iterator[AudioFrame]:
    """Cut audio into pieces of 200 ms."""
    size = int(_CHUNK_S * audio.sample_rate) * audio.num_channels * 2
    for start in range(0, len(audio.audio), size):
        yield audio._replace(audio=audio.audio[start : start + size])
