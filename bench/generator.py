"""Run the load generator against a target; what it says, and what mediad's own counters say."""

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from bench.build import Programs
from bench.process import BenchError, favour
from bench.targets import Target, read_metrics

__all__ = ["Durations", "Result", "disagreements", "generate"]

_SCRAPE_S = 15.0  # as often as Prometheus asks
_SLACK_S = 60.0  # over what the generator itself allows

# What the generator counted, and mediad's counters of the same.
_SAME = {
    "sent": ("caller_messages",),
    "agent_received": ("agent_frames_sent",),
    "agent_sent": ("agent_frames",),
    "received": ("played_frames",),
    "underruns": ("underruns",),
    "underrun_frames": ("underrun_frames",),
    "lost": ("agent_audio_dropped_frames", "caller_audio_dropped_frames"),
}
_TOLERANCE = 0.01


@dataclass(frozen=True, slots=True)
class Durations:
    """Percentiles in milliseconds."""

    count: int
    p50: float
    p90: float
    p99: float
    p999: float
    max: float


@dataclass(frozen=True, slots=True)
class Result:
    """One run of the generator; call.h says what is counted."""

    calls: int
    seconds: float
    started: int
    finished: int
    failed: int
    left_open: int
    cpu_s: float
    cpu_user_s: float
    """Outside the kernel, as its clock tick found it: wrong for what wakes up by the same clock."""
    cpu_of_core: float
    cpu_ms_per_call_s: float
    rss_before_kib: int
    rss_kib: int
    others_of_core: float
    """What other programs took of the measured core."""
    steal_of_core: float
    generator_of_core: float
    standstills: int
    """How often the machine stood still while it was measured: 15 ms and more."""
    standstill_ms: float
    """The longest of them."""
    window: Mapping[str, int]
    """Counted while it was measured, standstills and half a second after each left out."""
    disturbed: Mapping[str, int]
    """Counted in and after standstills."""
    total: Mapping[str, int]
    """Counted from the first call to the last."""
    lateness: Durations
    uplink: Durations
    downlink: Durations
    round_trip: Durations
    jitter: Durations
    first_echo: Durations
    disagreements: tuple[str, ...] = ()
    """Where mediad's own counters say something else."""

    @classmethod
    def parse(cls, text: str, disagreements: tuple[str, ...] = ()) -> Self:
        """Read the generator's JSON."""
        fields = json.loads(text)
        del fields["mode"]
        for name in ("lateness", "uplink", "downlink", "round_trip", "jitter", "first_echo"):
            fields[name] = Durations(**fields.pop(f"{name}_ms"))
        return cls(**fields, disagreements=disagreements)

    def counted(self, name: str) -> int:
        """Return what was counted under a name, standstills or not."""
        return self.window[name] + self.disturbed[name]

    @property
    def disturbed_share(self) -> float:
        """Return how much of what was sent was sent near a standstill."""
        return self.disturbed["sent"] / max(1, self.counted("sent"))

    @property
    def broken(self) -> int:
        """Return how many frames did not come as they should have."""
        return _broken(self.window)

    @property
    def broken_by_machine(self) -> int:
        """Return the same of standstills and what came after: nobody is to blame for those."""
        return _broken(self.disturbed)


def generate(
    programs: Programs,
    target: Target,
    cores: tuple[int, int],
    mode: str,
    *options: str,
    seconds: float,
) -> Result:
    """Run the generator once.

    Args:
        cores: The measured program's and the generator's.
        options: More of the generator's own.
        seconds: How long it plans to run at most, for giving up.

    Raises:
        BenchError: If it fails or does not end.
    """
    command = [
        *(str(programs.load), mode, "--target", target.address),
        *("--pid", str(target.pid), "--core", str(cores[0])),
        *("--agent-port", str(target.agent_port), *options),
    ]
    before = read_metrics(target) if target.http else {}
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        favour(process.pid, cores[1])
        out, errors = _wait(process, target, seconds + _SLACK_S)
    finally:
        process.kill()
    if process.returncode or not out:
        raise BenchError(f"the generator failed against {target.kind}: {errors}")
    result = Result.parse(out)
    if target.http:
        after = read_metrics(target)
        return Result.parse(out, disagreements(before, after, result.total))
    return result


def _broken(counters: Mapping[str, int]) -> int:
    names = ("lost", "duplicates", "reordered", "undecoded", "underruns", "missing")
    return sum(counters[name] for name in (*names, "wrong_messages"))


def _wait(process: subprocess.Popen[str], target: Target, limit_s: float) -> tuple[str, str]:
    for _ in range(int(limit_s / _SCRAPE_S) + 1):
        try:
            return process.communicate(timeout=_SCRAPE_S)
        except subprocess.TimeoutExpired:
            if not Path(f"/proc/{target.pid}").exists():
                raise BenchError(f"{target.kind} died; see {target.log}") from None
            if target.http:
                read_metrics(target)
    raise BenchError(f"the generator does not end against {target.kind}")


def disagreements(
    before: Mapping[str, float], after: Mapping[str, float], total: Mapping[str, int]
) -> tuple[str, ...]:
    """Return where mediad's counters, grown from before to after, are off by more than 1 %."""
    found = []
    for name, counters in _SAME.items():
        samples = [f"mediad_{counter}_total" for counter in counters]
        ours, theirs = total[name], sum(after[one] - before[one] for one in samples)
        if abs(theirs - ours) > _TOLERANCE * max(theirs, ours):
            found.append(f"{' and '.join(samples)} {theirs:.0f}, the generator {ours} {name}")
    return tuple(found)
