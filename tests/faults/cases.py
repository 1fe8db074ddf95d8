"""Every fault there is, what is promised of it, and whether a result keeps the promise."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, get_args

from mediad.wire.service import Role
from tests.faults import connections, dialling_in, machine, outside, pipelines, programs
from tests.faults.connections import DROPS, FAULTS, Break
from tests.faults.processes import AWAY_S, STOP_S
from tests.faults.scene import GOES_ON, Scene
from tests.faults.servers import Servers

__all__ = ["CASES", "NOTHING_S", "Case", "Result", "broken_promises"]

NOTHING_S = 0.2
"""A silence up to which there is none, in seconds: peers and calls share the cores with mediad."""
_CALLER_LEFT = "caller, normal_clearing"
_CALLER_GONE = "caller, network_out_of_order"
_CUT_OFF = "system, recovery_on_timer_expiry"

Run = Callable[[Scene, Servers], Awaitable[None]]
RunWith = Callable[[Scene, Servers, Break], Awaitable[None]]
RunOf = Callable[[Scene, Servers, Role], Awaitable[None]]
Promise = tuple[float, str]


@dataclass(frozen=True, slots=True)
class Case:
    """A fault and its promise."""

    where: str
    """Between mediad and whom, or what it happens to."""
    fault: str
    run: Run
    silence_s: float | None = NOTHING_S
    """The longest time that the call it is made for hears nothing; None if nobody is left to
    hear.
    """
    end: str = GOES_ON
    """What becomes of that call: it goes on, or who ends it and why, as the database has it."""
    hits_all: bool = False
    """It is mediad itself that is at fault, and no call is another one."""

    @property
    def name(self) -> str:
        """Names the case in a test's report and in the table."""
        return f"{self.where}: {self.fault}"


class Result(NamedTuple):
    """What was measured of a case."""

    silence_ms: int | None
    """The longest silence on the call that it is made for."""
    end: str
    others_silence_ms: int | None
    """The longest on any other."""
    lost: int
    made: int
    """Of so many facts and words."""


def broken_promises(case: Case, result: Result) -> list[str]:
    """Return what of a promise a result does not keep."""
    broken = []
    if _is_longer(result.silence_ms, case.silence_s):
        broken.append(f"{result.silence_ms} ms of silence")
    if _is_longer(result.others_silence_ms, None if case.hits_all else NOTHING_S):
        broken.append(f"{result.others_silence_ms} ms of silence on another call")
    if result.end != case.end:
        broken.append(f"the end: {result.end}")
    if result.lost or not result.made:
        broken.append(f"{result.lost} of {result.made} facts are lost")
    return broken


def _is_longer(silence_ms: int | None, promised_s: float | None) -> bool:
    if silence_ms is None or promised_s is None:
        return silence_ms is not promised_s  # nobody was to hear it, and nobody has
    return silence_ms > promised_s * 1000


def _with(run: RunWith, break_: Break) -> Run:
    return lambda scene, servers: run(scene, servers, break_)


def _for_one(where: str, to: RunWith, promises: Mapping[str, Promise]) -> list[Case]:
    """Faults of one call's connection."""
    faults = FAULTS | DROPS
    return [
        Case(where, fault, _with(to, faults[fault]), *promise)
        for fault, promise in promises.items()
    ]


def _for_none(where: str, to: RunWith) -> list[Case]:
    """Faults that no call may notice."""
    return [Case(where, fault, _with(to, break_)) for fault, break_ in (FAULTS | DROPS).items()]


def _of_service(role: Role, promises_s: Mapping[str, float]) -> list[Case]:
    """Faults of a service of one call's pipeline, while its caller asks."""

    def broken(break_: Break) -> Run:
        return lambda scene, servers: pipelines.to_service(scene, servers, role, break_)

    def alone(run: RunOf) -> Run:
        return lambda scene, servers: run(scene, servers, role)

    runs = {fault: broken(break_) for fault, break_ in FAULTS.items()}
    runs |= {_STOPPED: alone(pipelines.service_stopped), _KILLED: alone(pipelines.service_killed)}
    where = f"a pipeline's {role.upper()}"
    return [Case(where, fault, run, promises_s[fault]) for fault, run in runs.items()]


_LATE, _ONE_BYTE, _HALF_OPEN, _RESET, _SENT, _RECEIVED = *FAULTS, *DROPS
_STOPPED = f"stopped for {STOP_S:.0f} s"
_STOPPED_S = STOP_S + 1
_KILLED = f"killed, and started {AWAY_S:.0f} s later"
_ASKED_S: dict[Role, dict[str, float]] = {
    "stt": {_LATE: 1.5, _ONE_BYTE: 1, _HALF_OPEN: 2.5, _RESET: 1, _STOPPED: 3, _KILLED: 3},
    "llm": {_LATE: 1.5, _ONE_BYTE: 1, _HALF_OPEN: 1.5, _RESET: 1, _STOPPED: 3, _KILLED: 3},
    "tts": {_LATE: 1.5, _ONE_BYTE: 1, _HALF_OPEN: 2.5, _RESET: 1, _STOPPED: 3, _KILLED: 3},
}

CASES: list[Case] = [
    *_for_one(
        "Asterisk",
        connections.to_caller,
        {
            _LATE: (0.5, GOES_ON),
            _ONE_BYTE: (0.5, GOES_ON),
            _HALF_OPEN: (5.0, GOES_ON),
            _RESET: (NOTHING_S, _CALLER_LEFT),
            _SENT: (5.0, GOES_ON),
            _RECEIVED: (NOTHING_S, GOES_ON),
        },
    ),
    Case("Asterisk", _STOPPED, programs.caller_stopped, _STOPPED_S),
    Case("Asterisk", "killed", programs.caller_killed, None, _CALLER_LEFT),
    Case(
        "Asterisk",
        "half-open for good, with `audiosocket.dead_peer_s = 2`",
        connections.caller_gone,
        4.0,
        _CALLER_GONE,
    ),
    *_for_one(
        "the agent",
        connections.to_agent,
        {
            _LATE: (0.5, GOES_ON),
            _ONE_BYTE: (0.5, GOES_ON),
            _HALF_OPEN: (5.0, GOES_ON),
            _RESET: (0.5, GOES_ON),
            _SENT: (NOTHING_S, GOES_ON),
            _RECEIVED: (5.0, GOES_ON),
        },
    ),
    Case("the agent", "half-open for good, with `ai.ping_s = 0.5`", connections.agent_gone, 4.0),
    Case("the agent", _STOPPED, programs.agent_stopped, _STOPPED_S),
    Case("the agent", _KILLED, programs.agent_killed, 5.0),
    *_for_one(
        "an agent that dials in",
        dialling_in.to_agent,
        {
            _LATE: (0.5, GOES_ON),
            _ONE_BYTE: (0.5, GOES_ON),
            _HALF_OPEN: (5.0, GOES_ON),
            _RESET: (1.0, GOES_ON),
        },
    ),
    *(case for role in get_args(Role) for case in _of_service(role, _ASKED_S[role])),
    *_for_none("MariaDB", connections.to_database),
    Case("MariaDB", _STOPPED, programs.database_stopped),
    Case("MariaDB", _KILLED, programs.database_killed),
    *_for_none("Redis", connections.to_redis),
    Case("Redis", _STOPPED, programs.redis_stopped),
    Case("Redis", _KILLED, programs.redis_killed),
    *_for_none("a webhook receiver", outside.to_webhooks),
    Case("a webhook receiver", _STOPPED, outside.webhooks_stopped),
    Case("a webhook receiver", _KILLED, outside.webhooks_killed),
    *_for_none("a reader of events", outside.to_events),
    *_for_none("a reader of /metrics", connections.to_http),
    Case("a reader of /metrics", _STOPPED, programs.reader_stopped),
    Case("a reader of /metrics", "killed", programs.reader_killed),
    Case("mediad itself", _STOPPED, programs.mediad_stopped, _STOPPED_S, hits_all=True),
    Case("mediad itself", "killed", programs.mediad_killed, end=_CUT_OFF, hits_all=True),
    Case("the machine", "wall clock 1 h forward", machine.clock_forward),
    Case("the machine", "wall clock 1 h back", machine.clock_back),
    Case("the machine", "disk full for 4 s", machine.disk_full),
    Case("the machine", "no file can be opened for 4 s", machine.no_descriptors),
]
