"""Every fault there is, what is promised of it, and whether the promise was kept."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tests.faults import connections, machine, programs
from tests.faults.connections import DROPS, FAULTS, Break
from tests.faults.programs import STOP_S
from tests.faults.scene import Scene
from tests.faults.servers import Servers

__all__ = ["CASES", "NOTHING_S", "Case", "check"]

NOTHING_S = 0.2
"""A gap up to which there is none, in seconds: peers and calls share the cores with mediad."""
_GOES_ON = "it goes on"
_CALLER_LEFT = "it ends: caller, normal_clearing"
_CALLER_GONE = "it ends: caller, network_out_of_order"

Run = Callable[[Scene, Servers], Awaitable[None]]
RunWith = Callable[[Scene, Servers, Break], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Case:
    """A fault and its promise."""

    where: str
    """Between mediad and whom, or what it happens to."""
    fault: str
    run: Run
    gap_s: float | None = None
    """The longest time that the call it is made for hears nothing; None if there is no such call,
    or it ends.
    """
    then: str = ""
    """What becomes of that call."""
    others_gap_s: float = NOTHING_S
    """The same for all other calls."""
    hits_all: bool = False
    """No call is another one."""

    @property
    def name(self) -> str:
        """Names the case in a test's report."""
        return f"{self.where}: {self.fault}"


def check(case: Case, scene: Scene, stalls_s: float) -> None:
    """Check the promise, but for what the machine itself stood still.

    Raises:
        AssertionError: If it was not kept.
    """
    heard = f"{scene.subject_gap_s} s, the others {scene.others_gap_s} s"
    if case.gap_s is not None:
        assert scene.subject_gap_s is not None
        assert scene.subject_gap_s <= case.gap_s + stalls_s, heard
    assert scene.then == case.then, scene.then
    assert scene.others_gap_s <= case.others_gap_s + stalls_s, heard
    assert not scene.lost, scene.lost[:20]


def _with(run: RunWith, break_: Break) -> Run:
    return lambda scene, servers: run(scene, servers, break_)


def _for_one(
    where: str,
    to: RunWith,
    promises: dict[str, tuple[float | None, str]],
) -> list[Case]:
    """Faults of one call's connection."""
    faults = FAULTS | DROPS
    assert promises.keys() == faults.keys()
    return [
        Case(where, fault, _with(to, break_), *promises[fault]) for fault, break_ in faults.items()
    ]


def _for_none(where: str, to: RunWith) -> list[Case]:
    """Faults that no call may notice."""
    return [Case(where, fault, _with(to, break_)) for fault, break_ in (FAULTS | DROPS).items()]


_LATE, _ONE_BYTE, _HALF_OPEN, _RESET, _SENT, _RECEIVED = *FAULTS, *DROPS
_STOPPED = f"stopped for {STOP_S:.0f} s"
_STOPPED_GAP_S = STOP_S + 1

CASES: list[Case] = [
    *_for_one(
        "Asterisk",
        connections.to_caller,
        {
            _LATE: (0.5, _GOES_ON),
            _ONE_BYTE: (0.5, _GOES_ON),
            _HALF_OPEN: (5.0, _GOES_ON),
            _RESET: (None, _CALLER_LEFT),
            _SENT: (5.0, _GOES_ON),
            _RECEIVED: (NOTHING_S, _GOES_ON),
        },
    ),
    Case("Asterisk", _STOPPED, programs.caller_stopped, _STOPPED_GAP_S, _GOES_ON),
    Case("Asterisk", "killed", programs.caller_killed, then=_CALLER_LEFT),
    Case(
        "Asterisk",
        "half-open for good, with `audiosocket.dead_peer_s = 2`",
        connections.caller_gone,
        then=_CALLER_GONE,
    ),
    *_for_one(
        "the agent",
        connections.to_agent,
        {
            _LATE: (0.5, _GOES_ON),
            _ONE_BYTE: (0.5, _GOES_ON),
            _HALF_OPEN: (5.0, _GOES_ON),
            _RESET: (0.5, _GOES_ON),
            _SENT: (NOTHING_S, _GOES_ON),
            _RECEIVED: (5.0, _GOES_ON),
        },
    ),
    Case(
        "the agent",
        "half-open for good, with `ai.ping_s = 0.5`",
        connections.agent_gone,
        4.0,
        _GOES_ON,
    ),
    Case(
        "the agent",
        _STOPPED,
        programs.agent_stopped,
        _STOPPED_GAP_S,
        _GOES_ON,
        _STOPPED_GAP_S,
        True,
    ),
    Case(
        "the agent",
        "killed, and started 2 s later",
        programs.agent_killed,
        5.0,
        _GOES_ON,
        5.0,
        True,
    ),
    *_for_none("MariaDB", connections.to_database),
    Case("MariaDB", _STOPPED, programs.database_stopped),
    Case("MariaDB", "killed, and started 2 s later", programs.database_killed),
    *_for_none("Redis", connections.to_redis),
    Case("Redis", _STOPPED, programs.redis_stopped),
    Case("Redis", "killed, and started 2 s later", programs.redis_killed),
    *_for_none("a reader of /metrics", connections.to_http),
    Case("a reader of /metrics", _STOPPED, programs.reader_stopped),
    Case("a reader of /metrics", "killed", programs.reader_killed),
    Case(
        "mediad itself",
        _STOPPED,
        programs.mediad_stopped,
        _STOPPED_GAP_S,
        _GOES_ON,
        _STOPPED_GAP_S,
        True,
    ),
    Case(
        "mediad itself",
        "killed",
        programs.mediad_killed,
        then="it ends: system, recovery_on_timer_expiry",
        hits_all=True,
    ),
    Case("the machine", "wall clock 1 h forward", machine.clock_forward, NOTHING_S, _GOES_ON),
    Case("the machine", "wall clock 1 h back", machine.clock_back, NOTHING_S, _GOES_ON),
    Case("the machine", "disk full for 4 s", machine.disk_full),
    Case("the machine", "no file can be opened for 4 s", machine.no_descriptors),
]
