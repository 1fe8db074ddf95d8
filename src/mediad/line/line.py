"""One call's line, pure: the caller's bytes to the agent's frames, its frames to 20 ms each.

This is the specification. ``_core.pyx`` is the same, compiled; one test suite drives both with the
same bytes and clocks. Time is an argument in monotonic seconds; no socket, no log. The agent hears
16 kHz mono.
"""

from typing import NamedTuple

from mediad.media import g711
from mediad.media.codec import CodecDetector
from mediad.media.pcm import mono, without_riff
from mediad.media.playout import Playout, PlayoutEvent, PlayoutRoom
from mediad.media.resample import SAMPLE_RATES, Resampler
from mediad.wire import audiosocket as wire
from mediad.wire import frames
from mediad.wire.audiosocket import Audio, Kind, Violation
from mediad.wire.frames import AgentMessage, AudioFrame, BadFrame

__all__ = [
    "AGENT_RATE_HZ",
    "FILL_AFTER_S",
    "MAX_CHANNELS",
    "CallerItem",
    "Counters",
    "Line",
    "Tick",
]

AGENT_RATE_HZ = 16_000
"""What the agent is sent, whatever the caller's codec is."""

FILL_AFTER_S = 0.060
"""When no audio comes for this long (twice a message's length, if that is more), the agent hears
silence.
"""

MAX_CHANNELS = 8

_FILL = frames.encode_audio(bytes(AGENT_RATE_HZ // 50 * 2), AGENT_RATE_HZ)

CallerItem = bytes | wire.CallUuid | wire.Digit | wire.HangUp | wire.PeerError | wire.Violation
"""What comes of the caller's bytes: a frame for the agent (bytes), or a control message."""


class Tick(NamedTuple):
    """What one 20 ms of the clock brings."""

    to_caller: bytes
    """The AudioSocket message that is due now; never empty."""
    to_agent: bytes | None
    """A frame of silence, when the caller's audio has stopped."""
    events: list[PlayoutEvent]


class Counters(NamedTuple):
    """What the line has done since its start. Directions are seen from mediad."""

    caller_messages: int  # audio messages from the caller
    caller_bytes: int  # their payload
    agent_frames_sent: int  # audio frames made for the agent, silence included
    agent_fill_frames: int  # of these, silence in place of audio that did not come
    agent_frames: int  # audio frames from the agent
    agent_bytes: int  # their PCM
    bad_frames: int  # messages of the agent that could not be read or played
    played_frames: int  # 20 ms with audio given to the caller
    silent_frames: int  # 20 ms without
    refused_bytes: int  # of agent audio, at the caller's rate, that the full playout refused
    flushed_bytes: int  # of agent audio, at the caller's rate, that a flush dropped
    underruns: int  # times the playout ran dry within an utterance
    underrun_frames: int  # 20 ms of silence heard for it


class Line:
    """Both directions of one call.

    Args:
        codec: What kind 0x10 carries: ``slin``, ``ulaw``, ``alaw``, or ``auto`` to find out.
        g711: The law that ``auto`` takes, ``ulaw`` or ``alaw``.
        playout_max_s: How much agent audio may wait, in seconds.
        playout_room: What all lines' agent audio may take together.
    """

    def __init__(
        self,
        codec: str,
        g711: str,
        playout_max_s: float,
        playout_room: PlayoutRoom | None = None,
    ) -> None:
        self._parser = wire.Parser()
        self._ended = False
        self._codec = codec
        self._g711 = g711
        self._detector = CodecDetector() if codec == "auto" else None
        self._caller_rate_hz = 0  # of what comes; 0 before the first audio
        self._to_agent = Resampler(AGENT_RATE_HZ, AGENT_RATE_HZ)
        self._last_audio_at: float | None = None
        self._fill_after_s = FILL_AFTER_S
        self._agent_format = (0, 0)  # rate and channels of what the agent sends
        self._odd = b""  # the start of a sample whose end has not come
        self._is_playout_fixed = False
        self._playout = Playout(wire.RATE_OF_AUDIO_KIND[Kind.SLIN], playout_max_s, playout_room)
        self._set_playout_kind(Kind.SLIN)
        self._caller_messages = self._caller_bytes = 0
        self._agent_frames_sent = self._agent_fill_frames = 0
        self._agent_frames = self._agent_bytes = self._bad_frames = 0
        self._played_frames = self._silent_frames = 0
        self._refused_bytes = self._flushed_bytes = 0

    # From the caller to the agent

    def receive_caller(self, data: bytes, now: float) -> list[CallerItem]:
        """Take what TCP delivered; return frames for the agent and control messages, in order.

        After a `HangUp`, a `PeerError` or a `Violation`, always the last item, nothing is read any
        more.
        """
        items: list[CallerItem] = []
        if self._ended:
            return items
        for message in self._parser.receive_data(data):
            if isinstance(message, Audio):
                items += self._receive_audio(message, now)
            else:
                items.append(message)
            if isinstance(message, wire.CallUuid):
                self._last_audio_at = now
            if items and isinstance(items[-1], Violation):
                self._ended = True
                break
        return items

    def _receive_audio(self, audio: Audio, now: float) -> list[bytes | Violation]:
        self._caller_messages += 1
        self._caller_bytes += len(audio.payload)
        self._last_audio_at = now
        self._set_caller_kind(audio.kind)
        if audio.kind != Kind.SLIN:
            return [self._encode(audio, "slin")]
        if self._detector is None:
            return [self._encode(audio, self._codec)]
        is_slin = self._detector.add(audio.payload, now)
        if is_slin is None:
            self._expect_next(len(audio.payload))  # samples, if it is G.711, which lasts longer
            return []
        self._codec = "slin" if is_slin else self._g711
        held, self._detector = self._detector.take_held(), None
        items: list[bytes | Violation] = []
        for payload in held:
            items.append(self._encode(Audio(audio.kind, payload), self._codec))
            if isinstance(items[-1], Violation):
                break
        return items

    def _set_caller_kind(self, kind: int) -> None:
        rate_hz = wire.RATE_OF_AUDIO_KIND[kind]
        if rate_hz == self._caller_rate_hz:
            return
        self._caller_rate_hz = rate_hz
        self._to_agent = Resampler(rate_hz, AGENT_RATE_HZ)
        if not self._is_playout_fixed:
            self._set_playout_kind(kind)
            self._is_playout_fixed = True

    def _encode(self, audio: Audio, codec: str) -> bytes | Violation:
        pcm = audio.payload
        if codec == "ulaw":
            pcm = g711.decode_ulaw(pcm)
        elif codec == "alaw":
            pcm = g711.decode_alaw(pcm)
        elif len(pcm) % 2:
            return Violation("bad_length", f"kind 0x{audio.kind:02x}: {len(pcm)} bytes of slin")
        self._expect_next(len(pcm) // 2)
        self._agent_frames_sent += 1
        return frames.encode_audio(self._to_agent.process(pcm), AGENT_RATE_HZ)

    def _expect_next(self, samples: int) -> None:
        """Wait for the next message as long as twice what this one lasts."""
        self._fill_after_s = max(FILL_AFTER_S, 2 * samples / self._caller_rate_hz)

    # From the agent to the caller

    def receive_agent(self, message: bytes, now: float) -> AgentMessage | None:
        """Take one WebSocket message. Audio goes to the playout; anything else comes back."""
        frame = frames.decode(message)
        if isinstance(frame, AudioFrame):
            bad = self._play(frame, now)
            if bad is None:
                return None
            frame = bad
        if isinstance(frame, BadFrame):
            self._bad_frames += 1
        return frame

    def _play(self, frame: AudioFrame, now: float) -> BadFrame | None:
        if frame.sample_rate not in SAMPLE_RATES:
            return BadFrame("sample_rate")
        if not 1 <= frame.num_channels <= MAX_CHANNELS:
            return BadFrame("num_channels")
        self._agent_frames += 1
        pcm = without_riff(frame.audio)
        self._agent_bytes += len(pcm)
        if (frame.sample_rate, frame.num_channels) != self._agent_format:
            self._agent_format = (frame.sample_rate, frame.num_channels)
            self._from_agent = Resampler(frame.sample_rate, self._playout_rate_hz)
            self._odd = b""
        pcm = self._odd + pcm
        whole = len(pcm) - len(pcm) % (2 * frame.num_channels)
        self._odd = pcm[whole:]
        self._is_playout_fixed = True
        samples = mono(pcm[:whole], frame.num_channels)
        self._refused_bytes += self._playout.write(self._from_agent.process(samples), now)
        return None

    def _set_playout_kind(self, kind: int) -> None:
        self._playout_kind = kind
        self._playout_rate_hz = wire.RATE_OF_AUDIO_KIND[kind]
        self._playout.set_rate(self._playout_rate_hz)
        self._from_agent = Resampler(AGENT_RATE_HZ, self._playout_rate_hz)
        self._silence = wire.audio_message(kind, bytes(self._playout_rate_hz // 50 * 2))

    def tick(self, now: float) -> Tick:
        """Return what is due in this 20 ms. Call it once every 20 ms, from the call's UUID on."""
        pcm, events = self._playout.read(now)
        if pcm is None:
            self._silent_frames += 1
            to_caller = self._silence
        else:
            self._played_frames += 1
            to_caller = wire.audio_message(self._playout_kind, pcm)
        return Tick(to_caller, self._fill(now), events)

    def _fill(self, now: float) -> bytes | None:
        if self._last_audio_at is None or now - self._last_audio_at < self._fill_after_s:
            return None
        self._agent_frames_sent += 1
        self._agent_fill_frames += 1
        return _FILL

    def mark(self, name: str) -> bool:
        """Ask for a `MarkReached` once what is queued now has been heard; False when 64 are
        waiting.
        """
        return self._playout.mark(name)

    def keep_played(self) -> None:
        """Keep what `resume` may repeat. For calls whose speech can be held; it costs memory."""
        self._playout.keep_played()

    def hold(self) -> None:
        """Let the caller hear silence from the next frame on, until `resume` or `flush`. What
        waits, and what still comes, is kept.
        """
        self._playout.hold()

    def resume(self, repeat: bool) -> int:
        """Go on after a hold; return how many ms are repeated.

        With ``repeat`` an utterance that was stopped goes on from the nearest quiet of its last
        200 ms; needs `keep_played`.
        """
        return self._playout.resume(repeat) // 2 * 1000 // self._playout_rate_hz

    def flush(self) -> int:
        """Drop agent audio not handed out yet, marks included; return how many ms it was."""
        dropped = self._playout.flush()
        self._flushed_bytes += dropped
        self._from_agent.reset()  # its history would leak the dropped words into the next ones
        self._odd = b""
        return dropped // 2 * 1000 // self._playout_rate_hz

    @property
    def playout_rate_hz(self) -> int:
        """What the caller gets, in samples a second: 8000 before the first audio of either side."""
        return self._playout_rate_hz

    @property
    def queued_s(self) -> float:
        """The place after all agent audio that was ever queued, in seconds of it."""
        return self._playout.queued_s

    @property
    def played_s(self) -> float:
        """The place up to which it was handed out, or flushed."""
        return self._playout.played_s

    @property
    def held_ms(self) -> int:
        """How much agent audio is waiting."""
        return self._playout.held_bytes // 2 * 1000 // self._playout_rate_hz

    def counters(self) -> Counters:
        """Return the line's counters as they stand."""
        return Counters(
            self._caller_messages,
            self._caller_bytes,
            self._agent_frames_sent,
            self._agent_fill_frames,
            self._agent_frames,
            self._agent_bytes,
            self._bad_frames,
            self._played_frames,
            self._silent_frames,
            self._refused_bytes,
            self._flushed_bytes,
            self._playout.underruns,
            self._playout.underrun_frames,
        )
